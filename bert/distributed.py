"""Several processes, the *workers*, that train one model: who they are, and what they add up.

``--kvstore dist_sync`` is MXNet's parameter server: one process is the *scheduler*, one or more
are *servers*, which add up what the workers send. The same command is started for each of them,
and variables tell it what to be; :mod:`bert.cluster` does that on one machine. ``--kvstore
horovod`` adds up among the workers themselves, which horovodrun starts.

All that workers tell each other is a sum: a broadcast is one in which the others give zeros. Only
arrays travel. MXNet's server would unpickle an optimizer that is sent to it; ours does not listen.
"""

import atexit
import contextlib
import ctypes
import importlib.util
import json
import logging
import os
import signal
import socket
import sys
import threading

import numpy as np

from bert.cli import Stopped, ToolkitError, UsageError

DMLC_ROLES = ('scheduler', 'server', 'worker')
DMLC_NUMBERS = ('DMLC_PS_ROOT_PORT', 'DMLC_NUM_SERVER', 'DMLC_NUM_WORKER')
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


def check_flags(args):
    """Refuse a ``--kvstore`` that cannot work here, without importing MXNet.

    Parameters
    ----------
    args : argparse.Namespace
        With ``kvstore``, ``gpu`` and ``gpus``.
    """
    role = os.environ.get('DMLC_ROLE')
    if args.kvstore == 'dist_sync':
        missing = [
            name
            for name in ('DMLC_ROLE', 'DMLC_PS_ROOT_URI', *DMLC_NUMBERS)
            if not os.environ.get(name)
        ]
        if missing:
            raise UsageError(
                f'--kvstore dist_sync needs the variables {", ".join(missing)}: on one machine '
                'start with python -m bert.cluster --workers 2 -- and this command, and on '
                'several as the README says'
            )
        if role not in DMLC_ROLES:
            raise UsageError(f'DMLC_ROLE={role} is not one of {", ".join(DMLC_ROLES)}')
        for name in DMLC_NUMBERS:
            value = os.environ[name]
            if not (value.isascii() and value.isdigit() and 0 < int(value) < 65536):
                raise UsageError(f'{name}={value} is not a number from 1 to 65535')
    elif role in ('scheduler', 'server'):
        raise UsageError(f'DMLC_ROLE={role} goes with --kvstore dist_sync')
    if args.kvstore == 'horovod':
        if importlib.util.find_spec('horovod') is None:
            raise UsageError(
                '--kvstore horovod: Horovod is not installed; it is built for the installed MXNet '
                'as the README says'
            )
        if 'HOROVOD_RANK' not in os.environ:
            raise UsageError(
                '--kvstore horovod: start it with horovodrun --gloo -np 2 and this command'
            )
        if args.gpus and len(args.gpus) > 1:
            raise UsageError(
                '--kvstore horovod has a process for each GPU: --gpu in place of --gpus, and as '
                'many processes, horovodrun -np, as there are GPUs'
            )


def common_flags(args, by_worker):
    """The flags that all workers must have alike.

    Parameters
    ----------
    args : argparse.Namespace
    by_worker : collection of str
        The names of the others.
    """
    return {name: value for name, value in vars(args).items() if name not in by_worker}


@contextlib.contextmanager
def joined(kvstore):
    """Be one of the workers while the block runs, and leave together with the others.

    In a process that is to be the scheduler or a server the block does not run: the process
    serves until the workers have left, and ends.

    Yields
    ------
    Workers
    """
    if kvstore == 'dist_sync':
        for name, value in HEARTBEAT.items():
            os.environ.setdefault(name, value)
        if os.environ['DMLC_ROLE'] != 'worker':
            serve()
            sys.exit()
    if kvstore not in ('dist_sync', 'horovod'):
        yield ALONE
        return
    workers = Workers(ParameterServer() if kvstore == 'dist_sync' else Horovod())
    if workers.rank:
        logging.disable(logging.WARNING)
    try:
        yield workers
    except Stopped:
        workers.leave()  # all stop after the same step, once worker 0 has saved it
        raise
    except BaseException as error:
        error = workers.engine.explain(error)
        status = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, 'status', 1)
        # MXNet would wait for the others as this process ends, and they do not come.
        atexit.register(leave_at_once, status)
        raise error from None
    workers.leave()


