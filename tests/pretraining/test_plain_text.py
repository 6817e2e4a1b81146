"""Plain text, cut into sentences while it is read; and documents that end at a marker."""

import textwrap
import tracemalloc
from pathlib import Path

import pytest
from conftest import failure

from bert.pretraining import files
from bert.pretraining.corpus import read_corpora
from bert.pretraining.files import (
    Layout,
    Span,
    has_one_document,
    read_sentences,
    share_out,
    warn_of_single_documents,
)
from bert.system.errors import ToolkitError
from bert.text import sentences

pytest.importorskip('sentencex')
MARKER = '* * *'
# Documents of paragraphs of sentences.
STORY = [
    [['Dr. A. Hill sat.', 'It was 3.14 p.m. in the U.S. then.'], ['"Go. Now," he said.']],
    [['One.', 'Two is 1,000.50 less.', 'No end']],
    [['- Item No. 1.', 'It goes on.'], ['Ms. B. ran (see vol. 2).', 'Café!'], ['So?', 'Yes.']],
] * 3  # fmt: skip


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode('utf8'))
    return str(path)


def write_story(path, marker=None, width=20, end='\n'):
    paragraphs = [
        [
            textwrap.fill(' '.join(paragraph), width, break_on_hyphens=False)
            for paragraph in document
        ]
        for document in STORY
    ]
    if marker is None:
        text = '\n \n\n'.join('\n'.join(document) for document in paragraphs)
    else:
        text = f'\n{marker} \n\n'.join('\n\n \n'.join(document) for document in paragraphs)
    return write(path, text + end)


def documents(span, layout):
    """Return the sentences of each document."""
    found = [[]]
    for lines, _ in read_sentences(span, layout):
        for line in lines:
            if line:
                found[-1].append(line)
            elif found[-1]:
                found.append([])
    return [document for document in found if document]


def joined(story):
    return [[sentence for paragraph in document for sentence in paragraph] for document in story]


@pytest.mark.parametrize('end', ['', '\n', '\n\n\n'])
@pytest.mark.parametrize('width', [20, 1000])
@pytest.mark.parametrize('chunk', [1, 7, 100, 2**20])
def test_chunks_and_parts_make_no_difference(tmp_path, monkeypatch, chunk, width, end):
    monkeypatch.setattr(files, 'CHUNK_BYTES', chunk)
    layout = Layout(True, MARKER)
    path = write_story(tmp_path / 'a.txt', MARKER, width, end)
    for count in (1, 2, 4, 9):
        parts = share_out([path], count, layout=layout)
        found = [document for (span,) in parts for document in documents(span, layout)]
        assert found == joined(STORY)


def test_blank_lines_end_documents_without_a_marker(tmp_path):
    """A list's item begins a paragraph in any case."""
    story = [[['One.', 'Two'], ['- a'], ['- big.', 'C']], [['Three']]]
    path = write(tmp_path / 'a.txt', 'One. Two\n- a\n- big. C\n\t\n\nThree')
    (span,) = share_out([path], 1)[0]
    assert documents(span, Layout(True)) == joined(story)


def test_a_marker_between_sentences_on_lines(tmp_path):
    """Blank lines mean nothing then."""
    path = write(
        tmp_path / 'a.txt', f'{MARKER}\na. b\n\nc\n{MARKER} d\n  {MARKER}\t\n\n\ne\n{MARKER}'
    )
    (span,) = share_out([path], 1)[0]
    layout = Layout(document_marker=MARKER)
    assert documents(span, layout) == [['a. b', 'c', f'{MARKER} d'], ['e']]
    (first,), (second,) = share_out([path], 2, layout=layout)
    assert [documents(first, layout), documents(second, layout)] == [
        [['a. b', 'c', f'{MARKER} d']],
        [['e']],
    ]
    (corpus,) = read_corpora([span], encode, 9, 100, layout=layout)
    assert len(corpus.documents) - 1 == 2


def test_cuts_are_between_paragraphs(tmp_path):
    """If documents may be cut; otherwise between these. Lines of sentences are cut anywhere."""
    path = write_story(tmp_path / 'a.txt', MARKER)
    paragraphs = [paragraph for document in STORY for paragraph in document]
    layout = Layout(True, MARKER)
    counts = {}
    for whole in (True, False):
        for count in (2, 5, 12, 40):
            parts = [documents(s, layout) for (s,) in share_out([path], count, whole, layout)]
            found = [sentence for part in parts for document in part for sentence in document]
            assert found == [sentence for paragraph in paragraphs for sentence in paragraph]
            counts[whole, count] = len(list(filter(None, parts)))
    assert counts[True, 40] == len(STORY) < counts[False, 40] == len(paragraphs)
    by_line = share_out([path], 40, False, Layout(document_marker=MARKER))
    assert len([span for (span,) in by_line if span.stop > span.start]) > len(paragraphs)


def test_a_single_document(tmp_path, caplog):
    path = write(tmp_path / 'a.txt', f'One. Two.\n\nThree.\n{MARKER}\n')
    (spans,) = share_out([path], 1)
    assert not has_one_document(spans, Layout(True))
    for layout in (Layout(True, MARKER), Layout(False, MARKER)):
        assert has_one_document(spans, layout)
        warn_of_single_documents([spans], layout)
        assert caplog.messages.pop().endswith("lines '* * *' separate documents")
        caplog.clear()


def encode(texts):
    return [[1] * len(text) for text in texts]


def test_a_document_without_end(tmp_path):
    path = write(tmp_path / 'a.txt', 'A word is.\n\n' * 100)
    (spans,) = share_out([path], 1)
    with pytest.raises(ToolkitError, match=r"put lines '\* \* \*' between documents"):
        list(read_corpora(spans, encode, 9, 20, layout=Layout(True, MARKER)))


def test_a_paragraph_without_end(tmp_path, monkeypatch):
    """Memory does not grow with it, whether it has sentences or not."""
    monkeypatch.setattr(files, 'CHUNK_BYTES', 2000)
    monkeypatch.setattr(sentences, 'WINDOW', 500)
    for line in ('One is. Two is\nless. ', 'some words\n'):
        peaks = []
        for copies in (1000, 10000):
            (spans,) = share_out([write(tmp_path / f'{copies}', line * copies)], 1)
            tracemalloc.start()
            parts = read_corpora(
                spans, encode, 9, 1000, repeatable=False, whole_documents=False,
                layout=Layout(True),
            )  # fmt: skip
            letters = sum(len(part.ids) for part in parts)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert letters > copies * (len(line) - 5)
        assert peaks[1] < 1.5 * peaks[0]


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'CHUNK_BYTES', 10)
    monkeypatch.setattr(files, 'LONGEST_LINE', 50)
    path = write(tmp_path / 'a.txt', '\n' * 18 + 'Abc. ' * 20)
    span = Span(path, 0, Path(path).stat().st_size)
    for read in (
        lambda: documents(span, Layout(True)),
        lambda: has_one_document([span], Layout(True)),
    ):
        assert failure(read) == (
            f'{path}:19: a line of more than 50 bytes; put at most one paragraph on each line, and '
            'blank lines between documents'
        )


def test_invalid_utf8_is_named_by_line(tmp_path):
    path = write(tmp_path / 'a.txt', b'Abc.\nAbc. ' * 3 + b'\x80\x00\n')
    with pytest.raises(ToolkitError, match=r'a\.txt:4: not valid UTF-8$'):
        documents(Span(path, 0, Path(path).stat().st_size), Layout(True))
