"""Write the page about one fine-tuning or many: whether it worked, and everything behind that.

The page is one self-contained HTML file, which is also XML. All text from data, flags and the
machine goes through :func:`bert.report.markup.clean` where it is inserted.
"""

import functools
import itertools
from typing import NamedTuple

from bert.report import curves
from bert.report.markup import (
    clean,
    format_count,
    format_lines,
    format_matrix,
    format_pairs,
    mark_flags,
)
from bert.report.quality import calibrate, confusion, find_hard, per_class
from bert.report.style import SERIES, format_style
from bert.report.svg import inline
from bert.report.verdict import judge, points
from bert.tasks.table import Task

MOST_SHOWN = 20  # of the rows that are wrong
MOST_LETTERS = 500  # of each of their texts
MOST_CLASSES = 20  # of a confusion matrix
WORDS = {'good': 'Yes.', 'part': 'In part.', 'unsure': 'Not clear.', 'bad': 'No.'}


class Section(NamedTuple):
    """The part of the page about a task."""

    name: str
    task: Task
    runs: list  # the names of the runs, such as ``seed 1``
    advice: str  # a sentence that says what to try if a run did not learn
    table: str  # HTML
    notes: list  # of sentences about the table
    panels: list  # of bert.report.curves.Panel
    evaluations: list  # of bert.report.quality.Evaluation


class Page(NamedTuple):
    """Everything that the page shows."""

    title: str
    facts: list  # of (name, HTML)
    tables: list  # of (heading, HTML), before the sections
    sections: list  # of Section
    no_dev: str  # the sentence to show if there is no dev set
    command: str
    details: list  # of (name, HTML): versions and hardware


def format_page(page, has_pictures):
    """Return a page as text; ``has_pictures`` says whether matplotlib can be used."""
    title = clean(page.title)
    body = [f'<h1>{title}</h1>']
    body += [format_verdicts(section, len(page.sections) > 1) for section in page.sections]
    if not any(section.evaluations for section in page.sections):
        body.append(f'<p class="verdict"><b>Not known.</b> {mark_flags(clean(page.no_dev))}</p>')
    body.append(format_pairs(page.facts))
    for heading, table in page.tables:
        body.append(f'<h2>{clean(heading)}</h2>{table}')
    if not has_pictures:
        body.append(f'<p class="note">{clean(curves.NEEDED)}</p>')
    draw = functools.partial(embed, itertools.count(1)) if has_pictures else None
    body += [format_section(section, draw) for section in page.sections]
    body.append(
        f'<h2>How it was made</h2><pre>{clean(page.command)}</pre>{format_pairs(page.details)}'
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f'<title>{title}</title>\n<style>{format_style()}</style>\n</head>\n<body>\n'
        + '\n'.join(body)
        + '\n</body>\n</html>\n'
    )


def embed(numbers, picture, label):
    """Return a :class:`bert.report.curves.Picture` as an SVG element, with ids of its own.

    Parameters
    ----------
    numbers : iterator of int
        Gives the number of the picture.
    picture : bert.report.curves.Picture
    label : str
        What it shows.
    """
    source = curves.render(picture.figure, 'svg')
    return inline(source, picture.titles, f'p{next(numbers)}-', label)


def format_verdicts(section, is_one_of_many):
    """Return what :func:`bert.report.verdict.judge` says about each dev set."""
    found = []
    for evaluation in section.evaluations:
        for verdict in judge(evaluation, section.task, section.runs, section.advice):
            name = f'{clean(section.name)}: ' if is_one_of_many else ''
            found.append(
                f'<p class="verdict {verdict.level}"><b>{name}{WORDS[verdict.level]}</b> '
                f'{mark_flags(clean(verdict.text))}</p>'
            )
    return '\n'.join(found)


def format_section(section, draw):
    """Return everything shown about a task.

    Parameters
    ----------
    section : Section
    draw : function or None
        Takes a picture and what it shows, and returns an SVG element; None: without pictures.
    """
    parts = [f'<h2>{clean(section.name)}</h2>', section.table]
    parts += [f'<p class="note">{clean(note)}</p>' for note in section.notes]
    if draw and section.panels:
        parts.append(format_curves(section, draw))
    for evaluation in section.evaluations:
        start = f'{evaluation.name}: ' if evaluation.name else ''
        parts += format_evaluation(section, evaluation, start, draw)
    return '\n'.join(parts)


def format_curves(section, draw):
    """Return a legend, unless there is one curve only, and the panels."""
    known = {curve.label: curve for panel in section.panels for curve in panel.curves}
    items = ''
    for label, curve in known.items() if len(known) > 1 else ():
        color = f'series-{curve.number % SERIES}'
        dashes = 'none'
        if curve.is_published:
            color, dashes = 'ink', ('6 3', '2 3', '7 2 2 2')[curve.number % 3]
        style = f'stroke: var(--{color}); stroke-dasharray: {dashes}; stroke-width: 2'
        items += (
            f'<li><svg viewBox="0 0 28 12" aria-hidden="true"><path d="M0 6H28" style="{style}"/>'
            f'</svg>{clean(label)}</li>\n'
        )
    pictures = [
        draw(curves.draw_panel(panel), f'{section.name}: {panel.title} over the epochs')
        for panel in section.panels
    ]
    legend = f'<ul class="legend">{items}</ul>' if items else ''
    return f'{legend}<div class="pictures">{"".join(pictures)}</div>'


