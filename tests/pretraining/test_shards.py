"""Shards: written files can be read, and damaged ones are refused in one sentence."""

import json
import zipfile
import zlib

import numpy as np
import pytest

from bert.pretraining.shards import ARRAYS, read_settings, read_shard, write_npz, write_recordio
from bert.system.errors import ToolkitError
from bert.text.vocab import SPECIAL_TOKENS, Vocab, fingerprint

WORDS = [f'w{i}' for i in range(300)]
VOCAB = Vocab([*SPECIAL_TOKENS.values(), *WORDS])


def make_block(n, seed, max_seq_length=12, max_predictions=3):
    """Make a valid block that looks like real instances."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, max_seq_length + 1, n)
    column = np.arange(max_seq_length)
    input_ids = rng.integers(5, len(VOCAB), (n, max_seq_length))
    input_ids[column >= lengths[:, None]] = VOCAB['[PAD]']
    segment_ids = (column >= 3) & (column < lengths[:, None])
    weights = np.arange(max_predictions) < rng.integers(1, max_predictions + 1, (n, 1))
    return {
        'input_ids': input_ids.astype(np.uint16),
        'segment_ids': segment_ids.astype(np.uint8),
        'masked_lm_positions': (weights * [1, 2, 4]).astype(np.uint8),
        'masked_lm_ids': (weights * 9 + ~weights * VOCAB['[PAD]']).astype(np.uint16),
        'masked_lm_weights': weights.astype(np.uint8),
        'next_sentence_labels': rng.integers(0, 2, n).astype(np.uint8),
        'valid_lengths': lengths.astype(np.uint8),
    }


BLOCKS = [make_block(7, 0), make_block(4, 1)]
WHOLE = {name: np.concatenate([block[name] for block in BLOCKS]) for name in ARRAYS}


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / 'a.npz'
    write_npz(path, iter(BLOCKS), {'max_seq_length': 12}, VOCAB)
    return path


def assert_holds(path, expected):
    arrays = read_shard(path, VOCAB)
    assert tuple(arrays) == ARRAYS
    for name in ARRAYS:
        assert arrays[name].dtype == WHOLE[name].dtype
        assert (arrays[name] == expected[name]).all()


def test_round_trip(shard):
    with np.load(shard, allow_pickle=False) as plain:
        assert set(plain.files) == set(ARRAYS)
        for name in ARRAYS:
            expected = np.float32 if name == 'masked_lm_weights' else np.int32
            assert plain[name].dtype == expected
            assert (plain[name] == WHOLE[name]).all()
    assert_holds(shard, WHOLE)
    assert read_settings(shard) == {
        'max_seq_length': 12,
        'vocab_fingerprint': fingerprint(VOCAB),
        'instances': 11,
    }


def test_same_arrays_make_the_same_bytes(shard, tmp_path):
    """Neither their division into blocks nor the time of writing makes a difference."""
    write_npz(tmp_path / 'b.npz', [WHOLE], {'max_seq_length': 12}, VOCAB)
    assert shard.read_bytes() == (tmp_path / 'b.npz').read_bytes()
    with zipfile.ZipFile(shard) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_nothing_is_left_of_a_shard_that_failed(tmp_path):
    def blocks():
        yield BLOCKS[0]
        raise ToolkitError('no more')

    for write in (lambda p, b: write_npz(p, b, {}, VOCAB), write_recordio):
        with pytest.raises(ToolkitError, match='no more'):
            write(tmp_path / 'a.npz', blocks())
        assert list(tmp_path.iterdir()) == []


def test_full_disk(tmp_path):
    """The system's error has no file name, but the sentence has one."""

    def blocks():
        yield BLOCKS[0]
        raise OSError(28, 'No space left on device')

    with pytest.raises(ToolkitError, match=r'a\.npz: could not be written \(No space'):
        write_npz(tmp_path / 'a.npz', blocks(), {}, VOCAB)


# Vocabularies.


