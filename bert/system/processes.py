"""Processes beside this one: children, and others that write to the same place."""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bert.system.errors import ToolkitError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
POLL = 0.05  # seconds between two checks of running programs
PR_SET_PDEATHSIG = 1  # Linux's prctl: choose the signal that is sent when the parent has ended


@contextlib.contextmanager
def holding_signals():
    """Hold back SIGTERM and SIGINT while the block starts worker processes.

    These begin with both held back too, as Ctrl-C reaches them before they are set up, by one of
    the next two functions.
    """
    arrived, handlers = [], {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    # Another thread of this process may still get one, and this thread has to handle it.
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals():
    """Set up a worker process that leaves SIGTERM and SIGINT to its parent."""
    end_with_parent()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def exit_on_signals():
    """Set up a worker process that cleans up and ends silently after SIGTERM or SIGINT."""
    end_with_parent()
    # It would report the end of a worker that is not at work as an error.
    logging.getLogger('concurrent.futures').disabled = True
    for number in SIGNALS:
        signal.signal(number, lambda signum, frame: sys.exit(128 + signum))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_with_parent():
    """End this process when its parent has ended, even if the parent was killed."""

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def process_pool(count, initializer, context=None):
    """Return an executor of ``count`` processes, each set up by a function.

    Raises
    ------
    ToolkitError
        If the system gives no semaphores, as in a container without ``/dev/shm``.
    """
    try:
        return ProcessPoolExecutor(count, context, initializer)
    except OSError as error:
        raise ToolkitError(
            'worker processes cannot be started: the system provides no semaphores, for which '
            f'Linux needs a writable /dev/shm ({error.strerror})'
        ) from None


def stop_children(kill=False):
    """Terminate the worker processes of this one, or kill them."""
    for child in multiprocessing.active_children():
        child.kill() if kill else child.terminate()


def child_environment(devices, slot, jobs):
    """Return the environment of one of several simultaneous runs: its share of threads, its GPU.

    Parameters
    ----------
    devices : list of int
        The GPU of each of the ``jobs`` slots, or empty.
    slot : int
        The slot of the run, counted from 0.
    jobs : int
        The number of simultaneous runs.
    """
    variables = dict(os.environ)
    if jobs > 1:
        # The threads of a single run: the physical cores, unless the user chose otherwise.
        threads = variables['OMP_NUM_THREADS'].partition(',')[0]
        share = int(threads) // jobs if threads.isdigit() else 1
        variables['OMP_NUM_THREADS'] = str(max(share, 1))
        if devices:
            # The numbers refer to the GPUs that the user lets this program see.
            visible = variables.get('CUDA_VISIBLE_DEVICES')
            names = visible.split(',') if visible else {devices[slot]: str(devices[slot])}
            variables['CUDA_VISIBLE_DEVICES'] = names[devices[slot]]
    return variables


def kill_with_parent():
    """Return a ``preexec_fn`` that makes a new process be killed when this one ends.

    Only Linux can do this; elsewhere it is None, and an orphan runs until it is done.
    """
    if sys.platform != 'linux':
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def follow():
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)

    return follow


def lock(file, wait=False):
    """Lock an open file, or folder, until it is closed; return False if another process has it.

    A process that was forked or started with the open file has the lock too. With ``wait``, the
    lock is waited for.
    """
    import fcntl  # which Windows lacks

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True


@contextlib.contextmanager
def alone(path):
    """Refuse to write to a folder, or a file, to which another program of this toolkit writes.

    Parameters
    ----------
    path : path-like
        A folder that exists, or a file that may exist; a hidden file beside it stands for it.

    Raises
    ------
    ToolkitError
    """
    path = Path(path)
    is_folder = path.is_dir()
    name = path if is_folder else path.with_name(f'.{path.name}.lock')
    try:
        file = os.open(name, os.O_RDONLY | (0 if is_folder else os.O_CREAT), 0o666)
    except OSError as error:
        raise ToolkitError(f'{path}: could not be written ({error.strerror})') from None
    try:
        # Without links, it has just been removed by a program that has finished.
        if not lock(file) or not os.fstat(file).st_nlink:
            raise ToolkitError(f'{path}: another program is writing there: wait until it has ended')
        try:
            yield
        finally:
            if not is_folder:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
    finally:
        os.close(file)


@contextlib.contextmanager
def locked(path):
    """Hold a lock while the block runs, so that one process at a time does; the others wait.

    The lock is a file that exists only while a process holds it or waits for it, or after one was
    killed with it. A missing folder is created; an error of the folder names ``path``.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(path, 'w'))
            except OSError as error:
                raise ToolkitError(f'{path}: could not be locked ({error.strerror})') from None
            lock(file, wait=True)
            # The process that held this lock has removed the file, and another may hold a new one.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def leave_at_once(status):
    """Flush the output and end the process, without any other clean-up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
