"""Finding models: directories of every kind, files, and what a fine-tuned model says of itself."""

import json

import pytest
from conftest import failure

from bert import source


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
    assert failure(source.read_finetuned, tmp_path) == f'{path}: {sentence}'


def test_finetune_json(tmp_path):
    assert not source.is_finetuned(tmp_path)
    content = {'flags': {'max_len': 9}, 'labels': None, 'parameters': 'a.params', 'more': 1}
    (tmp_path / 'finetune.json').write_text(json.dumps(content))
    assert source.is_finetuned(tmp_path)
    assert source.read_finetuned(tmp_path) == {
        'flags': {'max_len': 9},
        'labels': None,
        'parameters': tmp_path / 'a.params',
    }
