"""bert/distributed.py: shares, sums, and what is refused; real processes are in test_cluster.py."""

import threading

import numpy as np
import pytest
from conftest import failure

import bert  # noqa: F401 (prepares for MXNet)
from bert.distributed.parameter_server import connect
from bert.distributed.workers import ALONE, Workers
from bert.finetuning import flags as finetuning_flags
from bert.pretraining import batches
from bert.pretraining import flags as pretraining_flags
from bert.pretraining.flags import parse_args
from bert.system.errors import ToolkitError, UsageError
from bert.training.batches import bucketed_updates
from bert.training.update import seed_step

# isort: split
import mxnet as mx


class Threads:
    """An engine among threads of this process, which adds up with NumPy."""

    local_rank = 0

    def __init__(self, rank, count, shared):
        self.rank, self.count, self.shared = rank, count, shared
        self.kept = None

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
    """What ``work(workers)`` gives, or raises, on each of several workers."""
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


def ranked(rank, count):
    """A worker that only knows its place."""
    workers = Workers()
    workers.rank, workers.count = rank, count
    return workers


@pytest.mark.parametrize('rows', [1, 7, 64, 101])
@pytest.mark.parametrize('count', [1, 2, 3, 5])
def test_every_row_is_the_share_of_one_worker(rows, count):
    lengths = np.random.default_rng(rows).integers(5, 30, rows)
    for accumulate in (1, 2):
        cut = batches.Cut(4, accumulate * count, 2, by_token=False)
        updates = bucketed_updates(lengths, *cut, np.random.default_rng(1))
        seen = [
            row
            for parts in updates
            for rank in range(count)
            for part in ranked(rank, count).share(parts)
            for row in part
        ]
        assert sorted(seen) == list(range(rows))
        for parts in updates:
            shares = [len(ranked(rank, count).share(parts)) for rank in range(count)]
            assert max(shares) - min(shares) <= 1
            assert max(shares) <= accumulate


def test_the_order_depends_on_the_rows_of_an_update_alone():
    """Two workers with 8 rows see the updates of one process with 16, and of one that adds up."""
    lengths = np.random.default_rng(0).integers(5, 30, 75)

    def rows_of(batch_size, parts):
        cut = batches.Cut(batch_size, parts, 1, by_token=False)
        updates = bucketed_updates(lengths, *cut, np.random.default_rng(1))
        return [np.concatenate(update).tolist() for update in updates]

    assert rows_of(8, 2) == rows_of(16, 1)


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


def test_each_and_sum_numpy():
    assert among(3, lambda workers: workers.each(10 * workers.rank)) == [[0, 10, 20]] * 3
    whole = among(2, lambda workers: workers.sum_numpy(np.eye(2)[workers.rank : workers.rank + 1]))
    assert [array.tolist() for array in whole] == [[[1, 1]]] * 2
    assert ALONE.each(3) == [3]


@pytest.mark.parametrize('total', [1, 2, 3, 5, 8])
def test_gather_gives_the_arrays_in_their_order(total):
    """A worker without an array, and arrays of fewer rows, included; twice, as in two steps."""
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


def test_a_failure_of_the_first_is_everybodys():
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
        'worker 1 has other data than worker 0: all need the same'
    ] * 3


def test_dropout_differs_by_worker_and_not_for_one_process():
    def numbers(*place):
        seed_step(*place)
        return mx.nd.random.uniform(shape=(4,)).asnumpy().tolist()

    mx.random.seed(int(np.random.SeedSequence([7, 3]).generate_state(1)[0] >> 1))
    alone = mx.nd.random.uniform(shape=(4,)).asnumpy().tolist()
    assert numbers(7, 3) == numbers(7, 3, 0) == alone
    assert numbers(7, 3, 1) != alone
    assert numbers(7, 3, 2) != numbers(7, 3, 1)


VARIABLES = {
    'DMLC_ROLE': 'worker',
    'DMLC_PS_ROOT_URI': '127.0.0.1',
    'DMLC_PS_ROOT_PORT': '9091',
    'DMLC_NUM_SERVER': '1',
    'DMLC_NUM_WORKER': '2',
}
PRETRAINING = ['--do-training', '--data', 'x.npz']


@pytest.mark.parametrize(
    ('parse', 'flags'),
    [(parse_args, PRETRAINING), (finetuning_flags.parse_args, [])],
)
@pytest.mark.parametrize(
    ('kvstore', 'changes', 'sentence'),
    [
        ('dist_sync', {'DMLC_ROLE': None}, 'variables DMLC_ROLE: on one .* python -m bert.cluster'),
        ('dist_sync', {'DMLC_NUM_SERVER': ''}, 'needs the variables DMLC_NUM_SERVER'),
        ('dist_sync', {'DMLC_ROLE': 'boss'}, 'DMLC_ROLE=boss is not one of scheduler, server, wor'),
        ('dist_sync', {'DMLC_NUM_WORKER': '-2'}, 'DMLC_NUM_WORKER=-2 is not a number'),
        ('dist_sync', {'DMLC_PS_ROOT_PORT': '70000'}, 'DMLC_PS_ROOT_PORT=70000 is not a number'),
        ('device', {'DMLC_ROLE': 'server'}, 'DMLC_ROLE=server goes with --kvstore dist_sync'),
        ('horovod', {}, 'horovod'),
    ],
)
def test_refusals(parse, flags, kvstore, changes, sentence, monkeypatch):
    for name, value in {**VARIABLES, 'HOROVOD_RANK': None, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=sentence):
        parse([*flags, '--kvstore', kvstore])


def test_an_unknown_host_is_refused(monkeypatch):
    for name, value in {**VARIABLES, 'DMLC_PS_ROOT_URI': 'no.such.host.invalid'}.items():
        monkeypatch.setenv(name, value)
    assert failure(connect) == 'DMLC_PS_ROOT_URI=no.such.host.invalid: there is no such host'


def test_the_variables_of_a_worker_are_accepted(monkeypatch):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert (
        pretraining_flags.parse_args([*PRETRAINING, '--kvstore=dist_sync']).kvstore == 'dist_sync'
    )


def test_horovod_takes_one_gpu_for_each_process(monkeypatch):
    monkeypatch.setenv('HOROVOD_RANK', '0')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: 'found')
    flags = [*PRETRAINING, '--kvstore', 'horovod', '--gpus', '0,1']
    assert failure(pretraining_flags.parse_args, flags) == (
        '--kvstore horovod has a process for each GPU: --gpu in place of --gpus, and as many '
        'processes, horovodrun -np, as there are GPUs'
    )
