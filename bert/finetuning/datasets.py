"""The GLUE tasks as data sets and metrics of ``mxnet.gluon``: what ``bert.gluon`` gives."""

from dataclasses import replace
from pathlib import Path

import mxnet as mx
import numpy as np

from bert.system.errors import UsageError
from bert.tasks import files, metrics
from bert.tasks.table import TASKS


class TaskMetric(mx.metric.EvalMetric):
    """The metrics of a task, computed over everything that was seen and not batch by batch.

    Parameters
    ----------
    names : sequence of str
        Keys of :data:`bert.tasks.metrics.METRICS`.
    is_regression : bool
    """

    def __init__(self, names, is_regression):
        self.names = names
        self.is_regression = is_regression
        super().__init__(','.join(names))

    def reset(self):
        """Forget what was seen."""
        self.labels, self.predictions = [], []

    def update(self, labels, preds):
        """Add lists of (B,) labels and of (B, classes) outputs, or (B, 1) numbers."""
        for label, outputs in zip(labels, preds):
            outputs = outputs.asnumpy()
            self.labels.append(label.asnumpy().reshape(-1))
            decided = outputs.reshape(-1) if self.is_regression else outputs.argmax(axis=1)
            self.predictions.append(decided)

    def get(self):
        """Return a list of names and one of values; ``nan`` if nothing was seen."""
        if not self.labels:
            return list(self.names), [float('nan')] * len(self.names)
        labels, predictions = np.concatenate(self.labels), np.concatenate(self.predictions)
        return list(self.names), list(metrics.compute(self.names, labels, predictions).values())


class GlueDataset(mx.gluon.data.SimpleDataset):
    """A file of a GLUE task: rows of one or two texts and, but for test sets, the label.

    A label is the name of a class, or a float in regression.

    Parameters
    ----------
    segment : str
        The name of the file, without ``.tsv``: ``train``, ``dev`` and ``test``; with MNLI
        ``dev_matched``, ``dev_mismatched``, ``test_matched``, ``test_mismatched`` and
        ``diagnostic``.
    root : str, optional
        The folder of the file. By default, that of the task in ``GLUE_DIR``.
    """

    task = None  # a row of bert.tasks.table.TASKS

    def __init__(self, segment='train', root=None):
        splits = (self.task.train, *self.task.dev, *self.task.test)
        by_name = {Path(split.path).stem: split for split in splits}
        if segment not in by_name:
            raise UsageError(
                f'{self.task.name} has no segment {segment!r}: it has {", ".join(by_name)}'
            )
        split = by_name[segment]
        if root is not None:
            split = replace(split, path=Path(split.path).name)
        folder = files.glue_folder() if root is None else root
        examples = files.read_glue(folder, self.task, split)
        rows = examples.texts
        if examples.labels is not None:
            names = self.get_labels()
            labels = examples.labels.tolist()
            labels = [names[label] for label in labels] if names else labels
            rows = [(*texts, label) for texts, label in zip(rows, labels)]
        super().__init__(rows)

    @classmethod
    def get_labels(cls):
        """Return the names of the classes in the order of their ids; None in regression."""
        return None if cls.task.labels is None else list(cls.task.labels)

    @classmethod
    def get_metric(cls):
        """Return a :class:`TaskMetric`."""
        return TaskMetric(cls.task.metrics, cls.task.is_regression)


class COLADataset(GlueDataset):
    """CoLA: is a sentence acceptable?"""

    task = TASKS['CoLA']


class SSTDataset(GlueDataset):
    """SST-2: is a sentence of a review positive?"""

    task = TASKS['SST-2']


class MRPCDataset(GlueDataset):
    """MRPC: do two sentences mean the same?"""

    task = TASKS['MRPC']


class STSBDataset(GlueDataset):
    """STS-B: how similar are two sentences, from 0 to 5?"""

    task = TASKS['STS-B']


class QQPDataset(GlueDataset):
    """QQP: do two questions ask the same?"""

    task = TASKS['QQP']


class MNLIDataset(GlueDataset):
    """MNLI: does the first sentence entail or contradict the second?"""

    task = TASKS['MNLI']


class QNLIDataset(GlueDataset):
    """QNLI: does a sentence answer a question?"""

    task = TASKS['QNLI']


class RTEDataset(GlueDataset):
    """RTE: does the first sentence entail the second?"""

    task = TASKS['RTE']


class WNLIDataset(GlueDataset):
    """WNLI: does a sentence follow in which a pronoun is replaced?"""

    task = TASKS['WNLI']
