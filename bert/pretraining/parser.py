"""The parser of run_pretraining.py."""

from bert.cli.flags import (
    Parser,
    add_device_flags,
    add_quiet_flag,
    add_tensorboard_flag,
    count,
    fraction,
    natural,
    positive_float,
    positive_int,
    process_count,
    seed,
)
from bert.distributed.flags import add_kvstore_flag
from bert.pretraining.instance_flags import add_layout_flags, add_no_nsp_flag, add_recipe_flags
from bert.training.flags import add_update_flags
from bert.training.scratch import CHOICES, add_vocab_file_flag

DESCRIPTION = (
    'Pre-train BERT (masked LM, next-sentence prediction) on shards of create_pretraining_data.py.'
)
EPILOG = """\
examples:
  run_pretraining.py --do-training --data 'shards/*.npz' --bert_model bert_4_256_4 \\
      --vocab_file vocab.txt --batch_size 32 --num_steps 10000 --start_step auto
  run_pretraining.py --do-training --data 'long/*.npz' --bert_model bert_4_256_4 \\
      --vocab_file vocab.txt --num_steps 1000 --start_from ckpt_dir --ckpt_dir phase2
  run_pretraining.py --do-eval --data_eval held_out.npz --bert_model ckpt_dir/model
  finetune_classifier.py --bert_model ckpt_dir/model
"""
# How many steps of a run --profile covers, including the first one, which lays out memory.
PROFILED_STEPS = 10
# Where --profile writes if it names no file; the originals' choice.
PROFILE = 'profile.json'


