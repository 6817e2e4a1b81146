"""The flags of finetune_classifier.py: which combinations are allowed, and what they imply."""

from bert.checkpoints.contents import FINETUNED
from bert.checkpoints.source import is_zoo_model
from bert.cli.flags import check_dtype
from bert.distributed.flags import check_kvstore
from bert.finetuning.parser import build_flags
from bert.finetuning.weights import parse_weights
from bert.system.errors import ToolkitError, UsageError
from bert.tasks import library
from bert.tasks.table import ALL_TASKS, OTHER_NAMES
from bert.training.events import require_tensorboard
from bert.training.flags import check_bias_correction, is_resumable
from bert.training.scratch import check_vocab_file, is_from_scratch

OWN_FILES = ('train_file', 'dev_file', 'test_file')
INFERENCE_ON_OWN_DATA = (
    '--only_inference on own data goes with --dev_file and --test_file, and needs a --bert_model '
    'that this script made, which remembers the labels'
)


def parse_args(argv=None):
    """Parse the flags, and check them as far as possible without reading a file."""
    parser = build_flags()
    args = parser.parse_args(argv)
    if args.text:
        # The model's own length, which is read with it, in place of the default.
        parser.set_defaults(max_len=None)
        args = parser.parse_args(argv)
    check_args(args)
    if not args.only_inference:
        complete(args)
    return args


def recall(argv, args, finetuned):
    """Fill in flags missing for --only_inference from those that the model remembers.

    Parameters
    ----------
    argv : list of str or None
        The command line.
    args : argparse.Namespace
        The result of :func:`parse_args`.
    finetuned : dict or None
        The flags and labels of the model of --bert_model; see
        :func:`bert.checkpoints.reading.read_finetuned`.

    Returns
    -------
    argparse.Namespace
        The flags, where those not given have their remembered values.
    """
    own = own_files(args)
    if finetuned is None:
        refuse_without_finetuned(args)
    else:
        parser = build_flags()
        remembered = check_remembered(parser, finetuned['flags'], args.bert_model)
        if args.task_name and finetuned.get('is_multilabel'):
            raise UsageError(
                f'--task_name {args.task_name}: its rows have one label, and those of '
                f'{args.bert_model} may have several'
            )
        if args.task_name:
            # The task may differ from the one it was trained on: only the length still applies.
            remembered = {n: value for n, value in remembered.items() if n == 'max_len'}
        elif own:
            remembered.pop('task_name', None)
        elif not remembered.get('task_name'):
            raise UsageError(
                f'--only_inference with {args.bert_model}, which was trained on own data, needs a '
                '--dev_file or a --test_file'
            )
        parser.set_defaults(**remembered)
        args = parser.parse_args(argv)
    complete(args)
    return args


def check_remembered(parser, flags, model):
    """Return those flags that a model may remember, each checked as if it had been typed.

    Parameters
    ----------
    parser : bert.cli.flags.Parser
    flags : dict
        From a file that may be a stranger's.
    model : str
        The name of the model, for the error.
    """
    remembered = {}
    for name in parser.with_role('remembered'):
        if name in flags:
            try:
                remembered[name] = parser.check(name, flags[name])
            except ValueError as error:
                raise ToolkitError(
                    f'{model}: {FINETUNED} says that {name} is {flags[name]!r}: {error}'
                ) from None
    return remembered


def fixed_flags(args):
    """Return the flags, by name, that must agree on all workers and when a run is resumed."""
    may_change = build_flags().with_role('may_change')
    return {name: value for name, value in _values(args).items() if name not in may_change}


def remembered_flags(args):
    """Return the flags, by name, that a fine-tuned model remembers."""
    values = _values(args)
    return {name: values[name] for name in build_flags().with_role('remembered')}


def _values(args):
    """Return all flags by name, in which a task has only one name."""
    return {**vars(args), 'task_name': glue_name(args.task_name)}


def glue_name(task_name):
    """Return GLUE's own name of a task: SST is SST-2."""
    return OTHER_NAMES.get(task_name, task_name)


def own_files(args):
    """Return the names of the given flags that name the user's own files."""
    return [name for name in OWN_FILES if getattr(args, name)]


