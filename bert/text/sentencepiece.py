"""Sentencepiece models: their vocabulary, a tokenizer, and sampling (Kudo 2018, arXiv 1804.10959).

The library can sample too, but its releases seed themselves differently, the latest ones from the
operating system, so no run could be repeated. Here the randomness comes from a generator that is
passed in.
"""

import heapq
import math
from itertools import chain, islice
from pathlib import Path

import numpy as np

from bert.system.errors import ToolkitError
from bert.text.tokenizer import find_distinct
from bert.text.vocab import Vocab

# As in the library, a character in no piece scores this much less than the lowest piece,
UNKNOWN_PENALTY = 10.0
# and a user-defined piece this much less than its length times the highest score.
USER_DEFINED_PENALTY = 0.1


def load_sentencepiece(path):
    """Load a ``sentencepiece.SentencePieceProcessor``."""
    import sentencepiece

    if not Path(path).is_file():
        raise ToolkitError(f'{path}: there is no such sentencepiece model')
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    # The library's own message may quote bytes of the file that are not valid text.
    except (OSError, RuntimeError, UnicodeDecodeError):
        raise ToolkitError(f'{path}: not a sentencepiece model') from None


def load_sentencepiece_vocab(path):
    """Read the pieces of a sentencepiece model, with the model's own ids.

    Any of BERT's special tokens that the model lacks follow its last piece, in the order [MASK],
    [CLS], [SEP], [PAD] (in ``gluonnlp.vocab.BERTVocab`` their order changes from run to run).

    Returns
    -------
    Vocab
    """
    processor = load_sentencepiece(path)
    try:
        tokens = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    except UnicodeDecodeError:
        raise ToolkitError(f'{path}: a piece is not valid UTF-8') from None
    unknown = tokens[processor.unk_id()]
    padding = tokens[processor.pad_id()] if processor.pad_id() >= 0 else '[PAD]'
    for token in ('[MASK]', '[CLS]', '[SEP]', padding):
        if token not in tokens:
            tokens.append(token)
    return Vocab(tokens, source=path, unknown_token=unknown, padding_token=padding)


