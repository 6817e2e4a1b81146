"""Collect the sections of the report, one per task, from the files of its runs."""

from typing import NamedTuple

import numpy as np

from bert.experiments import curves, logs
from bert.system.errors import ToolkitError
from bert.tasks import files
from bert.tasks.predictions import read_outputs
from bert.tasks.table import ALL_TASKS, Task


class Evaluation(NamedTuple):
    """The outputs of all runs of a task for one of its dev sets, each at its best epoch."""

    name: str  # '' if the task has only one
    texts: list  # of (text,) or (first, second)
    labels: np.ndarray  # (N,) class ids or numbers
    outputs: np.ndarray  # (runs, N, classes), before any softmax


class Section(NamedTuple):
    """The part of the report about a task."""

    task: Task
    table: list  # see bert.experiments.results.tabulate
    panels: list  # of bert.experiments.curves.Panel
    evaluations: list  # of Evaluation


class Hard(NamedTuple):
    """A row of a dev set that is hard to get right."""

    row: int  # counted from 1
    texts: tuple
    label: str
    remark: str  # what the runs predict


def make_sections(tables, records, folders, published, data):
    """Make the sections of all tasks.

    Parameters
    ----------
    tables : dict of str to list of dict
        See :func:`bert.experiments.results.tabulate_tasks`.
    records : dict of str to dict of int to dict
        The records of each task by seed.
    folders : dict of (str, int) to Path
        The folder of each run, by task and seed.
    published : dict of str to list
        The result of :func:`bert.experiments.plans.compare_published` for each task.
    data : Path
        The folder of the GLUE files.

    Returns
    -------
    list of Section
    """
    sections = []
    for name, done in records.items():
        task = ALL_TASKS[name]
        panels = collect_panels(task, done, folders, published[name])
        evaluations = [
            collect_evaluation(task, split, [folders[name, number] for number in done], data)
            for split in task.dev
        ]
        sections.append(Section(task, tables[name], panels, evaluations))
    return sections


def collect_panels(task, done, folders, published):
    """Collect the panels of a task, with the curves of its runs and of the published ones.

    Returns
    -------
    list of bert.experiments.curves.Panel
    """
    own = {
        f'seed {number}': logs.read_log(folders[task.name, number] / 'finetune.log')
        for number in done
    }
    others = {}
    for recipe, figures, reason in published:
        remark = ' (BERT base)' if reason == 'other model' else ''
        others[f'published {recipe}{remark}'] = logs.Log(
            {}, figures['training'], figures['validation']
        )
    return curves.collect_panels(own, others, task.metrics[0])


def collect_evaluation(task, split, folders, data):
    """Collect the outputs of all runs of a task for a dev set.

    Returns
    -------
    Evaluation
    """
    rows = files.read_glue(data, task, split)
    outputs = [read_outputs(folder, split.dev_name, task.labels) for folder in folders]
    for folder, values in zip(folders, outputs):
        if len(values) != len(rows.texts):
            raise ToolkitError(
                f'{data / split.path} has changed since {folder} was made: remove that folder'
            )
    return Evaluation(split.name, rows.texts, rows.labels, np.stack(outputs))


def confusion(evaluation, task):
    """Count how many rows of each class are predicted as which, averaged over the runs.

    Returns
    -------
    (classes, classes) array
        A row for each true class, a column for each predicted one.
    """
    from sklearn.metrics import confusion_matrix

    classes = range(len(task.labels))
    matrices = [
        confusion_matrix(evaluation.labels, predictions, labels=classes)
        for predictions in evaluation.outputs.argmax(axis=2)
    ]
    return np.mean(matrices, axis=0)


def find_hard(evaluation, task):
    """Find the rows that more than half of the runs get wrong, the surest wrong answers first.

    In regression these are all rows, the largest mean absolute error first.

    Returns
    -------
    list of Hard
    """
    if task.is_regression:
        numbers = evaluation.outputs[:, :, 0]
        errors = np.abs(numbers - evaluation.labels).mean(axis=0)
        order = np.argsort(-errors, kind='stable')
        remarks = [
            f'predicted {mean:.2f} in the mean, mean error {error:.2f}'
            for mean, error in zip(numbers.mean(axis=0), errors)
        ]
        labels = [f'{label:.2f}' for label in evaluation.labels]
    else:
        from scipy.special import softmax

        runs = len(evaluation.outputs)
        predictions = evaluation.outputs.argmax(axis=2)
        wrong = (predictions != evaluation.labels).sum(axis=0)
        probabilities = softmax(evaluation.outputs, axis=2).mean(axis=0)
        of_label = probabilities[np.arange(len(wrong)), evaluation.labels]
        order = [i for i in np.lexsort((of_label, -wrong)) if wrong[i] > runs / 2]
        remarks = [
            f'wrong in {wrong[i]} of {runs} runs, which give the label a probability of '
            f'{of_label[i]:.2f} in the mean'
            for i in range(len(wrong))
        ]
        labels = [task.labels[label] for label in evaluation.labels]
    return [Hard(int(i) + 1, evaluation.texts[i], labels[i], remarks[i]) for i in order]
