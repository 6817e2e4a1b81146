#!/usr/bin/env python3
"""Make shards of masked-LM and next-sentence instances from text files."""

import argparse
import contextlib
import logging
import os
import re
import time
from collections import Counter
from pathlib import Path

from bert.checkpoints import zoo
from bert.checkpoints.zoo import OTHER_SPELLINGS, ZOO_SHA1, zoo_data_set
from bert.cli.console import progress, start_logging
from bert.cli.flags import Parser, fraction, positive_float, positive_int, seed
from bert.cli.program import run
from bert.pretraining.generation import Task, Tokenization, make_shard
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import remove_leftovers
from bert.system.processes import heed_signals, stop_children
from bert.text.sentencepiece import load_sentencepiece_vocab
from bert.text.vocab import has_capitals, load_vocab

DESCRIPTION = """
Make masked-LM and next-sentence training data from text: a sentence a line, a blank line between
documents (the end of a file ends a document too). Every sentence of an output is paired with the
following text or with that of another document of the same output.
"""


def parse_args(argv=None):
    parser = Parser(DESCRIPTION)
    parser.add_argument(
        '--input_file', required=True, metavar='GLOBS', help='text files: comma-separated globs'
    )
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument('--output_file', metavar='OUT', help='write the one file OUT.npz')
    output.add_argument(
        '--output_dir', metavar='DIR', help='write DIR/part-000.npz, DIR/part-001.npz, ...'
    )
    parser.add_argument(
        '--format',
        choices=['numpy', 'recordio'],
        default='numpy',
        help='numpy: .npz files of plain arrays; recordio: .rec files of JSON objects, with .idx',
    )
    parser.add_argument(
        '--num_outputs',
        type=positive_int,
        default=1,
        metavar='N',
        help='files in --output_dir, each from its own share of the text',
    )
    parser.add_argument(
        '--num_workers',
        type=positive_int,
        metavar='N',
        help='processes, each making an output at a time (default: as many as there are '
        'processors, or outputs if those are fewer); the files do not depend on it',
    )
    parser.add_argument(
        '--scheduler',
        type=scheduler_address,
        metavar='ADDRESS',
        help='of a Dask scheduler, such as 10.0.0.2:8786: its workers make the outputs, on '
        'machines that share the input files and the folder of the outputs; the files do not '
        'depend on it',
    )

    vocab = parser.add_argument_group('vocabulary').add_mutually_exclusive_group(required=True)
    vocab.add_argument(
        '--vocab_file',
        metavar='FILE',
        help='a vocab.txt or a Gluon .vocab file; a missing file with a name of the model zoo, '
        "such as book_corpus_wiki_en_uncased-c3e2bd00.vocab, means the zoo's present one",
    )
    vocab.add_argument(
        '--vocab',
        '--dataset_name',
        metavar='NAME',
        dest='dataset_name',
        choices=[*ZOO_SHA1, *OTHER_SPELLINGS],
        help='a vocabulary of the model zoo: %(choices)s',
    )
    vocab.add_argument(
        '--sentencepiece', metavar='FILE', help='a sentencepiece model, vocabulary and tokenizer'
    )

    text = parser.add_argument_group('text')
    text.add_argument(
        '--do_lower_case',
        action='store_true',
        help='lower-case the text and strip accents, for uncased vocabularies; with --vocab and '
        '--sentencepiece that is known without it',
    )
    text.add_argument(
        '--tokenized',
        action='store_true',
        help='the text is tokens of the vocabulary, separated by spaces: take them as they are',
    )
    text.add_argument(
        '--cased', action='store_true', help='with --sentencepiece: do not lower-case the text'
    )
    text.add_argument(
        '--sp_nbest',
        type=int,
        default=0,
        metavar='N',
        help='with --sentencepiece: sample the pieces of a word from the N best ways to split it, '
        'or from all of them if negative; 0 and 1 take the best',
    )
    text.add_argument(
        '--sp_alpha',
        type=positive_float,
        default=1.0,
        metavar='X',
        help='with --sp_nbest: the inverse temperature of the sampling',
    )

    recipe = parser.add_argument_group('instances')
    recipe.add_argument(
        '--max_seq_length',
        type=positive_int,
        default=128,
        metavar='N',
        help='tokens of an instance at most, 5 or more',
    )
    recipe.add_argument(
        '--max_predictions_per_seq',
        type=positive_int,
        default=20,
        metavar='N',
        help='masked tokens of an instance at most',
    )
    recipe.add_argument(
        '--masked_lm_prob',
        type=fraction,
        default=0.15,
        metavar='P',
        help='masked share of the tokens',
    )
    recipe.add_argument(
        '--short_seq_prob',
        type=fraction,
        default=0.1,
        metavar='P',
        help='share of documents that are cut into shorter instances',
    )
    recipe.add_argument(
        '--dupe_factor',
        type=positive_int,
        default=10,
        metavar='N',
        help='passes over the text, with different pairs and masks',
    )
    recipe.add_argument(
        '--whole_word_mask', action='store_true', help='mask all tokens of a word or none'
    )
    recipe.add_argument('--random_seed', type=seed, default=12345, metavar='N', help='seed')
    parser.add_argument(
        '--verbose', action='store_true', help="log each output's first instance as tokens"
    )
    args = parser.parse_args(argv)
    check_args(args)
    return args


