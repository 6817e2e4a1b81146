"""Labelled text in GLUE's files and users' own, and the sentence for each kind of bad input."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from bert.system.errors import ToolkitError, UsageError
from bert.tasks import files, rows
from bert.tasks.table import ALL_TASKS, TASKS, Split, Task

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
    """GLUE's files are never quoted, and U+2028 or a form feed does not end a row."""
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
    """QNLI and others have been published with and without additional columns."""
    assert read_mrpc(tmp_path, HEADER + '1\t1\t2\tone\ttwo\tmore\n').texts == [('one', 'two')]


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (HEADER + '1\t1\t2\tone\ttwo\n1\t1\t2\tone\n', ':3: 4 columns, but column 5 is needed'),
        (HEADER + '1\t1\t2\tone\ttwo\n\n', ':3: 1 columns, but column 4 is needed'),
        (HEADER + '2\t1\t2\tone\ttwo\n', ":2: the label '2' is not one of 0, 1"),
        (HEADER + '\t1\t2\tone\ttwo\n', ':2: the label is empty'),
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


@pytest.mark.parametrize('label', ['x', 'nan', 'inf', '1,5'])
def test_a_score_that_is_not_a_number(tmp_path, label):
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
        f'{tmp_path}/MRPC/train.tsv does not exist: download_glue_data.py --data_dir {tmp_path} '
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
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError) as caught:
            files.glue_folder()
        assert str(caught.value) == (
            'the environment variable GLUE_DIR is not set: it names the folder of the GLUE data; '
            'and its default, glue_data, does not exist here: download_glue_data.py --data_dir '
            'glue_data makes it'
        )
    (tmp_path / 'glue_data').mkdir()
    assert files.glue_folder() == Path('glue_data')
    wrong = tmp_path / 'nowhere'
    monkeypatch.setenv('GLUE_DIR', str(wrong))
    with pytest.raises(UsageError) as caught:
        files.glue_folder()
    assert str(caught.value) == (
        f'GLUE_DIR={wrong} is not a folder: download_glue_data.py --data_dir {wrong} makes and '
        'fills it'
    )


# The header of each file as GLUE serves it, '' if there is none, and a row.
HEADERS = {
    'CoLA/train.tsv': ('', 'gj04\t0\t*\tTEXT'),
    'CoLA/dev.tsv': ('', 'gj04\t1\t\tTEXT'),
    'CoLA/test.tsv': ('index\tsentence', '0\tTEXT'),
    'SST-2/train.tsv': ('sentence\tlabel', 'TEXT\t1'),
    'SST-2/dev.tsv': ('sentence\tlabel', 'TEXT\t0'),
    'SST-2/test.tsv': ('index\tsentence', '0\tTEXT'),
    'MRPC/train.tsv': ('Quality\t#1 ID\t#2 ID\t#1 String\t#2 String', '1\t7\t8\tTEXT\tSECOND'),
    'MRPC/dev.tsv': ('Quality\t#1 ID\t#2 ID\t#1 String\t#2 String', '0\t7\t8\tTEXT\tSECOND'),
    'MRPC/test.tsv': ('index\t#1 ID\t#2 ID\t#1 String\t#2 String', '0\t7\t8\tTEXT\tSECOND'),
    'STS-B/train.tsv': (
        'index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore',
        '0\tnews\tMSR\t2012\t1\tnone\tnone\tTEXT\tSECOND\t3.800',
    ),
    'STS-B/dev.tsv': (
        'index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore',
        '0\tnews\tMSR\t2012\t1\tnone\tnone\tTEXT\tSECOND\t0.000',
    ),
    'STS-B/test.tsv': (
        'index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2',
        '0\tnews\tMSR\t2012\t1\tnone\tnone\tTEXT\tSECOND',
    ),
    'QQP/train.tsv': (
        'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate',
        '1\t2\t3\tTEXT\tSECOND\t1',
    ),
    'QQP/dev.tsv': (
        'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate',
        '1\t2\t3\tTEXT\tSECOND\t0',
    ),
    'QQP/test.tsv': ('id\tquestion1\tquestion2', '0\tTEXT\tSECOND'),
    'MNLI/train.tsv': (
        'index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t'
        'sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label',
        '0\t1\t2\tfiction\tb\tb\tp\tp\tTEXT\tSECOND\tneutral\tneutral',
    ),
    **{
        f'MNLI/dev_{kind}.tsv': (
            'index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t'
            'sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\t'
            'label4\tlabel5\tgold_label',
            '0\t1\t2\tfiction\tb\tb\tp\tp\tTEXT\tSECOND\tneutral\tneutral\tneutral\tneutral\t'
            'neutral\tcontradiction',
        )
        for kind in ('matched', 'mismatched')
    },
    **{
        f'MNLI/test_{kind}.tsv': (
            'index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t'
            'sentence1_parse\tsentence2_parse\tsentence1\tsentence2',
            '0\t1\t2\tfiction\tb\tb\tp\tp\tTEXT\tSECOND',
        )
        for kind in ('matched', 'mismatched')
    },
    'diagnostic/diagnostic.tsv': ('index\tsentence1\tsentence2', '0\tTEXT\tSECOND'),
    'QNLI/train.tsv': ('index\tquestion\tsentence\tlabel', '0\tTEXT\tSECOND\tentailment'),
    'QNLI/dev.tsv': ('index\tquestion\tsentence\tlabel', '0\tTEXT\tSECOND\tnot_entailment'),
    'QNLI/test.tsv': ('index\tquestion\tsentence', '0\tTEXT\tSECOND'),
    'RTE/train.tsv': ('index\tsentence1\tsentence2\tlabel', '0\tTEXT\tSECOND\tentailment'),
    'RTE/dev.tsv': ('index\tsentence1\tsentence2\tlabel', '0\tTEXT\tSECOND\tnot_entailment'),
    'RTE/test.tsv': ('index\tsentence1\tsentence2', '0\tTEXT\tSECOND'),
    'WNLI/train.tsv': ('index\tsentence1\tsentence2\tlabel', '0\tTEXT\tSECOND\t1'),
    'WNLI/dev.tsv': ('index\tsentence1\tsentence2\tlabel', '0\tTEXT\tSECOND\t0'),
    'WNLI/test.tsv': ('index\tsentence1\tsentence2', '0\tTEXT\tSECOND'),
}


