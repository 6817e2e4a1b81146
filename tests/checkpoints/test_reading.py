"""Whole models: directories and Gluon's files, good and damaged."""

import json

import numpy as np
import pytest
from conftest import failure, parameters_of, tiny_vocab

from bert.checkpoints import reading
from bert.checkpoints.contents import Location
from bert.checkpoints.source import locate
from bert.model import parameters
from bert.model.build import build_head, initialize
from bert.model.loading import load_bert
from bert.system.errors import ToolkitError
from bert.text.vocab import Vocab

import mxnet as mx  # isort: skip


# --- directories


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('config.json', '{0}: there is no config.json in this model directory'),
        (
            'model.safetensors',
            '{0}: there are no weights in this model directory, such as model.safetensors, '
            'pytorch_model.bin, model.params or bert_model.ckpt.index',
        ),
        ('vocab.txt', '{0}/vocab.txt: there is no such vocabulary file'),
    ],
)
def test_a_missing_file(folder, name, sentence):
    (folder / name).unlink()
    assert failure(load_bert, str(folder)) == sentence.format(folder)


def test_a_missing_tensor(change):
    def edit(tensors):
        del tensors['encoder.layer.1.output.dense.bias']

    folder = change(edit)
    expected = 'model.safetensors: lacks encoder.transformer_cells.1.ffn.ffn_2.bias'
    assert failure(load_bert, str(folder)) == f'{folder}/{expected}'


def test_many_missing_tensors(change):
    folder = change(lambda tensors: {'embeddings.word_embeddings.weight': np.zeros((196, 16), 'f')})
    sentence = failure(load_bert, str(folder))
    # 2 layers of 16 tensors, two embedding tables and their LayerNorm; five are named.
    assert sentence.startswith(f'{folder}/model.safetensors: lacks ')
    assert sentence.endswith(' and 31 more')
    assert sentence.count(', ') == 4


def test_a_surplus_tensor_of_the_encoder(change):
    def edit(tensors):
        tensors['bert.encoder.layer.2.output.dense.bias'] = np.zeros(16, np.float32)

    folder = change(edit)
    assert failure(load_bert, str(folder)) == (
        f'{folder}/model.safetensors: has encoder.transformer_cells.2.ffn.ffn_2.bias, which this '
        'model has no place for'
    )


def test_an_unknown_tensor_of_the_encoder(change):
    def edit(tensors):
        tensors['encoder.layer.0.attention.self.distance_embedding.weight'] = np.zeros(2, 'f')

    folder = change(edit)
    assert failure(load_bert, str(folder)) == (
        f'{folder}/model.safetensors: encoder.layer.0.attention.self.distance_embedding.weight is '
        'not a tensor of a BERT encoder'
    )


@pytest.mark.parametrize('shape', [(16, 15), (15, 16), (256,), (1, 16, 16)])
def test_a_tensor_of_the_wrong_shape(change, shape):
    def edit(tensors):
        tensors['pooler.dense.weight'] = np.zeros(shape, np.float32)

    folder = change(edit)
    assert failure(load_bert, str(folder)) == (
        f'{folder}/model.safetensors: pooler.weight has the shape {shape}, but this model needs '
        '(16, 16)'
    )


def test_a_tensor_of_integers(change):
    def edit(tensors):
        tensors['pooler.dense.bias'] = np.zeros(16, np.int32)

    folder = change(edit)
    expected = f'{folder}/model.safetensors: pooler.bias has the type int32'
    assert failure(load_bert, str(folder)) == expected


def test_a_configuration_of_far_more_than_the_weights(folder):
    """It is refused before any memory is taken for it."""
    config = json.loads((folder / 'config.json').read_text())
    config.update(hidden_size=2**16, intermediate_size=2**20)
    (folder / 'config.json').write_text(json.dumps(config))
    count = 2 * (4 * (2**16 + 1) * 2**16 + 2**37 + 2**20 + 5 * 2**16) + (196 + 128 + 4) * 2**16
    asks = f'{folder}: the configuration asks for {count} parameters, but '
    assert failure(load_bert, str(folder)) == asks + 'its weights have far fewer'
    assert failure(load_bert, str(folder), pretrained=False) == (
        asks + 'this machine does not have enough memory for them in float32'
    )


