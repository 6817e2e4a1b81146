"""Text files to a tokenized corpus.

A file holds a sentence a line and a blank line between documents. The end of a file ends a
document as well.
"""

import glob
import os
from itertools import chain
from typing import NamedTuple

import numpy as np

from bert.cli import ToolkitError
from bert.pretraining_data import Corpus, smallest_integer

# Bytes of text in memory as words at a time.
CHUNK_BYTES = 2**20


class Span(NamedTuple):
    """A part of a text file that begins and ends between documents."""

    path: str
    start: int
    stop: int


def find_files(patterns):
    """The files that comma-separated globs match, sorted within each.

    Raises
    ------
    ToolkitError
        If a pattern matches nothing, or something that is not a file.
    """
    paths = []
    for pattern in filter(None, patterns.split(',')):
        pattern = os.path.expanduser(pattern)
        found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
        if not found:
            raise ToolkitError(f'{pattern}: no file matches')
        for path in found:
            if os.path.isdir(path):
                raise ToolkitError(f'{path}: a directory; name its files, as in {path}/*.txt')
            if not os.path.isfile(path):
                raise ToolkitError(f'{path}: not a regular file')
        paths.extend(found)
    if not paths:
        raise ToolkitError('no input file is named')
    return paths


def share_out(paths, outputs):
    """What each output is made from.

    Neighbouring files go to the same output. With more outputs than files each file is cut,
    between documents, into as many parts of about the same size as it has outputs.

    Parameters
    ----------
    paths : list of str
    outputs : int

    Returns
    -------
    list of list of Span
        One list an output.
    """
    if outputs <= len(paths):
        groups = np.array_split(np.arange(len(paths)), outputs)
        return [[Span(paths[i], 0, os.path.getsize(paths[i])) for i in group] for group in groups]
    parts = [len(group) for group in np.array_split(np.arange(outputs), len(paths))]
    return [[span] for path, count in zip(paths, parts) for span in _cut(path, count)]


def _cut(path, count):
    size = os.path.getsize(path)
    cuts = [0]
    with open(path, 'rb') as file:
        for part in range(1, count):
            # To the end of this line, and then to the end of the next blank one.
            file.seek(size * part // count)
            file.readline()
            while file.readline().strip():
                pass
            cuts.append(file.tell())
    return [Span(path, start, stop) for start, stop in zip(cuts, [*cuts[1:], size])]


def read_corpus(spans, encode, vocab_size, repeatable=True, show=lambda share: None):
    """Read and tokenize text.

    Parameters
    ----------
    spans : list of Span
    encode : function
        From a list of str to a list of sequences of ids.
    vocab_size : int
    repeatable : bool
        Whether ``encode`` always answers the same, so that asking it once for each word is enough.
    show : function
        Called with the share of the text that is read, from 0 to 1.

    Returns
    -------
    Corpus

    Raises
    ------
    ToolkitError
        If a file is not UTF-8, with its name and line, or if there are not two documents.
    """
    dtype = smallest_integer(vocab_size - 1)
    ids, lengths, blanks = [], [], []
    done, total = 0, sum(span.stop - span.start for span in spans)
    for span in spans:
        for lines, size in _read_lines(span):
            chunk_ids, chunk_lengths = encode_lines(lines, encode, repeatable)
            ids.append(chunk_ids.astype(dtype))
            lengths.append(chunk_lengths)
            blanks.append(np.array([not line for line in lines]))
            done += size
            show(done / total)
        lengths.append([0])
        blanks.append([True])
    lengths, document = np.concatenate(lengths), np.cumsum(np.concatenate(blanks))
    lengths, document = lengths[lengths > 0], document[lengths > 0]
    # The first sentence of each document but the first one.
    first = np.flatnonzero(np.diff(document)) + 1
    corpus = Corpus(
        ids=np.concatenate(ids) if ids else np.empty(0, dtype),
        sentences=np.concatenate([[0], np.cumsum(lengths)]),
        documents=np.concatenate([[0], first, [len(lengths)]]),
    )
    _check(corpus, spans)
    return corpus


def _check(corpus, spans):
    names = ', '.join(dict.fromkeys(span.path for span in spans))
    if len(corpus.sentences) == 1:
        raise ToolkitError(f'{names}: no text for an output; drop the file or make fewer outputs')
    if len(corpus.documents) == 2:
        raise ToolkitError(
            f'{names}: only one document for an output, and random next sentences come from '
            'another one; put blank lines between documents, or make fewer outputs'
        )


def _read_lines(span):
    """Yield lists of stripped lines, and the number of bytes that they come from."""
    with open(span.path, 'rb') as file:
        file.seek(span.start)
        position = span.start
        while position < span.stop:
            data = file.read(min(CHUNK_BYTES, span.stop - position))
            if position + len(data) < span.stop:
                data += file.readline()  # to the end of the line
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
                lines.pop()  # what follows the last line is no line
            yield lines, len(data)


def _line_number(path, position):
    with open(path, 'rb') as file:
        return file.read(position).count(b'\n') + 1


def encode_lines(lines, encode, repeatable=True):
    """Ids of all lines, one after the other, and the number of ids of each.

    Text repeats its words, so each different one is encoded once. Spaces, unlike other white
    space, end a word for every tokenizer here whatever stands around them.

    Returns
    -------
    ids : numpy.ndarray of int64, (tokens,)
    lengths : numpy.ndarray of int64, (lines,)
    """
    texts = [line.split(' ') if repeatable else [line] for line in lines]
    texts_per_line = np.fromiter(map(len, texts), np.int64, len(texts))
    texts = list(chain.from_iterable(texts))
    distinct = list(dict.fromkeys(texts)) if repeatable else texts
    encoded = encode(distinct)
    length = np.fromiter(map(len, encoded), np.int64, len(encoded))
    ids = np.fromiter(chain.from_iterable(encoded), np.int64, length.sum())
    if repeatable:
        number = dict(zip(distinct, range(len(distinct))))
        which = np.fromiter(map(number.__getitem__, texts), np.int64, len(texts))
        ids = _concatenate_runs(ids, (np.cumsum(length) - length)[which], length[which])
        length = length[which]
    ends = np.concatenate([[0], np.cumsum(length)])[np.cumsum(texts_per_line)]
    return ids, np.diff(ends, prepend=0)


def _concatenate_runs(array, starts, lengths):
    """``array[starts[i]:starts[i] + lengths[i]]`` for all i, in one array."""
    ends = np.cumsum(lengths)
    shift = np.repeat(starts - (ends - lengths), lengths)
    return array[np.arange(len(shift)) + shift]
