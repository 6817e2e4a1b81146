"""The exceptions that end a program with one sentence and an exit status."""

import signal

from bert.system.terminal import escape

# A longer sentence must quote a file: the project's own are shorter.
LONGEST_SENTENCE = 2000


class ToolkitError(Exception):
    """A problem that the user can fix, as one sentence; ends the program with status 1.

    Sentences quote the contents of files, so the constructor turns them into one line of limited
    length; see :func:`bert.system.terminal.escape`.
    """

    status = 1

    def __init__(self, sentence):
        sentence = escape(sentence)
        if len(sentence) > LONGEST_SENTENCE:
            half = LONGEST_SENTENCE // 2
            sentence = f'{sentence[:half]} ... {sentence[-half:]}'
        super().__init__(sentence)


class UsageError(ToolkitError):
    """A wrong or missing flag or environment variable; ends the program with status 2."""

    status = 2


class Interrupted(KeyboardInterrupt):
    """A SIGTERM or SIGINT that no code is waiting for: the program cleans up and ends.

    Attributes
    ----------
    signum : int
    """

    def __init__(self, signum):
        super().__init__(signum)
        self.signum = signum


class Stopped(ToolkitError):
    """A stop that a signal requested; the status is the conventional 128 plus its number."""

    def __init__(self, signum, sentence):
        super().__init__(f'stopped by {signal.Signals(signum).name}: {sentence}')
        self.status = 128 + signum
