"""Shards of pre-training instances: files of plain arrays, written by data generation.

A shard is an ``.npz`` file with the seven arrays of N instances that
:func:`bert.pretraining.instances.make_instances` describes, in the types of GluonNLP's script. Its
readers take each array of such a file for a column of the instances, so what describes the shard
is no array: the comment of the zip file is a JSON object with the key ``settings``, a JSON string
that says how the shard was made, and ``vocabulary``, the place of the tokens, [offset, size]. Those
bytes, between the last array and the zip file's directory, are a JSON list of the tokens in the
order of their ids, in UTF-8, compressed by zlib.

Earlier versions wrote both as arrays, and GluonNLP's script neither.
"""

import contextlib
import json
import operator
import shutil
import struct
import tempfile
import zipfile
import zlib
from itertools import chain
from pathlib import Path

import numpy as np

from bert.pretraining.corpus import smallest_integer
from bert.system.errors import ToolkitError
from bert.system.files import parse_json, replacing
from bert.system.npz import Damaged, open_npz
from bert.text.vocab import fingerprint

SEQUENCE_ARRAYS = ('input_ids', 'segment_ids')
PREDICTION_ARRAYS = ('masked_lm_positions', 'masked_lm_ids', 'masked_lm_weights')
INSTANCE_ARRAYS = ('next_sentence_labels', 'valid_lengths')
ARRAYS = SEQUENCE_ARRAYS + PREDICTION_ARRAYS + INSTANCE_ARRAYS
# Token ids hardly compress: level 6, the default, takes four times as long to save another 6 %.
COMPRESSION_LEVEL = 1
RECORDIO_MAGIC = 0xCED7230A
# How the arrays are written, and read by GluonNLP's script.
FILE_TYPES = {name: np.dtype(np.int32) for name in ARRAYS}
FILE_TYPES['masked_lm_weights'] = np.dtype(np.float32)


def write_npz(path, blocks, settings, vocab):
    """Write a shard; the same arrays give the same bytes.

    Parameters
    ----------
    path : str or Path
    blocks : iterable of dict
        The instances. Only one block is in memory at a time.
    settings : dict
        Recorded in the shard, together with the vocabulary and its fingerprint.
    vocab : bert.text.vocab.Vocab
    """
    settings = {**settings, 'vocab_fingerprint': fingerprint(vocab)}
    tokens = json.dumps(vocab.idx_to_token, ensure_ascii=False).encode('utf8')
    with replacing(path) as temporary, contextlib.ExitStack() as stack:
        # The members of a zip file follow one another, so the arrays first grow in separate files.
        spools = {
            name: stack.enter_context(tempfile.TemporaryFile(dir=temporary.parent))
            for name in ARRAYS
        }
        count, first = 0, None
        for block in blocks:
            count += len(block['valid_lengths'])
            first = first or {name: block[name][:0] for name in ARRAYS}
            for name in ARRAYS:
                spools[name].write(block[name].astype(FILE_TYPES[name]))
        archive = stack.enter_context(
            zipfile.ZipFile(temporary, 'w', zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL)
        )
        for name, spool in spools.items():
            shape = (count, *first[name].shape[1:])
            with _new_member(archive, name, FILE_TYPES[name], shape) as member:
                spool.seek(0)
                shutil.copyfileobj(spool, member, 2**20)
        tokens = zlib.compress(tokens, COMPRESSION_LEVEL)
        place = [archive.start_dir, len(tokens)]
        archive.fp.seek(archive.start_dir)
        archive.fp.write(tokens)
        archive.start_dir = archive.fp.tell()  # the directory comes after the tokens
        description = {
            'settings': json.dumps({**settings, 'instances': count}),
            'vocabulary': place,
        }
        archive.comment = json.dumps(description).encode('ascii')


@contextlib.contextmanager
def _new_member(archive, name, dtype, shape):
    """Open a new ``.npy`` file in the archive, after its header; zipfile dates it 1980."""
    with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        header = {
            'descr': np.lib.format.dtype_to_descr(dtype),
            'fortran_order': False,
            'shape': shape,
        }
        np.lib.format.write_array_header_1_0(member, header)
        yield member


