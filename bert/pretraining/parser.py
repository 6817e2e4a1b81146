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
    'Pre-train BERT: masked words and next sentences, on the shards of create_pretraining_data.py.'
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
    evaluation = 'evaluate, after any training'
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
        help='evaluate during training too, after every STEPS updates and after the last',
    )
    parser.flag(
        data,
        '--batch_size',
        type=positive_int,
        default=8,
        help='rows per batch, on each device; with --by-token, tokens, padding included',
    )
    parser.flag(
        data,
        *('--by-token', '--by_token', '--use_avg_len'),
        action='store_true',
        help='--batch_size counts tokens instead of rows',
    )
    parser.flag(
        data, '--batch_size_eval', type=positive_int, default=8, help='rows per batch in evaluation'
    )
    parser.flag(
        data,
        '--num_buckets',
        type=count,
        default=1,
        help='number of buckets that lengths are divided into; a batch has rows of one bucket',
    )

    text = parser.add_argument_group('text in place of shards')
    parser.flag(
        text,
        '--raw',
        action='store_true',
        help='--data and --data_eval name text files, one sentence per line, a blank line between '
        'documents; each epoch makes new instances. The flags of this group go with it',
    )
    add_recipe_flags(parser, text, raw=True)
    add_layout_flags(parser, text, raw=True)
    parser.flag(
        text,
        '--do_lower_case',
        roles='raw',
        action='store_true',
        default=None,
        help="lower-case the text, whatever the model's own setting",
    )
    parser.flag(
        text,
        '--num_workers',
        roles='by_worker raw',
        type=process_count,
        help='processes that make instances (default: 1)',
    )

    model = parser.add_argument_group('model')
    parser.flag(
        model,
        *('--bert_model', '--model'),
        roles='by_worker',
        default='bert_12_768_12',
        help='model of the GluonNLP zoo; or minilm, a directory or a model of the Hugging Face '
        'Hub, as for finetune_classifier.py, whose weights are taken; or, from scratch, '
        f'{CHOICES}',
    )
    vocabulary = model.add_mutually_exclusive_group()
    add_vocab_file_flag(parser, vocabulary, roles='by_worker')
    parser.flag(
        vocabulary,
        '--dataset_name',
        default='book_corpus_wiki_en_uncased',
        help="what the zoo's model was pre-trained on, which means its vocabulary too",
    )
    parser.flag(
        model, '--pretrained', action='store_true', help="take the weights of the zoo's model"
    )
    parser.flag(
        model,
        '--start_from',
        roles='by_worker',
        metavar='PATH',
        help='begin with the weights of another run, both heads included: its --ckpt_dir, whose '
        'newest checkpoint is taken, or a .params file; the step, the learning rate and the '
        'moments of the optimizer begin anew',
    )
    parser.flag(
        model,
        '--dropout',
        type=fraction,
        help="dropout rate of this training (default: the model's own, which its result keeps)",
    )

    training = parser.add_argument_group('training')
    add_no_nsp_flag(parser, training)
    parser.flag(training, '--num_steps', type=positive_int, default=20, help='updates in all')
    parser.flag(
        training,
        '--accumulate',
        type=positive_int,
        default=1,
        help='batches whose gradients are added up before an update',
    )
    add_update_flags(parser, training)
    parser.flag(training, '--lr', type=positive_float, default=1e-4, help='peak learning rate')
    parser.flag(
        training,
        '--warmup_ratio',
        type=fraction,
        default=0.1,
        help='share of the updates in which the learning rate rises',
    )
    parser.flag(training, '--seed', type=seed, default=0, help='of weights, order and dropout')
    add_device_flags(parser, training)
    add_kvstore_flag(parser, training)

    output = parser.add_argument_group('checkpoints and output')
    parser.flag(
        output,
        '--ckpt_dir',
        roles='by_worker',
        default='./ckpt_dir',
        help='where checkpoints, metrics.jsonl and the trained model go',
    )
    parser.flag(
        output, '--ckpt_interval', type=positive_int, default=1000, help='steps between checkpoints'
    )
    parser.flag(
        output, '--ckpt_keep', type=positive_int, default=3, help='how many checkpoints to keep'
    )
    parser.flag(
        output,
        '--start_step',
        roles='by_worker',
        type=start_step,
        default=0,
        metavar='N',
        help='go on from the checkpoint of this step, or with auto from the newest if there is '
        'one; 0 is a new run',
    )
    parser.flag(
        output, '--log_interval', type=positive_int, default=10, help='updates between log lines'
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
        help=f"write MXNet's profile of the first {PROFILED_STEPS} steps, for chrome://tracing; "
        f'to {PROFILE} if no file is named',
    )
    return parser


def start_step(text):
    """Parse the value of ``--start_step``: a number or ``auto``."""
    return text if text == 'auto' else natural(text)
