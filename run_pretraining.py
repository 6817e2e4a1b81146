#!/usr/bin/env python3
"""Pre-train BERT: masked words and next sentences, on the shards of create_pretraining_data.py."""

import contextlib
import json
import logging
import operator
import time
from collections import deque
from pathlib import Path

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
    natural,
    positive_float,
    positive_int,
    progress,
    run,
    seed,
    start_logging,
    stop_requests,
)
from bert.files import append_line, parse_json, read_text, replacing, write_text

EPILOG = """\
examples:
  run_pretraining.py --do-training --data 'shards/*.npz' --bert_model sizes/config.json \\
      --batch_size 32 --num_steps 10000 --warmup_ratio 0.1 --start_step auto
  run_pretraining.py --do-eval --data_eval held_out.npz --bert_model ckpt_dir/model
  finetune_classifier.py --bert_model ckpt_dir/model
"""

# The steps of a run that --profile looks at; the first one, which lays out memory, included.
PROFILED_STEPS = 10
# In --ckpt_dir, beside the checkpoints.
METRICS = 'metrics.jsonl'
LOG = 'pretraining.log'
# The original optimizer's.
EPSILON = 1e-6
# The flags that may differ from worker to worker: names of files, devices, and what only helps.
BY_WORKER = (
    *('data', 'data_eval', 'bert_model', 'ckpt_dir', 'profile', 'start_step'),
    *('gpus', 'num_workers', 'verbose'),
)
# Losses are read this many steps late, so that the devices always have work waiting.
STEPS_IN_FLIGHT = 2


def parse_args(argv=None):
    """The flags, checked as far as that goes without reading a file."""
    args = build_flags().parse_args(argv)
    check_args(args)
    return args


