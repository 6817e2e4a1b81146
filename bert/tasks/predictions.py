"""TODO"""

import contextlib
import logging
from pathlib import Path

import numpy as np

from bert.system import npz
from bert.system.errors import ToolkitError
from bert.system.files import replacing, write_text
from bert.tasks import files, metrics

# What the model gives for each row of the dev and test sets, by the name of the set (dev, matched,
# MRPC, MNLI-m): glue.py makes its reports and submissions of it.
OUTPUTS = 'outputs.npz'


def decide(outputs, task):
    """Class ids, or numbers, from the (N, classes) outputs of a model."""
    return outputs[:, 0] if task.is_regression else outputs.argmax(axis=1)


def measure(outputs, dataset, task):
    """The task's metrics for the outputs (N, classes) of a dev set."""
    return metrics.compute(task.metrics, dataset.labels, decide(outputs, task))


def write_outputs(path, outputs):
    """Write the outputs (N, classes) of each set, before any softmax, to an ``.npz`` file."""
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        np.savez(file, **outputs)


def write_test_predictions(outputs, dataset, task, output):
    """Write the predictions for a test set, from its outputs (N, classes): as GLUE's server
    wants them, or beside the rows of the user's file.

    Returns
    -------
    str
        The name of the file.
    """
    predictions = label_names(outputs, task)
    path = predictions_path(output, dataset.split)
    if task.name == 'own':
        files.write_predictions(path, Path(dataset.split.path), predictions)
    else:
        lines = [f'{index}\t{prediction}\n' for index, prediction in enumerate(predictions)]
        write_text(path, 'index\tprediction\n' + ''.join(lines))
    logging.info('wrote %d predictions to %s', len(predictions), path)
    return path.name


def predictions_path(output, split):
    """The file for the predictions of a test set, of GLUE or of the user."""
    source = Path(split.path)
    return output / (split.submission or f'{source.stem}_predictions{source.suffix}')


def label_names(outputs, task):
    """Predictions as text: label names, or numbers with three decimals."""
    decided = decide(outputs, task)
    if task.is_regression:
        return [f'{number:.3f}' for number in decided]
    return [task.labels[i] for i in decided]


def read_outputs(folder, name):
    """The outputs (N, classes) that a run wrote for a set, or an error that names the run."""
    path = folder / OUTPUTS
    try:
        with npz.open_npz(path) as file:
            return file.read(name)
    except (OSError, npz.Damaged):
        raise ToolkitError(
            f'{path} has no outputs for {name}: remove {folder}, so that it is run again'
        ) from None


def has_outputs(folder, name):
    """Whether a run wrote outputs for a set."""
    with contextlib.suppress(ToolkitError):
        read_outputs(folder, name)
        return True
    return False
