"""Parquet files beside what pyarrow and pandas read of them, and files that are not trusted."""

import datetime
import decimal

import numpy as np
import pytest
from conftest import failure

pa = pytest.importorskip('pyarrow')
pq = pytest.importorskip('pyarrow.parquet')

from bert.system import npz
from bert.system.errors import ToolkitError, UsageError
from bert.tasks import files, parquet, predictions, rows
from bert.tasks.table import Split, Task

TABLE = pa.table(
    {
        'id': pa.array([1, 2, 3], pa.int32()),
        'text': ['one é', 'two', 'three'],
        'large': pa.array(['l', 'm', None], pa.large_string()),
        'kind': pa.array(['a', 'b', 'a']).dictionary_encode(),
        'number': pa.array([0.5, -1, 2], pa.float32()),
        'ok': [True, False, True],
        'tags': [['p', 'q'], [], None],
        'nested': [{'u': 'a', 'v': 1}, {'u': 'b', 'v': None}, None],
        'pairs': pa.array([[('k', 'v')], [], None], pa.map_(pa.string(), pa.string())),
        'when': pa.array([1, 2, 3], pa.timestamp('ns')),  # as Python values only with pandas
        'day': [datetime.date(2019, 1, 2)] * 3,
        'price': pa.array([decimal.Decimal('1.20')] * 3, pa.decimal128(10, 2)),
        'bytes': pa.array([b'a', b'\xff', None]),
        'four': pa.array([b'abcd'] * 3, pa.binary(4)),
        'nothing': pa.nulls(3),
    }
).replace_schema_metadata({'more': 'of a library'})


@pytest.fixture
def path(tmp_path):
    pq.write_table(TABLE, tmp_path / 'd.parquet', row_group_size=2)
    return tmp_path / 'd.parquet'


def test_the_values_are_those_of_pyarrow(path):
    columns = ['text', 'large', 'kind', 'number', 'ok', 'tags', 'id']
    read = rows.read_rows(path, columns)
    assert [row.cells for row in read] == TABLE.select(columns).to_pylist()
    assert [row.line for row in read] == [1, 2, 3]


def test_predictions_beside_all_columns(path, tmp_path):
    """Columns, types and metadata stay; text, whole numbers, fractions and bool can be added."""
    table = rows.read_table(path, ['text'], whole=True)
    assert [row.cells for row in table.rows] == TABLE.select(['text']).to_pylist()
    for added, kind in [
        (['b', 'a', 'c'], pa.string()),
        ([1, 0, 1], pa.int64()),
        ([1, 0.5, 2], pa.float64()),
        ([True, False, True], pa.bool_()),
    ]:
        target = tmp_path / 'd_predictions.parquet'
        rows.write_rows(target, table.original, [{'prediction': value} for value in added])
        written = pq.read_table(target)
        assert written.schema.field('prediction').type == kind
        assert written.column('prediction').to_pylist() == added
        rest = written.drop_columns(['prediction'])
        assert rest.schema.equals(pq.read_schema(path), check_metadata=True)
        assert rest.equals(TABLE)


def test_a_column_named_prediction_keeps_its_place(tmp_path):
    pq.write_table(pa.table({'prediction': [1, 2], 'text': ['a', 'b']}), tmp_path / 'd.parquet')
    original = rows.read_table(tmp_path / 'd.parquet', ['text'], whole=True).original
    rows.write_rows(tmp_path / 'd.parquet', original, [{'prediction': 'x'}, {'prediction': 'y'}])
    written = pq.read_table(tmp_path / 'd.parquet')
    assert written.to_pydict() == {'prediction': ['x', 'y'], 'text': ['a', 'b']}


def test_beside_pandas(tmp_path):
    """A frame of pandas, its index and categories too, comes back with one more column."""
    pandas = pytest.importorskip('pandas')
    frame = pandas.DataFrame(
        {'text': ['a', 'b'], 'kind': pandas.Categorical(['u', 'v']), 'n': [1.5, 2]},
        index=pandas.Index([7, 9], name='key'),
    )
    frame.to_parquet(tmp_path / 'd.parquet')
    original = rows.read_table(tmp_path / 'd.parquet', ['text'], whole=True).original
    answers = [{'prediction': 'x'}, {'prediction': 'y'}]
    rows.write_rows(tmp_path / 'done.parquet', original, answers)
    written = pandas.read_parquet(tmp_path / 'done.parquet')
    pandas.testing.assert_frame_equal(written, frame.assign(prediction=['x', 'y']))


def own(path, labels):
    split = Split(str(path), ('text',), 'label')
    return files.read_own(Task('own', split, (), (), labels), split)


