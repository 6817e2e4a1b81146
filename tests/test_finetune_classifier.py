"""The real script on tiny models and data: files, log lines, equalities and refusals."""

import csv
import functools
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import (
    ROOT,
    WORDS,
    approximately,
    need_bfloat16,
    read_events,
    run_here,
    spoil_array,
    stop_at,
)
from huggingface_hub import ModelCard

import bert  # noqa: F401 (prepares for MXNet)
import finetune_classifier
from bert import embed, ops
from bert.checkpoints import cards, reading
from bert.finetuning import base, evaluation, summary
from bert.finetuning import flags as finetuning_flags
from bert.finetuning.flags import parse_args
from bert.finetuning.progress import History
from bert.model import build, loading
from bert.report import logs
from bert.system import machine
from bert.system.errors import Stopped, ToolkitError, UsageError
from bert.tasks import files as tasks_files
from bert.tasks import metrics as tasks_metrics
from bert.tasks.files import read_rows
from bert.tasks.metrics import describe
from bert.tasks.table import ALL_TASKS
from bert.training import schedule, states, update

import mxnet as mx  # isort: skip

pytestmark = pytest.mark.usefixtures('root_logger')

SCRIPT = ROOT / 'finetune_classifier.py'


def sentences(count, seed, classes=2):
    """Return (first, second, class): the first word decides the class, the rest is random."""
    rng = np.random.default_rng(seed)
    marks, words = ['red', 'green', 'blue'], WORDS.split()
    rows = []
    for _ in range(count):
        label = int(rng.integers(classes))
        first, second = (rng.choice(words, rng.integers(2, 9)) for _ in range(2))
        rows.append((f'{marks[label]} {" ".join(first)}', ' '.join(second), label))
    return rows


def write_glue_tsv(folder, split, rows, labels, width):
    """Write a file in a task's layout; ``labels`` turns the class into the label's text."""
    lines = ['\t'.join(f'column{i}' for i in range(width))] if split.has_header else []
    for row in rows:
        cells = ['x'] * width
        for column, text in zip(split.text_columns, row):
            cells[column] = text
        if split.label_column is not None:
            cells[split.label_column] = labels(row[2])
        lines.append('\t'.join(cells))
    path = folder / split.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')


def write_task(folder, name, train=22, dev=9, test=5):
    """Write all files of a task. Dev and test sets can be recognised by their sizes."""
    task = ALL_TASKS[name]
    classes = 2 if task.is_regression else len(task.labels)

    def label(number):
        return f'{2.5 * number:.3f}' if task.is_regression else task.labels[number]

    write_glue_tsv(folder, task.train, sentences(train, 1, classes), label, 12)
    for i, split in enumerate(task.dev):
        write_glue_tsv(folder, split, sentences(dev + i, 2 + i, classes), label, 16)
    for i, split in enumerate(task.test):
        write_glue_tsv(folder, split, sentences(test + i, 5 + i, classes), label, 12)


@pytest.fixture(scope='module')
def glue(tmp_path_factory):
    folder = tmp_path_factory.mktemp('glue')
    for name in ('MRPC', 'STS-B', 'MNLI', 'CoLA'):
        write_task(folder, name)
    return folder


@pytest.fixture(autouse=True)
def quick_pages(monkeypatch):
    """Draw no pictures, except of the run of MRPC below: drawing takes longest."""
    monkeypatch.setattr(summary, 'can_draw', lambda: False)


@pytest.fixture
def glue_dir(glue, monkeypatch):
    monkeypatch.setenv('GLUE_DIR', str(glue))
    return glue


def finetune(output, *flags):
    """Run the script's ``main`` here."""
    return finetune_classifier.main(['--output_dir', str(output), *map(str, flags)])


def script(*flags, code=None, cwd=ROOT, **environ):
    """Run the script in a process of its own."""
    command = [sys.executable, '-W', 'ignore', *(['-c', code] if code else [str(SCRIPT)])]
    env = {name: value for name, value in {**os.environ, **environ}.items() if value is not None}
    return subprocess.run(
        [*command, *map(str, flags)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )


def script_here(capsys, *flags):
    """Run the script as :func:`script` does, but here."""
    status = run_here(finetune_classifier.main, [SCRIPT, *flags])
    return subprocess.CompletedProcess(flags, status, *capsys.readouterr())


def lines_of(output):
    return [json.loads(line) for line in (output / 'metrics.jsonl').read_text().splitlines()]


def predictions(path):
    header, *rows = path.read_text().splitlines()
    assert header == 'index\tprediction'
    assert [row.split('\t')[0] for row in rows] == [str(i) for i in range(len(rows))]
    return [row.split('\t')[1] for row in rows]


def arrays(path):
    return {name: array.asnumpy() for name, array in mx.nd.load(str(path)).items()}


def without_seconds(epochs):
    return [{key: value for key, value in e.items() if key != 'seconds'} for e in epochs]


# --- one run of MRPC, examined from all sides

SMALL = ['--batch_size', '4', '--lr', '5e-3', '--log_interval', '2']


@pytest.fixture(scope='module')
def mrpc(glue, tiny_bert, tmp_path_factory):
    """Return the output directory and the result of three epochs on 22 rows."""
    output = tmp_path_factory.mktemp('mrpc') / 'out'
    old = os.environ.get('GLUE_DIR')
    os.environ['GLUE_DIR'] = str(glue)
    try:
        result = finetune(output, '--bert_model', tiny_bert, '--task_name', 'MRPC', *SMALL)
    finally:
        os.environ.pop('GLUE_DIR')
        if old is not None:
            os.environ['GLUE_DIR'] = old
    return output, result


def read_outputs(folder):
    with np.load(folder / 'outputs.npz', allow_pickle=False) as file:
        return {name: file[name] for name in file if name != 'labels'}


def test_exactly_these_files(mrpc):
    output, result = mrpc
    assert sorted(os.listdir(output)) == [
        'MRPC.tsv',
        'README.md',
        'config.json',
        'finetune.json',
        'finetune.log',
        'metrics.jsonl',
        'model_bert_MRPC_0.params',
        'model_bert_MRPC_1.params',
        'model_bert_MRPC_2.params',
        'outputs.npz',
        'report.html',
        'tokenizer_config.json',
        'vocab.txt',
    ]
    assert result['test'] == ['MRPC.tsv']
    assert len(predictions(output / 'MRPC.tsv')) == 5
    assert set(predictions(output / 'MRPC.tsv')) <= {'0', '1'}


def test_a_quiet_run(mrpc, glue_dir, tiny_bert, tmp_path, capsys):
    """Only the result is shown; all else is as without the flag, which --resume may drop."""
    output, result = mrpc
    flags = ['--bert_model', tiny_bert, '--task_name', 'MRPC', *SMALL]
    again = finetune(tmp_path, *flags, '--quiet')
    assert without_seconds(again['epochs']) == without_seconds(result['epochs'])
    lines, expected = (
        (folder / 'finetune.log').read_text().splitlines() for folder in (tmp_path, output)
    )
    assert len(lines) == len(expected) and lines[0].startswith('INFO:root:Namespace(')
    (best,) = (line for line in lines if 'Best epoch' in line)
    assert capsys.readouterr().err == f'{best}\n'
    finetune(tmp_path, *flags, '--resume')
    assert 'is finished: nothing is left to do' in capsys.readouterr().err
    found = finetune(tmp_path / 'x', '--only_inference', '--bert_model', tmp_path, '--quiet')
    printed = capsys.readouterr().err
    assert found['test'] == ['MRPC.tsv']
    assert re.fullmatch(r'INFO:root:validation metrics:accuracy:\S+,f1:\S+\n', printed)


def test_the_card(mrpc, tiny_bert):
    output, result = mrpc
    data = ModelCard.load(output / 'README.md').data
    best = result['epochs'][result['best_epoch'] - 1]['dev']
    found = {each.metric_type: each.metric_value for each in data.eval_results}
    assert found == {name: round(value, 4) for name, value in best.items()}
    # 22 rows are not those of GLUE's MRPC.
    assert (data.datasets, data.language, data.license) == (None, ['en'], 'unknown')
    facts = data.mxnet_bert_toolkit
    assert facts['Training'] == {
        'weights': str(tiny_bert),
        'task': 'MRPC',
        'training rows': 22,
        'rows of the published training set': 3668,
        'dev rows': 9,
        'labels': ['0', '1'],
        'epochs': 3,
        'best epoch': result['best_epoch'],
    }
    flags = facts['Flags']
    assert (flags['batch_size'], flags['lr'], flags['seed']) == (4, 5e-3, 2)
    assert not {'output_dir', 'log_interval', 'bias_correction'} & set(flags)
    assert str(output.parent) not in (output / 'README.md').read_text()


def test_cards_of_folders_with_a_readme(glue_dir, tiny_bert, tmp_path, capsys):
    """That of an earlier run is replaced, anybody else's stays."""
    flags = ['--bert_model', tiny_bert, *SMALL, '--epochs', '1']
    (tmp_path / 'README.md').write_text('# My project\n')
    finetune(tmp_path, *flags)
    assert (tmp_path / 'README.md').read_text() == '# My project\n'
    sentence = f'{tmp_path}/README.md is not a model card of this program: it is kept'
    assert capsys.readouterr().err.count(sentence) == 1
    (tmp_path / 'README.md').unlink()
    for batch_size in (4, 8):
        finetune(tmp_path, *flags, '--batch_size', batch_size)
        card = ModelCard.load(tmp_path / 'README.md')
        assert card.data.mxnet_bert_toolkit['Flags']['batch_size'] == batch_size


def test_the_card_of_a_model_of_own_data(tiny_bert, tmp_path, monkeypatch):
    """Names of files are as they were typed; the fine-tuned base passes on its own base."""
    monkeypatch.chdir(tmp_path)
    rows = ''.join(f'{text},{label}\n' for text, label in [('a film', 'b|ad'), ('plot', '`')] * 2)
    (tmp_path / 'x.csv').write_text(f'text,label\n{rows}')
    shutil.copytree(tiny_bert, 'base')
    made = cards.Card('tiny', base='own/tiny', languages=('de',), license='mit')
    cards.write_card('base', cards.format_card(made, cards.ENCODER, 'hf'))
    own = '--train_file x.csv --dev_file ./x.csv --text_columns text --label_column label'.split()
    finetune('out', '--bert_model', 'base', *own, '--epochs', '1')
    data = ModelCard.load('out/README.md').data
    assert (data.base_model, data.language, data.license) == ('own/tiny', ['de'], 'mit')
    assert data.datasets is None
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type) == ('./x.csv', 'accuracy')
    assert data.mxnet_bert_toolkit['Training'] == {
        'weights': 'base',
        'training file': 'x.csv',
        'dev file': './x.csv',
        'training rows': 4,
        'dev rows': 4,
        'labels': ['`', 'b|ad'],
        'epochs': 1,
        'best epoch': 1,
    }
    assert '- labels: `` ` ``, `b|ad`\n' in Path('out/README.md').read_text()


