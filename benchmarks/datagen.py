#!/usr/bin/env python3
"""Time data generation, side by side with GluonNLP's tokenizer, in one run on one machine.

The yardstick is the time that ``gluonnlp.data.BERTTokenizer`` takes to tokenize the text once,
without imports. Every run is a separate process; its start-up, measured as the time for a text of
two lines, is subtracted.
"""

import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bert.cli.flags import Parser, positive_int
from bert.cli.program import run
from bert.system.errors import ToolkitError

# The flags of the original's command.
FLAGS = ['--do_lower_case', '--max_seq_length=128', '--max_predictions_per_seq=20']
FLAGS += ['--dupe_factor=5', '--masked_lm_prob=0.15', '--short_seq_prob=0.1']

TOKENIZE = """
import sys, time
import bert, gluonnlp
from bert.text.vocab import load_vocab
tokens = load_vocab(sys.argv[2]).idx_to_token
vocab = gluonnlp.vocab.BERTVocab(
    gluonnlp.data.count_tokens(tokens), token_to_idx={t: i for i, t in enumerate(tokens)}
)
tokenizer = gluonnlp.data.BERTTokenizer(vocab, lower=True)
lines = open(sys.argv[1], encoding='utf8').read().split('\\n')
start = time.perf_counter()
for line in lines:
    tokenizer(line)
print(time.perf_counter() - start)
"""


SEGMENT = """
import sys, time
from bert.pretraining.files import Layout, Span, read_sentences
from bert.text.sentences import load_segmenter
span = Span(sys.argv[1], 0, int(sys.argv[2]))
load_segmenter()
start = time.perf_counter()
for _ in read_sentences(span, Layout(segment=True)):
    pass
print(time.perf_counter() - start)
"""


def parse_args(argv=None):
    """Parse the flags."""
    parser = Parser(__doc__)
    parser.add_argument('text', help='one sentence per line, a blank line between documents')
    parser.add_argument('vocab_file', help='an uncased vocab.txt or .vocab')
    parser.add_argument(
        '--copies', type=positive_int, default=10, help='of the text, to compare two workers'
    )
    parser.add_argument(
        '--segment', action='store_true', help='measure the text as wrapped paragraphs, too'
    )
    parser.add_argument(
        '--runs', type=positive_int, default=2, help='the best of this number is reported'
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Measure, and print a table."""
    args = parse_args(argv)
    text, vocab = Path(args.text).resolve(), Path(args.vocab_file).resolve()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_all(text, vocab, Path(folder), args.copies, args.runs)
        if args.segment:
            rows += measure_segmenting(text, vocab, Path(folder), args.runs)
    for name, value in rows:
        print(f'{name:<42}{value:>10}')
    return rows


def measure_all(text, vocab, folder, copies, runs):
    """Return the rows of the table, as pairs of text."""
    short, out = write_short(folder), folder / 'out.npz'

    def best(*flags):
        return min(generate(vocab, *flags) for _ in range(runs))

    tokenizer = min(tokenize(text, vocab) for _ in range(runs))
    start_up, _ = best(f'--input_file={short}', f'--output_file={out}')
    seconds, memory = best(f'--input_file={text}', f'--output_file={out}')
    size = out.stat().st_size / 1e6
    many = [f'--input_file={",".join([str(text)] * copies)}', f'--output_dir={folder}']
    single, _ = best(*many, '--num_outputs=2', '--num_workers=1')
    double, _ = best(*many, '--num_outputs=2', '--num_workers=2')
    net = seconds - start_up
    return [
        ("GluonNLP's tokenizer, the text once", f'{tokenizer:.2f} s'),
        ('start-up: a text of two lines', f'{start_up:.2f} s'),
        ('one process', f'{seconds:.2f} s'),
        ('one process without start-up', f'{net:.2f} s'),
        ("  as a ratio to the tokenizer's time", f'{net / tokenizer:.2f}'),
        ('  peak memory', f'{memory:.0f} MB'),
        ('  size of the file', f'{size:.1f} MB'),
        (f'the text {copies} times, 2 outputs, 1 worker', f'{single:.2f} s'),
        (f'the text {copies} times, 2 outputs, 2 workers', f'{double:.2f} s'),
        ('  speed-up', f'{single / double:.2f}'),
    ]


def measure_segmenting(text, vocab, folder, runs):
    """Return rows about the text with each document as one wrapped paragraph, in one process."""
    documents = text.read_text(encoding='utf8').split('\n\n')
    plain, short = folder / 'plain.txt', write_short(folder)
    plain.write_text('\n\n'.join(map(textwrap.fill, documents)), encoding='utf8')

    def speed(path, *flags):
        """Return MB of text per second of the whole generation without its start-up."""
        out = f'--output_file={folder / "out"}'
        seconds = [
            min(generate(vocab, f'--input_file={name}', out, *flags)[0] for _ in range(runs))
            for name in (path, short)
        ]
        return path.stat().st_size / 1e6 / (seconds[0] - seconds[1])

    size = plain.stat().st_size
    alone = min(float(execute(['-c', SEGMENT, plain, size])[2]) for _ in range(runs))
    return [
        ('segmentation alone', f'{size / 1e6 / alone:.1f} MB/s'),
        ('generation from plain text', f'{speed(plain, "--segment"):.1f} MB/s'),
        ('generation from sentences on lines', f'{speed(text):.1f} MB/s'),
    ]


def write_short(folder):
    """Write a text of two lines, to measure the start-up."""
    path = folder / 'short.txt'
    path.write_text('One line.\n\nAnother line.\n')
    return path


def tokenize(text, vocab):
    """Return the seconds that GluonNLP's tokenizer takes for the text."""
    return float(execute(['-c', TOKENIZE, text, vocab])[2])


def generate(vocab, *flags):
    """Return seconds and peak memory of create_pretraining_data.py, its start-up included."""
    command = [ROOT / 'create_pretraining_data.py', *FLAGS, f'--vocab_file={vocab}', *flags]
    return execute(command)[:2]


def execute(command):
    """Run Python.

    Returns
    -------
    float, float, bytes
        Seconds, the largest peak memory of any of its processes in MB, and its output.
    """
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise ToolkitError(f'failed: {" ".join(map(str, command[-3:]))}')
    return time.perf_counter() - start, usage.ru_maxrss / 1024, printed


if __name__ == '__main__':
    run(main)
