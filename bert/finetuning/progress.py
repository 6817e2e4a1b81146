"""TODO"""

import math
import time
from collections import deque
from typing import NamedTuple

import numpy as np

from bert.system.errors import ToolkitError
from bert.tasks.metrics import compute
from bert.tasks.predictions import decide
from bert.training.devices import IN_FLIGHT


class Position(NamedTuple):
    """How far a run has come."""

    step: int  # updates since its beginning
    seconds: float = 0.0  # of the epoch that it is in
    seen: dict = None  # see Seen.state; None at the border of two epochs


class Seen:
    """An epoch so far: the loss since the last log line, the metrics since its beginning.

    Parameters
    ----------
    saver : Saver
    dtype : numpy.dtype
        Of the labels.
    position : Position
        Where the run stands.
    """

    def __init__(self, saver, dtype, position):
        self.saver = saver
        self.kept = saver.kept
        self.task = saver.task
        self.step = position.step
        self.start = time.time() - position.seconds
        self.pending = deque()
        saved = position.seen or {'loss': 0.0, 'rows': 0, 'labels': [], 'predictions': []}
        self.loss, self.rows = saved['loss'], saved['rows']
        self.labels = [np.array(saved['labels'], dtype)]
        kind = np.float32 if self.task.is_regression else np.int64
        self.predictions = [np.array(saved['predictions'], kind)]

    def state(self):
        """What another process needs to go on, fit for JSON."""
        self.read_all()
        return {
            'loss': self.loss,
            'rows': self.rows,
            'labels': np.concatenate(self.labels).tolist(),
            'predictions': np.concatenate(self.predictions).tolist(),
        }

    def add(self, number, loss, outputs, labels):
        """Remember one batch, of the update of this number; it is read some batches later."""
        self.pending.append((number, loss, outputs, labels))
        if len(self.pending) > IN_FLIGHT * self.saver.devices:
            self.read()

    def read(self):
        """Wait for the oldest batch that was not read yet, and stop if its loss has run away."""
        number, loss, outputs, labels = self.pending.popleft()
        loss = float(loss.asscalar())
        if not math.isfinite(loss):
            raise ToolkitError(
                f'the loss is {loss} at epoch {len(self.saver.epochs) + 1}, batch {number}: try a '
                f'lower --lr or a longer --warmup_ratio; {self.kept()}'
            )
        self.loss += loss
        self.rows += len(labels)
        self.labels.append(labels)
        self.predictions.append(decide(outputs.asnumpy(), self.task))

    def read_all(self):
        """Wait for all batches."""
        while self.pending:
            self.read()

    def take(self):
        """Mean loss of a row since the last call, and the metrics."""
        self.read_all()
        loss, self.loss, self.rows = self.loss / self.rows, 0.0, 0
        metrics = compute(
            self.task.metrics, np.concatenate(self.labels), np.concatenate(self.predictions)
        )
        return loss, metrics
