"""The Hub's cache, and servers that play the Hub and say or send something else."""

import functools
import hashlib
import json
import os
from pathlib import Path

import huggingface_hub
import pytest
from conftest import failure
from test_download import MEGABYTE, send

from bert.checkpoints import download, hub
from bert.system.errors import ToolkitError

COMMIT = '0123456789abcdef0123456789abcdef01234567'
FILES = {
    'config.json': b'{}',
    'vocab.txt': b'[PAD]\n',
    '1_Pooling/config.json': b'{"word": 1}',
    'model.safetensors': os.urandom(100000),
    'README.md': b'---\nlicense: mit\n---\n',
    'notes.txt': b'not fetched',
}


def digest_of(name, content):
    if name.endswith('.safetensors'):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f'blob {len(content)}\0'.encode() + content).hexdigest()


class Hub:
    """One model, and the answers to requests for its files, by name."""

    def __init__(self, answers):
        self.answers = answers
        self.listing = {'sha': COMMIT, 'siblings': []}
        for name, content in FILES.items():
            self.add(name, content)

    def add(self, name, content, **headers):
        """Serve a file under a name, with a Hub's headers or others."""
        digest = digest_of(name, content)
        one = {'rfilename': name, 'size': len(content), 'blobId': digest[:40]}
        if len(digest) == 64:
            one['lfs'] = {'sha256': digest, 'size': len(content)}
        self.listing['siblings'].append(one)
        answer = functools.partial(
            send, body=content, **{'ETag': f'"{digest}"', 'X_Repo_Commit': COMMIT, **headers}
        )
        self.answers[f'/own/bert/resolve/{COMMIT}/{name}'] = [answer] * 9
        self.list()

    def list(self, **changes):
        """Serve the description of the model, or another."""
        body = json.dumps({**self.listing, **changes}).encode()
        self.answers['/api/models/own/bert?blobs=true'] = [functools.partial(send, body=body)] * 9

    def entry(self, name):
        """Return what the description says of a file."""
        return next(one for one in self.listing['siblings'] if one['rfilename'] == name)