def test_the_report_of_a_run(mrpc, glue):
    """It judges the best epoch's answers to the dev set, and has the metrics of all epochs."""
    output, result = mrpc
    page = (output / 'report.html').read_text(encoding='utf8')
    root = ElementTree.fromstring(page.replace('<!DOCTYPE html>\n', ''))
    text = ''.join(root.itertext())
    assert len(root.findall('.//p[@class]')) > 1 and 'verdict' in root.find('.//p').get('class')
    labels = [row[2] for row in sentences(9, 2)]
    pairs = list(zip(labels, read_outputs(output)['dev'].argmax(axis=1)))
    matrix = root.findall('.//table[@class="matrix"]/tbody/tr')
    counts = [[int(cell.text) for cell in row.findall('td')] for row in matrix]
    assert counts == [[pairs.count((label, answer)) for answer in (0, 1)] for label in (0, 1)]
    rows = [[cell.text for cell in row] for row in root.find('.//table/tbody')]
    assert rows == [
        [str(number), f'{epoch["dev"]["accuracy"]:.4f}', f'{epoch["dev"]["f1"]:.4f}']
        for number, epoch in enumerate(result['epochs'], 1)
    ]
    assert '22 train rows, 9 dev rows, 5 test rows' in text and '18 updates in ' in text
    assert f'GLUE_DIR={glue} finetune_classifier.py \\\n    --task_name MRPC' in text
    finished = json.loads((output / 'finetune.json').read_text())['finished']
    assert re.fullmatch(DATE, finished) and finished in text
    if importlib.util.find_spec('matplotlib'):
        assert len(list(root.iter('svg'))) == 5  # loss, training and dev metrics, reliability


def test_log_lines_in_the_form_of_the_original(mrpc):
    output, result = mrpc
    lines = (output / 'finetune.log').read_text().splitlines()
    assert all(line.startswith('INFO:root:') for line in lines)
    assert lines[0].startswith('INFO:root:Namespace(')
    assert "task_name='MRPC'" in lines[0] and 'batch_size=4' in lines[0]
    # 22 rows in batches of 4: 6 updates an epoch, 18 in total, the first of which is warm-up.
    assert 'INFO:root:the text is lower-cased, by its vocabulary' in lines
    padding = r'INFO:root:training on 22 rows, 6 updates an epoch, \d+\.\d% padding'
    assert sum(bool(re.fullmatch(padding, line)) for line in lines) == 1
    form = re.compile(
        r'INFO:root:\[Epoch (\d) Batch (\d)/6\] loss=\d+\.\d{4}, lr=(0\.\d{7}), '
        r'metrics=accuracy:[01]\.\d{4},f1:[01]\.\d{4}'
    )
    found = [form.fullmatch(line) for line in lines if '[Epoch' in line]
    assert [(m.group(1), m.group(2)) for m in found] == [
        (epoch, batch) for epoch in '123' for batch in '246'
    ]
    rates = [5e-3 * (18 - step) / 17 for step in range(2, 19, 2)]
    assert [m.group(3) for m in found] == [f'{rate:.7f}' for rate in rates]
    validation = [line for line in lines if 'validation' in line]
    assert validation == [
        f'INFO:root:validation metrics:accuracy:{e["dev"]["accuracy"]:.4f},f1:{e["dev"]["f1"]:.4f}'
        for e in result['epochs']
    ]
    times = [line for line in lines if re.fullmatch(r'INFO:root:Time cost=\d+\.\ds', line)]
    assert len(times) == 3
    # Each epoch ends with its time.
    assert lines.index(validation[0]) + 1 == lines.index(times[0])
    best = result['epochs'][result['best_epoch'] - 1]['dev']
    assert (
        f'INFO:root:Best epoch {result["best_epoch"]}: accuracy:{best["accuracy"]:.4f},'
        f'f1:{best["f1"]:.4f}' in lines
    )
    assert lines[-2:] == [
        f'INFO:root:wrote 5 predictions to {output}/MRPC.tsv',
        f'INFO:root:wrote {output}/report.html',
    ]


def test_metrics_for_programs(mrpc):
    output, result = mrpc
    lines = lines_of(output)
    training = [line for line in lines if 'loss' in line]
    assert [line['step'] for line in training] == list(range(2, 19, 2))
    assert [line['epoch'] for line in training] == [1] * 3 + [2] * 3 + [3] * 3
    speed = 'samples_per_second'
    assert set(training[0]) == {'epoch', 'step', 'loss', 'lr', 'accuracy', 'f1', speed}
    assert all(0 < line[speed] < 1e5 for line in training)
    assert training[-1]['lr'] == 0.0
    epochs = [line for line in lines if 'loss' not in line]
    assert epochs == [
        {'epoch': number, 'step': 6 * number, **epoch}
        for number, epoch in enumerate(result['epochs'], 1)
    ]
    # Metrics of the whole epoch, 22 rows, not of its last batches.
    assert round(training[2]['accuracy'] * 22, 6) == round(training[2]['accuracy'] * 22)


def test_the_best_epoch_is_the_first_with_the_highest_metric(mrpc):
    output, result = mrpc
    scores = [epoch['dev']['accuracy'] for epoch in result['epochs']]
    assert result['best_epoch'] == 1 + int(np.argmax(scores))
    description = json.loads((output / 'finetune.json').read_text())
    assert description['best_epoch'] == result['best_epoch']
    assert description['parameters'] == f'model_bert_MRPC_{result["best_epoch"] - 1}.params'
    assert description['labels'] == ['0', '1']
    assert description['flags']['task_name'] == 'MRPC'
    assert json.loads((output / 'tokenizer_config.json').read_text()) == {'do_lower_case': True}


def test_the_first_metric_chooses_the_best_epoch():
    """The others do not matter, nor does a later epoch that is no better."""
    figures = [(0.6, 0.9), (0.7, 0.7), (0.7, 0.8), (0.5, 0.95)]
    epochs = [{'dev': dict(zip(('accuracy', 'f1'), values))} for values in figures]
    assert History(ALL_TASKS['MRPC'], epochs).best_epoch == 2


def test_inference_from_the_output_directory_alone(mrpc, glue, tmp_path):
    """It works in a fresh process, from a copy elsewhere, without any flag of the training run."""
    output, result = mrpc
    moved = tmp_path / 'moved'
    moved.mkdir()
    best = json.loads((output / 'finetune.json').read_text())['parameters']
    for name in ('config.json', 'vocab.txt', 'tokenizer_config.json', 'finetune.json', best):
        shutil.copy(output / name, moved)
    ran = script(
        *('--only_inference', '--bert_model', moved, '--output_dir', tmp_path / 'new'),
        GLUE_DIR=str(glue),
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / 'new' / 'MRPC.tsv').read_bytes() == (output / 'MRPC.tsv').read_bytes()
    assert sorted(os.listdir(tmp_path / 'new')) == ['MRPC.tsv', 'inference.log', 'outputs.npz']
    # The model's outputs for both sets, bit for bit.
    mine, theirs = read_outputs(tmp_path / 'new'), read_outputs(output)
    assert sorted(mine) == sorted(theirs) == ['MRPC', 'dev']
    assert mine['dev'].shape == (9, 2) and mine['MRPC'].shape == (5, 2)
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name])
    metrics = describe(result['epochs'][result['best_epoch'] - 1]['dev'])
    assert f'INFO:root:validation metrics:{metrics}\n' in ran.stderr
    assert 'INFO:root:the text is lower-cased, by ' in ran.stderr
    assert sorted(os.listdir(moved))[0] == 'config.json' and len(os.listdir(moved)) == 5


def test_model_parameters(mrpc, glue_dir, tiny_bert, tmp_path):
    output, result = mrpc
    best = output / f'model_bert_MRPC_{result["best_epoch"] - 1}.params'
    flags = ['--bert_model', tiny_bert, '--model_parameters', best]
    finetune(tmp_path / 'out', '--only_inference', *flags)
    assert (tmp_path / 'out' / 'MRPC.tsv').read_bytes() == (output / 'MRPC.tsv').read_bytes()
    # Training can go on from it: the first loss is that of a trained model.
    finetune(tmp_path / 'more', *SMALL, *flags, '--epochs', '1', '--log_interval', '1')
    first, again = lines_of(output)[0]['loss'], lines_of(tmp_path / 'more')[0]['loss']
    assert abs(first - again) > 1e-3


def test_training_goes_on_from_an_output_directory(mrpc, glue_dir, tmp_path):
    """Its encoder gets a new head, as for another task."""
    output, result = mrpc
    finetune(tmp_path, '--bert_model', output, '--task_name', 'CoLA', *SMALL, '--epochs', '1')
    description = json.loads((tmp_path / 'finetune.json').read_text())
    assert description['flags']['task_name'] == 'CoLA'
    assert (tmp_path / 'vocab.txt').read_bytes() == (output / 'vocab.txt').read_bytes()


