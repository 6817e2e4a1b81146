"""A dev set from rows of the training file, where the user has no file for one."""

import logging
import math

import numpy as np

from bert.system.errors import ToolkitError

# Not --seed, so that runs with different seeds are measured on the same rows.
SEED = 0


def hold_out(examples, task, share):
    """Split the rows of a training file in two, the same way each time.

    Rows with the same texts stay together, so that no text is on both sides. Of classes, each side
    has the same shares, as scikit-learn's ``train_test_split`` makes them.

    Parameters
    ----------
    examples : bert.tasks.files.Examples
    task : bert.tasks.table.Task
    share : float
        The share of the dev set in the rows, those with the same texts counted once.

    Returns
    -------
    bert.tasks.files.Examples, bert.tasks.files.Examples
        The training set and the dev set, each in the order of the file.

    Raises
    ------
    ToolkitError
        If there are too few rows, or too few of a class.
    """
    from sklearn.model_selection import train_test_split

    ids = {}
    group = np.array([ids.setdefault(texts, len(ids)) for texts in examples.texts])
    first = np.unique(group, return_index=True)[1]  # the row that stands for its group
    has_classes = not task.is_regression and examples.labels.ndim == 1
    classes = examples.labels[first] if has_classes else None
    _check_sizes(classes, len(first), task, share)
    _, held = train_test_split(
        np.arange(len(first)), test_size=share, random_state=SEED, stratify=classes
    )
    is_dev = np.isin(group, held)
    counts = ''
    if has_classes:
        whole, dev = (
            np.bincount(labels, minlength=len(task.labels))
            for labels in (examples.labels, examples.labels[is_dev])
        )
        counts = ', '.join(
            f'{label}: {n} of {all_}' for label, n, all_ in zip(task.labels, dev, whole)
        )
        counts = f' ({counts})'
    logging.info(
        'the dev set is %d of the %d rows of %s%s',
        sum(is_dev),
        len(is_dev),
        task.train.path,
        counts,
    )
    return _select(examples, ~is_dev), _select(examples, is_dev)


def _check_sizes(classes, count, task, share):
    """Raise ToolkitError unless each side gets a row, and can get one of each class."""
    path, dev = task.train.path, math.ceil(share * count)
    needed = 1 if classes is None else len(task.labels)
    if min(dev, count - dev) < needed:
        what = 'a row' if classes is None else f'a row of each of the {needed} labels'
        raise ToolkitError(
            f'{path}: --dev_share {share} of its {count} different rows leaves {count - dev} for '
            f'training and {dev} for the dev set, but each needs {what}'
        )
    if classes is not None:
        found = np.bincount(classes, minlength=needed)
        if found.min() < 2:
            raise ToolkitError(
                f'{path}: --dev_share: only one row, or one text, has the label '
                f'{task.labels[found.argmin()]!r}: give a --dev_file, or leave that row out'
            )


def _select(examples, chosen):
    """Return the examples that a (N,) array of bool chooses."""
    texts = [texts for texts, is_chosen in zip(examples.texts, chosen) if is_chosen]
    return examples._replace(texts=texts, labels=examples.labels[chosen])
