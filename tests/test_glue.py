"""glue.py with a tiny random BERT: real runs, resuming after a kill, failures, its files."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
import zipfile

import numpy as np
import psutil
import pytest
from conftest import ROOT, run_here
from huggingface_hub import ModelCard

import bert
import glue
from bert.experiments import recipes, runs
from bert.system.errors import UsageError
from bert.tasks import submission
from bert.tasks.table import TASKS

SCRIPT = ROOT / 'glue.py'
ROWS = {'train': 32, 'dev': 16, 'test': 4}
SIZES = ['--epochs', '2', '--batch_size', '16', '--max_len', '32']
FLAGS = [*SIZES, '--lr', '1e-2', '--log_interval', '1']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Make a GLUE_DIR with the first rows of the sample set as MRPC, and no other task."""
    folder = tmp_path_factory.mktemp('glue_data')
    (folder / 'MRPC').mkdir()
    for split, rows in ROWS.items():
        lines = (ROOT / 'sample_glue' / 'MRPC' / f'{split}.tsv').read_text('utf8').splitlines(True)
        (folder / 'MRPC' / f'{split}.tsv').write_text(''.join(lines[: 1 + rows]), 'utf8')
    return folder


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    """Make another one, whose test set has as many rows as the real one."""
    folder = shutil.copytree(data, tmp_path_factory.mktemp('whole') / 'data')
    header, *lines = (data / 'MRPC' / 'test.tsv').read_text('utf8').splitlines(True)
    rows = (lines * 1725)[:1725]
    (folder / 'MRPC' / 'test.tsv').write_text(header + ''.join(rows), 'utf8')
    return folder


@pytest.fixture(scope='module')
def command(tiny_bert):
    """Return the start of a command line."""
    return [sys.executable, str(SCRIPT), '--bert_model', str(tiny_bert), *FLAGS]


@pytest.fixture(scope='module')
def environment(whole):
    """Return a run's variables, with one thread: two are slower with so few units."""
    return {**os.environ, 'GLUE_DIR': str(whole), 'OMP_NUM_THREADS': '1'}


@pytest.fixture(scope='module')
def finished(command, environment, tmp_path_factory):
    """Return the output folder of seeds 1 and 2, run to the end, and the finished process."""
    output = tmp_path_factory.mktemp('finished')
    return output, start([*command, '--seeds', '1', '2', '--output_dir', str(output)], environment)


def start(line, environment):
    """Run a command line in a process of its own."""
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def call(monkeypatch, capsys, root_logger):
    """Return a function like :func:`start` that runs the program in this process, at once."""

    def call_here(line, environment):
        for name in {**os.environ, **environment}:
            if environment.get(name) != os.environ.get(name):
                monkeypatch.delenv(name, raising=False)
                if name in environment:
                    monkeypatch.setenv(name, environment[name])
        status = run_here(glue.main, line[1:])
        return subprocess.CompletedProcess(line, status, *capsys.readouterr())

    return call_here


def table(printed):
    """Parse the first printed table into {first cell: other cells}."""
    rows = [re.split(r' {2,}', line) for line in printed.split('\n\n')[1].strip().split('\n')]
    return {row[0]: row[1:] for row in rows}


def without_seconds(printed):
    return {name: cells[:-1] for name, cells in table(printed).items()}


def folder_of(output, seed, task='MRPC'):
    (folder,) = (output / task).glob(f'seed-{seed}-*')
    return folder


def losses(folder):
    """Read the loss of each update."""
    lines = (folder / 'metrics.jsonl').read_text().splitlines()
    return [values['loss'] for values in map(json.loads, lines) if 'loss' in values]


def run_lines(printed):
    """Return the log lines about single runs."""
    return [line for line in printed.splitlines() if re.match(r'INFO:root:\[\d+/\d+\]', line)]


