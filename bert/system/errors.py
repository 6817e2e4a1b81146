"""TODO"""

import signal

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


class Stopped(ToolkitError):
    """The program did what a signal asked for: the conventional status, 128 and its number."""

    def __init__(self, signum, sentence):
        super().__init__(f'stopped by {signal.Signals(signum).name}: {sentence}')
        self.status = 128 + signum