def build_flags():
    """The argument parser."""
    parser = build_parser(__doc__, epilog=EPILOG)
    parser.add_argument('--do-training', action='store_true', help='train')
    parser.add_argument('--do-eval', action='store_true', help='evaluate, after the training')

    data = parser.add_argument_group('data')
    data.add_argument('--data', metavar='GLOBS', help='training shards: comma-separated globs')
    data.add_argument('--data_eval', metavar='GLOBS', help='shards to evaluate on')
    data.add_argument(
        '--batch_size',
        type=positive_int,
        default=8,
        help='rows a batch, on each device; with --by-token the tokens, padding included',
    )
    data.add_argument(
        '--by-token', action='store_true', help='--batch_size counts tokens in place of rows'
    )
    data.add_argument(
        '--batch_size_eval', type=positive_int, default=8, help='rows a batch in evaluation'
    )
    data.add_argument(
        '--num_buckets',
        type=positive_int,
        default=1,
        help='lengths are divided into as many buckets, and rows of one bucket make a batch',
    )

    text = parser.add_argument_group('text in place of shards')
    text.add_argument(
        '--raw',
        action='store_true',
        help='--data and --data_eval name text files, a sentence a line and a blank line between '
        'documents; instances are made anew for each epoch. The flags of this group go with it',
    )
    text.add_argument(
        '--max_seq_length', type=positive_int, help='tokens of an instance at most (default: 128)'
    )
    text.add_argument(
        '--max_predictions_per_seq',
        type=positive_int,
        help='masked tokens of an instance at most (default: 20)',
    )
    text.add_argument(
        '--masked_lm_prob', type=fraction, help='masked share of the tokens (default: 0.15)'
    )
    text.add_argument(
        '--short_seq_prob',
        type=fraction,
        help='share of documents that are cut into shorter instances (default: 0.1)',
    )
    text.add_argument(
        '--whole_word_mask',
        action='store_true',
        default=None,
        help='mask all tokens of a word or none',
    )
    text.add_argument(
        '--do_lower_case',
        action='store_true',
        default=None,
        help='lower-case the text, whatever the model says of itself',
    )
    text.add_argument(
        '--num_workers', type=positive_int, help='processes that make instances (default: 1)'
    )

    model = parser.add_argument_group('model')
    model.add_argument(
        '--bert_model',
        default='bert_12_768_12',
        help='model of the GluonNLP zoo; or a directory or a model of the Hugging Face Hub, as for '
        'finetune_classifier.py, whose weights are taken; or a configuration file, *.json, with '
        'vocab.txt beside it, from scratch',
    )
    model.add_argument(
        '--dataset_name',
        default='book_corpus_wiki_en_uncased',
        help="what the zoo's model was pre-trained on, which means its vocabulary too",
    )
    model.add_argument(
        '--pretrained', action='store_true', help="take the weights of the zoo's model"
    )

    training = parser.add_argument_group('training')
    training.add_argument('--num_steps', type=positive_int, default=20, help='updates in all')
    training.add_argument(
        '--accumulate',
        type=positive_int,
        default=1,
        help='batches whose gradients are added up before an update',
    )
    training.add_argument('--lr', type=positive_float, default=1e-4, help='peak learning rate')
    training.add_argument(
        '--warmup_ratio',
        type=fraction,
        default=0.1,
        help='share of the updates in which the learning rate rises',
    )
    training.add_argument('--seed', type=seed, default=0, help='of weights, order and dropout')
    add_device_flags(training)
    add_kvstore_flag(training)

    output = parser.add_argument_group('checkpoints and output')
    output.add_argument(
        '--ckpt_dir',
        default='./ckpt_dir',
        help='where checkpoints, metrics.jsonl and the trained model go',
    )
    output.add_argument(
        '--ckpt_interval', type=positive_int, default=1000, help='steps between checkpoints'
    )
    output.add_argument(
        '--ckpt_keep', type=positive_int, default=3, help='how many checkpoints stay'
    )
    output.add_argument(
        '--start_step',
        type=start_step,
        default=0,
        metavar='N',
        help='go on from the checkpoint of this step, or with auto from the newest if there is '
        'one; 0 is a new run',
    )
    output.add_argument(
        '--log_interval', type=positive_int, default=10, help='updates between log lines'
    )
    output.add_argument('--verbose', action='store_true', help='log the shapes of each batch')
    output.add_argument(
        '--profile',
        metavar='FILE',
        help=f"write MXNet's profile of the first {PROFILED_STEPS} steps, for chrome://tracing",
    )
    return parser


def start_step(text):
    """The value of ``--start_step``: a number or ``auto``."""
    return text if text == 'auto' else natural(text)


# The flags that go with --raw, and what they are if they are not given.
RAW_FLAGS = {
    'max_seq_length': 128,
    'max_predictions_per_seq': 20,
    'masked_lm_prob': 0.15,
    'short_seq_prob': 0.1,
    'whole_word_mask': False,
    'do_lower_case': False,
    'num_workers': 1,
}


def check_args(args):
    """Refuse flags that contradict each other, and fill in what follows from the others."""
    if not (args.do_training or args.do_eval):
        raise UsageError('nothing to do: --do-training, --do-eval or both are needed')
    for wanted, data in (('do_training', 'data'), ('do_eval', 'data_eval')):
        flag = '--' + wanted.replace('_', '-')
        if getattr(args, wanted) and not getattr(args, data):
            raise UsageError(f'{flag} needs --{data}')
        if getattr(args, data) and not getattr(args, wanted):
            raise UsageError(f'--{data} goes with {flag}')
    for name, default in RAW_FLAGS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
        elif not args.raw:
            raise UsageError(
                f'--{name} goes with --raw; shards have it from the time they were made'
            )
    if args.max_seq_length < 5:
        raise UsageError(
            f'--max_seq_length {args.max_seq_length}: at least 5, for [CLS] one token [SEP] '
            'another [SEP]'
        )
    if args.pretrained and is_configuration(args.bert_model):
        raise UsageError(
            '--pretrained goes with a model of the zoo or a model directory; '
            f'{args.bert_model} means training from scratch'
        )
    if args.profile and not args.do_training:
        raise UsageError('--profile goes with --do-training')
    if args.profile and not Path(args.profile).absolute().parent.is_dir():
        raise UsageError(f'--profile {args.profile}: there is no such folder')
    bert.environment.check_dtype(args.dtype, on_gpu=bool(args.gpu or args.gpus))
    bert.distributed.check_flags(args)


