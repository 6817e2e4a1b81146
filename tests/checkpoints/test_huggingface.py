"""Hugging Face's names and files, good and damaged."""

import doctest
import json
import shutil
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, failure, parameters_of
from safetensors.numpy import load_file

from bert.checkpoints import huggingface, reading
from bert.checkpoints import tensors as checkpoints_tensors
from bert.checkpoints.source import locate
from bert.checkpoints.tensors import read_pytorch, read_safetensors
from bert.model.build import build_bert
from bert.model.loading import load_bert
from bert.text.vocab import load_vocab

import mxnet as mx  # isort: skip


# --- names


def test_examples_of_the_docstrings():
    result = doctest.testmod(huggingface)
    assert result.attempted and not result.failed


def test_every_parameter_of_a_full_model_has_one_name_on_the_other_side(tiny_bert):
    settings = reading.read_settings(locate(str(tiny_bert)))
    settings.pop('vocab_size')
    bert = build_bert(
        load_vocab(tiny_bert / 'vocab.txt'), **settings, use_decoder=True, use_classifier=True
    )
    ours = set(bert._collect_params_with_prefix())
    theirs = set(huggingface.TOP_NAMES) | {
        f'encoder.layer.{layer}.{name}' for layer in (0, 1) for name in huggingface.LAYER_NAMES
    }
    mapped = [huggingface.gluon_name(name) for name in theirs]
    assert len(set(mapped)) == len(mapped)
    assert set(mapped) == ours


def test_published_names():
    """The names are from the table of the published files, independent of the maps."""
    for theirs, ours in {
        'embeddings.word_embeddings.weight': 'word_embed.0.weight',
        'bert.embeddings.token_type_embeddings.weight': 'token_type_embed.0.weight',
        'bert.embeddings.position_embeddings.weight': 'encoder.position_weight',
        'bert.embeddings.LayerNorm.gamma': 'encoder.layer_norm.gamma',
        'bert.embeddings.LayerNorm.bias': 'encoder.layer_norm.beta',
        'encoder.layer.11.attention.self.key.bias': 'encoder.transformer_cells.11.'
        'attention_cell.proj_key.bias',
        'bert.encoder.layer.0.attention.output.LayerNorm.beta': 'encoder.transformer_cells.0.'
        'layer_norm.beta',
        'bert.encoder.layer.0.attention.output.dense.weight': 'encoder.transformer_cells.0.'
        'proj.weight',
        'bert.encoder.layer.0.intermediate.dense.weight': 'encoder.transformer_cells.0.'
        'ffn.ffn_1.weight',
        'bert.encoder.layer.23.output.LayerNorm.weight': 'encoder.transformer_cells.23.'
        'ffn.layer_norm.gamma',
        'bert.pooler.dense.bias': 'pooler.bias',
        'cls.predictions.transform.dense.weight': 'decoder.0.weight',
        'cls.predictions.transform.LayerNorm.gamma': 'decoder.2.gamma',
        'cls.predictions.bias': 'decoder.3.bias',
        'cls.seq_relationship.weight': 'classifier.weight',
    }.items():
        assert huggingface.gluon_name(theirs) == ours
    for name in ('embeddings.position_ids', 'qa_outputs.weight', 'encoder.layer.x.output.dense'):
        assert huggingface.gluon_name(name) is None


