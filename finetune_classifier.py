#!/usr/bin/env python3
"""Fine-tune BERT on a GLUE task, or on your own labelled text, and predict with the result."""

import contextlib
import json
import logging
import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import bert
from bert.cli import (
    ToolkitError,
    UsageError,
    add_device_flags,
    build_parser,
    fraction,
    log_to_file,
    positive_float,
    positive_int,
    progress,
    run,
    seed,
    start_logging,
)
from bert.files import replacing, write_json, write_text

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
    shortest = 3 if own and len(args.text_columns) == 1 else 5
    if args.max_len < shortest:
        raise UsageError(f'--max_len {args.max_len} leaves no room for text: {shortest} at least')
    bert.environment.check_dtype(args.dtype, on_gpu=bool(args.gpu or args.gpus))


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
    logging.info(args)
    contexts = bert.training.contexts(args.gpus or [0] * args.gpu)
    task, examples = read_task(args)
    model, vocab = build_model(args, task, contexts)
    lower = choose_casing(args, vocab)
    datasets = encode_datasets(examples, vocab, lower, args.max_len)

    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    log_to_file(memory, output / ('inference.log' if args.only_inference else 'finetune.log'))
    if args.only_inference:
        result = {'epochs': [], 'best_epoch': None}
    else:
        saver = Saver(output, task, model, vocab, lower, args)
        result = train(model, datasets, task, contexts, saver, args)
    outputs = {}
    for dataset in datasets['dev']:
        values = outputs[dataset.split.name or 'dev'] = predict_all(model, dataset, contexts, args)
        if args.only_inference:
            report_metrics(dataset, measure(values, dataset, task))
    result['test'] = []
    for dataset in datasets['test']:
        name = Path(dataset.split.submission).stem or 'test'
        values = outputs[name] = predict_all(model, dataset, contexts, args)
        result['test'].append(write_test_predictions(values, dataset, task, args))
    write_outputs(output / OUTPUTS, outputs)
    return result


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


def train(model, datasets, task, contexts, saver, args):
    """The fine-tuning loop: an epoch, then the dev sets, until the updates are done.

    Returns
    -------
    dict
        See :func:`main`. The model has the parameters of the best epoch.
    """
    (train_set,) = datasets['train']
    rows_per_update = args.batch_size * len(contexts) * args.accumulate
    updates_per_epoch = math.ceil(len(train_set.labels) / rows_per_update)
    total = args.training_steps or args.epochs * updates_per_epoch
    epochs = math.ceil(total / updates_per_epoch)

    trainer = bert.training.build_trainer(
        model, args.optimizer, args.lr, args.epsilon, args.bias_correction
    )
    if rows_per_update > args.batch_size:
        bert.training.accumulate_gradients(model)
    loop = Loop(
        model=model,
        trainer=trainer,
        parameters=bert.training.trainable(model),
        loss_function=bert.training.loss_of(None if task.is_regression else len(task.labels)),
        loss_scale=bert.training.LossScale(args.dtype),
        contexts=contexts,
        rows_per_update=rows_per_update,
        updates_per_epoch=updates_per_epoch,
        total_updates=total,
        warmup_updates=int(total * args.warmup_ratio),
    )
    for epoch in range(epochs):
        start = time.time()
        train_epoch(loop, epoch, train_set, task, saver, args)
        results = {}
        for dataset in datasets['dev']:
            metrics = evaluate(model, dataset, task, contexts, args)
            report_metrics(dataset, metrics)
            results[dataset.split.name or 'dev'] = metrics
        seconds = time.time() - start
        logging.info('Time cost=%.1fs', seconds)
        saver.save_epoch(epoch, results, seconds)
        if args.early_stop and epoch + 1 - saver.best_epoch >= args.early_stop:
            logging.info('no better dev metric for %d epochs: stopped', args.early_stop)
            break
    return saver.finish()


class Loop(NamedTuple):
    """What stays the same from update to update."""

    model: object
    trainer: object
    parameters: list
    loss_function: object
    loss_scale: object
    contexts: list
    rows_per_update: int
    updates_per_epoch: int
    total_updates: int
    warmup_updates: int


