"""Files that are either whole or absent, and errors that name the file and line."""

import contextlib
import glob
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from bert.system.errors import ToolkitError


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    The data is flushed to the disk first, so that a crash leaves the old file or the new one.
    After an error nothing of the new file is left; one of the disk or the folder is told as one
    of ``path``. A folder that is missing is not made: it may have been removed, and with it what
    a program wrote before.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', suffix='.tmp', dir=path.parent)
    except OSError as error:
        raise ToolkitError(f'{path}: could not be written ({error.strerror})') from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner can read; give what open() would have given.
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


def remove_leftovers(path):
    """Remove what killed processes left of :func:`replacing`, while nobody writes ``path``."""
    path = Path(path)
    for leftover in path.parent.glob(f'.{glob.escape(path.name)}.*.tmp'):
        with contextlib.suppress(FileNotFoundError):
            leftover.unlink()


@contextlib.contextmanager
def replacing_folder(path):
    """Yield a new folder beside ``path`` that becomes ``path`` when the block succeeds.

    A folder cannot take the place of another in one step: after a crash between the two renames
    there is none, and whoever made it has to make it again. The folder that it is in is made where
    it is missing.
    """
    path = Path(path)
    temporary, old = (path.with_name(f'.{path.name}.{kind}.tmp') for kind in ('new', 'old'))
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
        # The new folder's name is of no use to anybody.
        error.args = (str(error).replace(str(temporary), str(path)),)
        raise
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def copy_file(source, path):
    """Give a file a second name, or where the file system has no such thing, copy it.

    The two must not be written to; what replaces one of them leaves the other as it is.
    """
    with replacing(path) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def append_line(path, text):
    """Add a line to a file, at once.

    Logs and metrics grow by it: to write them anew for each line would take longer and longer. A
    crash may leave half a line at the end, which whoever goes on with the file removes.
    """
    try:
        with open(path, 'a', encoding='utf8') as file:
            file.write(text + '\n')
    except OSError as error:
        raise ToolkitError(f'{path}: could not be written ({error.strerror})') from None


def write_text(path, text):
    """Write a text file as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf8')


def write_json(path, value):
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + '\n')


def read_json(path):
    """The object in a JSON file; a file that is no JSON object is an error that names it."""
    value = None
    with contextlib.suppress(ValueError):
        value = parse_json(read_text(path))
    if not isinstance(value, dict):
        raise ToolkitError(f'{path}: not a JSON object')
    return value


def parse_json(text):
    """The value of a JSON text from anywhere.

    Raises
    ------
    ValueError
        Where it is no JSON, nested too deeply, has a number of thousands of digits, or half of a
        surrogate pair, which no file could take.
    """
    try:
        value = json.loads(text)
        if '\\u' in text:
            json.dumps(value, ensure_ascii=False).encode('utf8')
    except RecursionError:
        raise ValueError('nested too deeply') from None
    return value


def read_text(path):
    """A whole text file; invalid UTF-8 is an error that names file and line."""
    data = Path(path).read_bytes()
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise ToolkitError(f'{path}:{line}: not valid UTF-8') from None


def sha256(path):
    """The sha256 of a file, in hexadecimal."""
    return hash_file(path, hashlib.sha256())


def hash_file(path, digest):
    """Feed a file of any size to a ``hashlib`` digest; its result in hexadecimal."""
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(2**20), b''):
            digest.update(block)
    return digest.hexdigest()
