"""The curves drawn from logs, and their files."""

import sys

import pytest

from bert.report import curves
from bert.report.logs import Log, parse_log
from bert.system.errors import ToolkitError

OWN = """\
[Epoch 1 Batch 5/10] loss=0.7, lr=0.1, metrics=accuracy:0.5,f1:0.6
validation metrics:accuracy:0.6,f1:0.7
Time cost=1.0s
"""
PUBLISHED = Log({}, [], [{'epoch': 1, 'dev': {'accuracy': 0.8}, 'seconds': 2.0}])


@pytest.fixture(scope='module')
def panels():
    own = {'seed 3': parse_log(OWN), 'seed 4': parse_log(OWN)}
    return curves.collect_panels(own, {'published 2020-01': PUBLISHED}, 'accuracy')


def test_panels(panels):
    """A published run without a loss curve appears only in the panels for which it has a curve."""
    assert [panel.title for panel in panels] == [
        'training loss',
        'training accuracy',
        'dev accuracy',
        'dev f1',
    ]
    loss, training, accuracy, f1 = panels
    assert [tuple(curve) for curve in loss.curves] == [
        ('seed 3', [0.5], [0.7], 0, False),
        ('seed 4', [0.5], [0.7], 1, False),
    ]
    assert training.curves[0].y == [0.5]
    assert [(curve.label, curve.x, curve.y) for curve in accuracy.curves] == [
        ('seed 3', [1], [0.6]),
        ('seed 4', [1], [0.6]),
        ('published 2020-01', [1], [0.8]),
    ]
    assert [curve.is_published for curve in accuracy.curves] == [False, False, True]
    assert len(f1.curves) == 2


def test_a_panel_needs_a_curve_of_our_own():
    own = {'seed 1': Log({}, [], [{'epoch': 1, 'dev': {'mcc': 0.5}}])}
    (panel,) = curves.collect_panels(own, {'published': PUBLISHED}, 'mcc')
    assert panel.title == 'dev mcc'


def test_figure(panels):
    """The figure has axes for each panel with the points of each curve, and one legend."""
    pytest.importorskip('matplotlib')
    figure = curves.draw(panels)
    assert [axes.get_title() for axes in figure.axes] == [panel.title for panel in panels]
    for axes, panel in zip(figure.axes, panels):
        drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]
        assert drawn == [(curve.x, curve.y) for curve in panel.curves]
    lines = figure.axes[2].get_lines()
    assert [line.get_linestyle() for line in lines] == ['-', '-', '--']
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ['seed 3', 'seed 4', 'published 2020-01']


@pytest.mark.parametrize(
    'values', [(0.181, 0.1794), (-0.0005, -0.0004), (123456.7, 123456.8), (1e7, 1)]
)
def test_ticks_have_space(values):
    """The numbers beside the vertical axis are inside of the picture."""
    pytest.importorskip('matplotlib')
    panel = curves.Panel('dev', [curves.Curve('seed 1', [1, 2], list(values))])
    figure = curves.draw_panel(panel).figure
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    low, high = axes.get_ylim()
    assert high - low >= 0.0199 * max(map(abs, values))
    assert len(boxes) > 1 and min(box.x0 for box in boxes) >= 0


def test_names_and_numbers_of_a_file_can_be_drawn(tmp_path):
    """No name is a formula or moves a cursor, and no number is too large for matplotlib."""
    pytest.importorskip('matplotlib')
    validation = [
        {'epoch': 1, '$\\frac{$': {'$\\x$\x1b\n': 1e308}},
        {'epoch': 2, '$\\frac{$': {'$\\x$\x1b\n': -1e308}},
    ]
    rows = [(1, 1e308), (2, -1e308), (3, float('inf')), (4, 0.5)]
    training = [
        {'epoch': epoch, 'batch': 1, 'batches': 1, 'loss': loss, 'metrics': {}}
        for epoch, loss in rows
    ]
    own = {'A: $\\frac{$': Log({}, training, validation)}
    figure = curves.draw(curves.collect_panels(own, {}, None))
    curves.save(figure, tmp_path / 'drawn')
    loss, dev = figure.axes
    assert list(loss.get_lines()[0].get_ydata())[3] == 0.5
    assert dev.get_title() == '$\\frac{$ $\\x$\\x1b\\n'
    assert figure.legends[0].get_texts()[0].get_text() == 'A: $\\frac{$'
    assert len(list(tmp_path.iterdir())) == 2


def test_saved_files(panels, tmp_path):
    """The same curves give the same bytes; a dollar sign in a label does not begin a formula."""
    pytest.importorskip('matplotlib')
    renamed = [
        panel._replace(curves=[curve._replace(label='A: $x_$/{') for curve in panel.curves])
        for panel in panels
    ]
    for name in ('one', 'two'):
        curves.save(curves.draw(renamed), tmp_path / name)
    assert (tmp_path / 'one.svg').read_text().startswith('<?xml')
    assert (tmp_path / 'one.png').read_bytes().startswith(b'\x89PNG\r\n\x1a\n')
    for kind in ('svg', 'png'):
        assert (tmp_path / f'one.{kind}').read_bytes() == (tmp_path / f'two.{kind}').read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(ToolkitError, match='^curves need matplotlib, which is not installed: '):
        curves.check_matplotlib()
