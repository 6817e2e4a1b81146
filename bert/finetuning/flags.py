"""The flags of finetune_classifier.py: what they are, what each is for, and which go together."""

from bert.checkpoints.source import is_zoo_model
from bert.cli.flags import (
    Parser,
    add_device_flags,
    check_dtype,
    fraction,
    positive_float,
    positive_int,
    seed,
)
from bert.distributed.flags import add_kvstore_flag, check_kvstore
from bert.system.errors import UsageError
from bert.tasks.metrics import METRICS
from bert.tasks.table import OTHER_NAMES, TASKS

DESCRIPTION = (
    'Fine-tune BERT on a GLUE task, or on your own labelled text, and predict with the result.'
)
EPILOG = """\
examples:
  GLUE_DIR=glue_data finetune_classifier.py --task_name MRPC --batch_size 32 --lr 2e-5
  finetune_classifier.py --train_file train.csv --dev_file dev.csv \\
      --text_columns question answer --label_column good --bert_model DIR
  finetune_classifier.py --only_inference --bert_model output_dir --test_file new.csv \\
      --output_dir answers
"""
INFERENCE_ON_OWN_DATA = (
    '--only_inference on own data takes --dev_file and --test_file, and a --bert_model that this '
    'script made, which remembers the labels'
)


def parse_args(argv=None):
    """Parse the flags, and check them as far as that goes without reading a file."""
    args = build_flags().parse_args(argv)
    check_args(args)
    if not args.only_inference:
        complete(args)
    return args


def recall(argv, args, finetuned):
    """Take what is missing for --only_inference from what the model remembers.

    Parameters
    ----------
    argv : list of str or None
        The command line.
    args : argparse.Namespace
        What :func:`parse_args` made of it.
    finetuned : dict or None
        What the model of --bert_model says of itself; see
        :func:`bert.checkpoints.reading.read_finetuned`.

    Returns
    -------
    argparse.Namespace
        The flags as if those that were not given had been given as they are remembered.
    """
    own = own_files(args)
    if finetuned is None:
        refuse_without_finetuned(args)
    else:
        parser = build_flags()
        flags = finetuned['flags']
        remembered = {n: flags[n] for n in parser.with_role('remembered') if n in flags}
        if args.task_name:
            # Another task than it was trained on: only the length still says something.
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


def build_flags():
    """Build the parser.

    The roles of the flags:

    - ``remembered``: a fine-tuned model remembers it, and --only_inference takes it from there;
    - ``may_change``: another start of the same run may have it otherwise, since what it names is
      compared itself: the data, the weights, the devices;
    - ``own``: it describes own data in place of a GLUE task;
    - ``source``: it names a model; ``model``: it decides which weights a run begins with;
    - ``run``: glue.py chooses it for each run;
    - ``indifferent``: the results do not depend on it.
    """
    parser = Parser(DESCRIPTION, epilog=EPILOG)

    data = parser.add_argument_group('data')
    parser.flag(
        data,
        '--task_name',
        roles='remembered run',
        choices=[*TASKS, *OTHER_NAMES],
        help='GLUE task; its files are in the folder that the variable GLUE_DIR names '
        '(default: MRPC)',
    )
    parser.flag(
        data,
        '--train_file',
        roles='own may_change',
        help='own data in place of a GLUE task: .tsv, .csv or .jsonl',
    )
    parser.flag(
        data, '--dev_file', roles='own may_change', help='own data to evaluate on after each epoch'
    )
    parser.flag(
        data, '--test_file', roles='own may_change', help='own data to predict; needs no labels'
    )
    parser.flag(
        data,
        '--text_columns',
        roles='own remembered',
        nargs='+',
        metavar='NAME',
        help='the one or two columns with the text',
    )
    parser.flag(
        data,
        '--label_column',
        roles='own remembered',
        metavar='NAME',
        help='the column with the label',
    )
    parser.flag(
        data,
        '--regression',
        roles='own remembered',
        action='store_true',
        help='the label is a number, not a class',
    )
    parser.flag(
        data,
        '--metric',
        roles='own remembered',
        nargs='+',
        choices=METRICS,
        help='metrics for own data; the first one chooses the best epoch '
        '(default: accuracy, or pearsonr spearmanr)',
    )
    parser.flag(
        data,
        '--max_len',
        roles='remembered',
        type=positive_int,
        default=128,
        help='tokens of a sentence or pair at most, with the special ones',
    )

    model = parser.add_argument_group('model')
    parser.flag(
        model,
        '--bert_model',
        roles='source model may_change',
        default='bert_12_768_12',
        help='model of the GluonNLP zoo or of the Hugging Face Hub (OWNER/MODEL); or a directory: '
        'in Hugging Face layout, in that of bert.convert, with a TensorFlow checkpoint of Google, '
        'or an --output_dir of this script',
    )
    parser.flag(
        model,
        '--bert_dataset',
        roles='model may_change',
        default='book_corpus_wiki_en_uncased',
        help="what the zoo's model was pre-trained on",
    )
    parser.flag(
        model,
        '--pretrained_bert_parameters',
        roles='source model may_change',
        metavar='SOURCE',
        help='other BERT weights: a Gluon .params file for the vocabulary of --bert_model; or what '
        '--bert_model takes, which then comes with sizes, vocabulary and casing in its place',
    )
    parser.flag(
        model,
        '--model_parameters',
        roles='source model may_change',
        metavar='SOURCE',
        help='the same of a fine-tuned model, classifier included',
    )
    casing = model.add_mutually_exclusive_group()
    parser.flag(
        casing,
        '--do_lower_case',
        roles='may_change',
        action='store_true',
        help='lower-case the text, whatever the model says of itself',
    )
    parser.flag(
        casing,
        '--cased',
        roles='may_change',
        action='store_true',
        help='keep capitals, whatever the model says of itself',
    )

    training = parser.add_argument_group('training')
    parser.flag(training, '--epochs', type=positive_int, default=3, help='passes over the data')
    parser.flag(
        training, '--training_steps', type=positive_int, help='updates in all, in place of --epochs'
    )
    parser.flag(
        training,
        '--early_stop',
        type=positive_int,
        metavar='EPOCHS',
        help='stop after as many epochs without a better dev metric',
    )
    parser.flag(
        training, '--batch_size', type=positive_int, default=32, help='rows a batch, on each device'
    )
    parser.flag(
        training,
        '--accumulate',
        type=positive_int,
        default=1,
        help='batches whose gradients are added up before an update',
    )
    parser.flag(
        training, '--optimizer', default='bertadam', help="bertadam, or the name of one of MXNet's"
    )
    parser.flag(training, '--lr', type=positive_float, default=5e-5, help='peak learning rate')
    parser.flag(
        training, '--epsilon', type=positive_float, default=1e-6, help="the optimizer's epsilon"
    )
    parser.flag(
        training,
        '--bias_correction',
        action='store_true',
        help="add Adam's bias correction to bertadam",
    )
    parser.flag(
        training,
        '--warmup_ratio',
        type=fraction,
        default=0.1,
        help='share of the updates in which the learning rate rises',
    )
    parser.flag(
        training, '--seed', roles='run', type=seed, default=2, help='of the order, head and dropout'
    )
    add_device_flags(parser, training, roles='run may_change')
    add_kvstore_flag(parser, training, roles='may_change')

    output = parser.add_argument_group('evaluation and output')
    parser.flag(
        output,
        '--dev_batch_size',
        roles='indifferent',
        type=positive_int,
        default=8,
        help='rows a batch in evaluation',
    )
    parser.flag(
        output,
        '--only_inference',
        action='store_true',
        help='no training: evaluate and predict with --model_parameters, or with a --bert_model '
        'that this script made',
    )
    parser.flag(
        output,
        '--log_interval',
        roles='indifferent',
        type=positive_int,
        default=10,
        help='updates between log lines',
    )
    parser.flag(
        output,
        '--output_dir',
        roles='run may_change',
        default='./output_dir',
        help='where results go',
    )
    parser.flag(
        output,
        '--resume',
        roles='run may_change',
        action='store_true',
        help='go on where the run in --output_dir stood, if there is one; its flags must be given',
    )
    return parser


