"""TODO"""

import ctypes
import logging
import os
import signal
import socket
import sys
import threading

from bert.system.errors import ToolkitError
from bert.system.processes import leave_at_once

# Every node tells the scheduler each INTERVAL seconds that it is there, and is answered. One that
# is silent for TIMEOUT seconds is lost. First the scheduler notices and ends, then the others
# notice its silence: twice 15 seconds, and what it takes to be sure, are well below a minute.
HEARTBEAT = {'PS_HEARTBEAT_INTERVAL': '2', 'PS_HEARTBEAT_TIMEOUT': '15'}
# Every fifth of TIMEOUT a process looks, and must find a node lost as many times one after the
# other: on a machine that slept all are silent at first.
LOOKS = 2
# What ps-lite calls its nodes and groups of nodes.
SCHEDULER = 1


def first_worker_id(role):
    """ps-lite's number of the first server or worker; the next ones are each 2 more."""
    return {'server': 8, 'worker': 9}[role]


class ParameterServer:
    """A worker's end of MXNet's parameter server, and the watch over it.

    The update is computed by the workers, all alike, so that the gradients can be clipped on
    their global norm; the servers only add up.
    """

    local_rank = 0

    def __init__(self):
        self.kept = None
        self.keys = set()
        self.store = connect()
        self.rank = self.store.rank
        self.count = self.store.num_workers
        self.watch = Watch(self.store, self.tell_loss)

    def sum(self, key, copies, priority):
        """Sum one array; see :meth:`Workers.sum`."""
        if key not in self.keys:
            self.keys.add(key)
            self.store.init(key, copies[0])
        self.store.pushpull(key, copies[0], out=copies, priority=priority)

    def tell_loss(self):
        """A sentence if the scheduler is silent: it ends when it has lost one of the others."""
        if self.watch.is_lost(SCHEDULER):
            return (
                f'worker {self.rank}: the scheduler of dist_sync at {scheduler_address()} has '
                'ended, as it does when a worker or a server is lost, which it names: start all '
                f'of them again; {self.kept or "nothing was saved yet"}'
            )
        return None

    def explain(self, error):
        """What to tell in place of an exception: it itself, MXNet's server raises none."""
        return error

    def leave(self):
        """Let the servers and the scheduler end."""
        self.watch.stop()
        self.watch = self.store = None  # that was the last reference: MXNet's destructor leaves


def scheduler_address():
    """Where the scheduler listens."""
    return f'{os.environ["DMLC_PS_ROOT_URI"]}:{os.environ["DMLC_PS_ROOT_PORT"]}'


def connect():
    """MXNet's store, once all workers, servers and the scheduler have found each other."""
    host = os.environ['DMLC_PS_ROOT_URI']
    try:
        # The scheduler can listen at an address, but not at a name.
        os.environ['DMLC_PS_ROOT_URI'] = socket.gethostbyname(host)
    except OSError:
        raise ToolkitError(f'DMLC_PS_ROOT_URI={host}: there is no such host') from None
    # With another role than that of a worker, importing MXNet means serving, and listening to
    # pickles. The role counts when the store is made.
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
    """Be the scheduler or a server, until the workers have left.

    Where one of the others is lost, the process ends with a sentence and status 1.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # Python's handlers would wait for the C++ below
    role = os.environ['DMLC_ROLE']
    store = connect()
    from mxnet.base import _LIB, check_call

    def tell_loss():
        if role == 'server':
            lost = ['the scheduler'] if watch.is_lost(SCHEDULER) else []
        else:
            lost = [
                f'{kind} {number}'
                for kind, name in (('worker', 'DMLC_NUM_WORKER'), ('server', 'DMLC_NUM_SERVER'))
                for number in range(int(os.environ[name]))
                if watch.is_lost(first_worker_id(kind) + 2 * number)
            ]
        if lost:
            return f'{role} of dist_sync: lost {", ".join(lost)}; all others end too'
        return None

    @ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    def ignore(command, body, _):
        """The place of MXNet's own controller, which unpickles."""

    watch = Watch(store, tell_loss)
    check_call(_LIB.MXKVStoreRunServer(store.handle, ignore, None))
    watch.stop()


class Watch:
    """A thread that ends the process when another one is lost.

    The main thread waits in C++ then, for an answer that does not come.

    Parameters
    ----------
    store : mxnet.kvstore.KVStore
    tell_loss : function
        Gives a sentence if a node is lost, and otherwise None.
    """

    def __init__(self, store, tell_loss):
        self.store = store
        self.timeout = int(os.environ['PS_HEARTBEAT_TIMEOUT'])
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, args=(tell_loss,), daemon=True)
        self.thread.start()

    def is_lost(self, node):
        """Whether a node was silent for too long."""
        from mxnet.base import _LIB, check_call

        count = ctypes.c_int()
        check_call(
            _LIB.MXKVStoreGetNumDeadNode(self.store.handle, node, ctypes.byref(count), self.timeout)
        )
        return count.value > 0

    def look(self, tell_loss):
        """Look again and again."""
        looks = 0
        # The first look comes when MXNet has had the time to begin.
        while not self.over.wait(max(1, self.timeout / 5)):
            sentence = tell_loss()
            looks = looks + 1 if sentence else 0
            if looks == LOOKS:
                print(f'{os.path.basename(sys.argv[0])}: error: {sentence}', file=sys.stderr)
                leave_at_once(1)

    def stop(self):
        """Look no more: from now on the others may leave."""
        self.over.set()
        self.thread.join()
