#!/usr/bin/env python3
"""Fine-tune BERT on a GLUE task, or on your own labelled text, and predict with the result."""

import signal

if __name__ == '__main__':
    # Until the program catches an interrupt, that ends it without a traceback of the imports.
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as in a background job
    signal.signal(signal.SIGINT, signal.SIG_IGN if is_ignored else signal.SIG_DFL)

import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bert.checkpoints.source import locate
from bert.cli.console import log_result, log_to_file, progress, start_logging
from bert.cli.program import run
from bert.finetuning.base import build_model, find_finetuned, find_model
from bert.finetuning.card import card_of_run
from bert.finetuning.data import (
    choose_task,
    encode_datasets,
    hash_data,
    labels_of_run,
    read_task,
)
from bert.finetuning.flags import fixed_flags, parse_args, recall, remembered_flags
from bert.finetuning.summary import write_page
from bert.finetuning.weights import with_weights
from bert.system import machine
from bert.system.terminal import show
from bert.tasks.predictions import (
    format_answer,
    predictions_path,
    write_outputs,
    write_test_predictions,
)
from bert.tasks.table import NUMBER_LABELS
from bert.training import schedule
from bert.training.batches import training_batches
from bert.training.failures import naming_step
from bert.training.flags import is_resumable
from bert.training.folder import held, identify
from bert.training.run import started, stop_signal


def main(argv=None):
    """Fine-tune, evaluate and predict.

    Returns
    -------
    dict
        ``epochs``: the dev metrics and seconds of each epoch; ``best_epoch``, counted from 1;
        ``test``: the names of the files with predictions. With --text, the answer.
    """
    args = parse_args(argv)
    if args.text:
        return answer_text(args)
    with started(args.kvstore, args.dtype, quiet=args.quiet) as (memory, workers):
        return finetune(argv, args, memory, workers)


def answer_text(args):
    """Print the answer for --text as a line of JSON, and return it; see :mod:`bert.predict`."""
    machine.prepare_mxnet(args.dtype)
    from bert.finetuning.prediction import load_predictor
    from bert.training.update import contexts

    start_logging(args.quiet)
    location = locate(args.bert_model, args.bert_dataset)
    devices = contexts(args.gpus or [0] * args.gpu, purpose='compute')
    lower = args.do_lower_case if args.do_lower_case or args.cased else None
    predictor = load_predictor(location, args.max_len, 1, devices, args.dtype, lower)
    (answer,) = predictor([tuple(args.text)])
    show(format_answer(answer))
    return answer


def finetune(argv, args, memory, workers):
    """Do the work of :func:`main` on each worker."""
    from bert.finetuning.inference import choose_casing
    from bert.finetuning.output import LOG
    from bert.finetuning.start import choose_start, finished_result
    from bert.training.update import contexts as find_contexts

    files = finetuned = None
    if args.only_inference:
        files = find_model(args)
        finetuned = find_finetuned(files, args)
        args = recall(argv, args, finetuned)
    logging.info(args)
    contexts = find_contexts(args.gpus or [workers.local_rank] * args.gpu)
    task = choose_task(args, finetuned)
    if args.resume:
        labels = workers.from_first(lambda: labels_of_run(args.output_dir, task))
        task = replace(task, labels=labels and tuple(labels))
    task, examples = read_task(task, not args.only_inference, args.dev_share)
    files = files or find_model(args)
    model, vocab = build_model(files, task, contexts, args)
    by_flag = args.do_lower_case or args.cased
    lower = choose_casing(files.model, vocab, args.do_lower_case if by_flag else None)
    datasets = encode_datasets(examples, vocab, lower, args.max_len)
    if args.class_weights:
        datasets['train'] = [with_weights(*datasets['train'], args.class_weights, task)]
    data = hash_data(datasets)
    workers.check_same('flags', fixed_flags(args))
    workers.check_same('sizes', model.bert.settings)
    workers.check_same('data', data)
    workers.broadcast_parameters(model)
    folder = Path(args.output_dir)
    with held(folder, workers):
        if args.only_inference:
            if workers.is_first:
                log_to_file(memory, folder / 'inference.log')
            predicted = predict_sets(model, datasets, task, contexts, workers, folder, args)
            return {'epochs': [], 'best_epoch': None, 'test': predicted}
        card = card_of_run(args, task, datasets, files.weights)
        output = open_output(folder, task, model, vocab, lower, contexts, data, workers, card, args)
        finished, saved = workers.from_first(
            lambda: choose_start(folder, task, output.identity, args.resume)
        )
        if finished:
            return workers.from_first(lambda: finished_result(folder, datasets['test']))
        history, position = output.begin(saved)
        if workers.is_first:
            log_to_file(memory, folder / LOG, append=bool(saved))
        train(model, datasets, task, contexts, workers, output, history, position, args)
        predicted = predict_sets(model, datasets, task, contexts, workers, folder, args)
        finished = workers.from_first(lambda: write_page(folder, task, examples, args, history))
        output.close(history, finished)
    return {'epochs': history.epochs, 'best_epoch': history.best_epoch, 'test': predicted}


