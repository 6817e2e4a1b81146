#!/usr/bin/env python3
"""Fetch the GLUE data sets, verify them and lay them out in one folder.

    python3 download_glue_data.py --data_dir glue_data --tasks all
    python3 download_glue_data.py --data_dir glue_data --tasks MRPC

Each task becomes one folder under the data folder: CoLA/ SST-2/ QQP/ STS-B/ MNLI/ QNLI/ RTE/ WNLI/
MRPC/ with train.tsv, dev.tsv and test.tsv (MNLI has a matched and a mismatched dev and test set),
and diagnostic/ with diagnostic.tsv. Tasks that do not belong to GLUE have to be named: SNLI/, XNLI/
and ChnSentiCorp/ have the same three files, XNLI-1.0/ and XNLI-MT-1.0/ those of XNLI's archives.

A task appears under its name only when it is complete and verified; until then everything happens
in `.download/` beside it. A run that was stopped leaves its partial downloads there, and the next
run resumes them. Every task folder contains a record of its files, so that existing folders are
checked instead of fetched again, and a changed file is noticed; such a folder is never overwritten.
A folder without a record, which another script made, is taken as it is if its files have the sums
or the rows of a published version.

Exit status: 0 success, 1 a task failed, 2 wrong usage, 130 interrupted, 143 ended by SIGTERM.
Needs the packages requests and tqdm.
"""

from __future__ import annotations

import signal

if __name__ == '__main__':
    # Until the program catches an interrupt, that ends it without a traceback of the imports.
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as in a background job
    signal.signal(signal.SIGINT, signal.SIG_IGN if is_ignored else signal.SIG_DFL)

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import shutil
import stat
import struct
import sys
import tarfile
import time
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Callable, NamedTuple

BASE_URL = 'https://dl.fbaipublicfiles.com'
WORK = '.download'  # the folder under data_dir for unfinished tasks
RECORD = '.verified.json'  # in each task folder: its downloads and its files
CHUNK = 1 << 16  # bytes
TIMEOUT = 30  # seconds to connect, and between two pieces of a body
ATTEMPTS = 5
BACKOFF = 0.5  # seconds before the second retry; doubled for each later one
BUSY = (429, 500, 502, 503, 504)  # the statuses that a retry may not meet
PLAIN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MAX_DEPTH = 20  # folders in an archive
MAX_RATIO = 20  # unpacked bytes per byte of archive; text like GLUE's deflates 3 to 4 times
MAX_UNKNOWN = 500_000_000  # bytes of a download whose size is not known beforehand


class Failure(Exception):
    """An error that makes a task fail; the message is one sentence for the user."""


class Remote(NamedTuple):
    """A file to fetch: its path below the base address, its size in bytes, its sha256.

    Size and sha256 are None for a file for which nobody published them.
    """

    path: str
    size: int | None
    sha256: str | None


class Version(NamedTuple):
    """A published version of a task's files, in the order of `Task.files`.

    `sums` are sha1 or sha256, those of the same files as GluonNLP 0.10 has them. A question of QQP
    with a line break in it takes two short rows: `skips_short` says that such rows do not count.
    """

    rows: tuple[int, ...]  # without the header
    sums: tuple[str, ...] = ()
    name: str = 'the published version'
    skips_short: bool = False


class Task(NamedTuple):
    """The folder of a task, its downloads, the function that builds it, and its files.

    `build(parts, folder, names)` makes `files` in the empty `folder` from `parts`, the verified
    downloads: {'CoLA.zip': path}. `files` gives the sha1 of each file for which one is known, and
    `versions` what is known about files that this script did not make.
    """

    folder: str
    remotes: tuple[Remote, ...]
    build: Callable
    files: dict[str, str | None]
    versions: tuple[Version, ...]
    headless: tuple[str, ...] = ()  # the files without a header
    host: str = BASE_URL


def report(message, file=None):
    """Print a line without buffering it, even to a file or a pipe.

    What a server says, or the name of a folder, neither steers the terminal nor ends the program
    if the output has another encoding.
    """
    file = file or sys.stdout
    encoding = getattr(file, 'encoding', None) or 'utf8'
    message = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in str(message))
    print(message.encode(encoding, 'backslashreplace').decode(encoding), file=file, flush=True)


def fingerprint(path):
    """Return the size in bytes and the sha256 of a file, or None if there is no file."""
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with open(path, 'rb') as data:
        for chunk in iter(lambda: data.read(CHUNK), b''):
            digest.update(chunk)
    return {'size': path.stat().st_size, 'sha256': digest.hexdigest()}


# Downloading


