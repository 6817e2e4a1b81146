"""The lines of speed.py: the sides and their work, and the figures from the seconds it took."""

from typing import NamedTuple

import numpy as np
from speed_sides import MAX_LENGTH, PRODUCT_SIZE

VOCAB_SIZE = 30522  # of BERT base


class Line(NamedTuple):
    """One line of the benchmark. The sizes of mrpc's model are those of its files."""

    kind: str  # train, infer, mrpc, pretrain, datagen or beside
    steps: int = 0  # in a turn
    batch_size: int = 0
    layers: int = 0
    units: int = 0
    heads: int = 12
    length: int = MAX_LENGTH
    masks: int = 20
    vocab_size: int = VOCAB_SIZE


LINES = {
    'train-12x768': Line('train', 2, 8, 12, 768),
    'train-6x384': Line('train', 3, 32, 6, 384),
    'infer-12x768': Line('infer', 5, 8, 12, 768),
    'infer-6x384': Line('infer', 8, 32, 6, 384),
    'infer-latency-12x768': Line('infer', 20, 1, 12, 768, length=32),
    'infer-latency-6x384': Line('infer', 100, 1, 6, 384, length=32),
    'mrpc-epoch': Line('mrpc', 8, 32),
    'pretrain-12x768': Line('pretrain', 2, 8, 12, 768),
    'datagen': Line('datagen'),
    'beside-other-work': Line('beside'),
}
# The lines that beside-other-work times, alone and beside one busy process.
BESIDE = ('train-12x768', 'infer-latency-12x768', 'mrpc-epoch')
# Importing bert bounds the waiting of libgomp's threads; this is its own bound.
UNBOUNDED = {'GOMP_SPINCOUNT': '300000'}


class Side(NamedTuple):
    """A process that does the work of a line."""

    title: str
    work: dict  # further fields of speed_sides.Work
    environment: dict = {}


OURS = {
    'ours': Side('here', {'framework': 'mxnet'}),
    'stock': Side("here, MXNet's operators", {'framework': 'mxnet'}, {'BERT_STOCK_OPS': '1'}),
}
OURS_UNBOUNDED = {
    'ours_unbounded': Side('here, unbounded waiting', {'framework': 'mxnet'}, UNBOUNDED)
}
PYTORCH = {'pytorch': Side('PyTorch', {'framework': 'pytorch'}, UNBOUNDED)}
PYTORCH_MRPC = {
    f'pytorch_{padding}': Side(title, {'framework': 'pytorch', 'padding': padding}, UNBOUNDED)
    for padding, title in [
        ('max', f'PyTorch, padded to {MAX_LENGTH}'),
        ('batch', 'PyTorch, each batch padded'),
        ('grouped', 'PyTorch, our batches'),
    ]
}
PYTORCH_PRETRAIN = {
    f'pytorch_{name}': Side(
        title, {'framework': 'pytorch', 'gathered': name == 'gathered'}, UNBOUNDED
    )
    for name, title in [
        ('whole', 'PyTorch, scores everywhere'),
        ('gathered', 'PyTorch, scores at masks'),
    ]
}
PYTORCH_BFLOAT16 = {'framework': 'pytorch', 'dtype': 'bfloat16'}
BFLOAT16 = {
    'ours_bfloat16': Side('here, bfloat16', {'framework': 'mxnet', 'dtype': 'bfloat16'}),
    'pytorch_bfloat16': Side('PyTorch, bfloat16', PYTORCH_BFLOAT16, UNBOUNDED),
}
PYTORCH_COMPILED = {
    'pytorch_compiled': Side(
        'PyTorch, compiled', {'framework': 'pytorch', 'compiled': True}, UNBOUNDED
    )
}
# These run ONNX files, with threads of their own.
RUNTIMES = {
    'onnxruntime': Side('onnxruntime', {'framework': 'onnxruntime'}),
    'openvino': Side('OpenVINO', {'framework': 'openvino'}),
}
RUNTIMES_BFLOAT16 = {
    'openvino_bfloat16': Side('OpenVINO, bfloat16', {'framework': 'openvino', 'dtype': 'bfloat16'})
}
RUNTIMES_INT8 = {
    'onnxruntime_int8': Side('onnxruntime, int8', {'framework': 'onnxruntime', 'dtype': 'int8'})
}
# The ratio refers to the best of these.
EAGER = (*PYTORCH, *PYTORCH_MRPC, *PYTORCH_PRETRAIN)
ALL_SIDES = {
    **{**OURS, **OURS_UNBOUNDED, **PYTORCH, **PYTORCH_MRPC, **PYTORCH_PRETRAIN, **BFLOAT16},
    **{**PYTORCH_COMPILED, **RUNTIMES, **RUNTIMES_BFLOAT16, **RUNTIMES_INT8},
}
TITLES = {
    **{name: side.title for name, side in ALL_SIDES.items()},
    'product': 'one matrix product',
    'gluonnlp': "GluonNLP's tokenizer",
    'ours_beside': '... beside other work',
    'ours_unbounded_beside': '... beside other work',
}


def sides_of(line, args):
    """Return the sides of a line by name, with those that the flags ask for.

    Parameters
    ----------
    line : Line
    args : argparse.Namespace
        With ``bfloat16``, ``int8``, ``compile`` and ``unbounded``.
    """
    unbounded = OURS_UNBOUNDED if args.unbounded else {}
    if line.kind == 'mrpc':
        return {**OURS, **unbounded, **PYTORCH_MRPC}
    sides = {**OURS, **unbounded, **(PYTORCH_PRETRAIN if line.kind == 'pretrain' else PYTORCH)}
    runs_onnx = line.kind == 'infer'
    if runs_onnx:
        sides.update(RUNTIMES)
    if args.bfloat16:
        sides.update({**BFLOAT16, **(RUNTIMES_BFLOAT16 if runs_onnx else {})})
    if args.int8 and runs_onnx:
        sides.update(RUNTIMES_INT8)
    if args.compile:
        sides.update(PYTORCH_COMPILED)
    return sides


