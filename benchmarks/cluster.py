#!/usr/bin/env python3
"""Compare two workers with one process with batches twice as large: losses, speed, traffic.

    python3 benchmarks/cluster.py
    python3 benchmarks/cluster.py --kvstore horovod
    GLUE_DIR=glue_data python3 benchmarks/cluster.py --task MRPC --bert_model minilm

All runs are on this machine and share its cores, so they do not show what a second machine would
add. Dropout is 0, because it would depend on how the rows are divided.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bert.checkpoints import gluon
from bert.checkpoints.source import locate
from bert.cli.flags import Parser, positive_int
from bert.cli.program import run
from bert.system import processes
from bert.system.errors import ToolkitError
from bert.system.files import read_json, write_json

TOLERANCE = 1e-5  # of the loss of a step
WARM = 5  # untimed steps at the beginning
STEP = re.compile(r'INFO:root:\[(step|Epoch) ')


def parse_args(argv=None):
    """Parse the flags."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument('--kvstore', choices=['dist_sync', 'horovod'], default='dist_sync')
    parser.add_argument(
        '--task', choices=['MRPC'], help='fine-tune on this GLUE task instead of pre-training'
    )
    parser.add_argument(
        '--bert_model',
        default=str(ROOT / 'sample_model'),
        help='minilm, or another model in Hugging Face layout',
    )
    parser.add_argument('--steps', type=positive_int, default=30, help='updates')
    parser.add_argument('--batch_size', type=positive_int, default=16, help='rows per worker')
    return parser.parse_args(argv)


def main(argv=None):
    """Print the table and, in the last line, the largest difference of a loss.

    Returns
    -------
    float
        The largest difference.
    """
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        script = prepare(folder, args)
        one = measure(
            [sys.executable, *script, '--batch_size', str(2 * args.batch_size)],
            folder / 'one',
            os.environ,
        )
        two = measure(
            [
                *launcher(args.kvstore),
                *script,
                *('--batch_size', str(args.batch_size), '--kvstore', args.kvstore),
            ],
            folder / 'two',
            processes.child_environment([], 0, 2),
        )
        size = gradient_bytes(folder / 'one', args.task)
    difference = largest_difference(one['losses'], two['losses'], args.steps)
    for name, values in table(one, two, size, args):
        print(f'{name:<44}', *(f'{value:>12}' for value in values))
    print(f'workers=2 steps={args.steps} max_loss_difference={difference:.1e}')
    if not difference <= TOLERANCE:
        raise ToolkitError(f'the losses differ by {difference:.1e}, which is over {TOLERANCE}')
    return difference


def prepare(folder, args):
    """Make a model without dropout, and data.

    Returns
    -------
    list of str
        The part of the command that both runs share.
    """
    model = folder / 'model'
    shutil.copytree(locate(args.bert_model).folder, model)
    write_json(
        model / 'config.json', {**read_json(model / 'config.json'), 'hidden_dropout_prob': 0.0}
    )
    if args.task:
        return [
            str(ROOT / 'finetune_classifier.py'),
            *('--task_name', args.task, '--bert_model', str(model), '--lr', '2e-5'),
            *('--training_steps', str(args.steps), '--log_interval', '1'),
        ]
    # A model without weights is trained from scratch.
    has_weights = any(model.glob('*.safetensors'))
    subprocess.run(
        [
            *(sys.executable, ROOT / 'create_pretraining_data.py'),
            *('--input_file', ROOT / 'sample_text.txt', '--output_file', folder / 'sample'),
            *('--vocab_file', model / 'vocab.txt', '--do_lower_case', '--dupe_factor', '5'),
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return [
        *(str(ROOT / 'run_pretraining.py'), '--do-training', '--data', str(folder / 'sample.npz')),
        *('--bert_model', str(model if has_weights else model / 'config.json'), '--lr', '1e-4'),
        *('--num_steps', str(args.steps), '--log_interval', '1'),
    ]


def launcher(kvstore):
    """Return the command that starts two workers, a prefix to the command that they run."""
    if kvstore == 'dist_sync':
        return [sys.executable, '-m', 'bert.cluster', '--workers', '2', '--']
    horovodrun = Path(sys.executable).with_name('horovodrun')
    return [str(horovodrun), '--gloo', '-np', '2', sys.executable]


def measure(command, output, environment):
    """Run training, and read the clock and the loopback's counter at every step.

    Returns
    -------
    dict
        ``losses`` by step; the median ``seconds`` and ``bytes`` of a step.
    """
    name = '--output_dir' if 'finetune' in ' '.join(command) else '--ckpt_dir'
    process = subprocess.Popen(
        [*command, name, str(output)],
        env={**environment, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=processes.kill_with_parent(),
    )
    times, traffic, last = [], [], ''
    for line in process.stdout:
        if STEP.search(line):
            times.append(time.perf_counter())
            traffic.append(loopback_bytes())
        last = line.strip() or last
    if process.wait():
        raise ToolkitError(f'a training failed: {last}')
    lines = [json.loads(line) for line in (output / 'metrics.jsonl').read_text().splitlines()]
    return {
        'losses': {line['step']: losses_of(line) for line in lines if 'lr' in line},
        'seconds': statistics.median(np.diff(times)[WARM:]),
        'bytes': statistics.median(np.diff(traffic)[WARM:]),
    }


def losses_of(line):
    """Return the losses in a line of ``metrics.jsonl``."""
    return [value for name, value in line.items() if name.endswith('loss')]


def loopback_bytes():
    """Return how many bytes this machine's loopback has received, or 0 if Linux does not say."""
    path = Path('/proc/net/dev')
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) for line in lines if line.split()[0] == 'lo:'), 0)


def gradient_bytes(output, task):
    """Return the total bytes of the gradients of a run's model."""
    if task:
        (path,) = output.glob('*.params')
        return sum(array.nbytes for array in gluon.read_gluon(path).values())
    # Tied weights have two names among the parameters, but one mean.
    (path,) = output.glob('*.states')
    with np.load(path, allow_pickle=False) as states:
        return sum(states[name].nbytes for name in states.files if name.startswith('mean:'))


def largest_difference(one, other, steps):
    """Return the largest difference between losses of the same step in two runs."""
    if not len(one) == len(other) == steps:
        raise ToolkitError(f'{len(one)} and {len(other)} steps were logged instead of {steps}')
    return max(np.abs(np.subtract(one[step], other[step])).max() for step in one)


def table(one, two, size, args):
    """Return the rows of the table, each a name and two cells."""
    rows = 2 * args.batch_size
    # The gradients go to the server and back or, in a ring, in two halves to the other worker.
    exchanged = f'{size / 1e6:.2f} MB'
    total = {'dist_sync': 4, 'horovod': 2}[args.kvstore] * size
    return [
        (f'{args.task or "pre-training"}, {rows} rows a step', ('1 process', args.kvstore)),
        ('seconds a step', [f'{each["seconds"]:.3f}' for each in (one, two)]),
        ('rows a second', [f'{rows / each["seconds"]:.1f}' for each in (one, two)]),
        ('gradients', (exchanged, exchanged)),
        ('a worker sends, and receives, a step', ('0', exchanged)),
        ('all workers together', ('0', f'{total / 1e6:.2f} MB')),
        ('measured on the loopback', [f'{each["bytes"] / 1e6:.2f} MB' for each in (one, two)]),
    ]


if __name__ == '__main__':
    run(main)
