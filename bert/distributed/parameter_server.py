"""MXNet's parameter server: a worker's end of it, the server processes, and the watch over all.

A server would unpickle an optimizer sent by a worker; :func:`serve` ignores such commands.
"""

import ctypes
import logging
import os
import signal
import socket
import threading

from bert.system.errors import ToolkitError
from bert.system.processes import leave_at_once
from bert.system.terminal import complain

# Every node sends the scheduler a heartbeat each INTERVAL seconds and gets an answer. A node that
# is silent for TIMEOUT seconds is lost. The scheduler notices first and ends, then the others
# notice its silence: with twice 15 seconds and the time to be sure, within a minute.
HEARTBEAT = {'PS_HEARTBEAT_INTERVAL': '2', 'PS_HEARTBEAT_TIMEOUT': '15'}
# A process checks every fifth of TIMEOUT and must find a node lost this many times in a row, as
# all nodes are silent at first on a machine that was suspended.
CHECKS = 2
# ps-lite's number of the scheduler.
SCHEDULER = 1


def first_node_id(role):
    """Return ps-lite's number of the first server or worker; the following ones are 2 apart."""
    return {'server': 8, 'worker': 9}[role]


class ParameterServer:
    """A worker's connection to MXNet's parameter server, and the watch over it.

    All workers compute the same update, so that the gradients can be clipped by their global
    norm; the servers only add up.

    Attributes
    ----------
    saved : str
        A clause about what is on disk, for the message that another process is lost.
    """

    local_rank = 0
    saved = 'nothing was saved yet'

    def __init__(self):
        self.keys = set()
        self.store = connect()
        self.rank = self.store.rank
        self.count = self.store.num_workers
        self.watch = Watch(self.store, self.describe_lost)

    def sum(self, key, copies, priority):
        """Sum one array; see :meth:`Workers.sum`."""
        if key not in self.keys:
            self.keys.add(key)
            self.store.init(key, copies[0])
        self.store.pushpull(key, copies[0], out=copies, priority=priority)

    def describe_lost(self):
        """Return a sentence if the scheduler has ended, as it does when it loses a process."""
        if self.watch.is_lost(SCHEDULER):
            return (
                f'worker {self.rank}: the scheduler of dist_sync at {scheduler_address()} has '
                'ended, as it does when a worker or a server is lost, which it names: start all '
                f'of them again; {self.saved}'
            )
        return None

    def translate_error(self, error):
        """Return the exception itself: MXNet's server raises none for a lost process."""
        return error

    def leave(self):
        """Let the servers and the scheduler end."""
        self.watch.stop()
        self.watch = self.store = None  # drops the last reference: MXNet's destructor leaves


def scheduler_address():
    """Return the address at which the scheduler listens."""
    return f'{os.environ["DMLC_PS_ROOT_URI"]}:{os.environ["DMLC_PS_ROOT_PORT"]}'


def connect():
    """Create MXNet's store, once all workers, the servers and the scheduler are connected."""
    host = os.environ['DMLC_PS_ROOT_URI']
    try:
        # The scheduler can listen at an address, but not at a name.
        os.environ['DMLC_PS_ROOT_URI'] = socket.gethostbyname(host)
    except OSError:
        raise ToolkitError(f'DMLC_PS_ROOT_URI={host}: there is no such host') from None
    # In any role but a worker's, importing MXNet would start its own server, which unpickles what
    # it receives. The role is needed only when the store is created.
    role = os.environ.pop('DMLC_ROLE')
    import mxnet as mx

    os.environ['DMLC_ROLE'] = role
    waiting = threading.Timer(
        10,
        logging.info,
        (
            'this %s of dist_sync waits for the others: scheduler at %s, servers %s, workers %s',
            role,
            scheduler_address(),
            os.environ['DMLC_NUM_SERVER'],
            os.environ['DMLC_NUM_WORKER'],
        ),
    )
    waiting.daemon = True
    waiting.start()
    store = mx.kv.create('dist_sync')
    waiting.cancel()
    return store


def serve():
    """Serve as the scheduler or a server until the workers have left.

    If another process is lost, this one ends with an error and status 1.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # Python's handlers would wait for the C++ code
    role = os.environ['DMLC_ROLE']
    store = connect()

    def describe_lost():
        if role == 'server':
            lost = ['the scheduler'] if watch.is_lost(SCHEDULER) else []
        else:
            lost = [
                f'{kind} {number}'
                for kind, name in (('worker', 'DMLC_NUM_WORKER'), ('server', 'DMLC_NUM_SERVER'))
                for number in range(int(os.environ[name]))
                if watch.is_lost(first_node_id(kind) + 2 * number)
            ]
        if lost:
            return f'{role} of dist_sync: lost {", ".join(lost)}; all others end too'
        return None

    controller = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

    @controller
    def ignore(command, body, _):
        """Replace MXNet's own controller, which unpickles."""

    watch = Watch(store, describe_lost)
    call_mxnet(
        'MXKVStoreRunServer',
        (ctypes.c_void_p, controller, ctypes.c_void_p),
        store.handle,
        ignore,
        None,
    )
    watch.stop()


def call_mxnet(name, types, *arguments):
    """Call a function of MXNet's C interface that its Python package does not offer.

    Parameters
    ----------
    name : str
    types : tuple of ctypes types
        The types of the arguments.
    """
    from mxnet import base, libinfo

    # The same library that MXNet has loaded, with prototypes of our own.
    function = ctypes.CDLL(libinfo.find_lib_path()[0])[name]
    function.argtypes = types
    base.check_call(function(*arguments))


class Watch:
    """A thread that ends the process when another one is lost.

    By then the main thread is waiting in C++ for an answer that never comes.

    Parameters
    ----------
    store : mxnet.kvstore.KVStore
    describe_lost : function
        Returns a sentence if a node is lost, otherwise None.
    """

    def __init__(self, store, describe_lost):
        self.store = store
        self.timeout = int(os.environ['PS_HEARTBEAT_TIMEOUT'])
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(describe_lost,), daemon=True)
        self.thread.start()

    def is_lost(self, node):
        """Return whether a node has been silent for too long."""
        count = ctypes.c_int()
        types = (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.c_int)
        call_mxnet(
            'MXKVStoreGetNumDeadNode',
            types,
            self.store.handle,
            node,
            ctypes.byref(count),
            self.timeout,
        )
        return count.value > 0

    def run(self, describe_lost):
        """Check at intervals until :meth:`stop` is called."""
        found = 0
        # The first check comes after MXNet has had time to start.
        while not self.over.wait(max(1, self.timeout / 5)):
            sentence = describe_lost()
            found = found + 1 if sentence else 0
            if found == CHECKS:
                complain(sentence)
                leave_at_once(1)

    def stop(self):
        """Stop checking, as the others may leave from now on."""
        self.over.set()
        self.thread.join()