def open_output(folder, task, model, vocab, lower, contexts, data, workers, card, args):
    """Return the :class:`Output` of a training run; ``data`` is from :func:`hash_data`."""
    from bert.finetuning.output import Output
    from bert.model.parameters import digest

    return Output(
        folder,
        task,
        {'settings': model.bert.settings, 'vocab': vocab, 'lower': lower},
        {**remembered_flags(args), **({NUMBER_LABELS: True} if task.number_labels else {})},
        identify(fixed_flags(args), contexts, data, digest(model), workers.count),
        # The states of MXNet's own optimizers differ in form; some hold more than arrays.
        can_resume=is_resumable(args.optimizer),
        workers=workers,
        task_name=args.task_name or task.name,
        tensorboard=args.tensorboard,
        card=card,
    )


def train(model, datasets, task, contexts, workers, output, history, position, args):
    """Train for an epoch and evaluate on the dev sets, in turns; keep the best epoch's parameters.

    Parameters
    ----------
    model : gluonnlp.model.BERTClassifier or bert.model.build.BERTRegression
    datasets : dict of str to list of bert.finetuning.data.Dataset
    task : bert.tasks.table.Task
    contexts : list of mxnet.Context
        This worker's devices.
    workers : bert.distributed.workers.Workers
    output : bert.finetuning.output.Output
    history : bert.finetuning.progress.History
        Each finished epoch is added to it.
    position : bert.finetuning.progress.Position
    """
    from bert.finetuning.evaluation import predict_all, report_metrics
    from bert.finetuning.output import STATES
    from bert.finetuning.progress import EpochProgress, Position, count_updates, log_training_set
    from bert.finetuning.step import gradients, loss_of

    (train_set,) = datasets['train']
    lengths = train_set.encoded.lengths
    rows_per_update = args.batch_size * args.accumulate * len(contexts) * workers.count
    counts = count_updates(len(train_set.labels), rows_per_update, args.epochs, args.training_steps)
    updater = build_updater(model, counts, contexts, workers, args)
    if position.step:
        updater.load(output.path / STATES, position.step)
    positive_weights = train_set.label_weights if task.is_multilabel else None
    loss_function = loss_of(task.num_classes, task.is_multilabel, positive_weights)

    def compute(rows):
        scale = updater.loss_scale.value
        return gradients(
            model, loss_function, train_set, rows, args.batch_size, contexts, scale, workers
        )

    with stop_signal(workers) as asked_to_stop:
        for epoch in range(len(history.epochs), counts.epochs):
            if args.early_stop and epoch - history.best_epoch >= args.early_stop:
                logging.info('no better dev metric for %d epochs: stopped', args.early_stop)
                break
            seen = EpochProgress(task, epoch + 1, train_set.labels.dtype, position, len(contexts))

            def check(seen=seen):
                signum = asked_to_stop()
                if signum:
                    output.stop_in_epoch(signum, updater, seen, history)

            with naming_step(lambda seen=seen: (seen.step, output.describe_saved(history))):
                rng = np.random.default_rng([args.seed, epoch])
                updates = training_batches(lengths, counts.rows_per_update, rng)
                if seen.step == 0:
                    log_training_set(lengths, updates, args.batch_size)
                first = epoch * counts.updates_per_epoch
                left = updates[: counts.total - first]
                train_epoch(left, first, compute, updater, seen, output, check, args)
                results = {}
                for dataset in datasets['dev']:
                    outputs = predict_all(
                        model, dataset, args.dev_batch_size, contexts, workers, check
                    )
                    results[dataset.split.dev_name] = report_metrics(dataset, outputs, task)
            seconds = time.monotonic() - seen.start
            logging.info('Time cost=%.1fs', seconds)
            history.epochs.append({**results, 'seconds': seconds})
            output.save_epoch(updater, seen.step, history)
            signum = asked_to_stop()
            if signum:
                output.stop(signum, f'epoch {epoch + 1}', history)
            position = Position(seen.step)
    output.load_best(model, history)


