#!/usr/bin/env python3
"""Time this toolkit and PyTorch on this machine, in turns, and print a table.

    GLUE_DIR=glue_data python3 benchmarks/speed.py --bert_model MODEL --only train-6x384

Each side (this toolkit with its fused operators, with MXNet's own, PyTorch with transformers) is
a separate process (speed_sides.py) that does a few steps when it is its turn and sleeps otherwise,
so that other load on the machine slows all sides alike. The table has the median of the turns and
the distance between their quartiles. The share is the part of this time that the matrix products
of the side's model would take at the speed of one large product, which is also timed in turn.

mrpc-epoch trains on the same few batches in every turn, spread evenly over an epoch sorted by
width, and multiplies the time by the number of batches that each represents. Its ratio, like that
of pretrain-12x768, is to the best of PyTorch's ways. datagen compares with GluonNLP's tokenizer.

Needs what `make parity` installs.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS.parent), str(BENCHMARKS)]

import datagen
from speed_lines import (
    LINES,
    TITLES,
    describe_machine,
    describe_row,
    heading,
    make_row,
    rate_of,
    sides_of,
)
from speed_sides import Work

from bert.cli.console import progress
from bert.cli.flags import Parser, positive_int
from bert.cli.program import run
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import write_json
from bert.system.machine import processor_name
from bert.system.packages import check_mxnet
from bert.tasks import files, table
from bert.text.vocab import load_vocab

# After a turn the threads of a process spin for a moment before they sleep. After this pause they
# take no processor time (measured).
PAUSE = 0.3


def parse_args(argv=None):
    """Parse the flags."""
    parser = Parser(__doc__)
    parser.add_argument(
        '--only',
        nargs='+',
        action='extend',
        choices=LINES,
        metavar='NAME',
        help=f'these lines: {" ".join(LINES)} (default: all)',
    )
    parser.add_argument('--json', metavar='FILE', help='write the rows to a file, too')
    parser.add_argument(
        '--bert_model',
        metavar='DIR',
        help='model in Hugging Face layout: mrpc-epoch trains it, datagen takes its vocabulary',
    )
    parser.add_argument('--turns', type=positive_int, default=7, help='of each side')
    parser.add_argument(
        '--steps', type=positive_int, help='per turn (default: enough to take a second or a few)'
    )
    parser.add_argument(
        '--bfloat16',
        action='store_true',
        help='bfloat16 as well, where all steps are alike; in PyTorch by autocast',
    )
    parser.add_argument(
        '--compile', action='store_true', help='torch.compile as well, where all steps are alike'
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Measure the lines, and print each when it is done.

    Returns
    -------
    list of dict
        See :func:`speed_lines.make_row`.
    """
    args = parse_args(argv)
    names = [name for name in LINES if not args.only or name in args.only]
    check(names, args)
    check_mxnet()
    rows = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # It is timed in turn in all lines.
        product = stack.enter_context(Process('product', Work('product', 'mxnet', '', 4, 0)))
        product.answer()
        rate = rate_of([product.turn() for _ in range(args.turns)])
        machine = {
            'processor': processor_name(),
            'threads': int(os.environ['OMP_NUM_THREADS']),
        }
        print(describe_machine(machine, rate))
        print(heading())
        for name in names:
            if LINES[name].kind == 'datagen':
                seconds = measure_datagen(Path(args.bert_model), folder, args)
            else:
                seconds = measure(name, product, folder, args)
            rows.append({**make_row(name, seconds), **machine})
            print(describe_row(rows[-1]), flush=True)
    if args.json:
        write_json(args.json, rows)
    return rows


def check(names, args):
    """Refuse, before measuring anything, lines that cannot be measured."""
    for name in names:
        kind = LINES[name].kind
        if kind in ('mrpc', 'datagen'):
            if not args.bert_model:
                raise UsageError(f'{name} needs a --bert_model')
            folder = files.glue_folder()
            if not (folder / 'MRPC' / 'train.tsv').is_file():
                raise ToolkitError(
                    f'{name} needs {folder}/MRPC/train.tsv, which '
                    f'download_glue_data.py --data_dir {folder} --tasks MRPC makes'
                )
            load_vocab(Path(args.bert_model) / 'vocab.txt')
        if kind != 'datagen' and not (
            importlib.util.find_spec('torch') and importlib.util.find_spec('transformers')
        ):
            raise ToolkitError(
                f'{name} compares with PyTorch, which is not installed: '
                "pip install '.[parity]' in the toolkit's folder, or take --only datagen"
            )
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise UsageError(f'--json {args.json}: there is no such folder')