def is_configuration(name):
    """Whether ``--bert_model`` names a configuration file, for training from scratch."""
    return name.endswith('.json')


def main(argv=None):
    """Train, save and evaluate.

    Returns
    -------
    dict
        ``step``, the last one; ``train`` and ``eval``, the losses and accuracies of the last log
        interval and of the evaluation, or None.
    """
    args = parse_args(argv)
    bert.environment.check_mxnet()
    if args.dtype == 'bfloat16':
        bert.environment.prepare_bfloat16()
    memory = start_logging()
    if args.verbose:
        logging.getLogger().setLevel(logging.DEBUG)
    with bert.distributed.joined(args.kvstore) as workers:
        return pretrain(args, memory, workers)


def pretrain(args, memory, workers):
    """The part of :func:`main` that every worker does."""
    logging.info(args)
    contexts = bert.training.contexts(args.gpus or [workers.local_rank] * args.gpu)
    start = workers.from_first(lambda: choose_start(args))
    model, vocab = build_model(args, contexts)
    sources = {
        name: open_source(patterns, model, vocab, args)
        for name, patterns in (('train', args.data), ('eval', args.data_eval))
        if patterns
    }
    workers.check_same('flags', bert.distributed.common_flags(args, BY_WORKER))
    workers.check_same('data', {name: source.description for name, source in sources.items()})
    folder = Path(args.ckpt_dir)
    if start and not args.do_training:
        workers.from_first(lambda: bert.resume.load_parameters(folder, start, model))
    workers.broadcast_parameters(model)
    result = {'step': start, 'train': None, 'eval': None}
    if args.do_training:
        if workers.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            bert.resume.prepare(folder, start, *([] if start else [METRICS, LOG]))
            log_to_file(memory, folder / LOG, append=start > 0)
        result['train'] = train(model, sources['train'], start, contexts, workers, args)
        result['step'] = args.num_steps
        if workers.is_first:
            lower = choose_casing(args, vocab, sources['train'])
            bert.model.save_huggingface(folder / 'model', model, vocab, lower)
            logging.info('the trained model is in %s', folder / 'model')
    if args.do_eval:
        result['eval'] = evaluate(model, sources['eval'], contexts, workers, args)
        report_evaluation(result['eval'])
        if args.do_training and workers.is_first:
            add_line(folder, {'step': result['step'], 'eval': result['eval']})
    return result


def choose_start(args):
    """The step to go on from, or whose checkpoint is to be evaluated; 0 means none."""
    start = args.start_step
    if start == 'auto':
        start = bert.resume.newest_step(args.ckpt_dir)
        logging.info('--start_step auto: %s', f'step {start}' if start else 'no checkpoint yet')
        if not start and not args.do_training:
            raise ToolkitError(f'{args.ckpt_dir}: there is no checkpoint to evaluate')
    elif start:
        bert.resume.read_progress(args.ckpt_dir, start)
    if start > args.num_steps and args.do_training:
        raise UsageError(
            f'{args.ckpt_dir} holds step {start}, which is after the last one, '
            f'--num_steps {args.num_steps}'
        )
    return start


def build_model(args, contexts):
    """BERT with both heads, its weights loaded, and the vocabulary."""
    bert.training.seed_step(args.seed, 0)
    heads = {'use_decoder': True, 'use_classifier': True}
    if is_configuration(args.bert_model):
        model, vocab = bert.model.build_from_configuration(args.bert_model, contexts, **heads)
        pretrained = False
    else:
        pretrained = args.pretrained or not bert.source.is_zoo_model(args.bert_model)
        model, vocab = bert.model.load_bert(
            args.bert_model, args.dataset_name, ctx=contexts, pretrained=pretrained, **heads
        )
    if not pretrained:
        logging.info('the weights of the model are random, for training from scratch')
    bert.pretraining.finish_initialization(model, contexts[0])
    bert.model.cast(model, args.dtype)
    model.hybridize(static_alloc=True)
    return model, vocab


