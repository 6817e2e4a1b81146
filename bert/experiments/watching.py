"""What is shown of a run while it goes on: a progress bar, or a log line for each epoch."""

import logging
import time

from bert.cli.console import make_bar
from bert.experiments.logs import TRAINING
from bert.experiments.results import flatten, format_cell
from bert.system.files import parse_json
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
        self.offset = 0
        # What an earlier process has written is not shown again.
        self.begun = max((values.get('step', 0) for values in self._new_lines()), default=0)
        self.since = time.monotonic()
        self.dev = ''
        self.bar = make_bar(None, str(run), 'step', position=line)
        self.bar.initial = self.begun

    def look(self):
        """Show what the run has written since the last call."""
        for values in self._new_lines():
            if 'seconds' in values:
                self._end_epoch(values)
            elif {'epoch', 'step', 'loss'} <= values.keys():
                self._move(values)

    def _new_lines(self):
        """Yield the values of each complete new line of ``metrics.jsonl``."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < self.offset:  # a run that goes on cuts the file first, and a new one empties it
            self.offset, self.begun = size, self.begun if size else 0
        if size == self.offset:
            return
        with open(self.path, 'rb') as file:
            file.seek(self.offset)
            lines, _, rest = file.read(size - self.offset).rpartition(b'\n')
        self.offset = size - len(rest)
        for line in lines.splitlines():
            try:
                values = parse_json(line.decode('utf8'))
            except ValueError:
                continue  # the end of a line whose beginning has been cut
            if isinstance(values, dict):
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
        if self.total and values['step'] < self.total:
            pace = (time.monotonic() - self.since) / max(values['step'] - self.begun, 1)
            left = f', {self.bar.format_interval((self.total - values["step"]) * pace)} left'
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
