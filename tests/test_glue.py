"""glue.py with a tiny random BERT: real runs, resuming after a kill, failures, the statistics."""

import csv
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import glue
from bert.cli import ToolkitError, UsageError

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / 'glue.py'
ROWS = {'train': 32, 'dev': 16, 'test': 4}
SIZES = ['--epochs', '2', '--batch_size', '16', '--max_len', '32']
FLAGS = [*SIZES, '--lr', '1e-2', '--log_interval', '1']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A GLUE_DIR with the first rows of the sample set as MRPC, and no other task."""
    folder = tmp_path_factory.mktemp('glue_data')
    (folder / 'MRPC').mkdir()
    for split, rows in ROWS.items():
        lines = (ROOT / 'sample_glue' / 'MRPC' / f'{split}.tsv').read_text('utf8').splitlines(True)
        (folder / 'MRPC' / f'{split}.tsv').write_text(''.join(lines[: 1 + rows]), 'utf8')
    return folder


@pytest.fixture(scope='module')
def command(tiny_bert):
    """The start of a command line, ready for more flags."""
    return [sys.executable, str(SCRIPT), '--bert_model', str(tiny_bert), *FLAGS]


@pytest.fixture(scope='module')
def environment(data):
    """One thread: two are slower with so few units."""
    return {**os.environ, 'GLUE_DIR': str(data), 'OMP_NUM_THREADS': '1'}


@pytest.fixture(scope='module')
def finished(command, environment, tmp_path_factory):
    """Seeds 1 and 2 run to the end: the output folder and what was printed."""
    output = tmp_path_factory.mktemp('finished')
    return output, call([*command, '--seeds', '1', '2', '--output_dir', str(output)], environment)


def call(line, environment):
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)


def table(printed):
    """The first table in what was printed, as {first cell: other cells}."""
    rows = [re.split(r' {2,}', line) for line in printed.split('\n\n')[1].strip().split('\n')]
    return {row[0]: row[1:] for row in rows}


def without_seconds(printed):
    return {name: cells[:-1] for name, cells in table(printed).items()}


def folder_of(output, seed, task='MRPC'):
    (folder,) = output.glob(f'{task}-seed{seed}-*')
    return folder


def losses(folder):
    """The loss of each update."""
    lines = (folder / 'metrics.jsonl').read_text().splitlines()
    return [values['loss'] for values in map(json.loads, lines) if 'loss' in values]


def test_two_seeds(finished):
    """One folder a run, with the record; the progress lines and the table say the same."""
    output, done = finished
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r'MRPC-seed1-[0-9a-f]{8}', folder_of(output, 1).name)
    assert len(list(output.iterdir())) == 3  # results.csv too
    lines = [line for line in done.stderr.splitlines() if line.startswith('INFO:root:')]
    assert len(lines) == 2
    for seed, line in zip([1, 2], lines):
        folder = folder_of(output, seed)
        record = json.loads((folder / 'result.json').read_text())
        kept = json.loads((folder / 'finetune.json').read_text())
        assert (record['task'], record['seed']) == ('MRPC', seed)
        assert (record['epochs'], record['best_epoch']) == (kept['epochs'], kept['best_epoch'])
        assert record['settings']['lr'] == 0.01 and record['settings']['warmup_ratio'] == 0.1
        assert f'seed={seed},' in (folder / 'run.log').read_text()  # the child's own Namespace
        last, best = record['epochs'][-1]['dev'], record['epochs'][record['best_epoch'] - 1]['dev']
        cells = [
            *(f'{last[name]:.4f}' for name in ('accuracy', 'f1')),
            str(record['best_epoch']),
            *(f'{best[name]:.4f}' for name in ('accuracy', 'f1')),
            f'{record["seconds"]:.1f}',
        ]
        assert table(done.stdout)[str(seed)] == cells
        assert line.startswith(f'INFO:root:[{seed}/2] MRPC seed {seed}: last accuracy {cells[0]}, ')
    assert list(table(done.stdout)) == [
        'seed',
        '1',
        '2',
        'mean',
        'deviation',
        '95 % from',
        '95 % to',
    ]


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
    for row in rows:
        assert table(done.stdout)[row['seed']][0] == f'{float(row["last accuracy"]):.4f}'


def test_finished_runs_are_not_done_again(finished, command, environment, tmp_path):
    """From another folder and with the learning rate spelled otherwise: the same table, soon."""
    output, done = finished
    records = {path: path.stat().st_mtime_ns for path in output.glob('*/*')}
    again = subprocess.run(
        [*command, '--lr', '0.01', '--seeds', '1', '2', '--output_dir', str(output)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert again.returncode == 0
    assert again.stdout == done.stdout
    assert {path: path.stat().st_mtime_ns for path in output.glob('*/*')} == records


def test_resume_after_a_kill(finished, command, environment, tmp_path):
    """SIGKILL in the second run ends its process too; then only that run is done again."""
    first = shutil.copytree(folder_of(finished[0], 1), tmp_path / folder_of(finished[0], 1).name)
    line = [*command, '--seeds', '1', '2', '--output_dir', str(tmp_path)]
    process = subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(tmp_path.glob('MRPC-seed2-*/run.log')), process)
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
    # As without an interruption.
    again, expected = (losses(folder_of(output, 2)) for output in (tmp_path, finished[0]))
    assert len(again) == 4 and again == pytest.approx(expected)
    assert again != pytest.approx(losses(first))  # the seed makes a difference
    assert without_seconds(resumed.stdout) == without_seconds(finished[1].stdout)


def wait_for(condition, process):
    end = time.time() + 60
    while not condition():
        assert process.poll() is None and time.time() < end
        time.sleep(0.01)


def test_a_failing_run_is_told_and_the_others_go_on(finished, command, environment, tmp_path):
    """RTE's files are missing; MRPC after it is in the table all the same."""
    for folder in finished[0].glob('MRPC-seed1-*'):
        shutil.copytree(folder, tmp_path / folder.name)
    line = [*command, '--tasks', 'RTE', 'MRPC', '--seeds', '1', '--output_dir', str(tmp_path)]
    done = call(line, environment)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    told, after, last = done.stderr.strip().split('\n')
    assert told.startswith('ERROR:root:[1/2] RTE seed 1 failed: finetune_classifier.py: error: ')
    assert 'download_glue_data.py' in told
    log = folder_of(tmp_path, 1, 'RTE') / 'run.log'
    assert told.endswith(f'its log is {log}') and log.is_file()
    assert after.startswith('INFO:root:[2/2] MRPC seed 1: ')
    assert last == 'glue.py: error: 1 of 2 runs failed: RTE seed 1'
    assert done.stdout.startswith('\nMRPC\n')
    assert table(done.stdout)['deviation'] == ['-'] * 6
    assert not (log.parent / 'result.json').exists()


