"""The task that the flags name, and its examples as arrays for BERT."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from bert.checkpoints.reading import read_finetuned
from bert.finetuning.flags import glue_name
from bert.finetuning.holdout import hold_out
from bert.system.errors import UsageError
from bert.tasks import files
from bert.tasks.table import ALL_TASKS, NUMBER_LABELS, Split, own_task
from bert.text.encoding import Encoded, encode
from bert.text.tokenizer import build_tokenizer


class Dataset(NamedTuple):
    """One split of a task, ready for batching."""

    split: Split
    encoded: Encoded
    labels: Optional[np.ndarray]  # (N,), or (N, labels) where a row may have several
    cells: object = None  # see bert.tasks.files.Examples
    label_weights: Optional[np.ndarray] = None  # (labels,) float32, in the loss; None: all equal

    def weigh(self, rows):
        """Return the float32 weights of some rows in the loss, those of their labels, or None.

        Where a row may have several labels, its weight is that of any other row.
        """
        if self.label_weights is None or self.labels.ndim > 1:
            return None
        return self.label_weights[self.labels[rows]]

    @property
    def test_name(self):
        """The name of a test set: the stem of its GLUE file name, or ``test``."""
        return Path(self.split.submission).stem or 'test'


def choose_task(args, finetuned=None):
    """Return the task that the flags name: one of the table, or the user's own.

    Parameters
    ----------
    args : argparse.Namespace
    finetuned : dict, optional
        What a model that predicts says of itself; see :func:`bert.finetuning.base.find_finetuned`.
    """
    if args.task_name:
        return ALL_TASKS[glue_name(args.task_name)]
    labels, is_multilabel = None, False
    if args.only_inference:
        labels, is_multilabel = finetuned['labels'], finetuned['is_multilabel']
    elif not args.regression:
        labels, is_multilabel = files.find_labels(args.train_file, args.label_column)
    if labels is None and args.probabilities:
        raise UsageError('--probabilities goes with labels, and this model predicts numbers')
    return own_task(
        train=args.train_file,
        dev=args.dev_file,
        test=args.test_file,
        text_columns=args.text_columns,
        label_column=args.label_column,
        metric=args.metric,
        labels=labels,
        is_multilabel=is_multilabel,
        number_labels=bool(finetuned and finetuned['flags'].get(NUMBER_LABELS)),
    )


def labels_of_run(folder, task):
    """Return the labels of a task in the order that an earlier run in a folder gave them.

    RTE and QNLI had another order in earlier versions. Without such a run, or with other labels,
    the order is the task's.

    Parameters
    ----------
    folder : str
    task : bert.tasks.table.Task

    Returns
    -------
    sequence of str or None
    """
    finetuned = read_finetuned(Path(folder))
    labels = finetuned and finetuned['labels']
    return labels if labels and sorted(labels) == sorted(task.labels or ()) else task.labels


def read_task(task, with_training, dev_share=None):
    """Read all files of a task, and complete it by what they say.

    Parameters
    ----------
    task, with_training
        See :func:`read_examples`.
    dev_share : float, optional
        The share of the training set that becomes the dev set of the user's own task.

    Returns
    -------
    bert.tasks.table.Task, dict of str to list of (Split, Examples)
    """
    examples = read_examples(task, with_training)
    if task.is_own and with_training:
        ((split, rows),) = examples['train']
        task = replace(task, number_labels=rows.number_labels)
        if dev_share:
            task = replace(task, dev=(split,))
            train, dev = hold_out(rows, task, dev_share)
            examples.update(train=[(split, train)], dev=[(split, dev)])
    return task, examples


def read_examples(task, with_training):
    """Read all files of a task.

    Parameters
    ----------
    task : bert.tasks.table.Task
        A GLUE task, with its files in the folder named by GLUE_DIR, or the user's own.
    with_training : bool
        Whether to read the training set too.

    Returns
    -------
    dict of str to list of (Split, Examples)
        Under ``train``, ``dev`` and ``test``; for a GLUE task, only the test sets that exist.
    """
    test, folder = task.test, files.folder_of(task)
    if not task.is_own:
        test = [split for split in test if (folder / split.path).is_file()]
    train = [task.train] if with_training else []
    sets = {'train': train, 'dev': task.dev, 'test': test}
    return {
        name: [(split, files.read(folder, task, split)) for split in splits]
        for name, splits in sets.items()
    }


def read_dev_sets(folder, task, dev_share=None):
    """Read the dev sets of a task, or the part of its training set that is one.

    Returns
    -------
    list of (Split, Examples)
    """
    if dev_share:
        rows = files.read(folder, task, task.train)
        return [(task.train, hold_out(rows, task, dev_share)[1])]
    return [(split, files.read(folder, task, split)) for split in task.dev]


def encode_datasets(examples, vocab, lower, max_len):
    """Tokenize every file once.

    Returns
    -------
    dict of str to list of Dataset
        Under ``train``, ``dev`` and ``test``.
    """
    tokenizer = build_tokenizer(vocab, lower)
    return {
        name: [
            Dataset(split, encode(rows.texts, tokenizer, vocab, max_len), rows.labels, rows.cells)
            for split, rows in sets
        ]
        for name, sets in examples.items()
    }


def hash_data(datasets):
    """Hash each data set, to show whether two runs have the same data.

    Returns
    -------
    dict of str to str
        By name and number, such as ``dev 0``.
    """
    data = {}
    for name, sets in datasets.items():
        for number, dataset in enumerate(sets):
            rows = dataset.encoded
            found = hashlib.sha256()
            for array in (*rows.ids, rows.first_lengths, rows.lengths, dataset.labels):
                found.update(b'' if array is None else np.ascontiguousarray(array))
            data[f'{name} {number}'] = found.hexdigest()
    return data
