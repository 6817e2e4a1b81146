"""Masked-LM and next-sentence instances from tokenized documents, vectorized over instances.

The algorithm is that of Devlin et al. 2018 (arXiv 1810.04805, section 3.1 and appendix A.1) as
published in google-research/bert. Two observations replace its loops over tokens. The segments of
an instance are runs of neighbouring tokens, so an instance, before it is masked, is just two
starts and two lengths. And although the instances of a document are made one after another,
documents do not wait for each other: each step of :func:`plan_pairs` makes the next instance of
every document at once.

All randomness comes from the ``numpy.random.Generator`` that is passed in.
"""

from typing import NamedTuple

import numpy as np

from bert.pretraining.corpus import smallest_integer
from bert.pretraining.masking import choose_tokens, choose_words, mask

# The tokens of an instance that are not text: [CLS] A [SEP] B [SEP].
SPECIALS_PER_INSTANCE = 3
# [CLS] A [SEP].
SPECIALS_PER_RUN = 2
# With one token in A and one in B.
MIN_SEQ_LENGTH = SPECIALS_PER_INSTANCE + 2
# Instances are assembled and masked in blocks of about this many tokens, which fit in the cache.
BLOCK_TOKENS = 2**19
# Text without next sentences is cut into runs in sections of about this many tokens, side by side.
SECTION_TOKENS = 2**16


class Recipe(NamedTuple):
    """The settings for making instances, named like the command-line flags."""

    max_seq_length: int = 128
    max_predictions_per_seq: int = 20
    masked_lm_prob: float = 0.15
    short_seq_prob: float = 0.1
    dupe_factor: int = 10
    whole_word_mask: bool = False
    no_nsp: bool = False

    def described(self):
        """Return the settings as a dict, as shards and training states record them.

        ``no_nsp`` was added later, and is there only if it is set.
        """
        values = self._asdict()
        if not self.no_nsp:
            del values['no_nsp']
        return values


class Pairs(NamedTuple):
    """Segments A and B of N instances, as runs of ``Corpus.ids``: five arrays of shape (N,).

    Without next sentences B is empty.
    """

    a_start: np.ndarray
    a_length: np.ndarray
    b_start: np.ndarray
    b_length: np.ndarray
    is_random_next: np.ndarray

    @property
    def count(self):
        return len(self.a_start)

    def take(self, rows):
        """Return some of the pairs, given as a slice or as an array of indices."""
        return Pairs(*(column[rows] for column in self))


