"""The progress of a fine-tuning run: its finished epochs, and the current one."""

import logging
import math
import time
from typing import NamedTuple, Optional

import numpy as np

from bert.tasks import metrics
from bert.tasks.predictions import decide
from bert.training.batches import cut, padding_share
from bert.training.devices import IN_FLIGHT, Late
from bert.training.failures import LossNotFinite


class Position(NamedTuple):
    """The point at which a run begins or goes on."""

    step: int = 0  # updates since the beginning of the run
    seconds: float = 0.0  # spent in the current epoch
    seen: Optional[dict] = None  # see EpochProgress.state; None between two epochs


class Updates(NamedTuple):
    """How many updates a training has."""

    rows_per_update: int
    updates_per_epoch: int
    epochs: int  # the last one may be cut short
    total: int


def count_updates(rows, rows_per_update, epochs, steps=None):
    """Count the updates of a training.

    Parameters
    ----------
    rows : int
        In the training set.
    rows_per_update : int
        Of all devices of all workers.
    epochs : int
    steps : int, optional
        The updates in all, in place of ``epochs``.
    """
    per_epoch = math.ceil(rows / rows_per_update)
    total = steps or epochs * per_epoch
    return Updates(rows_per_update, per_epoch, math.ceil(total / per_epoch), total)


class History:
    """The finished epochs of a run.

    Parameters
    ----------
    task : bert.tasks.table.Task
    epochs : list of dict
        The metrics of each by dev set, and ``seconds``.
    """

    def __init__(self, task, epochs=()):
        self.task = task
        self.epochs = list(epochs)

    @property
    def best_epoch(self):
        """The first epoch, counted from 1, with the best first metric on the first dev set.

        The last epoch if there is no dev set; 0 if no epoch is finished.
        """
        if not self.task.dev or not self.epochs:
            return len(self.epochs)
        scores = [self.dev_metrics(epoch)[self.task.metrics[0]] for epoch in self.epochs]
        return 1 + scores.index(max(scores))

    def dev_metrics(self, epoch):
        """Return the metrics of an epoch on the first dev set."""
        return epoch[self.task.dev[0].dev_name]


class EpochProgress:
    """An epoch so far: the loss since the last log line, and the metrics since its beginning.

    Parameters
    ----------
    task : bert.tasks.table.Task
    epoch : int
        Counted from 1.
    dtype : numpy.dtype
        The type of the labels.
    position : Position
        Where the run is.
    devices : int
        The number of this worker's devices.

    Attributes
    ----------
    step : int
        The current update, counted from the beginning of the run.
    start : float
        The time at which the epoch began, less interruptions.
    """

    def __init__(self, task, epoch, dtype, position, devices):
        self.task = task
        self.epoch = epoch
        self.step = position.step
        self.start = time.monotonic() - position.seconds
        self.late = Late(self.read, IN_FLIGHT * devices)
        saved = position.seen or {'loss': 0.0, 'rows': 0, 'labels': [], 'predictions': []}
        self.loss, self.rows = saved['loss'], saved['rows']
        self.new_rows, self.since = 0, time.monotonic()  # read by this process
        kind = np.float32 if task.is_regression else np.int64
        self.labels = [shape_rows(saved['labels'], dtype, task)]
        self.predictions = [shape_rows(saved['predictions'], kind, task)]

    def state(self):
        """Return what another process needs to go on, as JSON can hold it."""
        self.finish()
        return {
            'loss': self.loss,
            'rows': self.rows,
            'labels': np.concatenate(self.labels).reshape(-1).tolist(),
            'predictions': np.concatenate(self.predictions).reshape(-1).tolist(),
        }

    def add(self, number, loss, outputs, labels, weight):
        """Queue a batch of an update, to be read some batches later.

        Parameters
        ----------
        number : int
            The number of the update in this epoch, counted from 1.
        loss : mxnet.nd.NDArray of shape (1,)
        outputs : mxnet.nd.NDArray of shape (B, classes)
        labels : (B,) array, or (B, classes) where a row may have several
        weight : float
            What the loss is a sum over: the rows, or their weights.
        """
        self.late.add(number, loss, outputs, labels, weight)

    def read(self, number, loss, outputs, labels, weight):
        """Wait for a batch, and add it to the sums.

        Raises
        ------
        LossNotFinite
        """
        loss = float(loss.asscalar())
        if not math.isfinite(loss):
            raise LossNotFinite(f'the loss is {loss} at epoch {self.epoch}, batch {number}')
        self.loss += loss
        self.rows += weight
        self.new_rows += len(labels)
        self.labels.append(labels)
        self.predictions.append(decide(outputs.asnumpy(), self.task))

    def finish(self):
        """Wait for all batches."""
        self.late.finish()

    def take(self):
        """Start counting for the next log line.

        Returns
        -------
        float, dict of str to float, float
            The mean loss per row since the last call, weighted as the rows are; the metrics of the
            epoch so far; the rows per second since the last call.
        """
        self.finish()
        now = time.monotonic()
        speed = self.new_rows / (now - self.since)
        loss, self.loss, self.rows = self.loss / self.rows, 0.0, 0
        self.new_rows, self.since = 0, now
        values = metrics.compute(
            self.task.metrics, np.concatenate(self.labels), np.concatenate(self.predictions)
        )
        return loss, values, speed


