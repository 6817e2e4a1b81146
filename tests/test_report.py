"""The page about many runs: its numbers by hand, its markup by a parser, nothing from outside."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from bert.experiments import curves, report, results
from bert.tasks.table import TASKS

LABELS = np.array([0, 0, 1, 1])
TEXTS = [('one', '<b>1</b> & "one"'), ('two', 'zwei'), ('three', 'drei'), ('four', 'vier')]


def logits(*rows):
    """Outputs of a run, from the probability of class 1 for each row."""
    return np.log([[1 - p, p] for p in rows])


# Predictions 0 1 0 1, 1 1 0 1 and 0 1 1 1 of three runs: row 2 is wrong in all of them, row 3 in
# two, row 1 in one, row 4 in none.
EVALUATION = report.Evaluation(
    '',
    TEXTS,
    LABELS,
    np.stack([logits(0.1, 0.9, 0.4, 0.6), logits(0.6, 0.8, 0.2, 0.9), logits(0.3, 0.7, 0.6, 0.9)]),
)


def test_confusion_by_hand():
    """True 0: the runs say 0 1, 1 1 and 0 1, in the mean 2/3 right of 2; true 1: 0 1, 0 1, 1 1."""
    matrix = report.confusion(EVALUATION, TASKS['MRPC'])
    assert matrix == pytest.approx(np.array([[2 / 3, 4 / 3], [2 / 3, 4 / 3]]))


def test_a_class_that_nobody_predicts_has_its_row_and_column():
    evaluation = report.Evaluation('', TEXTS, LABELS, np.zeros((1, 4, 3)))
    matrix = report.confusion(evaluation, TASKS['MNLI'])
    assert matrix.tolist() == [[2, 0, 0], [2, 0, 0], [0, 0, 0]]


def test_hard_rows_by_hand():
    """The mean probability of the label: row 2 (.1 + .2 + .3) / 3, row 3 (.4 + .2 + .6) / 3."""
    found = report.find_hard(EVALUATION, TASKS['MRPC'])
    assert [(item.row, item.texts, item.label) for item in found] == [
        (2, ('two', 'zwei'), '0'),
        (3, ('three', 'drei'), '1'),
    ]
    assert found[0].told.startswith(
        'wrong in 3 of 3 runs, which give the label a probability of 0.20'
    )
    assert found[1].told.startswith(
        'wrong in 2 of 3 runs, which give the label a probability of 0.40'
    )


def test_half_of_the_runs_is_not_most():
    evaluation = EVALUATION._replace(outputs=EVALUATION.outputs[:2])
    assert [item.row for item in report.find_hard(evaluation, TASKS['MRPC'])] == [2, 3]
    evaluation = EVALUATION._replace(outputs=EVALUATION.outputs[1:])
    assert [item.row for item in report.find_hard(evaluation, TASKS['MRPC'])] == [2]


def test_hard_numbers():
    """Labels 0 0 1 1, predictions of two runs: the mean errors are 1, 2.5, 0.5 and 0."""
    outputs = np.array([[[1.0], [2.0], [1.0], [1.0]], [[-1.0], [3.0], [2.0], [1.0]]])
    evaluation = report.Evaluation('', TEXTS, LABELS.astype(np.float32), outputs)
    found = report.find_hard(evaluation, TASKS['STS-B'])
    assert [item.row for item in found] == [2, 1, 3, 4]
    assert found[0].told == 'predicted 2.50 in the mean, mean error 2.50'


@pytest.fixture(scope='module')
def page():
    """A page of two tasks with all that a page can have, and strange text in every place."""
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
    has_pictures = curves_are_possible()
    panel = curves.Panel('dev <accuracy>', [curves.Curve('seed <1>', [1, 2], [0.5, 0.6])])
    wide = EVALUATION._replace(outputs=np.array([[[1.0], [2.0], [1.0], [1.0]]] * 2))
    sections = [
        report.Section(TASKS['MRPC'], tables['MRPC'], [panel], [EVALUATION]),
        report.Section(TASKS['STS-B'], tables['STS-B'], [panel], [wide]),
    ]
    machines = {'processor': ['<Fast> & new', 'other'], 'mxnet': ['1.9.1']}
    return report.write_page(
        'GLUE: <MRPC>', "glue.py --bert_model '<script>x'", tables, sections, machines, has_pictures
    )


def curves_are_possible():
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def parse(page):
    """The page as a tree: it is written so that it is XML too."""
    return ElementTree.fromstring(page.replace('<!DOCTYPE html>\n', ''))


def test_the_page_is_whole(page):
    """Its tables hold what the tables of the results say, and text is shown as it was."""
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
    """No address, no script, no style or picture but what the file itself holds."""
    tree = parse(page)
    assert 'http' not in page and 'url(' not in page and '@import' not in page
    assert not {'script', 'link', 'iframe', 'object'} & {element.tag for element in tree.iter()}
    for image in tree.iter('img'):
        assert image.get('src').startswith('data:image/svg+xml;base64,')
        assert image.get('alt')
    if curves_are_possible():
        assert len(list(tree.iter('img'))) == 3


def test_a_page_without_pictures():
    """Where there is no matplotlib the page says so, and has the rest."""
    table = results.tabulate({1: {'last accuracy': 0.5, 'best accuracy': 0.5, 'seconds': 1.0}})
    section = report.Section(TASKS['RTE'], table, [], [EVALUATION])
    page = report.write_page('t', 'c', {'RTE': table}, [section], {}, has_pictures=False)
    tree = parse(page)
    assert 'curves need matplotlib' in ''.join(tree.itertext())
    assert not list(tree.iter('img'))
    assert 'wrong in 3 of 3 runs' in page
