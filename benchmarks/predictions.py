#!/usr/bin/env python3
"""Time a fine-tuned MRPC model on MRPC's test set, beside transformers' pipeline.

GLUE_DIR=glue_data python3 benchmarks/predictions.py output_dir

The pipeline gets the same weights, converted by bert.convert, as many threads, and batches of as
many rows: in their order, and sorted by the number of their characters. Each side tokenizes the
texts itself, in a process of its own that sleeps while it is not its turn. Needs torch and
transformers.
"""

import contextlib
import functools
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import bert.predict
from bert.cli.flags import Parser, positive_int
from bert.cli.program import run
from bert.convert.__main__ import main as convert
from bert.tasks import files
from bert.tasks.table import TASKS

MAX_LENGTH = 128
# Between two turns, so that the threads of the last one have gone to sleep.
PAUSE = 0.5


@functools.lru_cache(maxsize=None)
def prepare(side, model, batch_size, threads):
    """Return a function from pairs of texts to answers."""
    if side == 'bert.predict':
        return bert.predict.load(model, MAX_LENGTH, batch_size)
    import torch
    from transformers import pipeline

    torch.set_num_threads(threads)
    classify = pipeline('text-classification', model=model, tokenizer=model, device='cpu')

    def answer(texts):
        order = range(len(texts))
        if side.endswith('sorted'):
            order = sorted(order, key=lambda i: sum(map(len, texts[i])))
        rows = [{'text': texts[i][0], 'text_pair': texts[i][1]} for i in order]
        found = classify(rows, batch_size=batch_size, truncation=True, max_length=MAX_LENGTH)
        return [answer for _, answer in sorted(zip(order, found), key=lambda pair: pair[0])]

    return answer


def process():
    """Start a process with nothing of this one's memory, which does what is submitted to it."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn'))


def turn(texts, *side):
    """Return the seconds of a turn, and the labels."""
    answer = prepare(*side)
    start = time.perf_counter()
    found = answer(texts)
    return time.perf_counter() - start, [each['label'] for each in found]


def main(argv=None):
    """Print the rows a second of each side, and the share of equal labels."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument('output_dir', help='of finetune_classifier.py on MRPC')
    parser.add_argument('--batch_size', type=positive_int, default=32, help='rows per batch')
    parser.add_argument('--turns', type=positive_int, default=5, help='turns of each side')
    args = parser.parse_args(argv)
    task = TASKS['MRPC']
    texts = files.read_glue(files.glue_folder(), task, task.test[0]).texts
    threads = int(os.environ['OMP_NUM_THREADS'])  # which bert has set unless the user did
    with contextlib.ExitStack() as stack:
        converted = f'{stack.enter_context(tempfile.TemporaryDirectory())}/hf'
        models = {
            'bert.predict': args.output_dir,
            'transformers, sorted': converted,
            'transformers': converted,
        }
        processes = {side: stack.enter_context(process()) for side in models}
        with process() as other:
            other.submit(convert, [args.output_dir, converted, '--to', 'hf']).result()
        seconds, labels = {side: [] for side in models}, {}
        for number in range(args.turns + 1):
            for side in list(models)[:: -1 if number % 2 else 1]:
                time.sleep(PAUSE)
                work = (texts, side, models[side], args.batch_size, threads)
                used, labels[side] = processes[side].submit(turn, *work).result()
                if number:  # the first turn builds graphs and allocates memory
                    seconds[side].append(used)
    print(f'{len(texts)} pairs, {threads} threads, median of {args.turns} turns')
    print(f'{"":22}{"rows/s":>8}{"equal labels":>14}')
    for side in models:
        equal = sum(map(str.__eq__, labels[side], labels['bert.predict'])) / len(texts)
        print(f'{side:22}{len(texts) / median(seconds[side]):8.0f}{equal:14.2%}')


if __name__ == '__main__':
    run(main)
