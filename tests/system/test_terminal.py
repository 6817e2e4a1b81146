"""What reaches a terminal, and streams that are closed, full or of another encoding."""

import logging
import os
import subprocess
import sys
import unicodedata

import pytest
from conftest import ROOT

from bert.cli import console
from bert.system import terminal

# The window is renamed, the screen cleared and the rest of the line written backwards.
HOSTILE = 'a\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\u202edab\u2066\nINFO:root:Best epoch 1'
HARMLESS = 'a\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\x7f\\r\\u202edab\\u2066\\nINFO:root:Best epoch 1'


def test_what_a_terminal_obeys_is_escaped():
    """Unicode's own tables say what are controls and which marks change the direction."""
    every = ''.join(map(chr, range(2**16)))
    changed = {c for c in every if terminal.escape(c) != c}
    controls = {c for c in every if unicodedata.category(c) in ('Cc', 'Cs', 'Zl', 'Zp')}
    directed = {'LRE', 'RLE', 'LRO', 'RLO', 'PDF', 'LRI', 'RLI', 'FSI', 'PDI'}
    overrides = {c for c in every if unicodedata.bidirectional(c) in directed}
    assert len(controls) > 2048 and len(overrides) == 9
    assert controls | overrides | {'\u061c', '\u200e', '\u200f', '\ufeff'} <= changed
    assert not [c for c in changed if unicodedata.category(c)[0] in 'LMNPS']
    assert terminal.escape(HOSTILE) == HARMLESS
    assert terminal.escape('größe 今天 \U0001f469') == 'größe 今天 \U0001f469'
    assert terminal.escape('a\tb\n', keep='\t') == 'a\tb\\n'


def test_a_printed_line_stays_one(capsys):
    terminal.show('a table', f'{HOSTILE}\tx')
    assert capsys.readouterr().out == f'a table\n{HARMLESS}\tx\n'


def test_no_name_forges_a_line_of_a_log(tmp_path, root_logger, capsys):
    memory = console.start_logging()
    logging.info('the label %s', HOSTILE)
    console.log_to_file(memory, tmp_path / 'a.log')
    logging.warning('%s\tx', HOSTILE)
    expected = f'INFO:root:the label {HARMLESS}\nWARNING:root:{HARMLESS}\tx\n'
    assert (tmp_path / 'a.log').read_text(encoding='utf8') == expected
    assert capsys.readouterr().err == expected


def test_the_name_of_a_progress_bar_is_escaped(monkeypatch, root_logger):
    """Its own control characters are not."""
    written = []

    class Terminal:
        encoding = 'utf8'

        def isatty(self):
            return True

        def write(self, text):
            written.append(text)

        def flush(self):
            pass

    monkeypatch.setattr(sys, 'stderr', Terminal())
    console.start_logging()
    with console.progress(2, HOSTILE, 'batch') as bar:
        bar.update()
    assert HARMLESS in ''.join(written) and HOSTILE not in ''.join(written)
    assert '\r' in ''.join(written)


PROGRAM = """\
import contextlib, logging, os, sys
sys.argv[0] = 'script.py'
from bert.cli import console, flags, program
from bert.system import terminal
def main():
    parser = flags.Parser('Größe.')
    parser.add_argument('name')
    name = parser.parse_args().name
    console.start_logging()
    logging.info('training on größe')
    with open(name, 'w') as file:
        assert file.fileno() > 2  # the number of a stream, and what it prints would end here
    with contextlib.suppress(OSError):  # libffi 3.5 keeps a file open, which may have this number
        os.write(2, b'from C++\\n')
    terminal.show('größe')
program.run(main)
"""


def run(path, redirect='', argument='name', **variables):
    """Run the program above under a shell; return its status, stdout and stderr."""
    command = f'exec "$0" "$@" {redirect}'
    done = subprocess.run(
        ['sh', '-c', command, sys.executable, '-c', PROGRAM, argument],
        cwd=path,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONIOENCODING': 'utf8', **variables},
        capture_output=True,
        encoding='utf8',
    )
    return done.returncode, done.stdout, done.stderr


LOGGED = 'INFO:root:training on größe\nfrom C++\n'
CLOSED = f'{LOGGED}script.py: error: standard input or output is closed\n'
FULL = 'script.py: error: No space left on device\n'


@pytest.mark.parametrize(
    ('redirect', 'status', 'printed', 'errors'),
    [
        ('<&-', 0, 'größe\n', LOGGED),
        ('2>&-', 0, 'größe\n', ''),
        ('>&-', 1, '', CLOSED),
        ('<&- >&- 2>&-', 1, '', ''),
        ('>/dev/full', 1, '', LOGGED + FULL),
    ],
)
def test_a_closed_or_full_stream_is_no_traceback(tmp_path, redirect, status, printed, errors):
    assert run(tmp_path, redirect) == (status, printed, errors)
    assert (tmp_path / 'name').read_text() == ''  # the work was done


def test_a_usage_error_keeps_its_status_without_stderr(tmp_path):
    for redirect in ('2>&-', '2>/dev/full'):
        assert run(tmp_path, redirect, '--none') == (2, '', '')


def test_help_that_cannot_be_printed_is_an_error(tmp_path):
    assert run(tmp_path, '>/dev/full', '--help') == (1, '', FULL)


def test_an_encoding_without_the_letters_does_not_end_the_program(tmp_path):
    found = run(tmp_path, PYTHONIOENCODING='ascii')
    escaped = 'gr\\xf6\\xdfe\n'
    assert found == (0, escaped, LOGGED.replace('größe\n', escaped))
