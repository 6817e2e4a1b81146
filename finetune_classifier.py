#!/usr/bin/env python3
"""Fine-tune BERT on a GLUE task, or on your own labelled text, and predict with the result."""

import functools
import logging
import math
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert.checkpoints.source import check_vocab, is_parameter_file
from bert.cli import program
from bert.cli.console import log_to_file, progress, start_logging
from bert.cli.program import stop_requests
from bert.distributed.workers import joined
from bert.finetuning.data import encode_datasets, hash_data, read_task
from bert.finetuning.flags import FREE, parse_args
from bert.finetuning.output import LOG, Saver, choose_start, finished_result
from bert.finetuning.progress import Position, Seen
from bert.finetuning.step import gradients, loss_of, micro_batches, predict
from bert.model import build, loading
from bert.system import environment, machine
from bert.system.errors import UsageError
from bert.tasks import metrics as tasks_metrics
from bert.tasks.metrics import describe
from bert.tasks.predictions import (
    OUTPUTS,
    measure,
    predictions_path,
    write_outputs,
    write_test_predictions,
)
from bert.text import encoding
from bert.training import folder, run, schedule, update
from bert.training.batches import evaluation_batches, padding_share, training_batches
from bert.training.devices import IN_FLIGHT
from bert.training.folder import identify


def main(argv=None):
    """Fine-tune, evaluate and predict.

    Returns
    -------
    dict
        ``epochs``: the dev metrics and seconds of each epoch; ``best_epoch``, counted from 1;
        ``test``: the names of the files with predictions.
    """
    args = parse_args(argv)
    environment.check_mxnet()
    if args.dtype == 'bfloat16':
        machine.prepare_bfloat16()
    memory = start_logging()
    with joined(args.kvstore) as workers:
        return finetune(args, memory, workers)


def finetune(args, memory, workers):
    """The part of :func:`main` that every worker does."""
    logging.info(args)
    contexts = update.contexts(args.gpus or [workers.local_rank] * args.gpu)
    task, examples = read_task(args)
    model, vocab = build_model(args, task, contexts)
    lower = choose_casing(args, vocab)
    datasets = encode_datasets(examples, vocab, lower, args.max_len)
    workers.broadcast_parameters(model)
    data = hash_data(datasets)
    workers.check_same('flags', folder.common_flags(args, FREE))
    workers.check_same('data', data)

    output = Path(args.output_dir)
    if workers.is_first:
        output.mkdir(parents=True, exist_ok=True)
    if args.only_inference:
        if workers.is_first:
            log_to_file(memory, output / 'inference.log')
        result = {'epochs': [], 'best_epoch': None}
    else:
        identity = identify(model, data, contexts, workers, args)
        finished, saved = workers.from_first(lambda: choose_start(output, identity, args.resume))
        if finished:
            return workers.from_first(lambda: finished_result(output, datasets['test']))
        saver = Saver(output, task, model, vocab, lower, identity, workers, args)
        position = saver.begin(saved)
        if workers.is_first:
            log_to_file(memory, output / LOG, append=bool(saved))
        result = train(model, datasets, task, contexts, workers, saver, position, args)
    outputs = {}
    for dataset in datasets['dev']:
        values = predict_all(model, dataset, contexts, workers, args)
        outputs[dataset.split.name or 'dev'] = values
        if args.only_inference:
            report_metrics(dataset, measure(values, dataset, task))
    result['test'] = []
    for dataset in datasets['test']:
        values = predict_all(model, dataset, contexts, workers, args)
        outputs[Path(dataset.split.submission).stem or 'test'] = values
        if workers.is_first:
            write_test_predictions(values, dataset, task, output)
        result['test'].append(predictions_path(output, dataset.split).name)
    if workers.is_first:
        write_outputs(output / OUTPUTS, outputs)
        if not args.only_inference:
            saver.close()
    return result


