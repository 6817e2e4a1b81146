"""Rows written back beside predictions: what is not text stays what it was."""

import json
from decimal import Decimal

import numpy as np
import pytest
from conftest import failure

from bert.tasks import predictions, rows
from bert.tasks.table import Split, own_task

# Numbers that Python's own types would round, or write in another way.
LINE = (
    '{"id": 12345678901234567890123456789, "pi": 3.14159265358979323846, "big":1e999, "z": 1.10,'
    '"ok": true, "none" :null, "list": [1, {"a, }": 2.50}], "text": "\\u00e9 {:,\\"", "a": "é"}'
)
WRITTEN = (
    '{"id": 12345678901234567890123456789, "pi": 3.14159265358979323846, "big": 1e999, "z": 1.10, '
    '"ok": true, "none": null, "list": [1, {"a, }": 2.50}], "text": "\\u00e9 {:,\\"", "a": "é", '
    '"prediction": "good"}\n'
)


def exact(text):
    """Parse JSON without rounding anything."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def write_beside(source, target, answers):
    rows.write_rows(target, rows.read_table(source, whole=True).original, answers)
    return target.read_text(encoding='utf8')


def test_json_values_stay_as_they_are_written(tmp_path):
    path = tmp_path / 'd.jsonl'
    path.write_text(f' {LINE}\t\r\n\n', encoding='utf8')
    written = write_beside(path, tmp_path / 'done.jsonl', [{'prediction': 'good'}])
    assert written == WRITTEN
    assert exact(written) == {**exact(LINE), 'prediction': 'good'}


@pytest.mark.parametrize(
    ('line', 'written'),
    [
        ('{"prediction": 0.50, "n": 1.0}', '{"prediction": "é", "n": 1.0, "p": 0.25}'),
        ('{"n": 1, "n": {"p": 2}}', '{"n": {"p": 2}, "prediction": "é", "p": 0.25}'),
        ('{ }', '{"prediction": "é", "p": 0.25}'),
        ('{"a\\"}": [ ]}', '{"a\\"}": [ ], "prediction": "é", "p": 0.25}'),
    ],
)
def test_members_that_are_there_are_replaced(tmp_path, line, written):
    (tmp_path / 'd.jsonl').write_text(f'{line}\n')
    answers = [{'prediction': 'é', 'p': 0.25}]
    assert write_beside(tmp_path / 'd.jsonl', tmp_path / 'done.jsonl', answers) == f'{written}\n'


def test_rows_are_those_that_were_read(tmp_path):
    """The file may have changed by the time of the predictions."""
    path = tmp_path / 'd.jsonl'
    path.write_text('{"a": 1}\n{"a": 2}\n')
    original = rows.read_table(path, whole=True).original
    path.write_text('{"a": 3}\n')
    rows.write_rows(path, original, [{'p': True}, {'p': None}])
    assert path.read_text() == '{"a": 1, "p": true}\n{"a": 2, "p": null}\n'


def task_of(labels, number_labels):
    return own_task(
        None, None, 'd.jsonl', ['text'], None, None, labels, number_labels=number_labels
    )


@pytest.mark.parametrize(
    ('name', 'labels', 'number_labels', 'expected'),
    [
        ('d.jsonl', ['0', '1'], True, [1, 0]),
        ('d.jsonl', ['0', '1'], False, ['1', '0']),
        ('d.jsonl', ['0.5', '-2'], True, [-2, 0.5]),
        ('d.jsonl', ['false', 'true'], True, [True, False]),
        ('d.jsonl', None, False, [0.125, 2.0]),  # three decimals, as in text
        ('d.csv', ['0', '1'], True, ['1', '0']),
        ('d.csv', None, False, ['0.125', '2.000']),
    ],
)
def test_numbers_are_predicted_as_numbers(tmp_path, name, labels, number_labels, expected):
    task = task_of(labels, number_labels)
    original = ['{"n": 1}', '{"n": 2}'] if name == 'd.jsonl' else [{'n': '1'}, {'n': '2'}]
    outputs = np.array([[0.12501], [2]] if labels is None else [[0, 1], [1, 0]], np.float32)
    split = Split(name, ('text',))
    predictions.write_test_predictions(tmp_path, split, outputs, task, original)
    path = tmp_path / name.replace('d.', 'd_predictions.')
    found = [row.cells['prediction'] for row in rows.read_rows(path)]
    assert [(type(value), value) for value in found] == [(type(v), v) for v in expected]


def test_an_output_that_is_no_number(tmp_path):
    task, outputs = task_of(None, False), np.full((1, 1), np.nan, np.float32)
    sentence = failure(
        predictions.write_test_predictions, tmp_path, task.test[0], outputs, task, ['{}']
    )
    assert sentence == 'an output of the model is not a finite number'
    assert not (tmp_path / 'd_predictions.jsonl').exists()