@pytest.mark.parametrize('ids', [{'a': 0, 'b': '1'}, {'a': 0, 'b': None}, {'a': 1}, ['a']])
def test_a_tokenizer_without_ids(folder, ids):
    (folder / 'vocab.txt').unlink()
    (folder / 'tokenizer.json').write_text(json.dumps({'model': {'vocab': ids}}))
    assert failure(lambda: reading.read(locate(str(folder)))) == (
        f'{folder}/tokenizer.json: not a WordPiece tokenizer with consecutive ids from 0'
    )


# --- Gluon's files


@pytest.fixture
def gluon_file(tiny_bert, tmp_path):
    bert, _ = load_bert(str(tiny_bert))
    path = tmp_path / 'bert.params'
    bert.save_parameters(str(path))
    return path


def load_encoder(bert, path):
    parameters.set_encoder(bert, reading.read_weights(locate(str(path))))


def load_finetuned(model, path):
    parameters.set_finetuned(model, reading.read_weights(locate(str(path))))


def fresh(tiny_bert):
    return load_bert(str(tiny_bert), pretrained=False)[0]


def test_a_gluon_file_of_the_encoder(tiny_bert, gluon_file):
    bert = fresh(tiny_bert)
    expected = parameters_of(load_bert(str(tiny_bert))[0])
    assert bert.word_embed[0].weight.data().asnumpy().std() < 0.03  # a tenth of the file's
    load_encoder(bert, gluon_file)
    for name, array in parameters_of(bert).items():
        np.testing.assert_array_equal(array, expected[name])


def test_the_encoder_inside_a_classifier(tiny_bert, tmp_path):
    model = build_head(load_bert(str(tiny_bert))[0], 3, [mx.cpu()])
    model.save_parameters(str(tmp_path / 'model.params'))
    bert = fresh(tiny_bert)
    load_encoder(bert, tmp_path / 'model.params')
    expected = parameters_of(model.bert)
    for name, array in parameters_of(bert).items():
        np.testing.assert_array_equal(array, expected[name])