@pytest.mark.parametrize(
    ('cells', 'labels', 'are_numbers'),
    [
        (['b', 'a', 'b'], ['a', 'b'], False),
        ([10, 9, 10], ['9', '10'], True),
        ([True, False, True], ['false', 'true'], True),
        (pa.array(['b', 'a', 'b']).dictionary_encode(), ['a', 'b'], False),
        (pa.array([2, 1, 2], pa.uint8()), ['1', '2'], True),
    ],
)
def test_labels(tmp_path, cells, labels, are_numbers):
    path = tmp_path / 'd.parquet'
    pq.write_table(pa.table({'text': ['a', 'b', 'c'], 'label': cells}), path)
    assert files.find_labels(path, 'label') == (labels, False)
    examples = own(path, labels)
    assert examples.texts == [('a',), ('b',), ('c',)]
    assert examples.labels.tolist() == [1, 0, 1]
    assert examples.number_labels == are_numbers


def test_rows_with_several_labels(tmp_path):
    """Their answers, lists and tables, are columns of their own types."""
    path = tmp_path / 'd.parquet'
    pq.write_table(pa.table({'text': ['a', 'b'], 'label': [['y', 'x'], []]}), path)
    assert files.find_labels(path, 'label') == (['x', 'y'], True)
    split = Split(str(path), ('text',), 'label')
    task = Task('own', split, (), (Split(str(path), ('text',)),), ('x', 'y'), is_multilabel=True)
    assert files.read_own(task, split).labels.tolist() == [[1, 1], [0, 0]]
    cells = files.read_own(task, task.test[0]).cells
    outputs = np.array([[-1, 2], [0, -3]], np.float32)
    predictions.write_test_predictions(tmp_path, task.test[0], outputs, task, cells, True)
    written = pq.read_table(tmp_path / 'd_predictions.parquet').to_pylist()
    assert [row['prediction'] for row in written] == [['y'], []]
    assert written[0]['probabilities'] == {'x': 0.268941, 'y': 0.880797}  # 1 / (1 + exp(1)), ...


def test_numbers_to_predict(tmp_path):
    path = tmp_path / 'd.parquet'
    pq.write_table(pa.table({'text': ['a', 'b'], 'label': pa.array([0.5, 2], pa.float32())}), path)
    assert own(path, None).labels.tolist() == [0.5, 2]


NOT_UTF8 = pa.StringArray.from_buffers(
    2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b'a\xff')
)


@pytest.mark.parametrize(
    ('columns', 'sentence'),
    [
        ({'text': [], 'label': []}, ': has no rows'),
        ({'body': ['a'], 'label': ['a']}, ": there is no column 'text' among body, label"),
        ({'text': ['a'], 'class': ['a']}, ": there is no column 'label' among text, class"),
        ({'text': ['a', 'b'], 'label': ['a', None]}, ':2: the label is empty'),
        ({'text': ['a', 'b'], 'label': ['a', ' ']}, ':2: the label is empty'),
        ({'text': ['a', 'b'], 'label': ['a', 'c']}, ":2: the label 'c' is not one of a, b"),
        ({'text': ['a', None], 'label': ['a'] * 2}, ":2: 'text' is neither text nor a number"),
        ({'text': [['a']], 'label': ['a']}, ":1: 'text' is neither text nor a number"),
        ({'text': [b'a'], 'label': ['a']}, ":1: 'text' is neither text nor a number"),
        (
            {'text': ['a', 'b'], 'label': [0.5, float('nan')]},
            ":2: 'label' is neither text nor a number",
        ),
        ({'text': NOT_UTF8, 'label': ['a', 'b']}, ':2: not valid UTF-8'),
    ],
)
def test_bad_tables(tmp_path, columns, sentence):
    path = tmp_path / 'd.parquet'
    pq.write_table(pa.table(columns), path)
    assert failure(own, path, ['a', 'b']).startswith(f'{path}{sentence}')


def test_two_columns_of_one_name(tmp_path):
    path = tmp_path / 'd.parquet'
    pq.write_table(pa.Table.from_arrays([pa.array(['a'])] * 2, ['text', 'text']), path)
    assert failure(rows.read_rows, path) == f'{path}: two columns have the same name'


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match=f'there is no file {tmp_path}/d.parquet'):
        rows.read_rows(tmp_path / 'd.parquet')


