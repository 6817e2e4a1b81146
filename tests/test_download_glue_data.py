"""download_glue_data.py with a local server that can fail in all the ways a real network can.

The server is the standard library's and the archives are made here, so the tests use no network.
Only one test needs the real MRPC files, and is skipped if they are absent.
"""

import contextlib
import doctest
import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT

import download_glue_data as glue

SCRIPT = ROOT / 'download_glue_data.py'
ALL = 'CoLA, SST-2, QQP, STS-B, MNLI, QNLI, RTE, WNLI, MRPC, AX'
MORE = 'SNLI, XNLI, LCQMC, ChnSentiCorp, XNLI-1.0, XNLI-MT-1.0'
# Larger than two of the script's chunks, and without repetitions.
TEXT = b''.join(b'%07d\n' % number for number in range(20000))
DEV_IDS = b'12\t13\n99\t98'
RAW_TRAIN = (
    b'\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n'
    b'1\t10\t11\tA "cat" .\tOne cat .\n'
    b'0\t12\t13\tCaf\xc3\xa9 \xe2\x80\xa8closed .\tNo .\n'
    b'1\t13\t12\tIds swapped .\tSo not dev .\n'
)
RAW_TEST = (
    b'\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t20\t21\ta\tb\n0\t22\t23\tc\td\n'
)


class Site(ThreadingHTTPServer):
    """A server of `files`, {path: bytes}, that logs (path, Range header) of every request.

    `faults[path]` is a list of functions of the handler and the body, each of which answers one
    request in place of the normal answer.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.server_port}'
        self.files, self.faults, self.log = {}, {}, []
        self.sent = 0  # bytes of an endless body

    def handle_error(self, request, client_address):
        """Ignore clients that hang up, as they do on purpose here."""


class Handler(BaseHTTPRequestHandler):
    """A handler for HTTP/1.0: the end of the connection ends a body without declared length."""

    def do_HEAD(self):
        self.server.log.append((self.path, 'HEAD'))
        body = self.server.files.get(self.path)
        if self.server.faults.get(self.path):
            self.server.faults[self.path].pop(0)(self, b'')
        else:
            self.send(b'', 404 if body is None else 200, length=len(body or b''))

    def do_GET(self):
        wanted = self.headers.get('Range')
        self.server.log.append((self.path, wanted))
        body = self.server.files.get(self.path)
        if self.server.faults.get(self.path):
            self.server.faults[self.path].pop(0)(self, body)
        elif body is None:
            self.send_error(404)
        elif wanted:
            start = int(wanted[len('bytes=') : -1])
            self.send(body[start:], 206, range=f'bytes {start}-{len(body) - 1}/{len(body)}')
        else:
            self.send(body)

    def send(self, body, status=200, length=None, range=None):
        """Send `body`, declaring `length` bytes (False: no length) instead of its own length."""
        self.send_response(status)
        if length is not False:
            self.send_header('Content-Length', str(len(body) if length is None else length))
        if range:
            self.send_header('Content-Range', range)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv('NO_PROXY', '*')
    monkeypatch.delenv('GLUE_BASE_URL', raising=False)
    monkeypatch.setattr(glue, 'BACKOFF', 0)
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def make_zip(entries):
    """Return a zip archive of (name or ZipInfo, bytes) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, body in entries:
            archive.writestr(name, body)
    return buffer.getvalue()


def splits(folder, *more):
    """Return archive entries for the three files in `folder`, and `more` entries."""
    files = [(f'{folder}{split}.tsv', f'{split}\tx\n') for split in ('train', 'dev', 'test')]
    return files + list(more)


def serve(site, name, *bodies):
    """Serve `bodies` as the files of the task `name`; return a table of that one task."""
    task = glue.TASKS[name]
    remotes = []
    for remote, body in zip(task.remotes, bodies):
        site.files[remote.path] = body
        remotes.append(glue.Remote(remote.path, len(body), sha256(body)))
    return {name: task._replace(remotes=tuple(remotes), files=dict.fromkeys(task.files))}


def run(site, data_dir, table, *more):
    return glue.main(['--data_dir', str(data_dir), '--base_url', site.url, *more], table)


