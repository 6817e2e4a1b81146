"""The output directory of fine-tuning: models, logs, and the state that --resume needs."""

import contextlib
import logging
import shutil
import time

from bert.checkpoints import cards
from bert.checkpoints.contents import FINETUNED
from bert.checkpoints.gluon import read_gluon
from bert.checkpoints.writing import describe_labels, write_description
from bert.cli.console import log_result
from bert.finetuning.progress import History, Position
from bert.model import parameters
from bert.report.logs import LOG
from bert.system.errors import Stopped, ToolkitError
from bert.system.files import write_json, write_text
from bert.tasks import metrics
from bert.tasks.table import OTHER_NAMES
from bert.training import folder, states
from bert.training.events import EventFile

# The folder for the training state, until a run is finished.
STATES = 'resume'
LOGS = (LOG, folder.METRICS_FILE)
# The second is for the case that the first gets damaged.
KEPT_STATES = 2


def parameters_name(task_name, epoch):
    """Return the name of the parameter file of an epoch counted from 1; it counts from 0."""
    return f'model_bert_{task_name}_{epoch - 1}.params'


class Output:
    """An output directory, which ``--bert_model`` accepts.

    It holds ``model_bert_TASK_EPOCH.params`` (TASK as it was called when the run began, SST or
    SST-2, and epochs from 0), ``config.json``, ``vocab.txt`` and
    ``tokenizer_config.json`` in Hugging Face's layout, ``finetune.json`` with the task, the labels
    and the best epoch, ``README.md`` for readers, both logs, and until the run is finished a folder
    ``resume``.

    Parameters
    ----------
    path : Path
    task : bert.tasks.table.Task
    description : dict
        ``settings``, ``vocab`` and ``lower``; see :func:`write_description`.
    flags : dict
        The flags that the model remembers.
    identity : dict
        See :func:`bert.training.folder.identify`.
    can_resume : bool
        Whether the state of the optimizer can be saved.
    workers : bert.distributed.workers.Workers
        Only worker 0 writes.
    task_name : str
        What the user calls the task.
    tensorboard : bool
        Whether to write event files.
    card : function
        Makes the model's card from a history.
    """

    def __init__(
        self,
        path,
        task,
        description,
        flags,
        identity,
        can_resume,
        workers,
        task_name,
        tensorboard,
        card,
    ):
        self.path = path
        self.task = task
        self.task_name = task_name
        self.description = description
        self.flags = flags
        self.identity = identity
        self.can_resume = can_resume
        self.workers = workers
        self.tensorboard = tensorboard
        self.card = card
        self.events = None
        self.is_new = True  # nothing of this run is saved yet

    def begin(self, saved):
        """Restore the files to their state at the point where the run goes on.

        Parameters
        ----------
        saved : dict or None
            See :meth:`save_state`; None for a new run.

        Returns
        -------
        History, Position
        """
        history, position = History(self.task), Position()
        if saved:
            history = History(self.task, saved['epochs'])
            position = Position(saved['step'], saved['seconds'], saved['seen'])
            # Older training states have no such entry, but files with GLUE's own name.
            known = saved.get('task_name') in self.task_names()
            self.task_name = saved['task_name'] if known else self.task.name
            self.is_new = False
        self.workers.from_first(lambda: self._open(history, saved))
        if self.tensorboard and self.workers.is_first:
            self.events = EventFile(self.path)
        return history, position

    def _open(self, history, saved):
        folder.remove_half_written(self.path)
        if not saved:
            if states.saved_steps(self.path / STATES):
                # Until this run has saved something, --resume goes on with the earlier one.
                folder.move_logs(self.path, self.path / STATES, LOGS, replace=False)
            write_text(self.path / folder.METRICS_FILE, '')
            return
        if history.epochs:
            best = self.parameters_path(history.best_epoch)
            if not best.is_file():
                raise ToolkitError(f'{best}: was removed, so --resume cannot continue')
            self._write_finetuned(history)
        states.set_aside_later(self.path / STATES, saved['step'])
        folder.move_logs(self.path / STATES, self.path, LOGS, replace=True)
        folder.cut_logs(self.path, LOGS, saved['logs'])

    def parameters_path(self, epoch):
        """Return the parameter file of an epoch counted from 1."""
        return self.path / parameters_name(self.task_name, epoch)

    def task_names(self):
        """Return all names of the task, GLUE's own first."""
        others = [other for other, name in OTHER_NAMES.items() if name == self.task.name]
        return [self.task.name, *others]

    def write_line(self, values):
        """Add a line to ``metrics.jsonl``."""
        if self.workers.is_first:
            folder.add_line(self.path, values, self.events)

    def save_epoch(self, updater, step, history):
        """Save the model and the dev metrics of the last epoch, and the state for the next one."""
        epoch, results = len(history.epochs), dict(history.epochs[-1])
        seconds = results.pop('seconds')
        self.write_line({'epoch': epoch, 'step': step, 'seconds': seconds, **results})
        if self.workers.is_first:
            self._replace_earlier_run()
            if epoch == 1:
                write_description(self.path, **self.description)
            path = self.parameters_path(epoch)
            parameters.save(updater.model, path)
            if self.can_resume:
                self.save_state(updater, Position(step), history, path)
            self._write_finetuned(history)
        self.workers.remember_saved(self.describe_saved(history))

    def save_state(self, updater, position, history, written=None):
        """Save the state that ``--resume`` needs.

        Parameters
        ----------
        updater : bert.training.update.Updater
        position : Position
        history : History
        written : Path, optional
            A file with the same parameters.
        """
        state = {
            'run': self.identity,
            'task_name': self.task_name,
            'epochs': history.epochs,
            'seconds': position.seconds,
            'seen': position.seen,
            'logs': folder.log_sizes(self.path, LOGS),
        }
        (self.path / STATES).mkdir(exist_ok=True)
        updater.save(self.path / STATES, position.step, state, keep=KEPT_STATES, written=written)

    def stop_in_epoch(self, signum, updater, seen, history):
        """Save the epoch so far, and end the program as a signal requested."""
        if self.can_resume:
            position = Position(seen.step, time.monotonic() - seen.start, seen.state())
            if self.workers.is_first:
                self._replace_earlier_run()
                self.save_state(updater, position, history)
        self.stop(signum, f'step {seen.step}', history)

    def stop(self, signum, point, history):
        """End the program as a signal requested, with everything up to a point saved."""
        if self.can_resume:
            raise Stopped(signum, f'{point} is saved, and --resume continues from there')
        saved = self.describe_saved(history)
        raise Stopped(signum, f"--resume cannot continue with MXNet's own optimizers; {saved}")

    def describe_saved(self, history):
        """Return a clause that says which parameters of this run are on disk."""
        if not history.epochs:
            return 'no epoch was finished'
        return f'the best epoch so far is in {self.parameters_path(history.best_epoch)}'

    def load_best(self, model, history):
        """Log the best epoch, and give the model its parameters."""
        if self.task.dev:
            best = history.dev_metrics(history.epochs[history.best_epoch - 1])
            log_result('Best epoch %d: %s', history.best_epoch, metrics.describe(best))
        if history.best_epoch < len(history.epochs):
            path = self.parameters_path(history.best_epoch)
            self.workers.from_first(
                lambda: parameters.set_parameters(model, read_gluon(path), path)
            )
            self.workers.broadcast_parameters(model)

    def close(self, history, finished):
        """Mark the run as finished at a time, and remove its training state."""
        if self.can_resume and self.workers.is_first:
            self._write_finetuned(history, run=self.identity, finished=finished)
            shutil.rmtree(self.path / STATES, ignore_errors=True)

    def _replace_earlier_run(self):
        """Remove files that could be mistaken for a new run's, before it writes its first.

        Parameters of later epochs of an earlier run are moved to a folder ``earlier``.
        """
        if not self.is_new:
            return
        self.is_new = False
        with contextlib.suppress(FileNotFoundError):
            (self.path / FINETUNED).unlink()
        cards.remove_card(self.path)
        shutil.rmtree(self.path / STATES, ignore_errors=True)
        later = []
        for name in self.task_names():
            with contextlib.suppress(FileNotFoundError):
                (self.path / parameters_name(name, 1)).unlink()  # the new run writes its own
            later += self.path.glob(parameters_name(name, 1).replace('_0.', '_*.'))
        if later:
            earlier = folder.set_aside(self.path, later)
            logging.info('moved the later epochs of an earlier run to %s', earlier)

    def _write_finetuned(self, history, **more):
        """Write ``finetune.json`` and the card."""
        write_json(
            self.path / FINETUNED,
            {
                'flags': self.flags,
                **describe_labels(self.task.labels, self.task.is_multilabel),
                'epochs': history.epochs,
                'best_epoch': history.best_epoch,
                'parameters': self.parameters_path(history.best_epoch).name,
                **more,
            },
        )
        written = cards.write_card(self.path, self.card(history))
        # Said once: after the first epoch, but not at the end of the run.
        if not (written or more) and len(history.epochs) == 1:
            card = self.path / cards.CARD
            logging.info('%s is not a model card of this program: it is kept', card)
