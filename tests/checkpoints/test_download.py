"""Downloads from a local server that is slow, broken or hostile."""

import functools
import gzip
import hashlib
import io
import itertools
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from conftest import ROOT, failure, zipped

from bert.checkpoints import download as module
from bert.checkpoints import zoo
from bert.checkpoints.download import DownloadError, download, read_member
from bert.system.errors import ToolkitError
from bert.system.files import HALF_WRITTEN

CONTENT = os.urandom(200000)
SHA1 = hashlib.sha1(CONTENT).hexdigest()
MEGABYTE = bytes(2**20)


@pytest.fixture
def site(zoo_server, monkeypatch):
    """Return the answers of a server by path, the requests, and its address.

    An answer is a list of functions of the request's handler, one for each request.
    """
    monkeypatch.setattr(module, 'BACKOFF', 0)
    return zoo_server


def fetch(address, limit=10**6, headers=None):
    """Return what ``download`` writes."""
    file = io.BytesIO()
    download(address, file, limit, headers)
    return file.getvalue()


def send(handler, body=b'', status=200, length=None, **headers):
    """Answer a request, with underscores for the hyphens in the names of headers."""
    handler.send_response(status)
    if length is not False:
        headers['Content_Length'] = str(len(body) if length is None else length)
    for name, value in headers.items():
        handler.send_header(name.replace('_', '-'), value)
    handler.end_headers()
    handler.wfile.write(body)


def send_without_end(handler, status, chunked=False, **headers):
    """Send until the client hangs up, and count the megabytes."""
    if chunked:
        headers['Transfer_Encoding'] = 'chunked'
    handler.protocol_version = 'HTTP/1.1'
    send(handler, status=status, length=False, Connection='close', **headers)
    handler.server.sent = 0
    try:
        for handler.server.sent in range(200):
            handler.wfile.write(b'100000\r\n%s\r\n' % MEGABYTE if chunked else MEGABYTE)
    except OSError:
        pass


def redirect(handler, location):
    send(handler, status=302, Location=location)


def break_off(handler, at=60000):
    """Send the rest of the content, or less; with the length of all of it."""
    start = int(handler.headers.get('Range', 'bytes=0-')[len('bytes=') : -1])
    last = len(CONTENT) - 1
    ranges = {'Content_Range': f'bytes {start}-{last}/{len(CONTENT)}'} if start else {}
    body = CONTENT[start : start + at]
    send(handler, body, 206 if start else 200, length=len(CONTENT) - start, **ranges)


def test_what_breaks_off_is_resumed(site):
    files, requested, address = site
    files['/x'] = [break_off, break_off, functools.partial(break_off, at=10**6)]
    assert fetch(f'{address}/x') == CONTENT
    assert len(requested) == 3
    busy = functools.partial(send, status=503)
    files['/x'] = [break_off, busy, functools.partial(break_off, at=140000)]
    assert fetch(f'{address}/x') == CONTENT
    files['/x'] = [break_off] * 9
    sentence = failure(fetch, f'{address}/x')
    assert sentence == f'{address}/x broke off after 180000 bytes'


@pytest.mark.parametrize(
    'second',
    [
        lambda handler: send(handler, CONTENT),  # it cannot resume
        lambda handler: send(handler, status=416),
        lambda handler: send(handler, b'other', 206, Content_Range='bytes 0-4/5'),
    ],
)
def test_what_cannot_be_resumed_starts_over(site, second):
    files, _, address = site
    files['/x'] = [break_off, second, lambda handler: send(handler, CONTENT)]
    assert fetch(f'{address}/x') == CONTENT


def test_an_overloaded_server_is_asked_again(site):
    files, requested, address = site
    busy = [functools.partial(send_without_end, status=status) for status in (503, 429)]
    files['/x'] = [*busy, lambda handler: send(handler, CONTENT)]
    assert fetch(f'{address}/x') == CONTENT
    files['/x'] = [functools.partial(send_without_end, status=503)] * 9
    with pytest.raises(DownloadError) as caught:
        fetch(f'{address}/x')
    assert str(caught.value) == f'{address}/x answered 503 Service Unavailable'
    assert (caught.value.code, len(requested)) == (503, 6)


