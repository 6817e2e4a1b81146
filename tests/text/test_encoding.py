"""Truncation, special tokens and padding against the original's loop and gluonnlp."""

import doctest

import numpy as np
import pytest
from conftest import ROOT, tiny_vocab

from bert.text import encoding
from bert.text.tokenizer import build_tokenizer
from bert.text.vocab import Vocab


def truncate_token_by_token(first, second, limit):
    """Truncate lengths like the original's ``_truncate_seq_pair``."""
    while first + second > limit:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


def test_truncation_equals_the_loop():
    """This covers all pairs of lengths up to 12, under all limits up to 25: 26 * 13 * 13 cases."""
    first, second = (grid.ravel() for grid in np.mgrid[:13, :13])
    for limit in range(26):
        expected = [truncate_token_by_token(a, b, limit) for a, b in zip(first, second)]
        found = np.stack(encoding.truncated_lengths(first, second, limit), axis=1)
        assert found.tolist() == [list(pair) for pair in expected]


def test_example_of_the_docstring():
    result = doctest.testmod(encoding)
    assert result.attempted and not result.failed


@pytest.fixture(scope='module')
def vocab():
    return Vocab(tiny_vocab())


def sample_pairs():
    lines = (ROOT / 'sample_glue' / 'MRPC' / 'train.tsv').read_text(encoding='utf8').split('\n')
    return [tuple(line.split('\t')[3:5]) for line in lines[1:] if line]


@pytest.mark.parametrize('texts_per_row', [1, 2])
@pytest.mark.parametrize('max_len', [5, 16, 33, 128])
def test_encode_equals_gluonnlp(vocab, max_len, texts_per_row):
    """Rows equal those of its BERTSentenceTransform, without padding."""
    nlp = pytest.importorskip('gluonnlp')
    theirs = nlp.vocab.BERTVocab(
        nlp.data.count_tokens(vocab.idx_to_token), token_to_idx=vocab.token_to_idx
    )
    reference = nlp.data.BERTSentenceTransform(
        nlp.data.BERTTokenizer(theirs, lower=True), max_len, pad=False, pair=texts_per_row == 2
    )
    texts = [pair[:texts_per_row] for pair in sample_pairs()[:150]]
    encoded = encoding.encode(texts, build_tokenizer(vocab, lower=True), vocab, max_len)
    assert len(encoded.ids) == len(texts)
    for row, text in enumerate(texts):
        ids, length, token_types = reference(text)
        assert encoded.ids[row].tolist() == list(ids)
        assert encoded.lengths[row] == length
        assert encoded.first_lengths[row] == list(token_types).count(0)
    assert encoded.lengths.max() == max_len or max_len == 128
    assert encoded.padding == vocab['[PAD]']


def test_encode_by_hand(vocab):
    """[CLS] the cat [SEP] a dog runs [SEP], and texts without tokens."""
    tokenizer = build_tokenizer(vocab, lower=True)
    texts = [('The cat', 'a dog runs'), ('', ''), ('the cat', '')]
    encoded = encoding.encode(texts, tokenizer, vocab, 8)
    tokens = [[vocab.idx_to_token[i] for i in ids] for ids in encoded.ids]
    assert tokens == [
        ['[CLS]', 'the', 'cat', '[SEP]', 'a', 'dog', 'runs', '[SEP]'],
        ['[CLS]', '[SEP]', '[SEP]'],
        ['[CLS]', 'the', 'cat', '[SEP]', '[SEP]'],
    ]
    assert encoded.first_lengths.tolist() == [4, 2, 4]
    assert encoded.lengths.tolist() == [8, 3, 5]


def test_pad_batch_by_hand():
    encoded = encoding.Encoded(
        ids=[np.array(row, np.int32) for row in ([2, 7, 3], [2, 7, 3, 8, 9, 3], [2, 3, 4, 3])],
        first_lengths=np.array([3, 3, 2], np.int32),
        lengths=np.array([3, 6, 4], np.int32),
        padding=1,
    )
    ids, token_types, lengths = encoding.pad_batch(encoded, np.array([2, 0]))
    assert ids.tolist() == [[2, 3, 4, 3], [2, 7, 3, 1]]
    assert token_types.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert lengths.tolist() == [4, 3]
    assert (ids.dtype, token_types.dtype, lengths.dtype) == (np.int32, np.int32, np.float32)
    ids, token_types, _ = encoding.pad_batch(encoded, np.array([1]))
    assert ids.tolist() == [[2, 7, 3, 8, 9, 3]]
    assert token_types.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_a_batch_contains_its_rows(vocab):
    encoded = encoding.encode(sample_pairs(), build_tokenizer(vocab, lower=True), vocab, 64)
    rows = np.random.default_rng(1).permutation(len(encoded.ids))[:32]
    ids, token_types, lengths = encoding.pad_batch(encoded, rows)
    assert ids.shape == token_types.shape == (32, encoded.lengths[rows].max())
    for row, line, types, length in zip(rows, ids, token_types, lengths.astype(int)):
        assert line[:length].tolist() == encoded.ids[row].tolist()
        assert (line[length:] == vocab['[PAD]']).all()
        assert types.sum() == length - encoded.first_lengths[row]
        assert (np.diff(types[:length]) >= 0).all() and not types[length:].any()


def test_single_texts_and_pairs_together(vocab):
    """Each row is as it is among its like."""
    tokenizer = build_tokenizer(vocab, lower=True)
    texts = [('the cat',), ('a dog', 'runs'), ('',), ('one two three four five six',), ('', '')]
    mixed = encoding.encode_mixed(texts, tokenizer, vocab, 7)
    alone = [encoding.encode([text], tokenizer, vocab, 7) for text in texts]
    assert [ids.tolist() for ids in mixed.ids] == [part.ids[0].tolist() for part in alone]
    for name in ('first_lengths', 'lengths'):
        array = getattr(mixed, name)
        assert array.dtype == np.int32
        assert array.tolist() == [getattr(part, name)[0] for part in alone]
    assert mixed.padding == vocab['[PAD]']
    assert mixed.cut == 1 == sum(part.cut for part in alone)


@pytest.mark.parametrize(
    'text, max_len, cut',
    [
        (('one two three',), 5, 0),
        (('one two three',), 4, 1),
        (('one two', 'three'), 6, 0),
        (('one two', 'three'), 5, 1),
    ],
)
def test_rows_that_are_cut_are_counted(vocab, text, max_len, cut):
    texts = [text, ('a', 'b')[: len(text)]]
    encoded = encoding.encode(texts, build_tokenizer(vocab, lower=True), vocab, max_len)
    assert encoded.cut == cut
