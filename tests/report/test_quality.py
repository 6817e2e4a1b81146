"""The figures of the page: by hand, and as scikit-learn has them."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import classification_report

from bert.report import quality
from bert.tasks.table import TASKS, own_task

LABELS = np.array([0, 0, 1, 1])
TEXTS = [('one', '<b>1</b> & "one"'), ('two', 'zwei'), ('three', 'drei'), ('four', 'vier')]


def logits(*rows):
    """Return a run's outputs, given the probability of class 1 for each row."""
    return np.log([[1 - p, p] for p in rows])


# Predictions 0 1 0 1, 1 1 0 1 and 0 1 1 1 of three runs: row 2 is wrong in all of them, row 3 in
# two, row 1 in one, row 4 in none.
EVALUATION = quality.Evaluation(
    '',
    TEXTS,
    LABELS,
    np.stack([logits(0.1, 0.9, 0.4, 0.6), logits(0.6, 0.8, 0.2, 0.9), logits(0.3, 0.7, 0.6, 0.9)]),
)
MANY = dataclasses.replace(
    own_task('x.csv', 'dev.csv', None, ['text'], 'labels', ['accuracy'], ['a', 'b', 'c']),
    is_multilabel=True,
)


def several(labels, *runs):
    """Return an evaluation of rows with several labels, given the probabilities of each run."""
    chances = np.array(runs, float)
    texts = [(f'text {number}',) for number in range(len(labels))]
    return quality.Evaluation('', texts, np.array(labels), np.log(chances / (1 - chances)))


# Of four rows: the first is right, the second misses b, the third has c too much, the fourth,
# which has no label, is right.
SEVERAL = several(
    [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]],
    [[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.2, 0.7, 0.6], [0.1, 0.2, 0.4]],
)


def test_confusion_by_hand():
    """For class 0 the runs predict 0 1, 1 1 and 0 1, for class 1 they predict 0 1, 0 1 and 1 1."""
    matrix = quality.confusion(EVALUATION, TASKS['MRPC'])
    assert matrix == pytest.approx(np.array([[2 / 3, 4 / 3], [2 / 3, 4 / 3]]))


def test_a_class_that_no_run_predicts_has_its_row_and_column():
    evaluation = quality.Evaluation('', TEXTS, LABELS, np.zeros((1, 4, 3)))
    matrix = quality.confusion(evaluation, TASKS['MNLI'])
    assert matrix.tolist() == [[2, 0, 0], [2, 0, 0], [0, 0, 0]]


def test_hard_rows_by_hand():
    """The label's mean probability is (.1 + .2 + .3) / 3 in row 2, (.4 + .2 + .6) / 3 in row 3."""
    found = quality.find_hard(EVALUATION, TASKS['MRPC'])
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
    assert [item.row for item in quality.find_hard(evaluation, TASKS['MRPC'])] == [2, 3]
    evaluation = EVALUATION._replace(outputs=EVALUATION.outputs[1:])
    assert [item.row for item in quality.find_hard(evaluation, TASKS['MRPC'])] == [2]


def test_the_hard_rows_of_one_run():
    evaluation = EVALUATION._replace(outputs=EVALUATION.outputs[:1])
    assert [(item.row, item.remark) for item in quality.find_hard(evaluation, TASKS['MRPC'])] == [
        (2, 'answered: 1; probability of the truth: 0.10'),
        (3, 'answered: 0; probability of the truth: 0.40'),
    ]


def test_hard_numbers():
    """Labels 0 0 1 1, predictions of two runs: the mean errors are 1, 2.5, 0.5 and 0."""
    outputs = np.array([[[1.0], [2.0], [1.0], [1.0]], [[-1.0], [3.0], [2.0], [1.0]]])
    evaluation = quality.Evaluation('', TEXTS, LABELS.astype(np.float32), outputs)
    found = quality.find_hard(evaluation, TASKS['STS-B'])
    assert [item.row for item in found] == [2, 1, 3, 4]
    assert found[0].remark == 'predicted 2.50 on average, mean error 2.50'
    alone = quality.find_hard(evaluation._replace(outputs=outputs[:1]), TASKS['STS-B'])
    assert alone[0].remark == 'predicted 2.00, error 2.00'


