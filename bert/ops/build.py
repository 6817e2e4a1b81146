"""Compile the operators for this machine's processor and keep them in a cache."""

import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bert.system import machine
from bert.system.files import replacing

SOURCES = Path(__file__).parent
# -march=native: a library built for another processor is not loaded, see `cache_key`.
FLAGS = ['-std=c++17', '-O3', '-march=native', '-fno-math-errno', '-fopenmp', '-fPIC', '-w']
COMPILERS = ('g++', 'c++', 'clang++')


class BuildError(Exception):
    """An error that says why the operators cannot be built here."""


def build():
    """Compile the operators unless the cache has them.

    Returns
    -------
    Path
        The library.

    Raises
    ------
    BuildError
        If there is no compiler, or if it fails.
    """
    compiler = find_compiler()
    library = cache_folder() / cache_key(compiler) / 'bert_ops.so'
    library.parent.mkdir(parents=True, exist_ok=True)
    with locked(library.parent / 'lock'):
        if not library.exists():
            start = time.monotonic()
            compile_library(compiler, library)
            logging.info('operators: built for this processor in %.0fs', time.monotonic() - start)
    return library


def find_compiler():
    """Return the C++ compiler: that of ``CXX``, or the first of :data:`COMPILERS`."""
    names = [os.environ['CXX']] if os.environ.get('CXX') else COMPILERS
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise BuildError(f'there is no C++ compiler {" or ".join(names)}')


def mxnet_folder():
    """Return the folder of MXNet, without importing it."""
    return Path(importlib.util.find_spec('mxnet').submodule_search_locations[0])


def cache_folder():
    """Return the folder in which the libraries are kept."""
    root = os.environ.get('XDG_CACHE_HOME')
    if not root:
        try:
            root = Path.home() / '.cache'
        except RuntimeError:
            raise BuildError('there is no home directory for the cache') from None
    return Path(root) / 'mxnet-bert-toolkit'


def source_files():
    """Return the C++ files, including those of MXNet's interface."""
    mxnet = mxnet_folder()
    interface = [mxnet / 'src' / 'lib_api.cc', mxnet / 'include' / 'mxnet' / 'lib_api.h']
    return sorted(SOURCES.glob('*.cc')) + sorted(SOURCES.glob('*.h')) + interface


def cache_key(compiler):
    """Return a name for the library that this compiler builds for this processor."""
    version = subprocess.run([compiler, '--version'], capture_output=True, check=False).stdout
    mxnet = (mxnet_folder() / 'libinfo.py').read_bytes()  # names its version
    parts = [' '.join(FLAGS).encode(), version, mxnet, processor().encode()]
    parts += [path.read_bytes() for path in source_files()]
    return hashlib.sha256(b'\0'.join(parts)).hexdigest()[:32]


def processor():
    """Return the processor's model and instruction sets, on which ``-march=native`` depends."""
    return f'{machine.processor_name()} {" ".join(sorted(machine.processor_flags()))} '


@contextlib.contextmanager
def locked(path):
    """Hold a lock on a file while the block runs, so that one process at a time builds."""
    import fcntl

    with open(path, 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compile_library(compiler, library):
    """Compile all sources in parallel, link them, and put the library in place."""
    sources = [path for path in source_files() if path.suffix == '.cc']
    include = f'-I{mxnet_folder() / "include"}'
    with tempfile.TemporaryDirectory() as folder:

        def compile_one(source):
            target = Path(folder) / f'{source.stem}.o'
            run([compiler, *FLAGS, include, '-c', str(source), '-o', str(target)])
            return str(target)

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(compile_one, sources))
        with replacing(library) as temporary:
            run([compiler, '-shared', '-fopenmp', *objects, '-o', str(temporary)])


def run(command):
    """Run a compiler; if it fails, raise BuildError with its first error."""
    done = subprocess.run(command, capture_output=True, check=False, encoding='utf8')
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ['']
        first = next((line for line in lines if 'error' in line), lines[-1])
        reason = f': {first.strip()}' if first else ''
        raise BuildError(f'{Path(command[0]).name} failed{reason}')
