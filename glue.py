#!/usr/bin/env python3
"""Fine-tune on GLUE tasks with several seeds each, and tell mean and spread of the dev metrics."""

import contextlib
import csv
import ctypes
import fcntl
import hashlib
import io
import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import bert
import finetune_classifier
from bert.cli import ToolkitError, UsageError, build_parser, progress, run, seed, start_logging
from bert.files import read_json, write_json, write_text

EPILOG = """\
All other flags are those of finetune_classifier.py; its --help lists them. Each run has a folder
in the --output_dir, named by task, seed and a hash of its settings. A run that is finished is not
run again, so an interrupted command, given once more, goes on where it was.

The best epoch is chosen by the dev set that it is reported on, which flatters; the last is not.

examples:
  GLUE_DIR=glue_data glue.py --tasks MRPC RTE --seeds 1 2 3 --lr 2e-5
  GLUE_DIR=glue_data glue.py --tasks all --bert_model DIR
"""

OWN_DATA = 'train_file dev_file test_file text_columns label_column regression metric'
# Flags of finetune_classifier.py that are not passed on, and why. (--output_dir is taken here.)
REFUSED = {
    '--task_name': 'give the tasks with --tasks',
    '--seed': 'give the seeds with --seeds',
    '--only_inference': 'this script trains',
    **{f'--{name}': 'this script runs GLUE tasks, not own data' for name in OWN_DATA.split()},
}

RECORD = 'result.json'  # in the folder of a finished run: what it gave
LOG = 'run.log'  # beside it: all that the run printed
PR_SET_PDEATHSIG = 1  # Linux's prctl: choose the signal that comes when the parent has ended


class Run(NamedTuple):
    """One training: a task with a seed."""

    task: str
    seed: int
    folder: Path

    def __str__(self):
        return f'{self.task} seed {self.seed}'


def parse_args(argv=None):
    """The flags of this script; those of finetune_classifier.py, defaults included, checked by its
    own parser; and as a list those of them that were given."""
    parser = build_parser(__doc__, epilog=EPILOG)
    parser.add_argument(
        '--tasks',
        nargs='+',
        choices=[*bert.tasks.TASKS, *bert.tasks.OTHER_NAMES, 'all'],
        metavar='TASK',
        help=f'{", ".join(bert.tasks.TASKS)}, or all; their files are in the folder that the '
        'variable GLUE_DIR names (default: MRPC)',
    )
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=seed,
        metavar='SEED',
        help='each task is run with each of them (default: 1 2 3 4 5)',
    )
    parser.add_argument('--output_dir', default='./glue_output', help='where results go')
    args, given = parser.parse_known_args(argv)
    for flag in (word.partition('=')[0] for word in given):
        if flag in REFUSED:
            raise UsageError(f'{flag} is not for glue.py: {REFUSED[flag]}')
    other_parser = finetune_classifier.build_flags()
    other_parser.error = parser.error  # with the usage of this script
    passed = other_parser.parse_args(given)
    finetune_classifier.check_args(passed)

    tasks = args.tasks or ['MRPC']
    tasks = bert.tasks.TASKS if 'all' in tasks else tasks
    args.tasks = unique(bert.tasks.OTHER_NAMES.get(name, name) for name in tasks)
    args.seeds = unique(args.seeds or [1, 2, 3, 4, 5])
    return args, passed, given


def unique(items):
    """The items in their order, each once."""
    return list(dict.fromkeys(items))


def main(argv=None):
    """Do the runs that are missing, then print and write a table for each task.

    Returns
    -------
    dict of str to list of dict
        The table of each task; see :func:`tabulate`.
    """
    args, passed, given = parse_args(argv)
    settings = collect_settings(passed, bert.datasets.glue_folder())
    bert.environment.check_mxnet()
    start_logging()
    output = Path(args.output_dir)
    runs = [
        Run(task, number, output / f'{task}-seed{number}-{digest(settings)}')
        for task in args.tasks
        for number in args.seeds
    ]
    results = do_runs(runs, settings, given)

    tables = {}
    for task in args.tasks:
        done = {r.seed: results[r] for r in runs if r.task == task and r in results}
        if done:
            tables[task] = tabulate(done)
            print(f'\n{task}\n\n{format_table(tables[task])}', flush=True)
    write_csv(output / 'results.csv', tables)
    failed = [str(r) for r in runs if r not in results]
    if failed:
        raise ToolkitError(f'{len(failed)} of {len(runs)} runs failed: {", ".join(failed)}')
    return tables


def collect_settings(passed, data):
    """What the numbers of a run depend on beside its task and seed.

    Those are the flags of finetune_classifier.py and the folder of the data, with paths that do
    not depend on where the command was given.
    """
    settings = {**vars(passed), 'GLUE_DIR': str(data.resolve())}
    for name in ('task_name', 'seed', 'output_dir'):
        del settings[name]
    for name in ('bert_model', 'pretrained_bert_parameters', 'model_parameters'):
        if settings[name] and Path(settings[name]).exists():
            settings[name] = str(Path(settings[name]).resolve())
    return settings


