"""The outputs of a model for any number of rows, texts or encoded ones: the one way to them."""

import contextlib
import logging
import threading

from bert.checkpoints.reading import read_casing
from bert.checkpoints.sentences import read_max_len
from bert.distributed.workers import ALONE
from bert.finetuning.step import predict
from bert.model.prepared import prepare
from bert.system.errors import UsageError
from bert.text.encoding import encode_mixed, pad_batch
from bert.text.tokenizer import build_tokenizer
from bert.training import devices
from bert.training.stream import in_order, windows

# Where neither the model nor the caller says how many tokens of a text to read.
MAX_LEN = 128


def compute_outputs(
    model,
    encoded_windows,
    batch_size,
    contexts,
    workers=ALONE,
    after_batch=lambda number: None,
    lock=None,
):
    """Yield the outputs for each row, in the order of the rows; see :mod:`bert.training.stream`.

    Parameters
    ----------
    model : mxnet.gluon.Block
    encoded_windows : iterable of bert.text.encoding.Encoded
    batch_size : int
    contexts : list of mxnet.Context
        This worker's devices.
    workers : bert.distributed.workers.Workers
        They take turns at the batches.
    after_batch : function
        Called with the number of each batch, another worker's too, once it has been begun.
    lock : threading.Lock, optional
        Held while the model is called.

    Yields
    ------
    (n,) array of int32, array of float32
        The ids of the tokens, and the outputs of the row; None for a row of another worker.
    """

    def compute(encoded, rows, number):
        ctx = devices.take_turns(number, contexts, workers)
        computed = None
        if ctx:
            inputs = pad_batch(encoded, rows)
            with lock or contextlib.nullcontext():
                computed = encoded, rows, predict(model, inputs, ctx)
        after_batch(number)
        return computed

    def read(computed):
        encoded, rows, values = computed
        return [(encoded.ids[row], output) for row, output in zip(rows, values.asnumpy())]

    limit = devices.IN_FLIGHT * len(contexts)
    return in_order(encoded_windows, batch_size, compute, read, limit)


class TextModel:
    """A model and how texts become its inputs. Several threads may use it at once.

    Parameters
    ----------
    model : mxnet.gluon.Block
        Its weights do not change from now on.
    vocab : gluonnlp.vocab.BERTVocab
    lower : bool
        Whether to lower-case the text.
    max_len : int
        The maximum number of tokens in a text or a pair, including special tokens; longer ones
        are cut.
    batch_size : int
        Texts in a batch, on each device.
    contexts : list of mxnet.Context
    """

    def __init__(self, model, vocab, lower, max_len, batch_size, contexts):
        self.model = model
        self.prepared = prepare(model, contexts)
        self.vocab = vocab
        self.max_len = max_len
        self.batch_size = batch_size
        self.contexts = contexts
        self.tokenizer = build_tokenizer(vocab, lower)
        # MXNet builds a block's graph when it is first called, and two threads would build it into
        # each other. Later calls only queue work, and waiting for the results needs no lock.
        self.lock = threading.Lock()

    def outputs(self, texts, window_size, check=lambda row: None):
        """Yield the ids and the outputs of each of any number of texts, in their order.

        At most two windows of texts, and of their outputs, are in memory.

        Parameters
        ----------
        texts : iterable of str, or of tuples of one or two str
        window_size : int
            How many texts to sort by length together.
        check : function
            Called with each row, a tuple, when it is read; it may refuse it.

        Yields
        ------
        See :func:`compute_outputs`.
        """
        if isinstance(texts, str):
            raise TypeError('texts is a single text: give a list of texts')
        total = cut = 0

        def rows():
            for text in texts:
                row = as_tuple(text)
                check(row)
                yield row

        def encoded_windows():
            nonlocal total, cut
            for window in windows(rows(), window_size):
                encoded = encode_mixed(window, self.tokenizer, self.vocab, self.max_len)
                total, cut = total + len(window), cut + encoded.cut
                yield encoded

        yield from compute_outputs(
            self.prepared, encoded_windows(), self.batch_size, self.contexts, lock=self.lock
        )
        if cut:
            logging.info('%d of %d texts were cut to %d tokens', cut, total, self.max_len)


def as_tuple(text):
    """Return a text, or a pair, as a tuple of one or two str."""
    texts = (text,) if isinstance(text, str) else tuple(text)
    if not 1 <= len(texts) <= 2 or not all(isinstance(each, str) for each in texts):
        raise TypeError(f'{text!r} is neither a text nor a pair of texts')
    return texts


def choose_casing(location, vocab, lower=None):
    """Return whether to lower-case the text, and log why.

    Parameters
    ----------
    location : bert.checkpoints.contents.Location
    vocab : Vocab or gluonnlp.vocab.BERTVocab
    lower : bool, optional
        What a flag says.
    """
    reason = 'by its flag'
    if lower is None:
        lower, reason = read_casing(location, vocab)
    logging.info('the text is %s, %s', 'lower-cased' if lower else 'kept as it is', reason)
    return lower


def choose_max_len(max_len, location, positions):
    """Return the most tokens of a text, for a model with so many positions.

    Parameters
    ----------
    max_len : int or None
        None for the model's own, or :data:`MAX_LEN`.
    location : bert.checkpoints.contents.Location
    positions : int
    """
    if max_len is None:
        return min(read_max_len(location.folder) or MAX_LEN, positions)
    if max_len > positions:
        raise UsageError(f'{max_len} tokens are more than the {positions} positions of this model')
    return max_len
