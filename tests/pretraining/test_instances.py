"""Instances against an independent, slow implementation written from the paper.

``slow_pairs``, ``slow_truncate`` and ``slow_mask`` follow appendix A of Devlin et al. 2018 token by
token, with Python's own generator. The fast code draws its random numbers in a different order, so
the two are compared by their distributions: a P-value below 0.001 is an error. All seeds are
fixed, so a test always passes or always fails.
"""

import random
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from bert.pretraining.corpus import Corpus, smallest_integer
from bert.pretraining.instances import (
    Pairs,
    Recipe,
    assemble,
    make_block,
    make_instances,
    plan_pairs,
    plan_runs,
    truncate,
)
from bert.pretraining.masking import Symbols, choose_tokens, choose_words, mask, symbols_of
from bert.text.vocab import Vocab

CHANCE = 0.001
# As in the vocabularies of the Gluon zoo, [PAD] is 1: code must not expect 0.
UNK, PAD, CLS, SEP, MASK = range(5)
FIRST_ORDINARY = 5


def symbols(vocab_size, continues=()):
    special = np.zeros(vocab_size, dtype=bool)
    special[[PAD, CLS, SEP, MASK]] = True
    follows = np.zeros(vocab_size, dtype=bool)
    follows[list(continues)] = True
    return Symbols(cls=CLS, sep=SEP, mask=MASK, pad=PAD, special=special, continues=follows)


def corpus_of(lengths):
    """Make a corpus from the sentence lengths of each document; no token occurs twice."""
    sentences = np.cumsum([0] + [n for document in lengths for n in document])
    return Corpus(
        ids=np.arange(FIRST_ORDINARY, FIRST_ORDINARY + sentences[-1], dtype=np.int32),
        sentences=sentences,
        documents=np.cumsum([0] + [len(document) for document in lengths]),
    )


def documents_of(corpus):
    """Return the documents of a corpus as lists of lists of ids."""
    sentences = [corpus.ids[a:b].tolist() for a, b in zip(corpus.sentences, corpus.sentences[1:])]
    return [sentences[a:b] for a, b in zip(corpus.documents, corpus.documents[1:])]


# The slow implementation.


def slow_truncate(a, b, limit, rng):
    a, b = list(a), list(b)
    while len(a) + len(b) > limit:
        longer = a if len(a) > len(b) else b
        del longer[0 if rng.random() < 0.5 else -1]
    return a, b


def slow_pairs(documents, number, recipe, rng):
    """Return (A, B, is random next) for each instance of one pass over a document."""
    limit = recipe.max_seq_length - 3
    target = rng.randint(2, limit) if rng.random() < recipe.short_seq_prob else limit
    queue = list(documents[number])
    pairs = []
    while queue:
        chunk = [queue.pop(0)]
        while queue and sum(map(len, chunk)) < target:
            chunk.append(queue.pop(0))
        in_a = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
        a = [token for sentence in chunk[:in_a] for token in sentence]
        if len(chunk) == 1 or rng.random() < 0.5:
            queue = chunk[in_a:] + queue
            other = rng.choice([d for d in range(len(documents)) if d != number])
            b = []
            for sentence in documents[other][rng.randrange(len(documents[other])) :]:
                b += sentence
                if len(b) >= target - len(a):
                    break
            pairs.append((*slow_truncate(a, b, limit, rng), True))
        else:
            b = [token for sentence in chunk[in_a:] for token in sentence]
            pairs.append((*slow_truncate(a, b, limit, rng), False))
    return pairs


def slow_mask(tokens, recipe, vocab_size, continues, rng):
    """Return (tokens after masking, {position: original token}) for one instance."""
    words = []
    for position, token in enumerate(tokens):
        if token in (CLS, SEP):
            continue
        glued = recipe.whole_word_mask and token in continues
        if glued and words and words[-1][-1] == position - 1:
            words[-1].append(position)
        else:
            words.append([position])
    rng.shuffle(words)
    number = max(1, int(round(len(tokens) * recipe.masked_lm_prob)))
    number = min(number, recipe.max_predictions_per_seq)
    tokens, answers = list(tokens), {}
    for word in words:
        if len(answers) + len(word) > number:
            continue
        for position in word:
            answers[position] = tokens[position]
            dice = rng.random()
            if dice < 0.8:
                tokens[position] = MASK
            elif dice < 0.9:
                tokens[position] = rng.randrange(vocab_size)
    return tokens, answers


