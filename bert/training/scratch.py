"""Training from scratch: the flags that name a model without weights."""

from bert.checkpoints.config import NAMED_SIZES, SMALL_SIZES
from bert.system.errors import UsageError

# For the help of --bert_model.
CHOICES = (
    f'{", ".join(SMALL_SIZES)} with a --vocab_file, or a configuration file, *.json, with a '
    '--vocab_file or with a vocab.txt beside it'
)
FROM_SCRATCH = 'the weights of the model are random, for training from scratch'


def add_vocab_file_flag(parser, group, roles):
    """Add ``--vocab_file`` to a group of flags."""
    parser.flag(
        group,
        '--vocab_file',
        metavar='FILE',
        roles=roles,
        help='train from scratch with this vocabulary, such as one from python -m bert.vocabulary; '
        f'--bert_model then names the size: {", ".join(NAMED_SIZES)} or a configuration file, '
        '*.json',
    )


def is_from_scratch(bert_model, vocab_file):
    """Return whether training begins without weights, by the values of these flags."""
    return bool(vocab_file) or is_configuration(bert_model)


def is_configuration(name):
    """Return whether ``--bert_model`` names sizes alone."""
    return name in SMALL_SIZES or name.endswith('.json')


def check_vocab_file(bert_model, vocab_file):
    """Raise UsageError for values of these flags that do not go together."""
    if bert_model in SMALL_SIZES and not vocab_file:
        raise UsageError(
            f'--bert_model {bert_model} names sizes only: a --vocab_file is needed, such as '
            'python -m bert.vocabulary makes'
        )
    if vocab_file and not (bert_model in NAMED_SIZES or is_configuration(bert_model)):
        raise UsageError(
            '--vocab_file is for training from scratch, for which --bert_model names the sizes: '
            f'{", ".join(NAMED_SIZES)} or a configuration file, *.json, and not {bert_model}'
        )
