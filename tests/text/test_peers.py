"""What the test suites of google-research/bert and GluonNLP check of their tokenizers, restated."""

import pytest
from conftest import SPECIALS

from bert.text.tokenizer import build_tokenizer, split_words, tokenize
from bert.text.vocab import Vocab

PIECES = ['want', '##want', '##ed', 'wa', 'un', 'runn', '##ing', ',']
VOCAB = Vocab([*SPECIALS, *PIECES])


def pieces(text, lower=True, vocab=VOCAB):
    (ids,) = tokenize(build_tokenizer(vocab, lower), [text])
    return [vocab.idx_to_token[i] for i in ids]


def words(text, lower):
    """Return the words that the rules in Python give, after asserting that the library's agree."""
    found = split_words(text, lower)
    assert pieces(text, lower, Vocab([*SPECIALS, *sorted(set(found))])) == found
    return found


def test_capitals_accents_and_punctuation():
    expected = ['un', '##want', '##ed', ',', 'runn', '##ing']
    assert pieces('UNwant\u00e9d,running') == expected


@pytest.mark.parametrize(
    'text, expected',
    [
        ('', []),
        ('unwanted running', ['un', '##want', '##ed', 'runn', '##ing']),
        # A word is unknown as a whole if any part of it is.
        ('unwantedx running', ['[UNK]', 'runn', '##ing']),
    ],
)
def test_longest_match_first(text, expected):
    assert pieces(text) == expected


@pytest.mark.parametrize(
    'text, lower, expected',
    [
        (' \tOnE!two  \n Three FouR?  ', True, ['one', '!', 'two', 'three', 'four', '?']),
        (' \tOnE!two  \n Three FouR?  ', False, ['OnE', '!', 'two', 'Three', 'FouR', '?']),
        ('\u00c9t\u00e9', True, ['ete']),
        ('\u00c9t\u00e9', False, ['\u00c9t\u00e9']),
        ('ab\u6211\u4eeccd', True, ['ab', '\u6211', '\u4eec', 'cd']),
        ('\u3042\u6211\uac00', True, ['\u3042', '\u6211', '\u1100\u1161']),
    ],
)
def test_words(text, lower, expected):
    assert words(text, lower) == expected


@pytest.mark.parametrize('space', [' ', '\t', '\r', '\n', '\u00a0', '\u2003', '\u3000'])
def test_white_space(space):
    assert words(f'a{space}b', lower=True) == ['a', 'b']


@pytest.mark.parametrize('control', ['\u0005', '\u200b', '\u00ad', '\ufeff', '\0', '\ufffd'])
def test_what_is_not_shown_is_dropped(control):
    assert words(f'a{control}b', lower=True) == ['ab']


@pytest.mark.parametrize('character', list('-$`.^~|=<>@#_') + ['\u3002', '\u00bf', '\u2026'])
def test_punctuation_stands_alone(character):
    assert words(f'a{character}b', lower=True) == ['a', character, 'b']


@pytest.mark.parametrize('character', ['A', 'z', '5', '\u00df', '\u20ac', '\u00b0'])
def test_other_characters_do_not(character):
    assert words(f'a{character}b', lower=False) == [f'a{character}b']