def test_other_encoder_weights(glue_dir, tiny_bert, tmp_path):
    """--pretrained_bert_parameters equals a model directory with the same weights."""
    from conftest import write_tiny_bert

    other = write_tiny_bert(tmp_path / 'other', seed=5)
    loading.load_bert(str(other))[0].save_parameters(str(tmp_path / 'other.params'))
    short = [*SMALL, '--training_steps', '3']
    finetune(tmp_path / 'a', '--bert_model', other, *short)
    finetune(
        *(tmp_path / 'b', '--bert_model', tiny_bert, *short),
        *('--pretrained_bert_parameters', tmp_path / 'other.params'),
    )
    finetune(tmp_path / 'c', '--bert_model', tiny_bert, *short)
    a, b, c = (arrays(tmp_path / name / 'model_bert_MRPC_0.params') for name in 'abc')
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert any((a[name] != c[name]).any() for name in a)


def test_from_scratch(glue_dir, tiny_bert, tmp_path, capsys):
    """With the sizes of a configuration or of a name; the weights are random, and the seed's."""
    vocab = ['--vocab_file', tiny_bert / 'vocab.txt']
    flags = [*SMALL, '--training_steps', '2', '--lr', '1e-9']
    finetune(tmp_path / 'a', '--bert_model', tiny_bert / 'config.json', *flags)
    assert 'the weights of the model are random' in capsys.readouterr().err
    shutil.copy(tiny_bert / 'config.json', tmp_path / 'sizes.json')
    finetune(tmp_path / 'b', '--bert_model', tmp_path / 'sizes.json', *vocab, *flags)
    finetune(tmp_path / 'c', '--bert_model', tmp_path / 'sizes.json', *vocab, *flags, '--seed', 3)
    a, b, c = (arrays(tmp_path / name / 'model_bert_MRPC_0.params') for name in 'abc')
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    weights = 'bert.encoder.transformer_cells.1.ffn.ffn_1.weight'
    assert (a[weights] != c[weights]).any()
    # BERT's own: normal with a standard deviation of 0.02; those of tiny_bert have 0.2.
    assert np.std(a[weights]) == pytest.approx(0.02, rel=0.1)
    finetune(tmp_path / 'd', '--bert_model', 'bert_2_128_2', *vocab, *flags)
    assert arrays(tmp_path / 'd' / 'model_bert_MRPC_0.params')[weights].shape == (512, 128)
    finetune(tmp_path / 'e', '--bert_model', tmp_path / 'd', '--only_inference')
    assert (tmp_path / 'e' / 'MRPC.tsv').read_bytes() == (tmp_path / 'd' / 'MRPC.tsv').read_bytes()


def test_the_same_flags_give_the_same_bytes(mrpc, glue_dir, tiny_bert, tmp_path):
    """This holds with dropout, and however often the log is written."""
    output, _ = mrpc
    names = [f'model_bert_MRPC_{epoch}.params' for epoch in range(3)]
    finetune(tmp_path / 'again', '--bert_model', tiny_bert, *SMALL, '--log_interval', '5')
    for name in [*names, 'MRPC.tsv', 'finetune.json']:
        same = (tmp_path / 'again' / name).read_bytes() == (output / name).read_bytes()
        assert same == (name != 'finetune.json')  # which holds seconds
    finetune(tmp_path / 'other', '--bert_model', tiny_bert, *SMALL, '--seed', '3')
    assert (tmp_path / 'other' / names[0]).read_bytes() != (output / names[0]).read_bytes()


def test_training_steps_that_end_within_an_epoch(glue_dir, tiny_bert, tmp_path):
    """8 updates at 6 an epoch are two epochs, the second of two updates, down to a rate of 0."""
    flags = ['--training_steps', '8', *SMALL, '--log_interval', '1', '--epochs', '7']
    result = finetune(tmp_path, '--bert_model', tiny_bert, *flags)
    assert len(result['epochs']) == 2
    training = [line for line in lines_of(tmp_path) if 'loss' in line]
    assert [(line['epoch'], line['step']) for line in training] == [
        *((1, step) for step in range(1, 7)),
        (2, 7),
        (2, 8),
    ]
    assert [line['lr'] for line in training] == pytest.approx(
        [5e-3 * (8 - step) / 8 for step in range(1, 9)]
    )
    log = (tmp_path / 'finetune.log').read_text()
    assert '[Epoch 2 Batch 2/2] ' in log and '[Epoch 1 Batch 6/6] ' in log
    assert (tmp_path / 'model_bert_MRPC_1.params').exists()
    assert not (tmp_path / 'model_bert_MRPC_2.params').exists()


def test_early_stop(glue_dir, tiny_bert, tmp_path):
    """With a rate of nearly 0 the dev metric does not change after the first epoch."""
    flags = ['--epochs', '9', '--early_stop', '2', '--lr', '1e-12', '--batch_size', '11']
    result = finetune(tmp_path, '--bert_model', tiny_bert, *flags)
    assert len(result['epochs']) == 3
    assert result['best_epoch'] == 1
    log = (tmp_path / 'finetune.log').read_text()
    assert 'INFO:root:no better dev metric for 2 epochs: stopped\n' in log


# --- different ways to compute the same


@pytest.fixture
def no_dropout(monkeypatch):
    """Set dropout to 0 in the head too, which has no flag."""
    build_head = build.build_head
    monkeypatch.setattr(build, 'build_head', functools.partial(build_head, dropout=0.0))


def assert_equal_runs(one, other):
    """Compare losses, rates, metrics of all updates, dev metrics, parameters and predictions."""
    lines, others = lines_of(one), lines_of(other)
    assert len(lines) == len(others) > 5
    for line, other_line in zip(lines, others):
        assert set(line) == set(other_line)
        for key in set(line) - {'seconds', 'samples_per_second', 'dev'}:
            assert line[key] == pytest.approx(other_line[key], rel=1e-4, abs=1e-5), key
        if 'dev' in line:
            assert line['dev'] == pytest.approx(other_line['dev'], abs=1e-4)
    names = sorted(path.name for path in one.glob('*.params'))
    assert names == sorted(path.name for path in other.glob('*.params'))
    first, last = arrays(one / names[0]), arrays(one / names[-1])
    moved = max(np.abs(last[name] - first[name]).max() for name in first)
    assert moved > 1e-4  # so that equality is meaningful
    for name, array in arrays(other / names[-1]).items():
        np.testing.assert_allclose(last[name], array, rtol=1e-4, atol=1e-5, err_msg=name)
    assert (one / 'MRPC.tsv').read_bytes() == (other / 'MRPC.tsv').read_bytes()


EQUAL = ['--lr', '1e-3', '--epochs', '2', '--log_interval', '1', '--epsilon', '1e-4']


@pytest.fixture
def nineteen(tmp_path, monkeypatch):
    """Write 19 rows: updates of 8, 8 and 3, the last of which is less than half full."""
    write_task(tmp_path / 'glue', 'MRPC', train=19)
    monkeypatch.setenv('GLUE_DIR', str(tmp_path / 'glue'))


@pytest.mark.parametrize('optimizer', ['bertadam', 'adam'])
def test_accumulated_gradients_equal_the_large_batch(
    nineteen, tiny_bert_without_dropout, no_dropout, tmp_path, optimizer
):
    flags = ['--bert_model', tiny_bert_without_dropout, *EQUAL, '--optimizer', optimizer]
    finetune(tmp_path / 'one', *flags, '--batch_size', '8')
    finetune(tmp_path / 'two', *flags, '--batch_size', '4', '--accumulate', '2')
    assert_equal_runs(tmp_path / 'one', tmp_path / 'two')


def test_a_short_update_takes_the_mean_of_its_own_rows(
    tiny_bert_without_dropout, no_dropout, tmp_path, monkeypatch
):
    """With a large epsilon the size of the gradients counts, and not their direction alone."""
    write_task(tmp_path / 'glue', 'MRPC', train=3)
    monkeypatch.setenv('GLUE_DIR', str(tmp_path / 'glue'))
    flags = ['--bert_model', tiny_bert_without_dropout, *EQUAL, '--epsilon', '1', '--lr', '1']
    finetune(tmp_path / 'full', *flags, '--epochs', '3', '--batch_size', '3')
    finetune(tmp_path / 'short', *flags, '--epochs', '3', '--batch_size', '8')
    assert_equal_runs(tmp_path / 'full', tmp_path / 'short')


def test_each_epoch_has_its_own_order(nineteen, tiny_bert_without_dropout, no_dropout, tmp_path):
    """At a rate so low that no weight changes, the losses show which batch is which."""
    finetune(
        *(tmp_path / 'out', '--bert_model', tiny_bert_without_dropout, '--batch_size', '4'),
        *('--lr', '1e-30', '--epochs', '3', '--log_interval', '1'),
    )
    losses = {}
    for line in lines_of(tmp_path / 'out'):
        if 'loss' in line:
            losses.setdefault(line['epoch'], []).append(line['loss'])
    assert [len(epoch) for epoch in losses.values()] == [5, 5, 5]
    assert len({tuple(epoch) for epoch in losses.values()}) == 3


