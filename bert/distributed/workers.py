"""Several processes, the *workers*, that train one model, and the sums that they exchange.

The kvstore ``dist_sync`` is MXNet's parameter server: one process is the *scheduler*, one or more
are *servers*, which add up what the workers send. The same command is started for each of them,
and environment variables give it its role; :mod:`bert.cluster` does that on one machine. With the
kvstore ``horovod`` the workers, which horovodrun starts, add up among themselves.

Sums of arrays are all that workers exchange: a broadcast is a sum to which the others contribute
zeros.
"""

import atexit
import contextlib
import json
import logging
import os
import sys

import numpy as np

from bert.distributed.horovod import Horovod
from bert.distributed.parameter_server import HEARTBEAT, ParameterServer, serve
from bert.system.errors import Stopped, ToolkitError
from bert.system.processes import leave_at_once


@contextlib.contextmanager
def joined(kvstore):
    """Join the workers while the block runs, and leave together with them.

    In the scheduler and the servers the block does not run: they serve until the workers have
    left, and then end.

    Parameters
    ----------
    kvstore : str
        ``device``, ``local``, ``dist_sync`` or ``horovod``.

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
        workers.leave()  # all stop after the same step, which worker 0 has saved
        raise
    except BaseException as error:
        error = workers.engine.translate_error(error)
        status = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, 'status', 1)
        # At exit MXNet would wait for the others, which never come.
        atexit.register(leave_at_once, status)
        raise error from None
    workers.leave()


class Workers:
    """This process's place among the workers.

    Parameters
    ----------
    engine : ParameterServer, Horovod or None
        Computes the sums; None for a single process, for which all of this costs nothing.

    Attributes
    ----------
    rank : int
        Counted from 0. Only worker 0 logs and saves.
    count : int
    local_rank : int
        This worker's GPU on this machine, if each worker has one.
    """

    def __init__(self, engine=None):
        self.engine = engine
        self.tables = {}
        self.rank = engine.rank if engine else 0
        self.count = engine.count if engine else 1
        self.local_rank = engine.local_rank if engine else 0

    @property
    def is_first(self):
        """True for the one worker that logs and saves."""
        return self.rank == 0

    def local_kvstore(self, kvstore):
        """Return the kvstore that adds up the gradients of this worker's own devices."""
        return 'device' if self.engine else kvstore

    def share(self, items):
        """Return this worker's part of a list that all workers have."""
        return items[self.rank :: self.count]

    def sum(self, arrays, name='gradients'):
        """Replace arrays by their sums over the workers, without waiting for the result.

        Parameters
        ----------
        arrays : list of list of mxnet.nd.NDArray
            For each array, its copies on this worker's devices. Shapes, types and order must be
            the same on all workers.
        name : str
            Under one name, arrays of the same shape and type are summed one after another.
        """
        if self.engine:
            for number, copies in enumerate(arrays):
                key = f'{name} {number} {copies[0].dtype.__name__} {copies[0].shape}'
                # The next step needs the first layers first.
                self.engine.sum(key, copies, priority=-number)

    def broadcast(self, arrays):
        """Replace arrays by those of worker 0 and wait for them; see :meth:`sum`."""
        if not self.engine:
            return
        for copies in arrays:
            if self.rank:
                copies[0][:] = 0
        self.sum(arrays)
        for copies in arrays:
            copies[0].wait_to_read()

    def broadcast_parameters(self, model):
        """Replace the parameters of a model by those of worker 0."""
        self.broadcast([parameter.list_data() for parameter in model.collect_params().values()])

    def sum_numpy(self, array):
        """Return the sum of a NumPy array of float32 or float64 over the workers."""
        if not self.engine:
            return array
        import mxnet as mx

        whole = mx.nd.array(array, dtype=array.dtype)
        self.sum([[whole]], 'numbers')
        return whole.asnumpy()

    def gather_numbers(self, number):
        """Return the whole numbers of all workers as a list in the order of their ranks."""
        numbers = np.zeros(self.count)
        numbers[self.rank] = number
        return self.sum_numpy(numbers).astype(int).tolist()

    def gather(self, arrays, count, shape):
        """Return the arrays of all workers, each of which has its :meth:`share`, without waiting.

        Parameters
        ----------
        arrays : list of mxnet.nd.NDArray
            This worker's arrays of float32.
        count : int
            The total number of arrays of all workers.
        shape : tuple of int
            The shape of the largest array; the others may have fewer rows.

        Returns
        -------
        list of mxnet.nd.NDArray
            All of this shape, and bit for bit the same as in a single process.
        """
        if not self.engine:
            return arrays
        import mxnet as mx

        # The same table serves all steps, so that its sums are computed one after another.
        table = self.tables.setdefault((count, *shape), mx.nd.zeros((count, *shape)))
        table[:] = 0
        for row, array in zip(self.share(range(count)), arrays):
            table[row][: len(array)] = array.as_in_context(table.context)
        self.sum([[table]], 'table')
        return [table[row].copy() for row in range(count)]

    def from_first(self, function):
        """Call a function without arguments on worker 0 only, and return its result on all.

        A ToolkitError that it raises is raised on all workers.

        Returns
        -------
        object
            On the other workers, the result after a round trip through JSON.
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
        """Raise ToolkitError on all workers if the value of one differs from worker 0's.

        Parameters
        ----------
        what : str
            A name for the value.
        value : object
            Anything that JSON can represent.
        """
        if not self.engine:
            return
        value = json.loads(json.dumps(value))
        differing = self.gather_numbers(value != self.from_first(lambda: value))
        if any(differing):
            raise ToolkitError(
                f'worker {differing.index(1)} has different {what} than worker 0: all need the same'
            )

    def remember_saved(self, clause):
        """Remember what is on disk, for the message that another process is lost.

        Parameters
        ----------
        clause : str
            Such as ``the last good checkpoint is out/0000005.params``.
        """
        if self.engine:
            self.engine.saved = clause

    def barrier(self):
        """Wait until all workers have reached this point."""
        self.gather_numbers(0)

    def leave(self):
        """Wait for the others and leave together with them."""
        self.barrier()
        self.engine.leave()


ALONE = Workers()