def build_flags():
    """Build the parser of run_pretraining.py.

    The roles of the flags:

    - ``by_worker``: it may differ from worker to worker, as it names files or devices or does not
      affect the results; all others must be the same on all workers;
    - ``raw``: it goes with --raw only.
    """
    parser = Parser(DESCRIPTION, epilog=EPILOG)
    parser.flag(parser, '--do-training', '--do_training', action='store_true', help='train')
    evaluation = 'evaluate; with --do-training, after training'
    parser.flag(parser, '--do-eval', '--do_eval', action='store_true', help=evaluation)

    data = parser.add_argument_group('data')
    parser.flag(
        data,
        '--data',
        roles='by_worker',
        metavar='GLOBS',
        help='training shards: comma-separated globs',
    )
    parser.flag(
        data, '--data_eval', roles='by_worker', metavar='GLOBS', help='shards to evaluate on'
    )
    parser.flag(
        data,
        '--eval_interval',
        type=positive_int,
        metavar='STEPS',
        help='also evaluate during training, after every STEPS updates and after the last one',
    )
    parser.flag(
        data,
        '--batch_size',
        type=positive_int,
        default=8,
        help='rows per batch on each device; with --by-token, tokens including padding',
    )
    parser.flag(
        data,
        *('--by-token', '--by_token', '--use_avg_len'),
        action='store_true',
        help='--batch_size counts tokens instead of rows',
    )
    parser.flag(
        data,
        '--batch_size_eval',
        type=positive_int,
        default=8,
        help='rows per batch during evaluation',
    )
    parser.flag(
        data,
        '--num_buckets',
        type=count,
        default=1,
        help='number of length buckets; all rows of a batch come from one bucket',
    )

    text = parser.add_argument_group('text instead of shards')
    parser.flag(
        text,
        '--raw',
        action='store_true',
        help='--data and --data_eval are text files, with one sentence per line and a blank line '
        'between documents; each epoch makes new instances; the rest of this group needs --raw',
    )
    add_recipe_flags(parser, text, raw=True)
    add_layout_flags(parser, text, raw=True)
    parser.flag(
        text,
        '--do_lower_case',
        roles='raw',
        action='store_true',
        default=None,
        help="lower-case the text, regardless of the model's own setting",
    )
    parser.flag(
        text,
        '--num_workers',
        roles='by_worker raw',
        type=process_count,
        help='number of processes that make instances (default: 1)',
    )

    model = parser.add_argument_group('model')
    parser.flag(
        model,
        *('--bert_model', '--model'),
        roles='by_worker',
        default='bert_12_768_12',
        help='a model of the GluonNLP zoo; or minilm, a directory or a model of the Hugging Face '
        'Hub, as for finetune_classifier.py, with its weights; or, to train from scratch, '
        f'{CHOICES}',
    )
    vocabulary = model.add_mutually_exclusive_group()
    add_vocab_file_flag(parser, vocabulary, roles='by_worker')
    parser.flag(
        vocabulary,
        '--dataset_name',
        default='book_corpus_wiki_en_uncased',
        help="what the zoo's model was pre-trained on, which also determines its vocabulary",
    )
    parser.flag(
        model, '--pretrained', action='store_true', help="start from the weights of the zoo's model"
    )
    parser.flag(
        model,
        '--start_from',
        roles='by_worker',
        metavar='PATH',
        help='start from the weights of another run, including both heads: its --ckpt_dir, of '
        'which the newest checkpoint is used, or a .params file; the step count, the learning '
        'rate and the state of the optimizer start afresh',
    )
    parser.flag(
        model,
        '--dropout',
        type=fraction,
        help="dropout rate of this training, not of the saved model (default: the model's own)",
    )

    training = parser.add_argument_group('training')
    add_no_nsp_flag(parser, training)
    updates = 'total number of updates'
    parser.flag(training, '--num_steps', type=positive_int, default=20, help=updates)
    parser.flag(
        training,
        '--accumulate',
        type=positive_int,
        default=1,
        help='number of batches whose gradients are accumulated for each update',
    )
    add_update_flags(parser, training)
    parser.flag(training, '--lr', type=positive_float, default=1e-4, help='peak learning rate')
    parser.flag(
        training,
        '--warmup_ratio',
        type=fraction,
        default=0.1,
        help='share of the updates used for learning-rate warmup',
    )
    randomness = 'random seed for weights, order and dropout'
    parser.flag(training, '--seed', type=seed, default=0, help=randomness)
    add_device_flags(parser, training)
    add_kvstore_flag(parser, training)

    output = parser.add_argument_group('checkpoints and output')
    parser.flag(
        output,
        '--ckpt_dir',
        roles='by_worker',
        default='./ckpt_dir',
        help='folder for the checkpoints, metrics.jsonl and the trained model',
    )
    parser.flag(
        output,
        '--ckpt_interval',
        type=positive_int,
        default=1000,
        help='number of steps between checkpoints',
    )
    parser.flag(
        output, '--ckpt_keep', type=positive_int, default=3, help='number of checkpoints to keep'
    )
    parser.flag(
        output,
        '--start_step',
        roles='by_worker',
        type=start_step,
        default=0,
        metavar='N',
        help='resume from the checkpoint of this step or, with auto, from the newest one if there '
        'is any; 0 starts a new run',
    )
    parser.flag(
        output,
        '--log_interval',
        type=positive_int,
        default=10,
        help='number of updates between log lines',
    )
    add_tensorboard_flag(parser, output, roles='by_worker')
    add_quiet_flag(parser, output, roles='by_worker', files='pretraining.log')
    parser.flag(
        output,
        '--verbose',
        roles='by_worker',
        action='store_true',
        help='log the shapes of each batch',
    )
    parser.flag(
        output,
        '--profile',
        roles='by_worker',
        metavar='FILE',
        nargs='?',
        const=PROFILE,
        help=f"write MXNet's profile of the first {PROFILED_STEPS} steps, for chrome://tracing, to "
        f'FILE or, if none is given, to {PROFILE}',
    )
    return parser


def start_step(text):
    """Parse the value of ``--start_step``: a number or ``auto``."""
    return text if text == 'auto' else natural(text)