def make_row(name, seconds):
    """Compute the figures of a line.

    Parameters
    ----------
    name : str
    seconds : dict of str to list of float
        The seconds of each side's turns.

    Returns
    -------
    dict
        ``name``; ``ours_s``, ``stock_s`` and ``pytorch_s``, the best of PyTorch's ways in float32
        and without torch.compile; and ``ratio``, PyTorch's time over ours. Missing values are
        None. For each further side its ``_s``, and for every side ``_spread_s``, the distance
        between the quartiles, and its ``_share`` of the ``matrix_gflops`` if it has one. For
        mrpc-epoch also ``ratio_max``, with padding to the maximum; for datagen ``gluonnlp_s``, to
        which ``ratio`` refers. With bfloat16 also ``ratio_bfloat16``, both sides in bfloat16.
    """
    line = LINES[name]
    row = {'name': name, 'ours_s': None, 'stock_s': None, 'pytorch_s': None, 'ratio': None}
    rate = rate_of(seconds['product']) if 'product' in seconds else None
    row['matrix_gflops'] = rate
    sides = [side for side in seconds if side != 'product']
    row.update(summarize({side: seconds[side] for side in sides}))
    for side in sides:
        if line.layers and not side.endswith(('_bfloat16', '_int8')):
            ideal = matrix_gflop(line, side) / rate
            row[f'{side}_share'] = ideal / row[f'{side}_s']
    row['pytorch_s'] = min((row[f'{side}_s'] for side in sides if side in EAGER), default=None)
    row['ratio'] = (row['pytorch_s'] or row['gluonnlp_s']) / row['ours_s']
    if line.kind == 'mrpc':
        row['ratio_max'] = row['pytorch_max_s'] / row['ours_s']
    if 'ours_bfloat16' in sides:
        row['ratio_bfloat16'] = row['pytorch_bfloat16_s'] / row['ours_bfloat16_s']
    row['sides'] = sides
    return row


def make_beside_row(name, seconds):
    """Compute the figures of one of :data:`BESIDE`, alone and beside a busy process.

    Parameters
    ----------
    name : str
    seconds : dict of str to list of float
        The seconds of the turns of ``ours`` and ``ours_beside``, and likewise ``ours_unbounded``.

    Returns
    -------
    dict
        ``name``; each side's ``_s`` and ``_spread_s``, as by :func:`make_row`; ``ratio``, our time
        beside the process over that alone, and ``ratio_unbounded``, the same with libgomp's own
        waiting.
    """
    row = {'name': f'beside-{name}', **summarize(seconds)}
    row['ratio'] = row['ours_beside_s'] / row['ours_s']
    if 'ours_unbounded' in seconds:
        row['ratio_unbounded'] = row['ours_unbounded_beside_s'] / row['ours_unbounded_s']
    row['sides'] = list(seconds)
    return row


def summarize(seconds):
    """Return the median of each side's seconds, and the distance between their quartiles."""
    figures = {}
    for side, values in seconds.items():
        figures[f'{side}_s'] = float(np.median(values))
        figures[f'{side}_spread_s'] = float(np.subtract(*np.percentile(values, [75, 25])))
    return figures


def rate_of(seconds):
    """Compute GFLOP/s from the seconds of some products."""
    return 2 * PRODUCT_SIZE**3 / float(np.median(seconds)) / 1e9


def matrix_gflop(line, side):
    """Count the billions of operations in the matrix products of one step of a side's model.

    Every product in the forward pass has two of the same size in the backward pass.
    """
    rows, units, length = line.batch_size, line.units, line.length
    tokens, masks = rows * length, rows * line.masks
    # Per position: output projection and feed-forward network; a query with its scores and context.
    rest, query = 2 * units * 9 * units, 2 * units * units + 4 * length * units
    keys_values = 2 * units * 2 * units
    layer = tokens * (keys_values + query + rest)
    total = line.layers * layer + 2 * rows * units * units  # the pooler
    if line.kind == 'pretrain':
        seen = tokens if side == 'pytorch_whole' else masks
        total += 2 * seen * units * (units + line.vocab_size)
    elif side in {**OURS, **OURS_UNBOUNDED}:
        # In the last layer, queries and all that follows are computed at the first position only.
        total += rows * (query + rest) - tokens * (query + rest)
    return total * (1 if line.kind == 'infer' else 3) / 1e9


def describe_machine(machine, rate):
    """Return the line above the table."""
    return (
        f'{machine["processor"]}, {machine["threads"]} threads, '
        f'{rate:.0f} GFLOP/s in a float32 product of {PRODUCT_SIZE} x {PRODUCT_SIZE} matrices'
    )


def heading():
    """Return the first line of the table."""
    return f'{"line":<28}{"side":<28}{"seconds":>9}{"spread":>9}{"share":>8}{"/ here":>8}'


def describe_row(row):
    """Return the lines of the table for one row."""
    lines = []
    for side in row['sides']:
        share = row.get(f'{side}_share')
        lines.append(
            f'{"" if lines else row["name"]:<28}{TITLES[side]:<28}'
            f'{row[f"{side}_s"]:>9.3f}{row[f"{side}_spread_s"]:>9.3f}'
            f'{"" if share is None else f"{100 * share:.0f} %":>8}'
            f'{row[f"{side}_s"] / row["ours_s"]:>8.2f}'
        )
    return '\n'.join(lines)
