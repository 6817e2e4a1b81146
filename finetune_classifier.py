#!/usr/bin/env python3
"""Fine-tune BERT on a GLUE task, or on your own labelled text, and predict with the result."""

import logging
import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert.checkpoints import reading
from bert.checkpoints.contents import Location
from bert.checkpoints.source import is_parameter_file, locate
from bert.cli.console import log_to_file, progress
from bert.cli.program import run
from bert.finetuning.data import encode_datasets, hash_data, read_examples
from bert.finetuning.flags import build_flags, parse_args, recall
from bert.system.errors import UsageError
from bert.tasks import metrics
from bert.tasks.files import find_labels
from bert.tasks.predictions import measure, predictions_path, write_outputs, write_test_predictions
from bert.tasks.table import TASKS, own_task
from bert.text.encoding import pad_batch
from bert.training import batches, devices, schedule
from bert.training.failures import naming_step
from bert.training.folder import identify
from bert.training.run import started, stop_signal


def main(argv=None):
    """Fine-tune, evaluate and predict.

    Returns
    -------
    dict
        ``epochs``: the dev metrics and seconds of each epoch; ``best_epoch``, counted from 1;
        ``test``: the names of the files with predictions.
    """
    args = parse_args(argv)
    with started(args.kvstore, args.dtype) as (memory, workers):
        return finetune(argv, args, memory, workers)


def finetune(argv, args, memory, workers):
    """Do what :func:`main` does, on each worker."""
    from bert.finetuning.output import LOG, Output, choose_start, finished_result
    from bert.model.parameters import digest
    from bert.training.update import contexts as find_contexts

    files = labels = None
    if args.only_inference:
        files = find_model(args)
        finetuned = reading.read_finetuned(files.model) if names_model(args) else None
        args = recall(argv, args, finetuned)
        labels = finetuned and finetuned['labels']
    logging.info(args)
    contexts = find_contexts(args.gpus or [workers.local_rank] * args.gpu)
    task = choose_task(args, labels)
    examples = read_examples(task, with_training=not args.only_inference)
    files = files or find_model(args)
    model, vocab = build_model(files, task, contexts, args)
    lower = choose_casing(files.model, vocab, args)
    datasets = encode_datasets(examples, vocab, lower, args.max_len)
    workers.broadcast_parameters(model)
    flags = {n: v for n, v in vars(args).items() if n not in build_flags().with_role('may_change')}
    data = hash_data(datasets)
    workers.check_same('flags', flags)
    workers.check_same('data', data)

    folder = Path(args.output_dir)
    if workers.is_first:
        folder.mkdir(parents=True, exist_ok=True)
    if args.only_inference:
        if workers.is_first:
            log_to_file(memory, folder / 'inference.log')
        result = {'epochs': [], 'best_epoch': None}
    else:
        identity = identify(flags, contexts, data, digest(model), workers.count)
        finished, saved = workers.from_first(lambda: choose_start(folder, identity, args.resume))
        if finished:
            return workers.from_first(lambda: finished_result(folder, datasets['test']))
        output = Output(
            folder,
            task,
            {'settings': model.bert.settings, 'vocab': vocab, 'lower': lower},
            {name: getattr(args, name) for name in build_flags().with_role('remembered')},
            identity,
            # The states of MXNet's own optimizers differ in form; some have more than arrays.
            can_resume=args.optimizer.lower() == 'bertadam',
            workers=workers,
        )
        history, position = output.begin(saved)
        if workers.is_first:
            log_to_file(memory, folder / LOG, append=bool(saved))
        train(model, datasets, task, contexts, workers, output, history, position, args)
        result = {'epochs': history.epochs, 'best_epoch': history.best_epoch}
    result['test'] = predict_sets(model, datasets, task, contexts, workers, folder, args)
    if not args.only_inference:
        output.close(history)
    return result


class ModelFiles(NamedTuple):
    """Where the parts of the model are."""

    model: Location  # sizes, vocabulary and casing
    weights: Location  # the same, or that of a file with weights alone


def find_model(args):
    """Find the model that the flags name, and fetch it if need be.

    Sizes, vocabulary and casing come with the weights. Only a file has weights alone: the others
    are those of --bert_model.
    """
    parameters = args.pretrained_bert_parameters or args.model_parameters
    if parameters and is_parameter_file(parameters):
        model = locate(args.bert_model, args.bert_dataset, with_weights=False)
        return ModelFiles(model, locate(parameters))
    location = locate(parameters or args.bert_model, args.bert_dataset)
    return ModelFiles(location, location)


def names_model(args):
    """Tell whether sizes, vocabulary and casing are those of --bert_model."""
    parameters = args.pretrained_bert_parameters or args.model_parameters
    return not parameters or is_parameter_file(parameters)


def choose_task(args, labels):
    """Return the task: one of GLUE, or the user's own.

    Parameters
    ----------
    labels : list of str or None
        Those of a fine-tuned model that predicts on own data; None: a number.
    """
    if args.task_name:
        return TASKS[args.task_name]
    if not args.only_inference and not args.regression:
        labels = find_labels(args.train_file, args.label_column)
    return own_task(
        train=args.train_file,
        dev=args.dev_file,
        test=args.test_file,
        text_columns=args.text_columns,
        label_column=args.label_column,
        regression=labels is None,
        metric=args.metric,
        labels=labels,
    )


