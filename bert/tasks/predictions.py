"""A fine-tuned model's answers: outputs, predictions, and the files that hold them."""

import contextlib
import json
import logging
from pathlib import Path

import numpy as np

from bert.checkpoints.contents import FINETUNED
from bert.system import npz
from bert.system.errors import ToolkitError
from bert.system.files import read_json, replacing, write_text
from bert.tasks import library, metrics
from bert.tasks.rows import TYPED, write_rows

# The outputs for each row of the dev and test sets, by the name of the set (dev, matched, MRPC,
# MNLI-m): glue.py makes its reports and submissions from them.
OUTPUTS = 'outputs.npz'
LABELS = 'labels'  # the array in it that names the columns of the others


def decide(outputs, task):
    """Turn the (N, classes) outputs of a model into class ids, or into numbers."""
    return outputs[:, 0] if task.is_regression else outputs.argmax(axis=1)


def measure(outputs, labels, task):
    """Compute the task's metrics from the outputs (N, classes) and the labels (N,) of a dev set.

    Returns
    -------
    dict of str to float
    """
    return metrics.compute(task.metrics, labels, decide(outputs, task))


def label_names(outputs, task):
    """Turn outputs (N, classes) into text: label names, or numbers with three decimals."""
    decided = decide(outputs, task)
    if task.is_regression:
        return [f'{number:.3f}' for number in decided]
    return [task.labels[i] for i in decided]


def predictions_path(folder, split):
    """Return the file for the predictions of a test set, GLUE's or the user's own."""
    source = Path(split.path)
    if library.is_name(split.path):
        source = Path(f'{library.file_stem(split.path)}.parquet')
    return folder / (split.submission or f'{source.stem}_predictions{source.suffix}')


def write_test_predictions(folder, split, outputs, task, cells=None):
    """Write the predictions for a test set.

    Those for GLUE are in its server's format; others go beside the rows of the user's file.

    Parameters
    ----------
    folder : Path
    split : bert.tasks.table.Split
    outputs : (N, classes) array
    task : bert.tasks.table.Task
    cells : object, optional
        The rows of the user's own file; see :class:`bert.tasks.rows.Table`.
    """
    predictions = label_names(outputs, task)
    path = predictions_path(folder, split)
    if task.is_own:
        if path.suffix.lower() in TYPED and (task.is_regression or task.number_labels):
            predictions = [_parse_number(text) for text in predictions]
        write_rows(path, cells, [{'prediction': prediction} for prediction in predictions])
    else:
        lines = [f'{index}\t{prediction}\n' for index, prediction in enumerate(predictions)]
        write_text(path, 'index\tprediction\n' + ''.join(lines))
    logging.info('wrote %d predictions to %s', len(predictions), path)


def _parse_number(text):
    """Return the number, or true or false, that a prediction says."""
    try:
        return json.loads(text)
    except ValueError:
        raise ToolkitError('an output of the model is not a finite number') from None


def write_outputs(folder, outputs, labels):
    """Write the outputs (N, classes) of each set, before any softmax, under its name.

    Parameters
    ----------
    folder : Path
    outputs : dict of str to (N, classes) array
    labels : sequence of str or None
        The names of the classes; None in regression.
    """
    names = {} if labels is None else {LABELS: np.array(labels, dtype=str)}
    with replacing(folder / OUTPUTS) as temporary, open(temporary, 'wb') as file:
        np.savez(file, **outputs, **names)


def read_outputs(folder, name, labels):
    """Read the outputs (N, classes) that a run wrote for a set; an error names the run.

    Parameters
    ----------
    folder : Path
    name : str
    labels : sequence of str or None
        The order in which the classes are returned, whatever the order is in the file.
    """
    path = folder / OUTPUTS
    try:
        with npz.open_npz(path) as file:
            outputs = file.read(name)
            written = list(file.read(LABELS)) if LABELS in file.names else None
    except (OSError, npz.Damaged):
        raise ToolkitError(
            f'{path} has no outputs for {name}: remove {folder}, so that it is run again'
        ) from None
    if labels is None:
        return outputs
    # Earlier versions wrote the names of the classes in finetune.json only.
    if written is None and (folder / FINETUNED).is_file():
        written = read_json(folder / FINETUNED).get('labels')
    written = [str(label) for label in written] if isinstance(written, list) else list(labels)
    if sorted(written) != sorted(labels) or outputs.shape[1:] != (len(labels),):
        raise ToolkitError(
            f'{path} has the classes {", ".join(written)}, and not {", ".join(labels)}'
        )
    return outputs[:, [written.index(label) for label in labels]]


def has_outputs(folder, name, labels):
    """Return whether a run wrote outputs for a set; see :func:`read_outputs`."""
    with contextlib.suppress(ToolkitError):
        read_outputs(folder, name, labels)
        return True
    return False
