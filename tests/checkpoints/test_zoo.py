"""The model zoo and the Hub, played by a local server whose models are tiny.

Models are loaded in fresh processes: ``huggingface_hub`` reads its variables when imported.
"""

import doctest
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SPECIALS, tiny_vocab, write_tiny_bert

from bert.checkpoints import config, hub, zoo
from bert.checkpoints.zoo import ZOO, zoo_dataset
from bert.model.loading import load_bert
from bert.system.errors import UsageError
from bert.text.vocab import Vocab

import gluonnlp as nlp  # isort: skip
import mxnet as mx  # isort: skip

CELLS = [(model, data_set) for model, sets in ZOO.items() for data_set in sets]
COMMIT = '0123456789abcdef0123456789abcdef01234567'
TOKENS = ['[CLS]', 'good', 'film', '[SEP]']

# Its argument: cells or sources to load, and the checksums of the zoo, as JSON.
DRIVER = f"""
import json, logging, sys
from bert.checkpoints import config, download, zoo
from bert.checkpoints.reading import read_casing
from bert.checkpoints.source import locate
from bert.cli.console import start_logging
from bert.cli.program import run
from bert.model import load_bert
from bert.system.errors import ToolkitError
import mxnet as mx

sources, models, vocabularies = json.loads(sys.argv[1])
for sizes in config.ZOO_SIZES.values():
    sizes.update(num_layers=2, units=16, hidden_size=32, max_length=128, num_heads=2)
zoo.WEIGHTS_SHA1.update(models)
zoo.ZOO_SHA1.update(vocabularies)
download.BACKOFF = 0

def main():
    start_logging()
    for source, dataset in sources:
        try:
            loaded, words = load_bert(source, dataset)
        except ToolkitError as error:
            print(json.dumps([str(error)]))
            continue
        ids = mx.nd.array([[words[token] for token in {TOKENS}]])
        _, pooled = loaded(ids, ids * 0, mx.nd.array([4]))
        lower = read_casing(locate(source, dataset, with_weights=False), words)[0]
        print(json.dumps([pooled.asnumpy().tolist(), len(words), words['[PAD]'], lower]))

run(main)
"""


