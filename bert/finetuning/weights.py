"""Weights of labels in the loss: what ``--class_weights`` says, and what it means for rows."""

import argparse
import logging

import numpy as np

from bert.cli.flags import number_type
from bert.system.errors import ToolkitError, UsageError

BALANCED = 'balanced'
# Beyond this range, float32 would lose the loss of most rows.
LOWEST, HIGHEST = 1e-6, 1e6
parse_weight = number_type(
    float, lambda x: LOWEST <= x <= HIGHEST, f'a weight from {LOWEST:f} to {HIGHEST:.0f}'
)


def class_weight(text):
    """Check ``balanced`` or LABEL=WEIGHT, a type of a flag; a label may have ``=`` in it."""
    label, _, weight = text.rpartition('=')
    if text != BALANCED:
        if not label:
            raise argparse.ArgumentTypeError(f'{text!r} is neither {BALANCED} nor LABEL=WEIGHT')
        parse_weight(weight)
    return text


def parse_weights(words):
    """Return the weights that LABEL=WEIGHT words give, by label; None for ``balanced``.

    >>> parse_weights(['a=1', 'b=2.5'])
    {'a': 1.0, 'b': 2.5}
    """
    if words == [BALANCED]:
        return None
    found = {}
    for word in words:
        label, _, weight = word.rpartition('=')
        if word == BALANCED:
            raise UsageError(f'--class_weights {BALANCED} does not go with LABEL=WEIGHT')
        if label in found:
            raise UsageError(f'--class_weights has {label!r} twice')
        found[label] = float(weight)
    return found


def weigh_labels(words, labels, names, is_multilabel):
    """Return a weight for each label.

    Parameters
    ----------
    words : list of str
        The words of ``--class_weights``; a label that they do not name has the weight 1.
    labels : (N,) array of int, or (N, labels) array of 0 and 1
        Those of the training set, for balanced weights: rows / (labels * rows with the label), as
        scikit-learn has it; where a row may have several, rows without the label / rows with it.
    names : sequence of str
        Of the labels, in the order of the class ids.
    is_multilabel : bool

    Returns
    -------
    (labels,) array of float32

    Raises
    ------
    UsageError
        For a name that is not one of ``names``.
    ToolkitError
        If balanced weights would have to be 0 or infinite.
    """
    given = parse_weights(words)
    if given is not None:
        unknown = [name for name in given if name not in names]
        if unknown:
            raise UsageError(
                f'--class_weights: the label {unknown[0]!r} is not one of {", ".join(names)}'
            )
        return np.array([given.get(name, 1) for name in names], np.float32)
    rows = len(labels)
    counts = labels.sum(axis=0) if is_multilabel else np.bincount(labels, minlength=len(names))
    for name, count in zip(names, counts):
        if count == 0 or count == rows:
            extent = 'no row' if count == 0 else 'each row'
            raise ToolkitError(
                f'--class_weights {BALANCED}: {extent} of the training set has the label {name!r}'
            )
    counts = counts.astype(np.float64)
    weights = (rows - counts) / counts if is_multilabel else rows / (len(names) * counts)
    return weights.astype(np.float32)


def with_weights(dataset, words, task):
    """Return a training set whose labels have weights, and log them.

    Parameters
    ----------
    dataset : bert.finetuning.data.Dataset
    words : list of str
        The words of ``--class_weights``.
    task : bert.tasks.table.Task
    """
    weights = weigh_labels(words, dataset.labels, task.labels, task.is_multilabel)
    pairs = (f'{name}:{weight:.4f}' for name, weight in zip(task.labels, weights))
    logging.info('class weights: %s', ', '.join(pairs))
    return dataset._replace(label_weights=weights)
