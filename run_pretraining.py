#!/usr/bin/env python3
"""Pre-train BERT: masked words and next sentences, on the shards of create_pretraining_data.py."""

import contextlib
import logging
from collections import deque
from pathlib import Path

from bert.checkpoints.source import is_zoo_model
from bert.cli import program
from bert.cli.console import log_to_file, progress, start_logging
from bert.cli.program import stop_requests
from bert.distributed.workers import joined
from bert.model import build, loading
from bert.pretraining import batches as pretraining_batches
from bert.pretraining import instances
from bert.pretraining import loss as pretraining_loss
from bert.pretraining.batches import Cut, evaluation
from bert.pretraining.flags import BY_WORKER, is_configuration, parse_args
from bert.pretraining.loss import Tally, build_loss, finish_initialization, gradients
from bert.pretraining.recorder import LOG, Recorder
from bert.pretraining.sources import Shards, Text
from bert.system import environment, machine
from bert.system.errors import Stopped, ToolkitError, UsageError
from bert.system.files import replacing
from bert.text.vocab import plain_vocab
from bert.training import run, schedule, states, update
from bert.training.devices import STEPS_IN_FLIGHT
from bert.training.folder import METRICS, add_line, common_flags, data_order, prepare

# The steps of a run that --profile looks at; the first one, which lays out memory, included.
PROFILED_STEPS = 10
# The original optimizer's.
EPSILON = 1e-6


def main(argv=None):
    """Train, save and evaluate.

    Returns
    -------
    dict
        ``step``, the last one; ``train`` and ``eval``, the losses and accuracies of the last log
        interval and of the evaluation, or None.
    """
    args = parse_args(argv)
    environment.check_mxnet()
    if args.dtype == 'bfloat16':
        machine.prepare_bfloat16()
    memory = start_logging()
    if args.verbose:
        logging.getLogger().setLevel(logging.DEBUG)
    with joined(args.kvstore) as workers:
        return pretrain(args, memory, workers)


def pretrain(args, memory, workers):
    """The part of :func:`main` that every worker does."""
    logging.info(args)
    contexts = update.contexts(args.gpus or [workers.local_rank] * args.gpu)
    start = workers.from_first(lambda: choose_start(args))
    model, vocab = build_model(args, contexts)
    sources = {
        name: open_source(patterns, model, vocab, args)
        for name, patterns in (('train', args.data), ('eval', args.data_eval))
        if patterns
    }
    workers.check_same('flags', common_flags(args, BY_WORKER))
    workers.check_same('data', {name: source.description for name, source in sources.items()})
    folder = Path(args.ckpt_dir)
    if start and not args.do_training:
        workers.from_first(lambda: states.load_parameters(folder, start, model))
    workers.broadcast_parameters(model)
    result = {'step': start, 'train': None, 'eval': None}
    if args.do_training:
        if workers.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            prepare(folder, start, *([] if start else [METRICS, LOG]))
            log_to_file(memory, folder / LOG, append=start > 0)
        result['train'] = train(model, sources['train'], start, contexts, workers, args)
        result['step'] = args.num_steps
        if workers.is_first:
            lower = choose_casing(args, vocab, sources['train'])
            loading.save_huggingface(folder / 'model', model, vocab, lower)
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
        start = states.newest_step(args.ckpt_dir)
        logging.info('--start_step auto: %s', f'step {start}' if start else 'no checkpoint yet')
        if not start and not args.do_training:
            raise ToolkitError(f'{args.ckpt_dir}: there is no checkpoint to evaluate')
    elif start:
        states.read_progress(args.ckpt_dir, start)
    if start > args.num_steps and args.do_training:
        raise UsageError(
            f'{args.ckpt_dir} holds step {start}, which is after the last one, '
            f'--num_steps {args.num_steps}'
        )
    return start