def all_splits():
    return [
        (task, split) for task in TASKS.values() for split in (task.train, *task.dev, *task.test)
    ]


def test_every_file_of_glue_belongs_to_a_split():
    assert sorted(split.path for _, split in all_splits()) == sorted(HEADERS)


@pytest.mark.parametrize(
    ('task', 'split'), all_splits(), ids=lambda value: getattr(value, 'path', '')
)
def test_reading_a_file_in_the_layout_of_glue(tmp_path, task, split):
    header, row = HEADERS[split.path]
    path = tmp_path / split.path
    path.parent.mkdir()
    lines = [header] * bool(header) + [row.replace('TEXT', f'text {i}') for i in range(3)]
    path.write_text('\n'.join(lines) + '\n')
    examples = files.read_glue(tmp_path, task, split)
    second = ('SECOND',) if 'SECOND' in row else ()
    assert examples.texts == [(f'text {i}', *second) for i in range(3)]
    if split in task.test:
        assert examples.labels is None
        return
    # The label is the last cell, except in MRPC (the first) and CoLA (the second).
    column = {'MRPC': 0, 'CoLA': 1}.get(task.name, -1)
    label = row.split('\t')[column]
    for number in examples.labels:
        if task.is_regression:
            assert number == pytest.approx(float(label))
        else:
            assert task.labels[number] == label


@pytest.mark.parametrize(
    ('name', 'rows'),
    [('MRPC', (3668, 408, 1725)), ('CoLA', (8551, 1043, 1063)), ('STS-B', (5749, 1500, 1379))],
)
def test_row_counts_of_the_real_files(real_glue, name, rows):
    task = TASKS[name]
    found = [
        len(files.read_glue(real_glue, task, split).texts)
        for split in (task.train, *task.dev, *task.test)
    ]
    assert tuple(found) == rows


def test_share_of_ones_in_the_real_files(real_glue):
    """Of MRPC's dev pairs 279 of 408 are paraphrases, 68 %: a well-known majority baseline."""
    task = TASKS['MRPC']
    assert files.read_glue(real_glue, task, task.dev[0]).labels.sum() == 279


# --- files of 2018, and of tasks beyond GLUE


def test_broken_rows_of_the_older_qqp_are_left_out(tmp_path, caplog):
    """The row whose question has a line break makes two short ones; a test set has to be whole."""
    task = TASKS['QQP']
    header = 'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n'
    broken = '2\t3\t4\tWas he real?\n\tWhat is the evidence?\t0\n'
    write(tmp_path / 'QQP/train.tsv', f'{header}1\t2\t3\tA\tB\t1\n{broken}5\t6\t7\tC\tD\t0\n')
    examples = files.read_glue(tmp_path, task, task.train)
    assert examples.texts == [('A', 'B'), ('C', 'D')]
    assert examples.labels.tolist() == [1, 0]
    assert caplog.messages == [f'{tmp_path}/QQP/train.tsv: 2 broken rows are left out']
    write(tmp_path / 'QQP/test.tsv', 'id\tquestion1\tquestion2\n0\tA\tB\n1\tC\n')
    with pytest.raises(ToolkitError) as caught:
        files.read_glue(tmp_path, task, task.test[0])
    assert str(caught.value).endswith('QQP/test.tsv:3: 2 columns, but column 3 is needed')


