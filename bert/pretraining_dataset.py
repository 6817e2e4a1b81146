"""Pre-training instances as batches: from shards, or made from text while the training runs.

A source has *units*, each a few thousand instances or more that are shuffled together: some
shards, or a piece of text. Which units come when, and which rows meet in a batch, depends only on
the seed and the epoch, so a position in this stream is three numbers.
"""

import contextlib
import itertools
import os
from collections import deque
from typing import NamedTuple

import numpy as np

from bert import workers
from bert.batches import bucketed_updates, evaluation_batches
from bert.cli import ToolkitError, UsageError
from bert.corpus import find_files, read_corpus, share_out
from bert.pretraining_data import Recipe, instances, symbols_of
from bert.shards import ARRAYS, read_settings, read_shard
from bert.tokenizer import build_tokenizer, tokenize
from bert.vocab import Vocab

# Shards are read together until they have rows for this many updates: a mixture of more than one
# shard where shards are small, and hardly a batch that is not full.
UPDATES_PER_UNIT = 16
# Bytes of text whose instances are made at a time, where it has as many.
TEXT_PER_UNIT = 2**23


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
        As :func:`bert.shards.read_shard` returns them.
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


def concatenate(parts):
    """The rows of several dictionaries of arrays in one; narrower arrays are filled up with 0."""
    if len(parts) == 1:
        return parts[0]
    whole = {}
    for name in ARRAYS:
        arrays = [part[name] for part in parts]
        shape = (sum(map(len, arrays)), *np.max([array.shape[1:] for array in arrays], axis=0))
        whole[name] = np.zeros(shape, np.result_type(*arrays))
        start = 0
        for array in arrays:
            block = whole[name][start : start + len(array)]
            block[(slice(None), *map(slice, array.shape[1:]))] = array
            start += len(array)
    return whole


class ShardUnit(NamedTuple):
    """Some shards, to be read together."""

    paths: list
    vocab: Vocab
    max_length: int

    def load(self):
        """The instances, with the ids of the model's vocabulary.

        Returns
        -------
        dict of numpy.ndarray
            See :func:`bert.shards.read_shard`.
        """
        parts = []
        for path in self.paths:
            arrays = read_shard(path, self.vocab)
            longest = arrays['valid_lengths'].max()
            if longest > self.max_length:
                raise ToolkitError(
                    f'{path}: has instances of {longest} tokens, and the model only '
                    f'{self.max_length} positions'
                )
            parts.append(arrays)
        return concatenate(parts)


class Shards:
    """Files that create_pretraining_data.py wrote.

    Parameters
    ----------
    patterns : str
        Comma-separated globs.
    vocab : Vocab
        The model's.
    max_length : int
        The model's positions.
    """

    def __init__(self, patterns, vocab, max_length):
        self.paths = find_files(patterns)
        self.vocab = vocab
        self.max_length = max_length
        settings = [read_settings(path) for path in self.paths]
        self.counts = [int(each['instances']) for each in settings]
        self.count = sum(self.counts)
        self.lower = settings[0].get('lower') if not settings[0].get('tokenized') else None
        self.description = [
            [os.path.basename(path), count] for path, count in zip(self.paths, self.counts)
        ]

    def __str__(self):
        return f'instances: {self.count}, shards: {len(self.paths)}'

    def units(self, seed, epoch, rows):
        """The units of an epoch, of as many rows or more if there are."""
        chosen, count, units = [], 0, []
        for i in np.random.default_rng([seed, epoch]).permutation(len(self.paths)):
            chosen.append(self.paths[i])
            count += self.counts[i]
            if count >= rows:
                units.append(chosen)
                chosen, count = [], 0
        if chosen and units:
            units[-1] += chosen
        elif chosen:
            units = [chosen]
        return [ShardUnit(paths, self.vocab, self.max_length) for paths in units]

    ahead = 1  # units read before they are needed

    def executor(self):
        """What reads ahead: a thread."""
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(1)


class TextUnit(NamedTuple):
    """A piece of text, to be made into instances."""

    spans: list
    vocab: Vocab
    lower: bool
    recipe: Recipe
    seeds: list

    def load(self):
        """Instances with masks of their own.

        Returns
        -------
        dict of numpy.ndarray
            As from :func:`bert.shards.read_shard`.
        """
        tokenizer = build_tokenizer(self.vocab, self.lower)
        corpus = read_corpus(self.spans, lambda texts: tokenize(tokenizer, texts), len(self.vocab))
        rng = np.random.default_rng(self.seeds)
        _, blocks = instances(corpus, self.recipe, symbols_of(self.vocab), rng)
        return concatenate(list(blocks))


class Text:
    """Text files, whose instances are made anew for each epoch, in other processes.

    Parameters
    ----------
    patterns : str
        Comma-separated globs.
    vocab : Vocab
        The model's.
    lower : bool
        Whether to lower-case the text.
    recipe : Recipe
    num_workers : int
        Processes.
    """

    def __init__(self, patterns, vocab, lower, recipe, num_workers):
        self.vocab = vocab
        self.lower = lower
        self.recipe = recipe
        self.ahead = num_workers
        self.count = None  # of instances: known once they are made
        self.spans = pieces(find_files(patterns))
        self.description = [
            [os.path.basename(span.path), span.start, span.stop]
            for spans in self.spans
            for span in spans
        ] + [list(recipe)]

    def __str__(self):
        size = sum(span.stop - span.start for spans in self.spans for span in spans)
        return f'bytes of text: {size}, pieces: {len(self.spans)}'

    def units(self, seed, epoch, rows):
        """The units of an epoch; ``rows`` says nothing here, a piece of text has many."""
        return [
            TextUnit(self.spans[i], self.vocab, self.lower, self.recipe, [seed, epoch, i])
            for i in np.random.default_rng([seed, epoch]).permutation(len(self.spans)).tolist()
        ]

    @contextlib.contextmanager
    def executor(self):
        """What makes instances ahead of the training: processes."""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool

        # Not forked: MXNet has started threads by now.
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(self.ahead, context, start_worker) as executor:
            try:
                yield executor
            except BrokenProcessPool:
                raise ToolkitError(
                    'a process that made instances was killed, perhaps for want of memory: '
                    'take fewer --num_workers, or shards in place of --raw'
                ) from None
            finally:
                # What they are making ahead is of no use any more, and may take them long.
                workers.stop_children(kill=True)


def pieces(paths):
    """Cut large files between documents and put small ones together.

    Returns
    -------
    list of list of Span
        Each of about :data:`TEXT_PER_UNIT` bytes, or all there is.
    """
    groups, size = [[]], 0
    for path in paths:
        for (span,) in share_out([path], max(1, os.path.getsize(path) // TEXT_PER_UNIT)):
            if size >= TEXT_PER_UNIT // 2:
                groups.append([])
                size = 0
            if span.stop > span.start:
                groups[-1].append(span)
            size += span.stop - span.start
    if len(groups) > 1 and size < TEXT_PER_UNIT // 2:
        last = groups.pop()
        groups[-1] += last
    return groups


def start_worker():
    """Leave signals to the parent process and the cores to the training."""
    workers.ignore_signals()
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'


def load_unit(unit):
    """Load a unit, in whatever process."""
    return unit.load()


class Cut(NamedTuple):
    """How the rows of a unit become updates; see :func:`bert.batches.bucketed_updates`."""

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