def test_a_fingerprint_of_other_tokens(shard):
    """The fingerprint in the settings is not trusted: the ids could be anything."""
    rewrite(
        shard,
        vocabulary=np.frombuffer(json.dumps(['x'] * 70000).encode(), np.uint8),
        input_ids=WHOLE['input_ids'].astype(np.int64) + 60000,
    )
    with pytest.raises(ToolkitError, match='a vocabulary whose tokens are not'):
        read_shard(shard, VOCAB)


def test_mapped_ids_that_need_a_larger_type(shard):
    """A file may store ids below 256 as bytes, while the model has larger ids for the tokens."""
    small = np.where(WHOLE['input_ids'] < 256, WHOLE['input_ids'], 5)
    rewrite(shard, input_ids=small.astype(np.uint8), masked_lm_ids=small[:, :3].astype(np.uint8))
    other = Vocab([*SPECIAL_TOKENS.values(), *reversed(WORDS)])
    arrays = read_shard(shard, other)
    for theirs, ours in zip(arrays['input_ids'].ravel(), small.ravel()):
        assert other.idx_to_token[theirs] == VOCAB.idx_to_token[ours]


@pytest.mark.parametrize('text', ['[1]', '"ab"', '{"a": 1}', '[["a"]]', '[' * 10000, '["\\ud800"]'])
def test_an_unreadable_vocabulary(shard, text):
    rewrite(shard, vocabulary=np.frombuffer(text.encode(), np.uint8))
    assert_refused(shard, 'the vocabulary that it was made with cannot be read')


@pytest.mark.parametrize('count', [10, 10**30, -1])
def test_another_number_of_instances(shard, count):
    settings = json.dumps({'vocab_fingerprint': fingerprint(VOCAB), 'instances': count})
    rewrite(shard, settings=np.array(settings))
    assert_refused(shard, f'the settings count {count} instances')


def test_tokens_in_another_order(shard):
    """Ids are mapped: padding, labels and text still mean the same tokens."""
    order = np.random.default_rng(3).permutation(len(VOCAB))
    other = Vocab([VOCAB.idx_to_token[i] for i in order])
    arrays = read_shard(shard, other)
    for name in ('input_ids', 'masked_lm_ids'):
        assert arrays[name].dtype == WHOLE[name].dtype
        assert not (arrays[name] == WHOLE[name]).all()
        for theirs, ours in zip(arrays[name].ravel(), WHOLE[name].ravel()):
            assert other.idx_to_token[theirs] == VOCAB.idx_to_token[ours]
    for name in set(ARRAYS) - {'input_ids', 'masked_lm_ids'}:
        assert (arrays[name] == WHOLE[name]).all()


@pytest.mark.parametrize(
    'words, example',
    [(WORDS[:-1], "'w299'"), ([*WORDS, 'more'], '305 and 306'), ([*WORDS[:-1], 'x'], "'w299'")],
)
def test_other_tokens(shard, words, example):
    other = Vocab([*SPECIAL_TOKENS.values(), *words])
    with pytest.raises(ToolkitError, match='a vocabulary whose tokens are not') as error:
        read_shard(shard, other)
    assert example in str(error.value)
    assert_one_sentence(error, shard)


# Damage.


def assert_one_sentence(error, path):
    text = str(error.value)
    assert text.startswith(f'{path}: ')
    assert '\n' not in text
    assert 'make it again' in text


def read_description(path):
    """Return the settings, as a string, and the vocabulary, as bytes, of a shard."""
    with zipfile.ZipFile(path) as archive:
        description = json.loads(archive.comment)
    offset, size = description['vocabulary']
    return description['settings'], zlib.decompress(path.read_bytes()[offset : offset + size])


def rewrite(path, **changes):
    """Save the shard as earlier versions did, with arrays replaced, or left out if None."""
    settings, tokens = read_description(path)
    arrays = {'settings': np.array(settings), 'vocabulary': np.frombuffer(tokens, np.uint8)}
    with np.load(path) as old:
        arrays.update({name: old[name].astype(WHOLE[name].dtype) for name in old.files})
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def assert_refused(path, words):
    with pytest.raises(ToolkitError, match=words) as error:
        read_shard(path, VOCAB)
    assert_one_sentence(error, path)


