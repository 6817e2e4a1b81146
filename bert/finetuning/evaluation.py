"""The outputs of a model for a whole data set, and the metrics of a dev set."""

import logging

import numpy as np

from bert.cli.console import progress
from bert.finetuning.step import predict
from bert.tasks import metrics
from bert.tasks.predictions import measure
from bert.text.encoding import pad_batch
from bert.training import batches, devices


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
    chosen = batches.evaluation_batches(dataset.encoded.lengths, batch_size)
    outputs = []
    late = devices.Late(
        lambda values: outputs.append(values.asnumpy()), devices.IN_FLIGHT * len(contexts)
    )
    with progress(len(chosen), dataset.split.path, 'batch') as bar:
        for number, rows in enumerate(chosen):
            bar.update()
            ctx = devices.take_turns(number, contexts, workers)
            if ctx:
                late.add(predict(model, pad_batch(dataset.encoded, rows), ctx))
            if number % workers.count == workers.count - 1:
                check()
    late.finish()
    classes = max(workers.gather_numbers(outputs[0].shape[1] if outputs else 0))
    ordered = np.zeros((len(dataset.encoded.lengths), classes), np.float32)
    for rows, values in zip(workers.share(chosen), outputs):
        ordered[rows] = values
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
