"""How far figures on so many rows may be chance: their intervals and standard errors."""

import math

import numpy as np

Z = 1.96  # 95 % of a normal distribution are within so many deviations of its mean


def share_interval(share, count):
    """Return the 95 % interval of Clopper and Pearson for a share of so many independent rows.

    The mean share of several runs need not be a whole number of rows.
    """
    from scipy.stats import beta

    hits = share * count
    low = beta.ppf(0.025, hits, count - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def balance(shares, labels, ids):
    """Return the mean of the shares of right answers for each class, and its standard error.

    Of a share that is 0 or 1, the error is estimated as if there were two more rows, one of them
    right.
    """
    counts = np.array([(labels == i).sum() for i in ids])
    smooth = (np.array(shares) * counts + 1) / (counts + 2)
    errors = smooth * (1 - smooth) / (counts + 2)
    return float(np.mean(shares)), math.sqrt(errors.sum()) / len(ids)


def mean_and_error(values):
    """Return the mean of a sample and its standard error, which is infinite for a single value."""
    count = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return float(np.mean(values)), error


def correlation_from(correlation, count):
    """Return the lower end of the 95 % interval of a correlation, by Fisher's transformation."""
    if count < 4:
        return -1.0
    correlation = min(correlation, 1 - 1e-9)
    return math.tanh(math.atanh(max(correlation, -1 + 1e-9)) - Z / math.sqrt(count - 3))
