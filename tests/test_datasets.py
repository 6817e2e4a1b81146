"""Reading labelled text, and the sentence for each kind of bad input."""

import csv
import json

import numpy as np
import pytest

from bert.system.errors import ToolkitError, UsageError
from bert.tasks import files
from bert.tasks.table import TASKS, Split, Task

MRPC = TASKS['MRPC']
HEADER = 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n'


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode('utf8'))
    return path


def read_mrpc(folder, content):
    write(folder / 'MRPC' / 'train.tsv', content)
    return files.read_glue(folder, MRPC, MRPC.train)


def own(path, columns=('text',), label='label', labels=('a', 'b')):
    split = Split(str(path), columns, label)
    task = Task('own', train=split, dev=(), test=(), labels=labels)
    return files.read_own(task, split)


# --- GLUE's files


def test_quotes_and_odd_line_ends_are_text(tmp_path):
    """GLUE's files are never quoted, and U+2028 or a form feed ends no row."""
    rows = '1\t1\t2\t"Yes, he said.\t"\n0\t1\t2\ta\u2028b\x0c\x85c\t""d""\n'
    examples = read_mrpc(tmp_path, HEADER + rows)
    assert examples.texts == [('"Yes, he said.', '"'), ('a\u2028b\x0c\x85c', '""d""')]
    assert examples.labels.tolist() == [1, 0]
    assert examples.labels.dtype == np.int32


@pytest.mark.parametrize('end', ['\n', ''])
def test_byte_order_mark_and_crlf(tmp_path, end):
    content = '\ufeff' + HEADER + '1\t1\t2\tone\ttwo' + end
    examples = read_mrpc(tmp_path, content.replace('\n', '\r\n'))
    assert examples.texts == [('one', 'two')]


def test_more_columns_than_needed_are_allowed(tmp_path):
    """QNLI and others have been served with and without further columns."""
    assert read_mrpc(tmp_path, HEADER + '1\t1\t2\tone\ttwo\tmore\n').texts == [('one', 'two')]


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (HEADER + '1\t1\t2\tone\ttwo\n1\t1\t2\tone\n', ':3: 4 columns, and column 5 is wanted'),
        (HEADER + '1\t1\t2\tone\ttwo\n\n', ':3: 1 columns, and column 4 is wanted'),
        (HEADER + '2\t1\t2\tone\ttwo\n', ":2: the label '2' is not one of 0, 1"),
        (HEADER + '\t1\t2\tone\ttwo\n', ":2: the label '' is not one of 0, 1"),
        (HEADER.encode() + b'1\t1\t2\tone\tt\xe9o\n', ':2: not valid UTF-8'),
        ('', ': is empty'),
        (HEADER, ': has no rows'),
    ],
)
def test_bad_glue_files(tmp_path, content, sentence):
    with pytest.raises(ToolkitError) as caught:
        read_mrpc(tmp_path, content)
    assert str(caught.value) == f'{tmp_path}/MRPC/train.tsv{sentence}'
    assert caught.value.status == 1


@pytest.mark.parametrize('label', ['x', '', 'nan', 'inf', '1,5'])
def test_a_score_that_is_no_number(tmp_path, label):
    task = TASKS['STS-B']
    row = '\t'.join(['0'] * 7 + ['one', 'two', label])
    write(tmp_path / 'STS-B' / 'train.tsv', f'header\n{row}\n')
    with pytest.raises(ToolkitError) as caught:
        files.read_glue(tmp_path, task, task.train)
    path = tmp_path / 'STS-B' / 'train.tsv'
    assert str(caught.value) == f'{path}:2: the label {label!r} is not a number'


def test_a_missing_glue_file_names_the_download(tmp_path):
    with pytest.raises(ToolkitError) as caught:
        files.read_glue(tmp_path, MRPC, MRPC.train)
    assert str(caught.value) == (
        f'{tmp_path}/MRPC/train.tsv is not there: download_glue_data.py --data_dir {tmp_path} '
        '--tasks MRPC fetches it'
    )


def test_glue_dir(tmp_path, monkeypatch):
    monkeypatch.setenv('GLUE_DIR', str(tmp_path))
    assert files.glue_folder() == tmp_path
    for value in (None, ''):
        if value is None:
            monkeypatch.delenv('GLUE_DIR')
        else:
            monkeypatch.setenv('GLUE_DIR', value)
        with pytest.raises(UsageError) as caught:
            files.glue_folder()
        assert str(caught.value) == (
            'the environment variable GLUE_DIR is not set: it names the folder of the GLUE data, '
            'which download_glue_data.py --data_dir glue_data makes'
        )
    wrong = tmp_path / 'nowhere'
    monkeypatch.setenv('GLUE_DIR', str(wrong))
    with pytest.raises(UsageError) as caught:
        files.glue_folder()
    assert str(caught.value) == (
        f'GLUE_DIR={wrong} is not a folder: download_glue_data.py --data_dir {wrong} makes and '
        'fills it'
    )


# --- a user's own files

