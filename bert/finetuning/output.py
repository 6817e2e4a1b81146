"""TODO"""

import contextlib
import json
import logging
import shutil
import time

from bert.checkpoints import contents, writing
from bert.finetuning.flags import REMEMBERED
from bert.finetuning.progress import Position
from bert.model import build, loading
from bert.model.parameters import save_parameters
from bert.system.errors import Stopped, ToolkitError
from bert.system.files import append_line, read_json, read_text, write_json, write_text
from bert.tasks import metrics
from bert.tasks.predictions import predictions_path
from bert.training import states
from bert.training.folder import remove_half_written, require_same, set_aside

# In --output_dir while a run is not finished: what --resume goes on from; see bert.training.states.
STATES = 'resume'
LOG = 'finetune.log'
METRICS = 'metrics.jsonl'


def choose_start(output, identity, resume):
    """Where to begin, with regard to what the folder holds of an earlier run, which is told.

    Returns
    -------
    bool, dict or None
        Whether the run is finished already; what :meth:`Saver.save_state` saved of one that is
        to go on.

    Raises
    ------
    UsageError
        If ``resume`` is asked for and the run there is another one.
    """
    description = output / contents.FINETUNED
    earlier = read_json(description) if description.is_file() else {}
    if 'run' in earlier:
        if resume:
            require_same(earlier['run'], identity, output)
            logging.info('the run in %s is finished: nothing is left to do', output)
        else:
            logging.info('the finished run in %s is replaced', output)
        return resume, None
    step = states.newest_step(output / STATES)
    if not step:
        if resume:
            logging.info('--resume: no epoch is complete in %s, the run begins anew', output)
        elif earlier.get('epochs'):
            logging.info('the fine-tuned model in %s is replaced', output)
        return False, None
    saved = states.read_progress(output / STATES, step)
    if resume:
        require_same(saved['run'], identity, output)
    epochs = len(saved['epochs'])
    where = f'step {step}, in epoch {epochs + 1},' if saved['seen'] else f'epoch {epochs}'
    logging.info(
        '%s of an earlier run is complete; --resume goes on from there%s',
        where,
        '' if resume else ', but without it this run starts anew',
    )
    return False, saved if resume else None


def finished_result(output, test):
    """What :func:`main` returned at the end of a finished run."""
    description = read_json(output / contents.FINETUNED)
    return {
        **{name: description[name] for name in ('epochs', 'best_epoch')},
        'test': [predictions_path(output, dataset.split).name for dataset in test],
    }


