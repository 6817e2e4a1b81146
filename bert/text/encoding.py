"""Text as input arrays for BERT: token ids, token types and valid lengths."""

from typing import List, NamedTuple

import numpy as np

from bert.text.tokenizer import tokenize


class Encoded(NamedTuple):
    """Sentences or sentence pairs as token ids, without padding."""

    ids: List[np.ndarray]  # [CLS] first [SEP] (second [SEP]), int32, each at most max_len long
    first_lengths: np.ndarray  # (N,) int32: tokens up to the first [SEP], whose type is 0
    lengths: np.ndarray  # (N,) int32
    padding: int  # the id of [PAD]
    cut: int = 0  # how many rows were longer


def truncated_lengths(first, second, limit):
    """Return the lengths of two texts after cutting tokens off the longer one until both fit.

    The original removes one token at a time, from the second text if both are equally long.

    Parameters
    ----------
    first, second : (N,) arrays of int
    limit : int
        The largest sum of the two lengths.

    Returns
    -------
    two (N,) arrays of int

    >>> truncated_lengths(np.array([10, 3]), np.array([8, 9]), 9)
    (array([5, 3]), array([4, 6]))
    """
    half = limit // 2
    kept_second = np.minimum(second, np.maximum(half, limit - first))
    kept_first = np.minimum(first, limit - kept_second)
    return kept_first, kept_second


def encode(texts, tokenizer, vocab, max_len):
    """Tokenize texts on all cores, truncate them and add the special tokens.

    Parameters
    ----------
    texts : list of tuple of str
        One text each, or two texts each.
    tokenizer : bert.text.tokenizer.Tokenizer
        See :func:`bert.text.tokenizer.build_tokenizer`.
    vocab : Vocab or gluonnlp.vocab.BERTVocab
    max_len : int
        The most tokens in a row, [CLS] and [SEP] included.

    Returns
    -------
    Encoded
    """
    columns = [tokenize(tokenizer, column) for column in zip(*texts)]
    lengths = [np.array([len(ids) for ids in column], dtype=np.int32) for column in columns]
    wanted = sum(lengths)
    if len(columns) == 2:
        lengths = truncated_lengths(*lengths, max_len - 3)
    else:
        lengths = [np.minimum(lengths[0], max_len - 2)]
    cls, sep = (np.array([vocab[token]], np.int32) for token in (vocab.cls_token, vocab.sep_token))
    ids = []
    for row in zip(*columns, *lengths):
        pieces = [cls]
        for tokens, length in zip(row[: len(columns)], row[len(columns) :]):
            pieces += [tokens[:length], sep]
        ids.append(np.concatenate(pieces))
    return Encoded(
        ids,
        (lengths[0] + 2).astype(np.int32),
        np.array([len(row) for row in ids], dtype=np.int32),
        vocab[vocab.padding_token],
        int(np.count_nonzero(sum(lengths) < wanted)),
    )


def encode_mixed(texts, tokenizer, vocab, max_len):
    """Encode texts of which some are single and others are pairs; see :func:`encode`."""
    sizes = np.array([len(row) for row in texts])
    ids = [None] * len(texts)
    first_lengths, lengths = np.zeros((2, len(texts)), dtype=np.int32)
    cut = 0
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        part = encode([texts[row] for row in rows], tokenizer, vocab, max_len)
        for row, row_ids in zip(rows, part.ids):
            ids[row] = row_ids
        first_lengths[rows], lengths[rows] = part.first_lengths, part.lengths
        cut += part.cut
    return Encoded(ids, first_lengths, lengths, part.padding, cut)


def pad_batch(encoded, rows):
    """Pad some rows to the length of the longest one.

    Parameters
    ----------
    encoded : Encoded
    rows : (B,) array of int
        The rows of the batch.

    Returns
    -------
    ids, token_types : (B, L) arrays of int32
    valid_lengths : (B,) array of float32
    """
    lengths = encoded.lengths[rows]
    width = lengths.max()
    position = np.arange(width)
    is_token = position < lengths[:, None]
    ids = np.full((len(rows), width), encoded.padding, dtype=np.int32)
    ids[is_token] = np.concatenate([encoded.ids[row] for row in rows])
    token_types = (is_token & (position >= encoded.first_lengths[rows][:, None])).astype(np.int32)
    return ids, token_types, lengths.astype(np.float32)
