#!/usr/bin/env python3
"""Compare the predictions of a fine-tuned MRPC model with those of its conversions.

GLUE_DIR=glue_data python3 benchmarks/converted_predictions.py output_dir --hf DIR --onnx DIR

Each library gets the texts and tokenizes them itself. --hf needs torch and transformers, --onnx
onnxruntime and tokenizers.
"""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bert.checkpoints import reading
from bert.checkpoints.source import locate
from bert.cli.flags import Parser
from bert.cli.program import run
from bert.convert import witnesses
from bert.tasks import files
from bert.tasks.table import TASKS
from bert.text.encoding import encode, pad_batch
from bert.text.tokenizer import build_tokenizer

BATCH = 8
MAX_LENGTH = 128


def batches(texts):
    """Yield the pairs a few at a time, as two lists."""
    for start in range(0, len(texts), BATCH):
        yield [list(column) for column in zip(*texts[start : start + BATCH])]


def with_project(folder, texts):
    """Compute the logits with this project."""
    contents = reading.read(locate(folder))
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
        encodings = tokenizer.encode_batch(list(zip(*columns)))
        inputs = {
            'input_ids': [encoding.ids for encoding in encodings],
            'attention_mask': [encoding.attention_mask for encoding in encodings],
            'token_type_ids': [encoding.type_ids for encoding in encodings],
        }
        inputs = {name: np.array(rows, np.int64) for name, rows in inputs.items()}
        logits.append(session.run(['logits'], inputs)[0])
    return np.concatenate(logits)


def main(argv=None):
    """Print how many predictions agree, and the largest difference in a logit."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument('output_dir', help='of finetune_classifier.py on MRPC')
    parser.add_argument('--hf', metavar='DIR', help='written by bert.convert --to hf')
    parser.add_argument('--onnx', metavar='DIR', help='written by bert.convert --to onnx')
    args = parser.parse_args(argv)
    task = TASKS['MRPC']
    dev = files.read_glue(files.glue_folder(), task, task.dev[0])
    expected = with_project(args.output_dir, dev.texts)
    predictions = expected.argmax(axis=1)
    counts = np.bincount(predictions, minlength=2)
    print(f'{len(predictions)} pairs, {counts[0]} and {counts[1]} of the two classes predicted')
    for name, folder, function in (
        ('transformers', args.hf, with_transformers),
        ('onnxruntime', args.onnx, with_onnxruntime),
    ):
        if folder:
            logits = function(folder, dev.texts)
            same = (logits.argmax(axis=1) == predictions).sum()
            difference = np.abs(logits - expected).max()
            print(f'{name}: {same} predictions are the same, logits by {difference:.1e}')


if __name__ == '__main__':
    run(main)
