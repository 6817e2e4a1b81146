"""Tables from the records of many runs: mean, spread, intervals, and the published figures."""

import csv
import io
import math

import numpy as np

from bert.system.terminal import escape
from bert.tasks import metrics
from bert.tasks.table import TASKS

HEAD = 'seed'  # the head of the first column, which also has the names of the statistics
MEAN_INTERVAL = ('95 % of the mean from', '95 % of the mean to')
RUN_INTERVAL = ('95 % of a run from', '95 % of a run to')
FEWEST = 3  # runs that have an interval
STATISTICS = ('mean', 'deviation', *MEAN_INTERVAL, *RUN_INTERVAL)


def metric_name(when, dev_set, metric):
    """Return the name of a column, without the dev set if it is the task's only one.

    >>> metric_name('last', 'dev', 'f1'), metric_name('best', 'matched', 'accuracy')
    ('last f1', 'best matched accuracy')
    """
    return f'{when} {metric}' if dev_set == 'dev' else f'{when} {dev_set} {metric}'


def flatten(when, dev_sets):
    """Turn an epoch's metrics, by dev set, into cells of a row; skip its other entries."""
    return {
        metric_name(when, dev_set, metric): value
        for dev_set, metrics in dev_sets.items()
        if isinstance(metrics, dict)
        for metric, value in metrics.items()
    }


def measures(record):
    """Return a run's figures for the table: metrics at its last and best epoch, and its time.

    >>> dev = {'matched': {'accuracy': 0.8}, 'mismatched': {'accuracy': 0.9}, 'seconds': 4.0}
    >>> list(measures({'epochs': [dev], 'best_epoch': 1, 'seconds': 5.0}).items())[:3]
    [('last matched accuracy', 0.8), ('last mismatched accuracy', 0.9), ('best epoch', 1)]
    """
    epochs, best = record['epochs'], record['best_epoch']
    return {
        **flatten('last', epochs[-1]),
        'best epoch': best,
        **flatten('best', epochs[best - 1]),
        'seconds': record['seconds'],
    }


def is_record(record, task):
    """Return whether the object of a JSON file is the record of a run of a task.

    Parameters
    ----------
    record : dict
        See :func:`bert.experiments.runs.finish`.
    task : bert.tasks.table.Task
    """
    machine = record.get('machine')
    if not (
        metrics.are_epochs(record.get('epochs'), record.get('best_epoch'))
        and metrics.is_number(record.get('seconds'))
        and isinstance(machine, dict)
        and all(isinstance(value, str) for value in machine.values())
    ):
        return False
    names = [(split.dev_name, {*task.metrics}) for split in task.dev]
    measured = [
        [(name, {*values}) for name, values in epoch.items() if name != 'seconds']
        for epoch in record['epochs']
    ]
    return all(sorted(found) == sorted(names) for found in measured)


def best_seed(task, done):
    """Return the seed whose best epoch has the best first metric on the first dev set.

    Parameters
    ----------
    task : bert.tasks.table.Task
    done : dict of int to dict
        The record of each seed.
    """
    dev_set, metric = task.dev[0].dev_name, task.metrics[0]

    def score(seed):
        return done[seed]['epochs'][done[seed]['best_epoch'] - 1][dev_set][metric]

    return max(done, key=score)


def tabulate_tasks(records, published):
    """Make the table of each task, and of GLUE's score if there are records of all its tasks.

    Parameters
    ----------
    records : dict of str to dict of int to dict
        The records of each task by seed.
    published : dict of str to list
        The result of :func:`bert.experiments.plans.compare_published` for each task.

    Returns
    -------
    dict of str to list of dict
        See :func:`tabulate`.
    """
    tables = {}
    for task, done in records.items():
        measured = {seed: measures(record) for seed, record in done.items()}
        tables[task] = tabulate(measured, published[task])
    if records.keys() >= TASKS.keys():
        scores = macro_average({task: records[task] for task in TASKS})
        if scores:
            tables['GLUE'] = tabulate(scores)
    return tables


def tabulate(done, published=()):
    """Make the table of a task from the measures of each seed.

    Parameters
    ----------
    done : dict of int to dict
        The :func:`measures` of each seed.
    published : sequence of (str, dict, str or None)
        See :func:`bert.experiments.plans.compare_published`.

    Returns
    -------
    list of dict
        A row for each seed, one for each statistic, and for each published recipe either three
        rows (its figures, how many runs are below them, and whether they are within the interval
        of one run), or one that says why not. The name of a row is in the column ``seed``. A
        missing value is None.
    """
    rows = [{HEAD: number, **values} for number, values in done.items()]
    summaries = {
        name: summarize([row[name] for row in rows], *metrics.bounds(name.split()[-1]))
        for name in list(rows[0])[1:]
    }
    # A mean of epoch numbers says nothing, nor does an interval for times on one machine.
    if 'best epoch' in summaries:
        summaries['best epoch'] = {}
    if 'seconds' in summaries:
        summaries['seconds'] = {'mean': summaries['seconds']['mean']}
    table = list(rows)
    for statistic in STATISTICS:
        values = {name: summary.get(statistic) for name, summary in summaries.items()}
        table.append({HEAD: statistic, **values})
    for recipe, figures, reason in published:
        table += compare(recipe, figures, reason, rows, summaries)
    return table


