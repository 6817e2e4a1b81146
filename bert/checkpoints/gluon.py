"""Gluon's files: ``.params``, MXNet's binary format for named arrays, and the vocabulary class.

MXNet's own reader, in C++, allocates whatever size a file claims, and a damaged file may kill the
process. The reader here needs no MXNet and never allocates more than the file holds. MXNet's own
writer does not notice a full disk; the one here does, and writes the same bytes.

All numbers are little-endian: a magic number, 8 reserved bytes, then the arrays and the names,
each preceded by their count. The format is that of ``src/ndarray/ndarray.cc`` since MXNet 0.12.
"""

import os
import re
import struct
from pathlib import Path

import numpy as np

from bert.system.errors import ToolkitError
from bert.system.files import replacing
from bert.text.vocab import SPECIAL_TOKENS

LIST_MAGIC = 0x112
# Arrays with MXNet's shapes, and with NumPy's.
ARRAY_MAGICS = (0xF993FAC9, 0xF993FACA)
DENSE = 0
CPU = (1, 0)  # the kind and the number of the device that an array was on
# Indexed by MXNet's type numbers.
DTYPES = ('<f4', '<f8', '<f2', '|u1', '<i4', '|i1', '<i8', '|b1')
MOST_DIMENSIONS = 32  # NumPy's own limit


def read(path):
    """Read the arrays in a file, by name; a file without names gives an empty dictionary.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict of str to numpy.ndarray

    Raises
    ------
    ValueError
        If the file is truncated, damaged, of another kind, or has sparse arrays.
    """
    with open(path, 'rb') as file:
        left = os.fstat(file.fileno()).st_size
        reader = _Reader(file, left)
        magic, _, count = reader.numbers('<QQQ')
        if magic != LIST_MAGIC:
            raise ValueError('it does not begin like one')
        # Even an array without elements takes this many bytes.
        arrays = [_read_array(reader) for _ in range(reader.checked(count, 12))]
        (count,) = reader.numbers('<Q')
        names = []
        for _ in range(reader.checked(count, 8)):
            (length,) = reader.numbers('<Q')
            names.append(reader.bytes(length).decode('utf8'))
        if reader.left:
            raise ValueError('something follows its end')
    if names and (len(names) != len(arrays) or len(set(names)) != len(names)):
        raise ValueError(f'{len(set(names))} names for {len(arrays)} arrays')
    return dict(zip(names, arrays))


def _read_array(reader):
    magic, storage, dimensions = reader.numbers('<Iii')
    if magic not in ARRAY_MAGICS or storage != DENSE:
        raise ValueError('an array is sparse, or damaged')
    if not 0 <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(f'an array has {dimensions} dimensions')
    shape = reader.numbers(f'<{dimensions}q')
    if magic == ARRAY_MAGICS[0] and not shape:
        raise ValueError('an array is missing')
    *_, kind = reader.numbers('<iii')  # the device, and the type
    if not 0 <= kind < len(DTYPES):
        raise ValueError(f'an array has the unknown type {kind}')
    return reader.array(shape, np.dtype(DTYPES[kind]))


class _Reader:
    """A reader that never asks for more than the file holds."""

    def __init__(self, file, left):
        self._file = file
        self.left = left

    def checked(self, count, size):
        """Return ``count`` if enough is left for that many items of at least ``size`` bytes."""
        if count * size > self.left:
            raise ValueError(f'{count} things are promised and {self.left} bytes are left')
        return count

    def bytes(self, count):
        self.left -= self.checked(count, 1)
        data = self._file.read(count)
        if len(data) < count:
            raise ValueError('it became shorter while it was read')
        return data

    def numbers(self, form):
        return struct.unpack(form, self.bytes(struct.calcsize(form)))

    def array(self, shape, dtype):
        if min(shape, default=0) < 0 or max(shape, default=0) >= 2**31:
            raise ValueError(f'an array has the shape {shape}')
        count = 1
        for size in shape:
            count *= size
        self.left -= self.checked(count, dtype.itemsize) * dtype.itemsize
        array = np.fromfile(self._file, dtype, count)
        if len(array) < count:
            raise ValueError('it became shorter while it was read')
        return array.reshape(shape)


def split_gluon(parameters):
    """Separate the BERT in a Gluon file from the head of a fine-tuned model.

    >>> split_gluon({'bert.pooler.bias': 1, 'classifier.1.bias': 2})
    ({'pooler.bias': 1}, {'bias': 2})
    """
    prefix = 'bert.'
    if not any(name.startswith(prefix) for name in parameters):
        return parameters, {}
    inner, head = {}, {}
    for name, array in parameters.items():
        # classifier.0: without dropout; regression: in the original's regression model
        match = re.fullmatch(r'(?:classifier|regression)\.[01]\.(weight|bias)', name)
        if match:
            head[match.group(1)] = array
        else:
            inner[name[len(prefix) :] if name.startswith(prefix) else name] = array
    return inner, head


def read_gluon(path):
    """Read the parameters in a Gluon ``.params`` file, under their names.

    Returns
    -------
    dict of str to numpy.ndarray

    Raises
    ------
    ToolkitError
        If the file is truncated, is not a parameter file or has no names.
    """
    path = Path(path)
    if not path.is_file():
        raise ToolkitError(f'{path}: there is no such parameter file')
    try:
        parameters = read(path)
    except ValueError as error:
        raise ToolkitError(f'{path}: not a whole Gluon parameter file ({error})') from None
    if not parameters:
        raise ToolkitError(f'{path}: holds no named parameters')
    if any(name.startswith(('arg:', 'aux:')) for name in parameters):
        raise ToolkitError(
            f'{path}: was written by HybridBlock.export for deployment; '
            'training takes the file that save_parameters wrote'
        )
    return parameters


def write_parameters(path, parameters):
    """Write a Gluon ``.params`` file, whole or not at all, as MXNet would write it.

    Parameters
    ----------
    path : str or Path
    parameters : iterable of (str, numpy.ndarray)
        Names and arrays, of the types in :data:`DTYPES`. Only one array is in memory at a time.
    """
    names = []
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        file.write(struct.pack('<QQQ', LIST_MAGIC, 0, 0))
        for name, array in parameters:
            shape = struct.pack(f'<{array.ndim}q', *array.shape)
            file.write(struct.pack('<Iii', ARRAY_MAGICS[0], DENSE, array.ndim) + shape)
            file.write(struct.pack('<iii', *CPU, DTYPES.index(array.dtype.str)))
            file.write(np.ascontiguousarray(array))
            names.append(name.encode())
        file.write(struct.pack('<Q', len(names)))
        for name in names:
            file.write(struct.pack('<Q', len(name)) + name)
        file.seek(struct.calcsize('<QQ'))
        file.write(struct.pack('<Q', len(names)))


def gluon_vocab(vocab):
    """Convert a :class:`~bert.text.vocab.Vocab` to GluonNLP's class, with the same ids."""
    import gluonnlp as nlp

    return nlp.vocab.BERTVocab(
        nlp.data.count_tokens(vocab.idx_to_token),
        token_to_idx=vocab.token_to_idx,
        **{name: getattr(vocab, name) for name in SPECIAL_TOKENS},
    )
