"""Whether a fine-tuning worked, in sentences: against constant answers, and beyond chance."""

import math
from collections import Counter
from typing import NamedTuple

import numpy as np

from bert.report.chance import Z, balance, correlation_from, mean_and_error, share_interval
from bert.report.quality import answer, name_labels, per_class

GOOD, PART, UNSURE, BAD = 'good', 'part', 'unsure', 'bad'
# A run has collapsed if it gives nearly one answer only, and the labels are more varied than that.
ONE_ANSWER, MOST_VARIED = 0.99, 0.97
ONE_NUMBER = 0.05  # the deviation of its numbers over that of the labels
MOST_MISSED = 5  # labels that a verdict names


class Verdict(NamedTuple):
    """A judgement about the runs of a task on one of its dev sets."""

    level: str  # GOOD, PART, UNSURE or BAD
    text: str


def judge(evaluation, task, names, advice):
    """Judge the runs of a task on one of its dev sets.

    Parameters
    ----------
    evaluation : bert.report.quality.Evaluation
    task : bert.tasks.table.Task
    names : list of str
        The name of each run, such as ``seed 1``.
    advice : str
        A sentence that says what to try if a run did not learn.

    Returns
    -------
    list of Verdict
        One about the runs that did not collapse, and one about those that did, as far as there are
        any.
    """
    given = answer(evaluation, task)
    constants = [find_constant(one, evaluation, task) for one in given]
    sound = [number for number, constant in enumerate(constants) if constant is None]
    found = []
    if sound:
        judge_kind = judge_classes
        if task.is_regression:
            judge_kind = judge_numbers
        elif task.is_multilabel:
            judge_kind = judge_labels
        level, clause = judge_kind(evaluation, task, given[sound], describe_rows(evaluation))
        start = {GOOD: 'It learned', PART: 'It learned in part', UNSURE: 'Not sure that it learned'}
        start = start.get(level, 'It did not learn')
        if len(names) > len(sound):
            start += f' in {len(sound)} of {len(names)} runs'
        if len(sound) > 1:
            clause = f'on average over {len(sound)} runs, {clause}'
        if level in (GOOD, PART):
            clause += describe_missed(evaluation, task)
        found.append(Verdict(level, f'{start}: {clause}' + (f' {advice}' if level == BAD else '')))
    collapsed = {name: value for name, value in zip(names, constants) if value is not None}
    if collapsed:
        found.append(Verdict(BAD, f'{describe_collapse(collapsed, names)} {advice}'))
    return found


def find_constant(given, evaluation, task):
    """Return the answer that a run gives for nearly every row, in words, or None if it varies.

    Where the labels hardly vary either, such answers may be right.

    Parameters
    ----------
    given : (N,) or (N, labels) array
        The answers of the run.
    evaluation : bert.report.quality.Evaluation
    task : bert.tasks.table.Task
    """
    rows = f'{evaluation.name} dev row'.strip()
    if task.is_regression:
        constant = float(np.std(given)) < ONE_NUMBER * float(np.std(evaluation.labels))
        return f'about {np.mean(given):.3g} for every {rows}' if constant else None
    value, share = most_frequent(given)
    if share < ONE_ANSWER or most_frequent(evaluation.labels)[1] > MOST_VARIED:
        return None
    which = f'every {rows}' if share == 1 else f'{percent(share)} of the {rows}s'
    return f'{quote(value, task)} for {which}'


def most_frequent(values):
    """Return the most frequent class id or row of 0 and 1, and its share; of equals, the lowest.

    >>> most_frequent(np.array([[0, 1], [1, 0], [0, 1], [1, 1]]))
    ((0, 1), 0.5)
    """
    counts = Counter(values.tolist() if values.ndim == 1 else map(tuple, values.tolist()))
    value = min(counts, key=lambda value: (-counts[value], value))
    return value, counts[value] / len(values)


def describe_collapse(collapsed, names):
    """Return a sentence about the runs that give one answer whatever the text.

    Parameters
    ----------
    collapsed : dict of str to str
        Their answers, by their names; see :func:`find_constant`.
    names : list of str
        The names of all runs.
    """
    if len(names) == 1:
        (value,) = collapsed.values()
        return f'It collapsed: it answers {value}, whatever the text.'
    listed = ', '.join(f'{name} ({value})' for name, value in collapsed.items())
    return (
        f'{len(collapsed)} of {len(names)} runs collapsed to one answer, whatever the text: '
        f'{listed}.'
    )


def describe_missed(evaluation, task):
    """Return a sentence about the labels that no run finds, with a space before it, or nothing."""
    if task.is_regression:
        return ''
    missed = [one for one in per_class(evaluation, task) if one.rows and not one.recall]
    if not missed:
        return ''
    listed = ', '.join(f"'{one.label}' ({one.rows:,})" for one in missed[:MOST_MISSED])
    if len(missed) > MOST_MISSED:
        listed += f' and {len(missed) - MOST_MISSED} more'
    return f' But none of the rows with these labels are found: {listed}.'


