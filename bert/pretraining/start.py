"""Where a pre-training run begins: the step that it goes on from, and the first weights."""

import contextlib
import logging
from pathlib import Path

from bert.system.errors import ToolkitError, UsageError
from bert.text.vocab import fingerprint
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


def describe_run(no_nsp, optimizer, vocab):
    """Return what the training states of a run say of it, by which another run fits it or not.

    Parameters
    ----------
    no_nsp : bool
    optimizer : str
    vocab : bert.text.vocab.Vocab
        Without names for rows beyond its tokens.

    Returns
    -------
    dict
        States of earlier versions say nothing of what these did not have.
    """
    said = {'vocabulary': fingerprint(vocab)}
    if no_nsp:
        said['no_nsp'] = True
    if optimizer != 'bertadam':
        said['optimizer'] = optimizer
    return said


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


def check_vocabulary(path, saved, vocab):
    """Refuse weights that belong to other tokens, though there are as many of them.

    Parameters
    ----------
    path : str or Path
        Of the weights, or their folder, for the error.
    saved : dict or None
        The ``progress`` of their training state, as far as it is known.
    vocab : bert.text.vocab.Vocab
        Without names for rows beyond its tokens.
    """
    if saved and saved.get('vocabulary', fingerprint(vocab)) != fingerprint(vocab):
        raise UsageError(f'{path}: the run there had another vocabulary than this one')


def load_weights(model, vocab, path, start, no_nsp):
    """Give a model, with which a run begins, the weights of another run.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel
    vocab : bert.text.vocab.Vocab
        See :func:`check_vocabulary`.
    path : str or None
        A folder with training states, of which the newest whole one is taken, or a ``.params``
        file; None for no other run.
    start : int
        The step to go on from, whose own weights are taken later.
    no_nsp : bool
        Whether this run leaves out next sentences.
    """
    if path and start:
        logging.info('--start_from: not read, as training continues from step %d', start)
    elif path:
        path, saved = _find_parameters(Path(path))
        check_vocabulary(path, saved, vocab)
        states.load_parameters(path, model)
        logging.info('training begins with the weights of %s', path)
        if saved.get('no_nsp') and not no_nsp:
            logging.info('that run had --no_nsp: it did not train the next-sentence classifier')


def _find_parameters(path):
    """Return the ``.params`` file that a path means, and its ``progress`` as far as it is known."""
    if path.is_dir():
        step, saved = states.newest(path)
        if not step:
            is_model = (path / 'config.json').is_file()
            advice = '; --bert_model takes a model directory' if is_model else ''
            raise ToolkitError(f'{path}: there is no checkpoint in this folder{advice}')
        return states.parameters_path(path, step), saved
    if path.stem.isdecimal() and states.parameters_path(path.parent, int(path.stem)) == path:
        with contextlib.suppress(ToolkitError):  # the file may have been moved here alone
            return path, states.read_progress(path.parent, int(path.stem))
    return path, {}
