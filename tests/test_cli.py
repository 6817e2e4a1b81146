"""Flags, exit statuses, sentences and log lines that all scripts share."""

import argparse
import logging
import os
import signal
import subprocess
import sys
import types

import pytest
from conftest import ROOT

from bert.cli import console, flags, program
from bert.system import errors as system_errors
from bert.system.errors import ToolkitError, UsageError


@pytest.fixture
def root_logger():
    """Give the root logger back its handlers after a test that set it up."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    for handler in logger.handlers[:]:
        if handler not in handlers:
            handler.close()
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.parametrize(
    ('kind', 'right', 'wrong'),
    [
        (flags.positive_int, {'1': 1, '32': 32}, ['0', '-1', '1.5', 'x', '']),
        (flags.natural, {'0': 0, '7': 7}, ['-1', '0.5', 'x']),
        (flags.seed, {'0': 0, '2147483647': 2**31 - 1}, ['-1', '2147483648', 'x']),
        (flags.positive_float, {'2e-5': 2e-5, '1': 1.0}, ['0', '-1e-5', 'nan', 'inf', 'x']),
        (flags.fraction, {'0': 0.0, '0.1': 0.1}, ['1', '-0.1', 'nan', 'x']),
        (flags.gpu_list, {'0': [0], '2,0': [2, 0]}, ['', '0,', '0,0', '-1', 'a', '0 1']),
    ],
)
def test_number_types(kind, right, wrong):
    for text, value in right.items():
        assert kind(text) == value
    for text in wrong:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            kind(text)
        # The sentence repeats what was given and goes on with what is allowed.
        assert str(caught.value).startswith(f'{text!r} is not a')


def test_a_wrong_number_ends_with_status_2_and_names_the_flag(capsys):
    parser = flags.Parser('Test.')
    parser.add_argument('--epochs', type=flags.positive_int, default=3)
    with pytest.raises(SystemExit) as left:
        parser.parse_args(['--epochs', 'none'])
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert "argument --epochs: 'none' is not a whole number of at least 1" in message


def test_flags_are_not_abbreviated():
    parser = flags.Parser('Test.')
    parser.add_argument('--epochs', type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(['--epoch', '3'])


def test_help_shows_defaults_but_no_empty_ones():
    parser = flags.Parser('Test.\n  Two lines.')
    parser.add_argument('--lr', default=5e-5, help='peak rate')
    parser.add_argument('--gpu', action='store_true', help='use it')
    parser.add_argument('--name', help='a name')
    text = parser.format_help()
    assert 'Test.\n  Two lines.' in text
    assert 'peak rate (default: 5e-05)' in text
    assert text.count('default') == 1


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
    ],
)
def test_run_tells_an_error_in_one_sentence(error, status, sentence, monkeypatch, capsys):
    def main():
        raise error

    monkeypatch.setattr(sys, 'argv', ['/some/where/script.py'])
    with pytest.raises(SystemExit) as left:
        program.run(main)
    assert left.value.code == status
    assert capsys.readouterr().err == f'script.py: error: {sentence}\n'


def test_what_a_file_says_becomes_one_line_of_limited_length():
    error = system_errors.ToolkitError('x: the label \x1b[2J\n\x00é\u2028 is wrong')
    assert str(error) == 'x: the label \\x1b[2J\\n\\x00é\\u2028 is wrong'
    for letter in ('a', '\x00'):  # of which one takes four characters
        sentence = str(system_errors.UsageError('begin ' + letter * 10**6 + ' end'))
        assert len(sentence) < 2100
        assert sentence.startswith('begin ') and sentence.endswith(' end')


def test_run_lets_success_pass_and_hides_no_defect():
    assert program.run(lambda: None) is None

    def defective():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        program.run(defective)


def test_run_is_silent_when_the_reader_has_left():
    code = (
        'import sys; from bert.cli import run\n'
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


def test_log_lines_are_held_back_until_there_is_a_file(tmp_path, root_logger, capsys):
    memory = console.start_logging()
    logging.info('first')
    logging.debug('not told')
    path = tmp_path / 'run.log'
    assert not path.exists()
    console.log_to_file(memory, path)
    logging.warning('second %d', 2)
    assert path.read_text() == 'INFO:root:first\nWARNING:root:second 2\n'
    assert capsys.readouterr().err == 'INFO:root:first\nWARNING:root:second 2\n'


def test_a_second_run_does_not_write_into_the_first_log(tmp_path, root_logger):
    for name in ('one', 'two'):
        console.log_to_file(console.start_logging(), tmp_path / name)
        logging.info(name)
    assert (tmp_path / 'one').read_text() == 'INFO:root:one\n'
    assert (tmp_path / 'two').read_text() == 'INFO:root:two\n'


def test_progress_shows_nothing_without_a_terminal(capsys):
    with console.progress(3, 'epoch 1', 'batch') as bar:
        for _ in range(3):
            bar.update()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ''


def test_an_error_of_mxnet_is_one_sentence(monkeypatch, capsys):
    """As MXNet words it when a GPU is full: pages of stack, and the reason last."""

    class MXNetError(RuntimeError):
        pass

    def main():
        raise MXNetError('Traceback:\n  0: malloc\nMXNetError: cudaMalloc failed: out of memory\n')

    monkeypatch.setitem(sys.modules, 'mxnet', types.SimpleNamespace(MXNetError=MXNetError))
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
from bert.cli import Stopped, run, stop_requests

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
    """Send a program a signal, and with ``slow`` another one while it cleans up.

    Returns
    -------
    int, str, str
        Its status, what it printed, and what it said on stderr.
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
    ('number', 'status', 'told'),
    [(signal.SIGTERM, 143, 'stopped by SIGTERM'), (signal.SIGINT, 130, 'interrupted')],
)
def test_a_signal_ends_the_program_with_a_sentence(number, status, told):
    expected = status, 'cleaned up\n', f'script.py: error: {told}\n'
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
    """As a shell does it for what runs in the background."""
    status, _, errors = signalled('request', signal.SIGTERM, ignore=signal.SIGINT)
    assert status == 143 and 'SIGTERM' in errors


def test_a_log_file_that_cannot_grow_is_told():
    if not os.path.exists('/dev/full'):
        pytest.skip('there is no /dev/full')
    code = (
        'import logging; from bert import cli\n'
        'def main():\n'
        "    cli.log_to_file(cli.start_logging(), '/dev/full')\n"
        "    logging.info('first')\n"
        'cli.run(main)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    told = '-c: error: /dev/full: could not be written (No space left on device)\n'
    assert (done.returncode, done.stderr) == (1, f'INFO:root:first\n{told}')


def test_a_full_disk_behind_stdout_is_told():
    if not os.path.exists('/dev/full'):
        pytest.skip('there is no /dev/full')
    code = "from bert.cli import run; run(lambda: print('a table'))"
    with open('/dev/full', 'w') as full:
        done = subprocess.run(
            [sys.executable, '-c', code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.stderr.startswith('-c: error: No space left on device\n')
    assert done.returncode and 'Traceback' not in done.stderr
