"""Models of the Hugging Face Hub, fetched once, verified, and kept in its cache.

``huggingface_hub`` says where the Hub and the cache are and who the user is, so ``HF_HOME``,
``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` have their usual effect, and other programs find the files.
It does not do the transport: it makes paths of what a server says in its headers and its answers,
and takes more bytes than the server said.
"""

import contextlib
import functools
import hashlib
import io
import logging
import os
import re
from pathlib import Path
from urllib.parse import quote

from bert.checkpoints.download import DownloadError, download
from bert.checkpoints.huggingface import WEIGHT_FILES
from bert.checkpoints.tensors import shard_names
from bert.system.errors import ToolkitError
from bert.system.files import (
    hash_file,
    parse_json,
    read_json,
    remove_leftovers,
    replacing,
    sha256,
    write_text,
)
from bert.system.processes import locked

DESCRIPTION = (
    'config.json',
    'vocab.txt',
    'tokenizer.json',
    'tokenizer_config.json',
    'README.md',  # the licence and the languages; see bert.checkpoints.cards
    # of sentence-transformers; see bert.checkpoints.sentences
    'modules.json',
    'sentence_bert_config.json',
    '1_Pooling/config.json',
)
# Bytes of the Hub's description of a model, of a description file, and of a file of weights.
MOST_LISTING = 16 * 2**20
MOST_DESCRIPTION = 64 * 2**20
MOST_WEIGHTS = 16 * 2**30


def is_repository(source):
    """Return whether a name has the form of a model on the Hub, ``OWNER/MODEL``.

    >>> is_repository('google-bert/bert-base-uncased'), is_repository('../models/bert')
    (True, False)
    """
    return re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', source) is not None


@functools.lru_cache(maxsize=None)
def fetch(repository, with_weights=True):
    """Fetch a model, and return the folder with its files, which is named after their commit.

    Each file is checked against the size and the sha256 (small files: git's sha1) that the Hub
    states. If the Hub does not answer, the cached files of an earlier call are used, and the log
    says so.

    Returns
    -------
    Path
    """
    from huggingface_hub import constants

    if constants.HF_HUB_CACHE.startswith('~'):
        raise ToolkitError(
            'there is no home directory for models: the variable HF_HOME can name a folder'
        )
    if constants.HF_HUB_OFFLINE:
        return _cached(repository, 'HF_HUB_OFFLINE is set')
    try:
        commit, files = _list(repository)
    except DownloadError as error:
        if error.code in (401, 404):
            raise ToolkitError(
                f'the Hub has no model {repository}, or does not show it to you'
            ) from None
        return _cached(repository, error)
    folder = _storage(repository) / 'snapshots' / commit

    def bring(name, limit):
        if name not in files:
            raise ToolkitError(f'{repository}: the Hub has no {name} there')
        _bring(repository, folder, name, files[name], limit)

    for name in DESCRIPTION:
        if name in files:
            bring(name, MOST_DESCRIPTION)
    if with_weights:
        weights = next((name for name in WEIGHT_FILES if name in files), None)
        if not weights:
            raise ToolkitError(f'{repository}: the Hub has none of {", ".join(WEIGHT_FILES)} there')
        is_index = weights.endswith('.index.json')
        bring(weights, MOST_DESCRIPTION if is_index else MOST_WEIGHTS)
        if is_index:
            for name in shard_names(read_json(folder / weights)):
                bring(name, MOST_WEIGHTS)
    _remember(repository, commit)
    logging.info('%s, commit %s, from the Hub', repository, commit)
    return folder


def _list(repository):
    """Ask the Hub for a model's commit, and for the size and digest of each file, by name."""
    from huggingface_hub import constants

    answer = io.BytesIO()
    address = f'{constants.ENDPOINT}/api/models/{repository}?blobs=true'
    download(address, answer, MOST_LISTING, _headers())
    try:
        listing = parse_json(answer.getvalue().decode())
        files = {
            file['rfilename']: (
                file.get('size'),
                file['lfs'].get('sha256') if file.get('lfs') else file.get('blobId'),
            )
            for file in listing['siblings']
        }
        if _is_hexadecimal(listing['sha'], 40):  # it becomes the name of a folder
            return listing['sha'], files
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    raise DownloadError(f'{address}: not the description of a model')