def test_snli_in_both_layouts(tmp_path):
    """The gold label is the last cell of a row; rows can be longer than the header."""
    task = ALL_TASKS['SNLI']
    start = '0\tc\tp\tb\tb\tp\tp\tOne man .\tA man .'
    write(
        tmp_path / 'SNLI/train.tsv',
        'index\tcaptionID\tpairID\tsentence1_binary_parse\tsentence2_binary_parse\t'
        'sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n'
        f'{start}\tneutral\tneutral\n{start}\tneutral\tx\tx\tx\tx\tcontradiction\n',
    )
    examples = files.read_glue(tmp_path, task, task.train)
    assert examples.texts == [('One man .', 'A man .')] * 2
    assert [task.labels[number] for number in examples.labels] == ['neutral', 'contradiction']


def test_chinese_tasks_in_the_layout_of_gluonnlp(tmp_path):
    """Columns by number, as in GluonNLP's baidu_ernie_data.py, and its second name of a label."""
    contents = {
        'XNLI': 'premise\thypo\tlabel\n他说\t妈妈\tcontradictory\n嗯\t我\tentailment\n',
        'LCQMC': 'text_a\ttext_b\tlabel\n他说\t妈妈\t1\n嗯\t我\t0\n',
        'ChnSentiCorp': 'label\ttext_a\n1\t他说\n0\t嗯\n',
    }
    for name, content in contents.items():
        task = ALL_TASKS[name]
        write(tmp_path / task.train.path, content)
        write(tmp_path / task.test[0].path, content)
        examples = files.read_glue(tmp_path, task, task.train)
        pair = name != 'ChnSentiCorp'
        assert examples.texts == [('他说', '妈妈')[: 1 + pair], ('嗯', '我')[: 1 + pair]]
        labels = [task.labels[number] for number in examples.labels]
        assert labels == (['contradiction', 'entailment'] if name == 'XNLI' else ['1', '0'])
        assert files.read_glue(tmp_path, task, task.test[0]) == files.Examples(examples.texts, None)


XNLI_HEADER = (
    'language\tgold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t'
    'sentence2_parse\tsentence1\tsentence2\tpromptID\tpairID\tgenre\tlabel1\tlabel2\tlabel3\t'
    'label4\tlabel5\tsentence1_tokenized\tsentence2_tokenized\tmatch\n'
)


def xnli_row(language, label, first, second):
    return f'{language}\t{label}\t\t\t\t\t{first}\t{second}\t1\t1\tnews' + 8 * '\tx' + '\n'


def test_xnli_in_one_language(tmp_path):
    """Columns by name, and only the rows of the language, in the layout of XNLI's archives."""
    task = ALL_TASKS['XNLI-de']
    rows = [
        xnli_row('ar', 'neutral', 'a', 'b'),
        xnli_row('de', 'neutral', 'Und er', 'Er rief'),
        xnli_row('de', 'contradiction', '"Und', 'nein'),
        xnli_row('el', 'neutral', 'c', 'd'),
    ]
    write(tmp_path / 'XNLI-1.0/xnli.dev.tsv', XNLI_HEADER + ''.join(rows))
    write(
        tmp_path / 'XNLI-MT-1.0/multinli/multinli.train.de.tsv',
        'premise\thypo\tlabel\nEins .\tZwei .\tcontradictory\n',
    )
    dev = files.read_glue(tmp_path, task, task.dev[0])
    assert dev.texts == [('Und er', 'Er rief'), ('"Und', 'nein')]
    assert [task.labels[number] for number in dev.labels] == ['neutral', 'contradiction']
    train = files.read_glue(tmp_path, task, task.train)
    assert train.texts == [('Eins .', 'Zwei .')]
    assert task.labels[train.labels[0]] == 'contradiction'
    # A language without rows, and a file without the columns.
    sw = ALL_TASKS['XNLI-sw']
    for content, sentence in [
        (XNLI_HEADER + ''.join(rows), ': has no rows'),
        ('language\tgold_label\n', ":1: there is no column 'sentence1' among language, gold_label"),
    ]:
        path = write(tmp_path / 'XNLI-1.0/xnli.dev.tsv', content)
        with pytest.raises(ToolkitError) as caught:
            files.read_glue(tmp_path, sw, sw.dev[0])
        assert str(caught.value) == f'{path}{sentence}'


