"""Lines of text: one text each, or a pair with a tab in between; or the same in JSON."""

from bert.system.errors import ToolkitError
from bert.system.files import parse_json

MARK = b'\xef\xbb\xbf'  # UTF-8's byte-order mark


def read_lines(file, name):
    """Yield the texts of each line, without reading ahead.

    Only a newline, perhaps after a carriage return, ends a line; an empty line is an empty text.

    Parameters
    ----------
    file : binary file
        Or any iterable of lines in bytes.
    name : str or Path
        The origin of the lines, for error messages.

    Yields
    ------
    tuple of one or two str

    Raises
    ------
    ToolkitError
        If a line is not UTF-8, or has several tabs.

    >>> list(read_lines([b'one\\n', b'two\\tmore\\n'], 'a file'))
    [('one',), ('two', 'more')]
    """
    for number, text in _decoded(file, name):
        texts = tuple(text.rstrip('\n').rstrip('\r').split('\t'))
        if len(texts) > 2:
            raise ToolkitError(
                f'{name}:{number}: has {len(texts) - 1} tabs; a line is one text, or two separated '
                'by a tab'
            )
        yield texts


def read_json_rows(file, name, columns, sizes):
    """Yield the texts of each line of JSON, without reading ahead; blank lines are left out.

    A line is a text; a list of texts; or an object with them in some of its columns.

    Parameters
    ----------
    file, name
        See :func:`read_lines`.
    columns : sequence of str
        The columns of the first text and, if there is one, of the second.
    sizes : tuple of int
        How many texts a row may have.

    Yields
    ------
    tuple of one or two str

    Raises
    ------
    ToolkitError
        If a line is not UTF-8, is none of these, or lacks a text.

    >>> lines = [b'"one"', b'["one", "two"]', b'{"text": "one", "id": 7}']
    >>> list(read_json_rows(lines, 'a file', ('text', 'text_pair'), (1, 2)))
    [('one',), ('one', 'two'), ('one',)]
    """
    for number, line in _decoded(file, name):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError:
            raise ToolkitError(f'{name}:{number}: not JSON') from None
        try:
            texts = _texts_of(value, columns, sizes)
        except ValueError as error:
            raise ToolkitError(f'{name}:{number}: {error}') from None
        yield texts


def _texts_of(value, columns, sizes):
    """Return the texts in the value of a line; raise ValueError with a clause about it."""
    if isinstance(value, dict):
        # Where a row may have one text or two, the second column may be missing.
        count = sizes[-1] if columns[-1] in value else sizes[0]
        wanted = columns[:count]
        for column in wanted:
            if column not in value:
                raise ValueError(f'there is no column {column!r} among {", ".join(value)}')
            if not isinstance(value[column], str):
                raise ValueError(f'{column!r} is not text')
        return tuple(value[column] for column in wanted)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError('neither a text, nor a list of texts, nor an object')
    if len(texts) not in sizes:
        raise ValueError(f'{len(texts)} texts, but the model takes {" or ".join(map(str, sizes))}')
    return tuple(texts)


def _decoded(file, name):
    """Yield the number of each line, counted from 1, and its text."""
    for number, line in enumerate(file, 1):
        if number == 1 and line.startswith(MARK):
            line = line[len(MARK) :]
        try:
            text = line.decode('utf8')
        except UnicodeDecodeError:
            raise ToolkitError(f'{name}:{number}: not valid UTF-8') from None
        yield number, text
