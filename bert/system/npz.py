"""Reading ``.npz`` files from untrusted sources.

``numpy.load`` trusts the sizes that such a file declares, and allocates memory for them before it
reads a byte. Here they are first checked against each other and against the file's size.
Nothing is unpickled.
"""

import contextlib
import errno
import math
import os
import struct
import zipfile
import zlib

import numpy as np

# A file may unpack to this many times its own size, or to this many bytes if that is more. Shards
# of short texts, padded to 512 tokens, have been seen to compress to a fiftieth.
LARGEST_RATIO = 100
ALWAYS_ALLOWED = 64 * 2**20
# Other methods can need gigabytes of memory to unpack a few bytes.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The exceptions that zipfile, zlib and numpy raise for damaged files.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,  # with RecursionError and NotImplementedError
    SyntaxError,
    TypeError,
    ValueError,
)


class Damaged(Exception):
    """A file that is not valid; the message says why, in a few words."""


class Arrays:
    """The arrays of an open file."""

    def __init__(self, archive, file, limit):
        self._archive = archive
        self._file = file
        self._limit = limit  # bytes that may still be unpacked

    @property
    def names(self):
        """The names of all arrays."""
        names = self._archive.namelist()
        return [name[: -len('.npy')] for name in names if name.endswith('.npy')]

    @property
    def comment(self):
        """The comment of the zip file, bytes."""
        return self._archive.comment

    def read_compressed(self, offset, size):
        """Return what zlib compressed to the ``size`` bytes at a place outside the arrays.

        Raises
        ------
        Damaged
        """
        with _as_damaged('what is stored beside the arrays cannot be read'):
            self._file.seek(offset)
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(self._file.read(size), max(1, self._limit))
            if not unpacker.eof:
                raise ValueError('it does not end')
            self._limit -= len(data)
        return data

    def read_shape(self, name):
        """Return the shape of an array that its header declares.

        Raises
        ------
        Damaged
        """
        info = self._member(name)
        with _as_damaged(f'the array {name} cannot be read'), self._archive.open(info) as member:
            return _check_header(member, info.file_size)

    def read(self, name):
        """Return one array.

        Raises
        ------
        Damaged
        """
        info = self._member(name)
        if info.file_size > self._limit:
            raise Damaged(f'the array {name} would unpack to {info.file_size} bytes')
        self._limit -= info.file_size
        with _as_damaged(f'the array {name} cannot be read'):
            with self._archive.open(info) as member:
                _check_header(member, info.file_size)
            with self._archive.open(info) as member:
                return np.lib.format.read_array(member, allow_pickle=False)

    def _member(self, name):
        try:
            info = self._archive.getinfo(f'{name}.npy')
        except KeyError:
            raise Damaged(f'the array {name} is missing') from None
        if info.compress_type not in METHODS:
            raise Damaged(f'the array {name} is compressed in an unusual way')
        return info


@contextlib.contextmanager
def open_npz(path):
    """Open an ``.npz`` file.

    Yields
    ------
    Arrays

    Raises
    ------
    Damaged
        If it is not an ``.npz`` file. An ``OSError`` is left to the caller.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, 'rb'))
        with _as_damaged('not an .npz file, or not a whole one'):
            archive = stack.enter_context(zipfile.ZipFile(file))
        limit = max(ALWAYS_ALLOWED, LARGEST_RATIO * os.path.getsize(path))
        yield Arrays(archive, file, limit)


def _check_header(member, size):
    """Return the shape of a ``.npy`` file of ``size`` bytes; ValueError if it declares others."""
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    else:
        raise ValueError(f'version {version[0]}.{version[1]} of the format')
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError('it is not one of plain numbers or text')
    promised = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or promised != size - member.tell():
        raise ValueError(f'{promised} bytes are promised and {size - member.tell()} are there')
    return shape


@contextlib.contextmanager
def _as_damaged(what):
    try:
        yield
    except OSError as error:
        # zipfile seeks to where a damaged directory points, which is not a fault of the disk.
        if error.errno != errno.EINVAL:
            raise
        raise Damaged(what) from None
    except DAMAGE as error:
        reason = str(error).split('\n')[0]
        raise Damaged(f'{what} ({reason})' if reason else what) from None
