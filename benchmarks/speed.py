#!/usr/bin/env python3
"""Time this toolkit and PyTorch on this machine, in turns, and print a table.

    GLUE_DIR=glue_data python3 benchmarks/speed.py --bert_model minilm --only mrpc-epoch

Each side (this toolkit with its fused operators, with MXNet's own, PyTorch with transformers) is
a separate process (speed_sides.py) that does a few steps when it is its turn and sleeps otherwise,
so that other load on the machine slows all sides alike. The table has the median of the turns and
the distance between their quartiles. The share is the part of this time that the matrix products
of the side's model would take at the speed of one large product, which is also timed in turn.

The inference lines also have onnxruntime and OpenVINO, each with the model that bert.convert makes
from the same weights. The logits of all float32 sides are compared before they are timed; each step
waits for its logits. The infer-latency lines have one row of 32 tokens.

mrpc-epoch trains on the same few batches in every turn, spread evenly over an epoch sorted by
width, and multiplies the time by the number of batches that each represents. Its ratio, like that
of pretrain-12x768, is to the best of PyTorch's ways. datagen compares with GluonNLP's tokenizer.

beside-other-work times this toolkit alone: by itself, and while another process keeps one processor
busy. Importing bert bounds the waiting of OpenMP's threads; with --unbounded, all lines have it as
it would be otherwise, too. PyTorch always waits in its own way.

Needs the extras parity and bench.
"""

import contextlib
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS.parent), str(BENCHMARKS)]

import datagen
from speed_lines import (
    BESIDE,
    LINES,
    OURS,
    OURS_UNBOUNDED,
    TITLES,
    describe_machine,
    describe_row,
    heading,
    make_beside_row,
    make_row,
    rate_of,
    sides_of,
)
from speed_models import export, write_model, write_weights
from speed_sides import Work

from bert.checkpoints.source import locate
from bert.cli.console import progress
from bert.cli.flags import Parser, positive_int
from bert.cli.program import run
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import write_json
from bert.system.machine import processor_name
from bert.system.packages import check_mxnet
from bert.system.processes import kill_with_parent
from bert.tasks import files, table
from bert.text.vocab import load_vocab