def zipped(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def git_sha1(content):
    return hashlib.sha1(f'blob {len(content)}\0'.encode() + content).hexdigest()


@pytest.fixture(scope='session')
def published(tmp_path_factory):
    """Return a tiny model for each cell, as on both sites, and its pooled encoding of a text."""
    models = {}
    for number, cell in enumerate(CELLS):
        folder = tmp_path_factory.mktemp('published') / 'bert'
        write_tiny_bert(folder, seed=number)
        bert, vocab = load_bert(str(folder))
        ids = mx.nd.array([[vocab[token] for token in TOKENS]])
        pooled = bert(ids, ids * 0, mx.nd.array([4]))[1].asnumpy()
        hub = {path.name: path.read_bytes() for path in folder.iterdir()}
        # The zoo's order: [UNK] and [PAD] swapped.
        order = ['[UNK]', '[PAD]', '[CLS]', '[SEP]', '[MASK]', *tiny_vocab()[5:]]
        weight = bert.word_embed[0].weight
        weight.set_data(weight.data()[[vocab[token] for token in order]])
        bert.save_parameters(str(folder / 'zoo.params'))
        specials = dict(zip(('padding', 'unknown', 'cls', 'sep', 'mask'), SPECIALS))
        table = {
            'token_to_idx': {token: i for i, token in enumerate(order)},
            'idx_to_token': order,
            'reserved_tokens': SPECIALS,
            'unknown_token': '[UNK]',
            'identifiers_to_tokens': {f'{name}_token': token for name, token in specials.items()},
        }
        models[cell] = pooled, hub, (folder / 'zoo.params').read_bytes(), json.dumps(table).encode()
    return models


class Server:
    """The contents of both sites, ``zoo`` and ``hub``, by address, and what was ``asked``."""

    def __init__(self, published):
        self.asked = []
        self.zoo, self.hub = {}, {}
        self.models, self.vocabularies = {}, {}
        for (model, data_set), (_, files, parameters, vocab) in published.items():
            name = f'{model}_{data_set}'
            self.models[name] = hashlib.sha1(parameters).hexdigest()
            self.vocabularies[data_set] = hashlib.sha1(vocab).hexdigest()
            stem = f'{name}-{self.models[name][:8]}'
            self.zoo[f'/gluon/models/{stem}.zip'] = zipped(f'{stem}.params', parameters)
            stem = f'{data_set}-{self.vocabularies[data_set][:8]}'
            address = f'/gluon/dataset/vocab/{stem}.zip'
            self.zoo[address] = zipped(f'{stem}.vocab', vocab)
            self.hub[ZOO[model][data_set]] = dict(files)
        self.listing = {name: dict(files) for name, files in self.hub.items()}

    def answer(self, address, method):
        """Return status, headers and body."""
        path = urllib.parse.unquote(address.partition('?')[0])
        self.asked.append(path)
        if path in self.zoo:
            return 200, {}, self.zoo[path]
        for repository, files in self.listing.items():
            if path.startswith(f'/api/models/{repository}/tree/'):
                return 200, {}, json.dumps([self.entry(*item) for item in files.items()]).encode()
            if path == f'/api/models/{repository}' or path.startswith(
                f'/api/models/{repository}/revision/'
            ):
                return 200, {}, json.dumps(self.description(repository, files)).encode()
            prefix = f'/{repository}/resolve/'
            name = path[len(prefix) :].partition('/')[2]
            if path.startswith(prefix) and name in files:
                served = self.hub[repository][name]
                is_large = name.endswith('.safetensors')
                digest = sha256(files[name]) if is_large else git_sha1(files[name])
                headers = {
                    'ETag': f'"{digest}"',
                    'X-Repo-Commit': COMMIT,
                    'Content-Length': str(len(files[name])),
                }
                if is_large:
                    headers['X-Linked-Etag'] = f'"{digest}"'
                    headers['X-Linked-Size'] = str(len(files[name]))
                return 200, headers, served
        return 404, {'X-Error-Code': 'RepoNotFound'}, b'{}'

    def entry(self, name, content):
        large = {'oid': sha256(content), 'size': len(content), 'pointerSize': 100}
        return {
            'type': 'file',
            'path': name,
            'size': len(content),
            'oid': git_sha1(content),
            **({'lfs': large} if name.endswith('.safetensors') else {}),
        }

    def description(self, repository, files):
        siblings = []
        for name, content in files.items():
            large = {'sha256': sha256(content), 'size': len(content), 'pointerSize': 100}
            siblings.append(
                {
                    'rfilename': name,
                    'size': len(content),
                    'blobId': git_sha1(content),
                    **({'lfs': large} if name.endswith('.safetensors') else {}),
                }
            )
        return {
            'id': repository,
            'modelId': repository,
            'sha': COMMIT,
            'private': False,
            'tags': [],
            'downloads': 0,
            'likes': 0,
            'siblings': siblings,
        }


@pytest.fixture
def web(published, tmp_path, monkeypatch):
    """Start the server; this process and its children fetch from it, into empty caches."""
    served = Server(published)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = served.answer(self.path, self.command)
            self.send_response(status)
            for name, value in {'Content-Length': str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == 'GET':
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}'
    for name, value in {
        'MXNET_GLUON_REPO': address,
        'HF_ENDPOINT': address,
        'MXNET_HOME': str(tmp_path / 'mxnet'),
        'HF_HOME': str(tmp_path / 'hf'),
        'NO_PROXY': '127.0.0.1',
        'HF_HUB_DISABLE_TELEMETRY': '1',
        'HF_HUB_DISABLE_XET': '1',
        'HF_HUB_DISABLE_PROGRESS_BARS': '1',
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('HF_HUB_OFFLINE', raising=False)
    yield served
    server.shutdown()
    server.server_close()


def load(web, *sources, **variables):
    """Load models in a separate process.

    Returns
    -------
    list of (pooled, tokens, padding id, lower), or of (sentence,) after a failure; all of stderr
    """
    argument = json.dumps([sources, web.models, web.vocabularies])
    ran = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', DRIVER, argument],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()], ran.stderr


def check(found, published, cells, padding):
    """Assert that each model is that of its cell, whatever its ids, with the casing of its name."""
    assert len(found) == len(cells)
    for (pooled, size, pad, lower), (model, data_set) in zip(found, cells):
        full = zoo_dataset(model, data_set)
        np.testing.assert_allclose(pooled, published[model, full][0], rtol=1e-5)
        assert (size, pad, lower) == (196, padding, full.endswith('_uncased'))


def models_folder():
    return zoo.converted_folder('bert_12_768_12', 'wiki_cn_cased').parent


SPELLINGS = [('bert_12_768_12', 'wiki_cn'), ('bert_12_768_12', 'wiki_multilingual')]


# --- names


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


def test_examples_of_the_docstrings():
    for module in (zoo, hub):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed


def test_names_that_the_zoo_does_not_have():
    with pytest.raises(UsageError) as caught:
        load_bert('bert_6_384_12', 'wiki_cn')
    assert str(caught.value) == (
        'the model bert_6_384_12 is neither a directory, nor a file, nor a model of the Hub '
        'such as google-bert/bert-base-uncased, nor one of bert_12_768_12, bert_24_1024_16, minilm'
    )
    with pytest.raises(UsageError, match='there is no bert_12_768_12 trained on wikipedia; '):
        load_bert('bert_12_768_12', 'wikipedia')
    with pytest.raises(UsageError, match='there is no bert_12_768_12 trained on None; '):
        load_bert('bert_12_768_12')


def test_the_seven_cells_are_those_of_gluonnlp():
    """GluonNLP's table of checksums has each, with the sha1 of the published files."""
    assert sorted(zoo.WEIGHTS_SHA1) == sorted('_'.join(cell) for cell in CELLS)
    assert zoo.WEIGHTS_SHA1.items() <= nlp.model.bert.model_store._model_sha1.items()
    assert len({ZOO[model][data_set] for model, data_set in CELLS}) == 7


def test_sizes_are_those_of_gluonnlp():
    base = config.named_settings('bert_12_768_12', 30522)
    assert base == {
        'num_layers': 12,
        'units': 768,
        'hidden_size': 3072,
        'num_heads': 12,
        'max_length': 512,
        'vocab_size': 30522,
        'token_type_vocab_size': 2,
        'activation': 'gelu',
        'dropout': 0.1,
        'layer_norm_eps': 1e-12,
    }
    large = config.named_settings('bert_24_1024_16', 28996)
    assert (large['num_layers'], large['units'], large['num_heads']) == (24, 1024, 16)


# --- the zoo answers


def test_all_cells_and_spellings_from_the_zoo_once(web, published):
    found, log = load(web, *CELLS, *SPELLINGS)
    check(found, published, [*CELLS, *SPELLINGS], padding=1)
    # Seven models and five vocabularies, one of each for two models.
    assert sorted(web.asked) == sorted(web.zoo)
    assert 'Hub' not in log
    web.asked.clear()
    found, _ = load(web, *CELLS)
    check(found, published, CELLS, padding=1)
    assert web.asked == []


# --- the zoo does not answer


def test_all_cells_from_the_hub_once(web, published):
    web.zoo.clear()
    found, log = load(web, *CELLS, *SPELLINGS)
    check(found, published, [*CELLS, *SPELLINGS], padding=0)
    assert log.count(' could not be fetched from the GluonNLP model zoo: ') == 7
    for model, data_set in CELLS:
        folder = models_folder() / f'{model}_{data_set}-hub'
        assert f'INFO:root:the same weights are on the Hub, as {ZOO[model][data_set]}\n' in log
        assert f'INFO:root:the weights are those of the Hub, converted in {folder}\n' in log
        content = published[model, data_set][1]['model.safetensors']
        record = json.loads((folder / 'source.json').read_text())
        assert record['repository'] == ZOO[model][data_set]
        assert record['commit'] == COMMIT
        assert record['files']['model.safetensors'] == {
            'size': len(content),
            'sha256': sha256(content),
        }
    web.asked.clear()
    shutil.rmtree(os.environ['HF_HOME'])
    found, log = load(web, *CELLS)
    check(found, published, CELLS, padding=0)
    assert web.asked == []
    assert log.count('INFO:root:the weights are those of the Hub, converted in ') == 7


def test_a_zoo_that_serves_something_else(web, published):
    """The Hub's weights are used, with the ids of the zoo's vocabulary, which is there."""
    faults = {
        'no archive': lambda member, archive: b'<html>blocked</html>',
        'another file': lambda member, archive: zipped(member, b'content'),
        'no member': lambda member, archive: zipped('other', b'content'),
        'half': lambda member, archive: archive[: len(archive) // 2],
    }
    cells = CELLS[: len(faults)]
    for cell, fault in zip(cells, faults.values()):
        (address,) = (address for address in web.zoo if f'/{"_".join(cell)}-' in address)
        (member,) = zipfile.ZipFile(io.BytesIO(web.zoo[address])).namelist()
        web.zoo[address] = fault(member, web.zoo[address])
    found, log = load(web, *cells)
    check(found, published, cells, padding=1)
    for cell in cells:
        start = f'WARNING:root:{" ".join(cell)} could not be fetched from the GluonNLP model zoo: '
        assert start in log


def test_downloads_of_the_hub_that_are_broken(web, tmp_path):
    """Nothing of them is kept, neither in the Hub's cache nor in the zoo's."""
    web.zoo.clear()
    cells = CELLS[:4]
    content, length, vocab, absent = (ZOO[model][data_set] for model, data_set in cells)
    good = web.hub[content]['model.safetensors']
    web.hub[content]['model.safetensors'] = good[:-1] + b'?'
    web.hub[length]['model.safetensors'] = good[:-1000]
    web.hub[vocab]['vocab.txt'] = web.hub[vocab]['vocab.txt'].replace(b'good', b'evil')
    del web.listing[absent]
    found, _ = load(web, *cells)
    sentences = [sentence for (sentence,) in found]
    for sentence, cell, part in zip(
        sentences,
        cells,
        [
            f'model.safetensors: {len(good)} bytes with the digest ',
            f'{length} could not be fetched from the Hub: ',
            'vocab.txt: ',
            f'the Hub has no model {absent}, or does not show it to you',
        ],
    ):
        assert sentence.startswith(
            f'{" ".join(cell)} could not be fetched from the GluonNLP model zoo: '
        )
        assert f'; {part}' in sentence
        assert '\n' not in sentence
    assert sentences[0].endswith('; the file was deleted')
    assert sentences[2].endswith('; the file was deleted')
    assert not list(tmp_path.glob('mxnet/models/*-hub'))
    assert not list((tmp_path / 'hf').rglob('*.safetensors'))


# --- models of the Hub by name


def test_models_of_the_hub_and_its_cache(web, published):
    web.zoo.clear()
    model, data_set = CELLS[0]
    repository, other = ZOO[model][data_set], 'nobody/nothing'
    sources = [(repository, None), (other, None)]
    found, log = load(web, *sources, HF_HUB_OFFLINE='1')
    for (sentence,), name in zip(found, (repository, other)):
        assert sentence.startswith(f'there is no directory {name}, and the Hub does not answer (')
        assert sentence.endswith(f'), and {name} is not in its cache')
    assert web.asked == []
    golden = ROOT / 'tests' / 'data' / 'checkpoints' / 'hf_sharded'
    files = {path.name: path.read_bytes() for path in golden.iterdir()}
    # sentence-transformers' files; other folders are left there.
    files.update({'modules.json': b'[]', '1_Pooling/config.json': b'{}', 'onnx/model.onnx': b'?'})
    web.hub['tiny/sharded'] = web.listing['tiny/sharded'] = files
    found, log = load(web, *sources, ('tiny/sharded', None), (str(golden), None))
    assert found[2] == found[3]
    fetched = [path.partition(f'/{COMMIT}/')[2] for path in web.asked if 'sharded/resolve' in path]
    assert {'modules.json', '1_Pooling/config.json'} < set(fetched)
    assert 'onnx/model.onnx' not in fetched
    np.testing.assert_allclose(found[0][0], published[CELLS[0]][0], rtol=1e-5)
    assert f'INFO:root:{repository}, commit {COMMIT}, from the Hub\n' in log
    assert found[1] == [
        f'there is no directory {other}, and the Hub has no model {other}, or does not show it to '
        'you'
    ]
    web.asked.clear()
    nobody = 'http://127.0.0.1:1'
    for variables in ({'HF_HUB_OFFLINE': '1'}, {'HF_ENDPOINT': nobody, 'MXNET_GLUON_REPO': nobody}):
        found, log = load(web, *sources[:1], CELLS[0], CELLS[1], **variables)
        check([[*found[0][:3], True]], published, CELLS[:1], padding=0)
        assert f'{repository}, commit {COMMIT}, from the cache: the Hub gave no answer' in log
        check(found[1:2], published, CELLS[:1], padding=0)
        assert ' could not be fetched from the GluonNLP model zoo: ' in found[2][0]
        assert f'and {ZOO[CELLS[1][0]][CELLS[1][1]]} is not in its cache' in found[2][0]
    assert not any('resolve' in path or 'api' in path for path in web.asked)


def test_a_zoo_model_without_its_weights(web, monkeypatch):
    """Only the vocabulary is fetched, for training from scratch."""
    monkeypatch.setattr('bert.checkpoints.zoo.ZOO_SHA1', web.vocabularies)
    bert, vocab = load_bert('bert_12_768_12', 'wiki_multilingual', pretrained=False)
    assert [path.split('/')[2] for path in web.asked] == ['dataset']
    assert vocab.idx_to_token[:5] == ['[UNK]', '[PAD]', '[CLS]', '[SEP]', '[MASK]']
    assert bert.word_embed[0].weight.shape == (196, 768)
    weight = bert.word_embed[0].weight.data().asnumpy()
    assert 0.018 < weight.std() < 0.022


def test_the_vocabulary_alone(web, published, monkeypatch):
    """create_pretraining_data.py gets it from the same place as the weights."""
    monkeypatch.setattr('bert.checkpoints.zoo.ZOO_SHA1', web.vocabularies)
    path = zoo.vocab_path('wiki_multilingual')
    assert path.name.startswith('wiki_multilingual_uncased-')
    path.unlink()
    web.zoo.clear()
    code = "from bert.checkpoints import zoo\nprint(zoo.vocab_path('wiki_cn'))"
    ran = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    path = ran.stdout.splitlines()[-1]
    assert path.endswith(f'/snapshots/{COMMIT}/vocab.txt')
    content = published['bert_12_768_12', 'wiki_cn_cased'][1]['vocab.txt']
    assert Path(path).read_bytes() == content
    assert not any(path.endswith('.safetensors') for path in web.asked)
    found, _ = load(web, CELLS[4])
    assert found
    assert zoo.vocab_path('wiki_cn') == models_folder() / (
        'bert_12_768_12_wiki_cn_cased-hub/vocab.vocab'
    )
    assert len(Vocab(tiny_vocab())) == found[0][1]
