"""Workers in separate processes: bert/cluster.py, --kvstore, and the loss of a worker."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, WORDS, failure, run_here, stop_at

import bert  # noqa: F401 (prepares for MXNet)
import create_pretraining_data
import finetune_classifier
import run_pretraining
from bert import cluster
from bert.system.errors import Stopped
from bert.training import states

# Runs a script of the project; the worker of the given rank sends a signal to itself at step 7.
DISTURBED = """
import os, sys
sys.path.insert(0, {root!r})
import {script} as script
from bert.cli.program import run
from bert.training import schedule
rank, number = {rank}, {number}
original = schedule.learning_rate

def learning_rate(step, *rest):
    if step == 7 and workers.rank == rank:
        os.kill(os.getpid(), number)
    return original(step, *rest)

def pretrain(args, memory, given):
    global workers
    workers = given
    return main_part(args, memory, given)

main_part, script.pretrain = script.pretrain, pretrain
schedule.learning_rate = learning_rate
run(script.main)
"""


def run_cluster(*command, **kwargs):
    """Run ``python -m bert.cluster`` with two workers; return its exit status and its output."""
    done = subprocess.run(
        [sys.executable, '-m', 'bert.cluster', '--workers', '2', '--', *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        **kwargs,
    )
    return done.returncode, done.stdout


def lines(path):
    """Return the lines of a ``metrics.jsonl`` without the values that depend on the clock."""
    return [
        {
            name: value
            for name, value in json.loads(line).items()
            if name not in ('seconds', 'tokens_per_second', 'samples_per_second')
        }
        for line in (path / 'metrics.jsonl').read_text().splitlines()
    ]


def assert_close(one, other):
    """Compare two lists of lines, whose float32 sums may be computed in a different order."""
    assert len(one) == len(other) > 0
    for ours, theirs in zip(one, other):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            if isinstance(value, dict):
                assert_close([value], [theirs[name]])
            else:
                assert value == pytest.approx(theirs[name], abs=1e-5), (name, ours, theirs)


@pytest.fixture(scope='module')
def flags(tmp_path_factory, tiny_bert_without_dropout):
    """Return flags for 12 steps of pre-training; the last update of a unit has empty parts."""
    folder = tmp_path_factory.mktemp('cluster')
    rng = np.random.default_rng(0)
    words = WORDS.split()
    text = ''.join(
        ''.join(' '.join(rng.choice(words, rng.integers(3, 9))) + '\n' for _ in range(6)) + '\n'
        for _ in range(9)
    )
    (folder / 'text.txt').write_text(text)
    create_pretraining_data.main(
        f'--input_file {folder}/text.txt --output_file {folder}/data --num_workers 1 '
        f'--vocab_file {tiny_bert_without_dropout}/vocab.txt --max_seq_length 24 '
        '--max_predictions_per_seq 4 --do_lower_case --dupe_factor 3'.split()
    )
    data = folder / 'data.npz'
    with np.load(data, allow_pickle=False) as arrays:
        assert 0 < len(arrays['next_sentence_labels']) % 16 <= 8
    return (
        f'--do-training --data {data} --do-eval --data_eval {data} --lr 1e-2 --num_steps 12 '
        f'--bert_model {tiny_bert_without_dropout} --log_interval 1 --ckpt_interval 5'
    ).split()


def disturb(folder, rank, number):
    """Write a training script whose worker of the given rank gets a signal at step 7."""
    path = folder / 'disturbed.py'
    path.write_text(
        DISTURBED.format(root=str(ROOT), script='run_pretraining', rank=rank, number=int(number))
    )
    return path


def test_two_workers_stop_together_and_one_process_goes_on(flags, tmp_path):
    """The numbers are those of one uninterrupted process with batches twice as large."""
    script = disturb(tmp_path, rank=1, number=signal.SIGTERM)
    folder = tmp_path / 'two'
    flags = [*flags, '--eval_interval=4']
    distributed = [*flags, '--batch_size=8', f'--ckpt_dir={folder}']
    status, printed = run_cluster(script, *distributed, '--kvstore=dist_sync')
    assert status == 143, printed
    assert 'stopped by SIGTERM: step 7 is saved' in printed
    assert printed.count('[step 3]') == 1  # only one worker logs
    assert states.saved_steps(folder) == [5, 7]
    run_pretraining.main([*distributed, '--accumulate=2', '--start_step=auto'])
    assert 'start from the beginning' not in (folder / 'pretraining.log').read_text()
    run_pretraining.main([*flags, '--batch_size=16', f'--ckpt_dir={tmp_path / "one"}'])
    assert [line['step'] for line in lines(folder)] == sorted([*range(1, 13), 4, 8, 12])
    assert_close(lines(folder), lines(tmp_path / 'one'))


def test_two_workers_log_an_evaluation_as_one_process_does(flags, capsys):
    """The lines of its steps cover the batches of both; one worker writes them."""
    evaluation = [word for word in flags if word != '--do-training']
    data = evaluation.index('--data')
    del evaluation[data : data + 2]
    evaluation += ['--log_interval=2', '--batch_size_eval=8']
    status, printed = run_cluster('run_pretraining.py', *evaluation, '--kvstore=dist_sync')
    assert status == 0, printed
    run_pretraining.main(evaluation)

    def figures(text):
        found = re.findall(r'^INFO:root:(?:\[step (\d+)\]\t)?(mlm_loss=.*)$', text, re.MULTILINE)
        return [(step, re.sub(r'throughput.*', '', rest)) for step, rest in found]

    expected = figures(capsys.readouterr().err)
    assert [step for step, _ in expected][:2] == ['2', '4'] and expected[-1][0] == ''
    assert figures(printed) == expected


def test_fine_tuning_with_two_workers(tiny_bert_without_dropout, tmp_path, monkeypatch):
    """Two workers resume where one process stopped, and predict the same as one process."""
    glue = write_pairs(tmp_path / 'glue')
    monkeypatch.setenv('GLUE_DIR', str(glue))
    flags = (
        f'--task_name MRPC --bert_model {tiny_bert_without_dropout} --epochs 2 --lr 1e-2 '
        '--log_interval 1 --dev_batch_size 3'
    ).split()
    one = finetune_classifier.main(
        [*flags, '--batch_size=8', '--accumulate=2', f'--output_dir={tmp_path / "one"}']
    )
    folder = tmp_path / 'two'
    stop_at(monkeypatch, 2)
    with pytest.raises(Stopped, match='step 2 is saved'):
        finetune_classifier.main(
            [*flags, '--batch_size=8', '--accumulate=2', f'--output_dir={folder}']
        )
    monkeypatch.undo()
    monkeypatch.setenv('GLUE_DIR', str(glue))
    status, printed = run_cluster(
        'finetune_classifier.py',
        *(*flags, '--batch_size=8', f'--output_dir={folder}', '--resume', '--kvstore=dist_sync'),
    )
    assert status == 0, printed
    assert printed.count('[Epoch 1 Batch 3/3]') == 1
    assert '[Epoch 1 Batch 2/3]' not in printed
    assert_close(lines(folder), lines(tmp_path / 'one'))
    assert (folder / 'MRPC.tsv').read_text() == (tmp_path / 'one' / 'MRPC.tsv').read_text()
    assert json.loads((folder / 'finetune.json').read_text())['best_epoch'] == one['best_epoch']
    with np.load(folder / 'outputs.npz') as ours, np.load(tmp_path / 'one/outputs.npz') as theirs:
        for name in ('dev', 'MRPC'):
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4)


def write_pairs(folder):
    """Write MRPC files with 37 training rows: the last update has one part for two workers."""
    (folder / 'MRPC').mkdir(parents=True)
    rng = np.random.default_rng(1)
    words = WORDS.split()
    for name, count in (('train', 37), ('dev', 10), ('test', 4)):
        rows = ['Quality\t#1 ID\t#2 ID\t#1 String\t#2 String']
        if name == 'test':
            rows = ['index\t#1 ID\t#2 ID\t#1 String\t#2 String']
        for i in range(count):
            pair = '\t'.join(' '.join(rng.choice(words, rng.integers(2, 9))) for _ in range(2))
            rows.append(f'{i % 2}\t1\t2\t{pair}')
        (folder / 'MRPC' / f'{name}.tsv').write_text('\n'.join(rows) + '\n')
    return folder


def start_one_by_one(command, timeout=4):
    """Start the processes of two workers as on several machines, without a launcher."""
    variables = {
        **os.environ,
        'DMLC_PS_ROOT_URI': '127.0.0.1',
        'DMLC_NODE_HOST': '127.0.0.1',
        'DMLC_PS_ROOT_PORT': str(cluster.free_port()),
        'DMLC_NUM_SERVER': '1',
        'DMLC_NUM_WORKER': '2',
    }
    if timeout:
        variables.update(PS_HEARTBEAT_INTERVAL='1', PS_HEARTBEAT_TIMEOUT=str(timeout))
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command), '--kvstore=dist_sync'],
            cwd=ROOT,
            env={**variables, 'DMLC_ROLE': role},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for role in ('scheduler', 'server', 'worker', 'worker')
    ]


def outputs(processes):
    """Wait for all processes, and return what each printed."""
    try:
        return [each.communicate(timeout=300)[0] for each in processes]
    finally:
        for each in processes:
            each.kill()


def check_a_loss(processes, printed, folder):
    """Check the ends of the scheduler, the server and worker 0 after worker 1 was lost."""
    scheduler, server, *workers = printed
    assert [each.returncode for each in processes[:2]] == [1, 1]
    assert 'scheduler of dist_sync: lost worker 1; all others end too' in scheduler
    assert 'server of dist_sync: lost the scheduler' in server
    assert 'worker 0: the scheduler of dist_sync at 127.0.0.1' in ''.join(workers)
    assert f'the last good checkpoint is {folder}/0000005.params' in ''.join(workers)
    assert states.newest(folder)[0] == 5


@pytest.mark.skipif('TEST_SLOWLY' not in os.environ, reason='50 s; set TEST_SLOWLY')
def test_a_lost_worker_is_noticed_within_a_minute(flags, tmp_path):
    """With the heartbeats of docs/machines.rst."""
    script, folder = disturb(tmp_path, rank=1, number=signal.SIGKILL), tmp_path / 'run'
    processes = start_one_by_one([script, *flags, f'--ckpt_dir={folder}'], timeout=None)
    wait_for(lambda: -signal.SIGKILL in [each.poll() for each in processes])
    since = time.monotonic()
    check_a_loss(processes, outputs(processes), folder)
    assert time.monotonic() - since < 60


def wait_for(condition, seconds=240):
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def find_stopped(processes):
    """Return the processes that SIGSTOP has stopped."""
    return [
        each
        for each in processes
        if each.poll() is None and 'State:\tT' in Path(f'/proc/{each.pid}/status').read_text()
    ]


@pytest.mark.skipif(sys.platform != 'linux', reason='no /proc')
def test_a_worker_that_is_stopped_and_goes_on(flags, tmp_path):
    """If it is soon enough, nothing else happens."""
    script, folder = disturb(tmp_path, rank=1, number=signal.SIGSTOP), tmp_path / 'run'
    # Longer than any pause of a busy machine.
    processes = start_one_by_one(
        [script, *flags, '--batch_size=8', f'--ckpt_dir={folder}'], timeout=60
    )
    wait_for(lambda: find_stopped(processes))
    time.sleep(2)  # two heartbeats
    find_stopped(processes)[0].send_signal(signal.SIGCONT)
    printed = outputs(processes)
    assert [each.returncode for each in processes] == [0] * 4, printed
    run_pretraining.main([*flags, '--batch_size=16', f'--ckpt_dir={tmp_path / "one"}'])
    assert_close(lines(folder), lines(tmp_path / 'one'))


@pytest.mark.skipif(sys.platform != 'linux', reason='no /proc')
def test_without_a_supervisor_the_others_notice_a_lost_worker(flags, tmp_path):
    """It is lost as if it had been killed; when it goes on after all, it ends too."""
    script, folder = disturb(tmp_path, rank=1, number=signal.SIGSTOP), tmp_path / 'run'
    processes = start_one_by_one([script, *flags, f'--ckpt_dir={folder}'])
    wait_for(lambda: find_stopped(processes))
    (stopped,) = find_stopped(processes)
    wait_for(lambda: [each.poll() for each in processes].count(1) == 3)
    stopped.send_signal(signal.SIGCONT)
    check_a_loss(processes, outputs(processes), folder)
    assert stopped.returncode == 1


# Scripts that the launcher runs instead of training.
SLEEP = 'import time; time.sleep(60)'
BEHAVIOUR = {
    'each ends well': ('', 0, None),
    'one fails': (
        f'import os\nif os.environ["DMLC_ROLE"] == "worker": exit(3)\n{SLEEP}',
        3,
        'worker 0 ended with status 3: the other processes were stopped',
    ),
    'one is killed': (
        f'import os\nif os.environ["DMLC_ROLE"] == "server": os.kill(os.getpid(), 9)\n{SLEEP}',
        137,
        'server 0 was ended by signal 9 (Killed): the other processes were stopped',
    ),
}


@pytest.mark.parametrize('name', BEHAVIOUR)
def test_all_end_when_one_does(name, tmp_path, monkeypatch, capfd):
    source, expected, sentence = BEHAVIOUR[name]
    (tmp_path / 'script.py').write_text(
        f'import os; open({str(tmp_path)!r} + "/" + str(os.getpid()), "w")\n{source}'
    )
    monkeypatch.setattr(cluster, 'GRACE', 1)
    command = [tmp_path / 'script.py', '--kvstore', 'dist_sync']
    since = time.monotonic()
    assert run_here(cluster.main, [cluster.__file__, '--', *command]) == expected
    # Either worker may fail first.
    printed = ''.join(capfd.readouterr()).replace('worker 1', 'worker 0')
    assert printed == (f'cluster.py: error: {sentence}\n' if sentence else '')
    assert time.monotonic() - since < 30
    assert_gone(tmp_path)


def assert_gone(folder):
    """Assert that all processes that wrote their numbers to a folder have ended."""
    numbers = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(is_running, numbers)):
        time.sleep(0.05)
    assert not any(map(is_running, numbers))
    assert numbers


def is_running(number):
    status = Path(f'/proc/{number}/status')
    return status.exists() and 'State:\tZ' not in status.read_text()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_reach_the_workers_and_no_process_is_left(number, tmp_path):
    (tmp_path / 'script.py').write_text(
        'import os, pathlib, signal, time\n'
        f'folder = pathlib.Path({str(tmp_path)!r})\n'
        'def leave(number, _):\n'
        '    (folder / f"received-{number}-{os.getpid()}").touch()\n'
        '    os._exit(128 + number)\n'
        'for number in (signal.SIGTERM, signal.SIGINT):\n'
        '    signal.signal(number, leave)\n'
        '(folder / str(os.getpid())).touch()\n'
        'time.sleep(60)'
    )
    command = [sys.executable, '-m', 'bert.cluster', '--workers', '3', '--']
    launcher = subprocess.Popen(
        [*command, str(tmp_path / 'script.py'), '--kvstore=dist_sync'], cwd=ROOT
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(list(tmp_path.iterdir())) < 6:
        time.sleep(0.05)
    launcher.send_signal(number)
    expected = -number if number == signal.SIGKILL else 128 + number
    assert launcher.wait(timeout=30) == expected
    assert_gone(tmp_path)
    received = list(tmp_path.glob(f'received-{int(number)}-*'))
    assert len(received) == (0 if number == signal.SIGKILL else 3)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ([], 'no script was named: -- run_pretraining.py and its flags are needed'),
        (
            ['--', 'run_pretraining.py', '--kvstore', 'device'],
            'the command needs --kvstore dist_sync, or its processes train separately',
        ),
        (
            ['--', 'run_pretraining.py', '--kv=local', '--data', 'dist_sync', '--', 'dist_sync'],
            'the command needs --kvstore dist_sync, or its processes train separately',
        ),
    ],
)
def test_launcher_refuses(arguments, sentence):
    assert failure(cluster.parse_args, arguments) == sentence


@pytest.mark.parametrize('words', ['--kvstore dist_sync', '--kv dist_sync', '--k=dist_sync --gpu'])
def test_launcher_takes_a_shortened_flag(words):
    args = cluster.parse_args(['--work', '3', '--', 'run_pretraining.py', *words.split()])
    assert (args.workers, args.command) == (3, ['run_pretraining.py', *words.split()])


@pytest.mark.skipif(importlib.util.find_spec('horovod') is None, reason='no Horovod')
def test_horovod(flags, tmp_path):
    launcher = Path(sys.executable).with_name('horovodrun')
    command = [launcher, '--gloo', '-np', '2', sys.executable, 'run_pretraining.py', *flags]
    folder = tmp_path / 'two'
    subprocess.run(
        [*map(str, command), '--batch_size=8', f'--ckpt_dir={folder}', '--kvstore=horovod'],
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    run_pretraining.main([*flags, '--batch_size=16', f'--ckpt_dir={tmp_path / "one"}'])
    assert_close(lines(folder), lines(tmp_path / 'one'))
