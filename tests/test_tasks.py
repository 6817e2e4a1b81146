"""The GLUE table, against its files' layout written down anew."""

from argparse import Namespace

import pytest

from bert.system.errors import UsageError
from bert.tasks import files, table
from bert.tasks.table import TASKS

# Name: text columns, label column, test text columns, labels, metrics. From the headers of the
# files that GLUE serves; 0-based.
SIMPLE = {
    'CoLA': ((3,), 1, (1,), ('0', '1'), ('mcc',)),
    'SST-2': ((0,), 1, (1,), ('0', '1'), ('accuracy',)),
    'MRPC': ((3, 4), 0, (3, 4), ('0', '1'), ('accuracy', 'f1')),
    'STS-B': ((7, 8), 9, (7, 8), None, ('pearsonr', 'spearmanr')),
    'QQP': ((3, 4), 5, (1, 2), ('0', '1'), ('accuracy', 'f1')),
    'QNLI': ((1, 2), 3, (1, 2), ('entailment', 'not_entailment'), ('accuracy',)),
    'RTE': ((1, 2), 3, (1, 2), ('entailment', 'not_entailment'), ('accuracy',)),
    'WNLI': ((1, 2), 3, (1, 2), ('0', '1'), ('accuracy',)),
}


def test_the_nine_tasks():
    assert sorted(TASKS) == sorted([*SIMPLE, 'MNLI'])
    assert table.OTHER_NAMES == {'SST': 'SST-2'}
    assert all(task.name == name for name, task in TASKS.items())
    assert [name for name, task in TASKS.items() if task.is_regression] == ['STS-B']


@pytest.mark.parametrize('name', SIMPLE)
def test_row_of_the_table(name):
    text, label, test_text, labels, metrics = SIMPLE[name]
    task = TASKS[name]
    (dev,), (test,) = task.dev, task.test
    for split, file in [(task.train, 'train'), (dev, 'dev')]:
        assert split.path == f'{name}/{file}.tsv'
        assert (split.text_columns, split.label_column) == (text, label)
        assert split.has_header == (name != 'CoLA')
    assert (test.path, test.submission) == (f'{name}/test.tsv', f'{name}.tsv')
    assert (test.text_columns, test.label_column, test.has_header) == (test_text, None, True)
    assert task.labels == labels
    assert task.metrics == metrics


def test_mnli():
    task = TASKS['MNLI']
    assert (task.train.path, task.train.text_columns) == ('MNLI/train.tsv', (8, 9))
    assert task.train.label_column == 11
    assert [(s.path, s.text_columns, s.label_column, s.name) for s in task.dev] == [
        ('MNLI/dev_matched.tsv', (8, 9), 15, 'matched'),
        ('MNLI/dev_mismatched.tsv', (8, 9), 15, 'mismatched'),
    ]
    assert [(s.path, s.text_columns, s.label_column, s.submission) for s in task.test] == [
        ('MNLI/test_matched.tsv', (8, 9), None, 'MNLI-m.tsv'),
        ('MNLI/test_mismatched.tsv', (8, 9), None, 'MNLI-mm.tsv'),
        ('diagnostic/diagnostic.tsv', (1, 2), None, 'AX.tsv'),
    ]
    assert sorted(task.labels) == ['contradiction', 'entailment', 'neutral']
    assert task.metrics == ('accuracy',)


# The first line of each file as GLUE serves it, '' where there is none, and a row.
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
    # The last cell is the label everywhere but in MRPC (the first) and CoLA (the second).
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
    """68 % of MRPC's dev pairs are paraphrases: 279 of 408 (a well-known majority baseline)."""
    task = TASKS['MRPC']
    assert files.read_glue(real_glue, task, task.dev[0]).labels.sum() == 279


def flags(**values):
    defaults = {
        'train_file': 'train.tsv',
        'dev_file': None,
        'test_file': None,
        'text_columns': ['text'],
        'label_column': 'label',
        'regression': False,
        'metric': None,
    }
    return Namespace(**{**defaults, **values})


def test_own_task():
    task = table.own_task(flags(dev_file='dev.csv', test_file='new.jsonl'), ['a', 'b', 'c'])
    assert (task.name, task.labels, task.metrics) == ('own', ('a', 'b', 'c'), ('accuracy',))
    assert (task.train.path, task.train.text_columns, task.train.label_column) == (
        'train.tsv',
        ('text',),
        'label',
    )
    assert [split.path for split in task.dev] == ['dev.csv']
    assert [(split.path, split.label_column) for split in task.test] == [('new.jsonl', None)]
    assert not task.is_regression


def test_own_regression_task():
    task = table.own_task(flags(regression=True), None)
    assert task.is_regression
    assert task.metrics == ('pearsonr', 'spearmanr')
    assert (task.dev, task.test) == ((), ())


def test_metrics_that_fit():
    assert table.check_metrics(['f1', 'mcc'], ['no', 'yes']) == ('f1', 'mcc')
    assert table.check_metrics(['f1_macro'], ['a', 'b', 'c']) == ('f1_macro',)
    assert table.check_metrics(['spearmanr'], None) == ('spearmanr',)


@pytest.mark.parametrize(
    ('name', 'labels', 'sentence'),
    [
        ('accuracy', None, '--metric accuracy does not fit: a number is predicted'),
        ('pearsonr', ['a', 'b'], '--metric pearsonr does not fit: classes are predicted'),
        ('f1', ['a', 'b', 'c'], '--metric f1 is for two labels, not 3; f1_macro is for any number'),
    ],
)
def test_metrics_that_do_not_fit(name, labels, sentence):
    with pytest.raises(UsageError) as caught:
        table.check_metrics([name], labels)
    assert str(caught.value) == sentence
