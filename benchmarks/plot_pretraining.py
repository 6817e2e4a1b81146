#!/usr/bin/env python3
"""Draw losses and accuracies of pre-training, from the metrics.jsonl of run_pretraining.py.

Evaluations during training (--eval_interval) are drawn over the curves of the training. Of the
phases of a pre-training, one run each, the steps are counted on.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bert.cli.flags import Parser
from bert.cli.program import run
from bert.system.errors import ToolkitError
from bert.system.files import replacing

# By panel, row by row.
CURVES = {
    'mlm_loss': 'masked LM loss',
    'nsp_loss': 'next sentence loss',
    'mlm_acc': 'masked LM accuracy, %',
    'nsp_acc': 'next sentence accuracy, %',
}


def parse_args(argv=None):
    """Parse the flags."""
    parser = Parser(__doc__)
    parser.add_argument(
        'metrics', nargs='+', help='CKPT_DIR/metrics.jsonl of a run, or of each of its phases'
    )
    parser.add_argument('picture', help='the file to write: .svg or .png')
    return parser.parse_args(argv)


def read_curves(*paths):
    """Read the losses and accuracies of a training run, or of several one after the other.

    Returns
    -------
    list of dict
        For training and for evaluation, by the names of :data:`CURVES`: the steps and the values
        at these steps. A curve without values is left out.
    """
    training, evaluations, start = [], [], 0
    for path in paths:
        lines = read_lines(path)
        for line in lines:
            line['step'] += start
        steps = [line for line in lines if 'eval' not in line]
        if not steps:
            raise ToolkitError(f'{path}: there is no training step in it')
        training += steps
        evaluations += [{'step': line['step'], **line['eval']} for line in lines if 'eval' in line]
        start = steps[-1]['step']
    found = []
    for kind in (training, evaluations):
        curves = {name: [line for line in kind if name in line] for name in CURVES}
        found.append(
            {
                name: ([line['step'] for line in lines], [line[name] for line in lines])
                for name, lines in curves.items()
                if lines
            }
        )
    return found


def read_lines(path):
    """Return the lines of a ``metrics.jsonl`` of pre-training, a list of dict."""
    lines = []
    with open(path, encoding='utf8') as file:
        for number, line in enumerate(file, 1):
            try:
                values = json.loads(line)
                are_right = isinstance(values['step'], int) and isinstance(
                    values.get('eval', {}), dict
                )
            except (ValueError, TypeError, KeyError, AttributeError):
                are_right = False
            if not are_right:
                raise ToolkitError(f'{path}, line {number}: not a line of run_pretraining.py')
            lines.append(values)
    return lines


def draw(training, evaluation, path):
    """Draw each curve of training over the steps, in a panel of its own, and that of evaluation."""
    try:
        import matplotlib
    except ImportError:
        raise ToolkitError('drawing needs matplotlib: pip install matplotlib') from None
    matplotlib.use('Agg')
    from matplotlib import pyplot

    # Without a date and random names, the same values give the same file.
    pyplot.rcParams['svg.hashsalt'] = 'bert'
    columns = sum(name.endswith('loss') for name in training)
    rows = len(training) // columns
    figure, panels = pyplot.subplots(
        rows, columns, figsize=(4.5 * columns, 3 * rows), layout='constrained', squeeze=False
    )
    for panel, (name, curve) in zip(panels.flat, training.items()):
        panel.plot(*curve, linewidth=1.2, label='training')
        if name in evaluation:
            panel.plot(*evaluation[name], '.-', linewidth=1.2, label='held-out data')
            panel.legend(frameon=False)
        panel.set(xlabel='step', ylabel=CURVES[name])
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
    kind = path.rpartition('.')[2]
    metadata = {'Date': None} if kind == 'svg' else None
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
    pyplot.close(figure)


def main(argv=None):
    """Draw the curves."""
    args = parse_args(argv)
    draw(*read_curves(*args.metrics), args.picture)


if __name__ == '__main__':
    run(main)
