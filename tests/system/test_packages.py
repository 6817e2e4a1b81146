"""MXNet and the other packages: missing, doubled, or not fitting the system or each other."""

import os
import subprocess
import sys
from importlib import metadata

import pytest
from conftest import ROOT

from bert.system import packages
from bert.system.errors import ToolkitError

OLD, NEW = (3, 12, 9), (3, 13, 0)


class FakeDistribution:
    def __init__(self, name):
        self.metadata = {'Name': name}


def install(monkeypatch, names, fitting=True):
    """Let only these distributions be found."""
    found = [FakeDistribution(name) for name in names]
    monkeypatch.setattr(packages.metadata, 'distributions', lambda: found)
    # Without what it remembers.
    monkeypatch.setattr(packages, 'installed_wheels', packages.installed_wheels.__wrapped__)
    if fitting:
        monkeypatch.setattr(packages, 'check_fit', lambda *names: None)


@pytest.mark.parametrize(
    ('names', 'sentence'),
    [
        (['numpy', 'mxnet'], None),
        (['mxnet_cu112', 'mxnet-bert-toolkit'], None),
        (['mxnet', 'mxnet', None], None),
        (
            ['MXNet', 'mxnet_cu112'],
            'mxnet and mxnet-cu112 are both installed, and overwrite each other: pip uninstall '
            'mxnet mxnet-cu112, then install only one of them',
        ),
    ],
)
def test_exactly_one_wheel(monkeypatch, names, sentence):
    install(monkeypatch, names)
    monkeypatch.setattr(packages.ctypes, 'CDLL', lambda name: None)  # a driver exists
    if sentence is None:
        packages.check_mxnet()
    else:
        with pytest.raises(ToolkitError) as caught:
            packages.check_mxnet()
        assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ('system', 'machine', 'version', 'sentence'),
    [
        (
            *('Linux', 'x86_64', OLD),
            "MXNet is not installed: pip install '.[cpu]' in the toolkit's folder; "
            "for NVIDIA GPUs, pip install '.[cu112]'",
        ),
        (
            *('Linux', 'x86_64', NEW),
            "MXNet is not installed: pip install '.[cpu]' in the toolkit's folder, "
            "then pip install --no-deps mxnet==1.9.1; for NVIDIA GPUs, pip install '.[cu112]', "
            'then pip install --no-deps mxnet-cu112==1.9.1',
        ),
        (
            *('Darwin', 'x86_64', OLD),
            "MXNet is not installed: pip install '.[cpu]' in the toolkit's folder",
        ),
        (
            *('Darwin', 'arm64', NEW),
            "MXNet 1.9.1 was released for x86-64 on macOS, not for Apple's own processors: "
            'use Linux on x86-64',
        ),
        (
            *('Windows', 'AMD64', NEW),
            'MXNet 1.9.1 was not released for Windows: use the Windows Subsystem for Linux (WSL)',
        ),
    ],
)
def test_a_missing_mxnet(monkeypatch, system, machine, version, sentence):
    install(monkeypatch, ['numpy', 'mxnet-bert-toolkit'])
    monkeypatch.setattr(packages.platform, 'system', lambda: system)
    monkeypatch.setattr(packages.platform, 'machine', lambda: machine)
    monkeypatch.setattr(packages.sys, 'version_info', version)
    with pytest.raises(ToolkitError) as caught:
        packages.check_mxnet()
    assert str(caught.value) == sentence


def test_the_documents_have_the_commands_for_a_missing_mxnet(monkeypatch):
    lines = [line.strip() for line in (ROOT / 'docs/installation.rst').read_text().splitlines()]
    monkeypatch.setattr(packages.sys, 'version_info', NEW)
    for extra, wheel in (('cpu', 'mxnet'), ('cu112', 'mxnet-cu112')):
        first = lines.index(f"pip install '.[{extra}]'", lines.index('Python 3.13 and later'))
        command = packages.install_command(wheel)
        assert command in lines[first:]


def missing(name):
    raise OSError(f'{name}: cannot open shared object file')


