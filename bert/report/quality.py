"""How good the answers of fine-tuned models are on a dev set: the figures of the page."""

from typing import NamedTuple

import numpy as np

from bert.tasks.predictions import decide

BINS = 10  # of the probabilities, all of the same width
NO_LABEL = 'no label'  # in place of the names of a row's labels


class Evaluation(NamedTuple):
    """The outputs of all runs of a task for one of its dev sets, each at its best epoch."""

    name: str  # '' if the task has only one
    texts: list  # of (text,) or (first, second)
    labels: np.ndarray  # (N,) class ids or numbers; of several labels a row, (N, labels) of 0 and 1
    outputs: np.ndarray  # (runs, N, classes), before any softmax or sigmoid


class ClassFigures(NamedTuple):
    """What is right about one class, or one of several labels, on average over the runs."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int  # that have it
    answers: float  # that name it


class Bin(NamedTuple):
    """The answers whose probability is within one tenth of the range."""

    low: float
    count: int  # over all runs
    confidence: float  # the mean of their probabilities
    share: float  # of them that are right


class Hard(NamedTuple):
    """A row of a dev set that is hard to get right."""

    row: int  # counted from 1
    texts: tuple
    label: str
    remark: str  # what the runs predict


def answer(evaluation, task):
    """Return what the runs answer.

    Returns
    -------
    (runs, N) array of class ids or numbers, or (runs, N, labels) array of 0 and 1
    """
    return np.stack([decide(outputs, task) for outputs in evaluation.outputs])


def probabilities(evaluation, task):
    """Return the probability of each class or label, by run and row: (runs, N, classes)."""
    from scipy.special import expit, softmax

    if task.is_multilabel:
        return expit(evaluation.outputs)
    return softmax(evaluation.outputs, axis=2)


def name_labels(values, task):
    """Return the name of a class id, or the names of a row's labels, given as 0 and 1."""
    if not task.is_multilabel:
        return task.labels[values]
    return ', '.join(name for name, value in zip(task.labels, values) if value) or NO_LABEL


def per_class(evaluation, task):
    """Compute precision, recall and F1 of each class or label.

    Where nothing has or gets a label, the figures that are not defined are 0.

    Returns
    -------
    list of ClassFigures
    """
    from sklearn.metrics import precision_recall_fscore_support

    ids = list(range(len(task.labels)))
    given = answer(evaluation, task)
    by_run = [
        precision_recall_fscore_support(evaluation.labels, one, labels=ids, zero_division=0)
        for one in given
    ]
    rows = by_run[0][3]
    figures = np.mean([one[:3] for one in by_run], axis=0)
    if task.is_multilabel:
        counts = given.sum(axis=1).mean(axis=0)
    else:
        counts = [(given == i).sum(axis=1).mean() for i in ids]
    return [
        ClassFigures(task.labels[i], *map(float, figures[:, i]), int(rows[i]), float(counts[i]))
        for i in ids
    ]


def confusion(evaluation, task):
    """Count how many rows of each class are predicted as which, averaged over the runs.

    Returns
    -------
    (classes, classes) array
        A row for each true class, a column for each predicted one.
    """
    from sklearn.metrics import confusion_matrix

    classes = range(len(task.labels))
    matrices = [
        confusion_matrix(evaluation.labels, predictions, labels=classes)
        for predictions in answer(evaluation, task)
    ]
    return np.mean(matrices, axis=0)


def calibrate(evaluation, task):
    """Compare the probabilities that the runs give with how often they are right.

    Of a classifier, that is the probability of its answer and the share of right answers; of
    several labels a row, the probability of each label and the share of rows that have it.

    Returns
    -------
    list of Bin, float
        The bins with an answer in them, and the expected calibration error: the mean difference
        between probability and share, weighted by the number of answers.
    """
    chances = probabilities(evaluation, task)
    if task.is_multilabel:
        hits = np.broadcast_to(evaluation.labels, chances.shape) == 1
    else:
        hits = answer(evaluation, task) == evaluation.labels
        chances = chances.max(axis=2)
    chances, hits = chances.ravel(), hits.ravel()
    numbers = np.minimum((chances * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        inside = numbers == number
        if inside.any():
            means = float(chances[inside].mean()), float(hits[inside].mean())
            bins.append(Bin(number / BINS, int(inside.sum()), *means))
    error = sum(b.count * abs(b.confidence - b.share) for b in bins) / len(chances)
    return bins, error


def find_hard(evaluation, task):
    """Find the rows that more than half of the runs get wrong, the surest wrong answers first.

    In regression these are all rows, the largest mean absolute error first.

    Returns
    -------
    list of Hard
    """
    find = _hard_numbers if task.is_regression else _hard_classes
    order, remarks, labels = find(evaluation, task)
    return [Hard(int(i) + 1, evaluation.texts[i], labels[i], remarks[i]) for i in order]


def _hard_numbers(evaluation, task):
    numbers = answer(evaluation, task)
    errors = np.abs(numbers - evaluation.labels).mean(axis=0)
    several = ' on average' if len(numbers) > 1 else ''
    remarks = [
        f'predicted {mean:.2f}{several}, {"mean " if several else ""}error {error:.2f}'
        for mean, error in zip(numbers.mean(axis=0), errors)
    ]
    labels = [f'{label:.2f}' for label in evaluation.labels]
    return np.argsort(-errors, kind='stable'), remarks, labels


def _hard_classes(evaluation, task):
    """Return the order, the remarks and the labels of rows that have classes."""
    given, chances = answer(evaluation, task), probabilities(evaluation, task)
    runs = len(given)
    if task.is_multilabel:
        wrong = (given != evaluation.labels).any(axis=2).sum(axis=0)
        # How likely the labels of a row are, if each is independent of the others.
        chances = np.where(evaluation.labels == 1, chances, 1 - chances)
        of_label = chances.prod(axis=2).mean(axis=0)
    else:
        wrong = (given != evaluation.labels).sum(axis=0)
        of_label = chances.mean(axis=0)[np.arange(len(wrong)), evaluation.labels]
    order = [i for i in np.lexsort((of_label, -wrong)) if wrong[i] > runs / 2]
    if runs == 1:
        remarks = [
            f'answered: {name_labels(given[0, i], task)}; probability of the truth: '
            f'{of_label[i]:.2f}'
            for i in range(len(wrong))
        ]
    else:
        remarks = [
            f'wrong in {wrong[i]} of {runs} runs, which give the label a probability of '
            f'{of_label[i]:.2f} on average'
            for i in range(len(wrong))
        ]
    return order, remarks, [name_labels(label, task) for label in evaluation.labels]