def build_model(args, contexts):
    """BERT with both heads, its weights loaded, and the vocabulary."""
    update.seed_step(args.seed, 0)
    heads = {'use_decoder': True, 'use_classifier': True}
    if is_configuration(args.bert_model):
        model, vocab = loading.build_from_configuration(args.bert_model, contexts, **heads)
        pretrained = False
    else:
        pretrained = args.pretrained or not is_zoo_model(args.bert_model)
        model, vocab = loading.load_bert(
            args.bert_model, args.dataset_name, ctx=contexts, pretrained=pretrained, **heads
        )
    if not pretrained:
        logging.info('the weights of the model are random, for training from scratch')
    finish_initialization(model, contexts[0])
    build.cast(model, args.dtype)
    model.hybridize(static_alloc=True)
    return model, vocab


def open_source(patterns, model, vocab, args):
    """The data that a flag names."""
    positions = model.encoder._max_length
    plain = plain_vocab(vocab)
    if not args.raw:
        return Shards(patterns, plain, positions)
    if args.max_seq_length > positions:
        raise UsageError(
            f'--max_seq_length {args.max_seq_length} is more than the {positions} positions of '
            'this model'
        )
    recipe = instances.Recipe(
        max_seq_length=args.max_seq_length,
        max_predictions_per_seq=args.max_predictions_per_seq,
        masked_lm_prob=args.masked_lm_prob,
        short_seq_prob=args.short_seq_prob,
        dupe_factor=1,
        whole_word_mask=args.whole_word_mask,
    )
    return Text(patterns, plain, choose_casing(args, vocab), recipe, args.num_workers)


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
    return loading.is_lower_case(name, args.dataset_name, vocab)[0]


def train(model, source, start, contexts, workers, args):
    """The pre-training loop.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel
    source : bert.pretraining.sources.Shards or bert.pretraining.sources.Text
    start : int
        The step to go on from.
    contexts : list of mxnet.Context
    workers : bert.distributed.workers.Workers

    Returns
    -------
    dict or None
        Losses and accuracies of the last log line; None where no step was left.
    """
    cut = Cut(
        args.batch_size,
        args.accumulate * len(contexts) * workers.count,
        args.num_buckets,
        args.by_token,
    )
    trainer = update.build_trainer(
        model, 'bertadam', args.lr, EPSILON, kvstore=workers.local_kvstore(args.kvstore)
    )
    adds_up = args.accumulate * len(contexts) > 1
    if adds_up:
        update.accumulate_gradients(model)
    parameters = update.trainable(model)
    loss = build_loss(contexts)
    loss_scale = update.LossScale(args.dtype)
    order = data_order(source, cut, args)
    recorder = Recorder(model, trainer, loss_scale, order, workers, args)
    position = recorder.restore(start)
    warmup = int(args.num_steps * args.warmup_ratio)
    logging.info('%s; steps %d to %d', source, start + 1, args.num_steps)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        stack.enter_context(run.naming_step(recorder))
        bar = stack.enter_context(progress(args.num_steps - start, 'pre-training', 'step'))
        profile = stack.enter_context(Profile(workers.is_first and args.profile))
        updates = stack.enter_context(pretraining_batches.updates(source, cut, args.seed, position))
        for step, (batches, position) in zip(range(start + 1, args.num_steps + 1), updates):
            logging.debug('step %d: batches of %s', step, [batch.ids.shape for batch in batches])
            recorder.step = step
            rate = schedule.learning_rate(step, args.lr, warmup, args.num_steps)
            update.seed_step(args.seed, step, workers.rank)
            statistics = gradients(model, loss, batches, contexts, loss_scale.value, workers)
            update.update(trainer, parameters, 1, rate, loss_scale, workers)
            if adds_up:
                update.clear_gradients(model)
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
        See :meth:`bert.pretraining.loss.Tally.metrics`.
    """
    loss = pretraining_loss.build_loss(contexts)
    tally, pending = Tally(), deque()
    with progress(source.count, 'evaluation', 'row') as bar:
        batches = evaluation(source, args.batch_size_eval, args.seed)
        for number, batch in enumerate(batches):
            bar.update(len(batch.nsp_labels))
            if number % workers.count != workers.rank:
                continue
            ctx = contexts[number // workers.count % len(contexts)]
            pending.append((batch, pretraining_loss.statistics(model, loss, batch, ctx)[1]))
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
    program.run(main)