def write_recordio(path, blocks):
    """Write MXNet's indexed RecordIO: ``path`` and, beside it, an index ``.idx``.

    Each record is a JSON object with the same eleven names and the same padding as in GluonNLP's
    script. This does not need MXNet: a record is a magic number, its length and its bytes, padded
    to a multiple of four.
    """
    index_path = Path(path).with_suffix('.idx')
    with contextlib.ExitStack() as stack:
        index = stack.enter_context(open(stack.enter_context(replacing(index_path)), 'w'))
        records = stack.enter_context(open(stack.enter_context(replacing(path)), 'wb'))
        every_record = chain.from_iterable(map(_records, blocks))
        for key, record in enumerate(every_record):
            index.write(f'{key}\t{records.tell()}\n')
            data = json.dumps(record).encode('ascii')
            records.write(struct.pack('<II', RECORDIO_MAGIC, len(data)))
            records.write(data + bytes(-len(data) % 4))


def _records(block):
    """Yield the instances of a block, each as a dictionary of lists of numbers."""
    lengths = block['valid_lengths'].astype(np.int64)
    length_b = block['segment_ids'].sum(axis=1, dtype=np.int64)
    predictions = block['masked_lm_weights'].sum(axis=1)
    columns = {
        'input_ids': block['input_ids'],
        'input_mask': (np.arange(block['input_ids'].shape[1]) < lengths[:, None]).astype(np.uint8),
        'segment_ids': block['segment_ids'],
        'masked_lm_positions': block['masked_lm_positions'],
        'masked_lm_ids': block['masked_lm_ids'],
        'segment_a_lengths': (lengths - length_b)[:, None],
        'segment_b_lengths': length_b[:, None],
        'masked_lm_weights': block['masked_lm_weights'].astype(np.float32),
        'next_sentence_labels': block['next_sentence_labels'][:, None],
        'valid_lengths': lengths[:, None],
        'masked_lm_valid_lengths': predictions[:, None],
    }
    for values in zip(*(column.tolist() for column in columns.values())):
        yield dict(zip(columns, values))


def read_settings(path):
    """Read how a shard was made, but not its instances.

    Returns
    -------
    dict
        Flags of create_pretraining_data.py, ``vocab_fingerprint``, and ``instances``, N. Of a
        shard that does not describe itself, as GluonNLP's script wrote it, ``instances`` only.
    """
    with _opened(path) as shard:
        return _settings(shard)


def read_shard(path, vocab):
    """Read and check the seven arrays of a shard, with the token ids of ``vocab``.

    Parameters
    ----------
    path : str or Path
    vocab : bert.text.vocab.Vocab or gluonnlp.vocab.BERTVocab
        The model's. If the shard was made with the same tokens in a different order, the ids are
        mapped; those of a shard that does not describe itself are taken to be the model's.

    Returns
    -------
    dict of numpy.ndarray
        By the names in :data:`ARRAYS`, in the smallest types that hold the values.

    Raises
    ------
    ToolkitError
        If the file is damaged, if an array is missing, has the wrong type or shape, or contains
        impossible values, or if the shard was made with different tokens.
    """
    with _opened(path) as shard:
        settings = _settings(shard)
        arrays = {name: shard.read(name) for name in ARRAYS}
        tokens = _tokens(shard) if _describes_itself(shard) else vocab.idx_to_token
    arrays['masked_lm_weights'] = _as_integers(arrays['masked_lm_weights'])
    _check_shapes(arrays, path)
    _check_values(arrays, len(tokens), path)
    if settings['instances'] != len(arrays['input_ids']):
        raise _damaged(path, f'the settings count {settings["instances"]} instances')
    # The recorded fingerprint is not trusted: it may belong to other tokens.
    if tokens != vocab.idx_to_token:
        new_ids = _map_tokens(tokens, vocab, path)
        for name in ('input_ids', 'masked_lm_ids'):
            arrays[name] = new_ids[arrays[name]]
    largest = {'input_ids': len(tokens) - 1, 'masked_lm_ids': len(tokens) - 1}
    width = arrays['input_ids'].shape[1]
    return {
        name: array.astype(smallest_integer(largest.get(name, width)), copy=False)
        for name, array in arrays.items()
    }


