"""Runs in separate processes, here of a small script instead of finetune_classifier.py."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from bert.experiments import runs
from bert.system.errors import ToolkitError
from bert.tasks.table import TASKS

# It writes the files that glue.py reads; on request it waits for another run, or fails.
CHILD = """\
import argparse, json, os, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
for flag in ('--task_name', '--seed', '--output_dir', '--wait', '--fail', '--gpus'):
    parser.add_argument(flag)
args = parser.parse_args()
print('started', flush=True)
folder = Path(args.output_dir)
(folder / 'seen.json').write_text(json.dumps({
    'threads': os.environ.get('OMP_NUM_THREADS'), 'gpu': os.environ.get('CUDA_VISIBLE_DEVICES')}))
if args.fail == args.seed:
    sys.exit('bad data')
while args.wait and len(list(Path(args.wait).rglob('seen.json'))) < 2:
    time.sleep(0.01)
for epoch in (0, 1):
    (folder / f'model_bert_X_{epoch}.params').write_text('')
(folder / 'finetune.json').write_text(json.dumps({
    'epochs': [{'dev': {'accuracy': 0.5}, 'seconds': 1.0}], 'best_epoch': 1,
    'parameters': 'model_bert_X_0.params'}))
"""


RECORD = {
    'epochs': [{'dev': {'accuracy': 0.25}}],
    'best_epoch': 1,
    'seconds': 3.0,
    'machine': {'memory': '1 GiB'},
}


@pytest.fixture
def script(tmp_path):
    path = tmp_path / 'child.py'
    path.write_text(CHILD)
    return path


def make(script, *flags, seeds=(1, 2), devices=()):
    """Make runs of a task, and its plan."""
    folder = script.parent / 'out'
    made = [runs.Run('RTE', seed, folder / f'seed-{seed}') for seed in seeds]
    command = [sys.executable, str(script), *flags]
    return made, {'RTE': runs.Plan(command, {'lr': 1}, {}, list(devices), TASKS['RTE'])}


def seen(run):
    return json.loads((run.folder / 'seen.json').read_text())


def test_one_after_the_other(script, caplog):
    caplog.set_level('INFO')
    made, plans = make(script)
    records = runs.do_runs(made, plans, 1)
    assert list(records) == made
    record = json.loads((made[0].folder / 'result.json').read_text())
    assert record == records[made[0]]
    assert (record['task'], record['seed'], record['settings']) == ('RTE', 1, {'lr': 1})
    assert record['seconds'] > 0
    assert sorted(path.name for path in made[0].folder.glob('*.params')) == [
        'model_bert_X_0.params'
    ]
    assert [line.split(':')[0] for line in caplog.messages] == [
        '[1/2] RTE seed 1',
        '[2/2] RTE seed 2',
    ]


def test_two_at_once(script, monkeypatch):
    """Each waits until the other has started; they share the threads."""
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    made, plans = make(script, '--wait', str(script.parent / 'out'))
    assert len(runs.do_runs(made, plans, 2)) == 2
    assert [seen(run) for run in made] == [{'threads': '2', 'gpu': None}] * 2


@pytest.mark.parametrize(
    ('threads', 'visible', 'expected'),
    [
        ('1', None, [{'threads': '1', 'gpu': '0'}, {'threads': '1', 'gpu': '3'}]),
        ('4,2', '7,6,5,4', [{'threads': '2', 'gpu': '7'}, {'threads': '2', 'gpu': '4'}]),
    ],
)
def test_each_has_a_gpu_of_its_own(script, monkeypatch, threads, visible, expected):
    """The numbers refer to CUDA_VISIBLE_DEVICES if the user has set it."""
    monkeypatch.setenv('OMP_NUM_THREADS', threads)
    if visible:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    else:
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    made, plans = make(script, '--wait', str(script.parent / 'out'), devices=[0, 3])
    runs.do_runs(made, plans, 2)
    assert [seen(run) for run in made] == expected


def test_a_slot_is_used_again(script, monkeypatch):
    """Five runs on two GPUs: never a third one."""
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    made, plans = make(script, seeds=range(5), devices=[2, 3])
    assert len(runs.do_runs(made, plans, 2)) == 5
    assert {seen(run)['gpu'] for run in made} == {'2', '3'}


def test_one_at_once_keeps_its_environment(script, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '6')
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    made, plans = make(script, seeds=[1], devices=[2, 3])
    runs.do_runs(made, plans, 1)
    assert seen(made[0]) == {'threads': '6', 'gpu': None}


def test_finished_runs_are_not_done_again(script, caplog):
    caplog.set_level('INFO')
    made, plans = make(script)
    made[1].folder.mkdir(parents=True)
    (made[1].folder / 'result.json').write_text(json.dumps(RECORD))
    records = runs.do_runs(made, plans, 1)
    assert records[made[1]] == RECORD
    assert not (made[1].folder / 'seen.json').exists()
    assert '(done before)' not in caplog.messages[0]
    assert caplog.messages[1].startswith('[2/2] RTE seed 2: last accuracy 0.2500, ')
    assert caplog.messages[1].endswith(' (done before)')


def test_failures_leave_the_others_alone(script, caplog):
    """One run fails, the record of one is damaged, and the folder of one cannot be made."""
    made, plans = make(script, '--fail', '2', seeds=[1, 2, 3, 4])
    made[2].folder.mkdir(parents=True)
    (made[2].folder / 'result.json').write_text('{"epochs"')
    made[3] = runs.Run('RTE', 4, script / 'a file is no folder')
    caplog.set_level('INFO')
    assert list(runs.do_runs(made, plans, 2)) == [made[0]]
    errors = [r.getMessage() for r in caplog.records if r.levelname == 'ERROR']
    assert len(errors) == 3
    log = made[1].folder / 'run.log'
    assert any(e.endswith(f'RTE seed 2 failed: bad data; its log is {log}') for e in errors)
    assert any('result.json: not a JSON object' in error for error in errors)
    assert any('RTE seed 4 failed: ' in error and 'Not a directory' in error for error in errors)
    assert not (made[1].folder / 'result.json').exists()
    # Once more: only the failed runs are tried again, and the log of a failure is replaced.
    before = (made[0].folder / 'seen.json').stat().st_mtime_ns
    plans['RTE'] = plans['RTE']._replace(command=plans['RTE'].command[:2])
    assert list(runs.do_runs(made[:2], plans, 1)) == made[:2]
    assert (made[0].folder / 'seen.json').stat().st_mtime_ns == before
    assert log.read_text() == 'started\n'


def test_explain_failure(tmp_path):
    log = tmp_path / 'run.log'
    log.write_bytes(b'INFO:root:step\nValueError: \xff no\n\n')
    assert runs.explain_failure(1, log) == f'ValueError: \ufffd no; its log is {log}'
    killed = runs.explain_failure(-9, log)
    assert killed == f'ended by signal 9 (Killed); its log is {log}'
    log.write_text('')
    assert runs.explain_failure(1, log).startswith('it wrote nothing; ')


def test_a_run_of_another_process_is_waited_for(script, caplog):
    """The others are done meanwhile; then the other process's record is read."""
    caplog.set_level('INFO')
    made, plans = make(script)
    made[0].folder.mkdir(parents=True)
    results = {}
    with open(made[0].folder / 'run.log', 'ab') as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: results.update(runs.do_runs(made, plans, 1)))
        thread.start()
        end = time.time() + 20
        while '[1/2] RTE seed 2' not in caplog.text and time.time() < end:
            time.sleep(0.01)
        assert caplog.text.count(f'{made[0].folder}: waiting for another process') == 1
        (made[0].folder / 'result.json').write_text(json.dumps(RECORD))
    thread.join(timeout=20)
    assert results[made[0]] == RECORD and made[1] in results


