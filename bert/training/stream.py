"""Compute a result for each row of an input of any length, in its order and in bounded memory."""

from collections import deque
from itertools import count, islice, repeat

from bert.training.batches import evaluation_batches
from bert.training.devices import Late


def windows(rows, size):
    """Cut an iterable of any length into lists of up to ``size`` rows, reading no further ahead.

    >>> list(windows('abcde', 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    rows = iter(rows)
    return iter(lambda: list(islice(rows, size)), [])


class _Window:
    """The results of the rows of a window."""

    def __init__(self, size):
        self.results = [None] * size
        self.missing = size

    def add(self, rows, results):
        for row, result in zip(rows, results):
            self.results[row] = result
        self.missing -= len(rows)


def in_order(encoded_windows, batch_size, compute, read, limit):
    """Yield the result of each row, in the order of the rows.

    The rows of a window are sorted by length into batches with hardly any padding. The devices
    need not wait between windows: the results of one are read while the next is computed. No more
    than two windows are in memory.

    Parameters
    ----------
    encoded_windows : iterable of bert.text.encoding.Encoded
        Consecutive parts of the input, perhaps a single one.
    batch_size : int
    compute : function
        Takes a window, the rows of a batch, a (B,) array, and the number of the batch; returns
        what is being computed for them, or None for a batch that another worker computes.
    read : function
        Takes what ``compute`` returned, waits for it and returns the B results.
    limit : int
        The most batches that may be under way.

    Yields
    ------
    object
        One of the B results; None for a row of another worker's batch.
    """
    waiting = deque()
    late = Late(lambda window, rows, values: window.add(rows, read(values)), limit)
    numbers = count()
    for encoded in encoded_windows:
        window = _Window(len(encoded.ids))
        waiting.append(window)
        for rows in evaluation_batches(encoded.lengths, batch_size):
            values = compute(encoded, rows, next(numbers))
            if values is None:
                window.add(rows, repeat(None))
            else:
                late.add(window, rows, values)
            while waiting and not waiting[0].missing:
                yield from waiting.popleft().results
    late.finish()
    for window in waiting:
        yield from window.results
