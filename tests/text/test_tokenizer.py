"""WordPiece against gluonnlp's implementation, the original's rules and hand-worked cases."""

import unicodedata

import numpy as np
import pytest
from conftest import ROOT, SPECIALS, tiny_vocab

from bert.text.tokenizer import build_tokenizer, tokenize
from bert.text.vocab import Vocab, load_vocab

ODD_TEXTS = [
    '',
    '   ',
    'Hello, WORLD!',
    "don't stop-me... now?!",
    'naïve café Ångström ÀÉÎÕÜ ǅ İstanbul',
    'e\u0301te\u0301 decomposed',
    '中文字符 and 日本語 mixed中in',
    '한국어 кириллица Ελληνικά عربي',
    'tab\tand\nnewline\r\nand\u00a0nbsp\u3000wide\u2003em',
    'con\x00trol\x01 cha\x7fracters\x85 \ufffd replaced, zero\u200bwidth \u00adsoft, \ufeffbom',
    '$100 ^caret `tick` a+b=c <tag> ~ |',
    '“quotes” – dashes — … ‹›',
    'emoji 😀 👍🏽 out of the plane 𠀀 𐍈',
    'x' * 200,
    'x' * 201,
    'a' * 250 + ' then a word',
    'é' * 250,
    '[CLS] [MASK] in text [unused1]',
    'under_score hyphen-ated 3.14 1,000,000 50%',
    'STRASSE straße ﬁne ½ ²',
]


def sample_texts():
    """Return all sentences of the bundled sample."""
    lines = (ROOT / 'sample_glue' / 'MRPC' / 'train.tsv').read_text(encoding='utf8').split('\n')
    return [cell for line in lines[1:] if line for cell in line.split('\t')[3:5]]


def theirs(vocab, lower, texts):
    """Return gluonnlp's ids, from a tokenizer that follows the original in Python and Cython."""
    nlp = pytest.importorskip('gluonnlp')
    gluon = nlp.vocab.BERTVocab(
        nlp.data.count_tokens(vocab.idx_to_token), token_to_idx=vocab.token_to_idx
    )
    tokenizer = nlp.data.BERTTokenizer(gluon, lower=lower)
    return [tokenizer.convert_tokens_to_ids(tokenizer(text)) for text in texts]


def ours(vocab, lower, texts):
    return [ids.tolist() for ids in tokenize(build_tokenizer(vocab, lower), texts)]


@pytest.fixture(scope='module')
def sample_vocab():
    """Return the tiny vocabulary with half of the sample's words, and some words' ends."""
    words = sorted({word for text in sample_texts() for word in text.lower().split()})
    ends = [f'##{word[-length:]}' for word in words for length in (2, 3) if len(word) > 5]
    chinese = ['中', '文', '日', '한', 'е', 'и']
    return Vocab(list(dict.fromkeys([*tiny_vocab(), *words[::2], *sorted(ends)[::3], *chinese])))


def test_uncased_equals_gluonnlp_on_the_sample(sample_vocab):
    texts = sample_texts()
    assert len(texts) > 500
    expected = theirs(sample_vocab, True, texts)
    assert ours(sample_vocab, True, texts) == expected
    pieces = np.concatenate(expected)
    continued = sum(sample_vocab.idx_to_token[i].startswith('##') for i in pieces)
    assert continued > 1000  # enough words are split for a meaningful comparison


@pytest.mark.parametrize('text', ODD_TEXTS)
def test_uncased_equals_gluonnlp_on_odd_text(sample_vocab, text):
    assert ours(sample_vocab, True, [text]) == theirs(sample_vocab, True, [text])


def test_uncased_equals_gluonnlp_on_a_corpus(real_corpus, published_vocabularies):
    texts = [line for line in real_corpus.split('\n') if line][:1500]
    vocab = load_vocab(published_vocabularies / 'bert-base-uncased-vocab.txt')
    assert ours(vocab, True, texts) == theirs(vocab, True, texts)


# The blocks of Chinese characters in Unicode 8, which the original surrounds with spaces.
CJK = frozenset(
    chr(code)
    for first, last in [
        (0x3400, 0x4DBF),  # extension A
        (0x4E00, 0x9FFF),  # unified ideographs
        (0xF900, 0xFAFF),  # compatibility
        (0x20000, 0x2A6DF),  # extension B
        (0x2A700, 0x2B73F),  # C
        (0x2B740, 0x2B81F),  # D
        (0x2B820, 0x2CEAF),  # E
        (0x2F800, 0x2FA1F),  # compatibility, supplement
    ]
    for code in range(first, last + 1)
)


def original_words(text, lower):
    """Split text by the rules of google-research/bert's basic tokenizer, character by character."""

    def is_punctuation(character):
        code = ord(character)
        ascii_ = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
        return ascii_ or unicodedata.category(character).startswith('P')

    cleaned = ''
    for character in text:
        category = unicodedata.category(character)
        if character in '\t\n\r' or category == 'Zs':
            cleaned += ' '
        elif character not in '\0\ufffd' and category not in ('Cc', 'Cf'):
            cleaned += f' {character} ' if character in CJK else character
    if lower:
        decomposed = unicodedata.normalize('NFD', cleaned.lower())
        cleaned = ''.join(c for c in decomposed if unicodedata.category(c) != 'Mn')
    spaced = ''.join(f' {c} ' if is_punctuation(c) else c for c in cleaned)
    return spaced.split()