def test_explain_failure(tmp_path):
    log = tmp_path / 'run.log'
    log.write_bytes(b'INFO:root:step\nValueError: \xff no\n\n')
    assert glue.explain_failure(1, log) == f'ValueError: \ufffd no; its log is {log}'
    killed = glue.explain_failure(-9, log)
    assert killed == f'ended by signal 9 (Killed); its log is {log}'
    log.write_text('')
    assert glue.explain_failure(1, log).startswith('it wrote nothing; ')


def test_statistics_by_hand():
    """Of .80, .84, .88: mean .84; squared deviations .0016 twice and 0, over n - 1 = 2: .04.

    Student's t with 2 degrees of freedom has its 97.5 % quantile at 4.302653 (any printed table),
    so the interval's half is 4.302653 * .04 / sqrt(3) = .099365.
    """
    assert glue.summarize([0.80, 0.84, 0.88]) == pytest.approx(
        {'mean': 0.84, 'deviation': 0.04, '95 % from': 0.740635, '95 % to': 0.939365}, abs=1e-6
    )


def test_a_table_of_one_seed():
    """No deviation and no interval, shown as '-'; nothing is averaged over epoch numbers."""
    record = {
        'epochs': [
            {'dev': {'mcc': 0.25}, 'seconds': 4.0},
            {'dev': {'mcc': 0.5}, 'seconds': 4.0},
            {'dev': {'mcc': 0.375}, 'seconds': 4.0},
        ],
        'best_epoch': 2,
        'seconds': 15.04,
    }
    assert glue.format_table(glue.tabulate({7: glue.measures(record)})) == (
        'seed       last mcc  best epoch  best mcc  seconds\n'
        '7            0.3750           2    0.5000     15.0\n'
        'mean         0.3750           -    0.5000     15.0\n'
        'deviation         -           -         -        -\n'
        '95 % from         -           -         -        -\n'
        '95 % to           -           -         -        -'
    )


