"""Own data through the real script: its formats, and a dev set from the training file."""

import csv
import json

import numpy as np
import pytest
from conftest import failure, stop_at
from sklearn.model_selection import train_test_split
from test_finetune_classifier import SMALL, arrays, finetune, sentences, without_seconds

import bert  # noqa: F401 (prepares for MXNet)
from bert.finetuning.holdout import SEED
from bert.system.errors import Stopped
from bert.tasks.files import read_rows

pytestmark = pytest.mark.usefixtures('root_logger')

COLUMNS = ['--text_columns', 'text', '--label_column', 'label']


def make_rows(count, seed, labels):
    return [
        {'id': number, 'text': text, 'label': labels[label]}
        for number, (text, _, label) in enumerate(sentences(count, seed, len(labels)))
    ]


def write(path, rows):
    """Write rows in the format of the extension."""
    if path.suffix == '.jsonl':
        path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    elif path.suffix == '.parquet':
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with open(path, 'w', newline='') as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def files_of(output):
    """Return what a run leaves, but for times and the names of files."""
    description = json.loads((output / 'finetune.json').read_text())
    return without_seconds(description['epochs']), {
        path.name: arrays(path) for path in sorted(output.glob('*.params'))
    }


def assert_same(one, other):
    (epochs, parameters), (others, other_parameters) = files_of(one), files_of(other)
    assert epochs == others and parameters.keys() == other_parameters.keys()
    for name, values in parameters.items():
        for key in values:
            np.testing.assert_array_equal(values[key], other_parameters[name][key])


def test_numbers_stay_numbers(tiny_bert, tmp_path):
    """Labels that were numbers are predicted as numbers, in later processes too."""
    train = write(tmp_path / 'train.jsonl', make_rows(24, 1, [1, 2]))
    new = tmp_path / 'new.jsonl'
    new.write_text('{"id": 1.10, "text": "red", "more": [null, true]}\n' * 3)
    output = tmp_path / 'out'
    flags = ['--bert_model', tiny_bert, *SMALL, '--epochs', '1', '--test_file', new]
    finetune(output, '--train_file', train, *COLUMNS, *flags)
    text = (output / 'new_predictions.jsonl').read_text()
    for line in text.splitlines():
        start, value = line.split(', "prediction": ')
        assert start == '{"id": 1.10, "text": "red", "more": [null, true]'
        assert value in ('1}', '2}')
    again = ['--only_inference', '--bert_model', output, '--test_file', new]
    finetune(tmp_path / 'again', *again)
    assert (tmp_path / 'again' / 'new_predictions.jsonl').read_text() == text
    assert json.loads((output / 'finetune.json').read_text())['labels'] == ['1', '2']
    # Where they were text, they are text.
    train = write(tmp_path / 'train.csv', make_rows(24, 1, [1, 2]))
    finetune(tmp_path / 'text', '--train_file', train, *COLUMNS, *flags)
    rows = read_rows(tmp_path / 'text' / 'new_predictions.jsonl')
    assert all(row.cells['prediction'] in ('1', '2') for row in rows)
    assert_same(output, tmp_path / 'text')
    # Numbers that are predicted are numbers.
    train = write(tmp_path / 'scores.jsonl', make_rows(24, 1, [0.5, 2]))
    finetune(tmp_path / 'scores', '--train_file', train, *COLUMNS, *flags, '--regression')
    rows = read_rows(tmp_path / 'scores' / 'new_predictions.jsonl')
    assert all(isinstance(row.cells['prediction'], float) for row in rows)


def test_a_converted_model_predicts_numbers_too(tiny_bert, tmp_path):
    from bert.convert.__main__ import main as convert

    train = write(tmp_path / 'train.jsonl', make_rows(24, 1, [True, False]))
    flags = ['--bert_model', tiny_bert, *SMALL, '--epochs', '1', '--test_file', train]
    finetune(tmp_path / 'out', '--train_file', train, *COLUMNS, *flags)
    convert([str(tmp_path / 'out'), str(tmp_path / 'hf'), '--to', 'hf'])
    again = ['--only_inference', '--bert_model', tmp_path / 'hf', '--test_file', train]
    finetune(tmp_path / 'again', *again)
    for folder in ('out', 'again'):
        rows = read_rows(tmp_path / folder / 'train_predictions.jsonl')
        assert all(isinstance(row.cells['prediction'], bool) for row in rows)


def test_parquet_gives_the_numbers_of_csv(tiny_bert, tmp_path):
    parquet = pytest.importorskip('pyarrow.parquet')
    for suffix in ('.csv', '.parquet'):
        train, dev = (
            write(tmp_path / f'{name}{suffix}', make_rows(count, seed, ['no', 'yes']))
            for name, count, seed in [('train', 22, 1), ('dev', 9, 2)]
        )
        finetune(
            *(tmp_path / suffix, '--bert_model', tiny_bert, *SMALL, '--epochs', '2', *COLUMNS),
            *('--train_file', train, '--dev_file', dev, '--test_file', dev),
        )
    assert_same(tmp_path / '.csv', tmp_path / '.parquet')
    written = parquet.read_table(tmp_path / '.parquet' / 'dev_predictions.parquet').to_pylist()
    expected = read_rows(tmp_path / '.csv' / 'dev_predictions.csv')
    assert [{**row, 'id': str(row['id'])} for row in written] == [row.cells for row in expected]


