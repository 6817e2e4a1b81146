"""Text files to corpora: finding, sharing out, reading and tokenizing them."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bert.pretraining import files
from bert.pretraining.corpus import encode_lines, read_corpora, read_corpus
from bert.pretraining.files import (
    Span,
    find_files,
    has_one_document,
    share_out,
    warn_of_single_documents,
)
from bert.system.errors import ToolkitError
from bert.text.tokenizer import build_tokenizer, tokenize
from bert.text.vocab import SPECIAL_TOKENS, Vocab, load_vocab


def letters(texts):
    """Encode one token per letter, numbered from a = 0, for checking by eye."""
    return [[ord(letter) - ord('a') for letter in text if letter not in ' -'] for text in texts]


def read(*paths, **options):
    return read_corpus([span for (span,) in share_out(paths, len(paths))], letters, 26, **options)


def as_text(corpus):
    """Return the sentences of each document."""
    sentences = [
        ''.join(chr(i + ord('a')) for i in corpus.ids[a:b])
        for a, b in zip(corpus.sentences, corpus.sentences[1:])
    ]
    return [sentences[a:b] for a, b in zip(corpus.documents, corpus.documents[1:])]


def write(path, text):
    path.write_bytes(text.encode('utf8') if isinstance(text, str) else text)
    return str(path)


# Finding.


def test_find_files(tmp_path, monkeypatch):
    for name in ('b.txt', 'a.txt', 'c[1].txt', 'd.md'):
        write(tmp_path / name, 'x')
    at = f'{tmp_path}/'
    assert find_files(f'{at}d.md,{at}?.txt') == [f'{at}d.md', f'{at}a.txt', f'{at}b.txt']
    assert find_files(f'{at}c[1].txt,') == [f'{at}c[1].txt']
    assert find_files(f'{at}a.txt,{at}a.txt') == [f'{at}a.txt'] * 2
    monkeypatch.setenv('HOME', str(tmp_path))
    assert find_files('~/*.md') == [f'{at}d.md']


@pytest.mark.parametrize(
    'patterns, words',
    [
        ('{0}/none*.txt', 'none.*no file matches'),
        ('{0}/a.txt,{0}/b.txt', 'b.txt: no file matches'),
        ('{0}', 'a directory'),
        ('{0}/*', 'sub: a directory'),
        (',', 'no input file is named'),
        ('/dev/null', 'not a regular file'),
    ],
)
def test_what_is_not_a_file(tmp_path, patterns, words):
    write(tmp_path / 'a.txt', 'x')
    (tmp_path / 'sub').mkdir()
    with pytest.raises(ToolkitError, match=words):
        find_files(patterns.format(tmp_path))


# Sharing out.


def test_files_stay_whole_if_there_are_enough(tmp_path):
    paths = [write(tmp_path / f'{i}.txt', 'x' * (i + 1)) for i in range(5)]
    spans = [Span(path, 0, i + 1) for i, path in enumerate(paths)]
    assert share_out(paths, 1) == [spans]
    assert share_out(paths, 2) == [spans[:3], spans[3:]]
    assert share_out(paths, 5) == [[span] for span in spans]


@pytest.mark.parametrize('end', ['\n', '', '\n\n\n'])
def test_a_file_is_cut_between_documents(tmp_path, end):
    documents = [[f'{"abc"[i % 3] * (1 + i % 7)}' for i in range(n)] for n in (3, 1, 9, 2, 5, 4)]
    text = '\n \n'.join('\n'.join(lines) for lines in documents) + end
    path = write(tmp_path / 'a.txt', text)
    for count in range(1, 4):
        groups = share_out([path], count)
        spans = [span for group in groups for span in group]
        assert len(groups) == len(spans) == count
        assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
        assert spans[-1].stop == len(text)
    # No possible cut divides a document.
    for count in range(1, len(text)):
        parts = [text[span.start : span.stop] for (span,) in share_out([path], count)]
        assert ''.join(parts) == text
        found = [
            document.split('\n')
            for part in parts
            for document in part.strip().replace('\n \n', '\n\n').split('\n\n')
            if document
        ]
        assert found == documents


def test_the_parts_of_a_file_are_read_to_their_ends(tmp_path, monkeypatch):
    documents = [['ab' * (1 + (i + j) % 3) for j in range(1 + i % 4)] for i in range(20)]
    path = write(tmp_path / 'a.txt', '\n\n'.join('\n'.join(lines) for lines in documents))
    for chunk in (7, 2**20):
        monkeypatch.setattr(files, 'CHUNK_BYTES', chunk)
        for count in (2, 3, 5):
            parts = [as_text(read_corpus(s, letters, 26)) for s in share_out([path], count)]
            assert [document for part in parts for document in part] == documents


@pytest.mark.parametrize('longest', [3, 2**24])
def test_a_file_is_cut_between_lines(tmp_path, monkeypatch, longest):
    """Without blank lines too, and wherever a line is longer than is read at a time."""
    monkeypatch.setattr(files, 'LONGEST_LINE', longest)
    lines = ['ab' * (1 + i % 5) + ' \n' for i in range(60)]
    text = ''.join(lines)
    path = write(tmp_path / 'a.txt', text)
    for count in (*range(1, 90), len(text) + 1):
        spans = [span for (span,) in share_out([path], count, whole_documents=False)]
        parts = [text[span.start : span.stop] for span in spans]
        assert ''.join(parts) == text
        assert [line for part in parts for line in part.splitlines(keepends=True)] == lines
        if count < 20:
            assert max(abs(len(part) - len(text) / count) for part in parts) <= len(max(lines))


def test_some_files_are_cut_into_more_parts_than_others(tmp_path):
    paths = [write(tmp_path / f'{i}.txt', 'a\n\nb\n\nc\n\nd\n') for i in range(2)]
    assert [span.path for (span,) in share_out(paths, 5)] == [paths[0]] * 3 + [paths[1]] * 2


# Reading.


def test_sentences_and_documents(tmp_path):
    path = write(tmp_path / 'a.txt', '\n\nab c\n  def \n\t\n\n--\ngh\n\n--\n\ni')
    corpus = read(path)
    assert as_text(corpus) == [['abc', 'def'], ['gh'], ['i']]
    assert corpus.ids.dtype == np.uint8


def test_the_end_of_a_file_ends_a_document(tmp_path):
    paths = [write(tmp_path / name, name[0] * 3) for name in ('a', 'b', 'c')]
    assert as_text(read(*paths)) == [['aaa'], ['bbb'], ['ccc']]


@pytest.mark.parametrize('line_end', ['\n', '\r\n', '\r'])
def test_line_ends_and_byte_order_mark(tmp_path, line_end):
    text = '\ufeff' + line_end.join(['ab', 'cd', '', 'ef', ''])
    assert as_text(read(write(tmp_path / 'a.txt', text))) == [['ab', 'cd'], ['ef']]


def test_chunks_make_no_difference(tmp_path, monkeypatch):
    lines = ['abc de' * (1 + i % 5) if i % 7 else '' for i in range(200)]
    path = write(tmp_path / 'a.txt', '\n'.join(lines))
    whole, fractions = as_text(read(path)), []
    monkeypatch.setattr(files, 'CHUNK_BYTES', 40)
    assert as_text(read(path, on_progress=fractions.append)) == whole
    assert fractions[-1] == 1 and fractions == sorted(fractions) and len(fractions) > 20


def test_invalid_utf8_is_named_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'CHUNK_BYTES', 10)
    path = write(tmp_path / 'a.txt', b'abc\n' * 40 + b'ab\xffc\n' + b'abc\n')
    with pytest.raises(ToolkitError, match=r'a\.txt:41: not valid UTF-8$'):
        read(path)


@pytest.mark.parametrize(
    'text, words',
    [
        ('', 'no text'),
        ('\n \n\n', 'no text'),
        ('--\n', 'no text'),
    ],
)
def test_too_little_text(tmp_path, text, words):
    with pytest.raises(ToolkitError, match=words) as error:
        read(write(tmp_path / 'a.txt', text))
    assert str(error.value).startswith(f'{tmp_path}/a.txt: ')


@pytest.mark.parametrize(
    'text, expected',
    [
        ('a\nb\n', True),
        ('\n\na\nb\n\n \n', True),
        ('a\n\nb\n', False),
        ('', False),
    ],
)
@pytest.mark.parametrize('chunk', [1, 3, 2**20])
def test_a_single_document(tmp_path, monkeypatch, caplog, text, expected, chunk):
    monkeypatch.setattr(files, 'CHUNK_BYTES', chunk)
    path = write(tmp_path / 'a.txt', text)
    spans = [Span(path, 0, len(text))]
    assert has_one_document(spans) == expected
    # The ends of files separate documents too.
    assert not has_one_document([*spans, *spans])
    warn_of_single_documents([spans, [*spans, *spans], spans])
    if expected:
        (message,) = caplog.messages
        assert message.startswith(f'{path} (and 1 more): only one document')
    else:
        assert not caplog.messages


# Reading one corpus at a time.


def slow_cuts(documents, tokens):
    """Return the documents of each corpus, following the docstring one document at a time."""
    size = [sum(map(len, document)) for document in documents]
    for i in range(2, len(documents) - 1):
        if sum(size[:i]) >= tokens and sum(size[i:]) >= tokens:
            return [documents[:i], *slow_cuts(documents[i:], tokens)]
    return [documents]


def random_documents(rng, count):
    return [['ab' * rng.integers(1, 9) for _ in range(rng.integers(1, 6))] for _ in range(count)]


@pytest.mark.parametrize('chunk', [7, 150, 2**20])
@pytest.mark.parametrize('count', [2, 3, 4, 5, 40])
def test_a_text_is_cut_as_slowly(tmp_path, monkeypatch, chunk, count):
    """Every document comes once and undivided, whether the text is in one file or two."""
    monkeypatch.setattr(files, 'CHUNK_BYTES', chunk)
    several = 0
    for seed in range(15):
        documents = random_documents(np.random.default_rng([seed, count]), count)
        texts = ['\n'.join(document) for document in documents]
        half = seed % count
        paths = [
            write(tmp_path / name, '\n\n \n'.join(part) + end)
            for name, part, end in (('a', texts[:half], '\n'), ('b', texts[half:], '\n--\n\n'))
        ]
        spans = [span for (span,) in share_out(paths, 2)]
        for tokens in (40, 60, 100, 300):  # no document has more than 80: none is refused
            corpora = list(read_corpora(spans, letters, 26, tokens))
            found = list(map(as_text, corpora))
            assert found == slow_cuts(documents, tokens)
            assert all(corpus.ids.dtype == np.uint8 for corpus in corpora)
            several += len(found) > 1
            total = sum(map(len, (sentence for text in documents for sentence in text)))
            assert total >= 2 * tokens or len(found) == 1
    assert several > 15 or count < 40


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'CHUNK_BYTES', 2000)
    documents = random_documents(np.random.default_rng(1), 200)
    text = '\n\n'.join('\n'.join(document) for document in documents) + '\n\n'
    peaks = []
    for copies in (4, 40):
        path = write(tmp_path / f'{copies}', text * copies)
        (spans,) = share_out([path], 1)
        tracemalloc.start()
        count = sum(len(corpus.documents) - 1 for corpus in read_corpora(spans, letters, 26, 2000))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == 200 * copies
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize('chunk', [7, 150, 2**20])
def test_a_text_is_cut_between_sentences(tmp_path, monkeypatch, chunk):
    """A corpus ends as soon as it has enough tokens, within a document too."""
    monkeypatch.setattr(files, 'CHUNK_BYTES', chunk)
    for seed in range(5):
        documents = random_documents(np.random.default_rng(seed), 12)
        documents[3] *= 60
        (spans,) = share_out(
            [write(tmp_path / 'a', '\n\n'.join('\n'.join(each) for each in documents))], 1
        )
        for tokens in (20, 50, 300):
            expected, size = [[]], 0
            left = sum(len(sentence) for document in documents for sentence in document)
            for document in documents:
                expected[-1].append([])
                for sentence in document:
                    if size >= tokens and left >= tokens:
                        expected.append([[]])
                        size = 0
                    expected[-1][-1].append(sentence)
                    size, left = size + len(sentence), left - len(sentence)
            parts = read_corpora(spans, letters, 26, tokens, whole_documents=False)
            assert list(map(as_text, parts)) == [list(filter(None, part)) for part in expected]
            assert len(expected) > 1


def test_memory_does_not_grow_with_a_document(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'CHUNK_BYTES', 2000)
    peaks = []
    for copies in (400, 4000):
        (spans,) = share_out([write(tmp_path / f'{copies}', 'ab abc\nabcd ef a\n' * copies)], 1)
        tracemalloc.start()
        parts = read_corpora(spans, letters, 26, 1000, whole_documents=False)
        assert sum(len(part.ids) for part in parts) == 12 * copies
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_document_without_end(tmp_path):
    """It is accepted if the whole text is short, and refused if it could fill the memory."""
    lines = ['abcde'] * 100
    documents = [['ab'], lines, ['cd'], ['ef']]
    text = '\n\n'.join('\n'.join(document) for document in documents)
    path = write(tmp_path / 'a.txt', text)
    (spans,) = share_out([path], 1)
    (corpus,) = read_corpora(spans, letters, 26, 100)
    assert as_text(corpus) == documents
    with pytest.raises(ToolkitError) as error:
        list(read_corpora(spans, letters, 26, 60))
    assert str(error.value) == (
        f'{path}: a document of more than 120 tokens; put blank lines between documents'
    )


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'CHUNK_BYTES', 10)
    monkeypatch.setattr(files, 'LONGEST_LINE', 50)
    path = write(tmp_path / 'a.txt', 'abc\n\n' * 9 + 'a' * 45 + '\n\nabc\n')
    assert len(read(path).documents) == 12
    path = write(tmp_path / 'a.txt', 'abc\n\n' * 9 + 'a' * 65 + '\n\nabc\n')
    with pytest.raises(ToolkitError, match=r'a\.txt:19: a line of more than 50 bytes; put one'):
        read(path)
    # A cut goes to the end of the document, however long its lines are.
    (first,), (second,) = share_out([path], 2)
    assert Path(path).read_text()[second.start :] == 'abc\n' and first.stop == second.start


# Tokenizing.


def test_words_are_encoded_once():
    asked = []

    def encode(texts):
        asked.extend(texts)
        return letters(texts)

    ids, lengths = encode_lines(['ab ab c', '', 'c  ab'], encode)
    assert ids.tolist() == [0, 1, 0, 1, 2, 2, 0, 1]
    assert lengths.tolist() == [5, 0, 3]
    assert sorted(asked) == ['', 'ab', 'c']
    asked.clear()
    again = encode_lines(['ab ab c', '', 'c  ab'], encode, repeatable=False)
    assert asked == ['ab ab c', '', 'c  ab']
    assert [a.tolist() for a in again] == [ids.tolist(), lengths.tolist()]


NASTY = [
    'Café CAFÉ e\u0301clair na\u0308ive',
    'a\u00a0b\tc\u3000d\u2028e\x0bf\x1cg',
    'zero\u200bwidth soft\u00adhyphen \ufeffmark \x00 \ufffd',
    '  two  spaces ',
    '\u65e5\u672c\u8a9e text\u4e2d\u6587 mixed',
    "don't [MASK] [SEP] under_score 3.14 ##ing",
    'x' * 150 + ' ' + 'y' * 250,
    '\u0301 \u0301a \u03a3\u03a3 \u0130I',
]


@pytest.mark.parametrize('lower', [True, False])
def test_word_by_word_is_the_same_as_line_by_line(lower):
    vocab = Vocab(
        [*SPECIAL_TOKENS.values(), *(f'{hashes}{c}' for c in map(chr, range(33, 127)) if c != '#'
         for hashes in ('', '##')), 'caf\u00e9', 'cafe', 'text', 'mask']
    )  # fmt: skip
    check_same(build_tokenizer(vocab, lower), NASTY)


def check_same(tokenizer, lines):
    ids, lengths = encode_lines(lines, lambda texts: tokenize(tokenizer, texts))
    expected = tokenize(tokenizer, lines)
    assert lengths.tolist() == [len(line) for line in expected]
    assert ids.tolist() == np.concatenate(expected).tolist()


@pytest.mark.parametrize('name', ['uncased', 'multilingual-cased', 'chinese'])
def test_real_text_and_vocabularies(real_corpus, published_vocabularies, name):
    lines = real_corpus.split('\n')[:2000]
    vocab = load_vocab(published_vocabularies / f'bert-base-{name}-vocab.txt')
    check_same(build_tokenizer(vocab, name == 'uncased'), lines + NASTY)
