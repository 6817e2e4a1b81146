"""Log lines and progress bars."""

import logging
import os
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
