"""How a program ends: errors as one sentence, exit statuses and signals.

A mistake of the user ends in one sentence on stderr and exit status 2 (usage) or 1 (anything
else), never in a traceback.
"""

import contextlib
import io
import signal
import sys
import threading

from bert.system import terminal
from bert.system.errors import Interrupted, ToolkitError


def run(main):
    """Call a script's ``main()``, and exit with the conventional status after an error.

    Until then an interrupt ends the program at once, if it begins by saying so, since Python would
    show where in the imports it came.

    The first SIGTERM or SIGINT raises :class:`Interrupted` in ``main()``, unless it only requests
    a stop (see :func:`stop_requests`); the second ends the program at once.
    """

    def interrupt(signum, frame):
        raise Interrupted(signum)

    terminal.open_streams()
    try:
        with _first_signal(interrupt):
            main()
            # A full disk is reported here; after the end of the program it would be missed.
            sys.stdout.flush()
    except ToolkitError as error:
        _leave(error.status, str(error))
    except Interrupted as error:
        name = signal.Signals(error.signum).name
        _leave(128 + error.signum, 'interrupted' if name == 'SIGINT' else f'stopped by {name}')
    except KeyboardInterrupt:
        _leave(130, 'interrupted')
    except BrokenPipeError:
        # The reader of the output (head, less) has left, and nobody would see a message.
        sys.stderr.close()
        sys.exit(1)
    except io.UnsupportedOperation:
        _leave(1, 'standard input or output is closed')
    except OSError as error:
        where = f'{error.filename}: ' if error.filename else ''
        _leave(1, f'{where}{error.strerror or error}')
    except MemoryError as error:
        # NumPy says how much it wanted.
        _leave(1, f'there is not enough memory{": " * bool(str(error))}{error}')
    except ImportError as error:
        # A package is missing, or there is no memory left to load it.
        _leave(1, str(error))
    except Exception as error:
        # MXNet's own, if even a part of it was imported: show the reason, not pages of C++ stack.
        if not isinstance(error, getattr(sys.modules.get('mxnet.base'), 'MXNetError', ())):
            raise
        advice = ': try a smaller --batch_size' if is_out_of_memory(error) else ''
        _leave(1, f'MXNet stopped, {str(error).strip().splitlines()[-1]}{advice}')


def is_out_of_memory(error):
    """Return whether an MXNet error says that a GPU is out of memory."""
    return 'out of memory' in str(error).lower()


def _leave(status, sentence):
    terminal.complain(sentence)
    sys.exit(status)


@contextlib.contextmanager
def stop_requests():
    """Treat the first SIGTERM or SIGINT as a request to stop soon; the second ends the program.

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
    """Call a function on the first SIGTERM or SIGINT; let the second end the process at once.

    A signal that is ignored, as in a shell's background job, stays ignored.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
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
