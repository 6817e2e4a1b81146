#!/usr/bin/env python3
"""Fine-tune BERT on a GLUE task, or on your own labelled text, and predict with the result."""

import json
import logging
import math
import os
import time
from pathlib import Path

import numpy as np

import bert
from bert.cli import (
    ToolkitError,
    UsageError,
    build_parser,
    fraction,
    gpu_list,
    natural,
    positive_float,
    positive_int,
    progress,
    run,
    seed,
    start_logging,
)
from bert.files import read_json, replacing, write_json, write_text

EPILOG = """\
examples:
  GLUE_DIR=glue_data finetune_classifier.py --task_name MRPC --batch_size 32 --lr 2e-5
  finetune_classifier.py --train_file train.csv --dev_file dev.csv \\
      --text_columns question answer --label_column good --bert_model DIR
  finetune_classifier.py --only_inference --bert_model output_dir --test_file new.csv \\
      --output_dir answers
"""

# What a fine-tuned model remembers of its flags, so that --only_inference need not be told.
REMEMBERED = ('task_name', 'text_columns', 'label_column', 'regression', 'metric', 'max_len')


def parse_args(argv=None):
    """The flags, checked as far as that goes without reading a file of data."""
    parser = build_flags()
    args = parser.parse_args(argv)
    if args.only_inference and is_finetuned(args.bert_model):
        remembered = read_finetuned(args.bert_model)['flags']
        if args.test_file or args.dev_file:
            # The columns are those of the user's own data, whatever the task was.
            remembered.pop('task_name', None)
        parser.set_defaults(**remembered)
        args = parser.parse_args(argv)
    check_args(args)
    return args


def build_flags():
    """The argument parser."""
    parser = build_parser(__doc__, epilog=EPILOG)

    data = parser.add_argument_group('data')
    data.add_argument(
        '--task_name',
        choices=[*bert.tasks.TASKS, *bert.tasks.OTHER_NAMES],
        help='GLUE task; its files are in the folder that the variable GLUE_DIR names '
        '(default: MRPC)',
    )
    data.add_argument('--train_file', help='own data in place of a GLUE task: .tsv, .csv or .jsonl')
    data.add_argument('--dev_file', help='own data to evaluate on after each epoch')
    data.add_argument('--test_file', help='own data to predict; needs no labels')
    data.add_argument(
        '--text_columns', nargs='+', metavar='NAME', help='the one or two columns with the text'
    )
    data.add_argument('--label_column', metavar='NAME', help='the column with the label')
    data.add_argument(
        '--regression', action='store_true', help='the label is a number, not a class'
    )
    data.add_argument(
        '--metric',
        nargs='+',
        choices=bert.metrics.METRICS,
        help='metrics for own data; the first one chooses the best epoch '
        '(default: accuracy, or pearsonr spearmanr)',
    )
    data.add_argument(
        '--max_len',
        type=positive_int,
        default=128,
        help='tokens of a sentence or pair at most, with the special ones',
    )

    model = parser.add_argument_group('model')
    model.add_argument(
        '--bert_model',
        default='bert_12_768_12',
        help='model of the GluonNLP zoo, a directory in Hugging Face layout, or an --output_dir '
        'of this script',
    )
    model.add_argument(
        '--bert_dataset',
        default='book_corpus_wiki_en_uncased',
        help="what the zoo's model was pre-trained on",
    )
    model.add_argument(
        '--pretrained_bert_parameters', help='Gluon .params file with other BERT weights'
    )
    model.add_argument(
        '--model_parameters', help='.params file of a fine-tuned model, classifier included'
    )
    casing = model.add_mutually_exclusive_group()
    casing.add_argument(
        '--do_lower_case',
        action='store_true',
        help='lower-case the text, whatever the model says of itself',
    )
    casing.add_argument(
        '--cased', action='store_true', help='keep capitals, whatever the model says of itself'
    )

    training = parser.add_argument_group('training')
    training.add_argument('--epochs', type=positive_int, default=3, help='passes over the data')
    training.add_argument(
        '--training_steps', type=positive_int, help='updates in all, in place of --epochs'
    )
    training.add_argument(
        '--early_stop',
        type=positive_int,
        metavar='EPOCHS',
        help='stop after as many epochs without a better dev metric',
    )
    training.add_argument(
        '--batch_size', type=positive_int, default=32, help='rows a batch, on each device'
    )
    training.add_argument(
        '--accumulate',
        type=positive_int,
        default=1,
        help='batches whose gradients are added up before an update',
    )
    training.add_argument(
        '--optimizer', default='bertadam', help="bertadam, or the name of one of MXNet's"
    )
    training.add_argument('--lr', type=positive_float, default=5e-5, help='peak learning rate')
    training.add_argument(
        '--epsilon', type=positive_float, default=1e-6, help="the optimizer's epsilon"
    )
    training.add_argument(
        '--bias_correction', action='store_true', help="add Adam's bias correction to bertadam"
    )
    training.add_argument(
        '--warmup_ratio',
        type=fraction,
        default=0.1,
        help='share of the updates in which the learning rate rises',
    )
    training.add_argument('--seed', type=seed, default=2, help='of the order, head and dropout')
    training.add_argument(
        '--dtype',
        choices=['float32', 'float16'],
        default='float32',
        help='float16 runs on GPUs only',
    )
    device = training.add_mutually_exclusive_group()
    device.add_argument('--gpu', action='store_true', help='train on GPU 0, not the CPU')
    device.add_argument('--gpus', type=gpu_list, metavar='0,1', help='train on these GPUs')

    output = parser.add_argument_group('evaluation and output')
    output.add_argument(
        '--dev_batch_size', type=positive_int, default=8, help='rows a batch in evaluation'
    )
    output.add_argument(
        '--only_inference',
        action='store_true',
        help='no training: evaluate and predict with --model_parameters, or with a --bert_model '
        'that this script made',
    )
    output.add_argument(
        '--log_interval', type=positive_int, default=10, help='updates between log lines'
    )
    output.add_argument('--output_dir', default='./output_dir', help='where results go')
    return parser


def check_args(args):
    """Refuse flags that contradict each other, and fill in what follows from the others."""
    own = [name for name in ('train_file', 'dev_file', 'test_file') if getattr(args, name)]
    if own:
        if args.task_name:
            raise UsageError(f'--task_name {args.task_name} and --{own[0]} exclude each other')
        if not args.text_columns or len(args.text_columns) > 2:
            raise UsageError('own data needs --text_columns with one or two column names')
        if not args.only_inference and not args.train_file:
            raise UsageError('own data needs a --train_file, or --only_inference')
        if not args.label_column and (args.train_file or args.dev_file):
            raise UsageError('--train_file and --dev_file need --label_column')
        if args.only_inference and not (args.dev_file or args.test_file):
            raise UsageError('--only_inference on own data needs --dev_file or --test_file')
    elif not args.only_inference or args.task_name:
        for name in ('text_columns', 'label_column', 'regression', 'metric'):
            if getattr(args, name) and not args.only_inference:
                raise UsageError(f'--{name} goes with own data, --train_file and the like')
    args.task_name = None if own else bert.tasks.OTHER_NAMES.get(args.task_name, args.task_name)
    if not own and not args.task_name:
        args.task_name = 'MRPC'
