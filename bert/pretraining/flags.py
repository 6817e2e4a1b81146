"""The flags of run_pretraining.py, and which of them go together."""

from pathlib import Path

from bert.cli.flags import check_dtype
from bert.distributed.flags import check_kvstore
from bert.pretraining.files import Layout
from bert.pretraining.instance_flags import check_max_seq_length, layout_of
from bert.pretraining.instances import Recipe
from bert.pretraining.parser import build_flags
from bert.system.errors import UsageError
from bert.training.events import require_tensorboard
from bert.training.flags import check_bias_correction
from bert.training.scratch import check_vocab_file, is_from_scratch


def parse_args(argv=None):
    """Parse the flags of run_pretraining.py, and check them without reading any file."""
    parser = build_flags()
    args = parser.parse_args(argv)
    check_args(args, parser.with_role('raw'))
    return args


def check_args(args, raw):
    """Refuse contradictory flags, and fill in the defaults of those for --raw.

    Parameters
    ----------
    args : argparse.Namespace
    raw : list of str
        The names of the flags that go with --raw.
    """
    if not (args.do_training or args.do_eval):
        raise UsageError('nothing to do: --do-training, --do-eval or both are needed')
    check_work(args)
    defaults = {**Recipe()._asdict(), **Layout()._asdict()}
    defaults.update(do_lower_case=False, num_workers=1)
    for name in raw:
        if getattr(args, name) is None:
            setattr(args, name, defaults[name])
        elif not args.raw:
            raise UsageError(f'--{name} goes with --raw; in shards it is fixed when they are made')
    check_max_seq_length(args.max_seq_length)
    layout_of(args)  # refuses a marker that is none
    check_vocab_file(args.bert_model, args.vocab_file)
    if args.pretrained and is_from_scratch(args.bert_model, args.vocab_file):
        cause = '--vocab_file' if args.vocab_file else args.bert_model
        raise UsageError(
            '--pretrained goes with a model of the zoo or a model directory; '
            f'{cause} means training from scratch'
        )
    check_start_from(args)
    check_bias_correction(args)
    if args.profile and not Path(args.profile).absolute().parent.is_dir():
        raise UsageError(f'--profile {args.profile}: there is no such folder')
    if args.tensorboard:
        require_tensorboard()
    check_dtype(args.dtype, on_gpu=bool(args.gpu or args.gpus))
    check_kvstore(args)


def check_start_from(args):
    """Refuse --start_from with what contradicts it."""
    if not args.start_from:
        return
    if args.pretrained:
        raise UsageError('--start_from and --pretrained exclude each other: both name the weights')
    folder = Path(args.ckpt_dir).resolve()
    if folder in (Path(args.start_from).resolve(), Path(args.start_from).resolve().parent):
        raise UsageError(
            f'--start_from {args.start_from} is in --ckpt_dir {args.ckpt_dir}: a new run needs '
            'another folder; --start_step continues the run there'
        )


def check_work(args):
    """Refuse data without a use, and a use without data."""
    if args.do_training and not args.data:
        raise UsageError('--do-training needs --data')
    if not args.do_training:
        if args.start_from:
            raise UsageError(
                '--start_from goes with --do-training; --start_step chooses what to evaluate'
            )
        for name in ('data', 'eval_interval', 'profile', 'tensorboard'):
            if getattr(args, name):
                raise UsageError(f'--{name} goes with --do-training')
    if args.data_eval and not (args.do_eval or args.eval_interval):
        raise UsageError('--data_eval goes with --do-eval or --eval_interval')
    if not args.data_eval and (args.do_eval or args.eval_interval):
        flag = '--do-eval' if args.do_eval else '--eval_interval'
        raise UsageError(f'{flag} needs --data_eval')
