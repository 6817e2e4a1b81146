#!/usr/bin/env python3
"""Fine-tune BERT on a GLUE task, or on your own labelled text, and predict with the result."""

import contextlib
import functools
import hashlib
import json
import logging
import math
import shutil
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np

import bert
from bert.cli import (
    Stopped,
    ToolkitError,
    UsageError,
    add_device_flags,
    add_kvstore_flag,
    build_parser,
    fraction,
    log_to_file,
    positive_float,
    positive_int,
    progress,
    run,
    seed,
    start_logging,
    stop_requests,
)
from bert.files import append_line, read_json, read_text, replacing, write_json, write_text

EPILOG = """\
examples:
  GLUE_DIR=glue_data finetune_classifier.py --task_name MRPC --batch_size 32 --lr 2e-5
  finetune_classifier.py --train_file train.csv --dev_file dev.csv \\
      --text_columns question answer --label_column good --bert_model DIR
  finetune_classifier.py --only_inference --bert_model output_dir --test_file new.csv \\
      --output_dir answers
"""

# What a fine-tuned model remembers of its flags, so that --only_inference need not be told.
REMEMBERED = ('task_name', 'text_columns', 'label_column', 'regression', 'metric', 'max_len')

# What the model gives for each row of the dev and test sets, by the name of the set (dev, matched,
# MRPC, MNLI-m): glue.py makes its reports and submissions of it.
OUTPUTS = 'outputs.npz'

# In --output_dir while a run is not finished: what --resume goes on from; see bert.resume.
STATES = 'resume'
LOG = 'finetune.log'
METRICS = 'metrics.jsonl'

# Flags that another start of the same run may have otherwise. What the files hold that they name,
# and what the devices are, is compared itself.
FREE = (
    'bert_dataset bert_model cased dev_file do_lower_case gpu gpus kvstore model_parameters '
    'output_dir pretrained_bert_parameters resume test_file train_file'
).split()

# Losses are read this many batches late, so that the devices always have work waiting.
IN_FLIGHT = 2


def parse_args(argv=None):
    """The flags, checked as far as that goes without reading a file of data."""
    parser = build_flags()
    args = parser.parse_args(argv)
    if args.only_inference and bert.source.is_finetuned(args.bert_model):
        remembered = bert.source.read_finetuned(args.bert_model)['flags']
        if args.task_name:
            # Another task than it was trained on: only the length still says something.
            remembered = {'max_len': remembered.get('max_len')}
        elif args.test_file or args.dev_file:
            remembered.pop('task_name', None)
        elif not remembered.get('task_name'):
            raise UsageError(
                f'--only_inference with {args.bert_model}, which was trained on own data, needs a '
                '--dev_file or a --test_file'
            )
        parser.set_defaults(**remembered)
        args = parser.parse_args(argv)
    check_args(args)
    return args


