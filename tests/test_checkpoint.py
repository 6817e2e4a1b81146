"""Parameter names and files, good and damaged, in Hugging Face's layout and Gluon's."""

import doctest
import json
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert import checkpoint  # bert before mxnet: see bert.environment
from bert.cli import ToolkitError
from bert.model import build_bert, build_head, initialize, load_bert, load_encoder, load_finetuned
from bert.vocab import load_vocab

import mxnet as mx  # isort: skip


@pytest.fixture
def folder(tiny_bert, tmp_path):
    """A copy of the tiny model that a test may damage."""
    shutil.copytree(tiny_bert, tmp_path / 'bert')
    return tmp_path / 'bert'


@pytest.fixture
def change(folder):
    """A function that edits the tensors of the copy."""

    def apply(edit):
        tensors = load_file(folder / 'model.safetensors')
        tensors = edit(tensors) or tensors
        save_file(tensors, folder / 'model.safetensors')
        return folder

    return apply


def parameters_of(block):
    return {
        name: p.data(p.list_ctx()[0]).asnumpy()
        for name, p in block._collect_params_with_prefix().items()
    }


def failure(function, *args, **kwargs):
    with pytest.raises(ToolkitError) as caught:
        function(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


# --- names


def test_examples_of_the_docstrings():
    result = doctest.testmod(checkpoint)
    assert result.attempted and not result.failed


def test_every_parameter_of_a_full_model_has_one_name_on_the_other_side(tiny_bert):
    settings = checkpoint.read_config(tiny_bert)
    settings.pop('vocab_size')
    bert = build_bert(
        load_vocab(tiny_bert / 'vocab.txt'), **settings, use_decoder=True, use_classifier=True
    )
    ours = set(bert._collect_params_with_prefix())
    theirs = set(checkpoint.TOP_NAMES) | {
        f'encoder.layer.{layer}.{name}' for layer in (0, 1) for name in checkpoint.LAYER_NAMES
    }
    mapped = [checkpoint.gluon_name(name) for name in theirs]
    assert len(set(mapped)) == len(mapped)
    assert set(mapped) == ours


def test_published_names():
    """Written down from the table of the published files, apart from the maps."""
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
        assert checkpoint.gluon_name(theirs) == ours
    for name in ('embeddings.position_ids', 'qa_outputs.weight', 'encoder.layer.x.output.dense'):
        assert checkpoint.gluon_name(name) is None


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
        np.testing.assert_array_equal(found[checkpoint.gluon_name(name)], array)
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

    found = checkpoint.read_safetensors(change(edit) / 'model.safetensors')
    for name, tensor in load_file(tiny_bert / 'model.safetensors').items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], tensor.astype(np.float16).astype(np.float32))


def write_safetensors(path, entries):
    """The format by hand: (dtype, shape, bytes) by name."""
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
    found = checkpoint.read_safetensors(path)
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
    found = checkpoint.read_huggingface(folder)
    for name, tensor in tensors.items():
        truncated = found[checkpoint.gluon_name(name)]
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


# --- directories


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('config.json', '{0}: there is no config.json in this model directory'),
        ('model.safetensors', '{0}: there is no model.safetensors in this model directory'),
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
        'no tensor of a BERT encoder'
    )


@pytest.mark.parametrize('shape', [(16, 15), (15, 16), (256,), (1, 16, 16)])
def test_a_tensor_of_the_wrong_shape(change, shape):
    def edit(tensors):
        tensors['pooler.dense.weight'] = np.zeros(shape, np.float32)

    folder = change(edit)
    assert failure(load_bert, str(folder)) == (
        f'{folder}/model.safetensors: pooler.weight has the shape {shape}, and this model wants '
        '(16, 16)'
    )


def test_a_tensor_of_integers(change):
    def edit(tensors):
        tensors['pooler.dense.bias'] = np.zeros(16, np.int32)

    folder = change(edit)
    expected = f'{folder}/model.safetensors: pooler.bias has the type int32'
    assert failure(load_bert, str(folder)) == expected


# --- config.json

CONFIG = {
    'num_hidden_layers': 2,
    'hidden_size': 16,
    'intermediate_size': 32,
    'num_attention_heads': 2,
    'max_position_embeddings': 128,
    'vocab_size': 196,
    'type_vocab_size': 2,
}


def test_settings_and_their_defaults():
    assert checkpoint.parse_config(CONFIG, 'config.json') == {
        'num_layers': 2,
        'units': 16,
        'hidden_size': 32,
        'num_heads': 2,
        'max_length': 128,
        'vocab_size': 196,
        'token_type_vocab_size': 2,
        'activation': 'gelu',
        'dropout': 0.1,
        'layer_norm_eps': 1e-12,
    }


@pytest.mark.parametrize('activation', ['gelu', 'gelu_new'])
def test_settings_survive_the_round_trip(activation):
    config = {**CONFIG, 'hidden_act': activation, 'hidden_dropout_prob': 0.0, 'layer_norm_eps': 0.5}
    settings = checkpoint.parse_config(config, 'config.json')
    written = checkpoint.format_config(settings)
    assert {key: written[key] for key in config} == config
    assert checkpoint.parse_config(written, 'config.json') == settings


