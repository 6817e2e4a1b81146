"""A page about many runs: tables, curves, confusion matrices, and the rows that most get wrong.

The page is one HTML file that needs nothing else. All text from data, flags and the machine is
escaped by :func:`html.escape` where it enters.
"""

import base64
import logging
from html import escape
from typing import NamedTuple

import numpy as np

from bert.experiments import curves, logs
from bert.experiments.results import HEAD, MEAN_INTERVAL, format_cell, metric_name, unique
from bert.system.errors import ToolkitError
from bert.system.files import write_text
from bert.tasks import files
from bert.tasks.predictions import read_outputs
from bert.tasks.table import TASKS

HARD_HEADING = 'the rows that most runs get wrong'
MOST_SHOWN = 20  # of them
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff;
       max-width: 70rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; }
h2 { border-top: 2px solid #1c1c1c; margin-top: 2.5rem; padding-top: .7rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
        overflow-wrap: normal; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #ddd; }
th { font-weight: 600; vertical-align: bottom; }
thead th { white-space: normal; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tr.first td { border-top: 2px solid #888; }
.pictures { display: grid; gap: 1rem; margin: 1.5rem 0;
            grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.pictures img { width: 100%; height: auto; max-width: 36rem; }
.matrix td, .matrix thead th + th { min-width: 4rem; text-align: center; position: static; }
.matrix th { vertical-align: middle; }
.matrix td small { display: block; }
ol.rows { padding-left: 2rem; }
ol.rows li { margin-bottom: .8rem; }
ol.rows small { color: #555; }
ol.rows p { margin: .1rem 0; }
pre { background: #f3f3f3; padding: .7rem; white-space: pre-wrap; font-size: .875rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dd { margin: 0; }
@media (max-width: 40rem) {
  td:first-child { white-space: normal; min-width: 6rem; }
}
"""


class Evaluation(NamedTuple):
    """What all runs of a task say of one of its dev sets, each at its best epoch."""

    name: str  # '' where the task has only one
    texts: list  # of (text,) or (first, second)
    labels: np.ndarray  # (N,) class ids or numbers
    outputs: np.ndarray  # (runs, N, classes), before any softmax


class Section(NamedTuple):
    """What the page shows of a task."""

    task: object  # a bert.tasks.table.Task
    table: list  # see bert.experiments.results.tabulate
    panels: list  # of bert.experiments.curves.Panel
    evaluations: list  # of Evaluation


class Hard(NamedTuple):
    """A row of a dev set that is hard to get right."""

    row: int  # counted from 1
    texts: tuple
    label: str
    told: str  # what the runs say of it


def write_page(title, command, tables, sections, machines, has_pictures):
    """The page as text.

    Parameters
    ----------
    title, command : str
    tables : dict of str to list of dict
        All tables, of which that of GLUE has no section.
    sections : list of Section
    machines : dict of str to list of str
        What :func:`bert.system.machine.describe` said where the runs were done; each value once.
    has_pictures : bool
        Whether matplotlib can be used.
    """
    body = [f'<h1>{escape(title)}</h1>', overview(sections)]
    for name, table in tables.items():
        if name not in [section.task.name for section in sections]:
            body.append(f'<h2>{escape(name)}</h2>{format_rows(table)}')
    if not has_pictures:
        body.append(f'<p>{escape(curves.NEEDED)}</p>')
    body += [format_section(section, has_pictures) for section in sections]
    body.append(f'<h2>How it was made</h2><pre>{escape(command)}</pre>{format_machines(machines)}')
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f'<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
        + '\n'.join(body)
        + '\n</body>\n</html>\n'
    )


def overview(sections):
    """A row for each task: the first metric at the last and at the best epoch, over the runs."""
    head = ['task', 'metric', 'runs', 'last epoch, mean', *MEAN_INTERVAL, 'best epoch, mean']
    lines = []
    for section in sections:
        by_name = {row[HEAD]: row for row in section.table}
        for evaluation in section.evaluations:
            metric = section.task.metrics[0]
            dev_set = evaluation.name or 'dev'
            last, best = (metric_name(when, dev_set, metric) for when in ('last', 'best'))
            cells = [('mean', last), *((row, last) for row in MEAN_INTERVAL), ('mean', best)]
            lines.append(
                [
                    section.task.name,
                    f'{evaluation.name} {metric}'.strip(),
                    str(len(evaluation.outputs)),
                    *(format_cell(column, by_name[row][column]) for row, column in cells),
                ]
            )
    return format_lines(head, lines)


def format_rows(table):
    """A table of :func:`bert.experiments.results.tabulate`; a line stands above the statistics."""
    lines = [[format_cell(*item) for item in row.items()] for row in table]
    return format_lines(list(table[0]), lines, first='mean')


def format_lines(head, lines, first=None):
    """A table, from texts; above the line that begins with ``first`` is a rule."""
    header = ''.join(f'<th>{escape(cell)}</th>' for cell in head)
    body = ''.join(
        ('<tr class="first">' if line[0] == first else '<tr>')
        + ''.join(f'<td>{escape(cell)}</td>' for cell in line)
        + '</tr>\n'
        for line in lines
    )
    return (
        '<div class="wide"><table>\n'
        f'<thead><tr>{header}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>'
    )


def format_section(section, has_pictures):
    """All that is shown of a task."""
    parts = [f'<h2>{escape(section.task.name)}</h2>', format_rows(section.table)]
    if has_pictures:
        pictures = [
            picture(curves.draw([panel]), f'{section.task.name}: {panel.title} over the epochs')
            for panel in section.panels
        ]
        parts.append(f'<div class="pictures">{"".join(pictures)}</div>')
    for evaluation in section.evaluations:
        name = escape(f'{section.task.name} {evaluation.name}'.strip())
        if section.task.is_regression:
            if has_pictures:
                parts.append(f'<h3>{name}: predictions</h3>')
                parts.append(scatter_picture(evaluation))
        else:
            parts.append(f'<h3>{name}: confusion matrix</h3>')
            parts.append(format_confusion(confusion(evaluation, section.task), section.task))
        hard = 'the largest errors' if section.task.is_regression else HARD_HEADING
        parts.append(f'<h3>{name}: {hard}</h3>')
        parts.append(format_hard(evaluation, section.task))
    return '\n'.join(parts)


def picture(figure, description):
    """A figure as an ``img`` element that holds its SVG.

    An image, because the names inside of two SVGs in one page would clash.
    """
    data = base64.b64encode(curves.render(figure, 'svg')).decode()
    return f'<img alt="{escape(description)}" src="data:image/svg+xml;base64,{data}"/>'


def scatter_picture(evaluation):
    """Predicted over true numbers, the mean of all runs."""
    means = evaluation.outputs[:, :, 0].mean(axis=0)
    title = f'mean prediction of {len(evaluation.outputs)} runs'
    figure = curves.scatter(evaluation.labels, means, title)
    return f'<div class="pictures">{picture(figure, title + " over the label")}</div>'


def confusion(evaluation, task):
    """How many rows of each class are taken for which, in the mean over the runs.

    Returns
    -------
    (classes, classes) array
        A row for each true class, a column for each predicted one.
    """
    from sklearn.metrics import confusion_matrix

    classes = range(len(task.labels))
    matrices = [
        confusion_matrix(evaluation.labels, predictions, labels=classes)
        for predictions in evaluation.outputs.argmax(axis=2)
    ]
    return np.mean(matrices, axis=0)


def format_confusion(matrix, task):
    """A confusion matrix, each cell shaded by its share of the row."""
    header = ''.join(f'<th>{escape(label)}</th>' for label in task.labels)
    lines = []
    for label, row in zip(task.labels, matrix):
        shares = row / max(row.sum(), 1)
        cells = ''.join(
            f'<td style="background: rgba(31, 119, 180, {0.6 * share:.2f})">'
            f'{count:.1f}<small>{share:.0%}</small></td>'
            for count, share in zip(row, shares)
        )
        lines.append(f'<tr><th>{escape(label)}</th>{cells}</tr>')
    return (
        '<p>Rows of the true label, columns of the predicted one: the mean number over the runs at '
        'their best epochs, and its share of the row.</p>\n'
        '<div class="wide"><table class="matrix"><thead><tr><th>label</th>'
        f'{header}</tr></thead>\n<tbody>{"".join(lines)}</tbody></table></div>'
    )


def find_hard(evaluation, task):
    """The rows that more than half of the runs get wrong, those with the surest wrong answers
    first; of numbers all rows, by their mean absolute error.

    Returns
    -------
    list of Hard
    """
    if task.is_regression:
        numbers = evaluation.outputs[:, :, 0]
        errors = np.abs(numbers - evaluation.labels).mean(axis=0)
        order = np.argsort(-errors, kind='stable')
        told = [
            f'predicted {mean:.2f} in the mean, mean error {error:.2f}'
            for mean, error in zip(numbers.mean(axis=0), errors)
        ]
        labels = [f'{label:.2f}' for label in evaluation.labels]
    else:
        from scipy.special import softmax

        runs = len(evaluation.outputs)
        predictions = evaluation.outputs.argmax(axis=2)
        wrong = (predictions != evaluation.labels).sum(axis=0)
        probabilities = softmax(evaluation.outputs, axis=2).mean(axis=0)
        of_label = probabilities[np.arange(len(wrong)), evaluation.labels]
        order = [i for i in np.lexsort((of_label, -wrong)) if wrong[i] > runs / 2]
        told = [
            f'wrong in {wrong[i]} of {runs} runs, which give the label a probability of '
            f'{of_label[i]:.2f} in the mean'
            for i in range(len(wrong))
        ]
        labels = [task.labels[label] for label in evaluation.labels]
    return [Hard(int(i) + 1, evaluation.texts[i], labels[i], told[i]) for i in order]


def format_hard(evaluation, task):
    """The hardest rows as a list."""
    hard = find_hard(evaluation, task)
    rows = len(evaluation.labels)
    if task.is_regression:
        start = f'The largest mean errors among {rows} rows.'
    else:
        start = f'{len(hard)} of {rows} rows are wrong in more than half of the runs.'
    if not task.is_regression and len(hard) > MOST_SHOWN:
        start += f' The first {MOST_SHOWN}, the surest errors:'
    items = ''.join(
        '<li>'
        + ''.join(f'<p>{escape(text)}</p>' for text in item.texts)
        + f'<small>row {item.row}, label {escape(item.label)}; {escape(item.told)}</small></li>\n'
        for item in hard[:MOST_SHOWN]
    )
    return f'<p>{start}</p>\n<ol class="rows">{items}</ol>'


def format_machines(machines):
    """Versions and hardware."""
    items = ''.join(
        f'<dt>{escape(name)}</dt><dd>{escape(" / ".join(values))}</dd>'
        for name, values in machines.items()
    )
    return f'<dl>{items}</dl>'


def make_sections(tables, records, folders, published, data):
    """What the report shows of each task, from what its runs wrote.

    Returns
    -------
    list of bert.experiments.report.Section
    """
    sections = []
    for name, done in records.items():
        task = TASKS[name]
        panels = collect_panels(task, done, folders, published[name])
        evaluations = [
            collect_evaluation(task, split, [folders[name, number] for number in done], data)
            for split in task.dev
        ]
        sections.append(Section(task, tables[name], panels, evaluations))
    return sections


def write_report(output, command, tables, sections, records, has_pictures):
    """Write ``report.html``, and for each task ``curves.svg`` and ``curves.png``."""
    for section in sections if has_pictures else ():
        curves.save(curves.draw(section.panels), output / section.task.name / 'curves')
    machines = {}
    for record in (record for done in records.values() for record in done.values()):
        for name, value in record['machine'].items():
            machines[name] = unique([*machines.get(name, []), value])
    title = f'GLUE: {", ".join(records)}'
    page = write_page(title, command, tables, sections, machines, has_pictures)
    write_text(output / 'report.html', page)
    logging.info('wrote %s', output / 'report.html')


def collect_panels(task, done, folders, published):
    """The curves of a task, own and published; see :func:`bert.experiments.curves.collect_panels`."""
    own = {
        f'seed {number}': logs.read_log(folders[task.name, number] / 'finetune.log')
        for number in done
    }
    others = {}
    for recipe, figures, reason in published:
        remark = ' (BERT base)' if reason == 'other model' else ''
        others[f'published {recipe}{remark}'] = logs.Log(
            {}, figures['training'], figures['validation']
        )
    return curves.collect_panels(own, others, task.metrics[0])


def collect_evaluation(task, split, folders, data):
    """What all runs of a task say of a dev set."""
    rows = files.read_glue(data, task, split)
    outputs = [read_outputs(folder, split.name or 'dev') for folder in folders]
    for folder, values in zip(folders, outputs):
        if len(values) != len(rows.texts):
            raise ToolkitError(
                f'{data / split.path} has changed since {folder} was made: remove that folder'
            )
    return Evaluation(split.name, rows.texts, rows.labels, np.stack(outputs))
