"""The command ``python -m bert.convert``, and what it refuses."""

import subprocess
import sys

import golden
import pytest
from conftest import ROOT, failure

from bert.convert.__main__ import main
from bert.system.errors import UsageError


def test_a_target_that_exists(tmp_path):
    (tmp_path / 'mine').write_text('work')
    with pytest.raises(UsageError) as caught:
        main([str(golden.FOLDER / 'hf_encoder'), str(tmp_path), '--to', 'gluon'])
    assert str(caught.value) == f'{tmp_path} already exists: TARGET must be a new directory'
    assert (tmp_path / 'mine').read_text() == 'work'


def test_onnx_without_its_packages(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    sentence = failure(main, ['nowhere', str(tmp_path / 'out'), '--to', 'onnx'])
    assert sentence.startswith('--to onnx needs more packages (')
    assert sentence.endswith("): pip install '.[onnx]' in the toolkit's folder")


def test_the_command_and_its_errors(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'bert.convert', *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    target = tmp_path / 'out'
    ran = run(str(golden.FOLDER / 'hf_classifier'), str(target), '--to', 'gluon')
    assert (ran.returncode, ran.stderr) == (0, '')
    assert ran.stdout.splitlines()[0] == (
        f'{target}: 2 layers, 8 units, 18 tokens, 39 tensors, a head with neutral yes no'
    )
    ran = run('--help')
    assert ran.stdout.startswith('usage: python -m bert.convert [-h] ')
    ran = run('no/such/folder', str(tmp_path / 'other'), '--to', 'gluon')
    assert ran.returncode == 2
    assert ran.stderr == 'convert.py: error: there is no model directory no/such/folder\n'
    ran = run(str(target), str(tmp_path / 'other'))
    assert ran.returncode == 2
    assert 'one of the arguments --to --compare is required' in ran.stderr
