"""Compare two models: their descriptions, all their tensors, and all their outputs."""

import numpy as np

from bert.checkpoints.contents import reorder
from bert.convert.witnesses import build, make_batch, run_gluon
from bert.system.errors import ToolkitError
from bert.system.terminal import show
from bert.text import vocab

# The largest difference at which outputs count as the same, for outputs of size 1.
TOLERANCE = 1e-4
# The masked-LM output weight is the word embedding under a second name.
TIED = 'decoder.3.weight'


def largest_difference(found, expected):
    """Return the largest elementwise difference of two arrays of the same shape."""
    return float(np.abs(found.astype(np.float64) - expected).max())


def is_same(found, expected):
    """Return whether two outputs differ only by rounding; NaN is not the same as anything."""
    limit = TOLERANCE * max(1, np.abs(expected).max())
    return found.shape == expected.shape and largest_difference(found, expected) <= limit


def require_equal(expected, found, target):
    """Refuse a model that is not bit for bit the same after being written and read again.

    Parameters
    ----------
    expected, found : bert.checkpoints.contents.Checkpoint
    target : Path
        Its directory, for the error message.
    """
    for name in ('settings', 'lower', 'labels', 'is_multilabel', 'flags'):
        if getattr(expected, name) != getattr(found, name):
            raise ToolkitError(f'{target} was not written: its {name} changed when read back')
    if expected.vocab.idx_to_token != found.vocab.idx_to_token:
        raise ToolkitError(f'{target} was not written: its vocabulary changed when read back')
    ours, theirs = tensors_of(expected), tensors_of(found)
    if set(ours) != set(theirs) or not all(
        np.array_equal(array.astype(np.float32), theirs[name], equal_nan=True)
        for name, array in ours.items()
    ):
        raise ToolkitError(f'{target} was not written: its tensors changed when read back')


def compare(ours, theirs, names):
    """Print how far two models differ.

    Parameters
    ----------
    ours, theirs : bert.checkpoints.contents.Checkpoint
    names : (str, str)
        The names of the two models.

    Raises
    ------
    ToolkitError
        If they differ by more than rounding.
    """
    ours_order, theirs_order = ours.vocab.idx_to_token, theirs.vocab.idx_to_token
    if ours_order != theirs_order and sorted(ours_order) == sorted(theirs_order):
        show('the same tokens have different ids: compared token by token')
        theirs = reorder(theirs, ours.vocab)
    models = ours, theirs
    tensors = [tensors_of(contents) for contents in models]
    outputs = [run_gluon(build(contents), make_batch(contents)) for contents in models]
    rows, reasons = [], []
    for more_rows, more_reasons in (
        compare_descriptions(ours, theirs),
        # Tensors may differ: only the outputs decide.
        compare_arrays(*tensors, names, lambda found, expected: True),
        compare_arrays(*outputs, names, is_same),
    ):
        rows += more_rows
        reasons += more_reasons
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, shape, difference in rows:
        show(f'{name:{widths[0]}}  {shape:{widths[1]}}  {difference}'.rstrip())
    if reasons:
        raise ToolkitError(f'{names[0]} and {names[1]} differ: {"; ".join(reasons[:3])}')
    show('the same model')


def compare_descriptions(ours, theirs):
    """Compare sizes, casing, labels and vocabulary.

    Returns
    -------
    list of (str, str, str)
        Rows of the table, for whatever differs.
    list of str
        The reasons why the models are not the same; a different dropout rate is not one.
    """
    pairs = {name: (value, theirs.settings[name]) for name, value in ours.settings.items()}
    for name in ('lower', 'labels', 'is_multilabel'):
        pairs[name] = getattr(ours, name), getattr(theirs, name)
    pairs['vocabulary'] = tuple(
        vocab.fingerprint(contents.vocab)[:8] for contents in (ours, theirs)
    )
    differing = {name: values for name, values in pairs.items() if values[0] != values[1]}
    rows = [(name, '', f'{one} and {other}') for name, (one, other) in differing.items()]
    return rows, [name for name in differing if name != 'dropout']


def tensors_of(contents):
    """Return all tensors of a model by name; those of a head begin with ``head.``."""
    head = {f'head.{name}': array for name, array in contents.weights.head.items()}
    tensors = {**contents.weights.bert, **head}
    tensors.pop(TIED, None)
    return tensors


def compare_arrays(ours, theirs, names, accept):
    """Compare two tables of arrays, in the order of their keys.

    Parameters
    ----------
    ours, theirs : dict of str to array
    names : (str, str)
        The names of the two models.
    accept : function of two arrays of the same shape
        Returns whether they are close enough.

    Returns
    -------
    list of (str, str, str), list of str
        As from :func:`compare_descriptions`.
    """
    rows, reasons = [], []
    for key in sorted({**ours, **theirs}, key=natural_order):
        arrays = [table[key] for table in (ours, theirs) if key in table]
        shapes = [format_shape(array.shape) for array in arrays]
        if len(arrays) == 1:
            owner = names[0] if key in ours else names[1]
            rows.append((key, shapes[0], f'only in {owner}'))
            reasons.append(f'{key} is only in {owner}')
        elif shapes[0] != shapes[1]:
            rows.append((key, f'{shapes[0]}, {shapes[1]}', ''))
            reasons.append(f'{key} has a different shape')
        else:
            rows.append((key, shapes[0], f'{largest_difference(*arrays):.1e}'))
            if not accept(*arrays):
                reasons.append(f'{key} by {largest_difference(*arrays):.1e}')
    return rows, reasons


def natural_order(name):
    """Return a key that sorts layer 10 after layer 9."""
    return [(part.isdigit(), part.zfill(3)) for part in name.split('.')]


def format_shape(shape):
    """Format a shape as text.

    >>> format_shape((2, 16))
    '2x16'
    """
    return 'x'.join(str(size) for size in shape)
