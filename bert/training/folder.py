"""The folder of a training run: its logs, and the files that an earlier run left there."""

import contextlib
import json
import os
from pathlib import Path

from bert import ops
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import HALF_WRITTEN, append_line, parse_json, write_text
from bert.system.processes import alone

# The machine-readable log, in the folder of a fine-tuning or a pre-training.
METRICS_FILE = 'metrics.jsonl'
# The subfolder for the files of an earlier run.
EARLIER = 'earlier'


@contextlib.contextmanager
def held(folder, workers):
    """Make the folder of a run, and keep other programs from writing there until the block ends.

    Parameters
    ----------
    folder : Path
    workers : bert.distributed.workers.Workers
        Only worker 0 has the folder; where it is refused, all fail.
    """
    with contextlib.ExitStack() as stack:

        def hold():
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone(folder))

        workers.from_first(hold)
        yield


def add_line(folder, values, events=None):
    """Add a line to ``metrics.jsonl``, and to TensorBoard's event file.

    Parameters
    ----------
    folder : str or Path
    values : dict
    events : bert.training.events.EventFile or None
    """
    append_line(Path(folder) / METRICS_FILE, json.dumps(values))
    if events:
        events.add(values)


def log_sizes(folder, names):
    """Return the sizes of log files in bytes, for a training state."""
    paths = {name: Path(folder) / name for name in names}
    return {name: path.stat().st_size for name, path in paths.items() if path.is_file()}


def cut_logs(folder, names, sizes):
    """Cut log files back to their sizes when a training state was saved.

    Parameters
    ----------
    folder : str or Path
    names : sequence of str
    sizes : dict
        See :func:`log_sizes`; older training states have the texts instead of the sizes. A file
        without an entry stays as it is.
    """
    for name in names if isinstance(sizes, dict) else ():
        path, size = Path(folder) / name, sizes.get(name)
        if isinstance(size, str):
            write_text(path, size)
        elif isinstance(size, int) and path.is_file():
            try:
                os.truncate(path, min(size, path.stat().st_size))
            except OSError as error:
                raise ToolkitError(f'{path}: could not be written ({error.strerror})') from None


def move_logs(source, target, names, replace):
    """Move log files, as far as they exist, to another folder.

    Parameters
    ----------
    source, target : Path
    names : sequence of str
    replace : bool
        Whether to replace files of the target folder; if not, they stay, and so do the others.
    """
    for name in names:
        if (source / name).is_file() and (replace or not (target / name).exists()):
            (source / name).replace(target / name)


def size_up_to(path, step):
    """Return the size of the lines of ``metrics.jsonl`` that training wrote up to a step."""
    size = 0
    for line in Path(path).read_bytes().splitlines(keepends=True) if Path(path).is_file() else ():
        try:
            values = parse_json(line.decode('utf8'))
            if values['step'] > step or 'eval' in values:
                break
        except (ValueError, TypeError, KeyError):
            break
        size += len(line)
    return size


def remove_half_written(folder):
    """Remove a killed run's half-written files; only one run at a time writes to a folder."""
    for leftover in Path(folder).glob(f'.*{HALF_WRITTEN}'):
        if leftover.is_file():
            leftover.unlink()


def set_aside(folder, paths):
    """Move those files of an earlier run that exist to a folder ``earlier``.

    The parameters and states that were in that folder are removed.

    Returns
    -------
    Path
        The folder ``earlier``.
    """
    earlier = Path(folder) / EARLIER
    earlier.mkdir(exist_ok=True)
    for old in (*earlier.glob('*.states'), *earlier.glob('*.params')):
        old.unlink()
    for path in filter(Path.is_file, paths):
        path.replace(earlier / path.name)
    return earlier


def identify(flags, contexts, data, weights, worker_count):
    """Collect everything that determines a run's results; a run may go on only if it matches.

    Parameters
    ----------
    flags : dict
        The flags that must not change, ``accumulate`` among them.
    contexts : list of mxnet.Context
        The devices of one worker.
    data : dict of str to str
        A hash of each data set.
    weights : str
        A hash of the weights before the first step.
    worker_count : int

    Returns
    -------
    dict
        ``flags``, ``devices``, ``operators``, ``data`` and ``weights``, as JSON can hold them.
    """
    # Batches in an update per device; over how many workers they are spread does not matter.
    flags = {**flags, 'accumulate': flags['accumulate'] * worker_count}
    devices = [str(context) for context in contexts]
    operators = 'fused' if ops.serve_on(contexts) else "MXNet's own"
    return {
        'flags': flags,
        'devices': devices,
        'operators': operators,
        'data': data,
        'weights': weights,
    }


def require_same(found, identity, output):
    """Refuse to go on with a run that had other flags, devices, data or weights.

    Parameters
    ----------
    found : object
        What a file of the folder holds in place of ``identity``.
    identity : dict
        See :func:`identify`.
    output : Path
        The folder, for the error message.
    """
    if not (
        isinstance(found, dict)
        and identity.keys() - {'operators'} <= found.keys()
        and isinstance(found['flags'], dict)
    ):
        raise ToolkitError(f'{output}: the run there does not say how it was made')
    identity = json.loads(json.dumps(identity))
    flags = {name: (found['flags'].get(name), now) for name, now in identity['flags'].items()}
    flags['devices'] = (found['devices'], identity['devices'])
    # The two kinds differ in the last bits. Earlier versions did not record the kind.
    before, now = found.get('operators'), identity['operators']
    if before not in (None, now):
        raise UsageError(
            f'--resume: the operators were {before} in the run in {output} and are {now} now '
            '(compiled, unless the variable BERT_STOCK_OPS is set); use the same, or start over '
            'without --resume'
        )
    for name, (before, now) in flags.items():
        # A flag that is newer than the run was not given.
        if before != now and (before or now):
            flag = name if name == 'devices' else f'--{name}'
            raise UsageError(
                f'--resume: {flag} was {before} in the run in {output} and is {now} now; '
                'use the same, or start over without --resume'
            )
    for name in ('data', 'weights'):
        if found[name] != identity[name]:
            what = 'the data have changed' if name == 'data' else 'the model has other weights'
            raise UsageError(
                f'--resume: {what} since the run in {output} began; start over without --resume'
            )
