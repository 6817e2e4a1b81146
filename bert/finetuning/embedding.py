"""Texts to vectors with a pre-trained or fine-tuned model, for any number of texts."""

import logging
import math

import numpy as np

from bert.checkpoints.config import check_segments
from bert.checkpoints.reading import read_casing
from bert.checkpoints.sentences import MODULES, SENTENCE, read_max_len, read_sentence_vector
from bert.cli.console import progress
from bert.finetuning.step import predict
from bert.model.vectors import load_vectors
from bert.system.errors import ToolkitError, UsageError
from bert.system.spool import Spool
from bert.text.encoding import encode_mixed, pad_batch
from bert.text.tokenizer import MAX_CHARACTERS_PER_WORD, build_tokenizer
from bert.training import batches, devices
from bert.training.stream import in_order, windows

# Where neither the model nor the caller says how many tokens of a text to read.
MAX_LEN = 128
# The results of a window should not need more than these bytes.
MOST_RESULTS = 2**27


class Embedder:
    """Turns texts into vectors.

    Parameters
    ----------
    model : bert.model.vectors.Vectors
    vocab : gluonnlp.vocab.BERTVocab
    lower : bool
        Whether to lower-case the text.
    max_len : int
        The most tokens of a text or a pair, special ones included; longer ones are cut.
    batch_size : int
        Texts in a batch, on each device.
    contexts : list of mxnet.Context
    """

    def __init__(self, model, vocab, lower, max_len, batch_size, contexts):
        self.model = model
        self.vocab = vocab
        self.max_len = max_len
        self.batch_size = batch_size
        self.contexts = contexts
        self.tokenizer = build_tokenizer(vocab, lower)

    def __call__(self, texts):
        """Return the vectors of some texts.

        Parameters
        ----------
        texts : iterable of str, or of pairs of str

        Returns
        -------
        (N, units) array of float32, or a list of (tokens, units) arrays
            The latter where all tokens have vectors. Several layers have an axis of their own, the
            last but one.
        """
        vectors = [values for _, values in self.stream(texts)]
        if self.model.kind == 'tokens':
            return vectors
        return np.array(vectors, dtype=np.float32).reshape(-1, *self.model.shape)

    def stream(self, texts):
        """Yield the vectors of each of any number of texts, in their order.

        At most two windows of texts, and of their vectors, are in memory.

        Yields
        ------
        (n,) array of int32, (units,) or (n, units) array of float32
            The ids of the tokens, and what :meth:`__call__` returns for this text.
        """
        if isinstance(texts, str):
            raise TypeError('texts is a single one: give a list of texts')
        total = cut = 0

        def encoded_windows():
            nonlocal total, cut
            for rows in windows(map(as_tuple, texts), self._window_size()):
                if any(len(row) == 2 for row in rows):
                    check_segments(self.model.bert.settings, 'the model')
                encoded = encode_mixed(rows, self.tokenizer, self.vocab, self.max_len)
                total, cut = total + len(rows), cut + encoded.cut
                yield encoded

        limit = devices.IN_FLIGHT * len(self.contexts)
        yield from in_order(encoded_windows(), self.batch_size, self._compute, self._read, limit)
        if cut:
            logging.info('%d of %d texts were cut to %d tokens', cut, total, self.max_len)

    def _window_size(self):
        """Return how many texts to sort by length together."""
        rows = self.max_len if self.model.kind == 'tokens' else 1
        fitting = MOST_RESULTS // (4 * rows * math.prod(self.model.shape))
        return min(batches.POOL * self.batch_size, max(self.batch_size, fitting))

    def _compute(self, encoded, rows, number):
        ctx = self.contexts[number % len(self.contexts)]
        return encoded, rows, predict(self.model, pad_batch(encoded, rows), ctx)

    def _read(self, computed):
        encoded, rows, values = computed
        values = values.asnumpy()
        if self.model.kind == 'tokens':
            values = [array[:length] for array, length in zip(values, encoded.lengths[rows])]
        return [(encoded.ids[row], array) for row, array in zip(rows, values)]


