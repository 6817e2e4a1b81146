"""How far a fine-tuning has come: its finished epochs, and the one that it is in."""

import math
import time
from typing import NamedTuple, Optional

import numpy as np

from bert.tasks import metrics
from bert.tasks.predictions import decide
from bert.training.devices import IN_FLIGHT, Late
from bert.training.failures import LossNotFinite


class Position(NamedTuple):
    """Where a run begins, or goes on."""

    step: int = 0  # updates since its beginning
    seconds: float = 0.0  # of the epoch that it is in
    seen: Optional[dict] = None  # see EpochProgress.state; None between two epochs


class History:
    """The finished epochs of a run.

    Parameters
    ----------
    task : bert.tasks.table.Task
    epochs : list of dict
        Of each the metrics by dev set, and ``seconds``.
    """

    def __init__(self, task, epochs=()):
        self.task = task
        self.epochs = list(epochs)

    @property
    def best_epoch(self):
        """The first epoch, counted from 1, with the best first metric on the first dev set.

        Without a dev set the last epoch; 0 where no epoch is finished.
        """
        if not self.task.dev or not self.epochs:
            return len(self.epochs)
        scores = [self.dev_metrics(epoch)[self.task.metrics[0]] for epoch in self.epochs]
        return 1 + scores.index(max(scores))

    def dev_metrics(self, epoch):
        """Return the metrics of an epoch on the first dev set."""
        return epoch[self.task.dev[0].name or 'dev']


class EpochProgress:
    """An epoch so far: the loss since the last log line, and the metrics since its beginning.

    Parameters
    ----------
    task : bert.tasks.table.Task
    epoch : int
        Counted from 1.
    dtype : numpy.dtype
        Of the labels.
    position : Position
        Where the run stands.
    devices : int
        Of this worker.

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
        self.start = time.time() - position.seconds
        self.late = Late(self.read, IN_FLIGHT * devices)
        saved = position.seen or {'loss': 0.0, 'rows': 0, 'labels': [], 'predictions': []}
        self.loss, self.rows = saved['loss'], saved['rows']
        self.labels = [np.array(saved['labels'], dtype)]
        kind = np.float32 if task.is_regression else np.int64
        self.predictions = [np.array(saved['predictions'], kind)]

    def state(self):
        """Return what another process needs to go on, fit for JSON."""
        self.late.finish()
        return {
            'loss': self.loss,
            'rows': self.rows,
            'labels': np.concatenate(self.labels).tolist(),
            'predictions': np.concatenate(self.predictions).tolist(),
        }

    def add(self, number, loss, outputs, labels):
        """Remember a batch of an update; it is read some batches later.

        Parameters
        ----------
        number : int
            That of the update in this epoch, counted from 1.
        loss : mxnet.nd.NDArray of shape (1,)
        outputs : mxnet.nd.NDArray of shape (B, classes)
        labels : (B,) array
        """
        self.late.add(number, loss, outputs, labels)

    def read(self, number, loss, outputs, labels):
        """Wait for a batch.

        Raises
        ------
        LossNotFinite
        """
        loss = float(loss.asscalar())
        if not math.isfinite(loss):
            raise LossNotFinite(f'the loss is {loss} at epoch {self.epoch}, batch {number}')
        self.loss += loss
        self.rows += len(labels)
        self.labels.append(labels)
        self.predictions.append(decide(outputs.asnumpy(), self.task))

    def take(self):
        """Return the mean loss of a row since the last call, and the metrics of the epoch."""
        self.late.finish()
        loss, self.loss, self.rows = self.loss / self.rows, 0.0, 0
        values = metrics.compute(
            self.task.metrics, np.concatenate(self.labels), np.concatenate(self.predictions)
        )
        return loss, values