def leave_at_once(status):
    """End the process and nothing else."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Workers:
    """This process among the workers.

    Parameters
    ----------
    engine : ParameterServer, Horovod or None
        What adds up; None for a process alone, in which all of this costs nothing.

    Attributes
    ----------
    rank : int
        Counted from 0. Worker 0 alone logs and saves.
    count : int
    local_rank : int
        Which GPU of this machine ``--gpu`` means.
    """

    def __init__(self, engine=None):
        self.engine = engine
        self.tables = {}
        self.rank = engine.rank if engine else 0
        self.count = engine.count if engine else 1
        self.local_rank = engine.local_rank if engine else 0

    @property
    def is_first(self):
        """Whether this worker logs and saves."""
        return self.rank == 0

    def local_kvstore(self, kvstore):
        """What adds up the gradients of this worker's own devices, for ``--kvstore``."""
        return 'device' if self.engine else kvstore

    def share(self, items):
        """This worker's part of a list that all workers have."""
        return items[self.rank :: self.count]

    def sum(self, arrays, name='gradients'):
        """Replace arrays by their sums over the workers; not waited for.

        Parameters
        ----------
        arrays : list of list of mxnet.nd.NDArray
            The same shapes and types in the same order on each worker; of each array a list of
            its copies on this worker's devices.
        name : str
            Under a name there is one sum of an array's shape and type at a time.
        """
        if self.engine:
            for number, copies in enumerate(arrays):
                key = f'{name} {number} {copies[0].dtype.__name__} {copies[0].shape}'
                # The first layers come first: the next step needs them first.
                self.engine.sum(key, copies, priority=-number)

    def broadcast(self, arrays):
        """Replace arrays by those of worker 0, and wait for them; see :meth:`sum`."""
        if not self.engine:
            return
        for copies in arrays:
            if self.rank:
                copies[0][:] = 0
        self.sum(arrays)
        for copies in arrays:
            copies[0].wait_to_read()

    def broadcast_parameters(self, model):
        """Give a model the parameters that it has on worker 0."""
        self.broadcast([parameter.list_data() for parameter in model.collect_params().values()])

    def sum_numpy(self, array):
        """The sum over the workers of a NumPy array of float32 or float64."""
        if not self.engine:
            return array
        import mxnet as mx

        whole = mx.nd.array(array, dtype=array.dtype)
        self.sum([[whole]], 'numbers')
        return whole.asnumpy()

    def each(self, number):
        """This worker's whole number and those of the others, as a list in the order of ranks."""
        numbers = np.zeros(self.count)
        numbers[self.rank] = number
        return self.sum_numpy(numbers).astype(int).tolist()

    def gather(self, arrays, count, shape):
        """The arrays of all workers, where each has :meth:`share` of them; not waited for.

        Parameters
        ----------
        arrays : list of mxnet.nd.NDArray
            Of float32.
        count : int
            How many all workers have.
        shape : tuple of int
            Of the largest; others have fewer rows.

        Returns
        -------
        list of mxnet.nd.NDArray
            All of this shape, but with the bits that one process would have made.
        """
        if not self.engine:
            return arrays
        import mxnet as mx

        # One table of a size for all steps, so that one sum of it comes after the other.
        table = self.tables.setdefault((count, *shape), mx.nd.zeros((count, *shape)))
        table[:] = 0
        for row, array in zip(self.share(range(count)), arrays):
            table[row][: len(array)] = array.as_in_context(table.context)
        self.sum([[table]], 'table')
        return [table[row].copy() for row in range(count)]

    def from_first(self, function):
        """What a function without arguments gives on worker 0, the only one that calls it.

        Where it fails with a sentence, all workers do so.

        Returns
        -------
        object
            On the other workers as it comes back from JSON.
        """
        if not self.engine:
            return function()
        text, result, failure = b'', None, None
        if self.is_first:
            try:
                result = function()
                text = json.dumps({'result': result}).encode()
            except ToolkitError as error:
                failure = error
                text = json.dumps({'error': str(error), 'status': error.status}).encode()
        size = int(self.sum_numpy(np.array([len(text)], np.float64))[0])
        array = np.zeros(size, np.float32)
        array[: len(text)] = np.frombuffer(text, np.uint8)
        message = json.loads(self.sum_numpy(array).astype(np.uint8).tobytes())
        if failure:
            raise failure
        if 'error' in message:
            error = ToolkitError(message['error'])
            error.status = message['status']
            raise error
        return result if self.is_first else message['result']

    def check_same(self, what, value):
        """Refuse to go on, on all workers, where one has another value than worker 0.

        Parameters
        ----------
        what : str
        value : object
            Fit for JSON.
        """
        if not self.engine:
            return
        value = json.loads(json.dumps(value))
        differing = self.each(value != self.from_first(lambda: value))
        if any(differing):
            raise ToolkitError(
                f'worker {differing.index(1)} has other {what} than worker 0: all need the same'
            )

    def keep(self, clause):
        """Remember what is on the disk, to be told where one of the others is lost."""
        if self.engine:
            self.engine.kept = clause

    def leave(self):
        """Wait for the others at the end of the work."""
        self.each(0)
        self.engine.leave()


ALONE = Workers()


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


class Horovod:
    """A worker's end of Horovod."""

    def __init__(self):
        hvd = import_horovod()
        hvd.init()
        self.kept = None
        self.hvd = hvd
        self.rank = hvd.rank()
        self.count = hvd.size()
        self.local_rank = hvd.local_rank()

    def sum(self, key, copies, priority):
        """Sum one array, of which there is one copy; see :meth:`Workers.sum`."""
        (array,) = copies
        self.hvd.allreduce_(array, average=False, name=key, priority=priority)

    def explain(self, error):
        """What to tell in place of an exception that only says that a worker is gone."""
        if 'Horovod has been shut down' not in str(error):
            return error
        return ToolkitError(
            f'worker {self.rank}: another worker of horovod was lost: start all of them again; '
            f'{self.kept or "nothing was saved yet"}'
        )

    def leave(self):
        """Take leave of the others."""
        self.hvd.shutdown()


def import_horovod():
    """The module ``horovod.mxnet``, with the symbols of its library kept to itself.

    It would load it with RTLD_GLOBAL. Its C++ templates, of a newer compiler, then take the place
    of those in MXNet's library, which crashes as soon as a model is built.
    """
    import mxnet  # noqa: F401 (the library that Horovod's is linked against)

    mode, ctypes.RTLD_GLOBAL = ctypes.RTLD_GLOBAL, ctypes.RTLD_LOCAL
    try:
        import horovod.mxnet
    finally:
        ctypes.RTLD_GLOBAL = mode
    return horovod.mxnet


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
