"""Logs of the original scripts, of both years, are read and compared."""

import json

import pytest

from bert.experiments import recipes
from bert.report import logs
from bert.system.errors import ToolkitError

# As the script of 2019 wrote them; the first line is shortened.
FIRST = """\
INFO:root:Namespace(accumulate=None, batch_size=32, gpu=True, lr=2e-05, optimizer='bertadam')
INFO:root:BERTClassifier(
INFO:root:[Epoch 1 Batch 10/20] loss=0.6000, lr=0.0000059, metrics=accuracy:0.7000,f1:0.8000
INFO:root:[Epoch 1 Batch 20/20] loss=0.5000, lr=0.0000118, metrics=accuracy:0.7500,f1:0.8100
INFO:root:validation metrics:accuracy:0.8309,f1:0.7159
INFO:root:Time cost=54.4s
INFO:root:[Epoch 2 Batch 10/20] loss=0.4000, lr=-0.0000003, metrics=accuracy:0.9000,f1:0.9000
INFO:root:validation metrics:accuracy:0.8873,f1:0.7009
INFO:root:Time cost=52.9s
"""
# As the script of 2020 did: with the time, another sign, lines of the evaluation, and a summary.
SECOND = """\
INFO:root:04:17:33 Namespace(accumulate=None, gpu=0, lr=2e-05, batch_size=16)
INFO:root:04:17:43 [Epoch 1 Batch 20/30] loss=0.7015, lr=0.0000032, metrics:accuracy:0.6500
INFO:root:04:17:59 [Batch 10/51] loss=0.3347, metrics:accuracy:0.9000
INFO:root:04:18:00 validation metrics:accuracy:0.8260
INFO:root:04:18:00 Time cost=1.14s, throughput=357.62 samples/s
INFO:root:04:18:01 Time cost=21.72s
INFO:root:04:19:20 Best model at epoch 3. Validation metrics:accuracy:0.8873
"""


def test_numbers_near_the_largest_float_are_short():
    """Their difference may be infinite."""
    one, other = (
        logs.Log({}, [], [{'epoch': 1, 'dev': {'acc': value}}]) for value in (1e308, -1e308)
    )
    (row,) = logs.compare_lines(one, other)
    assert (row['acc A'], row['acc B'], row['acc B-A']) == ('1.0000e+308', '-1.0000e+308', '-inf')


def test_the_lines_of_2019():
    log = logs.parse_log(FIRST)
    assert log.flags == {
        'accumulate': None,
        'batch_size': 32,
        'gpu': True,
        'lr': 2e-5,
        'optimizer': 'bertadam',
    }
    assert len(log.training) == 3
    assert log.training[1] == {
        'epoch': 1,
        'batch': 20,
        'batches': 20,
        'loss': 0.5,
        'lr': 1.18e-5,
        'metrics': {'accuracy': 0.75, 'f1': 0.81},
    }
    assert log.training[2]['lr'] == -3e-7
    assert log.validation == [
        {'epoch': 1, 'dev': {'accuracy': 0.8309, 'f1': 0.7159}, 'seconds': 54.4},
        {'epoch': 2, 'dev': {'accuracy': 0.8873, 'f1': 0.7009}, 'seconds': 52.9},
    ]


@pytest.mark.parametrize(
    'flags',
    [
        '(a=1)) + (2)',  # an expression that is not a call
        '(**{1: 2})',
        '(a={[]: 1})',
        '(a=' + '-' * 100000 + '1)',
        '(a=' + '(' * 1000 + ')',
        '(a=\0)',
        '(' + 'Namespace(' * 50000 + ')',
    ],
)
def test_what_looks_like_flags_but_is_not(flags):
    log = logs.parse_log(f'INFO:root:Namespace{flags}\n' + FIRST.partition('\n')[2])
    assert log.flags == {} and len(log.training) == 3


@pytest.mark.parametrize(
    'line',
    [
        '[Epoch 1 Batch 1/0] loss=0.6, lr=0.1, metrics=mcc:0.5',  # no batch can be one of none
        f'[Epoch {"9" * 5000} Batch 1/2] loss=0.6, lr=0.1, metrics=mcc:0.5',
        f'[Epoch 1 Batch 1/2] loss={"9" * 10**6}, lr=x',
        'Time cost=1.2.3s',
    ],
)
def test_what_looks_like_a_line_but_is_not(line):
    assert logs.parse_log(line) == logs.Log({}, [], [])


@pytest.mark.parametrize(
    'change',
    [
        {'training': {}},
        {'training': [1]},
        {'training': [{'epoch': 1}]},
        {'flags': []},
        {'validation': [{'epoch': 0, 'dev': {}}]},
        {'validation': [{'epoch': 1, 'dev': {'accuracy': '1'}}]},
        {'validation': [{'epoch': 1, 'dev': {'accuracy': 10**400}}]},
        {'validation': [{'epoch': 1, 'seconds': {}}]},
    ],
)
def test_json_files_without_sound_curves(tmp_path, change):
    path = tmp_path / 'curves.json'
    path.write_text(json.dumps({'validation': [{'epoch': 1, 'dev': {'mcc': 0.5}}], **change}))
    with pytest.raises(ToolkitError) as caught:
        logs.read_log(path)
    assert str(caught.value) == f'{path}: not the curves of a fine-tuning run'


def test_the_lines_of_2020():
    """The time of the evaluation is not that of the epoch, and the summary is not an epoch."""
    log = logs.parse_log(SECOND)
    assert log.flags == {'accumulate': None, 'gpu': 0, 'lr': 2e-5, 'batch_size': 16}
    assert [line['loss'] for line in log.training] == [0.7015]
    assert log.validation == [{'epoch': 1, 'dev': {'accuracy': 0.826}, 'seconds': 21.72}]