def make_session(quiet=False):
    """Return a session that retries after no answer, and never reads more than it is asked to.

    It remembers whether to be `quiet` about what it fetches.
    """
    import requests  # here and not above, so that --help is quick
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    session = requests.Session()
    session.quiet = quiet
    # Sizes and ranges below count the bytes of the file itself, so it must come as it is.
    session.headers['Accept-Encoding'] = 'identity'
    session.hooks['response'].append(drop_redirect)
    retry = Retry(
        total=ATTEMPTS,
        connect=2,  # a machine that is offline should say so soon
        backoff_factor=BACKOFF,
        respect_retry_after_header=False,  # it may ask for hours
    )
    for scheme in ('http://', 'https://'):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def drop_redirect(response, **_):
    """Close a redirect: requests would read all of its body, even one without end."""
    if response.is_redirect:
        response.close()


def download(session, url, remote, part):
    """Bring `part` to the size and sha256 of `remote`, resuming after the bytes it already has.

    If they are not known, the size is the one that the server declares. Raise Failure if the
    server has something else or breaks off ATTEMPTS times.
    """
    if remote.size is None:
        remote = remote._replace(size=ask_size(session, url))
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        start = part.stat().st_size if part.exists() else 0
        if start < remote.size:
            fetch(session, url, remote.size, part, start)
        if not part.exists() or part.stat().st_size < remote.size:
            continue
        found = fingerprint(part)
        if found == {'size': remote.size, 'sha256': remote.sha256 or found['sha256']}:
            return
        part.unlink()
        if not start:
            raise Failure(f'{url} has sha256 {found["sha256"]}, not {remote.sha256}')
        # The wrong bytes may be from an earlier run or another mirror: start over.
    raise Failure(f'{url} broke off {ATTEMPTS} times; run again to continue where it stopped')


def fetch(session, url, size, part, start):
    """Request the bytes of `url` from `start` on, once, and write what arrives to `part`.

    A connection that breaks off is not an error here: `part` is then shorter than `size`. Raise
    Failure for an answer that a retry cannot fix, or one that is longer than `size`.
    """
    if not session.quiet:
        rest = f'from byte {start} of {size}' if start else f'({size} bytes)'
        report(f'fetching {url} {rest}')
    headers = {'Range': f'bytes={start}-'} if start else {}
    with request(session, 'GET', url, headers) as response:
        resumed = response.headers.get('Content-Range') == f'bytes {start}-{size - 1}/{size}'
        if response.status_code == 416 or (response.status_code == 206 and not resumed):
            part.unlink(missing_ok=True)  # it does not match the file of the server: start over
            return
        if response.status_code == 200:
            start = 0  # the server does not support ranges
        elif response.status_code != 206:
            raise Failure(f'{url} answered {response.status_code} {response.reason}')
        length = response.headers.get('Content-Length', str(size - start))
        if length != str(size - start):
            raise Failure(f'{url} offers {length} bytes, not the expected {size - start}')
        with open(part, 'ab' if start else 'wb') as out:
            write_body(response, out, size, session.quiet)


def ask_size(session, url):
    """Return the size in bytes that a server declares for a file; raise Failure if it is unfit."""
    with request(session, 'HEAD', url, {}) as response:
        if response.status_code != 200:
            raise Failure(f'{url} answered {response.status_code} {response.reason}')
        length = response.headers.get('Content-Length', '')
    if not length.isdecimal() or not 0 < int(length) <= MAX_UNKNOWN:
        raise Failure(f'{url} declares {length or "no"} bytes, not 1 to {MAX_UNKNOWN}')
    return int(length)


def request(session, method, url, headers):
    """Send one request and return the response, with the body not yet read.

    A busy server is asked again: urllib3, which could do that, would read all of each answer.
    """
    import requests
    from urllib3.exceptions import HTTPError

    send = partial(session.request, method, url, headers=headers, stream=True, timeout=TIMEOUT)
    try:
        response = send()
        for attempt in range(ATTEMPTS):
            if response.status_code not in BUSY:
                break
            response.close()
            time.sleep(BACKOFF * 2**attempt)
            response = send()
        return response
    # A redirect to a malformed address can raise errors that requests does not expect.
    except (requests.RequestException, HTTPError, ValueError) as error:
        # Report the cause without the layers that wrap it.
        cause = getattr(error.args[0], 'reason', error) if error.args else error
        raise Failure(f'{url} cannot be fetched: {cause}') from error