def build_model(files, task, contexts, args):
    """Build BERT with a head for the task, and load its weights.

    Returns
    -------
    gluonnlp.model.BERTClassifier or bert.model.build.BERTRegression, gluonnlp.vocab.BERTVocab
    """
    from bert.model.build import build_head, cast
    from bert.model.loading import build_located
    from bert.model.parameters import set_encoder, set_finetuned
    from bert.training import update

    update.seed_step(args.seed, 0)
    weights = None
    if files.weights is files.model:
        weights = reading.read_weights(files.weights)
    bert, vocab = build_located(files.model, contexts, weights)
    if args.max_len > bert.settings['max_length']:
        raise UsageError(
            f'--max_len {args.max_len} is more than the {bert.settings["max_length"]} positions '
            'of this model'
        )
    if weights is None:
        reading.check_vocab(files.weights, vocab)
        weights = reading.read_weights(files.weights)
    is_finetuned = args.only_inference or args.model_parameters
    if not is_finetuned:
        set_encoder(bert, weights)
    model = build_head(bert, None if task.is_regression else len(task.labels), contexts)
    if is_finetuned:
        labels = reading.read_labels(files.weights, weights)[0] if weights.head else None
        set_finetuned(model, weights, labels, task.labels)
    cast(model, args.dtype)
    model.hybridize(static_alloc=True)
    return model, vocab


def choose_casing(location, vocab, args):
    """Decide whether to lower-case the text, and log why."""
    if args.do_lower_case or args.cased:
        lower, reason = args.do_lower_case, 'by its flag'
    else:
        lower, reason = reading.read_casing(location, vocab)
    logging.info('the text is %s, %s', 'lower-cased' if lower else 'kept as it is', reason)
    return lower


def train(model, datasets, task, contexts, workers, output, history, position, args):
    """Train: an epoch, then the dev sets, until the updates are done.

    At the end the model has the parameters of the best epoch.

    Parameters
    ----------
    model : gluonnlp.model.BERTClassifier or bert.model.build.BERTRegression
    datasets : dict of str to list of bert.finetuning.data.Dataset
    task : bert.tasks.table.Task
    contexts : list of mxnet.Context
        This worker's.
    workers : bert.distributed.workers.Workers
    output : bert.finetuning.output.Output
    history : bert.finetuning.progress.History
        It grows.
    position : bert.finetuning.progress.Position
        Where to begin.
    """
    from bert.finetuning import step
    from bert.finetuning.output import STATES
    from bert.finetuning.progress import EpochProgress, Position
    from bert.training import update

    (train_set,) = datasets['train']
    parts = args.accumulate * len(contexts)
    rows_per_update = args.batch_size * parts * workers.count
    updates_per_epoch = math.ceil(len(train_set.labels) / rows_per_update)
    total = args.training_steps or args.epochs * updates_per_epoch
    warmup = int(total * args.warmup_ratio)

    trainer = update.build_trainer(
        model,
        args.optimizer,
        args.lr,
        args.epsilon,
        args.bias_correction,
        kvstore=workers.local_kvstore(args.kvstore),
    )
    updater = update.Updater(
        model,
        trainer,
        lambda number: schedule.learning_rate(number, args.lr, warmup, total),
        args.dtype,
        args.seed,
        workers,
        adds_up=parts > 1,
    )
    if position.step:
        updater.load(output.path / STATES, position.step)
    loss_function = step.loss_of(None if task.is_regression else len(task.labels))

    def compute(rows):
        scale = updater.loss_scale.value
        return step.gradients(
            model, loss_function, train_set, rows, args.batch_size, contexts, scale, workers
        )

    with stop_signal(workers) as asked_to_stop:
        for epoch in range(len(history.epochs), math.ceil(total / updates_per_epoch)):
            if args.early_stop and epoch - history.best_epoch >= args.early_stop:
                logging.info('no better dev metric for %d epochs: stopped', args.early_stop)
                break
            seen = EpochProgress(task, epoch + 1, train_set.labels.dtype, position, len(contexts))
            updates = epoch_updates(train_set.encoded.lengths, rows_per_update, epoch, args)

            def check(seen=seen):
                signum = asked_to_stop()
                if signum:
                    output.stop_in_epoch(signum, updater, seen, history)

            with naming_step(lambda seen=seen: (seen.step, output.describe_saved(history))):
                first = epoch * updates_per_epoch
                train_epoch(
                    updates[: total - first], first, compute, updater, seen, output, check, args
                )
                results = {}
                for dataset in datasets['dev']:
                    outputs = predict_all(model, dataset, contexts, workers, args, check)
                    results[dataset.dev_name] = report_metrics(dataset, outputs, task)
            seconds = time.time() - seen.start
            logging.info('Time cost=%.1fs', seconds)
            history.epochs.append({**results, 'seconds': seconds})
            output.save_epoch(updater, seen.step, history)
            signum = asked_to_stop()
            if signum:
                output.stop(signum, f'epoch {epoch + 1}', history)
            position = Position(seen.step)
    if task.dev:
        best = history.dev_metrics(history.epochs[history.best_epoch - 1])
        logging.info('Best epoch %d: %s', history.best_epoch, metrics.describe(best))
    output.load_best(model, history)