def test_truncated_gluon_file(tiny_bert, gluon_file):
    content = gluon_file.read_bytes()
    for size in (0, 10, 1000, len(content) // 2, len(content) - 1):
        gluon_file.write_bytes(content[:size])
        sentence = failure(load_encoder, fresh(tiny_bert), gluon_file)
        assert sentence.startswith(f'{gluon_file}: not a whole Gluon parameter file (')


def test_no_gluon_file(tiny_bert, tmp_path):
    path = tmp_path / 'nothing.params'
    expected = f'{path}: there is no such parameter file'
    assert failure(load_encoder, fresh(tiny_bert), path) == expected
    path.write_text('some text, long enough to hold a header of any kind')
    assert failure(load_encoder, fresh(tiny_bert), path) == (
        f'{path}: not a whole Gluon parameter file (it does not begin like one)'
    )


def test_a_file_without_names(tiny_bert, tmp_path):
    path = tmp_path / 'list.params'
    mx.nd.save(str(path), [mx.nd.ones((2,))])
    sentence = failure(load_encoder, fresh(tiny_bert), path)
    assert sentence == f'{path}: holds no named parameters'


def test_an_exported_file(tiny_bert, tmp_path):
    model = build_head(load_bert(str(tiny_bert))[0], 2, [mx.cpu()])
    model.hybridize()
    model(mx.nd.ones((1, 5)), mx.nd.zeros((1, 5)), mx.nd.array([5]))
    model.export(str(tmp_path / 'model'))
    path = tmp_path / 'model-0000.params'
    assert failure(load_finetuned, model, path) == (
        f'{path}: was written by HybridBlock.export for deployment; training takes the file that '
        'save_parameters wrote'
    )


def test_another_number_of_classes(tiny_bert, tmp_path):
    bert, _ = load_bert(str(tiny_bert))
    path = tmp_path / 'three.params'
    build_head(bert, 3, [mx.cpu()]).save_parameters(str(path))
    expected = f'{path}: classifier.1.weight has the shape (3, 16), but this model needs (2, 16)'
    assert failure(load_finetuned, build_head(bert, 2, [mx.cpu()]), path) == expected
    expected = f'{path}: regression.1.weight has the shape (3, 16), but this model needs (1, 16)'
    assert failure(load_finetuned, build_head(bert, None, [mx.cpu()]), path) == expected


def test_a_block_that_has_not_seen_its_input_yet():
    block = mx.gluon.nn.Dense(3)
    initialize(block, [mx.cpu(0), mx.cpu(1)])
    values = {'weight': np.ones((3, 7), np.float64), 'bias': np.arange(3, dtype=np.float32)}
    assert parameters.set_parameters(block, values, 'here') == []
    for ctx in (mx.cpu(0), mx.cpu(1)):
        assert block.weight.data(ctx).asnumpy().tolist() == np.ones((3, 7)).tolist()
        assert block.bias.data(ctx).asnumpy().tolist() == [0, 1, 2]
    assert block.weight.data().dtype == np.float32


# Casing.


@pytest.mark.parametrize(
    ('config', 'capitals', 'expected'),
    [
        ({'do_lower_case': True}, True, True),
        ({'do_lower_case': False}, False, False),
        ({}, False, True),
        ({}, True, False),
        ({'do_lower_case': 'yes'}, True, False),
        (None, False, True),
        (None, True, False),
    ],
)
def test_casing_of_a_directory(tmp_path, config, capitals, expected):
    """tokenizer_config.json decides if it states the casing, otherwise the vocabulary does."""
    vocab = Vocab([*tiny_vocab(), *['The'] * capitals])
    if config is not None:
        (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
    lower, reason = reading.read_casing(reading.find_parts(tmp_path), vocab)
    assert lower is expected
    is_said = config is not None and isinstance(config.get('do_lower_case'), bool)
    path = tmp_path / 'tokenizer_config.json'
    assert reason == (f'by {path}' if is_said else 'by its vocabulary')


@pytest.mark.parametrize(
    ('data_set', 'expected'),
    [
        ('book_corpus_wiki_en_uncased', True),
        ('book_corpus_wiki_en_cased', False),
        ('wiki_multilingual', True),
        ('wiki_multilingual_cased', False),
        ('wiki_cn', False),
    ],
)
def test_casing_of_a_zoo_model(data_set, expected):
    location = Location(None, None, None, ('bert_12_768_12', data_set))
    lower, reason = reading.read_casing(location, None)
    assert (lower, reason) == (expected, f'by its name {data_set}')


def test_a_damaged_tokenizer_config(tmp_path):
    path = tmp_path / 'tokenizer_config.json'
    path.write_text('{"do_lower_case": true')
    with pytest.raises(ToolkitError) as caught:
        reading.read_casing(reading.find_parts(tmp_path), Vocab(tiny_vocab()))
    assert str(caught.value) == f'{path}: not a JSON object'


def test_weights_that_go_with_another_order_of_tokens(folder):
    """With the same tokens, too, the order must be that of the other model."""
    location, tokens = locate(str(folder)), tiny_vocab()
    reading.check_vocab(location, Vocab(tokens))
    assert failure(reading.check_vocab, location, Vocab(tokens[::-1])) == (
        f'{folder}/model.safetensors: goes with {folder}/vocab.txt, which is not the vocabulary of '
        'the other model: name the folder instead of the file'
    )
