"""Processes beside this one: children, and others that write to the same place."""

import contextlib
import ctypes
import fcntl
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

from bert.system.errors import ToolkitError

POLL = 0.05  # seconds between two checks of running programs
PR_SET_PDEATHSIG = 1  # Linux's prctl: choose the signal that is sent when the parent has ended


def ignore_signals():
    """Set up a worker process that leaves SIGTERM and SIGINT to its parent."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def exit_on_signals():
    """Set up a worker process that cleans up and ends silently after SIGTERM or SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: sys.exit(128 + signum))
    end_with_parent()


def end_with_parent():
    """End this process when its parent has ended, even if the parent was killed."""

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


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
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def lock(file, wait=False):
    """Lock an open file, or folder, until it is closed; return False if another process has it.

    A process that was forked or started with the open file has the lock too. With ``wait``, the
    lock is waited for.
    """
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
