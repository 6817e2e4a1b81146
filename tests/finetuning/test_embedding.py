"""Vectors of texts, beside plain GluonNLP with its own tokenizer."""

import json
import logging
import shutil

import golden
import numpy as np
import pytest
from conftest import ROOT, failure

import bert.embed
from bert.checkpoints.reading import find_parts
from bert.finetuning import embedding
from bert.model import build_from_configuration, load_bert, save_huggingface
from bert.system.errors import UsageError

import gluonnlp as nlp  # isort: skip
import mxnet as mx  # isort: skip

TEXTS = [
    'The bank said no.',
    'Why is it closed, and when does it open again for all of its customers?',
    'xylophones',
    ('For two days customers were unable to pay', 'The bank is sorry.'),
    '',
    'a',
    ('', 'b'),
]
MAX_LEN = 20


@pytest.fixture(scope='module')
def sample(tmp_path_factory):
    """Return the folder of a BERT with the sample model's sizes and vocabulary."""
    bert, vocab = build_from_configuration(ROOT / 'sample_model' / 'config.json', mx.cpu())
    mx.random.seed(7)
    bert.initialize(mx.init.Normal(0.2), force_reinit=True)
    folder = tmp_path_factory.mktemp('sample') / 'bert'
    save_huggingface(folder, bert, vocab, lower=True)
    return folder


@pytest.fixture(scope='module')
def expected(sample, tmp_path_factory):
    """Run plain GluonNLP, with its own tokenizer, on each text by itself, padded to a length.

    Returns
    -------
    list of (tokens, encodings, pooled)
        The (n, 128) encodings of both layers, and the (128,) pooled one.
    """
    ours, vocab = load_bert(str(sample))
    path = tmp_path_factory.mktemp('parameters') / 'bert.params'
    ours.save_parameters(str(path))
    sizes = dict(ours.settings)
    vocab_size, types = sizes.pop('vocab_size'), sizes.pop('token_type_vocab_size')
    encoder = nlp.model.BERTEncoder(**sizes, output_all_encodings=True)
    model = nlp.model.BERTModel(
        encoder, vocab_size, types, 128, 128, use_decoder=False, use_classifier=False
    )
    model.load_parameters(str(path))
    tokenizer = nlp.data.BERTTokenizer(vocab, lower=True)
    results = []
    for text in TEXTS:
        is_pair = isinstance(text, tuple)
        transform = nlp.data.BERTSentenceTransform(tokenizer, MAX_LEN, pair=is_pair)
        ids, length, token_types = transform(text if is_pair else (text,))
        batch = [mx.nd.array([each]) for each in (ids, token_types)]
        encodings, pooled = model(*batch, mx.nd.array([length]))
        tokens = [vocab.idx_to_token[i] for i in ids[:length]]
        encodings = [array[0, : int(length)].asnumpy() for array in encodings]
        results.append((tokens, encodings, pooled[0].asnumpy()))
    return results


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def load(sample, *args, **keywords):
    return bert.embed.load(sample, *args, **{'max_len': MAX_LEN, 'batch_size': 2, **keywords})


@pytest.mark.parametrize(
    'kind, choose',
    [
        ('sentence', lambda encodings, pooled: encodings[1].mean(axis=0)),
        ('mean', lambda encodings, pooled: encodings[1].mean(axis=0)),
        ('first', lambda encodings, pooled: encodings[1][0]),
        ('pooled', lambda encodings, pooled: pooled),
    ],
)
def test_a_vector_of_each_text(sample, expected, operators, kind, choose):
    found = load(sample, kind)(TEXTS)
    assert (found.shape, found.dtype) == ((len(TEXTS), 128), np.float32)
    for vector, (_, encodings, pooled) in zip(found, expected):
        close(vector, choose(encodings, pooled))


@pytest.mark.parametrize('layers', [[-1], [1], [-1, -2], [2, 1, 2]])
def test_layers(sample, expected, operators, layers):
    embedder = load(sample, 'tokens', layers)
    assert len(embedder.model.bert.encoder.transformer_cells) == (1 if layers == [1] else 2)
    found = embedder(TEXTS)
    pairs = embedder.stream(TEXTS)
    for (tokens, encodings, _), (ids, _), array in zip(expected, pairs, found):
        assert [embedder.vocab.idx_to_token[i] for i in ids] == tokens
        chosen = [encodings[layer if layer < 0 else layer - 1] for layer in layers]
        close(array, chosen[0] if len(layers) == 1 else np.stack(chosen, axis=1))
    if len(layers) > 1:
        for kind in ('mean', 'first'):
            vectors = load(sample, kind, layers)(TEXTS)
            assert vectors.shape == (len(TEXTS), len(layers), 128)
            for place, layer in enumerate(layers):
                close(vectors[:, place], load(sample, kind, [layer])(TEXTS))


def join_pieces(tokens, vectors):
    """Return words, and for each the mean of the vectors of its pieces."""
    words, of_words = [], []
    for token, vector in zip(tokens, vectors):
        if token in ('[CLS]', '[SEP]'):
            continue
        if token.startswith('##'):
            words[-1] += token[2:]
            of_words[-1].append(vector)
        else:
            words.append(token)
            of_words.append([vector])
    return words, [np.mean(pieces, axis=0) for pieces in of_words]


