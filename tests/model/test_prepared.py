"""Prepared models: the outputs of the model itself, with its weights as they are now."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, need_bfloat16

from bert import ops
from bert.finetuning.step import predict
from bert.model.build import build_bert, build_head, cast
from bert.model.encoder import read_first_only, speed_up
from bert.model.prepared import Prepared, layer_parameters, prepare
from bert.model.vectors import Vectors

import gluonnlp as nlp  # isort: skip
import mxnet as mx  # isort: skip

CPU = [mx.cpu()]
WORDS = ['[PAD]', '[CLS]', *map(chr, range(97, 120))]


def build(fused, classes=3, **settings):
    """Build a classifier or, for None, a regression; from the same random numbers each time."""
    sizes = {'num_layers': 3, 'units': 36, 'hidden_size': 70, 'num_heads': 4, 'max_length': 40}
    bert = build_bert(WORDS, **{**sizes, **settings})
    speed_up(bert, fused)
    model = build_head(bert, classes, mx.cpu())
    fill(model)
    return model


def fill(model, seed=5):
    """Fill all parameters with random numbers, and run once so that all have shapes."""
    mx.random.seed(seed)
    model.initialize(mx.init.Normal(0.3), force_reinit=True)
    predict(model, batch(), mx.cpu()).wait_to_read()
    for parameter in model.collect_params().values():
        parameter.set_data(mx.nd.random.normal(0, 0.3, parameter.shape))


def batch(rows=5, length=23, lengths=None):
    rng = np.random.default_rng(rows)
    shape = rows, length
    ids, types = rng.integers(0, len(WORDS), shape), rng.integers(0, 2, shape)
    lengths = rng.integers(1, length + 1, rows) if lengths is None else np.array(lengths)
    return ids.astype('int32'), types.astype('int32'), lengths.astype('float32')


def assert_same(model, prepared, inputs, tolerance=2e-5):
    expected = predict(model, inputs, mx.cpu()).asnumpy()
    found = predict(prepared, inputs, mx.cpu()).asnumpy()
    assert found.shape == expected.shape and np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.fixture
def fused(operators):
    """Return whether the fused operators are used."""
    return operators == 'fused'


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'classes': None},
        {'activation': 'approx_gelu'},
        {'num_layers': 1},
        {'units': 8, 'num_heads': 2, 'hidden_size': 3},
        {'units': 64, 'hidden_size': 1030, 'num_heads': 1},  # several chunks of a panel
        {'layer_norm_eps': 0.5},
    ],
)
def test_a_prepared_model_gives_the_models_outputs(fused, settings):
    """The model itself runs on MXNet's own operators."""
    model = build(fused, **settings)
    prepared = prepare(model, CPU)
    assert isinstance(prepared, Prepared)
    if fused:
        model = build(False, **settings)
    for inputs in (
        batch(),
        batch(1, 1),
        batch(1, 40, [40]),
        batch(2, 7, [1, 7]),
        batch(64, 30),  # each thread takes some rows by itself
    ):
        assert_same(model, prepared, inputs)


def test_folded_weights_give_the_same_bits(monkeypatch):
    monkeypatch.setenv('BERT_STOCK_OPS', '1')
    model = build(False)
    expected = predict(model, batch(), mx.cpu()).asnumpy()
    found = predict(prepare(model, CPU), batch(), mx.cpu()).asnumpy()
    assert expected.tobytes() == found.tobytes()


def test_bfloat16(fused):
    """As far from float32 as the model itself is in bfloat16."""
    if fused:
        need_bfloat16()
    model, exact = build(fused), build(False)
    cast(model, 'bfloat16')
    prepared = prepare(model, CPU)
    assert isinstance(prepared, Prepared) == (fused and ops.has_encoder('bfloat16'))
    for inputs in (batch(), batch(40, 20)):
        found, usual, expected = (
            predict(each, inputs, mx.cpu()).asnumpy() for each in (prepared, model, exact)
        )
        scale = np.abs(expected).max()
        assert np.abs(found - expected).max() < 2 * np.abs(usual - expected).max() + 0.01 * scale
        assert np.abs(found - expected).max() > 1e-5 * scale


@pytest.mark.parametrize('kind', ['mean', 'first', 'pooled', 'tokens'])
@pytest.mark.parametrize('normalized', [False, True])
def test_vectors_of_texts(fused, kind, normalized):
    def build_vectors(fused):
        bert = build_bert(WORDS, 3, 36, 70, 4, 40, use_pooler=kind == 'pooled')
        speed_up(bert, fused)
        if kind in ('first', 'pooled'):
            read_first_only(bert)
        vectors = Vectors(bert, kind, [3], normalized)
        fill(vectors)
        return vectors

    prepared = prepare(build_vectors(fused), CPU)
    assert isinstance(prepared, Prepared)
    for inputs in (batch(), batch(40, 20)):
        assert_same(build_vectors(False), prepared, inputs)


