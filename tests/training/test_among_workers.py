"""Batches, and the seeds of dropout, when several workers share an update."""

import numpy as np
import pytest

import bert  # noqa: F401 (prepares for MXNet)
from bert.distributed.workers import Workers
from bert.pretraining import batches
from bert.training.batches import bucketed_updates
from bert.training.devices import take_turns
from bert.training.update import seed_step

# isort: split
import mxnet as mx


def ranked(rank, count):
    """Return a worker that knows only its rank."""
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


@pytest.mark.parametrize('count', [1, 2, 3])
def test_every_batch_of_an_evaluation_is_one_workers(count):
    """And each worker's own go to its devices in turns."""
    devices = ['first', 'second']
    for number in range(12):
        chosen = [take_turns(number, devices, ranked(rank, count)) for rank in range(count)]
        assert [device for device in chosen if device] == [devices[number // count % 2]]
        assert chosen.index(devices[number // count % 2]) == number % count


def test_the_order_depends_on_the_rows_of_an_update_alone():
    """Two workers with 8 rows have the updates of one process with 16, or with 2 parts of 8."""
    lengths = np.random.default_rng(0).integers(5, 30, 75)

    def rows_of(batch_size, parts):
        cut = batches.Cut(batch_size, parts, 1, by_token=False)
        updates = bucketed_updates(lengths, *cut, np.random.default_rng(1))
        return [np.concatenate(update).tolist() for update in updates]

    assert rows_of(8, 2) == rows_of(16, 1)


def test_dropout_differs_by_worker_and_not_for_one_process():
    def numbers(*place):
        seed_step(*place)
        return mx.nd.random.uniform(shape=(4,)).asnumpy().tolist()

    mx.random.seed(int(np.random.SeedSequence([7, 3]).generate_state(1)[0] >> 1))
    alone = mx.nd.random.uniform(shape=(4,)).asnumpy().tolist()
    assert numbers(7, 3) == numbers(7, 3, 0) == alone
    assert numbers(7, 3, 1) != alone
    assert numbers(7, 3, 2) != numbers(7, 3, 1)
