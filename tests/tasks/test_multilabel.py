"""Rows with several labels: how they are read, measured and written."""

import csv
import json

import numpy as np
import pytest
from conftest import failure

from bert.system.errors import UsageError
from bert.tasks import files, metrics, predictions, table

LABELS = ['sad', 'glad', 'odd, "quoted"']
# Each row's labels, and the same by hand.
NAMES = [['glad'], [], ['odd, "quoted"', 'sad'], ['sad', 'glad', 'odd, "quoted"'], ['glad']]
MATRIX = [[0, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0]]


def task_of(path, column, labels=tuple(LABELS)):
    return table.own_task(None, str(path), str(path), ['text'], column, None, labels, True)


def read_labels(path, column, labels=tuple(LABELS)):
    task = task_of(path, column, labels)
    return files.read_own(task, task.dev[0]).labels


def write_columns(path, cells):
    """Write a column for each label, in another order than that of LABELS."""
    order = [2, 0, 1]
    header = ['text', *(LABELS[i] for i in order)]
    rows = [[f'text {n}', *(row[i] for i in order)] for n, row in enumerate(cells)]
    with open(path, 'w', encoding='utf8', newline='') as file:
        if path.suffix == '.jsonl':
            file.writelines(json.dumps(dict(zip(header, row))) + '\n' for row in rows)
        elif path.suffix == '.csv':
            csv.writer(file).writerows([header, *rows])
        else:
            file.writelines('\t'.join(map(str, row)) + '\n' for row in [header, *rows])
    return path


@pytest.mark.parametrize('extension', ['csv', 'tsv', 'jsonl'])
@pytest.mark.parametrize('words', [(0, 1), (False, True), ('false', 'TRUE'), ('0.0', ' 1 ')])
def test_a_column_for_each_label(tmp_path, extension, words):
    cells = [[words[value] for value in row] for row in MATRIX]
    path = write_columns(tmp_path / f'd.{extension}', cells)
    assert files.find_labels(path, LABELS) == (LABELS, True)
    found = read_labels(path, LABELS)
    assert found.dtype == np.float32
    assert found.tolist() == MATRIX
    # The labels have the order of the model's, whatever the order of the flag.
    assert read_labels(path, [LABELS[1], LABELS[2], LABELS[0]]).tolist() == MATRIX


def test_a_column_of_lists(tmp_path):
    path = tmp_path / 'd.jsonl'
    rows = [{'text': 'one', 'labels': names} for names in NAMES]
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    assert files.find_labels(path, 'labels') == (sorted(LABELS), True)
    assert read_labels(path, 'labels').tolist() == MATRIX


