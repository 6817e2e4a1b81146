"""Reading labelled text: GLUE's TSV files, and a user's own TSV, CSV and JSON-lines files."""

import csv
import io
import json
import logging
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import List, NamedTuple, Optional

import numpy as np

from bert.checkpoints.config import check_labels, find_label_problem
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import is_utf8, parse_json, read_text
from bert.tasks import multilabel

# What GLUE_DIR means where it is not set.
DEFAULT_FOLDER = 'glue_data'
# The csv module's own limit is too short for a document in a cell; this is that of a C long.
LONGEST_CELL = 2**31 - 1
LARGEST = float(np.finfo(np.float32).max)


class Examples(NamedTuple):
    """The rows of one file."""

    texts: List[tuple]  # (text,) or (first, second)
    labels: Optional[np.ndarray]  # (N,) int32 class ids, float32 numbers, None; or (N, labels) 0, 1
    cells: Optional[List[dict]] = None  # the whole rows of a user's file that is to be predicted


class Row(NamedTuple):
    """One row of a file: a list of cells, or a dict if the columns have names."""

    line: int  # counted from 1
    cells: object


def glue_folder():
    """Return the folder that ``GLUE_DIR`` names, by default ``glue_data`` as in the originals."""
    folder = os.environ.get('GLUE_DIR')
    if not folder and not Path(DEFAULT_FOLDER).is_dir():
        raise UsageError(
            'the environment variable GLUE_DIR is not set: it names the folder of the GLUE data; '
            f'and there is no {DEFAULT_FOLDER} here, its default, which '
            f'download_glue_data.py --data_dir {DEFAULT_FOLDER} makes'
        )
    if folder and not is_utf8(folder):
        raise UsageError(f'GLUE_DIR={folder} is not valid UTF-8')
    if folder and not Path(folder).is_dir():
        raise UsageError(
            f'GLUE_DIR={folder} is not a folder: '
            f'download_glue_data.py --data_dir {folder} makes and fills it'
        )
    return Path(folder or DEFAULT_FOLDER)


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
            f'{path} is not there: download_glue_data.py --data_dir {folder} '
            f'--tasks {Path(split.path).parts[0]} fetches it'
        )
    rows = _tsv_rows(path)
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
    path = Path(split.path)
    rows = read_rows(path)
    if task.is_multilabel and split.label_column is not None:
        unlabelled = replace(split, label_column=None)
        examples = _examples(path, rows, unlabelled, None)
        labels = multilabel.encode(path, rows, split.label_column, task.labels)
        return examples._replace(labels=labels)
    examples = _examples(path, rows, split, task.labels)
    if split.label_column is None:
        return examples._replace(cells=[row.cells for row in rows])
    return examples


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
    rows = read_rows(path)
    if multilabel.has_lists(rows, column):
        return _sort_labels(multilabel.find_names(path, rows, column)), True
    found = set()
    for row in rows:
        label = _cell(path, row, column)
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


def read_rows(path):
    """Read the rows of a TSV, CSV or JSON-lines file whose columns have names.

    Returns
    -------
    list of Row
        Their cells are a dict of str to str, or to any value in a JSON-lines file.
    """
    path = Path(path)
    readers = {'.tsv': _named_tsv_rows, '.csv': _csv_rows, '.jsonl': _json_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f'{path}: the extension is not one of {", ".join(readers)}')
    if not path.is_file():
        raise UsageError(f'there is no file {path}')
    rows = reader(path)
    if not rows:
        raise ToolkitError(f'{path}: has no rows')
    return rows


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


def _tsv_rows(path):
    """Return the rows of a TSV file as lists. GLUE never quotes; only a newline ends a row."""
    lines = read_text(path).split('\n')
    if lines[-1] == '':
        lines.pop()
    if not lines:
        raise ToolkitError(f'{path}: is empty')
    return [Row(number, line.rstrip('\r').split('\t')) for number, line in enumerate(lines, 1)]


def _named_tsv_rows(path):
    header, *rows = _tsv_rows(path)
    _check_header(path, header.cells)
    for row in rows:
        if len(row.cells) != len(header.cells):
            raise ToolkitError(
                f'{path}:{row.line}: {len(row.cells)} columns, and the header has '
                f'{len(header.cells)}'
            )
    return [Row(row.line, dict(zip(header.cells, row.cells))) for row in rows]


def _csv_rows(path):
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(read_text(path), newline=''), strict=True)
    rows = []
    try:
        header = next(reader, None)
        if not header:
            raise ToolkitError(f'{path}: is empty')
        _check_header(path, header)
        line = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise ToolkitError(
                    f'{path}:{line}: {len(cells)} columns, and the header has {len(header)}'
                )
            if cells:
                rows.append(Row(line, dict(zip(header, cells))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ToolkitError(f'{path}:{reader.line_num}: not CSV ({error})') from None
    return rows


def _json_rows(path):
    rows = []
    for number, line in enumerate(read_text(path).split('\n'), 1):
        if not line.strip():
            continue
        try:
            cells = parse_json(line)
        except ValueError:
            cells = None
        if not isinstance(cells, dict):
            raise ToolkitError(f'{path}:{number}: not a JSON object')
        rows.append(Row(number, cells))
    return rows


def _check_header(path, names):
    if len(set(names)) < len(names):
        raise ToolkitError(f'{path}:1: two columns have the same name')


def _cell(path, row, column):
    """Return the text in one column of a row."""
    try:
        cell = row.cells[column]
    except IndexError:
        raise ToolkitError(
            f'{path}:{row.line}: {len(row.cells)} columns, and column {column + 1} is wanted'
        ) from None
    except KeyError:
        raise ToolkitError(
            f'{path}:{row.line}: there is no column {column!r} among {", ".join(row.cells)}'
        ) from None
    if isinstance(cell, str):
        return cell
    # JSON has other types: a number may be a label, but a list or an object is a mistake.
    if isinstance(cell, (int, float)) and math.isfinite(cell):
        return json.dumps(cell)
    raise ToolkitError(f'{path}:{row.line}: {column!r} is neither text nor a number')


def _examples(path, rows, split, labels, other_labels=()):
    if not rows:
        raise ToolkitError(f'{path}: has no rows')
    texts = [tuple(_cell(path, row, column) for column in split.text_columns) for row in rows]
    if split.label_column is None:
        return Examples(texts, None)
    cells = [_cell(path, row, split.label_column) for row in rows]
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