def test_a_named_data_set_gives_the_numbers_of_csv(tiny_bert, tmp_path, monkeypatch):
    datasets = pytest.importorskip('datasets')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', str(tmp_path / 'cache'))
    labels = datasets.ClassLabel(names=['yes', 'no'])  # in another order than by the alphabet
    (tmp_path / 'data').mkdir()
    for name, count, seed in [('train', 22, 1), ('validation', 9, 2)]:
        rows = make_rows(count, seed, ['no', 'yes'])
        write(tmp_path / f'{name}.csv', rows)
        named = datasets.Dataset.from_list(rows).cast_column('label', labels)
        named.to_parquet(tmp_path / 'data' / f'{name}.parquet')
    for output, paths in [
        ('csv', [tmp_path / 'train.csv', tmp_path / 'validation.csv']),
        ('hf', [f'hf:{tmp_path}/data:train', f'hf:{tmp_path}/data:validation']),
    ]:
        finetune(
            *(tmp_path / output, '--bert_model', tiny_bert, *SMALL, '--epochs', '2', *COLUMNS),
            *('--train_file', paths[0], '--dev_file', paths[1], '--test_file', paths[1]),
        )
    assert_same(tmp_path / 'csv', tmp_path / 'hf')
    path = tmp_path / 'hf' / 'data_validation_predictions.parquet'
    written = [row.cells for row in read_rows(path, ['text', 'prediction'])]
    expected = read_rows(tmp_path / 'csv' / 'validation_predictions.csv')
    assert [row['prediction'] for row in written] == [row.cells['prediction'] for row in expected]


def test_a_share_for_the_dev_set(tiny_bert, tmp_path, monkeypatch):
    """A run with --dev_share is that with the files that scikit-learn splits, resumed too."""
    rows = make_rows(40, 1, ['no', 'yes'])
    train = write(tmp_path / 'all.csv', rows)
    sides = train_test_split(
        rows, test_size=0.25, random_state=SEED, stratify=[row['label'] for row in rows]
    )
    parts = [
        write(tmp_path / f'part{number}.csv', sorted(side, key=lambda row: row['id']))
        for number, side in enumerate(sides)
    ]
    flags = ['--bert_model', tiny_bert, *SMALL, '--epochs', '2', *COLUMNS]
    expected = finetune(
        tmp_path / 'files', *flags, '--train_file', parts[0], '--dev_file', parts[1]
    )
    shared = [*flags, '--train_file', train, '--dev_share']
    result = finetune(tmp_path / 'share', *shared, '0.25')
    assert without_seconds(result['epochs']) == without_seconds(expected['epochs'])
    assert result['best_epoch'] == expected['best_epoch']
    assert_same(tmp_path / 'files', tmp_path / 'share')
    log = (tmp_path / 'share' / 'finetune.log').read_text()
    counts = [sum(row['label'] == label for row in rows) for label in ('no', 'yes')]
    held = [sum(row['label'] == label for row in sides[1]) for label in ('no', 'yes')]
    assert (
        f'the dev set is 10 of the 40 rows of {train} (no: {held[0]} of {counts[0]}, '
        f'yes: {held[1]} of {counts[1]})\n'
    ) in log
    output = tmp_path / 'resumed'
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 11)  # in the second epoch
        finetune(output, *shared, '0.25')
    sentence = failure(finetune, output, *shared, '0.3', '--resume')
    assert sentence == (
        f'--resume: --dev_share was 0.25 in the run in {output} and is 0.3 now; use the same, or '
        'start over without --resume'
    )
    finetune(output, *shared, '0.25', '--resume')
    assert_same(tmp_path / 'share', output)


def test_one_row_of_a_class(tiny_bert, tmp_path):
    rows = make_rows(20, 1, ['no', 'yes'])
    train = write(tmp_path / 'train.csv', [*rows, {'id': 20, 'text': 'blue', 'label': 'rare'}])
    flags = ['--bert_model', tiny_bert, *COLUMNS, '--train_file', train, '--dev_share', '0.2']
    assert failure(finetune, tmp_path / 'out', *flags) == (
        f"{train}: --dev_share: only one row, or one text, has the label 'rare': give a "
        '--dev_file, or leave that row out'
    )


@pytest.mark.parametrize('name', ['train_file', 'dev_file'])
def test_empty_labels(tiny_bert, tmp_path, name):
    good = write(tmp_path / 'good.jsonl', make_rows(4, 1, ['no', 'yes']))
    bad = tmp_path / 'bad.jsonl'
    bad.write_text(good.read_text() + '{"text": "a", "label": null}\n')
    paths = {'train_file': good, 'dev_file': good, name: bad}
    flags = [word for flag, path in paths.items() for word in (f'--{flag}', path)]
    sentence = failure(finetune, tmp_path / 'out', '--bert_model', tiny_bert, *COLUMNS, *flags)
    assert sentence == f'{bad}:5: the label is empty'