def test_names_that_are_numbers_are_sorted_as_such(tmp_path):
    path = tmp_path / 'd.jsonl'
    path.write_text('{"text": "a", "x": [10, 9]}\n{"text": "b", "x": ["10", -1]}\n')
    assert files.find_labels(path, 'x') == (['-1', '9', '10'], True)
    found = read_labels(path, 'x', ('-1', '9', '10'))
    assert found.tolist() == [[0, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize(
    ('name', 'content', 'column', 'sentence'),
    [
        (
            'd.csv',
            'text,a,b\none,1,2\n',
            ['a', 'b'],
            ":2: the label 'b' is '2', not 0, 1, true",
        ),
        ('d.csv', 'text,a,b\none,1,\n', ['a', 'b'], ":2: the label 'b' is '', not 0, 1, true"),
        ('d.csv', 'text,a\none,1\n', ['a', 'b'], ":2: there is no column 'b' among text, a"),
        ('d.jsonl', '{"text": "x", "a": 1, "b": null}\n', ['a', 'b'], ":1: the label 'b' is None"),
        ('d.jsonl', '{"text": "x", "a": 1, "b": [1]}\n', ['a', 'b'], ":1: the label 'b' is [1]"),
        ('d.jsonl', '{"text": "x", "y": ["c"]}\n', 'y', ":1: the label 'c' is not one of a, b"),
        ('d.jsonl', '{"text": "x", "y": "a"}\n', 'y', ":1: 'y' is not a list of labels"),
        ('d.jsonl', '{"text": "x", "y": [["a"]]}\n', 'y', ":1: a label in 'y' is neither text nor"),
        ('d.jsonl', '{"text": "x", "y": [null]}\n', 'y', ":1: a label in 'y' is neither text nor"),
        ('d.jsonl', '{"text": "x"}\n', 'y', ":1: there is no column 'y' among text"),
        ('d.csv', 'text,y\none,a\n', 'y', ":2: 'y' is not a list of labels"),
    ],
)
def test_cells_that_are_no_labels(tmp_path, name, content, column, sentence):
    path = tmp_path / name
    path.write_text(content)
    assert failure(read_labels, path, column, ('a', 'b')).startswith(f'{path}{sentence}')


@pytest.mark.parametrize(
    ('content', 'column', 'sentence'),
    [
        ('{"y": ["a"]}\n{"y": "a"}\n', 'y', ":2: 'y' is not a list of labels"),
        ('{"y": ["a"]}\n{"y": ["a\\tb"]}\n', 'y', ":2: the label 'a\\tb' has a line end, a tab"),
        ('{"y": ["a"]}\n{"y": []}\n', 'y', ": column 'y' has fewer than two different labels"),
        ('{"y": "a"}\n{"y": ["a"]}\n', 'y', ":2: 'y' is neither text nor a number"),
        ('{"y": "a"}\n', ['y', ' '], ": the label ' ' is empty"),
    ],
)
def test_what_cannot_be_learned(tmp_path, content, column, sentence):
    path = tmp_path / 'd.jsonl'
    path.write_text(content)
    assert failure(files.find_labels, path, column).startswith(f'{path}{sentence}')


def test_columns_and_labels_that_do_not_fit():
    def refuse(*labels_and_kind, column=('a', 'b'), metric=None):
        with pytest.raises(UsageError) as caught:
            table.own_task('d', None, None, ['text'], list(column), metric, *labels_and_kind)
        return str(caught.value)

    assert refuse(['a', 'c'], True) == 'the label columns a, b are not the labels a, c'
    assert refuse(['a', 'c'], False) == 'the label columns a, b: a row has only one label, of a, c'
    assert refuse(None, False) == 'the label columns a, b: a row has only a number'
    assert refuse(['a'], True) == (
        'rows with any number of labels need two different ones, not a alone'
    )
    for metric in ('f1', 'mcc', 'pearsonr', 'spearmanr'):
        assert refuse(['a', 'b'], True, metric=[metric]) == (
            f'the metric {metric} does not fit: a row may have several labels; f1_micro, f1_macro, '
            'accuracy do'
        )
    with pytest.raises(UsageError, match='^the metric f1_micro does not fit: it is for rows with'):
        table.check_metrics(['f1_micro'], ['a', 'b'])


def test_the_task():
    task = table.own_task('t', 'd', None, ['text'], ['b', 'a'], None, ['a', 'b'], True)
    assert task.is_multilabel and not task.is_regression
    assert (task.labels, task.num_classes, task.metrics) == (('a', 'b'), 2, ('f1_micro',))
    assert not any(task.is_multilabel for task in table.ALL_TASKS.values())


# Of sad and of the third: 1 right, 1 missed. Of glad: 2 right, 1 missed, 1 too many.
OUTPUTS = np.array(
    [[-2, 0.1, -1], [-1, 3, -0.1], [4, -1, 0.0], [-0.5, -3, 9], [-1, 1, -1]], np.float32
)
DECIDED = [[0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_metrics_by_hand():
    """F1 is 2 right / (2 right + missed + too many)."""
    task = task_of('d.csv', LABELS)
    assert predictions.decide(OUTPUTS, task).tolist() == DECIDED
    labels = np.array(MATRIX, np.float32)
    names = ('f1_micro', 'f1_macro', 'accuracy')
    found = metrics.compute(names, labels, np.array(DECIDED))
    assert found['f1_micro'] == pytest.approx(2 * 4 / (2 * 4 + 3 + 1))
    assert found['f1_macro'] == pytest.approx((2 / 3 + 4 / 6 + 2 / 3) / 3)
    assert found['accuracy'] == pytest.approx(2 / 5)
    assert predictions.measure(OUTPUTS, labels, task) == {'f1_micro': found['f1_micro']}
    nothing = np.zeros((4, 3), np.float32)
    assert set(metrics.compute(names[:2], nothing, nothing.astype(int)).values()) == {0}


def test_answers_in_columns_and_in_json():
    """The sigmoid of ln 3 is 3 / 4, and that of -ln 4 is 1 / 5."""
    task = table.own_task(None, None, 'd', ['text'], None, None, ['x', 'y'], True)
    outputs = np.log(np.array([[3, 0.25], [1, 3], [1 / 3, 1]])).astype(np.float32)
    flat = predictions.describe_answers(outputs, task, can_nest=False, with_probabilities=True)
    assert flat == [
        {
            **{'prediction_x': '1', 'prediction_y': '0'},
            **{'probability_x': '0.750000', 'probability_y': '0.200000'},
        },
        {
            **{'prediction_x': '0', 'prediction_y': '1'},
            **{'probability_x': '0.500000', 'probability_y': '0.750000'},
        },
        {
            **{'prediction_x': '0', 'prediction_y': '0'},
            **{'probability_x': '0.250000', 'probability_y': '0.500000'},
        },
    ]
    nested = predictions.describe_answers(outputs, task, can_nest=True, with_probabilities=True)
    assert [answer['prediction'] for answer in nested] == [['x'], ['y'], []]
    assert [list(answer['probabilities'].values()) for answer in nested] == [
        [0.75, 0.2],
        [0.5, 0.75],
        [0.25, 0.5],
    ]
    assert list(predictions.describe_answers(outputs, task, False)[0]) == [
        'prediction_x',
        'prediction_y',
    ]


def test_probabilities_of_classes():
    task = table.own_task(None, None, 'd', ['text'], None, None, ['x', 'y'])
    outputs = np.log(np.array([[3.0, 1], [1, 1.5]])).astype(np.float32)
    answers = predictions.describe_answers(outputs, task, False, with_probabilities=True)
    assert answers == [
        {'prediction': 'x', 'probability_x': '0.750000', 'probability_y': '0.250000'},
        {'prediction': 'y', 'probability_x': '0.400000', 'probability_y': '0.600000'},
    ]
    nested = predictions.describe_answers(outputs, task, True, with_probabilities=True)
    assert nested[1] == {'prediction': 'y', 'probabilities': {'x': 0.4, 'y': 0.6}}
    outputs[1, 0] = np.nan
    sentence = failure(predictions.describe_answers, outputs, task, True, True)
    assert sentence == 'an output of the model is not a finite number'


@pytest.mark.parametrize('extension', ['csv', 'tsv', 'jsonl'])
def test_a_file_with_answers_is_read_again(tmp_path, extension):
    """A row keeps its own columns; the labels come back as they are."""
    path = write_columns(tmp_path / f'new.{extension}', MATRIX)
    task = task_of(path, LABELS)
    examples = files.read_own(task, task.test[0])
    predictions.write_test_predictions(
        tmp_path, task.test[0], OUTPUTS, task, examples.cells, with_probabilities=True
    )
    rows = files.read_rows(tmp_path / f'new_predictions.{extension}')
    assert [row.cells['text'] for row in rows] == [f'text {number}' for number in range(5)]
    for number, row in enumerate(rows):
        expected = 1 / (1 + np.exp(-OUTPUTS[number].astype(np.float64)))
        if extension == 'jsonl':
            decided = [int(label in row.cells['prediction']) for label in LABELS]
            found = [row.cells['probabilities'][label] for label in LABELS]
        else:
            decided = [int(row.cells[f'prediction_{label}']) for label in LABELS]
            found = [float(row.cells[f'probability_{label}']) for label in LABELS]
        assert decided == DECIDED[number]
        np.testing.assert_allclose(found, expected, atol=1e-6)
