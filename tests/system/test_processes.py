"""Processes that exclude each other; the signals of workers, and their end with their parent."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from bert.system import processes
from bert.system.errors import ToolkitError
from bert.system.processes import alone, locked

HOLD = """
import sys
from bert.system.processes import alone, locked
with alone(sys.argv[1]):
    print('held', flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize('name', ['', 'file'])
def test_a_place_is_held_until_its_process_has_ended(tmp_path, name):
    """Even if it is killed. A file is held before it exists, and leaves no trace of it."""
    place = tmp_path / name
    command = [sys.executable, '-c', HOLD, str(place)]
    other = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout.readline() == 'held\n'
        with pytest.raises(ToolkitError) as caught, alone(place):
            raise AssertionError('it is not held')
        assert str(caught.value).startswith(f'{place}: another program is writing there')
        other.kill()
    with alone(place), alone(tmp_path / 'another'):
        pass
    assert os.listdir(tmp_path) == []


def test_a_missing_folder(tmp_path):
    with pytest.raises(ToolkitError) as caught, alone(tmp_path / 'gone' / 'file'):
        raise AssertionError('it is not there')
    sentence = f'{tmp_path}/gone/file: could not be written (No such file or directory)'
    assert str(caught.value) == sentence


@pytest.mark.parametrize('number', processes.SIGNALS)
def test_signals_are_held_back(number):
    """Even one that another thread of this process takes."""

    class Arrived(Exception):
        pass

    def arrive(signum, frame):
        raise Arrived

    over, inside = threading.Event(), False
    thread = threading.Thread(target=over.wait)
    thread.start()
    before = signal.signal(number, arrive)
    try:
        with pytest.raises(Arrived), processes.holding_signals():
            assert set(processes.SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
            os.kill(os.getpid(), number)
            time.sleep(0.1)
            inside = True
        assert inside
        assert not set(processes.SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert signal.getsignal(number) is arrive
    finally:
        signal.signal(number, before)
        over.set()
        thread.join()


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with processes.holding_signals():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# A worker gets Ctrl-C before it is set up: at once after its start.
POOL = """\
import multiprocessing, os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from bert.system import processes

if __name__ == '__main__':
    kind, set_up = sys.argv[1:]
    context = multiprocessing.get_context(kind)
    with ProcessPoolExecutor(1, context, getattr(processes, set_up)) as executor:
        with processes.holding_signals():
            future = executor.submit(abs, -5)
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGINT)
        try:
            print(future.result())
        except (Exception, SystemExit) as error:
            print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ('kind', 'set_up', 'printed'),
    [
        ('spawn', 'ignore_signals', ['5\n']),
        # It may have been at work, or even in the call.
        ('fork', 'exit_on_signals', ['5\n', 'BrokenProcessPool\n', 'SystemExit\n']),
    ],
)
def test_a_worker_that_is_interrupted_before_it_works_is_silent(tmp_path, kind, set_up, printed):
    (tmp_path / 'pool.py').write_text(POOL)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', str(tmp_path / 'pool.py'), kind, set_up],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout in printed


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux ends a process with its parent')
def test_an_orphan_does_not_begin():
    """A process whose parent was killed before it could ask for its end ends by itself."""
    code = (
        'import os\n'
        'from bert.system.processes import kill_with_parent\n'
        'follow = kill_with_parent()\n'
        'for generation in range(2):\n'
        '    if os.fork():\n'
        '        os.wait()\n'
        '        os._exit(0)\n'
        '    follow()\n'
        "    print('generation', generation, flush=True)\n"
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('generation 0\n', '')


# --- locks

LOCK = """
import os, sys, time
from bert.system.processes import locked
for _ in range(20):
    with locked(sys.argv[1] + '/lock'):
        open(sys.argv[1] + '/only', 'x').close()
        time.sleep(0.001)
        os.unlink(sys.argv[1] + '/only')
"""


def test_one_process_at_a_time_holds_a_lock_and_none_leaves_it(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, '-c', LOCK, str(tmp_path)], cwd=ROOT) for _ in range(4)
    ]
    assert [process.wait() for process in processes] == [0] * 4
    assert os.listdir(tmp_path) == []


def test_a_lock_left_by_a_killed_process_is_free(tmp_path):
    (tmp_path / 'lock').touch()
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / 'lock'):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_lock_that_cannot_be_made(tmp_path):
    path = tmp_path / 'folder' / 'lock'
    path.mkdir(parents=True)
    with pytest.raises(ToolkitError) as caught, locked(path):
        pass
    assert str(caught.value) == f'{path}: could not be locked (Is a directory)'
