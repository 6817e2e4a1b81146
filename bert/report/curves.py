"""Draw losses and metrics over the epochs, numbers and probabilities, with matplotlib."""

import io
import math
from typing import NamedTuple

from bert.report.logs import dev_curves, loss_curve, training_curve
from bert.report.quality import BINS
from bert.report.style import LIGHT, SERIES
from bert.system.errors import ToolkitError
from bert.system.files import replacing
from bert.system.terminal import escape

# No loss or metric is larger, and matplotlib fails near the largest float.
LARGEST = 1e100
NEEDED = "curves need matplotlib, which is not installed: pip install 'matplotlib'"
WIDTH, HEIGHT, LEGEND_LINE = 4.6, 3.0, 0.22  # of a panel and of a legend's lines, in inches
FEW = 20  # points are marked
LEAST_SPAN = 0.02  # of a vertical axis, as a share of its largest number
MOST_POINTS, MOST_MARKS = 60, 2000  # that say their numbers, of a curve and of a scatter plot


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


def can_draw():
    """Return whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def check_matplotlib():
    """Refuse to go on without matplotlib."""
    if not can_draw():
        raise ToolkitError(NEEDED)


def collect_panels(own, published, metric):
    """Collect the panels of a task: its loss, a metric in training, and each dev metric.

    Parameters
    ----------
    own, published : dict of str to bert.report.logs.Log
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
        for curve, line in zip(panel.curves, plot(axes, panel)):
            # Mark points if they are few, such as one per epoch.
            if len(curve.x) <= FEW:
                line.set(marker='o', markersize=3.5)
            handles.setdefault(curve.label, line)
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


def plot(axes, panel):
    """Plot the curves of a panel, and return their lines."""
    from matplotlib.ticker import MaxNLocator

    lines = []
    for curve in panel.curves:
        y = [value if abs(value) <= LARGEST else math.nan for value in curve.y]
        lines += axes.plot(curve.x, y, **line_style(curve))
    finish(axes, panel.title, 'epoch')
    ends = [end for curve in panel.curves for end in (min(curve.x), max(curve.x))]
    if min(ends) < 1:  # within the first epoch
        axes.set_xlim(0, math.ceil(max(ends)) + 0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    # Noise should not look like a fall, nor ticks need more digits than there is space for.
    low, high = axes.get_ylim()
    missing = LEAST_SPAN * max(abs(low), abs(high)) - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)
    axes.ticklabel_format(axis='y', scilimits=(-4, 5), useOffset=False)
    return lines


def line_style(curve):
    """Return how a curve is drawn: published ones are dashed."""
    if curve.is_published:
        dashes = ('--', ':', '-.')[curve.number % 3]
        return {'linewidth': 2, 'color': LIGHT['ink'], 'linestyle': dashes}
    return {'linewidth': 1.4, 'color': LIGHT[f'series-{curve.number % SERIES}']}


def finish(axes, title, xlabel, ylabel=''):
    """Give axes their title, labels, colours and grid."""
    axes.set_xlabel(xlabel, color=LIGHT['ink'])
    axes.set_ylabel(ylabel, color=LIGHT['ink'])
    # Names of data sets and metrics are not formulas.
    axes.set_title(escape(title), parse_math=False, color=LIGHT['ink'], fontsize=11)
    axes.tick_params(color=LIGHT['faint'], labelcolor=LIGHT['ink'], labelsize=9)
    axes.grid(color=LIGHT['rule'], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color(LIGHT['faint'])


class Picture(NamedTuple):
    """A figure for the page, and what the parts of it say when they are pointed at."""

    figure: object  # matplotlib.figure.Figure
    titles: dict  # a text, or one for each of the marks, by the group id of an artist


def new_axes(width=WIDTH, height=HEIGHT):
    """Return the axes of a new figure, with margins that fit ticks and labels of one line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    ends = {'left': 0.55 / width, 'right': 1 - 0.15 / width}
    figure.subplots_adjust(**ends, bottom=0.5 / height, top=1 - 0.3 / height)
    return figure.add_subplot()


def draw_panel(panel):
    """Draw a panel for the page, without a legend: a :class:`Picture`."""
    axes, titles = new_axes(), {}
    plot(axes, panel)
    for number, curve in enumerate(panel.curves):
        points = [(x, y) for x, y in zip(curve.x, curve.y) if abs(y) <= LARGEST]
        is_few = len(points) <= FEW
        points = pick(points, MOST_POINTS)
        name = f'{"points" if is_few else "hidden"}-{number}'
        style = {**line_style(curve), 'linestyle': 'none', 'marker': 'o', 'clip_on': False}
        axes.plot(*zip(*points), gid=name, markersize=4 if is_few else 7, **style)
        titles[name] = [
            ', '.join(filter(None, [curve.label, f'epoch {x:.4g}: {panel.title} {y:.4g}']))
            for x, y in points
        ]
    return Picture(axes.figure, titles)


def pick(items, most):
    """Return at most so many of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def scatter(gold, predicted, title):
    """Draw predicted numbers over those of the dev set: a :class:`Picture`."""
    axes = new_axes(height=WIDTH)
    rows = pick(range(len(gold)), MOST_MARKS)
    ends = [float(min(gold)), float(max(gold))]
    axes.plot(ends, ends, color=LIGHT['ink'], linewidth=1)
    axes.plot(
        [gold[row] for row in rows],
        [predicted[row] for row in rows],
        '.',
        gid='rows',
        markersize=5,
        alpha=0.5,
        color=LIGHT['series-0'],
        markeredgewidth=0,
    )
    finish(axes, title, 'label', 'prediction')
    titles = [f'row {row + 1}: {gold[row]:.4g}, predicted {predicted[row]:.4g}' for row in rows]
    return Picture(axes.figure, {'rows': titles})


def reliability(bins, title, xlabel, ylabel):
    """Draw a reliability diagram: a :class:`Picture`.

    Parameters
    ----------
    bins : list of bert.report.quality.Bin
    title, xlabel, ylabel : str
    """
    axes, titles = new_axes(height=WIDTH * 0.8), {}
    for number, one in enumerate(bins):
        (bar,) = axes.bar(
            one.low, one.share, 1 / BINS, align='edge', color=LIGHT['series-0'], alpha=0.75
        )
        # Where bars are low, or there is none, a dot still shows the point.
        axes.plot(
            one.confidence,
            one.share,
            'o',
            gid=f'dot-{number}',
            markersize=5,
            color=LIGHT['ink'],
            clip_on=False,
        )
        bar.set(gid=f'bar-{number}', linewidth=0)
        text = f'{one.count:,} answers: {xlabel} {one.confidence:.3f}, {ylabel} {one.share:.3f}'
        titles[f'bar-{number}'] = text
        titles[f'dot-{number}'] = [text]
    axes.plot([0, 1], [0, 1], color=LIGHT['faint'], linewidth=1, linestyle='--')
    axes.set(xlim=(0, 1), ylim=(0, 1))
    finish(axes, title, xlabel, ylabel)
    return Picture(axes.figure, titles)


def render(figure, kind):
    """Return the bytes of a figure as ``svg`` or ``png``; the same figure gives the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    metadata = {'Date': None} if kind == 'svg' else {'Software': None}
    with matplotlib.rc_context({'svg.hashsalt': 'bert', 'svg.fonttype': 'none'}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def save(figure, path):
    """Write a figure as ``path.svg`` and as ``path.png``."""
    for kind in ('svg', 'png'):
        with replacing(f'{path}.{kind}') as temporary:
            temporary.write_bytes(render(figure, kind))