def tree(folder):
    """Return {relative path: bytes} of every file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def break_at(size):
    """Return a fault that declares the whole body, sends `size` bytes of it and hangs up."""
    return lambda handler, body: handler.send(body[:size], length=len(body))


def break_again(handler, body):
    """Agree to resume where the client asks to, and hang up."""
    start = int(handler.headers['Range'][len('bytes=') : -1])
    last = len(body) - 1
    handler.send(b'', 206, length=len(body) - start, range=f'bytes {start}-{last}/{len(body)}')


def status(code):
    return lambda handler, body: handler.send_error(code)


# The results of a successful run


def test_all_ten_tasks_get_their_layout(site, tmp_path, capsys):
    """Every row of the real table is used, with its path, builder and file names.

    Only the data is made here, in archives as different as those of the various authors.
    """
    mnli = ['train', 'dev_matched', 'dev_mismatched', 'test_matched', 'test_mismatched']
    macos = ('__MACOSX/QQP/._train.tsv', 'junk')
    original = ('CoLA/original/raw/in_domain_train.tsv', 'raw')
    bodies = {
        'CoLA': [make_zip(splits('CoLA/', ('CoLA/original/', ''), original))],
        'SST-2': [make_zip(splits(''))],
        'QQP': [make_zip([('QQP-clean/', b''), *splits('QQP-clean/', macos)])],
        'STS-B': [make_zip(splits('a/b/', *splits('a/b/c/')))],
        'MNLI': [make_zip([(f'MNLI/{split}.tsv', split) for split in mnli])],
        'QNLI': [make_zip(splits('QNLIv2\\'))],
        'RTE': [make_zip(splits('./RTE/'))],
        'WNLI': [make_zip(splits('WNLI/', ('elsewhere.txt', 'x')))],
        'MRPC': [DEV_IDS, RAW_TRAIN, RAW_TEST],
        'AX': [TEXT],
    }
    table = {}
    for name in bodies:
        table.update(serve(site, name, *bodies[name]))
    assert run(site, tmp_path / 'new' / 'glue_data', table, '--tasks', 'all') == 0
    found = tree(tmp_path / 'new' / 'glue_data')
    plain = [f'{split}.tsv' for split in ('train', 'dev', 'test')]
    expected = {
        f'{folder}/{name}'
        for folder in ('CoLA', 'SST-2', 'QQP', 'STS-B', 'QNLI', 'RTE', 'WNLI', 'MRPC')
        for name in [*plain, '.verified.json']
    }
    expected |= {f'MNLI/{split}.tsv' for split in mnli} | {'MNLI/.verified.json'}
    expected |= {'diagnostic/diagnostic.tsv', 'diagnostic/.verified.json'}
    expected |= {f'STS-B/c/{name}' for name in plain}
    expected |= {'CoLA/original/raw/in_domain_train.tsv', 'MRPC/dev_ids.tsv'}
    expected |= {f'MRPC/msr_paraphrase_{split}.txt' for split in ('train', 'test')}
    assert set(found) == expected
    assert found['QNLI/dev.tsv'] == b'dev\tx\n'
    assert found['STS-B/train.tsv'] == b'train\tx\n'
    assert found['MNLI/dev_mismatched.tsv'] == b'dev_mismatched'
    assert found['diagnostic/diagnostic.tsv'] == TEXT
    archives = ['CoLA', 'SST-2', 'QQP-clean', 'STS-B', 'MNLI', 'QNLIv2', 'RTE', 'WNLI']
    assert [path for path, _ in site.log] == [
        *(f'/glue/data/{name}.zip' for name in archives),
        '/glue/data/mrpc_dev_ids.tsv',
        '/senteval/senteval_data/msr_paraphrase_train.txt',
        '/senteval/senteval_data/msr_paraphrase_test.txt',
        '/glue/data/AX.tsv',
    ]
    out, err = capsys.readouterr()
    assert err == ''  # no bar, as this is no terminal
    assert f'AX: ready in {tmp_path}/new/glue_data/diagnostic\n' in out


def test_quiet(site, tmp_path, capsys):
    """Of two tasks the one that fails is told, once."""
    archive = make_zip(splits('CoLA/'))
    table = {**serve(site, 'CoLA', archive), **serve(site, 'RTE', b'no archive')}
    assert run(site, tmp_path, table, '--quiet', '--tasks', 'all') == 1
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('RTE: ') and err.count('\n') == 1
    assert (tmp_path / 'CoLA' / 'train.tsv').is_file()


def test_table_is_plausible():
    """The sum of all sizes is that of the published list; every sha256 is well-formed."""
    assert list(glue.TASKS) == f'{ALL}, {MORE}'.split(', ')
    remotes = [remote for name in ALL.split(', ') for remote in glue.TASKS[name].remotes]
    assert sum(remote.size for remote in remotes) == 376169247
    assert len({remote.sha256 for remote in remotes}) == 12
    assert all(len(bytes.fromhex(remote.sha256)) == 32 for remote in remotes)


def test_mrpc_split_by_hand(tmp_path):
    """Row 12/13 is listed, 13/12 is not; U+2028 inside a sentence does not end a line."""
    parts = {}
    for remote, body in zip(glue.TASKS['MRPC'].remotes, (DEV_IDS, RAW_TRAIN, RAW_TEST)):
        name = remote.path.split('/')[-1]
        parts[name] = tmp_path / f'{name}.part'
        parts[name].write_bytes(body)
    folder = tmp_path / 'MRPC'
    folder.mkdir()
    glue.split_mrpc(parts, folder, ())
    header = b'\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n'
    assert tree(folder) == {
        'train.tsv': header
        + b'1\t10\t11\tA "cat" .\tOne cat .\n'
        + b'1\t13\t12\tIds swapped .\tSo not dev .\n',
        'dev.tsv': header + b'0\t12\t13\tCaf\xc3\xa9 \xe2\x80\xa8closed .\tNo .\n',
        'test.tsv': b'index\t#1 ID\t#2 ID\t#1 String\t#2 String\n'
        b'0\t20\t21\ta\tb\n'
        b'1\t22\t23\tc\td\n',
        'dev_ids.tsv': DEV_IDS,
        'msr_paraphrase_train.txt': RAW_TRAIN,
        'msr_paraphrase_test.txt': RAW_TEST,
    }


def test_real_mrpc_with_the_real_table(site, tmp_path, real_glue):
    """The published sizes and sha256 of the raw files, and the recorded sha1 of the split, hold."""
    real = real_glue / 'MRPC'
    if not (real / 'dev_ids.tsv').is_file():
        pytest.skip(f'{real} has no raw files')
    site.files['/glue/data/mrpc_dev_ids.tsv'] = (real / 'dev_ids.tsv').read_bytes()
    for name in ('msr_paraphrase_train.txt', 'msr_paraphrase_test.txt'):
        site.files[f'/senteval/senteval_data/{name}'] = (real / name).read_bytes()
    argv = ['--data_dir', str(tmp_path), '--tasks', 'MRPC', '--base_url', site.url]
    assert glue.main(argv) == 0
    made = tree(tmp_path / 'MRPC')
    del made['.verified.json']
    assert {name: hashlib.sha1(body).hexdigest() for name, body in made.items()} == {
        **{path.name: hashlib.sha1(path.read_bytes()).hexdigest() for path in real.iterdir()},
        'train.tsv': '131675ffd3d2f04f286049d31cca506c8acba69e',
        'dev.tsv': 'e4486577c4cb2e5c2a3fd961eb24f03c623ea02d',
        'test.tsv': '3602b2ca26cf574e84183c14d6c0901669ee2d0a',
    }


def test_derived_file_with_another_sha1_is_refused(site, tmp_path, capsys):
    table = serve(site, 'MRPC', DEV_IDS, RAW_TRAIN, RAW_TEST)
    dev = hashlib.sha1(
        RAW_TRAIN.split(b'\n')[0] + b'\n0\t12\t13\tCaf\xc3\xa9 \xe2\x80\xa8closed .\tNo .\n'
    ).hexdigest()
    files = {'train.tsv': None, 'dev.tsv': 'f' * 40, 'test.tsv': None}
    table['MRPC'] = table['MRPC']._replace(files=files)
    assert run(site, tmp_path, table) == 1
    message = f'MRPC: dev.tsv was made with sha1 {dev}, not {"f" * 40}\n'
    assert capsys.readouterr().err == message
    assert list(tmp_path.iterdir()) == []


# A second run


def test_second_run_fetches_nothing_and_writes_nothing(site, tmp_path, capsys):
    table = serve(site, 'CoLA', make_zip(splits('CoLA/')))
    assert run(site, tmp_path, table) == 0
    assert len(site.log) == 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    assert run(site, tmp_path, table) == 0
    assert len(site.log) == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before
    assert f'CoLA: verified, nothing to fetch in {tmp_path}/CoLA\n' in capsys.readouterr().out


def test_two_runs_do_not_fetch_the_same_task(site, tmp_path, capsys):
    """The second leaves the first one's download alone."""
    table = serve(site, 'CoLA', make_zip(splits('CoLA/')))
    part = tmp_path / glue.WORK / 'CoLA' / 'CoLA.zip.part'
    part.parent.mkdir(parents=True)
    part.write_bytes(b'half')
    held = os.open(part.parent, os.O_RDONLY)
    try:
        assert glue.hold(held)
        assert run(site, tmp_path, table) == 1
    finally:
        os.close(held)
    assert 'CoLA: another run is fetching it; run again when' in capsys.readouterr().err
    assert site.log == [] and part.read_bytes() == b'half'
    part.unlink()
    assert run(site, tmp_path, table) == 0


def edit(folder):
    (folder / 'dev.tsv').write_text('dev\ty\n')  # as long as before


def truncate(folder):
    (folder / 'test.tsv').write_text('')


def delete(folder):
    (folder / 'train.tsv').unlink()


def spoil_record(folder):
    (folder / '.verified.json').write_text('{"files": ')


def empty_record(folder):
    record = json.loads((folder / '.verified.json').read_text())
    (folder / '.verified.json').write_text(json.dumps({**record, 'files': {}}))


def older_version(folder):
    text = (folder / '.verified.json').read_text()
    (folder / '.verified.json').write_text(text.replace('/glue/data/', '/glue/data/v0/'))