def make_instances(corpus, recipe, symbols, rng):
    """Make all instances of a corpus, in random order.

    Parameters
    ----------
    corpus : Corpus
        A random next segment comes from another document, or from the only one.
    recipe : Recipe
    symbols : Symbols
    rng : numpy.random.Generator

    Returns
    -------
    count : int
        The number of instances.
    blocks : iterator of dict
        Blocks of n instances, each a dictionary of seven arrays, named as in GluonNLP:
        ``input_ids`` and ``segment_ids`` (n, max_seq_length); ``masked_lm_positions``,
        ``masked_lm_ids`` and ``masked_lm_weights`` (n, max_predictions_per_seq);
        ``next_sentence_labels`` (1 means random) and ``valid_lengths`` (n,).
    """
    plan = plan_runs if recipe.no_nsp else plan_pairs
    pairs = plan(corpus, recipe, rng)
    pairs = pairs.take(rng.permutation(pairs.count))
    rows = max(1, BLOCK_TOKENS // recipe.max_seq_length)
    return pairs.count, (
        make_block(corpus.ids, pairs.take(slice(i, i + rows)), recipe, symbols, rng)
        for i in range(0, pairs.count, rows)
    )


def plan_runs(corpus, recipe, rng):
    """Choose the only segment of every instance, ``dupe_factor`` times over.

    Each document is cut into runs of as many whole sentences as fit the target length, which is
    drawn as for :func:`plan_pairs`, but for each run. A sentence that is longer is cut at the
    target length. A run ends at the end of each section too, or a long document would take one
    step for each of its runs.

    Worked example: a document with sentences of 3, 4 and 5 tokens, and target length 8: runs of
    3 + 4 and of 5 tokens. With target length 4: runs of 3, 4, 4 and 1.

    Returns
    -------
    Pairs
        With an empty B. The documents are intermingled.
    """
    sentences = corpus.sentences
    limit = recipe.max_seq_length - SPECIALS_PER_RUN
    sections = np.searchsorted(sentences, np.arange(0, sentences[-1], SECTION_TOKENS))
    bounds = sentences[np.union1d(corpus.documents, sections)]
    start, stop = (np.tile(part, recipe.dupe_factor) for part in (bounds[:-1], bounds[1:]))
    steps = []
    while len(start):
        longest = start + _draw_targets(len(start), recipe, limit, rng)
        end = sentences[np.searchsorted(sentences, longest, side='right') - 1]
        end = np.minimum(np.where(end > start, end, longest), stop)
        steps.append((start, end - start))
        unfinished = end < stop
        start, stop = end[unfinished], stop[unfinished]
    start, length = map(np.concatenate, zip(*steps))
    nothing = np.zeros_like(start)
    return Pairs(start, length, nothing, nothing, np.zeros(len(start), dtype=bool))


def _draw_targets(count, recipe, limit, rng):
    """Draw target lengths: usually ``limit`` tokens."""
    short = rng.random(count) < recipe.short_seq_prob
    return np.where(short, rng.integers(2, limit + 1, count), limit)


def plan_pairs(corpus, recipe, rng):
    """Choose the segments of every instance, ``dupe_factor`` times over.

    Each document is cut into chunks of whole sentences that reach the target length: usually the
    most that fits, with probability ``short_seq_prob`` a random length of at least 2. The target
    is drawn for each document; if there is only one, for each chunk, as the whole text would be
    short or none of it. A random number of sentences at the start of a chunk become A. B is the
    rest of the chunk or, half of the time and whenever there is no rest, as much of another
    document (or of the same, if it is the only one), from a random sentence on; the rest then
    begins the next chunk. Pairs that are too long lose tokens (:func:`truncate`).

    Worked example: a document with sentences of 3, 4 and 5 tokens, and target length 6. The first
    two sentences reach it: A has 3 tokens and B has 4. If B is random instead, it takes sentences
    until it has 6 - 3 tokens or more, and the next chunk starts with the sentence of 4 tokens.

    Returns
    -------
    Pairs
        The documents are intermingled.
    """
    sentences, documents = corpus.sentences, corpus.documents
    limit = recipe.max_seq_length - SPECIALS_PER_INSTANCE
    count = len(documents) - 1
    document = np.tile(np.arange(count), recipe.dupe_factor)
    target = _draw_targets(len(document), recipe, limit, rng)
    start = documents[document]
    steps = []
    while len(document):
        end = _reach(sentences, start, target, documents[document + 1])
        a_stop = start + 1 + rng.integers(0, np.maximum(end - start - 1, 1))
        a_length = sentences[a_stop] - sentences[start]
        is_random = (a_stop == end) | (rng.random(len(document)) < 0.5)

        if count == 1:
            other = document
        else:
            other = rng.integers(0, count - 1, len(document))
            other += other >= document
        random_start = rng.integers(documents[other], documents[other + 1])
        random_end = _reach(sentences, random_start, target - a_length, documents[other + 1])

        b_start = sentences[np.where(is_random, random_start, a_stop)]
        b_stop = sentences[np.where(is_random, random_end, end)]
        steps.append((sentences[start], a_length, b_start, b_stop - b_start, is_random))

        start = np.where(is_random, a_stop, end)
        unfinished = start < documents[document + 1]
        document, target, start = document[unfinished], target[unfinished], start[unfinished]
        if count == 1:
            target = _draw_targets(len(document), recipe, limit, rng)
    return truncate(Pairs(*map(np.concatenate, zip(*steps))), limit, rng)


def _reach(sentences, start, length, stop):
    """Return the end of the fewest sentences, 1 or more, from ``start`` with ``length`` tokens."""
    end = np.searchsorted(sentences, sentences[start] + length)
    return np.minimum(np.maximum(end, start + 1), stop)


def truncate(pairs, limit, rng):
    """Shorten pairs to ``limit`` tokens.

    The longer segment, or B if they are equally long, loses its first or its last token, each with
    probability one half, until the pair fits. So the number of tokens that a segment loses is
    fixed, and how many of them it loses at its start is a binomial variable.

    Worked example: lengths 9 and 4, limit 8. A drops to 4, and nothing is left to remove. Lengths
    9 and 6, limit 8: A drops to 6, then B and A take turns until both have 4.
    """
    a_length = np.minimum(pairs.a_length, np.maximum(limit - pairs.b_length, (limit + 1) // 2))
    b_length = np.minimum(pairs.b_length, limit - a_length)
    return pairs._replace(
        a_start=pairs.a_start + rng.binomial(pairs.a_length - a_length, 0.5),
        a_length=a_length,
        b_start=pairs.b_start + rng.binomial(pairs.b_length - b_length, 0.5),
        b_length=b_length,
    )


def make_block(ids, pairs, recipe, symbols, rng):
    """Assemble and mask the instances of some pairs: one block of :func:`make_instances`."""
    tokens, segment_ids, valid_lengths = assemble(ids, pairs, recipe.max_seq_length, symbols)
    wanted = np.rint(valid_lengths * recipe.masked_lm_prob).astype(np.int64)
    wanted = np.minimum(recipe.max_predictions_per_seq, np.maximum(1, wanted))
    candidates = ~symbols.special[tokens]
    if recipe.whole_word_mask:
        chosen = choose_words(candidates, symbols.continues[tokens], wanted, rng)
    else:
        chosen = choose_tokens(candidates, wanted, rng)
    masked = mask(tokens, chosen, recipe.max_predictions_per_seq, symbols, rng)
    return {
        'input_ids': tokens,
        'segment_ids': segment_ids,
        **masked,
        'next_sentence_labels': pairs.is_random_next.astype(np.uint8),
        'valid_lengths': valid_lengths.astype(smallest_integer(recipe.max_seq_length)),
    }


def assemble(ids, pairs, max_seq_length, symbols):
    """Assemble ``[CLS] A [SEP] B [SEP]``, or ``[CLS] A [SEP]`` if B is empty, and padding.

    Returns
    -------
    tokens : numpy.ndarray of the type of ``ids``, (n, max_seq_length)
    segment_ids : numpy.ndarray of uint8, (n, max_seq_length)
        1 in B and its [SEP], 0 elsewhere.
    valid_lengths : numpy.ndarray of int64, (n,)
    """
    column = np.arange(max_seq_length)
    rows = np.arange(pairs.count)
    first_sep = pairs.a_length + 1
    last_sep = first_sep + pairs.b_length + (pairs.b_length > 0)
    in_b = column > first_sep[:, None]
    shift = np.where(in_b, (pairs.b_start - first_sep - 1)[:, None], (pairs.a_start - 1)[:, None])
    # Columns outside the segments, which may point past the corpus, are overwritten below.
    tokens = ids.take(column + shift, mode='clip')
    tokens[:, 0] = symbols.cls
    tokens[rows, first_sep] = symbols.sep
    tokens[rows, last_sep] = symbols.sep
    padding = column > last_sep[:, None]
    tokens[padding] = symbols.pad
    return tokens, (in_b & ~padding).astype(np.uint8), last_sep + 1