def test_a_missing_file_names_the_archive_that_has_it(tmp_path):
    task = ALL_TASKS['XNLI-fr']
    for split, name in [(task.train, 'XNLI-MT-1.0'), (task.dev[0], 'XNLI-1.0')]:
        with pytest.raises(ToolkitError) as caught:
            files.read_glue(tmp_path, task, split)
        assert str(caught.value).endswith(f'--data_dir {tmp_path} --tasks {name} fetches it')


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


def test_a_whole_number_that_no_float_holds(tmp_path):
    """As text and as a class it is like any other; as a number it is refused."""
    large = '1' + 400 * '0'
    lines = [f'{{"text": {cell}, "label": {cell}}}\n' for cell in ('7', large)]
    path = write(tmp_path / 'd.jsonl', ''.join(lines))
    labels, _ = files.find_labels(path, 'label')
    assert labels == ['7', large]
    assert own(path, labels=labels).texts == [('7',), (large,)]
    with pytest.raises(ToolkitError) as caught:
        own(path, labels=None)
    assert str(caught.value) == f'{path}:2: the label {large!r} is not a number'
    lists = write(tmp_path / 'l.jsonl', f'{{"text": "a", "label": [7, {large}]}}\n')
    assert files.find_labels(lists, 'label') == (['7', large], True)


@pytest.mark.parametrize(
    ('cells', 'are_numbers'),
    [
        ('1 2.5 -3', True),
        ('true false', True),
        ('"1" "2"', False),
        ('1 "2"', False),
        ('1 true', False),  # no column of a table has both
        (f'1 {2**63 - 1}', True),
        (f'1 {2**63}', False),
    ],
)
def test_whether_labels_are_numbers_or_text(tmp_path, cells, are_numbers):
    lines = [f'{{"text": "a", "label": {cell}}}\n' for cell in cells.split()]
    path = write(tmp_path / 'd.jsonl', ''.join(lines))
    assert own(path, labels=files.find_labels(path, 'label')[0]).number_labels == are_numbers
    assert not own(write(tmp_path / 'd.csv', 'text,label\na,1\n'), labels=['1']).number_labels


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
        ('d.tsv', 'text\tlabel\none\ta\ntwo\n', ':3: 1 columns, but the header has 2'),
        ('d.tsv', 'text\tlabel\none\ta\tb\n', ':2: 3 columns, but the header has 2'),
        ('d.csv', 'text,label\none,two,a\n', ':2: 3 columns, but the header has 2'),
        ('d.csv', 'text,label\n"one\ntwo",a\nthree\n', ':4: 1 columns, but the header has 2'),
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
        ('d.jsonl', '{"text": "a", "label": NaN}\n', ':1: NaN is not JSON'),
        ('d.jsonl', '{"text": "a", "label": "a", "n": [-Infinity]}\n', ':1: -Infinity is not JSON'),
        ('d.jsonl', '{"text": "a", "label": null}\n', ':1: the label is empty'),
        ('d.jsonl', '{"text": "a", "label": " "}\n', ':1: the label is empty'),
        ('d.csv', 'text,label\none,a\ntwo,""\n', ':3: the label is empty'),
        ('d.tsv', 'text\tlabel\none\t \n', ':2: the label is empty'),
        ('d.jsonl', '{"text": 1e999, "label": "a"}\n', ":1: 'text' is neither text nor a number"),
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
        ('text,label\none,a\n"two,b\n', 3),  # an unclosed quote
        ('text,label\n"one" more,a\n', 2),  # text after a closing quote
    ],
)
def test_a_file_that_is_not_csv(tmp_path, content, line):
    path = write(tmp_path / 'd.csv', content)
    with pytest.raises(ToolkitError) as caught:
        own(path)
    assert str(caught.value).startswith(f'{path}:{line}: not CSV (')


@pytest.mark.parametrize(('label', 'bad'), [('nan', True), ('x', True), ('-2.5', False)])
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
    assert own(path, label=None) == files.Examples([('one',)], None, [{'text': 'one'}])


