"""What a model directory of sentence-transformers says of its vectors."""

import json

import pytest
from conftest import failure

from bert.checkpoints.sentences import SentenceVector, read_max_len, read_sentence_vector

OLD = 'sentence_transformers.models.'
TRANSFORMER = {'idx': 0, 'name': '0', 'path': '', 'type': f'{OLD}Transformer'}
POOLING = {'idx': 1, 'name': '1', 'path': '1_Pooling', 'type': f'{OLD}Pooling'}
NORMALIZE = {'idx': 2, 'name': '2', 'path': '2_Normalize', 'type': f'{OLD}Normalize'}
# As version 6 names them.
NEW_TRANSFORMER = {
    **TRANSFORMER,
    'type': 'sentence_transformers.base.modules.transformer.Transformer',
}
NEW_POOLING = {
    **POOLING,
    'type': 'sentence_transformers.sentence_transformer.modules.pooling.Pooling',
}


def write(folder, modules, pooling=None):
    (folder / 'modules.json').write_text(json.dumps(modules))
    if pooling is not None:
        (folder / '1_Pooling').mkdir()
        (folder / '1_Pooling' / 'config.json').write_text(json.dumps(pooling))
    return folder


def flags(*names):
    """Return the settings of a pooling as older versions wrote them."""
    all_names = ('cls_token', 'mean_tokens', 'max_tokens', 'mean_sqrt_len_tokens')
    return {f'pooling_mode_{name}': name in names for name in all_names}


@pytest.mark.parametrize(
    'modules, pooling, expected',
    [
        ([TRANSFORMER, POOLING, NORMALIZE], flags('mean_tokens'), ('mean', True)),
        ([TRANSFORMER, POOLING], flags('mean_tokens'), ('mean', False)),
        ([TRANSFORMER, POOLING, NORMALIZE], flags('cls_token'), ('first', True)),
        ([NEW_TRANSFORMER, NEW_POOLING], {'pooling_mode': 'cls'}, ('first', False)),
        ([NEW_TRANSFORMER, NEW_POOLING], {'pooling_mode': ['mean']}, ('mean', False)),
    ],
)
def test_modules(tmp_path, modules, pooling, expected):
    assert read_sentence_vector(write(tmp_path, modules, pooling)) == SentenceVector(*expected)


def test_the_real_model(minilm):
    assert read_sentence_vector(minilm) == ('mean', True)
    assert read_max_len(minilm) == 256


def test_other_models_say_nothing(tiny_bert):
    assert read_sentence_vector(tiny_bert) is None
    assert read_max_len(tiny_bert) is None


@pytest.mark.parametrize(
    'modules, pooling, expected',
    [
        ({'a': 1}, None, 'modules.json: not a list of modules'),
        ([1], None, 'modules.json: not a list of modules'),
        (
            [TRANSFORMER, POOLING, {'type': f'{OLD}Dense'}],
            flags('mean_tokens'),
            'modules.json: lists the modules Transformer, Pooling, Dense; only Transformer, '
            'Pooling and perhaps Normalize are supported',
        ),
        (
            [{**TRANSFORMER, 'path': '0_Transformer'}, POOLING],
            flags('mean_tokens'),
            'modules.json: the Transformer is in another folder, which is the model',
        ),
        (
            [TRANSFORMER, {**POOLING, 'path': '../1_Pooling'}],
            flags('mean_tokens'),
            'modules.json: the path of the Pooling is not the name of a folder in here',
        ),
        (
            [TRANSFORMER, POOLING],
            flags('mean_tokens', 'max_tokens'),
            '1_Pooling/config.json: the pooling is max and mean; only mean and cls are supported',
        ),
        (
            [TRANSFORMER, POOLING],
            {'pooling_mode': 'lasttoken'},
            '1_Pooling/config.json: the pooling is lasttoken; only mean and cls are supported',
        ),
        (
            [TRANSFORMER, POOLING],
            {'pooling_mode': 7},
            '1_Pooling/config.json: the pooling is 7; only mean and cls are supported',
        ),
        (
            [TRANSFORMER, POOLING],
            None,
            '1_Pooling/config.json: the pooling is not given; only mean and cls are supported',
        ),
    ],
)
def test_what_this_project_does_not_have(tmp_path, modules, pooling, expected):
    folder = write(tmp_path, modules, pooling)
    assert failure(read_sentence_vector, folder) == f'{folder}/{expected}'


def test_damaged_lists(tmp_path):
    for content in ('', '[', '[[[[', 'null'):
        (tmp_path / 'modules.json').write_text(content)
        expected = f'{tmp_path}/modules.json: not a list of modules'
        assert failure(read_sentence_vector, tmp_path) == expected


@pytest.mark.parametrize(
    'files, expected',
    [
        ({'sentence_bert_config.json': {'max_seq_length': 200}}, None),
        ({'modules.json': [], 'sentence_bert_config.json': {'max_seq_length': 200}}, 200),
        ({'modules.json': [], 'tokenizer_config.json': {'model_max_length': 300}}, 300),
        ({'modules.json': [], 'sentence_bert_config.json': {'max_seq_length': None}}, None),
        ({'modules.json': [], 'sentence_bert_config.json': {'max_seq_length': True}}, None),
        ({'finetune.json': {'flags': {'max_len': 64}, 'parameters': 'x.params'}}, 64),
        ({'finetune.json': {'flags': {'max_len': '64'}, 'parameters': 'x.params'}}, None),
        ({'finetune.json': {'flags': {}, 'parameters': 'x.params'}}, None),
    ],
)
def test_the_most_tokens(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert read_max_len(tmp_path) == expected