@pytest.mark.parametrize(
    'change, complaint',
    [
        (edit, '{0}/dev.tsv is missing or was changed'),
        (truncate, '{0}/test.tsv is missing or was changed'),
        (delete, '{0}/train.tsv is missing or was changed'),
        (spoil_record, '{0} cannot be checked, as it has no valid .verified.json'),
        (empty_record, '{0} cannot be checked, as it has no valid .verified.json'),
        (older_version, '{0} was made from another version of the data'),
    ],
)
def test_changed_folder_is_noticed_and_kept(site, tmp_path, capsys, change, complaint):
    table = serve(site, 'CoLA', make_zip(splits('CoLA/')))
    assert run(site, tmp_path, table) == 0
    folder = tmp_path / 'CoLA'
    change(folder)
    after = tree(tmp_path)
    capsys.readouterr()
    assert run(site, tmp_path, table) == 1
    advice = f'; move {folder} away and run again\n'
    assert capsys.readouterr().err == 'CoLA: ' + complaint.format(folder) + advice
    assert tree(tmp_path) == after
    shutil.rmtree(folder)
    assert run(site, tmp_path, table) == 0
    assert len(site.log) == 2


def test_data_of_another_origin_is_not_touched(site, tmp_path, capsys):
    table = serve(site, 'AX', TEXT)
    (tmp_path / 'diagnostic').mkdir()
    (tmp_path / 'diagnostic' / 'diagnostic.tsv').write_text('mine')
    assert run(site, tmp_path, table) == 1
    assert 'cannot be checked, as it has no valid .verified.json' in capsys.readouterr().err
    assert tree(tmp_path) == {'diagnostic/diagnostic.tsv': b'mine'}
    assert site.log == []


# Folders that another script made


def write_rows(folder, name, rows, header='header\tx\n', row='%d\tx\n'):
    """Write a file of so many rows."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + ''.join(row % number for number in range(rows)))


def write_splits(folder, *rows, **more):
    for name, count in zip(('train.tsv', 'dev.tsv', 'test.tsv'), rows):
        write_rows(folder, name, count, **more)


def test_real_files_of_another_script_are_known_by_their_sums(site, tmp_path, capsys, real_glue):
    """As the script of 2018 left them: no record, and original/ beside the files of CoLA."""
    for name in ('CoLA', 'MRPC', 'STS-B'):
        (tmp_path / name).mkdir()
        for path in (real_glue / name).glob('*.tsv'):
            shutil.copyfile(path, tmp_path / name / path.name)
    (tmp_path / 'CoLA' / 'original').mkdir()
    (tmp_path / 'CoLA' / 'original' / 'tokenized.tsv').write_text('x')
    before = tree(tmp_path)
    assert run(site, tmp_path, glue.TASKS, '--tasks', 'CoLA,MRPC,STS') == 0
    assert capsys.readouterr() == (
        ''.join(
            f'{name}: made by another script, with the sums of the published version, nothing to '
            f'fetch in {tmp_path}/{name}\n'
            for name in ('CoLA', 'MRPC', 'STS-B')
        ),
        '',
    )
    assert site.log == []
    assert tree(tmp_path) == before
    # With other bytes but all rows, such as files whose lines end otherwise, they still are.
    for name, ends in [('dev.tsv', b'\r\n'), ('test.tsv', b'\n')]:
        path = tmp_path / 'CoLA' / name
        path.write_bytes(path.read_bytes().rstrip(b'\n').replace(b'\n', ends))
    assert run(site, tmp_path, glue.TASKS, '--tasks', 'CoLA') == 0
    assert 'with the rows of the published version' in capsys.readouterr().out


def test_versions_of_2018_are_known_by_their_rows(site, tmp_path, capsys):
    """Counts are those of GluonNLP's documentation, and of public code with QNLI's first version.

    Of QQP, questions with line breaks make rows that do not count: ten in train.tsv.
    """
    write_splits(tmp_path / 'QNLI', 108436, 5732, 5740)
    write_splits(
        tmp_path / 'QQP',
        363849,
        40430,
        390965,
        header='id\tq\tq\ta\tb\tl\n',
        row='%d' + 5 * '\tx' + '\n',
    )
    with open(tmp_path / 'QQP' / 'train.tsv', 'a') as train:
        train.write(10 * '1\t2\t3\tWhat\n\tWas he a figure?\t0\n')
    assert run(site, tmp_path, glue.TASKS, '--tasks', 'QNLI,QQP') == 0
    made = 'made by another script, with the rows of the version of 2018'
    assert capsys.readouterr().out == (
        f'QNLI: {made} (QNLI.zip), nothing to fetch in {tmp_path}/QNLI\n'
        f'QQP: {made} (QQP.zip), nothing to fetch in {tmp_path}/QQP\n'
    )
    assert site.log == []


def test_unknown_files_of_another_script(site, tmp_path, capsys):
    """One sentence for each task, and the others go on."""
    write_splits(tmp_path / 'QNLI', 108436, 5732, 5463)  # of two versions
    write_splits(tmp_path / 'RTE', 2490, 277, 2999)
    write_rows(tmp_path, 'WNLI/train.tsv', 635)
    write_rows(tmp_path, 'diagnostic/diagnostic.tsv', 1104)
    table = {**glue.TASKS, **serve(site, 'CoLA', make_zip(splits('CoLA/')))}
    before = tree(tmp_path)
    assert run(site, tmp_path, table, '--tasks', 'QNLI,RTE,WNLI,CoLA,AX') == 1
    out, err = capsys.readouterr()
    files = 'train.tsv/dev.tsv/test.tsv'
    assert err == (
        f'QNLI: {tmp_path}/QNLI cannot be checked, as it has no valid .verified.json: {files} have '
        '108436/5732/5463 rows, and not 104743/5463/5463 or 108436/5732/5740; '
        f'move {tmp_path}/QNLI away and run again\n'
        f'RTE: {tmp_path}/RTE cannot be checked, as it has no valid .verified.json: {files} have '
        f'2490/277/2999 rows, and not 2490/277/3000; move {tmp_path}/RTE away and run again\n'
        f'WNLI: {tmp_path}/WNLI has no .verified.json, and no dev.tsv; '
        f'move {tmp_path}/WNLI away and run again\n'
    )
    assert f'CoLA: ready in {tmp_path}/CoLA\n' in out
    assert 'AX: made by another script, with the rows of the published version' in out
    after = tree(tmp_path)
    assert {name: after[name] for name in before} == before


def test_rows_are_those_of_the_table_of_tasks():
    from bert.tasks.table import ALL_TASKS

    for name, task in glue.TASKS.items():
        if name in ALL_TASKS and name != 'MNLI':
            known = ALL_TASKS[name]
            known = (known.train, *known.dev, *known.test)
            assert [split.path for split in known] == [f'{task.folder}/{one}' for one in task.files]
            rows = [version.rows for version in task.versions]
            assert rows[0] == tuple(split.rows for split in known)
            assert rows[1:] in ([], [tuple(split.older_rows for split in known)])
    assert set(ALL_TASKS) == {
        *(set(glue.TASKS) - {'AX', 'XNLI-1.0', 'XNLI-MT-1.0'}),
        *(f'XNLI-{language}' for language in glue.LANGUAGES),
    }


# MRPC's files, extracted by the user


@pytest.fixture
def extracted(tmp_path):
    folder = tmp_path / 'msi'
    folder.mkdir()
    (folder / 'msr_paraphrase_train.txt').write_bytes(RAW_TRAIN.replace(b'\n', b'\r\n'))
    (folder / 'msr_paraphrase_test.txt').write_bytes(RAW_TEST)
    return folder


def test_given_mrpc_is_used_in_place_of_downloads(site, tmp_path, capsys, extracted):
    table = serve(site, 'MRPC', DEV_IDS, b'not this', b'nor this')
    table['MRPC'] = table['MRPC']._replace(versions=(glue.Version((2, 1, 2)),))
    given = ['--path_to_mrpc', str(extracted)]
    assert run(site, tmp_path / 'data', table, *given) == 0
    assert [path for path, _ in site.log] == ['/glue/data/mrpc_dev_ids.tsv']
    folder = tmp_path / 'data' / 'MRPC'
    assert (folder / 'dev.tsv').read_bytes().splitlines()[1:] == [
        b'0\t12\t13\tCaf\xc3\xa9 \xe2\x80\xa8closed .\tNo .'
    ]
    assert len((folder / 'train.tsv').read_bytes().splitlines()) == 3
    # Later runs, with the flag or without, find it verified.
    for flags in ([], given):
        assert run(site, tmp_path / 'data', table, *flags) == 0
        assert 'MRPC: verified, nothing to fetch' in capsys.readouterr().out
    assert len(site.log) == 1


def test_given_mrpc_with_other_rows(site, tmp_path, capsys, extracted):
    """What the user extracted must have the rows of MRPC."""
    table = serve(site, 'MRPC', DEV_IDS, b'', b'')
    assert run(site, tmp_path / 'data', table, '--path_to_mrpc', str(extracted)) == 1
    assert capsys.readouterr().err == 'MRPC: train.tsv has 2 rows, not 3668\n'
    assert list((tmp_path / 'data').iterdir()) == []


def test_real_given_mrpc(site, tmp_path, real_glue):
    if not (real_glue / 'MRPC' / 'dev_ids.tsv').is_file():
        pytest.skip(f'{real_glue}/MRPC has no raw files')
    site.files['/glue/data/mrpc_dev_ids.tsv'] = (real_glue / 'MRPC/dev_ids.tsv').read_bytes()
    given = ['--tasks', 'MRPC', '--path_to_mrpc', str(real_glue / 'MRPC')]
    assert run(site, tmp_path, glue.TASKS, *given) == 0
    for name in ('train.tsv', 'dev.tsv', 'test.tsv'):
        assert (tmp_path / 'MRPC' / name).read_bytes() == (real_glue / 'MRPC' / name).read_bytes()


# Tasks beyond GLUE


def test_snli_by_hand(site, tmp_path):
    """Rows without a gold label are left out; the others get an index and columns as in GLUE."""
    header = (
        'gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse '
        'sentence1 sentence2 captionID pairID label1 label2 label3 label4 label5'
    ).replace(' ', '\t')
    rows = [
        'neutral\tb1\tb2\tp1\tp2\tOne man .\tA man .\tc#0\tc#0n\tneutral\t\t\t\t',
        '-\tb1\tb2\tp1\tp2\tTwo .\tMen .\tc#1\tc#1n\tneutral\tneutral\tx\tx\te',
        'entailment\tb1\tb2\tp1\tp2\t"Three\tMen\u2028.\tc#2\tc#2e\te\te\te\tn\tn',
    ]
    text = '\n'.join([header, *rows]) + '\n'
    names = [f'snli_1.0/snli_1.0_{name}' for name in ('train.txt', 'dev.txt', 'test.txt')]
    entries = [(name, text) for name in names]
    archive = make_zip([*entries, ('snli_1.0/snli_1.0_train.jsonl', 'x'), ('__MACOSX/._x', 'x')])
    table = serve(site, 'SNLI', archive)
    assert run(site, tmp_path, table, '--tasks', 'SNLI') == 0
    found = tree(tmp_path / 'SNLI')
    assert set(found) == {'train.tsv', 'dev.tsv', 'test.tsv', '.verified.json'}
    lines = found['dev.tsv'].decode().split('\n')
    assert lines[0].split('\t')[:3] == ['index', 'captionID', 'pairID']
    assert lines[1:] == [
        '0\tc#0\tc#0n\tb1\tb2\tp1\tp2\tOne man .\tA man .\tneutral\t\t\t\t\tneutral',
        '1\tc#2\tc#2e\tb1\tb2\tp1\tp2\t"Three\tMen\u2028.\te\te\te\tn\tn\tentailment',
        '',
    ]


def make_tgz(entries):
    """Return a tar.gz archive of (name or TarInfo, bytes) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
        for info, body in entries:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def baidu(*more, folder='task_data/chnsenticorp', rows=(9600, 1200, 1200)):
    """Return an archive like Baidu's, and `more` entries."""
    lines = [b'label\ttext_a\n', *(b'1\t%064x\n' % number**20 for number in range(2, 9602))]
    files = [
        (f'{folder}/{name}.tsv', b''.join(lines[: 1 + count])) for name, count in zip(NAMES, rows)
    ]
    return make_tgz([*files, ('task_data/lcqmc/train.tsv', b'x'), *more])


