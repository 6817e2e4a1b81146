"""Joining the other processes of MXNet's parameter server, or saying why that failed.

MXNet waits for the others without end, whatever has happened to them. While it does, a thread
looks at the scheduler's port, as there are no heartbeats yet.
"""

import contextlib
import ctypes
import logging
import os
import signal
import socket
import threading
import time

from bert.system.errors import ToolkitError
from bert.system.processes import leave_at_once
from bert.system.terminal import complain

# Seconds between two looks at the scheduler's port, and for it to answer.
LOOK = 5
# Seconds until the log says that the others are missing.
PATIENCE = 10


def scheduler_address():
    """Return the address at which the scheduler listens."""
    return f'{os.environ["DMLC_PS_ROOT_URI"]}:{os.environ["DMLC_PS_ROOT_PORT"]}'


def connect():
    """Create MXNet's store, once all workers, the servers and the scheduler are connected.

    Raises
    ------
    ToolkitError
        If there is no such host, or the scheduler cannot listen.
    """
    host = os.environ['DMLC_PS_ROOT_URI']
    try:
        # The scheduler can listen at an address, but not at a name.
        os.environ['DMLC_PS_ROOT_URI'] = socket.gethostbyname(host)
    except OSError:
        raise ToolkitError(f'DMLC_PS_ROOT_URI={host}: there is no such host') from None
    # In any role but a worker's, importing MXNet would start its own server, which unpickles what
    # it receives. The role is needed only when the store is created.
    role = os.environ.pop('DMLC_ROLE')
    if role == 'scheduler':
        check_listening()
    import mxnet as mx

    os.environ['DMLC_ROLE'] = role
    report_termination(role)
    with ended_by_signals(), waiting(role):
        return mx.kv.create('dist_sync')


def check_listening():
    """Raise ToolkitError if this process cannot listen at the scheduler's address."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as MXNet does
        try:
            listener.bind((os.environ['DMLC_PS_ROOT_URI'], int(os.environ['DMLC_PS_ROOT_PORT'])))
        except OSError as error:
            raise ToolkitError(
                f'the scheduler of dist_sync cannot listen at {scheduler_address()} '
                f'({error.strerror}): DMLC_PS_ROOT_URI must be an address of its machine, and '
                'DMLC_PS_ROOT_PORT free'
            ) from None


@contextlib.contextmanager
def ended_by_signals():
    """Let SIGTERM and SIGINT end the process, as Python's handlers would wait for the C++ code."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as in a shell's background job
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def waiting(role, is_connected=lambda: False):
    """Watch the scheduler's port while the block waits for the others.

    The process ends if the scheduler has been there and is gone, or if another program listens.

    Parameters
    ----------
    role : str
    is_connected : function
        Returns whether all are connected, if the block goes on then.
    """
    over = threading.Event()
    thread = threading.Thread(target=watch_port, args=(role, is_connected, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def watch_port(role, is_connected, over):
    """Look at the scheduler's port until the event ``over``; see :func:`waiting`."""
    start, is_logged, was_there, missed = time.monotonic(), False, False, 0
    while not over.wait(LOOK) and not is_connected():
        if not is_logged and time.monotonic() - start >= PATIENCE:
            is_logged = True
            logging.info(
                'this %s of dist_sync waits for the others: scheduler at %s, servers %s, '
                'workers %s',
                role,
                scheduler_address(),
                os.environ['DMLC_NUM_SERVER'],
                os.environ['DMLC_NUM_WORKER'],
            )
        if role == 'scheduler':
            continue
        answer = look_at_scheduler()
        was_there = was_there or answer == 'scheduler'
        is_missed = answer == 'other' or (answer is None and was_there)
        missed = missed + 1 if is_missed else 0
        if missed == 2 and not over.is_set() and not is_connected():
            if was_there:
                leave(f'{role} of dist_sync: the scheduler at {scheduler_address()} has ended')
            leave(
                f'{role} of dist_sync: a program other than the scheduler listens at '
                f'{scheduler_address()}: choose another DMLC_PS_ROOT_PORT'
            )


def look_at_scheduler():
    """Return who listens at the scheduler's port: ``scheduler``, ``other``, or None for nobody."""
    address = os.environ['DMLC_PS_ROOT_URI'], int(os.environ['DMLC_PS_ROOT_PORT'])
    try:
        connection = socket.create_connection(address, timeout=LOOK)
    except OSError:
        return None
    with connection:
        greeting = b''
        # The first ten bytes of any process of ZeroMQ, which the parameter server is built on.
        with contextlib.suppress(OSError):
            while len(greeting) < 10:
                part = connection.recv(10 - len(greeting))
                if not part:
                    break
                greeting += part
    return 'scheduler' if greeting[:1] == b'\xff' and greeting[9:] == b'\x7f' else 'other'


# Keeps alive what the C++ library points to.
terminators = []


def report_termination(role):
    """Replace the C++ library's report of an exception that nothing catches by one sentence.

    MXNet's threads throw one when they receive what no process of the run would send.
    """

    @ctypes.CFUNCTYPE(None)
    def terminate():
        leave(
            f'{role} of dist_sync: MXNet could not process what it received, such as data from '
            'another program that connected to its port: start all processes again, and keep the '
            'ports private'
        )

    try:
        set_terminate = ctypes.CDLL('libstdc++.so.6')['_ZSt13set_terminatePFvvE']
    except (OSError, AttributeError):
        return  # another C++ library, with its own report
    terminators.append(terminate)
    set_terminate(terminate)


def leave(sentence):
    """End the process with an error from a thread, as the main one waits in C++."""
    complain(sentence)
    leave_at_once(1)