@pytest.mark.parametrize('accumulate', [1, 2])
def test_two_devices_equal_one(
    nineteen, tiny_bert_without_dropout, no_dropout, tmp_path, monkeypatch, accumulate
):
    flags = ['--bert_model', tiny_bert_without_dropout, *EQUAL]
    finetune(tmp_path / 'one', *flags, '--batch_size', '8')
    monkeypatch.setattr(update, 'contexts', lambda gpus: [mx.cpu(0), mx.cpu(1)])
    size = ['--batch_size', str(4 // accumulate), '--accumulate', str(accumulate)]
    finetune(tmp_path / 'two', *flags, *size)
    assert_equal_runs(tmp_path / 'one', tmp_path / 'two')


def test_bfloat16(mrpc, glue_dir, tiny_bert, tmp_path):
    """Losses are near those in float32, and the parameters in the file are float32."""
    need_bfloat16()
    output, _ = mrpc
    finetune(tmp_path, '--bert_model', tiny_bert, '--dtype', 'bfloat16', *SMALL)
    losses = [
        np.array([line['loss'] for line in lines_of(folder) if 'loss' in line])
        for folder in (output, tmp_path)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert np.abs(losses[1] - losses[0]).max() > 0
    parameters = mx.nd.load(str(tmp_path / 'model_bert_MRPC_0.params'))
    assert {array.dtype for array in parameters.values()} == {np.float32}


def test_the_size_of_dev_batches_does_not_matter(mrpc, glue_dir, tmp_path):
    output, _ = mrpc
    for size in (1, 64):
        finetune(
            *(tmp_path, '--only_inference', '--bert_model', output),
            *('--dev_batch_size', size, '--max_len', '128'),
        )
        assert (tmp_path / 'MRPC.tsv').read_bytes() == (output / 'MRPC.tsv').read_bytes()


# --- other tasks


def test_regression(glue_dir, tiny_bert, tmp_path):
    result = finetune(tmp_path, '--bert_model', tiny_bert, '--task_name', 'STS-B', *SMALL)
    assert set(result['epochs'][0]['dev']) == {'pearsonr', 'spearmanr'}
    found = predictions(tmp_path / 'STS-B.tsv')
    assert all(re.fullmatch(r'-?\d+\.\d{3}', number) for number in found)
    assert len(set(found)) > 1
    assert json.loads((tmp_path / 'finetune.json').read_text())['labels'] is None
    assert 'metrics=pearsonr:' in (tmp_path / 'finetune.log').read_text()
    again = finetune(tmp_path / 'new', '--only_inference', '--bert_model', tmp_path)
    assert again == {'epochs': [], 'best_epoch': None, 'test': ['STS-B.tsv']}
    assert predictions(tmp_path / 'new' / 'STS-B.tsv') == found


@pytest.fixture
def sst(tmp_path, monkeypatch):
    write_task(tmp_path / 'glue', 'SST-2')
    monkeypatch.setenv('GLUE_DIR', str(tmp_path / 'glue'))


def parameter_files(folder):
    return sorted(path.name for path in folder.glob('*.params'))


@pytest.mark.parametrize(('name', 'other'), [('SST', 'SST-2'), ('SST-2', 'SST')])
def test_parameters_have_the_name_that_the_task_was_given(
    sst, tiny_bert, tmp_path, monkeypatch, name, other
):
    """A run that goes on under the other name keeps the names of its files."""
    flags = ['--bert_model', tiny_bert, *SMALL]
    output, whole = tmp_path / 'out', tmp_path / 'whole'
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 8)  # in the second epoch
        finetune(output, *flags, '--task_name', name)
    assert parameter_files(output) == [f'model_bert_{name}_0.params']
    result = finetune(output, *flags, '--task_name', other, '--resume')
    names = [f'model_bert_{name}_{epoch}.params' for epoch in range(3)]
    assert parameter_files(output) == names
    description = json.loads((output / 'finetune.json').read_text())
    assert description['parameters'] == names[result['best_epoch'] - 1]
    assert description['flags']['task_name'] == 'SST-2'
    finetune(whole, *flags, '--task_name', name)
    assert [(whole / file).read_bytes() for file in names] == [
        (output / file).read_bytes() for file in names
    ]
    again = finetune(tmp_path / 'again', '--only_inference', '--bert_model', output)
    assert again['test'] == result['test'] == ['SST-2.tsv']
    assert (tmp_path / 'again/SST-2.tsv').read_bytes() == (output / 'SST-2.tsv').read_bytes()
    # A new run under the other name leaves no parameters of this one beside its own.
    finetune(output, *flags, '--task_name', other, '--epochs', '1')
    assert parameter_files(output) == [f'model_bert_{other}_0.params']
    assert parameter_files(output / 'earlier') == names[1:]


@pytest.mark.parametrize('kept', [None, '../SST', 7])
def test_a_training_state_names_no_other_files(sst, tiny_bert, tmp_path, monkeypatch, kept):
    """An older state names none: its files have GLUE's own name."""
    flags = ['--bert_model', tiny_bert, *SMALL]
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 8)
        finetune(tmp_path / 'out', *flags, '--task_name', 'SST-2')
    newest = states.newest

    def changed(folder):
        step, saved = newest(folder)
        saved.pop('task_name')
        return step, saved if kept is None else {**saved, 'task_name': kept}

    monkeypatch.setattr(states, 'newest', changed)
    finetune(tmp_path / 'out', *flags, '--task_name', 'SST', '--resume')
    assert parameter_files(tmp_path / 'out') == [f'model_bert_SST-2_{i}.params' for i in range(3)]


def test_mnli_and_the_diagnostic_set(glue_dir, tiny_bert, tmp_path):
    result = finetune(
        tmp_path, '--bert_model', tiny_bert, '--task_name', 'MNLI', *SMALL, '--epochs', '1'
    )
    assert result['test'] == ['MNLI-m.tsv', 'MNLI-mm.tsv', 'AX.tsv']
    for name, count in [('MNLI-m', 5), ('MNLI-mm', 6), ('AX', 7)]:
        found = predictions(tmp_path / f'{name}.tsv')
        assert len(found) == count
        assert set(found) <= {'neutral', 'entailment', 'contradiction'}
    log = (tmp_path / 'finetune.log').read_text()
    (epoch,) = result['epochs']
    assert set(epoch) == {'matched', 'mismatched', 'seconds'}
    # As the original logged them, with a space at the end of a line.
    expected = ''.join(
        f'INFO:root:On MNLI {name.capitalize()}: \n'
        f'INFO:root:validation metrics:accuracy:{epoch[name]["accuracy"]:.4f}\n'
        for name in ('matched', 'mismatched')
    )
    assert f'{expected}INFO:root:Time cost=' in log
    assert [set(entry) for entry in logs.parse_log(log).validation] == [
        {'epoch', 'matched', 'mismatched', 'seconds'}
    ]
    # The sets have 9 and 10 rows.
    assert epoch['matched']['accuracy'] * 9 == pytest.approx(
        round(epoch['matched']['accuracy'] * 9)
    )


def test_test_sets_that_are_not_there(tiny_bert, tmp_path, monkeypatch):
    write_task(tmp_path / 'glue', 'MNLI')
    monkeypatch.setenv('GLUE_DIR', str(tmp_path / 'glue'))
    shutil.rmtree(tmp_path / 'glue' / 'diagnostic')
    (tmp_path / 'glue' / 'MNLI' / 'test_matched.tsv').unlink()
    flags = ['--task_name', 'MNLI', '--training_steps', '1', *SMALL]
    result = finetune(tmp_path / 'out', '--bert_model', tiny_bert, *flags)
    assert result['test'] == ['MNLI-mm.tsv']


def test_one_text_a_row_and_no_header(glue_dir, tiny_bert, tmp_path):
    flags = ['--task_name', 'CoLA', '--training_steps', '2', *SMALL]
    result = finetune(tmp_path, '--bert_model', tiny_bert, *flags)
    assert 'INFO:root:training on 22 rows, ' in (tmp_path / 'finetune.log').read_text()
    assert set(result['epochs'][0]['dev']) == {'mcc'}
    found = predictions(tmp_path / 'CoLA.tsv')
    assert len(found) == 5 and set(found) <= {'0', '1'}


@pytest.mark.parametrize('name', ['LCQMC', 'ChnSentiCorp', 'XNLI', 'SNLI'])
def test_tasks_beyond_glue(tiny_bert, tmp_path, monkeypatch, name):
    write_task(tmp_path, name)
    monkeypatch.setenv('GLUE_DIR', str(tmp_path))
    output = tmp_path / 'out'
    flags = ['--task_name', name, '--training_steps', '2', *SMALL]
    result = finetune(output, '--bert_model', tiny_bert, *flags)
    assert set(result['epochs'][0]['dev']) == {'accuracy'}
    assert result['test'] == [f'{name}.tsv']
    found = predictions(output / f'{name}.tsv')
    assert len(found) == 5 and set(found) <= set(ALL_TASKS[name].labels)
    assert read_outputs(output)['dev'].shape == (9, len(ALL_TASKS[name].labels))
    again = finetune(tmp_path / 'new', '--only_inference', '--bert_model', output)
    assert again['test'] == [f'{name}.tsv']
    assert predictions(tmp_path / 'new' / f'{name}.tsv') == found


def write_xnli(folder, languages, train_language):
    """Write XNLI in the layout of its archives, with 4 dev rows and 3 test rows a language."""
    header = 'language\tgold_label\tsentence1\tsentence2\n'
    labels = ALL_TASKS['XNLI'].labels
    for name, count in [('dev', 4), ('test', 3)]:
        path = folder / 'XNLI-1.0' / f'xnli.{name}.tsv'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            header
            + ''.join(
                f'{language}\t{labels[label]}\t{first}\t{second}\n'
                for number, language in enumerate(languages)
                for first, second, label in sentences(count, number, 3)
            )
        )
    path = folder / 'XNLI-MT-1.0' / 'multinli' / f'multinli.train.{train_language}.tsv'
    path.parent.mkdir(parents=True)
    names = ['neutral', 'entailment', 'contradictory']
    rows = ''.join(f'{a}\t{b}\t{names[label]}\n' for a, b, label in sentences(22, 9, 3))
    path.write_text(f'premise\thypo\tlabel\n{rows}')


