"""Everything that a program prints: text of files and of the network, safe on any terminal."""

import contextlib
import os
import sys


def escape(text, keep=''):
    """Write the characters that a terminal obeys or hides as Python writes them in a string.

    They move the cursor, rename the window, end the line, reverse the order of the letters, or
    stand for the bytes of a path that is not UTF-8.

    >>> print(escape('a label\\x1b[2J\\n'))
    a label\\x1b[2J\\n

    Parameters
    ----------
    text : str
    keep : str
        The characters to leave, such as a tab.
    """
    if text.isprintable():
        return text
    return ''.join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def show(*lines, file=None):
    """Print lines at once, on stdout by default; a line that holds a newline stays one line."""
    file = file or sys.stdout
    # There is no other place to say that stderr is full.
    with contextlib.suppress(*[OSError] * (file is sys.stderr)):
        print(*(escape(line, keep='\t') for line in lines), sep='\n', file=file, flush=True)


def complain(sentence):
    """Print a sentence on stderr, after the name of the program."""
    folder, _, name = sys.argv[0].rpartition('/')
    if name == '__main__.py':  # of python -m bert.convert, say
        name = f'{folder.rpartition("/")[2]}.py'
    show(f'{name}: error: {sentence}', file=sys.stderr)


def open_streams():
    """Prepare stdin, stdout and stderr: any text can be printed, and none of them is missing.

    A program may be started without them, and the next three files that it opened would take their
    numbers: what MXNet or a child process prints would end in a model. In their place come streams
    of ``/dev/null``; as nobody can have wanted to read or write there, those of stdin and stdout
    refuse it, and the program ends as on a full disk.
    """
    for name, mode in (('stdin', 'w'), ('stdout', 'r'), ('stderr', 'w')):
        stream = getattr(sys, name)
        if stream is None:
            # The lowest free number, which is that of the missing stream.
            setattr(sys, name, open(os.devnull, mode, encoding='utf8'))  # noqa: SIM115
        elif name != 'stdin' and hasattr(stream, 'reconfigure'):
            # An encoding that lacks a letter must not end a program that has done its work.
            stream.reconfigure(errors='backslashreplace')