def as_tuple(text):
    """Return a text, or a pair, as a tuple of one or two str."""
    texts = (text,) if isinstance(text, str) else tuple(text)
    if not 1 <= len(texts) <= 2 or not all(isinstance(each, str) for each in texts):
        raise TypeError(f'{text!r} is neither a text nor a pair of texts')
    return texts


def load_embedder(location, kind, layers, max_len, batch_size, contexts, dtype):
    """Load a model that turns texts into vectors.

    Parameters
    ----------
    location : bert.checkpoints.contents.Location
    kind : str
        One of :data:`bert.checkpoints.sentences.KINDS`, or ``sentence``.
    layers, contexts, dtype
        See :func:`bert.model.vectors.load_vectors`.
    max_len : int or None
        None for the model's own, or :data:`MAX_LEN`.

    Returns
    -------
    Embedder
    """
    normalized = False
    if kind == SENTENCE:
        kind, normalized = choose_kind(location.folder)
    model, vocab = load_vectors(location, kind, layers, normalized, contexts, dtype)
    lower, reason = read_casing(location, vocab)
    logging.info('the text is %s, %s', 'lower-cased' if lower else 'kept as it is', reason)
    max_len = choose_max_len(max_len, location, model.bert.settings['max_length'])
    return Embedder(model, vocab, lower, max_len, batch_size, contexts)


def choose_kind(folder):
    """Return how a model turns a sentence into a vector, and log it."""
    own = read_sentence_vector(folder)
    kind, normalized = own or ('mean', False)
    logging.info(
        'a vector is %s%s, %s',
        {'mean': 'the mean over all tokens', 'first': "the first token's encoding"}[kind],
        ', scaled to length 1' if normalized else '',
        f'by {folder / MODULES}' if own else f'as there is no {MODULES} in {folder}',
    )
    return kind, normalized


def choose_max_len(max_len, location, positions):
    """Return the most tokens of a text, for a model with so many positions."""
    if max_len is None:
        return min(read_max_len(location.folder) or MAX_LEN, positions)
    if max_len > positions:
        raise UsageError(f'{max_len} tokens are more than the {positions} positions of this model')
    return max_len


def spool_vectors(embedder, texts, name, folder, stack):
    """Compute the vectors of any number of texts, and keep them in temporary files.

    Parameters
    ----------
    embedder : Embedder
    texts : iterable
        See :meth:`Embedder.stream`.
    name : str
        The origin of the texts, for an error message.
    folder : Path or None
        See :class:`bert.system.spool.Spool`.
    stack : contextlib.ExitStack
        Closes the files.

    Returns
    -------
    dict of str to Spool or numpy.ndarray
        ``vectors``; for those of all tokens also ``ids``, ``offsets`` and ``vocabulary``.
    """

    def new(dtype, shape=()):
        made = Spool(folder, dtype, shape)
        stack.callback(made.close)
        return made

    vectors, is_tokens, count = new(np.float32, embedder.model.shape), False, 0
    if embedder.model.kind == 'tokens':
        is_tokens, all_ids, offsets = True, new(np.int32), new(np.int64)
        offsets.append([0])
    with progress(None, name, 'text') as bar:
        for ids, values in embedder.stream(texts):
            count += 1
            bar.update()
            vectors.append(values if is_tokens else values[None])
            if is_tokens:
                all_ids.append(ids)
                offsets.append([vectors.count])
    if not count:
        raise ToolkitError(f'{name}: there are no lines')
    if not is_tokens:
        return {'vectors': vectors}
    tokens = embedder.vocab.idx_to_token
    # A longer one is in no text, and would make all of them that long.
    width = min(max(map(len, tokens)), MAX_CHARACTERS_PER_WORD + len('##'))
    vocabulary = np.array(tokens, dtype=f'U{width}')
    return {'vectors': vectors, 'ids': all_ids, 'offsets': offsets, 'vocabulary': vocabulary}
