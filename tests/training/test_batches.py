"""Batches of rows of similar length."""

import numpy as np
import pytest

from bert.training import batches

LENGTHS = np.random.default_rng(0).integers(5, 129, 3668)


@pytest.mark.parametrize('size', [1, 7, 32])
@pytest.mark.parametrize('count', [1, 31, 64, 3668])
def test_all_rows_once_and_one_batch_for_the_rest(count, size):
    made = batches.training_batches(LENGTHS[:count], size, np.random.default_rng(1))
    assert sorted(np.concatenate(made)) == list(range(count))
    sizes = sorted(len(batch) for batch in made)
    assert len(made) == -(-count // size)
    assert sizes[1:] == [size] * (len(made) - 1)


def test_the_generator_decides_alone():
    def make(seed):
        return [
            batch.tolist()
            for batch in batches.training_batches(LENGTHS, 32, np.random.default_rng(seed))
        ]

    assert make(1) == make(1)
    assert make(1) != make(2)


def test_batches_come_in_random_order_of_length():
    made = batches.training_batches(LENGTHS, 32, np.random.default_rng(1))
    longest = [LENGTHS[batch].max() for batch in made]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3
    # Within a batch the lengths are alike: a random batch spans nearly the whole range of 123.
    spans = [np.ptp(LENGTHS[batch]) for batch in made]
    assert np.mean(spans) < 10


def test_little_padding():
    rng = np.random.default_rng(1)
    shuffled = np.split(rng.permutation(3648), 114)
    grouped = batches.training_batches(LENGTHS, 32, rng)
    assert batches.padding_share(LENGTHS[:3648], shuffled) > 0.4
    assert batches.padding_share(LENGTHS, grouped) < 0.04


def test_who_meets_whom_changes_from_epoch_to_epoch():
    """With 2 pools a row's neighbours are redrawn; a single sorted list would keep them."""

    def neighbours(epoch):
        rng = np.random.default_rng([1, epoch])
        for batch in batches.training_batches(LENGTHS, 32, rng):
            if 0 in batch:
                return set(batch.tolist())

    assert len(neighbours(0) & neighbours(1)) < 28


def test_evaluation_batches_are_sorted():
    made = batches.evaluation_batches(np.array([9, 3, 7, 3, 5]), 2)
    assert [batch.tolist() for batch in made] == [[1, 3], [4, 2], [0]]


def test_padding_share_by_hand():
    """Batches (3, 5) and (4): 5+5+4 = 14 positions, of which 12 are tokens."""
    share = batches.padding_share(np.array([3, 4, 5]), [np.array([0, 2]), np.array([1])])
    assert share == pytest.approx(2 / 14)
