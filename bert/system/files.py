"""Files that are either complete or absent, and errors that name the file and line."""

import contextlib
import glob
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from bert.system.errors import ToolkitError

# Ends the names of half-written files, so that no other program's are taken for them.
HALF_WRITTEN = '.bert.tmp'


def is_utf8(path):
    """Return whether a path can be written to a log or a JSON file."""
    return str(path) == str(path).encode('utf8', 'ignore').decode('utf8')


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    The data is flushed to disk first, so that a crash leaves either the old file or the new one.
    After an error nothing of the new file is left; an error of the disk or the folder names
    ``path``. A missing folder is not created: it may have been removed along with the program's
    earlier files.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(
            prefix=f'.{path.name}.', suffix=HALF_WRITTEN, dir=path.parent
        )
    except OSError as error:
        raise ToolkitError(f'{path}: could not be written ({error.strerror})') from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner can read; set the mode that open() would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        if error.strerror and error.filename in (None, name, temporary):
            raise ToolkitError(f'{path}: could not be written ({error.strerror})') from None
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def remove_leftovers(path, keep=None):
    """Remove the temporary files that killed processes left beside ``path``, but not ``keep``.

    Call it only while no other process is writing ``path`` with :func:`replacing`.
    """
    path = Path(path)
    for leftover in path.parent.glob(f'.{glob.escape(path.name)}.*{HALF_WRITTEN}'):
        with contextlib.suppress(FileNotFoundError):
            if str(leftover) != keep:
                leftover.unlink()


@contextlib.contextmanager
def replacing_folder(path):
    """Yield a new folder beside ``path`` that becomes ``path`` when the block succeeds.

    A folder cannot replace another one in a single step: after a crash between the two renames
    neither exists, and the caller has to make it again. A missing parent folder is created.
    """
    path = Path(path)
    temporary, old = (
        path.with_name(f'.{path.name}.{kind}{HALF_WRITTEN}') for kind in ('new', 'old')
    )
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise ToolkitError(f'{path}: could not be written ({error.strerror})') from None
    try:
        yield temporary
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    except ToolkitError as error:
        # The temporary name would mean nothing to the user.
        error.args = (str(error).replace(str(temporary), str(path)),)
        raise
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def copy_file(source, path):
    """Hard-link a file to a second path, or copy it if the file system cannot link.

    Neither file may be written in place; replacing one leaves the other as it is.
    """
    with replacing(path) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def append_line(path, text):
    """Append a line to a file.

    This is for logs and metrics, which would take ever longer to rewrite for each line. A crash
    may leave half a line at the end, which a run that continues the file removes.
    """
    try:
        with open(path, 'a', encoding='utf8') as file:
            file.write(text + '\n')
    except OSError as error:
        raise ToolkitError(f'{path}: could not be written ({error.strerror})') from None


def write_text(path, text):
    """Write a text file as UTF-8, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf8')


def write_json(path, value):
    """Write a JSON file, completely or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + '\n')


def read_json(path):
    """Return the object in a JSON file; raise ToolkitError if it does not hold one."""
    value = None
    with contextlib.suppress(ValueError):
        value = parse_json(read_text(path))
    if not isinstance(value, dict):
        raise ToolkitError(f'{path}: not a JSON object')
    return value


def parse_json(text, parse_constant=None):
    """Return the value of a JSON text from an untrusted source.

    Parameters
    ----------
    text : str
    parse_constant : function, optional
        What becomes of ``NaN``, ``Infinity`` and ``-Infinity``, which are not JSON; see
        :func:`json.loads`.

    Raises
    ------
    ValueError
        If the text is not JSON, is nested too deeply, has a number of thousands of digits, or
        contains half of a surrogate pair, which cannot be written as UTF-8.
    """
    try:
        value = json.loads(text, parse_constant=parse_constant)
        if '\\u' in text:
            json.dumps(value, ensure_ascii=False).encode('utf8')
    except RecursionError:
        raise ValueError('nested too deeply') from None
    return value


def read_text(path):
    """Return the text of a file; raise ToolkitError, with the line, if it is not UTF-8."""
    data = Path(path).read_bytes()
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise ToolkitError(f'{path}:{line}: not valid UTF-8') from None


def sha256(path):
    """Return the sha256 of a file in hexadecimal."""
    return hash_file(path, hashlib.sha256())


def hash_file(path, digest):
    """Feed a file of any size to a ``hashlib`` digest and return the result in hexadecimal."""
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(2**20), b''):
            digest.update(block)
    return digest.hexdigest()