def build_flags():
    """The argument parser."""
    parser = build_parser(__doc__, epilog=EPILOG)

    data = parser.add_argument_group('data')
    data.add_argument(
        '--task_name',
        choices=[*bert.tasks.TASKS, *bert.tasks.OTHER_NAMES],
        help='GLUE task; its files are in the folder that the variable GLUE_DIR names '
        '(default: MRPC)',
    )
    data.add_argument('--train_file', help='own data in place of a GLUE task: .tsv, .csv or .jsonl')
    data.add_argument('--dev_file', help='own data to evaluate on after each epoch')
    data.add_argument('--test_file', help='own data to predict; needs no labels')
    data.add_argument(
        '--text_columns', nargs='+', metavar='NAME', help='the one or two columns with the text'
    )
    data.add_argument('--label_column', metavar='NAME', help='the column with the label')
    data.add_argument(
        '--regression', action='store_true', help='the label is a number, not a class'
    )
    data.add_argument(
        '--metric',
        nargs='+',
        choices=bert.metrics.METRICS,
        help='metrics for own data; the first one chooses the best epoch '
        '(default: accuracy, or pearsonr spearmanr)',
    )
    data.add_argument(
        '--max_len',
        type=positive_int,
        default=128,
        help='tokens of a sentence or pair at most, with the special ones',
    )

    model = parser.add_argument_group('model')
    model.add_argument(
        '--bert_model',
        default='bert_12_768_12',
        help='model of the GluonNLP zoo or of the Hugging Face Hub (OWNER/MODEL); or a directory: '
        'in Hugging Face layout, in that of bert.convert, with a TensorFlow checkpoint of Google, '
        'or an --output_dir of this script',
    )
    model.add_argument(
        '--bert_dataset',
        default='book_corpus_wiki_en_uncased',
        help="what the zoo's model was pre-trained on",
    )
    model.add_argument(
        '--pretrained_bert_parameters',
        metavar='SOURCE',
        help='other BERT weights: a Gluon .params file for the vocabulary of --bert_model; or what '
        '--bert_model takes, which then comes with sizes, vocabulary and casing in its place',
    )
    model.add_argument(
        '--model_parameters',
        metavar='SOURCE',
        help='the same of a fine-tuned model, classifier included',
    )
    casing = model.add_mutually_exclusive_group()
    casing.add_argument(
        '--do_lower_case',
        action='store_true',
        help='lower-case the text, whatever the model says of itself',
    )
    casing.add_argument(
        '--cased', action='store_true', help='keep capitals, whatever the model says of itself'
    )

    training = parser.add_argument_group('training')
    training.add_argument('--epochs', type=positive_int, default=3, help='passes over the data')
    training.add_argument(
        '--training_steps', type=positive_int, help='updates in all, in place of --epochs'
    )
    training.add_argument(
        '--early_stop',
        type=positive_int,
        metavar='EPOCHS',
        help='stop after as many epochs without a better dev metric',
    )
    training.add_argument(
        '--batch_size', type=positive_int, default=32, help='rows a batch, on each device'
    )
    training.add_argument(
        '--accumulate',
        type=positive_int,
        default=1,
        help='batches whose gradients are added up before an update',
    )
    training.add_argument(
        '--optimizer', default='bertadam', help="bertadam, or the name of one of MXNet's"
    )
    training.add_argument('--lr', type=positive_float, default=5e-5, help='peak learning rate')
    training.add_argument(
        '--epsilon', type=positive_float, default=1e-6, help="the optimizer's epsilon"
    )
    training.add_argument(
        '--bias_correction', action='store_true', help="add Adam's bias correction to bertadam"
    )
    training.add_argument(
        '--warmup_ratio',
        type=fraction,
        default=0.1,
        help='share of the updates in which the learning rate rises',
    )
    training.add_argument('--seed', type=seed, default=2, help='of the order, head and dropout')
    add_device_flags(training)
    add_kvstore_flag(training)

    output = parser.add_argument_group('evaluation and output')
    output.add_argument(
        '--dev_batch_size', type=positive_int, default=8, help='rows a batch in evaluation'
    )
    output.add_argument(
        '--only_inference',
        action='store_true',
        help='no training: evaluate and predict with --model_parameters, or with a --bert_model '
        'that this script made',
    )
    output.add_argument(
        '--log_interval', type=positive_int, default=10, help='updates between log lines'
    )
    output.add_argument('--output_dir', default='./output_dir', help='where results go')
    output.add_argument(
        '--resume',
        action='store_true',
        help='go on where the run in --output_dir stood, if there is one; its flags must be given',
    )
    return parser


def check_args(args):
    """Refuse flags that contradict each other, and fill in what follows from the others."""
    own = [name for name in ('train_file', 'dev_file', 'test_file') if getattr(args, name)]
    if own and args.task_name:
        raise UsageError(f'--task_name and --{own[0]} exclude each other')
    if own:
        check_own_data(args)
    else:
        args.task_name = args.task_name or 'MRPC'
        args.task_name = bert.tasks.OTHER_NAMES.get(args.task_name, args.task_name)
        for name in ('text_columns', 'label_column', 'regression', 'metric'):
            if getattr(args, name):
                raise UsageError(f'--{name} goes with own data, such as --train_file')
    if args.pretrained_bert_parameters and args.model_parameters:
        raise UsageError('--pretrained_bert_parameters and --model_parameters exclude each other')
    if args.model_parameters and bert.source.is_zoo_model(args.model_parameters):
        raise UsageError(f'--model_parameters {args.model_parameters}: it has no classifier')
    if (
        args.only_inference
        and not args.model_parameters
        and not bert.source.is_finetuned(args.bert_model)
    ):
        raise UsageError(
            '--only_inference needs --model_parameters, or a --bert_model that this script made'
        )
    if args.resume and args.only_inference:
        raise UsageError('--resume goes with training, not with --only_inference')
    if args.resume and args.optimizer.lower() != 'bertadam':
        raise UsageError(
            f"--resume goes with --optimizer bertadam: the state of MXNet's {args.optimizer} "
            'is not saved'
        )
    shortest = 3 if own and len(args.text_columns) == 1 else 5
    if args.max_len < shortest:
        raise UsageError(f'--max_len {args.max_len} leaves no room for text: {shortest} at least')
    bert.environment.check_dtype(args.dtype, on_gpu=bool(args.gpu or args.gpus))
    bert.distributed.check_flags(args)


