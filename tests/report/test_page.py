"""The page: its parts, hostile text, nothing from outside, and the same bytes each time."""

import importlib.util
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from test_quality import EVALUATION, MANY, SEVERAL

from bert.report import curves, markup
from bert.report.page import Page, Section, format_page
from bert.tasks.table import TASKS, own_task

HOSTILE = '</p><script>alert("1")</script>&amp;\x00\x1b[2J\u202eabc\ud800'
HAS_MATPLOTLIB = importlib.util.find_spec('matplotlib') is not None


def section(name, task, *evaluations, runs=('',), panels=()):
    return Section(
        name, task, list(runs), f'Try {HOSTILE}.', '', ['a <note>'], list(panels), list(evaluations)
    )


def make(*sections, has_pictures=False):
    page = Page(
        title='GLUE: <MRPC>',
        facts=[('model', markup.clean(HOSTILE)), ('finished', markup.timed('2026-01-01'))],
        tables=[('Overview', markup.format_lines(['task', '<b>'], [['mean', HOSTILE]], 'mean'))],
        sections=list(sections),
        no_dev='There is no dev set: give a --dev_file.',
        command="glue.py --bert_model '<script>x'",
        details=[('processor', markup.clean('<Fast> & new / other'))],
    )
    return format_page(page, has_pictures)


@pytest.fixture(scope='module')
def page():
    """Return a page with all that a page can have, and hostile text everywhere."""
    labels = (f'a{HOSTILE}', f'b{HOSTILE}')
    own = own_task('x.csv', 'dev.csv', None, ['text'], 'label', ['accuracy'], labels)
    texts = [(HOSTILE, 'x' * 9999)] * 4
    panel = curves.Panel(
        f'dev {HOSTILE}',
        [curves.Curve(f'seed {n} {HOSTILE}', [1, 2], [0.5, 0.6], n) for n in (0, 1)],
    )
    numbers = EVALUATION._replace(
        labels=EVALUATION.labels.astype(np.float32),
        outputs=np.array([[[1.0], [2.0], [1.0], [1.0]]] * 3),
    )
    seeds = ('seed 1', 'seed 2', 'seed 3')
    return make(
        section('MRPC', TASKS['MRPC'], EVALUATION, runs=seeds, panels=[panel]),
        section('STS-B', TASKS['STS-B'], numbers, runs=seeds),
        section(f'<{HOSTILE}>.csv', own, EVALUATION._replace(texts=texts), runs=seeds),
        section('several', MANY, SEVERAL),
        has_pictures=HAS_MATPLOTLIB,
    )


def parse(page):
    """Parse the page, which is also XML."""
    return ElementTree.fromstring(page.replace('<!DOCTYPE html>\n', ''))


def tables_of(root):
    return [
        [[''.join(cell.itertext()) for cell in row] for row in table.iter('tr')]
        for table in root.iter('table')
    ]


def test_the_page_is_whole(page):
    root = parse(page)
    text = ''.join(root.itertext())
    for words in (
        'GLUE: <MRPC>',
        "glue.py --bert_model '<script>x'",
        '<Fast> & new / other',
        'wrong in 3 of 3 runs',
        '2 of 4 rows are wrong in more than half of the runs.',
        'a <note>',
    ):
        assert words in text
    headings = [''.join(element.itertext()) for element in root.iter('h2')]
    assert headings[:3] == ['Overview', 'MRPC', 'STS-B']
    assert headings[4:] == ['several', 'How it was made']
    found = tables_of(root)
    # Class 0 is right for 1, 0 and 1 of its two rows, and given 2, 1 and 1 times.
    assert found[1][0] == ['label', 'precision', 'recall', 'F1', 'rows', 'answers']
    assert found[1][1] == ['0', '0.500', '0.333', '0.389', '2', '1.3']
    assert found[2] == [['label', '0', '1'], ['0', '0.733%', '1.367%'], ['1', '0.733%', '1.367%']]
    assert len(list(root.iter('svg'))) == (2 + 5) * HAS_MATPLOTLIB


def test_verdicts_come_first(page):
    """One for each task, with its name, before all figures."""
    body = parse(page).find('body')
    verdicts = [child for child in body if 'verdict' in child.get('class', '')]
    assert list(body)[1:5] == verdicts
    assert [verdict.find('b').text for verdict in verdicts[:2]] == [
        'MRPC: No.',
        'STS-B: No.',
    ]


