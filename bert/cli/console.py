"""Log lines and progress bars."""

import contextlib
import logging.handlers
import sys

from bert.system.errors import ToolkitError
from bert.system.terminal import escape


class _OneLine(logging.Formatter):
    """Format a record as one line, which no name or label in it can end early."""

    def __init__(self):
        super().__init__('%(levelname)s:%(name)s:%(message)s')

    def format(self, record):
        return escape(super().format(record), keep='\t')


def start_logging(quiet=False):
    """Send log lines of level INFO to stderr as ``INFO:root:...``.

    Of other libraries, which name their loggers, only warnings and errors count.

    Parameters
    ----------
    quiet : bool
        Whether stderr gets warnings, errors and results only; log files get all lines.

    Returns
    -------
    logging.handlers.MemoryHandler
        Holds the lines back for :func:`log_to_file`, so that a run that fails before loading its
        input leaves the log of an earlier run intact.
    """
    memory = logging.handlers.MemoryHandler(capacity=10000, flushLevel=logging.CRITICAL + 1)
    lines = logging.StreamHandler()
    lines.setFormatter(_OneLine())
    for handler in (lines, memory):
        handler.addFilter(_is_ours)
    if quiet:
        lines.addFilter(_is_wanted)
    # force: a second run in one process must not write into the file of the first
    logging.basicConfig(level=logging.INFO, handlers=[lines, memory], force=True)
    return memory


def _is_ours(record):
    return record.name == 'root' or record.levelno >= logging.WARNING


def _is_wanted(record):
    return hasattr(record, 'is_result') or record.levelno >= logging.WARNING


def log_result(message, *args):
    """Log a line that is shown with ``--quiet`` too."""
    logging.info(message, *args, extra={'is_result': True})


def is_shown():
    """Return whether stderr is a terminal for progress bars, without ``--quiet``."""
    logger = logging.getLogger()
    if any(_is_wanted in handler.filters for handler in logger.handlers):
        return False
    return sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)


class _LogFile(logging.FileHandler):
    """A log file; a line that cannot be written ends the program with an error."""

    def handleError(self, record):
        error = sys.exc_info()[1]
        reason = getattr(error, 'strerror', None) or error
        raise ToolkitError(f'{self.baseFilename}: could not be written ({reason})') from None


def log_to_file(memory, path, append=False):
    """Write the log lines to a file from now on, beginning with those held back in ``memory``."""
    try:
        target = _LogFile(path, mode='a' if append else 'w', encoding='utf8')
    except OSError as error:
        raise ToolkitError(f'{path}: could not be written ({error.strerror})') from None
    target.setFormatter(_OneLine())
    target.addFilter(_is_ours)
    memory.setTarget(target)
    memory.flush()
    logging.getLogger().removeHandler(memory)
    logging.getLogger().addHandler(target)


def first_of(paths):
    """Name the first path and count the others, for a log line about all of them."""
    return f'{paths[0]} (and {len(paths) - 1} more)' if len(paths) > 1 else str(paths[0])


@contextlib.contextmanager
def progress(total, description, unit):
    """Show a progress bar while the block runs; log lines appear above it.

    It is hidden unless :func:`is_shown`. Bytes, of the unit B, are shown as kB, MB and so on.

    Yields
    ------
    tqdm.tqdm
    """
    from tqdm.contrib.logging import logging_redirect_tqdm

    with contextlib.ExitStack() as stack:
        if is_shown():
            stack.enter_context(logging_redirect_tqdm())
            for handler in logging.getLogger().handlers:
                handler.addFilter(_is_ours)  # the handler in place of ours has none
        yield stack.enter_context(make_bar(total, description, unit))


def make_bar(total, description, unit, position=None):
    """Make a bar that appears beside that of :func:`progress`, in the line ``position``.

    Returns
    -------
    tqdm.tqdm
    """
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=escape(description),
        unit=unit,
        unit_scale=unit == 'B',
        disable=not is_shown(),
        leave=False,
        dynamic_ncols=True,
        position=position,
    )
