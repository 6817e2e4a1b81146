"""Train with several processes on one machine, with the variables for ``--kvstore dist_sync`` set.

    python -m bert.cluster --workers 2 -- run_pretraining.py ... --kvstore dist_sync

starts the command once for each worker, once for each server and once for the scheduler; see
:mod:`bert.distributed.workers`. All end together: when one fails, the others are stopped; SIGTERM
and SIGINT are passed on to the workers, which save and exit; and no process outlives this one,
however it ends.
"""

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

from bert.cli.flags import Parser, process_count
from bert.cli.program import run
from bert.system.errors import ToolkitError, UsageError
from bert.system.processes import POLL, child_environment, kill_with_parent

# Seconds for the others to fail or end by themselves before they are killed, so that each worker
# can report an error that all have in common.
GRACE = 5


class Started(NamedTuple):
    """A running process and its role."""

    role: str
    number: int
    process: subprocess.Popen

    def __str__(self):
        return self.role if self.role == 'scheduler' else f'{self.role} {self.number}'


def parse_args(argv=None):
    """Parse the command line."""
    parser = Parser(
        'Train with several processes on this machine, through a parameter server.',
        usage='python -m bert.cluster [--workers N] [--servers N] -- SCRIPT FLAG ... '
        '--kvstore dist_sync',
    )
    parser.add_argument(
        '--workers', type=process_count, default=2, help='number of processes that train'
    )
    parser.add_argument(
        '--servers', type=process_count, default=1, help='number of processes that sum gradients'
    )
    parser.add_argument('command', nargs=argparse.REMAINDER, help='the script and its flags')
    args = parser.parse_args(argv)
    args.command = args.command[args.command[:1] == ['--'] :]
    if not args.command:
        raise UsageError('no script was named: -- run_pretraining.py and its flags are needed')
    words = [part for word in args.command for part in word.split('=', 1)]
    # The script's flag may be shortened.
    shared = [
        len(name) > len('--') and '--kvstore'.startswith(name) and value == 'dist_sync'
        for name, value in zip(words, words[1:])
    ]
    if not any(shared):
        raise UsageError('the command needs --kvstore dist_sync, or its processes train separately')
    return args


def main(argv=None):
    """Start all processes and wait for them."""
    args = parse_args(argv)
    with forwarded_signals() as arrived:
        started = []
        try:
            start(started, args.command, args.workers, args.servers)
            failed = supervise(started, arrived)
        finally:
            for each in started:
                each.process.kill()
                each.process.wait()
    if failed:
        returncode = failed.process.returncode
        if arrived:
            sys.exit(exit_status(returncode))
        error = ToolkitError(f'{failed} {describe(returncode)}: the other processes were stopped')
        error.status = exit_status(returncode)
        raise error


@contextlib.contextmanager
def forwarded_signals():
    """Collect SIGTERM and SIGINT in a list while the block runs."""
    arrived = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.signal(each, lambda number, _: arrived.append(number)) for each in numbers]
    try:
        yield arrived
    finally:
        for number, handler in zip(numbers, handlers):
            signal.signal(number, handler)


def start(started, command, workers, servers):
    """Start all processes.

    Parameters
    ----------
    started : list of Started
        Each process is added as soon as it runs, so that the caller can end it if a later one
        fails to start.
    command : list of str
        A script and its flags.
    workers, servers : int
        The number of each.
    """
    variables = {
        **child_environment([], 0, workers),
        'DMLC_PS_ROOT_URI': '127.0.0.1',
        'DMLC_NODE_HOST': '127.0.0.1',  # they listen here, out of reach of other machines
        'DMLC_PS_ROOT_PORT': str(free_port()),
        'DMLC_NUM_SERVER': str(servers),
        'DMLC_NUM_WORKER': str(workers),
    }
    for role, count in (('scheduler', 1), ('server', servers), ('worker', workers)):
        for number in range(count):
            process = subprocess.Popen(
                [sys.executable, *command],
                env={**variables, 'DMLC_ROLE': role},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # this process passes on an interrupt from the keyboard
                preexec_fn=kill_with_parent(),
            )
            started.append(Started(role, number, process))


def free_port():
    """Return a port of this machine that is not in use."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def supervise(started, arrived):
    """Wait for all to end, but only :data:`GRACE` seconds after a failure or the workers' end.

    Parameters
    ----------
    started : list of Started
    arrived : list of int
        Signals to pass on to the workers; it grows meanwhile.

    Returns
    -------
    Started or None
        The first process that failed.
    """
    failed, forwarded, since = None, 0, None
    while True:
        running = [each for each in started if each.process.poll() is None]
        workers = [each for each in running if each.role == 'worker']
        if failed is None:
            failed = next((each for each in started if each.process.returncode), None)
        if not running or (failed and not workers):
            return failed
        if failed or not workers:
            since = since or time.monotonic()
            if time.monotonic() - since > GRACE:
                return failed
        for number in arrived[forwarded:]:
            forwarded += 1
            for each in workers:
                each.process.send_signal(number)
        time.sleep(POLL)


def describe(returncode):
    """Describe how a process ended."""
    if returncode < 0:
        return f'was ended by signal {-returncode} ({signal.strsignal(-returncode)})'
    return f'ended with status {returncode}'


def exit_status(returncode):
    """Return the exit status that a shell reports for a ``returncode``."""
    return 128 - returncode if returncode < 0 else returncode


if __name__ == '__main__':
    run(main)
