"""Plan the runs of a task: their command, their folders, and comparable published runs."""

import functools
import hashlib
import json
import sys
from pathlib import Path

from bert.checkpoints.source import is_zoo_model, list_files, locate, locate_configuration
from bert.experiments import recipes
from bert.experiments.runs import Plan, Run
from bert.finetuning.flags import OWN_FILES
from bert.finetuning.parser import build_flags
from bert.system.files import sha256
from bert.tasks import files, library
from bert.training.flags import is_resumable
from bert.training.scratch import is_from_scratch


def make_plan(script, task, words, values, data, jobs):
    """Plan the runs of a task.

    Parameters
    ----------
    script : Path
        The path of finetune_classifier.py.
    task : bert.tasks.table.Task
        One of the table, or the user's own.
    words : list of str
        Flags for it, the same for all runs.
    values : dict
        The values of all its flags that these words give, by name.
    data : Path
        The folder of the task's files.
    jobs : int
        The number of simultaneous runs.

    Returns
    -------
    Plan
    """
    devices = values['gpus'] or [0] * values['gpu']
    if devices and jobs > 1:
        devices = values['gpus'] or list(range(jobs))
        # Each process sees only its own GPU, as number 0; the last of two --gpus counts.
        words = [*words, '--gpus', '0'] if values['gpus'] else words
    count = min(len(devices), 1) if jobs > 1 else len(devices)
    # The state of MXNet's own optimizers is not saved.
    resume = ['--resume'] if is_resumable(values['optimizer']) else []
    name = [] if task.is_own else ['--task_name', task.name]
    command = [sys.executable, '-u', str(script), *resume, *words, *name]
    settings = collect_settings(values, data, count)
    return Plan(command, settings, hash_contents(values, task, data), devices, task)


def collect_settings(values, data, devices):
    """Collect everything that a run's results depend on besides its task and seed.

    Paths are absolute, so that the folder in which the command is given does not matter.

    Parameters
    ----------
    values : dict
        The flags of finetune_classifier.py.
    data : Path
        The folder of the GLUE files, where the flags do not name the user's own.
    devices : int
        How many GPUs a run has; 0 means the CPU.

    Returns
    -------
    dict
    """
    parser = build_flags()
    others = {*parser.with_role('run'), *parser.with_role('unrecorded')}
    settings = {name: value for name, value in values.items() if name not in others}
    for name in (*parser.with_role('source'), *OWN_FILES):
        if settings[name] and Path(settings[name]).exists():
            settings[name] = str(Path(settings[name]).resolve())
    folder = {} if settings['train_file'] else {'GLUE_DIR': str(data.resolve())}
    return {**settings, **folder, 'devices': devices}


def hash_contents(values, task, data):
    """Hash what the files hold that a run reads, wherever they are.

    Parameters
    ----------
    values : dict
        The flags of finetune_classifier.py.
    task : bert.tasks.table.Task
    data : Path

    Returns
    -------
    dict of str to str
        By the name of a flag that names a model or a file of the user's, and under ``GLUE_DIR``.
    """
    if task.is_own:
        contents = hash_own(values, task)
    else:
        paths = [data / split.path for split in (task.train, *task.dev, *task.test)]
        contents = {'GLUE_DIR': hash_files([path for path in paths if path.is_file()])}
    if is_from_scratch(values['bert_model'], values['vocab_file']):
        location = locate_configuration(values['bert_model'], values['vocab_file'])
        contents['vocab_file'] = hash_files(list_files(location))
        if location.config:
            contents['bert_model'] = contents['vocab_file']
        return contents
    for name in build_flags().with_role('source'):
        # The models of the zoo never change.
        if values[name] and not is_zoo_model(values[name]):
            contents[name] = hash_model(values[name])
    return contents


def hash_own(values, task):
    """Hash what the user's own files hold, by their flags, or the rows of named data sets."""
    contents = {}
    # Of a file with two roles, the first counts, which has labels.
    by_path = {split.path: split for split in (*task.test, *task.dev, task.train)}
    for name in filter(values.get, OWN_FILES):
        path = values[name]
        if not library.is_name(path):
            contents[name] = hash_files([Path(path)])
            continue
        rows = files.read_own(task, by_path[path])
        labels = None if rows.labels is None else rows.labels.tolist()
        contents[name] = hashlib.sha256(json.dumps([rows.texts, labels]).encode()).hexdigest()
    return contents


@functools.lru_cache(maxsize=None)
def hash_model(source):
    """Hash the files of a model; those of a model on the Hub are fetched."""
    return hash_files(list_files(locate(source)))


def hash_files(paths):
    """Hash the names and the contents of some files."""
    found = [[path.name, sha256(path)] for path in paths]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def digest(plan):
    """Return a short hash of everything that the results of a plan's runs depend on.

    It names the folders of runs. A flag that earlier versions did not have is left out unless it is
    given, so that their runs are found.
    """
    parser = build_flags()
    added = parser.with_role('added')
    settings = {
        name: value
        for name, value in plan.settings.items()
        if name not in added or value != parser.get_default(name)
    }
    identity = {**settings, **plan.contents}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def list_runs(output, plans, seeds):
    """List the runs of all tasks, with their folders.

    Parameters
    ----------
    output : Path
    plans : dict of str to Plan
        By task.
    seeds : list of int

    Returns
    -------
    list of Run
    """
    return [
        Run(task, seed, output / task / f'seed-{seed}-{digest(plan)}')
        for task, plan in plans.items()
        for seed in seeds
    ]


def compare_published(task, settings, data):
    """Find the published runs of a task, and decide whether other runs compare with them.

    Parameters
    ----------
    task : bert.tasks.table.Task
    settings : dict
        The settings of the other runs.
    data : Path

    Returns
    -------
    list of (str, dict, str or None)
        The name of the recipe, its figures, and None or the reason not to compare: ``other
        model``, ``other recipe`` or ``other data``.
    """
    parser = build_flags()
    found = []
    for recipe, figures in recipes.published(task.name).items():
        values = vars(parser.parse_args(recipes.flags_of(recipe, task.name)))
        # With at most one device, since --batch_size is per device.
        reference = collect_settings(values, data, min(settings['devices'], 1))
        reason = find_difference(settings, reference)
        if reason is None and not is_whole(task, data):
            reason = 'other data'
        found.append((recipe, figures, reason))
    return found


def find_difference(settings, reference):
    """Find the reason not to compare a run with a published one.

    Parameters
    ----------
    settings, reference : dict
        The settings of both; see :func:`collect_settings`.

    Returns
    -------
    str or None
        ``other model`` or ``other recipe``; None if nothing that affects the result differs.
    """
    parser = build_flags()
    differing = {
        name for name in reference if name in settings and settings[name] != reference[name]
    } - {'GLUE_DIR', *parser.with_role('indifferent')}
    if differing.intersection(parser.with_role('model')):
        return 'other model'
    return 'other recipe' if differing else None


def is_whole(task, data):
    """Return whether the training and dev sets have as many rows as published ones."""
    return all(
        len(files.read(data, task, split).texts) in (split.rows, split.older_rows)
        for split in (task.train, *task.dev)
    )