def open_source(patterns, model, vocab, args):
    """The data that a flag names."""
    positions = model.encoder._max_length
    plain = bert.vocab.plain_vocab(vocab)
    if not args.raw:
        return bert.pretraining_dataset.Shards(patterns, plain, positions)
    if args.max_seq_length > positions:
        raise UsageError(
            f'--max_seq_length {args.max_seq_length} is more than the {positions} positions of '
            'this model'
        )
    recipe = bert.pretraining_data.Recipe(
        max_seq_length=args.max_seq_length,
        max_predictions_per_seq=args.max_predictions_per_seq,
        masked_lm_prob=args.masked_lm_prob,
        short_seq_prob=args.short_seq_prob,
        dupe_factor=1,
        whole_word_mask=args.whole_word_mask,
    )
    return bert.pretraining_dataset.Text(
        patterns, plain, choose_casing(args, vocab), recipe, args.num_workers
    )


def choose_casing(args, vocab, source=None):
    """Whether text is lower-cased for this model: what its training data say, or it says itself."""
    if args.do_lower_case:
        return True
    lower = getattr(source, 'lower', None)
    if isinstance(lower, bool):
        return lower
    name = args.bert_model
    if is_configuration(name):
        name = str(Path(name).parent)
    return bert.model.is_lower_case(name, args.dataset_name, vocab)[0]


def train(model, source, start, contexts, workers, args):
    """The pre-training loop.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel
    source : bert.pretraining_dataset.Shards or bert.pretraining_dataset.Text
    start : int
        The step to go on from.
    contexts : list of mxnet.Context
    workers : bert.distributed.Workers

    Returns
    -------
    dict or None
        Losses and accuracies of the last log line; None where no step was left.
    """
    cut = bert.pretraining_dataset.Cut(
        args.batch_size,
        args.accumulate * len(contexts) * workers.count,
        args.num_buckets,
        args.by_token,
    )
    trainer = bert.training.build_trainer(
        model, 'bertadam', args.lr, EPSILON, kvstore=workers.local_kvstore(args.kvstore)
    )
    adds_up = args.accumulate * len(contexts) > 1
    if adds_up:
        bert.training.accumulate_gradients(model)
    parameters = bert.training.trainable(model)
    loss = bert.pretraining.build_loss(contexts)
    loss_scale = bert.training.LossScale(args.dtype)
    order = data_order(source, cut, args)
    recorder = Recorder(model, trainer, loss_scale, order, workers, args)
    position = recorder.restore(start)
    warmup = int(args.num_steps * args.warmup_ratio)
    logging.info('%s; steps %d to %d', source, start + 1, args.num_steps)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        stack.enter_context(bert.training.naming_step(recorder))
        bar = stack.enter_context(progress(args.num_steps - start, 'pre-training', 'step'))
        profile = stack.enter_context(Profile(workers.is_first and args.profile))
        updates = stack.enter_context(
            bert.pretraining_dataset.updates(source, cut, args.seed, position)
        )
        for step, (batches, position) in zip(range(start + 1, args.num_steps + 1), updates):
            logging.debug('step %d: batches of %s', step, [batch.ids.shape for batch in batches])
            recorder.step = step
            rate = bert.schedule.learning_rate(step, args.lr, warmup, args.num_steps)
            bert.training.seed_step(args.seed, step, workers.rank)
            statistics = bert.pretraining.gradients(
                model, loss, batches, contexts, loss_scale.value, workers
            )
            bert.training.update(trainer, parameters, 1, rate, loss_scale, workers)
            if adds_up:
                bert.training.clear_gradients(model)
            recorder.count(step, batches, statistics)
            is_last = step == args.num_steps
            signum = max(workers.each(stop[0] if stop else 0))
            if step % args.log_interval == 0 or is_last:
                recorder.log(step, rate)
            if step % args.ckpt_interval == 0 or is_last or signum:
                recorder.save(step, position)
            profile.count()
            bar.update()
            if signum:
                raise Stopped(
                    signum, f'step {step} is saved, and --start_step auto goes on from there'
                )
    return recorder.metrics


