"""The choice of tokens to mask in an instance, and of their replacements (Devlin et al. 2018, 3.1).

All randomness comes from the ``numpy.random.Generator`` that is passed in.
"""

from typing import NamedTuple

import numpy as np

from bert.pretraining.corpus import smallest_integer


class Symbols(NamedTuple):
    """The properties of a vocabulary that masking depends on."""

    cls: int
    sep: int
    mask: int
    pad: int
    special: np.ndarray  # (vocabulary,) bool: never masked
    continues: np.ndarray  # (vocabulary,) bool: continues the word of the token before it

    @property
    def vocab_size(self):
        return len(self.special)


def symbols_of(vocab, word_start=None):
    """Return the :class:`Symbols` of a vocabulary.

    Parameters
    ----------
    vocab : bert.text.vocab.Vocab
    word_start : str, optional
        The prefix of the first token of each word, for sentencepiece vocabularies. Without it,
        tokens that start with ``##`` continue a word and the others begin one.
    """
    special = np.zeros(len(vocab), dtype=bool)
    names = (vocab.cls_token, vocab.sep_token, vocab.mask_token, vocab.padding_token)
    cls, sep, mask, pad = ids = [vocab[name] for name in names]
    special[ids] = True
    if word_start is None:
        continues = [token.startswith('##') for token in vocab.idx_to_token]
    else:
        continues = [not token.startswith(word_start) for token in vocab.idx_to_token]
    return Symbols(cls, sep, mask, pad, special, np.array(continues))


def choose_tokens(candidates, wanted, rng):
    """Choose ``wanted[i]`` of the candidates in row i, every such set with equal probability.

    Parameters
    ----------
    candidates : numpy.ndarray of bool, (n, length)
    wanted : numpy.ndarray of int, (n,)
        1 or more. If a row has fewer candidates, all of them are chosen.

    Returns
    -------
    numpy.ndarray of bool, (n, length)
    """
    keys = _random_keys(candidates, rng)
    most = min(wanted.max(), keys.shape[1])
    smallest = np.sort(np.partition(keys, most - 1, axis=1)[:, :most], axis=1)
    threshold = smallest[np.arange(len(keys)), np.minimum(wanted, most) - 1]
    return candidates & (keys <= threshold[:, None])


def choose_words(candidates, continues, wanted, rng):
    """Choose whole words with up to ``wanted[i]`` tokens in row i.

    Words are tried in random order, and those that would exceed the number are skipped. A word
    never extends across a special token (in the original, if truncation leaves only the end of a
    word at the start of B, that end belongs to the last word of A).

    Parameters
    ----------
    candidates, continues : numpy.ndarray of bool, (n, length)
        The tokens that may be chosen, and those that continue the previous token's word.
    wanted : numpy.ndarray of int, (n,)

    Returns
    -------
    numpy.ndarray of bool, (n, length)
    """
    count, length = candidates.shape
    rows = np.arange(count)
    follows = np.zeros_like(candidates)
    follows[:, 1:] = candidates[:, :-1] & continues[:, 1:]
    first = candidates & ~follows
    # The number of each candidate's word in its row, and the size of each word in tokens.
    word = np.maximum(np.cumsum(first, axis=1) - 1, 0)
    place = (rows[:, None] * length + word)[candidates]
    size = np.bincount(place, minlength=count * length).reshape(count, length)

    order = np.argsort(_random_keys(size > 0, rng), axis=1)
    chosen = np.zeros_like(candidates)
    tokens = np.zeros(count, dtype=np.int64)
    for rank in range(first.sum(axis=1).max()):
        this = order[:, rank]
        fits = tokens + size[rows, this] <= wanted
        chosen[rows, this] = fits
        tokens += size[rows, this] * fits
    return candidates & chosen[rows[:, None], word]


def _random_keys(where, rng):
    """Draw uint64 keys, distinct within a row; outside ``where``, all are the largest uint64."""
    keys = rng.integers(0, 2**64, where.shape, dtype=np.uint64)
    keys &= np.uint64(0xFFFFFFFF00000000)
    keys |= np.arange(where.shape[1], dtype=np.uint64)
    keys[~where] = np.iinfo(np.uint64).max
    return keys


def mask(tokens, chosen, max_predictions, symbols, rng):
    """Replace chosen tokens in place: 80 % by [MASK], 10 % by a random token, 10 % not at all.

    Returns
    -------
    dict of numpy.ndarray, (n, max_predictions)
        ``masked_lm_positions``, in ascending order and padded with 0; ``masked_lm_ids``, the
        original tokens, padded with [PAD]; and ``masked_lm_weights``, 1, padded with 0.
    """
    count, length = tokens.shape
    positions = np.zeros((count, max_predictions), dtype=smallest_integer(length - 1))
    labels = np.full((count, max_predictions), symbols.pad, dtype=tokens.dtype)
    weights = np.zeros((count, max_predictions), dtype=np.uint8)

    row, column = np.nonzero(chosen)
    slot = np.arange(len(row)) - np.searchsorted(row, row)
    positions[row, slot] = column
    labels[row, slot] = tokens[row, column]
    weights[row, slot] = 1

    chance = rng.random(len(row))
    to_mask, to_random = chance < 0.8, chance >= 0.9
    tokens[row[to_mask], column[to_mask]] = symbols.mask
    tokens[row[to_random], column[to_random]] = rng.integers(0, symbols.vocab_size, to_random.sum())
    return {
        'masked_lm_positions': positions,
        'masked_lm_ids': labels,
        'masked_lm_weights': weights,
    }