def train_epoch(loop, epoch, train_set, task, saver, args):
    """One pass over the training set, or what is left of ``--training_steps``."""
    lengths = train_set.encoded.lengths
    rng = np.random.default_rng([args.seed, epoch])
    batches = bert.batches.training_batches(lengths, loop.rows_per_update, rng)
    if epoch == 0:
        share = bert.batches.padding_share(lengths, micro_batches(batches, args.batch_size))
        logging.info(
            'training on %d rows, %d updates an epoch, %.1f%% padding',
            len(lengths),
            len(batches),
            100 * share,
        )
    first = epoch * loop.updates_per_epoch
    batches = batches[: loop.total_updates - first]
    seen = Seen(task)
    with progress(len(batches), f'epoch {epoch + 1}', 'batch') as bar:
        for number, rows in enumerate(batches, 1):
            step = first + number
            rate = bert.schedule.learning_rate(
                step, args.lr, loop.warmup_updates, loop.total_updates
            )
            bert.training.seed_step(args.seed, step)
            for loss, outputs, labels in gradients(loop, train_set, rows, args.batch_size):
                seen.add(loss, outputs, labels)
            bert.training.update(loop.trainer, loop.parameters, len(rows), rate, loop.loss_scale)
            if loop.rows_per_update > args.batch_size:
                bert.training.clear_gradients(loop.model)
            if number % args.log_interval == 0 or number == len(batches):
                loss, metrics = seen.take()
                check_finite(loss, epoch, number, saver)
                if number % args.log_interval == 0:
                    log_training(epoch, number, len(batches), step, loss, rate, metrics, saver)
            bar.update()


def micro_batches(batches, batch_size):
    """Cut the rows of each update into batches that fit a device."""
    return [
        rows[start : start + batch_size]
        for rows in batches
        for start in range(0, len(rows), batch_size)
    ]


def gradients(loop, dataset, rows, batch_size):
    """Forward and backward over the rows of one update, spread over the devices.

    Yields
    ------
    (1,) sum of losses, (B, classes) outputs, (B,) labels
        A batch each.
    """
    parts = micro_batches([rows], batch_size)
    # Each device must compute something, or MXNet takes its gradients for stale ones; where rows
    # are short, it does the first row once more, at weight 0.
    idle = [rows[:1]] * (len(loop.contexts) - len(parts))
    for number, part in enumerate(parts + idle):
        inputs = bert.transform.pad_batch(dataset.encoded, part)
        labels = dataset.labels[part]
        loss, outputs = bert.training.forward_backward(
            loop.model,
            loop.loss_function,
            inputs,
            labels,
            loop.contexts[number % len(loop.contexts)],
            loop.loss_scale.value if number < len(parts) else 0,
        )
        if number < len(parts):
            yield loss, outputs, labels


class Seen:
    """Loss since the last log line and metrics since the epoch began, read only when asked for."""

    def __init__(self, task):
        self.task = task
        self.pending = []
        self.labels, self.predictions = [], []

    def add(self, loss, outputs, labels):
        """Remember one batch; nothing is waited for."""
        self.pending.append((loss, outputs, labels))

    def take(self):
        """Mean loss of a row since the last call, and the metrics."""
        total, rows = 0.0, 0
        for loss, outputs, labels in self.pending:
            total += float(loss.asscalar())
            rows += len(labels)
            self.labels.append(labels)
            self.predictions.append(decide(outputs.asnumpy(), self.task))
        self.pending = []
        metrics = bert.metrics.compute(
            self.task.metrics, np.concatenate(self.labels), np.concatenate(self.predictions)
        )
        return total / rows, metrics


def decide(outputs, task):
    """Class ids, or numbers, from the (N, classes) outputs of a model."""
    return outputs[:, 0] if task.is_regression else outputs.argmax(axis=1)


def check_finite(loss, epoch, number, saver):
    """Stop a training that has run away."""
    if not math.isfinite(loss):
        kept = saver.kept()
        raise ToolkitError(
            f'the loss is {loss} at epoch {epoch + 1}, batch {number}: try a lower --lr or a '
            f'longer --warmup_ratio; {kept}'
        )


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


def evaluate(model, dataset, task, contexts, args):
    """The task's metrics over a whole dev set."""
    return measure(predict_all(model, dataset, contexts, args), dataset, task)


def measure(outputs, dataset, task):
    """The task's metrics for the outputs (N, classes) of a dev set."""
    return bert.metrics.compute(task.metrics, dataset.labels, decide(outputs, task))


def predict_all(model, dataset, contexts, args):
    """The outputs (N, classes) for a set, in its order; batches are sorted by length."""
    batches = bert.batches.evaluation_batches(dataset.encoded.lengths, args.dev_batch_size)
    outputs = []
    with progress(len(batches), dataset.split.path, 'batch') as bar:
        for number, rows in enumerate(batches):
            inputs = bert.transform.pad_batch(dataset.encoded, rows)
            ctx = contexts[number % len(contexts)]
            outputs.append(bert.training.predict(model, inputs, ctx))
            bar.update()
        outputs = np.concatenate([batch.asnumpy() for batch in outputs])
    ordered = np.empty_like(outputs)
    ordered[np.concatenate(batches)] = outputs
    return ordered