def summarize(values, lowest=-math.inf, highest=math.inf):
    """Compute mean, standard deviation of the sample, and two 95 % intervals by Student's t.

    The interval of the mean, mean +- t s / sqrt(n), says how well the mean is known; that of a
    run, mean +- t s sqrt(1 + 1/n), where one more run with another seed would fall (the prediction
    interval of a normal sample). Neither goes beyond the lowest and the highest possible value.
    Two values have no intervals, which would hardly leave anything out; a single one has no
    deviation either. What there is not is None.

    Returns
    -------
    dict of str to (float or None)
    """
    count = len(values)
    summary = {**dict.fromkeys(STATISTICS), 'mean': float(np.mean(values))}
    if count > 1:
        summary['deviation'] = float(np.std(values, ddof=1))
    if count >= FEWEST:
        from scipy.stats import t

        quantile = float(t.ppf(0.975, count - 1))
        for names, factor in [(MEAN_INTERVAL, 1 / count), (RUN_INTERVAL, 1 + 1 / count)]:
            half = quantile * summary['deviation'] * factor**0.5
            ends = max(summary['mean'] - half, lowest), min(summary['mean'] + half, highest)
            summary.update(zip(names, ends))
    return summary


def compare(recipe, figures, reason, rows, summaries):
    """Make the rows of a published run: its figures and where they fall, or why not to compare."""
    cells = {
        name: value
        for when in ('last', 'best')
        for name, value in flatten(when, figures.get(when, {})).items()
    }
    names = [name for name in rows[0] if name != HEAD]

    def below(name):
        return f'{sum(row[name] < cells[name] for row in rows)} of {len(rows)}'

    def within(name):
        low, high = (summaries[name][bound] for bound in RUN_INTERVAL)
        return None if low is None else 'yes' if low <= cells[name] <= high else 'no'

    def row(title, cell):
        return {HEAD: title, **{name: cell(name) if name in cells else None for name in names}}

    title = f'published {recipe}'
    if reason:
        return [row(title, lambda name: reason)]
    return [
        row(title, cells.get),
        row('runs below it', below),
        row('within 95 % of a run', within),
    ]


def macro_average(records):
    """Compute GLUE's score for each seed that has all tasks.

    It is the mean over tasks of the mean of their metrics (Wang et al. 2018); the diagnostic set
    does not count.

    Parameters
    ----------
    records : dict of str to dict of int to dict
        The records of each task by seed.

    Returns
    -------
    dict of int to dict
        ``last score`` and ``best score`` by seed.
    """

    def average(seed, choose_epoch):
        of_one_seed = [runs[seed] for runs in records.values()]
        scores = [
            np.mean(list(flatten('', record['epochs'][choose_epoch(record)]).values()))
            for record in of_one_seed
        ]
        return float(np.mean(scores))

    return {
        seed: {
            'last score': average(seed, lambda record: -1),
            'best score': average(seed, lambda record: record['best_epoch'] - 1),
        }
        for seed in next(iter(records.values()))
        if all(seed in runs for runs in records.values())
    }


def format_table(rows, style='text'):
    """Format a table as ``text``, ``markdown`` or ``rst`` (reStructuredText)."""
    lines = [list(rows[0])] + [[format_cell(*item) for item in row.items()] for row in rows]
    # The names of metrics and of data sets may come from any file.
    lines = [[escape(cell) for cell in line] for line in lines]
    if style == 'rst':
        # A dash alone would be an empty list item.
        lines = [['\\-' if cell == '-' else cell for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines = [
        [line[0].ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(line[1:], widths[1:])]
        for line in lines
    ]
    if style == 'markdown':
        rule = ['-' * widths[0]] + ['-' * (width - 1) + ':' for width in widths[1:]]
        return '\n'.join('| ' + ' | '.join(line) + ' |' for line in [lines[0], rule, *lines[1:]])
    text = ['  '.join(line) for line in lines]
    if style == 'rst':
        rule = '  '.join('=' * width for width in widths)
        text = [rule, text[0], rule, *text[1:], rule]
    return '\n'.join(text)


def format_cell(name, value):
    """Format a value with the number of digits that suits its column."""
    if value is None:
        return '-'
    if isinstance(value, float):
        return f'{value:.1f}' if name == 'seconds' else f'{value:.4f}'
    return str(value)


def format_document(tables, style):
    """Format all tables as one text, under the names of their tasks.

    ``csv`` has unrounded numbers, and empty cells for missing ones.
    """
    if style == 'csv':
        columns = dict.fromkeys(name for rows in tables.values() for row in rows for name in row)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, ['task', *columns], lineterminator='\n')
        writer.writeheader()
        for task, rows in tables.items():
            writer.writerows({'task': task, **row} for row in rows)
        return buffer.getvalue()
    headings = {'text': '{0}', 'markdown': '## {0}', 'rst': '{0}\n{1}'}
    return (
        '\n\n'.join(
            headings[style].format(task, '-' * len(task)) + '\n\n' + format_table(rows, style)
            for task, rows in tables.items()
        )
        + '\n'
    )
