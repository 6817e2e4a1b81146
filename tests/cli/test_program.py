"""The ways in which a program ends: exit statuses, sentences and signals."""

import io
import os
import signal
import subprocess
import sys
import types

import pytest
from conftest import ROOT

from bert.cli import program
from bert.system.errors import ToolkitError, UsageError


@pytest.mark.parametrize(
    ('error', 'status', 'sentence'),
    [
        (ToolkitError('the file is empty'), 1, 'the file is empty'),
        (UsageError('no such flag'), 2, 'no such flag'),
        (KeyboardInterrupt(), 130, 'interrupted'),
        (
            FileNotFoundError(2, 'No such file or directory', 'a.tsv'),
            1,
            'a.tsv: No such file or directory',
        ),
        (OSError(28, 'No space left on device'), 1, 'No space left on device'),
        (OSError('something else'), 1, 'something else'),
        (io.UnsupportedOperation('read'), 1, 'standard input or output is closed'),
        (MemoryError(), 1, 'there is not enough memory'),
        (MemoryError('8 TiB are wanted'), 1, 'there is not enough memory: 8 TiB are wanted'),
        (ImportError('libx.so: failed to map segment'), 1, 'libx.so: failed to map segment'),
    ],
)
def test_run_reports_an_error_in_one_sentence(error, status, sentence, monkeypatch, capsys):
    def main():
        raise error

    monkeypatch.setattr(sys, 'argv', ['/some/where/script.py'])
    with pytest.raises(SystemExit) as left:
        program.run(main)
    assert left.value.code == status
    assert capsys.readouterr().err == f'script.py: error: {sentence}\n'


def test_run_lets_success_pass_and_hides_no_defect():
    assert program.run(lambda: None) is None

    def defective():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        program.run(defective)


