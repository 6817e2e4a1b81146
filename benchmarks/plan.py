#!/usr/bin/env python3
"""Compute from measured figures what pre-training BERT base takes.

The defaults are the run of Devlin et al. 2018 (arXiv 1810.04805, appendix A.2): 1M steps of 256
sequences, nine of ten steps with 128 tokens and the others with 512, over 3.3 billion words. The
measured figures (a step, generation, disk) are from the machine of docs/speed.rst: replace them
with yours. Nothing is assumed to overlap: a step is its computation, then its exchange.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bert.cli.flags import Parser, positive_float, positive_int
from bert.cli.program import run

LAYERS, UNITS, VOCABULARY, POSITIONS = 12, 768, 30522, 512
HOURS, DAYS = 3600, 86400


def parse_args(argv=None):
    """Parse the flags."""
    parser = Parser(__doc__)
    whole = parser.add_argument_group('the run')
    whole.add_argument('--steps', type=positive_int, default=10**6, help='updates')
    whole.add_argument('--batch_size', type=positive_int, default=256, help='sequences an update')
    whole.add_argument('--gb', type=positive_float, default=16.0, help='of text')
    device = parser.add_argument_group('a device')
    device.add_argument(
        '--seconds', type=positive_float, default=2.2, help='a step on one device takes'
    )
    device.add_argument(
        '--sequences', type=positive_int, default=8, help='of 128 tokens in that step'
    )
    data = parser.add_argument_group('data generation, --dupe_factor 5')
    data.add_argument(
        '--generation', type=positive_float, default=700, help='seconds of a process per GB'
    )
    data.add_argument('--disk_128', type=positive_float, default=2.5, help='GB of .npz per GB')
    data.add_argument('--disk_512', type=positive_float, default=3.0, help='the same, length 512')
    data.add_argument('--processes', type=positive_int, default=16, help='that generate data')
    network = parser.add_argument_group('a network')
    network.add_argument(
        '--bandwidth', type=positive_float, nargs='+', default=[1, 10, 25], help='Gbit/s each way'
    )
    network.add_argument(
        '--latency', type=positive_float, default=5e-5, help='seconds a message (assumed)'
    )
    network.add_argument(
        '--workers', type=positive_int, nargs='+', default=[1, 4, 16, 64, 256], help='devices'
    )
    return parser.parse_args(argv)


def parameters():
    """Count the parameters, with both heads and the tied decoder once."""
    dense = UNITS * UNITS + UNITS
    layer = 4 * dense + 8 * UNITS * UNITS + 5 * UNITS + 4 * UNITS
    embeddings = (VOCABULARY + POSITIONS + 2) * UNITS + 2 * UNITS
    heads = dense + 2 * UNITS + VOCABULARY + 2 * UNITS + 2
    return embeddings + LAYERS * layer + dense + heads


def sequence_seconds(seconds, sequences):
    """Compute the mean seconds per sequence: nine of 128 tokens to one of 512.

    For U units and length L, a token takes 24 U^2 operations per layer, and 4 L U in attention.
    """
    at_128 = seconds / sequences
    at_512 = at_128 * 4 * (24 * UNITS + 4 * 512) / (24 * UNITS + 4 * 128)
    return 0.9 * at_128 + 0.1 * at_512


def exchanges(workers, size, bandwidth, latency):
    """Compute the seconds of an update's exchange, by engine.

    Gradients go out and their sum comes back, in both directions of a link at once. A single
    server of dist_sync exchanges them with all n workers. With a server for one nth of the
    parameters on each worker's machine, a machine sends the others gradients and sums, 2 (n - 1) /
    n of the size. So does Horovod's ring, in 2 (n - 1) successive messages for each 64 MiB of its
    fusion buffer.
    """
    rate = bandwidth * 1e9 / 8
    if workers == 1:
        return {'dist_sync, 1 server': 0, 'dist_sync, n servers': 0, 'horovod': 0}
    buffers = -(-size // 2**26)
    return {
        'dist_sync, 1 server': workers * size / rate,
        'dist_sync, n servers': 2 * (workers - 1) / workers * size / rate,
        'horovod': 2 * (workers - 1) * (size / workers / rate + buffers * latency),
    }


def half_speed(engine, compute, size, bandwidth, latency, most):
    """Return the largest number of workers that compute for at least half of the time."""
    fits = [
        n
        for n in range(2, most + 1)
        if exchanges(n, size, bandwidth, latency)[engine] <= compute / n
    ]
    return max(fits, default=1)


def main(argv=None):
    """Print a table."""
    args = parse_args(argv)
    size = 4 * parameters()
    compute = args.batch_size * sequence_seconds(args.seconds, args.sequences)
    generation = 2 * args.gb * args.generation
    print(f'text                        {args.gb:.0f} GB')
    print(f'disk, lengths 128 and 512   {args.gb * (args.disk_128 + args.disk_512):.0f} GB')
    print(
        f'generation, both lengths    {generation / HOURS:.1f} hours of one process, '
        f'{generation / args.processes / HOURS:.1f} of {args.processes}'
    )
    print(f'parameters                  {parameters():,}, {size / 1e6:.0f} MB of gradients')
    print(f'an update on one device     {compute:.1f} s, {args.steps * compute / DAYS:.0f} days')
    print()
    each_way = f'2(n-1)/n * {size / 1e6:.0f}'
    print('MB an update, each way      a machine with a worker   one with a server')
    print('device                      0                         -')
    print(f'dist_sync, 1 server         {size / 1e6:<26.0f}n * {size / 1e6:.0f}')
    print(f'dist_sync, n servers        {each_way:<26}the same machines')
    print(f'horovod                     {each_way:<26}-')
    print()
    print('days                        Gbit/s ' + ''.join(f'{n:>7}' for n in args.workers)
          + '   half speed at')  # fmt: skip
    for engine in exchanges(1, size, 1, 0):
        for bandwidth in args.bandwidth:
            days = ''.join(
                f'{args.steps * (compute / n + seconds[engine]) / DAYS:>7.0f}'
                for n in args.workers
                for seconds in [exchanges(n, size, bandwidth, args.latency)]
            )
            # At most one sequence for each worker.
            n = half_speed(engine, compute, size, bandwidth, args.latency, args.batch_size)
            print(f'{engine:<28}{bandwidth:>6g} {days}   {n} workers')


if __name__ == '__main__':
    run(main)