def test_the_hard_rows_of_several_labels():
    """Row 2 has its labels with .8 x .3 x .9 = .216, row 3 with .8 x .7 x .4 = .224."""
    found = quality.find_hard(SEVERAL, MANY)
    assert [(item.row, item.label, item.remark) for item in found] == [
        (2, 'a, b', 'answered: a; probability of the truth: 0.22'),
        (3, 'b', 'answered: b, c; probability of the truth: 0.22'),
    ]
    assert quality.name_labels([0, 0, 0], MANY) == 'no label'


@pytest.mark.parametrize('is_multilabel', [False, True])
def test_figures_of_each_class_are_those_of_scikit_learn(is_multilabel):
    rng = np.random.default_rng(1)
    if is_multilabel:
        task, labels = MANY, rng.integers(0, 2, (50, 3))
    else:
        task, labels = TASKS['MNLI'], rng.integers(0, 3, 50)
    outputs = rng.normal(0, 1, (3, 50, 3))
    found = quality.per_class(quality.Evaluation('', [], labels, outputs), task)
    reports = [
        classification_report(
            labels,
            (one > 0).astype(int) if is_multilabel else one.argmax(axis=1),
            target_names=task.labels,
            output_dict=True,
            zero_division=0,
        )
        for one in outputs
    ]
    for name, one in zip(task.labels, found):
        assert one.label == name
        for figure, value in [
            ('precision', one.precision),
            ('recall', one.recall),
            ('f1-score', one.f1),
        ]:
            assert value == pytest.approx(np.mean([report[name][figure] for report in reports]))
        assert one.rows == reports[0][name]['support']


def test_figures_of_several_labels_by_hand():
    """Label a is given twice, rightly; b once of two; c once, wrongly."""
    a, b, c = quality.per_class(SEVERAL, MANY)
    assert tuple(a) == ('a', 1, 1, 1, 2, 2)
    assert tuple(b) == ('b', 1, 0.5, pytest.approx(2 / 3), 2, 1)
    assert tuple(c) == ('c', 0, 0, 0, 0, 1)


def test_calibration_by_hand():
    """Answers with .95 and .9 (both right), .62 (wrong), .65 (right) and 1 (wrong).

    The bin from .9 has three answers with a mean of .95, 2/3 of them right; that from .6 has two
    with .635, half of them right: 3/5 x .28333 + 2/5 x .135 = .224.
    """
    labels = np.array([1, 0, 0, 1, 0])
    outputs = logits(0.95, 0.1, 0.62, 0.65, 1 - 1e-12)[None]
    bins, error = quality.calibrate(quality.Evaluation('', [], labels, outputs), TASKS['MRPC'])
    assert [(one.low, one.count) for one in bins] == [(0.6, 2), (0.9, 3)]
    assert [(one.confidence, one.share) for one in bins] == [
        (pytest.approx(0.635), 0.5),
        (pytest.approx(0.95), pytest.approx(2 / 3)),
    ]
    assert error == pytest.approx(0.224)


def test_calibration_of_several_labels():
    """Each probability counts: of those from .1, which are .1 five times... worked out below.

    .1 .1 .1 (from .1; the labels are 0 0 0), .2 .2 .2 (0 0 0), .3 (1), .4 (0), .6 (0), .7 (1),
    .8 (1), .9 (1): 12 of them.
    """
    gaps = [3 * 0.1, 3 * 0.2, 0.7, 0.4, 0.6, 0.3, 0.2, 0.1]
    bins, error = quality.calibrate(SEVERAL, MANY)
    assert sum(one.count for one in bins) == 12
    assert error == pytest.approx(sum(gaps) / 12)