def check_args(args):
    """Refuse flags that contradict each other."""
    own = own_files(args)
    for name in own:
        if library.is_name(getattr(args, name)):
            library.parse(getattr(args, name))
    if own and args.task_name:
        raise UsageError(f'--task_name and --{own[0]} exclude each other')
    if args.only_inference and args.train_file:
        raise UsageError(INFERENCE_ON_OWN_DATA)
    if args.pretrained_bert_parameters and args.model_parameters:
        raise UsageError('--pretrained_bert_parameters and --model_parameters exclude each other')
    if args.model_parameters and is_zoo_model(args.model_parameters):
        raise UsageError(f'--model_parameters {args.model_parameters}: it has no classifier')
    if args.only_inference and is_zoo_model(args.bert_model):
        refuse_without_finetuned(args)
    if args.only_inference and args.pretrained_bert_parameters:
        raise UsageError(
            '--pretrained_bert_parameters goes with training, --only_inference with '
            '--model_parameters or a --bert_model that this script made'
        )
    check_vocab_file(args.bert_model, args.vocab_file)
    if is_from_scratch(args.bert_model, args.vocab_file):
        cause = '--vocab_file' if args.vocab_file else f'--bert_model {args.bert_model}'
        for name in ('only_inference', 'pretrained_bert_parameters', 'model_parameters'):
            if getattr(args, name):
                raise UsageError(f'{cause} is for training from scratch, without --{name}')
    if args.dev_share and args.only_inference:
        raise UsageError('--dev_share goes with training, not with --only_inference')
    if args.resume and args.only_inference:
        raise UsageError('--resume goes with training, not with --only_inference')
    if args.text:
        check_text(args)
    if args.class_weights:
        parse_weights(args.class_weights)
        if args.only_inference:
            raise UsageError('--class_weights goes with training, not with --only_inference')
    if args.tensorboard:
        if args.only_inference:
            raise UsageError('--tensorboard goes with training, not with --only_inference')
        require_tensorboard()
    if args.resume and not is_resumable(args.optimizer):
        raise UsageError(
            f"--resume goes with --optimizer bertadam or lamb: the state of MXNet's "
            f'{args.optimizer} is not saved'
        )
    check_bias_correction(args)
    check_dtype(args.dtype, on_gpu=bool(args.gpu or args.gpus))
    check_kvstore(args)


def check_text(args):
    """Refuse flags that do not go with --text."""
    if not args.only_inference:
        raise UsageError('--text goes with --only_inference')
    if len(args.text) > 2:
        raise UsageError(f'--text is given {len(args.text)} times: a row has one text or two')
    parser = build_flags()
    others = {'task_name', 'model_parameters', 'output_dir', 'kvstore', *parser.with_role('own')}
    for name in sorted(others - {'text'}):
        if getattr(args, name) != parser.get_default(name):
            raise UsageError(
                f'--text does not go with --{name}: the model of --bert_model answers by itself, '
                'and no file is written'
            )


def refuse_without_finetuned(args):
    """Refuse --only_inference if --bert_model is not fine-tuned, unless other weights are."""
    if own_files(args):
        raise UsageError(INFERENCE_ON_OWN_DATA)
    if not args.model_parameters:
        raise UsageError(
            '--only_inference needs --model_parameters, or a --bert_model that this script made'
        )


def complete(args):
    """Refuse incomplete flags, and fill in what follows from the others."""
    own = own_files(args)
    if own:
        check_own_data(args)
    else:
        args.task_name = args.task_name or 'MRPC'
        for name in build_flags().with_role('own'):
            if getattr(args, name):
                raise UsageError(f'--{name} goes with own data, such as --train_file')
        if args.class_weights and ALL_TASKS[glue_name(args.task_name)].is_regression:
            raise UsageError(
                f'--class_weights goes with classes, and in {args.task_name} numbers are predicted'
            )
    shortest = 3 if own and len(args.text_columns) == 1 else 5
    if args.max_len < shortest:
        raise UsageError(f'--max_len {args.max_len} leaves no room for text: at least {shortest}')


def check_own_data(args):
    """Refuse incomplete flags for own data."""
    if not args.text_columns or len(args.text_columns) > 2:
        raise UsageError('own data needs --text_columns with one or two names')
    if not args.label_column and (args.train_file or args.dev_file):
        raise UsageError('--train_file and --dev_file need --label_column')
    check_label_column(args)
    if args.regression and args.probabilities:
        raise UsageError('--probabilities goes with labels, not with --regression')
    if args.probabilities and not args.test_file:
        raise UsageError('--probabilities needs a --test_file')
    if args.only_inference:
        return
    if args.regression and args.class_weights:
        raise UsageError('--class_weights goes with labels, not with --regression')
    if not args.train_file:
        raise UsageError('own data needs a --train_file, or --only_inference')
    if args.dev_share and args.dev_file:
        raise UsageError('--dev_share and --dev_file exclude each other')
    if args.early_stop and not (args.dev_file or args.dev_share):
        raise UsageError('--early_stop needs a --dev_file or a --dev_share')


def check_label_column(args):
    """Refuse a column with labels that is none, and several that do not go together."""
    columns = args.label_column if isinstance(args.label_column, list) else [args.label_column]
    for name in columns:
        if name in args.text_columns:
            raise UsageError(f'--label_column {name} is one of the --text_columns too')
        if columns.count(name) > 1:
            raise UsageError(f'--label_column names {name} twice')
    if args.regression and len(columns) > 1:
        raise UsageError('--regression takes one --label_column: the label is one number')