def write_body(response, out, size, quiet=False):
    """Append the body to the open file `out`, up to `size` bytes in all, under a progress bar."""
    from tqdm import tqdm
    from urllib3.exceptions import HTTPError

    bar = tqdm(
        desc=Path(out.name).stem,
        total=size,
        initial=out.tell(),
        unit='B',
        unit_scale=True,
        disable=quiet or None,  # None: if stderr is not a terminal
    )
    with bar:
        try:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                if out.tell() + len(chunk) > size:
                    raise Failure(f'{response.url} sends more than the expected {size} bytes')
                out.write(chunk)
                bar.update(len(chunk))
        except HTTPError:
            report(f'{response.url} broke off after {out.tell()} of {size} bytes')


# Making a task folder from its downloads


@contextlib.contextmanager
def open_zip(parts):
    """Open the only archive in `parts`, and give it with {relative path: info} of its files.

    Raise Failure for an archive that is damaged or has an entry that points outside, is not a
    plain file, or is far too large.
    """
    ((archive_name, path),) = parts.items()
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive, check_entries(archive.infolist(), MAX_RATIO * path.stat().st_size)
    # A damaged directory can also give zipfile wrong numbers, versions and names.
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        ArithmeticError,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise Failure(f'{archive_name} is not a valid zip archive: {error}') from error


def unpack(parts, folder, names):
    """Unpack the folder of a zip archive that contains `names`, whatever its name.

    Anything beside that folder (such as __MACOSX/) is left out.
    """
    with open_zip(parts) as (archive, entries):
        top = find_top(entries, names)
        for entry, info in entries.items():
            if entry.parts[: len(top.parts)] == top.parts:
                target = folder / entry.relative_to(top)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, open(target, 'xb') as out:
                    shutil.copyfileobj(source, out, CHUNK)


def check_entries(infos, limit):
    """Return {relative path: info} of the files in an archive; raise Failure for a bad entry.

    All files together may have `limit` bytes. The sizes are those that the archive declares;
    zipfile never writes more.
    """
    entries, total = {}, 0
    for info in infos:
        # Windows is strictest about names: both slashes, drive letters, network shares.
        path = PureWindowsPath(info.filename)
        total += info.file_size
        is_folder = info.filename.endswith('/')
        if path.anchor or '..' in path.parts or ':' in info.filename:
            fault = 'points outside the task folder'
        elif len(path.parts) > MAX_DEPTH:
            fault = f'lies more than {MAX_DEPTH} folders deep'
        elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            fault = 'is a link or a device'
        elif info.flag_bits & 1 or info.compress_type not in PLAIN_METHODS:
            fault = 'is encrypted or compressed in an unusual way'
        elif total > limit:
            fault = f'brings the unpacked size to {total} bytes, over the limit of {limit}'
        elif is_folder:
            continue
        elif not path.parts:
            fault = 'has no name'
        else:
            entries[PurePosixPath(*path.parts)] = info
            continue
        raise Failure(f'the archive entry {info.filename!r} {fault}')
    return entries


def find_top(paths, names):
    """Return the topmost folder among `paths` that contains all of `names`.

    >>> find_top([PurePosixPath('QQP/train.tsv'), PurePosixPath('x/y')], ['train.tsv'])
    PurePosixPath('QQP')
    """
    paths = set(paths)
    folders = {folder for path in paths for folder in path.parents}
    tops = [top for top in folders if paths >= {top / name for name in names}]
    if not tops:
        raise Failure(f'no folder of the archive holds {", ".join(names)}')
    return min(tops, key=lambda top: (len(top.parts), top))


def unpack_baidu(parts, folder, names, place, rows):
    """Unpack `names`, with `rows`, from the folder `place` of Baidu's archive, a tar.gz file.

    Nothing else is written, whatever else the archive contains. Raise Failure if it is damaged,
    lacks a file, would unpack to far more than its size, or has another number of rows, which is
    all that is known about the files.
    """
    ((archive_name, path),) = parts.items()
    left = MAX_RATIO * path.stat().st_size
    wanted = set(names)
    try:
        with tarfile.open(path, 'r:gz') as archive:
            for member in archive:
                entry = PurePosixPath(member.name)
                left -= member.size
                if left < 0:
                    raise Failure(f'{archive_name} unpacks to over {MAX_RATIO} times its size')
                if entry.parts[-2:-1] == (place,) and entry.name in wanted and member.isfile():
                    wanted.remove(entry.name)
                    with open(folder / entry.name, 'xb') as out:
                        shutil.copyfileobj(archive.extractfile(member), out, CHUNK)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise Failure(f'{archive_name} is not a valid tar.gz archive: {error}') from error
    if wanted:
        raise Failure(f'{archive_name} holds no {place}/{min(wanted)}')
    check_rows(folder, names, rows)


