"""Training a vocabulary: counts by simpler means, joins worked out by hand, limits, order."""

import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from conftest import ROOT

from bert.text import vocabulary_training, word_counts
from bert.text.tokenizer import build_tokenizer, split_words
from bert.text.vocab import Vocab
from bert.text.vocabulary_training import FIRST_TOKENS, choose_alphabet, measure, train_tokens
from bert.text.word_counts import Counts, count_words

TEXT = (
    "Don't  stop-me\tnow!\r\n\r\n  ΟΔΟΣ Ärger, ärger\u00a0naïve\n\n中文字 in中\u3000日本\n"
    'con\x00trol\x01 \x85 zero\u200bwidth \ufffd \ue000 \u2e45dash \U00011938 [MASK] ##x\r'
    'e\u0301te\u0301 \U0001f600 ' + 'x' * 200 + ' ' + 'y' * 201 + '\n'
)


def counts_of(words):
    """Return counts of words that are given as {word: count}."""
    characters = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    joined = {character for word in words if len(word) > 1 for character in word}
    return Counts(Counter(words), characters, joined, sum(words.values()), 0, 0)


@pytest.mark.parametrize('chunk', [7, 64, 2**20])
@pytest.mark.parametrize('lower', [True, False])
def test_words_are_those_of_the_original_rules(monkeypatch, chunk, lower):
    """Those that split_words finds in the whole text, whose tests compare it with the original."""
    # Strings, and texts for the library, end early and late; but not within a string.
    monkeypatch.setattr(word_counts, 'SPLIT_CHARACTERS', chunk)
    monkeypatch.setattr(word_counts, 'HELD_STRINGS', 3 * chunk)
    counts = count_words(5 * [TEXT], lower)
    expected = Counter(split_words(5 * TEXT, lower))
    assert counts.total == sum(expected.values()) > 100
    assert counts.too_long == expected.pop('y' * 201) == 5
    assert counts.words == expected
    assert counts.characters == Counter(''.join(expected.elements()))
    assert counts.joined == {c for word in expected if len(word) > 1 for c in word}
    assert counts.left_out == 0


def test_uncased_text_has_neither_capitals_nor_accents():
    texts = ['\ufeffÄrger ärger ARGER']
    assert count_words(texts, lower=True).words == {'arger': 3}
    assert count_words(texts, lower=False).words == {'Ärger': 1, 'ärger': 1, 'ARGER': 1}


def test_text_without_words():
    assert count_words([' \n\x00\t' + 'x' * 201], True) == (Counter(), Counter(), set(), 1, 1, 0)


def test_rare_words_leave_when_there_are_too_many(monkeypatch):
    """The counts of those that stay are right, and those of the characters too."""
    monkeypatch.setattr(word_counts, 'MOST_CHARACTERS', 600)
    monkeypatch.setattr(word_counts, 'HELD_STRINGS', 50)
    rng = random.Random(1)
    words = [f'{rng.randrange(16**6):06x}' for _ in range(2000)]
    words = [word for rare in words for word in (rare, 'often', 'common')]
    texts = [' '.join(words[i : i + 30]) for i in range(0, len(words), 30)]
    counts = count_words(texts, True)
    assert counts.words['often'] == counts.words['common'] == 2000
    assert sum(map(len, counts.words)) <= 600
    assert sum(counts.words.values()) + counts.left_out == counts.total == 6000
    assert counts.characters == Counter(''.join(words))


def test_pairs_are_joined_as_worked_out_by_hand():
    """Sennrich et al.'s example, with BERT's marks of what goes on with a word.

    The pairs, with their counts: ##e ##s (9), ##es ##t (9), l ##o (7), then those of 7 and 6.
    """
    tokens = train_tokens(counts_of({'low': 5, 'lower': 2, 'newest': 6, 'widest': 3}), 26)
    assert tokens[:5] == list(FIRST_TOKENS)
    alphabet = [token for token in tokens[5:] if len(token.replace('##', '')) == 1]
    assert alphabet == [*'deilnorstw', *(f'##{character}' for character in 'deilnorstw')]
    rest = tokens[5 + len(alphabet) :]
    assert rest == ['##es']  # 26 = 5 + 20 + 1
    tokens = train_tokens(counts_of({'low': 5, 'lower': 2, 'newest': 6, 'widest': 3}), 100)
    assert tokens[25:29] == ['##es', '##est', 'lo', 'low']
    assert {'newest', 'widest', 'lower'} <= set(tokens)
    assert len(tokens) == len(set(tokens)) < 100