def build_model(args, task, contexts):
    """BERT with a head for the task, its weights loaded, and the vocabulary."""
    update.seed_step(args.seed, 0)
    parameters = args.pretrained_bert_parameters or args.model_parameters
    source = whole_model(args)
    encoder, vocab = loading.load_bert(
        source,
        args.bert_dataset,
        ctx=contexts,
        pretrained=source == parameters or not parameters,
    )
    if args.max_len > encoder.encoder._max_length:
        raise UsageError(
            f'--max_len {args.max_len} is more than the {encoder.encoder._max_length} positions '
            'of this model'
        )
    if parameters and source != parameters:
        check_vocab(parameters, vocab)
    if args.pretrained_bert_parameters and source != parameters:
        loading.load_encoder(encoder, parameters)
    num_classes = None if task.is_regression else len(task.labels)
    model = build.build_head(encoder, num_classes, contexts)
    if args.model_parameters or args.only_inference:
        finetuned = args.model_parameters or args.bert_model
        loading.load_finetuned(model, finetuned, task.labels)
    build.cast(model, args.dtype)
    model.hybridize(static_alloc=True)
    return model, vocab


def whole_model(args):
    """The source of sizes, vocabulary and casing: they come with the weights.

    A file has weights alone, so that the others are those of ``--bert_model``.
    """
    parameters = args.pretrained_bert_parameters or args.model_parameters
    if not parameters or is_parameter_file(parameters):
        return args.bert_model
    return parameters


def choose_casing(args, vocab):
    """Whether to lower-case the text."""
    if args.do_lower_case or args.cased:
        lower, reason = args.do_lower_case, 'by its flag'
    else:
        lower, reason = loading.is_lower_case(whole_model(args), args.bert_dataset, vocab)
    logging.info('the text is %s, %s', 'lower-cased' if lower else 'kept as it is', reason)
    return lower


def train(model, datasets, task, contexts, workers, saver, position, args):
    """The fine-tuning loop: an epoch, then the dev sets, until the updates are done.

    Parameters
    ----------
    contexts : list of mxnet.Context
        This worker's.
    workers : bert.distributed.workers.Workers
    position : Position
        Where to begin; see :meth:`Saver.begin`.

    Returns
    -------
    dict
        See :func:`main`. The model has the parameters of the best epoch.
    """
    (train_set,) = datasets['train']
    adds_up = args.accumulate * len(contexts) > 1
    rows_per_update = args.batch_size * args.accumulate * len(contexts) * workers.count
    updates_per_epoch = math.ceil(len(train_set.labels) / rows_per_update)
    total = args.training_steps or args.epochs * updates_per_epoch
    epochs = math.ceil(total / updates_per_epoch)

    trainer = update.build_trainer(
        model,
        args.optimizer,
        args.lr,
        args.epsilon,
        args.bias_correction,
        kvstore=workers.local_kvstore(args.kvstore),
    )
    if adds_up:
        update.accumulate_gradients(model)
    loop = Loop(
        model=model,
        trainer=trainer,
        parameters=update.trainable(model),
        loss_function=loss_of(None if task.is_regression else len(task.labels)),
        loss_scale=update.LossScale(args.dtype),
        contexts=contexts,
        workers=workers,
        adds_up=adds_up,
        rows_per_update=rows_per_update,
        updates_per_epoch=updates_per_epoch,
        total_updates=total,
        warmup_updates=int(total * args.warmup_ratio),
    )
    saver.restore(loop, position)
    with stop_requests() as saver.stop:
        for epoch in range(len(saver.epochs), epochs):
            if args.early_stop and epoch - saver.best_epoch >= args.early_stop:
                logging.info('no better dev metric for %d epochs: stopped', args.early_stop)
                break
            seen = Seen(saver, train_set.labels.dtype, position)
            check = functools.partial(saver.leave_if_asked, loop, seen)
            results = {}
            with run.naming_step(seen):
                train_epoch(loop, epoch, train_set, seen, check, saver, args)
                for dataset in datasets['dev']:
                    metrics = evaluate(model, dataset, task, contexts, workers, args, check)
                    report_metrics(dataset, metrics)
                    results[dataset.split.name or 'dev'] = metrics
            seconds = time.time() - seen.start
            logging.info('Time cost=%.1fs', seconds)
            position = Position(seen.step)
            saver.save_epoch(loop, position, results, seconds)
    return saver.finish()