# The columns of GLUE's SNLI, after the index; the gold label comes last, after all others.
SNLI_COLUMNS = (
    'captionID pairID sentence1_binary_parse sentence2_binary_parse sentence1_parse '
    'sentence2_parse sentence1 sentence2 label1 label2 label3 label4 label5 gold_label'
).split()


def convert_snli(parts, folder, names):
    """Bring Stanford's archive of SNLI into the layout that SNLI had beside the GLUE tasks.

    Pairs without a gold label, on which the annotators did not agree, are left out.
    """
    sources = [f'snli_1.0_{Path(name).stem}.txt' for name in names]
    with open_zip(parts) as (archive, entries):
        top = find_top(entries, sources)
        for source, name in zip(sources, names):
            with archive.open(entries[top / source]) as lines, open(folder / name, 'xb') as out:
                header = next(lines, b'').rstrip(b'\r\n').decode().split('\t')
                order = [header.index(column) for column in SNLI_COLUMNS]
                out.write('\t'.join(['index', *SNLI_COLUMNS]).encode() + b'\n')
                index = 0
                for line in lines:
                    cells = line.rstrip(b'\r\n').split(b'\t')
                    cells = [b'%d' % index, *(cells[column] for column in order)]
                    if cells[-1] != b'-':
                        out.write(b'\t'.join(cells) + b'\n')
                        index += 1


def ask_owners(parts, folder, names):
    """Raise Failure: LCQMC has no address."""
    raise Failure(
        'it has no public address, and its owners give it on request, see '
        f'http://icrc.hitsz.edu.cn/info/1037/1146.htm: put {", ".join(names)} into a folder LCQMC, '
        'each with a header and the columns text_a, text_b and label, and run again'
    )


def split_given_mrpc(parts, folder, names, given, rows):
    """Split the raw MRPC files of the folder `given`, which the user extracted, into `rows`."""
    files = {name: given / name for name in RAW_MRPC}
    split_mrpc({**parts, **files}, folder, names)
    check_rows(folder, names, rows)


def split_mrpc(parts, folder, names):
    """Split the raw MRPC files; keep them and the list of dev ids beside the result.

    A raw row is `label, id 1, id 2, sentence 1, sentence 2`, tab-separated; the header starts with
    a byte-order mark. Rows whose two ids are listed go to dev.tsv, the others to train.tsv, byte
    for byte, below the raw header. test.tsv has the row number, from 0, in place of the label: the
    first row `1 10 11 a b` becomes `0 10 11 a b`, below `index #1 ID ...` without the mark.
    """
    for name, part in parts.items():
        shutil.copyfile(part, folder / name.replace('mrpc_', ''))
    dev_ids = set((folder / 'dev_ids.tsv').read_bytes().splitlines())
    header, *rows = (folder / 'msr_paraphrase_train.txt').read_bytes().splitlines(keepends=True)
    subsets = {'train.tsv': [header], 'dev.tsv': [header]}
    for row in rows:
        listed = b'\t'.join(row.split(b'\t')[1:3]) in dev_ids
        subsets['dev.tsv' if listed else 'train.tsv'].append(row)
    header, *rows = (folder / 'msr_paraphrase_test.txt').read_bytes().splitlines(keepends=True)
    subsets['test.tsv'] = [b'index\t' + header.partition(b'\t')[2]]
    for index, row in enumerate(rows):
        subsets['test.tsv'].append(b'%d\t' % index + row.partition(b'\t')[2])
    for name, lines in subsets.items():
        (folder / name).write_bytes(b''.join(lines))


def copy(parts, folder, names):
    """Copy the downloads under their new names, in the same order."""
    for part, name in zip(parts.values(), names):
        shutil.copyfile(part, folder / name)


SPLITS = dict.fromkeys(('train.tsv', 'dev.tsv', 'test.tsv'))
MNLI_SPLITS = dict.fromkeys(
    f'{split}.tsv'
    for split in ('train', 'dev_matched', 'dev_mismatched', 'test_matched', 'test_mismatched')
)
RAW_MRPC = ('msr_paraphrase_train.txt', 'msr_paraphrase_test.txt')
LANGUAGES = 'ar bg de el en es fr hi ru sw th tr ur vi zh'.split()  # of XNLI


def zipped(folder, path, size, sha256, *versions, files=SPLITS, **keywords):
    """Return a task that is a single zip archive."""
    return Task(folder, (Remote(path, size, sha256),), unpack, files, versions, **keywords)


def from_baidu(folder, place, *rows):
    """Return a task from the archive of Baidu's ERNIE, for which no size or sum is published."""
    return Task(
        folder,
        (Remote('/task_data_zh.tgz', None, None),),
        partial(unpack_baidu, place=place, rows=rows),
        SPLITS,
        (Version(rows),),
        host='https://ernie.bj.bcebos.com',
    )


