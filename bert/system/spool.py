"""``.npz`` files whose arrays grow row by row, of any size and in bounded memory.

An ``.npy`` file begins with its shape, so the rows are kept in a temporary file until their number
is known.
"""

import contextlib
import shutil
import tempfile
import zipfile

import numpy as np

from bert.system.errors import ToolkitError


class Spool:
    """An array that grows along its first axis, in a nameless file that ends with the process.

    Parameters
    ----------
    folder : Path or None
        Where the file is; by default the system's place for temporary files.
    dtype : numpy.dtype
    shape : tuple of int
        The shape of a row.
    """

    def __init__(self, folder, dtype, shape=()):
        self.folder = folder or tempfile.gettempdir()
        self.dtype = np.dtype(dtype)
        self.shape = tuple(shape)
        self.count = 0
        with self._naming_folder():
            self.file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 (see close)

    def append(self, rows):
        """Add an array of rows."""
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        if rows.shape[1:] != self.shape:
            raise ValueError(f'rows of the shape {rows.shape[1:]} do not fit {self.shape}')
        with self._naming_folder():
            self.file.write(rows)
        self.count += len(rows)

    def write(self, member):
        """Write the whole as an ``.npy`` file."""
        header = {
            'descr': np.lib.format.dtype_to_descr(self.dtype),
            'fortran_order': False,
            'shape': (self.count, *self.shape),
        }
        np.lib.format.write_array_header_1_0(member, header)
        with self._naming_folder():
            self.file.seek(0)
        shutil.copyfileobj(self.file, member, 2**20)

    def close(self):
        """Remove the file."""
        with contextlib.suppress(OSError):  # what could not be written is not wanted any more
            self.file.close()

    @contextlib.contextmanager
    def _naming_folder(self):
        try:
            yield
        except OSError as error:
            raise ToolkitError(f'{self.folder}: could not be written ({error.strerror})') from None


def write_npz(file, arrays):
    """Write an ``.npz`` file, the same bytes each time.

    Parameters
    ----------
    file : binary file
        A pipe will do.
    arrays : dict of str to Spool or numpy.ndarray
    """
    with zipfile.ZipFile(file, 'w') as archive:
        for name, array in arrays.items():
            # zipfile dates the member 1980.
            with archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w', force_zip64=True) as member:
                if isinstance(array, Spool):
                    array.write(member)
                else:
                    np.lib.format.write_array(member, array, allow_pickle=False)
