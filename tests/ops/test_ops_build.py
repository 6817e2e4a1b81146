"""Building the operators, in one process at a time, and doing without them."""

import grp
import hashlib
import itertools
import logging
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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
    assert list(library.parent.iterdir()) == [library]
    assert build.build() == library
    assert len(calls(compiler)) == len(compiled) + 1
    assert len(caplog.records) == 1


@pytest.mark.parametrize('damage', [b'bui', b'built!\n', b''])
def test_a_damaged_library_is_built_again(compiler, cache, damage):
    """Loading a truncated library would kill the process with SIGBUS."""
    library = build.build()
    library.write_bytes(damage)
    library.with_name('bert_ops-0.so').touch()
    (library.parent / 'objects-0').mkdir()  # of a process that was killed
    assert build.build() == library
    assert library.read_text() == 'built\n'
    assert list(library.parent.iterdir()) == [library]


def test_a_folder_that_cannot_be_written_will_do_if_it_has_the_library(compiler, cache):
    library = build.build()
    library.parent.chmod(0o500)
    (library.parent / 'lock').mkdir()  # what root cannot open either
    assert build.build() == library


@pytest.mark.parametrize('value', ['relative', './relative', '~/cache', ' '])
def test_a_relative_cache_folder_is_ignored(compiler, cache, monkeypatch, tmp_path, value):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('XDG_CACHE_HOME', value)
    monkeypatch.chdir(tmp_path)
    assert build.cache_folder() == tmp_path / 'home' / '.cache' / 'mxnet-bert-toolkit'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert build.cache_folder() == tmp_path / 'home' / '.cache' / 'mxnet-bert-toolkit'


def test_a_compiler_with_arguments(compiler, cache, monkeypatch, tmp_path):
    """``ccache g++`` has one; they are part of the key."""
    key = build.cache_key(build.find_compiler())
    launcher = tmp_path / 'launcher with spaces'
    launcher.write_text('#!/bin/sh\n[ "$1" = -q ] && shift && exec "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setenv('CXX', f"'{launcher}' -q {compiler} -pipe")
    assert build.find_compiler() == [str(launcher), '-q', str(compiler), '-pipe']
    assert build.cache_key(build.find_compiler()) != key
    assert build.build().read_text() == 'built\n'
    assert {call.split()[0] for call in calls(compiler)} == {'-pipe'}
    keys = {build.cache_key([str(compiler), flag]) for flag in ('-a', '-b')}
    assert len(keys) == 2
    monkeypatch.setenv('CXX', '  ')
    assert build.find_compiler()[1:] == []
    monkeypatch.setenv('CXX', "g++ 'x")
    with pytest.raises(build.BuildError, match="CXX is not a command: g\\+\\+ 'x"):
        build.find_compiler()


# --- who can write to the cache

ME, OTHER = os.geteuid(), os.geteuid() + 1
NOT_MY_GROUP = next(gid for gid in range(60000, 10**6) if not build.is_own_group(gid))


def check(mode, uid=ME, gid=NOT_MY_GROUP, **keywords):
    """Return the reason against a file with this mode and owner, or None."""

    class Planted(type(Path())):
        def lstat(self):
            return SimpleNamespace(st_mode=mode, st_uid=uid, st_gid=gid)

    try:
        build.check_private(Planted('/planted'), **keywords)
    except build.BuildError as error:
        assert str(error).startswith('/planted ')
        return str(error)[len('/planted ') :]
    return None


def test_who_may_own_and_write_a_file():
    another, writable = 'belongs to another user', 'can be written by other users'
    for kind in (stat.S_IFREG, stat.S_IFDIR):
        assert check(kind | 0o755) is None
        assert check(kind | 0o755, uid=0) is None
        assert check(kind | 0o700, uid=OTHER) == another
        assert check(kind | 0o757) == check(kind | 0o702, uid=0) == writable
        assert check(kind | 0o775) == writable
    # The mode of a link says nothing, but whoever owns it chose where it leads.
    assert check(stat.S_IFLNK | 0o777) is None
    assert check(stat.S_IFLNK | 0o777, uid=OTHER) == another
    # In /tmp nobody can replace a file of another user, but anybody can make one.
    assert check(stat.S_IFDIR | 0o1777, uid=0, is_parent=True) is None
    assert check(stat.S_IFDIR | 0o1777, uid=0) == writable
    assert check(stat.S_IFDIR | 0o1777, uid=OTHER, is_parent=True) == another
    assert check(stat.S_IFDIR | 0o777, is_parent=True) == writable


def test_the_group_of_this_user_alone(monkeypatch):
    """Where umask is 002, each user has a group of the same name."""
    name = pwd.getpwuid(ME).pw_name
    for group, members, expected in [
        (name, [], None),
        (name, [name], None),
        (name, [name, 'another'], 'can be written by other users'),
        ('users', [], 'can be written by other users'),
    ]:
        found = SimpleNamespace(gr_name=group, gr_mem=members)
        monkeypatch.setattr(grp, 'getgrgid', lambda gid, found=found: found)
        assert check(stat.S_IFDIR | 0o775) == expected


def make_writable(path):
    path.chmod(0o777)
    return 'can be written by other users'


def give_away(path):
    os.chown(path, OTHER, -1, follow_symlinks=False)
    return 'belongs to another user'


def link_from_another(path):
    moved = path.with_name('moved')
    path.rename(moved)
    path.symlink_to(moved)
    return give_away(path)


def share_with_sticky_bit(path):
    """Let others make files in the folder, if not replace any."""
    path.chmod(0o1777)
    return 'can be written by other users'


def lead_to_writable(path):
    """Replace a folder with a link to one that anybody can replace."""
    public = path.parent / 'public'
    public.mkdir()
    path.rename(public / 'inside')
    path.symlink_to(public / 'inside')
    public.chmod(0o777)
    return 'public can be written by other users'


@pytest.mark.parametrize(
    ('place', 'spoil'),
    [
        *itertools.product(
            ('XDG_CACHE_HOME', 'cache', 'key'),
            (make_writable, give_away, link_from_another, lead_to_writable),
        ),
        ('key', share_with_sticky_bit),
        ('library', make_writable),
        ('library', give_away),
    ],
)
def test_a_library_in_reach_of_others_is_not_loaded(
    compiler, cache, monkeypatch, caplog, place, spoil
):
    if ME and spoil in (give_away, link_from_another):
        pytest.skip('only root can give a file away')
    folder = cache / build.cache_key(build.find_compiler())
    folder.mkdir(parents=True)
    library = folder / f'bert_ops-{hashlib.sha256().hexdigest()}.so'
    library.touch()
    assert build.build() == library
    paths = {'XDG_CACHE_HOME': cache.parent, 'cache': cache, 'key': library.parent}
    path = paths.get(place, library)
    monkeypatch.setattr(mx.library, 'load', lambda *a, **k: pytest.fail('it was loaded'))
    reason = spoil(path)
    caplog.set_level(logging.INFO)
    assert ops.available.__wrapped__() is False
    message = caplog.records[-1].getMessage()
    assert message.startswith(f"operators: MXNet's own, which are slower ({path.parent}")
    assert message.endswith(f'{reason})')


def test_nothing_is_made_in_a_folder_of_others(compiler, cache):
    cache.parent.mkdir()
    cache.parent.chmod(0o777)
    with pytest.raises(build.BuildError, match='can be written by other users'):
        build.build()
    assert list(cache.parent.iterdir()) == []
    # With the sticky bit, as /tmp has it, the folder inside is safe, even with this umask.
    cache.parent.chmod(0o1777)
    umask = os.umask(0)
    try:
        library = build.build()
    finally:
        os.umask(umask)
    assert library == build.build() and library.parent.parent == cache
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.rglob('*')} == {0o755}


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
    assert not any(path.is_file() for path in cache.rglob('*'))


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
    key = build.cache_key([str(compiler)])
    assert build.cache_key([str(compiler)]) == key
    change(monkeypatch, tmp_path)
    assert build.cache_key([str(compiler)]) != key


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
    return f'{cache.parent} is not a folder'