GOOD = {
    'd.tsv': 'id\ttext\tlabel\n1\t"one", he\ta\n2\ttwo\tb\n',
    'd.csv': 'id,text,label\n1,"""one"", he",a\n2,two,b\n',
    'd.jsonl': '{"id": 1, "text": "\\"one\\", he", "label": "a"}\n\n'
    '{"id": 2, "text": "two", "label": "b"}\n',
    'D.TSV': '\ufefflabel\ttext\r\na\t"one", he\r\nb\ttwo\r\n',
    'E.CSV': '\ufefftext,label\r\n"""one"", he",a\r\n\r\ntwo,b\r\n',
}


@pytest.mark.parametrize('name', GOOD)
def test_the_three_formats(tmp_path, name):
    examples = own(write(tmp_path / name, GOOD[name]))
    assert examples.texts == [('"one", he',), ('two',)]
    assert examples.labels.tolist() == [0, 1]


def test_a_cell_of_two_lines(tmp_path):
    path = write(tmp_path / 'd.csv', 'text,label\n"one\ntwo",a\nthree,x\n')
    with pytest.raises(ToolkitError) as caught:
        own(path)
    # The third row begins in line 4.
    assert str(caught.value) == f"{path}:4: the label 'x' is not one of a, b"
    assert files.read_rows(path)[0].cells['text'] == 'one\ntwo'


def test_numbers_as_labels_and_texts_in_json(tmp_path):
    path = write(tmp_path / 'd.jsonl', '{"text": 3, "label": 1}\n{"text": 0.5, "label": 0}\n')
    examples = own(path, labels=('0', '1'))
    assert examples.texts == [('3',), ('0.5',)]
    assert examples.labels.tolist() == [1, 0]
    assert own(path, labels=None).labels.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ('name', 'content', 'sentence'),
    [
        ('d.tsv', '', ': is empty'),
        ('d.csv', '', ': is empty'),
        ('d.csv', '\n', ': is empty'),
        ('d.jsonl', '', ': has no rows'),
        ('d.jsonl', '\n \n', ': has no rows'),
        ('d.tsv', 'text\tlabel\n', ': has no rows'),
        ('d.csv', 'text,label\n', ': has no rows'),
        ('d.tsv', 'text\tlabel\none\ta\ntwo\n', ':3: 1 columns, and the header has 2'),
        ('d.tsv', 'text\tlabel\none\ta\tb\n', ':2: 3 columns, and the header has 2'),
        ('d.csv', 'text,label\none,two,a\n', ':2: 3 columns, and the header has 2'),
        ('d.csv', 'text,label\n"one\ntwo",a\nthree\n', ':4: 1 columns, and the header has 2'),
        ('d.tsv', 'text\ttext\tlabel\na\tb\ta\n', ':1: two columns have the same name'),
        ('d.csv', 'text,label,label\na,a,a\n', ':1: two columns have the same name'),
        ('d.tsv', 'body\tlabel\none\ta\n', ":2: there is no column 'text' among body, label"),
        ('d.csv', 'text,class\none,a\n', ":2: there is no column 'label' among text, class"),
        ('d.jsonl', '{"text": "one"}\n', ":1: there is no column 'label' among text"),
        ('d.jsonl', '{"text": "a", "label": "a"}\n[1]\n', ':2: not a JSON object'),
        ('d.jsonl', '{"text": "a", "label": "a"}\n\n{"text"\n', ':3: not a JSON object'),
        ('d.jsonl', '{"text": "a", "label": %s}' % ('9' * 5000), ':1: not a JSON object'),
        ('d.jsonl', '{"text": "\\ud83d", "label": "a"}', ':1: not a JSON object'),
        ('d.jsonl', '[' * 100000, ':1: not a JSON object'),
        ('d.jsonl', '{"text": ["a"], "label": "a"}\n', ":1: 'text' is neither text nor a number"),
        ('d.jsonl', '{"text": null, "label": "a"}\n', ":1: 'text' is neither text nor a number"),
        ('d.tsv', 'text\tlabel\none\tc\n', ":2: the label 'c' is not one of a, b"),
        ('d.csv', b'text,label\n\xff,a\n', ':2: not valid UTF-8'),
        ('d.jsonl', b'{"text": "\xff"}\n', ':1: not valid UTF-8'),
    ],
)
def test_bad_files(tmp_path, name, content, sentence):
    path = write(tmp_path / name, content)
    with pytest.raises(ToolkitError) as caught:
        own(path)
    assert str(caught.value) == f'{path}{sentence}'
    assert caught.value.status == 1


@pytest.mark.parametrize(
    ('content', 'line'),
    [
        ('text,label\none,a\n"two,b\n', 3),  # a quote that is never closed
        ('text,label\n"one" more,a\n', 2),  # text after a closing quote
        ('text,label\none,a\n' + 'x' * 200000 + ',a\n', 3),  # longer than the library takes
    ],
)
def test_what_is_not_csv(tmp_path, content, line):
    path = write(tmp_path / 'd.csv', content)
    with pytest.raises(ToolkitError) as caught:
        own(path)
    assert str(caught.value).startswith(f'{path}:{line}: not CSV (')


