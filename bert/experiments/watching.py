"""What is shown of a run while it goes on: a progress bar, or a log line for each epoch."""

import logging

from bert.cli.console import make_bar
from bert.experiments.results import flatten, format_cell
from bert.report.logs import TRAINING
from bert.system.files import parse_json
from bert.tasks.metrics import is_number
from bert.training.folder import METRICS_FILE


class Watch:
    """A run of finetune_classifier.py in a process of its own.

    Its steps, losses and dev metrics are those of ``metrics.jsonl``. How many updates an epoch has
    is read from the log.

    Parameters
    ----------
    run : bert.experiments.runs.Run
    log : Path
        What the run prints.
    settings : dict
        Its flags.
    line : int
        Where its bar appears, counted from the top.
    """

    def __init__(self, run, log, settings, line):
        self.run, self.log = run, log
        self.epochs, self.total = settings.get('epochs'), settings.get('training_steps')
        self.path = run.folder / METRICS_FILE
        self.dev = ''
        self.bar = make_bar(None, str(run), 'step', position=line)
        self._begin()

    def _begin(self):
        """Pass over what an earlier process has written."""
        self.offset = self.step = self.epoch_end = 0
        for values in self._new_lines():
            self._count(values)
        self.bar.initial = self.step

    def _count(self, values):
        self.step = values['step']
        if 'seconds' in values:
            self.epoch_end = self.step

    def look(self):
        """Show what the run has written since the last call."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < self.offset:  # a run that goes on has cut the file, and a new one emptied it
            self._begin()
        for values in self._new_lines():
            if is_number(values.get('seconds')):
                self._end_epoch(values)
            elif is_number(values.get('loss')):
                self._move(values)
            self._count(values)

    def _new_lines(self):
        """Yield the values of each complete new line of ``metrics.jsonl``, which have a step."""
        if not self.path.is_file():
            return
        with open(self.path, 'rb') as file:
            file.seek(self.offset)
            lines, newline, _ = file.read().rpartition(b'\n')
        self.offset += len(lines + newline)
        for line in lines.splitlines():
            try:
                values = parse_json(line.decode('utf8'))
            except ValueError:
                continue  # such as the end of a line whose beginning has been cut
            if isinstance(values, dict) and all(
                is_number(values.get(n)) for n in ('epoch', 'step')
            ):
                yield values

    def _move(self, values):
        """Move the bar to the step of a line about updates."""
        if self.total is None:
            found = TRAINING.search(self.log.read_text(encoding='utf8', errors='replace'))
            self.total = found and self.epochs * int(found.group(3))
        self.bar.total, self.bar.n = self.total, values['step']
        self.bar.set_postfix_str(
            f'epoch {values["epoch"]}, loss {values["loss"]:.4f}{self.dev}', refresh=False
        )
        self.bar.refresh()

    def _end_epoch(self, values):
        """Log the dev metrics of an epoch, or keep them for the bar."""
        metrics = flatten('', values).items()
        listed = ', '.join(f'{name.strip()} {format_cell(name, value)}' for name, value in metrics)
        self.dev = f', {listed}' if listed else ''
        if not self.bar.disable:
            return
        left = ''
        updates = values['step'] - self.epoch_end
        if self.total and values['step'] < self.total and updates > 0:
            seconds = (self.total - values['step']) * values['seconds'] / updates
            left = f', {self.bar.format_interval(seconds)} left'
        logging.info(
            '%s, epoch %s: %s%.1f s%s',
            self.run,
            values['epoch'],
            f'{listed}, ' if listed else '',
            values['seconds'],
            left,
        )

    def close(self):
        """Show the rest, and remove the bar."""
        self.look()
        self.bar.close()
