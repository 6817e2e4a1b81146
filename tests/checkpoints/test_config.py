"""``config.json``: sizes, activations and labels, good and bad."""

import doctest
import json

import numpy as np
import pytest
from conftest import failure

from bert.checkpoints import config, reading
from bert.checkpoints import config as checkpoints_config
from bert.checkpoints.config import (
    count_parameters,
    format_config,
    infer_settings,
    parse_config,
    parse_labels,
)


def test_examples_of_the_docstrings():
    result = doctest.testmod(config)
    assert result.attempted and not result.failed


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
    assert parse_config(CONFIG, 'config.json') == {
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
    settings = checkpoints_config.parse_config(config, 'config.json')
    written = format_config(settings)
    assert {key: written[key] for key in config} == config
    assert checkpoints_config.parse_config(written, 'config.json') == settings


@pytest.mark.parametrize('key', CONFIG)
@pytest.mark.parametrize('value', [None, 0, -1, '12', 1.5, True, 2**24])
def test_sizes_that_are_missing_or_none(key, value):
    config = {**CONFIG, key: value}
    if value is None:
        del config[key]
    sentence = failure(checkpoints_config.parse_config, config, 'd/config.json')
    assert sentence == f'd/config.json: {key} is {value!r}, not a positive whole number'


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'num_attention_heads': 3}, 'hidden_size 16 is not a multiple of num_attention_heads 3'),
        ({'model_type': 'roberta'}, "model_type is 'roberta', not 'bert'"),
        (
            {'position_embedding_type': 'relative_key'},
            "position_embedding_type is 'relative_key', not 'absolute'",
        ),
        ({'hidden_act': 'relu'}, "hidden_act is 'relu', not one of ['gelu', 'gelu_new', "),
        ({'hidden_act': ['gelu']}, "hidden_act is ['gelu'], not one of ['gelu', 'gelu_new', "),
        ({'hidden_dropout_prob': 1}, 'hidden_dropout_prob is 1, not a number from 0 to below 1'),
        ({'hidden_dropout_prob': None}, 'hidden_dropout_prob is None, not a number from 0'),
        ({'layer_norm_eps': '1e-12'}, "layer_norm_eps is '1e-12', not a number from 0 to below 1"),
    ],
)
def test_settings_that_do_not_fit(changes, sentence):
    found = failure(checkpoints_config.parse_config, {**CONFIG, **changes}, 'config.json')
    assert found.startswith(f'config.json: {sentence}')


# --- labels, and sizes from shapes


@pytest.mark.parametrize(
    ('key', 'value', 'most'),
    [('num_hidden_layers', 2**24 - 1, 1000), ('vocab_size', 2**23, 2**22)],
)
def test_sizes_that_no_machine_has_room_for(key, value, most):
    sentence = failure(checkpoints_config.parse_config, {**CONFIG, key: value}, 'config.json')
    assert sentence == f'config.json: {key} is {value}, more than {most}'


def test_the_number_of_parameters():
    """By hand: a layer has 4 x (4 + 1) x 4 + 2 x 4 x 6 + 6 + 4 and two LayerNorms of 2 x 4; 15
    rows of embeddings and one more LayerNorm."""
    settings = {'num_layers': 3, 'units': 4, 'hidden_size': 6}
    settings.update(vocab_size=10, max_length=3, token_type_vocab_size=2)
    assert count_parameters(settings) == 3 * (80 + 48 + 10 + 16) + 15 * 4 + 8


def test_shapes_without_elements_tell_no_sizes():
    parameters = shapes(768)
    parameters['encoder.position_weight'] = np.zeros((2**40, 0))
    assert failure(infer_settings, parameters, 'x.params') == (
        f'x.params: encoder.position_weight has the shape ({2**40}, 0)'
    )
    parameters['encoder.position_weight'] = np.zeros(())
    assert failure(checkpoints_config.infer_settings, parameters, 'x.params') == (
        'x.params: encoder.position_weight has the shape ()'
    )