def judge_classes(evaluation, task, given, rows):
    """Judge class ids (runs, N) by the share of right answers.

    Returns
    -------
    str, str
        The level, and the sentence without its beginning.
    """
    labels = evaluation.labels
    right = float((given == labels).mean())
    majority, share = most_frequent(labels)
    if share == 1:
        return UNSURE, f'all {rows} have the label {quote(majority, task)}.'
    low, high = share_interval(right, len(labels))
    clause = (
        f'{percent(right)} of the {rows} are right, '
        f'{compare(right - share)} always answering {quote(majority, task)}'
    )
    interval = f'95 % interval for so many rows: {100 * low:.1f} to {100 * high:.1f} %'
    if low > share:
        return GOOD, f'{clause} ({interval}).'
    ids = np.unique(labels)
    balanced, error = balance([(given[:, labels == i] == i).mean() for i in ids], labels, ids)
    if balanced - Z * error > 1 / len(ids):
        return PART, (
            f'{clause} ({interval}). But it tells the labels apart: of the rows of each label, '
            f'{percent(balanced)} are right on average, compared with {percent(1 / len(ids))} for '
            'a constant answer.'
        )
    if right > share:
        return UNSURE, f'{clause}, which may be chance ({interval}). A larger dev set would tell.'
    return BAD, f'{clause}.'


def judge_labels(evaluation, task, given, rows):
    """Judge labels (runs, N, labels) of 0 and 1 by whole rows, and by single labels.

    Returns
    -------
    str, str
        See :func:`judge_classes`.
    """
    labels = evaluation.labels
    whole = float((given == labels).all(axis=2).mean())
    commonest, share = most_frequent(labels)
    if share == 1:
        return UNSURE, f'all {rows} have the same labels, {quote(commonest, task)}.'
    low, _ = share_interval(whole, len(labels))
    usual = (labels.mean(axis=0) > 0.5).astype(int)
    single = (given == labels).mean(axis=(0, 2))  # by row
    plain = (usual == labels).mean(axis=1)
    gain, error = mean_and_error(single - plain)
    clause = (
        f'{percent(whole)} of the {rows} have exactly the right labels, '
        f'{compare(whole - share)} always answering {quote(commonest, task)}; '
        f'of all individual labels, {percent(single.mean())} are right, '
        f'{compare(gain)} always giving each its most frequent value'
    )
    if low > share or gain - Z * error > 0:
        return GOOD, f'{clause}.'
    balances = []
    for number in range(labels.shape[1]):
        column, ids = labels[:, number], np.unique(labels[:, number])
        if len(ids) == 2:
            shares = [(given[:, column == i, number] == i).mean() for i in ids]
            balances.append(balance(shares, column, ids))
    balanced = float(np.mean([mean for mean, _ in balances]))
    error = math.sqrt(sum(error**2 for _, error in balances)) / len(balances)
    if balanced - Z * error > 0.5:
        return PART, (
            f'{clause}. But it tells rows with a label from those without: {percent(balanced)} of '
            'either are right on average, compared with 50 % for a constant answer.'
        )
    if gain > 0 or whole > share:
        return UNSURE, f'{clause}, which may be chance on so few rows.'
    return BAD, f'{clause}.'


def judge_numbers(evaluation, task, given, rows):
    """Judge numbers (runs, N) by their errors, against those of the mean of the labels.

    Returns
    -------
    str, str
        See :func:`judge_classes`.
    """
    from bert.tasks.metrics import pearsonr

    labels = evaluation.labels.astype(np.float64)
    mean = labels.mean()
    squares = ((given - labels) ** 2).mean(axis=0)
    own, constant = math.sqrt(squares.mean()), float(labels.std())
    if not constant:
        return UNSURE, f'all {rows} have the label {mean:.3g}.'
    gain, error = mean_and_error((mean - labels) ** 2 - squares)
    correlation = float(np.mean([pearsonr(labels, one) for one in given]))
    less = 'less' if own < constant else 'more'
    clause = (
        f'the numbers for the {rows} are off by {own:.3g} (root mean square), '
        f'{percent(abs(1 - own / constant))} {less} than if each were the mean of the labels, '
        f'{mean:.3g}'
    )
    follows = f'Their correlation with the labels is {correlation:.2f}.'
    if gain - Z * error > 0:
        return GOOD, f'{clause}. {follows}'
    if correlation_from(correlation, len(labels)) > 0:
        return PART, f'{clause}. But they follow the labels: the correlation is {correlation:.2f}.'
    if gain > 0:
        return UNSURE, f'{clause}, which may be chance on so few rows. {follows}'
    return BAD, f'{clause}. {follows}'


def describe_rows(evaluation):
    """Return the number of rows and the name of the dev set, such as ``9,815 matched dev rows``."""
    return f'{len(evaluation.labels):,} {evaluation.name} dev rows'.replace('  ', ' ')


def quote(value, task):
    """Return a label, or the labels of a row, in quotation marks."""
    return f"'{name_labels(value, task)}'"


def percent(share):
    """Return a share as text, with one decimal if it has one.

    >>> percent(0.9013), percent(0.5)
    ('90.1 %', '50 %')
    """
    return f'{points(share)} %'


def points(share):
    """Return a share in hundredths, with one decimal if it has one."""
    text = f'{100 * share:.1f}'
    return text[:-2] if text.endswith('.0') else text


def compare(gain):
    """Return how much more or less one share is than another, as the start of ``than ...``.

    >>> compare(0.4), compare(-0.021), compare(0.0)
    ('40 points more than', '2.1 points fewer than', 'as many as by')
    """
    text = points(abs(gain))
    if text == '0':
        return 'as many as by'
    return f'{text} points {"more" if gain > 0 else "fewer"} than'
