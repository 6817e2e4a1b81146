"""Verdicts: their sentences, worked by hand, and the intervals behind them."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binomtest
from test_quality import MANY, several

from bert.report import chance, verdict
from bert.report.quality import Evaluation
from bert.tasks.table import TASKS

ADVICE = 'What to try: something.'


def classes(labels, *runs, name=''):
    """Return the evaluation of runs, given their answers."""
    labels = np.array(labels)
    outputs = np.eye(max(labels.max(), *map(max, runs)) + 1)[np.array(runs)]
    return Evaluation(name, [('text',)] * len(labels), labels, outputs)


def numbers(labels, *runs):
    labels = np.array(labels, np.float32)
    return Evaluation('', [('text',)] * len(labels), labels, np.array(runs, float)[:, :, None])


def judge(evaluation, task, names=('',)):
    return [tuple(found) for found in verdict.judge(evaluation, task, list(names), ADVICE)]


def rows(*counts):
    """Return labels and answers, given (label, answer, how many rows)."""
    labels = [label for label, _, count in counts for _ in range(count)]
    return labels, [answer for _, answer, count in counts for _ in range(count)]


def test_it_learned():
    """Of 200 rows 120 have label 1; 180 are right: 90 % against 60 %.

    The interval of Clopper and Pearson for 180 of 200 is .850 to .938.
    """
    evaluation = classes(*rows((1, 1, 110), (1, 0, 10), (0, 0, 70), (0, 1, 10)))
    assert judge(evaluation, TASKS['MRPC']) == [
        (
            'good',
            'It learned: 90 % of the 200 dev rows are right, 30 points more than always answering '
            "'1' (95 % interval for so many rows: 85.0 to 93.8 %).",
        )
    ]


def test_a_gain_within_chance():
    """Of 20 rows 10 have label 1; 12 are right: 60 %, whose interval, .361 to .809, holds .5."""
    evaluation = classes(*rows((1, 1, 6), (1, 0, 4), (0, 0, 6), (0, 1, 4)))
    assert judge(evaluation, TASKS['MRPC']) == [
        (
            'unsure',
            'Not sure that it learned: 60 % of the 20 dev rows are right, 10 points more than '
            "always answering '0', which may be chance (95 % interval for so many rows: 36.1 to "
            '80.9 %). A larger dev set would tell.',
        )
    ]


def test_it_did_not_learn():
    """Of 100 rows 60 have label 1; 50 are right: half of either label."""
    evaluation = classes(*rows((1, 1, 30), (1, 0, 30), (0, 0, 20), (0, 1, 20)), name='matched')
    assert judge(evaluation, TASKS['MRPC']) == [
        (
            'bad',
            'It did not learn: 50 % of the 100 matched dev rows are right, 10 points fewer than '
            f"always answering '1'. {ADVICE}",
        )
    ]


def test_a_rare_class_is_found_though_few_more_rows_are_right():
    """Of 1000 rows 100 have label 1, and 70 of these are found, with 70 false alarms.

    That makes 900 right answers, no more than always answering 0. But of the rows of label 0,
    830 of 900 are right, of label 1 70 %: (92.2 + 70) / 2 = 81.1.
    """
    evaluation = classes(*rows((0, 0, 830), (0, 1, 70), (1, 1, 70), (1, 0, 30)))
    ((level, text),) = judge(evaluation, TASKS['MRPC'])
    assert level == 'part'
    assert text.startswith(
        'It learned in part: 90 % of the 1,000 dev rows are right, as many as by always answering '
    )
    assert text.endswith('81.1 % are right on average, compared with 50 % for a constant answer.')


def test_a_run_that_gives_one_answer():
    labels, answers = rows((1, 1, 68), (0, 1, 32))
    text = "It collapsed: it answers '1' for every dev row, whatever the text."
    assert judge(classes(labels, answers), TASKS['MRPC']) == [('bad', f'{text} {ADVICE}')]
    answers[0] = 0
    text = "It collapsed: it answers '1' for 99 % of the dev rows, whatever the text."
    assert judge(classes(labels, answers), TASKS['MRPC']) == [('bad', f'{text} {ADVICE}')]
    answers[1] = 0
    assert 'collapsed' not in judge(classes(labels, answers), TASKS['MRPC'])[0][1]


def test_some_of_many_runs_collapse():
    """The others are judged without them: 90 % and 92 % of 100 rows."""
    labels = [1] * 50 + [0] * 50
    nine = [0] * 5 + [1] * 45 + [1] * 5 + [0] * 45
    better = [0] * 4 + [1] * 46 + [1] * 4 + [0] * 46
    names = ['seed 4', 'seed 7', 'seed 1']
    evaluation = classes(labels, nine, [0] * 100, better)
    good, bad = judge(evaluation, TASKS['MRPC'], names)
    assert good[0] == 'good' and good[1].startswith(
        'It learned in 2 of 3 runs: on average over 2 runs, 91 % of the 100 dev rows are right, '
    )
    assert bad == (
        'bad',
        '1 of 3 runs collapsed to one answer, whatever the text: seed 7 '
        f"('0' for every dev row). {ADVICE}",
    )


def test_one_answer_is_right_where_the_labels_are_one():
    evaluation = classes([1] * 30, [1] * 30)
    assert judge(evaluation, TASKS['MRPC']) == [
        ('unsure', "Not sure that it learned: all 30 dev rows have the label '1'.")
    ]


def test_numbers_that_follow_the_labels():
    """Labels 0 and 4 in turn, off by 1: their deviation is 2, so the error is half of it."""
    labels = [0, 4] * 20
    ((level, text),) = judge(numbers(labels, [1, 3] * 20), TASKS['STS-B'])
    assert (level, text) == (
        'good',
        'It learned: the numbers for the 40 dev rows are off by 1 (root mean square), 50 % less '
        'than if each were the mean of the labels, 2. Their correlation with the labels is 1.00.',
    )


def test_numbers_that_follow_at_a_distance():
    """Off by 3 each, that is 50 % more than the deviation of 2; but in the right order."""
    ((level, text),) = judge(numbers([0, 4] * 20, [3, 7] * 20), TASKS['STS-B'])
    assert level == 'part'
    assert 'off by 3 (root mean square), 50 % more than if each were the mean' in text
    assert text.endswith('But they follow the labels: the correlation is 1.00.')


def test_numbers_that_do_not_follow():
    """Half of the rows are off by 4: the root of 8 is 41.4 % more than 2."""
    ((level, text),) = judge(numbers([0, 4] * 20, [0, 4, 4, 0] * 10), TASKS['STS-B'])
    assert level == 'bad'
    assert text == (
        'It did not learn: the numbers for the 40 dev rows are off by 2.83 (root mean square), '
        '41.4 % more than if each were the mean of the labels, 2. Their correlation with the '
        f'labels is 0.00. {ADVICE}'
    )


def test_numbers_that_collapse_to_the_mean():
    ((level, text),) = judge(numbers([0, 4] * 20, [2.31, 2.33] * 20), TASKS['STS-B'])
    assert (level, text) == (
        'bad',
        f'It collapsed: it answers about 2.32 for every dev row, whatever the text. {ADVICE}',
    )
    assert judge(numbers([2] * 9, [2.1] * 9), TASKS['STS-B']) == [
        ('unsure', 'Not sure that it learned: all 9 dev rows have the label 2.')
    ]


def test_several_labels():
    """40 rows: 20 with a, 10 with a and b, 10 with none. All are right but 5 of the 10 with two.

    That is 87.5 %, against 50 % with a alone. Of the 120 single labels 115 are right; the usual
    value of each (1 0 0) is right for 30 + 30 + 40 = 100 of them: 95.8 % against 83.3 %.
    """
    labels = [[1, 0, 0]] * 20 + [[1, 1, 0]] * 10 + [[0, 0, 0]] * 10
    given = [[1, 0, 0]] * 25 + [[1, 1, 0]] * 5 + [[0, 0, 0]] * 10
    evaluation = several(labels, 0.1 + 0.8 * np.array(given))
    assert judge(evaluation, MANY) == [
        (
            'good',
            'It learned: 87.5 % of the 40 dev rows have exactly the right labels, 37.5 points more '
            "than always answering 'a'; of all individual labels, 95.8 % are right, 12.5 points "
            'more than always giving each its most frequent value.',
        )
    ]


def test_a_label_that_is_never_found():
    """Ten of the 40 rows have b; none of them is answered with it."""
    labels = [[1, 0, 0]] * 20 + [[1, 1, 0]] * 10 + [[0, 0, 0]] * 10
    given = [[1, 0, 0]] * 30 + [[0, 0, 0]] * 10
    ((level, text),) = judge(several(labels, 0.1 + 0.8 * np.array(given)), MANY)
    assert level == 'good'
    assert text.endswith(" But none of the rows with these labels are found: 'b' (10).")


def test_classes_that_are_never_found():
    task = dataclasses.replace(TASKS['MRPC'], labels=tuple('abcdefghi'))
    labels, given = rows((0, 0, 50), (1, 1, 50), *((i, 0, i) for i in range(2, 9)))
    outputs = np.eye(9)[given]
    evaluation = Evaluation('', [('text',)] * len(labels), np.array(labels), outputs[None])
    ((level, text),) = judge(evaluation, task)
    assert level == 'good'
    assert text.endswith("found: 'c' (2), 'd' (3), 'e' (4), 'f' (5), 'g' (6) and 2 more.")


def test_several_labels_that_collapse():
    labels = [[1, 0, 0]] * 20 + [[1, 1, 0]] * 10 + [[0, 0, 0]] * 10
    assert judge(several(labels, np.full((40, 3), 0.1)), MANY) == [
        (
            'bad',
            f"It collapsed: it answers 'no label' for every dev row, whatever the text. {ADVICE}",
        )
    ]


def test_several_labels_at_random():
    rng = np.random.default_rng(1)
    labels, chances = rng.integers(0, 2, (60, 3)), rng.uniform(0.1, 0.9, (60, 3))
    ((level, _),) = judge(several(labels, chances), MANY)
    assert level in ('unsure', 'bad')


@pytest.mark.parametrize(('hits', 'count'), [(0, 7), (3, 7), (7, 7), (368, 408)])
def test_the_interval_is_that_of_scipy(hits, count):
    expected = binomtest(hits, count).proportion_ci(0.95, 'exact')
    assert chance.share_interval(hits / count, count) == pytest.approx(tuple(expected))


def test_the_interval_of_a_correlation():
    """Of .5 on 28 rows: atanh .5 = .54931, less 1.96 / 5 = .15731, whose tanh is .15602."""
    assert chance.correlation_from(0.5, 28) == pytest.approx(0.15602, abs=1e-5)
    assert chance.correlation_from(1.0, 3) == -1
    assert 0.99 < chance.correlation_from(1.0, 28) <= 1


def test_chance_is_rarely_taken_for_learning():
    """Of 400 classifiers that answer at random, about one in forty is above the interval."""
    rng = np.random.default_rng(1)
    levels = [
        judge(classes(rng.integers(0, 2, 60), rng.integers(0, 2, 60)), TASKS['MRPC'])[0][0]
        for _ in range(400)
    ]
    assert (levels.count('good') + levels.count('part')) / 400 < 0.06
