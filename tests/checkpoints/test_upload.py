"""Uploads to a local server that plays the Hub: what it gets, and how failures are told."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import golden
import pytest
from conftest import failure
from huggingface_hub import ModelCard

from bert.checkpoints import upload
from bert.convert.__main__ import main
from bert.system.errors import ToolkitError, UsageError

NAME = 'own/bert'
COMMIT = '0123456789abcdef0123456789abcdef01234567'


class Hub:
    """What the server has got: models with their files, by name, and requests."""

    def __init__(self):
        self.models, self.stored, self.requested = {}, {}, []
        self.private = None
        self.statuses = {}  # by a part of a path, the status to answer with
        self.tokens = set()

    def answer(self, method, path, body):
        """Return the status and the JSON of an answer."""
        self.requested.append(f'{method} {path}')
        for part, status in self.statuses.items():
            if part in path:
                return status, {'error': 'refused'}
        if path == '/api/validate-yaml':
            data = ModelCard(json.loads(body)['content']).data
            known = data.license == 'unknown' and data.library_name == 'transformers'
            return 200, {'errors': [] if known else [{'message': 'other'}], 'warnings': []}
        if path == '/api/repos/create':
            wanted = json.loads(body)
            name = f'{wanted["organization"]}/{wanted["name"]}'
            if name in self.models:
                return 409, {'error': 'there already', 'url': f'{self.address}/{name}'}
            self.models[name] = {}
            self.private = bool(wanted.get('private')) or wanted.get('visibility') == 'private'
            return 200, {'url': f'{self.address}/{name}'}
        if path == f'/api/models/{NAME}' and NAME in self.models:
            return 200, {'id': NAME, 'private': self.private, 'sha': COMMIT, 'siblings': []}
        if path == f'/api/models/{NAME}/preupload/main':
            files = [
                {
                    'path': file['path'],
                    'uploadMode': 'lfs' if file['path'].endswith('.safetensors') else 'regular',
                    'shouldIgnore': False,
                }
                for file in json.loads(body)['files']
            ]
            return 200, {'files': files}
        if path == f'/{NAME}.git/info/lfs/objects/batch':
            objects = [
                {**each, 'actions': {'upload': {'href': f'{self.address}/store/{each["oid"]}'}}}
                for each in json.loads(body)['objects']
            ]
            return 200, {'transfer': 'basic', 'objects': objects}
        if path.startswith('/store/'):
            self.stored[path.rpartition('/')[2]] = body
            return 200, {}
        if path == f'/api/models/{NAME}/commit/main':
            for line in map(json.loads, body.splitlines()):
                value = line['value']
                if line['key'] == 'file':
                    assert value['encoding'] == 'base64'
                    self.models[NAME][value['path']] = base64.b64decode(value['content'])
                elif line['key'] == 'lfsFile':
                    self.models[NAME][value['path']] = self.stored[value['oid']]
            url = f'{self.address}/{NAME}/commit/{COMMIT}'
            return 200, {'success': True, 'commitOid': COMMIT, 'commitUrl': url}
        return 404, {'error': 'not found'}


@pytest.fixture
def served(monkeypatch, tmp_path):
    """Play the Hub, and give the user a token."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            hub.tokens.add(self.headers.get('Authorization'))
            body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
            if self.headers.get('Transfer-Encoding') == 'chunked':
                body = b''
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            status, value = hub.answer(self.command, self.path.partition('?')[0], body)
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header('Content-Type', 'application/json')
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    hub.address = f'http://127.0.0.1:{server.server_port}'
    constants = 'huggingface_hub.constants.'
    for name, value in {
        'ENDPOINT': hub.address,
        'HF_HUB_OFFLINE': False,
        'HF_HUB_DISABLE_XET': True,
        'HF_TOKEN_PATH': str(tmp_path / 'token'),
    }.items():
        monkeypatch.setattr(constants + name, value, raising=name != 'HF_HUB_DISABLE_XET')
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    yield hub
    server.shutdown()
    server.server_close()


