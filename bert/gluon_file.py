"""MXNet's binary files of arrays, which Gluon's ``save_parameters`` writes.

MXNet's own reader, in C++, takes the memory that a file asks for before it looks whether the file
has as much, and may end the process over a damaged one. This one needs no MXNet and asks for
nothing that is not there.

All numbers are little-endian: a magic number, 8 bytes for later use, the arrays and the names,
each with their count before them. The format is that of ``src/ndarray/ndarray.cc`` since MXNet
0.12.
"""

import os
import struct

import numpy as np

LIST_MAGIC = 0x112
# An array with shapes as MXNet has them, and with those of NumPy.
ARRAY_MAGICS = (0xF993FAC9, 0xF993FACA)
DENSE = 0
# By MXNet's numbers.
DTYPES = ('<f4', '<f8', '<f2', '|u1', '<i4', '|i1', '<i8', '|b1')
MOST_DIMENSIONS = 32  # NumPy's own limit


def read(path):
    """The arrays in a file, by name; without names it is an empty dictionary.

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
        # Not even an array without elements has fewer bytes.
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
    _, _, kind = reader.numbers('<iii')  # where it was, on which device, and its type
    if not 0 <= kind < len(DTYPES):
        raise ValueError(f'an array has the unknown type {kind}')
    return reader.array(shape, np.dtype(DTYPES[kind]))


class _Reader:
    """Reads no more than there is."""

    def __init__(self, file, left):
        self._file = file
        self.left = left

    def checked(self, count, size):
        """A count of things of at least ``size`` bytes each, for all of which there is room."""
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
