#!/usr/bin/env python3
"""Time this toolkit and PyTorch on this machine, in turns, and print a table.

    GLUE_DIR=glue_data python3 benchmarks/speed.py --bert_model MODEL --only train-6x384

Every side, here with the fused operators, here with MXNet's own, and PyTorch with transformers, is
a process of its own (speed_sides.py) that does a few steps when it is its turn and sleeps
otherwise, so that whatever else the machine does slows all of them. The table has the median of
the turns and the distance between their quartiles. The share is what the matrix products of the
side's own model would take at the speed of one large product, which has its turn too, of the time
that it took.

mrpc-epoch trains the same few batches in every turn, spread evenly over an epoch that is sorted by
width, and multiplies the time by the batches that each stands for. Its ratio, and that of
pretrain-12x768, is to the best of PyTorch's ways. datagen compares with GluonNLP's tokenizer.

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
from typing import NamedTuple

import numpy as np

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS.parent), str(BENCHMARKS)]

import datagen
from speed_sides import MAX_LENGTH, PRODUCT_SIZE, Work

import bert  # noqa: F401 (prepares for MXNet)
from bert.cli.console import progress
from bert.cli.flags import Parser, positive_int
from bert.cli.program import run
from bert.system.environment import check_mxnet
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import write_json
from bert.system.machine import processor_name
from bert.tasks import files, table
from bert.text.vocab import load_vocab

VOCAB_SIZE = 30522  # of BERT base
# After a turn the threads of a process spin for a moment before they sleep. While another has its
# turn, it then takes no processor time (measured).
PAUSE = 0.3


class Line(NamedTuple):
    """One line of the benchmark. The sizes of mrpc's model are those of its files."""

    kind: str  # train, infer, mrpc, pretrain or datagen
    steps: int = 0  # in a turn
    batch_size: int = 0
    layers: int = 0
    units: int = 0
    heads: int = 12
    length: int = MAX_LENGTH
    masks: int = 20
    vocab_size: int = VOCAB_SIZE


LINES = {
    'train-12x768': Line('train', 2, 8, 12, 768),
    'train-6x384': Line('train', 3, 32, 6, 384),
    'infer-12x768': Line('infer', 5, 8, 12, 768),
    'infer-6x384': Line('infer', 8, 32, 6, 384),
    'mrpc-epoch': Line('mrpc', 8, 32),
    'pretrain-12x768': Line('pretrain', 2, 8, 12, 768),
    'datagen': Line('datagen'),
}


class Side(NamedTuple):
    """Who does the work of a line."""

    title: str
    work: dict  # fields of speed_sides.Work
    environment: dict = {}


OURS = {
    'ours': Side('here', {'framework': 'mxnet'}),
    'stock': Side("here, MXNet's operators", {'framework': 'mxnet'}, {'BERT_STOCK_OPS': '1'}),
}
PYTORCH = {'pytorch': Side('PyTorch', {'framework': 'pytorch'})}
PYTORCH_MRPC = {
    f'pytorch_{padding}': Side(title, {'framework': 'pytorch', 'padding': padding})
    for padding, title in [
        ('max', f'PyTorch, padded to {MAX_LENGTH}'),
        ('batch', 'PyTorch, each batch padded'),
        ('grouped', 'PyTorch, our batches'),
    ]
}
PYTORCH_PRETRAIN = {
    f'pytorch_{name}': Side(title, {'framework': 'pytorch', 'gathered': name == 'gathered'})
    for name, title in [
        ('whole', 'PyTorch, scores everywhere'),
        ('gathered', 'PyTorch, scores at masks'),
    ]
}
BFLOAT16 = {
    'ours_bfloat16': Side('here, bfloat16', {'framework': 'mxnet', 'dtype': 'bfloat16'}),
    'pytorch_bfloat16': Side('PyTorch, bfloat16', {'framework': 'pytorch', 'dtype': 'bfloat16'}),
}
PYTORCH_COMPILED = {
    'pytorch_compiled': Side('PyTorch, compiled', {'framework': 'pytorch', 'compiled': True})
}
# Of these the best is what the ratio refers to.
EAGER = (*PYTORCH, *PYTORCH_MRPC, *PYTORCH_PRETRAIN)
TITLES = {'product': 'one matrix product', 'gluonnlp': "GluonNLP's tokenizer"}
TITLES.update(
    (name, side.title)
    for sides in (OURS, PYTORCH, PYTORCH_MRPC, PYTORCH_PRETRAIN, BFLOAT16, PYTORCH_COMPILED)
    for name, side in sides.items()
)


def parse_args(argv=None):
    """The flags."""
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
        '--steps', type=positive_int, help='of a turn (default: what takes a second or a few)'
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
    """Measure the lines and print each when it is done.

    Returns
    -------
    list of dict
        See :func:`make_row`.
    """
    args = parse_args(argv)
    names = [name for name in LINES if not args.only or name in args.only]
    check(names, args)
    check_mxnet()
    rows = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # It takes part in all lines.
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
    """Refuse, before anything is measured, what could not be measured later."""
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
    """A side that waits for its turns, as a context manager; its first answer is that it is ready.

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
            # All models are files; nothing is to be looked for elsewhere.
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
        """Seconds, of what the side was told to measure."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write('\n')
        return self.answer()['seconds']

    def answer(self):
        """What the process writes next."""
        line = self.process.stdout.readline()
        time.sleep(PAUSE)
        if line:
            return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors if line.strip()]
        raise ToolkitError(f'{TITLES[self.name]} stopped: {lines[-1] if lines else "no reason"}')


