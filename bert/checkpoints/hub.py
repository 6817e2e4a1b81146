"""Models of the Hugging Face Hub, fetched once, verified, and kept in its cache.

``huggingface_hub`` does the transport, so ``HF_HOME``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE``
have their usual effect.
"""

import functools
import hashlib
import logging
import re
from pathlib import Path

from bert.checkpoints.huggingface import WEIGHT_FILES
from bert.checkpoints.tensors import shard_names
from bert.system.errors import ToolkitError
from bert.system.files import hash_file, read_json, sha256

DESCRIPTION = (
    'config.json',
    'vocab.txt',
    'tokenizer.json',
    'tokenizer_config.json',
    # of sentence-transformers; see bert.checkpoints.sentences
    'modules.json',
    'sentence_bert_config.json',
    '1_Pooling/config.json',
)


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
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    if constants.HF_HUB_CACHE.startswith('~'):
        raise ToolkitError(
            'there is no home directory for models: the variable HF_HOME can name a folder'
        )
    try:
        listing = HfApi().model_info(repository, files_metadata=True)
    except RepositoryNotFoundError:
        raise ToolkitError(
            f'the Hub has no model {repository}, or does not show it to you'
        ) from None
    # The underlying HTTP library, and so the errors, differ between releases.
    except Exception as error:
        return _cached(repository, error)
    files = {file.rfilename: file for file in listing.siblings}
    names = [name for name in DESCRIPTION if name in files]
    weights = next((name for name in WEIGHT_FILES if name in files), None)
    if with_weights:
        if not weights:
            raise ToolkitError(f'{repository}: the Hub has none of {", ".join(WEIGHT_FILES)} there')
        names.append(weights)

    def download(names):
        try:
            folder = Path(snapshot_download(repository, allow_patterns=names))
        except Exception as error:
            raise ToolkitError(
                f'{repository} could not be fetched from the Hub: {_reason(error)}'
            ) from None
        if folder.name != listing.sha:
            raise ToolkitError(f'{repository} changed while it was fetched: try again')
        for name in names:
            _verify(folder / name, files[name])
        return folder

    folder = download(names)
    if with_weights and weights.endswith('.index.json'):
        shards = shard_names(read_json(folder / weights))
        absent = [name for name in shards if name not in files]
        if absent:
            raise ToolkitError(f'{repository}: the Hub has no {absent[0]} there')
        download(shards)
    logging.info('%s, commit %s, from the Hub', repository, folder.name)
    return folder


def _cached(repository, error):
    """Return the folder of the newest commit in the cache."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except Exception:
        raise ToolkitError(
            f'the Hub does not answer ({_reason(error)}), and {repository} is not in its cache'
        ) from None
    logging.info('%s, commit %s, from the cache: the Hub gave no answer', repository, folder.name)
    return folder


def _reason(error):
    return f'{type(error).__name__}: {error}'.strip().split('\n')[0]


def _verify(path, expected):
    """Delete a file that is not what the Hub says it is, and raise an error."""
    size = path.stat().st_size
    if expected.lfs is not None:
        digest, wanted = hashlib.sha256(), expected.lfs.sha256
    else:
        # git's name of a file's content
        digest, wanted = hashlib.sha1(f'blob {size}\0'.encode()), expected.blob_id
    found = hash_file(path, digest)
    if size != expected.size or found != wanted:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise ToolkitError(
            f'{path.name}: {size} bytes with the {digest.name} {found} came from the '
            f'Hub, which says {expected.size} bytes with {wanted}; the file was deleted'
        )


def digests(repository, folder):
    """Return the size and sha256 of each file of a fetched model, as a record of its origin."""
    found = {
        path.name: {'size': path.stat().st_size, 'sha256': sha256(path)}
        for path in sorted(Path(folder).iterdir())
    }
    return {'repository': repository, 'commit': Path(folder).name, 'files': found}
