"""Building the operators, in one process at a time, and doing without them."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from bert import ops
from bert.model import load_bert
from bert.ops import build

import mxnet as mx  # isort: skip

# A fake compiler: it prints its version, logs each call, and takes a while.
COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo 'a compiler, {version}'; exit; fi
echo "$*" >> '{folder}/calls'
while [ $# -gt 1 ]; do
  if [ "$1" = -o ]; then target=$2; fi
  shift
done
sleep 0.2
echo built > "$target"
"""


def write_compiler(folder, version=1):
    folder.mkdir(exist_ok=True)
    path = folder / 'compiler'
    path.write_text(COMPILER.format(folder=folder, version=version))
    path.chmod(0o755)
    return path


@pytest.fixture(scope='module', autouse=True)
def built():
    """Return whether the operators can be built, before a test changes the environment."""
    return ops.available()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Make an empty cache folder."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('BERT_STOCK_OPS', raising=False)
    return tmp_path / 'cache' / 'mxnet-bert-toolkit'


@pytest.fixture
def compiler(tmp_path, monkeypatch, cache):
    """Return the path of a compiler that only writes its target."""
    path = write_compiler(tmp_path / 'compiler')
    monkeypatch.setenv('CXX', str(path))
    return path


def calls(compiler):
    path = compiler.parent / 'calls'
    return path.read_text().splitlines() if path.exists() else []


def test_a_library_is_built_once(compiler, cache, caplog):
    caplog.set_level(logging.INFO)
    library = build.build()
    assert library.read_text() == 'built\n'
    assert library.parent.parent == cache
    # One call for each source, MXNet's own included, and one to link.
    compiled = [call for call in calls(compiler) if ' -c ' in call]
    assert len(compiled) == len(list(build.SOURCES.glob('*.cc'))) + 1
    assert any('lib_api.cc' in call for call in compiled)
    assert len(calls(compiler)) == len(compiled) + 1
    (record,) = caplog.records
    assert record.getMessage().startswith('operators: built for this processor in ')
    assert build.build() == library
    assert len(calls(compiler)) == len(compiled) + 1
    assert len(caplog.records) == 1


