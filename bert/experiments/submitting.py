"""Choose which runs answer for which file of a submission to GLUE's server."""

import logging

from bert.experiments.results import best_seed
from bert.tasks import submission
from bert.tasks.table import TASKS


def collect_answers(records, folders, with_all):
    """Collect the predictions for all test sets, and log where each file's come from.

    Parameters
    ----------
    records : dict of str to dict of int to dict
        The records of each task by seed.
    folders : dict of (str, int) to Path
        The folder of each run, by task and seed.
    with_all : bool
        Whether all runs of a task answer, by their mean, or the best one.

    Returns
    -------
    dict of str to list of str
        By the name of a file; for tasks without a run, the most frequent label.
    """
    predictions = {}
    for name, answers in submission.FILES.items():
        done = records.get(answers.task, {})
        seeds = list(done)
        if done and not with_all:
            seeds = [best_seed(TASKS[answers.task], done)]
        chosen = [folders[answers.task, number] for number in seeds]
        if not submission.can_answer(name, chosen):
            predictions[name] = submission.majority(name)
            logging.info('%s: no run, every prediction is %s', name, predictions[name][0])
            continue
        predictions[name] = submission.answer(name, chosen)
        if with_all:
            logging.info('%s: the mean of %d runs', name, len(chosen))
        else:
            logging.info('%s: seed %d, the best of %d by the dev set', name, seeds[0], len(done))
    return predictions
