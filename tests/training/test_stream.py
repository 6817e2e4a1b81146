"""Results in the order of the rows, for any number of rows, computed in batches of like length."""

import doctest

import numpy as np
import pytest

from bert.text.encoding import Encoded
from bert.training import stream


def encoded(lengths):
    """Return rows of these lengths, each with its own number as every id."""
    ids = [np.full(length, number, np.int32) for number, length in enumerate(lengths)]
    lengths = np.array(lengths, np.int32)
    return Encoded(ids, lengths, lengths, 0)


def test_the_example():
    tested = doctest.testmod(stream)
    assert tested.attempted and not tested.failed


def test_windows_read_no_further_ahead():
    taken = []
    rows = (taken.append(number) or number for number in range(10**9))
    found = stream.windows(rows, 3)
    assert next(found) == [0, 1, 2] and len(taken) == 3
    assert next(found) == [3, 4, 5] and len(taken) == 6
    assert list(stream.windows([], 3)) == []


@pytest.mark.parametrize('sizes', [[], [1], [7], [5, 5, 5], [8, 1, 0, 3], [1, 1, 1, 1], [64, 10]])
@pytest.mark.parametrize('batch_size', [1, 3, 8])
@pytest.mark.parametrize('limit', [0, 2, 4])
def test_results_are_in_the_order_of_the_rows(sizes, batch_size, limit):
    rng = np.random.default_rng(0)
    parts = [encoded(rng.integers(3, 20, size)) for size in sizes]
    batches = []

    def compute(part, rows, number):
        assert number == len(batches)
        batches.append(part.lengths[rows])
        return part, rows

    def read(values):
        part, rows = values
        return [(len(part.ids[row]), row) for row in rows]

    found = list(stream.in_order(parts, batch_size, compute, read, limit))
    assert found == [(length, row) for part in parts for row, length in enumerate(part.lengths)]
    assert sum(map(len, batches)) == sum(sizes)
    # Within a batch, and from one batch of a window to the next, lengths do not fall.
    starts = np.cumsum([0, *(-(-size // batch_size) for size in sizes)])
    for first, last in zip(starts, starts[1:]):
        in_window = np.concatenate([*batches[first:last], [99]])
        assert (np.diff(in_window) >= 0).all()


def test_rows_of_other_workers_are_none():
    part = encoded([5, 3, 4, 6])

    def compute(part, rows, number):
        return rows if number % 2 else None

    found = list(stream.in_order([part], 2, compute, lambda rows: [f'row {r}' for r in rows], 2))
    assert found == ['row 0', None, None, 'row 3']


def test_no_more_than_two_windows_are_in_memory():
    """When a result is yielded, the window after its own is the last one that was asked for."""
    asked = []

    def parts():
        for number in range(50):
            asked.append(number)
            yield encoded([4, 9, 3, 5, 8, 7])

    waiting = []

    def compute(part, rows, number):
        waiting.append(number)
        return rows

    def read(rows):
        waiting.pop(0)
        return rows

    for number, row in enumerate(stream.in_order(parts(), 2, compute, read, 2)):
        assert row == number % 6
        assert len(asked) <= number // 6 + 2
        assert len(waiting) <= 3  # those under way, and the one just begun
    assert number == 299
