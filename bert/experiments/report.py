"""Write a page about many runs: tables, curves, confusion matrices, rows that most get wrong.

The page is one self-contained HTML file. All text from data, flags and the machine goes through
:func:`html.escape` where it is inserted.
"""

import base64
import logging
from html import escape

from bert.experiments import curves
from bert.experiments.results import HEAD, MEAN_INTERVAL, format_cell, metric_name
from bert.experiments.sections import confusion, find_hard
from bert.system.files import write_text

HARD_HEADING = 'the rows that most runs get wrong'
MOST_SHOWN = 20  # of these rows
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


def format_page(title, command, tables, sections, machines, has_pictures):
    """Return the page as text.

    Parameters
    ----------
    title, command : str
    tables : dict of str to list of dict
        All tables; GLUE's has no section.
    sections : list of bert.experiments.sections.Section
    machines : dict of str to iterable of str
        The results of :func:`bert.system.machine.describe` where the runs were done, without
        duplicates.
    has_pictures : bool
        Whether matplotlib can be used.
    """
    body = [f'<h1>{escape(title)}</h1>', format_overview(sections)]
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


def format_overview(sections):
    """Return a table with the first metric of each task, at the last and the best epoch."""
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
    """Return a table of :func:`bert.experiments.results.tabulate`, its statistics below a rule."""
    lines = [[format_cell(*item) for item in row.items()] for row in table]
    return format_lines(list(table[0]), lines, first='mean')


def format_lines(head, lines, first=None):
    """Return a table of texts, with a rule above the line that begins with ``first``."""
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
    """Return everything shown about a task."""
    parts = [f'<h2>{escape(section.task.name)}</h2>', format_rows(section.table)]
    if has_pictures:
        pictures = [
            embed(curves.draw([panel]), f'{section.task.name}: {panel.title} over the epochs')
            for panel in section.panels
        ]
        parts.append(f'<div class="pictures">{"".join(pictures)}</div>')
    for evaluation in section.evaluations:
        name = escape(f'{section.task.name} {evaluation.name}'.strip())
        if section.task.is_regression:
            if has_pictures:
                parts.append(f'<h3>{name}: predictions</h3>')
                parts.append(format_scatter(evaluation))
        else:
            parts.append(f'<h3>{name}: confusion matrix</h3>')
            parts.append(format_confusion(confusion(evaluation, section.task), section.task))
        hard = 'the largest errors' if section.task.is_regression else HARD_HEADING
        parts.append(f'<h3>{name}: {hard}</h3>')
        parts.append(format_hard(evaluation, section.task))
    return '\n'.join(parts)


def embed(figure, description):
    """Return a figure as an ``img`` element that holds its SVG.

    SVG elements themselves would clash, as they all use the same names inside.
    """
    data = base64.b64encode(curves.render(figure, 'svg')).decode()
    return f'<img alt="{escape(description)}" src="data:image/svg+xml;base64,{data}"/>'


def format_scatter(evaluation):
    """Return a plot of the mean predictions of all runs over the true numbers."""
    means = evaluation.outputs[:, :, 0].mean(axis=0)
    title = f'mean prediction of {len(evaluation.outputs)} runs'
    figure = curves.scatter(evaluation.labels, means, title)
    return f'<div class="pictures">{embed(figure, title + " over the label")}</div>'


def format_confusion(matrix, task):
    """Return a confusion matrix as a table, each cell shaded by its share of the row."""
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


def format_hard(evaluation, task):
    """Return the hardest rows as a list."""
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
        + f'<small>row {item.row}, label {escape(item.label)}; {escape(item.remark)}</small></li>\n'
        for item in hard[:MOST_SHOWN]
    )
    return f'<p>{start}</p>\n<ol class="rows">{items}</ol>'


def format_machines(machines):
    """Return versions and hardware as a list."""
    items = ''.join(
        f'<dt>{escape(name)}</dt><dd>{escape(" / ".join(values))}</dd>'
        for name, values in machines.items()
    )
    return f'<dl>{items}</dl>'


def write_report(output, command, tables, sections, records, has_pictures):
    """Write ``report.html``, and for each task ``curves.svg`` and ``curves.png``.

    Parameters
    ----------
    output : Path
        The folder for them.
    command, tables, sections, has_pictures
        See :func:`format_page`.
    records : dict of str to dict of int to dict
        The records of each task by seed.
    """
    for section in sections if has_pictures else ():
        curves.save(curves.draw(section.panels), output / section.task.name / 'curves')
    machines = {}
    for record in (record for done in records.values() for record in done.values()):
        for name, value in record['machine'].items():
            machines.setdefault(name, {})[value] = None  # each once, in this order
    title = f'GLUE: {", ".join(records)}'
    page = format_page(title, command, tables, sections, machines, has_pictures)
    write_text(output / 'report.html', page)
    logging.info('wrote %s', output / 'report.html')