def digest(settings):
    """A short hash of the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def do_runs(runs, settings, given):
    """Do the runs one after the other; one that fails is told.

    Returns
    -------
    dict of Run to dict
        The :func:`measures` of all but the failed ones.
    """
    results = {}
    with progress(len(runs), 'runs', 'run') as bar:
        for number, current in enumerate(runs, 1):
            bar.set_postfix_str(str(current))
            try:
                values = results[current] = measures(do_run(current, settings, given))
                told = ', '.join(f'{name} {format_cell(name, values[name])}' for name in values)
                logging.info('[%d/%d] %s: %s', number, len(runs), current, told)
            except ToolkitError as error:
                logging.error('[%d/%d] %s failed: %s', number, len(runs), current, error)
            bar.update()
    return results


def do_run(current, settings, given):
    """Do a run in a process of its own, so that memory and random numbers start afresh.

    Returns
    -------
    dict
        ``epochs`` and ``best_epoch`` as finetune_classifier.py returns them, ``seconds`` of the
        whole run, and what was run. A finished run is not done, but its record read.
    """
    record, log_path = current.folder / RECORD, current.folder / LOG
    current.folder.mkdir(parents=True, exist_ok=True)
    with locked(log_path) as log:
        if record.is_file():
            return read_json(record)
        log.truncate(0)
        start = time.time()
        status = subprocess.run(
            [
                *(sys.executable, '-u', finetune_classifier.__file__, *given),
                *('--task_name', current.task, '--seed', str(current.seed)),
                *('--output_dir', str(current.folder)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent(),
        ).returncode
        if status:
            raise ToolkitError(explain_failure(status, log_path))
        finetuned = read_json(current.folder / bert.checkpoint.FINETUNED)
        result = {
            'task': current.task,
            'seed': current.seed,
            'settings': settings,
            'epochs': finetuned['epochs'],
            'best_epoch': finetuned['best_epoch'],
            'seconds': time.time() - start,
        }
        write_json(record, result)
    return result


@contextlib.contextmanager
def locked(path):
    """Open a file to append to, and lock it; while another process has the lock, wait.

    A child process that writes to the file has the lock too, until it ends.
    """
    with open(path, 'ab') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info('%s: waiting for another process that is at this run', path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def end_with_parent():
    """A function for a new process to call, so that it ends when this one is killed.

    Only Linux has this; elsewhere it is None, and an orphan goes on until it is done.
    """
    if sys.platform != 'linux':
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def explain_failure(status, log):
    """Why a run failed: the signal that ended it, or the last line that it wrote."""
    if status < 0:
        return f'ended by signal {-status} ({signal.strsignal(-status)}); its log is {log}'
    lines = log.read_text(encoding='utf8', errors='replace').split('\n')
    last = next((line.strip() for line in reversed(lines) if line.strip()), 'it wrote nothing')
    return f'{last}; its log is {log}'


def measures(record):
    """What the table shows of a run: the metrics at its last and at its best epoch, and its time.

    >>> dev = {'matched': {'accuracy': 0.8}, 'mismatched': {'accuracy': 0.9}, 'seconds': 4.0}
    >>> list(measures({'epochs': [dev], 'best_epoch': 1, 'seconds': 5.0}).items())[:3]
    [('last matched accuracy', 0.8), ('last mismatched accuracy', 0.9), ('best epoch', 1)]
    """

    def metrics(prefix, epoch):
        return {
            f'{prefix} {metric}' if split == 'dev' else f'{prefix} {split} {metric}': value
            for split, values in epoch.items()
            if split != 'seconds'
            for metric, value in values.items()
        }

    epochs, best = record['epochs'], record['best_epoch']
    return {
        **metrics('last', epochs[-1]),
        'best epoch': best,
        **metrics('best', epochs[best - 1]),
        'seconds': record['seconds'],
    }


def tabulate(done):
    """The table of a task, from the measures of each seed.

    Returns
    -------
    list of dict
        A row for each seed, then one for each statistic, whose name stands under ``seed``. What
        does not exist is None.
    """
    rows = [{'seed': number, **values} for number, values in done.items()]
    summaries = {name: summarize([row[name] for row in rows]) for name in list(rows[0])[1:]}
    statistics = list(summaries['seconds'])
    # A mean of epoch numbers says nothing, nor does an interval for times on one machine.
    summaries['best epoch'] = {}
    summaries['seconds'] = {'mean': summaries['seconds']['mean']}
    for statistic in statistics:
        values = {name: summary.get(statistic) for name, summary in summaries.items()}
        rows.append({'seed': statistic, **values})
    return rows


def summarize(values):
    """Mean, standard deviation of the sample, and 95 % t-interval of the mean, by name.

    Of a single value only the mean is known; the others are None.
    """
    mean, count = float(np.mean(values)), len(values)
    deviation = low = high = None
    if count > 1:
        from scipy.stats import t

        deviation = float(np.std(values, ddof=1))
        half = float(t.ppf(0.975, count - 1)) * deviation / count**0.5
        low, high = mean - half, mean + half
    return {'mean': mean, 'deviation': deviation, '95 % from': low, '95 % to': high}


def format_table(rows):
    """A table as text, in aligned columns."""
    lines = [list(rows[0])] + [[format_cell(*item) for item in row.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return '\n'.join(
        '  '.join([line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])])
        for line in lines
    )


def format_cell(name, value):
    """A value as text, with the digits that suit its column."""
    if value is None:
        return '-'
    if isinstance(value, float):
        return f'{value:.1f}' if name == 'seconds' else f'{value:.4f}'
    return str(value)


def write_csv(path, tables):
    """Write all tables to one CSV file, unrounded; a cell without a value is empty."""
    columns = unique(name for rows in tables.values() for row in rows for name in row)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ['task', *columns], lineterminator='\n')
    writer.writeheader()
    for task, rows in tables.items():
        writer.writerows({'task': task, **row} for row in rows)
    write_text(path, buffer.getvalue())


if __name__ == '__main__':
    run(main)