def test_two_seeds(finished):
    """Each run has a folder with its record, which the log lines and the table agree with."""
    output, done = finished
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r'seed-1-[0-9a-f]{8}', folder_of(output, 1).name)
    written = {'results.csv', 'results.txt', 'results.md', 'results.rst', 'report.html'}
    assert {path.name for path in output.iterdir()} == {'MRPC', *written}
    lines = run_lines(done.stderr)
    assert len(lines) == 2
    for seed, line in zip([1, 2], lines):
        folder = folder_of(output, seed)
        record = json.loads((folder / 'result.json').read_text())
        kept = json.loads((folder / 'finetune.json').read_text())
        assert (record['task'], record['seed']) == ('MRPC', seed)
        assert (record['epochs'], record['best_epoch']) == (kept['epochs'], kept['best_epoch'])
        assert record['settings']['lr'] == 0.01 and record['settings']['warmup_ratio'] == 0.1
        assert record['settings']['devices'] == 0
        assert record['machine']['mxnet'] == '1.9.1'
        assert record['machine']['toolkit'] == bert.__version__
        assert record['machine']['threads of a run'] == '1'
        # Only the parameters of the best epoch are left.
        assert [path.name for path in folder.glob('*.params')] == [kept['parameters']]
        assert f'seed={seed},' in (folder / 'run.log').read_text()  # as logged by the child
        last, best = record['epochs'][-1]['dev'], record['epochs'][record['best_epoch'] - 1]['dev']
        cells = [
            *(f'{last[name]:.4f}' for name in ('accuracy', 'f1')),
            str(record['best_epoch']),
            *(f'{best[name]:.4f}' for name in ('accuracy', 'f1')),
            f'{record["seconds"]:.1f}',
        ]
        assert table(done.stdout)[str(seed)] == cells
        assert line.startswith(f'INFO:root:[{seed}/2] MRPC seed {seed}: last accuracy {cells[0]}, ')
    rows = table(done.stdout)
    assert list(rows)[:4] == ['seed', '1', '2', 'mean']
    # The tiny model is not the model of any published run.
    assert rows['published 2019-01'] == ['other model', '-', '-', 'other model', '-', '-']
    assert done.stderr.splitlines()[-1].startswith('INFO:root:2 of 2 runs; ')


def test_each_epoch_of_a_run_is_told_once(finished):
    output, done = finished
    lines = [line for line in done.stderr.splitlines() if ', epoch ' in line]
    assert len(lines) == 4
    for i, line in enumerate(lines):
        seed, number = 1 + i // 2, 1 + i % 2
        values = json.loads((folder_of(output, seed) / 'result.json').read_text())['epochs'][i % 2]
        dev = ', '.join(f'{name} {value:.4f}' for name, value in values['dev'].items())
        begin = f'INFO:root:MRPC seed {seed}, epoch {number}: {dev}, {values["seconds"]:.1f} s'
        assert line.startswith(begin)
        assert bool(re.fullmatch(r', \d\d:\d\d left', line[len(begin) :])) == (number == 1)


def test_the_card_of_the_best_run_has_all_seeds(finished):
    """Two of them have a mean, and no interval."""
    output, _ = finished
    runs = {seed: ModelCard.load(folder_of(output, seed) / 'README.md').data for seed in (1, 2)}
    records = {
        seed: json.loads((folder_of(output, seed) / 'result.json').read_text()) for seed in (1, 2)
    }
    best = {seed: r['epochs'][r['best_epoch'] - 1]['dev'] for seed, r in records.items()}
    for seed, data in runs.items():
        found = {each.metric_type: each.metric_value for each in data.eval_results}
        assert found == {name: round(value, 4) for name, value in best[seed].items()}
        assert data.mxnet_bert_toolkit['Flags']['seed'] == seed
    winner = 2 if best[2]['accuracy'] > best[1]['accuracy'] else 1
    assert 'Several seeds' not in runs[3 - winner].mxnet_bert_toolkit
    table = runs[winner].mxnet_bert_toolkit['Several seeds']
    assert table['seeds'] == [1, 2] and table['this model'] == f'seed {winner}, the best'
    mean = (best[1]['f1'] + best[2]['f1']) / 2
    assert float(table['best f1']) == pytest.approx(mean, abs=2e-4)


def test_quiet_runs_are_the_same_runs(finished, command, environment, call, tmp_path):
    """The table is all that is shown; the runs have their logs."""
    shutil.copytree(finished[0] / 'MRPC', tmp_path / 'MRPC')
    shutil.rmtree(folder_of(tmp_path, 2))
    line = [*command, '--quiet', '--seeds', '1', '2', '--output_dir', str(tmp_path)]
    done = call(line, environment)
    assert (done.returncode, done.stderr) == (0, '')
    assert without_seconds(done.stdout) == without_seconds(finished[1].stdout)
    log = (folder_of(tmp_path, 2) / 'run.log').read_text()
    assert log.startswith('INFO:root:Namespace(') and '[Epoch 2 Batch 2/2]' in log


