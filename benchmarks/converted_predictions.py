#!/usr/bin/env python3
r"""Compare the predictions of a fine-tuned model on its dev set with those of its conversions.

GLUE_DIR=glue_data python3 benchmarks/converted_predictions.py output_dir --hf DIR --onnx DIR \
    --int8 DIR

Each library gets the texts and tokenizes them itself. --hf needs torch and transformers, --onnx and
--int8 onnxruntime and tokenizers. The times of these two are taken in turns.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bert.checkpoints import reading
from bert.checkpoints.source import locate
from bert.cli.flags import Parser
from bert.cli.program import run
from bert.convert import witnesses
from bert.convert.int8 import compare_answers
from bert.system.errors import UsageError
from bert.tasks import files, metrics
from bert.tasks.predictions import decide, measure
from bert.tasks.table import ALL_TASKS, own_task
from bert.text.encoding import encode, pad_batch
from bert.text.tokenizer import build_tokenizer

BATCH = 8
MAX_LENGTH = 128
THREADS = 2  # for the times
# What is timed: a description, the rows, their tokens, and how often.
TIMED = (('one row of 32 tokens', 1, 32, 50), ('32 rows of 128', 32, 128, 5))


def read_dev(contents, dev_file):
    """Read the dev set of the GLUE task that a model was fine-tuned on, or of its own files.

    Returns
    -------
    bert.tasks.table.Task, bert.tasks.files.Examples
    """
    flags = contents.flags
    if flags.get('task_name'):
        task = replace(ALL_TASKS[flags['task_name']], labels=contents.labels)
        return task, files.read_glue(files.glue_folder(), task, task.dev[0])
    if not dev_file:
        raise UsageError('a model of own data needs a --dev_file')
    columns = flags['text_columns'], flags['label_column']
    labels = contents.labels, contents.is_multilabel
    task = own_task(None, dev_file, None, *columns, flags['metric'], *labels)
    return task, files.read_own(task, task.dev[0])


def batches(texts):
    """Yield the rows a few at a time, as one list of texts or two."""
    for start in range(0, len(texts), BATCH):
        yield [list(column) for column in zip(*texts[start : start + BATCH])]


def with_project(contents, texts):
    """Compute the logits with this project."""
    model = witnesses.build(contents)
    tokenizer = build_tokenizer(contents.vocab, contents.lower)
    encoded = encode(texts, tokenizer, contents.vocab, MAX_LENGTH)
    rows = np.array_split(np.arange(len(texts)), np.arange(BATCH, len(texts), BATCH))
    parts = (pad_batch(encoded, part) for part in rows)
    return np.concatenate([witnesses.run_gluon(model, part)['logits'] for part in parts])


def with_transformers(folder, texts):
    """Compute the logits with transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    logits = []
    for columns in batches(texts):
        inputs = tokenizer(
            *columns, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors='pt'
        )
        with torch.no_grad():
            logits.append(model(**inputs).logits.numpy())
    return np.concatenate(logits)


def with_onnxruntime(folder, texts):
    """Compute the logits with onnxruntime."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f'{folder}/tokenizer.json')
    tokenizer.enable_truncation(MAX_LENGTH)
    session = onnxruntime.InferenceSession(
        f'{folder}/model.onnx', providers=['CPUExecutionProvider']
    )
    logits = []
    for columns in batches(texts):
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id('[PAD]'))
        encodings = tokenizer.encode_batch(list(zip(*columns)) if columns[1:] else columns[0])
        inputs = {
            'input_ids': [encoding.ids for encoding in encodings],
            'attention_mask': [encoding.attention_mask for encoding in encodings],
            'token_type_ids': [encoding.type_ids for encoding in encodings],
        }
        inputs = {name: np.array(rows, np.int64) for name, rows in inputs.items()}
        logits.append(session.run(['logits'], inputs)[0])
    return np.concatenate(logits)


def time_onnxruntime(folders):
    """Print the shortest times of some ONNX files, which take turns.

    Parameters
    ----------
    folders : dict of str to path-like
        By the name of the line.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    sessions = {
        name: onnxruntime.InferenceSession(
            f'{folder}/model.onnx', options, providers=['CPUExecutionProvider']
        )
        for name, folder in folders.items()
    }
    rng = np.random.default_rng(1)
    for what, rows, tokens, turns in TIMED:
        ids = rng.integers(1, 1000, (rows, tokens))
        inputs = {'input_ids': ids, 'attention_mask': np.ones_like(ids)}
        inputs['token_type_ids'] = np.zeros_like(ids)
        seconds = {name: [] for name in sessions}
        for _ in range(turns):
            for name, session in sessions.items():
                start = time.perf_counter()
                session.run(None, inputs)
                seconds[name].append(time.perf_counter() - start)
        for name in sessions:
            print(f'{name}, {what}: {min(seconds[name]) * 1000:.1f} ms, {THREADS} threads')


def count_classes(logits, task):
    """Describe how often each class is predicted; numbers need no description."""
    if task.is_regression:
        return ''
    decided = decide(logits, task)
    if task.is_multilabel:
        counts = decided.sum(axis=0)
    else:
        counts = np.bincount(decided, minlength=task.num_classes)
    return f', {" and ".join(map(str, counts))} of the classes predicted'


def main(argv=None):
    """Print how many predictions agree, the largest difference in a logit, and the metrics."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument('output_dir', help='of finetune_classifier.py')
    parser.add_argument('--hf', metavar='DIR', help='written by bert.convert --to hf')
    parser.add_argument('--onnx', metavar='DIR', help='written by bert.convert --to onnx')
    parser.add_argument('--int8', metavar='DIR', help='written with --dtype int8 too')
    parser.add_argument('--dev_file', metavar='FILE', help='of a model of own data')
    args = parser.parse_args(argv)
    contents = reading.read(locate(args.output_dir))
    task, dev = read_dev(contents, args.dev_file)
    expected = with_project(contents, dev.texts)
    print(
        f'{len(expected)} {"pairs" if task.has_pairs else "texts"}{count_classes(expected, task)}'
    )
    results = {'this project': expected}
    for name, folder, function in (
        ('transformers', args.hf, with_transformers),
        ('onnxruntime', args.onnx, with_onnxruntime),
        ('onnxruntime, int8', args.int8, with_onnxruntime),
    ):
        if folder:
            logits = results[name] = function(folder, dev.texts)
            same = compare_answers(expected, logits, task.is_regression, task.is_multilabel).equal
            difference = np.abs(logits - expected).max()
            print(f'{name}: {same} predictions are the same, logits by {difference:.1e}')
    for name, logits in results.items():
        print(f'{name}: {metrics.describe(measure(logits, dev.labels, task))}')
    folders = {'onnxruntime': args.onnx, 'onnxruntime, int8': args.int8}
    if any(folders.values()):
        time_onnxruntime({name: folder for name, folder in folders.items() if folder})


if __name__ == '__main__':
    run(main)
