"""TODO"""

import hashlib
import json
import sys
from pathlib import Path

import finetune_classifier
from bert.experiments import recipes, runs
from bert.finetuning.flags import build_flags
from bert.tasks import files, table


def make_plan(flags, meant, data, jobs):
    """The :class:`bert.experiments.runs.Plan` of a task, from the flags for it and what they mean."""
    devices = meant.gpus or [0] * meant.gpu
    if devices and jobs > 1:
        devices = meant.gpus or list(range(jobs))
        # Each process sees only its own GPU, as number 0; the last of two --gpus counts.
        flags = [*flags, '--gpus', '0'] if meant.gpus else flags
    count = min(len(devices), 1) if jobs > 1 else len(devices)
    resume = ['--resume'] if meant.optimizer.lower() == 'bertadam' else []
    command = [sys.executable, '-u', finetune_classifier.__file__, *resume, *flags]
    return runs.Plan(command, collect_settings(meant, data, count), devices)


def collect_settings(meant, data, devices):
    """What the numbers of a run depend on beside its task and seed.

    Those are the flags of finetune_classifier.py, how many GPUs a run has (0 is the CPU), and the
    folder of the data, with paths that do not depend on where the command was given.
    """
    settings = {**vars(meant), 'GLUE_DIR': str(data.resolve()), 'devices': devices}
    for name in ('task_name', 'seed', 'output_dir', 'resume', 'gpu', 'gpus'):
        del settings[name]
    for name in ('bert_model', 'pretrained_bert_parameters', 'model_parameters'):
        if settings[name] and Path(settings[name]).exists():
            settings[name] = str(Path(settings[name]).resolve())
    return settings


def digest(settings):
    """A short hash of the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def compare_published(name, plan, data):
    """The published runs of a task, and why the own ones cannot be compared with them, if so.

    Returns
    -------
    list of (str, dict, str or None)
        Name of the recipe, its figures, and ``other model``, ``other recipe``, ``other data``
        or None.
    """
    parser = build_flags()
    found = []
    for recipe, figures in recipes.published(name).items():
        meant = parser.parse_args(recipes.flags_of(recipe, name))
        # One device: --batch_size is that of a device.
        reference = collect_settings(meant, data, max(min(plan.settings['devices'], 1), 0))
        reason = recipes.difference(plan.settings, reference)
        if reason is None and not is_whole(table.TASKS[name], data):
            reason = 'other data'
        found.append((recipe, figures, reason))
    return found


def is_whole(task, data):
    """Whether the training and dev sets have as many rows as those of GLUE."""
    return all(
        len(files.read_glue(data, task, split).texts) == split.rows
        for split in (task.train, *task.dev)
    )
