"""Start training, and stop it on a signal."""

import contextlib
import logging

from bert.cli.console import start_logging
from bert.cli.program import stop_requests
from bert.distributed.workers import joined
from bert.system import machine


@contextlib.contextmanager
def started(kvstore, dtype, verbose=False, quiet=False):
    """Begin training: check and prepare MXNet, start the log, and join the other workers.

    Parameters
    ----------
    kvstore, dtype : str
    verbose : bool
        Whether to log debugging lines.
    quiet : bool
        See :func:`bert.cli.console.start_logging`.

    Yields
    ------
    logging.handlers.MemoryHandler, bert.distributed.workers.Workers
        The first holds back the log lines until there is a file for them; see
        :func:`bert.cli.console.start_logging`.
    """
    machine.prepare_mxnet(dtype)
    memory = start_logging(quiet)
    if verbose:
        logging.getLogger().setLevel(logging.DEBUG)
    with joined(kvstore) as workers:
        yield memory, workers


@contextlib.contextmanager
def stop_signal(workers):
    """Treat the first SIGTERM or SIGINT as a request to stop after the current step.

    Yields
    ------
    function
        Returns the signal that reached this worker or another one, or 0; all workers must call
        it at the same time.
    """
    with stop_requests() as arrived:
        yield lambda: max(workers.gather_numbers(arrived[0] if arrived else 0))
