"""Rows that have any number of the labels: a column of 0 and 1 for each, or a list of names.

A list of names is a cell of a JSON-lines file. Labels become arrays (N, labels) of 0 and 1.
"""

import numpy as np

from bert.checkpoints.config import find_label_problem
from bert.system.errors import ToolkitError
from bert.tasks.rows import as_text, find_cell

# What a cell of a label's own column may say; pandas writes the longer ones.
YES_OR_NO = {'1': 1, '1.0': 1, 'true': 1, '0': 0, '0.0': 0, 'false': 0}


def has_lists(rows, column):
    """Return whether a column holds lists of labels, as its first cell shows.

    Parameters
    ----------
    rows : list of bert.tasks.rows.Row
    column : str
    """
    return isinstance(rows[0].cells.get(column), list)


def find_names(path, rows, column):
    """Return the set of all labels in a column of lists."""
    found = {}
    for row in rows:
        for label in _names(path, row, column):
            found.setdefault(label, row.line)
    for label, line in found.items():
        problem = find_label_problem(label)
        if problem:
            raise ToolkitError(f'{path}:{line}: the label {label!r} {problem}')
    if len(found) < 2:
        raise ToolkitError(f'{path}: column {column!r} has fewer than two different labels')
    return set(found)


def encode(path, rows, column, labels):
    """Turn the labels of rows into numbers.

    Parameters
    ----------
    path : Path
        For the errors.
    rows : list of bert.tasks.rows.Row
    column : str or list of str
        That of the lists; or a column for each label, which has its name, in any order.
    labels : sequence of str

    Returns
    -------
    (N, labels) array of float32
        1 where a row has a label, and otherwise 0.

    Raises
    ------
    ToolkitError
        With file and line, if a cell is missing or something else, or names an unknown label.
    """
    if isinstance(column, list):
        values = [[_value(path, row, label) for label in labels] for row in rows]
        return np.array(values, dtype=np.float32)
    ids = {label: i for i, label in enumerate(labels)}
    values = np.zeros((len(rows), len(labels)), dtype=np.float32)
    for number, row in enumerate(rows):
        for label in _names(path, row, column):
            if label not in ids:
                raise ToolkitError(
                    f'{path}:{row.line}: the label {label!r} is not one of {", ".join(labels)}'
                )
            values[number, ids[label]] = 1
    return values


def _value(path, row, column):
    """Return the 0 or 1 in a label's own column."""
    cell = find_cell(path, row, column)
    # A string form of JSON's other types: 1, 1.0 and true.
    value = YES_OR_NO.get(str(cell).strip().lower())
    if value is None:
        raise ToolkitError(
            f'{path}:{row.line}: the label {column!r} is {cell!r}, not 0, 1, true or false'
        )
    return value


def _names(path, row, column):
    """Return the labels in a list, as text."""
    cell = find_cell(path, row, column)
    if not isinstance(cell, list):
        raise ToolkitError(f'{path}:{row.line}: {column!r} is not a list of labels')
    names = [as_text(label) for label in cell]
    if None in names:
        raise ToolkitError(f'{path}:{row.line}: a label in {column!r} is neither text nor a number')
    return names