def test_hostile_text_is_shown_and_obeyed_by_nobody(page):
    root = parse(page)
    assert '<script' not in page and not {'script', 'link', 'iframe', 'object', 'img'} & {
        element.tag for element in root.iter()
    }
    assert not re.search('[\x00-\x08\x0b-\x1f\ud800-\udfff\u202a-\u202e]', page)
    shown = '</p><script>alert("1")</script>&amp;\ufffd\ufffd[2J\ufffdabc\ufffd'
    assert ''.join(root.itertext()).count(shown) > 10
    assert 'x' * 500 + ' ...' in page and 'x' * 501 not in page
    page.encode('utf8')


def test_nothing_comes_from_outside(page):
    assert 'http' not in page and '@import' not in page
    for reference in re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', page):
        assert ''.join(reference).startswith('#')


def test_ids_are_unique(page):
    ids = [element.get('id') for element in parse(page).iter() if element.get('id')]
    assert len(set(ids)) == len(ids)
    assert {name.partition('-')[0] for name in ids} == (
        {f'p{number}' for number in range(1, 6)} if HAS_MATPLOTLIB else set()
    )


class Balance(HTMLParser):
    """Check that each element of HTML is closed, in order."""

    VOID = {'meta'}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_is_html(page):
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    lxml = pytest.importorskip('lxml.html')
    root = lxml.document_fromstring(page.encode('utf8'))
    assert root.findtext('.//title') == 'GLUE: <MRPC>'
    assert len(root.findall('.//h2')) == len(list(parse(page).iter('h2')))


def test_the_same_page_has_the_same_bytes():
    one, other = (
        make(section('MRPC', TASKS['MRPC'], EVALUATION), has_pictures=HAS_MATPLOTLIB)
        for _ in range(2)
    )
    assert one == other


def test_a_page_without_pictures():
    """Without matplotlib the page says so, and has everything else."""
    page = make(section('MRPC', TASKS['MRPC'], EVALUATION, runs=['seed 1', 'seed 2', 'seed 3']))
    assert 'curves need matplotlib' in ''.join(parse(page).itertext())
    assert '<svg' not in page
    assert 'wrong in 3 of 3 runs' in page and 'expected calibration error' in page


def test_a_page_without_a_dev_set():
    page = make(section('own', TASKS['MRPC']))
    (verdict,) = [e for e in parse(page).iter('p') if e.get('class') == 'verdict']
    assert ''.join(verdict.itertext()) == 'Not known. There is no dev set: give a --dev_file.'


def test_many_classes_have_their_confusions_listed():
    """Of 30 classes, class 3 is taken for class 5 in four rows, and class 0 for 1 in one."""
    labels = [f'c{number}' for number in range(30)]
    task = own_task('x.csv', 'dev.csv', None, ['text'], 'label', ['accuracy'], labels)
    truth = np.array([*range(30), 3, 3, 3, 3, 0])
    given = np.array([*range(30), 5, 5, 5, 5, 1])
    evaluation = EVALUATION._replace(
        texts=[('t',)] * 35, labels=truth, outputs=5 * np.eye(30)[None, given]
    )
    found = tables_of(parse(make(section('own', task, evaluation))))
    assert found[2] == [['label', 'answer', 'rows'], ['c3', 'c5', '4'], ['c0', 'c1', '1']]


def test_colours_have_contrast():
    """Text, and the colours that carry meaning, by the WCAG's formula: 4.5 and 3 to 1."""
    from bert.report.style import DARK, LIGHT

    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))

    def contrast(one, other):
        low, high = sorted([luminance(one), luminance(other)])
        return (high + 0.05) / (low + 0.05)

    for colors in (LIGHT, DARK):
        for name in ('ink', 'faint', 'good', 'part', 'bad'):
            for ground in ('paper', 'panel'):
                assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
        for name in colors:
            if name.startswith('series'):
                assert contrast(colors[name], colors['paper']) >= 3, name


def test_matplotlib_is_not_imported_without_pictures(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    assert 'How it was made' in make(section('MRPC', TASKS['MRPC'], EVALUATION))
