"""Lines of text: one text each, or a pair with a tab in between."""

from bert.system.errors import ToolkitError

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
    for number, line in enumerate(file, 1):
        if number == 1 and line.startswith(MARK):
            line = line[len(MARK) :]
        try:
            text = line.decode('utf8')
        except UnicodeDecodeError:
            raise ToolkitError(f'{name}:{number}: not valid UTF-8') from None
        texts = tuple(text.rstrip('\n').rstrip('\r').split('\t'))
        if len(texts) > 2:
            raise ToolkitError(
                f'{name}:{number}: has {len(texts) - 1} tabs; a line is one text, or two with a '
                'tab in between'
            )
        yield texts
