"""What the flags of a run say, and its page, made from files."""

import json
import re

import numpy as np
import pytest

from bert.finetuning import summary
from bert.finetuning.parser import build_flags
from bert.finetuning.progress import History
from bert.tasks.files import Examples
from bert.tasks.table import TASKS, own_task


def flags(*words):
    return vars(build_flags().parse_args(words))


def test_a_recipe_has_what_matters():
    text = re.sub('<.*?>', '', summary.describe_recipe(flags('--lr', '1e-4', '--seed', '7')))
    assert text == (
        '--batch_size 32 --lr 0.0001 --epochs 3 --warmup_ratio 0.1 --optimizer bertadam '
        '--max_len 128'
    )
    text = summary.describe_recipe(flags('--bias_correction', '--training_steps', '9'))
    assert '--training_steps</span> 9' in text and '--bias_correction</span>' in text


def test_the_model():
    assert summary.describe_model(flags()) == 'bert_12_768_12, book_corpus_wiki_en_uncased'
    assert summary.describe_model(flags('--bert_model', '<dir>')) == '&lt;dir&gt;'
    text = summary.describe_model(flags('--bert_model', 'm', '--model_parameters', 'x.params'))
    assert text == 'm, <span class="flag">--model_parameters</span> x.params'


@pytest.mark.parametrize(
    ('words', 'advice'),
    [
        ([], '--bias_correction, a smaller --lr than 5e-05, more --epochs or another --seed.'),
        (
            ['--bias_correction', '--lr', '1e-3', '--warmup_ratio', '0'],
            'a smaller --lr than 0.001, more --epochs, a longer --warmup_ratio or another --seed.',
        ),
        (['--optimizer', 'lamb'], 'a smaller --lr than 5e-05, more --epochs or another --seed.'),
    ],
)
def test_advice(words, advice):
    assert summary.advise(flags(*words), with_seed=True) == f'What to try: {advice}'


def test_the_command_gives_the_same_run(monkeypatch, tmp_path):
    """It has the flags that are not the default ones, but not where the results go."""
    words = ['--task_name', 'RTE', '--gpus', '0,1', '--output_dir', 'x y', '--resume', '--quiet']
    monkeypatch.setenv('GLUE_DIR', str(tmp_path))
    assert summary.format_command(TASKS['RTE'], flags(*words)) == (
        f'GLUE_DIR={tmp_path} finetune_classifier.py \\\n    --task_name RTE \\\n    --gpus 0,1'
    )
    own = own_task('a b.csv', None, None, ['text'], 'label', None, ['0', '1'])
    words = ['--train_file', 'a b.csv', '--text_columns', 'text', 'more', '--label_column', 'label']
    assert summary.format_command(own, flags(*words)) == (
        "finetune_classifier.py \\\n    --train_file 'a b.csv' \\\n"
        '    --text_columns text more \\\n    --label_column label'
    )


def make_run(folder, task, dev):
    """Write what a run of two epochs leaves, and return the page about it."""
    log = (
        '[Epoch 1 Batch 2/3] loss=0.7, lr=0.1, metrics=accuracy:0.5\n'
        'validation metrics:accuracy:0.5000\nTime cost=1.0s\n'
    )
    (folder / 'finetune.log').write_text(log)
    lines = [{'epoch': 1, 'step': 2, 'loss': 0.7}, {'epoch': 2, 'step': 6, 'seconds': 60.0}]
    (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    outputs = {'dev': 3 * np.eye(2)[[0, 1, 1]]} if dev else {}
    np.savez(folder / 'outputs.npz', labels=np.array(['no', '<b>']), **outputs)
    rows = Examples([('one',), ('<i>two</i>',), ('three',)], np.array([0, 1, 0], np.int32))
    examples = {
        'train': [(task.train, rows)],
        'dev': [(split, rows) for split in task.dev],
        'test': [],
    }
    epochs = [
        {'dev': {'accuracy': 0.5}, 'seconds': 60},
        {'dev': {'accuracy': 2 / 3}, 'seconds': 61},
    ]
    words = ['--train_file', str(folder / 'my.csv'), '--text_columns', 'text']
    history = History(task, epochs)
    return summary.make_page(folder, task, examples, flags(*words), history, '2026-01-02 03:04 UTC')


def test_the_page_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, 'can_draw', lambda: False)
    task = own_task('my.csv', 'dev.csv', None, ['text'], 'label', None, ['no', '<b>'])
    page = make_run(tmp_path, task, dev=True)
    for part in (
        '<h1>my.csv: a fine-tuned BERT</h1>',
        '66.7 % of the 3 dev rows are right, as many as by always answering &#x27;no&#x27;',
        '3 train rows, 3 dev rows',
        '6 updates in <time>2 min</time>',
        '<time>2026-01-02 03:04 UTC</time>',
        '<tr class="best"><td>2</td><td>0.6667</td></tr>',
        'Epoch 2 is the best by accuracy',
        'row 3, label: no; answered: &lt;b&gt;',
    ):
        assert part in page, part
    assert make_run(tmp_path, task, dev=True) == page


def test_the_page_of_a_run_without_a_dev_set(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, 'can_draw', lambda: False)
    task = own_task('my.csv', None, None, ['text'], 'label', None, ['no', '<b>'])
    page = re.sub('<.*?>', '', make_run(tmp_path, task, dev=False))
    assert 'Not known. There is no dev set, so nothing here says how good the answers are' in page


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.4, '0 s'), (119.4, '119 s'), (120, '2 min'), (3569, '59 min'), (3570, '1 h 0 min')]
    + [(7199, '2 h 0 min'), (90061, '25 h 1 min')],
)
def test_time_spans(seconds, text):
    assert summary.format_seconds(seconds) == text