def data_order(source, cut, args):
    """All that decides which rows come when; where it is the same, so is a position in the data."""
    return {'seed': args.seed, 'cut': list(cut), 'data': source.description}


class Recorder:
    """Follows a run: losses, log lines and checkpoints.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel
    trainer : mxnet.gluon.Trainer
    loss_scale : bert.training.LossScale
    order : dict
        See :func:`data_order`.
    workers : bert.distributed.Workers
        Only worker 0 writes.
    args : argparse.Namespace
    """

    def __init__(self, model, trainer, loss_scale, order, workers, args):
        self.model = model
        self.trainer = trainer
        self.loss_scale = loss_scale
        self.order = order
        self.workers = workers
        self.args = args
        self.step = 0  # the present one
        self.pending = deque()
        self.tally = bert.pretraining.Tally()
        self.tokens, self.since = 0, time.time()
        self.saved = None
        self.metrics = None

    def restore(self, step):
        """Load a checkpoint, if the step is not 0, and cut ``metrics.jsonl`` off there.

        Returns
        -------
        list of 3 int
            Where to go on in the data.
        """
        if self.workers.is_first:
            keep_lines(self.args.ckpt_dir, step)
        if not step:
            return [0, 0, 0]
        saved = bert.resume.load(self.args.ckpt_dir, step, self.model, self.trainer, self.workers)
        self.saved = step
        self.workers.keep(self.kept())
        try:
            return self.take(saved, step)
        except (KeyError, TypeError, ValueError):
            path = bert.resume.states_path(self.args.ckpt_dir, step)
            raise ToolkitError(f'{path}: not a checkpoint of this program') from None

    def take(self, saved, step):
        """Go on with what a checkpoint says beside the weights."""
        scale, good_steps = saved['loss_scale']
        self.loss_scale.value, self.loss_scale.good_steps = float(scale), int(good_steps)
        epoch, unit, update = map(operator.index, saved['position'])
        if saved['order'] == self.order:
            self.tally = bert.pretraining.Tally(saved['sums'])
            return [epoch, unit, update]
        logging.info('other data or batches than up to step %d: they begin from the start', step)
        return [epoch + 1, 0, 0]

    def count(self, step, batches, statistics):
        """Remember what a step gave; it is read some steps later."""
        self.pending.append((step, batches, statistics))
        self.tokens += sum(int(batch.valid_lengths.sum()) for batch in batches)
        if len(self.pending) > STEPS_IN_FLIGHT:
            self.read()

    def read(self):
        """Wait for the oldest step that was not read yet."""
        step, batches, statistics = self.pending.popleft()
        total = bert.pretraining.Tally()
        for batch, values in zip(batches, statistics):
            total.add(batch, values)
        self.tally.sums += total.sums
        if not np.isfinite(total.sums).all():
            raise ToolkitError(
                f'the loss is not finite at step {step}: try a lower --lr or a longer '
                f'--warmup_ratio; {self.kept()}'
            )

    def kept(self):
        """Which checkpoint of this run is the last one, as a clause."""
        if not self.saved:
            return 'no checkpoint yet'
        where = bert.resume.parameters_path(self.args.ckpt_dir, self.saved)
        return f'the last good checkpoint is {where}'

    def log(self, step, rate):
        """A line in the original's form, and one for programs, on the steps since the last."""
        while self.pending:
            self.read()
        seconds = time.time() - self.since
        self.metrics = self.tally.metrics()
        logging.info(
            '[step %d]\tmlm_loss=%.5f\tmlm_acc=%.2f\tnsp_loss=%.5f\tnsp_acc=%.2f\t'
            'throughput=%.1fK tks/s\tlr=%.7f time=%.2f',
            step,
            *self.metrics.values(),
            self.tokens / seconds / 1000,
            rate,
            seconds,
        )
        speed = {'lr': rate, 'tokens_per_second': self.tokens / seconds, 'seconds': seconds}
        if self.workers.is_first:
            add_line(self.args.ckpt_dir, {'step': step, **self.metrics, **speed})
        self.tally = bert.pretraining.Tally()
        self.tokens, self.since = 0, time.time()

    def save(self, step, position):
        """Write a checkpoint."""
        while self.pending:
            self.read()
        state = {
            'position': position,
            'order': self.order,
            'loss_scale': [self.loss_scale.value, self.loss_scale.good_steps],
            'sums': self.tally.sums.tolist(),
        }
        args = self.args
        if self.workers.is_first:
            bert.resume.save(args.ckpt_dir, step, self.model, self.trainer, state, args.ckpt_keep)
        self.saved = step
        self.workers.keep(self.kept())
        logging.debug('step %d is saved', step)