def test_the_gpu_build_needs_the_driver(monkeypatch):
    install(monkeypatch, ['mxnet-cu112'])
    monkeypatch.setattr(packages.ctypes, 'CDLL', missing)
    with pytest.raises(ToolkitError, match='mxnet-cu112 needs the NVIDIA driver'):
        packages.check_mxnet()


def test_arm_needs_the_libraries_of_arm(monkeypatch):
    """Their names are what ``readelf -d`` says of libmxnet.so in the wheel."""
    install(monkeypatch, ['mxnet'])
    monkeypatch.setattr(packages.platform, 'system', lambda: 'Linux')
    monkeypatch.setattr(packages.platform, 'machine', lambda: 'aarch64')
    monkeypatch.setattr(packages.ctypes, 'CDLL', lambda name: 'amath' in name or missing(name))
    with pytest.raises(ToolkitError) as caught:
        packages.check_mxnet()
    assert str(caught.value) == (
        "MXNet's build for aarch64 needs libarmpl_lp64_mp.so, libastring.so: install Arm "
        'Performance Libraries and name their lib folder in LD_LIBRARY_PATH, or use Linux on x86-64'
    )
    monkeypatch.setattr(packages.ctypes, 'CDLL', lambda name: None)
    packages.check_mxnet()


# Releases, and what their metadata say.
SCIPY = {'scipy': ('1.10.1', ['numpy<1.27.0,>=1.19.5', "pytest; extra == 'test'"])}
LEARN = {'scikit-learn': ('1.3.2', ['numpy<2.0,>=1.17.3', 'scipy>=1.5.0'])}
TODAY = {'scipy': ('1.18.1', ['numpy<2.7,>=1.26.4']), 'scikit-learn': ('1.9.1', ['SciPy>=1.10'])}
PROJECT = {
    'mxnet-bert-toolkit': ('1.0.0', ['numpy>=1.17.3', "onnx>=1.13; extra == 'onnx'", 'tqdm'])
}
ONNX = {'onnx': ('1.12.0', ['numpy>=1.16.6'])}


@pytest.mark.parametrize(
    ('installed', 'sentence'),
    [
        ({'numpy': ('1.26.4', []), **SCIPY, **LEARN, **PROJECT}, None),
        ({'numpy': ('2.5.5', []), **TODAY, **PROJECT}, None),
        ({'numpy': ('2.9.0', []), **TODAY}, None),  # scipy warns of it, but is made for numpy 2
        ({'numpy': ('2.7.0rc1', []), **TODAY}, None),
        ({}, None),  # the import will say so
        (
            {'numpy': ('2.5.5', []), **SCIPY},
            'numpy 2.5.5 does not fit scipy 1.10.1: pip install --upgrade scipy, or '
            "pip install 'numpy<1.27.0,>=1.19.5'",
        ),
        (
            {'numpy': ('2.0.0', []), **LEARN},
            'numpy 2.0.0 does not fit scikit-learn 1.3.2: pip install --upgrade scikit-learn, or '
            "pip install 'numpy<2.0,>=1.17.3'",
        ),
        (
            # Imported with numpy 2 it raises "numpy.dtype size changed".
            {'numpy': ('2.4.6', []), 'scikit-learn': ('1.2.2', ['numpy>=1.17.3'])},
            'numpy 2.4.6 does not fit scikit-learn 1.2.2: pip install --upgrade scikit-learn, or '
            "pip install 'numpy<2'",
        ),
        (
            {'numpy': ('1.26.4', []), **TODAY, 'scipy': ('1.9.3', [])},
            'scipy 1.9.3 does not fit scikit-learn 1.9.1: pip install --upgrade scikit-learn, or '
            "pip install 'scipy>=1.10'",
        ),
        (
            {'numpy': ('1.16.6', []), **PROJECT},
            "numpy 1.16.6 does not fit mxnet-bert-toolkit 1.0.0: pip install 'numpy>=1.17.3'",
        ),
        (
            {'numpy': ('1.26.4', []), **PROJECT, **ONNX},
            "onnx 1.12.0 does not fit mxnet-bert-toolkit 1.0.0: pip install 'onnx>=1.13'",
        ),
    ],
)
def test_packages_that_do_not_fit(monkeypatch, installed, sentence):
    def look_up(part):
        def found(name):
            if name not in installed:
                raise metadata.PackageNotFoundError(name)
            return installed[name][part]

        return found

    monkeypatch.setattr(packages.metadata, 'version', look_up(0))
    monkeypatch.setattr(packages.metadata, 'requires', look_up(1))
    if sentence is None:
        packages.check_fit('scipy', 'scikit-learn', 'onnx')
    else:
        with pytest.raises(ToolkitError) as caught:
            packages.check_fit('scipy', 'scikit-learn', 'onnx')
        assert str(caught.value) == sentence


