"""Run finetune_classifier.py many times: several processes at once, and no run twice."""

import contextlib
import logging
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from bert.checkpoints.contents import FINETUNED
from bert.cli.console import progress
from bert.experiments.results import format_cell, is_record, measures
from bert.experiments.watching import Watch
from bert.finetuning.summary import describe_machine
from bert.system.errors import ToolkitError
from bert.system.files import read_json, write_json
from bert.system.processes import POLL, child_environment, kill_with_parent, lock
from bert.tasks.table import Task

RECORD = 'result.json'  # in the folder of a finished run: its results
LOG = 'run.log'  # beside it: everything that the run printed


class Run(NamedTuple):
    """One training run: a task with a seed."""

    task: str  # its name in results
    seed: int
    folder: Path

    def __str__(self):
        return f'{self.task} seed {self.seed}'


class Plan(NamedTuple):
    """The way to run a task."""

    command: list  # of a run, without its seed and folder
    settings: dict  # what the results depend on besides task and seed, as it was given
    contents: dict  # hashes of the files that it names
    devices: list  # GPUs: a run alone has them all, simultaneous runs one each; [] is the CPU
    task: Task


class Started(NamedTuple):
    """A run whose process has been started."""

    run: Run
    process: subprocess.Popen
    log: object  # the open LOG, which holds the lock of the run
    since: float
    slot: int
    threads: str
    watch: Watch


def do_runs(runs, plans, jobs):
    """Do the unfinished runs, ``jobs`` at a time, show their progress, and log a line about each.

    Parameters
    ----------
    runs : list of Run
    plans : dict of str to Plan
        By task.
    jobs : int

    Returns
    -------
    dict of Run to dict
        The records of all but the failed ones; see :func:`finish`.
    """
    records = {}
    outcomes = each_outcome(runs, plans, jobs)
    with contextlib.closing(outcomes), progress(len(runs), 'runs', 'run') as bar:
        for count, (current, outcome, remark) in enumerate(outcomes, 1):
            if isinstance(outcome, Exception):
                logging.error('[%d/%d] %s failed: %s', count, len(runs), current, outcome)
            else:
                records[current] = outcome
                values = measures(outcome).items()
                listed = ', '.join(f'{name} {format_cell(name, value)}' for name, value in values)
                logging.info('[%d/%d] %s: %s%s', count, len(runs), current, listed, remark)
            bar.update()
    return records


def each_outcome(runs, plans, jobs):
    """Start runs in free slots, and watch which have ended.

    A run that another process is doing is left to it, and its record is read afterwards. When the
    caller stops or is interrupted, the processes get SIGTERM, finish their step and end.

    Yields
    ------
    Run, dict or Exception, str
        A run, its record or the reason for its failure, and a remark, as soon as it has ended.
    """
    machine = describe_machine()
    waiting, active, slots = list(runs), [], list(range(jobs))
    elsewhere = set()  # runs that another process is doing
    try:
        while waiting or active:
            for started in active:
                started.watch.look()
            for started in [s for s in active if s.process.poll() is not None]:
                active.remove(started)
                started.watch.close()
                slots.append(started.slot)
                yield started.run, finish(started, plans[started.run.task], machine), ''
            for current in list(waiting):
                if not slots:
                    break
                begun = begin(current, plans[current.task], slots[0], jobs)
                if begun is None:
                    if current not in elsewhere:
                        logging.info('%s: waiting for another process', current.folder)
                    elsewhere.add(current)
                    continue
                waiting.remove(current)
                if isinstance(begun, Started):
                    active.append(begun)
                    del slots[0]
                else:
                    yield current, begun, ' (done before)'
            if active or waiting:
                time.sleep(POLL)
    finally:
        for started in active:
            started.process.terminate()
        for started in active:
            started.process.wait()
            started.watch.close()
            started.log.close()


def begin(current, plan, slot, jobs):
    """Start a run in a process of its own, so that memory and random numbers start afresh.

    Returns
    -------
    Started, dict, Exception or None
        The record of a run that is already finished, or the reason for a failure; None if another
        process is doing this run.
    """
    log = None
    try:
        current.folder.mkdir(parents=True, exist_ok=True)
        log = open(current.folder / LOG, 'ab')  # noqa: SIM115
        # The child process holds the lock too, until it ends.
        if not lock(log):
            log.close()
            return None
        if (current.folder / RECORD).is_file():
            record = read_record(current, plan.task)
            log.close()
            return record
        log.truncate(0)
        variables = child_environment(plan.devices, slot, jobs)
        process = subprocess.Popen(
            [
                *plan.command,
                *('--seed', str(current.seed)),
                # One word, as a folder's name may look like a flag.
                f'--output_dir={current.folder}',
            ],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=kill_with_parent(),
        )
    except (ToolkitError, OSError) as error:
        if log:
            log.close()
        return error
    watch = Watch(current, current.folder / LOG, plan.settings, slot + 1)
    threads = variables['OMP_NUM_THREADS']
    return Started(current, process, log, time.monotonic(), slot, threads, watch)


def read_record(run, task):
    """Read the record of a finished run of a task; see :func:`finish`."""
    path = run.folder / RECORD
    record = read_json(path)
    if not is_record(record, task):
        raise ToolkitError(f'{path}: not the results of {run}; without this file it is run again')
    return record


def finish(started, plan, machine):
    """Record the results of a run whose process has ended.

    Returns
    -------
    dict or Exception
        ``epochs`` and ``best_epoch`` as finetune_classifier.py returns them, when it
        ``finished``, the ``task``, ``seed`` and ``settings``, the ``seconds`` of the whole run, and
        the ``machine``; or the reason for its failure.
    """
    folder = started.run.folder
    seconds = time.monotonic() - started.since
    try:
        if started.process.returncode:
            raise ToolkitError(explain_failure(started.process.returncode, folder / LOG))
        finetuned = read_json(folder / FINETUNED)
        record = {
            'task': started.run.task,
            'seed': started.run.seed,
            'settings': plan.settings,
            'contents': plan.contents,
            'epochs': finetuned.get('epochs'),
            'best_epoch': finetuned.get('best_epoch'),
            'finished': finetuned.get('finished'),
            'seconds': seconds,
            'machine': {**machine, 'threads of a run': started.threads},
        }
        if not is_record(record, plan.task):
            raise ToolkitError(f'{folder / FINETUNED}: not the results of {started.run}')
        # After a kill, the last process has done only a part of the run.
        of_epochs = sum(epoch.get('seconds', 0) for epoch in record['epochs'])
        record['seconds'] = max(seconds, of_epochs)
        # Many runs of a large model would fill the disk; only the best epoch is used again.
        for path in folder.glob('model_bert_*.params'):
            if path.name != finetuned.get('parameters'):
                path.unlink()
        write_json(folder / RECORD, record)
    except (ToolkitError, OSError) as error:
        return error
    finally:
        started.log.close()
    return record


def explain_failure(status, log):
    """Return why a run failed: the signal that ended it, or the last line that it wrote."""
    if status < 0:
        return f'ended by signal {-status} ({signal.strsignal(-status)}); its log is {log}'
    lines = log.read_text(encoding='utf8', errors='replace').split('\n')
    last = next((line.strip() for line in reversed(lines) if line.strip()), 'it wrote nothing')
    return f'{last}; its log is {log}'
