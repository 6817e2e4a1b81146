"""TODO"""

import numpy as np

from bert.checkpoints.contents import reorder
from bert.convert.witnesses import build, make_batch, run_gluon
from bert.system.errors import ToolkitError
from bert.text import vocab

# Largest difference of an output that counts as the same, for outputs of the size 1.
TOLERANCE = 1e-4


def largest_difference(found, expected):
    """Of two arrays of the same shape."""
    return float(np.abs(found.astype(np.float64) - expected).max())


def is_same(found, expected):
    """Whether two outputs differ by rounding only; not so where one is not a number."""
    limit = TOLERANCE * max(1, np.abs(expected).max())
    return found.shape == expected.shape and largest_difference(found, expected) <= limit


def require_equal(expected, found, target):
    """Refuse a written model that does not come back as it was, to the bit."""
    for name in ('settings', 'lower', 'labels', 'flags'):
        if getattr(expected, name) != getattr(found, name):
            raise ToolkitError(f'{target} was not written: its {name} did not come back')
    if expected.vocab.idx_to_token != found.vocab.idx_to_token:
        raise ToolkitError(f'{target} was not written: its vocabulary did not come back')
    for ours, theirs in zip(expected.weights[1:], found.weights[1:]):
        names = set(ours) - {'decoder.3.weight'}
        if names != set(theirs) - {'decoder.3.weight'} or not all(
            np.array_equal(ours[name].astype(np.float32), theirs[name], equal_nan=True)
            for name in names
        ):
            raise ToolkitError(f'{target} was not written: its tensors did not come back')


def compare(ours, theirs, args):
    """Print how far two models differ.

    Parameters
    ----------
    ours, theirs : bert.checkpoints.contents.Checkpoint
    args : argparse.Namespace
        With their names, ``source`` and ``target``.

    Raises
    ------
    ToolkitError
        If it is more than rounding.
    """
    ours_order, theirs_order = ours.vocab.idx_to_token, theirs.vocab.idx_to_token
    if ours_order != theirs_order and sorted(ours_order) == sorted(theirs_order):
        print('the same tokens have other ids: compared token by token')
        theirs = reorder(theirs, ours.vocab)
    rows, reasons = compare_descriptions(ours, theirs)
    for more_rows, more_reasons in (
        compare_arrays(tensors_of(ours), tensors_of(theirs), args, lambda *arrays: True),
        compare_arrays(
            *(run_gluon(build(contents), make_batch(contents)) for contents in (ours, theirs)),
            args,
            is_same,
        ),
    ):
        rows += more_rows
        reasons += more_reasons
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, shape, difference in rows:
        print(f'{name:{widths[0]}}  {shape:{widths[1]}}  {difference}'.rstrip())
    if reasons:
        raise ToolkitError(f'{args.source} and {args.target} differ: {"; ".join(reasons[:3])}')
    print('the same model')


def compare_descriptions(ours, theirs):
    """What two models say of themselves.

    Returns
    -------
    list of (str, str, str)
        Rows of the table, where they differ.
    list of str
        Why the models are not the same; another dropout rate is no reason.
    """
    rows, reasons = [], []
    pairs = {name: (value, theirs.settings[name]) for name, value in ours.settings.items()}
    for name in ('lower', 'labels'):
        pairs[name] = tuple(getattr(contents, name) for contents in (ours, theirs))
    pairs['vocabulary'] = tuple(
        vocab.fingerprint(contents.vocab)[:8] for contents in (ours, theirs)
    )
    for name, values in pairs.items():
        if values[0] != values[1]:
            rows.append((name, '', f'{values[0]} and {values[1]}'))
            reasons += [name] * (name != 'dropout')
    return rows, reasons


def tensors_of(contents):
    """All tensors of a model by name; those of a classifier or regressor begin with ``head.``."""
    head = {f'head.{name}': array for name, array in contents.weights.head.items()}
    tensors = {**contents.weights.bert, **head}
    # the word embedding under a second name
    tensors.pop('decoder.3.weight', None)
    return tensors


def compare_arrays(ours, theirs, args, is_good):
    """Two tables of arrays, in the order of their names.

    Returns
    -------
    list of (str, str, str), list of str
        As :func:`compare_descriptions`.
    """
    rows, reasons = [], []
    for name in sorted({**ours, **theirs}, key=natural_order):
        arrays = [table[name] for table in (ours, theirs) if name in table]
        shapes = [by_times(array.shape) for array in arrays]
        if len(arrays) == 1:
            owner = args.source if name in ours else args.target
            rows.append((name, shapes[0], f'only in {owner}'))
            reasons.append(f'{name} is only in {owner}')
        elif shapes[0] != shapes[1]:
            rows.append((name, f'{shapes[0]}, {shapes[1]}', ''))
            reasons.append(f'{name} has another shape')
        else:
            rows.append((name, shapes[0], f'{largest_difference(*arrays):.1e}'))
            if not is_good(*arrays):
                reasons.append(f'{name} by {largest_difference(*arrays):.1e}')
    return rows, reasons


def natural_order(name):
    """A key that sorts layer 10 after layer 9."""
    return [(part.isdigit(), part.zfill(3)) for part in name.split('.')]


def by_times(shape):
    """A shape as text.

    >>> by_times((2, 16))
    '2x16'
    """
    return 'x'.join(str(size) for size in shape)
