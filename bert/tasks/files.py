"""Labelled text as examples: GLUE's TSV files, and a user's own files and data sets."""

import logging
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import List, NamedTuple, Optional

import numpy as np

from bert.checkpoints.config import check_labels, find_label_problem
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import is_utf8
from bert.tasks import multilabel
from bert.tasks.rows import as_text, find_cell, read_rows, read_table, tsv_rows

# What GLUE_DIR means where it is not set.
DEFAULT_FOLDER = 'glue_data'
LARGEST = float(np.finfo(np.float32).max)


class Examples(NamedTuple):
    """The rows of one file."""

    texts: List[tuple]  # (text,) or (first, second)
    labels: Optional[np.ndarray]  # (N,) int32 class ids, float32 numbers, None; or (N, labels) 0, 1
    cells: object = None  # the whole rows of a user's file to be predicted; see bert.tasks.rows
    number_labels: bool = False  # whether the labels of a user's file are numbers there, not text


def glue_folder():
    """Return the folder that ``GLUE_DIR`` names, by default ``glue_data`` as in the originals."""
    folder = os.environ.get('GLUE_DIR')
    if not folder and not Path(DEFAULT_FOLDER).is_dir():
        raise UsageError(
            'the environment variable GLUE_DIR is not set: it names the folder of the GLUE data; '
            f'and its default, {DEFAULT_FOLDER}, does not exist here: '
            f'download_glue_data.py --data_dir {DEFAULT_FOLDER} makes it'
        )
    if folder and not is_utf8(folder):
        raise UsageError(f'GLUE_DIR={folder} is not valid UTF-8')
    if folder and not Path(folder).is_dir():
        raise UsageError(
            f'GLUE_DIR={folder} is not a folder: '
            f'download_glue_data.py --data_dir {folder} makes and fills it'
        )
    return Path(folder or DEFAULT_FOLDER)


def folder_of(task):
    """Return the folder that holds the files of a task, by the paths of its splits."""
    return Path() if task.is_own else glue_folder()


def read(folder, task, split):
    """Read one split of a task, the user's own or another; return Examples."""
    return read_own(task, split) if task.is_own else read_glue(folder, task, split)


def read_glue(folder, task, split):
    """Read one split of a GLUE task, or of another task of the table.

    Returns
    -------
    Examples

    Raises
    ------
    ToolkitError
        With file and line, if a row is too short, a label or column is unknown or the text is not
        UTF-8.
    """
    path = Path(folder) / split.path
    if not path.is_file():
        raise ToolkitError(
            f'{path} does not exist: download_glue_data.py --data_dir {folder} '
            f'--tasks {Path(split.path).parts[0]} fetches it'
        )
    rows = tsv_rows(path)
    if split.has_header:
        split = _number_columns(path, rows[0], split)
        rows = rows[1:]
    if split.only:
        column, value = split.only
        rows = [row for row in rows if _cell(path, row, column) == value]
    if split.skips_short:
        rows = _leave_out_short(path, rows, max(*split.text_columns, split.label_column))
    return _examples(path, rows, split, task.labels, task.other_labels)


def read_own(task, split):
    """Read one of the user's own files, in the format of its extension; return Examples."""
    path, label = Path(split.path), split.label_column
    labels = label if isinstance(label, list) else [] if label is None else [label]
    rows, original = read_table(path, [*split.text_columns, *labels], whole=label is None)
    if task.is_multilabel and label is not None:
        examples = _examples(path, rows, replace(split, label_column=None), None)
        return examples._replace(labels=multilabel.encode(path, rows, label, task.labels))
    examples = _examples(path, rows, split, task.labels)
    if label is None:
        return examples._replace(cells=original)
    return examples._replace(number_labels=_are_numbers(row.cells[label] for row in rows))


def find_labels(path, column):
    """Return the labels in a file, sorted as numbers if all are whole numbers.

    Parameters
    ----------
    path : str or Path
    column : str or list of str
        A list names a column for each label, whose order is kept.

    Returns
    -------
    list of str, bool
        And whether a row has any number of them.
    """
    if isinstance(column, list):
        return check_labels(column, path), True
    rows = read_rows(path, [column])
    if multilabel.has_lists(rows, column):
        return _sort_labels(multilabel.find_names(path, rows, column)), True
    found = set()
    for row in rows:
        label = _label(path, row, column)
        problem = find_label_problem(label)
        if problem:
            raise ToolkitError(f'{path}:{row.line}: the label {label!r} {problem}')
        found.add(label)
    labels = _sort_labels(found)
    if len(labels) < 2:
        raise ToolkitError(f'{path}: every row has the label {labels[0]!r} in column {column!r}')
    return labels, False


def _sort_labels(found):
    try:
        return sorted(found, key=int)
    except ValueError:
        return sorted(found)


def _number_columns(path, header, split):
    """Return a split whose columns are numbers, given the header, in place of names."""

    def number(column):
        if not isinstance(column, str):
            return column
        if column not in header.cells:
            raise ToolkitError(
                f'{path}:{header.line}: there is no column {column!r} among '
                f'{", ".join(header.cells)}'
            )
        return header.cells.index(column)

    return replace(
        split,
        text_columns=tuple(number(column) for column in split.text_columns),
        label_column=number(split.label_column),
        only=split.only and (number(split.only[0]), split.only[1]),
    )


def _leave_out_short(path, rows, last_column):
    """Return the rows that have all columns, and log how many do not."""
    whole = [row for row in rows if len(row.cells) > last_column]
    if len(whole) < len(rows):
        logging.warning('%s: %d broken rows are left out', path, len(rows) - len(whole))
    return whole


def _cell(path, row, column, null=None):
    """Return the text in one column of a row; ``null`` stands for what JSON calls that."""
    cell = find_cell(path, row, column)
    text = as_text(null if cell is None else cell)
    # JSON has other types: a number may be a label, but a list or an object is a mistake.
    if text is None:
        raise ToolkitError(f'{path}:{row.line}: {column!r} is neither text nor a number')
    return text


def _label(path, row, column):
    """Return the label in one column of a row, as text."""
    label = _cell(path, row, column, null='')
    if not label.strip():
        raise ToolkitError(f'{path}:{row.line}: the label is empty')
    return label


def _are_numbers(cells):
    """Return whether all cells are numbers that any format can hold, or all are true or false."""
    cells = list(cells)
    kinds = set(map(type, cells))
    return kinds == {bool} or (kinds <= {int, float} and all(abs(cell) < 2**63 for cell in cells))


def _examples(path, rows, split, labels, other_labels=()):
    if not rows:
        raise ToolkitError(f'{path}: has no rows')
    texts = [tuple(_cell(path, row, column) for column in split.text_columns) for row in rows]
    if split.label_column is None:
        return Examples(texts, None)
    cells = [_label(path, row, split.label_column) for row in rows]
    if labels is None:
        return Examples(texts, _numbers(path, rows, cells))
    ids = {label: i for i, label in enumerate(labels)}
    ids.update({other: ids[label] for other, label in other_labels})
    for row, cell in zip(rows, cells):
        if cell not in ids:
            raise ToolkitError(
                f'{path}:{row.line}: the label {cell!r} is not one of {", ".join(labels)}'
            )
    return Examples(texts, np.array([ids[cell] for cell in cells], dtype=np.int32))


def _numbers(path, rows, cells):
    values = []
    for row, cell in zip(rows, cells):
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        # Some finite numbers are infinite in float32.
        if not abs(value) <= LARGEST:
            raise ToolkitError(f'{path}:{row.line}: the label {cell!r} is not a number')
        values.append(value)
    return np.array(values, dtype=np.float32)
