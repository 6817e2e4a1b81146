"""The flags that describe instances, common to both scripts of pre-training."""

from bert.cli.flags import count, fraction
from bert.pretraining.files import Layout
from bert.pretraining.instances import MIN_SEQ_LENGTH, Recipe
from bert.system.errors import UsageError


def add_recipe_flags(parser, group, raw=False):
    """Add the flags that describe instances, named as the fields of :class:`Recipe`.

    Parameters
    ----------
    parser : bert.cli.flags.Parser
    group : argparse group
    raw : bool
        For ``--raw``: the flags have that role, there is none for the passes over the text, and
        they have no defaults, which shows which of them were given.
    """

    def add(name, meaning, **keywords):
        default = getattr(Recipe(), name)
        if default is False:
            keywords['action'] = 'store_true'
        else:
            keywords['metavar'] = 'P' if isinstance(default, float) else 'N'
            meaning += f' (default: {default})' if raw else ''
        keywords['default'] = None if raw else default
        parser.flag(group, f'--{name}', roles='raw' if raw else '', help=meaning, **keywords)

    length = f'maximum number of tokens in an instance, at least {MIN_SEQ_LENGTH}'
    add('max_seq_length', length, type=count)
    masks = 'maximum number of masked tokens in an instance'
    add('max_predictions_per_seq', masks, type=count)
    add('masked_lm_prob', 'share of the tokens that are masked', type=fraction)
    short = 'share of documents that are cut into shorter instances; with --no_nsp or a single'
    add('short_seq_prob', f'{short} document, share of instances', type=fraction)
    if not raw:
        passes = 'number of passes over the text, each with different pairs and masks'
        add('dupe_factor', passes, type=count)
    add('whole_word_mask', 'mask all tokens of a word or none of them')


def add_no_nsp_flag(parser, group):
    """Add ``--no_nsp``, which both scripts have."""
    parser.flag(
        group,
        '--no_nsp',
        action='store_true',
        help='masked LM only, no next-sentence prediction: each instance is one piece of text, and '
        'the text need not be divided into documents',
    )


def add_layout_flags(parser, group, raw=False):
    """Add the flags that tell sentences and documents apart, named as the fields of Layout.

    Parameters
    ----------
    parser, group, raw
        See :func:`add_recipe_flags`.
    """
    roles = 'raw' if raw else ''
    parser.flag(
        group,
        '--segment',
        roles=roles,
        action='store_true',
        default=None if raw else False,
        help='the text is plain, in wrapped lines or whole paragraphs, to be split into sentences; '
        'paragraphs end at blank lines and before list items',
    )
    parser.flag(
        group,
        '--document_marker',
        roles=roles,
        metavar='LINE',
        help='documents end at lines that consist of LINE only, instead of at blank lines',
    )


def layout_of(args):
    """Return the :class:`bert.pretraining.files.Layout` that the flags describe.

    Raises
    ------
    UsageError
        If the marker is blank, or not a single line.
    """
    marker = args.document_marker
    if marker is not None and len(marker.strip().splitlines()) != 1:
        raise UsageError(f'--document_marker {marker!r} is not a line of text')
    return Layout(args.segment, marker and marker.strip())


def recipe_of(args, **others):
    """Return the :class:`Recipe` that the flags describe.

    Parameters
    ----------
    args : argparse.Namespace
    **others
        Fields for which there is no flag.
    """
    flags = {name: value for name, value in vars(args).items() if name in Recipe._fields}
    return Recipe(**{**flags, **others})


def check_max_seq_length(length):
    """Refuse instances that have no room for text."""
    if length < MIN_SEQ_LENGTH:
        raise UsageError(
            f'--max_seq_length {length}: at least {MIN_SEQ_LENGTH}, for [CLS] one token [SEP] '
            'another [SEP]'
        )
