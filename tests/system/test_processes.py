"""Processes that exclude each other."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from bert.system.errors import ToolkitError
from bert.system.processes import alone

HOLD = """
import sys
from bert.system.processes import alone
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
