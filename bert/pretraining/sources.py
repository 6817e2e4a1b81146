"""The sources of pre-training instances: shards, or text turned into instances on the fly.

A source has *units*, some shards or a piece of text, each a few thousand instances or more that
are shuffled together. The order of the units and the rows of each batch depend only on the seed
and the epoch, so a position in this stream is three numbers: epoch, unit and update.
"""

import contextlib
import logging
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import NamedTuple

import numpy as np

from bert.cli.console import first_of
from bert.pretraining.corpus import read_corpus
from bert.pretraining.files import (
    BY_LINE,
    Layout,
    find_files,
    share_out,
    warn_of_single_documents,
)
from bert.pretraining.instances import Recipe, make_instances
from bert.pretraining.masking import symbols_of
from bert.pretraining.shards import ARRAYS, read_settings, read_shard
from bert.system import processes
from bert.system.errors import ToolkitError, UsageError
from bert.text.tokenizer import build_tokenizer, tokenize
from bert.text.vocab import Vocab

# The size of a unit of text in bytes, if there is that much.
TEXT_PER_UNIT = 2**23


def concatenate(parts):
    """Concatenate the rows of dictionaries of arrays; narrower arrays are padded with 0."""
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
    """A few shards that are read together."""

    paths: list
    vocab: Vocab
    max_length: int

    def load(self):
        """Read the instances, with the ids of the model's vocabulary.

        Returns
        -------
        dict of numpy.ndarray
            See :func:`bert.pretraining.shards.read_shard`.
        """
        parts = []
        for path in self.paths:
            arrays = read_shard(path, self.vocab)
            longest = arrays['valid_lengths'].max()
            if longest > self.max_length:
                raise ToolkitError(
                    f'{path}: has instances of {longest} tokens, but the model has only '
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
        The model's number of positions.
    no_nsp : bool
        Whether the next-sentence labels are of no use.

    Attributes
    ----------
    undescribed : list of str
        The files that do not say how they were made.
    """

    ahead = 1  # how many units are read before they are needed

    def __init__(self, patterns, vocab, max_length, no_nsp=False):
        self.paths = find_files(patterns)
        self.vocab = vocab
        self.max_length = max_length
        settings = [read_settings(path) for path in self.paths]
        for path, each in zip(self.paths, settings):
            if each.get('no_nsp') and not no_nsp:
                raise UsageError(
                    f'{path}: made with --no_nsp, so it has no next sentences to learn from: '
                    'give --no_nsp here too'
                )
        self.counts = [int(each['instances']) for each in settings]
        self.count = sum(self.counts)
        self.undescribed = [
            path for path, each in zip(self.paths, settings) if 'vocab_fingerprint' not in each
        ]
        self.lower = settings[0].get('lower') if not settings[0].get('tokenized') else None
        self.description = [
            [os.path.basename(path), count] for path, count in zip(self.paths, self.counts)
        ]

    def __str__(self):
        return f'instances: {self.count}, shards: {len(self.paths)}'

    def units(self, seed, epoch, rows):
        """Return the units of an epoch, each of at least ``rows`` rows if there are that many."""
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

    def executor(self):
        """Return an executor that reads ahead, in a thread."""
        return ThreadPoolExecutor(self.ahead)


def log_undescribed(sources):
    """Log one line if some of the shards do not say how they were made."""
    paths = list(dict.fromkeys(path for source in sources for path in source.undescribed))
    if paths:
        logging.info(
            "%s: does not say how it was made; the ids are taken to be those of the model's "
            'vocabulary',
            first_of(paths),
        )


class TextUnit(NamedTuple):
    """A piece of text that is made into instances."""

    spans: list
    vocab: Vocab
    lower: bool
    recipe: Recipe
    seeds: list
    layout: Layout = BY_LINE

    def load(self):
        """Make the instances; different seeds give different pairs and masks.

        Returns
        -------
        dict of numpy.ndarray
            See :func:`bert.pretraining.shards.read_shard`.
        """
        encode = partial(tokenize, build_tokenizer(self.vocab, self.lower))
        corpus = read_corpus(self.spans, encode, len(self.vocab), layout=self.layout)
        rng = np.random.default_rng(self.seeds)
        _, blocks = make_instances(corpus, self.recipe, symbols_of(self.vocab), rng)
        return concatenate(list(blocks))


class Text:
    """Text files, turned into new instances for each epoch in other processes.

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
        The number of processes.
    layout : bert.pretraining.files.Layout
    """

    count = None  # the number of instances, unknown before they are made
    undescribed = ()  # unlike shards

    def __init__(self, patterns, vocab, lower, recipe, num_workers, layout=BY_LINE):
        self.vocab = vocab
        self.lower = lower
        self.recipe = recipe
        self.layout = layout
        self.ahead = num_workers
        self.pieces = cut_text(find_files(patterns), not recipe.no_nsp, layout)
        if not recipe.no_nsp:
            warn_of_single_documents(self.pieces, layout)
        self.description = [
            [os.path.basename(span.path), span.start, span.stop]
            for spans in self.pieces
            for span in spans
        ] + [[*recipe.described().values(), *layout.described().items()]]

    def __str__(self):
        size = sum(span.stop - span.start for spans in self.pieces for span in spans)
        return f'bytes of text: {size}, pieces: {len(self.pieces)}'

    def units(self, seed, epoch, rows):
        """Return the units of an epoch; ``rows`` has no effect, as every piece of text has many."""
        settings = self.vocab, self.lower, self.recipe
        return [
            TextUnit(self.pieces[i], *settings, [seed, epoch, i], self.layout)
            for i in np.random.default_rng([seed, epoch]).permutation(len(self.pieces)).tolist()
        ]

    @contextlib.contextmanager
    def executor(self):
        """Yield an executor that makes instances ahead of training, in processes."""
        # Not forked: MXNet has started threads by now.
        context = multiprocessing.get_context('spawn')
        with processes.process_pool(self.ahead, start_worker, context) as executor:
            try:
                yield executor
            except BrokenProcessPool:
                raise ToolkitError(
                    'a process that made instances was killed, perhaps for lack of memory: '
                    'use fewer --num_workers, or shards instead of --raw'
                ) from None
            finally:
                # The instances that they are making are no longer needed, and could take long.
                processes.stop_children(kill=True)


def cut_text(paths, whole_documents=True, layout=BY_LINE):
    """Cut large files, and group small ones; see :func:`bert.pretraining.files.share_out`.

    Returns
    -------
    list of list of Span
        Pieces of about :data:`TEXT_PER_UNIT` bytes, or a single piece with all the text.
    """
    pieces, size = [[]], 0
    for path in paths:
        count = max(1, os.path.getsize(path) // TEXT_PER_UNIT)
        for (span,) in share_out([path], count, whole_documents, layout):
            if size >= TEXT_PER_UNIT // 2:
                pieces.append([])
                size = 0
            if span.stop > span.start:
                pieces[-1].append(span)
            size += span.stop - span.start
    if len(pieces) > 1 and size < TEXT_PER_UNIT // 2:
        last = pieces.pop()
        pieces[-1] += last
    return pieces


def start_worker():
    """Leave signals to the parent process, and the cores to training."""
    processes.ignore_signals()
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'
