"""Flag types, the flags that several scripts share, and a parser whose flags have roles."""

import argparse
import math
import re
import sys

from bert.system.errors import UsageError
from bert.system.files import is_utf8
from bert.system.machine import processor_flags
from bert.system.terminal import escape, show

# The highest whole number of any flag: beyond it, each library has an error of its own.
HIGHEST = 2**31 - 1
# The highest one that decides how much memory is taken before any work, and how many processes are
# started.
HIGHEST_COUNT, MOST_PROCESSES = 10**6, 1000


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help that keeps line breaks and shows defaults, except ``None`` and ``False``."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False:  # but 0 is shown
            return action.help
        return super()._get_help_string(action)


class OneOrMore(argparse.Action):
    """Store one value as itself and several as a list, for a flag that once took only one."""

    def __init__(self, *args, **keywords):
        super().__init__(*args, nargs='+', **keywords)

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values if len(values) > 1 else values[0])


class Parser(argparse.ArgumentParser):
    """An argument parser in the style of this project, whose flags can have roles.

    A flag may be shortened to any beginning that no other flag has, as the originals allowed. A
    role is a word by which other code finds the flags that it must treat alike. Flags get their
    roles where they are defined, so that no other code keeps lists of flags.
    """

    def __init__(self, description, **keywords):
        super().__init__(
            description=description,
            formatter_class=HelpFormatter,
            **keywords,
        )
        self.roles = {}
        self.actions = {}

    def flag(self, group, *names, roles='', **keywords):
        """Add a flag to a group.

        Parameters
        ----------
        group : argparse group, or this parser
        *names : str
            Such as ``--lr``.
        roles : str
            Words separated by spaces.
        **keywords
            Passed on to ``add_argument``.
        """
        action = group.add_argument(*names, **keywords)
        self.roles[action.dest] = roles.split()
        self.actions[action.dest] = action

    def with_role(self, role):
        """Return the names, in the parsed namespace, of the flags that have a role."""
        return [name for name, roles in self.roles.items() if role in roles]

    def check(self, name, value):
        """Return the value of a flag that a file remembers, if it could have been typed.

        Parameters
        ----------
        name : str
            In the parsed namespace.
        value
            As JSON holds it.

        Raises
        ------
        ValueError
            With a clause about the value.
        """
        action = self.actions[name]
        if value == action.default and type(value) is type(action.default):
            return value
        if action.nargs == 0:
            if value is True:
                return value
            raise ValueError('it is neither true nor false')
        takes_list = action.nargs == '+'
        if isinstance(action, OneOrMore):
            takes_list = isinstance(value, list) and len(value) != 1
        items = value if takes_list else [value]
        if not isinstance(items, list) or not items:
            raise ValueError('it is not a list')
        for item in items:
            if isinstance(item, bool) or not isinstance(item, (int, float) if action.type else str):
                raise ValueError('it is not of the type of this flag')
            if action.choices is not None and item not in action.choices:
                raise ValueError(f'{item!r} is not one of {", ".join(action.choices)}')
            if action.type:
                try:
                    action.type(str(item))
                except argparse.ArgumentTypeError as error:
                    raise ValueError(str(error)) from None
        return value

    def spellings(self):
        """Return all flags as they are typed, such as ``--lr``."""
        return [name for name in self._option_string_actions if name.startswith('--')]

    def parse_known_args(self, args=None, namespace=None):
        """Parse a command line, but not one that could not be written to a log or a JSON file.

        A system on which the programs cannot run is refused here, after ``--help``.
        """
        args = sys.argv[1:] if args is None else list(args)
        for word in args:
            if not is_utf8(word):
                self.error(f'{word!r} is not valid UTF-8')
        parsed = super().parse_known_args(args, namespace)
        if sys.platform == 'win32':
            raise UsageError('Windows: run this in the Windows Subsystem for Linux (WSL)')
        return parsed

    def error(self, message):
        """Print the usage and one line about an error, and exit with status 2."""
        super().error(escape(message))

    def _print_message(self, message, file=None):
        if message:
            show(*message.rstrip('\n').split('\n'), file=file or sys.stderr)

    def _get_option_tuples(self, option_string):
        """Return what a shortened flag can mean; two spellings of one flag are no ambiguity.

        Python before 3.12.8 counts them as two.
        """
        meanings = {}
        for meaning in super()._get_option_tuples(option_string):
            meanings.setdefault(meaning[0].dest, meaning)
        return list(meanings.values())