NAMES = ('train', 'dev', 'test')


def serve_baidu(site, archive):
    site.files['/task_data_zh.tgz'] = archive
    return {'ChnSentiCorp': glue.TASKS['ChnSentiCorp']}


def test_chinese_task_whose_size_is_asked_for(site, tmp_path):
    archive = baidu()
    table = serve_baidu(site, archive)
    site.faults['/task_data_zh.tgz'] = [
        lambda handler, body: handler.send(b'', length=len(archive))
    ]
    assert run(site, tmp_path, table, '--tasks', 'ChnSentiCorp') == 0
    assert site.log == [('/task_data_zh.tgz', 'HEAD'), ('/task_data_zh.tgz', None)]
    found = tree(tmp_path / 'ChnSentiCorp')
    assert set(found) == {'train.tsv', 'dev.tsv', 'test.tsv', '.verified.json'}
    assert found['train.tsv'].startswith(found['dev.tsv'])
    assert found['dev.tsv'].count(b'\n') == 1201
    assert run(site, tmp_path, table, '--tasks', 'ChnSentiCorp') == 0
    assert len(site.log) == 2


def link(name):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'
    return info


@pytest.mark.parametrize(
    'archive, complaint',
    [
        (baidu(rows=(9600, 1199, 1200)), 'dev.tsv has 1199 rows, not 1200'),
        (baidu(rows=(9600, 1200)), 'task_data_zh.tgz holds no chnsenticorp/test.tsv'),
        (baidu(folder='../../x'), 'task_data_zh.tgz holds no chnsenticorp/dev.tsv'),
        (
            baidu((link('task_data/chnsenticorp/test.tsv'), b''), rows=(9600, 1200)),
            'task_data_zh.tgz holds no chnsenticorp/test.tsv',
        ),
        (baidu(('zeros', bytes(9000000))), 'task_data_zh.tgz unpacks to over 20 times its size'),
        (b'<html>', 'task_data_zh.tgz is not a valid tar.gz archive: not a gzip file'),
        (baidu()[:-400], 'task_data_zh.tgz is not a valid tar.gz archive: '),
    ],
)
def test_bad_archive_of_baidu(site, tmp_path, capsys, archive, complaint):
    assert run(site, tmp_path / 'data', serve_baidu(site, archive), '--tasks', 'ChnSentiCorp') == 1
    err = capsys.readouterr().err
    assert err.startswith(f'ChnSentiCorp: {complaint}') and err.count('\n') == 1
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    'fault, complaint',
    [
        (status(404), 'answered 404 Not Found'),
        (lambda handler, body: handler.send(b'', length=False), 'declares no bytes'),
        (lambda handler, body: handler.send(b'', length=10**12), 'declares 1000000000000 bytes'),
        (lambda handler, body: handler.send(b'', length=0), 'declares 0 bytes'),
    ],
)
def test_size_that_cannot_be(site, tmp_path, capsys, fault, complaint):
    table = serve_baidu(site, baidu())
    site.faults['/task_data_zh.tgz'] = [fault]
    assert run(site, tmp_path, table, '--tasks', 'ChnSentiCorp') == 1
    assert capsys.readouterr().err.startswith(
        f'ChnSentiCorp: {site.url}/task_data_zh.tgz {complaint}'
    )
    assert len(site.log) == 1
    assert list(tmp_path.iterdir()) == []