def test_a_model_on_the_hub(served, tmp_path, capsys, root_logger):
    """Its files are those of --to hf, with the name in the examples of the card."""
    source = str(golden.find('hf_classifier'))
    main([source, NAME, '--to', 'hub'])
    out, _ = capsys.readouterr()
    assert out.startswith(f'{NAME}: 2 layers, 8 units, 18 tokens, ')
    assert out.endswith(f'uploaded: {served.address}/{NAME}/commit/{COMMIT}\n')
    main([source, str(tmp_path / 'hf'), '--to', 'hf'])
    expected = {path.name: path.read_bytes() for path in (tmp_path / 'hf').iterdir()}
    found = served.models[NAME]
    assert found.pop('README.md').decode() == (
        expected.pop('README.md')
        .decode()
        .replace("'DIR'", f"'{NAME}'")
        .replace(' DIR ', f' {NAME} ')
    )
    assert found == expected and 'model.safetensors' in found
    assert hashlib.sha256(found['model.safetensors']).hexdigest() in served.stored
    assert served.private is False and 'Bearer hf_secret' in served.tokens


def test_nothing_but_the_files_of_the_model(served, tmp_path):
    folder = tmp_path / 'model'
    folder.mkdir()
    (folder / 'config.json').write_text('{}')
    assert upload.upload(folder, NAME, private=True).endswith(COMMIT)
    assert served.private is True and served.models == {NAME: {'config.json': b'{}'}}
    # Again, and the other files stay.
    served.models[NAME]['notes.txt'] = b'mine'
    (folder / 'config.json').write_text('{"a": 1}')
    upload.upload(folder, NAME, private=True)
    assert served.models == {NAME: {'config.json': b'{"a": 1}', 'notes.txt': b'mine'}}


def test_a_public_model_is_not_taken_for_a_private_one(served, tmp_path):
    served.models[NAME], served.private = {}, False
    (tmp_path / 'config.json').write_text('{}')
    assert failure(upload.upload, tmp_path, NAME, private=True) == (
        f'{NAME} is already on the Hub, and public: nothing is uploaded'
    )
    assert served.models == {NAME: {}}


@pytest.mark.parametrize(
    ('part', 'status', 'sentence'),
    [
        (
            'create',
            401,
            'the Hub does not know the token: set HF_TOKEN, or log in with hf auth login',
        ),
        ('create', 403, f'the token does not allow writing to {NAME} on the Hub'),
        ('commit', 403, f'the token does not allow writing to {NAME} on the Hub'),
        (
            'preupload',
            401,
            'the Hub does not know the token: set HF_TOKEN, or log in with hf auth login',
        ),
        ('create', 400, f'{NAME} could not be uploaded: the Hub answered 400'),
        ('store', 403, f'the token does not allow writing to {NAME} on the Hub'),
    ],
)
def test_refusals(served, tmp_path, part, status, sentence):
    served.statuses[part] = status
    (tmp_path / 'model.safetensors').write_bytes(b'weights')
    assert failure(upload.upload, tmp_path, NAME) == sentence


def test_no_network(served, tmp_path, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', 'http://127.0.0.1:9')
    sentence = failure(upload.upload, tmp_path, NAME)
    assert sentence.startswith(f'{NAME} could not be uploaded: ')
    assert 'onnection' in sentence


def test_before_any_work(served, tmp_path, monkeypatch):
    """The model is not even looked for."""
    for name in ('bert', 'a/b/c', '../bert', './bert', 'own/be rt', 'own/a--b', f'own/{"b" * 97}'):
        with pytest.raises(UsageError) as refused:
            main(['/nowhere', name, '--to', 'hub'])
        assert str(refused.value) == f'{name} is not OWNER/NAME, the name of a model on the Hub'
    with pytest.raises(UsageError, match='^--private goes with --to hub only$'):
        main(['/nowhere', str(tmp_path / 'x'), '--to', 'hf', '--private'])
    monkeypatch.delenv('HF_TOKEN')
    with pytest.raises(ToolkitError) as refused:
        main(['/nowhere', NAME, '--to', 'hub'])
    assert str(refused.value) == (
        'the Hub accepts models from authenticated users only: set the variable HF_TOKEN, or '
        'log in with hf auth login'
    )
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(UsageError, match='as long as HF_HUB_OFFLINE is set'):
        main(['/nowhere', NAME, '--to', 'hub'])
    assert served.requested == []
