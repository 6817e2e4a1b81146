"""TODO"""

import logging
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional

from bert.system.errors import ToolkitError
from bert.text.vocab import Vocab


class Tokenization(NamedTuple):
    """How a line becomes tokens."""

    lower: bool
    tokenized: bool
    sentencepiece: Optional[str]
    sp_nbest: int
    sp_alpha: float


class Task(NamedTuple):
    """One output: everything that it depends on. Tasks can be pickled."""

    path: Path
    number: int
    spans: list
    vocab: Vocab
    tokenization: Tokenization
    recipe: tuple
    random_seed: int
    format: str
    # A file that is there as long as anybody wants the output, where other machines make it.
    beacon: Optional[str] = None


def make_shard(task, show=lambda share: None):
    """Make one output.

    Parameters
    ----------
    task : Task
    show : function
        Called with the share of the work that is done, from 0 to 1.

    Returns
    -------
    collections.Counter
        Sums over the instances: ``instances``, ``tokens``, ``places`` (tokens and padding),
        ``predictions`` and ``random_next``.
    """
    from bert.pretraining.shards import write_npz, write_recordio

    if task.beacon:
        show = partial(heed_beacon, task.beacon)
    tally = Counter()
    blocks = counted(make_instances(task, show), tally, task.vocab)
    if task.format == 'recordio':
        write_recordio(task.path, blocks)
    else:
        write_npz(task.path, blocks, settings_of(task), task.vocab)
    return tally


def heed_beacon(beacon, share):
    """Stop an output that nobody waits for any more, lest it replace that of a later command."""
    if not os.path.exists(beacon):
        raise ToolkitError('given up by the one who asked for it')


def make_instances(task, show):
    """Yield the instances of an output in blocks: those of one corpus after those of another.

    Reading a corpus and making its instances count as equal shares of the work.
    """
    import numpy as np

    from bert.pretraining.corpus import CORPUS_TOKENS, read_corpora
    from bert.pretraining.instances import instances, symbols_of

    how = task.tokenization
    rng = np.random.default_rng([task.random_seed, task.number])
    symbols = symbols_of(task.vocab, word_start='\u2581' if how.sentencepiece else None)
    made = read = 0  # shares of the text

    def show_reading(share):
        nonlocal read
        read = share
        show((made + read) / 2)

    for corpus in read_corpora(
        task.spans,
        build_encoder(task.vocab, how, rng),
        len(task.vocab),
        CORPUS_TOKENS,
        repeatable=how.sp_nbest in (0, 1),
        show=show_reading,
    ):
        count, blocks = instances(corpus, task.recipe, symbols, rng)
        start, done = made, 0
        for block in blocks:
            yield block
            done += len(block['valid_lengths'])
            made = start + (read - start) * done / count
            show((made + read) / 2)


def build_encoder(vocab, how, rng):
    """A function from texts to sequences of ids."""
    from bert.text.sentencepiece import sentencepiece_encoder
    from bert.text.tokenizer import build_tokenizer, tokenize

    if how.tokenized:
        return lambda texts: [[vocab[token] for token in text.split()] for text in texts]
    if how.sentencepiece:
        path = os.path.expanduser(how.sentencepiece)
        return sentencepiece_encoder(path, how.lower, how.sp_nbest, how.sp_alpha, rng)
    tokenizer = build_tokenizer(vocab, how.lower)
    return lambda texts: tokenize(tokenizer, texts)


def settings_of(task):
    """What a shard remembers of how it was made; no paths, they would change its bytes."""
    how = task.tokenization._asdict()
    return {
        **task.recipe._asdict(),
        **how,
        'sentencepiece': bool(how['sentencepiece']),
        'random_seed': task.random_seed,
        'output': task.number,
    }


def counted(blocks, tally, vocab):
    """Pass on blocks of instances, adding them to the tally."""
    for block in blocks:
        if not tally:
            logging.debug('first instance: %s', describe(block, vocab))
        tally['instances'] += len(block['valid_lengths'])
        tally['tokens'] += int(block['valid_lengths'].sum())
        tally['places'] += block['input_ids'].size
        tally['predictions'] += int(block['masked_lm_weights'].sum())
        tally['random_next'] += int(block['next_sentence_labels'].sum())
        yield block


def describe(block, vocab):
    """The first instance of a block as text."""
    length, masked = block['valid_lengths'][0], block['masked_lm_weights'][0].sum()
    tokens = [vocab.idx_to_token[i] for i in block['input_ids'][0, :length]]
    answers = [vocab.idx_to_token[i] for i in block['masked_lm_ids'][0, :masked]]
    kind = 'random next' if block['next_sentence_labels'][0] else 'actual next'
    return f'{" ".join(tokens)} ({kind}; masked: {" ".join(answers)})'
