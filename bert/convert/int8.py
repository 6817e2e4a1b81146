"""A fine-tuned model as an ONNX file with int8 weights, by onnxruntime, and how far it is the same.

What quantises and what runs the files is imported inside the functions that need it: a command's
usage errors do without.
"""

import contextlib
import errno
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert.checkpoints.config import check_segments
from bert.system.errors import ToolkitError, UsageError
from bert.tasks import files
from bert.tasks.table import ALL_TASKS, own_task
from bert.text.encoding import encode_mixed, pad_batch
from bert.text.lines import read_lines
from bert.text.tokenizer import build_tokenizer

# Two numbers are equal answers if they differ by no more than this part of the range of all.
TOLERANCE = 0.05
KEPT = 'ffn_2_weight'  # the ends of the names of weights that stay in float32
BATCH = 8
MAX_LENGTH = 128  # where the model does not remember another one


class Agreement(NamedTuple):
    """How far the answers of two models agree."""

    equal: int  # answers
    rows: int
    difference: float  # the largest one of a score: a class's probability, or a number


def read_texts(path, contents):
    """Read the rows on which two models are compared.

    Parameters
    ----------
    path : Path
        With the extension ``.txt``, a text or two separated by a tab on each line. Otherwise
        the dev set of the GLUE task that the model was fine-tuned on, or a TSV, CSV or JSON-lines
        file with the columns that it remembers.
    contents : bert.checkpoints.contents.Checkpoint

    Returns
    -------
    list of tuple of str

    Raises
    ------
    ToolkitError
        If the file has no rows, lacks a column or has pairs for a model of single texts.
    UsageError
        If the model does not remember what the columns of such a file are.
    """
    task, columns = (contents.flags.get(name) for name in ('task_name', 'text_columns'))
    if path.suffix.lower() == '.txt':
        with open(path, 'rb') as file:
            texts = list(read_lines(file, path))
        if not texts:
            raise ToolkitError(f'{path}: has no lines')
    elif isinstance(task, str) and task in ALL_TASKS:
        # Only the texts count here, so that a file without labels will do.
        split = replace(
            ALL_TASKS[task].dev[0], path=str(path), label_column=None, skips_short=False
        )
        texts = files.read_glue(Path(), ALL_TASKS[task], split).texts
    elif isinstance(columns, list) and len(columns) in (1, 2) and {*map(type, columns)} == {str}:
        own = own_task(None, None, str(path), columns, None, None, contents.labels)
        texts = files.read_own(own, own.test[0]).texts
    else:
        raise UsageError(
            f'{path}: this model does not remember the columns of such files; a .txt file has a '
            'text, or two separated by a tab, on each line'
        )
    if any(len(row) == 2 for row in texts):
        check_segments(contents.settings, path)
    return texts


def quantise(path):
    """Quantise an ONNX file in place, by onnxruntime.

    The weights of the products and the embeddings become int8, and the products compute with
    integers; their inputs are scaled at each run, so no examples are needed. The last product of
    each layer stays in float32: after GELU, a few large inputs would leave the others little
    precision.

    Each column of a weight has its own scale: with one for the whole, outputs differ several times
    as much. The weights use 7 of the 8 bits, since processors without VNNI instructions add up two
    products in 16 bits, which could overflow.
    """
    import onnx

    try:
        with _silent():
            _quantise(path)
    except OSError:
        raise
    except Exception as error:
        # onnxruntime's exceptions have many types. It does not notice a full disk when it writes,
        # but when it reads the file again.
        is_full = shutil.disk_usage(path.parent).free < path.stat().st_size
        reason = os.strerror(errno.ENOSPC) if is_full else str(error).strip().splitlines()[-1]
        raise ToolkitError(f'{path}: could not be written in int8 ({reason})') from None
    model = onnx.load(str(path))
    # onnxruntime declares all operator sets that it knows, and other runtimes may not know them.
    used = {node.domain for node in model.graph.node}
    for declared in [entry for entry in model.opset_import if entry.domain not in used]:
        model.opset_import.remove(declared)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _quantise(path):
    import onnx
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folded = path.with_name('folded.onnx')
    options = SessionOptions()
    # MXNet's graph joins the attention's weights at each run; only constants are quantised.
    # Higher levels' operators are onnxruntime's own, and they are merged when the file is loaded.
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    model = onnx.load(str(folded))
    kept = [n for n in model.graph.node if n.op_type == 'Gemm' and n.input[1].endswith(KEPT)]
    for node in kept:
        node.name = node.output[0]
    onnx.save(model, str(folded))
    quantize_dynamic(
        str(folded),
        str(path),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        # onnxruntime first makes a product of each, and a sum with the bias.
        nodes_to_exclude=[f'{node.name}_MatMul' for node in kept],
    )
    folded.unlink()


@contextlib.contextmanager
def _silent():
    """Silence the advice to prepare the graph, which onnxruntime repeats whether it is or not."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def compute_logits(path, texts, contents):
    """Compute a fine-tuned model's outputs for some texts, with onnxruntime.

    Parameters
    ----------
    path : Path
        An ONNX file.
    texts : list of tuple of str
    contents : bert.checkpoints.contents.Checkpoint

    Returns
    -------
    (N, classes) array of float32
    """
    from bert.convert import onnx

    tokenizer = build_tokenizer(contents.vocab, contents.lower)
    limit = contents.flags.get('max_len')
    limit = max(limit, 5) if type(limit) is int else MAX_LENGTH
    limit = min(limit, contents.settings['max_length'])
    encoded = encode_mixed(texts, tokenizer, contents.vocab, limit)
    order = np.argsort(encoded.lengths, kind='stable')
    session = onnx.load(path)
    logits = [
        onnx.compute(session, *pad_batch(encoded, order[start : start + BATCH]))['logits']
        for start in range(0, len(order), BATCH)
    ]
    return np.concatenate(logits)[np.argsort(order, kind='stable')]


def compare_answers(expected, found, is_regression, is_multilabel=False):
    """Compare the outputs of two models, (N, classes) arrays of float.

    Two classes are equal answers if they are the same, two sets of labels too; two numbers if they
    differ by at most :data:`TOLERANCE` of the range of the expected ones. Nothing is equal to NaN.

    Returns
    -------
    Agreement

    >>> expected = np.array([[0.0, 1.0], [2.0, 0.0]])
    >>> compare_answers(expected, expected[:, ::-1], is_regression=False).equal
    0
    """
    from scipy.special import expit, softmax

    if is_multilabel:
        differences = np.abs(expit(found) - expit(expected)).max(axis=1)
        is_equal = ((found > 0) == (expected > 0)).all(axis=1)
    elif is_regression:
        differences = np.abs(found - expected)[:, 0]
        is_equal = differences <= TOLERANCE * np.ptp(expected)
    else:
        differences = np.abs(softmax(found, axis=1) - softmax(expected, axis=1)).max(axis=1)
        is_equal = found.argmax(axis=1) == expected.argmax(axis=1)
    is_equal &= np.isfinite(differences)
    return Agreement(int(is_equal.sum()), len(is_equal), float(differences.max()))
