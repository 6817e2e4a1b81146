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
        'the lines:1: has 2 tabs; a line is one text, or two separated by a tab'
    )


def read_json(data, columns=('text', 'text_pair'), sizes=(1, 2)):
    return list(lines.read_json_rows(io.BytesIO(data), 'the rows', columns, sizes))


def test_rows_in_json():
    data = '\ufeff"caf\\u00e9\\n"\r\n\n["a", ""]\n{"text_pair": "b", "id": 7, "text": "a"}'.encode()
    assert read_json(data) == [('café\n',), ('a', ''), ('a', 'b')]
    assert read_json(b'{"text": "a", "other": "b"}') == [('a',)]
    assert read_json(b'{"b": "1", "a": "0", "text": "2"}', ('b', 'a'), (2,)) == [('1', '0')]
    assert read_json(b'{"review": "1", "text": "2"}\n["3"]\n', ('review',), (1,)) == [
        ('1',),
        ('3',),
    ]
    assert read_json(b'') == []


def test_rows_in_json_that_are_refused():
    for data, sentence in (
        (b'"a"\n{"text": }\n', '2: not JSON'),
        (b'"a"\n\nthe text\n', '3: not JSON'),
        (b'"\\ud800"', '1: not JSON'),
        (b'[' * 100000, '1: not JSON'),
        (b'"a"\n"\xff"\n', '2: not valid UTF-8'),
        (b'{"texts": "a", "id": 1}', "1: there is no column 'text' among texts, id"),
        (b'{"text": 3}', "1: 'text' is not text"),
        (b'{"text": "a", "text_pair": null}', "1: 'text_pair' is not text"),
        (b'3', '1: neither a text, nor a list of texts, nor an object'),
        (b'["a", 3]', '1: neither a text, nor a list of texts, nor an object'),
        (b'["a", "b", "c"]', '1: 3 texts, but the model takes 1 or 2'),
        (b'[]', '1: 0 texts, but the model takes 1 or 2'),
    ):
        assert failure(read_json, data) == f'the rows:{sentence}'
    columns = ('question', 'answer')
    assert failure(read_json, b'{"question": "a"}', columns, (2,)) == (
        "the rows:1: there is no column 'answer' among question"
    )
    assert failure(read_json, b'"a"', columns, (2,)) == 'the rows:1: 1 texts, but the model takes 2'
    assert failure(read_json, b'["a", "b"]', ('review',), (1,)) == (
        'the rows:1: 2 texts, but the model takes 1'
    )