def test_csv_has_the_unrounded_table(finished):
    output, done = finished
    with open(output / 'results.csv', newline='', encoding='utf8') as file:
        rows = list(csv.DictReader(file))
    names = ['last accuracy', 'last f1', 'best epoch', 'best accuracy', 'best f1', 'seconds']
    assert list(rows[0]) == ['task', 'seed', *names]
    first, second = (float(row['last f1']) for row in rows[:2])
    assert float(rows[2]['last f1']) == pytest.approx((first + second) / 2)
    assert {row['task'] for row in rows} == {'MRPC'}
    assert rows[2]['best epoch'] == ''
    for row in rows[:-2]:
        # Two seeds have no intervals.
        assert ('95 %' in row['seed']) == (row['last accuracy'] == '')
        shown = f'{float(row["last accuracy"]):.4f}' if row['last accuracy'] else '-'
        assert table(done.stdout)[row['seed']][0] == shown
    assert [row['last accuracy'] for row in rows[-2:]] == ['other model'] * 2


def test_tasks_beyond_glue(data, command, environment, call, tmp_path):
    """They have a table and a section of the report, but no published runs."""
    folder = tmp_path / 'data' / 'LCQMC'
    folder.mkdir(parents=True)
    for split in ROWS:
        lines = (data / 'MRPC' / f'{split}.tsv').read_text('utf8').splitlines()[1:]
        cells = [line.split('\t') for line in lines]
        text = ''.join('\t'.join([*row[3:], row[0]]) + '\n' for row in cells)
        (folder / f'{split}.tsv').write_text(f'text_a\ttext_b\tlabel\n{text}', 'utf8')
    output = tmp_path / 'out'
    line = [*command, '--tasks', 'LCQMC', '--seeds', '1', '--output_dir', str(output)]
    done = call(line, {**environment, 'GLUE_DIR': str(folder.parent)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('\nLCQMC\n')
    assert list(table(done.stdout))[:3] == ['seed', '1', 'mean']
    assert not any(row.startswith('published') for row in table(done.stdout))
    assert 'LCQMC' in (output / 'report.html').read_text('utf8')
    assert len((folder_of(output, 1, 'LCQMC') / 'LCQMC.tsv').read_text().splitlines()) == 5


def test_finished_runs_are_not_done_again(
    finished, command, environment, call, monkeypatch, tmp_path
):
    """Another folder and a differently spelled learning rate give the same table, at once."""
    output, done = finished
    records = {path: path.stat().st_mtime_ns for path in output.glob('*/*/*')}
    monkeypatch.chdir(tmp_path)
    line = [*command, '--lr', '0.01', '--seeds', '1', '2', '--output_dir', str(output)]
    again = call(line, environment)
    assert again.returncode == 0
    assert again.stdout == done.stdout
    assert {path: path.stat().st_mtime_ns for path in output.glob('*/*/*')} == records
    assert all(line.endswith(' (done before)') for line in run_lines(again.stderr))


def test_resume_after_a_kill(finished, command, environment, call, tmp_path):
    """SIGKILL in the second run ends its process too; afterwards only that run is done again."""
    name = folder_of(finished[0], 1).name
    first = shutil.copytree(folder_of(finished[0], 1), tmp_path / 'MRPC' / name)
    line = [*command, '--seeds', '1', '2', '--output_dir', str(tmp_path)]
    process = subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(tmp_path.glob('MRPC/seed-2-*/run.log')), process)
    wait_for(lambda: psutil.Process(process.pid).children(), process)
    (child,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGKILL)
    process.wait()
    if sys.platform == 'linux':
        psutil.wait_procs([child], timeout=10)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not (tmp_path / 'results.csv').exists()
    assert not (folder_of(tmp_path, 2) / 'result.json').exists()
    before = {path: path.stat().st_mtime_ns for path in first.iterdir()}

    resumed = call(line, environment)
    assert resumed.returncode == 0, resumed.stderr
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == before
    assert (folder_of(tmp_path, 2) / 'result.json').is_file()
    # The same as without an interruption.
    again, expected = (losses(folder_of(output, 2)) for output in (tmp_path, finished[0]))
    assert len(again) == 4 and again == pytest.approx(expected)
    assert again != pytest.approx(losses(first))  # the seed makes a difference
    assert without_seconds(resumed.stdout) == without_seconds(finished[1].stdout)


def wait_for(condition, process):
    end = time.time() + 60
    while not condition():
        assert process.poll() is None and time.time() < end
        time.sleep(0.01)


def test_a_failing_run_is_reported_and_the_others_go_on(
    finished, command, environment, call, tmp_path
):
    """RTE's files are missing; MRPC, which follows, is in the table all the same."""
    folder = folder_of(finished[0], 1)
    shutil.copytree(folder, tmp_path / 'MRPC' / folder.name)
    line = [*command, '--tasks', 'RTE', 'MRPC', '--seeds', '1', '--output_dir', str(tmp_path)]
    done = call(line, environment)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    lines = done.stderr.strip().split('\n')
    failed, after = (line for line in lines if re.search(r':\[\d/2\] ', line))
    total, last = lines[-2:]
    assert failed.startswith('ERROR:root:[1/2] RTE seed 1 failed: finetune_classifier.py: error: ')
    assert 'download_glue_data.py' in failed
    log = folder_of(tmp_path, 1, 'RTE') / 'run.log'
    assert failed.endswith(f'its log is {log}') and log.is_file()
    assert after.startswith('INFO:root:[2/2] MRPC seed 1: ')
    assert total.startswith('INFO:root:1 of 2 runs; ')
    assert last == 'glue.py: error: 1 of 2 runs failed: RTE seed 1'
    assert (tmp_path / 'report.html').is_file()
    assert done.stdout.startswith('\nMRPC\n')
    assert table(done.stdout)['deviation'] == ['-'] * 6
    assert not (log.parent / 'result.json').exists()


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        (['--task_name', 'RTE'], '--task_name is not for glue.py: give the tasks with --tasks'),
        (['--seed=3'], '--seed is not for glue.py: give the seeds with --seeds'),
        (['--only_inference'], '--only_inference is not for glue.py: this script trains'),
        (['--text', 'x'], '--text is not for glue.py: this script trains'),
        (['--max_len', '4'], '--max_len 4 leaves no room for text: at least 5'),
        (['--ensemble'], '--ensemble goes with --submission'),
        (
            ['--tasks', 'LCQMC', 'XNLI-de', '--submission', 'a.zip'],
            f'--submission goes with tasks of GLUE: {", ".join(TASKS)}',
        ),
        (['--check-submission', 'a.zip', '--lr', '1'], '--lr does not go with --check-submission'),
        (['--compare-log', 'a', 'b', '--jobs=2'], '--jobs does not go with --compare-log'),
        (['--task_n', 'RTE'], '--task_name is not for glue.py: give the tasks with --tasks'),
        (['--check', 'a.zip', '--lr', '1'], '--lr does not go with --check-submission'),
        (['--comp', 'a', 'b', '--j=2'], '--jobs does not go with --compare-log'),
        (
            ['--recipe', 'small-data', '--tasks', 'RTE', 'QQP', 'SST'],
            'the recipe small-data has no QQP, SST-2: it has CoLA, MRPC, STS-B, RTE',
        ),
        (
            ['--jobs', '3', '--gpus', '0,1'],
            '--jobs 3 with 2 --gpus: each run has a GPU of its own',
        ),
    ],
)
def test_refused_flags(flags, sentence):
    with pytest.raises(UsageError, match=f'^{re.escape(sentence)}$'):
        glue.main(flags)


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        (['--no_such_flag', '1'], 'unrecognized arguments: --no_such_flag 1'),
        (['--lr', 'fast'], "argument --lr: 'fast' is not a number above 0"),
        (['--seeds', '-1'], "argument --seeds: '-1' is not a whole number from 0 to 2147483647"),
        (['--tasks', 'SQuAD'], "argument --tasks: invalid choice: 'SQuAD'"),
        (
            ['--ep', '3'],
            'ambiguous option: --ep could match --epochs, --epsilon',
        ),
        (
            ['--e=3'],
            'ambiguous option: --e=3 could match --ensemble, --epochs, --early_stop, --epsilon',
        ),
    ],
)
def test_usage_errors_show_the_usage_of_this_script(flags, sentence, capsys):
    with pytest.raises(SystemExit) as leave:
        glue.main(flags)
    assert leave.value.code == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert '--tasks' in printed and '--task_name' not in printed


