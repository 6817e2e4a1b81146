"""Standard input and output, or the files that stand for them."""

import contextlib
import sys
from pathlib import Path

from bert.system.errors import UsageError


def check_streams(input_path, output_path):
    """Raise UsageError for files, or for standard streams in their place, that cannot be used.

    Parameters
    ----------
    input_path, output_path : str or None
        The values of ``--input`` and ``--output``.
    """
    if not output_path and not sys.stdout.writable():
        raise UsageError('standard output is closed: name an --output')
    if not input_path and not sys.stdin.readable():
        raise UsageError('standard input is closed: name an --input')
    if output_path and Path(output_path).is_dir():
        raise UsageError(f'--output {output_path} is a folder, not a file')


@contextlib.contextmanager
def open_input(path):
    """Open a file for reading bytes, or standard input in its place.

    Yields
    ------
    binary file, str
        And its name in sentences.
    """
    if not path:
        yield sys.stdin.buffer, 'standard input'
        return
    with open(path, 'rb') as file:
        yield file, path