PARENT = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bert.experiments import runs
from bert.tasks.table import TASKS
command = [sys.executable, sys.argv[2], '--wait', '/nonexistent']
plan = runs.Plan(command, {}, {}, [], TASKS['RTE'])
folder = Path(sys.argv[3])
runs.do_runs([runs.Run('RTE', n, folder / str(n)) for n in (1, 2)], {'RTE': plan}, 2)
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_runs_end_with_the_script(script, tmp_path, number):
    """It leaves no run behind, whether it is interrupted, terminated or killed."""
    if number != signal.SIGINT and sys.platform != 'linux':
        pytest.skip('only Linux ends a process with its parent')
    process = subprocess.Popen(
        [sys.executable, '-c', PARENT, str(ROOT), str(script), str(tmp_path / 'out')],
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'OMP_NUM_THREADS': '2'},
    )
    end = time.time() + 30
    while len(list((tmp_path / 'out').glob('*/seen.json'))) < 2:
        assert process.poll() is None and time.time() < end
        time.sleep(0.01)
    children = psutil.Process(process.pid).children()
    assert len(children) == 2
    process.send_signal(number)
    process.wait(timeout=20)
    psutil.wait_procs(children, timeout=10)
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]


def test_the_folder_may_look_like_a_flag(script, monkeypatch):
    monkeypatch.chdir(script.parent)
    run = runs.Run('RTE', 1, Path('-x'))
    _, plans = make(script)
    assert list(runs.do_runs([run], plans, 1)) == [run]


@pytest.mark.parametrize('content', [{}, {'epochs': [], 'best_epoch': 1}, {'epochs': 5}])
def test_a_record_of_another_shape_is_reported(script, content):
    made, plans = make(script)
    made[0].folder.mkdir(parents=True)
    path = made[0].folder / 'result.json'
    path.write_text(json.dumps(content))
    error = runs.begin(made[0], plans['RTE'], 0, 1)
    assert isinstance(error, ToolkitError)
    assert str(error) == (
        f'{path}: not the results of RTE seed 1; without this file it is run again'
    )


def test_results_of_another_shape_fail(script):
    script.write_text(script.read_text().replace("'accuracy'", "'accuracy\\n'"))
    made, plans = make(script, seeds=[1])
    assert runs.do_runs(made, plans, 1) == {}
    assert not (made[0].folder / 'result.json').exists()


def test_a_damaged_record_is_reported(script):
    made, plans = make(script)
    made[0].folder.mkdir(parents=True)
    (made[0].folder / 'result.json').write_text('{"epochs"')
    error = runs.begin(made[0], plans['RTE'], 0, 1)
    assert isinstance(error, ToolkitError)
    assert str(error).endswith('result.json: not a JSON object')
    # The lock is free again.
    with open(made[0].folder / 'run.log', 'ab') as log:
        assert runs.lock(log)
