"""TODO"""

import contextlib
import itertools
from collections import deque
from typing import NamedTuple

import numpy as np

from bert.system.errors import UsageError
from bert.training.batches import bucketed_updates, evaluation_batches

# Shards are read together until they have rows for this many updates: a mixture of more than one
# shard where shards are small, and hardly a batch that is not full.
UPDATES_PER_UNIT = 16


class Batch(NamedTuple):
    """Rows, as long as the longest; M is the largest number of masked tokens in one of them."""

    ids: np.ndarray  # (B, L) int32
    token_types: np.ndarray  # (B, L) int32
    valid_lengths: np.ndarray  # (B,) float32
    mlm_positions: np.ndarray  # (B, M) int32
    mlm_labels: np.ndarray  # (B, M) int32
    mlm_weights: np.ndarray  # (B, M) float32: 0 where a row has fewer masked tokens
    nsp_labels: np.ndarray  # (B,) int32: 1 where the second segment is a random one


def make_batch(arrays, rows):
    """Some rows of a unit.

    Parameters
    ----------
    arrays : dict of numpy.ndarray
        As :func:`bert.pretraining.shards.read_shard` returns them.
    rows : (B,) array of int

    Returns
    -------
    Batch
    """
    lengths = arrays['valid_lengths'][rows]
    weights = arrays['masked_lm_weights'][rows]
    width = lengths.max()
    masks = 1 + max(np.flatnonzero(weights.any(axis=0)), default=0)
    return Batch(
        arrays['input_ids'][rows, :width].astype(np.int32),
        arrays['segment_ids'][rows, :width].astype(np.int32),
        lengths.astype(np.float32),
        arrays['masked_lm_positions'][rows, :masks].astype(np.int32),
        arrays['masked_lm_ids'][rows, :masks].astype(np.int32),
        weights[:, :masks].astype(np.float32),
        arrays['next_sentence_labels'][rows].astype(np.int32),
    )


def load_unit(unit):
    """Load a unit, in whatever process."""
    return unit.load()


class Cut(NamedTuple):
    """How the rows of a unit become updates; see :func:`bert.training.batches.bucketed_updates`."""

    batch_size: int
    parts: int
    num_buckets: int
    by_token: bool

    @property
    def rows(self):
        """Rows of an update; by token, about as many."""
        typical_length = 100
        rows = max(1, self.batch_size // typical_length) if self.by_token else self.batch_size
        return rows * self.parts


@contextlib.contextmanager
def updates(source, cut, seed, position):
    """All updates from a position on, for ever; the next units are loaded meanwhile.

    Parameters
    ----------
    source : Shards or Text
    cut : Cut
    seed : int
    position : sequence of 3 int
        Epoch, unit and update, each counted from 0.

    Yields
    ------
    iterator of (list of Batch, list of 3 int)
        The batches of an update, and the position after it.
    """
    with source.executor() as executor:
        iterator = _updates(source, cut, seed, position, executor)
        with contextlib.closing(iterator):
            yield iterator


def _updates(source, cut, seed, position, executor):
    first_epoch, first_unit, first_update = position
    numbered = (
        (epoch, number, unit)
        for epoch in itertools.count(first_epoch)
        for number, unit in enumerate(source.units(seed, epoch, cut.rows * UPDATES_PER_UNIT))
        if (epoch, number) >= (first_epoch, first_unit)
    )
    for epoch, number, arrays in load_ahead(numbered, executor, source.ahead):
        lengths = arrays['valid_lengths']
        if cut.by_token and cut.batch_size < lengths.max():
            raise UsageError(
                f'--batch_size {cut.batch_size} with --by-token is fewer tokens than the longest '
                f'instance has, {lengths.max()}'
            )
        rng = np.random.default_rng([seed, epoch, number])
        for i, parts in enumerate(bucketed_updates(lengths, *cut, rng)):
            if (epoch, number, i) >= (first_epoch, first_unit, first_update):
                yield [make_batch(arrays, rows) for rows in parts], [epoch, number, i + 1]


def load_ahead(numbered, executor, ahead):
    """Load units in their order, some of them before they are asked for.

    Parameters
    ----------
    numbered : iterator of (epoch, number, unit)
    executor : concurrent.futures.Executor
    ahead : int
        How many units are loaded or waiting beside the one in use.

    Yields
    ------
    epoch, number, arrays
    """
    futures = deque()
    try:
        for epoch, number, unit in numbered:
            futures.append((epoch, number, executor.submit(load_unit, unit)))
            if len(futures) > ahead:
                epoch, number, future = futures.popleft()
                yield epoch, number, future.result()
        for epoch, number, future in futures:
            yield epoch, number, future.result()
    finally:
        for _, _, future in futures:
            future.cancel()


def evaluation(source, batch_size, seed):
    """All instances once, as batches of like length.

    Yields
    ------
    Batch
    """
    for unit in source.units(seed, 0, rows=1):
        arrays = unit.load()
        for rows in evaluation_batches(arrays['valid_lengths'], batch_size):
            yield make_batch(arrays, rows)