def test_processes_that_start_at_once_build_once(compiler, cache):
    code = 'import sys; from bert.ops.build import build; sys.stdout.write(build().read_text())'
    processes = [
        subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    assert [process.communicate()[0] for process in processes] == [b'built\n'] * 4
    assert len(calls(compiler)) == len(list(build.SOURCES.glob('*.cc'))) + 2


def test_a_failed_build_leaves_nothing(compiler, cache):
    compiler.write_text('#!/bin/sh\necho "thing.cc:1: fatal error: no such thing" >&2; exit 1\n')
    with pytest.raises(build.BuildError, match='compiler failed: thing.cc:1: fatal error: no such'):
        build.build()
    assert {path.name for path in cache.rglob('*') if path.is_file()} == {'lock'}


def change_flags(monkeypatch, tmp_path):
    monkeypatch.setattr(build, 'FLAGS', [*build.FLAGS, '-g'])


def change_compiler(monkeypatch, tmp_path):
    write_compiler(tmp_path / 'compiler', version=2)


def change_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(build, 'processor', lambda: 'model name: another')


def change_source(monkeypatch, tmp_path):
    folder = tmp_path / 'sources'
    shutil.copytree(build.SOURCES, folder)
    with open(folder / 'vector.h', 'a') as file:
        file.write('// another comment\n')
    monkeypatch.setattr(build, 'SOURCES', folder)


def change_mxnet(monkeypatch, tmp_path):
    folder = tmp_path / 'mxnet'
    for name in ('libinfo.py', 'src/lib_api.cc', 'include/mxnet/lib_api.h'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(build.mxnet_folder() / name, folder / name)
    with open(folder / 'libinfo.py', 'a') as file:
        file.write("__version__ = '1.9.2'\n")
    monkeypatch.setattr(build, 'mxnet_folder', lambda: folder)


@pytest.mark.parametrize(
    'change', [change_flags, change_compiler, change_processor, change_source, change_mxnet]
)
def test_the_cache_key_depends_on_everything_that_matters(compiler, monkeypatch, tmp_path, change):
    key = build.cache_key(str(compiler))
    assert build.cache_key(str(compiler)) == key
    change(monkeypatch, tmp_path)
    assert build.cache_key(str(compiler)) != key


def test_the_processor_is_known_by_its_instructions():
    processor = build.processor()
    assert processor
    if Path('/proc/cpuinfo').exists() and 'flags' in Path('/proc/cpuinfo').read_text():
        assert ' sse2 ' in processor
    assert 'MHz' not in processor  # which changes constantly


def no_compiler(monkeypatch, cache):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    return 'there is no C++ compiler no-such-compiler'


def nothing_on_path(monkeypatch, cache):
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setenv('PATH', str(cache))
    return 'there is no C++ compiler g++ or c++ or clang++'


def failing_compiler(monkeypatch, cache):
    monkeypatch.setenv('CXX', 'false')
    return 'false failed'


def no_folder(monkeypatch, cache):
    cache.parent.write_text('a file where the cache should be')
    return 'Not a directory'


def no_home(monkeypatch, cache):
    def home():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setattr(build.Path, 'home', home)
    return 'there is no home directory for the cache'


def damaged_library(monkeypatch, cache):
    library = cache / build.cache_key(build.find_compiler()) / 'bert_ops.so'
    library.parent.mkdir(parents=True)
    library.write_bytes(b'not a library')
    return f'{library}: file too short'


def another_library(monkeypatch, cache):
    """Make a library without operators."""
    if not shutil.which('cc'):
        pytest.skip('no C compiler')
    library = cache / build.cache_key(build.find_compiler()) / 'bert_ops.so'
    library.parent.mkdir(parents=True)
    subprocess.run(['cc', '-shared', '-x', 'c', os.devnull, '-o', str(library)], check=True)
    return 'undefined symbol'


FAILURES = [no_compiler, nothing_on_path, failing_compiler, no_folder, no_home]
FAILURES += [damaged_library, another_library]


@pytest.mark.parametrize('fail', FAILURES)
def test_without_a_library_mxnets_own_operators_are_used(built, cache, monkeypatch, caplog, fail):
    """One log line gives the reason, and nothing is raised."""
    if fail in (damaged_library, another_library) and not built:
        pytest.skip('no compiler whose library could be damaged')
    caplog.set_level(logging.INFO)
    reason = fail(monkeypatch, cache)
    assert ops.available.__wrapped__() is False
    (record,) = caplog.records
    assert record.getMessage().startswith("operators: MXNet's own, which are slower (")
    assert reason in record.getMessage()
    assert '\n' not in record.getMessage()


@pytest.mark.parametrize(
    ('value', 'stock'), [('1', True), ('yes', True), ('0', False), ('', False)]
)
def test_the_variable_selects_mxnets_own(cache, compiler, monkeypatch, caplog, value, stock):
    monkeypatch.setenv('BERT_STOCK_OPS', value)
    caplog.set_level(logging.INFO)
    loaded = []
    monkeypatch.setattr(mx.library, 'load', lambda path, verbose: loaded.append(path))
    assert ops.available.__wrapped__() is not stock
    if stock:
        message = "operators: MXNet's own, as the variable BERT_STOCK_OPS asks"
        assert [record.getMessage() for record in caplog.records] == [message]
        assert not calls(compiler)
    assert len(loaded) == (not stock)


MODEL = """
import logging
import sys
logging.basicConfig(level=logging.INFO, format='%(message)s')
from bert.model import load_bert
import mxnet as mx
model, _ = load_bert(sys.argv[1])
tokens = mx.nd.array([[5, 6, 7, 8], [9, 10, 0, 0]]), mx.nd.zeros((2, 4)), mx.nd.array([4, 2])
for _ in range(2):
    pooled = model(*tokens)[1]
print(pooled.asnumpy().tolist())
"""


def test_a_model_without_compiler_gives_the_same_numbers(cache, tiny_bert):
    """This runs in a new process, as for a user without a compiler."""
    done = subprocess.run(
        [sys.executable, '-c', MODEL, str(tiny_bert)],
        cwd=ROOT,
        env={**os.environ, 'CXX': 'false'},
        check=True,
        capture_output=True,
        encoding='utf8',
    )
    bert, _ = load_bert(str(tiny_bert))
    tokens = [[5, 6, 7, 8], [9, 10, 0, 0]], np.zeros((2, 4)), [4, 2]
    expected = bert(*[mx.nd.array(array) for array in tokens])[1].asnumpy()
    np.testing.assert_allclose(eval(done.stdout), expected, atol=1e-5)
    assert done.stderr.count('operators: ') == 1
    assert 'Traceback' not in done.stderr


def run_module(*arguments, cwd=ROOT, **variables):
    return subprocess.run(
        [sys.executable, '-m', 'bert.ops', *arguments],
        cwd=cwd,
        env={**os.environ, **variables},
        check=False,
        capture_output=True,
        encoding='utf8',
    )


def test_the_module_builds_the_library(compiler, cache):
    done = run_module()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{build.build()}\n'
    assert len(calls(compiler)) == len(list(build.SOURCES.glob('*.cc'))) + 2


def test_the_module_reports_a_failure_in_one_sentence(cache):
    done = run_module(CXX='false')
    assert (done.returncode, done.stdout) == (1, '')
    (line,) = done.stderr.splitlines()
    assert line.endswith("error: the operators cannot be built, MXNet's own will do: false failed")
    done = run_module(XDG_CACHE_HOME=__file__)  # not a folder
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert 'Not a directory' in done.stderr


def test_an_installed_package_has_the_sources_and_builds(built, cache, tmp_path):
    """The files that setup.py installs, far from the clone, can be built and loaded."""
    pytest.importorskip('setuptools')
    if not built:
        pytest.skip('no compiler')
    folder = tmp_path / 'installed'
    command = [
        'setup.py',
        '--quiet',
        'build',
        '--build-base',
        tmp_path / 'b',
        '--build-lib',
        folder,
    ]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    names = {path.name for path in (folder / 'bert' / 'ops').iterdir() if path.is_file()}
    assert names == {path.name for path in build.SOURCES.iterdir() if path.is_file()}
    # The sources are the same, and so is the cache key.
    done = run_module(cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{build.build()}\n'
    code = 'from bert import ops; import sys; sys.exit(not ops.available())'
    subprocess.run([sys.executable, '-c', code], cwd=folder, check=True)