# fmt: off
TASKS = {
    'CoLA': zipped(
        'CoLA', '/glue/data/CoLA.zip', 376971,
        'f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff',
        Version((8551, 1043, 1063), (
            '7760a9c4b1fb05f6d003475cc7bb0d0118875190',
            '30ece4de38e1929545c4154d4c71ad297c7f54b4',
            'f38b43d31bb06accf82a3d5b2fe434a752a74c9f')),
        headless=('train.tsv', 'dev.tsv')),
    'SST-2': zipped(
        'SST-2', '/glue/data/SST-2.zip', 7439277,
        'd67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa',
        Version((67349, 872, 1821), (
            'ffbb67a55e27525e925b79fee110ca19585d70ca',
            'e166f986cec68fd4cca0ae5ce5869b917f88a2fa',
            '3ce8041182bf82dbbbbfe13738b39d3c69722744'))),
    'QQP': zipped(
        'QQP', '/glue/data/QQP-clean.zip', 41696084,
        '40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0',
        Version((363846, 40430, 390965)),
        Version((363849, 40430, 390965), (
            '95c01e711ac8dbbda8f67f3a4291e583a72b6988',
            '755e0bf2899b8ad315d4bd7d4c85ec51beee5ad0',
            '0f50d1a62dd51fe932ba91be08238e47c3e2504a'),
            'the version of 2018 (QQP.zip)', skips_short=True)),
    'STS-B': zipped(
        'STS-B', '/glue/data/STS-B.zip', 802872,
        'e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85',
        Version((5749, 1500, 1379), (
            '501e55248c6db2a3f416c75932a63693000a82bc',
            'f8bcc33b01dfa2e9ba85601d0140020735b8eff3',
            '36553e5e2107b817257232350e95ff0f3271d844'))),
    'MNLI': zipped(
        'MNLI', '/glue/data/MNLI.zip', 312783507,
        'e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633',
        Version((392702, 9815, 9832, 9796, 9847), (
            '1e74055bc91e260323574bfe63186acb9420fa13',
            '7a38c5fb5ecc875f259e1d57662d58a984753b70',
            '47470d91b594e767d80e5de2ef0be6a453c17be5',
            '00106769e11a43eac119975ad25c2de2c8d2dbe7',
            '5a31abf92f045f127dbb2e3d2e0ef8ddea04c237')),
        files=MNLI_SPLITS),
    'QNLI': zipped(
        'QNLI', '/glue/data/QNLIv2.zip', 10627589,
        'e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5',
        Version((104743, 5463, 5463)),
        Version((108436, 5732, 5740), (
            'd90a84eb40c6ba32bc2b34284ceaa962c46f8753',
            'd14a61290301c2a9d26459c4cd036742e8591428',
            'f3da1a2e471ebfee81d91574b42e0f5d39153c59'),
            'the version of 2018 (QNLI.zip)')),
    'RTE': zipped(
        'RTE', '/glue/data/RTE.zip', 697150,
        '6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee',
        Version((2490, 277, 3000), (
            'ec2b246745bb5c9d92aee0800684c08902742730',
            'ade75e0673862dcac9c653efb9f59f51be2749aa',
            'ddda5c967fb5a4934b429bb52aaa144e70900000'))),
    'WNLI': zipped(
        'WNLI', '/glue/data/WNLI.zip', 28999,
        'ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46',
        Version((635, 71, 146), (
            'b497281c1d848b619ea8fe427b3a6e4dc8e7fa92',
            '6bbdb866d0cccaac57c3a2505cf53103789b69a9',
            '6ba8fcf3e5b451c101a3902fb4ba3fc1dea42e50'))),
    'MRPC': Task('MRPC', (
        Remote('/glue/data/mrpc_dev_ids.tsv', 6222,
               '971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7'),
        Remote('/senteval/senteval_data/msr_paraphrase_train.txt', 1047044,
               '60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89'),
        Remote('/senteval/senteval_data/msr_paraphrase_test.txt', 441275,
               'a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784'),
    ), split_mrpc, {
        'train.tsv': '131675ffd3d2f04f286049d31cca506c8acba69e',
        'dev.tsv': 'e4486577c4cb2e5c2a3fd961eb24f03c623ea02d',
        'test.tsv': '3602b2ca26cf574e84183c14d6c0901669ee2d0a',
    }, (Version((3668, 408, 1725), (
        '131675ffd3d2f04f286049d31cca506c8acba69e',
        'e4486577c4cb2e5c2a3fd961eb24f03c623ea02d',
        '3602b2ca26cf574e84183c14d6c0901669ee2d0a')),)),
    'AX': Task('diagnostic', (
        Remote('/glue/data/AX.tsv', 222257,
               '0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd'),
    ), copy, {'diagnostic.tsv': None}, (Version((1104,), (
        '0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd',)),)),
    # Not tasks of GLUE.
    'SNLI': Task('SNLI', (
        Remote('/projects/snli/snli_1.0.zip', 94550081,
               'afb3d70a5af5d8de0d9d81e2637e0fb8c22d1235c2749d83125ca43dab0dbd3e'),
    ), convert_snli, SPLITS, (Version((549367, 9842, 9824)),), host='https://nlp.stanford.edu'),
    'XNLI': from_baidu('XNLI', 'xnli', 392702, 2490, 5010),
    'LCQMC': Task('LCQMC', (), ask_owners, SPLITS, (Version((238766, 8802, 12500)),)),
    'ChnSentiCorp': from_baidu('ChnSentiCorp', 'chnsenticorp', 9600, 1200, 1200),
    'XNLI-1.0': zipped(
        'XNLI-1.0', '/XNLI/XNLI-1.0.zip', 17865352,
        '4ba1d5e1afdb7161f0f23c66dc787802ccfa8a25a3ddd3b165a35e50df346ab1',
        Version((len(LANGUAGES) * 2490, len(LANGUAGES) * 5010)),
        files=dict.fromkeys(('xnli.dev.tsv', 'xnli.test.tsv'))),
    'XNLI-MT-1.0': zipped(
        'XNLI-MT-1.0', '/XNLI/XNLI-MT-1.0.zip', 466098360,
        'f732517ba2fb1d550e9f3c2aabaef6017c91ee2dcec90e878f138764d224db05',
        Version((392702,) * len(LANGUAGES)),
        files=dict.fromkeys(f'multinli/multinli.train.{name}.tsv' for name in LANGUAGES)),
}
# fmt: on

