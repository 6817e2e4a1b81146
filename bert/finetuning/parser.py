"""The parser of finetune_classifier.py: its flags, and the purpose of each."""

from bert.cli.flags import (
    OneOrMore,
    Parser,
    add_device_flags,
    add_quiet_flag,
    add_tensorboard_flag,
    fraction,
    part,
    positive_float,
    positive_int,
    seed,
)
from bert.distributed.flags import add_kvstore_flag
from bert.finetuning.weights import class_weight
from bert.tasks.library import FORM
from bert.tasks.metrics import METRICS
from bert.tasks.table import ALL_TASKS, LANGUAGES, OTHER_NAMES, TASKS
from bert.training.flags import add_bias_correction_flag
from bert.training.scratch import CHOICES, add_vocab_file_flag

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


def build_flags():
    """Build the parser.

    The roles of the flags:

    - ``remembered``: a fine-tuned model remembers it, and --only_inference takes it from there;
    - ``may_change``: it may differ when a run is started again, since what it names is compared
      directly (the data, the weights, the devices) or is no part of the results;
    - ``own``: it describes the user's own data, used instead of a GLUE task;
    - ``source``: it names a model; ``model``: it decides which weights a run begins with;
    - ``run``: glue.py chooses it for each run;
    - ``indifferent``: the results do not depend on it;
    - ``unrecorded``: no more do they, and for glue.py a run with it is the one without it;
    - ``added``: runs of glue.py are older than it, and keep their names as long as it is not given.
    """
    parser = Parser(DESCRIPTION, epilog=EPILOG)

    data = parser.add_argument_group('data')
    parser.flag(
        data,
        '--task_name',
        roles='remembered run',
        choices=[*ALL_TASKS, *OTHER_NAMES],
        metavar='TASK',
        help=f'a GLUE task: {", ".join(TASKS)}; or SNLI, XNLI (Chinese), LCQMC, ChnSentiCorp; or '
        f'XNLI in another language, such as XNLI-de ({" ".join(LANGUAGES)}); the environment '
        'variable GLUE_DIR names the folder with the files (default: MRPC)',
    )
    parser.flag(
        data,
        '--train_file',
        roles='own may_change',
        help='your own data instead of a GLUE task: a .tsv, .csv, .jsonl or .parquet file; or '
        f'{FORM}, a data set of the Hugging Face Hub or a folder, loaded by the library datasets',
    )
    parser.flag(
        data,
        '--dev_file',
        roles='own may_change',
        help='your own data to evaluate on after each epoch',
    )
    parser.flag(
        data,
        '--dev_share',
        roles='own added',
        type=part,
        metavar='SHARE',
        help='instead of --dev_file: hold out this share of --train_file as the dev set',
    )
    parser.flag(
        data,
        '--test_file',
        roles='own may_change',
        help='your own data to make predictions for; needs no labels',
    )
    parser.flag(
        data,
        '--text_columns',
        roles='own remembered',
        nargs='+',
        metavar='NAME',
        help='the column with the text, or the two columns with pairs of texts',
    )
    parser.flag(
        data,
        '--label_column',
        roles='own remembered',
        action=OneOrMore,
        metavar='NAME',
        help='the column with the label; if a row may have several labels, one column of 0 and 1 '
        'per label or, in .jsonl and .parquet files, one column with lists of label names',
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
        metavar='METRIC',
        help='metrics for your own data (%(choices)s); the first one selects the best epoch '
        '(default: accuracy; with --regression pearsonr spearmanr; if a row may have several '
        'labels f1_micro)',
    )
    parser.flag(
        data,
        '--max_len',
        roles='remembered',
        type=positive_int,
        default=128,
        help='maximum number of tokens in a sentence or pair, including special tokens',
    )

    model = parser.add_argument_group('model')
    parser.flag(
        model,
        '--bert_model',
        roles='source model may_change',
        default='bert_12_768_12',
        help='a model of the GluonNLP zoo or of the Hugging Face Hub (OWNER/MODEL); or minilm, a '
        'small one installed with pip; or a directory: in the layout of Hugging Face or of '
        'bert.convert, with a Google TensorFlow checkpoint, or an --output_dir of this script; '
        f'or, to train from scratch, {CHOICES}',
    )
    add_vocab_file_flag(parser, model, roles='source model may_change added')
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
        help='other BERT weights: a Gluon .params file for the vocabulary of --bert_model; or '
        'anything that --bert_model accepts, whose size, vocabulary and casing are then used',
    )
    parser.flag(
        model,
        '--model_parameters',
        roles='source model may_change',
        metavar='SOURCE',
        help='the same, but from a fine-tuned model, including its classifier',
    )
    casing = model.add_mutually_exclusive_group()
    parser.flag(
        casing,
        '--do_lower_case',
        roles='may_change',
        action='store_true',
        help="lower-case the text, regardless of the model's own setting",
    )
    parser.flag(
        casing,
        '--cased',
        roles='may_change',
        action='store_true',
        help="keep capital letters, regardless of the model's own setting",
    )

    training = parser.add_argument_group('training')
    passes = 'number of passes over the training data'
    parser.flag(training, '--epochs', type=positive_int, default=3, help=passes)
    parser.flag(
        training,
        '--training_steps',
        type=positive_int,
        help='total number of updates, instead of --epochs',
    )
    parser.flag(
        training,
        '--early_stop',
        type=positive_int,
        metavar='EPOCHS',
        help='stop after this many epochs without a better dev metric',
    )
    parser.flag(
        training,
        '--batch_size',
        type=positive_int,
        default=32,
        help='rows per batch on each device',
    )
    parser.flag(
        training,
        '--accumulate',
        type=positive_int,
        default=1,
        help='number of batches whose gradients are accumulated for each update',
    )
    parser.flag(
        training,
        '--optimizer',
        default='bertadam',
        help='bertadam, lamb, or the name of an MXNet optimizer',
    )
    parser.flag(training, '--lr', type=positive_float, default=5e-5, help='peak learning rate')
    parser.flag(
        training, '--epsilon', type=positive_float, default=1e-6, help="the optimizer's epsilon"
    )
    add_bias_correction_flag(parser, training)
    parser.flag(
        training,
        '--class_weights',
        roles='added',
        nargs='+',
        type=class_weight,
        metavar='WEIGHT',
        help='weights of the labels in the loss: balanced (by their frequency in the training '
        'set), or LABEL=WEIGHT ...',
    )
    parser.flag(
        training,
        '--warmup_ratio',
        type=fraction,
        default=0.1,
        help='share of the updates used for learning-rate warmup',
    )
    parser.flag(
        training,
        '--seed',
        roles='run',
        type=seed,
        default=2,
        help='random seed for the order of the rows, the initial head and dropout',
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
        help='rows per batch during evaluation',
    )
    parser.flag(
        output,
        '--only_inference',
        action='store_true',
        help='do not train: evaluate and predict with --model_parameters, or with a --bert_model '
        'made by this script',
    )
    parser.flag(
        output,
        '--text',
        roles='own may_change added',
        action='append',
        metavar='TEXT',
        help='with --only_inference: print the answer for a text (or, if given twice, for a pair) '
        'and write no files',
    )
    parser.flag(
        output,
        '--probabilities',
        roles='own added',
        action='store_true',
        help='write the probability of each label next to the predictions for your own data',
    )
    parser.flag(
        output,
        '--log_interval',
        roles='indifferent',
        type=positive_int,
        default=10,
        help='number of updates between log lines',
    )
    add_tensorboard_flag(parser, output, roles='may_change unrecorded')
    add_quiet_flag(parser, output, roles='may_change unrecorded', files='finetune.log')
    parser.flag(
        output,
        '--output_dir',
        roles='run may_change',
        default='./output_dir',
        help='folder for the results',
    )
    parser.flag(
        output,
        '--resume',
        roles='run may_change',
        action='store_true',
        help='resume the run in --output_dir, if there is one; repeat its other flags',
    )
    return parser