def encode(arrays):
    """Return the encodings of the first model's encoder."""
    bert = build(True).bert
    norm = bert.encoder.layer_norm
    parameters = [
        *(bert.word_embed[0].weight, bert.token_type_embed[0].weight),
        *(bert.encoder.position_weight, norm.gamma, norm.beta),
    ]
    layers = [
        ops.pack_layer([parameter.data() for parameter in layer_parameters(layer)], 'float32')
        for layer in bert.encoder.transformer_cells
    ]
    arrays = [mx.nd.array(array, dtype=array.dtype) for array in arrays]
    embeddings = [parameter.data() for parameter in parameters]
    settings = {'first_only': False, 'dtype': 'float32'}
    return ops.encode(*arrays, embeddings, layers, bert.settings, **settings).asnumpy()


def test_a_row_has_the_same_bits_by_itself(operators):
    """Its columns are shared by the threads then; among others, one thread encodes all of it."""
    if operators != 'fused':
        pytest.skip('no fused operators')
    arrays = batch(64, 30)
    together = encode(arrays)
    for row in range(0, 64, 9):
        alone = encode([array[row : row + 1] for array in arrays])
        assert alone[0].tobytes() == together[row].tobytes()


def test_any_number_of_threads_gives_the_same_bits(operators):
    """With more threads than panels of columns, the rows are cut too."""
    if operators != 'fused':
        pytest.skip('no fused operators')
    folder = Path(__file__).parent
    code = (
        f'import sys; sys.path[:0] = {[str(folder), str(folder.parent), str(ROOT)]}\n'
        'import hashlib, test_prepared as here\n'
        'here.ops.available()\n'
        'found = [here.encode(here.batch(rows, 40)).tobytes() for rows in (1, 3, 11)]\n'
        'print(hashlib.sha256(b"".join(found)).hexdigest())'
    )
    sums = {
        subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code],
            env={**os.environ, 'OMP_NUM_THREADS': threads},
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
        for threads in ('1', '2', '7')
    }
    assert len(sums) == 1 and len(sums.pop()) > 60


def test_a_model_that_has_changed_is_prepared_anew(fused):
    model = build(fused)
    before = predict(prepare(model, CPU), batch(), mx.cpu()).asnumpy()
    fill(model, seed=6)
    prepared = prepare(model, CPU)
    assert_same(model, prepared, batch())
    assert np.abs(predict(prepared, batch(), mx.cpu()).asnumpy() - before).max() > 0.1


def test_devices_and_models_that_are_left_as_they_are(fused):
    model = build(fused)
    assert prepare(model, [mx.gpu()]) is model
    bert = build_bert(WORDS, 2, 12, 20, 2, 40, output_all_encodings=True, use_pooler=False)
    speed_up(bert, fused)
    vectors = Vectors(bert, 'mean', [1, 2], False)
    fill(vectors)
    assert_same(vectors, prepare(vectors, CPU), batch())


def test_wrong_arguments_are_errors(operators):
    if operators != 'fused':
        pytest.skip('no fused operators')
    model = build(True)
    ids, types, lengths = (mx.nd.array(array, dtype=array.dtype) for array in batch())
    compute = prepare(model, CPU)
    for wrong in (
        (ids, types[:, :2], lengths),
        (ids, types, lengths[:2]),
        (ids.astype('float32'), types, lengths),
        (mx.nd.zeros((1, 41), dtype='int32'), mx.nd.zeros((1, 41), dtype='int32'), lengths[:1]),
    ):
        with pytest.raises(mx.MXNetError):
            compute(*wrong).wait_to_read()
    with pytest.raises(mx.MXNetError):
        ops.pack_layer([lengths] * 16, 'float32').wait_to_read()


def test_plain_gluonnlp_agrees(operators):
    """The reference is GluonNLP's own model, not this project's classes."""
    if operators != 'fused':
        pytest.skip('no fused operators')
    model = build(True)
    encoder = nlp.model.bert.BERTEncoder(
        num_layers=3, units=36, hidden_size=70, num_heads=4, max_length=40
    )
    plain = nlp.model.BERTModel(
        encoder, len(WORDS), 2, 36, 36, use_decoder=False, use_classifier=False
    )
    plain.initialize()
    ids, types, lengths = batch()
    plain(*(mx.nd.array(array) for array in (ids, types, lengths)))
    theirs = plain._collect_params_with_prefix()
    for name, parameter in model.bert._collect_params_with_prefix().items():
        theirs[name].set_data(parameter.data())
    _, pooled = plain(*(mx.nd.array(array) for array in (ids, types, lengths)))
    expected = model.classifier(pooled).asnumpy()
    found = predict(prepare(model, CPU), (ids, types, lengths), mx.cpu()).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