@pytest.mark.parametrize('status', [200, 302, 403, 503])
@pytest.mark.parametrize('chunked', [False, True])
def test_no_more_than_the_limit_is_taken(site, status, chunked):
    """Neither of a file nor of an error nor of a redirect; requests reads those to their end."""
    files, _, address = site
    servers = []

    def answer(handler):
        servers.append(handler.server)
        send_without_end(handler, status, chunked, Location='/y')

    files['/x'], files['/y'] = [answer] * 9, [lambda handler: send(handler, CONTENT)]
    file = io.BytesIO()
    if status == 302:
        download(f'{address}/x', file, 10**6)
        assert file.getvalue() == CONTENT
    else:
        sentence = failure(download, f'{address}/x', file, 10**6)
        expected = {200: 'sends more than 1000000 bytes', 403: 'answered 403 Forbidden'}
        assert sentence.startswith(f'{address}/x {expected.get(status, "answered 503 Serv")}')
        assert len(file.getvalue()) <= 10**6
    time.sleep(0.1)
    assert servers and all(server.sent < 100 for server in servers)


def test_nothing_is_decompressed_on_the_way(site):
    """1.5 MB of gzip would be 1.5 GB."""
    files, _, address = site
    packed = gzip.compress(b'content')
    files['/x'] = [lambda handler: send(handler, packed, Content_Encoding='gzip')]
    assert fetch(f'{address}/x') == packed


@pytest.mark.parametrize(
    'location, reason',
    [
        ('http://[::1/', 'Invalid IPv6 URL'),
        (f'http://{"a" * 300}.org/', 'label empty or too long|label too long'),
        ('/x', 'TooManyRedirects'),
        ('file:///etc/passwd', 'InvalidSchema'),
        ('http://127.0.0.1:99999/', 'InvalidURL|LocationParseError|ValueError'),
    ],
)
def test_redirects_that_lead_nowhere(site, location, reason):
    files, _, address = site
    files['/x'] = itertools.repeat(functools.partial(redirect, location=location))
    with pytest.raises(DownloadError, match=reason) as caught:
        fetch(f'{address}/x')
    assert str(caught.value).startswith(f'{address}/x cannot be fetched (')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'address', ['http://[::1/', f'http://{"a" * 300}/', 'nowhere', 'http://127.0.0.1:1/x']
)
def test_addresses_that_lead_nowhere(site, address):
    sentence = failure(fetch, address)
    assert sentence.startswith(f'{address} cannot be fetched (')


def test_a_token_stays_with_its_host(site):
    files, _, address = site
    tokens = []

    def answer(handler):
        tokens.append(handler.headers.get('Authorization'))
        send(handler, b'content')

    other = address.replace('127.0.0.1', 'localhost')
    files['/x'] = [
        functools.partial(redirect, location='/y'),
        functools.partial(redirect, location=f'{other}/y'),
    ]
    files['/y'] = [answer, answer]
    for _ in range(2):
        fetch(f'{address}/x', headers={'Authorization': 'Bearer secret'})
    assert tokens == ['Bearer secret', None]


# --- zip files


def unpack(content, limit=10**6):
    return b''.join(read_member(io.BytesIO(content), 'a/b', limit, 'there'))


def test_one_member_of_a_zip_file():
    assert unpack(zipped('a/b', CONTENT)) == CONTENT
    assert unpack(zipped('a/b', b'')) == b''
    assert unpack(declaring(2**31)) == CONTENT  # nobody believes the size
    with pytest.raises(OSError, match='full'):
        for _ in read_member(io.BytesIO(zipped('a/b', CONTENT)), 'a/b', 10**6, 'there'):
            raise OSError('full')  # an error of who takes the blocks is not one of the file


