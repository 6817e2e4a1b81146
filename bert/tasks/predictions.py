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
    """Turn the (N, classes) outputs of a model into class ids, or into numbers.

    Where a row may have several labels, the result is (N, labels): 1 for those that are more
    likely than not, and otherwise 0.
    """
    if task.is_multilabel:
        return (outputs > 0).astype(np.int64)
    return outputs[:, 0] if task.is_regression else outputs.argmax(axis=1)


def probabilities(outputs, is_multilabel):
    """Turn the (N, classes) outputs of a classifier into the probability of each label.

    Those of a row add up to 1, unless it may have several labels.

    Raises
    ------
    ToolkitError
        If an output is infinite or not a number.
    """
    from scipy.special import expit, softmax

    if not np.isfinite(outputs).all():
        raise ToolkitError('an output of the model is not a finite number')
    return expit(outputs) if is_multilabel else softmax(outputs, axis=1)


def measure(outputs, labels, task):
    """Compute the task's metrics from the outputs (N, classes) and the labels of a dev set.

    Returns
    -------
    dict of str to float
    """
    return metrics.compute(task.metrics, labels, decide(outputs, task))


def label_names(outputs, task):
    """Turn outputs (N, classes) into text: label names, or numbers with three decimals.

    Where a row may have several labels, each result is a list of their names.
    """
    decided = decide(outputs, task)
    if task.is_multilabel:
        return [[task.labels[i] for i in row.nonzero()[0]] for row in decided]
    if task.is_regression:
        return [f'{number:.3f}' for number in decided]
    return [task.labels[i] for i in decided]


def predictions_path(folder, split):
    """Return the file for the predictions of a test set, GLUE's or the user's own."""
    source = Path(split.path)
    if library.is_name(split.path):
        source = Path(f'{library.file_stem(split.path)}.parquet')
    return folder / (split.submission or f'{source.stem}_predictions{source.suffix}')


def write_test_predictions(folder, split, outputs, task, cells=None, with_probabilities=False):
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
    with_probabilities : bool
        Whether to write the probability of each label too, beside these rows.
    """
    path = predictions_path(folder, split)
    if task.is_own:
        can_nest = path.suffix.lower() in TYPED
        write_rows(path, cells, describe_answers(outputs, task, can_nest, with_probabilities))
    else:
        names = label_names(outputs, task)
        lines = [f'{index}\t{prediction}\n' for index, prediction in enumerate(names)]
        write_text(path, 'index\tprediction\n' + ''.join(lines))
    logging.info('wrote %d predictions to %s', len(outputs), path)


def describe_answers(outputs, task, can_nest, with_probabilities=False):
    """Describe the answer for each row of a user's own file, as columns to add.

    Parameters
    ----------
    outputs : (N, classes) array
    task : bert.tasks.table.Task
    can_nest : bool
        Whether a cell may be a number, a list or a table; otherwise each label has its own column,
        whose cells are text.
    with_probabilities : bool

    Returns
    -------
    list of dict
        ``prediction``, or several labels as 0 and 1 in ``prediction_LABEL``; ``probabilities`` or
        ``probability_LABEL``, with six decimals.
    """
    if task.is_multilabel and not can_nest:
        names = [f'prediction_{label}' for label in task.labels]
        answers = [dict(zip(names, map(str, row))) for row in decide(outputs, task)]
    else:
        found = label_names(outputs, task)
        if can_nest and (task.is_regression or task.number_labels):
            found = [_parse_number(text) for text in found]
        answers = [{'prediction': prediction} for prediction in found]
    if not with_probabilities:
        return answers
    for answer, row in zip(answers, probabilities(outputs, task.is_multilabel).tolist()):
        if can_nest:
            answer['probabilities'] = {
                label: round(value, 6) for label, value in zip(task.labels, row)
            }
        else:
            for label, value in zip(task.labels, row):
                answer[f'probability_{label}'] = f'{value:.6f}'
    return answers


def _parse_number(text):
    """Return the number, or true or false, that a prediction says."""
    try:
        return json.loads(text)
    except ValueError:
        raise ToolkitError('an output of the model is not a finite number') from None


def format_answer(answer):
    """Return an answer of :class:`bert.finetuning.prediction.Predictor` as a line of JSON."""
    answer = {'score': answer} if isinstance(answer, float) else answer
    return json.dumps(answer, ensure_ascii=False)


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
