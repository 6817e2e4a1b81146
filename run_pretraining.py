#!/usr/bin/env python3
"""Pre-train BERT: masked words and next sentences, on the shards of create_pretraining_data.py."""

import signal

if __name__ == '__main__':
    # Until the program catches an interrupt, that ends it without a traceback of the imports.
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as in a background job
    signal.signal(signal.SIGINT, signal.SIG_IGN if is_ignored else signal.SIG_DFL)

import contextlib
import logging
import time
from pathlib import Path

from bert.checkpoints import reading
from bert.checkpoints.config import check_segments
from bert.checkpoints.source import is_zoo_model, locate, locate_configuration
from bert.cli.console import log_to_file, progress
from bert.cli.program import run
from bert.pretraining import batches as streams
from bert.pretraining.flags import (
    PROFILED_STEPS,
    build_flags,
    parse_args,
)
from bert.pretraining.instance_flags import recipe_of
from bert.pretraining.sources import Shards, Text, log_undescribed
from bert.system.errors import Stopped, ToolkitError, UsageError
from bert.system.files import replacing
from bert.text.vocab import plain_vocab
from bert.training import devices, schedule
from bert.training.failures import naming_step
from bert.training.folder import add_line, held
from bert.training.run import started, stop_signal
from bert.training.scratch import FROM_SCRATCH, is_from_scratch

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
    with started(args.kvstore, args.dtype, args.verbose) as (memory, workers):
        return pretrain(args, memory, workers)


def pretrain(args, memory, workers):
    """Do the work of :func:`main` on each worker."""
    from bert.model.parameters import save_huggingface
    from bert.pretraining.recorder import LOG, open_folder
    from bert.training import states
    from bert.training.update import contexts as find_contexts

    logging.info(args)
    contexts = find_contexts(args.gpus or [workers.local_rank] * args.gpu)
    start, saved = workers.from_first(lambda: choose_start(args))
    location = find_model(args)
    model, vocab = build_model(location, contexts, args)
    sources = {
        name: open_source(patterns, location, model.settings, vocab, args)
        for name, patterns in (('train', args.data), ('eval', args.data_eval))
        if patterns
    }
    by_worker = build_flags().with_role('by_worker')
    workers.check_same('flags', {n: v for n, v in vars(args).items() if n not in by_worker})
    log_undescribed(sources.values())
    workers.check_same('data', {name: source.description for name, source in sources.items()})
    folder = Path(args.ckpt_dir)
    if start and not args.do_training:
        workers.from_first(lambda: states.load_parameters(folder, start, model))
    workers.broadcast_parameters(model)
    result = {'step': start, 'train': None, 'eval': None}
    with held(folder, workers) if args.do_training else contextlib.nullcontext():
        if args.do_training:
            if workers.is_first:
                open_folder(folder, start, saved)
                log_to_file(memory, folder / LOG, append=start > 0)
            result['train'] = train(model, sources['train'], start, contexts, workers, args)
            result['step'] = args.num_steps
            if workers.is_first:
                lower = choose_casing(location, vocab, args, sources['train'])
                save_huggingface(folder / 'model', model, vocab, lower)
                logging.info('the trained model is in %s', folder / 'model')
        if args.do_eval:
            start = time.monotonic()
            result['eval'] = evaluate(model, sources['eval'], contexts, workers, args)
            report_evaluation(result['eval'], time.monotonic() - start)
            if args.do_training and workers.is_first:
                add_line(folder, {'step': result['step'], 'eval': result['eval']})
    return result