def scheduler_address(text):
    """HOST:PORT, perhaps with a protocol before it."""
    if not re.fullmatch(r'((tcp|tls)://)?([^\s/:]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}', text):
        raise argparse.ArgumentTypeError(f'{text!r} is not HOST:PORT, such as 10.0.0.2:8786')
    return text


def check_args(args):
    """Refuse flags that contradict each other."""
    if args.max_seq_length < 5:
        raise UsageError(
            f'--max_seq_length {args.max_seq_length}: at least 5, for [CLS] one token [SEP] '
            'another [SEP]'
        )
    if args.output_file and args.num_outputs > 1:
        raise UsageError('--num_outputs goes with --output_dir; --output_file writes one file')
    if args.scheduler and args.num_workers:
        raise UsageError(
            '--num_workers starts processes on this machine, --scheduler takes the workers that '
            'there are: drop one of them'
        )
    if args.scheduler and args.verbose:
        raise UsageError('--verbose shows what this machine makes: drop it or --scheduler')
    for flag, default in (('cased', False), ('sp_nbest', 0), ('sp_alpha', 1.0)):
        given = getattr(args, flag) != default
        if given and not args.sentencepiece:
            raise UsageError(f'--{flag} goes with --sentencepiece only')
        if given and args.tokenized:
            raise UsageError(f'--tokenized takes the tokens as they are: drop --{flag}')
    if args.do_lower_case and args.tokenized:
        raise UsageError('--tokenized takes the tokens as they are: drop --do_lower_case')
    if args.do_lower_case and args.cased:
        raise UsageError('--do_lower_case and --cased contradict each other')


def main(argv=None):
    """Make all outputs.

    Returns
    -------
    dict
        The figures of the summary, and ``files``, the paths of the outputs.
    """
    args = parse_args(argv)
    start_logging()
    if args.verbose:
        logging.getLogger().setLevel(logging.DEBUG)
    logging.info(args)
    start = time.perf_counter()
    tasks = plan_tasks(args)
    with progress(100 * len(tasks), 'instances', '%') as bar, without_leftovers(tasks):
        if args.scheduler:
            tallies = make_elsewhere(tasks, args.scheduler, bar)
        else:
            tallies = make_all(tasks, choose_workers(args.num_workers, len(tasks)), bar)
    return summarize(tasks, tallies, time.perf_counter() - start)


def plan_tasks(args):
    """The work to do, as a list of :class:`Task`; refuses early what would fail late."""
    from bert.pretraining.corpus import find_files, share_out
    from bert.pretraining.instances import Recipe

    outputs = output_paths(args)
    inputs = find_files(args.input_file)
    vocab = choose_vocab(args)
    tokenization = Tokenization(
        lower=choose_lower(args),
        tokenized=args.tokenized,
        sentencepiece=args.sentencepiece,
        sp_nbest=args.sp_nbest,
        sp_alpha=args.sp_alpha,
    )
    if not (tokenization.lower or args.tokenized or args.sentencepiece or has_capitals(vocab)):
        logging.warning('the vocabulary has no capital letters: is --do_lower_case missing?')
    recipe = Recipe(**{name: getattr(args, name) for name in Recipe._fields})
    logging.info('input files: %d, output files: %d', len(inputs), len(outputs))
    return [
        Task(path, i, spans, vocab, tokenization, recipe, args.random_seed, args.format)
        for i, (path, spans) in enumerate(zip(outputs, share_out(inputs, len(outputs))))
    ]


