"""The rows of a user's own files, in formats whose columns have names, and writing them back."""

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import List, NamedTuple, Optional

from bert.system.errors import ToolkitError, UsageError
from bert.system.files import parse_json, read_text, write_text
from bert.tasks import library, parquet

# The csv module's own limit is too short for a document in a cell; this is that of a C long.
LONGEST_CELL = 2**31 - 1
# The formats whose cells need not be text.
TYPED = ('.jsonl', '.parquet')


class Row(NamedTuple):
    """One row of a file: a list of cells, or a dict if the columns have names."""

    line: int  # counted from 1; in Parquet, the row
    cells: object
    text: Optional[str] = None  # the whole line of a JSON-lines file


class Table(NamedTuple):
    """The rows of a file, and what :func:`write_rows` needs to write them back."""

    rows: List[Row]
    original: object  # a list of dict; of str, the lines, of JSON lines; a pyarrow.Table of Parquet


def find_cell(path, row, column):
    """Return what one column of a row holds; raise ToolkitError if the row has no such column."""
    try:
        return row.cells[column]
    except IndexError:
        raise ToolkitError(
            f'{path}:{row.line}: {len(row.cells)} columns, but column {column + 1} is needed'
        ) from None
    except KeyError:
        raise ToolkitError(
            f'{path}:{row.line}: there is no column {column!r} among {", ".join(row.cells)}'
        ) from None


def as_text(cell):
    """Return a cell that is text or a number as text, and None for anything else.

    JSON has integers of any size, and Python reads NaN and infinities, which are no numbers here.
    """
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or (isinstance(cell, float) and math.isfinite(cell)):
        return json.dumps(cell)
    return None


def read_rows(path, columns=None):
    """Return the rows of a file; see :func:`read_table`."""
    return read_table(path, columns).rows


def read_table(path, columns=None, whole=False):
    """Read the rows of a TSV, CSV, JSON-lines or Parquet file, or of a data set by its name.

    Parameters
    ----------
    path : str or Path
    columns : list of str, optional
        The columns whose cells are wanted, by default all. Text files are read whole all the same.
    whole : bool
        Whether the rows are to be written back, with all columns.

    Returns
    -------
    Table
        The cells of its rows are a dict of str to str, or to any value where cells have types.
    """
    if library.is_name(path):
        return _typed_table(path, *library.read(path, columns, whole))
    path = Path(path)
    readers = {'.tsv': _named_tsv_rows, '.csv': _csv_rows, '.jsonl': _json_rows}
    suffix = path.suffix.lower()
    if suffix not in (*readers, '.parquet'):
        raise UsageError(f'{path}: the extension is not one of {", ".join(readers)}, .parquet')
    if not path.is_file():
        raise UsageError(f'there is no file {path}')
    if suffix == '.parquet':
        return _typed_table(path, *parquet.read(path, columns, whole))
    rows = readers[suffix](path)
    if not rows:
        raise ToolkitError(f'{path}: has no rows')
    return Table(rows, [row.cells if row.text is None else row.text for row in rows])


def _typed_table(path, cells, original):
    if not cells:
        raise ToolkitError(f'{path}: has no rows')
    return Table([Row(number, row) for number, row in enumerate(cells, 1)], original)


def tsv_rows(path):
    """Return the rows of a TSV file as lists. GLUE never quotes; only a newline ends a row."""
    lines = read_text(path).split('\n')
    if lines[-1] == '':
        lines.pop()
    if not lines:
        raise ToolkitError(f'{path}: is empty')
    return [Row(number, line.rstrip('\r').split('\t')) for number, line in enumerate(lines, 1)]


def _named_tsv_rows(path):
    header, *rows = tsv_rows(path)
    _check_header(path, header.cells)
    for row in rows:
        if len(row.cells) != len(header.cells):
            raise ToolkitError(
                f'{path}:{row.line}: {len(row.cells)} columns, but the header has '
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
                    f'{path}:{line}: {len(cells)} columns, but the header has {len(header)}'
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

        def refuse(constant, number=number):
            raise ToolkitError(f'{path}:{number}: {constant} is not JSON')

        try:
            cells = parse_json(line, parse_constant=refuse)
        except ValueError:
            cells = None
        if not isinstance(cells, dict):
            raise ToolkitError(f'{path}:{number}: not a JSON object')
        rows.append(Row(number, cells, line))
    return rows


def _check_header(path, names):
    if len(set(names)) < len(names):
        raise ToolkitError(f'{path}:1: two columns have the same name')


def write_rows(path, original, answers):
    """Write rows with added columns, in the format of the path's extension.

    A column that is there already is replaced.

    Parameters
    ----------
    path : path-like
    original : object
        See :class:`Table`; it need not be what the file holds now.
    answers : list of dict
        The columns to add to each row, the same ones. Where cells have no types, they are text.
    """
    suffix = Path(path).suffix.lower()
    if suffix == '.parquet':
        parquet.write(path, original, answers)
    elif suffix == '.jsonl':
        lines = [_add_members(line, answer) for line, answer in zip(original, answers)]
        write_text(path, ''.join(f'{line}\n' for line in lines))
    else:
        rows = [{**row, **answer} for row, answer in zip(original, answers)]
        write_text(path, _tsv_text(rows) if suffix == '.tsv' else _csv_text(rows))


def _add_members(line, answer):
    """Return the line of a JSON object with more members; the others stay as they are written.

    Parsed and written again, a number of many digits would lose some.

    >>> _add_members('{"id": 1.10}', {'prediction': 'good'})
    '{"id": 1.10, "prediction": "good"}'
    """
    decode, space = json.JSONDecoder().raw_decode, re.compile(r'\s*')
    members, place = {}, line.index('{')
    while line[place] != '}':
        start = space.match(line, place + 1).end()
        if line[start] == '}':
            break
        name, end = decode(line, start)
        start = space.match(line, line.index(':', end) + 1).end()
        _, end = decode(line, start)
        members[name] = line[start:end]
        place = space.match(line, end).end()
    members.update((name, _to_json(value)) for name, value in answer.items())
    return f'{{{", ".join(f"{_to_json(name)}: {text}" for name, text in members.items())}}}'


def _to_json(value):
    return json.dumps(value, ensure_ascii=False)


def _tsv_text(rows):
    # Without the csv module, which refuses some characters when it may not quote.
    lines = [list(rows[0]), *(row.values() for row in rows)]
    return ''.join('\t'.join(cells) + '\n' for cells in lines)


def _csv_text(rows):
    # The csv module does not quote a lone carriage return, but reads it as the end of a row.
    has_return = any('\r' in cell for row in rows for cell in row.values())
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer,
        fieldnames=list(rows[0]),
        lineterminator='\n',
        quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL,
    )
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
