"""The page about many runs: its numbers by hand, its markup by a parser, nothing from outside."""

import importlib.util
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from bert.experiments.sections import Section
from test_sections import EVALUATION

from bert.experiments import curves, report, results
from bert.tasks.table import TASKS


@pytest.fixture(scope='module')
def page():
    """Return a page of two tasks with all that a page can have, and hostile text everywhere."""
    record = {
        'epochs': [{'dev': {'accuracy': 0.5, 'f1': 0.6}, 'seconds': 1.0}],
        'best_epoch': 1,
        'seconds': 2.0,
    }
    numbers = {**record, 'epochs': [{'dev': {'pearsonr': 0.5, 'spearmanr': 0.6}}]}
    tables = {
        name: results.tabulate({1: results.measures(r), 2: results.measures(r)})
        for name, r in [('MRPC', record), ('STS-B', numbers)]
    }
    tables['GLUE'] = results.tabulate({1: {'last score': 0.5, 'best score': 0.6}})
    has_pictures = has_matplotlib()
    panel = curves.Panel('dev <accuracy>', [curves.Curve('seed <1>', [1, 2], [0.5, 0.6])])
    wide = EVALUATION._replace(outputs=np.array([[[1.0], [2.0], [1.0], [1.0]]] * 2))
    sections = [
        Section(TASKS['MRPC'], tables['MRPC'], [panel], [EVALUATION]),
        Section(TASKS['STS-B'], tables['STS-B'], [panel], [wide]),
    ]
    machines = {'processor': ['<Fast> & new', 'other'], 'mxnet': ['1.9.1']}
    return report.format_page(
        'GLUE: <MRPC>', "glue.py --bert_model '<script>x'", tables, sections, machines, has_pictures
    )


def has_matplotlib():
    return importlib.util.find_spec('matplotlib') is not None


def parse(page):
    """Parse the page, which is also XML."""
    return ElementTree.fromstring(page.replace('<!DOCTYPE html>\n', ''))


def test_the_page_is_whole(page):
    """Its tables are those of the results, and text is shown unchanged."""
    tree = parse(page)
    text = ''.join(tree.itertext())
    for words in (
        'GLUE: <MRPC>',
        "glue.py --bert_model '<script>x'",
        '<Fast> & new / other',
        'wrong in 3 of 3 runs',
        '2 of 4 rows are wrong in more than half of the runs.',
        'best score',
    ):
        assert words in text
    assert '<b>1</b>' not in page and '<script' not in page
    headings = [element.text for element in tree.iter('h2')]
    assert headings == ['GLUE', 'MRPC', 'STS-B', 'How it was made']
    tables = [
        [[''.join(cell.itertext()) for cell in row] for row in table.iter('tr')]
        for table in tree.iter('table')
    ]
    assert tables[0][1] == ['MRPC', 'accuracy', '3', '0.5000', '0.5000', '0.5000', '0.5000']
    assert tables[2][1:3] == [
        ['1', '0.5000', '0.6000', '1', '0.5000', '0.6000', '2.0'],
        ['2', '0.5000', '0.6000', '1', '0.5000', '0.6000', '2.0'],
    ]
    # The confusion matrix.
    assert tables[3] == [['label', '0', '1'], ['0', '0.733%', '1.367%'], ['1', '0.733%', '1.367%']]


def test_nothing_comes_from_outside(page):
    """The file has no address and no script, and holds its style and pictures itself."""
    tree = parse(page)
    assert 'http' not in page and 'url(' not in page and '@import' not in page
    assert not {'script', 'link', 'iframe', 'object'} & {element.tag for element in tree.iter()}
    for image in tree.iter('img'):
        assert image.get('src').startswith('data:image/svg+xml;base64,')
        assert image.get('alt')
    if has_matplotlib():
        assert len(list(tree.iter('img'))) == 3


def test_a_page_without_pictures():
    """Without matplotlib the page says so, and has everything else."""
    table = results.tabulate({1: {'last accuracy': 0.5, 'best accuracy': 0.5, 'seconds': 1.0}})
    section = Section(TASKS['RTE'], table, [], [EVALUATION])
    page = report.format_page('t', 'c', {'RTE': table}, [section], {}, has_pictures=False)
    tree = parse(page)
    assert 'curves need matplotlib' in ''.join(tree.itertext())
    assert not list(tree.iter('img'))
    assert 'wrong in 3 of 3 runs' in page