def output_paths(args):
    """The files to write, once it is clear that they can be written."""
    suffix = '.rec' if args.format == 'recordio' else '.npz'
    if args.output_file:
        name = os.path.expanduser(args.output_file)
        paths = [Path(name if name.endswith(suffix) else name + suffix)]
    else:
        folder = Path(os.path.expanduser(args.output_dir))
        paths = [folder / f'part-{i:03d}{suffix}' for i in range(args.num_outputs)]
        others = sorted(set(folder.glob(f'part-*{suffix}')) - set(paths))
        if others:
            logging.warning('%s: stays from an earlier run (%d files)', others[0], len(others))
    folder = next(parent for parent in paths[0].absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ToolkitError(f'{folder}: not a directory')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ToolkitError(f'{folder}: no permission to write there')
    for path in paths:
        if path.is_dir():
            raise ToolkitError(f'{path}: a directory is in the way')
    return paths


def choose_vocab(args):
    """The vocabulary that the flags name."""
    if args.sentencepiece:
        return load_sentencepiece_vocab(os.path.expanduser(args.sentencepiece))
    if args.dataset_name:
        return load_vocab(zoo.vocab_path(args.dataset_name))
    path = Path(os.path.expanduser(args.vocab_file))
    data_set = zoo_data_set(path)
    if data_set and not path.exists():
        present = zoo.vocab_path(data_set)
        logging.info("%s is missing: the zoo's present one, %s, takes its place", path, present)
        path = present
    return load_vocab(path)


def choose_lower(args):
    """Whether the text is lower-cased."""
    if args.sentencepiece:
        return not args.cased
    return args.do_lower_case or 'uncased' in OTHER_SPELLINGS.get(
        args.dataset_name, args.dataset_name or ''
    )


def choose_workers(asked, outputs):
    """The number of processes: no more than outputs, which cannot be divided."""
    if not asked:
        has_affinity = hasattr(os, 'sched_getaffinity')
        asked = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    return min(asked, outputs)


def make_all(tasks, workers, bar):
    """Make the outputs in this process, or in several.

    Returns
    -------
    list of collections.Counter
        One a task, as :func:`make_shard` counted.
    """
    tasks[0].path.parent.mkdir(parents=True, exist_ok=True)
    if workers > 1:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(workers, initializer=heed_signals) as executor:
            try:
                return submit_all(tasks, executor, bar)
            except KeyboardInterrupt:
                stop_children()
                raise
    tallies = []
    for i, task in enumerate(tasks):
        tallies.append(
            make_shard(task, lambda share, i=i: bar.update(int(100 * (i + share)) - bar.n))
        )
    return tallies


def make_elsewhere(tasks, scheduler, bar):
    """Make the outputs with the workers of a Dask scheduler; returns what make_all does."""
    from bert.pretraining.dask import dask_executor

    tasks = [with_absolute_paths(task) for task in tasks]
    inputs = {span.path for task in tasks for span in task.spans}
    inputs.update(filter(None, (task.tokenization.sentencepiece for task in tasks)))
    with dask_executor(scheduler, tasks[0].path, sorted(inputs)) as (executor, watch, beacon):
        return submit_all([task._replace(beacon=beacon) for task in tasks], executor, bar, watch)


def with_absolute_paths(task):
    """The same task in a process that has another working directory and home."""

    def absolute(path):
        return path and os.path.abspath(os.path.expanduser(path))

    how = task.tokenization
    return task._replace(
        path=Path(absolute(task.path)),
        spans=[span._replace(path=absolute(span.path)) for span in task.spans],
        tokenization=how._replace(sentencepiece=absolute(how.sentencepiece)),
    )


@contextlib.contextmanager
def without_leftovers(tasks):
    """Remove, before and afterwards, what killed workers left of outputs half written."""

    def remove():
        for task in tasks:
            for path in (task.path, task.path.with_suffix('.idx')):
                remove_leftovers(path)

    remove()
    try:
        yield
    finally:
        remove()


def work(task):
    """:func:`make_shard` for a worker process, which a signal ends, not only its task."""
    try:
        return make_shard(task)
    except SystemExit as left:
        os._exit(left.code)


def submit_all(tasks, executor, bar, watch=lambda: None):
    """Make the outputs with a ``concurrent.futures.Executor``; the first error cancels the rest.

    Meanwhile ``watch`` is called every few seconds, for it to raise what no future would tell.
    """
    from concurrent.futures import FIRST_COMPLETED, wait
    from concurrent.futures.process import BrokenProcessPool

    pending = futures = [executor.submit(work, task) for task in tasks]
    try:
        while pending:
            done, pending = wait(pending, timeout=2, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                bar.update(100)
            watch()
    except BrokenProcessPool:
        raise ToolkitError(
            'a worker process was killed, perhaps for want of memory: take fewer --num_workers '
            'or more --num_outputs'
        ) from None
    finally:
        for future in futures:
            future.cancel()
    return [future.result() for future in futures]


def summarize(tasks, tallies, seconds):
    """Add up the outputs and log the sums."""
    total = sum(tallies, Counter())
    summary = {
        'instances': total['instances'],
        'mean_length': total['tokens'] / total['instances'],
        'padding': 1 - total['tokens'] / total['places'],
        'masked': total['predictions'] / total['tokens'],
        'random_next': total['random_next'] / total['instances'],
        'seconds': seconds,
        'instances_per_second': total['instances'] / seconds,
        'files': [str(task.path) for task in tasks],
    }
    for task, tally in zip(tasks, tallies):
        logging.info('wrote %s (%d instances)', task.path, tally['instances'])
    logging.info(
        'instances={instances}, mean length={mean_length:.1f}, padding={padding:.1%}, '
        'masked={masked:.1%}, random next={random_next:.1%}'.format(**summary)
    )
    logging.info(
        'Time cost={seconds:.1f}s ({instances_per_second:.0f} instances/s)'.format(**summary)
    )
    return summary


if __name__ == '__main__':
    run(main)