def build_updater(model, counts, contexts, workers, args):
    """Build the object that updates the weights, with the learning rate of each update."""
    from bert.training import update

    warmup = int(counts.total * args.warmup_ratio)
    trainer = update.build_trainer(
        model,
        args.optimizer,
        args.lr,
        args.epsilon,
        args.bias_correction,
        kvstore=workers.local_kvstore(args.kvstore),
    )
    return update.Updater(
        model,
        trainer,
        lambda step: schedule.learning_rate(step, args.lr, warmup, counts.total),
        args.dtype,
        args.seed,
        workers,
        adds_up=args.accumulate * len(contexts) > 1,
    )


def train_epoch(updates, first, compute, updater, seen, output, check, args):
    """Run the updates of an epoch, or those that are left.

    Parameters
    ----------
    updates : list of (N,) arrays of int
        The rows of each update.
    first : int
        How many updates come before this epoch.
    compute : function
        Takes the rows of an update, leaves the gradients in the parameters, and returns losses,
        outputs, labels and weights, batch by batch; see :func:`bert.finetuning.step.gradients`.
    updater : bert.training.update.Updater
    seen : bert.finetuning.progress.EpochProgress
    output : bert.finetuning.output.Output
    check : function
        Called after each update; it may end the program.
    """
    from bert.finetuning.progress import log_training

    done = seen.step - first
    with progress(len(updates), f'epoch {seen.epoch}', 'batch') as bar:
        bar.update(done)
        for number, rows in enumerate(updates[done:], done + 1):
            seen.step = first + number
            updater.begin(seen.step)
            computed = compute(rows)
            for batch in computed:
                seen.add(number, *batch)
            total = sum(weight for *_, weight in computed)
            rate = updater.finish(seen.step, total)
            if number % args.log_interval == 0:
                log_training(seen, number, len(updates), rate, output)
            bar.update()
            check()
    seen.finish()


def predict_sets(model, datasets, task, contexts, workers, folder, args):
    """Predict all dev and test sets, and write predictions and outputs.

    Returns
    -------
    list of str
        The names of the files with predictions.
    """
    from bert.finetuning.evaluation import predict_all, report_metrics

    outputs = {}
    for dataset in datasets['dev']:
        values = predict_all(model, dataset, args.dev_batch_size, contexts, workers)
        outputs[dataset.split.dev_name] = values
        if args.only_inference:
            report_metrics(dataset, values, task, log_result)
    for dataset in datasets['test']:
        values = predict_all(model, dataset, args.dev_batch_size, contexts, workers)
        outputs[dataset.test_name] = values
        if workers.is_first:
            write_test_predictions(
                folder, dataset.split, values, task, dataset.cells, args.probabilities
            )
    if workers.is_first:
        write_outputs(folder, outputs, task.labels)
    return [predictions_path(folder, dataset.split).name for dataset in datasets['test']]


if __name__ == '__main__':
    run(main)
