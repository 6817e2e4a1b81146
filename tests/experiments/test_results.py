"""Statistics, compared with cases worked by hand, and their tables."""

import csv
import io

import numpy as np
import pytest

from bert.experiments import results
from bert.tasks.table import TASKS

# Two runs of a task with one dev set, three epochs, the best in the middle.
RECORD = {
    'epochs': [
        {'dev': {'mcc': 0.25}, 'seconds': 4.0},
        {'dev': {'mcc': 0.5}, 'seconds': 4.0},
        {'dev': {'mcc': 0.375}, 'seconds': 4.0},
    ],
    'best_epoch': 2,
    'seconds': 15.04,
}


WHOLE = {**RECORD, 'machine': {'memory': '1 GiB'}}


def test_what_is_a_record():
    assert results.is_record(WHOLE, TASKS['CoLA'])
    epochs = RECORD['epochs']
    wrong = {
        'epochs': [
            *(None, 5, [], [5], {}, [{}], [{'dev': 0.5}], [{'dev': {}}], [{'dev': {'mcc': 'x'}}]),
            *([*epochs, {}], [*epochs, {'dev': {'mcc': 0.5, 'f1': 0.5}}]),
            *([*epochs, {'dev': {'mcc': 10**400}}], [*epochs, {'dev': {'mcc': None}}]),
            [*epochs, {'dev': {'mcc': 0.5}, 'seconds': 'x'}],
        ],
        'best_epoch': [None, 0, 4, -1, True, 1.0, '1', [1], 10**400],
        'seconds': [None, '1', [1], True],
        'machine': [None, 5, [], 'x', {'memory': 1}, {'memory': ['1 GiB']}],
    }
    for name, values in wrong.items():
        for value in values:
            assert not results.is_record({**WHOLE, name: value}, TASKS['CoLA']), (name, value)
        assert not results.is_record({k: v for k, v in WHOLE.items() if k != name}, TASKS['CoLA'])
    assert not results.is_record(WHOLE, TASKS['RTE'])  # another metric
    assert not results.is_record({}, TASKS['CoLA'])


def test_a_cell_stays_one_line():
    rows = [{'a\x1b[2J\nb': 'c\nd'}]
    for style in ('text', 'markdown', 'rst'):
        table = results.format_table(rows, style)
        assert '\x1b' not in table and r'a\x1b[2J\nb' in table and r'c\nd' in table


def test_statistics_by_hand():
    """Of .80, .84, .88: mean .84; squared deviations .0016 twice and 0, over n - 1 = 2: .04.

    Student's t with 2 degrees of freedom has its 97.5 % quantile at 4.302653 (any printed table),
    so half of the interval of the mean is 4.302653 * .04 / sqrt(3) = .099365, and half of that of
    one more run 4.302653 * .04 * sqrt(1 + 1/3) = .198731.
    """
    assert results.summarize([0.80, 0.84, 0.88]) == pytest.approx(
        {
            'mean': 0.84,
            'deviation': 0.04,
            '95 % of the mean from': 0.740635,
            '95 % of the mean to': 0.939365,
            '95 % of a run from': 0.641269,
            '95 % of a run to': 1.038731,
        },
        abs=1e-6,
    )


def test_intervals_stay_within_the_range():
    """Of .8, .9 and 1.0 the mean is .9 and the deviation .1; half of the interval of the mean is
    4.302653 * .1 / sqrt(3) = .248414, which leads beyond 1, and half of the other .496828.
    """
    summary = results.summarize([0.8, 0.9, 1.0], 0.0, 1.0)
    assert summary['95 % of the mean from'] == pytest.approx(0.651586, abs=1e-6)
    assert summary['95 % of a run from'] == pytest.approx(0.403172, abs=1e-6)
    assert summary['95 % of the mean to'] == summary['95 % of a run to'] == 1
    low = results.summarize([-0.8, -0.9, -1.0], -1.0, 1.0)
    assert low['95 % of the mean from'] == low['95 % of a run from'] == -1
    assert low['95 % of the mean to'] == pytest.approx(-0.651586, abs=1e-6)