def no_home(monkeypatch, cache):
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', 'nowhere')
    return 'there is no home directory for the cache'


def full_disk(monkeypatch, cache):
    monkeypatch.setenv('CXX', str(write_compiler(cache.parents[1] / 'compiler')))

    def fail(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(build.Path, 'replace', fail)
    return 'No space left on device'


def another_library(monkeypatch, cache):
    """Make a library without operators."""
    if not shutil.which('cc'):
        pytest.skip('no C compiler')
    folder = cache / build.cache_key(build.find_compiler())
    folder.mkdir(parents=True)
    library = folder / 'new.so'
    subprocess.run(['cc', '-shared', '-x', 'c', os.devnull, '-o', str(library)], check=True)
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    library.rename(folder / f'bert_ops-{digest}.so')
    return 'undefined symbol'


FAILURES = [no_compiler, nothing_on_path, failing_compiler, no_folder, no_home, full_disk]
FAILURES += [another_library]


@pytest.mark.parametrize('fail', FAILURES)
def test_without_a_library_mxnets_own_operators_are_used(built, cache, monkeypatch, caplog, fail):
    """One log line gives the reason, and nothing is raised."""
    if fail is another_library and not built:
        pytest.skip('no compiler whose library could be replaced')
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
        message = "operators: MXNet's own, as requested by the variable BERT_STOCK_OPS"
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
    assert line.endswith("error: the operators cannot be built, MXNet's own are used: false failed")
    done = run_module(XDG_CACHE_HOME=__file__)  # not a folder
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.endswith(f"MXNet's own are used: {__file__} is not a folder\n")


def test_an_installed_package_has_the_sources_and_builds(built, cache, monkeypatch, tmp_path):
    """The files that setup.py installs, far from the clone, can be built and loaded.

    The compiler does not optimise them, which takes longest.
    """
    pytest.importorskip('setuptools', minversion='61')  # which reads pyproject.toml
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
    compiler = tmp_path / 'compiler'
    compiler.write_text(f'#!/bin/sh\nexec {shlex.join(build.find_compiler())} "$@" -O0\n')
    compiler.chmod(0o755)
    monkeypatch.setenv('CXX', str(compiler))
    # The sources are the same, and so is the cache key.
    done = run_module(cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{build.build()}\n'
    code = 'from bert import ops; import sys; sys.exit(not ops.available())'
    subprocess.run([sys.executable, '-c', code], cwd=folder, check=True)