def _is_hexadecimal(text, digits):
    return isinstance(text, str) and re.fullmatch(f'[0-9a-f]{{{digits}}}', text) is not None


def _headers():
    """Return the headers of requests to the Hub, with the user's token if there is one."""
    from huggingface_hub import constants, get_token

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return {'Authorization': f'Bearer {token}'} if token else {}


def _storage(repository):
    """Return the folder of a model in the Hub's cache.

    ``blobs`` has the files, named by their digests, and ``snapshots`` for each commit a folder of
    links to them; ``refs/main`` names the last commit.
    """
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f'models--{repository.replace("/", "--")}'


def _bring(repository, folder, name, expected, limit):
    """Fetch one file of a model, unless the cache has it, and link it into its folder."""
    from huggingface_hub import constants

    size, digest = expected
    # The digest becomes the name of a file.
    if not (_is_hexadecimal(digest, 40) or _is_hexadecimal(digest, 64)):
        raise ToolkitError(f'{repository}: the Hub states no digest of {name}')
    if not isinstance(size, int) or size > limit:
        raise ToolkitError(f'{repository}: {name} has {size} bytes, more than {limit}')
    path, blob = folder / name, _storage(repository) / 'blobs' / digest
    if _describe(path, digest) == expected:
        return
    address = f'{constants.ENDPOINT}/{repository}/resolve/{folder.name}/{quote(name)}'
    with locked(blob.with_name(f'.{digest}.lock')):
        if _describe(blob, digest) != expected:
            remove_leftovers(blob)
            with replacing(blob) as temporary:
                try:
                    with open(temporary, 'wb') as file:
                        download(address, file, size, _headers())
                except DownloadError as error:
                    raise ToolkitError(
                        f'{repository} could not be fetched from the Hub: {error}'
                    ) from None
                found = _describe(temporary, digest)
                if found != expected:
                    raise ToolkitError(
                        f'{name}: {found[0]} bytes with the digest {found[1]} came from the Hub, '
                        f'which says {size} bytes with {digest}; the file was deleted'
                    )
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        path.symlink_to(os.path.relpath(blob, path.parent))


def _describe(path, digest):
    """Return the size of a file and its digest, of the kind of another digest; or None."""
    if not path.is_file():
        return None
    size = path.stat().st_size
    # The Hub names small files as git does.
    kind = hashlib.sha256() if len(digest) == 64 else hashlib.sha1(f'blob {size}\0'.encode())
    return size, hash_file(path, kind)


def _remember(repository, commit):
    """Note the newest commit in the cache, where :func:`_cached` and other programs look."""
    path = _storage(repository) / 'refs' / 'main'
    if not path.is_file() or path.read_text() != commit:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, commit)


def _cached(repository, reason):
    """Return the folder of the newest commit in the cache."""
    storage, commit = _storage(repository), ''
    with contextlib.suppress(OSError, ValueError):
        commit = (storage / 'refs' / 'main').read_text()
    folder = storage / 'snapshots' / commit
    if not _is_hexadecimal(commit, 40) or not folder.is_dir():
        raise ToolkitError(
            f'the Hub does not answer ({reason}), and {repository} is not in its cache'
        )
    logging.info('%s, commit %s, from the cache: the Hub gave no answer', repository, commit)
    return folder


def digests(repository, folder):
    """Return the size and sha256 of each file of a fetched model, as a record of its origin."""
    found = {
        path.name: {'size': path.stat().st_size, 'sha256': sha256(path)}
        for path in sorted(Path(folder).iterdir())
    }
    return {'repository': repository, 'commit': Path(folder).name, 'files': found}