def format_evaluation(section, evaluation, start, draw):
    """Return the parts about a dev set."""
    task, several = section.task, len(section.runs) > 1
    parts = []
    if task.is_regression:
        if draw:
            title = 'mean prediction of all runs' if several else 'predictions'
            means = evaluation.outputs[:, :, 0].mean(axis=0)
            picture = draw(curves.scatter(evaluation.labels, means, title), f'{title} over labels')
            parts.append(f'<h3>{clean(start)}predictions</h3><div class="pictures">{picture}</div>')
    else:
        kind = 'labels' if task.is_multilabel else 'classes'
        parts += [f'<h3>{clean(start)}{kind}</h3>', format_classes(evaluation, task, several)]
        if not task.is_multilabel:
            parts.append(f'<h3>{clean(start)}confusion matrix</h3>')
            parts.append(format_confusion(confusion(evaluation, task), task, several))
        parts.append(f'<h3>{clean(start)}calibration</h3>')
        parts.append(format_calibration(evaluation, task, draw))
    if task.is_regression:
        heading = 'the largest errors'
    else:
        heading = 'the rows that most runs get wrong' if several else 'the rows that are wrong'
    parts += [f'<h3>{clean(start)}{heading}</h3>', format_hard(evaluation, task)]
    return parts


def format_classes(evaluation, task, several):
    """Return a table of precision, recall and F1."""
    found = per_class(evaluation, task)
    head = ['label', 'precision', 'recall', 'F1', 'rows', 'answers']
    lines = [
        [
            one.label,
            f'{one.precision:.3f}' if one.answers else '-',
            f'{one.recall:.3f}' if one.rows else '-',
            f'{one.f1:.3f}' if one.rows or one.answers else '-',
            f'{one.rows:,}',
            format_count(one.answers),
        ]
        for one in found
    ]
    note = ' Averaged over the runs.' if several else ''
    return format_lines(head, lines) + (
        '<p class="note">Precision: of the answers with a label, the share that is right. Recall: '
        f'of the rows with it, the share that is found. F1: their harmonic mean.{note}</p>'
    )


def format_confusion(matrix, task, several):
    """Return a confusion matrix or, of many classes, the most frequent confusions."""
    if len(task.labels) > MOST_CLASSES:
        wrong = [
            (matrix[i, j], label, answer)
            for i, label in enumerate(task.labels)
            for j, answer in enumerate(task.labels)
            if i != j and matrix[i, j]
        ]
        wrong.sort(key=lambda cell: -cell[0])
        lines = [[label, answer, format_count(n)] for n, label, answer in wrong[:MOST_CLASSES]]
        start = f'Of {len(task.labels)} classes, those that are most often confused'
        table = format_lines(['label', 'answer', 'rows'], lines)
    else:
        start = 'True labels on the left, answers at the top'
        table = format_matrix(task.labels, matrix)
    number = 'the mean number of rows over the runs' if several else 'the number of rows'
    share = '' if len(task.labels) > MOST_CLASSES else ', and its share of the true label'
    return f'<p class="note">{start}: {number}{share}.</p>\n{table}'


def format_calibration(evaluation, task, draw):
    """Return how far the probabilities can be trusted: a sentence, a picture and a table."""
    bins, error = calibrate(evaluation, task)
    if task.is_multilabel:
        head = ['probability', 'decisions', 'mean probability', 'share of rows with it']
        what = 'the share of rows that have the label'
    else:
        head = ['probability', 'answers', 'mean probability', 'share of right answers']
        what = 'the share of right answers'
    lines = [
        [
            f'{one.low:.1f} to {one.low + 1 / curves.BINS:.1f}',
            f'{one.count:,}',
            f'{one.confidence:.3f}',
            f'{one.share:.3f}',
        ]
        for one in bins
    ]
    sentence = (
        f'The expected calibration error is {error:.3f}: on average, the probability that the '
        f'model gives and {what} are {points(error)} points apart.'
    )
    picture = ''
    if draw:
        drawn = curves.reliability(bins, 'reliability', head[2], head[3])
        picture = draw(drawn, f'{what} over the probability')
    return f'<p>{sentence}</p>\n<div class="pictures">{picture}{format_lines(head, lines)}</div>'


def format_hard(evaluation, task):
    """Return the hardest rows as a list."""
    hard, rows, runs = find_hard(evaluation, task), len(evaluation.labels), len(evaluation.outputs)
    if task.is_regression:
        start = f'Of {rows:,} rows:'
    else:
        start = f'{len(hard):,} of {rows:,} rows are wrong'
        start += ' in more than half of the runs.' if runs > 1 else '.'
        if len(hard) > MOST_SHOWN:
            start += f' The first {MOST_SHOWN}, the most confident errors:'
    kind = 'labels' if task.is_multilabel else 'label'
    items = ''.join(
        '<li>'
        + ''.join(f'<p dir="auto">{clean(shorten(text))}</p>' for text in item.texts)
        + f'<small>row {item.row}, {kind}: {clean(item.label)}; {clean(item.remark)}</small></li>\n'
        for item in hard[:MOST_SHOWN]
    )
    return f'<p>{start}</p>\n<ol class="rows">{items}</ol>'


def shorten(text):
    """Return the beginning of a long text."""
    return text if len(text) <= MOST_LETTERS else f'{text[:MOST_LETTERS]} ...'