def fixed_flags(args):
    """Return the flags, by name, that must be the same on all workers and when a run goes on."""
    may_change = build_flags().with_role('may_change')
    return {name: value for name, value in vars(args).items() if name not in may_change}


def remembered_flags(args):
    """Return the flags, by name, that a fine-tuned model remembers."""
    return {name: getattr(args, name) for name in build_flags().with_role('remembered')}


def own_files(args):
    """Return the names of the flags with files of the user's own that were given."""
    return [name for name in ('train_file', 'dev_file', 'test_file') if getattr(args, name)]


def check_args(args):
    """Refuse flags that contradict each other."""
    own = own_files(args)
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
    if args.resume and args.only_inference:
        raise UsageError('--resume goes with training, not with --only_inference')
    is_bertadam = args.optimizer.lower() == 'bertadam'
    if args.resume and not is_bertadam:
        raise UsageError(
            f"--resume goes with --optimizer bertadam: the state of MXNet's {args.optimizer} "
            'is not saved'
        )
    if args.bias_correction and not is_bertadam:
        raise UsageError('--bias_correction goes with --optimizer bertadam only')
    check_dtype(args.dtype, on_gpu=bool(args.gpu or args.gpus))
    check_kvstore(args)


def refuse_without_finetuned(args):
    """Refuse --only_inference where --bert_model is not fine-tuned, unless other weights are."""
    if own_files(args):
        raise UsageError(INFERENCE_ON_OWN_DATA)
    if not args.model_parameters:
        raise UsageError(
            '--only_inference needs --model_parameters, or a --bert_model that this script made'
        )


def complete(args):
    """Refuse flags that are incomplete, and fill in what follows from the others."""
    own = own_files(args)
    if own:
        check_own_data(args)
    else:
        args.task_name = args.task_name or 'MRPC'
        args.task_name = OTHER_NAMES.get(args.task_name, args.task_name)
        for name in build_flags().with_role('own'):
            if getattr(args, name):
                raise UsageError(f'--{name} goes with own data, such as --train_file')
    shortest = 3 if own and len(args.text_columns) == 1 else 5
    if args.max_len < shortest:
        raise UsageError(f'--max_len {args.max_len} leaves no room for text: {shortest} at least')


def check_own_data(args):
    """Refuse incomplete flags for own data."""
    if not args.text_columns or len(args.text_columns) > 2:
        raise UsageError('own data needs --text_columns with one or two names')
    if not args.label_column and (args.train_file or args.dev_file):
        raise UsageError('--train_file and --dev_file need --label_column')
    if args.only_inference:
        return
    if not args.train_file:
        raise UsageError('own data needs a --train_file, or --only_inference')
    if args.early_stop and not args.dev_file:
        raise UsageError('--early_stop needs a --dev_file')