def test_a_script_says_so_before_it_imports_anything(tmp_path):
    folder = tmp_path / 'scipy-0.1.dist-info'
    folder.mkdir()
    (folder / 'METADATA').write_text('Name: scipy\nVersion: 0.1\nRequires-Dist: numpy<1\n')
    for name in ('scipy', 'sklearn', 'mxnet'):
        (tmp_path / f'{name}.py').write_text('raise SystemExit("imported")')
    done = subprocess.run(
        [
            *(sys.executable, ROOT / 'finetune_classifier.py', '--task_name', 'MRPC'),
            *('--bert_model', ROOT / 'sample_model', '--output_dir', tmp_path / 'out'),
        ],
        env={**os.environ, 'PYTHONPATH': str(tmp_path), 'GLUE_DIR': str(ROOT / 'sample_glue')},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and 'does not fit scipy 0.1: ' in done.stderr
    assert len(done.stderr.splitlines()) == 1


# As on Windows: the modules that it lacks, and its name, once Python's own modules are imported.
WINDOWS = """
import asyncio, concurrent.futures.process, multiprocessing, shutil, subprocess, sys, tempfile
sys.modules.update(dict.fromkeys(['fcntl', 'grp', 'pwd', 'resource', 'termios']))
import {module}
sys.platform = 'win32'
sys.argv = {words}
{run}
"""


@pytest.mark.parametrize(
    'name',
    [
        *sorted(path.name for path in ROOT.glob('*.py') if path.name != 'setup.py'),
        *('bert.cluster', 'bert.convert.__main__', 'bert.embed', 'bert.ops.__main__'),
    ],
)
def test_windows_gets_the_help_and_one_sentence(name, tmp_path):
    """What Windows lacks is not imported, and the advice comes before any work."""
    words = {
        'create_pretraining_data.py': '--input_file a --vocab_file b --output_file c',
        'download_glue_data.py': f'--tasks MRPC --data_dir {tmp_path / "glue"}',
        'bert.cluster': '--workers 2 -- script.py',
        'bert.convert.__main__': 'a b --to hf',
        'bert.embed': '--bert_model a --input_file b --output_file c',
        'glue.py': '--tasks MRPC',
        'run_pretraining.py': '--do-training --data a',
    }.get(name, '')
    if name.endswith('.py'):
        module, run = name[: -len('.py')], f'{name[: -len(".py")]}.main'
        code = f'from bert.cli.program import run\nrun({run})'
        if name == 'download_glue_data.py':
            code = f'sys.exit({run}())'
    else:
        module, code = name, f'from bert.cli.program import run\nrun(sys.modules[{name!r}].main)'
    for flags, status in (('--help', 0), (words, (1, 2))):
        program = WINDOWS.format(module=module, words=['program', *flags.split()], run=code)
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', program],
            cwd=ROOT,
            env={**os.environ, 'GLUE_DIR': str(ROOT / 'sample_glue')},
            capture_output=True,
            text=True,
        )
        assert 'Traceback' not in done.stderr
        if status == 0:
            assert done.returncode == 0 and 'usage:' in done.stdout
        else:
            assert done.returncode == 2, done.stderr
            assert done.stderr.endswith('in the Windows Subsystem for Linux (WSL)\n'), done.stderr
    assert not any(tmp_path.iterdir())