def check_own_data(args):
    """Refuse incomplete flags for own data."""
    if not args.text_columns or len(args.text_columns) > 2:
        raise UsageError('own data needs --text_columns with one or two names')
    if not args.label_column and (args.train_file or args.dev_file):
        raise UsageError('--train_file and --dev_file need --label_column')
    if args.only_inference:
        if args.train_file or not bert.source.is_finetuned(args.bert_model):
            raise UsageError(
                '--only_inference on own data takes --dev_file and --test_file, and a '
                '--bert_model that this script made, which remembers the labels'
            )
    elif not args.train_file:
        raise UsageError('own data needs a --train_file, or --only_inference')
    elif args.early_stop and not args.dev_file:
        raise UsageError('--early_stop needs a --dev_file')


class Dataset(NamedTuple):
    """One split of a task, ready to be batched."""

    split: object  # a bert.tasks.Split
    encoded: object  # a bert.transform.Encoded
    labels: object  # (N,) array or None


def main(argv=None):
    """Fine-tune, evaluate and predict.

    Returns
    -------
    dict
        ``epochs``: the dev metrics and seconds of each epoch; ``best_epoch``, counted from 1;
        ``test``: the names of the files with predictions.
    """
    args = parse_args(argv)
    bert.environment.check_mxnet()
    if args.dtype == 'bfloat16':
        bert.environment.prepare_bfloat16()
    memory = start_logging()
    with bert.distributed.joined(args.kvstore) as workers:
        return finetune(args, memory, workers)


def finetune(args, memory, workers):
    """The part of :func:`main` that every worker does."""
    logging.info(args)
    contexts = bert.training.contexts(args.gpus or [workers.local_rank] * args.gpu)
    task, examples = read_task(args)
    model, vocab = build_model(args, task, contexts)
    lower = choose_casing(args, vocab)
    datasets = encode_datasets(examples, vocab, lower, args.max_len)
    workers.broadcast_parameters(model)
    data = hash_data(datasets)
    workers.check_same('flags', bert.distributed.common_flags(args, FREE))
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


def hash_data(datasets):
    """A hash of each set, by name."""
    data = {}
    for name, sets in datasets.items():
        for number, dataset in enumerate(sets):
            rows = dataset.encoded
            found = hashlib.sha256()
            for array in (*rows.ids, rows.first_lengths, rows.lengths, dataset.labels):
                found.update(b'' if array is None else np.ascontiguousarray(array))
            data[f'{name} {number}'] = found.hexdigest()
    return data


def identify(model, data, contexts, workers, args):
    """All that decides what a run gives; where it is the same, another start can go on with it.

    Returns
    -------
    dict
        Fit for JSON: ``flags``, ``devices``, ``data``, see :func:`hash_data`, and ``weights``, a
        hash of those before the first step.
    """
    flags = bert.distributed.common_flags(args, FREE)
    # Batches of an update on each device: it does not matter on how many workers.
    flags['accumulate'] *= workers.count
    return {
        'flags': flags,
        'devices': [str(ctx) for ctx in contexts],
        'data': data,
        'weights': bert.resume.digest(model),
    }


