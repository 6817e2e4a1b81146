"""Processes that exclude each other."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

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
