#!/usr/bin/env python3
"""Draw both losses of pre-training, from the metrics.jsonl that run_pretraining.py writes."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bert.cli.flags import Parser
from bert.cli.program import run
from bert.system.errors import ToolkitError
from bert.system.files import replacing

LOSSES = {'mlm_loss': 'masked LM loss', 'nsp_loss': 'next sentence loss'}


def parse_args(argv=None):
    """Parse the flags."""
    parser = Parser(__doc__)
    parser.add_argument('metrics', help='CKPT_DIR/metrics.jsonl')
    parser.add_argument('picture', help='the file to write: .svg or .png')
    return parser.parse_args(argv)


def read_losses(path):
    """Read the losses of a training run.

    Returns
    -------
    list of int, dict of str to list of float
        The steps, and the losses at these steps for each of :data:`LOSSES` that there is.
    """
    with open(path, encoding='utf8') as file:
        lines = [values for values in map(json.loads, file) if 'eval' not in values]
    if not lines:
        raise ToolkitError(f'{path}: there is no training step in it')
    return [line['step'] for line in lines], {
        name: [line[name] for line in lines] for name in LOSSES if name in lines[0]
    }


def draw(steps, losses, path):
    """Draw each loss over the steps, in a panel of its own."""
    try:
        import matplotlib
    except ImportError:
        raise ToolkitError('drawing needs matplotlib: pip install matplotlib') from None
    matplotlib.use('Agg')
    from matplotlib import pyplot

    # Without a date and random names, the same losses give the same file.
    pyplot.rcParams['svg.hashsalt'] = 'bert'
    figure, panels = pyplot.subplots(
        1, len(losses), figsize=(9, 3.2), layout='constrained', squeeze=False
    )
    for panel, (name, values) in zip(panels[0], losses.items()):
        panel.plot(steps, values, linewidth=1.2)
        panel.set(xlabel='step', ylabel=LOSSES[name])
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
    kind = path.rpartition('.')[2]
    metadata = {'Date': None} if kind == 'svg' else None
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)


def main(argv=None):
    """Draw the losses."""
    args = parse_args(argv)
    draw(*read_losses(args.metrics), args.picture)


if __name__ == '__main__':
    run(main)
