"""Choose the rows of each batch: similar lengths together, so that padding is rare."""

import numpy as np

# Rows are sorted by length within pools of this many batches. Larger pools pad less; smaller
# ones mix the rows more randomly.
POOL = 64


def training_batches(lengths, batch_size, rng):
    """Cut all rows into random batches of similar length, in random order.

    Parameters
    ----------
    lengths : (N,) array of int
    batch_size : int
        Rows in a batch; one batch holds the remainder.
    rng : numpy.random.Generator

    Returns
    -------
    list of (B,) arrays of int
    """
    order = rng.permutation(len(lengths))
    size = batch_size * POOL
    batches = []
    for start in range(0, len(order), size):
        pool = order[start : start + size]
        batches += cut(pool[np.argsort(lengths[pool], kind='stable')], batch_size)
    return [batches[i] for i in rng.permutation(len(batches))]


def bucketed_updates(lengths, batch_size, parts, num_buckets, by_token, rng):
    """Cut all rows into random updates of several batches, each of rows of similar length.

    The range of lengths is cut into buckets of equal width. Rows that do not fill an update move
    to the next longer bucket, so that only one update can be smaller than the others.

    Parameters
    ----------
    lengths : (N,) array of int
    batch_size : int
        Rows in a batch; with ``by_token``, tokens in a batch, padding included.
    parts : int
        Batches in an update.
    num_buckets : int
        With 1, lengths are mixed at random.
    by_token : bool
    rng : numpy.random.Generator

    Returns
    -------
    list of list of (B,) arrays of int
    """
    order = rng.permutation(len(lengths))
    lengths = lengths.astype(np.int64)
    shortest, longest = lengths.min(), lengths.max()
    bucket = ((lengths - shortest) * num_buckets // (longest - shortest + 1))[order]
    updates, rest = [], order[:0]
    for number in np.unique(bucket):
        rows = np.concatenate([rest, order[bucket == number]])
        size = batch_size // lengths[rows].max() if by_token else batch_size
        whole = len(rows) // (size * parts) * (size * parts)
        updates += [cut(update, size) for update in cut(rows[:whole], size * parts)]
        rest = rows[whole:]
    if len(rest):
        updates.append(cut(rest, size))
    return [updates[i] for i in rng.permutation(len(updates))]


def evaluation_batches(lengths, batch_size):
    """Cut all rows into batches, sorted by length.

    Returns
    -------
    list of (B,) arrays of int
    """
    return cut(np.argsort(lengths, kind='stable'), batch_size)


def cut(rows, batch_size):
    """Cut rows, in their order, into batches; the last one may be smaller."""
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


def padding_share(lengths, batches):
    """Return the share of padding when each batch is padded to its longest row."""
    cells = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - lengths.sum() / cells
