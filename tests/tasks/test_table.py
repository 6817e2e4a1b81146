"""The GLUE table, compared with an independent description of its files; users' own tasks."""

import pytest

from bert.system.errors import UsageError
from bert.tasks import table
from bert.tasks.table import TASKS

# Name: text columns, label column, test text columns, labels, metrics. Columns are counted from 0
# in the headers of the files that GLUE serves.
SIMPLE = {
    'CoLA': ((3,), 1, (1,), ('0', '1'), ('mcc',)),
    'SST-2': ((0,), 1, (1,), ('0', '1'), ('accuracy',)),
    'MRPC': ((3, 4), 0, (3, 4), ('0', '1'), ('accuracy', 'f1')),
    'STS-B': ((7, 8), 9, (7, 8), None, ('pearsonr', 'spearmanr')),
    'QQP': ((3, 4), 5, (1, 2), ('0', '1'), ('accuracy', 'f1')),
    'QNLI': ((1, 2), 3, (1, 2), ('not_entailment', 'entailment'), ('accuracy',)),
    'RTE': ((1, 2), 3, (1, 2), ('not_entailment', 'entailment'), ('accuracy',)),
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


# Name: text columns, label column, labels, as in GluonNLP 0.10's classification.py and
# baidu_ernie_data.py, and rows, as in its documentation (LCQMC: Liu et al. 2018, table 2).
CHINESE = {
    'XNLI': ((0, 1), 2, ('neutral', 'entailment', 'contradiction'), (392702, 2490, 5010)),
    'LCQMC': ((0, 1), 2, ('0', '1'), (238766, 8802, 12500)),
    'ChnSentiCorp': ((1,), 0, ('0', '1'), (9600, 1200, 1200)),
}


@pytest.mark.parametrize('name', CHINESE)
def test_chinese_row_of_the_table(name):
    columns, label, labels, rows = CHINESE[name]
    task = table.ALL_TASKS[name]
    (dev,), (test,) = task.dev, task.test
    assert (task.labels, task.metrics) == (labels, ('accuracy',))
    for split, file in [(task.train, 'train'), (dev, 'dev'), (test, 'test')]:
        assert (split.path, split.text_columns) == (f'{name}/{file}.tsv', columns)
        assert split.label_column == (None if split is test else label)
        assert split.has_header
    assert test.submission == f'{name}.tsv'
    assert (task.train.rows, dev.rows, test.rows) == rows


def test_other_tasks():
    """XNLI in its 15 languages has the labels of MNLI, so that one model serves both."""
    assert set(table.MORE_TASKS) == {*CHINESE, 'SNLI', *(f'XNLI-{x}' for x in table.LANGUAGES)}
    assert len(table.LANGUAGES) == 15
    assert table.ALL_TASKS == {**TASKS, **table.MORE_TASKS}
    for name, task in table.MORE_TASKS.items():
        assert task.name == name
        assert 'NLI' not in name or task.labels == TASKS['MNLI'].labels
    submissions = [split.submission for t in table.ALL_TASKS.values() for split in t.test]
    assert len(set(submissions)) == len(submissions)


OWN = {
    'train': 'train.tsv',
    'dev': None,
    'test': None,
    'text_columns': ['text'],
    'label_column': 'label',
    'metric': None,
    'labels': ['a', 'b', 'c'],
}


def test_own_task():
    task = table.own_task(**{**OWN, 'dev': 'dev.csv', 'test': 'new.jsonl'})
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
    task = table.own_task(**{**OWN, 'labels': None})
    assert task.is_regression
    assert task.metrics == ('pearsonr', 'spearmanr')
    assert (task.dev, task.test) == ((), ())


def test_own_metrics_and_a_task_without_training_data():
    task = table.own_task(**{**OWN, 'train': None, 'test': 'new.csv', 'metric': ['f1_macro']})
    assert (task.train, task.metrics) == (None, ('f1_macro',))


def test_metrics_that_fit():
    assert table.check_metrics(['f1', 'mcc'], ['no', 'yes']) == ('f1', 'mcc')
    assert table.check_metrics(['f1_macro'], ['a', 'b', 'c']) == ('f1_macro',)
    assert table.check_metrics(['spearmanr'], None) == ('spearmanr',)


@pytest.mark.parametrize(
    ('name', 'labels', 'sentence'),
    [
        ('accuracy', None, 'the metric accuracy does not fit: a number is predicted'),
        ('pearsonr', ['a', 'b'], 'the metric pearsonr does not fit: classes are predicted'),
        (
            'f1',
            ['a', 'b', 'c'],
            'the metric f1 is for two labels, not 3; f1_macro is for any number',
        ),
    ],
)
def test_metrics_that_do_not_fit(name, labels, sentence):
    with pytest.raises(UsageError) as caught:
        table.check_metrics([name], labels)
    assert str(caught.value) == sentence
