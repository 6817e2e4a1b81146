"""Google's checkpoints: names, and what happens without TensorFlow or with half a file.

Their numbers are tested in tests/convert/test_witnesses.py.
"""

import doctest
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, failure

from bert.checkpoints import tensorflow
from bert.model.loading import load_bert

GOOGLE = ROOT / 'tests' / 'data' / 'checkpoints' / 'google'


def test_examples_of_the_docstrings():
    result = doctest.testmod(tensorflow)
    assert result.attempted and not result.failed


def test_published_names():
    """The names are from the listing of uncased_L-12_H-768_A-12."""
    for theirs, ours in {
        'bert/embeddings/word_embeddings': 'word_embed.0.weight',
        'bert/embeddings/position_embeddings': 'encoder.position_weight',
        'bert/embeddings/token_type_embeddings': 'token_type_embed.0.weight',
        'bert/embeddings/LayerNorm/gamma': 'encoder.layer_norm.gamma',
        'bert/encoder/layer_0/attention/self/query/kernel': 'encoder.transformer_cells.0.'
        'attention_cell.proj_query.weight',
        'bert/encoder/layer_11/attention/output/dense/bias': 'encoder.transformer_cells.11.'
        'proj.bias',
        'bert/encoder/layer_2/attention/output/LayerNorm/beta': 'encoder.transformer_cells.2.'
        'layer_norm.beta',
        'bert/encoder/layer_2/intermediate/dense/kernel': 'encoder.transformer_cells.2.ffn.'
        'ffn_1.weight',
        'bert/encoder/layer_2/output/LayerNorm/gamma': 'encoder.transformer_cells.2.ffn.'
        'layer_norm.gamma',
        'bert/pooler/dense/kernel': 'pooler.weight',
        'cls/predictions/transform/dense/kernel': 'decoder.0.weight',
        'cls/predictions/transform/LayerNorm/beta': 'decoder.2.beta',
        'cls/predictions/output_bias': 'decoder.3.bias',
        'cls/seq_relationship/output_weights': 'classifier.weight',
        'cls/seq_relationship/output_bias': 'classifier.bias',
    }.items():
        assert tensorflow.gluon_name_of(theirs) == ours
    assert tensorflow.gluon_name_of('bert/encoder/layer_0/other/kernel') is None
    state = tensorflow.TRAINING_STATE
    assert state.match('global_step') and state.match('bert/pooler/dense/kernel/adam_v')
    assert not state.match('bert/pooler/dense/kernel')


def test_kernels_are_transposed_and_nothing_else(monkeypatch):
    """TensorFlow multiplies from the other side; the head of run_classifier.py is no kernel."""
    names = [
        'bert/embeddings/word_embeddings',
        'bert/encoder/layer_1/intermediate/dense/kernel',
        'bert/encoder/layer_1/intermediate/dense/bias',
        'bert/encoder/layer_1/intermediate/dense/kernel/adam_m',
        'output_weights',
        'output_bias',
    ]
    matrix = np.arange(6.0).reshape(2, 3)
    variables = {name: matrix[0] if 'bias' in name else matrix for name in names}
    reader = SimpleNamespace(
        get_tensor=variables.__getitem__,
        get_variable_to_shape_map=lambda: {name: array.shape for name, array in variables.items()},
    )
    module = SimpleNamespace(train=SimpleNamespace(load_checkpoint=lambda prefix: reader))
    monkeypatch.setitem(sys.modules, 'tensorflow', module)
    parameters, head = tensorflow.read_weights(GOOGLE / 'bert_model.ckpt.index')
    cell = 'encoder.transformer_cells.1.ffn.ffn_1'
    expected = {
        'word_embed.0.weight': matrix,
        f'{cell}.weight': matrix.T,
        f'{cell}.bias': matrix[0],
    }
    assert parameters.keys() == expected.keys()
    for name, array in {**expected, 'weight': matrix, 'bias': matrix[0]}.items():
        np.testing.assert_array_equal({**parameters, **head}[name], array, err_msg=name)


def test_without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow', None)
    assert failure(load_bert, str(GOOGLE)) == (
        f'{GOOGLE}/bert_model.ckpt.index: TensorFlow is needed to read this file: '
        "pip install '.[tensorflow]' in the toolkit's folder"
    )


@pytest.mark.parametrize('name', ['bert_model.ckpt.index', 'bert_model.ckpt.data-00000-of-00001'])
def test_half_a_checkpoint(name, tmp_path):
    pytest.importorskip('tensorflow')
    folder = tmp_path / 'google'
    shutil.copytree(GOOGLE, folder)
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sentence = failure(load_bert, str(folder))
    assert sentence.startswith(f'{folder}/bert_model.ckpt: not a whole TensorFlow checkpoint (')