def test_lcqmc_has_no_address(site, tmp_path, capsys):
    assert run(site, tmp_path, glue.TASKS, '--tasks', 'LCQMC') == 1
    assert capsys.readouterr().err == (
        'LCQMC: it has no public address, and its owners give it on request, see '
        'http://icrc.hitsz.edu.cn/info/1037/1146.htm: put train.tsv, dev.tsv, test.tsv into a '
        'folder LCQMC, each with a header and the columns text_a, text_b and label, and run again\n'
    )
    assert site.log == [] and list(tmp_path.iterdir()) == []
    write_splits(tmp_path / 'LCQMC', 238766, 8802, 12500)
    assert run(site, tmp_path, glue.TASKS, '--tasks', 'LCQMC') == 0
    assert 'with the rows of the published version' in capsys.readouterr().out


def test_archives_of_xnli_keep_their_layout(site, tmp_path):
    """The languages are those of the corpus; no file lies beside the folder multinli."""
    languages = 'ar bg de el en es fr hi ru sw th tr ur vi zh'.split()
    trains = [f'multinli/multinli.train.{language}.tsv' for language in languages]
    one = [('XNLI-1.0/xnli.dev.tsv', 'd'), ('XNLI-1.0/xnli.test.tsv', 't'), ('._x', 'x')]
    table = {
        **serve(site, 'XNLI-1.0', make_zip(one)),
        **serve(site, 'XNLI-MT-1.0', make_zip([(f'XNLI-MT-1.0/{name}', name) for name in trains])),
    }
    assert run(site, tmp_path, table, '--tasks', 'xnli-1.0,xnli-mt-1.0') == 0
    assert [path for path, _ in site.log] == ['/XNLI/XNLI-1.0.zip', '/XNLI/XNLI-MT-1.0.zip']
    assert set(tree(tmp_path)) == {
        'XNLI-1.0/xnli.dev.tsv',
        'XNLI-1.0/xnli.test.tsv',
        'XNLI-1.0/.verified.json',
        *(f'XNLI-MT-1.0/{name}' for name in trains),
        'XNLI-MT-1.0/.verified.json',
    }


def test_hosts_of_tasks_beyond_glue(site, tmp_path, monkeypatch):
    """Without a mirror a file comes from its own host, with one from the mirror."""
    hosts = {name: task.host for name, task in glue.TASKS.items() if task.host != glue.BASE_URL}
    assert hosts == {
        'SNLI': 'https://nlp.stanford.edu',
        'XNLI': 'https://ernie.bj.bcebos.com',
        'ChnSentiCorp': 'https://ernie.bj.bcebos.com',
    }
    table = serve(site, 'AX', TEXT)
    table['AX'] = table['AX']._replace(host=f'{site.url}/own')
    site.files['/own/glue/data/AX.tsv'] = TEXT
    assert run(site, tmp_path / 'a', table) == 0
    monkeypatch.setattr(glue, 'BASE_URL', site.url)
    assert run(site, tmp_path / 'b', table) == 0
    assert [path for path, _ in site.log] == ['/glue/data/AX.tsv', '/own/glue/data/AX.tsv']


# Bad networks and bad servers


def test_broken_connection_resumes_within_a_run(site, tmp_path, capsys):
    table = serve(site, 'AX', TEXT)
    site.faults['/glue/data/AX.tsv'] = [break_at(140000)]
    assert run(site, tmp_path, table) == 0
    (first, none), (second, resume) = site.log
    assert (first, none, second) == ('/glue/data/AX.tsv', None, '/glue/data/AX.tsv')
    start = int(resume[len('bytes=') : -1])
    assert 65536 <= start <= 140000
    out = capsys.readouterr().out
    assert f'fetching {site.url}/glue/data/AX.tsv from byte {start} of 160000\n' in out
    assert (tmp_path / 'diagnostic' / 'diagnostic.tsv').read_bytes() == TEXT


def test_broken_connection_resumes_in_the_next_run(site, tmp_path, capsys, monkeypatch):
    table = serve(site, 'AX', TEXT)
    site.faults['/glue/data/AX.tsv'] = [break_at(140000)] + [break_again] * 4
    naps = []
    monkeypatch.setattr(glue, 'BACKOFF', 0.5)
    monkeypatch.setattr(time, 'sleep', naps.append)
    assert run(site, tmp_path, table) == 1
    assert naps == [0.5, 1, 2, 4]
    url = f'{site.url}/glue/data/AX.tsv'
    message = f'AX: {url} broke off 5 times; run again to continue where it stopped\n'
    assert capsys.readouterr().err == message
    assert len(site.log) == 5
    ((part, kept),) = tree(tmp_path).items()
    assert part == '.download/diagnostic/AX.tsv.part'
    assert kept == TEXT[: len(kept)] and len(kept) >= 65536
    assert run(site, tmp_path, table) == 0
    assert site.log[5:] == [('/glue/data/AX.tsv', f'bytes={len(kept)}-')]
    assert set(tree(tmp_path)) == {'diagnostic/diagnostic.tsv', 'diagnostic/.verified.json'}


def ignore_range(handler, body):
    handler.send(body)


def other_range(handler, body):
    handler.send(body, 206, range=f'bytes 0-{len(body) - 1}/{len(body)}')


def keep_part(tmp_path, body):
    """Leave `body` as the partial download of an earlier run."""
    work = tmp_path / '.download' / 'diagnostic'
    work.mkdir(parents=True)
    (work / 'AX.tsv.part').write_bytes(body)


@pytest.mark.parametrize(
    'part, fault, ranges',
    [
        (TEXT[:1000], None, ['bytes=1000-']),
        (TEXT, None, []),  # killed between the last byte and the unpacking
        (TEXT[:1000], ignore_range, ['bytes=1000-']),
        (TEXT[:1000], other_range, ['bytes=1000-', None]),
        (TEXT[:1000], status(416), ['bytes=1000-', None]),
        (b'wrong' * 200, None, ['bytes=1000-', None]),
        (b'w' * len(TEXT), None, [None]),
        (TEXT + b'too long', None, [None]),
        (b'', None, [None]),
    ],
)
def test_partial_file_is_used_or_replaced(site, tmp_path, part, fault, ranges):
    table = serve(site, 'AX', TEXT)
    keep_part(tmp_path, part)
    site.faults['/glue/data/AX.tsv'] = [fault] if fault else []
    assert run(site, tmp_path, table) == 0
    assert [header for _, header in site.log] == ranges
    found = tree(tmp_path)
    assert set(found) == {'diagnostic/diagnostic.tsv', 'diagnostic/.verified.json'}
    assert found['diagnostic/diagnostic.tsv'] == TEXT


ENOUGH = 50e6  # bytes; far more than the buffers of a connection hold


def endless(handler, body):
    """Send without end and without a declared length, until the client hangs up."""
    handler.send(body, length=False)
    while handler.server.sent < ENOUGH:
        handler.wfile.write(bytes(100000))
        handler.server.sent += 100000


