"""create_pretraining_data.py --scheduler: the same files from other workers, and its failures.

The workers are processes on this machine; PYTHONPATH hides what some of them must not find.
"""

import contextlib
import hashlib
import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT, WORDS, failure, tiny_vocab

import create_pretraining_data
from bert.pretraining import dask

pytest.importorskip('distributed.client')
FLAGS = ['--vocab_file=vocab.txt', '--do_lower_case']
# Each of these outputs takes some seconds.
SLOW = ['--output_dir=d', '--num_outputs=4', '--dupe_factor=1500']


def story(documents):
    words, rng = WORDS.split(), random.Random(1)
    return '\n\n'.join(
        '\n'.join(' '.join(rng.choices(words, k=rng.randint(1, 40))) for _ in range(5))
        for _ in range(documents)
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a folder, where no worker is, with a vocabulary and a text; return its path."""
    monkeypatch.chdir(tmp_path)
    Path('vocab.txt').write_text('\n'.join(tiny_vocab()) + '\n')
    Path('text.txt').write_text(story(documents=40))
    return tmp_path


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def started(*command, path=None):
    """Start a Dask process that ends with the block."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(path or ROOT)}
    process = subprocess.Popen(
        [sys.executable, '-m', 'dask', *command, '--no-dashboard'],
        env=environment, cwd='/', stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


@contextlib.contextmanager
def scheduler(path=None):
    address = f'127.0.0.1:{free_port()}'
    host, _, port = address.partition(':')
    with started('scheduler', '--host', host, '--port', port, path=path) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                break
            time.sleep(0.1)
        yield address, process


def worker(address, path=None):
    """Start a worker process that is not restarted if it is killed."""
    return started('worker', address, '--nthreads', '1', '--no-nanny', path=path)


@pytest.fixture(scope='module')
def cluster():
    """Start a scheduler with two workers; return its address."""
    with scheduler() as (address, _), worker(address), worker(address):
        yield address


COMMAND = [sys.executable, str(ROOT / 'create_pretraining_data.py'), '--input_file=text.txt']


def run(*flags):
    """Run the script as a program."""
    return subprocess.run([*COMMAND, *FLAGS, *flags], capture_output=True, text=True, timeout=100)


def start(*flags):
    return subprocess.Popen([*COMMAND, *FLAGS, *flags], stderr=subprocess.PIPE, text=True)


def main(*flags, inputs='text.txt'):
    """Run the script in this process."""
    return create_pretraining_data.main([f'--input_file={inputs}', *FLAGS, *flags])


def sums(folder):
    """Return the sha256 of all files in a folder, including hidden ones."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(folder).iterdir()}


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def half_written():
    return list(Path('d').glob('.part-*.bert.tmp')) if Path('d').exists() else []


# The same files.


def test_the_same_bytes_as_on_this_machine(here, cluster):
    sentencepiece = pytest.importorskip('sentencepiece')
    sentencepiece.SentencePieceTrainer.train(
        input='text.txt', model_prefix='sp', vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    for i, flags in enumerate([
        FLAGS,
        [*FLAGS, '--format=recordio'],
        ['--sentencepiece=sp.model', '--sp_nbest=-1', '--sp_alpha=0.1'],
        *([[*FLAGS, '--segment']] if importlib.util.find_spec('sentencex') else []),
    ]):  # fmt: skip
        flags = ['--input_file=text.txt', *flags, '--num_outputs=4', '--dupe_factor=3']
        made_here = create_pretraining_data.main([*flags, f'--output_dir=a{i}', '--num_workers=1'])
        made_there = create_pretraining_data.main(
            [*flags, f'--output_dir=b{i}', '--scheduler', cluster]
        )
        assert sums(f'a{i}') == sums(f'b{i}')
        assert len(sums(f'a{i}')) == (8 if 'recordio' in ''.join(flags) else 4)
        assert made_here['instances'] == made_there['instances']


def test_as_a_program(here, cluster):
    """As a program, the script is ``__main__``, which the workers do not have."""
    main('--output_file=a')
    done = run('--output_file=b', '--scheduler', cluster)
    assert (done.returncode, done.stdout) == (0, '')
    assert done.stderr.splitlines()[-1].startswith('INFO:root:Time cost=')
    assert Path('a.npz').read_bytes() == Path('b.npz').read_bytes()


def test_a_killed_worker(here):
    """Another one makes its output again, and its half-written file is removed."""
    main(*SLOW[1:], '--output_dir=a', '--num_workers=2')
    with scheduler() as (address, _), worker(address) as first, worker(address):
        process = start(*SLOW, '--scheduler', address)
        # One output per worker, and their beacon.
        wait_for(lambda: len(half_written()) >= 3)
        first.kill()
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert 'Traceback' not in errors
    assert sums('a') == sums('d')


def test_interrupted(here, cluster):
    """The workers stop too and leave nothing behind."""
    process = start(*SLOW[:2], '--dupe_factor=20000', '--scheduler', cluster)
    wait_for(lambda: len(half_written()) >= 3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == 'create_pretraining_data.py: error: interrupted'
    assert 'Traceback' not in errors
    wait_for(lambda: not half_written())
    assert list(Path('d').iterdir()) == []


def test_leftovers_of_an_earlier_run_are_removed(here, cluster):
    Path('d').mkdir()
    for name in ('.part-000.npz.abc.bert.tmp', '.other.npz.abc.bert.tmp'):
        Path('d', name).write_text('half')
    main('--output_dir=d', '--scheduler', cluster)
    assert sorted(os.listdir('d')) == ['.other.npz.abc.bert.tmp', 'part-000.npz']


# What can fail.


def fails(*flags):
    """Return the single sentence that the program ends with, after nothing but log lines."""
    done = run(*flags)
    *log, last = done.stderr.splitlines()
    assert done.returncode == 1 and last.startswith('create_pretraining_data.py: error: ')
    assert all(line.startswith(('INFO:root:', 'WARNING:root:')) for line in log), done.stderr
    assert half_written() == []
    return last.partition(': error: ')[2]


def test_an_error_in_the_text(here, cluster):
    Path('text.txt').write_bytes(b'a\n\xff\n')
    assert fails('--output_dir=d', '--scheduler', cluster) == (
        f'{here}/text.txt:2: not valid UTF-8'
    )


def test_no_scheduler(here, monkeypatch):
    monkeypatch.setattr(dask, 'CONNECT_SECONDS', 1)
    port = free_port()
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen()
        for address in (f'127.0.0.1:{port}', f'127.0.0.1:{silent.getsockname()[1]}'):
            assert failure(main, '--output_dir=d', '--scheduler', address) == (
                f'no Dask scheduler answers at {address} within 1 seconds'
            )
    assert not Path('d').exists()


def test_the_address_of_a_worker(here):
    port = str(free_port())
    with scheduler() as (address, _), started(
        'worker', address, '--no-nanny', '--worker-port', port, path=ROOT
    ):
        other = f'127.0.0.1:{port}'
        wait_for(lambda: main('--output_file=x', '--scheduler', address), 60)
        assert failure(main, '--output_dir=d', '--scheduler', other) == (
            f'{other} is the address of a worker, not of the scheduler'
        )


def test_no_workers(here, monkeypatch):
    monkeypatch.setattr(dask, 'PATIENCE_SECONDS', 1)
    with scheduler() as (address, _):
        assert failure(main, '--output_dir=d', '--scheduler', address) == (
            f'the scheduler at {address} has had no workers for 1 seconds; start some with: '
            f'dask worker {address}'
        )
    assert list(Path('d').iterdir()) == []


def test_all_workers_are_lost(here, monkeypatch):
    monkeypatch.setattr(dask, 'PATIENCE_SECONDS', 3)
    with scheduler() as (address, _), worker(address) as only:

        def kill():
            wait_for(lambda: len(half_written()) >= 2)
            only.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        sentence = failure(main, *SLOW, '--scheduler', address)
        thread.join()
    assert sentence.startswith(f'the scheduler at {address} has had no workers for 3 seconds')
    assert half_written() == []


def test_the_scheduler_is_lost(here):
    with scheduler() as (address, process), worker(address):
        client = start(*SLOW, '--dupe_factor=20000', '--scheduler', address)
        wait_for(lambda: len(half_written()) >= 2)
        process.kill()
        _, errors = client.communicate(timeout=100)
    assert client.returncode == 1
    assert errors.splitlines()[-1].endswith(f'error: the scheduler at {address} no longer answers')
    assert 'Traceback' not in errors
    wait_for(lambda: not half_written())


def test_an_output_whose_workers_are_killed(here, monkeypatch):
    monkeypatch.setenv('DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES', '0')
    with scheduler() as (address, _), worker(address) as only:
        client = start(*SLOW, '--scheduler', address)
        wait_for(lambda: len(half_written()) >= 2)
        only.kill()
        _, errors = client.communicate(timeout=100)
    assert client.returncode == 1
    assert 'was given up because one worker after another was killed' in errors.splitlines()[-1]
    assert 'Traceback' not in errors
    assert half_written() == []


@pytest.mark.parametrize('who', ['scheduler', 'worker'])
def test_a_machine_without_this_project(here, who):
    Path('hidden').mkdir()
    Path('hidden', 'bert.py').write_text('raise ModuleNotFoundError("No module named \'bert\'")\n')
    hidden = here / 'hidden'
    with scheduler(hidden if who == 'scheduler' else None) as (address, _), worker(
        address, hidden if who == 'worker' else None
    ):
        sentence = fails('--output_dir=d', '--scheduler', address)
    assert sentence.startswith(f'the {who} at ')
    assert ' cannot run this project (' in sentence and "No module named 'bert'" in sentence


@pytest.mark.parametrize('name, flags', [('numpy', []), ('sentencex', ['--segment'])])
def test_another_version(here, name, flags):
    pytest.importorskip(name)
    information = here / 'other' / f'{name}-0.1.dist-info'
    information.mkdir(parents=True)
    (information / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n')
    path = f'{here / "other"}{os.pathsep}{ROOT}'
    with scheduler() as (address, _), worker(address, path=path):
        sentence = fails('--output_dir=d', '--scheduler', address, *flags)
    assert f' has {name} 0.1, this machine (' in sentence
    assert sentence.endswith('since the bytes of the outputs depend on them')


def test_files_that_the_workers_do_not_see(here, cluster):
    """The path means a different file, or none, in every process."""
    with open('text.txt') as file:
        path = f'/proc/self/fd/{file.fileno()}'
        if not os.path.isfile(path):
            pytest.skip('needs /proc')
        sentence = failure(main, '--output_dir=d', '--scheduler', cluster, inputs=path)
    assert sentence.startswith('the worker at tcp://127.0.0.1:')
    assert f' does not see {path} as it is here: all machines must share the files' in sentence