@pytest.mark.parametrize('share', [0, 0.5, 0.9])
def test_a_part_of_a_file(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert failure(rows.read_rows, path).startswith(
        f'{path}: not a Parquet file, or a damaged one ('
    )


@pytest.mark.parametrize('place', [200, 3000, -3000, -1500, -300, -20])
def test_one_byte_changed(path, place):
    """The file is read or refused in a sentence, whatever becomes of the process that reads it."""
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(data)
    try:
        assert len(rows.read_rows(path, ['text', 'tags', 'kind'])) == 3
    except ToolkitError as error:
        assert str(error).startswith(f'{path}: ') and '\n' not in str(error)


def change(monkeypatch, statement):
    """Change something in the process that reads."""
    code = parquet.CODE.replace('parquet.send()', f'{statement}; parquet.send()')
    monkeypatch.setattr(parquet, 'CODE', code)


def test_the_process_that_reads_ends_by_a_signal(path, monkeypatch):
    monkeypatch.setattr(parquet, 'CODE', 'import os; os.abort()')
    assert failure(rows.read_rows, path) == (
        f'{path}: not a Parquet file, or a damaged one (SIGABRT)'
    )


def test_the_process_that_reads_ends_half_way(tmp_path, monkeypatch):
    change(
        monkeypatch,
        'import os; whole = parquet.unpack; parquet.unpack = lambda *args: '
        '(part if number < 9 else os.abort() for number, part in enumerate(whole(*args)))',
    )
    path = tmp_path / 'd.parquet'
    pq.write_table(pa.table({'text': [str(number) for number in range(20000)]}), path)
    assert failure(rows.read_rows, path) == (
        f'{path}: not a Parquet file, or a damaged one (SIGABRT)'
    )


def test_the_process_that_reads_fails(path, monkeypatch):
    monkeypatch.setattr(parquet, 'CODE', 'raise SystemExit("no reason")')
    assert failure(rows.read_rows, path) == (
        f'{path}: not a Parquet file, or a damaged one (no reason)'
    )


def test_the_process_that_reads_imports_nothing_from_here(path, tmp_path, monkeypatch):
    (tmp_path / 'json.py').write_text('raise SystemExit("the wrong module")')
    (tmp_path / 'bert.py').write_text('raise SystemExit("the wrong package")')
    monkeypatch.chdir(tmp_path)
    assert len(rows.read_rows(path)) == 3


def repeated(value, count, kind=None):
    """Return an array of a value that is stored once."""
    return pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(count, np.int32)), pa.array([value], kind)
    )


BOMBS = {
    # 100 GB each
    'a long text on many rows': {'text': repeated('x' * 2**20, 10**5)},
    'bytes': {'text': repeated(b'x' * 2**20, 10**5)},
    'in lists': {
        'text': pa.ListArray.from_arrays([0, 10**5], repeated('x' * 2**20, 10**5)),
    },
    'in structures': {'text': pa.StructArray.from_arrays([repeated('x' * 2**20, 10**5)], ['a'])},
}


@pytest.mark.parametrize(
    ('name', 'with_types'), [(name, False) for name in BOMBS] + [('a long text on many rows', True)]
)
def test_a_file_that_unpacks_to_too_much(tmp_path, name, with_types):
    import resource

    path = tmp_path / 'd.parquet'
    # Without pyarrow's own schema in it, the file does not say that the column was a dictionary.
    pq.write_table(pa.table(BOMBS[name]), path, store_schema=with_types, compression='zstd')
    limit = max(npz.ALWAYS_ALLOWED, npz.LARGEST_RATIO * path.stat().st_size)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert failure(rows.read_rows, path) == f'{path}: would unpack to more than {limit} bytes'
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before < 2**20  # 1 GB


@pytest.mark.parametrize(
    'columns',
    [
        {'text': ['a'], 'many': pa.ListArray.from_arrays([0, 2**17 + 1], pa.nulls(2**17 + 1))},
        {'text': ['a'] * 2**14},  # Python's objects count
    ],
)
def test_many_values_that_take_nothing_in_the_file(tmp_path, monkeypatch, columns):
    change(monkeypatch, 'parquet.npz.ALWAYS_ALLOWED = 2**20')
    path = tmp_path / 'd.parquet'
    pq.write_table(pa.table(columns), path)
    assert path.stat().st_size < 10000
    assert failure(rows.read_rows, path) == f'{path}: would unpack to more than {2**20} bytes'


def test_the_memory_of_the_process_that_reads_is_limited(tmp_path, monkeypatch):
    """As if nothing were counted."""
    change(monkeypatch, 'parquet.SPARE, parquet.unpacked_size = 2**28, lambda *args: 0')
    path = tmp_path / 'd.parquet'
    # 500 MB
    pq.write_table(pa.table({'text': repeated('x' * 2**20, 500)}), path, store_schema=False)
    assert failure(rows.read_rows, path) == f'{path}: would unpack to more than {2**26} bytes'


def test_repetitive_files_within_the_limit_are_read(tmp_path):
    """64 MB are always allowed, whatever the file's own size is."""
    path = tmp_path / 'd.parquet'
    pq.write_table(pa.table({'text': repeated('x' * 1000, 20000)}), path)
    assert path.stat().st_size < 20000
    assert len(rows.read_rows(path)) == 20000


def test_without_pyarrow(path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'pyarrow', None)
    sentence = failure(rows.read_rows, path)
    assert sentence.startswith(f'{path}: needs another package (')
    assert sentence.endswith("): pip install '.[parquet]' in the toolkit's folder")


def test_with_a_pyarrow_that_unpickles(path, monkeypatch):
    monkeypatch.setattr(pa, '__version__', '14.0.0')
    assert failure(rows.read_rows, path) == (
        f'{path}: needs pyarrow 14.0.1 or later, and 14.0.0 is installed: '
        "pip install '.[parquet]' in the toolkit's folder"
    )
