"""An executor whose workers are other machines: those of a Dask scheduler."""

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
import time
import warnings
from concurrent.futures import CancelledError

import bert
from bert.system.errors import ToolkitError

CONNECT_SECONDS = 15
# Workers that start together with the scheduler, or again after a crash, take some seconds.
PATIENCE_SECONDS = 60
# What the bytes of an output depend on, and what the machines understand each other by.
PACKAGES = ('distributed', 'numpy', 'tokenizers', 'sentencepiece')


@contextlib.contextmanager
def dask_executor(address, output, inputs):
    """Connect to a scheduler, and refuse workers that would not make what this machine would.

    Parameters
    ----------
    address : str
        Such as ``10.0.0.2:8786``.
    output : Path
        One of the files that the workers write, absolute; its folder is made where it is missing.
    inputs : list of str
        Files that the workers read, absolute paths.

    Yields
    ------
    executor : concurrent.futures.Executor
        A lost worker's tasks are done again by the others, three times at most unless the
        scheduler's ``distributed.scheduler.allowed-failures`` says otherwise.
    watch : function
        Raises ToolkitError where no worker has been there for :data:`PATIENCE_SECONDS`. To be
        called now and then.
    beacon : str
        A file beside ``output`` that is there as long as somebody waits for the results.

    Raises
    ------
    ToolkitError
        Also for what Dask says of the tasks, when the block ends with it.
    """
    distributed = _import_distributed()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_connect(distributed, address))
        output.parent.mkdir(parents=True, exist_ok=True)
        # The name of a half-written output: where this process is killed, it is removed like one.
        beacon = stack.enter_context(
            tempfile.NamedTemporaryFile(dir=output.parent, prefix=f'.{output.name}.', suffix='.tmp')
        ).name
        watch = _Watch(client, address)
        watch.wait_for_a_worker()
        try:
            _check(client, address, {path: os.path.getsize(path) for path in [*inputs, beacon]})
            yield client.get_executor(pure=False), watch, beacon
        except distributed.KilledWorker:
            raise ToolkitError(
                'an output was given up, since one worker after the other was killed while making '
                'it, perhaps for want of memory: start workers with fewer threads each'
            ) from None
        except ImportError as error:
            raise ToolkitError(f'a worker of {address} lacks a package: {error}') from None
        except (CancelledError, distributed.comm.CommClosedError):
            raise ToolkitError(f'the scheduler at {address} does not answer any more') from None


def _import_distributed():
    try:
        import distributed
    except ImportError as error:
        raise ToolkitError(
            f"--scheduler needs more packages ({error}): pip install '.[dask]' in the toolkit's "
            'folder'
        ) from None
    # It logs pages about lost connections; what matters of them is told in a sentence.
    for name in ('distributed', 'distributed.client', 'tornado.application'):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return distributed


def _connect(distributed, address):
    """A client, once it is clear that a scheduler is there: Client() may wait for ever for one."""
    try:
        kind = asyncio.run(asyncio.wait_for(_identify(distributed, address), CONNECT_SECONDS))
    except (OSError, asyncio.TimeoutError):
        raise ToolkitError(
            f'no Dask scheduler answers at {address} within {CONNECT_SECONDS} seconds'
        ) from None
    if kind != 'Scheduler':
        raise ToolkitError(f'{address} is the address of a {kind.lower()}, not of the scheduler')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about versions, which _check compares
        return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)


async def _identify(distributed, address):
    async with distributed.rpc(address) as server:
        return (await server.identity())['type']


class _Watch:
    """Remembers when workers were there last."""

    def __init__(self, client, address):
        self.client, self.address = client, address
        self.seen = time.monotonic()

    def has_workers(self):
        with contextlib.suppress(OSError, TimeoutError):
            return bool(self.client.scheduler_info()['workers'])
        return False

    def __call__(self):
        if self.has_workers():
            self.seen = time.monotonic()
        elif time.monotonic() - self.seen > PATIENCE_SECONDS:
            raise ToolkitError(
                f'the scheduler at {self.address} has had no workers for {PATIENCE_SECONDS} '
                f'seconds; start some with: dask worker {self.address}'
            )

    def wait_for_a_worker(self):
        while not self.has_workers():
            self()
            time.sleep(0.2)


def _check(client, address, sizes):
    """Refuse machines with other software, and workers with other files."""
    here = versions()
    found = {f'the scheduler at {address}': _result(client.run_on_scheduler, look, {})}
    workers = client.run(look, sizes, on_error='return')
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
                    f'has {version}: install the same versions everywhere, on which the bytes '
                    'of the outputs depend'
                )
        if missing:
            raise ToolkitError(
                f'{machine} does not see {missing} as it is here: all machines must share the '
                'files, under the same paths'
            )


def _result(function, *args):
    try:
        return function(*args)
    except Exception as error:  # what the scheduler answers with depends on the release of Dask
        return error


def versions():
    """The versions that have to be the same everywhere, by name."""
    import platform
    import zlib
    from importlib import metadata

    found = {
        'Python': '.'.join(platform.python_version_tuple()[:2]),
        'zlib': zlib.ZLIB_RUNTIME_VERSION,
        "this project's version": bert.__version__,
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = 'missing'
    return found


def look(sizes):
    """What a machine has: its :func:`versions`, and the first file that it sees otherwise."""
    return versions(), next((path for path in sizes if not _has(path, sizes[path])), None)


def _has(path, size):
    return os.access(path, os.R_OK) and os.path.getsize(path) == size
