"""The models: stock GluonNLP's numbers, the model zoo, directories and casing."""

import doctest
import functools
import hashlib
import http.server
import io
import json
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from conftest import ROOT, tiny_vocab, write_tiny_bert

from bert import model as bert_model  # bert before mxnet: see bert.environment
from bert.cli import ToolkitError, UsageError
from bert.encoder import SelfAttention
from bert.model import build_bert, build_head, is_lower_case, load_bert, zoo_dataset
from bert.vocab import Vocab

import gluonnlp as nlp  # isort: skip
import mxnet as mx  # isort: skip


def batch(rows=6, length=9, tokens=196):
    """Ids, token types and valid lengths from 1 to the length, padding of random tokens."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, tokens, (rows, length))
    types = (np.arange(length) >= rng.integers(0, length, (rows, 1))).astype(int)
    lengths = np.linspace(1, length, rows).round()
    return [mx.nd.array(array) for array in (ids, types, lengths)]


def stock(tiny_bert, dropout):
    """A classifier of plain gluonnlp, uninitialised, with its own attention."""
    config = json.loads((tiny_bert / 'config.json').read_text())
    encoder = nlp.model.bert.BERTEncoder(
        num_layers=config['num_hidden_layers'],
        units=config['hidden_size'],
        hidden_size=config['intermediate_size'],
        num_heads=config['num_attention_heads'],
        max_length=config['max_position_embeddings'],
        dropout=0.0,
    )
    bert = nlp.model.BERTModel(
        encoder,
        vocab_size=config['vocab_size'],
        token_type_vocab_size=2,
        units=config['hidden_size'],
        embed_size=config['hidden_size'],
        use_decoder=False,
        use_classifier=False,
    )
    return nlp.model.BERTClassifier(bert, num_classes=2, dropout=dropout)


# --- equality with gluonnlp


@pytest.mark.parametrize('hybridized', [False, True])
def test_saved_parameters_give_the_same_numbers_in_plain_gluonnlp(tiny_bert, tmp_path, hybridized):
    """Its attention and LayerNorm against ours, for valid lengths from 1 to the whole."""
    ours = build_head(load_bert(str(tiny_bert))[0], 2, [mx.cpu()])
    ours.save_parameters(str(tmp_path / 'model.params'))
    theirs = stock(tiny_bert, dropout=0.1)
    theirs.load_parameters(str(tmp_path / 'model.params'))
    cells = [model.bert.encoder.transformer_cells[0].attention_cell for model in (ours, theirs)]
    assert type(cells[1]) is nlp.model.bert.DotProductSelfAttentionCell
    assert type(cells[0]) is SelfAttention
    if hybridized:
        ours.hybridize(static_alloc=True)
        theirs.hybridize(static_alloc=True)
    for length in (9, 1, 13):
        inputs = batch(length=length)
        found, expected = (model(*inputs).asnumpy() for model in (ours, theirs))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(expected[:, 0]) > 0.01  # the rows differ, so that the comparison says something
    for model in (ours, theirs):
        model.hybridize(hybridized)  # anew, as a graph takes as many inputs as it was made with
    without = [model(*inputs[:2]).asnumpy() for model in (ours, theirs)]
    np.testing.assert_allclose(*without, rtol=1e-5, atol=1e-6)
    assert np.abs(without[0] - found).max() > 1e-3  # and so does the mask


@pytest.mark.parametrize('hybridized', [False, True])
def test_gradients_equal_those_of_plain_gluonnlp(tiny_bert_without_dropout, tmp_path, hybridized):
    folder = tiny_bert_without_dropout
    ours = build_head(load_bert(str(folder))[0], 2, [mx.cpu()], dropout=0.0)
    ours.save_parameters(str(tmp_path / 'model.params'))
    theirs = stock(folder, dropout=0.0)
    theirs.load_parameters(str(tmp_path / 'model.params'))
    inputs = batch()
    gradients = []
    for model in (ours, theirs):
        if hybridized:
            model.hybridize()
        with mx.autograd.record():
            loss = (model(*inputs) ** 2).sum()
        loss.backward()
        gradients.append(
            {
                name: p.grad().asnumpy()
                for name, p in model._collect_params_with_prefix().items()
                if p.grad_req != 'null'
            }
        )
    assert set(gradients[0]) == set(gradients[1])
    largest = max(np.abs(gradient).max() for gradient in gradients[1].values())
    for name, expected in gradients[1].items():
        np.testing.assert_allclose(
            gradients[0][name], expected, rtol=1e-3, atol=1e-5 * largest, err_msg=name
        )


def test_padding_does_not_matter(tiny_bert):
    """The same rows with other tokens as padding, and with more of it."""
    model, _ = load_bert(str(tiny_bert))
    ids, types, lengths = batch()
    wider = mx.nd.concat(ids, ids, dim=1), mx.nd.concat(types, types, dim=1), lengths
    position = mx.nd.array(np.arange(9) >= lengths.asnumpy()[:, None])
    other = mx.nd.where(position, (ids + 7) % 196, ids), types, lengths
    _, expected = model(ids, types, lengths)
    for inputs in (wider, other):
        _, pooled = model(*inputs)
        np.testing.assert_allclose(pooled.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-6)


def test_regression_model_by_hand(tiny_bert):
    encoder, _ = load_bert(str(tiny_bert))
    model = build_head(encoder, None, [mx.cpu()])
    names = [name for name in model._collect_params_with_prefix() if 'bert.' not in name]
    assert names == ['regression.1.weight', 'regression.1.bias']
    inputs = batch()
    _, pooled = encoder(*inputs)
    weight, bias = (model.regression[1].weight.data(), model.regression[1].bias.data())
    expected = pooled.asnumpy() @ weight.asnumpy().T + bias.asnumpy()
    np.testing.assert_allclose(model(*inputs).asnumpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('num_classes', [None, 2, 5])
def test_a_new_head_is_normal(tiny_bert, num_classes):
    model = build_head(load_bert(str(tiny_bert))[0], num_classes, [mx.cpu()])
    head = model.regression if num_classes is None else model.classifier
    weight = head[-1].weight.data().asnumpy()
    assert weight.shape == (num_classes or 1, 16)
    assert 0.01 < weight.std() < 0.03
    assert not head[-1].bias.data().asnumpy().any()
    assert head[0]._rate == 0.1


# --- directories


def test_settings_of_a_model_are_those_it_was_built_with(tiny_bert):
    settings = {
        'num_layers': 3,
        'units': 12,
        'hidden_size': 20,
        'num_heads': 4,
        'max_length': 17,
        'token_type_vocab_size': 3,
        'dropout': 0.25,
        'layer_norm_eps': 1e-5,
        'activation': 'approx_gelu',
    }
    bert = build_bert(Vocab(tiny_vocab()), **settings)
    assert bert_model.settings_of(bert) == {**settings, 'vocab_size': 196}


def test_output_shapes(tiny_bert):
    bert, vocab = load_bert(str(tiny_bert))
    sequence, pooled = bert(*batch())
    assert (sequence.shape, pooled.shape) == ((6, 9, 16), (6, 16))
    assert isinstance(vocab, nlp.vocab.BERTVocab)
    assert vocab.idx_to_token == tiny_vocab()
    assert vocab[vocab.padding_token] == 0
    assert vocab['never seen'] == vocab['[UNK]'] == 1


def test_a_vocabulary_padded_to_a_round_size(tmp_path):
    """The embedding has 4 rows more than vocab.txt lines; the log and the ids stay as they are."""
    folder = write_tiny_bert(tmp_path / 'bert')
    lines = (folder / 'vocab.txt').read_text().split('\n')
    (folder / 'vocab.txt').write_text('\n'.join(lines[:192]) + '\n')
    bert, vocab = load_bert(str(folder))
    assert len(vocab) == 196 == bert.word_embed[0].weight.shape[0]
    assert vocab.idx_to_token[:192] == tiny_vocab()[:192]
    assert vocab['less'] == vocab['[UNK]']
    assert bert(*batch())[1].shape == (6, 16)
    assert bert_model.plain_vocab(vocab).idx_to_token == tiny_vocab()[:192]


def test_a_vocabulary_larger_than_the_embedding(tmp_path):
    folder = write_tiny_bert(tmp_path / 'bert')
    with open(folder / 'vocab.txt', 'a') as file:
        file.write('surplus\n')
    with pytest.raises(ToolkitError) as caught:
        load_bert(str(folder))
    assert str(caught.value) == (
        f'{folder}: vocab.txt has 197 tokens and config.json a vocab_size of 196'
    )


@pytest.mark.parametrize('source', ['no/such/folder', '/no/such/folder'])
def test_no_such_directory(source):
    with pytest.raises(UsageError) as caught:
        load_bert(source)
    assert str(caught.value) == f'there is no model directory {source}'


def test_several_devices_hold_the_same_weights(tiny_bert):
    contexts = [mx.cpu(0), mx.cpu(1)]
    model = build_head(load_bert(str(tiny_bert), ctx=contexts)[0], 2, contexts)
    outputs = [model(*(a.as_in_context(ctx) for a in batch())).asnumpy() for ctx in contexts]
    np.testing.assert_array_equal(*outputs)


# --- the model zoo


def test_zoo_names():
    english = ('book_corpus_wiki_en_uncased', 'book_corpus_wiki_en_cased')
    for data_set in english:
        assert zoo_dataset('bert_12_768_12', data_set) == data_set
        assert zoo_dataset('bert_24_1024_16', data_set) == data_set
    for name, full in {
        'wiki_cn': 'wiki_cn_cased',
        'wiki_cn_cased': 'wiki_cn_cased',
        'wiki_multilingual': 'wiki_multilingual_uncased',
        'wiki_multilingual_uncased': 'wiki_multilingual_uncased',
        'wiki_multilingual_cased': 'wiki_multilingual_cased',
    }.items():
        assert zoo_dataset('bert_12_768_12', name) == full
        with pytest.raises(UsageError) as caught:
            zoo_dataset('bert_24_1024_16', name)
        assert str(caught.value) == (
            f'there is no bert_24_1024_16 trained on {full}; there is one on '
            'book_corpus_wiki_en_uncased, book_corpus_wiki_en_cased'
        )
    assert not doctest.testmod(bert_model).failed


def test_names_that_the_zoo_does_not_have():
    with pytest.raises(UsageError) as caught:
        load_bert('bert_6_384_12', 'wiki_cn')
    assert str(caught.value) == (
        '--bert_model bert_6_384_12 is neither a directory nor one of bert_12_768_12, '
        'bert_24_1024_16'
    )
    with pytest.raises(UsageError, match='there is no bert_12_768_12 trained on wikipedia; '):
        load_bert('bert_12_768_12', 'wikipedia')
    with pytest.raises(UsageError, match='there is no bert_12_768_12 trained on None; '):
        load_bert('bert_12_768_12')


def test_the_seven_cells_are_those_of_gluonnlp():
    """Its table of checksums has each, with the sha1 that the published files have."""
    published = {
        ('bert_12_768_12', 'book_corpus_wiki_en_uncased'): '75cc780f',
        ('bert_12_768_12', 'book_corpus_wiki_en_cased'): '5656dac6',
        ('bert_12_768_12', 'wiki_multilingual_uncased'): '237f3985',
        ('bert_12_768_12', 'wiki_multilingual_cased'): 'b0f57a20',
        ('bert_12_768_12', 'wiki_cn_cased'): '885ebb9a',
        ('bert_24_1024_16', 'book_corpus_wiki_en_uncased'): '24551e14',
        ('bert_24_1024_16', 'book_corpus_wiki_en_cased'): '4e685a96',
    }
    cells = [(model, data_set) for model, sets in bert_model.ZOO.items() for data_set in sets]
    assert sorted(cells) == sorted(published)
    sha1 = nlp.model.bert.model_store._model_sha1
    for (model, data_set), start in published.items():
        assert sha1[f'{model}_{data_set}'].startswith(start)


# Runs load_bert in a fresh process, as gluonnlp reads MXNET_HOME when it is imported, with a zoo
# whose models are tiny. Its argument: the data set, and checksums as JSON.
ZOO_DRIVER = """
import json, sys
from bert import model
from bert.cli import run
import gluonnlp as nlp
import mxnet as mx
from gluonnlp.data import utils

