"""TODO"""

import logging
import operator
import time
from collections import deque

import numpy as np

from bert.pretraining import loss
from bert.system.errors import ToolkitError
from bert.training import states
from bert.training.devices import STEPS_IN_FLIGHT
from bert.training.folder import add_line, keep_lines

LOG = 'pretraining.log'


class Recorder:
    """Follows a run: losses, log lines and checkpoints.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel
    trainer : mxnet.gluon.Trainer
    loss_scale : bert.training.update.LossScale
    order : dict
        See :func:`data_order`.
    workers : bert.distributed.workers.Workers
        Only worker 0 writes.
    args : argparse.Namespace
    """

    def __init__(self, model, trainer, loss_scale, order, workers, args):
        self.model = model
        self.trainer = trainer
        self.loss_scale = loss_scale
        self.order = order
        self.workers = workers
        self.args = args
        self.step = 0  # the present one
        self.pending = deque()
        self.tally = loss.Tally()
        self.tokens, self.since = 0, time.time()
        self.saved = None
        self.metrics = None

    def restore(self, step):
        """Load a checkpoint, if the step is not 0, and cut ``metrics.jsonl`` off there.

        Returns
        -------
        list of 3 int
            Where to go on in the data.
        """
        if self.workers.is_first:
            keep_lines(self.args.ckpt_dir, step)
        if not step:
            return [0, 0, 0]
        saved = states.load(self.args.ckpt_dir, step, self.model, self.trainer, self.workers)
        self.saved = step
        self.workers.keep(self.kept())
        try:
            return self.take(saved, step)
        except (KeyError, TypeError, ValueError):
            path = states.states_path(self.args.ckpt_dir, step)
            raise ToolkitError(f'{path}: not a checkpoint of this program') from None

    def take(self, saved, step):
        """Go on with what a checkpoint says beside the weights."""
        scale, good_steps = saved['loss_scale']
        self.loss_scale.value, self.loss_scale.good_steps = float(scale), int(good_steps)
        epoch, unit, update = map(operator.index, saved['position'])
        if saved['order'] == self.order:
            self.tally = loss.Tally(saved['sums'])
            return [epoch, unit, update]
        logging.info('other data or batches than up to step %d: they begin from the start', step)
        return [epoch + 1, 0, 0]

    def count(self, step, batches, statistics):
        """Remember what a step gave; it is read some steps later."""
        self.pending.append((step, batches, statistics))
        self.tokens += sum(int(batch.valid_lengths.sum()) for batch in batches)
        if len(self.pending) > STEPS_IN_FLIGHT:
            self.read()

    def read(self):
        """Wait for the oldest step that was not read yet."""
        step, batches, statistics = self.pending.popleft()
        total = loss.Tally()
        for batch, values in zip(batches, statistics):
            total.add(batch, values)
        self.tally.sums += total.sums
        if not np.isfinite(total.sums).all():
            raise ToolkitError(
                f'the loss is not finite at step {step}: try a lower --lr or a longer '
                f'--warmup_ratio; {self.kept()}'
            )

    def kept(self):
        """Which checkpoint of this run is the last one, as a clause."""
        if not self.saved:
            return 'no checkpoint yet'
        where = states.parameters_path(self.args.ckpt_dir, self.saved)
        return f'the last good checkpoint is {where}'

    def log(self, step, rate):
        """A line in the original's form, and one for programs, on the steps since the last."""
        while self.pending:
            self.read()
        seconds = time.time() - self.since
        self.metrics = self.tally.metrics()
        logging.info(
            '[step %d]\tmlm_loss=%.5f\tmlm_acc=%.2f\tnsp_loss=%.5f\tnsp_acc=%.2f\t'
            'throughput=%.1fK tks/s\tlr=%.7f time=%.2f',
            step,
            *self.metrics.values(),
            self.tokens / seconds / 1000,
            rate,
            seconds,
        )
        speed = {'lr': rate, 'tokens_per_second': self.tokens / seconds, 'seconds': seconds}
        if self.workers.is_first:
            add_line(self.args.ckpt_dir, {'step': step, **self.metrics, **speed})
        self.tally = loss.Tally()
        self.tokens, self.since = 0, time.time()

    def save(self, step, position):
        """Write a checkpoint."""
        while self.pending:
            self.read()
        state = {
            'position': position,
            'order': self.order,
            'loss_scale': [self.loss_scale.value, self.loss_scale.good_steps],
            'sums': self.tally.sums.tolist(),
        }
        args = self.args
        if self.workers.is_first:
            states.save(args.ckpt_dir, step, self.model, self.trainer, state, args.ckpt_keep)
        self.saved = step
        self.workers.keep(self.kept())
        logging.debug('step %d is saved', step)
