"""Train with several processes of this machine: ``--kvstore dist_sync`` without variables to set.

    python -m bert.cluster --workers 2 -- run_pretraining.py ... --kvstore dist_sync

starts the command once for each worker, once for each server and once for the scheduler; see
:mod:`bert.distributed`. All end together: when one fails, the others are stopped; SIGTERM and
SIGINT reach the workers, which save and leave; and none outlives this process, however it ends.
"""

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

from bert.cli.flags import Parser, positive_int
from bert.cli.program import run
from bert.system.errors import ToolkitError, UsageError
from bert.system.processes import POLL, child_environment, kill_with_parent

# Seconds for the others to fail by themselves, or to end, before they are killed: an error that
# all workers have in common is told by all of them.
GRACE = 5


class Started(NamedTuple):
    """A process that was started."""

    role: str
    number: int
    process: subprocess.Popen

    def __str__(self):
        return self.role if self.role == 'scheduler' else f'{self.role} {self.number}'


def parse_args(argv=None):
    """The flags."""
    parser = Parser(
        'Train with several processes of this machine, over a parameter server.',
        usage='python -m bert.cluster [--workers N] [--servers N] -- SCRIPT FLAG ... '
        '--kvstore dist_sync',
    )
    parser.add_argument('--workers', type=positive_int, default=2, help='processes that train')
    parser.add_argument(
        '--servers', type=positive_int, default=1, help='processes that add up the gradients'
    )
    parser.add_argument('command', nargs=argparse.REMAINDER, help='the script and its flags')
    args = parser.parse_args(argv)
    args.command = args.command[args.command[:1] == ['--'] :]
    if not args.command:
        raise UsageError('no script was named: -- run_pretraining.py and its flags are needed')
    words = ' '.join(args.command).replace('=', ' ')
    if '--kvstore dist_sync' not in words:
        raise UsageError('the command needs --kvstore dist_sync, or its processes train apart')
    return args


def main(argv=None):
    """Start all processes and wait for them."""
    args = parse_args(argv)
    with forwarded_signals() as arrived:
        started = []
        try:
            start(started, args)
            failed = supervise(started, arrived)
        finally:
            for each in started:
                each.process.kill()
                each.process.wait()
    if failed:
        status = failed.process.returncode
        if arrived:
            sys.exit(conventional(status))
        error = ToolkitError(f'{failed} {describe(status)}: the other processes were stopped')
        error.status = conventional(status)
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


def start(started, args):
    """Start the processes, adding each to a list."""
    variables = {
        **child_environment([], 0, args.workers),
        'DMLC_PS_ROOT_URI': '127.0.0.1',
        'DMLC_NODE_HOST': '127.0.0.1',  # they listen there, out of reach of other machines
        'DMLC_PS_ROOT_PORT': str(free_port()),
        'DMLC_NUM_SERVER': str(args.servers),
        'DMLC_NUM_WORKER': str(args.workers),
    }
    for role, count in (('scheduler', 1), ('server', args.servers), ('worker', args.workers)):
        for number in range(count):
            process = subprocess.Popen(
                [sys.executable, *args.command],
                env={**variables, 'DMLC_ROLE': role},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the keyboard is ours to pass on
                preexec_fn=kill_with_parent(),
            )
            started.append(Started(role, number, process))


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def supervise(started, arrived):
    """Wait until all have ended, or one has failed and its time for the others is over.

    Parameters
    ----------
    started : list of Started
    arrived : list of int
        Signals for the workers; it grows.

    Returns
    -------
    Started or None
        The first that failed.
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


def describe(status):
    """What became of a process, from its ``returncode``."""
    if status < 0:
        return f'was ended by signal {-status} ({signal.strsignal(-status)})'
    return f'ended with status {status}'


def conventional(status):
    """The exit status that a shell would report."""
    return 128 - status if status < 0 else status


if __name__ == '__main__':
    run(main)