dataset, models, vocabularies = json.loads(sys.argv[1])
for sizes in nlp.model.bert.bert_hparams.values():
    sizes.update(num_layers=2, units=16, hidden_size=32, max_length=128, num_heads=2, embed_size=16)
nlp.model.bert.model_store._model_sha1.update(models)
utils._vocab_sha1.update(vocabularies)

def main():
    loaded, vocab = model.load_bert('bert_12_768_12', dataset)
    ids = mx.nd.array([[2, 70, 80, 3]])
    _, pooled = loaded(ids, ids * 0, mx.nd.array([4]))
    cell = loaded.encoder.transformer_cells[0].attention_cell
    print(json.dumps([pooled.asnumpy().tolist(), len(vocab), vocab.padding_token,
                      type(cell).__name__]))

run(main)
"""


class Zoo:
    """A local model zoo of one tiny model, whose two files have checksums of their own."""

    data_set = 'wiki_multilingual_uncased'

    def __init__(self, folder):
        bert, vocab = load_bert(
            str(write_tiny_bert(folder / 'tiny')), use_decoder=True, use_classifier=True
        )
        ids = mx.nd.array([[2, 70, 80, 3]])
        self.pooled = bert(ids, ids * 0, mx.nd.array([4]), mx.nd.array([[1]]))[1].asnumpy()
        bert.save_parameters(str(folder / 'all.params'))
        parameters, vocabulary = (folder / 'all.params').read_bytes(), vocab.to_json().encode()
        self.sha1 = [hashlib.sha1(content).hexdigest() for content in (parameters, vocabulary)]
        names = f'bert_12_768_12_{self.data_set}', self.data_set
        self.models = {names[0]: self.sha1[0]}
        self.vocabularies = {names[1]: [self.sha1[1], '.vocab', {}]}
        stems = [f'{name}-{sha1[:8]}' for name, sha1 in zip(names, self.sha1)]
        self.member = f'{stems[0]}.params'
        self.address = f'/gluon/models/{stems[0]}.zip'
        self.files = {
            self.address: zipped(self.member, parameters),
            f'/gluon/dataset/vocab/{stems[1]}.zip': zipped(f'{stems[1]}.vocab', vocabulary),
        }
        self.asked = []


def zipped(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A zoo behind a local server, which this process and others fetch from."""
    made = Zoo(tmp_path)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            made.asked.append(self.path)
            self.send_response(200 if self.path in made.files else 404)
            self.end_headers()
            self.wfile.write(made.files.get(self.path, b''))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv('MXNET_GLUON_REPO', f'http://127.0.0.1:{server.server_port}')
    monkeypatch.setenv('MXNET_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    yield made
    server.shutdown()
    server.server_close()


def test_a_model_of_the_zoo_is_fetched_once(zoo, tmp_path):
    argument = json.dumps(['wiki_multilingual', zoo.models, zoo.vocabularies])
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', ZOO_DRIVER, argument],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        pooled, size, padding, attention = json.loads(result.stdout.splitlines()[-1])
        np.testing.assert_allclose(pooled, zoo.pooled, rtol=1e-5)
        assert (size, padding, attention) == (196, '[PAD]', 'SelfAttention')
    assert sorted(zoo.asked) == sorted(zoo.files)
    assert len(list((tmp_path / 'home' / 'models').iterdir())) == 2


@pytest.fixture
def zoo_here(zoo, tmp_path, monkeypatch):
    """The same for this process, whose gluonnlp has read MXNET_HOME before."""
    root = str(tmp_path / 'models')
    monkeypatch.setattr(
        bert_model.nlp.model, 'get_model', functools.partial(nlp.model.get_model, root=root)
    )
    for sizes in nlp.model.bert.bert_hparams.values():
        for key, value in {
            'num_layers': 2,
            'units': 16,
            'hidden_size': 32,
            'max_length': 128,
            'num_heads': 2,
            'embed_size': 16,
        }.items():
            monkeypatch.setitem(sizes, key, value)
    for name, sha1 in zoo.models.items():
        monkeypatch.setitem(nlp.model.bert.model_store._model_sha1, name, sha1)
    for name, entry in zoo.vocabularies.items():
        monkeypatch.setitem(nlp.data.utils._vocab_sha1, name, entry)
    return zoo


def test_a_zoo_model_without_its_weights(zoo_here):
    bert, vocab = load_bert('bert_12_768_12', 'wiki_multilingual', pretrained=False)
    assert [path.split('/')[2] for path in zoo_here.asked] == ['dataset']
    assert vocab.idx_to_token == tiny_vocab()
    weight = bert.word_embed[0].weight.data().asnumpy()
    assert 0.018 < weight.std() < 0.022


@pytest.mark.parametrize('served', ['nothing', 'no archive', 'another file', 'no member', 'no net'])
def test_a_download_that_fails_is_told_in_one_sentence(zoo_here, monkeypatch, served):
    if served == 'nothing':
        del zoo_here.files[zoo_here.address]
    elif served == 'no archive':
        zoo_here.files[zoo_here.address] = b'<html>blocked</html>'
    elif served == 'another file':
        zoo_here.files[zoo_here.address] = zipped(zoo_here.member, b'content')
    elif served == 'no member':
        zoo_here.files[zoo_here.address] = zipped('other', b'content')
    else:
        monkeypatch.setenv('MXNET_GLUON_REPO', 'http://127.0.0.1:1')
    with pytest.raises(ToolkitError) as caught:
        load_bert('bert_12_768_12', 'wiki_multilingual')
    sentence = str(caught.value)
    assert sentence.startswith(
        'bert_12_768_12 wiki_multilingual_uncased could not be fetched from the GluonNLP model '
        'zoo: '
    )
    assert '\n' not in sentence
    assert caught.value.status == 1


# --- casing


@pytest.mark.parametrize(
    ('config', 'capitals', 'expected'),
    [
        ({'do_lower_case': True}, True, True),
        ({'do_lower_case': False}, False, False),
        ({}, False, True),
        ({}, True, False),
        ({'do_lower_case': 'yes'}, True, False),
        (None, False, True),
        (None, True, False),
    ],
)
def test_casing_of_a_directory(tmp_path, config, capitals, expected):
    """tokenizer_config.json, where it says so, and else the vocabulary."""
    vocab = Vocab([*tiny_vocab(), *['The'] * capitals])
    if config is not None:
        (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
    lower, reason = is_lower_case(str(tmp_path), None, vocab)
    assert lower is expected
    told = config is not None and isinstance(config.get('do_lower_case'), bool)
    assert reason == (f'by {tmp_path / "tokenizer_config.json"}' if told else 'by its vocabulary')


@pytest.mark.parametrize(
    ('data_set', 'expected'),
    [
        ('book_corpus_wiki_en_uncased', True),
        ('book_corpus_wiki_en_cased', False),
        ('wiki_multilingual', True),
        ('wiki_multilingual_cased', False),
        ('wiki_cn', False),
    ],
)
def test_casing_of_a_zoo_model(data_set, expected):
    lower, reason = is_lower_case('bert_12_768_12', data_set, None)
    assert (lower, reason) == (expected, f'by its name {data_set}')


def test_a_damaged_tokenizer_config(tmp_path):
    path = tmp_path / 'tokenizer_config.json'
    path.write_text('{"do_lower_case": true')
    with pytest.raises(ToolkitError) as caught:
        is_lower_case(str(tmp_path), None, Vocab(tiny_vocab()))
    assert str(caught.value) == f'{path}: not a JSON object'