@pytest.mark.parametrize('style', ['plain', 'prefixed', '2018'])
def test_all_spellings_load_alike(tiny_bert, change, style):
    def edit(tensors):
        if style == '2018':
            for name in list(tensors):
                old = name.replace('LayerNorm.weight', 'LayerNorm.gamma')
                old = old.replace('LayerNorm.bias', 'LayerNorm.beta')
                tensors[f'bert.{old}'] = tensors.pop(name)
        elif style == 'prefixed':
            tensors = {f'bert.{name}': tensor for name, tensor in tensors.items()}
            tensors['bert.embeddings.position_ids'] = np.arange(128)[None]
            tensors['cls.predictions.decoder.bias'] = np.zeros(196, np.float32)
            tensors['qa_outputs.weight'] = np.zeros((2, 16), np.float32)
        return tensors

    expected = parameters_of(load_bert(str(tiny_bert))[0])
    found = parameters_of(load_bert(str(change(edit)))[0])
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_heads_are_read_where_they_are(change):
    rng = np.random.default_rng(1)
    heads = {
        'cls.predictions.transform.dense.weight': rng.normal(size=(16, 16)),
        'cls.predictions.transform.dense.bias': rng.normal(size=16),
        'cls.predictions.transform.LayerNorm.weight': rng.normal(size=16),
        'cls.predictions.transform.LayerNorm.bias': rng.normal(size=16),
        'cls.predictions.bias': rng.normal(size=196),
        'cls.seq_relationship.weight': rng.normal(size=(2, 16)),
        'cls.seq_relationship.bias': rng.normal(size=2),
    }
    heads = {name: array.astype(np.float32) for name, array in heads.items()}

    def add(tensors):
        tensors.update(heads)

    bert, _ = load_bert(str(change(add)), use_decoder=True, use_classifier=True)
    found = parameters_of(bert)
    for name, array in heads.items():
        np.testing.assert_array_equal(found[huggingface.gluon_name(name)], array)
    # The output weight is the word embedding.
    np.testing.assert_array_equal(found['decoder.3.weight'], found['word_embed.0.weight'])


def test_a_head_that_is_missing_is_initialised_and_logged(folder, caplog):
    with caplog.at_level('INFO'):
        bert, _ = load_bert(str(folder), use_decoder=True, use_classifier=True)
    assert f'{folder}/model.safetensors lacks ' in caplog.text
    for name in ('decoder.0.weight', 'decoder.3.bias', 'classifier.weight'):
        assert name in caplog.text
    tokens = mx.nd.ones((1, 3))
    bert(tokens, mx.nd.zeros((1, 3)), mx.nd.array([3]), mx.nd.array([[1]]))
    assert 0.01 < parameters_of(bert)['classifier.weight'].std() < 0.03


# --- safetensors


def test_float16_tensors(change, tiny_bert):
    def edit(tensors):
        return {name: tensor.astype(np.float16) for name, tensor in tensors.items()}

    found = read_safetensors(change(edit) / 'model.safetensors')
    for name, tensor in load_file(tiny_bert / 'model.safetensors').items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], tensor.astype(np.float16).astype(np.float32))


def write_safetensors(path, entries):
    """Write the format by hand, from (dtype, shape, bytes) by name."""
    header, data = {'__metadata__': {'format': 'pt'}}, b''
    for name, (dtype, shape, raw) in entries.items():
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + data)


def test_bfloat16_tensors(tmp_path):
    """bfloat16 is the upper half of float32: 1.0 is 0x3f80, -2.5 0xc020, 3.140625 0x4049."""
    path = tmp_path / 'model.safetensors'
    half = struct.pack('<6H', 0x3F80, 0xC020, 0x4049, 0x0000, 0x8000, 0x7F80)
    single = np.arange(4, dtype='<f4')
    write_safetensors(
        path,
        {
            'first': ('F32', [4], single.tobytes()),
            'half': ('BF16', [2, 3], half),
            'last': ('F16', [1], struct.pack('<e', 0.5)),
        },
    )
    found = checkpoints_tensors.read_safetensors(path)
    expected = [[1.0, -2.5, 3.140625], [0.0, -0.0, np.inf]]
    np.testing.assert_array_equal(found['half'], np.array(expected, np.float32))
    np.testing.assert_array_equal(found['first'], single)
    assert found['last'].tolist() == [0.5]
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}


def test_bfloat16_model(folder, tiny_bert):
    tensors = load_file(tiny_bert / 'model.safetensors')
    entries = {
        name: ('BF16', list(tensor.shape), (tensor.view(np.uint32) >> 16).astype('<u2').tobytes())
        for name, tensor in tensors.items()
    }
    write_safetensors(folder / 'model.safetensors', entries)
    found = reading.read_weights(locate(str(folder))).bert
    for name, tensor in tensors.items():
        truncated = found[huggingface.gluon_name(name)]
        np.testing.assert_allclose(truncated, tensor, rtol=2**-7)
        assert (truncated != tensor).any()


@pytest.mark.parametrize('cut', [0, 4, 8, 100, 5000, -1])
def test_truncated_safetensors(folder, cut):
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:cut])
    sentence = failure(load_bert, str(folder))
    assert sentence.startswith(f'{path}: not a whole safetensors file (')