# The tasks that `all` leaves out.
BEYOND_GLUE = ('SNLI', 'XNLI', 'LCQMC', 'ChnSentiCorp', 'XNLI-1.0', 'XNLI-MT-1.0')
# Names of the same tasks in the scripts of 2018 and in papers.
ALIASES = {'sst': 'SST-2', 'sts': 'STS-B', 'diagnostic': 'AX'}


# The run


def is_complete(folder, task):
    """Return whether `folder` contains `task` as it was unpacked; False if there is no folder.

    Raise Failure if it contains anything else, which may be the user's own work.
    """
    if not os.path.lexists(folder):
        return False
    advice = f'move {folder} away and run again'
    try:
        record = json.loads((folder / RECORD).read_text(encoding='utf-8'))
        downloads, files = record['downloads'], dict(record['files'])
        sound = files.keys() >= task.files.keys()
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ):
        sound = False
    if not sound:
        raise Failure(f'{folder} cannot be checked, as it has no valid {RECORD}; {advice}')
    published = [list(remote) for remote in task.remotes]
    # MRPC's first download was its only one if the user had the other files.
    if downloads not in (published, published[:1]):
        raise Failure(f'{folder} was made from another version of the data; {advice}')
    for name, expected in files.items():
        if fingerprint(folder / name) != expected:
            raise Failure(f'{folder / name} is missing or was changed; {advice}')
    return True


def recognize(folder, task):
    """Return by what the files in a folder without a record are known, in words.

    Raise Failure if they are not those of any published version.
    """
    advice = f'move {folder} away and run again'
    missing = [name for name in task.files if not (folder / name).is_file()]
    if missing:
        raise Failure(f'{folder} has no {RECORD}, and no {missing[0]}; {advice}')
    found = [measure(folder / name) for name in task.files]
    rows = tuple(one.lines - (name not in task.headless) for name, one in zip(task.files, found))
    for version in task.versions:
        counts = rows
        if version.skips_short:
            counts = tuple(one.long_lines - 1 for one in found)
        if all(known in one.sums for known, one in zip(version.sums or [''], found)):
            return f'made by another script, with the sums of {version.name}'
        if counts == version.rows:
            return f'made by another script, with the rows of {version.name}'
    known = ' or '.join('/'.join(map(str, version.rows)) for version in task.versions)
    raise Failure(
        f'{folder} cannot be checked, as it has no valid {RECORD}: {"/".join(task.files)} have '
        f'{"/".join(map(str, rows))} rows, and not {known}; {advice}'
    )