def number_type(kind, accept, what):
    """Make a type for ``add_argument`` whose error says what is allowed."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accept(value):
            raise argparse.ArgumentTypeError(f'{text!r} is not {what}')
        return value

    return parse


def _whole(lowest, highest):
    accept = range(lowest, highest + 1).__contains__
    return number_type(int, accept, f'a whole number from {lowest} to {highest}')


integer = _whole(-HIGHEST, HIGHEST)
natural = seed = _whole(0, HIGHEST)
positive_int = _whole(1, HIGHEST)
count = _whole(1, HIGHEST_COUNT)
process_count = _whole(1, MOST_PROCESSES)
positive_float = number_type(float, lambda x: 0 < x < math.inf, 'a number above 0')
non_negative_float = number_type(float, lambda x: 0 <= x < math.inf, 'a number of at least 0')
fraction = number_type(float, lambda x: 0 <= x < 1, 'a number of at least 0 and below 1')
part = number_type(float, lambda x: 0 < x < 1, 'a number above 0 and below 1')
share = number_type(float, lambda x: 0 <= x <= 1, 'a number from 0 to 1')


def address(text):
    """Check HOST:PORT, optionally preceded by a protocol."""
    if not re.fullmatch(r'((tcp|tls)://)?([^\s/:]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}', text):
        raise argparse.ArgumentTypeError(f'{text!r} is not HOST:PORT, such as 10.0.0.2:8786')
    return text


def gpu_list(text):
    """Parse ``0,1`` into [0, 1]."""
    try:
        indices = [natural(item) for item in text.split(',')]
    except argparse.ArgumentTypeError:
        indices = []
    if not indices or len(set(indices)) < len(indices):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a comma-separated list of different GPU numbers, such as 0,1'
        )
    return indices


def add_device_flags(parser, group, roles='', purpose='train'):
    """Add ``--dtype``, and ``--gpu`` and ``--gpus``, which exclude each other.

    Parameters
    ----------
    parser : Parser
    group : argparse group
    roles : str
        The roles of ``--gpu`` and ``--gpus``.
    purpose : str
        What the GPUs are for, a verb.
    """
    parser.flag(
        group,
        '--dtype',
        choices=['float32', 'float16', 'bfloat16'],
        default='float32',
        help='data type of the matrix products; float16 needs a GPU and applies to everything '
        'else, too; bfloat16 needs a CPU that supports it',
    )
    device = group.add_mutually_exclusive_group()
    parser.flag(
        device,
        '--gpu',
        action='store_true',
        roles=roles,
        help=f'{purpose} on GPU 0 instead of the CPU',
    )
    parser.flag(
        device,
        '--gpus',
        type=gpu_list,
        metavar='0,1',
        roles=f'{roles} by_worker',
        help=f'{purpose} on these GPUs',
    )


def add_quiet_flag(parser, group, roles='', files='any log file'):
    """Add ``--quiet``; see :func:`add_device_flags`.

    Parameters
    ----------
    files : str
        What still gets every line; nothing if it is empty.
    """
    rest = f'; {files} still gets every line' if files else ''
    parser.flag(
        group,
        '--quiet',
        roles=roles,
        action='store_true',
        help=f'show only warnings, errors and results, without progress bars{rest}',
    )


def add_tensorboard_flag(parser, group, roles):
    """Add ``--tensorboard``; see :func:`add_device_flags`."""
    parser.flag(
        group,
        '--tensorboard',
        roles=roles,
        action='store_true',
        help='also write the values of metrics.jsonl for TensorBoard, to tensorboard/ beside it',
    )


def check_dtype(dtype, on_gpu, flags=None):
    """Raise UsageError for a ``--dtype`` that the device cannot compute with.

    Parameters
    ----------
    dtype : str
        ``float32``, ``float16`` or ``bfloat16``.
    on_gpu : bool
    flags : set of str, optional
        The processor's instruction sets; defaults to those of this machine.
    """
    if dtype == 'float16' and not on_gpu:
        raise UsageError('--dtype float16 needs --gpu or --gpus: MXNet has no float16 on CPUs')
    if dtype == 'bfloat16':
        if on_gpu:
            raise UsageError('--dtype bfloat16 is for CPUs: MXNet has no bfloat16 on GPUs')
        if 'avx512_bf16' not in (processor_flags() if flags is None else flags):
            raise UsageError(
                '--dtype bfloat16 needs a processor with the instructions avx512_bf16 '
                '(Intel from Cooper Lake, AMD from Zen 4), and this one has none'
            )