def same_distribution(first, second, least=10):
    """Return the P-value of a chi-square test that two samples have the same distribution."""
    first, second = Counter(first), Counter(second)
    table = np.array([(first[key], second[key]) for key in {*first, *second}]).T
    rare = table.sum(axis=0) < 2 * least
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)], axis=1)
    table = table[:, table.sum(axis=0) > 0]
    return stats.chi2_contingency(table)[1] if table.shape[1] > 1 else 1.0


def mixed_lengths(seed, documents=40):
    """Draw the sentence lengths of all kinds of documents: long, short, and single sentences."""
    rng = random.Random(seed)
    return [
        [rng.choice((1, 2, 3, 5, 8, 13, 21, 34, 60)) for _ in range(rng.choice((1, 2, 3, 6, 20)))]
        for _ in range(documents)
    ]


# Pairs.


def test_a_worked_example():
    """One document with sentences of 3, 4 and 5 tokens, another with one of 2; 6 tokens fit.

    3 + 4 reach the target, so A is the 3 tokens from 0 on. If B is the actual next, it is the 4
    tokens from 3 on, less one at either end. If not, it is the 2 tokens from 12 on, all that the
    other document has, and the next chunk is 4 + 5, and so on. A single sentence left over has no
    actual next. The other document always takes its random next from the first one.
    """
    corpus = corpus_of([[3, 4, 5], [2]])
    recipe = Recipe(max_seq_length=9, short_seq_prob=0, dupe_factor=1)
    alone = {((7, 4), (12, 2), True), ((8, 4), (12, 2), True)}
    ways = (
        [{((0, 3), (3, 3), False), ((0, 3), (4, 3), False)}, alone],
        [
            {((0, 3), (12, 2), True)},
            {((a, 3), (b, 3), False) for a in (3, 4) for b in (7, 8, 9)},
        ],
        [{((0, 3), (12, 2), True)}, {((3, 4), (12, 2), True)}, alone],
    )
    seen = set()
    for number in range(60):
        pairs = plan_pairs(corpus, recipe, np.random.default_rng(number))
        rows = [((int(a), int(n)), (int(b), int(m)), bool(r)) for a, n, b, m, r in zip(*pairs)]
        first = sorted(row for row in rows if row[0][0] < 12)
        fits = [
            len(way) == len(first) and all(row in step for row, step in zip(first, way))
            for way in ways
        ]
        assert sum(fits) == 1, first
        seen.add(fits.index(True))
        (second,) = (row for row in rows if row[0][0] >= 12)
        assert second[0] == (12, 2) and second[1][1] == 4 and second[2]
    assert seen == {0, 1, 2}


@pytest.mark.parametrize('limit', [2, 3, 8, 13, 125])
def test_truncated_lengths(limit):
    lengths = [(a, b) for a in range(1, 40) for b in range(1, 40)] + [(500, 3), (3, 500)]
    a, b = np.array(lengths).T
    zeros = np.zeros(len(a), dtype=np.int64)
    pairs = truncate(Pairs(zeros, a, zeros, b, zeros.astype(bool)), limit, np.random.default_rng(0))
    rng = random.Random(0)
    expected = [tuple(map(len, slow_truncate(range(n), range(m), limit, rng))) for n, m in lengths]
    assert list(zip(pairs.a_length.tolist(), pairs.b_length.tolist())) == expected
    assert (pairs.a_start >= 0).all() and (pairs.a_start + pairs.a_length <= a).all()
    assert (pairs.b_start >= 0).all() and (pairs.b_start + pairs.b_length <= b).all()


def test_truncated_side():
    """The numbers of tokens that A and B lose at their starts have the same joint distribution."""
    n, a, b, limit = 4000, 11, 9, 8
    ones = np.ones(n, dtype=np.int64)
    pairs = Pairs(0 * ones, a * ones, 0 * ones, b * ones, ones.astype(bool))
    pairs = truncate(pairs, limit, np.random.default_rng(1))
    fast = list(zip(pairs.a_start.tolist(), pairs.b_start.tolist()))
    rng = random.Random(1)
    slow = [tuple(x[0] for x in slow_truncate(range(a), range(b), limit, rng)) for _ in range(n)]
    assert {x for x, _ in slow} == {x for x, _ in fast} == set(range(8))
    assert same_distribution(fast, slow) > CHANCE