@pytest.mark.parametrize(
    ('name', 'content', 'sentence'),
    [
        ('d.csv', 'text,label\none,a\ntwo,\n', ':3: the label is empty'),
        ('d.tsv', 'text\tlabel\none\t \n', ':2: the label is empty'),
        ('d.jsonl', '{"label": 1}\n{"label": null}\n', ':2: the label is empty'),
        ('d.csv', 'text,label\none,"a\nb"\n', ":2: the label 'a\\nb' has a line end, "),
        ('d.csv', 'text,label\none,a\ttab\n', ":2: the label 'a\\ttab' has a line end, a tab"),
        (
            'd.jsonl',
            '{"text": "one", "label": "\\u001b[31m"}\n',
            ":1: the label '\\x1b[31m' has a line end, a tab or another control character",
        ),
    ],
)
def test_cells_that_cannot_be_labels(tmp_path, name, content, sentence):
    path = write(tmp_path / name, content)
    with pytest.raises(ToolkitError) as caught:
        files.find_labels(path, 'label')
    assert str(caught.value).startswith(f'{path}{sentence}')


def test_extension_and_existence(tmp_path):
    with pytest.raises(UsageError) as caught:
        files.read_rows(tmp_path / 'd.txt')
    expected = f'{tmp_path}/d.txt: the extension is not one of .tsv, .csv, .jsonl, .parquet'
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
    assert files.find_labels(path, 'label') == (labels, False)


def test_a_single_label_is_refused(tmp_path):
    path = write(tmp_path / 'd.csv', 'label\nyes\nyes\n')
    with pytest.raises(ToolkitError) as caught:
        files.find_labels(path, 'label')
    assert str(caught.value) == f"{path}: every row has the label 'yes' in column 'label'"


ROWS = [
    {'id': '1', 'text': '"quoted", with a comma'},
    {'id': '2', 'text': "tick ' é 中 \u2028 end"},
    {'id': '3', 'text': ''},
]


def write_beside(source, path, answers):
    """Write the rows of a file with a column ``prediction``."""
    original = rows.read_table(source, whole=True).original
    rows.write_rows(path, original, [{'prediction': answer} for answer in answers])


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
    write_beside(source, path, ['a', 'b', 'c,"'])
    expected = [{**row, 'prediction': label} for row, label in zip(ROWS, ['a', 'b', 'c,"'])]
    assert [row.cells for row in files.read_rows(path)] == expected
    if extension == 'csv':
        with open(path, encoding='utf8', newline='') as file:
            assert list(csv.DictReader(file)) == expected
    if extension == 'tsv':
        # The same with one more column, and nothing quoted.
        lines = source.read_text(encoding='utf8').split('\n')[:-1]
        added = ['prediction', 'a', 'b', 'c,"']
        text = ''.join(f'{line}\t{cell}\n' for line, cell in zip(lines, added))
        assert path.read_text(encoding='utf8') == text


@pytest.mark.parametrize('name', ['d.tsv', 'd.csv'])
def test_odd_characters_in_predicted_rows(tmp_path, name):
    """A NUL or a lone carriage return in a cell is a character like any other."""
    text = 'a\rb' if name == 'd.csv' else 'a\x00b\rc'
    cell = f'"{text}"' if name == 'd.csv' else text
    source = write(tmp_path / name, f'text\n{cell}\nlast\n')
    assert files.read_rows(source)[0].cells == {'text': text}
    path = tmp_path / f'done_{name}'
    write_beside(source, path, ['x', 'y'])
    assert [row.cells for row in files.read_rows(path)] == [
        {'text': text, 'prediction': 'x'},
        {'text': 'last', 'prediction': 'y'},
    ]


def test_a_column_named_prediction_is_replaced(tmp_path):
    write(tmp_path / 'd.csv', 'prediction,text\nold,one\n')
    write_beside(tmp_path / 'd.csv', tmp_path / 'done.csv', ['new'])
    assert (tmp_path / 'done.csv').read_text() == 'prediction,text\nnew,one\n'


def test_a_csv_cell_may_hold_a_whole_document(tmp_path):
    """The csv module alone stops at 131,072 characters."""
    document = 'word ' * 30000
    path = write(tmp_path / 'd.csv', f'text,label\n"{document}",a\nshort,b\n')
    assert [row.cells['text'] for row in files.read_rows(path)] == [document, 'short']
    write_beside(path, tmp_path / 'p.csv', ['a', 'b'])
    assert files.read_rows(tmp_path / 'p.csv')[0].cells['text'] == document


def test_a_folder_of_other_bytes_is_refused(tmp_path, monkeypatch):
    folder = os.fsdecode(os.fsencode(tmp_path) + b'/\xff')
    os.mkdir(folder)
    monkeypatch.setenv('GLUE_DIR', folder)
    with pytest.raises(UsageError, match=r'GLUE_DIR=.*udcff is not valid UTF-8'):
        files.glue_folder()
