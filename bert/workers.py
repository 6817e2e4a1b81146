"""Worker processes: they heed their parent, not the signals of a terminal, and end with it."""

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
