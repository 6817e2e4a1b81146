"""``config.json``: sizes, activations and labels, good and bad."""

import doctest

import pytest
from conftest import failure

from bert import configuration


def test_examples_of_the_docstrings():
    result = doctest.testmod(configuration)
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
    assert configuration.parse_config(CONFIG, 'config.json') == {
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
    settings = configuration.parse_config(config, 'config.json')
    written = configuration.format_config(settings)
    assert {key: written[key] for key in config} == config
    assert configuration.parse_config(written, 'config.json') == settings


@pytest.mark.parametrize('key', CONFIG)
@pytest.mark.parametrize('value', [None, 0, -1, '12', 1.5, True, 2**24])
def test_sizes_that_are_missing_or_none(key, value):
    config = {**CONFIG, key: value}
    if value is None:
        del config[key]
    sentence = failure(configuration.parse_config, config, 'd/config.json')
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
    found = failure(configuration.parse_config, {**CONFIG, **changes}, 'config.json')
    assert found.startswith(f'config.json: {sentence}')