class Measures(NamedTuple):
    """The sha1 and sha256 of a file, its lines, and those with no fewer columns than the first."""

    sums: tuple[str, str]
    lines: int
    long_lines: int


def measure(path):
    """Return the Measures of a file of tab-separated columns."""
    digests = hashlib.sha1(), hashlib.sha256()
    lines = long_lines = 0
    with open(path, 'rb') as data:
        for line in data:
            columns = line.count(b'\t')
            if not lines:
                first = columns
            lines += 1
            long_lines += columns >= first
            for digest in digests:
                digest.update(line)
    return Measures(tuple(digest.hexdigest() for digest in digests), lines, long_lines)


def check_rows(folder, names, rows):
    """Raise Failure if the files in `folder`, each with a header, do not have so many `rows`."""
    for name, expected in zip(names, rows):
        found = measure(folder / name).lines - 1
        if found != expected:
            raise Failure(f'{name} has {found} rows, not {expected}')


def build(task, parts, folder):
    """Make `folder` from the verified downloads `parts`, with its record or not at all."""
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed
    try:
        folder.mkdir()
        task.build(parts, folder, tuple(task.files))
        for name, expected in task.files.items():
            sha1 = hashlib.sha1((folder / name).read_bytes()).hexdigest() if expected else None
            if sha1 != expected:
                raise Failure(f'{name} was made with sha1 {sha1}, not {expected}')
        files = {}
        for path in sorted(path for path in folder.rglob('*') if path.is_file()):
            with open(path, 'rb') as made:
                os.fsync(made.fileno())  # a crash must not leave empty files in a finished folder
            files[path.relative_to(folder).as_posix()] = fingerprint(path)
        record = json.dumps({'downloads': task.remotes, 'files': files}, indent=1)
        (folder / RECORD).write_text(record + '\n', encoding='utf-8')
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def prepare(task, data_dir, base_url, session, given=None):
    """Make the folder of one task unless it exists; return what was done, in words.

    `given` is a folder with the raw files of MRPC, used in place of its downloads.
    """
    folder, work = data_dir / task.folder, data_dir / WORK / task.folder
    if folder.is_dir() and not os.path.lexists(folder / RECORD):
        return f'{recognize(folder, task)}, nothing to fetch'
    if is_complete(folder, task):
        shutil.rmtree(work, ignore_errors=True)  # left by a run that was killed at the end
        return 'verified, nothing to fetch'
    if given:
        # Neither the sums of the downloads nor of the result are those of this task.
        make = partial(split_given_mrpc, given=given, rows=task.versions[0].rows)
        task = task._replace(remotes=task.remotes[:1], build=make, files=dict.fromkeys(task.files))
    host = task.host if base_url == BASE_URL else base_url
    work.mkdir(parents=True, exist_ok=True)
    lock = os.open(work, os.O_RDONLY)
    try:
        if not hold(lock):
            raise Failure('another run is fetching it; run again when that has ended')
        parts = {}
        for remote in task.remotes:
            name = PurePosixPath(remote.path).name
            parts[name] = work / f'{name}.part'
            download(session, host + remote.path, remote, parts[name])
        try:
            build(task, parts, work / 'files')
        except Failure:
            shutil.rmtree(work)  # the download is as expected, but useless
            raise
        (work / 'files').rename(folder)
        shutil.rmtree(work)
    finally:
        os.close(lock)
        with contextlib.suppress(OSError):
            work.rmdir()  # unless it contains something to resume from
    return 'ready'


def hold(folder):
    """Lock an open folder until it is closed; return False if another run holds it."""
    import fcntl  # which Windows lacks

    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True


def prepare_all(tasks, data_dir, base_url, given_mrpc=None, quiet=False):
    """Make the folders of `tasks`, {name: Task}; return a sentence for each failed one."""
    tell = (lambda line: None) if quiet else report
    failures = []
    if not all((data_dir / task.folder).exists() for task in tasks.values()):
        (data_dir / WORK).mkdir(parents=True, exist_ok=True)  # if this fails, all tasks would
    try:
        with make_session(quiet) as session:
            for name, task in tasks.items():
                try:
                    given = given_mrpc if name == 'MRPC' else None
                    state = prepare(task, data_dir, base_url, session, given)
                    tell(f'{name}: {state} in {data_dir / task.folder}')
                except (Failure, OSError) as error:
                    reason = str(error)
                    if isinstance(error, OSError) and not error.filename:  # of an open file
                        where = data_dir / task.folder
                        reason = f'{where}: could not be written ({error.strerror or error})'
                    failures.append(f'{name}: {reason}')
                    tell(f'{name}: failed, see the end')
    finally:
        with contextlib.suppress(OSError):
            (data_dir / WORK).rmdir()
    return failures