def test_the_range_is_that_of_the_metric():
    """An accuracy is between 0 and 1, a correlation between -1 and 1, and seconds have no end."""
    done = {
        seed: {'last matched accuracy': value, 'best mcc': value, 'last score': value}
        for seed, value in enumerate([0.1, 0.5, 0.9], 1)
    }
    rows = {row['seed']: row for row in results.tabulate(done)}
    low, high = rows['95 % of a run from'], rows['95 % of a run to']
    assert low['last matched accuracy'] == 0 and low['best mcc'] == low['last score'] == -1
    assert set(high.values()) == {'95 % of a run to', 1}
    assert rows['95 % of the mean from']['best mcc'] == pytest.approx(0.5 - 0.993655, abs=1e-6)


def test_two_runs_have_a_deviation_and_no_interval():
    summary = results.summarize([0.5, 0.7])
    assert summary['mean'] == pytest.approx(0.6)
    assert summary['deviation'] == pytest.approx(0.02**0.5)
    assert {summary[name] for name in results.STATISTICS[2:]} == {None}
    rows = published_rows({'last': {'dev': {'accuracy': 0.8}}}, values=[0.7, 0.9])
    assert [row['last accuracy'] for row in rows] == [0.8, '1 of 2', None]


def test_one_more_run_falls_within_its_interval():
    """In 95 % of 4000 samples of six normal numbers (standard error 0.34 %) the sixth is within
    the interval of the first five, but much less often within that of their mean."""
    rng = np.random.default_rng(1)
    inside = {'a run': 0, 'the mean': 0}
    for sample in rng.normal(0.8, 0.02, (4000, 6)):
        summary = results.summarize(sample[:5])
        for kind in inside:
            low, high = summary[f'95 % of {kind} from'], summary[f'95 % of {kind} to']
            inside[kind] += low <= sample[5] <= high
    assert inside['a run'] / 4000 == pytest.approx(0.95, abs=0.012)
    assert inside['the mean'] / 4000 < 0.8


def test_a_table_of_one_seed():
    """It has no deviation or interval, shown as '-', and no mean of epoch numbers."""
    assert results.format_table(results.tabulate({7: results.measures(RECORD)})) == (
        'seed                   last mcc  best epoch  best mcc  seconds\n'
        '7                        0.3750           2    0.5000     15.0\n'
        'mean                     0.3750           -    0.5000     15.0\n'
        'deviation                     -           -         -        -\n'
        '95 % of the mean from         -           -         -        -\n'
        '95 % of the mean to           -           -         -        -\n'
        '95 % of a run from            -           -         -        -\n'
        '95 % of a run to              -           -         -        -'
    )


def test_both_dev_sets_of_mnli():
    epoch = {'matched': {'accuracy': 0.8}, 'mismatched': {'accuracy': 0.9}, 'seconds': 4.0}
    values = results.measures({'epochs': [epoch], 'best_epoch': 1, 'seconds': 5.0})
    assert values == {
        'last matched accuracy': 0.8,
        'last mismatched accuracy': 0.9,
        'best epoch': 1,
        'best matched accuracy': 0.8,
        'best mismatched accuracy': 0.9,
        'seconds': 5.0,
    }


def published_rows(figures, reason=None, values=(0.80, 0.84, 0.88)):
    """Return the rows of a published run, for seeds with these last accuracies; the best are .9."""
    done = {
        seed: {'last accuracy': value, 'best epoch': 2, 'best accuracy': 0.9, 'seconds': 1.0}
        for seed, value in enumerate(values, 1)
    }
    return results.tabulate(done, [('2019-01', figures, reason)])[len(values) + 6 :]


@pytest.mark.parametrize(
    ('figure', 'below', 'within'),
    [(0.87, '2 of 3', 'yes'), (0.88, '2 of 3', 'yes'), (0.64, '0 of 3', 'no')]
    + [(1.04, '3 of 3', 'no'), (0.65, '0 of 3', 'yes')],
)
def test_where_the_published_figure_falls(figure, below, within):
    """The interval of one run is .641 to 1.039, worked out above."""
    last = {'dev': {'accuracy': figure}}
    rows = published_rows({'last': last, 'seed': 2})
    assert [row['seed'] for row in rows] == [
        'published 2019-01',
        'runs below it',
        'within 95 % of a run',
    ]
    assert [row['last accuracy'] for row in rows] == [figure, below, within]
    assert {row[name] for row in rows for name in ('best accuracy', 'best epoch', 'seconds')} == {
        None
    }


def test_one_run_has_no_interval_to_be_in():
    rows = published_rows({'last': {'dev': {'accuracy': 0.8}}}, values=[0.7])
    assert [row['last accuracy'] for row in rows] == [0.8, '1 of 1', None]


