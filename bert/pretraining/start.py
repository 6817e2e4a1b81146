"""Where a pre-training run begins: the step that it goes on from, and the first weights."""

import logging

from bert.system.errors import ToolkitError, UsageError
from bert.training import states


def choose_start(folder, start, last, no_nsp, optimizer):
    """Choose the training state to go on from, or to evaluate.

    Parameters
    ----------
    folder : str
        Of the training states.
    start : int or str
        A step, 0 for a new run, or ``auto`` for the newest state if there is one.
    last : int or None
        The last step of the run; None for an evaluation.
    no_nsp : bool
        Whether to leave out next sentences.
    optimizer : str

    Returns
    -------
    int, dict or None
        Its step, or 0, and its ``progress``.
    """
    saved = None
    if start == 'auto':
        start, saved = states.newest(folder)
        logging.info('--start_step auto: %s', f'step {start}' if start else 'no checkpoint yet')
        if not start and last is None:
            raise ToolkitError(f'{folder}: there is no checkpoint to evaluate')
    elif start:
        saved = states.read_progress(folder, start)
    if start and last is not None:
        if start > last:
            raise UsageError(
                f'{folder} holds step {start}, which is after the last one, --num_steps {last}'
            )
        _check_same_run(folder, saved, no_nsp, optimizer)
    return start, saved


def _check_same_run(folder, saved, no_nsp, optimizer):
    """Refuse to go on from the ``progress`` of a run with another objective or optimizer."""
    had = saved.get('optimizer', 'bertadam')
    if had != optimizer:
        clause = f'with --optimizer {had} and is with {optimizer} now'
    elif no_nsp and not saved.get('no_nsp'):
        clause = 'without --no_nsp and is with it now'
    elif saved.get('no_nsp') and not no_nsp:
        clause = 'with --no_nsp and is without it now'
    else:
        return
    raise UsageError(
        f'--start_step: the run in {folder} was {clause}; use the same, or start over without '
        '--start_step'
    )


def load_weights(model, path, start):
    """Give a model, with which a run begins, the weights of another run.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel
    path : str or None
        A folder with training states, of which the newest whole one is taken, or a ``.params``
        file; None for no other run.
    start : int
        The step to go on from, whose own weights are taken later.
    """
    if path and start:
        logging.info('--start_from: not read, as training goes on from step %d', start)
    elif path:
        path = states.find_parameters(path)
        states.load_parameters(path, model)
        logging.info('training begins with the weights of %s', path)
