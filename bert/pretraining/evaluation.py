"""The losses and accuracies of a model over a whole source of instances."""

import logging
import time

from bert.cli.console import progress
from bert.pretraining import batches as streams
from bert.pretraining.loss import Tally, describe, statistics
from bert.pretraining.recorder import log_step
from bert.training.devices import IN_FLIGHT, Late, take_turns


def evaluate(
    model,
    loss,
    source,
    batch_size,
    seed,
    contexts,
    workers,
    no_nsp=False,
    log_interval=None,
    check=lambda: None,
    log=logging.info,
):
    """Compute and log losses and accuracies over all instances, shared by the workers.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel
        With both heads.
    loss : bert.pretraining.loss.PretrainingLoss
    source : bert.pretraining.sources.Shards or bert.pretraining.sources.Text
    batch_size, seed : int
        The seed of the instances that are made from text.
    contexts : list of mxnet.Context
        This worker's devices.
    workers : bert.distributed.workers.Workers
    no_nsp : bool
        Whether to leave out next sentences.
    log_interval : int, optional
        After so many batches each, log a line about these; by default only one about all.
    check : function
        Called by all workers whenever each has had its turn; it may end the program.
    log : function
        Logs the result.

    Returns
    -------
    dict of str to float
        See :meth:`bert.pretraining.loss.Tally.metrics`.
    """
    start = since = time.monotonic()
    logged, tokens, tally = Tally(), 0, Tally()
    late = Late(tally.add, IN_FLIGHT * len(contexts))
    with progress(source.count, 'evaluation', 'row') as bar:
        for number, batch in enumerate(streams.evaluation(source, batch_size, seed), 1):
            bar.update(len(batch.nsp_labels))
            tokens += int(batch.valid_lengths.sum())
            ctx = take_turns(number - 1, contexts, workers)
            if ctx:
                late.add(batch, statistics(model, loss, batch, ctx)[1])
            if log_interval and number % log_interval == 0:
                late.finish()
                total = Tally(workers.sum_numpy(tally.sums))
                latest = Tally(total.sums - logged.sums).metrics(no_nsp)
                log_step(number, latest, tokens, 0, time.monotonic() - since)
                logged, tokens, since = total, 0, time.monotonic()
            if number % workers.count == 0:
                check()
    late.finish()
    metrics = Tally(workers.sum_numpy(tally.sums)).metrics(no_nsp)
    log('%s', describe(metrics, digits=3))
    logging.info('Eval cost=%.1fs', time.monotonic() - start)
    return metrics
