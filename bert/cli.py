"""What the command-line scripts share: flags, log lines, progress bars, and how an error is told.

A mistake of the user ends in one sentence on stderr and exit status 2 (usage) or 1 (anything
else), never in a traceback.
"""

import argparse
import contextlib
import logging
import logging.handlers
import math
import signal
import sys
import threading

LOG_FORMAT = '%(levelname)s:%(name)s:%(message)s'


# A sentence with more than this came from a file, not from this project.
LONGEST_SENTENCE = 2000


class ToolkitError(Exception):
    """Something the user can mend, told in one sentence; ends the program with status 1.

    Sentences quote what stands in files, so here they become a line of limited length, without
    the control characters that could move a terminal's cursor.
    """

    status = 1

    def __init__(self, sentence):
        if not sentence.isprintable():
            sentence = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in sentence)
        if len(sentence) > LONGEST_SENTENCE:
            half = LONGEST_SENTENCE // 2
            sentence = f'{sentence[:half]} ... {sentence[-half:]}'
        super().__init__(sentence)


class UsageError(ToolkitError):
    """A wrong or missing flag or environment variable; ends the program with status 2."""

    status = 2


class Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGINT, where nothing waits for it: the program ends as soon as it has cleaned up.

    Attributes
    ----------
    signum : int
    """

    def __init__(self, signum):
        super().__init__(signum)
        self.signum = signum


def run(main):
    """Call a script's ``main()`` and leave with the conventional exit status.

    The first SIGTERM or SIGINT raises :class:`Interrupted` there, unless it is taken for a request
    (see :func:`stop_requests`); the second ends the program at once.
    """

    def interrupt(signum, frame):
        raise Interrupted(signum)

    try:
        with _first_signal(interrupt):
            main()
            # Here a full disk is told; at the end of the program it would not be.
            sys.stdout.flush()
    except ToolkitError as error:
        _leave(error.status, str(error))
    except Interrupted as error:
        name = signal.Signals(error.signum).name
        _leave(128 + error.signum, 'interrupted' if name == 'SIGINT' else f'stopped by {name}')
    except KeyboardInterrupt:
        _leave(130, 'interrupted')
    except BrokenPipeError:
        # The reader of our output (head, less) left; nobody is there to be told.
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        where = f'{error.filename}: ' if error.filename else ''
        _leave(1, f'{where}{error.strerror or error}')
    except Exception as error:
        # MXNet's own, if it was imported at all: a sentence before pages of C++ stack.
        if not isinstance(error, getattr(sys.modules.get('mxnet'), 'MXNetError', ())):
            raise
        advice = ': try a smaller --batch_size' if is_out_of_memory(error) else ''
        _leave(1, f'MXNet stopped, {str(error).strip().splitlines()[-1]}{advice}')


def is_out_of_memory(error):
    """Whether an error of MXNet says that a GPU is full."""
    return 'out of memory' in str(error).lower()


def _leave(status, sentence):
    print(f'{sys.argv[0].rpartition("/")[2]}: error: {sentence}', file=sys.stderr)
    sys.exit(status)


class Stopped(ToolkitError):
    """The program did what a signal asked for: the conventional status, 128 and its number."""

    def __init__(self, signum, sentence):
        super().__init__(f'stopped by {signal.Signals(signum).name}: {sentence}')
        self.status = 128 + signum


@contextlib.contextmanager
def stop_requests():
    """Take the first SIGTERM or SIGINT for a request to stop soon; the second ends the program.

    Yields
    ------
    list of int
        Empty until a signal arrives; then its number.
    """
    arrived = []
    with _first_signal(lambda signum, frame: arrived.append(signum)):
        yield arrived


@contextlib.contextmanager
def _first_signal(handle):
    """Have the first SIGTERM or SIGINT call a function, and the second end the process at once.

    A signal that is ignored, as in a shell's background job, stays ignored.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        yield  # the main thread has the signals
        return

    def once(signum, frame):
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        handle(signum, frame)

    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, once)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults but the empty ones, ``(default: None)`` helps nobody, and keep line ends."""

    def _get_help_string(self, action):
        if action.default in (None, False):
            return action.help
        return super()._get_help_string(action)


def build_parser(description, **kwargs):
    """An argument parser in the style of this project."""
    return argparse.ArgumentParser(
        description=description, formatter_class=HelpFormatter, allow_abbrev=False, **kwargs
    )


def _number(kind, accept, what):
    """A type for ``add_argument`` that refuses numbers outside a range, saying what is allowed."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accept(value):
            raise argparse.ArgumentTypeError(f'{text!r} is not {what}')
        return value

    return parse