def choose_start(output, identity, resume):
    """Where to begin, with regard to what the folder holds of an earlier run, which is told.

    Returns
    -------
    bool, dict or None
        Whether the run is finished already; what :meth:`Saver.save_state` saved of one that is
        to go on.

    Raises
    ------
    UsageError
        If ``resume`` is asked for and the run there is another one.
    """
    description = output / bert.source.FINETUNED
    earlier = read_json(description) if description.is_file() else {}
    if 'run' in earlier:
        if resume:
            require_same(earlier['run'], identity, output)
            logging.info('the run in %s is finished: nothing is left to do', output)
        else:
            logging.info('the finished run in %s is replaced', output)
        return resume, None
    step = bert.resume.newest_step(output / STATES)
    if not step:
        if resume:
            logging.info('--resume: no epoch is complete in %s, the run begins anew', output)
        elif earlier.get('epochs'):
            logging.info('the fine-tuned model in %s is replaced', output)
        return False, None
    saved = bert.resume.read_progress(output / STATES, step)
    if resume:
        require_same(saved['run'], identity, output)
    epochs = len(saved['epochs'])
    where = f'step {step}, in epoch {epochs + 1},' if saved['seen'] else f'epoch {epochs}'
    logging.info(
        '%s of an earlier run is complete; --resume goes on from there%s',
        where,
        '' if resume else ', but without it this run starts anew',
    )
    return False, saved if resume else None


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


def finished_result(output, test):
    """What :func:`main` returned at the end of a finished run."""
    description = read_json(output / bert.source.FINETUNED)
    return {
        **{name: description[name] for name in ('epochs', 'best_epoch')},
        'test': [predictions_path(output, dataset.split).name for dataset in test],
    }


def read_task(args):
    """The task and the examples of its files.

    Returns
    -------
    bert.tasks.Task, dict of str to list of (Split, Examples)
        Under ``train``, ``dev`` and ``test``. Of a GLUE task the test sets that are there.
    """
    if args.task_name:
        task = bert.tasks.TASKS[args.task_name]
        folder = bert.datasets.glue_folder()

        def read(split):
            return bert.datasets.read_glue(folder, task, split)

        test = [split for split in task.test if (folder / split.path).is_file()]
    else:
        labels = None
        if args.only_inference:
            labels = bert.source.read_finetuned(args.bert_model)['labels']
            args.regression = labels is None
        elif not args.regression:
            labels = bert.datasets.find_labels(args.train_file, args.label_column)
        task = bert.tasks.own_task(args, labels)

        def read(split):
            return bert.datasets.read_own(task, split)

        test = task.test
    train = [] if args.only_inference else [task.train]
    return task, {
        name: [(split, read(split)) for split in splits]
        for name, splits in [('train', train), ('dev', task.dev), ('test', test)]
    }