def test_the_reason_takes_the_place_of_a_figure():
    (row,) = published_rows({'best': {'dev': {'accuracy': 0.9}}}, 'other model')
    assert row == {
        'seed': 'published 2019-01',
        'last accuracy': None,
        'best epoch': None,
        'best accuracy': 'other model',
        'seconds': None,
    }


def test_macro_average():
    """Each task's score is the mean of its metrics: MRPC (.8 + .9) / 2, MNLI (.6 + .8) / 2, and
    RTE .5 at the last and .7 at the best epoch: (.85 + .7 + .5) / 3 and (.85 + .7 + .7) / 3."""

    def record(*epochs, best=1):
        return {'epochs': list(epochs), 'best_epoch': best, 'seconds': 1.0}

    mrpc = record({'dev': {'accuracy': 0.8, 'f1': 0.9}, 'seconds': 9.0})
    mnli = record({'matched': {'accuracy': 0.6}, 'mismatched': {'accuracy': 0.8}, 'seconds': 9.0})
    rte = record({'dev': {'accuracy': 0.7}}, {'dev': {'accuracy': 0.5}})
    records = {'MRPC': {1: mrpc, 2: mrpc}, 'MNLI': {2: mnli, 1: mnli}, 'RTE': {1: rte}}
    # Seed 2 lacks RTE.
    assert results.macro_average(records) == {
        1: {'last score': pytest.approx(2.05 / 3), 'best score': pytest.approx(2.25 / 3)}
    }


def test_only_tasks_of_glue_count_for_its_score():
    def record(value):
        return {'epochs': [{'dev': {'accuracy': value}}], 'best_epoch': 1, 'seconds': 1.0}

    records = {name: {1: record(0.5)} for name in [*TASKS, 'LCQMC']}
    records['LCQMC'] = {1: record(1.0)}
    published = dict.fromkeys(records, [])
    assert results.tabulate_tasks(records, published)['GLUE'][0] == {
        'seed': 1,
        'last score': 0.5,
        'best score': 0.5,
    }
    del records['WNLI']
    assert len(records) == len(TASKS)
    assert 'GLUE' not in results.tabulate_tasks(records, published)


TABLE = [
    {'seed': 1, 'last mcc': 0.12345, 'best epoch': 2, 'seconds': 3.21},
    {'seed': 'mean', 'last mcc': None, 'best epoch': None, 'seconds': 3.21},
]


def test_styles():
    assert results.format_document({'CoLA': TABLE}, 'text') == (
        'CoLA\n\n'
        'seed  last mcc  best epoch  seconds\n'
        '1       0.1235           2      3.2\n'
        'mean         -           -      3.2\n'
    )
    assert results.format_document({'CoLA': TABLE}, 'markdown') == (
        '## CoLA\n\n'
        '| seed | last mcc | best epoch | seconds |\n'
        '| ---- | -------: | ---------: | ------: |\n'
        '| 1    |   0.1235 |          2 |     3.2 |\n'
        '| mean |        - |          - |     3.2 |\n'
    )
    assert list(csv.reader(io.StringIO(results.format_document({'CoLA': TABLE}, 'csv')))) == [
        ['task', 'seed', 'last mcc', 'best epoch', 'seconds'],
        ['CoLA', '1', '0.12345', '2', '3.21'],
        ['CoLA', 'mean', '', '', '3.21'],
    ]


def test_restructured_text_parses():
    """It has headings, a column for each name, and dashes in empty cells."""
    core = pytest.importorskip('docutils.core')
    from docutils import nodes

    warnings = io.StringIO()
    tree = core.publish_doctree(
        results.format_document({'CoLA': TABLE, 'RTE': TABLE}, 'rst'),
        settings_overrides={'warning_stream': warnings, 'report_level': 1},
    )
    assert warnings.getvalue() == ''
    assert [title.astext() for title in tree.findall(nodes.title)] == ['CoLA', 'RTE']
    table = next(iter(tree.findall(nodes.table)))
    cells = [[entry.astext() for entry in row.children] for row in table.findall(nodes.row)]
    assert cells == [
        ['seed', 'last mcc', 'best epoch', 'seconds'],
        ['1', '0.1235', '2', '3.2'],
        ['mean', '-', '-', '3.2'],
    ]
    assert not list(tree.findall(nodes.bullet_list))
