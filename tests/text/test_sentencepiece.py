"""Sentencepiece vocabularies and tokens; sampling against every split and the library's sampler."""

import io
import math
import random
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from bert.system.errors import ToolkitError
from bert.text.sentencepiece import UnigramSampler, load_sentencepiece_vocab, sentencepiece_encoder
from bert.text.vocab import fingerprint

sentencepiece = pytest.importorskip('sentencepiece')


@pytest.fixture(scope='module')
def train(tmp_path_factory):
    """Return a function that trains a model on made-up words and returns its path."""
    folder = tmp_path_factory.mktemp('models')
    rng = random.Random(0)
    words = [''.join(rng.choices('aabcde', k=rng.randint(2, 8))) for _ in range(400)]
    text = folder / 'text.txt'
    text.write_text('\n'.join(' '.join(rng.choices(words, k=9)) for _ in range(800)))

    def train(name, **options):
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(folder / name), vocab_size=400,
            hard_vocab_limit=False, minloglevel=2, **options,
        )  # fmt: skip
        return folder / f'{name}.model'

    return train


@pytest.fixture(scope='module')
def model(train):
    return train('unigram')


def sample(model, num_best, alpha, word, count, seed=0):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    sampler = UnigramSampler(processor, num_best, alpha)
    return list(map(tuple, sampler.sample([word] * count, np.random.default_rng(seed))))


def all_splits(processor, text):
    """Return {ids: score} of all ways to split a text into pieces."""
    if not text:
        return {(): 0.0}
    splits = {}
    for end in range(1, len(text) + 1):
        i = processor.piece_to_id(text[:end])
        if i != processor.unk_id():
            for ids, score in all_splits(processor, text[end:]).items():
                splits[(i, *ids)] = score + processor.get_score(i)
    return splits


@pytest.mark.parametrize('num_best, alpha', [(-1, 0.1), (-1, 0.5), (4, 0.3), (1000, 0.1)])
def test_splits_have_their_probabilities(model, num_best, alpha):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    count, letters = 20000, random.Random(1)
    splits = {}
    while not 30 < len(splits) < 60:
        word = ''.join(letters.choices('abcde', k=8))
        splits = all_splits(processor, processor.normalize(word))
    best = sorted(splits, key=splits.get, reverse=True)[: num_best if num_best > 0 else None]
    chances = np.array([math.exp(alpha * splits[ids]) for ids in best])
    expected = count * chances / chances.sum()
    drawn = Counter(sample(model, num_best, alpha, word, count))
    assert set(drawn) <= set(best)
    common = expected > 5
    observed = np.array([drawn[ids] for ids in best])
    merged = [np.append(x[common], x[~common].sum()) for x in (observed, expected)]
    keep = merged[1] > 0
    assert stats.chisquare(merged[0][keep], merged[1][keep])[1] > 0.001


@pytest.mark.parametrize('num_best', [-1, 5])
@pytest.mark.parametrize('word', ['abdace', 'adQbea', 'QQ', 'a'])
def test_same_as_the_library(model, num_best, word):
    """Unknown letters too. The bound is generous, as the library's seed cannot be set."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    count, alpha = 4000, 0.2
    theirs = Counter(
        tuple(processor.encode(word, enable_sampling=True, nbest_size=num_best, alpha=alpha))
        for _ in range(count)
    )
    ours = Counter(sample(model, num_best, alpha, word, count))
    assert sum(abs(ours[k] - theirs[k]) for k in {*ours, *theirs}) / 2 / count < 0.1


def test_each_occurrence_is_sampled_anew_and_in_its_place(model):
    encode = sentencepiece_encoder(model, True, -1, 0.1, np.random.default_rng(1))
    vocab = load_sentencepiece_vocab(model)
    texts = ['abdace, abdace caba', '', 'caba '] * 50
    encoded = encode(texts)
    pieces = [[vocab.idx_to_token[i] for i in ids] for ids in encoded]
    words = ['\u2581abdace<unk>\u2581abdace\u2581caba', '', '\u2581caba'] * 50
    assert [''.join(p).replace('\u2581<unk>', '<unk>') for p in pieces] == words
    assert len(set(map(tuple, encoded))) > 20


def test_the_generator_decides(model):
    first, again, other = (sample(model, -1, 0.1, 'abdace', 100, seed=s) for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize('num_best', [0, 1])
def test_the_best_split_without_sampling(model, num_best):
    encode = sentencepiece_encoder(model, False, num_best, 0.1)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert encode(['abdace caba', '']) == [processor.encode('abdace caba'), []]


def test_lower_case(model):
    unknown = sentencepiece.SentencePieceProcessor(model_file=str(model)).unk_id()
    lower, cased = sentencepiece_encoder(model, True), sentencepiece_encoder(model, False)
    assert lower(['CABA C\u00e1b\u00e1']) == lower(['caba caba'])
    assert unknown in cased(['CABA'])[0]


@pytest.mark.parametrize('options', [{'model_type': 'bpe'}, {'byte_fallback': True}])
def test_models_that_cannot_be_sampled(train, options):
    path = train('_'.join(options), **options)
    with pytest.raises(ToolkitError, match='leave out the sampling'):
        sample(path, -1, 0.1, 'caba', 1)


def test_vocabularies_have_the_special_tokens(train, model):
    without = load_sentencepiece_vocab(model)
    assert without.idx_to_token[-4:] == ['[MASK]', '[CLS]', '[SEP]', '[PAD]']
    assert without.unknown_token == '<unk>' and without['nothing'] == without['<unk>']
    path = train('own', pad_id=3, pad_piece='<pad>', user_defined_symbols=['[CLS]', '[SEP]'])
    own = load_sentencepiece_vocab(path)
    assert own.padding_token == '<pad>' and own['<pad>'] == 3
    assert own.idx_to_token[-1] == '[MASK]' and own['[CLS]'] == 4
    assert fingerprint(own) != fingerprint(without)


def test_same_vocabulary_as_gluonnlp(train):
    """The model has all special tokens, as GluonNLP adds missing ones in the order of a set."""
    pytest.importorskip('mxnet')
    gluonnlp = pytest.importorskip('gluonnlp')
    specials = ['[CLS]', '[SEP]', '[MASK]']
    path = train('gluon', pad_id=3, pad_piece='[PAD]', user_defined_symbols=specials)
    theirs = gluonnlp.vocab.BERTVocab.from_sentencepiece(str(path))
    ours = load_sentencepiece_vocab(path)
    assert ours.idx_to_token == theirs.idx_to_token
    for name in ('unknown_token', 'padding_token', 'cls_token', 'sep_token', 'mask_token'):
        assert getattr(ours, name) == getattr(theirs, name)


def test_a_model_with_a_piece_that_is_not_text(tmp_path):
    """The library loads it, and fails when it turns the piece into a str."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(['ab ba aab'] * 20), model_writer=model, vocab_size=10,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    assert model.getvalue().count(b'\xe2\x96\x81a')
    (tmp_path / 'm').write_bytes(model.getvalue().replace(b'\xe2\x96\x81a', b'\xe2\xff\x81a'))
    with pytest.raises(ToolkitError) as caught:
        load_sentencepiece_vocab(tmp_path / 'm')
    assert str(tmp_path / 'm') in str(caught.value)


@pytest.mark.parametrize('content', [None, b'', b'no model'])
def test_no_model(tmp_path, content):
    path = tmp_path / 'a.model'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ToolkitError, match='sentencepiece model'):
        load_sentencepiece_vocab(path)