def with_method(method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', method) as archive:
        archive.writestr('a/b', CONTENT)
    return buffer.getvalue()


def with_many_members(count=30000):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr('a/b', CONTENT)
        for i in range(count):
            archive.writestr(str(i), b'')
    return buffer.getvalue()


def declaring(size):
    """Return a zip file whose member says that it has ``size`` bytes."""
    sizes = [number.to_bytes(4, 'little') for number in (len(CONTENT), size)]
    return with_method(zipfile.ZIP_DEFLATED).replace(*sizes)


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'<html>blocked</html>',
        zipped('b', CONTENT),
        zipped('../a/b', CONTENT),
        zipped('a/b', CONTENT)[:-30],
        zipped('a/b', CONTENT).replace(CONTENT[:100], bytes(100)),
        zipped('a/b', bytes(10**6 + 1)),
        with_method(zipfile.ZIP_LZMA),
        with_method(zipfile.ZIP_BZIP2),
        with_many_members(),
        declaring(5),
    ],
)
def test_zip_files_that_are_not_as_they_should_be(content):
    assert failure(unpack, content) == 'there: not a zip file with a/b inside'


# --- the zoo's files


@pytest.fixture
def model(site, monkeypatch, tmp_path):
    """Serve weights; return the answers to its address, and the path of the file."""
    files, _, _ = site
    monkeypatch.setenv('MXNET_HOME', str(tmp_path / 'mxnet'))
    name = 'bert_12_768_12_wiki_cn_cased'
    monkeypatch.setitem(zoo.WEIGHTS_SHA1, name, SHA1)
    path = tmp_path / 'mxnet' / 'models' / f'{name}-{SHA1[:8]}.params'
    address = f'/gluon/models/{name}-{SHA1[:8]}.zip'
    files[address] = zipped(path.name, CONTENT)
    return files, address, path


def fetch_weights():
    return zoo._from_zoo('bert_12_768_12', 'wiki_cn_cased')


def test_whatever_fails_leaves_nothing(model, monkeypatch):
    files, address, path = model
    good = files[address]
    monkeypatch.setitem(zoo.MOST_BYTES, '.params', 10**6)
    for bad in [
        zipped(path.name, CONTENT[1:]),
        zipped(path.name, bytes(10**6 + 1)),
        good[:-100],
        [break_off] * 9,
        [functools.partial(send_without_end, status=200)],
    ]:
        files[address] = bad
        with pytest.raises(ToolkitError, match='could not be fetched from the GluonNLP model zoo'):
            fetch_weights()
        assert list(path.parent.iterdir()) == []


def test_a_damaged_file_is_fetched_again_and_other_members_stay_inside(model, monkeypatch):
    files, address, path = model
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name in ('../../out', '/out', 'other', path.name):
            archive.writestr(name, CONTENT if name == path.name else b'x')
    files[address] = buffer.getvalue()
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[1:])
    path.with_name(f'.{path.name}.0{HALF_WRITTEN}').touch()  # of a process that was killed
    monkeypatch.setattr(zoo, 'zoo_vocab_path', lambda data_set: data_set)
    assert fetch_weights() == (path, 'wiki_cn_cased')
    assert path.read_bytes() == CONTENT
    assert list(path.parent.parent.rglob('*')) == [path.parent, path]
    files.clear()
    assert fetch_weights() == (path, 'wiki_cn_cased')


def test_a_process_that_is_killed_leaves_no_archive(model, tmp_path):
    files, address, path = model
    waiting = []

    def wait(handler):
        send(handler, MEGABYTE, length=10**8)
        waiting.append(handler)
        time.sleep(60)

    files[address] = [wait]
    code = (
        'import sys; from bert.checkpoints import zoo\n'
        'zoo._zoo_file("models", "bert_12_768_12_wiki_cn_cased", sys.argv[1], ".params")'
    )
    command = [sys.executable, '-c', code, SHA1]
    process = subprocess.Popen(command, cwd=ROOT)
    while not waiting:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sum(left.stat().st_size for left in path.parent.iterdir()) == 0