def test_what_the_text_has_only_once_is_not_joined():
    tokens = train_tokens(counts_of({'ab': 1, 'cd': 2}), 100)
    assert 'cd' in tokens and 'ab' not in tokens and '##b' in tokens


def test_the_alphabet():
    """ASCII first, then what is frequent; Chinese and punctuation do not go on with a word."""
    words = {'a': 1, 'ab': 1, '.': 9, '中': 90000, '文': 9000, 'é': 800, '字': 2, '学': 1, 'éa': 9}
    counts = counts_of(words)
    chosen, others = choose_alphabet(counts, 40)
    assert chosen == ['a', '##a', '.', 'b', '##b', '中', '文', 'é', '##é']
    assert others == ['字', '学']
    # Not even the first of the others takes a place that one before it did not fit into.
    assert choose_alphabet(counts, 11)[0] == ['a', '##a', '.', 'b', '##b', '中']
    assert choose_alphabet(counts, 9)[0] == ['a', '##a', '.']
    # A tenth of the tokens is theirs, however rare they are.
    assert choose_alphabet(counts, 50) == ([*chosen, '字'], ['学'])
    # Those get tokens of their own once all pairs are joined.
    assert train_tokens(counts, 16)[14:] == ['éa', '字']
    assert train_tokens(counts, 20)[14:] == ['éa', '字', '学']
    assert train_tokens(counts, 14)[5:] == sorted(chosen, key=lambda token: (len(token), token))


def test_characters_without_a_token_do_not_join_their_neighbours(monkeypatch):
    monkeypatch.setattr(vocabulary_training, 'COVERAGE', 0.5)
    tokens = train_tokens(counts_of({'aéb': 50, 'ab': 1, 'cd': 60}), 14)
    assert 'ab' not in tokens and tokens[-2:] == ['##d', 'cd']


def test_counts_are_scaled_down_for_the_library(monkeypatch):
    words = {'aaaa': 60, 'bb': 120, 'c': 1}
    assert list(vocabulary_training.show_words({'a': 2001, 'bc': 2})) == [
        ' '.join('a' * 1000),
        ' '.join('a' * 1000),
        'a',
        'bc bc',
    ]
    monkeypatch.setattr(vocabulary_training, 'MOST_SHOWN', 48)
    shown = Counter(' '.join(vocabulary_training.show_words(words)).split())
    assert shown == {'aaaa': 6, 'bb': 12}


def test_the_quality_is_that_of_the_tokenizer():
    """Counted word by word in the whole text."""
    counts = count_words([20 * TEXT], lower=True)
    tokens = [token for token in train_tokens(counts, 150) if token != '中']
    quality = measure(tokens, counts, True)
    vocab = Vocab(tokens)
    tokenizer = build_tokenizer(vocab, True)
    words = split_words(20 * TEXT, True)
    ids = [encoding.ids for encoding in tokenizer.of_words.encode_batch(words)]
    unknown = [word == [vocab['[UNK]']] for word in ids]
    whole = [len(word) == 1 and not is_unknown for word, is_unknown in zip(ids, unknown)]
    assert quality.unknown == sum(unknown) / len(words) > 0.05
    assert quality.whole == sum(whole) / len(words) < 1
    assert quality.tokens_per_word == pytest.approx(sum(map(len, ids)) / len(words))


def test_processes_and_threads_agree():
    """A text with many ties; the library alone gives other tokens in each process."""
    code = (
        'import sys, hashlib\n'
        'from bert.text import vocabulary_training as training, word_counts\n'
        'text = open("sample_glue/MRPC/train.tsv", encoding="utf8").read()\n'
        'counts = word_counts.count_words([text], True)\n'
        'print(hashlib.sha256("\\n".join(training.train_tokens(counts, 900)).encode()).hexdigest())'
    )
    found = set()
    for threads in ('1', '2', '7'):
        environment = {**os.environ, 'RAYON_NUM_THREADS': threads, 'PYTHONHASHSEED': threads}
        ran = subprocess.run(
            [sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        found.add(ran.stdout)
    assert len(found) == 1