def test_xnli_translated_and_zero_shot(tiny_bert, tmp_path, monkeypatch):
    """A model trained on German answers German, and English without training data."""
    write_xnli(tmp_path, ['en', 'de'], 'de')
    monkeypatch.setenv('GLUE_DIR', str(tmp_path))
    output = tmp_path / 'out'
    flags = ['--task_name', 'XNLI-de', '--training_steps', '2', *SMALL]
    result = finetune(output, '--bert_model', tiny_bert, *flags)
    assert result['test'] == ['XNLI-de.tsv']
    assert read_outputs(output)['dev'].shape == (4, 3)
    zero_shot = ['--only_inference', '--bert_model', output, '--task_name', 'XNLI-en']
    assert finetune(tmp_path / 'new', *zero_shot)['test'] == ['XNLI-en.tsv']
    assert len(predictions(tmp_path / 'new' / 'XNLI-en.tsv')) == 3
    log = (tmp_path / 'new' / 'inference.log').read_text()
    assert re.search(r'validation metrics:accuracy:\d\.\d{4}\n', log)
    # The same sentences with the same labels would be the same rows; these are not.
    german, english = (read_outputs(folder)['dev'] for folder in (output, tmp_path / 'new'))
    assert german.shape == english.shape and (german != english).any()


def test_a_qqp_folder_of_2018(tiny_bert, tmp_path, monkeypatch):
    """Its broken rows are left out, and the log says so."""
    write_task(tmp_path, 'QQP')
    with open(tmp_path / 'QQP' / 'train.tsv', 'a') as train:
        train.write('1\t2\t3\tWas he real?\n\tWhat is the evidence?\t0\n')
    monkeypatch.setenv('GLUE_DIR', str(tmp_path))
    flags = ['--task_name', 'QQP', '--training_steps', '1', *SMALL]
    finetune(tmp_path / 'out', '--bert_model', tiny_bert, *flags)
    log = (tmp_path / 'out' / 'finetune.log').read_text()
    assert f'WARNING:root:{tmp_path}/QQP/train.tsv: 2 broken rows are left out\n' in log
    assert 'INFO:root:training on 22 rows, ' in log


# --- own data


def write_own(path, rows, labels=('no', 'yes'), with_label=True):
    names = ['id', 'first', 'second'] + ['answer'] * with_label
    table = [
        [str(i), a, b, *([labels[c]] if with_label else [])] for i, (a, b, c) in enumerate(rows)
    ]
    with open(path, 'w', encoding='utf8', newline='') as file:
        if path.suffix == '.jsonl':
            file.writelines(json.dumps(dict(zip(names, row))) + '\n' for row in table)
        elif path.suffix == '.csv':
            csv.writer(file).writerows([names, *table])
        else:
            file.writelines('\t'.join(row) + '\n' for row in [names, *table])
    return path


OWN = ['--text_columns', 'first', 'second', '--label_column', 'answer']


@pytest.mark.parametrize('extension', ['tsv', 'csv', 'jsonl'])
def test_own_data_equals_the_task(mrpc, tiny_bert, tmp_path, extension):
    """MRPC's rows, in each format, give MRPC's numbers."""
    output, result = mrpc
    files = [
        write_own(tmp_path / f'{name}.{extension}', sentences(count, seed), with_label=label)
        for name, count, seed, label in [
            ('train', 22, 1, True),
            ('dev', 9, 2, True),
            ('new', 5, 5, False),
        ]
    ]
    own = finetune(
        *(tmp_path / 'out', '--bert_model', tiny_bert, *SMALL, *OWN),
        *('--train_file', files[0], '--dev_file', files[1], '--test_file', files[2]),
        *('--metric', 'accuracy', 'f1'),
    )
    assert without_seconds(own['epochs']) == without_seconds(result['epochs'])
    for epoch in range(3):
        mine, theirs = (
            arrays(folder / f'model_bert_{name}_{epoch}.params')
            for folder, name in [(tmp_path / 'out', 'own'), (output, 'MRPC')]
        )
        for name in theirs:
            np.testing.assert_array_equal(mine[name], theirs[name])
    assert own['test'] == [f'new_predictions.{extension}']
    mine, theirs = read_outputs(tmp_path / 'out'), read_outputs(output)
    np.testing.assert_array_equal(mine['dev'], theirs['dev'])
    np.testing.assert_array_equal(mine['test'], theirs['MRPC'])
    rows = read_rows(tmp_path / 'out' / own['test'][0])
    names = {'0': 'no', '1': 'yes'}
    expected = [names[label] for label in predictions(output / 'MRPC.tsv')]
    assert [row.cells['prediction'] for row in rows] == expected
    assert [row.cells['first'] for row in rows] == [a for a, _, _ in sentences(5, 5)]


def test_the_bundled_sample_as_own_data_equals_the_task(tiny_bert, tmp_path, monkeypatch):
    """The data are MRPC's own files, by the names of their columns."""
    monkeypatch.setenv('GLUE_DIR', str(ROOT / 'sample_glue'))
    short = ['--bert_model', tiny_bert, '--training_steps', '4', '--max_len', '24']
    task = finetune(tmp_path / 'task', *short)
    folder = ROOT / 'sample_glue' / 'MRPC'
    own = finetune(
        *(tmp_path / 'own', *short, '--train_file', folder / 'train.tsv'),
        *('--dev_file', folder / 'dev.tsv', '--test_file', folder / 'test.tsv'),
        *('--text_columns', '#1 String', '#2 String', '--label_column', 'Quality'),
        *('--metric', 'accuracy', 'f1'),
    )
    assert without_seconds(own['epochs']) == without_seconds(task['epochs'])
    rows = tasks_files.read_rows(tmp_path / 'own' / 'test_predictions.tsv')
    expected = predictions(tmp_path / 'task' / 'MRPC.tsv')
    assert [row.cells['prediction'] for row in rows] == expected


def test_three_classes_are_learned_and_predicted_in_a_fresh_process(
    tiny_bert_without_dropout, tmp_path
):
    labels = ('other', 'a, "quoted" one', 'ünïcode')
    train = write_own(tmp_path / 'train.csv', sentences(120, 1, 3), labels)
    dev = write_own(tmp_path / 'dev.csv', sentences(30, 2, 3), labels)
    output = tmp_path / 'out'
    result = finetune(
        *(
            output,
            '--bert_model',
            tiny_bert_without_dropout,
            '--train_file',
            train,
            '--dev_file',
            dev,
        ),
        *('--text_columns', 'first', '--label_column', 'answer', '--metric', 'f1_macro'),
        *('--lr', '2e-3', '--batch_size', '8', '--epochs', '4'),
    )
    assert max(epoch['dev']['f1_macro'] for epoch in result['epochs']) > 0.8
    assert result['test'] == []
    assert json.loads((output / 'finetune.json').read_text())['labels'] == sorted(labels)
    rows = sentences(12, 9, 3)
    new = write_own(tmp_path / 'new.csv', rows, with_label=False)
    ran = script(
        *('--only_inference', '--bert_model', output, '--test_file', new),
        *('--output_dir', tmp_path / 'answers'),
        GLUE_DIR=None,
    )
    assert ran.returncode == 0, ran.stderr
    with open(tmp_path / 'answers' / 'new_predictions.csv', encoding='utf8', newline='') as file:
        answers = [row['prediction'] for row in csv.DictReader(file)]
    expected = [labels[label] for _, _, label in rows]
    assert sum(a == b for a, b in zip(answers, expected)) >= 10
    # With labels too: the metric that the model remembers.
    finetune(tmp_path / 'dev_only', '--only_inference', '--bert_model', output, '--dev_file', dev)
    best = result['epochs'][result['best_epoch'] - 1]['dev']
    log = (tmp_path / 'dev_only' / 'inference.log').read_text()
    assert f'validation metrics:{tasks_metrics.describe(best)}\n' in log


def test_own_regression_without_a_dev_file(tiny_bert, tmp_path):
    """The last epoch is the one to keep; the scores come back as numbers."""
    train = write_own(tmp_path / 'train.jsonl', sentences(12, 1), labels=('0.5', '2'))
    output = tmp_path / 'out'
    result = finetune(
        *(output, '--bert_model', tiny_bert, '--train_file', train, '--test_file', train),
        *(*OWN, '--regression', *SMALL, '--epochs', '2'),
    )
    assert result['best_epoch'] == 2
    assert 'validation' not in (output / 'finetune.log').read_text()
    rows = tasks_files.read_rows(output / 'train_predictions.jsonl')
    assert all(np.isfinite(float(row.cells['prediction'])) for row in rows)
    finetune(tmp_path / 'new', '--only_inference', '--bert_model', output, '--test_file', train)
    again = tasks_files.read_rows(tmp_path / 'new' / 'train_predictions.jsonl')
    assert [row.cells for row in again] == [row.cells for row in rows]


# --- casing


@pytest.mark.parametrize(
    ('flags', 'line', 'lower'),
    [
        (['--cased'], 'the text is kept as it is, by its flag', False),
        (['--do_lower_case'], 'the text is lower-cased, by its flag', True),
    ],
)
def test_casing_flags(glue_dir, tiny_bert, tmp_path, flags, line, lower):
    short = ['--bert_model', tiny_bert, '--training_steps', '1', *SMALL]
    finetune(tmp_path, *short, *flags)
    assert f'INFO:root:{line}\n' in (tmp_path / 'finetune.log').read_text()
    # The model directory remembers it for inference.
    assert json.loads((tmp_path / 'tokenizer_config.json').read_text()) == {'do_lower_case': lower}
    finetune(tmp_path / 'new', '--only_inference', '--bert_model', tmp_path)
    log = (tmp_path / 'new' / 'inference.log').read_text()
    assert f'the text is {"lower-cased" if lower else "kept as it is"}, by {tmp_path}' in log


# --- flags


