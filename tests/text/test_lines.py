"""Lines as texts and pairs."""

import doctest
import io

from conftest import failure

from bert.text import lines


def read(data):
    return list(lines.read_lines(io.BytesIO(data), 'the lines'))


def test_the_example():
    tested = doctest.testmod(lines)
    assert tested.attempted and not tested.failed


def test_only_newlines_end_a_line_and_tabs_separate_pairs():
    data = '\ufeffone\ttwo\r\n\n\u2028 a\x0bb\x85\u00a0\n\t\nlast'.encode()
    assert read(data) == [('one', 'two'), ('',), ('\u2028 a\x0bb\x85\u00a0',), ('', ''), ('last',)]
    assert read(b'') == []
    assert read(b'\n') == [('',)]


def test_lines_are_read_one_by_one():
    found = lines.read_lines(iter([b'one\n', b'\xff\n']), 'the lines')
    assert next(found) == ('one',)
    assert failure(next, found) == 'the lines:2: not valid UTF-8'


def test_lines_that_are_refused():
    assert failure(read, b'a\n\xe9t\xe9\n') == 'the lines:2: not valid UTF-8'
    assert failure(read, b'a\tb\tc\n') == (
        'the lines:1: has 2 tabs; a line is one text, or two with a tab in between'
    )