def sentencepiece_encoder(path, lower, num_best=0, alpha=1.0, rng=None):
    """Make a function that turns texts into ids like ``gluonnlp.data.BERTSPTokenizer``.

    It cleans the text and splits it into words as for WordPiece, and then each word into pieces.

    Parameters
    ----------
    path : str or Path
        A sentencepiece model.
    lower : bool
        Whether to lower-case the text and strip accents.
    num_best : int
        Sample the pieces of each word from this many of the best ways to split it, or from all
        ways if negative; 0 or 1 takes the best.
    alpha : float
        The inverse temperature of the sampling.
    rng : numpy.random.Generator, optional
        For sampling.

    Returns
    -------
    function
        From a list of str to a list of lists of int.
    """
    from tokenizers import normalizers, pre_tokenizers

    processor = load_sentencepiece(path)
    normalizer = normalizers.BertNormalizer(strip_accents=lower, lowercase=lower)
    splitter = pre_tokenizers.BertPreTokenizer()
    if num_best in (0, 1):

        def split(words):
            return processor.encode(words, num_threads=1)
    else:
        sampler = UnigramSampler(processor, num_best, alpha)

        def split(words):
            return sampler.sample(words, rng)

    def encode(texts):
        words = [
            [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
            for text in texts
        ]
        pieces = iter(split(list(chain.from_iterable(words))))
        return [list(chain.from_iterable(islice(pieces, len(text)))) for text in words]

    return encode


class UnigramSampler:
    """A sampler of ways to split words into pieces.

    A split with score s has a probability proportional to exp(alpha s). The score is the sum of
    the log probabilities of the pieces.

    Parameters
    ----------
    processor : sentencepiece.SentencePieceProcessor
        With a unigram model.
    num_best : int
        Sample from this many of the best splits, or from all if negative.
    alpha : float
        0 makes all splits equally likely; a large number leaves only the best.
    """

    def __init__(self, processor, num_best, alpha):
        self.processor, self.num_best, self.alpha = processor, num_best, alpha
        ids = range(processor.get_piece_size())
        normal = [
            i
            for i in ids
            if not (processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i))
        ]
        if not _is_unigram(processor) or any(processor.is_byte(i) for i in normal):
            raise ToolkitError(
                'pieces can only be sampled from sentencepiece unigram models without byte '
                'fallback: leave out the sampling'
            )
        # Only their score of 0 distinguishes user-defined pieces from others.
        scores = {i: processor.get_score(i) for i in normal}
        highest = max((score for score in scores.values() if score), default=0.0)
        self.pieces = {}
        for i, score in scores.items():
            piece = processor.id_to_piece(i)
            self.pieces[piece] = i, score or len(piece) * highest - USER_DEFINED_PENALTY
        self.longest = max(map(len, self.pieces))
        self.unknown = processor.unk_id(), min(scores.values()) - UNKNOWN_PENALTY

    def sample(self, words, rng):
        """Sample the pieces of each word, independently for each occurrence.

        Parameters
        ----------
        words : list of str
        rng : numpy.random.Generator

        Returns
        -------
        list of list of int
        """
        distinct, which = find_distinct(words)
        texts = self.processor.normalize(distinct)
        draw = self._sample_all if self.num_best < 0 else self._sample_best
        return draw(texts, which, rng)

    def _edges(self, text):
        """Yield each end, from 1 to the length, and its pieces as (start, id, score)."""
        for end in range(1, len(text) + 1):
            edges = [
                (start, *self.pieces[text[start:end]])
                for start in range(max(0, end - self.longest), end)
                if text[start:end] in self.pieces
            ]
            if not edges or edges[-1][0] < end - 1:
                edges.append((end - 1, *self.unknown))
            yield end, edges

    def _sample_best(self, texts, which, rng):
        """Sample from the best splits, found by dynamic programming."""
        splits, weights, sizes = [], [], []
        for text in texts:
            best = [[(0.0, ())]]
            for _, edges in self._edges(text):
                best.append(
                    heapq.nlargest(
                        self.num_best,
                        (
                            (score + before, ids + (piece,))
                            for start, piece, score in edges
                            for before, ids in best[start]
                        ),
                    )
                )
            scores, found = zip(*best[-1])
            splits.extend(self._join_unknown(ids) for ids in found)
            weights.extend(math.exp(self.alpha * (score - scores[0])) for score in scores)
            sizes.append(len(found))
        chosen = _draw(np.array(weights), np.array(sizes, dtype=np.int64), which, rng)
        return [splits[i] for i in chosen.tolist()]

    def _sample_all(self, texts, which, rng):
        """Sample from all splits: a forward pass over each word, then all backward passes at once.

        The nodes are the beginning of each word and the ends within it; each piece is an edge from
        a node back to an earlier one.
        """
        weights, targets, pieces, sizes, last = [], [], [], [], []
        for text in texts:
            base = len(sizes)
            sizes.append(0)
            total = [0.0]
            for _, edges in self._edges(text):
                logs = [total[start] + self.alpha * score for start, _, score in edges]
                highest = max(logs)
                edge_weights = [math.exp(log - highest) for log in logs]
                total.append(highest + math.log(sum(edge_weights)))
                weights.extend(edge_weights)
                targets.extend(base + start for start, _, _ in edges)
                pieces.extend(piece for _, piece, _ in edges)
                sizes.append(len(edges))
            last.append(len(sizes) - 1)
        weights, targets, pieces = np.array(weights), np.array(targets), np.array(pieces)
        sizes = np.array(sizes, dtype=np.int64)

        node = np.array(last, dtype=np.int64)[which]
        row = np.arange(len(which))
        steps = []
        while True:
            unfinished = sizes[node] > 0
            node, row = node[unfinished], row[unfinished]
            if not len(row):
                break
            edge = _draw(weights, sizes, node, rng)
            steps.append((row, pieces[edge]))
            node = targets[edge]
        if not steps:
            return [[] for _ in which]
        # The steps run from the last piece to the first: in reverse, they are sorted by word.
        rows = np.concatenate([row for row, _ in reversed(steps)])
        ids = np.concatenate([piece for _, piece in reversed(steps)])
        ids = iter(ids[np.argsort(rows, kind='stable')].tolist())
        counts = np.bincount(rows, minlength=len(which)).tolist()
        return [self._join_unknown(list(islice(ids, count))) for count in counts]

    def _join_unknown(self, ids):
        """Join neighbouring unknown characters into one token."""
        unknown = self.unknown[0]
        if unknown not in ids:
            return list(ids)
        return [i for n, i in enumerate(ids) if not (n and i == unknown == ids[n - 1])]


def _is_unigram(processor):
    """Return whether a model is a unigram model; only those can list the best splits."""
    try:
        return bool(processor.nbest_encode('a', nbest_size=2))
    except RuntimeError:
        return False


def _draw(weights, sizes, groups, rng):
    """Draw one item for each of ``groups``, with probabilities proportional to the weights.

    Parameters
    ----------
    weights : numpy.ndarray of float, (items,)
        Above 0. The items of a group are neighbours.
    sizes : numpy.ndarray of int, (number of groups,)
        The number of items in each group.
    groups : numpy.ndarray of int, (n,)

    Returns
    -------
    numpy.ndarray of int, (n,)
    """
    stop = np.cumsum(sizes)
    sums = np.concatenate([[0.0], np.cumsum(weights)])
    low, high = sums[stop - sizes][groups], sums[stop][groups]
    item = np.searchsorted(sums, low + rng.random(len(groups)) * (high - low), side='right') - 1
    return np.clip(item, (stop - sizes)[groups], stop[groups] - 1)
