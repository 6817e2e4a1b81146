"""TODO"""

import hashlib
from typing import NamedTuple

import numpy as np

from bert.checkpoints import source
from bert.tasks import files, table
from bert.text import encoding
from bert.text.tokenizer import build_tokenizer


class Dataset(NamedTuple):
    """One split of a task, ready to be batched."""

    split: object  # a bert.tasks.table.Split
    encoded: object  # a bert.text.encoding.Encoded
    labels: object  # (N,) array or None


def hash_data(datasets):
    """A hash of each set, by name."""
    data = {}
    for name, sets in datasets.items():
        for number, dataset in enumerate(sets):
            rows = dataset.encoded
            found = hashlib.sha256()
            for array in (*rows.ids, rows.first_lengths, rows.lengths, dataset.labels):
                found.update(b'' if array is None else np.ascontiguousarray(array))
            data[f'{name} {number}'] = found.hexdigest()
    return data


def read_task(args):
    """The task and the examples of its files.

    Returns
    -------
    bert.tasks.table.Task, dict of str to list of (Split, Examples)
        Under ``train``, ``dev`` and ``test``. Of a GLUE task the test sets that are there.
    """
    if args.task_name:
        task = table.TASKS[args.task_name]
        folder = files.glue_folder()

        def read(split):
            return files.read_glue(folder, task, split)

        test = [split for split in task.test if (folder / split.path).is_file()]
    else:
        labels = None
        if args.only_inference:
            labels = source.read_finetuned(args.bert_model)['labels']
            args.regression = labels is None
        elif not args.regression:
            labels = files.find_labels(args.train_file, args.label_column)
        task = table.own_task(args, labels)

        def read(split):
            return files.read_own(task, split)

        test = task.test
    train = [] if args.only_inference else [task.train]
    return task, {
        name: [(split, read(split)) for split in splits]
        for name, splits in [('train', train), ('dev', task.dev), ('test', test)]
    }


def encode_datasets(examples, vocab, lower, max_len):
    """Tokenize every file once."""
    tokenizer = build_tokenizer(vocab, lower)
    return {
        name: [
            Dataset(split, encoding.encode(rows.texts, tokenizer, vocab, max_len), rows.labels)
            for split, rows in sets
        ]
        for name, sets in examples.items()
    }