def test_rewriting_alone_does_no_harm(shard):
    rewrite(shard)
    assert_holds(shard, WHOLE)


@pytest.mark.parametrize('name', [*ARRAYS, 'settings', 'vocabulary'])
def test_missing_array(shard, name):
    rewrite(shard, **{name: None})
    assert_refused(shard, f'the array {name} is missing')


@pytest.mark.parametrize('name', ARRAYS)
def test_object_array(shard, name):
    """The original wrote such arrays, which only pickle opens, and pickle can execute anything."""
    rows = np.empty(11, dtype=object)
    rows[:] = [list(row) for row in np.zeros((11, 3), dtype=int)]
    rewrite(shard, **{name: rows})
    assert_refused(shard, f'the array {name} cannot be read .*not one of plain numbers or text')


def changed(name, index, value):
    array = WHOLE[name].astype(np.int64)
    array[index] = value
    return array


@pytest.mark.parametrize(
    'name, index, value',
    [
        ('input_ids', (10, 11), len(VOCAB)),
        ('input_ids', (0, 0), -1),
        ('masked_lm_ids', (3, 2), len(VOCAB)),
        ('segment_ids', (0, 0), 2),
        ('masked_lm_weights', (0, 0), 2),
        ('next_sentence_labels', 5, 2),
        ('valid_lengths', 5, 13),
        ('valid_lengths', 5, 1),
        ('valid_lengths', 5, -3),
        ('masked_lm_positions', (2, 0), int(WHOLE['valid_lengths'][2])),
    ],
)
def test_impossible_values(shard, name, index, value):
    rewrite(shard, **{name: changed(name, index, value)})
    assert_refused(shard, 'which is out of range')


def test_the_last_id_is_possible(shard):
    ids = changed('input_ids', (0, 0), len(VOCAB) - 1)
    rewrite(shard, input_ids=ids)
    assert_holds(shard, {**WHOLE, 'input_ids': ids})


@pytest.mark.parametrize(
    'name, array, words',
    [
        ('input_ids', WHOLE['input_ids'].astype(np.float32), 'float32, not whole numbers'),
        ('segment_ids', WHOLE['segment_ids'][:, :5], 'segment_ids has the shape'),
        ('masked_lm_ids', WHOLE['masked_lm_ids'][:, :1], 'masked_lm_ids has the shape'),
        ('valid_lengths', WHOLE['valid_lengths'][:, None], 'valid_lengths has the shape'),
        ('input_ids', WHOLE['input_ids'][0], 'input_ids has the shape'),
        (
            'next_sentence_labels',
            WHOLE['next_sentence_labels'][:-1],
            'labels does not have as many',
        ),
        ('settings', np.array('{"a": 1}'), 'the settings'),
        ('settings', np.array('no json'), 'the settings'),
        ('settings', np.arange(3), 'the settings'),
        ('vocabulary', np.arange(9, dtype=np.uint8), 'the vocabulary'),
        ('vocabulary', np.array('3'), 'the vocabulary'),
    ],
)
def test_wrong_arrays(shard, name, array, words):
    rewrite(shard, **{name: array})
    assert_refused(shard, words)


def test_fewer_rows_in_some_arrays(shard):
    rewrite(shard, **{name: WHOLE[name][:-1] for name in ARRAYS[2:5]})
    assert_refused(shard, 'masked_lm_positions does not have as many rows as input_ids')


def test_no_instances(shard):
    rewrite(shard, **{name: WHOLE[name][:0] for name in ARRAYS})
    assert_refused(shard, 'it holds no instances')


def test_truncated(shard):
    data = shard.read_bytes()
    for size in {*range(0, len(data), 97), len(data) - 1}:
        shard.write_bytes(data[:size])
        assert_refused(shard, 'not an .npz file, or not a whole one|settings .* cannot be read')