def choose(words, names):
    """Return those of `names` that `words` select, and the words that match none.

    `all` selects those of GLUE.

    >>> choose(['sst,MRPC'], ['SST-2', 'MRPC', 'RTE'])
    (['SST-2', 'MRPC'], [])
    """
    known = {**ALIASES, **{name.lower(): name for name in names}}
    chosen, unknown = [], []
    for word in ' '.join(words).replace(',', ' ').split():
        if word.lower() == 'all':
            chosen += [name for name in names if name not in BEYOND_GLUE]
        elif known.get(word.lower()) in names:
            chosen.append(known[word.lower()])
        else:
            unknown.append(word)
    return list(dict.fromkeys(chosen)), unknown


def parse_args(argv=None, names=tuple(TASKS)):
    """Parse the command line, with `tasks` as names; exit with status 2 on wrong usage."""
    parser = argparse.ArgumentParser(
        description='Fetch the GLUE data sets, verify them and lay them out in one folder.',
        epilog='If a run is interrupted, the next one resumes the download and does not fetch '
        'verified data again. All tasks together are a download of about 376 MB.',
    )
    parser.add_argument(
        '-d',
        '--data_dir',
        metavar='DIR',
        type=Path,
        default='glue_data',
        help='folder for the data, with a subfolder for each task (default: %(default)s)',
    )
    parser.add_argument(
        '-t',
        '--tasks',
        metavar='TASK',
        nargs='+',
        default=['all'],
        help=f'{", ".join(names)}, or all, which means those of GLUE (CoLA to AX); separated by '
        'commas or spaces, in upper or lower case; SST, STS and diagnostic also mean SST-2, STS-B '
        'and AX (default: all)',
    )
    parser.add_argument(
        '--path_to_mrpc',
        metavar='DIR',
        help=f'folder with {" and ".join(RAW_MRPC)}, used for MRPC instead of downloading them',
    )
    parser.add_argument(
        '--base_url',
        metavar='URL',
        default=os.environ.get('GLUE_BASE_URL') or BASE_URL,
        help='mirror to fetch everything from; the environment variable GLUE_BASE_URL changes the '
        'default (default: %(default)s)',
    )
    parser.add_argument(
        '--quiet', action='store_true', help='show only warnings and errors, without progress bars'
    )
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    for word in argv:
        if word != word.encode('utf8', 'ignore').decode('utf8'):
            parser.exit(2, f'{parser.prog}: {word!r} is not valid UTF-8\n')
    args.tasks, unknown = choose(args.tasks, names)
    args.base_url = args.base_url.rstrip('/')
    if unknown or not args.tasks:
        given = f'unknown task {", ".join(unknown)}' if unknown else 'no task given'
        parser.exit(2, f'{parser.prog}: {given}: choose from all, {", ".join(names)}\n')
    for name in RAW_MRPC if args.path_to_mrpc else ():
        if not Path(args.path_to_mrpc, name).is_file():
            parser.exit(2, f'{parser.prog}: --path_to_mrpc {args.path_to_mrpc} has no {name}\n')
    if not args.base_url.startswith(('http://', 'https://')):
        parser.exit(2, f'{parser.prog}: the mirror {args.base_url} must be an http(s) address\n')
    if sys.platform == 'win32':
        parser.exit(2, f'{parser.prog}: run this in the Windows Subsystem for Linux (WSL)\n')
    return args


def main(argv=None, tasks=TASKS):
    """Run the script and return its exit status. `tasks` is a table like TASKS."""
    args = parse_args(argv, tuple(tasks))
    try:
        chosen = {name: tasks[name] for name in args.tasks}
        given_mrpc = Path(args.path_to_mrpc) if args.path_to_mrpc else None
        failures = prepare_all(chosen, args.data_dir, args.base_url, given_mrpc, args.quiet)
    except ImportError as error:
        failures = [f'{error.name} is not installed: pip install requests tqdm']
    except OSError as error:
        failures = [str(error)]
    except KeyboardInterrupt as interrupt:
        (signum,) = interrupt.args or (signal.SIGINT,)
        cause = 'interrupted' if signum == signal.SIGINT else f'stopped by {signum.name}'
        report(f'{cause}; run again to continue', sys.stderr)
        return 128 + signum
    for failure in failures:
        report(failure, sys.stderr)
    return 1 if failures else 0


def interrupt(signum, frame):
    """Raise KeyboardInterrupt for the first signal; let the second end the program at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt(signal.Signals(signum))


if __name__ == '__main__':
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in a shell's background job
            signal.signal(number, interrupt)
    sys.exit(main())