def test_missing_glue_dir(monkeypatch, tmp_path):
    """The sentence is that of finetune_classifier.py, and comes before a folder is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('GLUE_DIR', raising=False)
    with pytest.raises(UsageError, match='^the environment variable GLUE_DIR is not set: '):
        glue.main([])
    monkeypatch.setenv('GLUE_DIR', 'nowhere')
    with pytest.raises(UsageError, match='^GLUE_DIR=nowhere is not a folder: '):
        glue.main([])
    assert list(tmp_path.iterdir()) == []


def test_tasks_and_seeds():
    """Each task and seed counts once, in the order given, and SST is SST-2; then the defaults."""
    args, passed = glue.parse_args(
        ['--lr', '1e-5', '--tasks', 'SST', 'RTE', 'SST-2', '--seeds', '3', '1', '3', '--gpu']
    )
    assert (args.tasks, args.seeds) == (['SST-2', 'RTE'], [3, 1])
    assert passed['RTE'][0] == ['--lr', '1e-5', '--gpu']
    args, passed = glue.parse_args([])
    assert (args.tasks, args.seeds, passed['MRPC'][0]) == (['MRPC'], [1, 2, 3, 4, 5], [])
    args, _ = glue.parse_args(['--tasks', 'all'])
    assert len(args.tasks) == 9
    # Neither the tasks, the seeds nor the folder are passed on.
    flags = ['--lr', '5e-5', '--tasks', 'RTE', '--seeds', '9', '--output_dir', 'x']
    assert glue.parse_args(flags)[1]['RTE'][0] == ['--lr', '5e-5']


def test_shortened_flags():
    """They are spelled out before they are passed on; what runs cannot have does not count."""
    args, passed = glue.parse_args(
        ['--task', 'RTE', '--see', '9', '--batch', '16', '--warm=0.2', '--output', 'x']
    )
    assert (args.tasks, args.seeds, args.output_dir) == (['RTE'], [9], 'x')
    words, values = passed['RTE']
    assert words == ['--batch_size', '16', '--warmup_ratio=0.2']
    assert (values.batch_size, values.warmup_ratio) == (16, 0.2)


def test_recipe():
    """Its tasks are the default, and given flags override its own."""
    args, passed = glue.parse_args(['--recipe', '2019-01'])
    assert args.tasks == ['MRPC', 'RTE', 'SST-2', 'MNLI']
    assert (passed['SST-2'][1].batch_size, passed['SST-2'][1].epochs) == (16, 4)
    assert (passed['MNLI'][1].lr, passed['MNLI'][1].max_len) == (5e-5, 80)
    args, passed = glue.parse_args(['--recipe', '2019-01', '--tasks', 'MRPC', '--lr', '1e-5'])
    assert args.tasks == ['MRPC']
    assert (passed['MRPC'][1].lr, passed['MRPC'][1].epochs) == (1e-5, 3)


def test_help_waits_for_no_large_library():
    code = (
        'import sys, glue\n'
        'try: glue.main(["--help"])\n'
        'except SystemExit:\n'
        '    large = {"mxnet", "scipy", "sklearn", "tqdm", "matplotlib"}\n'
        '    print(sorted(large & set(sys.modules)))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert '--seeds' in done.stdout and done.stdout.endswith('[]\n')


def test_two_at_once_give_the_same(finished, command, environment, call, tmp_path):
    """They give the same as one after another; on one core each has one thread."""
    line = [*command, '--seeds', '1', '2', '--jobs', '2', '--output_dir', str(tmp_path)]
    done = call(line, environment)
    assert done.returncode == 0, done.stderr
    assert without_seconds(done.stdout) == without_seconds(finished[1].stdout)
    for seed in (1, 2):
        assert losses(folder_of(tmp_path, seed)) == losses(folder_of(finished[0], seed))


def test_outputs_are_those_of_the_best_epoch(finished, data):
    """They give the metric by which the epoch was chosen, and the predictions in the files."""
    folder = folder_of(finished[0], 1)
    record = json.loads((folder / 'result.json').read_text())
    best = record['epochs'][record['best_epoch'] - 1]['dev']['accuracy']
    with np.load(folder / 'outputs.npz', allow_pickle=False) as file:
        assert sorted(file) == ['MRPC', 'dev', 'labels']
        dev, test = file['dev'], file['MRPC']
    lines = (data / 'MRPC' / 'dev.tsv').read_text('utf8').splitlines()[1:]
    labels = [int(line.split('\t')[0]) for line in lines]
    assert np.mean(dev.argmax(axis=1) == labels) == best
    written = (folder / 'MRPC.tsv').read_text().splitlines()[1:]
    assert [line.split('\t')[1] for line in written] == [str(i) for i in test.argmax(axis=1)]


def test_report_of_real_runs(finished, whole):
    """The report has the command, the numbers of the table, and pairs of the dev set."""
    page = (finished[0] / 'report.html').read_text('utf8')
    root = ElementTree.fromstring(page.replace('<!DOCTYPE html>\n', ''))
    text = ' '.join(root.itertext())
    assert f'GLUE_DIR={whole} glue.py \\\n    --bert_model ' in text
    for cells in table(finished[1].stdout).values():
        assert all(cell in text for cell in cells)
    item = next(root.iter('ol')).find('li')
    assert item is None or item.find('p').text in (whole / 'MRPC' / 'dev.tsv').read_text('utf8')
    assert 'toolkit' in text and '1.9.1' in text


def test_the_tables_are_the_same_in_all_forms(finished):
    output, done = finished
    assert (output / 'results.txt').read_text() == done.stdout[1:]
    cells = table(done.stdout)['mean']
    for name, start in [('results.md', '| mean'), ('results.rst', 'mean ')]:
        (line,) = [x for x in (output / name).read_text().split('\n') if x.startswith(start)]
        assert line.replace('|', ' ').replace('\\-', '-').split()[1:] == cells


def predictions(path, name):
    with zipfile.ZipFile(path) as archive:
        lines = archive.read(name).decode().splitlines()[1:]
    return [line.split('\t')[1] for line in lines]


def test_submission(finished, command, environment, call, tmp_path):
    """It has the best run's answers, and majorities for the rest; then an ensemble is written."""
    shutil.copytree(finished[0] / 'MRPC', tmp_path / 'out' / 'MRPC')
    line = [*command, '--seeds', '1', '2', '--submission', str(tmp_path / 'glue.zip')]
    line += ['--output_dir', str(tmp_path / 'out')]
    done = call(line, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('glue.zip: complete, 11 files with 426309 predictions\n')
    best = {}
    for seed in (1, 2):
        record = json.loads((folder_of(tmp_path / 'out', seed) / 'result.json').read_text())
        best[seed] = record['epochs'][record['best_epoch'] - 1]['dev']['accuracy']
    chosen = max(best, key=best.get)
    assert f'INFO:root:MRPC.tsv: seed {chosen}, the best of 2 by the dev set' in done.stderr
    assert 'INFO:root:RTE.tsv: no run, every prediction is entailment' in done.stderr
    assert done.stderr.count('no run, every prediction is') == 10
    written = (folder_of(tmp_path / 'out', chosen) / 'MRPC.tsv').read_text().splitlines()[1:]
    assert predictions(tmp_path / 'glue.zip', 'MRPC.tsv') == [x.split('\t')[1] for x in written]
    assert set(predictions(tmp_path / 'glue.zip', 'AX.tsv')) == {'contradiction'}

    # The mean of the probabilities, computed here.
    again = call([*line, '--ensemble'], environment)
    assert again.returncode == 0, again.stderr
    assert 'INFO:root:MRPC.tsv: the mean of 2 runs' in again.stderr
    total = 0
    for seed in (1, 2):
        values = np.exp(np.load(folder_of(tmp_path / 'out', seed) / 'outputs.npz')['MRPC'])
        total = total + values / values.sum(axis=1, keepdims=True)
    expected = ['1' if yes > no else '0' for no, yes in total]
    assert predictions(tmp_path / 'glue.zip', 'MRPC.tsv') == expected
    assert expected != [x.split('\t')[1] for x in written]

    # A run without outputs is named, and the previous submission is left as it was.
    path = folder_of(tmp_path / 'out', 2) / 'outputs.npz'
    path.rename(path.with_suffix('.away'))
    before = (tmp_path / 'glue.zip').read_bytes()
    failed = call([*line, '--ensemble'], environment)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(f'glue.py: error: {path} has no outputs for ')
    assert (tmp_path / 'glue.zip').read_bytes() == before


def test_a_submission_needs_the_whole_test_set(data, command, environment, call, tmp_path):
    """This is checked before anything is run."""
    line = [*command, '--submission', str(tmp_path / 'a.zip'), '--output_dir', str(tmp_path / 'o')]
    environment = {**environment, 'GLUE_DIR': str(data)}
    done = call(line, environment)
    path = data / 'MRPC' / 'test.tsv'
    expected = f"glue.py: error: {path} has 4 rows, and GLUE's file 1725: --submission needs all"
    assert (done.returncode, done.stderr.strip()) == (1, f'{expected} of them')
    assert list(tmp_path.iterdir()) == []
    done = call([*line, '--submission', str(tmp_path)], environment)
    assert (done.returncode, done.stderr.strip()) == (
        2,
        f'glue.py: error: --submission {tmp_path} is a folder, not a file to write',
    )


def test_all_runs_failed(command, environment, tmp_path):
    """Earlier results are left as they were."""
    (tmp_path / 'results.csv').write_text('earlier')
    line = [*command, '--tasks', 'RTE', '--seeds', '1', '--output_dir', str(tmp_path)]
    done = start(line, environment)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr.splitlines()[-1] == 'glue.py: error: 1 of 1 runs failed: RTE seed 1'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['RTE', 'results.csv']
    assert (tmp_path / 'results.csv').read_text() == 'earlier'


def test_check_submission(call, tmp_path):
    """Each defect gets a line, and the status is 1; GLUE_DIR is not needed."""
    with zipfile.ZipFile(tmp_path / 'glue.zip', 'w') as archive:
        for name in ('CoLA.tsv', 'readme.txt'):
            archive.writestr(name, 'index\tprediction\n')
    variables = {name: value for name, value in os.environ.items() if name != 'GLUE_DIR'}
    done = call([sys.executable, SCRIPT, '--check-submission', tmp_path / 'glue.zip'], variables)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "'readme.txt' does not belong to a submission",
        *(f'{name} is missing' for name in submission.FILES if name != 'CoLA.tsv'),
        'CoLA.tsv: has 0 predictions, but the test set has 1063 rows',
    ]
    assert done.stderr == f'glue.py: error: {tmp_path / "glue.zip"}: 12 defects\n'