def test_flipped_bytes(shard):
    """Each seventh byte is flipped in turn: the file is refused in a sentence or reads the same."""
    data = shard.read_bytes()
    refusals = 0
    for place in range(0, len(data), 7):
        shard.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            arrays = read_shard(shard, VOCAB)
        except ToolkitError as error:
            assert str(error).startswith(f'{shard}: ')
            refusals += 1
        else:
            assert all((arrays[name] == WHOLE[name]).all() for name in ARRAYS)
    assert refusals > len(data) / 7 * 0.7


def test_other_files(tmp_path):
    path = tmp_path / 'a.npz'
    path.write_text('The quick brown fox.\n' * 100)
    assert_refused(path, 'not an .npz file')
    with zipfile.ZipFile(path, 'w') as archive:
        for name in (*ARRAYS, 'settings', 'vocabulary'):
            archive.writestr(f'{name}.npy', 'text')
    assert_refused(path, 'the array settings cannot be read')
    np.save(tmp_path / 'b.npy', np.arange(3))
    assert_refused(tmp_path / 'b.npy', 'not an .npz file')
    with pytest.raises(FileNotFoundError):
        read_shard(tmp_path / 'c.npz', VOCAB)


# RecordIO.


def test_recordio(tmp_path):
    """MXNet can read it, and finds the same as GluonNLP's script wrote."""
    mxnet = pytest.importorskip('mxnet')

    path = tmp_path / 'a.rec'
    write_recordio(path, iter(BLOCKS))
    records = mxnet.recordio.MXIndexedRecordIO(str(tmp_path / 'a.idx'), str(path), 'r')
    assert records.keys == list(range(11))
    for key in (10, *range(11)):
        record = json.loads(records.read_idx(key))
        length = int(WHOLE['valid_lengths'][key])
        for name in ARRAYS[:5]:
            assert record[name] == WHOLE[name][key].tolist()
        assert isinstance(record['masked_lm_weights'][0], float)
        assert record['next_sentence_labels'] == [WHOLE['next_sentence_labels'][key]]
        assert record['valid_lengths'] == [length]
        assert record['input_mask'] == [1] * length + [0] * (12 - length)
        assert record['segment_a_lengths'] == [3]
        assert record['segment_b_lengths'] == [length - 3]
        assert record['masked_lm_valid_lengths'] == [WHOLE['masked_lm_weights'][key].sum()]
        assert len(record) == 11
    records.close()


# Shards of other programs, and for other programs.

# As GluonNLP's script writes them: [CLS] w0 [MASK] [SEP] w2 [SEP], and a longer one.
SPECIAL = {name: VOCAB[name] for name in ('[CLS]', '[SEP]', '[MASK]', '[PAD]')}
CLS, SEP, MASK, PAD = SPECIAL.values()
W0, W1, W2 = (VOCAB[f'w{i}'] for i in range(3))
ORIGINAL = {
    'input_ids': np.array(
        [[CLS, W0, MASK, SEP, W2, SEP, PAD, PAD], [CLS, W2, SEP, MASK, W0, W1, MASK, SEP]], np.int32
    ),
    'masked_lm_ids': np.array([[W1, 0], [W0, W2]], np.int32),
    'masked_lm_positions': np.array([[2, 0], [3, 6]], np.int32),
    'masked_lm_weights': np.array([[1, 0], [1, 1]], np.float32),
    'next_sentence_labels': np.array([0, 1], np.int32),
    'segment_ids': np.array([[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1]], np.int32),
    'valid_lengths': np.array([6, 8], np.int32),
}


@pytest.mark.parametrize('dtypes', [{}, dict.fromkeys(ORIGINAL, np.int64)], ids=['int32', 'int64'])
@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_a_shard_of_the_original_is_read(tmp_path, dtypes, save):
    path = tmp_path / 'original.npz'
    save(
        path,
        **{name: array.astype(dtypes.get(name, array.dtype)) for name, array in ORIGINAL.items()},
    )
    assert read_settings(path) == {'instances': 2}
    arrays = read_shard(path, VOCAB)
    assert sorted(arrays) == sorted(ARRAYS)
    for name, array in ORIGINAL.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == WHOLE[name].dtype