def test_labels():
    parse = parse_labels
    assert parse({'id2label': {'0': 'a', '2': 'c', '1': 'b'}}, 'p') == ['a', 'b', 'c']
    assert parse({}, 'p', classes=3) == ['LABEL_0', 'LABEL_1', 'LABEL_2']
    assert parse({'id2label': {'0': 'LABEL_0'}}, 'p') is None
    assert parse({'id2label': {'0': 'a', '1': 'b'}, 'problem_type': 'regression'}, 'p') is None
    several = {'problem_type': 'multi_label_classification'}
    assert parse({'id2label': {'0': 'a', '1': 'b'}, **several}, 'p') == ['a', 'b']
    assert parse({'id2label': {'0': 'a'}, **several}, 'p') == ['a']
    sentence = failure(parse, {'id2label': {}, **several}, 'p')
    assert sentence == 'p: id2label does not map the ids from 0 on to names'


@pytest.mark.parametrize('table', [['a', 'b'], {'1': 'a', '2': 'b'}, {'zero': 'a'}])
def test_labels_that_are_none(table):
    sentence = failure(checkpoints_config.parse_labels, {'id2label': table}, 'config.json')
    assert sentence == 'config.json: id2label does not map the ids from 0 on to names'


def shapes(units, layers=12):
    """Return parameters of a BERT that take no memory."""
    return {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in {
            'word_embed.0.weight': (28996, units),
            'encoder.position_weight': (512, units),
            'token_type_embed.0.weight': (2, units),
            **{
                f'encoder.transformer_cells.{i}.ffn.ffn_1.weight': (4 * units, units)
                for i in range(layers)
            },
        }.items()
    }


@pytest.mark.parametrize(
    ('name', 'count'),
    [
        ('bert_2_128_2', 4385920),
        ('bert_4_256_4', 11170560),
        ('bert_4_512_8', 28763648),
        ('bert_8_512_8', 41373184),
        ('bert_12_768_12', 109482240),
        ('bert_24_1024_16', 335141888),
    ],
)
def test_named_sizes(name, count):
    """Google's models of these sizes, uncased, have so many parameters without their heads."""
    settings = checkpoints_config.named_settings(name, 30522)
    pooler = (settings['units'] + 1) * settings['units']
    assert checkpoints_config.count_parameters(settings) + pooler == count
    layers, units, heads = map(int, name.split('_')[1:])
    config = checkpoints_config.format_config(settings)
    assert (config['num_hidden_layers'], config['num_attention_heads']) == (layers, heads)
    assert config['intermediate_size'] == 4 * units
    assert checkpoints_config.parse_config(config, name) == settings


def test_sizes_of_a_file_without_a_configuration():
    """The sizes are the zoo's two published ones."""
    base = checkpoints_config.infer_settings(shapes(768), 'file')
    assert base == checkpoints_config.named_settings('bert_12_768_12', 28996)
    large = checkpoints_config.infer_settings(shapes(1024, layers=24), 'file')
    assert large == checkpoints_config.named_settings('bert_24_1024_16', 28996)
    assert failure(checkpoints_config.infer_settings, shapes(384), 'file') == (
        'file: a config.json beside it must say how many attention heads this model of 384 units '
        'has'
    )
    sentence = failure(checkpoints_config.infer_settings, {}, 'file')
    assert sentence.startswith('file: lacks word_embed.0.weight, encoder.position_weight, ')


@pytest.mark.parametrize(
    ('label', 'problem'),
    [('', 'is empty'), ('a\nINFO:root:b', 'has a line end'), ('a\tb', 'has a line end, a tab')],
)
def test_labels_that_would_spoil_the_answers(tmp_path, label, problem):
    """In either file that a stranger's model names them in."""
    table = {'id2label': {'0': 'yes', '1': label}}
    sentence = failure(checkpoints_config.parse_labels, table, 'config.json')
    assert sentence.startswith(f'config.json: the label {label!r} {problem}')
    content = {'flags': {}, 'labels': ['yes', label], 'parameters': 'a.params'}
    path = tmp_path / 'finetune.json'
    path.write_text(json.dumps(content))
    sentence = failure(reading.read_finetune_json, tmp_path)
    assert sentence.startswith(f'{path}: the label {label!r} {problem}')