def report_metrics(dataset, metrics):
    """The dev metrics in the original's form; MNLI's two sets by name."""
    name = f' ({dataset.split.name})' if dataset.split.name else ''
    logging.info('validation metrics%s:%s', name, bert.metrics.describe(metrics))


def write_outputs(path, outputs):
    """Write the outputs (N, classes) of each set, before any softmax, to an ``.npz`` file."""
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        np.savez(file, **outputs)


def write_test_predictions(outputs, dataset, task, args):
    """Write the predictions for a test set, from its outputs (N, classes): as GLUE's server
    wants them, or beside the rows of the user's file.

    Returns
    -------
    str
        The name of the file.
    """
    predictions = label_names(outputs, task)
    output = Path(args.output_dir)
    if task.name == 'own':
        source = Path(dataset.split.path)
        path = output / f'{source.stem}_predictions{source.suffix}'
        bert.datasets.write_predictions(path, source, predictions)
    else:
        path = output / dataset.split.submission
        lines = [f'{index}\t{prediction}\n' for index, prediction in enumerate(predictions)]
        write_text(path, 'index\tprediction\n' + ''.join(lines))
    logging.info('wrote %d predictions to %s', len(predictions), path)
    return path.name


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
    the task, the labels and the best epoch, and ``metrics.jsonl``.
    """

    def __init__(self, output, task, model, vocab, lower, args):
        self.output = output
        self.task = task
        self.model = model
        self.vocab = vocab
        self.lower = lower
        self.flags = {name: getattr(args, name) for name in REMEMBERED}
        self.epochs = []
        self.best_epoch = 0  # counted from 1
        self.lines = open(output / 'metrics.jsonl', 'w', encoding='utf8')  # noqa: SIM115

    def write_line(self, values):
        """Add a line to ``metrics.jsonl``."""
        self.lines.write(json.dumps(values) + '\n')
        self.lines.flush()

    def parameters(self, epoch):
        """The parameter file of an epoch counted from 1; the name counts from 0."""
        return f'model_bert_{self.task.name}_{epoch - 1}.params'

    def save_epoch(self, epoch, results, seconds):
        """Save parameters and dev metrics of an epoch counted from 0."""
        self.epochs.append({**results, 'seconds': seconds})
        self.write_line({'epoch': epoch + 1, 'seconds': seconds, **results})
        if epoch == 0:
            # An earlier run's description must not stand beside this one's parameters.
            with contextlib.suppress(FileNotFoundError):
                (self.output / bert.source.FINETUNED).unlink()
            self.save_description()
        bert.training.save_parameters(self.model, self.output / self.parameters(epoch + 1))
        scores = [self.score(values) for values in self.epochs]
        self.best_epoch = 1 + scores.index(max(scores)) if scores[-1] is not None else epoch + 1
        write_json(
            self.output / bert.source.FINETUNED,
            {
                'flags': self.flags,
                'labels': self.task.labels,
                'epochs': self.epochs,
                'best_epoch': self.best_epoch,
                'parameters': self.parameters(self.best_epoch),
            },
        )

    def score(self, results):
        """What chooses the best epoch: the first metric on the first dev set, if there is one."""
        if not self.task.dev:
            return None
        return results[self.task.dev[0].name or 'dev'][self.task.metrics[0]]

    def save_description(self):
        """Save the sizes, the vocabulary and the casing."""
        settings = bert.model.settings_of(self.model.bert)
        bert.checkpoint.write_description(self.output, settings, self.vocab, self.lower)

    def kept(self):
        """Which parameters of this run are on the disk, as a clause."""
        if not self.epochs:
            return 'no epoch was finished'
        return f'the best epoch so far is in {self.output / self.parameters(self.best_epoch)}'

    def finish(self):
        """Name the best epoch and give the model its parameters."""
        self.lines.close()
        best = self.epochs[self.best_epoch - 1]
        if self.task.dev:
            results = best[self.task.dev[0].name or 'dev']
            logging.info('Best epoch %d: %s', self.best_epoch, bert.metrics.describe(results))
        if self.best_epoch < len(self.epochs):
            bert.model.load_finetuned(self.model, self.output / self.parameters(self.best_epoch))
        return {'epochs': self.epochs, 'best_epoch': self.best_epoch}


if __name__ == '__main__':
    run(main)