@pytest.mark.parametrize(
    ('label', 'bad'), [('nan', True), ('x', True), ('', True), ('-2.5', False)]
)
def test_numbers_in_a_label_column(tmp_path, label, bad):
    path = write(tmp_path / 'd.tsv', f'text\tlabel\none\t{label}\n')
    if bad:
        with pytest.raises(ToolkitError) as caught:
            own(path, labels=None)
        assert str(caught.value) == f'{path}:2: the label {label!r} is not a number'
    else:
        examples = own(path, labels=None)
        assert examples.labels.tolist() == [-2.5]
        assert examples.labels.dtype == np.float32


def test_a_file_without_labels(tmp_path):
    path = write(tmp_path / 'd.csv', 'text\none\n')
    assert own(path, label=None) == ([('one',)], None)


def test_extension_and_existence(tmp_path):
    with pytest.raises(UsageError) as caught:
        files.read_rows(tmp_path / 'd.txt')
    expected = f'{tmp_path}/d.txt: the extension is not one of .tsv, .csv, .jsonl'
    assert str(caught.value) == expected
    with pytest.raises(UsageError) as caught:
        files.read_rows(tmp_path / 'd.csv')
    assert str(caught.value) == f'there is no file {tmp_path}/d.csv'


@pytest.mark.parametrize(
    ('cells', 'labels'),
    [
        (['b', 'a', 'b'], ['a', 'b']),
        (['10', '9', '-1'], ['-1', '9', '10']),
        (['10', '9', 'x'], ['10', '9', 'x']),
        (['1.5', '0.5'], ['0.5', '1.5']),
    ],
)
def test_labels_are_found_and_sorted(tmp_path, cells, labels):
    path = write(tmp_path / 'd.csv', 'label\n' + ''.join(f'{cell}\n' for cell in cells))
    assert files.find_labels(path, 'label') == labels


def test_one_label_is_no_task(tmp_path):
    path = write(tmp_path / 'd.csv', 'label\nyes\nyes\n')
    with pytest.raises(ToolkitError) as caught:
        files.find_labels(path, 'label')
    assert str(caught.value) == f"{path}: every row has the label 'yes' in column 'label'"


ROWS = [
    {'id': '1', 'text': '"quoted", with a comma'},
    {'id': '2', 'text': "tick ' é 中 \u2028 end"},
    {'id': '3', 'text': ''},
]


@pytest.mark.parametrize('extension', ['tsv', 'csv', 'jsonl'])
def test_predictions_beside_the_rows(tmp_path, extension):
    source, path = tmp_path / f'new.{extension}', tmp_path / f'done.{extension}'
    with open(source, 'w', encoding='utf8', newline='') as file:
        if extension == 'jsonl':
            file.writelines(json.dumps(row) + '\n' for row in ROWS)
        elif extension == 'csv':
            writer = csv.DictWriter(file, ['id', 'text'])
            writer.writeheader()
            writer.writerows(ROWS)
        else:
            file.write('id\ttext\n' + ''.join(f'{row["id"]}\t{row["text"]}\n' for row in ROWS))
    files.write_predictions(path, source, ['a', 'b', 'c,"'])
    expected = [{**row, 'prediction': label} for row, label in zip(ROWS, ['a', 'b', 'c,"'])]
    assert [row.cells for row in files.read_rows(path)] == expected
    if extension == 'csv':
        with open(path, encoding='utf8', newline='') as file:
            assert list(csv.DictReader(file)) == expected
    if extension == 'tsv':
        # As it was, with one more column: nothing quoted.
        lines = source.read_text(encoding='utf8').split('\n')[:-1]
        added = ['prediction', 'a', 'b', 'c,"']
        text = ''.join(f'{line}\t{cell}\n' for line, cell in zip(lines, added))
        assert path.read_text(encoding='utf8') == text


@pytest.mark.parametrize('name', ['d.tsv', 'd.csv'])
def test_odd_characters_in_predicted_rows(tmp_path, name):
    """A NUL or a lone carriage return in a cell is a character like others."""
    text = 'a\rb' if name == 'd.csv' else 'a\x00b\rc'
    cell = f'"{text}"' if name == 'd.csv' else text
    source = write(tmp_path / name, f'text\n{cell}\nlast\n')
    assert files.read_rows(source)[0].cells == {'text': text}
    path = tmp_path / f'done_{name}'
    files.write_predictions(path, source, ['x', 'y'])
    assert [row.cells for row in files.read_rows(path)] == [
        {'text': text, 'prediction': 'x'},
        {'text': 'last', 'prediction': 'y'},
    ]


def test_a_column_named_prediction_is_replaced(tmp_path):
    source = write(tmp_path / 'd.csv', 'prediction,text\nold,one\n')
    files.write_predictions(tmp_path / 'done.csv', source, ['new'])
    assert (tmp_path / 'done.csv').read_text() == 'prediction,text\nnew,one\n'