def add_line(folder, values):
    """Add a line to ``metrics.jsonl``."""
    append_line(Path(folder) / METRICS, json.dumps(values))


def keep_lines(folder, step):
    """Keep the training lines of ``metrics.jsonl`` up to a step; a run goes on after it."""
    path = Path(folder) / METRICS
    kept = []
    if step and path.is_file():
        for line in read_text(path).splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                values = parse_json(line)
                if values['step'] <= step and 'eval' not in values:
                    kept.append(line + '\n')
    write_text(path, ''.join(kept))


class Profile:
    """Writes MXNet's profile of the first steps to a file, if one is named."""

    def __init__(self, path):
        self.left = PROFILED_STEPS if path else 0
        self.path = path
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        if self.left:
            from mxnet import profiler

            file = str(self.stack.enter_context(replacing(self.path)))
            profiler.set_config(profile_symbolic=True, profile_imperative=True, filename=file)
            profiler.set_state('run')
        return self

    def count(self):
        """A step is over."""
        self.left -= 1
        if self.left == 0:
            self.finish()

    def finish(self):
        """Write the file."""
        from mxnet import nd, profiler

        nd.waitall()
        profiler.set_state('stop')
        profiler.dump()
        self.stack.close()
        logging.info('the profile is in %s', self.path)

    def __exit__(self, *_):
        with self.stack:
            if self.left > 0:
                self.finish()


def evaluate(model, source, contexts, workers, args):
    """Losses and accuracies over all instances, of which each worker does some.

    Returns
    -------
    dict of str to float
        See :meth:`bert.pretraining.Tally.metrics`.
    """
    loss = bert.pretraining.build_loss(contexts)
    tally, pending = bert.pretraining.Tally(), deque()
    with progress(source.count, 'evaluation', 'row') as bar:
        batches = bert.pretraining_dataset.evaluation(source, args.batch_size_eval, args.seed)
        for number, batch in enumerate(batches):
            bar.update(len(batch.nsp_labels))
            if number % workers.count != workers.rank:
                continue
            ctx = contexts[number // workers.count % len(contexts)]
            pending.append((batch, bert.pretraining.statistics(model, loss, batch, ctx)[1]))
            if len(pending) > STEPS_IN_FLIGHT * len(contexts):
                tally.add(*pending.popleft())
        for each in pending:
            tally.add(*each)
    tally.sums = workers.sum_numpy(tally.sums)
    return tally.metrics()


def report_evaluation(metrics):
    """The evaluation in the original's form."""
    logging.info('mlm_loss=%.3f\tmlm_acc=%.1f\tnsp_loss=%.3f\tnsp_acc=%.1f', *metrics.values())


if __name__ == '__main__':
    run(main)