@pytest.mark.parametrize('lower', [True, False])
def test_words_are_those_of_the_original_rules(lower):
    """If the vocabulary has every word of the text, its pieces are its words.

    Cased text keeps capitals and accents. (gluonnlp 0.10 strips the accents, which is a bug.)
    """
    texts = [text for text in ODD_TEXTS if len(text) < 100 and '[' not in text]
    texts += sample_texts()[:200]
    words = [original_words(text, lower) for text in texts]
    vocab = Vocab([*tiny_vocab()[:5], *sorted({word for row in words for word in row})])
    for ids, expected in zip(ours(vocab, lower, texts), words):
        assert [vocab.idx_to_token[i] for i in ids] == expected


def test_cased_keeps_accents_and_capitals():
    vocab = Vocab([*tiny_vocab()[:5], 'Café', 'cafe', 'café', 'Cafe'])
    assert ours(vocab, False, ['Café café']) == [[5, 7]]
    assert ours(vocab, True, ['Café café']) == [[6, 6]]


def test_longest_piece_first():
    """The original's example, unaffable, becomes un ##aff ##able."""
    vocab = Vocab([*tiny_vocab()[:5], 'un', '##aff', '##able', '##a', 'u', '##ff'])
    assert ours(vocab, True, ['unaffable']) == [[5, 6, 7]]
    # It is greedy and does not backtrack: after una, nothing matches ffable.
    vocab = Vocab([*tiny_vocab()[:5], 'un', '##aff', '##able', 'una'])
    assert ours(vocab, True, ['unaffable']) == [[vocab['[UNK]']]]


def test_a_word_of_more_than_200_characters_is_unknown():
    vocab = Vocab([*tiny_vocab()[:5], 'a', '##a'])
    assert ours(vocab, True, ['a' * 200]) == [[5] + [6] * 199]
    assert ours(vocab, True, ['a' * 201]) == [[vocab['[UNK]']]]


def test_arrays_have_the_order_of_the_texts():
    tokenizer = build_tokenizer(Vocab(tiny_vocab()), lower=True)
    texts = ['the cat', '', 'a'] * 300
    arrays = tokenize(tokenizer, texts)
    assert [len(ids) for ids in arrays] == [2, 0, 1] * 300
    assert {ids.dtype for ids in arrays} == {np.dtype(np.int32)}


# Marks and punctuation of Unicode 15 and 16, which Python 3.12 and 3.14 know and the tokenizers
# library does not; the letters among them are written with marks.
NEWER = [
    *(0x0ECE, 0x11241, 0x1E08F),
    *range(0x10EFD, 0x10F00),
    *range(0x11B00, 0x11B0A),
    *range(0x11F00, 0x11F5A),
    *range(0x13439, 0x13456),
    *range(0x1E4EC, 0x1E4F0),
    *(0x1B4E, 0x1B4F, 0x1B7F, 0x105C9, 0x105E4, 0x10EFC, 0x1171E, 0x11BE1, 0x11F5A, 0x1E5FF),
    *range(0x10D69, 0x10D6E),
    *range(0x11380, 0x113E3),
    *range(0x1611E, 0x16130),
    *range(0x16D40, 0x16D70),
    *range(0x1E5EE, 0x1E5F0),
]


@pytest.mark.parametrize('lower', [True, False])
def test_every_character_is_treated_by_the_original_rules(lower):
    """All of Unicode that Python and the library know, within a word, alone, and as a word.

    With a vocabulary of exactly the words that the rules give, the pieces are those words.
    """
    characters = [
        chr(code)
        for code in sorted({*range(0x110000)} - {*NEWER})
        if not 0xD800 <= code < 0xE000 and unicodedata.category(chr(code)) not in ('Cn', 'Co')
    ]
    characters += ['\ue000', '\uf8ff', '\U000f0000', '\U0010fffd']  # private use
    assert len(characters) > 137000
    for pattern in ('a{}b', '{}', 'a {} b'):
        texts = [pattern.format(character) for character in characters]
        expected = [original_words(text, lower) for text in texts]
        vocab = Vocab([*SPECIALS, *sorted({word for words in expected for word in words})])
        found = ours(vocab, lower, texts)
        names = vocab.idx_to_token
        wrong = [
            (text, words)
            for text, ids, words in zip(texts, found, expected)
            if [names[i] for i in ids] != words
        ]
        assert wrong == []


@pytest.mark.parametrize(
    'text, words',
    [
        ('ΟΔΟΣ', ['οδος']),
        ('ΣΟΦΟΣ ΚΑΙ ΟΔΟΣ.', ['σοφος', 'και', 'οδος', '.']),
        ('Σ', ['σ']),  # no letter before it
        ('ΟΔΟΣ-ΑΣ', ['οδος', '-', 'ας']),
        ("ΟΔΟΣ'Α", ['οδοσ', "'", 'α']),  # an apostrophe does not end a word for Unicode
        ('Ὀδυσσεύς', ['οδυσσευς']),
    ],
)
def test_capital_sigma(text, words):
    """At the end of a word it becomes ς, as in Python's lower."""
    vocab = Vocab([*SPECIALS, *words, 'οδοσ'] if 'οδοσ' not in words else [*SPECIALS, *words])
    assert [[vocab.idx_to_token[i] for i in ids] for ids in ours(vocab, True, [text])] == [words]


def test_exceptions_among_other_texts_keep_their_places():
    vocab = Vocab([*SPECIALS, 'a', 'ς', 'ας', '\U0002b820'])
    texts = ['a', 'ΑΣ', '', 'a\U0002b820a', 'a a']
    assert ours(vocab, True, texts) == [[5], [7], [], [5, 8, 5], [5, 5]]
