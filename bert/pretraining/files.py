"""Text files: finding them, sharing them out, and reading their sentences.

A file has one sentence per line, or plain text that is cut into sentences, and a blank line or a
marker between documents; its end also ends a document.
"""

import glob
import logging
import os
from typing import NamedTuple, Optional

import numpy as np

from bert.cli.console import first_of
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import is_utf8
from bert.text.sentences import Paragraphs, segmenter_version

# How many bytes of text are held in memory as words at a time.
CHUNK_BYTES = 2**20
# A line of this many bytes is not a sentence: its file has no line ends.
LONGEST_LINE = 2**24


class Layout(NamedTuple):
    """How text files are divided into sentences and documents, named like the flags."""

    segment: bool = False  # lines are parts of paragraphs, not sentences
    document_marker: Optional[str] = None  # the line between documents, in place of blank ones

    @property
    def ends(self):
        """What ends documents, in words."""
        return f'lines {self.document_marker!r}' if self.document_marker else 'blank lines'

    def described(self):
        """Return the settings as a dict, as shards and training states record them.

        Only those that are set are there, as they were added later.
        """
        values = {'segment': self.segment and segmenter_version()}
        values['document_marker'] = self.document_marker
        return {name: value for name, value in values.items() if value}


BY_LINE = Layout()  # one sentence per line, a blank line between documents


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


def share_out(paths, shares, whole_documents=True, layout=BY_LINE):
    """Divide text into shares.

    Neighbouring files go to the same share. If there are more shares than files, each file is cut
    into parts of about equal size, one for each of its shares.

    Parameters
    ----------
    paths : list of str
    shares : int
    whole_documents : bool
        Whether to cut between documents only, instead of between any two lines or, of text that is
        to be segmented, between paragraphs.
    layout : Layout

    Returns
    -------
    list of list of Span
        One list per share.
    """
    if shares <= len(paths):
        groups = np.array_split(np.arange(len(paths)), shares)
        return [[Span(paths[i], 0, os.path.getsize(paths[i])) for i in group] for group in groups]
    parts = [len(group) for group in np.array_split(np.arange(shares), len(paths))]
    ends = _ends_of_parts(whole_documents, layout)
    return [[span] for path, n in zip(paths, parts) for span in _cut(path, n, ends)]


def _ends_of_parts(whole_documents, layout):
    """Return the lines after which a file may be cut, without white space; None for all."""
    if not (whole_documents or layout.segment):
        return None
    ends = {(layout.document_marker or '').encode()}
    return ends if whole_documents else ends | {b''}


def _cut(path, count, ends):
    """Cut a file after some of its lines into spans of about equal size."""
    size = os.path.getsize(path)
    cuts = [0]
    with open(path, 'rb') as file:
        for part in range(1, count):
            # Go to the end of this line, and then past the next one that may end a part.
            file.seek(size * part // count)
            while file.readline(LONGEST_LINE)[-1:] not in (b'\n', b''):
                pass
            while ends is not None:
                line = file.readline(LONGEST_LINE)
                if not line or line.strip() in ends:
                    break
            cuts.append(file.tell())
    return [Span(path, start, stop) for start, stop in zip(cuts, [*cuts[1:], size])]


def has_one_document(spans, layout=BY_LINE):
    """Return whether the text of some spans is a single document."""
    documents = 0
    for span in spans:
        begins = True
        for lines, _ in _read_lines(span, layout):
            for line in _by_line(lines, layout.document_marker):
                documents += bool(line) and begins
                begins = not line
            if documents > 1:
                return False
    return documents == 1


def warn_of_single_documents(shares, layout=BY_LINE):
    """Warn if some shares of the text, lists of spans, have only one document each."""
    alone = [spans[0].path for spans in shares if has_one_document(spans, layout)]
    if alone:
        logging.warning(
            '%s: only one document, so random next sentences come from it, too; %s separate '
            'documents',
            first_of(alone),
            layout.ends,
        )


def read_sentences(span, layout):
    """Read the sentences of a span.

    Yields
    ------
    list of str
        Sentences without white space around them; an empty one ends a document.
    int
        How many bytes were read for them.

    Raises
    ------
    ToolkitError
        If the file is not UTF-8, or has a line of more than :data:`LONGEST_LINE` bytes; the error
        names the line.
    """
    marker = layout.document_marker or ''
    paragraphs = Paragraphs() if layout.segment else None
    for lines, size in _read_lines(span, layout):
        if layout.segment:
            yield _sentences_of(lines, marker, paragraphs), size
        else:
            yield _by_line(lines, marker), size
    last = paragraphs.end() if layout.segment else []
    if last:
        yield last, 0


def _by_line(lines, marker):
    """Return lines of which an empty one ends a document."""
    return ['' if line == marker else line for line in lines if line] if marker else lines


def _sentences_of(lines, marker, paragraphs):
    """Add lines to paragraphs, which blank lines and the marker end."""
    sentences = []
    for line in lines:
        if line and line != marker:
            sentences += paragraphs.add(line)
        else:
            sentences += paragraphs.end()
            if line == marker:
                sentences.append('')
    return sentences


def _read_lines(span, layout):
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
                    unit = 'at most one paragraph' if layout.segment else 'one sentence'
                    raise ToolkitError(
                        f'{span.path}:{line}: a line of more than {LONGEST_LINE} bytes; put {unit} '
                        f'on each line, and {layout.ends} between documents'
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
