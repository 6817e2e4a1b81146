#!/usr/bin/env python3
"""Make shards of masked-LM and next-sentence instances from text files."""

import signal

if __name__ == '__main__':
    # Until the program catches an interrupt, that ends it without a traceback of the imports.
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as in a background job
    signal.signal(signal.SIGINT, signal.SIG_IGN if is_ignored else signal.SIG_DFL)

import contextlib
import logging
import os
import time
from concurrent import futures
from pathlib import Path

from bert.checkpoints import installed, reading, zoo
from bert.checkpoints.source import locate
from bert.cli.console import progress, start_logging
from bert.cli.flags import (
    Parser,
    add_quiet_flag,
    address,
    count,
    integer,
    positive_float,
    process_count,
    seed,
)
from bert.cli.program import run
from bert.pretraining.files import find_files, share_out, warn_of_single_documents
from bert.pretraining.generation import (
    ShardPlan,
    Tokenization,
    make_shard,
    make_shard_in_worker,
    summarize,
    with_absolute_paths,
)
from bert.pretraining.instance_flags import (
    add_layout_flags,
    add_no_nsp_flag,
    add_recipe_flags,
    check_max_seq_length,
    layout_of,
    recipe_of,
)
from bert.system import processes
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import remove_leftovers
from bert.system.processors import count_processors
from bert.text.sentencepiece import load_sentencepiece_vocab
from bert.text.sentences import load_segmenter
from bert.text.vocab import has_capitals, load_vocab

DESCRIPTION = """
Make masked-LM and next-sentence training data from text with one sentence per line (or, with
--segment, plain text) and a blank line between documents (the end of a file also ends a document).
Each sentence is paired with the text that follows it or with text from another document of the same
output.
"""


def parse_args(argv=None):
    """Parse the flags, and check them as far as possible without reading files."""
    parser = Parser(DESCRIPTION)
    parser.add_argument(
        '--input_file', required=True, metavar='GLOBS', help='text files: comma-separated globs'
    )
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument(
        '--output_file',
        metavar='OUT',
        help='write the file OUT.npz; or several, comma-separated, each made from its own share of '
        'the text',
    )
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
        type=count,
        default=1,
        metavar='N',
        help='number of files in --output_dir, each made from its own share of the text',
    )
    parser.add_argument(
        '--num_workers',
        type=process_count,
        metavar='N',
        help='number of processes, each making one output at a time (default: the number of '
        'processors or of outputs, whichever is smaller); the files do not depend on it',
    )
    parser.add_argument(
        '--scheduler',
        type=address,
        metavar='ADDRESS',
        help='address of a Dask scheduler, such as 10.0.0.2:8786, whose workers make the outputs; '
        'their machines must share the input files and the output folder; the files do not depend '
        'on it',
    )

    vocab = parser.add_argument_group('vocabulary').add_mutually_exclusive_group(required=True)
    vocab.add_argument(
        '--vocab_file',
        metavar='FILE',
        help='a vocab.txt or a Gluon .vocab file; a missing file with a name from the model zoo, '
        "such as book_corpus_wiki_en_uncased-c3e2bd00.vocab, stands for the zoo's current one",
    )
    vocab.add_argument(
        '--vocab',
        '--dataset_name',
        metavar='NAME',
        dest='dataset_name',
        choices=[*zoo.ZOO_SHA1, *zoo.OTHER_SPELLINGS, *installed.INSTALLED],
        help='a vocabulary of the model zoo or of a model installed with pip: %(choices)s',
    )
    vocab.add_argument(
        '--sentencepiece',
        metavar='FILE',
        help='a sentencepiece model, used as vocabulary and tokenizer',
    )

    text = parser.add_argument_group('text')
    add_layout_flags(parser, text)
    text.add_argument(
        '--do_lower_case',
        action='store_true',
        help='lower-case the text and strip accents, for uncased vocabularies; not needed with '
        '--vocab or --sentencepiece',
    )
    text.add_argument(
        '--tokenized',
        action='store_true',
        help='the text consists of tokens of the vocabulary, separated by spaces, used as they are',
    )
    text.add_argument(
        '--cased', action='store_true', help='with --sentencepiece: do not lower-case the text'
    )
    text.add_argument(
        '--sp_nbest',
        type=integer,
        default=0,
        metavar='N',
        help='with --sentencepiece: sample the pieces of a word from the N best ways to split it, '
        'or from all of them if N is negative; 0 and 1 always use the best',
    )
    text.add_argument(
        '--sp_alpha',
        type=positive_float,
        default=1.0,
        metavar='X',
        help='with --sp_nbest: inverse temperature of the sampling',
    )

    recipe = parser.add_argument_group('instances')
    add_recipe_flags(parser, recipe)
    add_no_nsp_flag(parser, recipe)
    recipe.add_argument('--random_seed', type=seed, default=12345, metavar='N', help='random seed')
    parser.add_argument(
        '--verbose', action='store_true', help='log the first 20 instances of each output as tokens'
    )
    add_quiet_flag(parser, parser, files='')
    args = parser.parse_args(argv)
    check_args(args)
    return args