@pytest.mark.parametrize(
    'content',
    [
        b'not a model, but some text\n',
        b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440449768\n',
        struct.pack('<Q', 2) + b'[]',
        struct.pack('<Q', 2) + b'\xff\xff',
        struct.pack('<Q', 7) + b'{"a":1}',
        struct.pack('<Q', 8) + b'{"a":{}}',
        struct.pack('<Q', 50000) + b'[' * 50000,
        struct.pack('<Q', 2**62),
    ],
)
def test_what_is_no_safetensors_file(folder, content):
    path = folder / 'model.safetensors'
    path.write_bytes(content)
    sentence = failure(load_bert, str(folder))
    assert sentence.startswith(f'{path}: not a whole safetensors file (')


# --- shards and PyTorch's format

GOLDEN = ROOT / 'tests' / 'data' / 'checkpoints'


@pytest.fixture
def sharded(tmp_path):
    """Return a copy of the model in two parts."""
    shutil.copytree(GOLDEN / 'hf_sharded', tmp_path / 'sharded')
    return tmp_path / 'sharded'


def test_a_part_that_is_missing(sharded):
    shard = sharded / 'model-00002-of-00002.safetensors'
    shard.unlink()
    assert failure(load_bert, str(sharded)) == f'{shard}: this part of the weights is missing'


@pytest.mark.parametrize(
    ('table', 'sentence'),
    [
        (None, 'weight_map does not name files beside this one'),
        ({'a': 3}, 'weight_map does not name files beside this one'),
        ({'a': '../other.safetensors'}, 'weight_map does not name files beside this one'),
        ({'a': ''}, 'weight_map does not name files beside this one'),
        ({'a': '..'}, 'weight_map does not name files beside this one'),
        ({'a': 'a\x00.safetensors'}, 'weight_map does not name files beside this one'),
        # itself, endlessly
        (
            {'a': 'model.safetensors.index.json'},
            'weight_map does not name files beside this one',
        ),
        ({'a': '/etc/passwd'}, 'weight_map does not name files beside this one'),
        (
            {'a.weight': 'model-00001-of-00002.safetensors'},
            'a.weight is in none of the files that it names',
        ),
    ],
)
def test_a_wrong_index(sharded, table, sentence):
    path = sharded / 'model.safetensors.index.json'
    path.write_text(json.dumps({'weight_map': table}))
    assert failure(load_bert, str(sharded)) == f'{path}: {sentence}'


def test_pytorch_files_without_pytorch(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    path = GOLDEN / 'hf_2018'
    assert failure(load_bert, str(path)) == (
        f'{path}/pytorch_model.bin: PyTorch is needed to read this file: pip install torch; or '
        'name a model that has a model.safetensors'
    )


def test_pytorch_is_asked_for_tensors_alone(monkeypatch, tmp_path):
    def load(path, **keywords):
        assert keywords['weights_only'] is True
        return {}

    monkeypatch.setitem(sys.modules, 'torch', SimpleNamespace(load=load))
    assert read_pytorch(tmp_path / 'pytorch_model.bin') == {}


class Mischief:
    """An object that shows what a pickle can do when it is loaded."""

    def __reduce__(self):
        return (print, ('the file has run a program',))


def test_a_pickle_that_is_no_tensor_is_not_run(tmp_path, capsys):
    torch = pytest.importorskip('torch')
    shutil.copytree(GOLDEN / 'hf_2018', tmp_path / 'bert')
    path = tmp_path / 'bert' / 'pytorch_model.bin'
    torch.save({'weight': Mischief()}, path)
    sentence = failure(load_bert, str(path.parent))
    assert sentence.startswith(f'{path}: not a whole file of PyTorch tensors (')
    assert 'has run' not in capsys.readouterr().out
    path.write_bytes(b'no pickle')
    sentence = failure(load_bert, str(path.parent))
    assert sentence.startswith(f'{path}: not a whole file of PyTorch tensors (')


def test_the_head_of_another_task_is_left_out(sharded):
    """The head of a tagger has the name of a classifier's."""
    path = GOLDEN / 'hf_classifier' / 'model.safetensors'
    assert set(huggingface.read_weights(path, 'BertForSequenceClassification')[1]) == {
        'weight',
        'bias',
    }
    assert huggingface.read_weights(path, 'BertForTokenClassification')[1] == {}
