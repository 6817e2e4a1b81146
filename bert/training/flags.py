"""The flags of an update: which optimizer, weight decay, clipping."""

from bert.cli.flags import non_negative_float, positive_float
from bert.system.errors import UsageError

# This project's optimizers, whose state is saved so that a run can go on.
OPTIMIZERS = ('bertadam', 'lamb')
WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 1.0


def is_resumable(optimizer):
    """Return whether a run with the optimizer of this name, in any case, can be resumed."""
    return optimizer.lower() in OPTIMIZERS


def add_bias_correction_flag(parser, group):
    """Add ``--bias_correction``."""
    parser.flag(
        group,
        '--bias_correction',
        action='store_true',
        help="add Adam's bias correction to bertadam",
    )


def check_bias_correction(args):
    """Raise UsageError for ``--bias_correction`` with another optimizer than bertadam.

    Parameters
    ----------
    args : argparse.Namespace
        With ``optimizer`` and ``bias_correction``.
    """
    optimizer = args.optimizer.lower()
    if args.bias_correction and optimizer != 'bertadam':
        always = ': lamb always has it' if optimizer == 'lamb' else ''
        raise UsageError(f'--bias_correction goes with --optimizer bertadam only{always}')


def add_update_flags(parser, group):
    """Add ``--optimizer``, its settings, and the limit to which gradients are clipped."""
    parser.flag(
        group,
        '--optimizer',
        choices=OPTIMIZERS,
        default='bertadam',
        help='lamb is meant for large batches',
    )
    add_bias_correction_flag(parser, group)
    parser.flag(
        group,
        '--weight_decay',
        type=non_negative_float,
        default=WEIGHT_DECAY,
        help='weight decay, for all weights except those of LayerNorm and biases',
    )
    parser.flag(
        group,
        '--max_grad_norm',
        type=positive_float,
        default=MAX_GRADIENT_NORM,
        help='clip the gradients to this norm, computed over all weights',
    )
