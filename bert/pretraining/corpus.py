"""A tokenized corpus from text files.

A file has one sentence per line and a blank line between documents; its end also ends a document.
"""

import glob
import logging
import math
import os
from itertools import chain
from typing import NamedTuple

import numpy as np

from bert.cli.console import first_of
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import is_utf8
from bert.text.tokenizer import find_distinct

# How many bytes of text are held in memory as words at a time.
CHUNK_BYTES = 2**20
# A line of this many bytes is not a sentence: its file has no line ends.
LONGEST_LINE = 2**24


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


class Span(NamedTuple):
    """Whole lines, often whole documents: the bytes from ``start`` up to ``stop`` of a file."""

    path: str
    start: int
    stop: int


def find_files(patterns):
    """Return the files that comma-separated globs match, sorted within each glob.

    Raises
    ------
    ToolkitError
        If a glob matches nothing, something that is not a file, or a name that is not UTF-8.
    """
    paths = []
    for pattern in filter(None, patterns.split(',')):
        pattern = os.path.expanduser(pattern)
        found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
        if not found:
            raise ToolkitError(f'{pattern}: no file matches')
        for path in found:
            if not is_utf8(path):
                raise UsageError(f'{path}: the name is not valid UTF-8')
            if not os.path.isfile(path):
                advice = f'a directory; name its files, as in {path}/*.txt'
                what = advice if os.path.isdir(path) else 'not a regular file'
                raise ToolkitError(f'{path}: {what}')
        paths.extend(found)
    if not paths:
        raise ToolkitError('no input file is named')
    return paths


def share_out(paths, shares, whole_documents=True):
    """Divide text into shares.

    Neighbouring files go to the same share. If there are more shares than files, each file is cut
    into parts of about equal size, one for each of its shares.

    Parameters
    ----------
    paths : list of str
    shares : int
    whole_documents : bool
        Whether to cut between documents only, instead of between any two lines.

    Returns
    -------
    list of list of Span
        One list per share.
    """
    if shares <= len(paths):
        groups = np.array_split(np.arange(len(paths)), shares)
        return [[Span(paths[i], 0, os.path.getsize(paths[i])) for i in group] for group in groups]
    parts = [len(group) for group in np.array_split(np.arange(shares), len(paths))]
    return [[span] for path, n in zip(paths, parts) for span in _cut(path, n, whole_documents)]


def _cut(path, count, whole_documents):
    """Cut a file between documents or lines into spans of about equal size."""
    size = os.path.getsize(path)
    cuts = [0]
    with open(path, 'rb') as file:
        for part in range(1, count):
            # Go to the end of this line, and then past the next blank one.
            file.seek(size * part // count)
            while file.readline(LONGEST_LINE)[-1:] not in (b'\n', b''):
                pass
            while whole_documents and file.readline(LONGEST_LINE).strip():
                pass
            cuts.append(file.tell())
    return [Span(path, start, stop) for start, stop in zip(cuts, [*cuts[1:], size])]


def read_corpus(spans, encode, vocab_size, repeatable=True, on_progress=lambda fraction: None):
    """Read and tokenize text into a single corpus; see :func:`read_corpora`."""
    (corpus,) = read_corpora(spans, encode, vocab_size, math.inf, repeatable, on_progress)
    return corpus


def read_corpora(
    spans,
    encode,
    vocab_size,
    tokens,
    repeatable=True,
    on_progress=lambda fraction: None,
    whole_documents=True,
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
        for lines, size in _read_lines(span):
            ids, lengths = encode_lines(lines, encode, repeatable)
            documents = document + np.cumsum([not line for line in lines])
            document = documents[-1]
            chunks.append((ids.astype(dtype), lengths[lengths > 0], documents[lengths > 0]))
            done += size
            on_progress(done / total)
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
                        f'{span.path}: a document of more than {2 * tokens} tokens; put blank '
                        'lines between documents'
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


def has_one_document(spans):
    """Return whether the text of some spans is a single document."""
    documents = 0
    for span in spans:
        begins = True
        for lines, _ in _read_lines(span):
            for line in lines:
                documents += bool(line) and begins
                begins = not line
            if documents > 1:
                return False
    return documents == 1


def warn_of_single_documents(shares):
    """Warn if some shares of the text, lists of spans, have only one document each."""
    alone = [spans[0].path for spans in shares if has_one_document(spans)]
    if alone:
        logging.warning(
            '%s: only one document, from which random next sentences come too; blank lines '
            'separate documents',
            first_of(alone),
        )


def _read_lines(span):
    """Yield lists of stripped lines, with the number of bytes that each list comes from."""
    with open(span.path, 'rb') as file:
        file.seek(span.start)
        position = span.start
        while position < span.stop:
            data = file.read(min(CHUNK_BYTES, span.stop - position))
            if position + len(data) < span.stop:
                rest = file.readline(LONGEST_LINE)  # to the end of the line
                if len(rest) == LONGEST_LINE and not rest.endswith(b'\n'):
                    line = _line_number(span.path, position + len(data))
                    raise ToolkitError(
                        f'{span.path}:{line}: a line of more than {LONGEST_LINE} bytes; put one '
                        'sentence on each line, and blank lines between documents'
                    )
                data += rest
            if not data:
                raise ToolkitError(f'{span.path}: became shorter while it was read')
            try:
                text = data.decode('utf8')
            except UnicodeDecodeError as error:
                line = _line_number(span.path, position + error.start)
                raise ToolkitError(f'{span.path}:{line}: not valid UTF-8') from None
            if position == 0 and text.startswith('\ufeff'):
                text = text[1:]
            position += len(data)
            text = text.replace('\r\n', '\n').replace('\r', '\n')
            lines = [line.strip() for line in text.split('\n')]
            if text.endswith('\n'):
                lines.pop()  # nothing follows the last line end
            yield lines, len(data)


def _line_number(path, position):
    with open(path, 'rb') as file:
        sizes = (min(CHUNK_BYTES, position - start) for start in range(0, position, CHUNK_BYTES))
        return sum(file.read(size).count(b'\n') for size in sizes) + 1


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
