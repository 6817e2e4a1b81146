"""The record of a pre-training run: losses, log lines and training states."""

import logging
import operator
import time

import numpy as np

from bert.pretraining.loss import Tally, describe
from bert.system.errors import ToolkitError
from bert.system.files import write_text
from bert.training import states
from bert.training.devices import IN_FLIGHT, Late
from bert.training.failures import LossNotFinite
from bert.training.folder import METRICS_FILE, add_line, cut_logs, log_sizes, size_up_to

LOG = 'pretraining.log'
LOGS = (LOG, METRICS_FILE)


def open_folder(folder, start, saved):
    """Prepare a folder for a run, and cut its logs back to where the run goes on.

    Parameters
    ----------
    folder : Path
    start : int
        The step to go on from; 0 for a new run.
    saved : dict or None
        The ``progress`` of the training state of that step.
    """
    states.set_aside_later(folder, start, *([] if start else LOGS))
    if start:
        # Older states do not have the sizes of the logs.
        sizes = saved.get('logs') or {METRICS_FILE: size_up_to(folder / METRICS_FILE, start)}
        cut_logs(folder, LOGS, sizes)
    else:
        write_text(folder / METRICS_FILE, '')


def log_step(step, metrics, tokens, rate, seconds):
    """Log what happened since the last such line, in the original's format.

    Parameters
    ----------
    step : int
        The last step; in an evaluation, the number of batches so far.
    metrics : dict of str to float
        See :meth:`bert.pretraining.loss.Tally.metrics`.
    tokens : int
        All tokens of the rows.
    rate : float
        The learning rate; 0 in an evaluation.
    seconds : float
    """
    logging.info(
        '[step %d]\t%s\tthroughput=%.1fK tks/s\tlr=%.7f time=%.2f',
        step,
        describe(metrics, digits=5),
        tokens / seconds / 1000,
        rate,
        seconds,
    )


class Recorder:
    """The record of a run: losses, log lines and training states.

    Parameters
    ----------
    folder : Path
    order : dict
        Everything that determines the order of the rows, as JSON can hold it; a position in the
        data is valid only for a run with the same order.
    keep : int
        How many training states to keep.
    workers : bert.distributed.workers.Workers
        Only worker 0 writes.
    said : dict
        What training states say of the run; see :func:`bert.pretraining.start.describe_run`.
    events : bert.training.events.EventFile, optional

    Attributes
    ----------
    step : int
        The current step.
    metrics : dict or None
        Losses and accuracies of the last log line.
    evaluation : dict or None
        Those of the last evaluation.
    waited : float
        The seconds for which training has waited for data.
    """

    def __init__(self, folder, order, keep, workers, said, events=None):
        self.folder = folder
        self.order = order
        self.keep = keep
        self.workers = workers
        self.said = said
        self.events = events
        self.step = 0
        self.saved_step = 0
        self.metrics = self.evaluation = None
        self.waited = 0.0
        self.late = Late(self.read, IN_FLIGHT)
        self.restart(Tally())

    def restart(self, tally):
        """Start counting for the next log line."""
        self.tally, self.tokens, self.since = tally, 0, time.monotonic()

    def restore(self, updater, start):
        """Load a training state, if the step is not 0.

        Returns
        -------
        list of 3 int
            Where to go on in the data.
        """
        if not start:
            return [0, 0, 0]
        saved = updater.load(self.folder, start)
        self.step = self.saved_step = start
        self.workers.remember_saved(self.describe_saved())
        try:
            epoch, unit, update = map(operator.index, saved['position'])
            if saved['order'] == self.order:
                self.restart(Tally(saved['sums']))
                return [epoch, unit, update]
        except (KeyError, TypeError, ValueError):
            path = states.states_path(self.folder, start)
            raise ToolkitError(f'{path}: not a checkpoint of this program') from None
        logging.info(
            'different data or batches than up to step %d: they start from the beginning', start
        )
        return [epoch + 1, 0, 0]

    def taking(self, updates):
        """Yield what an iterator yields, and add up the time that it takes."""
        while True:
            since = time.monotonic()
            update = next(updates, None)
            self.waited += time.monotonic() - since
            if update is None:
                return
            yield update

    def count(self, batches, statistics):
        """Queue the results of a step, to be read some steps later."""
        self.late.add(self.step, batches, statistics)
        self.tokens += sum(int(batch.valid_lengths.sum()) for batch in batches)

    def read(self, step, batches, statistics):
        """Wait for the results of a step, and add them up.

        Raises
        ------
        LossNotFinite
        """
        total = Tally()
        for batch, values in zip(batches, statistics):
            total.add(batch, values)
        self.tally.sums += total.sums
        if not np.isfinite(total.sums).all():
            raise LossNotFinite(f'the loss is not finite at step {step}')

    def describe_saved(self):
        """Return a clause that names the last training state of this run."""
        if not self.saved_step:
            return 'no checkpoint yet'
        path = states.parameters_path(self.folder, self.saved_step)
        return f'the last good checkpoint is {path}'

    def log(self, rate):
        """Log the steps since the last call, in the original's format and for programs."""
        self.late.finish()
        seconds = time.monotonic() - self.since
        self.metrics = self.tally.metrics(self.said.get('no_nsp', False))
        log_step(self.step, self.metrics, self.tokens, rate, seconds)
        speed = {'lr': rate, 'tokens_per_second': self.tokens / seconds, 'seconds': seconds}
        if self.workers.is_first:
            add_line(self.folder, {'step': self.step, **self.metrics, **speed}, self.events)
        self.restart(Tally())

    def evaluate(self, compute):
        """Log an evaluation of the weights of this step, whose time counts for no step.

        Parameters
        ----------
        compute : function
            Logs and returns losses and accuracies.
        """
        self.late.finish()
        since = time.monotonic()
        logging.info('evaluation at step %d', self.step)
        self.evaluation = compute()
        if self.workers.is_first:
            add_line(self.folder, {'step': self.step, 'eval': self.evaluation}, self.events)
        self.since += time.monotonic() - since

    def save(self, updater, position):
        """Write a training state."""
        self.late.finish()
        if self.workers.is_first:
            state = {
                'position': position,
                'order': self.order,
                'sums': self.tally.sums.tolist(),
                'logs': log_sizes(self.folder, LOGS),
                **self.said,
            }
            updater.save(self.folder, self.step, state, self.keep)
        self.saved_step = self.step
        self.workers.remember_saved(self.describe_saved())
        logging.debug('step %d is saved', self.step)
