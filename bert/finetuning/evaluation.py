"""The outputs of a model for a whole data set, and the metrics of a dev set."""

import logging
import math

import numpy as np

from bert.cli.console import progress
from bert.finetuning.inference import compute_outputs
from bert.model.prepared import prepare
from bert.tasks import metrics
from bert.tasks.predictions import measure


def predict_all(model, dataset, batch_size, contexts, workers, check=lambda: None):
    """Compute the outputs (N, classes) for a data set, in its order, shared by all workers.

    Batches are sorted by length.

    Parameters
    ----------
    model : gluonnlp.model.BERTClassifier or bert.model.build.BERTRegression
    dataset : bert.finetuning.data.Dataset
    batch_size : int
    contexts : list of mxnet.Context
        This worker's devices.
    workers : bert.distributed.workers.Workers
    check : function
        Called after each round of the workers; it may end the program.
    """
    encoded, model = dataset.encoded, prepare(model, contexts)
    with progress(math.ceil(len(encoded.ids) / batch_size), dataset.split.path, 'batch') as bar:

        def after_batch(number):
            bar.update()
            if number % workers.count == workers.count - 1:
                check()

        outputs = list(
            compute_outputs(model, [encoded], batch_size, contexts, workers, after_batch)
        )
    own = [(row, output[1]) for row, output in enumerate(outputs) if output is not None]
    classes = max(workers.gather_numbers(len(own[0][1]) if own else 0))
    ordered = np.zeros((len(outputs), classes), np.float32)
    for row, values in own:
        ordered[row] = values
    return workers.sum_numpy(ordered)


def report_metrics(dataset, outputs, task, log=logging.info):
    """Log the metrics of a dev set in the original's format, naming MNLI's two sets.

    Returns
    -------
    dict of str to float
    """
    values = measure(outputs, dataset.labels, task)
    if dataset.split.name:
        log('On %s %s: ', task.name, dataset.split.name.capitalize())
    log('validation metrics:%s', metrics.describe(values))
    return values