@pytest.fixture
def served(zoo_server, tmp_path, monkeypatch):
    """Serve a model at the address of the Hub; the cache is ``deep/in/hf`` below ``tmp_path``."""
    answers, _, address = zoo_server
    constants = 'huggingface_hub.constants.'
    monkeypatch.setattr(constants + 'ENDPOINT', address)
    monkeypatch.setattr(constants + 'HF_HUB_CACHE', str(tmp_path / 'deep' / 'in' / 'hf'))
    monkeypatch.setattr(constants + 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(constants + 'HF_TOKEN_PATH', str(tmp_path / 'token'))
    monkeypatch.delenv('HF_TOKEN', raising=False)
    monkeypatch.setattr(download, 'BACKOFF', 0)
    return Hub(answers)


def fetch(with_weights=True):
    return hub.fetch.__wrapped__('own/bert', with_weights)


def tree(folder):
    """Return all that is in a folder, with the contents of its files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob('*')
    }


def test_the_cache_is_that_of_huggingface_hub(served, zoo_server, tmp_path):
    """Its own functions find the files, their sizes and nothing to complain about."""
    folder = fetch()
    cache = tmp_path / 'deep' / 'in' / 'hf'
    assert folder == Path(huggingface_hub.snapshot_download('own/bert', local_files_only=True))
    assert huggingface_hub.try_to_load_from_cache('own/bert', 'config.json') == str(
        folder / 'config.json'
    )
    fetched = {name: content for name, content in FILES.items() if name != 'notes.txt'}
    found = huggingface_hub.scan_cache_dir(cache)
    (repository,) = found.repos
    (revision,) = repository.revisions
    assert not found.warnings
    assert (repository.repo_id, revision.commit_hash, revision.refs) == (
        'own/bert',
        COMMIT,
        {'main'},
    )
    assert {str(file.file_path.relative_to(folder)) for file in revision.files} == set(fetched)
    assert revision.size_on_disk == sum(map(len, fetched.values()))
    assert {name: (folder / name).read_bytes() for name in fetched} == fetched
    _, requested, _ = zoo_server
    requested.clear()
    assert fetch() == folder
    assert requested == ['/api/models/own/bert?blobs=true']


def test_what_the_cache_has_is_not_fetched_again(served, zoo_server):
    """A new commit may have the same weights."""
    first = fetch(with_weights=False)
    assert not (first / 'model.safetensors').exists()
    fetch()
    _, requested, _ = zoo_server
    requested.clear()
    commit = COMMIT[::-1]
    served.list(sha=commit)
    folder = fetch()
    assert (folder.name, len(requested)) == (commit, 1)
    assert (folder / 'model.safetensors').read_bytes() == FILES['model.safetensors']
    # A damaged file is.
    blob = (folder / 'model.safetensors').resolve()
    blob.write_bytes(blob.read_bytes()[1:])
    served.list()
    assert (fetch() / 'model.safetensors').read_bytes() == FILES['model.safetensors']


def test_a_cache_without_the_hub(served, zoo_server, monkeypatch):
    answers, requested, address = zoo_server
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    assert failure(fetch) == (
        'the Hub does not answer (HF_HUB_OFFLINE is set), and own/bert is not in its cache'
    )
    assert requested == []
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    folder = fetch()
    for bad in (b'<html>', b'[]', b'{"sha": 1}', b'{"sha": "%s", "siblings": 5}' % COMMIT.encode()):
        answers['/api/models/own/bert?blobs=true'] = [functools.partial(send, body=bad)]
        assert fetch() == folder
    answers['/api/models/own/bert?blobs=true'] = [functools.partial(send, status=503)] * 9
    assert fetch() == folder
    answers['/api/models/own/bert?blobs=true'] = [functools.partial(send, status=401)]
    assert failure(fetch) == 'the Hub has no model own/bert, or does not show it to you'


@pytest.mark.parametrize('name', ['ETag', 'X_Linked_Etag', 'X_Repo_Commit', 'Content_Disposition'])
def test_headers_name_no_files(served, tmp_path, name):
    """The server's word ends in a path of huggingface_hub, but not here."""
    out = '../../../../out'
    for file, content in FILES.items():
        served.add(file, content, **{name: f'"{out}"' if 'tag' in name.lower() else out})
    folder = fetch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['deep']
    assert [path.name for path in tmp_path.glob('deep/*')] == ['in']
    assert not [path for path in tree(tmp_path) if 'out' in path]
    assert (folder / 'vocab.txt').read_bytes() == FILES['vocab.txt']


@pytest.mark.parametrize('sha', ['../../../../out', COMMIT + '/..', COMMIT.upper(), '', None, 5])
def test_a_commit_names_no_other_folder(served, tmp_path, sha):
    served.list(sha=sha)
    sentence = failure(fetch)
    assert '?blobs=true: not the description of a model), and own/bert is not in' in sentence
    assert tree(tmp_path) == {}


@pytest.mark.parametrize('digest', ['../../../../out', 'a' * 63, '', None, 5, [], {'a': 1}])
@pytest.mark.parametrize('name', ['config.json', 'model.safetensors'])
def test_a_digest_names_no_other_file(served, tmp_path, name, digest):
    entry = served.entry(name)
    if name == 'config.json':
        entry['blobId'] = digest
    else:
        entry['lfs']['sha256'] = digest
    served.list()
    assert failure(fetch) == f'own/bert: the Hub states no digest of {name}'
    assert not [path for path in tree(tmp_path) if 'out' in path]


@pytest.mark.parametrize('name', ['../../../../out.safetensors', '/out.safetensors', 'a/b.bin', 5])
def test_an_index_names_no_file_elsewhere(served, tmp_path, name):
    index = 'model.safetensors.index.json'
    served.listing['siblings'] = served.listing['siblings'][:2]
    served.add(index, json.dumps({'weight_map': {'a': name}}).encode())
    served.add(str(name), b'x')
    assert failure(fetch) == 'weight_map does not name files beside this one'
    assert not [path for path in tree(tmp_path) if 'out.' in path]


def without_end(handler):
    """Declare the right length in no header, and send until the client hangs up."""
    send(handler, length=False)
    try:
        for handler.server.sent in range(200):
            handler.wfile.write(MEGABYTE)
    except OSError:
        pass


def test_no_more_is_taken_than_the_hub_says(served, zoo_server, tmp_path):
    answers, _, address = zoo_server
    path = f'/own/bert/resolve/{COMMIT}/model.safetensors'
    answers[path] = [without_end]
    assert failure(fetch) == (
        f'own/bert could not be fetched from the Hub: {address}{path} sends more than 100000 bytes'
    )
    assert not [left for left in tree(tmp_path) if '.tmp' in left or '.lock' in left]
    answers['/api/models/own/bert?blobs=true'] = [without_end]
    with pytest.raises(ToolkitError, match=f'sends more than {hub.MOST_LISTING} bytes'):
        fetch()


@pytest.mark.parametrize('size', [2**40, None, '5', -1])
def test_what_the_hub_says_has_a_limit_too(served, size):
    served.entry('model.safetensors')['size'] = size
    served.list()
    assert failure(fetch).startswith('own/bert')


def test_the_token_is_sent(served, zoo_server, monkeypatch):
    answers, _, _ = zoo_server
    tokens = []
    (listing, *_) = answers['/api/models/own/bert?blobs=true']

    def answer(handler):
        tokens.append(handler.headers.get('Authorization'))
        listing(handler)

    answers['/api/models/own/bert?blobs=true'] = [answer] * 9
    fetch()
    monkeypatch.setenv('HF_TOKEN', 'secret')
    fetch()
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN', True)
    fetch()
    assert tokens == [None, 'Bearer secret', None]