def check_args(args):
    """Refuse flags that contradict each other."""
    check_max_seq_length(args.max_seq_length)
    layout_of(args)  # refuses a marker that is none
    if args.output_file and args.num_outputs > 1:
        raise UsageError('--num_outputs goes with --output_dir; --output_file names each file')
    if args.scheduler and args.num_workers:
        raise UsageError(
            '--num_workers starts processes on this machine, --scheduler uses existing workers: '
            'drop one of them'
        )
    if args.quiet and args.verbose:
        raise UsageError('--quiet and --verbose contradict each other')
    if args.scheduler and args.verbose:
        raise UsageError('--verbose shows what this machine makes: drop it or --scheduler')
    for flag, default in (('cased', False), ('sp_nbest', 0), ('sp_alpha', 1.0)):
        given = getattr(args, flag) != default
        if given and not args.sentencepiece:
            raise UsageError(f'--{flag} goes with --sentencepiece only')
        if given and args.tokenized:
            raise UsageError(f'--tokenized takes the tokens as they are: drop --{flag}')
    for flag in ('do_lower_case', 'segment'):
        if getattr(args, flag) and args.tokenized:
            raise UsageError(f'--tokenized takes the tokens as they are: drop --{flag}')
    if args.do_lower_case and args.cased:
        raise UsageError('--do_lower_case and --cased contradict each other')


def main(argv=None):
    """Make all shards.

    Returns
    -------
    dict
        The figures of the summary, and ``files``, the paths of the shards.
    """
    args = parse_args(argv)
    start_logging(args.quiet)
    if args.verbose:
        logging.getLogger().setLevel(logging.DEBUG)
    logging.info(args)
    start = time.perf_counter()
    plans = plan_shards(args)
    with progress(100 * len(plans), 'instances', '%') as bar:
        if args.scheduler:
            tallies = make_elsewhere(plans, args, bar)
        else:
            with writing(plans, args):
                workers = choose_workers(args.num_workers, len(plans))
                tallies = make_here(plans, workers, bar)
    return summarize(plans, tallies, time.perf_counter() - start)


def plan_shards(args):
    """Return a list of :class:`ShardPlan`, after early checks for errors that would come late."""
    outputs = output_paths(args)
    inputs = find_files(args.input_file)
    vocab, lower = choose_vocab(args)
    tokenization = Tokenization(
        lower=lower,
        tokenized=args.tokenized,
        sentencepiece=args.sentencepiece,
        sp_nbest=args.sp_nbest,
        sp_alpha=args.sp_alpha,
    )
    if not (tokenization.lower or args.tokenized or args.sentencepiece or has_capitals(vocab)):
        logging.warning('the vocabulary has no capital letters: is --do_lower_case missing?')
    recipe, layout = recipe_of(args), layout_of(args)
    if layout.segment:
        load_segmenter()
    logging.info('input files: %d, output files: %d', len(inputs), len(outputs))
    shares = share_out(inputs, len(outputs), whole_documents=not recipe.no_nsp, layout=layout)
    if not recipe.no_nsp:
        warn_of_single_documents(shares, layout)
    settings = vocab, tokenization, recipe, args.random_seed, args.format, layout
    return [
        ShardPlan(path, i, spans, *settings) for i, (path, spans) in enumerate(zip(outputs, shares))
    ]


def output_paths(args):
    """Return the files to write, after checking that they can be written."""
    suffix = '.rec' if args.format == 'recordio' else '.npz'
    if args.output_file:
        names = map(os.path.expanduser, filter(None, args.output_file.split(',')))
        paths = [Path(name if name.endswith(suffix) else name + suffix) for name in names]
        if not paths or len(set(paths)) < len(paths):
            raise UsageError(f'--output_file {args.output_file} does not name different files')
        if args.scheduler and len({path.parent for path in paths}) > 1:
            raise UsageError('--scheduler needs all files of --output_file in one folder')
    else:
        folder = Path(os.path.expanduser(args.output_dir))
        paths = [folder / f'part-{i:03d}{suffix}' for i in range(args.num_outputs)]
        others = sorted(set(folder.glob(f'part-*{suffix}')) - set(paths))
        if others:
            logging.warning('%s: left over from an earlier run (%d files)', others[0], len(others))
    for path in paths:
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise ToolkitError(f'{folder}: not a directory')
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ToolkitError(f'{folder}: no permission to write there')
        if path.is_dir():
            raise ToolkitError(f'{path}: a directory is in the way')
    return paths