def test_compare_log(finished, tmp_path, capsys):
    """A published curve is compared with a run's log; the numbers are those of the two."""
    pytest.importorskip('matplotlib')
    own = folder_of(finished[0], 1) / 'finetune.log'
    published = recipes.PUBLISHED / '2019-01' / 'MRPC.json'
    rows = glue.main(['--compare-log', str(published), str(own), '--output_dir', str(tmp_path)])
    printed = capsys.readouterr().out
    assert 'lr: A 2e-05, B 0.01' in printed and 'batches an epoch: A 119, B 2' in printed
    dev = next(row for row in rows if (row['epoch'], row['line']) == ('1', 'dev'))
    record = json.loads((own.parent / 'result.json').read_text())
    assert dev['accuracy A'] == '0.8309'
    assert dev['accuracy B'] == f'{record["epochs"][0]["dev"]["accuracy"]:.4f}'
    assert ' '.join(rows[0].values()) in ' '.join(printed.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ['comparison.png', 'comparison.svg']


def test_without_matplotlib(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    assert not glue.can_draw()
    assert 'curves need matplotlib' in caplog.text


def write_tasks(folder, names=tuple(TASKS)):
    """Write GLUE files of tasks, with full-size test sets and ten rows otherwise."""
    for task in (TASKS[name] for name in names):
        for split in (task.train, *task.dev, *task.test):
            columns = (*split.text_columns, split.label_column or 0)
            lines = ['header\n'] if split.has_header else []
            for row in range(10 if split.label_column is not None else split.rows):
                cells = ['x'] * (max(columns) + 1)
                for column in split.text_columns:
                    cells[column] = f'{task.name} {row}'
                if split.label_column is not None:
                    label = f'{row / 2}' if task.is_regression else task.labels[row % 2]
                    cells[split.label_column] = label
                lines.append('\t'.join(cells) + '\n')
            (folder / split.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / split.path).write_text(''.join(lines), 'utf8')


def pretend_to_run(runs, plans, jobs):
    """Make up records and files of runs, to replace :func:`bert.experiments.runs.do_runs`.

    The dev accuracy of seed s is .5 + .1 s; the outputs always predict the last class, or the
    score 7.
    """
    rng = np.random.default_rng(1)
    records = {}
    for current in runs:
        task = TASKS[current.task]
        value = 0.5 + 0.1 * current.seed
        dev = {split.name or 'dev': dict.fromkeys(task.metrics, value) for split in task.dev}
        records[current] = {
            'epochs': [{**dev, 'seconds': 1.0}],
            'best_epoch': 1,
            'seconds': 2.0,
            'machine': {'mxnet': '1.9.1'},
        }
        current.folder.mkdir(parents=True)
        lines = [f'validation metrics ({split.name}):' for split in task.dev if split.name]
        lines = [line + f'accuracy:{value:.4f}' for line in lines or ['validation metrics:']]
        (current.folder / 'finetune.log').write_text('\n'.join([*lines, 'Time cost=1.0s']))
        sizes = {split.name or 'dev': 10 for split in task.dev}
        sizes.update({split.submission[:-4]: split.rows for split in task.test})
        classes = 1 if task.is_regression else len(task.labels)
        outputs = {name: rng.normal(0, 0.1, (rows, classes)) for name, rows in sizes.items()}
        for values in outputs.values():
            values[:, -1] += 7
        np.savez(current.folder / 'outputs.npz', **outputs)
    return records


def test_all_tasks(tmp_path, monkeypatch, capsys):
    """There are GLUE's score, a section for each dev set, and no majority in the submission."""
    write_tasks(tmp_path / 'data')
    monkeypatch.setenv('GLUE_DIR', str(tmp_path / 'data'))
    monkeypatch.setattr(runs, 'do_runs', pretend_to_run)
    monkeypatch.setattr(glue, 'can_draw', lambda: False)  # drawing takes longest
    line = ['--tasks', 'all', '--seeds', '2', '1', '--submission', str(tmp_path / 'glue.zip')]
    tables = glue.main([*line, '--output_dir', str(tmp_path / 'out')])
    assert list(tables) == [*TASKS, 'GLUE']
    score = {row['seed']: row['last score'] for row in tables['GLUE']}
    assert (score[2], score[1]) == pytest.approx((0.7, 0.6))
    assert score['mean'] == pytest.approx(0.65)
    mnli = {row['seed']: row for row in tables['MNLI']}
    assert mnli['published 2019-01']['last mismatched accuracy'] == 'other recipe'
    assert 'GLUE\n\nseed ' in capsys.readouterr().out

    page = (tmp_path / 'out' / 'report.html').read_text('utf8')
    root = ElementTree.fromstring(page.replace('<!DOCTYPE html>\n', ''))
    headings = [element.text for element in root.iter('h3')]
    assert headings.count('matched: confusion matrix') == 1
    assert headings.count('mismatched: the rows that most runs get wrong') == 1
    assert headings.count('confusion matrix') == len(TASKS) - 2  # not of STS-B
    assert headings.count('the largest errors') == 1

    for name, answers in submission.FILES.items():
        expected = answers.labels[-1] if answers.labels else '5.000'
        assert set(predictions(tmp_path / 'glue.zip', name)) == {expected}


def test_a_submission_without_the_diagnostic_set(tmp_path, monkeypatch):
    """MNLI's model answers its own test sets, and AX.tsv gets a majority."""
    write_tasks(tmp_path / 'data', ['MNLI'])
    shutil.rmtree(tmp_path / 'data' / 'diagnostic')

    def without_diagnostic(runs, plans, jobs):
        records = pretend_to_run(runs, plans, jobs)
        for current in records:
            with np.load(current.folder / 'outputs.npz') as file:
                kept = {name: file[name] for name in file if name != 'AX'}
            np.savez(current.folder / 'outputs.npz', **kept)
        return records

    monkeypatch.setenv('GLUE_DIR', str(tmp_path / 'data'))
    monkeypatch.setattr(runs, 'do_runs', without_diagnostic)
    line = ['--tasks', 'MNLI', '--seeds', '1', '--submission', str(tmp_path / 'glue.zip')]
    glue.main([*line, '--output_dir', str(tmp_path / 'out')])
    assert set(predictions(tmp_path / 'glue.zip', 'MNLI-mm.tsv')) == {'contradiction'}
    assert set(predictions(tmp_path / 'glue.zip', 'AX.tsv')) == {'contradiction'}
    assert submission.check(tmp_path / 'glue.zip') == []