@pytest.mark.parametrize(
    'text',
    [
        'On MNLI Matched: \nvalidation metrics:accuracy:0.8455\n'
        'On MNLI Mismatched: \nvalidation metrics:accuracy:0.8466\nTime cost=2.0s',
        'validation metrics (matched):accuracy:0.8455\n'
        'validation metrics (mismatched):accuracy:0.8466\nTime cost=2.0s',
        '04:18:00 Now we are doing evaluation on dev_matched with gpu(0).\n'
        '04:18:00 validation metrics:accuracy:0.8455\n'
        '04:18:00 Time cost=1.14s, throughput=357.62 samples/s\n'
        '04:18:00 Now we are doing evaluation on dev_mismatched with gpu(0).\n'
        '04:18:00 validation metrics:accuracy:0.8466\n'
        '04:18:01 Time cost=1.14s, throughput=357.62 samples/s\n04:18:01 Time cost=2.0s',
    ],
)
def test_both_dev_sets_of_mnli(text):
    """They are found in the lines of 2019, of earlier logs of this project, and of 2020."""
    assert logs.parse_log(text).validation == [
        {
            'epoch': 1,
            'matched': {'accuracy': 0.8455},
            'mismatched': {'accuracy': 0.8466},
            'seconds': 2.0,
        }
    ]


def test_a_log_that_breaks_off():
    """The last dev metrics count without a time, and a loss may be NaN."""
    text = FIRST.rpartition('INFO')[0].replace('loss=0.4000', 'loss=nan')
    log = logs.parse_log(text)
    assert log.validation[-1] == {'epoch': 2, 'dev': {'accuracy': 0.8873, 'f1': 0.7009}}
    assert log.training[-1]['loss'] != log.training[-1]['loss']


def test_a_file_that_is_no_log(tmp_path):
    path = tmp_path / 'a.log'
    path.write_text('nothing\n[Epoch 1 Batch x/2] loss=1.2.3, lr=0, metrics=a:b\n')
    with pytest.raises(ToolkitError, match='a.log: has no line of a fine-tuning log'):
        logs.read_log(path)


def test_flags_that_are_not_constants():
    assert logs.parse_flags('a=1, b=<function f>') == {}
    assert logs.parse_flags("a='x, b=2', c=[1, 2]") == {'a': 'x, b=2', 'c': [1, 2]}
    assert logs.parse_flags('a=print(1)') == {}


def test_curves():
    log = logs.parse_log(FIRST)
    assert logs.loss_curve(log) == ([0.5, 1.0, 1.5], [0.6, 0.5, 0.4])
    assert logs.training_curve(log, 'f1') == ([0.5, 1.0, 1.5], [0.8, 0.81, 0.9])
    assert logs.training_curve(log, 'mcc') == ([], [])
    assert logs.dev_curves(log) == {
        ('dev', 'accuracy'): ([1, 2], [0.8309, 0.8873]),
        ('dev', 'f1'): ([1, 2], [0.7159, 0.7009]),
    }


def test_compare_line_by_line():
    """Batch 20 of epoch 1 is in both logs; a value in only one of them is beside a dash."""
    rows = logs.compare_lines(logs.parse_log(FIRST), logs.parse_log(SECOND))
    assert [(row['epoch'], row['line']) for row in rows] == [
        ('1', '10'),
        ('1', '20'),
        ('1', 'dev'),
        ('2', '10'),
        ('2', 'dev'),
    ]
    assert rows[1] == {
        'epoch': '1',
        'line': '20',
        'loss A': '0.5000',
        'loss B': '0.7015',
        'loss B-A': '+0.2015',
        'lr A': '0.0000118',
        'lr B': '0.0000032',
        'accuracy A': '0.7500',
        'accuracy B': '0.6500',
        'accuracy B-A': '-0.1000',
        'f1 A': '0.8100',
        'f1 B': '-',
        'f1 B-A': '-',
        'seconds A': '-',
        'seconds B': '-',
    }
    assert (rows[2]['accuracy B-A'], rows[2]['seconds A'], rows[2]['seconds B']) == (
        '-0.0049',
        '54.4',
        '21.7',
    )
    assert (rows[3]['loss A'], rows[3]['loss B']) == ('0.4000', '-')
    one, other = logs.parse_log(FIRST), logs.parse_log(SECOND)
    assert logs.differing_flags(one, other) == {'batch_size': (32, 16), 'gpu': (True, 0)}


@pytest.mark.parametrize(('task', 'name'), [('MRPC', 'mrpc'), ('RTE', 'rte'), ('SST-2', 'sst')])
def test_the_published_curves_are_those_of_the_logs(published_logs, task, name):
    path = published_logs / f'finetuned_{name}.log'
    log, kept = logs.read_log(path), logs.read_log(recipes.PUBLISHED / '2019-01' / f'{task}.json')
    if task == 'MRPC':  # this log's F1 is a mean over batches, and left out
        for values in [
            *(row['metrics'] for row in log.training),
            *(e['dev'] for e in log.validation),
        ]:
            del values['f1']
    assert kept == log
    # Counted independently of the parser.
    lines = path.read_text().splitlines()
    assert len(log.training) == sum('Batch' in line for line in lines)
    assert len(log.validation) == sum('validation' in line for line in lines)


def test_curves_in_json(tmp_path):
    line = json.dumps({'training': [], 'validation': [{'epoch': 1, 'dev': {'mcc': 0.5}}]})
    (tmp_path / 'kept.json').write_text(line)
    assert logs.read_log(tmp_path / 'kept.json') == logs.Log(
        {}, [], [{'epoch': 1, 'dev': {'mcc': 0.5}}]
    )
