"""TODO"""

import contextlib
import json
import logging
from pathlib import Path

from bert.model import parameters
from bert.system.errors import UsageError
from bert.system.files import append_line, parse_json, read_text, write_text
from bert.training.states import parameters_path, saved_steps, states_path

# Where set_aside puts what an earlier run left.
EARLIER = 'earlier'


def prepare(folder, step, *others):
    """Make a folder ready for a run that goes on from a step.

    Half-written files are removed. Checkpoints after the step are another run's, and would be
    taken for this one's: they are moved to a folder ``earlier``, in place of what was there.

    Parameters
    ----------
    folder : str or Path
    step : int
    *others : str
        Names of more files to move with them.
    """
    folder = Path(folder)
    remove_half_written(folder)
    steps = [old for old in saved_steps(folder) if old > step]
    if not steps:
        return
    paths = [path(folder, old) for old in steps for path in (states_path, parameters_path)]
    paths += [folder / name for name in others]
    earlier = set_aside(folder, paths)
    logging.info(
        'moved the checkpoints of an earlier run, up to step %d, to %s', steps[-1], earlier
    )


def remove_half_written(folder):
    """Remove what a killed run left of files that it was writing; only one writes to a folder."""
    for leftover in Path(folder).glob('.*.tmp'):
        if leftover.is_file():
            leftover.unlink()


def set_aside(folder, paths):
    """Move files of an earlier run, as far as they are there, to a folder ``earlier``.

    The parameters and states that were in it are removed.

    Returns
    -------
    Path
        That folder.
    """
    earlier = Path(folder) / EARLIER
    earlier.mkdir(exist_ok=True)
    for old in (*earlier.glob('*.states'), *earlier.glob('*.params')):
        old.unlink()
    for path in filter(Path.is_file, paths):
        path.replace(earlier / path.name)
    return earlier


def common_flags(args, by_worker):
    """The flags that all workers must have alike.

    Parameters
    ----------
    args : argparse.Namespace
    by_worker : collection of str
        The names of the others.
    """
    return {name: value for name, value in vars(args).items() if name not in by_worker}


def identify(model, data, contexts, workers, args, free):
    """All that decides what a run gives; where it is the same, another start can go on with it.

    Returns
    -------
    dict
        Fit for JSON: ``flags``, ``devices``, ``data``, see :func:`hash_data`, and ``weights``, a
        hash of those before the first step.
    """
    flags = common_flags(args, free)
    # Batches of an update on each device: it does not matter on how many workers.
    flags['accumulate'] *= workers.count
    return {
        'flags': flags,
        'devices': [str(ctx) for ctx in contexts],
        'data': data,
        'weights': parameters.digest(model),
    }


def require_same(found, identity, output):
    """Refuse to go on with a run of other flags, devices, data or weights."""
    identity = json.loads(json.dumps(identity))
    flags = {name: (found['flags'].get(name), now) for name, now in identity['flags'].items()}
    flags['devices'] = (found['devices'], identity['devices'])
    for name, (before, now) in flags.items():
        if before != now:
            flag = name if name == 'devices' else f'--{name}'
            raise UsageError(
                f'--resume: {flag} was {before} in the run in {output} and is {now} now; '
                'go on with the same, or without --resume start anew'
            )
    for name in ('data', 'weights'):
        if found[name] != identity[name]:
            what = 'the data have changed' if name == 'data' else 'the model has other weights'
            raise UsageError(
                f'--resume: {what} since the run in {output} began; without --resume start anew'
            )


# In --ckpt_dir, beside the checkpoints.
METRICS = 'metrics.jsonl'


def data_order(source, cut, args):
    """All that decides which rows come when; where it is the same, so is a position in the data."""
    return {'seed': args.seed, 'cut': list(cut), 'data': source.description}


def add_line(folder, values):
    """Add a line to ``metrics.jsonl``."""
    append_line(Path(folder) / METRICS, json.dumps(values))


def keep_lines(folder, step):
    """Keep the training lines of ``metrics.jsonl`` up to a step; a run goes on after it."""
    path = Path(folder) / METRICS
    kept = []
    if step and path.is_file():
        for line in read_text(path).splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                values = parse_json(line)
                if values['step'] <= step and 'eval' not in values:
                    kept.append(line + '\n')
    write_text(path, ''.join(kept))
