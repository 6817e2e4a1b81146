"""The outputs of a model for a whole data set, and the metrics of a dev set."""

import logging
import math

import numpy as np

from bert.cli.console import progress
from bert.finetuning.step import predict
from bert.tasks import metrics
from bert.tasks.predictions import measure
from bert.text.encoding import pad_batch
from bert.training import devices
from bert.training.stream import in_order


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
    encoded, limit = dataset.encoded, devices.IN_FLIGHT * len(contexts)
    with progress(math.ceil(len(encoded.ids) / batch_size), dataset.split.path, 'batch') as bar:

        def compute(encoded, rows, number):
            bar.update()
            ctx = devices.take_turns(number, contexts, workers)
            values = predict(model, pad_batch(encoded, rows), ctx) if ctx else None
            if number % workers.count == workers.count - 1:
                check()
            return values

        outputs = list(in_order([encoded], batch_size, compute, lambda v: v.asnumpy(), limit))
    own = [(row, values) for row, values in enumerate(outputs) if values is not None]
    classes = max(workers.gather_numbers(len(own[0][1]) if own else 0))
    ordered = np.zeros((len(outputs), classes), np.float32)
    for row, values in own:
        ordered[row] = values
    return workers.sum_numpy(ordered)


def report_metrics(dataset, outputs, task):
    """Log the metrics of a dev set in the original's format, naming MNLI's two sets.

    Returns
    -------
    dict of str to float
    """
    values = measure(outputs, dataset.labels, task)
    if dataset.split.name:
        logging.info('On %s %s: ', task.name, dataset.split.name.capitalize())
    logging.info('validation metrics:%s', metrics.describe(values))
    return values
