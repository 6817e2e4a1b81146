"""The preparations for importing MXNet."""

import ctypes
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from bert.system import environment


def python(code, **environ):
    """Return the output of a new interpreter; a value of None removes a variable."""
    env = {**os.environ, **environ}
    env = {name: value for name, value in env.items() if value is not None}
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        env=env,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return result.stdout.strip()


THREADS = "import os, bert; print(os.environ['OMP_NUM_THREADS'])"


def test_thread_count_of_the_user_is_kept():
    assert python(THREADS, OMP_NUM_THREADS='7') == '7'


def test_thread_count_is_that_of_the_physical_cores():
    import psutil

    allowed = os.sched_getaffinity(0)
    physical = psutil.cpu_count(logical=False) or len(allowed)
    assert python(THREADS, OMP_NUM_THREADS=None) == str(min(len(allowed), physical))
    # A process that may run on only one processor gets one thread.
    one = f'import os; os.sched_setaffinity(0, [{min(allowed)}]); {THREADS}'
    assert python(one, OMP_NUM_THREADS=None) == '1'


@pytest.mark.parametrize(
    ('allowed', 'physical', 'expected'),
    [(8, 4, '4'), (2, 4, '2'), (8, None, '8')],
)
def test_thread_count_with_other_processors(monkeypatch, allowed, physical, expected):
    """``allowed`` includes a container's limit: see test_processors.py."""
    import psutil

    monkeypatch.delenv('OMP_NUM_THREADS')
    monkeypatch.setattr(environment, 'count_processors', lambda: allowed)
    monkeypatch.setattr(psutil, 'cpu_count', lambda logical: physical)
    environment.set_thread_count()
    assert os.environ['OMP_NUM_THREADS'] == expected


WAITING = """
import os, bert
from bert.system.processes import child_environment
child = child_environment([], 0, 2)
for variables in (os.environ, child):
    print(variables.get('OMP_WAIT_POLICY'), variables.get('GOMP_SPINCOUNT'))
"""


@pytest.mark.parametrize(
    ('policy', 'spins', 'expected'),
    [
        (None, None, 'None 1000'),
        ('active', None, 'active None'),
        (None, '7', 'None 7'),
        ('passive', '7', 'passive 7'),
        ('', None, ' None'),
    ],
)
def test_waiting_is_bounded_unless_the_user_chose(policy, spins, expected):
    """In this process, and in the children that share its threads."""
    printed = python(f'print()\n{WAITING}', OMP_WAIT_POLICY=policy, GOMP_SPINCOUNT=spins)
    assert printed == f'{expected}\n{expected}'.strip()


def test_openmp_knows_the_bound():
    """The OpenMP that MXNet loads is GNU's, which prints at its start what it has read."""
    code = 'import bert, mxnet'
    ran = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd=ROOT,
        env={
            **{name: v for name, v in os.environ.items() if name != 'GOMP_SPINCOUNT'},
            'OMP_DISPLAY_ENV': 'verbose',
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "GOMP_SPINCOUNT = '1000'" in ran.stderr


def test_importing_bert_does_not_import_mxnet():
    assert python("import sys, bert; print('mxnet' in sys.modules)") == 'False'


def test_cuda_libraries_are_loaded_in_order_from_the_first_folder(tmp_path, monkeypatch):
    loaded = []

    def fake(path, mode=ctypes.DEFAULT_MODE):
        if not os.path.exists(path):
            raise OSError(path)
        loaded.append((os.path.relpath(path, tmp_path), mode))

    first, second = tmp_path / 'one', tmp_path / 'two'
    for folder in (first, second):
        for library in environment.CUDA_LIBRARIES:
            path = folder / 'nvidia' / library
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    # A missing one may be a system library: the others are loaded nevertheless.
    (first / 'nvidia' / 'nccl' / 'lib' / 'libnccl.so.2').unlink()
    monkeypatch.setattr(ctypes, 'CDLL', fake)
    monkeypatch.setattr(sys, 'path', [str(tmp_path / 'nothing'), str(first), str(second)])
    environment.preload_cuda_libraries()
    names = [name for name, _ in loaded]
    assert all(name.startswith('one/nvidia/') for name in names)
    assert len(names) == len(set(names)) == len(environment.CUDA_LIBRARIES) - 1
    assert {mode for _, mode in loaded} == {ctypes.RTLD_GLOBAL}
    # Each comes after the libraries it links against (readelf -d of the CUDA 11 libraries).
    position = {os.path.basename(name).split('.so')[0]: i for i, name in enumerate(names)}
    for library, needed in [
        ('libcublas', 'libcublasLt'),
        ('libcusolver', 'libcublas'),
        ('libcusolver', 'libcublasLt'),
        ('libcusolver', 'libcusparse'),
        ('libcudnn', 'libcublas'),
    ]:
        assert position[needed] < position[library]


def test_nothing_is_preloaded_where_there_is_nothing(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(ctypes, 'CDLL', lambda *args: loaded.append(args))
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    environment.preload_cuda_libraries()
    assert loaded == []