def measure(name, product, folder, args):
    """The seconds of all turns of a line but datagen.

    Parameters
    ----------
    product : Process
    folder : Path
        For temporary files.

    Returns
    -------
    dict of str to list of float
        By side, the products included.
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
            for key, side in sides_of(line, args).items()
        ]
        for process in processes:  # they get ready at the same time
            process.answer()
            turns[process.name] = process.turn
        return take_turns(turns, args.turns, name)


def sides_of(line, args):
    """The sides of a line, by name."""
    if line.kind == 'mrpc':
        return {**OURS, **PYTORCH_MRPC}
    sides = {**OURS, **(PYTORCH_PRETRAIN if line.kind == 'pretrain' else PYTORCH)}
    if args.bfloat16:
        sides.update(BFLOAT16)
    if args.compile:
        sides.update(PYTORCH_COMPILED)
    return sides


def write_model(line, folder):
    """The configuration of a model with random weights, and a vocabulary of special tokens."""
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
    """The seconds of all turns of datagen, on all sentences of MRPC, ten a document."""
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
    """Call each function so many times, one after the other, in every second round backwards.

    Parameters
    ----------
    turns : dict of str to function
        Each returns seconds.

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


def make_row(name, seconds):
    """A line's figures.

    Parameters
    ----------
    seconds : dict of str to list of float
        As :func:`take_turns` returns them.

    Returns
    -------
    dict
        ``name``, ``ours_s``, ``stock_s``, ``pytorch_s``, the best of PyTorch's ways in float32 and
        without torch.compile, and ``ratio``, PyTorch's time over ours; None where there
        is none. Of each further side its ``_s``, and of every side ``_spread_s``, the distance
        between the quartiles, and where it has one its ``_share`` of the ``matrix_gflops``. Of
        mrpc-epoch also ``ratio_max``, to padding to the maximum, and of datagen ``gluonnlp_s``,
        which ``ratio`` refers to. With bfloat16 ``ratio_bfloat16``, both in it.
    """
    line = LINES[name]
    row = {'name': name, 'ours_s': None, 'stock_s': None, 'pytorch_s': None, 'ratio': None}
    rate = rate_of(seconds['product']) if 'product' in seconds else None
    row['matrix_gflops'] = rate
    sides = [side for side in seconds if side != 'product']
    for side in sides:
        row[f'{side}_s'] = float(np.median(seconds[side]))
        row[f'{side}_spread_s'] = float(np.subtract(*np.percentile(seconds[side], [75, 25])))
        if line.layers and not side.endswith('_bfloat16'):
            ideal = matrix_gflop(line, side) / rate
            row[f'{side}_share'] = ideal / row[f'{side}_s']
    row['pytorch_s'] = min((row[f'{side}_s'] for side in sides if side in EAGER), default=None)
    row['ratio'] = (row['pytorch_s'] or row['gluonnlp_s']) / row['ours_s']
    if line.kind == 'mrpc':
        row['ratio_max'] = row['pytorch_max_s'] / row['ours_s']
    if 'ours_bfloat16' in sides:
        row['ratio_bfloat16'] = row['pytorch_bfloat16_s'] / row['ours_bfloat16_s']
    row['sides'] = sides
    return row


def rate_of(seconds):
    """GFLOP/s, from the seconds of some products."""
    return 2 * PRODUCT_SIZE**3 / float(np.median(seconds)) / 1e9


def matrix_gflop(line, side):
    """Billions of operations in the matrix products of a step, as the side's model does it.

    Every product of the forward pass has two in the backward pass, of the same size.
    """
    rows, units, length = line.batch_size, line.units, line.length
    tokens, masks = rows * length, rows * line.masks
    # Per position: output projection and feed-forward network; a query with its scores and context.
    rest, query = 2 * units * 9 * units, 2 * units * units + 4 * length * units
    keys_values = 2 * units * 2 * units
    layer = tokens * (keys_values + query + rest)
    total = line.layers * layer + 2 * rows * units * units  # the pooler
    if line.kind == 'pretrain':
        seen = tokens if side == 'pytorch_whole' else masks
        total += 2 * seen * units * (units + line.vocab_size)
    elif side in OURS:
        # The last layer's queries, and all that follows, at the first position only.
        total += rows * (query + rest) - tokens * (query + rest)
    return total * (1 if line.kind == 'infer' else 3) / 1e9


def describe_machine(machine, rate):
    """The line above the table."""
    return (
        f'{machine["processor"]}, {machine["threads"]} threads, '
        f'{rate:.0f} GFLOP/s in a float32 product of {PRODUCT_SIZE} x {PRODUCT_SIZE} matrices'
    )


def heading():
    """The first line of the table."""
    return f'{"line":<17}{"side":<28}{"seconds":>9}{"spread":>9}{"share":>8}{"/ here":>8}'


def describe_row(row):
    """The lines of the table for one row."""
    lines = []
    for side in row['sides']:
        share = row.get(f'{side}_share')
        lines.append(
            f'{"" if lines else row["name"]:<17}{TITLES[side]:<28}'
            f'{row[f"{side}_s"]:>9.3f}{row[f"{side}_spread_s"]:>9.3f}'
            f'{"" if share is None else f"{100 * share:.0f} %":>8}'
            f'{row[f"{side}_s"] / row["ours_s"]:>8.2f}'
        )
    return '\n'.join(lines)


if __name__ == '__main__':
    run(main)
