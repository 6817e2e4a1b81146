"""The page about many runs: its sections, what it compares with, and its facts."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from bert.experiments import report, results
from bert.experiments.runs import Plan
from bert.finetuning.parser import build_flags
from bert.report import logs
from bert.system.errors import ToolkitError
from bert.tasks.table import TASKS

LOG = """\
[Epoch 1 Batch 5/10] loss=0.7, lr=0.1, metrics=accuracy:0.5,f1:0.6
validation metrics:accuracy:0.75,f1:0.8
Time cost=1.0s
"""
FIGURES = {
    'last': {'dev': {'accuracy': 0.8}},
    'training': [],
    'validation': [{'epoch': 1, 'dev': {'accuracy': 0.8}, 'seconds': 2.0}],
}
RECORD = {
    'epochs': [{'dev': {'accuracy': 0.75, 'f1': 0.8}, 'seconds': 1.0}],
    'best_epoch': 1,
    'seconds': 2.0,
    'finished': '2026-01-02 03:04 UTC',
    'machine': {'mxnet': '1.9.1', 'processor': 'one'},
}


@pytest.fixture
def made(tmp_path):
    """Write the files of three runs of MRPC; return a function that makes their sections."""
    (tmp_path / 'data' / 'MRPC').mkdir(parents=True)
    rows = ''.join(f'{label}\tx\tx\ttext {label}\tother\n' for label in (0, 1, 1, 1))
    (tmp_path / 'data' / 'MRPC' / 'dev.tsv').write_text('a\tb\tc\td\te\n' + rows)
    folders = {}
    for seed in (1, 2, 3):
        folder = folders['MRPC', seed] = tmp_path / f'seed-{seed}'
        folder.mkdir()
        (folder / 'finetune.log').write_text(LOG)
        outputs = np.array(
            [[0, 1.0], [0, 1], [0, 1], [0, 1]] if seed == 2 else np.eye(2)[[0, 1, 1, 0]]
        )
        np.savez(folder / 'outputs.npz', dev=outputs, labels=np.array(['0', '1']))
    other = {**RECORD, 'finished': '2026-01-02 03:05 UTC', 'machine': {'processor': 'other'}}
    records = {'MRPC': {1: RECORD, 2: RECORD, 3: other}}
    settings = vars(build_flags().parse_args(['--lr', '2e-5']))
    plans = {'MRPC': Plan([], settings, {}, [], TASKS['MRPC'])}

    def make(published=()):
        tables = results.tabulate_tasks(records, {'MRPC': published})
        args = (tables, records, folders, {'MRPC': published}, plans, tmp_path / 'data')
        return tables, report.make_sections(*args), plans, records

    return make


def write(output, tables, sections, plans, records):
    report.write_report(output, 'glue.py --x', tables, sections, plans, records, 'here', False)
    page = (output / 'report.html').read_text('utf8')
    return page, ElementTree.fromstring(page.replace('<!DOCTYPE html>\n', ''))


def test_the_page_of_three_runs(made, tmp_path):
    """Seeds 1 and 3 get 3 of 4 rows right, as does answering 1, which is all that seed 2 does."""
    page, root = write(tmp_path, *made())
    verdicts = [''.join(p.itertext()) for p in root.iter('p') if 'verdict' in p.get('class', '')]
    assert verdicts[0].startswith(
        'No. It did not learn in 2 of 3 runs: on average over 2 runs, 75 % of the 4 dev rows are '
        "right, as many as by always answering '1'. What to try: "
    )
    assert verdicts[1].startswith(
        'No. 1 of 3 runs collapsed to one answer, whatever the text: seed 2 '
        "('1' for every dev row). What to try: --bias_correction, "
    )
    facts = dict(zip(*([''.join(e.itertext()) for e in root.iter(tag)] for tag in ('dt', 'dd'))))
    assert facts['recipe'].startswith('--batch_size 32 --lr 2e-05 --epochs 3 ')
    assert facts['runs'] == '3: seeds 1, 2, 3'
    assert facts['finished'] == '2026-01-02 03:05 UTC'  # the last of them
    assert facts['processor'] == 'one / other'
    assert facts['data'] == 'here'
    assert 'glue.py --x' in page and 'Overview' not in page
    assert write(tmp_path, *made())[0] == page


def test_comparable_published_runs_are_shown(made):
    tables, (section,), _, _ = made([('2019-01', FIGURES, None)])
    assert '<td>published 2019-01</td><td>0.8000</td>' in section.table
    assert '<td>runs below it</td><td>3 of 3</td>' in section.table
    assert section.notes == []
    labels = [curve.label for curve in section.panels[-2].curves]
    assert labels == ['seed 1', 'seed 2', 'seed 3', 'published 2019-01']


def test_others_are_left_out_and_a_line_says_why(made):
    reasons = [('2019-01', 'other model'), ('2020-01', 'other recipe'), ('small', 'other model')]
    tables, (section,), _, _ = made([(name, FIGURES, reason) for name, reason in reasons])
    assert 'published' not in section.table
    assert section.notes == [
        'Published runs that cannot be compared, and are not shown: 2019-01, small (other model).',
        'Published runs that cannot be compared, and are not shown: 2020-01 (other recipe).',
    ]
    assert not any(curve.is_published for panel in section.panels for curve in panel.curves)
    assert 'other model' in results.format_document(tables, 'text')


def test_the_overview_has_a_line_for_each_dev_set(made, tmp_path):
    tables, sections, _, _ = made()
    both = [sections[0], sections[0]._replace(name='RTE')]
    overview = report.format_overview({**tables, 'RTE': tables['MRPC']}, both)
    cells = re.findall('<td>(.*?)</td>', overview)
    assert cells[:7] == ['MRPC', 'accuracy', '3', '0.7500', '0.7500', '0.7500', '0.7500']
    assert cells[7] == 'RTE'


def test_lines_without_any_figure_are_left_out():
    """One run has a mean only, two have a deviation, three an interval."""
    for count, names in [(1, 1), (2, 2), (3, 6)]:
        table = results.tabulate({seed: {'last mcc': 0.1 * seed} for seed in range(count)})
        assert len(table) == count + 6
        assert report.format_rows(table).count('<tr') == 1 + count + names


def test_data_that_have_changed(made, tmp_path):
    with open(tmp_path / 'data' / 'MRPC' / 'dev.tsv', 'a') as file:
        file.write('1\tx\tx\tone\tmore\n')
    with pytest.raises(ToolkitError, match='dev.tsv has changed since .*seed-1 was made: remove'):
        made()


def test_settings_that_differ_are_named_by_task(made):
    _, sections, plans, records = made()
    both = [sections[0], sections[0]._replace(name='RTE')]
    settings = {**plans['MRPC'].settings, 'epochs': 5}
    plans['RTE'] = plans['MRPC']._replace(settings=settings)
    facts = dict(report.list_facts(both, plans, {**records, 'RTE': records['MRPC']}, 'd'))
    assert '--epochs</span> 3' in facts['recipe of MRPC']
    assert '--epochs</span> 5' in facts['recipe of RTE']
    assert 'model' in facts and facts['runs'] == '6: 2 tasks, seeds 1, 2, 3'


def test_a_log_without_curves_is_an_empty_one():
    assert logs.parse_log('') == logs.Log({}, [], [])
    assert TASKS['MRPC'].metrics[0] == 'accuracy'
