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

    def gather_numbers(self, number):
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
        differing = self.gather_numbers(value != self.from_first(lambda: value))
        if any(differing):
            raise ToolkitError(
                f'worker {differing.index(1)} has other {what} than worker 0: all need the same'
            )

    def remember_saved(self, clause):
        """Remember what is on the disk, to be told where one of the others is lost."""
        if self.engine:
            self.engine.kept = clause

    def leave(self):
        """Wait for the others at the end of the work."""
        self.gather_numbers(0)
        self.engine.leave()


ALONE = Workers()
