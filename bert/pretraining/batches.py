"""Batches of pre-training instances: a source, cut into a stream of updates."""

import contextlib
import itertools
from collections import deque
from typing import NamedTuple

import numpy as np

from bert.system.errors import UsageError
from bert.system.processes import holding_signals
from bert.training.batches import bucketed_updates, evaluation_batches

# Enough shards are read together for this many updates, so that small shards are mixed and
# almost all batches are full.
UPDATES_PER_UNIT = 16


class Batch(NamedTuple):
    """B rows; L is the length of the longest row, and M the most masked tokens in any row."""

    ids: np.ndarray  # (B, L) int32
    token_types: np.ndarray  # (B, L) int32
    valid_lengths: np.ndarray  # (B,) float32
    mlm_positions: np.ndarray  # (B, M) int32
    mlm_labels: np.ndarray  # (B, M) int32
    mlm_weights: np.ndarray  # (B, M) float32: 0 where a row has fewer masked tokens
    nsp_labels: np.ndarray  # (B,) int32: 1 if the second segment is random


def make_batch(arrays, rows):
    """Make a batch of some rows of a unit.

    Parameters
    ----------
    arrays : dict of numpy.ndarray
        See :func:`bert.pretraining.shards.read_shard`.
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


class Cut(NamedTuple):
    """The way to cut the rows of a unit into updates: arguments of :func:`bucketed_updates`."""

    batch_size: int
    parts: int
    num_buckets: int
    by_token: bool

    @property
    def rows(self):
        """The number of rows in an update; an estimate if ``by_token``."""
        typical_length = 100
        rows = max(1, self.batch_size // typical_length) if self.by_token else self.batch_size
        return rows * self.parts


@contextlib.contextmanager
def updates(source, cut, seed, position):
    """Yield updates from a position on, without end, while the next units are being loaded.

    Parameters
    ----------
    source : bert.pretraining.sources.Shards or bert.pretraining.sources.Text
    cut : Cut
    seed : int
    position : sequence of 3 int
        Epoch, unit and update, each counted from 0.

    Yields
    ------
    iterator of (list of Batch, list of 3 int)
        The batches of an update, and the position after it.
    """
    with source.executor() as executor, contextlib.closing(
        _updates(source, cut, seed, position, executor)
    ) as iterator:
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
    """Load units in order, some of them before they are needed.

    Parameters
    ----------
    numbered : iterator of (epoch, number, unit)
    executor : concurrent.futures.Executor
    ahead : int
        How many units to load in advance, beyond the one in use.

    Yields
    ------
    epoch, number, arrays
    """
    futures = deque()
    try:
        for epoch, number, unit in numbered:
            with holding_signals():
                futures.append((epoch, number, executor.submit(unit.load)))
            if len(futures) > ahead:
                epoch, number, future = futures.popleft()
                yield epoch, number, future.result()
        for epoch, number, future in futures:
            yield epoch, number, future.result()
    finally:
        for _, _, future in futures:
            future.cancel()


def evaluation(source, batch_size, seed):
    """Yield all instances once, in batches of similar length.

    Yields
    ------
    Batch
    """
    for unit in source.units(seed, 0, rows=1):
        arrays = unit.load()
        for rows in evaluation_batches(arrays['valid_lengths'], batch_size):
            yield make_batch(arrays, rows)
