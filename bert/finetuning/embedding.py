"""Texts to vectors with a pre-trained or fine-tuned model, for any number of texts."""

import logging
import math

import numpy as np

from bert.checkpoints.config import check_segments
from bert.checkpoints.sentences import MODULES, SENTENCE, read_sentence_vector
from bert.cli.console import progress
from bert.finetuning.inference import TextModel, choose_casing, choose_max_len
from bert.model.vectors import load_vectors
from bert.system.errors import ToolkitError
from bert.system.spool import Spool
from bert.text.tokenizer import MAX_CHARACTERS_PER_WORD
from bert.training import batches

# The results of a window should not need more than these bytes.
MOST_RESULTS = 2**27


class Embedder(TextModel):
    """Turns texts into vectors; ``model`` is a :class:`bert.model.vectors.Vectors`."""

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
        is_tokens = self.model.kind == 'tokens'
        for ids, values in self.outputs(texts, self._window_size(), self._check):
            yield ids, values[: len(ids)] if is_tokens else values

    def _check(self, row):
        if len(row) == 2:
            check_segments(self.model.bert.settings, 'the model')

    def _window_size(self):
        """Return how many texts to sort by length together."""
        rows = self.max_len if self.model.kind == 'tokens' else 1
        fitting = MOST_RESULTS // (4 * rows * math.prod(self.model.shape))
        return min(batches.POOL * self.batch_size, max(self.batch_size, fitting))


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
        See :func:`bert.finetuning.inference.choose_max_len`.

    Returns
    -------
    Embedder
    """
    normalized = False
    if kind == SENTENCE:
        kind, normalized = choose_kind(location.folder)
    model, vocab = load_vectors(location, kind, layers, normalized, contexts, dtype)
    lower = choose_casing(location, vocab)
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