positive_int = _number(int, lambda n: n > 0, 'a whole number of at least 1')
natural = _number(int, lambda n: n >= 0, 'a whole number of at least 0')
seed = _number(int, lambda n: 0 <= n < 2**31, 'a whole number from 0 to 2147483647')
positive_float = _number(float, lambda x: 0 < x < math.inf, 'a number above 0')
fraction = _number(float, lambda x: 0 <= x < 1, 'a number of at least 0 and below 1')


def gpu_list(text):
    """``0,1`` as [0, 1]."""
    try:
        indices = [int(item) for item in text.split(',')]
    except ValueError:
        indices = []
    if not indices or min(indices) < 0 or len(set(indices)) < len(indices):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a comma-separated list of different GPU numbers, such as 0,1'
        )
    return indices


def add_device_flags(group):
    """Add ``--dtype``, ``--gpu`` and ``--gpus``, of which the last two exclude each other."""
    group.add_argument(
        '--dtype',
        choices=['float32', 'float16', 'bfloat16'],
        default='float32',
        help='of the matrix products: float16, and all else in it too, on GPUs only; bfloat16 on '
        'CPUs only that have it',
    )
    device = group.add_mutually_exclusive_group()
    device.add_argument('--gpu', action='store_true', help='train on GPU 0, not the CPU')
    device.add_argument('--gpus', type=gpu_list, metavar='0,1', help='train on these GPUs')


def add_kvstore_flag(group):
    """Add ``--kvstore``."""
    group.add_argument(
        '--kvstore',
        default='device',
        choices=['device', 'local', 'dist_sync', 'horovod'],
        help='what adds up the gradients: of the GPUs of this process alone, device or local (on '
        'the CPU); of several processes on one machine or more too, dist_sync, which python -m '
        'bert.cluster starts, or horovod, which horovodrun starts',
    )


def start_logging():
    """Send log lines of level INFO to stderr as ``INFO:root:...``.

    Returns
    -------
    logging.handlers.MemoryHandler
        Holds the lines back for :func:`log_to_file`, so that a run which fails before it has
        loaded its input leaves the log of an earlier one whole.
    """
    memory = logging.handlers.MemoryHandler(capacity=10000, flushLevel=logging.CRITICAL + 1)
    # force: a second run in one process must not write into the first one's file
    logging.basicConfig(
        level=logging.INFO,
        format=LOG_FORMAT,
        handlers=[logging.StreamHandler(), memory],
        force=True,
    )
    return memory


class _LogFile(logging.FileHandler):
    """A log file, which grows line by line; where it cannot, the program ends with a sentence."""

    def handleError(self, record):
        error = sys.exc_info()[1]
        reason = getattr(error, 'strerror', None) or error
        raise ToolkitError(f'{self.baseFilename}: could not be written ({reason})') from None


def log_to_file(memory, path, append=False):
    """From now on write the log lines to a file too, those held back first."""
    try:
        target = _LogFile(path, mode='a' if append else 'w', encoding='utf8')
    except OSError as error:
        raise ToolkitError(f'{path}: could not be written ({error.strerror})') from None
    target.setFormatter(logging.Formatter(LOG_FORMAT))
    memory.setTarget(target)
    memory.flush()
    logging.getLogger().removeHandler(memory)
    logging.getLogger().addHandler(target)


@contextlib.contextmanager
def progress(total, description, unit):
    """A tqdm bar while stderr is a terminal and log lines are shown, otherwise an invisible one.

    Log lines written meanwhile go above the bar.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    hidden = not sys.stderr.isatty() or not logging.getLogger().isEnabledFor(logging.INFO)
    redirect = contextlib.nullcontext() if hidden else logging_redirect_tqdm()
    with redirect, tqdm(
        total=total, desc=description, unit=unit, disable=hidden, leave=False, dynamic_ncols=True
    ) as bar:
        yield bar