class Loop(NamedTuple):
    """What stays the same from update to update."""

    model: object
    trainer: object
    parameters: list
    loss_function: object
    loss_scale: object
    contexts: list
    workers: object
    adds_up: bool  # gradients of several batches, on this worker
    rows_per_update: int
    updates_per_epoch: int
    total_updates: int
    warmup_updates: int


def train_epoch(loop, epoch, train_set, seen, check, saver, args):
    """One pass over the training set, or what is left of it or of ``--training_steps``.

    Parameters
    ----------
    seen : Seen
        Of this epoch.
    check : function
        Called after each update.
    """
    lengths = train_set.encoded.lengths
    rng = np.random.default_rng([args.seed, epoch])
    batches = training_batches(lengths, loop.rows_per_update, rng)
    if seen.step == 0:
        share = padding_share(lengths, micro_batches(batches, args.batch_size))
        logging.info(
            'training on %d rows, %d updates an epoch, %.1f%% padding',
            len(lengths),
            len(batches),
            100 * share,
        )
    first = epoch * loop.updates_per_epoch
    batches = batches[: loop.total_updates - first]
    done = seen.step - first
    with progress(len(batches), f'epoch {epoch + 1}', 'batch') as bar:
        bar.update(done)
        for number, rows in enumerate(batches[done:], done + 1):
            step = first + number
            rate = schedule.learning_rate(step, args.lr, loop.warmup_updates, loop.total_updates)
            seen.step = step
            update.seed_step(args.seed, step, loop.workers.rank)
            for loss, outputs, labels in gradients(loop, train_set, rows, args.batch_size):
                seen.add(number, loss, outputs, labels)
            update.update(
                loop.trainer, loop.parameters, len(rows), rate, loop.loss_scale, loop.workers
            )
            if loop.adds_up:
                update.clear_gradients(loop.model)
            if number % args.log_interval == 0:
                loss, metrics = seen.take()
                log_training(epoch, number, len(batches), step, loss, rate, metrics, saver)
            bar.update()
            check()
    seen.read_all()


def log_training(epoch, number, count, step, loss, rate, metrics, saver):
    """A line in the original's form, and one for programs."""
    logging.info(
        '[Epoch %d Batch %d/%d] loss=%.4f, lr=%.7f, metrics=%s',
        epoch + 1,
        number,
        count,
        loss,
        rate,
        describe(metrics),
    )
    saver.write_line({'epoch': epoch + 1, 'step': step, 'loss': loss, 'lr': rate, **metrics})


def evaluate(model, dataset, task, contexts, workers, args, check):
    """The task's metrics over a whole dev set; ``check`` is called after each batch."""
    return measure(predict_all(model, dataset, contexts, workers, args, check), dataset, task)


def predict_all(model, dataset, contexts, workers, args, check=lambda: None):
    """The outputs (N, classes) for a set, in its order, on all workers, which share the work.

    Batches are sorted by length.
    """
    batches = evaluation_batches(dataset.encoded.lengths, args.dev_batch_size)
    outputs, pending = [], deque()
    with progress(len(batches), dataset.split.path, 'batch') as bar:
        for number, rows in enumerate(batches):
            bar.update()
            if number % workers.count == workers.rank:
                inputs = encoding.pad_batch(dataset.encoded, rows)
                ctx = contexts[number // workers.count % len(contexts)]
                pending.append(predict(model, inputs, ctx))
            if len(pending) > IN_FLIGHT * len(contexts):
                outputs.append(pending.popleft().asnumpy())
            if number % workers.count == workers.count - 1:
                check()
    outputs += [batch.asnumpy() for batch in pending]
    classes = max(workers.each(outputs[0].shape[1] if outputs else 0))
    ordered = np.zeros((len(dataset.encoded.lengths), classes), np.float32)
    for rows, values in zip(workers.share(batches), outputs):
        ordered[rows] = values
    return workers.sum_numpy(ordered)


def report_metrics(dataset, metrics):
    """The dev metrics in the original's form; MNLI's two sets by name."""
    name = f' ({dataset.split.name})' if dataset.split.name else ''
    logging.info('validation metrics%s:%s', name, tasks_metrics.describe(metrics))


if __name__ == '__main__':
    program.run(main)