def choose_vocab(args):
    """Return the vocabulary that the flags name, and whether to lower-case the text."""
    if args.sentencepiece:
        return load_sentencepiece_vocab(os.path.expanduser(args.sentencepiece)), not args.cased
    name = zoo.OTHER_SPELLINGS.get(args.dataset_name, args.dataset_name)
    if name in installed.INSTALLED:
        location = locate(name)
        vocab = load_vocab(location.vocab)
        return vocab, args.do_lower_case or reading.read_casing(location, vocab)[0]
    if name:
        return load_vocab(zoo.vocab_path(name)), args.do_lower_case or 'uncased' in name
    path = Path(os.path.expanduser(args.vocab_file))
    data_set = zoo.zoo_data_set(path)
    if data_set and not path.exists():
        present = zoo.vocab_path(data_set)
        logging.info("%s is missing: the zoo's current one, %s, is used instead", path, present)
        path = present
    return load_vocab(path), args.do_lower_case


def choose_workers(asked, outputs):
    """Choose the number of processes, at most one per output, as an output cannot be divided."""
    return min(asked or count_processors(), outputs)


@contextlib.contextmanager
def writing(plans, args, beacon=None):
    """Make the folders of the shards, and keep other programs from writing there in the block.

    Half-written files of killed workers are removed before and after it, except for the beacon of
    this command.
    """

    def remove():
        for plan in plans:
            for path in (plan.path, plan.path.with_suffix('.idx')):
                remove_leftovers(path, keep=beacon)

    for folder in {plan.path.parent for plan in plans}:
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # A folder that files are named in may have others, of other commands.
        for path in [plan.path for plan in plans] if args.output_file else [plans[0].path.parent]:
            stack.enter_context(processes.alone(path))
        remove()
        try:
            yield
        finally:
            remove()


def make_here(plans, workers, bar):
    """Make the shards in this process, or in several.

    Returns
    -------
    list of collections.Counter
        One for each shard, from :func:`make_shard`.
    """
    if workers > 1:
        with processes.process_pool(workers, processes.exit_on_signals) as executor:
            try:
                return submit_all(plans, executor, bar)
            except KeyboardInterrupt:
                processes.stop_children()
                raise
    tallies = []
    for i, plan in enumerate(plans):

        def on_progress(fraction, i=i):
            bar.update(int(100 * (i + fraction)) - bar.n)

        tallies.append(make_shard(plan, on_progress))
    return tallies


def make_elsewhere(plans, args, bar):
    """Make the shards with the workers of a Dask scheduler; see :func:`make_here`."""
    from bert.pretraining.dask import PACKAGES, dask_executor

    plans = [with_absolute_paths(plan) for plan in plans]
    inputs = {span.path for plan in plans for span in plan.spans}
    inputs.update(filter(None, (plan.tokenization.sentencepiece for plan in plans)))
    packages = (*PACKAGES, 'sentencex') if args.segment else PACKAGES
    connected = dask_executor(args.scheduler, plans[0].path, sorted(inputs), packages)
    with connected as (executor, check, beacon), writing(plans, args, beacon):
        return submit_all([plan._replace(beacon=beacon) for plan in plans], executor, bar, check)


def submit_all(plans, executor, bar, check_workers=lambda: None):
    """Make the shards with a ``concurrent.futures.Executor``; the first error cancels the rest.

    ``check_workers`` is called every few seconds, to raise errors that no future would raise.
    """
    with processes.holding_signals():
        pending = submitted = [executor.submit(make_shard_in_worker, plan) for plan in plans]
    try:
        while pending:
            done, pending = futures.wait(pending, timeout=2, return_when=futures.FIRST_COMPLETED)
            for future in done:
                future.result()
                bar.update(100)
            check_workers()
    except futures.BrokenExecutor:
        raise ToolkitError(
            'a worker process was killed, perhaps for lack of memory: use fewer --num_workers '
            'or more --num_outputs'
        ) from None
    finally:
        for future in submitted:
            future.cancel()
    return [future.result() for future in submitted]


if __name__ == '__main__':
    run(main)