@pytest.mark.parametrize(
    'recipe',
    [
        Recipe(max_seq_length=32, short_seq_prob=0.0),
        Recipe(max_seq_length=32, short_seq_prob=0.5),
        Recipe(max_seq_length=5, short_seq_prob=0.5),
    ],
)
def test_first_pair_of_each_document(recipe):
    """The first instances of documents of the same shape are independent draws."""
    passes, shape = 100, (5, 9, 3, 14, 7, 40, 2)
    corpus = corpus_of([shape] * 40)
    documents, size = documents_of(corpus), sum(shape)
    pairs = plan_pairs(corpus, recipe._replace(dupe_factor=passes), np.random.default_rng(2))
    pairs = pairs.take(slice(40 * passes))
    fast = [
        (int(a % size), int(n), int(b % size), int(m), bool(r), int(a) // size == int(b) // size)
        for a, n, b, m, r in zip(*pairs)
    ]
    rng = random.Random(2)
    slow = []
    for number in list(range(40)) * passes:
        a, b, is_random = slow_pairs(documents, number, recipe, rng)[0]
        a_start, b_start = a[0] - FIRST_ORDINARY, b[0] - FIRST_ORDINARY
        same = a_start // size == b_start // size
        slow.append((a_start % size, len(a), b_start % size, len(b), is_random, same))
    for look_at in (
        lambda row: row[4],  # random next
        lambda row: row[1],  # the length of A
        lambda row: (row[1] + row[3], row[4]),  # the whole length
        lambda row: (row[0], row[2]),  # the tokens cut off in front, and the start of random text
        lambda row: row,
    ):
        assert same_distribution(map(look_at, fast), map(look_at, slow)) > CHANCE


def test_target_lengths():
    """Sentences of one token fill any target exactly, which makes the targets visible."""
    corpus = corpus_of([[1] * 100] * 40)
    recipe = Recipe(max_seq_length=13, short_seq_prob=0.3, dupe_factor=800)
    pairs = plan_pairs(corpus, recipe, np.random.default_rng(3)).take(slice(40 * 800))
    actual = pairs.take(~pairs.is_random_next)
    counts = np.bincount(actual.a_length + actual.b_length, minlength=11)
    expected = np.array([0, 0] + [0.3 / 9] * 9) + np.array([0] * 10 + [0.7])
    assert counts[:2].sum() == 0
    assert stats.chisquare(counts[2:], counts.sum() * expected[2:])[1] > CHANCE


def test_passes_over_mixed_documents():
    """Statistics of whole passes cover all instances of a document."""
    corpus, recipe = corpus_of(mixed_lengths(3)), Recipe(max_seq_length=48, dupe_factor=1)
    documents = documents_of(corpus)

    def figures(lengths_a, lengths_b, is_random):
        total = np.array(lengths_a) + lengths_b
        return len(total), np.mean(is_random), total.mean(), np.mean(lengths_a), (total < 45).mean()

    fast, slow = [], []
    rng, np_rng = random.Random(4), np.random.default_rng(4)
    for _ in range(250):
        pairs = plan_pairs(corpus, recipe, np_rng)
        fast.append(figures(pairs.a_length, pairs.b_length, pairs.is_random_next))
        rows = [row for n in range(40) for row in slow_pairs(documents, n, recipe, rng)]
        slow.append(
            figures(
                [len(a) for a, _, _ in rows], [len(b) for _, b, _ in rows], [r for _, _, r in rows]
            )
        )
    for mine, theirs in zip(zip(*fast), zip(*slow)):
        assert stats.ks_2samp(mine, theirs)[1] > CHANCE


def test_the_other_document_is_any_other():
    corpus = corpus_of([[4]] * 6)
    recipe = Recipe(max_seq_length=16, dupe_factor=500)
    pairs = plan_pairs(corpus, recipe, np.random.default_rng(5))
    own, other = pairs.a_start // 4, pairs.b_start // 4
    assert pairs.is_random_next.all()
    table = np.zeros((6, 6))
    np.add.at(table, (own, other), 1)
    assert (np.diag(table) == 0).all()
    assert stats.chisquare(table[~np.eye(6, dtype=bool)])[1] > CHANCE


# Masks.


def test_every_token_is_chosen_equally_often():
    candidates = np.ones((20000, 12), dtype=bool)
    candidates[:, [0, 5, 11]] = False
    wanted = np.resize([1, 3], 20000)
    chosen = choose_tokens(candidates, wanted, np.random.default_rng(6))
    assert (chosen.sum(axis=1) == wanted).all()
    assert not chosen[~candidates].any()
    for number in (1, 3):
        sets = Counter(map(bytes, chosen[wanted == number]))
        assert len(sets) == {1: 9, 3: 84}[number]
        assert stats.chisquare(list(sets.values()))[1] > CHANCE


def test_too_few_candidates():
    candidates = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
    chosen = choose_tokens(candidates, np.array([3, 2, 9]), np.random.default_rng(0))
    assert (chosen == candidates).all()


@pytest.mark.parametrize('wanted', [1, 2, 3, 4])
def test_whole_words_are_chosen_like_slowly(wanted):
    """Sets of positions in [CLS] w ##w w w ##w ##w [SEP] ##w w [SEP] are chosen equally often."""
    tokens = [CLS, 10, 20, 11, 12, 21, 22, SEP, 23, 13, SEP]
    recipe = Recipe(
        whole_word_mask=True, masked_lm_prob=wanted / 11, max_predictions_per_seq=wanted
    )
    continues, n = {20, 21, 22, 23}, 4000
    candidates = np.array([[t not in (CLS, SEP) for t in tokens]] * n)
    follows = np.array([[t in continues for t in tokens]] * n)
    chosen = choose_words(candidates, follows, np.full(n, wanted), np.random.default_rng(7))
    rng = random.Random(7)
    fast = [tuple(np.flatnonzero(row)) for row in chosen]
    slow = [tuple(sorted(slow_mask(tokens, recipe, 30, continues, rng)[1])) for _ in range(n)]
    assert set(fast) == set(slow)
    assert same_distribution(fast, slow) > CHANCE


def test_80_10_10():
    vocab_size, n = 50, 40000
    original = np.full((n, 4), 7, dtype=np.uint16)
    chosen = np.zeros((n, 4), dtype=bool)
    chosen[:, 2] = True
    tokens = original.copy()
    masked = mask(tokens, chosen, 3, symbols(vocab_size), np.random.default_rng(8))
    assert (tokens[~chosen] == original[~chosen]).all()
    counts = np.bincount(tokens[:, 2], minlength=vocab_size) / n
    expected = np.full(vocab_size, 0.1 / vocab_size)
    expected[MASK] += 0.8
    expected[7] += 0.1
    assert stats.chisquare(counts * n, expected * n)[1] > CHANCE
    assert (masked['masked_lm_positions'] == [2, 0, 0]).all()
    assert (masked['masked_lm_ids'] == [7, PAD, PAD]).all()
    assert (masked['masked_lm_weights'] == [1, 0, 0]).all()


@pytest.mark.parametrize('whole_word_mask', [False, True])
def test_masked_instances_are_distributed_like_slowly(whole_word_mask):
    """For each length, the numbers of masked tokens and of [MASK] have the same distribution."""
    corpus = corpus_of(mixed_lengths(9, documents=60))
    vocab_size = FIRST_ORDINARY + len(corpus.ids)
    continues = set(range(FIRST_ORDINARY, vocab_size, 3))
    recipe = Recipe(max_seq_length=40, max_predictions_per_seq=5, whole_word_mask=whole_word_mask)
    pairs = plan_pairs(corpus, recipe, np.random.default_rng(9))
    who = symbols(vocab_size, continues)
    block = make_block(corpus.ids, pairs, recipe, who, np.random.default_rng(10))
    fast, slow = [], []
    rng = random.Random(10)
    plain, _, lengths = assemble(corpus.ids, pairs, recipe.max_seq_length, who)
    for row, length in enumerate(lengths):
        before = plain[row, :length].tolist()
        after, answers = slow_mask(before, recipe, vocab_size, continues, rng)
        slow.append((length, len(answers), sum(after[p] == MASK for p in answers)))
        positions = block['masked_lm_positions'][row, block['masked_lm_weights'][row] > 0]
        hidden = (block['input_ids'][row, positions] == MASK).sum()
        fast.append((length, len(positions), int(hidden)))
    assert same_distribution(fast, slow) > CHANCE
    if not whole_word_mask:
        assert [row[:2] for row in fast] == [row[:2] for row in slow]


# What is true of every instance.


@pytest.mark.parametrize(
    'recipe',
    [
        Recipe(dupe_factor=3),
        Recipe(dupe_factor=2, whole_word_mask=True),
        Recipe(max_seq_length=5, max_predictions_per_seq=1, dupe_factor=1),
        Recipe(max_seq_length=16, max_predictions_per_seq=40, masked_lm_prob=0.9),
        Recipe(max_seq_length=600, short_seq_prob=0.9, masked_lm_prob=0.0),
    ],
)
def test_every_instance(recipe, monkeypatch):
    corpus = corpus_of(mixed_lengths(11))
    vocab_size = FIRST_ORDINARY + len(corpus.ids)
    monkeypatch.setattr('bert.pretraining.instances.BLOCK_TOKENS', 2000)  # several blocks
    who = symbols(vocab_size, continues=range(FIRST_ORDINARY, vocab_size, 2))
    count, blocks = make_instances(corpus, recipe, who, np.random.default_rng(12))
    blocks = list(blocks)
    arrays = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    assert count == len(arrays['input_ids'])
    length, predictions = recipe.max_seq_length, recipe.max_predictions_per_seq
    for name, shape in (
        ('input_ids', (count, length)),
        ('segment_ids', (count, length)),
        ('masked_lm_positions', (count, predictions)),
        ('masked_lm_ids', (count, predictions)),
        ('masked_lm_weights', (count, predictions)),
        ('next_sentence_labels', (count,)),
        ('valid_lengths', (count,)),
    ):
        assert arrays[name].shape == shape, name
        assert arrays[name].dtype.kind in 'iu', name

    document_of = np.repeat(
        np.arange(len(corpus.documents) - 1), np.diff(corpus.sentences[corpus.documents])
    )
    covered = set()
    for row in range(count):
        ids, segments, positions, labels, weights, is_random, valid = (
            arrays[name][row].tolist() for name in arrays
        )
        masked = sum(weights)
        assert weights == [1] * masked + [0] * (predictions - masked)
        assert positions[masked:] == [0] * (predictions - masked)
        assert labels[masked:] == [PAD] * (predictions - masked)
        assert all(a < b for a, b in zip(positions, positions[1:masked]))
        assert masked <= min(predictions, max(1, round(valid * recipe.masked_lm_prob)))
        if not recipe.whole_word_mask:
            possible = min(predictions, valid - 3)
            assert masked == min(possible, max(1, round(valid * recipe.masked_lm_prob)))

        for position, label in zip(positions[:masked], labels):
            ids[position] = label
        assert ids[valid:] == [PAD] * (length - valid)
        assert (ids[0], ids[valid - 1], ids[:valid].count(SEP)) == (CLS, SEP, 2)
        middle = ids.index(SEP)
        assert segments == [0] * (middle + 1) + [1] * (valid - middle - 1) + [0] * (length - valid)
        a, b = ids[1:middle], ids[middle + 1 : valid - 1]
        # No token of the corpus occurs twice, so these are runs of the text.
        assert a and a == list(range(a[0], a[0] + len(a)))
        assert b and b == list(range(b[0], b[0] + len(b)))
        from_a, to_a, from_b = (
            document_of[token - FIRST_ORDINARY] for token in (a[0], a[-1], b[0])
        )
        assert from_a == to_a
        assert (from_b != from_a) == is_random
        if not is_random:
            assert b[0] > a[-1]
        covered.update(a, b)
    if recipe.max_seq_length > 100:
        # Truncation may lose some tokens, but no sentence is left out.
        assert len(covered) > 0.98 * len(corpus.ids)


def test_an_actual_next_follows_directly():
    """If nothing must be cut off, B starts right after A."""
    corpus = corpus_of([[3] * 8] * 5)
    recipe = Recipe(max_seq_length=15, short_seq_prob=0, dupe_factor=20)
    pairs = plan_pairs(corpus, recipe, np.random.default_rng(0))
    actual = pairs.take(~pairs.is_random_next)
    assert len(actual.a_start) > 50
    assert (actual.a_start + actual.a_length == actual.b_start).all()


def test_whole_words_in_instances():
    corpus = corpus_of(mixed_lengths(13))
    vocab_size = FIRST_ORDINARY + len(corpus.ids)
    who = symbols(vocab_size, continues=range(FIRST_ORDINARY, vocab_size, 2))
    recipe = Recipe(whole_word_mask=True, dupe_factor=2)
    pairs = plan_pairs(corpus, recipe, np.random.default_rng(14))
    plain, _, _ = assemble(corpus.ids, pairs, recipe.max_seq_length, who)
    block = make_block(corpus.ids, pairs, recipe, who, np.random.default_rng(14))
    chosen = np.zeros(plain.shape, dtype=bool)
    row, slot = np.nonzero(block['masked_lm_weights'])
    chosen[row, block['masked_lm_positions'][row, slot]] = True
    follows = who.continues[plain[:, 1:]] & ~who.special[plain[:, :-1]]
    assert follows.any()
    assert (chosen[:, 1:] == chosen[:, :-1])[follows].all()


def test_special_tokens_in_the_text_are_never_masked():
    ids = np.resize([CLS, SEP, MASK, PAD, 9], 60).astype(np.uint8)
    corpus = Corpus(ids, np.arange(0, 61, 6), np.array([0, 4, 10]))
    recipe = Recipe(max_seq_length=32, masked_lm_prob=0.9)
    for whole_word_mask in (False, True):
        recipe = recipe._replace(whole_word_mask=whole_word_mask)
        _, blocks = make_instances(corpus, recipe, symbols(10), np.random.default_rng(0))
        for block in blocks:
            masked = block['masked_lm_ids'][block['masked_lm_weights'] > 0]
            assert set(masked) == {9}


def test_the_generator_decides():
    corpus, who = corpus_of(mixed_lengths(15)), symbols(5000)

    def everything(seed):
        _, blocks = make_instances(corpus, Recipe(), who, np.random.default_rng(seed))
        return b''.join(array.tobytes() for block in blocks for array in block.values())

    assert everything(1) == everything(1) != everything(2)


def test_instances_are_shuffled():
    corpus, recipe = corpus_of([[5]] * 400), Recipe(dupe_factor=1)
    count, blocks = make_instances(corpus, recipe, symbols(5000), np.random.default_rng(0))
    tokens = np.concatenate([block['input_ids'][:, 3] for block in blocks]).astype(int)
    ordinary = tokens[tokens > MASK]
    assert count == 400
    assert abs(stats.spearmanr(np.arange(len(ordinary)), ordinary)[0]) < 0.2


def test_smallest_integer():
    names = [smallest_integer(n).name for n in (0, 255, 256, 65535, 65536, 120000)]
    assert names == ['uint8', 'uint8', 'uint16', 'uint16', 'int32', 'int32']


def test_symbols_of_both_kinds_of_vocabularies():
    tokens = ['[UNK]', '[PAD]', '[CLS]', '[SEP]', '[MASK]', 'a', '##b', '\u2581c', 'd']
    wordpiece = symbols_of(Vocab(tokens))
    assert wordpiece[:4] == (CLS, SEP, MASK, PAD)
    assert wordpiece.special.tolist() == [False, True, True, True, True] + [False] * 4
    assert np.flatnonzero(wordpiece.continues).tolist() == [6]
    pieces = symbols_of(Vocab(tokens), word_start='\u2581')
    assert not pieces.continues[7] and pieces.continues[8]
    assert wordpiece.vocab_size == 9


# One document, and no next sentences.


def test_the_only_document_is_its_own_other():
    corpus = corpus_of([[3, 4, 5, 2, 6, 3, 4]])
    recipe = Recipe(max_seq_length=12, dupe_factor=300)
    pairs = plan_pairs(corpus, recipe, np.random.default_rng(1))
    assert 0.3 < pairs.is_random_next.mean() < 0.8
    # B of a random pair begins anywhere, also before A.
    random = pairs.take(pairs.is_random_next)
    assert (random.b_start < random.a_start).any() and (random.b_start > random.a_start).any()
    assert (pairs.b_length > 0).all()


@pytest.mark.parametrize(
    'limit, lengths', [(8, [7, 5]), (4, [3, 4, 4, 1]), (12, [12]), (3, [3, 3, 1, 3, 2])]
)
def test_runs_by_hand(limit, lengths):
    """A document with sentences of 3, 4 and 5 tokens, and another one of 2, which stays alone."""
    corpus = corpus_of([[3, 4, 5], [2]])
    recipe = Recipe(max_seq_length=limit + 2, short_seq_prob=0, dupe_factor=1, no_nsp=True)
    runs = plan_runs(corpus, recipe, np.random.default_rng(1))
    starts = np.cumsum([0, *lengths])[:-1]
    expected = [*zip(starts.tolist(), lengths), (12, 2)]
    assert sorted(zip(runs.a_start.tolist(), runs.a_length.tolist())) == expected
    assert not runs.b_length.any() and not runs.is_random_next.any()


def test_short_runs_cover_the_text_too():
    corpus = corpus_of([[7, 1, 9, 30, 2], [4, 4], [1]])
    recipe = Recipe(max_seq_length=16, short_seq_prob=0.5, dupe_factor=50, no_nsp=True)
    runs = plan_runs(corpus, recipe, np.random.default_rng(1))
    assert runs.a_length.max() <= 14 and len(set(runs.a_length.tolist())) > 10
    counts = np.zeros(len(corpus.ids), dtype=int)
    for start, length in zip(runs.a_start, runs.a_length):
        counts[start : start + length] += 1
    assert set(counts.tolist()) == {50}
    count, blocks = make_instances(corpus, recipe, symbols(100), np.random.default_rng(2))
    assert count == sum(len(block['valid_lengths']) for block in blocks)


def test_a_single_document_has_long_and_short_instances():
    """Each target is drawn anew: the shares are those of the recipe, not all or nothing."""
    corpus = corpus_of([[1] * 20000])
    recipe = Recipe(max_seq_length=52, short_seq_prob=0.3, dupe_factor=1)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        runs = plan_runs(corpus, recipe._replace(no_nsp=True), rng).a_length
        pairs = plan_pairs(corpus, recipe, rng)
        actual = pairs.take(~pairs.is_random_next)
        # Without next sentences 50 fit, with them 49; a short one has from 2 to those.
        for lengths, limit in ((runs, 50), (actual.a_length + actual.b_length, 49)):
            short = lengths[lengths < limit]
            chance = 0.3 * (limit - 2) / (limit - 1)
            assert stats.binomtest(len(short), len(lengths), chance).pvalue > CHANCE
            assert stats.chisquare(np.bincount(short)[2:]).pvalue > CHANCE


def test_documents_keep_their_targets():
    """With two documents or more each is all short or all long, as in google-research/bert."""
    corpus = corpus_of([[1] * 500] * 200)
    recipe = Recipe(max_seq_length=53, short_seq_prob=0.5, dupe_factor=1)
    pairs = plan_pairs(corpus, recipe, np.random.default_rng(0))
    actual = pairs.take(~pairs.is_random_next)
    found = {}
    for start, length in zip(actual.a_start, actual.a_length + actual.b_length):
        found.setdefault(int(start) // 500, set()).add(int(length))
    # Only the last chunk of a document may be shorter.
    assert all(len(lengths) <= 2 for lengths in found.values())
    assert len({max(lengths) for lengths in found.values()}) > 20


def test_sections_side_by_side(monkeypatch):
    """A run ends where a section does; the text is covered and runs are of whole sentences."""
    monkeypatch.setattr('bert.pretraining.instances.SECTION_TOKENS', 10)
    corpus = corpus_of([[3, 4, 5, 3, 4], [2]])
    recipe = Recipe(max_seq_length=16, short_seq_prob=0, dupe_factor=1, no_nsp=True)
    runs = plan_runs(corpus, recipe, np.random.default_rng(1))
    expected = [(0, 12), (12, 7), (19, 2)]
    assert sorted(zip(runs.a_start.tolist(), runs.a_length.tolist())) == expected