def epoch_updates(lengths, rows_per_update, epoch, args):
    """Choose the rows of each update of an epoch.

    Returns
    -------
    list of (N,) arrays of int
    """
    from bert.finetuning.step import micro_batches

    rng = np.random.default_rng([args.seed, epoch])
    updates = batches.training_batches(lengths, rows_per_update, rng)
    if epoch == 0:
        share = batches.padding_share(lengths, micro_batches(updates, args.batch_size))
        logging.info(
            'training on %d rows, %d updates an epoch, %.1f%% padding',
            len(lengths),
            len(updates),
            100 * share,
        )
    return updates


def train_epoch(updates, first, compute, updater, seen, output, check, args):
    """Do the updates of an epoch, or those that are left.

    Parameters
    ----------
    updates : list of (N,) arrays of int
        The rows of each.
    first : int
        How many updates come before this epoch.
    compute : function
        From the rows of an update to losses, outputs and labels, batch by batch, which leaves the
        gradients in the parameters; see :func:`bert.finetuning.step.gradients`.
    updater : bert.training.update.Updater
    seen : bert.finetuning.progress.EpochProgress
    output : bert.finetuning.output.Output
    check : function
        Called after each update; it may end the program.
    """
    done = seen.step - first
    with progress(len(updates), f'epoch {seen.epoch}', 'batch') as bar:
        bar.update(done)
        for number, rows in enumerate(updates[done:], done + 1):
            seen.step = first + number
            updater.begin(seen.step)
            for loss, outputs, labels in compute(rows):
                seen.add(number, loss, outputs, labels)
            rate = updater.finish(seen.step, len(rows))
            if number % args.log_interval == 0:
                log_training(seen, number, len(updates), rate, output)
            bar.update()
            check()
    seen.late.finish()


def log_training(seen, number, count, rate, output):
    """Log a line in the original's form, and one for programs."""
    loss, values = seen.take()
    logging.info(
        '[Epoch %d Batch %d/%d] loss=%.4f, lr=%.7f, metrics=%s',
        seen.epoch,
        number,
        count,
        loss,
        rate,
        metrics.describe(values),
    )
    output.write_line({'epoch': seen.epoch, 'step': seen.step, 'loss': loss, 'lr': rate, **values})


def report_metrics(dataset, outputs, task):
    """Log the metrics of a dev set in the original's form, MNLI's two sets by name.

    Returns
    -------
    dict of str to float
    """
    values = measure(outputs, dataset.labels, task)
    name = f' ({dataset.split.name})' if dataset.split.name else ''
    logging.info('validation metrics%s:%s', name, metrics.describe(values))
    return values


def predict_all(model, dataset, contexts, workers, args, check=lambda: None):
    """Compute the outputs (N, classes) for a set, in its order; the workers share the work.

    Batches are sorted by length. ``check`` is called after each round of the workers.
    """
    from bert.finetuning.step import predict

    chosen = batches.evaluation_batches(dataset.encoded.lengths, args.dev_batch_size)
    outputs = []
    late = devices.Late(
        lambda values: outputs.append(values.asnumpy()), devices.IN_FLIGHT * len(contexts)
    )
    with progress(len(chosen), dataset.split.path, 'batch') as bar:
        for number, rows in enumerate(chosen):
            bar.update()
            ctx = devices.take_turns(number, contexts, workers)
            if ctx:
                late.add(predict(model, pad_batch(dataset.encoded, rows), ctx))
            if number % workers.count == workers.count - 1:
                check()
    late.finish()
    classes = max(workers.gather_numbers(outputs[0].shape[1] if outputs else 0))
    ordered = np.zeros((len(dataset.encoded.lengths), classes), np.float32)
    for rows, values in zip(workers.share(chosen), outputs):
        ordered[rows] = values
    return workers.sum_numpy(ordered)


def predict_sets(model, datasets, task, contexts, workers, folder, args):
    """Predict all dev and test sets, and write predictions and outputs.

    Returns
    -------
    list of str
        The names of the files with predictions.
    """
    outputs = {}
    for dataset in datasets['dev']:
        values = outputs[dataset.dev_name] = predict_all(model, dataset, contexts, workers, args)
        if args.only_inference:
            report_metrics(dataset, values, task)
    for dataset in datasets['test']:
        values = outputs[dataset.test_name] = predict_all(model, dataset, contexts, workers, args)
        if workers.is_first:
            write_test_predictions(folder, dataset.split, values, task)
    if workers.is_first:
        write_outputs(folder, outputs)
    return [predictions_path(folder, dataset.split).name for dataset in datasets['test']]


if __name__ == '__main__':
    run(main)