@pytest.mark.parametrize(
    'fault, complaint',
    [
        (status(404), ' answered 404 Not Found'),
        (status(403), ' answered 403 Forbidden'),
        (
            lambda handler, body: handler.send(body, length=10**12),
            ' offers 1000000000000 bytes, not the expected 160000',
        ),
        (
            lambda handler, body: handler.send(body, length=159999),
            ' offers 159999 bytes, not the expected 160000',
        ),
        (
            lambda handler, body: handler.send(body + b'!'),
            ' offers 160001 bytes, not the expected 160000',
        ),
        (endless, ' sends more than the expected 160000 bytes'),
        (
            lambda handler, body: handler.send(b'!' + body[1:]),
            f' has sha256 {sha256(b"!" + TEXT[1:])}, not {sha256(TEXT)}',
        ),
    ],
    ids=['404', '403', 'declares more', 'declares less', 'one more', 'endless', 'other bytes'],
)
def test_wrong_answer_is_refused_at_once(site, tmp_path, capsys, fault, complaint):
    table = serve(site, 'AX', TEXT)
    site.faults['/glue/data/AX.tsv'] = [fault]
    assert run(site, tmp_path, table) == 1
    assert capsys.readouterr().err == f'AX: {site.url}/glue/data/AX.tsv{complaint}\n'
    assert len(site.log) == 1
    assert site.sent < ENOUGH
    assert not (tmp_path / 'diagnostic').exists()
    assert sum(map(len, tree(tmp_path).values())) <= len(TEXT)
    assert run(site, tmp_path, table) == 0  # and the next run is not affected
    assert (tmp_path / 'diagnostic' / 'diagnostic.tsv').read_bytes() == TEXT


def test_server_errors_are_tried_again(site, tmp_path):
    table = serve(site, 'AX', TEXT)
    site.faults['/glue/data/AX.tsv'] = [status(500), status(503), status(429)]
    assert run(site, tmp_path, table) == 0
    assert len(site.log) == 4


def redirect(location):
    def answer(handler, body):
        handler.send_response(302)
        handler.send_header('Location', location)
        handler.end_headers()

    return answer


@pytest.mark.parametrize(
    'location, reason',
    [
        ('http://[::1/', 'Invalid IPv6 URL'),
        (f'http://{"a" * 300}.org/', 'label'),
        ('/glue/data/AX.tsv', 'Exceeded 30 redirects.'),
        ('file:///etc/passwd', 'No connection adapters were found'),
    ],
)
@pytest.mark.parametrize('name, file', [('AX', 'AX.tsv'), ('ChnSentiCorp', 'task_data_zh.tgz')])
def test_redirects_that_lead_nowhere(site, tmp_path, capsys, name, file, location, reason):
    """Of a file, and of the question for a size."""
    path = '/glue/data/AX.tsv' if name == 'AX' else f'/{file}'
    location = location.replace('/glue/data/AX.tsv', path)
    table = serve(site, name, TEXT) if name == 'AX' else {name: glue.TASKS[name]}
    site.faults[path] = [redirect(location)] * 40
    assert run(site, tmp_path, table, '--tasks', name) == 1
    err = capsys.readouterr().err
    assert err.startswith(f'{name}: {site.url}{path} cannot be fetched: ')
    assert reason in err and err.count('\n') == 1


def test_mirror_whose_name_is_too_long(tmp_path, capsys):
    url = f'http://{"a" * 300}.org'
    assert glue.main(['--data_dir', str(tmp_path), '--tasks', 'AX', '--base_url', url]) == 1
    assert capsys.readouterr().err.startswith(f'AX: {url}/glue/data/AX.tsv cannot be fetched: ')


@pytest.mark.parametrize('status', [302, 503])
def test_bodies_of_redirects_and_errors_are_not_read(site, tmp_path, status):
    """They may be without end; requests and urllib3 would read them."""
    table = serve(site, 'AX', TEXT)
    site.files['/elsewhere'] = TEXT
    sent = []

    def answer(handler, body):
        handler.send_response(status)
        handler.send_header('Location', '/elsewhere')
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(200):
                handler.wfile.write(bytes(2**20))
                sent.append(2**20)

    site.faults['/glue/data/AX.tsv'] = [answer]
    assert run(site, tmp_path, table) == 0
    assert sum(sent) < ENOUGH


def test_nothing_is_decompressed_on_the_way(site, tmp_path, capsys):
    """The size counts the bytes that the server sends."""
    table = serve(site, 'AX', TEXT)
    packed = gzip.compress(TEXT)

    def answer(handler, body):
        handler.send_response(200)
        handler.send_header('Content-Encoding', 'gzip')
        handler.end_headers()
        handler.wfile.write(packed)

    site.faults['/glue/data/AX.tsv'] = [answer]
    assert run(site, tmp_path, table) == 0
    assert site.log[1] == ('/glue/data/AX.tsv', f'bytes={len(packed)}-')


def test_server_error_that_lasts(site, tmp_path, capsys):
    table = serve(site, 'AX', TEXT)
    site.faults['/glue/data/AX.tsv'] = [status(500)] * 9
    assert run(site, tmp_path, table) == 1
    message = f'AX: {site.url}/glue/data/AX.tsv answered 500 Internal Server Error\n'
    assert capsys.readouterr().err == message
    assert len(site.log) == 1 + glue.ATTEMPTS
    assert list(tmp_path.iterdir()) == []


def test_one_failing_task_does_not_stop_the_others(site, tmp_path, capsys):
    table = {
        **serve(site, 'CoLA', make_zip(splits('CoLA/'))),
        **serve(site, 'RTE', make_zip(splits('RTE/'))),
        **serve(site, 'WNLI', make_zip(splits('WNLI/'))),
    }
    del site.files['/glue/data/CoLA.zip'], site.files['/glue/data/WNLI.zip']
    assert run(site, tmp_path, table) == 1
    assert capsys.readouterr().err == (
        f'CoLA: {site.url}/glue/data/CoLA.zip answered 404 Not Found\n'
        f'WNLI: {site.url}/glue/data/WNLI.zip answered 404 Not Found\n'
    )
    assert [path.name for path in tmp_path.iterdir()] == ['RTE']


def test_no_server(site, tmp_path, capsys):
    table = serve(site, 'AX', TEXT)
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as closed:
        url = f'http://127.0.0.1:{closed.server_port}'
    assert run(site, tmp_path, table, '--base_url', url) == 1
    err = capsys.readouterr().err
    assert err.startswith(f'AX: {url}/glue/data/AX.tsv cannot be fetched: ')
    assert err.endswith(f'[Errno {errno.ECONNREFUSED}] Connection refused\n')
    assert err.count('\n') == 1


# Hostile archives


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def encrypted(archive):
    """Return the archive with the encryption bit of its first entry set."""
    body = bytearray(archive)
    body[body.index(b'PK\x03\x04') + 6] |= 1
    body[body.index(b'PK\x01\x02') + 8] |= 1
    return bytes(body)


def understated(archive):
    """Return the archive with the unpacked size of its first entry declared as 3 bytes."""
    body = bytearray(archive)
    at = body.index(b'PK\x01\x02') + 24
    body[at : at + 4] = (3).to_bytes(4, 'little')
    return bytes(body)


ENTRY = 'the archive entry {!r} '
OUTSIDE = ENTRY + 'points outside the task folder'