class Saver:
    """Writes an output directory that ``--bert_model`` takes again, and remembers the best epoch.

    The directory holds ``model_bert_TASK_EPOCH.params`` (epochs from 0), ``config.json``,
    ``vocab.txt`` and ``tokenizer_config.json`` in Hugging Face layout, ``finetune.json`` with
    the task, the labels and the best epoch, and ``metrics.jsonl``; and until the run is finished
    a folder ``resume``.
    """

    def __init__(self, output, task, model, vocab, lower, identity, workers, args):
        self.output = output
        self.task = task
        self.model = model
        self.vocab = vocab
        self.lower = lower
        self.identity = identity
        self.workers = workers
        self.devices = len(identity['devices'])
        self.flags = {name: getattr(args, name) for name in REMEMBERED}
        # The states of MXNet's own optimizers differ in form; some have more than arrays.
        self.can_resume = args.optimizer.lower() == 'bertadam'
        self.epochs = []
        self.best_epoch = 0  # counted from 1
        self.is_new = True  # nothing of this run is saved yet
        self.stop = []  # the signal that asked the run to stop, once there was one

    def begin(self, saved):
        """Make the log files what they were where the run goes on, and remove half-written ones.

        Parameters
        ----------
        saved : dict or None
            See :meth:`save_state`; None for a new run.

        Returns
        -------
        Position
        """
        position = Position(0)
        if saved:
            self.is_new = False
            self.epochs, self.best_epoch = saved['epochs'], saved['best_epoch']
            position = Position(saved['step'], saved['seconds'], saved['seen'])
        self.workers.from_first(lambda: self.open_files(saved))
        return position

    def open_files(self, saved):
        """The part of :meth:`begin` that worker 0 does."""
        remove_half_written(self.output)
        if saved:
            if self.epochs:
                best = self.output / self.parameters(self.best_epoch)
                if not best.is_file():
                    raise ToolkitError(f'{best}: was removed, so --resume cannot go on')
                self.write_finetuned()
            for name, text in saved['logs'].items():
                write_text(self.output / name, text)
        else:
            write_text(self.output / METRICS, '')

    def restore(self, loop, position):
        """Load parameters and optimizer as they were at a position."""
        if position.step:
            folder = self.output / STATES
            saved = states.load(folder, position.step, loop.model, loop.trainer, self.workers)
            loop.loss_scale.value, loop.loss_scale.good_steps = saved['loss_scale']

    def write_line(self, values):
        """Add a line to ``metrics.jsonl``."""
        if self.workers.is_first:
            append_line(self.output / METRICS, json.dumps(values))

    def parameters(self, epoch):
        """The parameter file of an epoch counted from 1; the name counts from 0."""
        return f'model_bert_{self.task.name}_{epoch - 1}.params'

    def save_epoch(self, loop, position, results, seconds):
        """Save parameters and dev metrics of an epoch, and what the next one needs."""
        self.epochs.append({**results, 'seconds': seconds})
        epoch = len(self.epochs)
        self.write_line({'epoch': epoch, 'seconds': seconds, **results})
        scores = [self.score(values) for values in self.epochs]
        self.best_epoch = 1 + scores.index(max(scores)) if scores[-1] is not None else epoch
        if self.workers.is_first:
            self.replace_earlier_run()
            if epoch == 1:
                self.save_description()
            path = self.output / self.parameters(epoch)
            save_parameters(self.model, path)
            if self.can_resume:
                self.save_state(loop, position, path)
            self.write_finetuned()
        self.workers.keep(self.kept())
        signum = self.asked()
        if signum:
            raise Stopped(signum, self.where(f'epoch {epoch}'))

    def save_state(self, loop, position, written=None):
        """Save what ``--resume`` needs.

        Parameters
        ----------
        written : Path, optional
            A file with the same parameters.
        """
        state = {
            'run': self.identity,
            'epochs': self.epochs,
            'best_epoch': self.best_epoch,
            'seconds': position.seconds,
            'seen': position.seen,
            'loss_scale': [loop.loss_scale.value, loop.loss_scale.good_steps],
            'logs': {name: read_text(self.output / name) for name in (LOG, METRICS)},
        }
        folder = self.output / STATES
        folder.mkdir(exist_ok=True)
        states.save(folder, position.step, self.model, loop.trainer, state, 1, written)

    def leave_if_asked(self, loop, seen):
        """Where a signal has asked for it, save all of the epoch so far and end the program."""
        signum = self.asked()
        if signum:
            if self.can_resume:
                position = Position(seen.step, time.time() - seen.start, seen.state())
                if self.workers.is_first:
                    self.replace_earlier_run()
                    self.save_state(loop, position)
            raise Stopped(signum, self.where(f'step {seen.step}'))

    def asked(self):
        """The signal that asked this worker or another one to stop, or 0."""
        return max(self.workers.each(self.stop[0] if self.stop else 0))

    def where(self, point):
        """What is left of a run that stops at a point, as a clause."""
        if self.can_resume:
            return f'{point} is saved, and --resume goes on from there'
        return f"--resume cannot go on with MXNet's own optimizers; {self.kept()}"

    def replace_earlier_run(self):
        """Remove, before the first file of a new run, what would be taken for its own.

        Parameters of an earlier, longer run are moved to a folder ``earlier``.
        """
        if not self.is_new:
            return
        self.is_new = False
        with contextlib.suppress(FileNotFoundError):
            (self.output / contents.FINETUNED).unlink()
        shutil.rmtree(self.output / STATES, ignore_errors=True)
        old = self.parameters(1)
        with contextlib.suppress(FileNotFoundError):
            (self.output / old).unlink()  # to be replaced after the first epoch
        later = list(self.output.glob(old.replace('_0.', '_*.')))
        if later:
            earlier = set_aside(self.output, later)
            logging.info('moved the later epochs of an earlier run to %s', earlier)

    def score(self, results):
        """What chooses the best epoch: the first metric on the first dev set, if there is one."""
        if not self.task.dev:
            return None
        return results[self.task.dev[0].name or 'dev'][self.task.metrics[0]]

    def save_description(self):
        """Save the sizes, the vocabulary and the casing."""
        settings = build.settings_of(self.model.bert)
        writing.write_description(self.output, settings, self.vocab, self.lower)

    def write_finetuned(self, **more):
        """Write ``finetune.json``."""
        write_json(
            self.output / contents.FINETUNED,
            {
                'flags': self.flags,
                'labels': self.task.labels,
                'epochs': self.epochs,
                'best_epoch': self.best_epoch,
                'parameters': self.parameters(self.best_epoch),
                **more,
            },
        )

    def kept(self):
        """Which parameters of this run are on the disk, as a clause."""
        if not self.epochs:
            return 'no epoch was finished'
        return f'the best epoch so far is in {self.output / self.parameters(self.best_epoch)}'

    def finish(self):
        """Name the best epoch and give the model its parameters."""
        best = self.epochs[self.best_epoch - 1]
        if self.task.dev:
            results = best[self.task.dev[0].name or 'dev']
            logging.info('Best epoch %d: %s', self.best_epoch, metrics.describe(results))
        if self.best_epoch < len(self.epochs):
            path = self.output / self.parameters(self.best_epoch)
            self.workers.from_first(lambda: loading.load_finetuned(self.model, path))
            self.workers.broadcast_parameters(self.model)
        return {'epochs': self.epochs, 'best_epoch': self.best_epoch}

    def close(self):
        """Mark the run as finished, and remove what it was resumed from."""
        if self.can_resume:
            self.write_finetuned(run=self.identity)
            shutil.rmtree(self.output / STATES, ignore_errors=True)