def test_the_original_commands():
    """They are as printed, with the defaults of that time; --gpu is checked later."""
    command = '--task_name RTE --batch_size 32 --optimizer bertadam --epochs 3 --gpu --lr 2e-5'
    args = parse_args(command.split())
    assert (args.task_name, args.batch_size, args.epochs, args.lr) == ('RTE', 32, 3, 2e-5)
    assert args.gpu and args.optimizer == 'bertadam'
    command = '--batch_size 32 --optimizer bertadam --epochs 2 --gpu --seed 2 --lr 6e-5'
    args = finetuning_flags.parse_args(command.split())
    assert args.task_name == 'MRPC'
    args = finetuning_flags.parse_args([])
    for name, value in {
        'task_name': 'MRPC',
        'epochs': 3,
        'batch_size': 32,
        'dev_batch_size': 8,
        'optimizer': 'bertadam',
        'lr': 5e-5,
        'epsilon': 1e-6,
        'warmup_ratio': 0.1,
        'log_interval': 10,
        'max_len': 128,
        'seed': 2,
        'accumulate': 1,
        'gpu': False,
        'bert_model': 'bert_12_768_12',
        'bert_dataset': 'book_corpus_wiki_en_uncased',
        'pretrained_bert_parameters': None,
        'model_parameters': None,
        'output_dir': './output_dir',
    }.items():
        assert getattr(args, name) == value
    assert finetuning_flags.parse_args(['--task_name', 'SST']).task_name == 'SST'


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        (['--task_name', 'RTE', '--train_file', 'a.tsv'], '--task_name and --train_file exclude'),
        (['--text_columns', 'a'], '--text_columns goes with own data, such as --train_file'),
        (['--regression'], '--regression goes with own data'),
        (['--metric', 'f1'], '--metric goes with own data'),
        (['--label_column', 'a'], '--label_column goes with own data'),
        (['--train_file', 'a.tsv'], 'own data needs --text_columns with one or two names'),
        (
            ['--train_file', 'a.tsv', '--text_columns', 'a', 'b', 'c', '--label_column', 'd'],
            'own data needs --text_columns with one or two names',
        ),
        (
            ['--train_file', 'a.tsv', '--text_columns', 'a'],
            '--train_file and --dev_file need --label_column',
        ),
        (
            ['--test_file', 'a.tsv', '--text_columns', 'a'],
            'own data needs a --train_file, or --only_inference',
        ),
        (
            ['--only_inference', '--test_file', 'a.tsv', '--text_columns', 'a'],
            '--only_inference on own data goes with --dev_file and --test_file, and needs a '
            '--bert_model that this script made',
        ),
        (
            ['--pretrained_bert_parameters', 'a', '--model_parameters', 'b'],
            '--pretrained_bert_parameters and --model_parameters exclude each other',
        ),
        (['--only_inference'], '--only_inference needs --model_parameters, or a --bert_model'),
        (
            ['--resume', '--only_inference', '--model_parameters', 'm'],
            '--resume goes with training, not with',
        ),
        (
            ['--tensorboard', '--only_inference', '--model_parameters', 'm'],
            '--tensorboard goes with training, not with',
        ),
        (
            ['--resume', '--optimizer', 'adam'],
            "--resume goes with --optimizer bertadam or lamb: the state of MXNet's adam is not "
            'saved',
        ),
        (['--max_len', '4'], '--max_len 4 leaves no room for text: at least 5'),
        (['--bert_model', 'bert_4_256_4'], '--bert_model bert_4_256_4 names sizes only: a --vocab'),
        (
            ['--bert_model', 'folder', '--vocab_file', 'v'],
            '--vocab_file is for training from scratch, for which --bert_model names the sizes: ',
        ),
        (
            ['--vocab_file', 'v', '--pretrained_bert_parameters', 'folder'],
            '--vocab_file is for training from scratch, without --pretrained_bert_parameters',
        ),
        (
            ['--bert_model', 'c.json', '--pretrained_bert_parameters', 'folder'],
            '--bert_model c.json is for training from scratch, without --pretrained_bert_',
        ),
        (
            ['--only_inference', '--bert_model', 'c.json', '--test_file', 't.csv'],
            '--bert_model c.json is for training from scratch, without --only_inference',
        ),
        (
            ['--dtype', 'float16'],
            '--dtype float16 needs --gpu or --gpus: MXNet has no float16 on CPUs',
        ),
    ],
)
def test_flags_that_contradict_each_other(flags, sentence):
    with pytest.raises(UsageError) as caught:
        finetuning_flags.parse_args(flags)
    assert str(caught.value).startswith(sentence)
    assert caught.value.status == 2


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        (['--gpu', '--gpus', '0,1'], 'argument --gpus: not allowed with argument --gpu'),
        (['--cased', '--do_lower_case'], 'not allowed with argument'),
        (['--task_name', 'SQuAD'], "argument --task_name: invalid choice: 'SQuAD'"),
        (['--lr', '0'], "argument --lr: '0' is not a number above 0"),
        (['--warmup_ratio', '1'], "argument --warmup_ratio: '1' is not a number of at least 0"),
        (['--accumulate', '0'], "argument --accumulate: '0' is not a whole number"),
        (['--metric', 'rouge'], "argument --metric: invalid choice: 'rouge'"),
        (['--no_such_flag'], 'unrecognized arguments: --no_such_flag'),
    ],
)
def test_flags_that_the_parser_refuses(flags, sentence, capsys):
    with pytest.raises(SystemExit) as left:
        finetuning_flags.parse_args(flags)
    assert left.value.code == 2
    assert sentence in capsys.readouterr().err


def test_flags_that_the_model_refuses(mrpc, glue_dir, tiny_bert, tmp_path):
    output, _ = mrpc
    for flags, sentence in [
        (['--max_len', '129'], '--max_len 129 is more than the 128 positions of this model'),
        (['--optimizer', 'adamm'], '--optimizer adamm is not one of '),
        (
            ['--optimizer', 'adam', '--bias_correction'],
            '--bias_correction goes with --optimizer bertadam only',
        ),
    ]:
        with pytest.raises(UsageError) as caught:
            finetune(tmp_path, '--bert_model', tiny_bert, *flags)
        assert str(caught.value).startswith(sentence)
    with pytest.raises(ToolkitError) as caught:
        finetune(tmp_path, '--only_inference', '--bert_model', output, '--task_name', 'MNLI')
    assert 'classifier.1.weight has the shape (2, 16), but this model needs (3, 16)' in str(
        caught.value
    )


def test_inference_with_an_own_model_needs_a_file(tiny_bert, tmp_path):
    train = write_own(tmp_path / 'train.csv', sentences(12, 1))
    output = tmp_path / 'out'
    short = ['--training_steps', '1', *SMALL]
    finetune(output, '--bert_model', tiny_bert, '--train_file', train, *OWN, *short)
    with pytest.raises(UsageError) as caught:
        finetune(tmp_path / 'new', '--only_inference', '--bert_model', output)
    assert str(caught.value) == (
        f'--only_inference with {output}, which was trained on own data, needs a --dev_file or a '
        '--test_file'
    )


# --- errors, in a separate process where the exit matters


def assert_refused(ran, status, sentence):
    """Assert that there is one sentence after the log, and no traceback."""
    assert ran.returncode == status, ran.stderr
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(f'finetune_classifier.py: error: {sentence}'), ran.stderr
    assert 'Traceback' not in ran.stderr


