"""Training states, from which training goes on as if it had never stopped.

A state is a pair of files, named after the step in seven digits: ``0000020.params``, the
parameters as Gluon saves them, and ``0000020.states``, everything else that the next steps depend
on, as an ``.npz`` of plain arrays. The ``.states`` file is written last and holds the sha256 of its
partner, so that a killed process leaves whole pairs, and perhaps half of another.
"""

import contextlib
import json
import logging
import zipfile
from pathlib import Path

import mxnet as mx
import numpy as np

from bert.checkpoints import gluon
from bert.distributed.workers import ALONE
from bert.model import parameters
from bert.system.errors import ToolkitError
from bert.system.files import copy_file, parse_json, replacing, sha256
from bert.system.npz import Damaged, open_npz
from bert.training.folder import remove_half_written, set_aside


def parameters_path(folder, step):
    """Return ``FOLDER/NNNNNNN.params``."""
    return Path(folder) / f'{step:07d}.params'


def states_path(folder, step):
    """Return ``FOLDER/NNNNNNN.states``."""
    return Path(folder) / f'{step:07d}.states'


def saved_steps(folder):
    """Return the steps of all ``.states`` files, ascending, without checking the files."""
    names = (path.stem for path in Path(folder).glob('*.states'))
    return sorted(int(name) for name in names if name.isdecimal() and len(name) >= 7)


def newest(folder):
    """Find the newest whole training state, and log the damaged ones.

    Returns
    -------
    int, dict
        Its step and its ``progress``; 0 and None if there is none.
    """
    for step in reversed(saved_steps(folder)):
        try:
            progress = read_progress(folder, step)
            _check_arrays(folder, step)
            return step, progress
        except ToolkitError as error:
            logging.warning('skipped: %s', error)
    return 0, None


def save(folder, step, model, trainer, progress, keep, written=None):
    """Write a training state, and delete old ones.

    Parameters
    ----------
    folder : str or Path
    step : int
    model : mxnet.gluon.Block
    trainer : mxnet.gluon.Trainer
        With BERTAdam or LAMB.
    progress : dict
        Everything else, as JSON can hold it.
    keep : int
        How many states to keep, this one included.
    written : str or Path, optional
        A file just written with the same parameters, which gets a second name.
    """
    path, states = parameters_path(folder, step), states_path(folder, step)
    if written:
        copy_file(written, path)
    else:
        parameters.save(model, path)
    progress = {**progress, 'step': step, 'params_sha256': sha256(path)}
    with replacing(states) as temporary, zipfile.ZipFile(temporary, 'w') as archive:
        _write_array(archive, 'progress', np.array(json.dumps(progress)))
        for name, index in _indices(model, trainer).items():
            for kind, array in _split(trainer._updaters[0].states[index]).items():
                _write_array(archive, f'{kind}:{name}', array.asnumpy())
    for old in saved_steps(folder)[:-keep]:
        states_path(folder, old).unlink()
        with contextlib.suppress(FileNotFoundError):
            parameters_path(folder, old).unlink()


def load(folder, step, model, trainer, workers=ALONE):
    """Restore the model and the trainer as they were after a step.

    Only worker 0 needs the files.

    Returns
    -------
    dict
        The ``progress`` that was saved.
    """
    for index in _indices(model, trainer).values():
        for context, updater in zip(trainer._contexts, trainer._updaters):
            updater.states[index] = trainer.optimizer.create_state_multi_precision(
                index, trainer._params[index].data(context)
            )
            updater.states_synced[index] = True
    progress = workers.from_first(lambda: _read(folder, step, model, trainer))
    workers.broadcast_parameters(model)
    for index in _indices(model, trainer).values():
        copies = [_split(updater.states[index]) for updater in trainer._updaters]
        workers.broadcast([[copy[kind] for copy in copies] for kind in copies[0]])
    optimizer = trainer.optimizer
    counts = dict.fromkeys(_indices(model, trainer).values(), step)
    for context in trainer._contexts:
        optimizer._all_index_update_counts[context.device_id] = dict(counts)
    optimizer._set_current_context(trainer._contexts[0].device_id)
    optimizer.num_update = step
    return progress


def _read(folder, step, model, trainer):
    """Fill in the parameters and the optimizer's states, and return the progress."""
    progress = read_progress(folder, step)
    load_parameters(parameters_path(folder, step), model)
    path = states_path(folder, step)
    with _opened(path) as states:
        for name, index in _indices(model, trainer).items():
            for updater in trainer._updaters:
                for kind, array in _split(updater.states[index]).items():
                    saved = _read_array(states, f'{kind}:{name}', path)
                    if saved.shape != array.shape or saved.dtype != array.dtype:
                        raise ToolkitError(f'{path}: {kind}:{name} does not fit this model')
                    array[:] = mx.nd.array(saved, dtype=saved.dtype)
    return progress


def load_parameters(path, model):
    """Give the model the parameters in the ``.params`` file of a training state."""
    parameters.set_parameters(model, gluon.read_gluon(path), path)


def read_progress(folder, step):
    """Read the ``progress`` of a training state, and check that its two files belong together."""
    partner, path = parameters_path(folder, step), states_path(folder, step)
    for file in (partner, path):
        if not file.is_file():
            raise ToolkitError(f'{file}: there is no such checkpoint file')
    with _opened(path) as states:
        try:
            progress = parse_json(_read_array(states, 'progress', path).item())
            expected = progress['params_sha256']
        except (ValueError, TypeError, KeyError):
            raise ToolkitError(f'{path}: not a checkpoint of this program') from None
    if sha256(partner) != expected:
        raise ToolkitError(f'{partner}: not the file that belongs to {path.name}')
    return progress


def set_aside_later(folder, step, *others):
    """Prepare a folder for a run that goes on from a step.

    Half-written files are removed. States after the step are another run's, and would be mistaken
    for this one's: they are moved to a folder ``earlier``, replacing those there.

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


def _check_arrays(folder, step):
    """Raise ToolkitError if an array of a ``.states`` file cannot be read."""
    path = states_path(folder, step)
    with _opened(path) as states:
        for name in states.names:
            _read_array(states, name, path)


def _indices(model, trainer):
    """Return the trainer's index of each trained parameter, by the parameter's name in files."""
    indices = {}
    for name, parameter in parameters.named(model).items():
        index = trainer._param2idx[parameter.name]
        # The word embedding has two names.
        if parameter.grad_req != 'null' and index not in indices.values():
            indices[name] = index
    return indices


def _split(state):
    """Split a state of BERTAdam or LAMB into named arrays."""
    if isinstance(state[0], tuple):
        (mean, variance), master = state
        return {'mean': mean, 'variance': variance, 'master': master}
    mean, variance = state
    return {'mean': mean, 'variance': variance}


def _write_array(archive, name, array):
    with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


@contextlib.contextmanager
def _opened(path):
    try:
        with open_npz(path) as states:
            yield states
    except Damaged:
        raise ToolkitError(f'{path}: not a whole checkpoint file') from None


def _read_array(states, name, path):
    try:
        return states.read(name)
    except Damaged:
        raise ToolkitError(f'{path}: {name} is missing or damaged') from None