def test_both_dev_sets_of_mnli():
    epoch = {'matched': {'accuracy': 0.8}, 'mismatched': {'accuracy': 0.9}, 'seconds': 4.0}
    values = glue.measures({'epochs': [epoch], 'best_epoch': 1, 'seconds': 5.0})
    assert values == {
        'last matched accuracy': 0.8,
        'last mismatched accuracy': 0.9,
        'best epoch': 1,
        'best matched accuracy': 0.8,
        'best mismatched accuracy': 0.9,
        'seconds': 5.0,
    }


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        (['--task_name', 'RTE'], '--task_name is not for glue.py: give the tasks with --tasks'),
        (['--seed=3'], '--seed is not for glue.py: give the seeds with --seeds'),
        (['--only_inference'], '--only_inference is not for glue.py: this script trains'),
        *[
            ([flag, 'x'], f'{flag} is not for glue.py: this script runs GLUE tasks, not own data')
            for flag in ('--train_file', '--dev_file', '--test_file', '--text_columns')
            + ('--label_column', '--regression', '--metric')
        ],
        (['--max_len', '4'], '--max_len 4 leaves no room for text: 5 at least'),
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
    ],
)
def test_usage_errors_are_told_by_this_script(flags, sentence, capsys):
    with pytest.raises(SystemExit) as leave:
        glue.main(flags)
    assert leave.value.code == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert '--tasks' in told and '--task_name' not in told


def test_missing_glue_dir(monkeypatch, tmp_path):
    """The sentence of finetune_classifier.py, before a folder is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('GLUE_DIR', raising=False)
    with pytest.raises(UsageError, match='^the environment variable GLUE_DIR is not set: '):
        glue.main([])
    monkeypatch.setenv('GLUE_DIR', 'nowhere')
    with pytest.raises(UsageError, match='^GLUE_DIR=nowhere is not a folder: '):
        glue.main([])
    assert list(tmp_path.iterdir()) == []


def test_tasks_and_seeds():
    """Each once, in the order given; SST is SST-2; the defaults."""
    args, _, given = glue.parse_args(
        ['--lr', '1e-5', '--tasks', 'SST', 'RTE', 'SST-2', '--seeds', '3', '1', '3', '--gpu']
    )
    assert (args.tasks, args.seeds) == (['SST-2', 'RTE'], [3, 1])
    assert given == ['--lr', '1e-5', '--gpu']
    args, _, given = glue.parse_args([])
    assert (args.tasks, args.seeds, given) == (['MRPC'], [1, 2, 3, 4, 5], [])
    args, _, _ = glue.parse_args(['--tasks', 'all'])
    assert len(args.tasks) == 9


def test_the_hash_follows_what_the_numbers_depend_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'model').mkdir()

    def name(*flags, data='.'):
        _, passed, _ = glue.parse_args(list(flags))
        return glue.digest(glue.collect_settings(passed, Path(data)))

    plain = name()
    assert name('--lr', '5e-5', '--tasks', 'RTE', '--seeds', '9', '--output_dir', 'x') == plain
    assert name('--bert_model', 'model') == name('--bert_model', f'{tmp_path}/model')
    assert name(data=tmp_path) == plain
    others = [name('--lr', '6e-5'), name('--bias_correction'), name(data='model')]
    assert len({plain, *others}) == 4


def test_a_run_of_another_process_is_waited_for(tmp_path, caplog):
    """Two of this script in one folder: the second takes what the first has done."""
    caplog.set_level('INFO')
    results = []
    with open(tmp_path / 'run.log', 'ab') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        run = glue.Run('MRPC', 1, tmp_path)
        thread = threading.Thread(target=lambda: results.append(glue.do_run(run, {}, [])))
        thread.start()
        end = time.time() + 10
        while 'waiting' not in caplog.text and time.time() < end:
            time.sleep(0.01)
        assert f'{tmp_path}: waiting for another process' in caplog.text
        (tmp_path / 'result.json').write_text('{"epochs": []}')
    thread.join(timeout=10)
    assert results == [{'epochs': []}]


def test_a_damaged_record_is_told(tmp_path):
    run = glue.Run('MRPC', 1, tmp_path)
    (tmp_path / 'result.json').write_text('{"epochs"')
    with pytest.raises(ToolkitError, match='result.json: not a JSON object'):
        glue.do_run(run, {}, [])


def test_help_waits_for_no_large_library():
    code = (
        'import sys, glue\n'
        'try: glue.main(["--help"])\n'
        'except SystemExit: print(sorted({"mxnet", "scipy", "sklearn", "tqdm"} & set(sys.modules)))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert '--seeds' in done.stdout and done.stdout.endswith('[]\n')