@pytest.mark.parametrize('value', [None, '/no/such/folder'])
def test_glue_dir_is_unset_or_wrong(tiny_bert, tmp_path, monkeypatch, capsys, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('GLUE_DIR', raising=False)
    if value:
        monkeypatch.setenv('GLUE_DIR', value)
    flags = ['--bert_model', tiny_bert, '--output_dir', tmp_path / 'out']
    ran = script_here(capsys, *flags)
    sentence = {
        None: 'the environment variable GLUE_DIR is not set: ',
        '/no/such/folder': 'GLUE_DIR=/no/such/folder is not a folder: download_glue_data.py ',
    }[value]
    assert_refused(ran, 2, sentence)
    assert not (tmp_path / 'out').exists()


def test_gpu_without_one(glue_dir, tmp_path):
    if machine.gpu_problem([0]) is None:
        pytest.skip('there is a GPU')
    with pytest.raises(ToolkitError) as caught:
        finetune(tmp_path / 'out', '--gpu')
    assert str(caught.value).startswith('cannot train on a GPU: ')
    assert caught.value.status == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('interval', [1, 100])
def test_a_loss_that_runs_away(glue_dir, tiny_bert, tmp_path, interval):
    flags = ['--lr', '1e30', '--warmup_ratio', '0', '--batch_size', '4', '--optimizer', 'sgd']
    with pytest.raises(ToolkitError) as caught:
        finetune(tmp_path, '--bert_model', tiny_bert, *flags, '--log_interval', interval)
    assert re.fullmatch(
        r'the loss is (nan|inf) at epoch 1, batch \d: try a lower --lr or a longer '
        r'--warmup_ratio; no epoch was finished',
        str(caught.value),
    )
    assert not list(tmp_path.glob('*.params'))


def test_bad_data_leaves_an_earlier_run_as_it_is(mrpc, tiny_bert, tmp_path, monkeypatch):
    output = tmp_path / 'out'
    shutil.copytree(mrpc[0], output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    write_task(tmp_path / 'glue', 'MRPC')
    monkeypatch.setenv('GLUE_DIR', str(tmp_path / 'glue'))
    dev = tmp_path / 'glue' / 'MRPC' / 'dev.tsv'
    dev.write_text(dev.read_text() + '1\tshort\n')
    with pytest.raises(ToolkitError) as caught:
        finetune(output, '--bert_model', tiny_bert)
    assert str(caught.value) == f'{dev}:11: 2 columns, but column 4 is needed'
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_full_disk(glue, tiny_bert, tmp_path):
    """Files may have up to 16 kB: the parameters do not fit, the log does."""
    code = (
        'import resource, sys\n'
        f'sys.path.insert(0, {str(ROOT)!r})\n'
        'import finetune_classifier\n'
        'from bert.cli.program import run\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))\n'
        "sys.argv[0] = 'finetune_classifier.py'\n"
        'run(finetune_classifier.main)\n'
    )
    output = tmp_path / 'out'
    flags = ['--bert_model', tiny_bert, '--output_dir', output, *SMALL, '--epochs', '1']
    ran = script(*flags, code=code, GLUE_DIR=str(glue))
    assert_refused(ran, 1, f'{output}/model_bert_MRPC_0.params: could not be written')
    assert sorted(os.listdir(output)) == [
        'config.json',
        'finetune.log',
        'metrics.jsonl',
        'tokenizer_config.json',
        'vocab.txt',
    ]


def test_an_output_directory_that_cannot_be_written(glue_dir, tiny_bert, tmp_path):
    if os.geteuid() == 0:
        pytest.skip('root may write everywhere')
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        finetune(tmp_path / 'out', '--bert_model', tiny_bert, *SMALL)


def test_an_output_directory_that_is_a_file(glue_dir, tiny_bert, tmp_path, capsys):
    (tmp_path / 'out').write_text('')
    flags = ['--bert_model', tiny_bert, '--output_dir', tmp_path / 'out', *SMALL]
    assert_refused(script_here(capsys, *flags), 1, f'{tmp_path}/out: File exists')


# --- on a GPU, if there is one


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_on_a_gpu(has_gpu, mrpc, glue_dir, tiny_bert, tmp_path, dtype):
    _, expected = mrpc
    flags = ['--bert_model', tiny_bert, '--gpu', '--dtype', dtype, *SMALL]
    result = finetune(tmp_path, *flags)
    assert len(result['epochs']) == 3
    losses = [line['loss'] for line in lines_of(tmp_path) if 'loss' in line]
    assert np.isfinite(losses).all()
    assert len(predictions(tmp_path / 'MRPC.tsv')) == 5
    # A model trained there predicts here.
    finetune(tmp_path / 'cpu', '--only_inference', '--bert_model', tmp_path)
    assert len(predictions(tmp_path / 'cpu' / 'MRPC.tsv')) == 5


# --- one way to a model


def test_a_source_is_resolved_and_its_weights_are_read_once(mrpc, glue_dir, tmp_path, monkeypatch):
    output, _ = mrpc
    calls = []

    def count(module, name):
        function = getattr(module, name)

        def counted(*args, **kwargs):
            calls.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    count(base, 'locate')
    count(reading, 'read_weights')
    count(reading, 'read_finetuned')
    finetune(tmp_path, '--only_inference', '--bert_model', output)
    assert calls == ['locate', 'read_finetuned', 'read_weights']


# --- resuming


def without_times(output):
    """Return the lines of both logs, without the flags and whatever differs from run to run."""
    log = (output / 'finetune.log').read_text().replace(str(output), 'OUT')
    shown = re.findall(r'(?:\[Epoch|validation|Best epoch|no better|wrote).*', log)
    clock = ('seconds', 'samples_per_second')
    lines = [{k: v for k, v in line.items() if k not in clock} for line in lines_of(output)]
    return shown, lines


DATE = r'\d{4}-\d\d-\d\d \d\d:\d\d UTC'


def assert_same_bits(one, other):
    """Compare every file that a run leaves, except for dates and seconds."""
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if name.endswith(('.params', '.tsv', '.npz', '.md')):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert without_times(one) == without_times(other)
    pages = [(folder / 'report.html').read_text() for folder in (one, other)]
    assert len(set(re.sub('<time>.*?</time>', '', page) for page in pages)) == 1
    epochs = [json.loads((folder / 'finetune.json').read_text()) for folder in (one, other)]
    assert all(re.fullmatch(DATE, description.pop('finished')) for description in epochs)
    assert without_seconds(epochs[0].pop('epochs')) == without_seconds(epochs[1].pop('epochs'))
    assert epochs[0] == epochs[1]


@pytest.mark.parametrize(
    ('task', 'steps', 'extra'),
    [
        # In the middle of an epoch, beside a log line; then at its end.
        ('MRPC', (8, 12), ['--log_interval', '3', '--early_stop', '1', '--optimizer', 'LAMB']),
        ('STS-B', (3, 7), ['--accumulate', '2', '--training_steps', '8', '--bias_correction']),
    ],
)
def test_a_stopped_run_goes_on(glue_dir, tiny_bert, tmp_path, monkeypatch, task, steps, extra):
    """Stopped twice, by either signal, and resumed, it has all bits of one run, with dropout."""
    flags = ['--bert_model', tiny_bert, '--task_name', task, *SMALL, *extra]
    whole = finetune(tmp_path / 'whole', *flags)
    for step, number in zip(steps, (signal.SIGTERM, signal.SIGINT)):
        with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
            stop_at(patch, step, number=number)
            finetune(tmp_path / 'parts', *flags, '--resume')
        assert str(stopped.value) == (
            f'stopped by {number.name}: step {step} is saved, and --resume continues from there'
        )
        assert stopped.value.status == 128 + number
        pair = [f'{step:07d}.params', f'{step:07d}.states']
        assert sorted(os.listdir(tmp_path / 'parts' / 'resume'))[-2:] == pair
        saved = states.read_progress(tmp_path / 'parts' / 'resume', step)
        names = ('finetune.log', 'metrics.jsonl')
        assert saved['logs'] == {n: (tmp_path / 'parts' / n).stat().st_size for n in names}
    parts = finetune(tmp_path / 'parts', *flags, '--resume')
    assert without_seconds(parts['epochs']) == without_seconds(whole['epochs'])
    assert_same_bits(tmp_path / 'whole', tmp_path / 'parts')


def test_a_stop_in_the_evaluation(glue_dir, tiny_bert, tmp_path, monkeypatch):
    flags = ['--bert_model', tiny_bert, *SMALL, '--epochs', '2']
    finetune(tmp_path / 'whole', *flags)
    predict_all = evaluation.predict_all

    def stop(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return predict_all(*args)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match='step 6 is saved'):
        patch.setattr(evaluation, 'predict_all', stop)
        finetune(tmp_path / 'parts', *flags)
    assert not list((tmp_path / 'parts').glob('model_bert*'))
    finetune(tmp_path / 'parts', *flags, '--resume')
    assert_same_bits(tmp_path / 'whole', tmp_path / 'parts')


def fail_at(patch, step):
    """Make a run end at a step without a chance to save, which is as good as a kill."""
    rate = schedule.learning_rate

    def fail(current, *args):
        if current == step:
            raise OSError('killed')
        return rate(current, *args)

    patch.setattr(schedule, 'learning_rate', fail)


def test_a_new_run_that_dies_at_once_leaves_the_earlier_one(
    glue_dir, tiny_bert, tmp_path, monkeypatch
):
    """Until the new run has saved something, --resume goes on with the earlier one and its logs."""
    flags = ['--bert_model', tiny_bert, *SMALL]
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    finetune(whole, *flags)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 8)
        finetune(parts, *flags)
    for step in (3, 2):
        with monkeypatch.context() as patch, pytest.raises(OSError):
            fail_at(patch, step)
            finetune(parts, *flags, '--lr', '1e-4')
    finetune(parts, *flags, '--resume')
    assert_same_bits(whole, parts)


@pytest.mark.parametrize('task', ['MRPC', 'MNLI'])
def test_tensorboard(glue_dir, tiny_bert, tmp_path, monkeypatch, task):
    """Its points are those of metrics.jsonl, once each, though the run was stopped twice."""
    pytest.importorskip('tensorboardX')
    flags = ['--bert_model', tiny_bert, '--task_name', task, *SMALL, '--epochs', '2']
    for step in (5, 9):
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            stop_at(patch, step)
            finetune(tmp_path, *flags, '--resume', *(['--tensorboard'] if step == 9 else []))
    finetune(tmp_path, *flags, '--resume', '--tensorboard')
    expected = []
    for line in lines_of(tmp_path):
        step = line['step']
        expected += [
            (f'train/{name}', step, value)
            for name, value in {**line, 'learning_rate': line.get('lr')}.items()
            if name in ('loss', 'accuracy', 'f1', 'learning_rate', 'samples_per_second') and value
        ]
        for name in ('dev', 'matched', 'mismatched'):
            place = 'eval' if name == 'dev' else f'eval/{name}'
            values = line.get(name, {})
            expected += [(f'{place}/{metric}', step, value) for metric, value in values.items()]
    points = read_events(tmp_path / 'tensorboard')
    assert {tag for tag, *_ in points} >= {'train/loss', 'train/learning_rate'}
    nonzero = sorted(point for point in points if point[2])
    assert nonzero == approximately(sorted(point for point in expected if point[2]))
    sets = ['eval'] if task == 'MRPC' else ['eval/matched', 'eval/mismatched']
    for name in sets:
        steps = [step for tag, step, _ in points if tag == f'{name}/accuracy']
        assert steps == sorted({line['step'] for line in lines_of(tmp_path) if 'loss' not in line})


def test_a_killed_run_goes_on_after_its_last_epoch(
    glue_dir, tiny_bert, tmp_path, monkeypatch, capsys
):
    flags = ['--bert_model', tiny_bert, *SMALL]
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    finetune(whole, *flags, '--resume')
    assert f'--resume: no epoch is complete in {whole}, the run starts over' in (
        capsys.readouterr().err
    )
    with monkeypatch.context() as patch, pytest.raises(OSError):
        fail_at(patch, 17)
        finetune(parts, *flags)
    assert sorted(os.listdir(parts / 'resume')) == [
        f'00000{step}.{kind}' for step in ('06', '12') for kind in ('params', 'states')
    ]
    assert len(lines_of(parts)) == 10  # two of the third epoch
    capsys.readouterr()
    result = finetune(parts, *flags, '--resume')
    assert 'epoch 2 of an earlier run is complete; --resume continues from there\n' in (
        capsys.readouterr().err
    )
    assert_same_bits(whole, parts)
    # Once more: nothing is left to do, and no file is touched.
    before = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert finetune(parts, *flags, '--resume') == result
    assert f'the run in {parts} is finished: nothing is left to do' in capsys.readouterr().err
    assert before == {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}


def test_a_new_run_in_a_used_folder(glue_dir, tiny_bert, tmp_path, monkeypatch, capsys):
    """It says what --resume could use, and keeps that until it has saved something itself."""
    flags = ['--bert_model', tiny_bert, *SMALL]
    with monkeypatch.context() as patch, pytest.raises(OSError):
        fail_at(patch, 17)
        finetune(tmp_path, *flags)
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(OSError):
            fail_at(patch, 3)
            capsys.readouterr()
            finetune(tmp_path, *flags, '--seed', '3')
        assert (
            'epoch 2 of an earlier run is complete; --resume continues from there, but without it '
            'this run starts over\n' in capsys.readouterr().err
        )
    first, second = ((tmp_path / f'model_bert_MRPC_{epoch}.params') for epoch in range(2))
    before = first.read_bytes(), second.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(Stopped, match='step 3 is saved'):
        stop_at(patch, 3)
        finetune(tmp_path, *flags, '--seed', '3')
    # No parameters of the earlier run stay beside it.
    assert not [*tmp_path.glob('model_bert*'), *tmp_path.glob('finetune.json')]
    assert sorted(os.listdir(tmp_path / 'resume')) == ['0000003.params', '0000003.states']
    assert (tmp_path / 'earlier' / second.name).read_bytes() == before[1]
    capsys.readouterr()
    finetune(tmp_path, *flags, '--seed', '3', '--resume')
    assert 'step 3, in epoch 1, of an earlier run is complete; --resume' in capsys.readouterr().err
    assert first.read_bytes() != before[0]
    # A shorter run after it.
    finetune(tmp_path, *flags, '--epochs', '1')
    assert f'the finished run in {tmp_path} is replaced' in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob('*.params')] == [first.name]
    assert sorted(path.name for path in (tmp_path / 'earlier').iterdir()) == [
        'model_bert_MRPC_1.params',
        'model_bert_MRPC_2.params',
    ]


