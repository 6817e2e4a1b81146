"""Compile the operators for this machine's processor and keep them in a cache.

A library runs its code when it is loaded. So the cache must be out of reach of other users, and the
library's name has its sha256: a damaged one, which could kill the process, is built again.
"""

import hashlib
import importlib.util
import logging
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bert.system import machine
from bert.system.errors import ToolkitError
from bert.system.files import sha256
from bert.system.processes import locked

SOURCES = Path(__file__).parent
# -march=native: a library built for another processor is not loaded, see `cache_key`.
FLAGS = ['-std=c++17', '-O3', '-march=native', '-fno-math-errno', '-fopenmp', '-fPIC', '-w']
COMPILERS = ('g++', 'c++', 'clang++')


class BuildError(ToolkitError):
    """An error that says why the operators cannot be built here."""


def build():
    """Compile the operators unless the cache has them.

    Returns
    -------
    Path
        The library, which nobody else can change.

    Raises
    ------
    ToolkitError
        If there is no compiler, if it fails, or if others can write to the cache.
    """
    compiler = find_compiler()
    folder = make_folder(cache_folder() / cache_key(compiler))
    library = find_library(folder)
    if not library:
        with locked(folder / 'lock'):
            # Another process may have built it meanwhile.
            library = find_library(folder) or compile_library(compiler, folder)
    return library


def find_library(folder):
    """Return the undamaged library in a folder, or None."""
    for path in folder.glob('bert_ops-*.so'):
        check_private(path)
        if path.name == library_name(path):
            return path
    return None


def library_name(path):
    """Return the name that a library should have by its content."""
    return f'bert_ops-{sha256(path)}.so'


def make_folder(path):
    """Make a folder, and check that nobody else can put anything in it or in its place.

    Returns
    -------
    Path
        The same folder without symbolic links.
    """
    for folder in [*reversed(path.parents), path]:
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
        except FileExistsError:
            raise BuildError(f'{folder} is not a folder') from None
        check_private(folder, is_parent=True)
    path = path.resolve()
    for folder in path.parents:
        check_private(folder, is_parent=True)
    check_private(path)
    return path


def check_private(path, is_parent=False):
    """Raise BuildError if a user who is neither this one nor root owns a file or can write to it.

    Parameters
    ----------
    path : Path
    is_parent : bool
        Whether what matters is a file inside, which is checked too. Then the sticky bit, as /tmp
        has it, is enough: others can make new files there, but not replace that one.
    """
    found = path.lstat()
    if found.st_uid not in (0, os.geteuid()):
        raise BuildError(f'{path} belongs to another user')
    mode = found.st_mode
    if stat.S_ISLNK(mode) or (is_parent and mode & stat.S_ISVTX):
        return
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not is_own_group(found.st_gid)):
        raise BuildError(f'{path} can be written by other users')


def is_own_group(gid):
    """Return whether a group is root's, or the one of this user's name, without other members."""
    import grp  # which Windows lacks, like the next
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return gid == 0
    return gid == 0 or (group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name})


def find_compiler():
    """Return the C++ compiler as the words of a command, that of ``CXX`` or of :data:`COMPILERS`.

    ``CXX`` may have arguments: ``ccache g++``.
    """
    named = os.environ.get('CXX', '').strip()
    try:
        commands = [shlex.split(named)] if named else [[name] for name in COMPILERS]
    except ValueError as error:
        raise BuildError(f'CXX is not a command: {named} ({error})') from None
    for name, *arguments in commands:
        path = shutil.which(name)
        if path:
            return [path, *arguments]
    names = ' or '.join(name for name, *_ in commands)
    raise BuildError(f'there is no C++ compiler {names}')


def mxnet_folder():
    """Return the folder of MXNet, without importing it."""
    return Path(importlib.util.find_spec('mxnet').submodule_search_locations[0])


def cache_folder():
    """Return the folder in which the libraries are kept."""
    root = os.environ.get('XDG_CACHE_HOME', '')
    # The XDG specification says to ignore a relative path, which depends on where a program runs.
    if not os.path.isabs(root):
        root = os.path.expanduser('~/.cache')
    if not os.path.isabs(root):
        raise BuildError('there is no home directory for the cache')
    return Path(root) / 'mxnet-bert-toolkit'


def source_files():
    """Return the C++ files, including those of MXNet's interface."""
    mxnet = mxnet_folder()
    interface = [mxnet / 'src' / 'lib_api.cc', mxnet / 'include' / 'mxnet' / 'lib_api.h']
    return sorted(SOURCES.glob('*.cc')) + sorted(SOURCES.glob('*.h')) + interface


def cache_key(compiler):
    """Return a name for the library that this compiler builds for this processor."""
    version = subprocess.run([*compiler, '--version'], capture_output=True, check=False).stdout
    mxnet = (mxnet_folder() / 'libinfo.py').read_bytes()  # names its version
    flags = shlex.join([*compiler[1:], *FLAGS])
    parts = [flags.encode(), version, mxnet, processor().encode()]
    parts += [path.read_bytes() for path in source_files()]
    return hashlib.sha256(b'\0'.join(parts)).hexdigest()[:32]


def processor():
    """Return the processor's model and instruction sets, on which ``-march=native`` depends."""
    return f'{machine.processor_name()} {" ".join(sorted(machine.processor_flags()))} '


def compile_library(compiler, folder):
    """Compile all sources in parallel, link them, and return the library, put in its folder."""
    start = time.monotonic()
    for leftover in folder.glob('*-*'):  # damaged libraries, and files of killed processes
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    sources = [path for path in source_files() if path.suffix == '.cc']
    include = f'-I{mxnet_folder() / "include"}'
    with tempfile.TemporaryDirectory(prefix='objects-', dir=folder) as temporary:

        def compile_one(source):
            target = Path(temporary) / f'{source.stem}.o'
            run([*compiler, *FLAGS, include, '-c', str(source), '-o', str(target)])
            return str(target)

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(compile_one, sources))
        linked = Path(temporary) / 'linked.so'
        run([*compiler, '-shared', '-fopenmp', *objects, '-o', str(linked)])
        linked.chmod(0o755)  # others must not write to it, whatever the umask
        library = linked.replace(folder / library_name(linked))
    logging.info('operators: built for this processor in %.0fs', time.monotonic() - start)
    return library


def run(command):
    """Run a compiler; if it fails, raise BuildError with its first error."""
    done = subprocess.run(command, capture_output=True, check=False, encoding='utf8')
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ['']
        first = next((line for line in lines if 'error' in line), lines[-1])
        reason = f': {first.strip()}' if first else ''
        raise BuildError(f'{Path(command[0]).name} failed{reason}')
