"""Read and compare logs of fine-tuning, in the original scripts' format, which ours follows."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

from bert.system.errors import ToolkitError
from bert.system.files import read_json, read_text
from bert.tasks.metrics import are_values, is_number

# The scripts of 2019 and of 2020 differ a little: the later ones begin lines with the time of day,
# write ``metrics:`` instead of ``metrics=``, log the time of an evaluation too, and announce every
# evaluation. Earlier logs of this project name the dev set of MNLI within the line of its metrics.
NUMBER = r'[-+]?(?:\d+(?:\.\d*)?(?:e[-+]?\d+)?|nan|inf)'
COUNT = r'([1-9]\d{0,8})'
VALUES = rf'(\w+:{NUMBER}(?:,\w+:{NUMBER})*)'
FLAGS = 'Namespace('
# No command line is longer, and Python's parser has crashed on deeply nested text.
LONGEST_FLAGS = 10000
LOG = 'finetune.log'  # in the folder of a run
TRAINING = re.compile(
    rf'\[Epoch {COUNT} Batch {COUNT}/{COUNT}\] loss=({NUMBER}), lr=({NUMBER}), metrics[=:]{VALUES}'
)
MNLI_SET = re.compile(r'(?:On MNLI|evaluation on dev_)\s?(Matched|Mismatched)', re.IGNORECASE)
VALIDATION = re.compile(rf'validation metrics(?: \((\w+)\))?:{VALUES}')
SECONDS = re.compile(r'Time cost=(\d+(?:\.\d*)?)s\s*$')


class Log(NamedTuple):
    """The content of a log, with epochs and batches counted from 1.

    The name of a dev set is ``dev``, or ``matched`` and ``mismatched``.
    """

    flags: dict  # name: value; empty if they are not in the log
    training: list  # of {'epoch', 'batch', 'batches', 'loss', 'lr', 'metrics': {name: value}}
    validation: list  # of {'epoch', the name of a dev set: {name: value}, 'seconds'}


def read_log(path):
    """Read a log file, or a JSON file of published curves.

    Returns
    -------
    Log

    Raises
    ------
    ToolkitError
        If the file has no lines of such a log.
    """
    path = Path(path)
    if path.suffix == '.json':
        curves = read_json(path)
        log = Log(curves.get('flags', {}), curves.get('training', []), curves.get('validation', []))
        if not _is_sound(log):
            raise ToolkitError(f'{path}: not the curves of a fine-tuning run')
    else:
        log = parse_log(read_text(path))
    if not log.training and not log.validation:
        raise ToolkitError(f'{path}: has no line of a fine-tuning log')
    return log


def _is_sound(log):
    """Return whether the content of a JSON file has the types of a :class:`Log`."""
    if not (isinstance(log.flags, dict) and all(isinstance(part, list) for part in log[1:])):
        return False
    for entry in (*log.training, *log.validation):
        if not isinstance(entry, dict) or not _is_count(entry.get('epoch')):
            return False
    for line in log.training:
        if not (
            _is_count(line.get('batch'))
            and _is_count(line.get('batches'))
            and all(is_number(line.get(name)) for name in ('loss', 'lr'))
            and are_values(line.get('metrics'))
        ):
            return False
    return all(
        is_number(value) if name == 'seconds' else are_values(value)
        for entry in log.validation
        for name, value in entry.items()
        if name != 'epoch'
    )


def _is_count(value):
    return isinstance(value, int) and 0 < value < 10**9


def parse_log(text):
    """Find the lines of a :class:`Log` in a text, and skip all others.

    >>> log = parse_log('INFO:root:[Epoch 1 Batch 10/119] loss=0.6, lr=0.00001, metrics=mcc:0.5')
    >>> log.training[0]['loss'], log.training[0]['metrics']
    (0.6, {'mcc': 0.5})
    """
    log = Log({}, [], [])
    dev_set, open_epoch = None, {}  # the dev metrics of an epoch that has not ended yet
    for line in text.split('\n'):
        _, found, flags = line.rstrip().partition(FLAGS)
        if found and flags.endswith(')'):
            log.flags.update(parse_flags(flags[:-1]))
        elif match := TRAINING.search(line):
            epoch, batch, batches, loss, rate, metrics = match.groups()
            log.training.append(
                {
                    'epoch': int(epoch),
                    'batch': int(batch),
                    'batches': int(batches),
                    'loss': float(loss),
                    'lr': float(rate),
                    'metrics': parse_metrics(metrics),
                }
            )
        elif match := MNLI_SET.search(line):
            dev_set = match.group(1).lower()
        elif match := VALIDATION.search(line):
            open_epoch[match.group(1) or dev_set or 'dev'] = parse_metrics(match.group(2))
        elif (match := SECONDS.search(line)) and open_epoch:
            open_epoch['seconds'] = float(match.group(1))
            log.validation.append({'epoch': len(log.validation) + 1, **open_epoch})
            open_epoch = {}
    if open_epoch:
        log.validation.append({'epoch': len(log.validation) + 1, **open_epoch})
    return log


def parse_flags(text):
    """Return the flags in ``Namespace(...)`` as a dict, empty if they are not constants."""
    if len(text) > LONGEST_FLAGS:
        return {}
    try:
        call = ast.parse(f'f({text})', mode='eval').body
        return {
            keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg
        }
    # If the text closes the parenthesis, this is not a call but another expression.
    except (SyntaxError, ValueError, TypeError, AttributeError, MemoryError, RecursionError):
        return {}


def parse_metrics(text):
    """Parse ``accuracy:0.8873,f1:0.9160`` into a dict."""
    return {name: float(value) for name, value in (item.split(':') for item in text.split(','))}


def dev_curves(log):
    """Return the dev metrics over the epochs.

    Returns
    -------
    dict of (dev set, metric) to (epochs, values)
    """
    curves = {}
    for entry in log.validation:
        for dev_set, metrics in entry.items():
            if dev_set in ('epoch', 'seconds'):
                continue
            for metric, value in metrics.items():
                epochs, values = curves.setdefault((dev_set, metric), ([], []))
                epochs.append(entry['epoch'])
                values.append(value)
    return curves


def loss_curve(log):
    """Return the fractional epochs at which the training loss was logged, and the losses."""
    return [_position(line) for line in log.training], [line['loss'] for line in log.training]


def training_curve(log, metric):
    """Return the same as :func:`loss_curve` for a training metric."""
    lines = [line for line in log.training if metric in line['metrics']]
    return [_position(line) for line in lines], [line['metrics'][metric] for line in lines]


def _position(line):
    return line['epoch'] - 1 + line['batch'] / line['batches']


def common_metric(one, other):
    """Return the first training metric that both logs have, or None."""
    theirs = {name for line in other.training for name in line['metrics']}
    ours = (name for line in one.training for name in line['metrics'])
    return next((name for name in ours if name in theirs), None)


def describe_differences(one, other):
    """Describe how the flags and the numbers of batches of two logs differ, one line each.

    Returns
    -------
    list of str
    """
    differing = differing_flags(one, other)
    lines = [f'{name}: A {pair[0]!r}, B {pair[1]!r}' for name, pair in differing.items()]
    batches = [log.training[0]['batches'] for log in (one, other) if log.training]
    if len(set(batches)) > 1:
        lines.append(f'batches an epoch: A {batches[0]}, B {batches[1]}')
    return lines


def differing_flags(one, other):
    """Return the flags that are in both logs, with different values.

    Returns
    -------
    dict of str to (value, value)
    """
    pairs = {
        name: (one.flags[name], other.flags[name]) for name in one.flags if name in other.flags
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def compare_lines(one, other):
    """Compare two logs line by line: the same batch of the same epoch is one row.

    Returns
    -------
    list of dict of str to str
        With ``epoch``, ``line`` (the number of the batch, or the name of a dev set), and for each
        quantity in either log its value in A, its value in B, and B - A. '-' means no value.
    """
    keys, values = {}, ({}, {})
    for log, found in zip((one, other), values):
        for line in log.training:
            key = (line['epoch'], 0, line['batch'])
            keys[key] = str(line['batch'])
            found[key] = {'loss': line['loss'], 'lr': line['lr'], **line['metrics']}
        for entry in log.validation:
            for name, metrics in entry.items():
                if isinstance(metrics, dict):
                    key = (entry['epoch'], 1, name)
                    keys[key] = name
                    seconds = {'seconds': entry['seconds']} if 'seconds' in entry else {}
                    found[key] = {**metrics, **seconds}
    present = {name for found in values for row in found.values() for name in row}
    names = [name for name in ('loss', 'lr') if name in present]
    names += sorted(present - {'loss', 'lr', 'seconds'}) + ['seconds'] * ('seconds' in present)
    rows = []
    for key in sorted(keys):
        row = {'epoch': str(key[0]), 'line': keys[key]}
        for name in names:
            pair = [found.get(key, {}).get(name) for found in values]
            row.update(_compare_cells(name, *pair))
        rows.append(row)
    return rows


def _compare_cells(name, one, other):
    digits = {'lr': 7, 'seconds': 1}.get(name, 4)

    def cell(value, sign=''):
        return f'{value:{sign}.{digits}{"f" if abs(value) < 1e12 else "e"}}'

    cells = {
        f'{name} {which}': '-' if value is None else cell(value)
        for which, value in (('A', one), ('B', other))
    }
    if name not in ('lr', 'seconds'):
        both = one is not None and other is not None
        cells[f'{name} B-A'] = cell(other - one, '+') if both else '-'
    return cells
