"""Data sets by name, from folders in the layouts of the library ``datasets``."""

import pytest
from conftest import failure

from bert.system.errors import UsageError
from bert.tasks import files, library, predictions, rows
from bert.tasks.table import Split, Task

TEXTS, LABELS = ['one é', 'two', 'three'], [1, 0, -1]


@pytest.mark.parametrize(
    ('name', 'parts', 'stem'),
    [
        ('hf:imdb:test', ('imdb', None, 'test'), 'imdb_test'),
        ('hf:nyu-mll/glue:mrpc:test', ('nyu-mll/glue', 'mrpc', 'test'), 'glue_mrpc_test'),
        ('hf:/some/where:train[:10%]', ('/some/where', None, 'train[:10%]'), 'where_train_10_'),
        (
            'hf:./here:c:train[5:]+train[:2]',
            ('./here', 'c', 'train[5:]+train[:2]'),
            'here_c_train_5_train_2_',
        ),
    ],
)
def test_names(tmp_path, name, parts, stem):
    assert library.is_name(name) and library.parse(name) == parts
    path = predictions.predictions_path(tmp_path, Split(name, ('text',)))
    assert path == tmp_path / f'{stem}_predictions.parquet'


@pytest.mark.parametrize('name', ['hf:', 'hf:imdb', 'hf:imdb:', 'hf::train', 'hf:a:b:c:d'])
def test_what_is_not_a_name(name):
    with pytest.raises(UsageError) as caught:
        library.parse(name)
    assert str(caught.value) == f'{name} is not hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT'
    assert not library.is_name(name[3:])


def test_without_the_library(monkeypatch):
    pytest.importorskip('pyarrow')
    monkeypatch.setitem(__import__('sys').modules, 'datasets', None)
    sentence = failure(rows.read_rows, 'hf:imdb:train')
    assert sentence.startswith('hf:imdb:train: needs another package (')
    assert sentence.endswith("): pip install '.[datasets]' in the toolkit's folder")


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip('datasets')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(datasets.config, 'HF_HUB_OFFLINE', True)
    return datasets


@pytest.fixture
def whole(datasets):
    """Return a data set whose labels are numbers with names."""
    kinds = datasets.ClassLabel(names=['bad', 'good'])
    features = {'id': datasets.Value('int32'), 'text': datasets.Value('string'), 'label': kinds}
    features['tags'] = datasets.Sequence(kinds)
    columns = {'id': [7, 8, 9], 'text': TEXTS, 'label': LABELS, 'tags': [[0], [1, 0], []]}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def save(folder, whole, layout):
    """Write a data set in a layout, with a split of another one beside it."""
    import datasets

    folder.mkdir()
    if layout == 'parquet':
        whole.to_parquet(folder / 'train-00000-of-00001.parquet')
        whole.select([1]).to_parquet(folder / 'test-00000-of-00001.parquet')
    elif layout == 'splits on disk':
        saved = datasets.DatasetDict({'train': whole, 'test': whole.select([1])})
        saved.save_to_disk(folder)
    else:
        whole.save_to_disk(folder)
    return f'hf:{folder}'


@pytest.mark.parametrize('layout', ['parquet', 'splits on disk', 'one split on disk'])
def test_rows_and_names_of_labels(tmp_path, whole, layout):
    name = save(tmp_path / 'data', whole, layout)
    read = rows.read_rows(f'{name}:train', ['text', 'label', 'tags'])
    assert [row.cells for row in read] == [
        {'text': 'one é', 'label': 'good', 'tags': ['bad']},
        {'text': 'two', 'label': 'bad', 'tags': ['good', 'bad']},
        {'text': 'three', 'label': None, 'tags': []},
    ]
    if layout != 'one split on disk':
        assert [row.cells for row in rows.read_rows(f'{name}:test', ['text'])] == [{'text': 'two'}]
    if layout == 'parquet':
        assert len(rows.read_rows(f'{name}:train[:2]')) == 2


def test_examples_and_predictions(tmp_path, datasets, whole):
    """The predictions are a Parquet file that the library itself reads."""
    name = save(tmp_path / 'data', whole, 'parquet')
    split = Split(f'{name}:train[:2]', ('text',), 'label')
    assert files.find_labels(split.path, 'label') == (['bad', 'good'], False)
    assert files.find_labels(split.path, 'tags') == (['bad', 'good'], True)
    examples = files.read_own(Task('own', split, (), (), ['bad', 'good']), split)
    assert (examples.texts, examples.labels.tolist()) == ([('one é',), ('two',)], [1, 0])
    assert not examples.number_labels
    test = Split(f'{name}:train', ('text',))
    cells = files.read_own(Task('own', split, (), (test,), ['bad', 'good']), test).cells
    path = predictions.predictions_path(tmp_path, test)
    rows.write_rows(path, cells, [{'prediction': label} for label in ('good', 'bad', 'good')])
    written = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / 'other'))
    assert written['prediction'] == ['good', 'bad', 'good']
    assert written.features['label'] == whole.features['label']
    assert written.remove_columns('prediction')[:] == whole[:]


def test_files_of_text_in_a_folder(tmp_path, datasets):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'train.csv').write_text('text,label\n"a, b",1\nc,0\n')
    read = rows.read_rows(f'hf:{tmp_path}/data:train')
    assert [row.cells for row in read] == [{'text': 'a, b', 'label': 1}, {'text': 'c', 'label': 0}]


def test_what_is_not_there(tmp_path, whole):
    name = save(tmp_path / 'data', whole, 'parquet')
    disk = save(tmp_path / 'disk', whole, 'splits on disk')
    sentences = {
        f'{name}:dev': 'Unknown split "dev".',
        f'{name}:other:train': "BuilderConfig 'other' not found.",
        f'hf:{tmp_path}/nowhere:train': "Couldn't find any data",
        f'{disk}:dev': 'has no configurations, and the splits train, test',
        f'{disk}:other:train': 'has no configurations, and the splits train, test',
        f'{name}:train': "there is no column 'body' among id, text, label, tags",
        'hf:pandas:train': 'its files would have to be unpickled, which may run code',
    }
    for path, sentence in sentences.items():
        assert failure(rows.read_rows, path, ['body']).startswith(f'{path}: {sentence}')
    split = Split(f'{name}:train', ('text',), 'label')
    task = Task('own', split, (), (), ['bad', 'good'])
    assert failure(files.read_own, task, split) == f'{name}:train:3: the label is empty'


def test_damaged_files_in_a_folder(tmp_path, datasets):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'train.parquet').write_bytes(b'PAR1 and no more PAR1')
    path = f'hf:{tmp_path}/data:train'
    assert failure(rows.read_rows, path).startswith(f'{path}: ')


def test_no_code_of_a_data_set_is_run(tmp_path, datasets):
    folder = tmp_path / 'data'
    folder.mkdir()
    code = f'open({str(tmp_path / "ran")!r}, "w")\nimport datasets\n'
    code += 'class Builder(datasets.GeneratorBasedBuilder): pass\n'
    (folder / 'data.py').write_text(code)
    path = f'hf:{folder}:train'
    assert failure(rows.read_rows, path).startswith(f'{path}: ')
    assert not (tmp_path / 'ran').exists()