def test_words_as_gluonnlps_example_has_them(sample, expected):
    """Its BertEmbedding gives each word the mean of its pieces, and leaves out [CLS] and [SEP]."""
    embedder = load(sample, 'tokens')
    names = embedder.vocab.idx_to_token
    for (ids, vectors), (tokens, encodings, _) in zip(embedder.stream(TEXTS), expected):
        words, of_words = join_pieces([names[i] for i in ids], vectors)
        expected_words, of_expected = join_pieces(tokens, encodings[1])
        assert words == expected_words
        close(np.array(of_words), np.array(of_expected))
    words, _ = join_pieces(expected[2][0], expected[2][1][1])
    assert words == ['xylophones'] and len(expected[2][0]) > 3  # it has several pieces


def test_a_mean_by_hand(sample):
    """Texts of different lengths in one batch: the padding has no share in it."""
    tokens = load(sample, 'tokens', batch_size=8)(TEXTS)
    means = load(sample, 'mean', batch_size=8)(TEXTS)
    assert len({len(array) for array in tokens}) > 4
    for array, mean in zip(tokens, means):
        close(mean, sum(array) / len(array))


@pytest.mark.parametrize('kind', ['mean', 'tokens'])
def test_windows_do_not_matter(sample, kind, monkeypatch):
    """The order is kept, and the vectors are the same however the texts are taken."""
    rng = np.random.default_rng(0)
    words = 'the bank said no why is it closed'.split()
    texts = [' '.join(rng.choice(words, size)) for size in rng.integers(0, 12, 60)]
    whole = load(sample, kind, batch_size=4)(texts)
    monkeypatch.setattr(embedding, 'MOST_RESULTS', 1)
    parts = load(sample, kind, batch_size=4)
    assert parts._window_size() == 4
    for a, b in zip(whole, parts(iter(texts))):
        close(a, b)


def test_texts_that_were_cut_are_counted(sample, caplog):
    with caplog.at_level(logging.INFO):
        found = load(sample, 'tokens', max_len=5)(['one two', 'a a a a a a', ('a b', 'c d')])
    assert [len(array) for array in found] == [4, 5, 5]
    assert '2 of 3 texts were cut to 5 tokens' in caplog.messages


def test_no_texts(sample):
    assert load(sample)([]).shape == (0, 128)
    assert load(sample, layers=[1, 2])([]).shape == (0, 2, 128)
    assert load(sample, 'tokens')([]) == []


@pytest.mark.parametrize('texts', ['a text', ['a', 3], [('a', 'b', 'c')], [('a', None)], [()]])
def test_what_is_no_text(sample, texts):
    with pytest.raises(TypeError):
        load(sample)(texts)


def test_kinds_and_layers_that_are_refused(sample, tiny_bert):
    assert failure(load, sample, layers=[3]) == (
        'there is no layer 3: the model has 2, 1 to 2, or -1 (the last) to -2'
    )
    assert failure(load, sample, layers=[0]).startswith('there is no layer 0')
    assert failure(load, sample, 'pooled', [1]) == 'the pooler reads the last layer only'
    assert failure(load, sample, 'max') == (
        "'max' is not one of the vectors mean, first, pooled, tokens"
    )
    assert failure(load, sample, max_len=129) == (
        '129 tokens are more than the 128 positions of this model'
    )
    folder = golden.find('gluon_without_pooler')
    assert failure(bert.embed.load, folder, 'pooled') == (
        f'{folder}/tiny.params: has no pooler: take the mean or the first token'
    )
    with pytest.raises(UsageError):
        bert.embed.load('no/such/folder')


@pytest.mark.parametrize('name', golden.NAMES)
def test_models_of_all_kinds(name):
    """The vectors are those of load_bert, which other tests compare with the libraries'."""
    folder = golden.find(name)
    embedder = bert.embed.load(folder, 'tokens')
    assert embedder.max_len == 24  # its positions
    text = ('the bank said no.', 'why?')
    ((ids, vectors),) = embedder.stream([text])
    model, _ = load_bert(str(folder), use_pooler=False)
    types = (
        np.arange(len(ids)) >= list(embedder.vocab.idx_to_token[i] for i in ids).index('[SEP]') + 1
    )
    batch = [mx.nd.array([each]) for each in (ids, types)]
    close(vectors, model(*batch, mx.nd.array([len(ids)]))[0].asnumpy())


def test_a_models_own_length(sample, tmp_path):
    shutil.copytree(sample, tmp_path / 'bert')
    assert bert.embed.load(tmp_path / 'bert').max_len == 128
    content = {'flags': {'max_len': 40}, 'labels': None, 'parameters': 'model.safetensors'}
    (tmp_path / 'bert' / 'finetune.json').write_text(json.dumps(content))
    location = find_parts(tmp_path / 'bert')
    assert embedding.choose_max_len(None, location, 128) == 40
    assert embedding.choose_max_len(None, location, 30) == 30
    assert embedding.choose_max_len(50, location, 128) == 50


def test_similar_sentences_of_minilm(minilm):
    """Without another library: length 1, and paraphrases are nearer than other sentences."""
    vectors = bert.embed.load(minilm)(
        ['A man is eating food.', 'A man eats something.', 'The new movie is awesome.']
    )
    np.testing.assert_allclose((vectors**2).sum(axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > 0.6 > 0.2 > vectors[0] @ vectors[2]