def choose_start(args):
    """Choose the training state to go on from, or to evaluate.

    Returns
    -------
    int, dict or None
        Its step, or 0, and its ``progress``.
    """
    from bert.training import states

    start, saved = args.start_step, None
    if start == 'auto':
        start, saved = states.newest(args.ckpt_dir)
        logging.info('--start_step auto: %s', f'step {start}' if start else 'no checkpoint yet')
        if not start and not args.do_training:
            raise ToolkitError(f'{args.ckpt_dir}: there is no checkpoint to evaluate')
    elif start:
        saved = states.read_progress(args.ckpt_dir, start)
    if start > args.num_steps and args.do_training:
        raise UsageError(
            f'{args.ckpt_dir} holds step {start}, which is after the last one, '
            f'--num_steps {args.num_steps}'
        )
    had = bool(saved and saved.get('no_nsp'))
    if start and args.do_training and had != args.no_nsp:
        raise UsageError(
            f'--start_step: the run in {args.ckpt_dir} was {"with" if had else "without"} --no_nsp '
            f'and is {"without" if had else "with"} it now; use the same, or start over without '
            '--start_step'
        )
    return start, saved


def has_weights(args):
    """Return whether training begins with the weights of --bert_model."""
    if is_from_scratch(args.bert_model, args.vocab_file):
        return False
    return args.pretrained or not is_zoo_model(args.bert_model)


def find_model(args):
    """Find the model that the flags name, and fetch it if need be."""
    if is_from_scratch(args.bert_model, args.vocab_file):
        return locate_configuration(args.bert_model, args.vocab_file)
    return locate(args.bert_model, args.dataset_name, with_weights=has_weights(args))


def build_model(location, contexts, args):
    """Build BERT with both heads, and load its weights.

    Returns
    -------
    gluonnlp.model.BERTModel, gluonnlp.vocab.BERTVocab
    """
    from bert.model.build import cast
    from bert.model.loading import build_located
    from bert.model.parameters import set_encoder
    from bert.pretraining.loss import finish_initialization, freeze_next_sentence
    from bert.training import update

    update.seed_step(args.seed, 0)
    weights = reading.read_weights(location) if has_weights(args) else None
    model, vocab = build_located(location, contexts, weights, use_decoder=True, use_classifier=True)
    if weights:
        set_encoder(model, weights)
    else:
        logging.info(FROM_SCRATCH)
    finish_initialization(model, contexts[0])
    if args.no_nsp:
        freeze_next_sentence(model)
    cast(model, args.dtype)
    model.hybridize(static_alloc=True)
    return model, vocab


def open_source(patterns, location, settings, vocab, args):
    """Open the data that a flag names.

    Returns
    -------
    bert.pretraining.sources.Shards or bert.pretraining.sources.Text
    """
    plain = plain_vocab(vocab)
    if not args.no_nsp:
        check_segments(settings, location.folder)
    max_length = settings['max_length']
    if not args.raw:
        return Shards(patterns, plain, max_length, args.no_nsp)
    if args.max_seq_length > max_length:
        raise UsageError(
            f'--max_seq_length {args.max_seq_length} is more than the {max_length} positions of '
            'this model'
        )
    lower = choose_casing(location, vocab, args)
    return Text(patterns, plain, lower, recipe_of(args, dupe_factor=1), args.num_workers)


def choose_casing(location, vocab, args, source=None):
    """Decide whether to lower-case text: as in the training data, or as the model expects."""
    if args.do_lower_case:
        return True
    lower = getattr(source, 'lower', None)
    return lower if isinstance(lower, bool) else reading.read_casing(location, vocab)[0]