@pytest.mark.parametrize(
    'archive, complaint',
    [
        (make_zip(splits('CoLA/', ('../evil', 'x'))), OUTSIDE.format('../evil')),
        (make_zip(splits('CoLA/', ('CoLA/../../evil', 'x'))), OUTSIDE.format('CoLA/../../evil')),
        (make_zip(splits('CoLA/', ('/tmp/evil', 'x'))), OUTSIDE.format('/tmp/evil')),
        (make_zip(splits('CoLA/', ('..\\evil', 'x'))), OUTSIDE.format('..\\evil')),
        (make_zip(splits('CoLA/', ('C:/evil', 'x'))), OUTSIDE.format('C:/evil')),
        (make_zip(splits('CoLA/', ('CoLA/a:b', 'x'))), OUTSIDE.format('CoLA/a:b')),
        (make_zip(splits('CoLA/', ('\\\\host\\share', 'x'))), OUTSIDE.format('\\\\host\\share')),
        (
            make_zip(splits('CoLA/', (special('CoLA/link', stat.S_IFLNK | 0o777), '/etc'))),
            ENTRY.format('CoLA/link') + 'is a link or a device',
        ),
        (
            make_zip(splits('CoLA/', (special('CoLA/pipe', stat.S_IFIFO | 0o666), ''))),
            ENTRY.format('CoLA/pipe') + 'is a link or a device',
        ),
        (
            encrypted(make_zip(splits('CoLA/'))),
            ENTRY.format('CoLA/train.tsv') + 'is encrypted or compressed in an unusual way',
        ),
        (
            make_zip(splits('CoLA/', ('CoLA/' + 'a/' * 1500 + 'x', 'x'))),
            ENTRY.format('CoLA/' + 'a/' * 1500 + 'x') + 'lies more than 20 folders deep',
        ),
        # a folder with the name of a file
        (
            make_zip([*splits('CoLA/')[:2], ('CoLA/test.tsv/', '')]),
            'no folder of the archive holds train.tsv, dev.tsv, test.tsv',
        ),
        (make_zip(splits('CoLA/', ('.', 'x'))), ENTRY.format('.') + 'has no name'),
        (make_zip(splits('CoLA/')[:2]), 'no folder of the archive holds train.tsv, dev.tsv, te'),
        (understated(make_zip(splits('CoLA/'))), 'CoLA.zip is not a valid zip archive: Bad CRC-32'),
        (b'<html>not found</html>', 'CoLA.zip is not a valid zip archive: File is not a zip file'),
    ],
)
def test_hostile_archive_is_refused_and_leaves_nothing(site, tmp_path, capsys, archive, complaint):
    table = serve(site, 'CoLA', archive)
    assert run(site, tmp_path / 'a' / 'b', table) == 1
    err = capsys.readouterr().err
    assert err.startswith(f'CoLA: {complaint}')
    assert err.count('\n') == 1
    assert tree(tmp_path) == {}
    assert list((tmp_path / 'a' / 'b').iterdir()) == []


def test_bomb_is_refused_before_it_is_unpacked(site, tmp_path, capsys, monkeypatch):
    bomb = make_zip(splits('CoLA/', ('CoLA/zeros', bytes(5000000))))
    table = serve(site, 'CoLA', bomb)
    monkeypatch.setattr(shutil, 'copyfileobj', None)  # unpacking anything would fail
    assert run(site, tmp_path, table) == 1
    assert capsys.readouterr().err == (
        "CoLA: the archive entry 'CoLA/zeros' brings the unpacked size to "
        f'{5000000 + sum(len(body) for _, body in splits(""))} bytes, '
        f'over the limit of {20 * len(bomb)}\n'
    )
    assert list(tmp_path.iterdir()) == []


# The machine


def start(argv, **options):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


class stalled:
    """The real script in a new process, stalled after 128 KiB by a server that sends no more."""

    def __init__(self, site, data_dir):
        self.site, self.data_dir, self.go_on = site, data_dir, threading.Event()

    def stall(self, handler, body):
        handler.send(body[:131072], length=len(body))
        self.go_on.wait(20)

    def __enter__(self):
        self.site.faults['/glue/data/AX.tsv'] = [self.stall]
        argv = ['--data_dir', self.data_dir, '--base_url', self.site.url, '--tasks', 'AX']
        self.process = start(argv)
        part = self.data_dir / '.download' / 'diagnostic' / 'AX.tsv.part'
        for _ in range(400):
            if part.exists() and part.stat().st_size == 131072:
                return self.process
            time.sleep(0.025)
        self.process.kill()
        pytest.fail(f'no partial file: {self.process.communicate()}')

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        self.go_on.set()


def test_killed_run_leaves_a_part_that_the_next_run_uses(site, tmp_path):
    """The real script is killed in the middle; the next run finds a server that works again."""
    body = TEXT + TEXT[: 222257 - len(TEXT)]  # of the size that the real table gives
    table = serve(site, 'AX', body)
    with stalled(site, tmp_path) as process:
        process.kill()
        process.communicate()
    part = tmp_path / '.download' / 'diagnostic' / 'AX.tsv.part'
    assert list(tree(tmp_path)) == ['.download/diagnostic/AX.tsv.part']
    kept = part.stat().st_size
    assert kept == 131072  # both whole chunks that were sent
    # As if it had also been killed while unpacking.
    (part.parent / 'files').mkdir()
    (part.parent / 'files' / 'half').write_text('x')
    assert run(site, tmp_path, table) == 0
    assert site.log == [('/glue/data/AX.tsv', None), ('/glue/data/AX.tsv', f'bytes={kept}-')]
    found = tree(tmp_path)
    assert set(found) == {'diagnostic/diagnostic.tsv', 'diagnostic/.verified.json'}
    assert found['diagnostic/diagnostic.tsv'] == body


@pytest.mark.parametrize(
    ('number', 'cause'), [(signal.SIGINT, 'interrupted'), (signal.SIGTERM, 'stopped by SIGTERM')]
)
def test_interrupted_run_ends_in_one_line(site, tmp_path, number, cause):
    site.files['/glue/data/AX.tsv'] = bytes(222257)
    with stalled(site, tmp_path) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (128 + number, f'{cause}; run again to continue\n')
    assert list(tree(tmp_path)) == ['.download/diagnostic/AX.tsv.part']


def test_killed_between_rename_and_clean_up(site, tmp_path):
    table = serve(site, 'AX', TEXT)
    assert run(site, tmp_path, table) == 0
    keep_part(tmp_path, TEXT)
    assert run(site, tmp_path, table) == 0
    assert [path.name for path in tmp_path.iterdir()] == ['diagnostic']
    assert len(site.log) == 1


def test_file_that_the_machine_refuses_to_write(site, tmp_path):
    """A limit on file sizes replaces a full disk: a real OSError from a real write."""
    resource = pytest.importorskip('resource')
    site.files['/glue/data/AX.tsv'] = bytes(222257)
    process = start(
        ['--data_dir', tmp_path, '--base_url', site.url, '--tasks', 'AX'],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000)),
    )
    out, err = process.communicate(timeout=20)
    sentence = f'AX: {tmp_path}/diagnostic: could not be written (File too large)\n'
    assert (process.returncode, err) == (1, sentence)
    assert not (tmp_path / 'diagnostic').exists()


def test_disk_full_while_unpacking_keeps_the_download(site, tmp_path, capsys, monkeypatch):
    table = serve(site, 'CoLA', make_zip(splits('CoLA/')))

    def full(source, out, size):
        out.write(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'copyfileobj', full)
        assert run(site, tmp_path, table) == 1
    sentence = f'CoLA: {tmp_path}/CoLA: could not be written (No space left on device)\n'
    assert capsys.readouterr().err == sentence
    assert list(tree(tmp_path)) == ['.download/CoLA/CoLA.zip.part']
    assert run(site, tmp_path, table) == 0
    assert len(site.log) == 1  # the download was there already


