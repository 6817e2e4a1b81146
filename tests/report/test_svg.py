"""Pictures within the page: colours, ids and titles."""

import re
from xml.etree import ElementTree

import pytest

from bert.report import curves, svg
from bert.report.curves import Curve, Panel
from bert.report.quality import Bin
from bert.report.style import DARK, LIGHT, format_style

pytest.importorskip('matplotlib')


def draw(picture, prefix='p1-'):
    text = svg.inline(curves.render(picture.figure, 'svg'), picture.titles, prefix, 'a "label" <&>')
    return text, ElementTree.fromstring(text)


@pytest.fixture(scope='module')
def picture():
    few = Curve('seed <1>', [1, 2, 3], [0.5, 0.6, float('nan')], 0)
    many = Curve('seed 2', list(range(200)), [0.01 * x for x in range(200)], 1)
    other = Curve('published', [1, 2], [0.7, 0.8], 0, True)
    return curves.draw_panel(Panel('dev $x$ & y', [few, many, other]))


def titles_of(root):
    return {mark: title.text for mark in root.iter() for title in mark if title.tag == 'title'}


def test_each_point_says_its_number(picture):
    """The third point of the first curve is not a number, and of 200 points 60 are marked."""
    _, root = draw(picture)
    marks = titles_of(root)
    assert {mark.tag for mark in marks} == {'use'}
    texts = list(marks.values())
    assert texts[:2] == [
        'seed <1>, epoch 1: dev $x$ & y 0.5',
        'seed <1>, epoch 2: dev $x$ & y 0.6',
    ]
    assert len(texts) == 2 + 60 + 2
    assert texts[2].endswith('epoch 0: dev $x$ & y 0') and '199' in texts[61]
    # They are where they say: the two points of the published curve are left and right.
    left, right = (float(mark.get('x')) for mark in list(marks)[-2:])
    assert left < right


def test_ids_are_of_the_picture_only(picture):
    """Every id has the prefix and is referred to; every reference has its id."""
    text, root = draw(picture, 'p7-')
    ids = [element.get('id') for element in root.iter() if element.get('id')]
    referred = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    assert ids and set(ids) == referred and len(set(ids)) == len(ids)
    assert all(name.startswith('p7-') for name in ids)


def test_colours_are_variables(picture):
    text, root = draw(picture)
    assert not re.search('#[0-9a-f]{6}', text)
    named = set(re.findall(r'var\(--([\w-]+)\)', text))
    assert {'series-0', 'series-1', 'ink', 'faint', 'rule'} <= named <= set(LIGHT)
    assert set(LIGHT) == set(DARK)
    for name in LIGHT:
        assert format_style().count(f'--{name}: ') == 2
    assert root.get('aria-label') == 'a "label" <&>' and root.get('role') == 'img'
    assert 'font-family' not in text and 'http' not in text and '<style' not in text


def test_the_same_figure_gives_the_same_bytes():
    panel = Panel('loss', [Curve('', [1, 2], [0.5, 0.6])])
    assert draw(curves.draw_panel(panel))[0] == draw(curves.draw_panel(panel))[0]


def test_a_scatter_plot_says_its_rows():
    _, root = draw(curves.scatter([1.0, 2.5], [1.25, 2.0], 'predictions'))
    assert list(titles_of(root).values()) == [
        'row 1: 1, predicted 1.25',
        'row 2: 2.5, predicted 2',
    ]


def test_a_large_scatter_plot_shows_a_sample():
    numbers = [float(number) for number in range(5000)]
    _, root = draw(curves.scatter(numbers, numbers, 'predictions'))
    texts = list(titles_of(root).values())
    assert len(texts) == 2000
    assert (texts[0], texts[-1]) == ('row 1: 0, predicted 0', 'row 5000: 4999, predicted 4999')


def test_a_reliability_diagram_says_its_bins():
    bins = [Bin(0.6, 2, 0.635, 0.5), Bin(0.9, 1234, 0.95, 1.0)]
    _, root = draw(curves.reliability(bins, 'reliability', 'mean probability', 'share'))
    texts = list(titles_of(root).values())
    assert sorted(texts) == sorted(
        2 * ['2 answers: mean probability 0.635, share 0.500']
        + 2 * ['1,234 answers: mean probability 0.950, share 1.000']
    )


def test_fonts_of_an_earlier_matplotlib():
    """Before 3.9 or so, size and families are one property."""
    source = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><text style="font: bold 10px '
        "'DejaVu Sans', sans-serif; text-anchor: middle; fill: #1b1f24\">1</text></svg>"
    )
    text = svg.inline(source.encode(), {}, 'p1-', '')
    assert 'style="font-size: 10px; text-anchor: middle; fill: var(--ink)"' in text