def test_run_is_silent_when_the_reader_has_left():
    code = (
        'import sys; from bert.cli.program import run\n'
        'def main():\n'
        '    for i in range(100000): print(i)\n'
        '    sys.stdout.flush()\n'
        'run(main)'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b'0\n'
    process.stdout.close()
    assert b'Traceback' not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_an_error_of_mxnet_is_one_sentence(monkeypatch, capsys):
    """MXNet reports a full GPU in pages of stack with the reason in the last line."""

    class MXNetError(RuntimeError):
        pass

    def main():
        raise MXNetError('Traceback:\n  0: malloc\nMXNetError: cudaMalloc failed: out of memory\n')

    monkeypatch.setitem(sys.modules, 'mxnet.base', types.SimpleNamespace(MXNetError=MXNetError))
    with pytest.raises(SystemExit) as caught:
        program.run(main)
    assert caught.value.code == 1
    assert capsys.readouterr().err.endswith(
        ': error: MXNet stopped, MXNetError: cudaMalloc failed: out of memory: '
        'try a smaller --batch_size\n'
    )


# --- signals

SLEEPER = """\
import sys, time
sys.path.insert(0, {root!r})
sys.argv[0] = 'script.py'
from bert.cli.program import run, stop_requests
from bert.system.errors import Stopped

def soon():
    try:
        print('ready', flush=True)
        time.sleep(60)
    finally:
        print('cleaned up', flush=True)
        if {slow}:
            time.sleep(60)

def request():
    with stop_requests() as stop:
        print('ready', flush=True)
        while not stop:
            time.sleep(0.01)
        print('finishing', flush=True)
        if {slow}:
            time.sleep(60)
        raise Stopped(stop[0], 'step 3 is saved')

run({main})
"""


def signalled(main, number, slow=False, ignore=None):
    """Send a signal to a program, and with ``slow`` another one while it cleans up.

    Returns
    -------
    int, str, str
        Its status, stdout and stderr.
    """

    def prepare():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if ignore:
            signal.signal(ignore, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, '-c', SLEEPER.format(root=str(ROOT), slow=slow, main=main)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )
    assert process.stdout.readline() == 'ready\n'
    if ignore:
        process.send_signal(ignore)
    process.send_signal(number)
    printed = process.stdout.readline()
    if slow:
        process.send_signal(number)
    rest, errors = process.communicate(timeout=20)
    return process.returncode, printed + rest, errors


@pytest.mark.parametrize(
    ('number', 'status', 'sentence'),
    [(signal.SIGTERM, 143, 'stopped by SIGTERM'), (signal.SIGINT, 130, 'interrupted')],
)
def test_a_signal_ends_the_program_with_a_sentence(number, status, sentence):
    expected = status, 'cleaned up\n', f'script.py: error: {sentence}\n'
    assert signalled('soon', number) == expected


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_request_is_waited_for(number):
    status, printed, errors = signalled('request', number)
    assert (status, printed) == (128 + number, 'finishing\n')
    assert errors == f'script.py: error: stopped by {number.name}: step 3 is saved\n'


@pytest.mark.parametrize('main', ['soon', 'request'])
def test_the_second_signal_ends_the_program_at_once(main):
    status, _, errors = signalled(main, signal.SIGTERM, slow=True)
    assert (status, errors) == (-signal.SIGTERM, '')


def test_an_ignored_signal_stays_ignored():
    """A shell ignores interrupts for programs in the background."""
    status, _, errors = signalled('request', signal.SIGTERM, ignore=signal.SIGINT)
    assert status == 143 and 'SIGTERM' in errors


def test_a_full_disk_behind_stdout_is_reported():
    if not os.path.exists('/dev/full'):
        pytest.skip('there is no /dev/full')
    code = "from bert.cli.program import run; run(lambda: print('a table'))"
    with open('/dev/full', 'w') as full:
        done = subprocess.run(
            [sys.executable, '-c', code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.stderr.startswith('-c: error: No space left on device\n')
    assert done.returncode and 'Traceback' not in done.stderr


# A module that the program imports early, and that is interrupted while it is loaded.
INTERRUPTED = """\
import os, signal, sys
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    sys.exit('went on')
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize(
    ('words', 'module'),
    [
        (['create_pretraining_data.py'], 'numpy'),
        (['download_glue_data.py'], 'tarfile'),
        (['finetune_classifier.py'], 'numpy'),
        (['glue.py'], 'numpy'),
        (['run_pretraining.py'], 'numpy'),
        (['-m', 'bert.embed'], 'numpy'),
        (['-m', 'bert.cluster'], 'psutil'),
        (['-m', 'bert.convert'], 'numpy'),
        (['-m', 'bert.ops'], 'numpy'),
        (['-m', 'bert.predict'], 'numpy'),
    ],
)
def test_an_interrupt_during_the_imports_leaves_no_traceback(tmp_path, words, module):
    if '-m' in words and not hasattr(sys, 'orig_argv'):
        pytest.skip('before Python 3.10 a module cannot tell how it was started')
    (tmp_path / f'{module}.py').write_text(INTERRUPTED)
    variables = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    variables.pop('OMP_NUM_THREADS', None)

    def start(disposition):
        return subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, disposition),
        )

    done = start(signal.SIG_DFL)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, '')
    assert start(signal.SIG_IGN).stderr == 'went on\n'  # as in a background job


def test_another_program_that_imports_the_package_keeps_its_interrupts(tmp_path):
    """``python -m`` with a package of the user's too."""
    (tmp_path / 'users').mkdir()
    (tmp_path / 'users' / '__init__.py').write_text('import bert')
    (tmp_path / 'users' / 'tool.py').write_text(
        'import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)'
    )
    done = subprocess.run(
        [sys.executable, '-m', 'users.tool'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{tmp_path}'},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.stdout, done.stderr) == ('True\n', '')


def test_too_little_memory_is_one_sentence(tmp_path):
    """More is asked for than the system may give."""
    code = (
        'import resource\n'
        'import numpy as np\n'
        'from bert.cli.program import run\n'
        'def main():\n'
        '    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n'
        "    np.ones(2**33, 'uint8')\n"
        'run(main)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    expected = '-c: error: there is not enough memory: Unable to allocate 8.00 GiB '
    assert done.returncode == 1 and done.stderr.startswith(expected)
    assert done.stderr.count('\n') == 1
