"""Confusion matrices and hard rows, by hand."""

import numpy as np
import pytest

from bert.experiments import sections
from bert.tasks.table import TASKS

LABELS = np.array([0, 0, 1, 1])
TEXTS = [('one', '<b>1</b> & "one"'), ('two', 'zwei'), ('three', 'drei'), ('four', 'vier')]


def logits(*rows):
    """Return a run's outputs, given the probability of class 1 for each row."""
    return np.log([[1 - p, p] for p in rows])


# Predictions 0 1 0 1, 1 1 0 1 and 0 1 1 1 of three runs: row 2 is wrong in all of them, row 3 in
# two, row 1 in one, row 4 in none.
EVALUATION = sections.Evaluation(
    '',
    TEXTS,
    LABELS,
    np.stack([logits(0.1, 0.9, 0.4, 0.6), logits(0.6, 0.8, 0.2, 0.9), logits(0.3, 0.7, 0.6, 0.9)]),
)


def test_confusion_by_hand():
    """For class 0 the runs predict 0 1, 1 1 and 0 1, for class 1 they predict 0 1, 0 1 and 1 1."""
    matrix = sections.confusion(EVALUATION, TASKS['MRPC'])
    assert matrix == pytest.approx(np.array([[2 / 3, 4 / 3], [2 / 3, 4 / 3]]))


def test_a_class_that_no_run_predicts_has_its_row_and_column():
    evaluation = sections.Evaluation('', TEXTS, LABELS, np.zeros((1, 4, 3)))
    matrix = sections.confusion(evaluation, TASKS['MNLI'])
    assert matrix.tolist() == [[2, 0, 0], [2, 0, 0], [0, 0, 0]]


def test_hard_rows_by_hand():
    """The label's mean probability is (.1 + .2 + .3) / 3 in row 2, (.4 + .2 + .6) / 3 in row 3."""
    found = sections.find_hard(EVALUATION, TASKS['MRPC'])
    assert [(item.row, item.texts, item.label) for item in found] == [
        (2, ('two', 'zwei'), '0'),
        (3, ('three', 'drei'), '1'),
    ]
    assert found[0].remark.startswith(
        'wrong in 3 of 3 runs, which give the label a probability of 0.20'
    )
    assert found[1].remark.startswith(
        'wrong in 2 of 3 runs, which give the label a probability of 0.40'
    )


def test_half_of_the_runs_is_not_most():
    evaluation = EVALUATION._replace(outputs=EVALUATION.outputs[:2])
    assert [item.row for item in sections.find_hard(evaluation, TASKS['MRPC'])] == [2, 3]
    evaluation = EVALUATION._replace(outputs=EVALUATION.outputs[1:])
    assert [item.row for item in sections.find_hard(evaluation, TASKS['MRPC'])] == [2]


def test_hard_numbers():
    """Labels 0 0 1 1, predictions of two runs: the mean errors are 1, 2.5, 0.5 and 0."""
    outputs = np.array([[[1.0], [2.0], [1.0], [1.0]], [[-1.0], [3.0], [2.0], [1.0]]])
    evaluation = sections.Evaluation('', TEXTS, LABELS.astype(np.float32), outputs)
    found = sections.find_hard(evaluation, TASKS['STS-B'])
    assert [item.row for item in found] == [2, 1, 3, 4]
    assert found[0].remark == 'predicted 2.50 in the mean, mean error 2.50'
