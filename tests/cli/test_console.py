"""Log lines and progress bars."""

import logging
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from bert.cli import console


def test_log_lines_are_held_back_until_there_is_a_file(tmp_path, root_logger, capsys):
    memory = console.start_logging()
    logging.info('first')
    logging.debug('not shown')
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


def test_other_libraries_are_heard_only_if_they_warn(tmp_path, root_logger, capsys, monkeypatch):
    """On a terminal, too, where tqdm's handler takes the place of ours."""
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    console.log_to_file(console.start_logging(), tmp_path / 'a.log')
    other = logging.getLogger('httpx')
    monkeypatch.setattr(other, 'level', logging.DEBUG)
    for _ in range(2):
        with console.progress(1, 'a bar', 'step'):
            other.info('HTTP Request: GET')
            logging.info('ours')
            other.warning('slow')
    lines = ['INFO:root:ours', 'WARNING:httpx:slow'] * 2
    assert (tmp_path / 'a.log').read_text().splitlines() == lines
    shown = re.split('[\r\n]', capsys.readouterr().err)
    assert [line for line in shown if line in {*lines, 'INFO:httpx:HTTP Request: GET'}] == lines


def test_quiet(tmp_path, root_logger, capsys, monkeypatch):
    """Results and warnings are shown, bars are not; the file has every line."""
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    memory = console.start_logging(quiet=True)
    logging.info('first')
    console.log_to_file(memory, tmp_path / 'a.log')
    with console.progress(1, 'a bar', 'step') as bar:
        bar.update()
        logging.info('second')
        logging.warning('beware')
    console.log_result('accuracy %.1f', 0.5)
    shown = ['WARNING:root:beware', 'INFO:root:accuracy 0.5']
    assert capsys.readouterr().err.splitlines() == shown
    lines = ['INFO:root:first', 'INFO:root:second', *shown]
    assert (tmp_path / 'a.log').read_text().splitlines() == lines


def test_progress_shows_nothing_without_a_terminal(capsys):
    with console.progress(3, 'epoch 1', 'batch') as bar:
        for _ in range(3):
            bar.update()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ''


def test_a_log_file_that_cannot_grow_ends_the_program():
    if not os.path.exists('/dev/full'):
        pytest.skip('there is no /dev/full')
    code = (
        'import logging; from bert.cli import console, program\n'
        'def main():\n'
        "    console.log_to_file(console.start_logging(), '/dev/full')\n"
        "    logging.info('first')\n"
        'program.run(main)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    error = '-c: error: /dev/full: could not be written (No space left on device)\n'
    assert (done.returncode, done.stderr) == (1, f'INFO:root:first\n{error}')
