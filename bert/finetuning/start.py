"""Where a fine-tuning begins, by what an earlier run has left in its folder."""

import logging

from bert.checkpoints.contents import FINETUNED
from bert.finetuning.output import STATES
from bert.finetuning.progress import is_saved
from bert.system.errors import ToolkitError
from bert.system.files import read_json
from bert.tasks import metrics
from bert.tasks.predictions import predictions_path
from bert.training import folder, states


def choose_start(output, task, identity, resume):
    """Find out where to begin, and log what the folder holds from an earlier run.

    Parameters
    ----------
    output : Path
    task : bert.tasks.table.Task
    identity : dict
        See :func:`bert.training.folder.identify`.
    resume : bool
        Whether to go on with the earlier run.

    Returns
    -------
    bool, dict or None
        Whether the run is already finished, and what :meth:`Output.save_state` saved if it is to
        go on.

    Raises
    ------
    UsageError
        If ``resume`` is set but the run there is a different one.
    """
    description = output / FINETUNED
    earlier = read_json(description) if description.is_file() else {}
    if 'run' in earlier:
        if resume:
            folder.require_same(earlier['run'], identity, output)
            logging.info('the run in %s is finished: nothing is left to do', output)
        else:
            logging.info('the finished run in %s is replaced', output)
        return resume, None
    step, saved = states.newest(output / STATES)
    if step and not is_saved(saved, task):
        path = states.states_path(output / STATES, step)
        raise ToolkitError(f'{path}: not a checkpoint of this program')
    if not step:
        if resume:
            logging.info('--resume: no epoch is complete in %s, the run starts over', output)
        elif earlier.get('epochs'):
            logging.info('the fine-tuned model in %s is replaced', output)
        return False, None
    if resume:
        folder.require_same(saved['run'], identity, output)
    epochs = len(saved['epochs'])
    where = f'step {step}, in epoch {epochs + 1},' if saved['seen'] else f'epoch {epochs}'
    logging.info(
        '%s of an earlier run is complete; --resume continues from there%s',
        where,
        '' if resume else ', but without it this run starts over',
    )
    return False, saved if resume else None


def finished_result(output, test):
    """Return the result of a finished run.

    Parameters
    ----------
    output : Path
    test : list of bert.finetuning.data.Dataset
    """
    description = read_json(output / FINETUNED)
    if not metrics.are_epochs(description.get('epochs'), description.get('best_epoch')):
        raise ToolkitError(f'{output / FINETUNED}: not the results of a run')
    return {
        **{name: description[name] for name in ('epochs', 'best_epoch')},
        'test': [predictions_path(output, dataset.split).name for dataset in test],
    }
