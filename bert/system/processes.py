"""Worker processes: they heed their parent, not the signals of a terminal, and end with it."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading


def ignore_signals():
    """Begin a worker process that leaves SIGTERM and SIGINT to its parent."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def heed_signals():
    """Begin a worker process that cleans up after SIGTERM or SIGINT, and ends without a word."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: sys.exit(128 + signum))
    end_with_parent()


def end_with_parent():
    """End this process when its parent has ended, even one that was killed."""

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def stop_children(kill=False):
    """Ask the worker processes of this one to end, or kill them."""
    for child in multiprocessing.active_children():
        child.kill() if kill else child.terminate()


POLL = 0.05  # seconds between two looks at the runs
PR_SET_PDEATHSIG = 1  # Linux's prctl: choose the signal that comes when the parent has ended


def child_environment(devices, slot, jobs):
    """The environment of a run: of several at once each has its share of the threads, and its GPU.

    Parameters
    ----------
    devices : list of int
        One for each of the ``jobs`` slots, or empty.
    slot : int
        Which of them the run has, counted from 0.
    """
    variables = dict(os.environ)
    if jobs > 1:
        # What one run alone would use: the physical cores, unless the user chose otherwise.
        threads = variables['OMP_NUM_THREADS'].partition(',')[0]
        share = int(threads) // jobs if threads.isdigit() else 1
        variables['OMP_NUM_THREADS'] = str(max(share, 1))
        if devices:
            # The numbers count within what the user lets this script see.
            visible = variables.get('CUDA_VISIBLE_DEVICES')
            names = visible.split(',') if visible else {devices[slot]: str(devices[slot])}
            variables['CUDA_VISIBLE_DEVICES'] = names[devices[slot]]
    return variables


def kill_with_parent():
    """A function for a new process to call, so that it ends when this one is killed.

    Only Linux has this; elsewhere it is None, and an orphan goes on until it is done.
    """
    if sys.platform != 'linux':
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def leave_at_once(status):
    """End the process and nothing else."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