def test_folder_appears_by_one_rename(site, tmp_path, capsys, monkeypatch):
    table = serve(site, 'CoLA', make_zip(splits('CoLA/')))

    def refuse(source, target):
        assert target == tmp_path / 'CoLA' and not target.exists()
        assert set(tree(source)) == {'train.tsv', 'dev.tsv', 'test.tsv', '.verified.json'}
        raise OSError(errno.EIO, 'Input/output error')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'rename', refuse)
        assert run(site, tmp_path, table) == 1
    sentence = f'CoLA: {tmp_path}/CoLA: could not be written (Input/output error)\n'
    assert capsys.readouterr().err == sentence
    assert not (tmp_path / 'CoLA').exists()
    assert run(site, tmp_path, table) == 0
    assert len(site.log) == 1


def test_unwritable_data_dir_is_reported_once(site, tmp_path, capsys):
    table = {**serve(site, 'AX', TEXT), **serve(site, 'CoLA', make_zip(splits('')))}
    (tmp_path / 'file').write_text('no folder')
    assert run(site, tmp_path / 'file' / 'glue_data', table) == 1
    place = tmp_path / 'file' / 'glue_data' / '.download'
    message = f"[Errno {errno.ENOTDIR}] Not a directory: '{place}'\n"
    assert capsys.readouterr().err == message
    assert site.log == []


@pytest.mark.skipif(
    not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='permissions do not bind this user'
)
def test_read_only_data_dir(site, tmp_path, capsys):
    tmp_path.chmod(0o555)
    try:
        assert run(site, tmp_path, serve(site, 'AX', TEXT)) == 1
    finally:
        tmp_path.chmod(0o755)
    message = f"[Errno {errno.EACCES}] Permission denied: '{tmp_path / '.download'}'\n"
    assert capsys.readouterr().err == message


def test_missing_package_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'requests', None)
    assert glue.main(['--data_dir', str(tmp_path), '--tasks', 'AX']) == 1
    message = 'requests is not installed: pip install requests tqdm\n'
    assert capsys.readouterr().err == message


# The command line


def test_bar_on_a_terminal(site, tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, 'stderr', terminal)
    assert run(site, tmp_path, serve(site, 'AX', TEXT)) == 0
    assert 'AX.tsv: 100%' in terminal.getvalue()
    assert '160k/160k' in terminal.getvalue()


def test_mirror_by_environment_and_flag(site, tmp_path, monkeypatch):
    table = serve(site, 'AX', TEXT)
    site.files['/mirror/glue/data/AX.tsv'] = TEXT
    monkeypatch.setenv('GLUE_BASE_URL', f'{site.url}/mirror/')
    assert glue.main(['--data_dir', str(tmp_path / 'a')], table) == 0
    assert site.log == [('/mirror/glue/data/AX.tsv', None)]
    assert run(site, tmp_path / 'b', table) == 0  # the flag wins
    assert site.log[1:] == [('/glue/data/AX.tsv', None)]


@pytest.mark.parametrize(
    'argv, names',
    [
        ([], ALL),
        (['--tasks', 'all'], ALL),
        (['--tasks', 'MRPC'], 'MRPC'),
        (['--tasks', 'cola,sst', 'MrPc'], 'CoLA, SST-2, MRPC'),
        (['-t', 'SST-2,SST,STS', 'sts-b', 'diagnostic'], 'SST-2, STS-B, AX'),
        (['--tasks', 'snli,xnli', 'XNLI-1.0'], 'SNLI, XNLI, XNLI-1.0'),
        (['--path_to_mrpc', '', '--tasks', 'MRPC'], 'MRPC'),
        (['--tasks', 'RTE, all'], 'RTE, CoLA, SST-2, QQP, STS-B, MNLI, QNLI, WNLI, MRPC, AX'),
    ],
)
def test_task_names(argv, names):
    args = glue.parse_args(argv)
    assert ', '.join(args.tasks) == names
    assert args.data_dir == Path('glue_data')


@pytest.mark.parametrize(
    'argv, complaint',
    [
        (['--tasks', 'SQuAD'], f'unknown task SQuAD: choose from all, {ALL}, {MORE}'),
        (['--tasks', 'MRPC,foo', 'bar'], f'unknown task foo, bar: choose from all, {ALL}, {MORE}'),
        (['--tasks', ','], f'no task given: choose from all, {ALL}, {MORE}'),
        (['--path_to_mrpc', 'no'], '--path_to_mrpc no has no msr_paraphrase_train.txt'),
        (['--base_url', 'ftp://x'], 'the mirror ftp://x must be an http(s) address'),
    ],
)
def test_wrong_usage(tmp_path, monkeypatch, capsys, argv, complaint):
    monkeypatch.setattr(sys, 'argv', ['download_glue_data.py'])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        glue.main(argv)
    assert end.value.code == 2
    assert capsys.readouterr().err == f'download_glue_data.py: {complaint}\n'
    assert list(tmp_path.iterdir()) == []


def test_help_is_complete_and_loads_nothing_heavy():
    code = (
        'import sys, download_glue_data as glue\n'
        'try:\n'
        '    glue.main(["--help"])\n'
        'finally:\n'
        '    heavy = {"requests", "tqdm", "urllib3", "mxnet", "bert"}\n'
        '    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=str(ROOT),
        env={**os.environ, 'COLUMNS': '200', 'GLUE_BASE_URL': ''},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, '[]\n')
    assert '(default: glue_data)' in done.stdout
    assert '(default: all)' in done.stdout
    assert 'GLUE_BASE_URL' in done.stdout
    assert '(default: https://dl.fbaipublicfiles.com)' in done.stdout
    for name in (*ALL.split(', '), *MORE.split(', '), 'SST', 'STS', 'diagnostic'):
        assert name in done.stdout


def test_docstring_examples():
    assert doctest.testmod(glue) == (0, 2)


def test_script_is_executable():
    assert SCRIPT.read_bytes().startswith(b'#!/usr/bin/env python3\n')
    assert os.access(str(SCRIPT), os.X_OK)


def test_what_a_server_says_does_not_steer_the_terminal(site, tmp_path, capsys):
    def answer(handler, body):
        handler.wfile.write(b'HTTP/1.0 404 Gone\x1b[2J\x1b]0;owned\x07\x9b\r\n\r\n')

    (task,) = [task for name, task in glue.TASKS.items() if name == 'RTE']
    site.faults[task.remotes[0].path] = [answer]
    flags = ['--data_dir', str(tmp_path), '--tasks', 'RTE', '--base_url', site.url]
    assert glue.main(flags) == 1
    errors = capsys.readouterr().err
    assert errors.endswith(' answered 404 Gone\\x1b[2J\\x1b]0;owned\\x07\\x9b\n')


def test_other_bytes_and_encodings(tmp_path):
    def run(*flags):
        return subprocess.run(
            [sys.executable, str(SCRIPT), '--tasks', 'RTE', *flags],
            env={**os.environ, 'PYTHONIOENCODING': 'ascii'},
            capture_output=True,
        )

    refused = run('--data_dir', os.fsencode(tmp_path) + b'/\xff')
    assert refused.returncode == 2
    assert refused.stderr.endswith(b"/\\udcff' is not valid UTF-8\n")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'größe').write_text('')  # a file, not a folder
    failed = run('--data_dir', str(tmp_path / 'größe'))
    assert failed.returncode == 1
    assert b'Traceback' not in failed.stderr and b'gr\\xf6\\xdfe' in failed.stderr