def test_another_run_is_not_resumed(glue, tiny_bert, tmp_path, monkeypatch):
    folder = tmp_path / 'glue'
    shutil.copytree(glue / 'MRPC', folder / 'MRPC')
    monkeypatch.setenv('GLUE_DIR', str(folder))
    flags = ['--bert_model', tiny_bert, *SMALL]
    output = tmp_path / 'out'
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 7)
        finetune(output, *flags)

    def refusal(*more):
        with pytest.raises(UsageError) as caught:
            finetune(output, *flags, '--resume', *more)
        return str(caught.value)

    before = {path: path.read_bytes() for path in output.rglob('*') if path.is_file()}
    assert refusal('--lr', '1e-3') == (
        f'--resume: --lr was 0.005 in the run in {output} and is 0.001 now; '
        'use the same, or start over without --resume'
    )
    assert '--training_steps was None in the run ' in refusal('--training_steps', '9')
    dev = folder / 'MRPC' / 'dev.tsv'
    lines = dev.read_text().splitlines(keepends=True)
    dev.write_text(''.join(lines[:-1]))
    assert refusal() == (
        f'--resume: the data have changed since the run in {output} began; '
        'start over without --resume'
    )
    dev.write_text(''.join(lines))
    train = folder / 'MRPC' / 'train.tsv'
    rows = train.read_text()
    train.write_text(re.sub('^0', '1', rows, count=1, flags=re.M))
    assert '--resume: the data have changed since ' in refusal()
    train.write_text(rows)
    from conftest import write_tiny_bert

    other = write_tiny_bert(tmp_path / 'other', seed=5)
    assert '--resume: the model has other weights since ' in refusal('--bert_model', other)
    assert before == {path: path.read_bytes() for path in output.rglob('*') if path.is_file()}
    (output / 'model_bert_MRPC_0.params').unlink()
    with pytest.raises(ToolkitError, match='model_bert_MRPC_0.params: was removed, so --resume'):
        finetune(output, *flags, '--resume')


def test_other_optimizers_are_not_resumed(glue_dir, tiny_bert, tmp_path, monkeypatch):
    """They stop at once all the same, and keep the results of finished epochs."""
    flags = ['--bert_model', tiny_bert, *SMALL, '--optimizer', 'adam']
    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        stop_at(patch, 8)
        finetune(tmp_path, *flags)
    assert str(stopped.value) == (
        "stopped by SIGTERM: --resume cannot continue with MXNet's own optimizers; the best epoch "
        f'so far is in {tmp_path}/model_bert_MRPC_0.params'
    )
    assert not (tmp_path / 'resume').exists()


def test_resuming_from_the_state_before_the_last(glue_dir, tiny_bert, tmp_path, monkeypatch):
    """Where an array of the newest state is damaged, with all bits of one run."""
    flags = ['--bert_model', tiny_bert, *SMALL]
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    finetune(whole, *flags)
    with monkeypatch.context() as patch, pytest.raises(OSError):
        fail_at(patch, 17)
        finetune(parts, *flags)
    spoil_array(parts / 'resume' / '0000012.states')
    finetune(parts, *flags, '--resume')
    assert_same_bits(whole, parts)


@pytest.mark.parametrize(
    'change',
    [
        {'epochs': 5},
        {'epochs': [{}]},
        {'seconds': 'x'},
        {'seen': [1]},
        {'seen': {'loss': 'x', 'rows': 1, 'labels': [], 'predictions': []}},
    ],
)
def test_a_state_that_says_something_else(
    glue_dir, tiny_bert, tmp_path, monkeypatch, unfinished, change
):
    shutil.copytree(unfinished, tmp_path / 'out')
    newest = states.newest
    monkeypatch.setattr(
        states, 'newest', lambda folder: (newest(folder)[0], {**newest(folder)[1], **change})
    )
    with pytest.raises(ToolkitError, match='0000006.states: not a checkpoint of this program$'):
        finetune(tmp_path / 'out', '--bert_model', tiny_bert, *SMALL, '--resume')


@pytest.fixture(scope='module')
def unfinished(glue, tiny_bert, tmp_path_factory):
    """Return the output directory of a run that was stopped after its first epoch."""
    output = tmp_path_factory.mktemp('unfinished') / 'out'
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setenv('GLUE_DIR', str(glue))
        stop_at(patch, 6)
        finetune(output, '--bert_model', tiny_bert, *SMALL)
    return output


def test_a_state_writes_no_file_but_the_logs(
    glue_dir, tiny_bert, tmp_path, monkeypatch, unfinished
):
    logs = {'../PLANTED': 'text', str(tmp_path / 'PLANTED'): 'text', 'finetune.log': 'text\n'}
    shutil.copytree(unfinished, tmp_path / 'out')
    newest = states.newest
    monkeypatch.setattr(
        states, 'newest', lambda folder: (newest(folder)[0], {**newest(folder)[1], 'logs': logs})
    )
    finetune(tmp_path / 'out', '--bert_model', tiny_bert, *SMALL, '--resume')
    assert os.listdir(tmp_path) == ['out']
    assert not list((tmp_path / 'out').rglob('*PLANTED'))


def test_other_operators_are_not_mixed(glue_dir, tiny_bert, tmp_path, monkeypatch, unfinished):
    """The two kinds differ in the last bits."""
    if not ops.available():
        pytest.skip('the fused operators cannot be built here')
    shutil.copytree(unfinished, tmp_path / 'out')
    flags = ['--bert_model', tiny_bert, *SMALL, '--resume']
    with monkeypatch.context() as patch, pytest.raises(UsageError) as caught:
        patch.setattr(ops, 'available', lambda: False)
        finetune(tmp_path / 'out', *flags)
    assert str(caught.value).startswith(
        f"--resume: the operators were fused in the run in {tmp_path}/out and are MXNet's own now ("
    )
    finetune(tmp_path / 'out', *flags)


def test_other_programs_half_written_files_stay(glue_dir, tiny_bert, tmp_path, unfinished):
    shutil.copytree(unfinished, tmp_path / 'out')
    for name in ('.notes.tmp', '.MRPC.tsv.x1.bert.tmp'):
        (tmp_path / 'out' / name).write_text('')
    finetune(tmp_path / 'out', '--bert_model', tiny_bert, *SMALL, '--resume')
    assert [path.name for path in (tmp_path / 'out').glob('.*')] == ['.notes.tmp']


def test_a_test_file_that_changes_during_the_training(tiny_bert, tmp_path, monkeypatch):
    """The predictions stand beside the rows that they are for."""
    train, test = (
        write_own(tmp_path / f'{name}.csv', sentences(12, seed), with_label=name == 'train')
        for seed, name in enumerate(['train', 'test'])
    )
    before = test.read_text()
    seed_step = update.seed_step

    def seed_and_change(seed, step, rank=0):
        seed_step(seed, step, rank)
        if step == 2:
            write_own(test, sentences(7, 5), with_label=False)

    monkeypatch.setattr(update, 'seed_step', seed_and_change)
    files = ['--train_file', train, '--test_file', test, *OWN]
    finetune(tmp_path / 'out', *files, '--bert_model', tiny_bert, '--epochs', '1', *SMALL)
    assert test.read_text() != before
    lines = (tmp_path / 'out' / 'test_predictions.csv').read_text().splitlines()
    assert [line.rpartition(',')[0] for line in lines] == before.splitlines()


def test_pairs_need_a_second_segment(glue_dir, folder, change, tmp_path):
    """A model with one segment takes single sentences."""

    def narrow(tensors):
        name = 'embeddings.token_type_embeddings.weight'
        return {**tensors, name: tensors[name][:1]}

    change(narrow)
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, 'type_vocab_size': 1}))
    flags = ['--bert_model', folder, '--epochs', '1', *SMALL]
    with pytest.raises(ToolkitError) as caught:
        finetune(tmp_path / 'out', *flags)
    assert str(caught.value) == (
        f'{folder}: type_vocab_size is 1, so this model takes single texts, not pairs'
    )
    assert not (tmp_path / 'out').exists()
    finetune(tmp_path / 'out', *flags, '--task_name', 'CoLA')
    embedder = embed.load(folder)
    assert embedder(['one text']).shape == (1, 16)
    with pytest.raises(ToolkitError, match='^the model: type_vocab_size is 1, so'):
        embedder([('one text', 'another')])