@pytest.mark.parametrize(
    'name, value, words',
    [
        ('masked_lm_weights', 0.5, 'masked_lm_weights holds float32, not whole numbers'),
        ('masked_lm_weights', np.nan, 'masked_lm_weights holds float32, not whole numbers'),
        ('input_ids', len(VOCAB), 'input_ids holds 305, which is out of range'),
        ('valid_lengths', 9, 'valid_lengths holds 9, which is out of range'),
    ],
)
def test_impossible_values_in_a_shard_of_the_original(tmp_path, name, value, words):
    arrays = {key: array.copy() for key, array in ORIGINAL.items()}
    arrays[name].flat[0] = value
    np.savez(tmp_path / 'a.npz', **arrays)
    assert_refused(tmp_path / 'a.npz', words)


def test_an_incomplete_shard_of_the_original(tmp_path):
    arrays = {name: array for name, array in ORIGINAL.items() if name != 'segment_ids'}
    np.savez(tmp_path / 'a.npz', **arrays)
    assert_refused(tmp_path / 'a.npz', 'the array segment_ids is missing')


def test_gluonnlp_reads_a_shard_row_by_row(shard):
    """Its reader takes every array for a column, and its batches have no uint16."""
    nlp = pytest.importorskip('gluonnlp')
    dataset = nlp.data.NumpyDataset(str(shard))
    assert dataset.keys == sorted(ARRAYS)
    assert len(dataset) == 11
    for number in range(11):
        for name, cell in zip(dataset.keys, dataset[number]):
            np.testing.assert_array_equal(cell, WHOLE[name][number])
    stack = nlp.data.batchify.Tuple(*[nlp.data.batchify.Stack() for _ in ARRAYS])
    for name, column in zip(dataset.keys, stack([dataset[i] for i in range(11)])):
        assert column.dtype == (np.float32 if name == 'masked_lm_weights' else np.int32)
        np.testing.assert_array_equal(column.asnumpy(), WHOLE[name])


def test_other_readers_find_a_sound_zip_file(shard):
    with zipfile.ZipFile(shard) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f'{name}.npy' for name in ARRAYS]
    settings, tokens = read_description(shard)
    assert json.loads(settings)['instances'] == 11
    assert json.loads(tokens) == VOCAB.idx_to_token


@pytest.mark.parametrize(
    'name, value',
    [
        ('settings', 'no json'),
        ('settings', 3),
        ('settings', '{"a": 1}'),
        ('vocabulary', [0, 10]),
        ('vocabulary', [-1, 10]),
        ('vocabulary', [2**70, 10]),
        ('vocabulary', [0, 2**70]),
        ('vocabulary', [1.5, 10]),
        ('vocabulary', 'abc'),
        ('vocabulary', None),
    ],
)
def test_a_false_description(shard, name, value):
    with zipfile.ZipFile(shard, 'a') as archive:
        description = {**json.loads(archive.comment), name: value}
        archive.comment = json.dumps(description).encode()
    assert_refused(shard, f'the {name} that it was made with cannot be read|beside the arrays')


def test_a_vocabulary_that_unpacks_without_end(tmp_path):
    """100 MB of zeros from 100 KB are not unpacked."""
    path = tmp_path / 'a.npz'
    write_npz(path, iter(BLOCKS), {}, VOCAB)
    with zipfile.ZipFile(path) as archive:
        description = json.loads(archive.comment)
    bomb = zlib.compress(bytes(100 * 2**20))
    np.savez(path, **{name: WHOLE[name] for name in ARRAYS})
    with zipfile.ZipFile(path, 'a') as archive:
        description['vocabulary'] = [archive.start_dir, len(bomb)]
        archive.fp.seek(archive.start_dir)
        archive.fp.write(bomb)
        archive.start_dir = archive.fp.tell()
        archive.comment = json.dumps(description).encode()
    assert_refused(path, 'what is stored beside the arrays cannot be read .*it does not end')
