"""An executor whose workers are the machines of a Dask scheduler."""

import asyncio
import contextlib
import logging
import os
import platform
import socket
import tempfile
import time
import warnings
import zlib
from concurrent.futures import CancelledError
from importlib import metadata

import bert
from bert.system.errors import ToolkitError
from bert.system.files import HALF_WRITTEN

CONNECT_SECONDS = 15
# Workers that start along with the scheduler, or restart after a crash, take some seconds.
PATIENCE_SECONDS = 60
# The packages that the bytes of a shard or the exchange between the machines depend on.
PACKAGES = ('distributed', 'numpy', 'tokenizers', 'sentencepiece')


@contextlib.contextmanager
def dask_executor(address, output, inputs, packages=PACKAGES):
    """Connect to a scheduler; refuse workers whose results could differ from this machine's.

    Parameters
    ----------
    address : str
        Such as ``10.0.0.2:8786``.
    output : Path
        The absolute path of a file that the workers write. Its folder is created if missing.
    inputs : list of str
        The absolute paths of the files that the workers read.
    packages : sequence of str
        What must have the same version everywhere.

    Yields
    ------
    executor : concurrent.futures.Executor
        If a worker is lost, others repeat its tasks, at most three times unless the scheduler's
        ``distributed.scheduler.allowed-failures`` says otherwise.
    check_workers : function
        To be called every few seconds: raises ToolkitError when there have been no workers for
        :data:`PATIENCE_SECONDS`.
    beacon : str
        A file beside ``output`` that exists while the results are wanted.

    Raises
    ------
    ToolkitError
        Also in place of any Dask error about the tasks that ends the block.
    """
    distributed = _import_distributed()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_connect(distributed, address))
        output.parent.mkdir(parents=True, exist_ok=True)
        # Named like a half-written output: if this process is killed, it is removed like one.
        beacon = stack.enter_context(
            tempfile.NamedTemporaryFile(
                dir=output.parent, prefix=f'.{output.name}.', suffix=HALF_WRITTEN
            )
        ).name
        check_workers = _WorkerCheck(client, address)
        check_workers.wait_for_first()
        try:
            sizes = {path: os.path.getsize(path) for path in [*inputs, beacon]}
            _check_machines(client, address, sizes, packages)
            yield client.get_executor(pure=False), check_workers, beacon
        except distributed.KilledWorker:
            raise ToolkitError(
                'an output was given up because one worker after another was killed while making '
                'it, perhaps for lack of memory: start workers with fewer threads each'
            ) from None
        except ImportError as error:
            raise ToolkitError(f'a worker of {address} lacks a package: {error}') from None
        except (CancelledError, distributed.comm.CommClosedError):
            raise ToolkitError(f'the scheduler at {address} no longer answers') from None


def _import_distributed():
    try:
        import distributed
    except ImportError as error:
        raise ToolkitError(
            f"--scheduler needs more packages ({error}): pip install '.[dask]' in the toolkit's "
            'folder'
        ) from None
    # It logs pages about lost connections; our one-sentence error says what matters.
    for name in ('distributed', 'distributed.client', 'tornado.application'):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return distributed


def _connect(distributed, address):
    """Connect to a scheduler if there is one; Client() alone might wait for ever."""
    try:
        kind = asyncio.run(asyncio.wait_for(_identify(distributed, address), CONNECT_SECONDS))
    except (OSError, asyncio.TimeoutError):
        raise ToolkitError(
            f'no Dask scheduler answers at {address} within {CONNECT_SECONDS} seconds'
        ) from None
    if kind != 'Scheduler':
        raise ToolkitError(f'{address} is the address of a {kind.lower()}, not of the scheduler')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about versions, which _check_machines compares
        return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)


async def _identify(distributed, address):
    async with distributed.rpc(address) as server:
        return (await server.identity())['type']


class _WorkerCheck:
    """A check that fails when the scheduler has had no workers for too long."""

    def __init__(self, client, address):
        self.client, self.address = client, address
        self.last_seen = time.monotonic()

    def has_workers(self):
        with contextlib.suppress(OSError, TimeoutError):
            return bool(self.client.scheduler_info()['workers'])
        return False

    def __call__(self):
        if self.has_workers():
            self.last_seen = time.monotonic()
        elif time.monotonic() - self.last_seen > PATIENCE_SECONDS:
            raise ToolkitError(
                f'the scheduler at {self.address} has had no workers for {PATIENCE_SECONDS} '
                f'seconds; start some with: dask worker {self.address}'
            )

    def wait_for_first(self):
        while not self.has_workers():
            self()
            time.sleep(0.2)


def _check_machines(client, address, sizes, packages):
    """Refuse machines with different software, and workers that see different files."""
    here = versions(packages)
    seen = _result(client.run_on_scheduler, inspect_machine, {}, packages)
    found = {f'the scheduler at {address}': seen}
    workers = client.run(inspect_machine, sizes, packages, on_error='return')
    found.update((f'the worker at {key}', value) for key, value in workers.items())
    for machine, seen in found.items():
        if isinstance(seen, Exception):
            raise ToolkitError(
                f'{machine} cannot run this project ({seen}); install it there, the same version '
                'as here'
            )
        theirs, missing = seen
        for name, version in here.items():
            if theirs[name] != version:
                raise ToolkitError(
                    f'{machine} has {name} {theirs[name]}, this machine ({socket.gethostname()}) '
                    f'has {version}: install the same versions everywhere, since the bytes '
                    'of the outputs depend on them'
                )
        if missing:
            raise ToolkitError(
                f'{machine} does not see {missing} as it is here: all machines must share the '
                'files, under the same paths'
            )


def _result(function, *args):
    """Return the result of a call, or the exception that it raises."""
    try:
        return function(*args)
    except Exception as error:  # which error it is depends on the release of Dask
        return error


def versions(packages):
    """Return the versions that must be the same everywhere, by name."""
    found = {
        'Python': '.'.join(platform.python_version_tuple()[:2]),
        'zlib': zlib.ZLIB_RUNTIME_VERSION,
        "this project's version": bert.__version__,
    }
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = 'missing'
    return found


def inspect_machine(sizes, packages):
    """Return this machine's :func:`versions`, and the first file that differs in size here."""
    return versions(packages), next((path for path in sizes if not _has(path, sizes[path])), None)


def _has(path, size):
    return os.access(path, os.R_OK) and os.path.getsize(path) == size
