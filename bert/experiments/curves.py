"""Draw losses and metrics over the epochs, with matplotlib."""

import io
import math
from typing import NamedTuple

from bert.experiments.logs import dev_curves, loss_curve, training_curve
from bert.system.errors import ToolkitError
from bert.system.files import replacing
from bert.system.terminal import escape

# No loss or metric is larger, and matplotlib fails near the largest float.
LARGEST = 1e100
NEEDED = "curves need matplotlib, which is not installed: pip install 'matplotlib'"
WIDTH, HEIGHT, LEGEND_LINE = 4.6, 3.0, 0.22  # of a panel and of a legend's lines, in inches


class Curve(NamedTuple):
    """One line of a panel."""

    label: str
    x: list
    y: list
    number: int = 0  # its colour or dashes, the same in all panels
    is_published: bool = False


class Panel(NamedTuple):
    """One pair of axes, over the epochs."""

    title: str
    curves: list


def check_matplotlib():
    """Refuse to go on without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ToolkitError(NEEDED) from None


def collect_panels(own, published, metric):
    """Collect the panels of a task: its loss, a metric in training, and each dev metric.

    Parameters
    ----------
    own, published : dict of str to bert.experiments.logs.Log
        By the labels of their curves.
    metric : str or None
        The training metric to show.

    Returns
    -------
    list of Panel
        The panels with a curve of our own.
    """

    def panel(title, find):
        curves = [
            Curve(label, *find(log), number, logs is published)
            for logs in (own, published)
            for number, (label, log) in enumerate(logs.items())
        ]
        return Panel(title, [curve for curve in curves if curve.x])

    panels = [panel('training loss', loss_curve)]
    if metric:
        panels.append(panel(f'training {metric}', lambda log: training_curve(log, metric)))
    for key in dict.fromkeys(key for log in own.values() for key in dev_curves(log)):
        panels.append(panel(' '.join(key), lambda log, key=key: dev_curves(log).get(key, ((), ()))))
    return [panel for panel in panels if any(not curve.is_published for curve in panel.curves)]


def draw(panels, columns=2):
    """Draw a figure with the panels, row by row.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    labels = {curve.label for panel in panels for curve in panel.curves}
    # Many seeds take two columns per panel, long labels one as wide as the figure.
    legend_columns = columns if len(labels) <= 6 * columns else 2 * columns
    if max(map(len, labels)) > 50:
        legend_columns = 1
    height = HEIGHT * rows + LEGEND_LINE * -(-len(labels) // legend_columns)
    figure = Figure(figsize=(WIDTH * columns, height), layout='constrained')
    handles = {}
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number)
        for curve in panel.curves:
            style = {'linewidth': 1.3, 'color': f'C{curve.number}'}
            if curve.is_published:
                dashes = ('--', ':', '-.')[curve.number % 3]
                style = {'linewidth': 2, 'color': 'black', 'linestyle': dashes}
            # Mark points if they are few, such as one per epoch.
            marker = 'o' if len(curve.x) <= 20 else None
            y = [value if abs(value) <= LARGEST else math.nan for value in curve.y]
            (line,) = axes.plot(curve.x, y, marker=marker, markersize=3.5, **style)
            handles.setdefault(curve.label, line)
        axes.set(xlabel='epoch')
        # Names of data sets and metrics are not formulas.
        axes.set_title(escape(panel.title), parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    legend = figure.legend(
        handles.values(),
        [escape(label) for label in handles],
        loc='outside lower left',
        ncols=legend_columns,
        fontsize='small',
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def scatter(gold, predicted, title):
    """Draw a figure of predicted numbers over those of the dev set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, WIDTH), layout='constrained')
    axes = figure.add_subplot()
    axes.plot(gold, predicted, '.', markersize=3, alpha=0.4)
    ends = [float(min(gold)), float(max(gold))]
    axes.plot(ends, ends, color='black', linewidth=1)
    axes.set(title=title, xlabel='label', ylabel='prediction')
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    return figure


def render(figure, kind):
    """Return the bytes of a figure as ``svg`` or ``png``; the same figure gives the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    metadata = {'Date': None} if kind == 'svg' else {'Software': None}
    with matplotlib.rc_context({'svg.hashsalt': 'bert'}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def save(figure, path):
    """Write a figure as ``path.svg`` and as ``path.png``."""
    for kind in ('svg', 'png'):
        with replacing(f'{path}.{kind}') as temporary:
            temporary.write_bytes(render(figure, kind))
