"""The exchanges among workers, here threads; real processes are in test_cluster.py."""

import os
import threading

import numpy as np
import pytest

import bert  # noqa: F401 (prepares for MXNet)
from bert.distributed import parameter_server, workers
from bert.distributed.workers import ALONE, Workers, joined
from bert.system.errors import ToolkitError, UsageError

# isort: split
import mxnet as mx


class Threads:
    """An engine whose workers are threads of this process, with sums by NumPy."""

    local_rank = 0

    def __init__(self, rank, count, shared):
        self.rank, self.count, self.shared = rank, count, shared

    def sum(self, key, copies, priority):
        given, barrier = self.shared
        given[self.rank] = (key, copies[0].asnumpy())
        barrier.wait()
        assert len({key for key, _ in given}) == 1
        total = np.sum([array for _, array in given], axis=0)
        barrier.wait()
        for copy in copies:
            copy[:] = mx.nd.array(total, dtype=total.dtype)


def among(count, work):
    """Return the result of ``work(workers)`` on each of several workers, or its exception."""
    shared = [None] * count, threading.Barrier(count, timeout=20)
    results = [None] * count

    def be(rank):
        try:
            results[rank] = work(Workers(Threads(rank, count, shared)))
        except ToolkitError as error:
            results[rank] = error

    threads = [threading.Thread(target=be, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
def test_sums(dtype):
    def work(workers):
        arrays = [[mx.nd.ones(shape, dtype=dtype) * (workers.rank + 1)] for shape in [(2, 3), (1,)]]
        workers.sum(arrays)
        return [copies[0].asnumpy() for copies in arrays]

    for matrix, vector in among(3, work):
        np.testing.assert_array_equal(matrix, np.full((2, 3), 6))
        np.testing.assert_array_equal(vector, [6])


def test_broadcast():
    def work(workers):
        arrays = [[mx.nd.array([workers.rank + 0.5, np.pi])]]
        workers.broadcast(arrays)
        return arrays[0][0].asnumpy().tolist()

    assert among(3, work) == [[0.5, np.float32(np.pi)]] * 3


def test_gather_numbers_and_sum_numpy():
    assert among(3, lambda workers: workers.gather_numbers(10 * workers.rank)) == [[0, 10, 20]] * 3
    whole = among(2, lambda workers: workers.sum_numpy(np.eye(2)[workers.rank : workers.rank + 1]))
    assert [array.tolist() for array in whole] == [[[1, 1]]] * 2
    assert ALONE.gather_numbers(3) == [3]


@pytest.mark.parametrize('total', [1, 2, 3, 5, 8])
def test_gather_returns_the_arrays_in_order(total):
    """Some workers have no array, some arrays have fewer rows; done twice, as in two steps."""
    numbers = np.random.default_rng(total).normal(size=(total, 2, 3)).astype(np.float32)
    heights = [1 + number % 2 for number in range(total)]

    def work(workers):
        gathered = []
        for step in (0, 1):
            arrays = [mx.nd.array(numbers[i, : heights[i]] + step) for i in range(total)]
            gathered += workers.gather(workers.share(arrays), total, (2, 3))
        return [array.asnumpy() for array in gathered]

    for gathered in among(3, work):
        assert len(gathered) == 2 * total
        for i, array in enumerate(gathered):
            height = heights[i % total]
            expected = numbers[i % total, :height] + i // total
            np.testing.assert_array_equal(array[:height], expected)
            assert not array[height:].any()


def test_from_first():
    called = []

    def work(workers):
        def read():
            called.append(workers.rank)
            return {'step': 3, 'text': 'ä' * 300}

        return workers.from_first(read)

    assert among(3, work) == [{'step': 3, 'text': 'ä' * 300}] * 3
    assert called == [0]
    assert ALONE.from_first(lambda: (1, 2)) == (1, 2)


def test_a_failure_of_the_first_is_raised_on_all():
    def work(workers):
        def read():
            raise UsageError('no such file')

        return workers.from_first(read)

    errors = among(2, work)
    assert [(str(error), error.status) for error in errors] == [('no such file', 2)] * 2


def test_check_same():
    def work(workers):
        workers.check_same('flags', {'lr': (1, 2)})
        workers.check_same('data', ['a', 5 + (workers.rank == 1)])

    assert [str(error) for error in among(3, work)] == [
        'worker 1 has different data than worker 0: all need the same'
    ] * 3


def test_what_is_saved_is_remembered_for_the_message_of_a_loss():
    def work(workers):
        workers.remember_saved('step 3 is saved')
        workers.barrier()
        return workers.engine.saved

    assert among(2, work) == ['step 3 is saved'] * 2
    ALONE.remember_saved('nothing happens')
    ALONE.barrier()


def test_a_lost_process_is_noticed_within_a_minute(monkeypatch):
    """First the scheduler notices that it is silent, then the others that the scheduler is."""
    for name in parameter_server.HEARTBEAT:
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    monkeypatch.setenv('DMLC_ROLE', 'scheduler')
    monkeypatch.setattr(workers, 'serve', lambda: None)
    with pytest.raises(SystemExit), joined('dist_sync'):
        pass
    silence, waits = int(os.environ['PS_HEARTBEAT_TIMEOUT']), []

    class Event:
        def wait(self, seconds):
            waits.append(seconds)

    monkeypatch.setattr(parameter_server, 'leave', lambda sentence: 1 / 0)
    watch = parameter_server.Watch.__new__(parameter_server.Watch)
    watch.timeout, watch.over = silence, Event()
    with pytest.raises(ZeroDivisionError):
        watch.run(lambda: 'a process is lost')
    assert 2 * (silence + sum(waits)) < 60
    # But not at a hiccup: every node reports several times before.
    assert silence >= 5 * int(os.environ['PS_HEARTBEAT_INTERVAL'])
