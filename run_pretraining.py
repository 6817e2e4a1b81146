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
from bert.checkpoints.cards import write_card
from bert.checkpoints.config import check_segments
from bert.checkpoints.source import is_zoo_model, locate, locate_configuration
from bert.cli.console import log_result, log_to_file, progress
from bert.cli.program import run
from bert.pretraining import batches as streams
from bert.pretraining.card import format_run
from bert.pretraining.flags import parse_args
from bert.pretraining.instance_flags import layout_of, recipe_of
from bert.pretraining.parser import PROFILED_STEPS, build_flags
from bert.pretraining.sources import Shards, Text, log_undescribed
from bert.system.errors import Stopped, UsageError
from bert.system.files import replacing
from bert.text.vocab import fingerprint, plain_vocab
from bert.training import schedule
from bert.training.events import EventFile
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
        interval and of the last evaluation, or None.
    """
    args = parse_args(argv)
    with started(args.kvstore, args.dtype, args.verbose, args.quiet) as (memory, workers):
        return pretrain(args, memory, workers)


def pretrain(args, memory, workers):
    """Do the work of :func:`main` on each worker."""
    from bert.model.parameters import save_huggingface
    from bert.pretraining.evaluation import evaluate
    from bert.pretraining.loss import build_loss
    from bert.pretraining.recorder import LOG, open_folder
    from bert.pretraining.start import check_vocabulary, choose_start, load_weights
    from bert.training import states
    from bert.training.update import contexts as find_contexts

    logging.info(args)
    contexts = find_contexts(args.gpus or [workers.local_rank] * args.gpu)
    last = args.num_steps if args.do_training else None
    wanted = args.ckpt_dir, args.start_step, last, args.no_nsp, args.optimizer
    start, saved = workers.from_first(lambda: choose_start(*wanted))
    location = find_model(args)
    if not (start or args.start_from or has_weights(args)):
        logging.info(FROM_SCRATCH)
    model, vocab = build_model(location, contexts, args)
    plain = plain_vocab(vocab)
    sources = {
        name: open_source(patterns, location, model.settings, plain, args)
        for name, patterns in (('train', args.data), ('eval', args.data_eval))
        if patterns
    }
    by_worker = build_flags().with_role('by_worker')
    workers.check_same('flags', {n: v for n, v in vars(args).items() if n not in by_worker})
    # The files that name them may have other paths on other machines.
    casing = [source.lower for source in sources.values()]
    workers.check_same('sizes, vocabulary or casing', [model.settings, fingerprint(plain), casing])
    check_vocabulary(args.ckpt_dir, saved, plain)
    log_undescribed(sources.values())
    workers.check_same('data', {name: source.description for name, source in sources.items()})
    folder, events = Path(args.ckpt_dir), None
    if args.do_training:
        first = model, plain, args.start_from, start, args.no_nsp
        workers.from_first(lambda: load_weights(*first))
    elif start:
        path = states.parameters_path(folder, start)
        workers.from_first(lambda: states.load_parameters(path, model))
    workers.broadcast_parameters(model)
    result = {'step': start, 'train': None, 'eval': None}
    with held(folder, workers) if args.do_training else contextlib.nullcontext():
        if args.do_training:
            if workers.is_first:
                open_folder(folder, start, saved)
                log_to_file(memory, folder / LOG, append=start > 0)
                events = EventFile(folder) if args.tensorboard else None
            recorder = train(model, sources, start, contexts, workers, events, args)
            result = {
                'step': args.num_steps,
                'train': recorder.metrics,
                'eval': recorder.evaluation,
            }
            if workers.is_first:
                lower = choose_casing(location, vocab, args, sources['train'])
                save_huggingface(folder / 'model', model, vocab, lower)
                logging.info('the trained model is in %s', folder / 'model')
        if args.do_eval:
            result['eval'] = evaluate(
                model,
                build_loss(contexts),
                *(sources['eval'], args.batch_size_eval, args.seed, contexts, workers),
                no_nsp=args.no_nsp,
                log_interval=args.log_interval,
                log=log_result,
            )
            if args.do_training and workers.is_first:
                add_line(folder, {'step': result['step'], 'eval': result['eval']}, events)
        if args.do_training and workers.is_first:
            weights = location if has_weights(args) else None
            write_card(folder / 'model', format_run(args, weights, result['eval']))
    return result


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
    model, vocab = build_located(
        location, contexts, weights, args.dropout, use_decoder=True, use_classifier=True
    )
    if weights:
        set_encoder(model, weights)
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
    if not args.no_nsp:
        check_segments(settings, location.config or location.folder)
    max_length = settings['max_length']
    if not args.raw:
        return Shards(patterns, vocab, max_length, args.no_nsp)
    if args.max_seq_length > max_length:
        raise UsageError(
            f'--max_seq_length {args.max_seq_length} is more than the {max_length} positions of '
            'this model'
        )
    lower = choose_casing(location, vocab, args)
    recipe = recipe_of(args, dupe_factor=1)
    return Text(patterns, vocab, lower, recipe, args.num_workers, layout_of(args))


def choose_casing(location, vocab, args, source=None):
    """Decide whether to lower-case text: as in the training data, or as the model expects."""
    if args.do_lower_case:
        return True
    lower = getattr(source, 'lower', None)
    return lower if isinstance(lower, bool) else reading.read_casing(location, vocab)[0]


def build_updater(model, adds_up, workers, args):
    """Build the updater that the flags describe; see :class:`bert.training.update.Updater`."""
    from bert.training import update

    trainer = update.build_trainer(
        model,
        args.optimizer,
        args.lr,
        EPSILON,
        args.bias_correction,
        workers.local_kvstore(args.kvstore),
        args.weight_decay,
    )
    warmup = int(args.num_steps * args.warmup_ratio)
    return update.Updater(
        model,
        trainer,
        lambda step: schedule.learning_rate(step, args.lr, warmup, args.num_steps),
        args.dtype,
        args.seed,
        workers,
        adds_up=adds_up,
        max_norm=args.max_grad_norm,
    )


def train(model, sources, start, contexts, workers, events, args):
    """Train from one step to the last, and evaluate on the way.

    An evaluation comes after the training state of its step, whose logs end before it: a run that
    goes on from there evaluates first.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel
    sources : dict of str to bert.pretraining.sources.Shards or bert.pretraining.sources.Text
        ``train``, and ``eval`` for evaluations.
    start : int
        The step to go on from.
    contexts : list of mxnet.Context
    workers : bert.distributed.workers.Workers
    events : bert.training.events.EventFile or None

    Returns
    -------
    bert.pretraining.recorder.Recorder
    """
    from bert.pretraining.evaluation import evaluate
    from bert.pretraining.loss import build_loss, gradients
    from bert.pretraining.recorder import Recorder
    from bert.pretraining.start import describe_run

    parts = args.accumulate * len(contexts)
    cut = streams.Cut(args.batch_size, parts * workers.count, args.num_buckets, args.by_token)
    updater = build_updater(model, parts > 1, workers, args)
    loss = build_loss(contexts)
    source = sources['train']
    order = {'seed': args.seed, 'cut': list(cut), 'data': source.description}
    said = describe_run(args.no_nsp, args.optimizer, source.vocab)
    recorder = Recorder(Path(args.ckpt_dir), order, args.ckpt_keep, workers, said, events)
    position = recorder.restore(updater, start)

    def compute(batches):
        scale = updater.loss_scale.value
        return gradients(model, loss, batches, contexts, scale, workers, args.no_nsp)

    def check():
        signum = asked_to_stop()
        if signum:
            if recorder.saved_step < recorder.step:
                recorder.save(updater, position)
            saved = f'step {recorder.step} is saved'
            raise Stopped(signum, f'{saved}, and --start_step auto continues from there')

    def evaluate_if_due():
        if is_evaluated(recorder.step, args):
            data = sources['eval'], args.batch_size_eval, args.seed, contexts, workers
            recorder.evaluate(lambda: evaluate(model, loss, *data, args.no_nsp, check=check))
            bar.unpause()

    since = time.monotonic()
    logging.info('%s; steps %d to %d', source, start + 1, args.num_steps)
    with contextlib.ExitStack() as stack:
        asked_to_stop = stack.enter_context(stop_signal(workers))
        stack.enter_context(naming_step(lambda: (recorder.step, recorder.describe_saved())))
        bar = stack.enter_context(progress(args.num_steps - start, 'pre-training', 'step'))
        evaluate_if_due()
        profile = stack.enter_context(Profile(workers.is_first and args.profile))
        updates = stack.enter_context(streams.updates(source, cut, args.seed, position))
        updates = recorder.taking(updates)
        for step, (batches, position) in zip(range(start + 1, args.num_steps + 1), updates):
            logging.debug('step %d: batches of %s', step, [batch.ids.shape for batch in batches])
            recorder.step = step
            updater.begin(step)
            recorder.count(batches, compute(batches))
            # The batches are weighted so that the gradients are already the mean, as of one sample.
            rate = updater.finish(step, samples=1)
            is_last = step == args.num_steps
            if step % args.log_interval == 0 or is_last:
                recorder.log(rate)
            if step % args.ckpt_interval == 0 or is_last:
                recorder.save(updater, position)
            profile.count()
            bar.update()
            check()
            evaluate_if_due()
    logging.info('Train cost=%.1fs', time.monotonic() - since)
    logging.info('waited %.1fs for data', recorder.waited)
    return recorder


def is_evaluated(step, args):
    """Return whether training evaluates after a step; the last one is left to --do-eval."""
    if not args.eval_interval or step == 0:
        return False
    if step == args.num_steps:
        return not args.do_eval
    return step % args.eval_interval == 0


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


if __name__ == '__main__':
    run(main)
