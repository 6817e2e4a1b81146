"""glue.py with the user's own data: several seeds, one page, and no run twice."""

import csv
import json
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from conftest import ROOT, failure

import glue
from bert.experiments import plans
from bert.finetuning.data import choose_task, read_dev_sets
from bert.finetuning.holdout import hold_out
from bert.finetuning.parser import build_flags
from bert.system.errors import UsageError
from bert.tasks import files

pytestmark = pytest.mark.usefixtures('root_logger')

COLUMNS = ['--text_columns', 'first', 'second', '--label_column', 'same']
SIZES = ['--epochs', '1', '--batch_size', '16', '--max_len', '32', '--lr', '1e-2']


def write_rows(path, count):
    """Write the first rows of the bundled sample's training set as a CSV file."""
    lines = (ROOT / 'sample_glue' / 'MRPC' / 'train.tsv').read_text('utf8').splitlines()
    rows = [line.split('\t') for line in lines[1 : 1 + count]]
    with open(path, 'w', encoding='utf8', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['first', 'second', 'same'])
        writer.writerows([row[3], row[4], row[0]] for row in rows)
    return path


def text_of(page):
    root = ElementTree.fromstring(page.read_text('utf8').replace('<!DOCTYPE html>\n', ''))
    return [''.join(element.itertext()) for element in root.iter() if element.tag in 'h1 dd pre p']


def test_seeds_of_own_data(tiny_bert, tmp_path, monkeypatch, capsys):
    """Two seeds and a third; the dev set, a share of the file, is the one that a run has."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.delenv('GLUE_DIR', raising=False)
    train = write_rows(tmp_path / 'mine.csv', 40)
    line = ['--train_file', str(train), '--dev_share', '0.2', *COLUMNS, *SIZES]
    line += ['--bert_model', str(tiny_bert), '--output_dir', str(tmp_path / 'out')]
    table = glue.main([*line, '--seeds', '1', '2', '--jobs', '2'])['mine']
    printed = capsys.readouterr()
    assert printed.out.startswith('\nmine\n\nseed ')
    seeds = [row for row in table if row['seed'] in (1, 2)]
    folders = sorted((tmp_path / 'out' / 'mine').glob('seed-*'))
    task = choose_task(build_flags().parse_args(line))
    _, dev = hold_out(files.read_own(task, task.train), task, 0.2)
    for row, folder in zip(seeds, folders):
        outputs = np.load(folder / 'outputs.npz')
        assert list(outputs['labels']) == ['0', '1'] and len(outputs['dev']) == len(dev.labels) == 8
        right = float((outputs['dev'].argmax(axis=1) == dev.labels).mean())
        assert row['best accuracy'] == pytest.approx(right)
        record = json.loads((folder / 'result.json').read_text())
        assert record['task'] == 'mine' and 'GLUE_DIR' not in record['settings']
        assert record['settings']['train_file'] == str(train)

    best = max(seeds, key=lambda row: row['best accuracy'])
    chosen = folders[seeds.index(best)]
    assert f'INFO:root:mine: the best run by the dev set is the model {chosen}\n' in printed.err

    # The file is known by what it holds, wherever it is: only the third seed is run.
    moved = tmp_path / 'elsewhere' / 'mine.csv'
    moved.parent.mkdir()
    shutil.move(train, moved)
    line[1] = str(moved)
    before = {folder: (folder / 'result.json').read_bytes() for folder in folders}
    table = glue.main([*line, '--seeds', '1', '2', '3'])['mine']
    assert [row['seed'] for row in table][:4] == [1, 2, 3, 'mean']
    assert {folder: (folder / 'result.json').read_bytes() for folder in folders} == before
    shown = text_of(tmp_path / 'out' / 'report.html')
    assert shown[0] == 'mine: 3 fine-tuning runs'
    assert f'{moved}, dev set: 0.2 of its rows' in shown and '3: seeds 1, 2, 3' in shown
    assert any(text.startswith(f'glue.py \\\n    --train_file {moved}') for text in shown)
    assert not any('ublished' in text for text in shown)


def digest(line, folder='.'):
    values = build_flags().parse_args(line)
    task = choose_task(values)
    plan = plans.make_plan(glue.SCRIPT, task, line, vars(values), files.folder_of(task), 1)
    assert '--task_name' not in plan.command
    return plans.digest(plan)


def test_runs_are_known_by_what_files_hold(tiny_bert, tmp_path):
    train, dev = (write_rows(tmp_path / f'{name}.csv', 8) for name in ('train', 'dev'))
    line = ['--train_file', str(train), '--dev_file', str(dev), *COLUMNS]
    line += ['--bert_model', str(tiny_bert)]
    first = digest(line)
    assert digest(line) == first
    assert digest([*line, '--metric', 'f1']) != first
    assert digest([*line, '--test_file', str(dev)]) != first
    write_rows(dev, 6)
    assert digest(line) != first


def test_named_data_sets_are_known_by_their_rows(tiny_bert, tmp_path):
    datasets = pytest.importorskip('datasets')
    folder = tmp_path / 'set'

    def write(labels):
        shutil.rmtree(folder, ignore_errors=True)
        rows = {'first': ['a', 'b'], 'second': ['c', 'd'], 'same': labels}
        datasets.DatasetDict({'train': datasets.Dataset.from_dict(rows)}).save_to_disk(folder)

    name = f'hf:{folder}:train'
    line = ['--train_file', name, '--dev_file', name, *COLUMNS, '--bert_model', str(tiny_bert)]
    write(['0', '1'])
    first = digest(line)
    assert digest(line) == first
    write(['1', '0'])
    assert digest(line) != first
    assert glue.parse_args(line)[0].tasks == ['set_train']


def test_the_dev_sets_of_a_task_with_files(tmp_path):
    path = write_rows(tmp_path / 'x.csv', 8)
    args = build_flags().parse_args(['--train_file', str(path), '--dev_file', str(path), *COLUMNS])
    ((split, rows),) = read_dev_sets(files.folder_of(choose_task(args)), choose_task(args))
    assert split.dev_name == 'dev' and len(rows.labels) == 8


OWN = ['--train_file', 'x.csv', *COLUMNS]


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        (OWN, 'own data needs a --dev_file or a --dev_share to compare the runs'),
        ([*OWN, '--tasks', 'MRPC'], '--tasks is for GLUE tasks, not for own data'),
        ([*OWN, '--recipe', '2019-01'], '--recipe is for GLUE tasks, not for own data'),
        ([*OWN, '--submission', 'a.zip'], '--submission is for GLUE tasks, not for own data'),
        (['--dev_file', 'x.csv', *COLUMNS], 'own data needs a --train_file, or --only_inference'),
        (['--dev_share', '0.2'], '--dev_share goes with own data, such as --train_file'),
        (['--train_file', 'hf:x', *COLUMNS], 'hf:x is not hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT'),
    ],
)
def test_refused_flags(flags, sentence):
    with pytest.raises(UsageError) as caught:
        glue.parse_args(flags)
    assert str(caught.value) == sentence


def test_a_missing_file_is_named_before_any_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = [*OWN, '--dev_share', '0.2', '--output_dir', 'out']
    assert failure(glue.main, line) == 'there is no file x.csv'
    assert list(tmp_path.iterdir()) == []
