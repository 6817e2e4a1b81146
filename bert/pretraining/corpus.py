"""A tokenized corpus from text files."""

import math
from itertools import chain
from typing import NamedTuple

import numpy as np

from bert.pretraining.files import BY_LINE, read_sentences
from bert.system.errors import ToolkitError
from bert.text.tokenizer import find_distinct


class Corpus(NamedTuple):
    """Tokenized documents, one after another.

    Document ``d`` consists of the sentences from ``documents[d]`` up to ``documents[d + 1]``, and
    sentence ``s`` of the tokens ``ids[sentences[s]:sentences[s + 1]]``. Neither is ever empty.
    """

    ids: np.ndarray  # (tokens,), of the smallest integer type that holds the vocabulary
    sentences: np.ndarray  # (sentences + 1,) int64
    documents: np.ndarray  # (documents + 1,) int64


def smallest_integer(largest):
    """Return the smallest dtype that holds 0 to ``largest``: uint8, uint16 or int32."""
    return np.dtype(np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int32)


def read_corpus(spans, encode, vocab_size, **options):
    """Read and tokenize text into a single corpus; see :func:`read_corpora`."""
    (corpus,) = read_corpora(spans, encode, vocab_size, math.inf, **options)
    return corpus


def read_corpora(
    spans,
    encode,
    vocab_size,
    tokens,
    repeatable=True,
    on_progress=lambda fraction: None,
    whole_documents=True,
    layout=BY_LINE,
):
    """Read and tokenize text, one corpus at a time.

    A corpus ends with the document or, unless ``whole_documents``, the sentence that brings it to
    ``tokens`` tokens, if at least that many follow; the last corpus takes the rest. So a text of
    fewer than ``2 * tokens`` tokens is one corpus, and little more than ``2 * tokens`` of a longer
    text are in memory, unless a single document is longer and must be whole.

    Parameters
    ----------
    spans : list of Span
    encode : function
        From a list of str to a list of sequences of ids.
    vocab_size : int
    tokens : int
    repeatable : bool
        Whether ``encode`` always gives a word the same ids, so each is encoded only once.
    on_progress : function
        Called with the fraction of the text that has been read, from 0 to 1.
    layout : bert.pretraining.files.Layout

    Yields
    ------
    Corpus
        If there are several of ``whole_documents``, each with two or more.

    Raises
    ------
    ToolkitError
        If a file is not UTF-8 (the error names the line), if there is no text, or if
        ``8 * tokens`` tokens do not complete a corpus, as in a document without end.
    """
    dtype = smallest_integer(vocab_size - 1)
    # Not yet in a corpus: ids, and each sentence's number of tokens and document.
    pending = np.empty(0, dtype), np.empty(0, np.int64), np.empty(0, np.int64)
    chunks, document = [], 0
    done, total = 0, sum(span.stop - span.start for span in spans)
    for span in spans:
        for lines, size in read_sentences(span, layout):
            done += size
            on_progress(done / total)
            if not lines:
                continue
            ids, lengths = encode_lines(lines, encode, repeatable)
            documents = document + np.cumsum([not line for line in lines])
            document = documents[-1]
            chunks.append((ids.astype(dtype), lengths[lengths > 0], documents[lengths > 0]))
            if len(pending[0]) + sum(len(chunk[0]) for chunk in chunks) >= 2 * tokens:
                pending, chunks = _joined(pending, chunks), []
                while True:
                    token, sentence = _first_cut(*pending[1:], tokens, whole_documents)
                    if not token:
                        break
                    cuts = token, sentence, sentence
                    yield _corpus(*(array[:cut] for array, cut in zip(pending, cuts)), spans)
                    # Copy, or the finished corpus would stay in memory.
                    pending = tuple(array[cut:].copy() for array, cut in zip(pending, cuts))
                if len(pending[0]) >= 8 * tokens:
                    raise ToolkitError(
                        f'{span.path}: a document of more than {2 * tokens} tokens; put '
                        f'{layout.ends} between documents'
                    )
        document += 1
    yield _corpus(*_joined(pending, chunks), spans)


def _joined(pending, chunks):
    return tuple(map(np.concatenate, zip(pending, *chunks)))


def _first_cut(lengths, document, tokens, whole_documents):
    """Find the first token and the first sentence of the second corpus; 0, 0 if there is none."""
    ends = np.cumsum(lengths)
    first = np.arange(1, len(lengths))
    if whole_documents:
        # The first sentences of documents that leave two documents or more on either side.
        first = first[np.diff(document) > 0][1:-1]
    start = ends[first - 1]
    fits = np.flatnonzero((start >= tokens) & (ends[-1] - start >= tokens))
    return (start[fits[0]], first[fits[0]]) if len(fits) else (0, 0)


def _corpus(ids, lengths, document, spans):
    """Make a corpus from the ``lengths`` and the ``document`` of each sentence."""
    if not len(lengths):
        names = ', '.join(dict.fromkeys(span.path for span in spans))
        raise ToolkitError(f'{names}: no text for an output; drop the file or make fewer outputs')
    first = np.flatnonzero(np.diff(document)) + 1
    return Corpus(
        ids=ids,
        sentences=np.concatenate([[0], np.cumsum(lengths)]),
        documents=np.concatenate([[0], first, [len(lengths)]]),
    )


def encode_lines(lines, encode, repeatable=True):
    """Encode lines; each distinct word is encoded only once, since text repeats its words.

    Only a space, of all white space, ends a word for every tokenizer here in any context.

    Returns
    -------
    ids : numpy.ndarray of int64, (tokens,)
        The ids of all lines, one line after another.
    lengths : numpy.ndarray of int64, (lines,)
        The number of ids of each line.
    """
    texts = [line.split(' ') if repeatable else [line] for line in lines]
    texts_per_line = np.fromiter(map(len, texts), np.int64, len(texts))
    texts = list(chain.from_iterable(texts))
    if repeatable:
        texts, index = find_distinct(texts)
    encoded = encode(texts)
    length = np.fromiter(map(len, encoded), np.int64, len(encoded))
    ids = np.fromiter(chain.from_iterable(encoded), np.int64, length.sum())
    if repeatable:
        ids = _concatenate_runs(ids, (np.cumsum(length) - length)[index], length[index])
        length = length[index]
    ends = np.concatenate([[0], np.cumsum(length)])[np.cumsum(texts_per_line)]
    return ids, np.diff(ends, prepend=0)


def _concatenate_runs(array, starts, lengths):
    """Concatenate ``array[starts[i]:starts[i] + lengths[i]]`` for all i."""
    ends = np.cumsum(lengths)
    shift = np.repeat(starts - (ends - lengths), lengths)
    return array[np.arange(len(shift)) + shift]