def _as_integers(weights):
    """Return float weights as integers if all of them are whole numbers."""
    if weights.dtype.kind != 'f' or not np.isin(weights, (0, 1)).all():
        return weights
    return weights.astype(np.uint8)


def _damaged(path, reason):
    return ToolkitError(f'{path}: {reason}; make it again with create_pretraining_data.py')


@contextlib.contextmanager
def _opened(path):
    """Open a shard; errors name its path, even disk errors without a file name."""
    try:
        with open_npz(path) as shard:
            yield shard
    except Damaged as error:
        raise _damaged(path, error) from None
    except OSError as error:
        if error.filename is None and error.strerror:
            raise ToolkitError(f'{path}: {error.strerror}') from None
        raise


def _describes_itself(shard):
    return bool(shard.comment) or not {'settings', 'vocabulary'}.isdisjoint(shard.names)


def _description(shard, name):
    """Read the settings, a JSON string, or the vocabulary, bytes."""
    if not shard.comment:  # an earlier version's
        array = shard.read(name)
        return array.item() if name == 'settings' else array.tobytes()
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        value = parse_json(shard.comment.decode('utf8'))[name]
        if name == 'settings':
            return value
        offset, size = map(operator.index, value)
        if offset >= 0 and size >= 0:
            return shard.read_compressed(offset, size)
    raise Damaged(f'the {name} that it was made with cannot be read')


def _settings(shard):
    if not _describes_itself(shard):
        return {'instances': (*shard.read_shape('valid_lengths'), 0)[0]}
    settings = None
    with contextlib.suppress(ValueError, TypeError):
        settings = parse_json(_description(shard, 'settings'))
    count = settings.get('instances') if isinstance(settings, dict) else None
    if not isinstance(count, int) or not isinstance(settings.get('vocab_fingerprint'), str):
        raise Damaged('the settings that it was made with cannot be read')
    return settings


def _tokens(shard):
    tokens = None
    with contextlib.suppress(ValueError):
        tokens = parse_json(_description(shard, 'vocabulary').decode('utf8'))
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise Damaged('the vocabulary that it was made with cannot be read')
    return tokens


def _check_shapes(arrays, path):
    for names, dimensions in ((SEQUENCE_ARRAYS, 2), (PREDICTION_ARRAYS, 2), (INSTANCE_ARRAYS, 1)):
        for name in names:
            array, like = arrays[name], arrays[names[0]]
            if array.dtype.kind not in 'iu':
                raise _damaged(path, f'{name} holds {array.dtype}, not whole numbers')
            if array.ndim != dimensions or array.shape != like.shape:
                raise _damaged(path, f'{name} has the shape {array.shape}')
            if len(array) != len(arrays['input_ids']):
                raise _damaged(path, f'{name} does not have as many rows as input_ids')
    if not arrays['input_ids'].size or not arrays['masked_lm_ids'].size:
        raise _damaged(path, 'it holds no instances')


def _check_values(arrays, vocab_size, path):
    lengths = arrays['valid_lengths']
    for name, allowed in (
        ('input_ids', vocab_size),
        ('masked_lm_ids', vocab_size),
        ('segment_ids', 2),
        ('masked_lm_weights', 2),
        ('next_sentence_labels', 2),
        ('valid_lengths', arrays['input_ids'].shape[1] + 1),
        ('masked_lm_positions', lengths[:, None]),
    ):
        array = arrays[name]
        wrong = (array < (name == 'valid_lengths')) | (array >= allowed)
        if wrong.any():
            raise _damaged(path, f'{name} holds {array[wrong][0]}, which is out of range')


def _map_tokens(tokens, vocab, path):
    """Return the ids in ``vocab`` of the tokens of a shard, (tokens,) int64."""
    theirs = vocab.token_to_idx
    foreign = next((token for token in tokens if token not in theirs), None)
    if foreign is not None or len(theirs) != len(tokens):
        example = f', such as {foreign!r}' if foreign is not None else ''
        raise ToolkitError(
            f"{path}: made with a vocabulary whose tokens are not the model's{example} "
            f"({len(tokens)} and {len(theirs)}); make it again with the model's vocabulary"
        )
    return np.array([theirs[token] for token in tokens])
