"""Data generation: the plan of a shard, and its making in any process on any machine."""

import logging
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from bert.pretraining.corpus import read_corpora
from bert.pretraining.files import BY_LINE, Layout
from bert.pretraining.instances import Recipe, make_instances
from bert.pretraining.masking import symbols_of
from bert.pretraining.shards import write_npz, write_recordio
from bert.system.errors import ToolkitError
from bert.text.sentencepiece import sentencepiece_encoder
from bert.text.tokenizer import build_tokenizer, tokenize
from bert.text.vocab import Vocab

# Instances of a long text are made from this many tokens at a time: some 35 MB of English,
# thousands of documents to draw random next sentences from.
CORPUS_TOKENS = 2**23
# How many instances of each output --verbose shows, as in the original.
SHOWN = 20


class Tokenization(NamedTuple):
    """The settings that turn a line of text into tokens, named like the command-line flags."""

    lower: bool
    tokenized: bool
    sentencepiece: Optional[str]
    sp_nbest: int
    sp_alpha: float


class ShardPlan(NamedTuple):
    """Everything that a shard depends on, in a form that can be pickled."""

    path: Path
    number: int
    spans: list
    vocab: Vocab
    tokenization: Tokenization
    recipe: Recipe
    random_seed: int
    format: str
    layout: Layout = BY_LINE
    # On other machines: a file that exists while the shard is wanted.
    beacon: Optional[str] = None


def with_absolute_paths(plan):
    """Return the same plan for a process with another working directory and home."""

    def absolute(path):
        return path and os.path.abspath(os.path.expanduser(path))

    tokenization = plan.tokenization
    return plan._replace(
        path=Path(absolute(plan.path)),
        spans=[span._replace(path=absolute(span.path)) for span in plan.spans],
        tokenization=tokenization._replace(sentencepiece=absolute(tokenization.sentencepiece)),
    )


def make_shard(plan, on_progress=lambda fraction: None):
    """Make one shard.

    Parameters
    ----------
    plan : ShardPlan
    on_progress : function
        Called with the fraction of the work that is done, from 0 to 1.

    Returns
    -------
    collections.Counter
        Sums over the instances: ``instances``, ``tokens``, ``places`` (tokens and padding),
        ``predictions`` and ``random_next``.
    """
    if plan.beacon:
        on_progress = partial(stop_if_abandoned, plan.beacon)
    tally = Counter()
    blocks = counted(make_blocks(plan, on_progress), tally, plan.vocab)
    if plan.format == 'recordio':
        write_recordio(plan.path, blocks)
    else:
        write_npz(plan.path, blocks, shard_settings(plan), plan.vocab)
    return tally


def make_shard_in_worker(plan):
    """Make one shard in a worker process; a signal ends the process, not just this call."""
    try:
        return make_shard(plan)
    except SystemExit as left:
        os._exit(left.code)


def stop_if_abandoned(beacon, fraction):
    """Stop a shard that is no longer wanted, so that it cannot replace a later command's."""
    if not os.path.exists(beacon):
        raise ToolkitError('given up by the command that asked for it')


def make_blocks(plan, on_progress):
    """Yield the instances of a shard in blocks, corpus by corpus.

    Reading a corpus and making its instances count as equal parts of the work.
    """
    tokenization = plan.tokenization
    rng = np.random.default_rng([plan.random_seed, plan.number])
    symbols = symbols_of(plan.vocab, word_start='\u2581' if tokenization.sentencepiece else None)
    made = read = 0  # fractions of the text

    def on_reading(fraction):
        nonlocal read
        read = fraction
        on_progress((made + read) / 2)

    for corpus in read_corpora(
        plan.spans,
        build_encoder(plan.vocab, tokenization, rng),
        len(plan.vocab),
        CORPUS_TOKENS,
        repeatable=tokenization.sp_nbest in (0, 1),
        on_progress=on_reading,
        whole_documents=not plan.recipe.no_nsp,
        layout=plan.layout,
    ):
        count, blocks = make_instances(corpus, plan.recipe, symbols, rng)
        start, done = made, 0
        for block in blocks:
            yield block
            done += len(block['valid_lengths'])
            made = start + (read - start) * done / count
            on_progress((made + read) / 2)


def build_encoder(vocab, tokenization, rng):
    """Build a function from a list of texts to a list of sequences of ids."""
    if tokenization.tokenized:
        return lambda texts: [[vocab[token] for token in text.split()] for text in texts]
    if tokenization.sentencepiece:
        path = os.path.expanduser(tokenization.sentencepiece)
        return sentencepiece_encoder(
            path, tokenization.lower, tokenization.sp_nbest, tokenization.sp_alpha, rng
        )
    return partial(tokenize, build_tokenizer(vocab, tokenization.lower))


def shard_settings(plan):
    """Return a shard's record of how it was made, without paths, which would change its bytes."""
    tokenization = plan.tokenization._asdict()
    return {
        **plan.recipe.described(),
        **plan.layout.described(),
        **tokenization,
        'sentencepiece': bool(tokenization['sentencepiece']),
        'random_seed': plan.random_seed,
        'output': plan.number,
    }


def counted(blocks, tally, vocab):
    """Yield blocks of instances, and add them to the tally."""
    for block in blocks:
        for row in range(min(SHOWN - tally['instances'], len(block['valid_lengths']))):
            logging.debug('instance: %s', as_text(block, row, vocab))
        tally['instances'] += len(block['valid_lengths'])
        tally['tokens'] += int(block['valid_lengths'].sum())
        tally['places'] += block['input_ids'].size
        tally['predictions'] += int(block['masked_lm_weights'].sum())
        tally['random_next'] += int(block['next_sentence_labels'].sum())
        yield block


def as_text(block, row, vocab):
    """Return an instance of a block as text."""
    length, masked = block['valid_lengths'][row], block['masked_lm_weights'][row].sum()
    tokens = [vocab.idx_to_token[i] for i in block['input_ids'][row, :length]]
    answers = [vocab.idx_to_token[i] for i in block['masked_lm_ids'][row, :masked]]
    kind = 'random next' if block['next_sentence_labels'][row] else 'actual next'
    return f'{" ".join(tokens)} ({kind}; masked: {" ".join(answers)})'


def summarize(plans, tallies, seconds):
    """Add up the tallies of all shards and log the sums.

    Parameters
    ----------
    plans : list of ShardPlan
    tallies : list of collections.Counter
        One for each, from :func:`make_shard`.
    seconds : float

    Returns
    -------
    dict
        The sums and means, and ``files``, the paths of the shards.
    """
    total = sum(tallies, Counter())
    summary = {
        'instances': total['instances'],
        'mean_length': total['tokens'] / total['instances'],
        'padding': 1 - total['tokens'] / total['places'],
        'masked': total['predictions'] / total['tokens'],
        'random_next': total['random_next'] / total['instances'],
        'seconds': seconds,
        'instances_per_second': total['instances'] / seconds,
        'files': [str(plan.path) for plan in plans],
    }
    for plan, tally in zip(plans, tallies):
        logging.info('wrote %s (%d instances)', plan.path, tally['instances'])
    logging.info('wrote %d total instances', total['instances'])
    line = (
        'instances={instances}, mean length={mean_length:.1f}, padding={padding:.1%}, '
        'masked={masked:.1%}'
    )
    if not plans[0].recipe.no_nsp:
        line += ', random next={random_next:.1%}'
    logging.info(line.format(**summary))
    logging.info(
        'Time cost={seconds:.1f}s ({instances_per_second:.0f} instances/s)'.format(**summary)
    )
    return summary