@pytest.mark.parametrize('key', CONFIG)
@pytest.mark.parametrize('value', [None, 0, -1, '12', 1.5, True, 2**24])
def test_sizes_that_are_missing_or_none(key, value):
    config = {**CONFIG, key: value}
    if value is None:
        del config[key]
    sentence = failure(checkpoint.parse_config, config, 'd/config.json')
    assert sentence == f'd/config.json: {key} is {value!r}, not a positive whole number'


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'num_attention_heads': 3}, 'hidden_size 16 is not a multiple of num_attention_heads 3'),
        ({'model_type': 'roberta'}, "model_type is 'roberta'; this reads 'bert' only"),
        (
            {'position_embedding_type': 'relative_key'},
            "position_embedding_type is 'relative_key'; this reads 'absolute' only",
        ),
        ({'hidden_act': 'relu'}, "hidden_act is 'relu', not one of ['gelu', 'gelu_new', "),
        ({'hidden_act': ['gelu']}, "hidden_act is ['gelu'], not one of ['gelu', 'gelu_new', "),
        ({'hidden_dropout_prob': 1}, 'hidden_dropout_prob is 1, not a number from 0 to below 1'),
        ({'hidden_dropout_prob': None}, 'hidden_dropout_prob is None, not a number from 0'),
        ({'layer_norm_eps': '1e-12'}, "layer_norm_eps is '1e-12', not a number from 0 to below 1"),
    ],
)
def test_settings_that_do_not_fit(changes, sentence):
    found = failure(checkpoint.parse_config, {**CONFIG, **changes}, 'config.json')
    assert found.startswith(f'config.json: {sentence}')


# --- Gluon's files


@pytest.fixture
def gluon_file(tiny_bert, tmp_path):
    bert, _ = load_bert(str(tiny_bert))
    path = tmp_path / 'bert.params'
    bert.save_parameters(str(path))
    return path


def fresh(tiny_bert):
    return load_bert(str(tiny_bert), pretrained=False)[0]


def test_a_gluon_file_of_the_encoder(tiny_bert, gluon_file):
    bert = fresh(tiny_bert)
    expected = parameters_of(load_bert(str(tiny_bert))[0])
    assert bert.word_embed[0].weight.data().asnumpy().std() < 0.03  # ten times those of the file
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
        assert sentence == f'{gluon_file}: not a whole Gluon parameter file'


def test_no_gluon_file(tiny_bert, tmp_path):
    path = tmp_path / 'nothing.params'
    expected = f'{path}: there is no such parameter file'
    assert failure(load_encoder, fresh(tiny_bert), path) == expected
    assert failure(load_encoder, fresh(tiny_bert), tmp_path) == (
        f'{tmp_path}: there is no such parameter file'
    )
    path.write_text('some text, long enough to hold a header of any kind')
    assert failure(load_encoder, fresh(tiny_bert), path) == (
        f'{path}: not a whole Gluon parameter file'
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
    expected = f'{path}: classifier.1.weight has the shape (3, 16), and this model wants (2, 16)'
    assert failure(load_finetuned, build_head(bert, 2, [mx.cpu()]), path) == expected
    expected = f'{path}: lacks regression.1.weight, regression.1.bias'
    assert failure(load_finetuned, build_head(bert, None, [mx.cpu()]), path) == expected


def test_a_block_that_has_not_seen_its_input_yet():
    block = mx.gluon.nn.Dense(3)
    initialize(block, [mx.cpu(0), mx.cpu(1)])
    values = {'weight': np.ones((3, 7), np.float64), 'bias': np.arange(3, dtype=np.float32)}
    assert checkpoint.set_parameters(block, values, 'here') == []
    for ctx in (mx.cpu(0), mx.cpu(1)):
        assert block.weight.data(ctx).asnumpy().tolist() == np.ones((3, 7)).tolist()
        assert block.bias.data(ctx).asnumpy().tolist() == [0, 1, 2]
    assert block.weight.data().dtype == np.float32


# --- output directories


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ('[]', 'not a JSON object'),
        ('{}', 'flags is not a table'),
        ('{"flags": {}, "labels": "ab"}', 'labels is not a list of names'),
        ('{"flags": {}, "labels": [0, 1]}', 'labels is not a list of names'),
        ('{"flags": {}}', 'parameters is not the name of a file in this folder'),
        (
            '{"flags": {}, "parameters": "../other.params"}',
            'parameters is not the name of a file in this folder',
        ),
    ],
)
def test_damaged_finetune_json(tmp_path, content, sentence):
    path = tmp_path / 'finetune.json'
    path.write_text(content)
    assert failure(checkpoint.read_finetuned, tmp_path) == f'{path}: {sentence}'


def test_finetune_json(tmp_path):
    assert not checkpoint.is_finetuned(tmp_path)
    content = {'flags': {'max_len': 9}, 'labels': None, 'parameters': 'a.params', 'more': 1}
    (tmp_path / 'finetune.json').write_text(json.dumps(content))
    assert checkpoint.is_finetuned(tmp_path)
    assert checkpoint.read_finetuned(tmp_path) == {
        'flags': {'max_len': 9},
        'labels': None,
        'parameters': tmp_path / 'a.params',
    }