def shape_rows(numbers, dtype, task):
    """Make an array (N,), or (N, labels) where a row may have several, of a list of numbers."""
    return np.array(numbers, dtype).reshape((-1, task.num_classes) if task.is_multilabel else -1)


def log_training(seen, number, count, rate, output):
    """Log the training metrics, in the original's format and for programs.

    Parameters
    ----------
    seen : EpochProgress
    number, count : int
        The number of the update in its epoch, and how many there are.
    rate : float
    output : bert.finetuning.output.Output
    """
    loss, values, speed = seen.take()
    logging.info(
        '[Epoch %d Batch %d/%d] loss=%.4f, lr=%.7f, metrics=%s',
        seen.epoch,
        number,
        count,
        loss,
        rate,
        metrics.describe(values),
    )
    line = {'epoch': seen.epoch, 'step': seen.step, 'loss': loss, 'lr': rate, **values}
    output.write_line({**line, 'samples_per_second': speed})


def log_training_set(lengths, updates, batch_size):
    """Log the size of the training set, and how much of its batches is padding."""
    parts = [part for rows in updates for part in cut(rows, batch_size)]
    logging.info(
        'training on %d rows, %d updates an epoch, %.1f%% padding',
        len(lengths),
        len(updates),
        100 * padding_share(lengths, parts),
    )


def is_saved(saved, task):
    """Return whether the object of a training state is what fine-tuning saves.

    See :meth:`bert.finetuning.output.Output.save_state`.
    """
    epochs, seen = saved.get('epochs'), saved.get('seen')
    return (
        'run' in saved
        and metrics.is_number(saved.get('seconds'))
        and isinstance(saved.get('logs'), dict)
        and (epochs == [] or metrics.are_epochs(epochs, 1))
        and all(task.metrics[0] in epoch.get(s.dev_name, ()) for epoch in epochs for s in task.dev)
        and (seen is None or _is_state(seen, task))
    )


def _is_state(seen, task):
    """Return whether a value is one of :meth:`EpochProgress.state`."""
    return (
        isinstance(seen, dict)
        and all(metrics.is_number(seen.get(name)) for name in ('loss', 'rows'))
        and all(
            isinstance(seen.get(name), list) and all(map(metrics.is_number, seen[name]))
            for name in ('labels', 'predictions')
        )
        and not (task.is_multilabel and len(seen['labels']) % task.num_classes)
        and not (task.is_multilabel and len(seen['predictions']) % task.num_classes)
    )