class Process:
    """A side that reports that it is ready and then waits for its turns, as a context manager.

    Parameters
    ----------
    name : str
    work : speed_sides.Work
    environment : dict of str to str
        Added to this process's own.
    """

    def __init__(self, name, work, environment=None):
        self.name = name
        self.errors = tempfile.TemporaryFile('w+', encoding='utf8', errors='replace')  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, str(BENCHMARKS / 'speed_sides.py'), json.dumps(work._asdict())],
            # All models are local files: nothing is fetched.
            env={**os.environ, 'HF_HUB_OFFLINE': '1', **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            bufsize=1,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def turn(self):
        """Let the side work for a turn, and return the seconds."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write('\n')
        return self.answer()['seconds']

    def answer(self):
        """Return the next line of the process, parsed."""
        line = self.process.stdout.readline()
        time.sleep(PAUSE)
        if line:
            return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors if line.strip()]
        raise ToolkitError(f'{TITLES[self.name]} stopped: {lines[-1] if lines else "no reason"}')


def measure(name, product, folder, args):
    """Measure the seconds of all turns of a line other than datagen.

    Parameters
    ----------
    product : Process
    folder : Path
        For temporary files.

    Returns
    -------
    dict of str to list of float
        By side, including the products.
    """
    line = LINES[name]
    model = args.bert_model if line.kind == 'mrpc' else str(write_model(line, folder / name))
    common = {
        'kind': line.kind,
        'model': model,
        'steps': args.steps or line.steps,
        'batch_size': line.batch_size,
        'length': line.length,
        'masks': line.masks,
    }
    with contextlib.ExitStack() as stack:
        turns = {'product': product.turn}
        processes = [
            stack.enter_context(Process(key, Work(**common, **side.work), side.environment))
            for key, side in sides_of(line, args.bfloat16, args.compile).items()
        ]
        for process in processes:  # all of them get ready at the same time
            process.answer()
            turns[process.name] = process.turn
        return take_turns(turns, args.turns, name)


def write_model(line, folder):
    """Write the configuration of a model with random weights, and a vocabulary for it."""
    config = {
        'model_type': 'bert',
        'num_hidden_layers': line.layers,
        'hidden_size': line.units,
        'intermediate_size': 4 * line.units,
        'num_attention_heads': line.heads,
        'max_position_embeddings': 512,
        'vocab_size': line.vocab_size,
        'type_vocab_size': 2,
        'hidden_act': 'gelu',
        'hidden_dropout_prob': 0.1,
        'attention_probs_dropout_prob': 0.1,
        'layer_norm_eps': 1e-12,
    }
    folder.mkdir()
    write_json(folder / 'config.json', config)
    (folder / 'vocab.txt').write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n')
    return folder


def measure_datagen(model, folder, args):
    """Measure the seconds of all turns of datagen, on MRPC's sentences, ten per document."""
    sentences = []
    task = table.TASKS['MRPC']
    data = files.glue_folder()
    for split in (task.train, *task.dev, *task.test):
        if (data / split.path).is_file():
            examples = files.read_glue(data, task, split)
            sentences += [text for pair in examples.texts for text in pair]
    documents = ['\n'.join(sentences[i : i + 10]) for i in range(0, len(sentences), 10)]
    text, out, vocab = folder / 'text.txt', folder / 'out.npz', model / 'vocab.txt'
    text.write_text('\n\n'.join(documents), encoding='utf8')
    short = datagen.write_short(folder)

    def generate(path):
        return datagen.generate(vocab, f'--input_file={path}', f'--output_file={out}')[0]

    turns = {
        'ours': lambda: generate(text) - generate(short),
        'gluonnlp': lambda: datagen.tokenize(text, vocab),
    }
    return take_turns(turns, args.turns, 'datagen')


def take_turns(turns, count, title):
    """Call all functions in rounds, every second round in reverse order.

    Parameters
    ----------
    turns : dict of str to function
        Each returns seconds.
    count : int
        The number of rounds.
    title : str
        The title of the progress bar.

    Returns
    -------
    dict of str to list of float
    """
    seconds = {name: [] for name in turns}
    with progress(count, title, 'turn') as bar:
        for number in range(count):
            for name in list(turns)[:: -1 if number % 2 else 1]:
                seconds[name].append(turns[name]())
            bar.update()
    return seconds


if __name__ == '__main__':
    run(main)
