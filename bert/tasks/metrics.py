"""The metrics of GLUE, computed over a whole data set at once."""

import math

import numpy as np


def accuracy(labels, predictions):
    """Return the share of correct answers; where a row may have several labels, of correct rows."""
    from sklearn.metrics import accuracy_score

    return accuracy_score(labels, predictions)


def f1(labels, predictions):
    """Return the F1 score of class 1."""
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions, zero_division=0)


def f1_micro(labels, predictions):
    """Return the F1 score of all labels of all rows, counted together."""
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions, average='micro', zero_division=0)


def f1_macro(labels, predictions):
    """Return the mean of the F1 scores of all classes."""
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions, average='macro', zero_division=0)


def mcc(labels, predictions):
    """Return the Matthews correlation coefficient."""
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(labels, predictions)


def pearsonr(labels, predictions):
    """Return the Pearson correlation, or 0 if one side is constant or a single value."""
    from scipy.stats import pearsonr as correlation

    return _correlation(correlation, labels, predictions)


def spearmanr(labels, predictions):
    """Return the Spearman rank correlation, or 0 if one side is constant or a single value."""
    from scipy.stats import spearmanr as correlation

    return _correlation(correlation, labels, predictions)


def _correlation(correlation, labels, predictions):
    if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return float(correlation(labels, predictions)[0])


# The functions import their libraries when called: scikit-learn takes a second to import.
METRICS = {
    function.__name__: function
    for function in (accuracy, f1, f1_micro, f1_macro, mcc, pearsonr, spearmanr)
}


def bounds(name):
    """Return the lowest and the highest value of a metric, or of GLUE's score.

    >>> bounds('f1'), bounds('mcc'), bounds('seconds')
    ((0.0, 1.0), (-1.0, 1.0), (-inf, inf))
    """
    if name in ('mcc', 'pearsonr', 'spearmanr', 'score'):
        return -1.0, 1.0
    return (0.0, 1.0) if name in METRICS else (-math.inf, math.inf)


def compute(names, labels, predictions):
    """Compute the named metrics.

    Parameters
    ----------
    names : sequence of str
    labels, predictions : (N,) arrays
        Class ids, or numbers in regression. Where a row may have several labels, (N, labels)
        arrays of 0 and 1.

    Returns
    -------
    dict of str to float
    """
    return {name: float(METRICS[name](labels, predictions)) for name in names}


def is_number(value):
    """Return whether a value of a JSON file is a number that a float can hold exactly."""
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


def are_values(value):
    """Return whether a value of a JSON file is metrics, as from :func:`compute`."""
    return isinstance(value, dict) and all(map(is_number, value.values()))


def are_epochs(epochs, best_epoch):
    """Return whether values of a JSON file are the epochs of a run and the number of the best one.

    An epoch has its metrics by dev set, and perhaps its ``seconds``.
    """
    return (
        isinstance(epochs, list)
        and all(
            isinstance(epoch, dict)
            and all(
                is_number(value) if name == 'seconds' else are_values(value)
                for name, value in epoch.items()
            )
            for epoch in epochs
        )
        and type(best_epoch) is int
        and 1 <= best_epoch <= len(epochs)
    )


def describe(values):
    """Format metrics as the original scripts log them: ``accuracy:0.8873,f1:0.9160``."""
    return ','.join(f'{name}:{value:.4f}' for name, value in values.items())