def train(model, source, start, contexts, workers, args):
    """Train from one step to the last.

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
        Losses and accuracies of the last log line; None if no step was left.
    """
    from bert.pretraining.loss import build_loss, gradients
    from bert.pretraining.recorder import Recorder
    from bert.training import update

    parts = args.accumulate * len(contexts)
    cut = streams.Cut(args.batch_size, parts * workers.count, args.num_buckets, args.by_token)
    trainer = update.build_trainer(
        model, 'bertadam', args.lr, EPSILON, kvstore=workers.local_kvstore(args.kvstore)
    )
    warmup = int(args.num_steps * args.warmup_ratio)
    updater = update.Updater(
        model,
        trainer,
        lambda step: schedule.learning_rate(step, args.lr, warmup, args.num_steps),
        args.dtype,
        args.seed,
        workers,
        adds_up=parts > 1,
    )
    loss = build_loss(contexts)
    order = {'seed': args.seed, 'cut': list(cut), 'data': source.description}
    recorder = Recorder(Path(args.ckpt_dir), order, args.ckpt_keep, workers, args.no_nsp)
    position = recorder.restore(updater, start)

    def compute(batches):
        scale = updater.loss_scale.value
        return gradients(model, loss, batches, contexts, scale, workers, args.no_nsp)

    since = time.monotonic()
    logging.info('%s; steps %d to %d', source, start + 1, args.num_steps)
    with contextlib.ExitStack() as stack:
        asked_to_stop = stack.enter_context(stop_signal(workers))
        stack.enter_context(naming_step(lambda: (recorder.step, recorder.describe_saved())))
        bar = stack.enter_context(progress(args.num_steps - start, 'pre-training', 'step'))
        profile = stack.enter_context(Profile(workers.is_first and args.profile))
        updates = stack.enter_context(streams.updates(source, cut, args.seed, position))
        for step, (batches, position) in zip(range(start + 1, args.num_steps + 1), updates):
            logging.debug('step %d: batches of %s', step, [batch.ids.shape for batch in batches])
            recorder.step = step
            updater.begin(step)
            recorder.count(batches, compute(batches))
            # The batches are weighted so that the gradients are already the mean, as of one sample.
            rate = updater.finish(step, samples=1)
            is_last = step == args.num_steps
            signum = asked_to_stop()
            if step % args.log_interval == 0 or is_last:
                recorder.log(rate)
            if step % args.ckpt_interval == 0 or is_last or signum:
                recorder.save(updater, position)
            profile.count()
            bar.update()
            if signum:
                raise Stopped(
                    signum, f'step {step} is saved, and --start_step auto goes on from there'
                )
    logging.info('Train cost=%.1fs', time.monotonic() - since)
    return recorder.metrics


class Profile:
    """MXNet's profile of the first steps, written to a file if one is named."""

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
        """Count a step, and finish after the last one to profile."""
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
    """Compute losses and accuracies over all instances, shared by the workers.

    Those of each ``--log_interval`` batches are logged.

    Returns
    -------
    dict of str to float
        See :meth:`bert.pretraining.loss.Tally.metrics`.
    """
    from bert.pretraining.loss import Tally, build_loss, statistics
    from bert.pretraining.recorder import log_step

    logged, tokens, since = Tally(), 0, time.monotonic()
    loss, tally = build_loss(contexts), Tally()
    late = devices.Late(tally.add, devices.IN_FLIGHT * len(contexts))
    with progress(source.count, 'evaluation', 'row') as bar:
        batches = streams.evaluation(source, args.batch_size_eval, args.seed)
        for number, batch in enumerate(batches, 1):
            bar.update(len(batch.nsp_labels))
            tokens += int(batch.valid_lengths.sum())
            ctx = devices.take_turns(number - 1, contexts, workers)
            if ctx:
                late.add(batch, statistics(model, loss, batch, ctx)[1])
            if number % args.log_interval == 0:
                late.finish()
                total = Tally(workers.sum_numpy(tally.sums))
                latest = Tally(total.sums - logged.sums).metrics(args.no_nsp)
                log_step(number, latest, tokens, 0, time.monotonic() - since)
                logged, tokens, since = total, 0, time.monotonic()
    late.finish()
    tally.sums = workers.sum_numpy(tally.sums)
    return tally.metrics(args.no_nsp)


def report_evaluation(metrics, seconds):
    """Log an evaluation in the original's format."""
    from bert.pretraining.loss import describe

    logging.info('%s', describe(metrics, digits=3))
    logging.info('Eval cost=%.1fs', seconds)


if __name__ == '__main__':
    run(main)