# After a turn the threads of a process spin for a moment before they sleep. After this pause they
# take no processor time (measured).
PAUSE = 0.3
# The packages that a line compares with, by the extra that brings them.
PARITY = {'parity': ('torch', 'transformers')}
NEEDS = {
    'train': PARITY,
    'infer': {**PARITY, 'bench': ('onnx', 'onnxruntime', 'openvino')},
    'mrpc': PARITY,
    'pretrain': PARITY,
}
# Logits of the same weights in float32, relative to the largest. All agree to about 1e-5.
TOLERANCE = 1e-3


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
        metavar='MODEL',
        help='minilm, or another model in Hugging Face layout: mrpc-epoch trains it, datagen takes '
        'its vocabulary',
    )
    parser.add_argument('--turns', type=positive_int, default=7, help='of each side')
    parser.add_argument(
        '--steps', type=positive_int, help='per turn (default: enough to take a second or a few)'
    )
    parser.add_argument(
        '--bfloat16',
        action='store_true',
        help='bfloat16 as well, where all steps are alike; in PyTorch by autocast, in OpenVINO by '
        'its precision hint',
    )
    parser.add_argument(
        '--int8', action='store_true', help="onnxruntime's dynamic int8 as well, in inference"
    )
    parser.add_argument(
        '--compile', action='store_true', help='torch.compile as well, where all steps are alike'
    )
    parser.add_argument(
        '--unbounded',
        action='store_true',
        help="with libgomp's own long waiting as well, to see what bounding it costs and saves",
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Measure the lines, and print each when it is done.

    Returns
    -------
    list of dict
        See :func:`speed_lines.make_row` and :func:`speed_lines.make_beside_row`.
    """
    args = parse_args(argv)
    names = [name for name in LINES if not args.only or name in args.only]
    if args.bert_model:
        args.bert_model = str(locate(args.bert_model).folder)
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
            for row in measure_rows(name, product, folder, args):
                rows.append({**row, **machine})
                print(describe_row(rows[-1]), flush=True)
    if args.json:
        write_json(args.json, rows)
    return rows


def check(names, args):
    """Refuse, before measuring anything, lines that cannot be measured."""
    for name in names:
        kind = LINES[name].kind
        if kind in ('mrpc', 'datagen', 'beside'):
            if not args.bert_model:
                raise UsageError(f'{name} needs a --bert_model')
            folder = files.glue_folder()
            if not (folder / 'MRPC' / 'train.tsv').is_file():
                raise ToolkitError(
                    f'{name} needs {folder}/MRPC/train.tsv, which '
                    f'download_glue_data.py --data_dir {folder} --tasks MRPC makes'
                )
            load_vocab(Path(args.bert_model) / 'vocab.txt')
        extras = [
            extra
            for extra, packages in NEEDS.get(kind, {}).items()
            if not all(importlib.util.find_spec(package) for package in packages)
        ]
        if extras:
            raise ToolkitError(
                f'{name} compares with packages that are not installed: '
                f"pip install '.[{','.join(extras)}]' in the toolkit's folder, or take --only "
                'datagen beside-other-work'
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


def measure_rows(name, product, folder, args):
    """Measure one of LINES, and yield its row, or each of its rows.

    Parameters
    ----------
    name : str
    product : Process
    folder : Path
        For temporary files.
    """
    if LINES[name].kind == 'datagen':
        yield make_row(name, measure_datagen(Path(args.bert_model), folder, args))
    elif LINES[name].kind == 'beside':
        for each in BESIDE:
            yield make_beside_row(each, measure_beside(each, folder / f'beside-{each}', args))
    else:
        yield make_row(name, measure(name, product, folder / name, args))


def measure(name, product, folder, args):
    """Measure the seconds of all turns of a line's sides.

    Parameters
    ----------
    product : Process
    folder : Path
        Of the line's model, if the line makes one.

    Returns
    -------
    dict of str to list of float
        By side, including the products.
    """
    sides = sides_of(LINES[name], args)
    with start(sides, LINES[name], folder, args) as processes:
        turns = {side: process.turn for side, process in processes.items()}
        return take_turns({'product': product.turn, **turns}, args.turns, name)


def measure_beside(name, folder, args):
    """Measure the seconds of all turns of our side of a line, alone and beside a busy process.

    See :func:`measure`.
    """
    sides = {'ours': OURS['ours'], **(OURS_UNBOUNDED if args.unbounded else {})}
    with start(sides, LINES[name], folder, args) as processes:
        turns = {}
        for side, process in processes.items():
            turns[side] = process.turn
            turns[f'{side}_beside'] = functools.partial(take_turn_beside, process)
        return take_turns(turns, args.turns, f'beside-{name}')


def take_turn_beside(process):
    """Let a side work for a turn beside a busy process, and return the seconds."""
    with busy_process():
        return process.turn()


@contextlib.contextmanager
def busy_process():
    """Keep one processor busy while the block runs, and no longer, even if this process is killed.

    Yields the process.
    """
    code = 'print(flush=True)\nwhile True: pass'
    process = subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, preexec_fn=kill_with_parent()
    )
    try:
        process.stdout.readline()  # it is at work
        yield process
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def start(sides, line, folder, args):
    """Start the processes of some sides of a line, and wait until they are ready.

    Parameters
    ----------
    sides : dict of str to speed_lines.Side
    line : speed_lines.Line
    folder : Path
        See :func:`measure`.
    args : argparse.Namespace

    Yields
    ------
    dict of str to Process
    """
    if line.layers:
        write_model(line, folder)
    if line.kind == 'infer':
        write_weights(line, folder)
        if any(side.work['framework'] in ('onnxruntime', 'openvino') for side in sides.values()):
            export(folder)
    common = {
        'kind': line.kind,
        'model': args.bert_model if line.kind == 'mrpc' else str(folder),
        'steps': args.steps or line.steps,
        'batch_size': line.batch_size,
        'length': line.length,
        'masks': line.masks,
    }
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(Process(name, Work(**common, **side.work), side.environment))
            for name, side in sides.items()
        }
        # All of them get ready at the same time.
        ready = {name: process.answer() for name, process in processes.items()}
        check_same({name: answer['logits'] for name, answer in ready.items() if answer})
        yield processes


def check_same(logits):
    """Refuse to time float32 sides whose logits differ from ours, by more than rounding does.

    Parameters
    ----------
    logits : dict of str to (B, 2) nested lists of float
        By side; empty if the sides do not predict.
    """
    for side, values in logits.items():
        if side.endswith(('_bfloat16', '_int8')):
            continue
        ours = np.array(logits['ours'])
        difference = np.abs(values - ours).max() / np.abs(ours).max()
        if not difference <= TOLERANCE:
            raise ToolkitError(
                f'{TITLES[side]} gets different logits from the same weights: they differ by '
                f'{difference:.1e} of the largest'
            )


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