def build_model(args, task, contexts):
    """BERT with a head for the task, its weights loaded, and the vocabulary."""
    bert.training.seed_step(args.seed, 0)
    parameters = args.pretrained_bert_parameters or args.model_parameters
    source = whole_model(args)
    encoder, vocab = bert.model.load_bert(
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
        bert.checkpoint.check_vocab(parameters, vocab)
    if args.pretrained_bert_parameters and source != parameters:
        bert.model.load_encoder(encoder, parameters)
    num_classes = None if task.is_regression else len(task.labels)
    model = bert.model.build_head(encoder, num_classes, contexts)
    if args.model_parameters or args.only_inference:
        finetuned = args.model_parameters or args.bert_model
        bert.model.load_finetuned(model, finetuned, task.labels)
    bert.model.cast(model, args.dtype)
    model.hybridize(static_alloc=True)
    return model, vocab


def whole_model(args):
    """The source of sizes, vocabulary and casing: they come with the weights.

    A file has weights alone, so that the others are those of ``--bert_model``.
    """
    parameters = args.pretrained_bert_parameters or args.model_parameters
    if not parameters or bert.source.is_parameter_file(parameters):
        return args.bert_model
    return parameters


def choose_casing(args, vocab):
    """Whether to lower-case the text."""
    if args.do_lower_case or args.cased:
        lower, reason = args.do_lower_case, 'by its flag'
    else:
        lower, reason = bert.model.is_lower_case(whole_model(args), args.bert_dataset, vocab)
    logging.info('the text is %s, %s', 'lower-cased' if lower else 'kept as it is', reason)
    return lower


def encode_datasets(examples, vocab, lower, max_len):
    """Tokenize every file once."""
    tokenizer = bert.tokenizer.build_tokenizer(vocab, lower)
    return {
        name: [
            Dataset(
                split, bert.transform.encode(rows.texts, tokenizer, vocab, max_len), rows.labels
            )
            for split, rows in sets
        ]
        for name, sets in examples.items()
    }


def train(model, datasets, task, contexts, workers, saver, position, args):
    """The fine-tuning loop: an epoch, then the dev sets, until the updates are done.

    Parameters
    ----------
    contexts : list of mxnet.Context
        This worker's.
    workers : bert.distributed.Workers
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

    trainer = bert.training.build_trainer(
        model,
        args.optimizer,
        args.lr,
        args.epsilon,
        args.bias_correction,
        kvstore=workers.local_kvstore(args.kvstore),
    )
    if adds_up:
        bert.training.accumulate_gradients(model)
    loop = Loop(
        model=model,
        trainer=trainer,
        parameters=bert.training.trainable(model),
        loss_function=bert.training.loss_of(None if task.is_regression else len(task.labels)),
        loss_scale=bert.training.LossScale(args.dtype),
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
            with bert.training.naming_step(seen):
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


class Position(NamedTuple):
    """How far a run has come."""

    step: int  # updates since its beginning
    seconds: float = 0.0  # of the epoch that it is in
    seen: dict = None  # see Seen.state; None at the border of two epochs


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
    batches = bert.batches.training_batches(lengths, loop.rows_per_update, rng)
    if seen.step == 0:
        share = bert.batches.padding_share(lengths, micro_batches(batches, args.batch_size))
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
            rate = bert.schedule.learning_rate(
                step, args.lr, loop.warmup_updates, loop.total_updates
            )
            seen.step = step
            bert.training.seed_step(args.seed, step, loop.workers.rank)
            for loss, outputs, labels in gradients(loop, train_set, rows, args.batch_size):
                seen.add(number, loss, outputs, labels)
            bert.training.update(
                loop.trainer, loop.parameters, len(rows), rate, loop.loss_scale, loop.workers
            )
            if loop.adds_up:
                bert.training.clear_gradients(loop.model)
            if number % args.log_interval == 0:
                loss, metrics = seen.take()
                log_training(epoch, number, len(batches), step, loss, rate, metrics, saver)
            bar.update()
            check()
    seen.read_all()


def micro_batches(batches, batch_size):
    """Cut the rows of each update into batches that fit a device."""
    return [
        rows[start : start + batch_size]
        for rows in batches
        for start in range(0, len(rows), batch_size)
    ]


def gradients(loop, dataset, rows, batch_size):
    """Forward and backward over the rows of one update, spread over workers and devices.

    Yields
    ------
    (1,) sum of losses, (B, classes) outputs, (B,) labels
        A batch each, those of all workers.
    """
    workers = loop.workers
    parts = micro_batches([rows], batch_size)
    rounds = [parts[i : i + workers.count] for i in range(0, len(parts), workers.count)]
    idle = [[]] * (len(loop.contexts) - len(rounds))
    for number, together in enumerate(rounds + idle):
        # Each device of each worker must compute something, or MXNet takes its gradients for
        # stale ones; where rows are short, it does the first row once more, at weight 0.
        (part,) = workers.share(together) or [rows[:1]]
        loss, outputs = bert.training.forward_backward(
            loop.model,
            loop.loss_function,
            bert.transform.pad_batch(dataset.encoded, part),
            dataset.labels[part],
            loop.contexts[number % len(loop.contexts)],
            loop.loss_scale.value if workers.rank < len(together) else 0,
        )
        if not together:
            continue
        losses = workers.gather([loss], len(together), (1,))
        all_outputs = workers.gather([outputs], len(together), (batch_size, outputs.shape[1]))
        for part, loss, outputs in zip(together, losses, all_outputs):
            yield loss, outputs[: len(part)], dataset.labels[part]


class Seen:
    """An epoch so far: the loss since the last log line, the metrics since its beginning.

    Parameters
    ----------
    saver : Saver
    dtype : numpy.dtype
        Of the labels.
    position : Position
        Where the run stands.
    """

    def __init__(self, saver, dtype, position):
        self.saver = saver
        self.kept = saver.kept
        self.task = saver.task
        self.step = position.step
        self.start = time.time() - position.seconds
        self.pending = deque()
        saved = position.seen or {'loss': 0.0, 'rows': 0, 'labels': [], 'predictions': []}
        self.loss, self.rows = saved['loss'], saved['rows']
        self.labels = [np.array(saved['labels'], dtype)]
        kind = np.float32 if self.task.is_regression else np.int64
        self.predictions = [np.array(saved['predictions'], kind)]

    def state(self):
        """What another process needs to go on, fit for JSON."""
        self.read_all()
        return {
            'loss': self.loss,
            'rows': self.rows,
            'labels': np.concatenate(self.labels).tolist(),
            'predictions': np.concatenate(self.predictions).tolist(),
        }

    def add(self, number, loss, outputs, labels):
        """Remember one batch, of the update of this number; it is read some batches later."""
        self.pending.append((number, loss, outputs, labels))
        if len(self.pending) > IN_FLIGHT * self.saver.devices:
            self.read()

    def read(self):
        """Wait for the oldest batch that was not read yet, and stop if its loss has run away."""
        number, loss, outputs, labels = self.pending.popleft()
        loss = float(loss.asscalar())
        if not math.isfinite(loss):
            raise ToolkitError(
                f'the loss is {loss} at epoch {len(self.saver.epochs) + 1}, batch {number}: try a '
                f'lower --lr or a longer --warmup_ratio; {self.kept()}'
            )
        self.loss += loss
        self.rows += len(labels)
        self.labels.append(labels)
        self.predictions.append(decide(outputs.asnumpy(), self.task))

    def read_all(self):
        """Wait for all batches."""
        while self.pending:
            self.read()

    def take(self):
        """Mean loss of a row since the last call, and the metrics."""
        self.read_all()
        loss, self.loss, self.rows = self.loss / self.rows, 0.0, 0
        metrics = bert.metrics.compute(
            self.task.metrics, np.concatenate(self.labels), np.concatenate(self.predictions)
        )
        return loss, metrics


def decide(outputs, task):
    """Class ids, or numbers, from the (N, classes) outputs of a model."""
    return outputs[:, 0] if task.is_regression else outputs.argmax(axis=1)


def log_training(epoch, number, count, step, loss, rate, metrics, saver):
    """A line in the original's form, and one for programs."""
    logging.info(
        '[Epoch %d Batch %d/%d] loss=%.4f, lr=%.7f, metrics=%s',
        epoch + 1,
        number,
        count,
        loss,
        rate,
        bert.metrics.describe(metrics),
    )
    saver.write_line({'epoch': epoch + 1, 'step': step, 'loss': loss, 'lr': rate, **metrics})


def evaluate(model, dataset, task, contexts, workers, args, check):
    """The task's metrics over a whole dev set; ``check`` is called after each batch."""
    return measure(predict_all(model, dataset, contexts, workers, args, check), dataset, task)


def measure(outputs, dataset, task):
    """The task's metrics for the outputs (N, classes) of a dev set."""
    return bert.metrics.compute(task.metrics, dataset.labels, decide(outputs, task))


def predict_all(model, dataset, contexts, workers, args, check=lambda: None):
    """The outputs (N, classes) for a set, in its order, on all workers, which share the work.

    Batches are sorted by length.
    """
    batches = bert.batches.evaluation_batches(dataset.encoded.lengths, args.dev_batch_size)
    outputs, pending = [], deque()
    with progress(len(batches), dataset.split.path, 'batch') as bar:
        for number, rows in enumerate(batches):
            bar.update()
            if number % workers.count == workers.rank:
                inputs = bert.transform.pad_batch(dataset.encoded, rows)
                ctx = contexts[number // workers.count % len(contexts)]
                pending.append(bert.training.predict(model, inputs, ctx))
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
    logging.info('validation metrics%s:%s', name, bert.metrics.describe(metrics))


def write_outputs(path, outputs):
    """Write the outputs (N, classes) of each set, before any softmax, to an ``.npz`` file."""
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        np.savez(file, **outputs)


def write_test_predictions(outputs, dataset, task, output):
    """Write the predictions for a test set, from its outputs (N, classes): as GLUE's server
    wants them, or beside the rows of the user's file.

    Returns
    -------
    str
        The name of the file.
    """
    predictions = label_names(outputs, task)
    path = predictions_path(output, dataset.split)
    if task.name == 'own':
        bert.datasets.write_predictions(path, Path(dataset.split.path), predictions)
    else:
        lines = [f'{index}\t{prediction}\n' for index, prediction in enumerate(predictions)]
        write_text(path, 'index\tprediction\n' + ''.join(lines))
    logging.info('wrote %d predictions to %s', len(predictions), path)
    return path.name


def predictions_path(output, split):
    """The file for the predictions of a test set, of GLUE or of the user."""
    source = Path(split.path)
    return output / (split.submission or f'{source.stem}_predictions{source.suffix}')


def label_names(outputs, task):
    """Predictions as text: label names, or numbers with three decimals."""
    decided = decide(outputs, task)
    if task.is_regression:
        return [f'{number:.3f}' for number in decided]
    return [task.labels[i] for i in decided]


class Saver:
    """Writes an output directory that ``--bert_model`` takes again, and remembers the best epoch.

    The directory holds ``model_bert_TASK_EPOCH.params`` (epochs from 0), ``config.json``,
    ``vocab.txt`` and ``tokenizer_config.json`` in Hugging Face layout, ``finetune.json`` with
    the task, the labels and the best epoch, and ``metrics.jsonl``; and until the run is finished
    a folder ``resume``.
    """

    def __init__(self, output, task, model, vocab, lower, identity, workers, args):
        self.output = output
        self.task = task
        self.model = model
        self.vocab = vocab
        self.lower = lower
        self.identity = identity
        self.workers = workers
        self.devices = len(identity['devices'])
        self.flags = {name: getattr(args, name) for name in REMEMBERED}
        # The states of MXNet's own optimizers differ in form; some have more than arrays.
        self.can_resume = args.optimizer.lower() == 'bertadam'
        self.epochs = []
        self.best_epoch = 0  # counted from 1
        self.is_new = True  # nothing of this run is saved yet
        self.stop = []  # the signal that asked the run to stop, once there was one

    def begin(self, saved):
        """Make the log files what they were where the run goes on, and remove half-written ones.

        Parameters
        ----------
        saved : dict or None
            See :meth:`save_state`; None for a new run.

        Returns
        -------
        Position
        """
        position = Position(0)
        if saved:
            self.is_new = False
            self.epochs, self.best_epoch = saved['epochs'], saved['best_epoch']
            position = Position(saved['step'], saved['seconds'], saved['seen'])
        self.workers.from_first(lambda: self.open_files(saved))
        return position

    def open_files(self, saved):
        """The part of :meth:`begin` that worker 0 does."""
        bert.resume.remove_half_written(self.output)
        if saved:
            if self.epochs:
                best = self.output / self.parameters(self.best_epoch)
                if not best.is_file():
                    raise ToolkitError(f'{best}: was removed, so --resume cannot go on')
                self.write_finetuned()
            for name, text in saved['logs'].items():
                write_text(self.output / name, text)
        else:
            write_text(self.output / METRICS, '')

    def restore(self, loop, position):
        """Load parameters and optimizer as they were at a position."""
        if position.step:
            folder = self.output / STATES
            saved = bert.resume.load(folder, position.step, loop.model, loop.trainer, self.workers)
            loop.loss_scale.value, loop.loss_scale.good_steps = saved['loss_scale']

    def write_line(self, values):
        """Add a line to ``metrics.jsonl``."""
        if self.workers.is_first:
            append_line(self.output / METRICS, json.dumps(values))

    def parameters(self, epoch):
        """The parameter file of an epoch counted from 1; the name counts from 0."""
        return f'model_bert_{self.task.name}_{epoch - 1}.params'

    def save_epoch(self, loop, position, results, seconds):
        """Save parameters and dev metrics of an epoch, and what the next one needs."""
        self.epochs.append({**results, 'seconds': seconds})
        epoch = len(self.epochs)
        self.write_line({'epoch': epoch, 'seconds': seconds, **results})
        scores = [self.score(values) for values in self.epochs]
        self.best_epoch = 1 + scores.index(max(scores)) if scores[-1] is not None else epoch
        if self.workers.is_first:
            self.replace_earlier_run()
            if epoch == 1:
                self.save_description()
            path = self.output / self.parameters(epoch)
            bert.training.save_parameters(self.model, path)
            if self.can_resume:
                self.save_state(loop, position, path)
            self.write_finetuned()
        self.workers.keep(self.kept())
        signum = self.asked()
        if signum:
            raise Stopped(signum, self.where(f'epoch {epoch}'))

    def save_state(self, loop, position, written=None):
        """Save what ``--resume`` needs.

        Parameters
        ----------
        written : Path, optional
            A file with the same parameters.
        """
        state = {
            'run': self.identity,
            'epochs': self.epochs,
            'best_epoch': self.best_epoch,
            'seconds': position.seconds,
            'seen': position.seen,
            'loss_scale': [loop.loss_scale.value, loop.loss_scale.good_steps],
            'logs': {name: read_text(self.output / name) for name in (LOG, METRICS)},
        }
        folder = self.output / STATES
        folder.mkdir(exist_ok=True)
        bert.resume.save(folder, position.step, self.model, loop.trainer, state, 1, written)

    def leave_if_asked(self, loop, seen):
        """Where a signal has asked for it, save all of the epoch so far and end the program."""
        signum = self.asked()
        if signum:
            if self.can_resume:
                position = Position(seen.step, time.time() - seen.start, seen.state())
                if self.workers.is_first:
                    self.replace_earlier_run()
                    self.save_state(loop, position)
            raise Stopped(signum, self.where(f'step {seen.step}'))

    def asked(self):
        """The signal that asked this worker or another one to stop, or 0."""
        return max(self.workers.each(self.stop[0] if self.stop else 0))

    def where(self, point):
        """What is left of a run that stops at a point, as a clause."""
        if self.can_resume:
            return f'{point} is saved, and --resume goes on from there'
        return f"--resume cannot go on with MXNet's own optimizers; {self.kept()}"

    def replace_earlier_run(self):
        """Remove, before the first file of a new run, what would be taken for its own.

        Parameters of an earlier, longer run are moved to a folder ``earlier``.
        """
        if not self.is_new:
            return
        self.is_new = False
        with contextlib.suppress(FileNotFoundError):
            (self.output / bert.source.FINETUNED).unlink()
        shutil.rmtree(self.output / STATES, ignore_errors=True)
        old = self.parameters(1)
        with contextlib.suppress(FileNotFoundError):
            (self.output / old).unlink()  # to be replaced after the first epoch
        later = list(self.output.glob(old.replace('_0.', '_*.')))
        if later:
            earlier = bert.resume.set_aside(self.output, later)
            logging.info('moved the later epochs of an earlier run to %s', earlier)

    def score(self, results):
        """What chooses the best epoch: the first metric on the first dev set, if there is one."""
        if not self.task.dev:
            return None
        return results[self.task.dev[0].name or 'dev'][self.task.metrics[0]]

    def save_description(self):
        """Save the sizes, the vocabulary and the casing."""
        settings = bert.model.settings_of(self.model.bert)
        bert.checkpoint.write_description(self.output, settings, self.vocab, self.lower)

    def write_finetuned(self, **more):
        """Write ``finetune.json``."""
        write_json(
            self.output / bert.source.FINETUNED,
            {
                'flags': self.flags,
                'labels': self.task.labels,
                'epochs': self.epochs,
                'best_epoch': self.best_epoch,
                'parameters': self.parameters(self.best_epoch),
                **more,
            },
        )

    def kept(self):
        """Which parameters of this run are on the disk, as a clause."""
        if not self.epochs:
            return 'no epoch was finished'
        return f'the best epoch so far is in {self.output / self.parameters(self.best_epoch)}'

    def finish(self):
        """Name the best epoch and give the model its parameters."""
        best = self.epochs[self.best_epoch - 1]
        if self.task.dev:
            results = best[self.task.dev[0].name or 'dev']
            logging.info('Best epoch %d: %s', self.best_epoch, bert.metrics.describe(results))
        if self.best_epoch < len(self.epochs):
            path = self.output / self.parameters(self.best_epoch)
            self.workers.from_first(lambda: bert.model.load_finetuned(self.model, path))
            self.workers.broadcast_parameters(self.model)
        return {'epochs': self.epochs, 'best_epoch': self.best_epoch}

    def close(self):
        """Mark the run as finished, and remove what it was resumed from."""
        if self.can_resume:
            self.write_finetuned(run=self.identity)
            shutil.rmtree(self.output / STATES, ignore_errors=True)


if __name__ == '__main__':
    run(main)
