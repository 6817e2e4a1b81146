"""``bert.gluon`` gives a user's own program what the scripts have, one row at a time."""

import csv
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from documents import blocks

from bert import gluon
from bert.model.loading import load_bert
from bert.system.errors import ToolkitError, UsageError
from bert.tasks.files import read_glue
from bert.tasks.metrics import compute
from bert.tasks.table import TASKS
from bert.text.encoding import encode, pad_batch
from bert.text.tokenizer import build_tokenizer

import gluonnlp as nlp  # isort: skip
import mxnet as mx  # isort: skip

DATASETS = {
    'CoLA': gluon.COLADataset,
    'SST-2': gluon.SSTDataset,
    'MRPC': gluon.MRPCDataset,
    'STS-B': gluon.STSBDataset,
    'QQP': gluon.QQPDataset,
    'MNLI': gluon.MNLIDataset,
    'QNLI': gluon.QNLIDataset,
    'RTE': gluon.RTEDataset,
    'WNLI': gluon.WNLIDataset,
}
SAMPLE = ROOT / 'sample_glue'


@pytest.fixture(scope='module')
def vocab(tiny_bert):
    return load_bert(str(tiny_bert))[1]


def test_there_is_a_data_set_for_each_task():
    assert {name: dataset.task for name, dataset in DATASETS.items()} == {
        name: TASKS[name] for name in DATASETS
    }
    assert set(DATASETS) >= {'CoLA', 'MNLI', 'MRPC', 'QNLI', 'QQP', 'RTE', 'SST-2', 'STS-B', 'WNLI'}


def read_sample(name):
    with open(SAMPLE / 'MRPC' / f'{name}.tsv', encoding='utf8', newline='') as file:
        return list(csv.reader(file, delimiter='\t', quoting=csv.QUOTE_NONE))[1:]


def test_a_data_set_of_pairs(monkeypatch):
    """Compared with the file, read by the csv module."""
    monkeypatch.setenv('GLUE_DIR', str(SAMPLE))
    dataset = gluon.MRPCDataset('dev')
    assert isinstance(dataset, mx.gluon.data.Dataset)
    assert [tuple(row) for row in dataset] == [
        (row[3], row[4], row[0]) for row in read_sample('dev')
    ]
    assert list(gluon.MRPCDataset('dev', root=SAMPLE / 'MRPC')) == list(dataset)
    assert len(gluon.MRPCDataset()) == len(read_sample('train'))
    assert dataset.get_labels() == gluon.MRPCDataset.get_labels() == ['0', '1']


def test_a_data_set_of_numbers_and_a_test_set(tmp_path):
    columns = '\t'.join(f'c{i}' for i in range(10))
    row = '\t'.join(['x'] * 7 + ['the old film', 'a new film', '3.250'])
    (tmp_path / 'dev.tsv').write_text(f'{columns}\n{row}\n')
    (tmp_path / 'test.tsv').write_text(f'{columns}\n{row}\n')
    assert list(gluon.STSBDataset('dev', tmp_path)) == [('the old film', 'a new film', 3.25)]
    assert list(gluon.STSBDataset('test', tmp_path)) == [('the old film', 'a new film')]
    assert gluon.STSBDataset.get_labels() is None


@pytest.mark.parametrize(
    'dataset, segment, names',
    [
        (gluon.MRPCDataset, 'valid', 'train, dev, test'),
        (
            gluon.MNLIDataset,
            'dev',
            'train, dev_matched, dev_mismatched, test_matched, test_mismatched, diagnostic',
        ),
    ],
)
def test_an_unknown_segment(dataset, segment, names):
    with pytest.raises(UsageError, match=f"no segment '{segment}': it has {names}$"):
        dataset(segment)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ToolkitError, match=f'{tmp_path}/dev.tsv does not exist'):
        gluon.RTEDataset('dev', tmp_path)


def rows_of_both_paths(texts, vocab, lower, length):
    """Return the rows of the transform with our tokenizer, and of the scripts' path."""
    transform = gluon.BERTSentenceTransform(
        gluon.BERTTokenizer(vocab, lower), length, pad=True, pair=len(texts[0]) == 2
    )
    encoded = encode(texts, build_tokenizer(vocab, lower), vocab, length)
    for number, row in enumerate(texts):
        ids, types, (valid_length,) = pad_batch(encoded, np.array([number]))
        missing = (0, length - ids.shape[1])
        yield (
            transform(row),
            (np.pad(ids[0], missing, constant_values=encoded.padding), valid_length),
            np.pad(types[0], missing),
        )


@pytest.mark.parametrize('length', [12, 128])
def test_rows_are_those_of_the_scripts_and_of_gluonnlp(vocab, length):
    texts = read_glue(SAMPLE, TASKS['MRPC'], TASKS['MRPC'].dev[0]).texts[:40]
    theirs = nlp.data.BERTSentenceTransform(
        nlp.data.BERTTokenizer(vocab, lower=True), length, pad=True, pair=True
    )
    with_theirs = gluon.BERTSentenceTransform(nlp.data.BERTTokenizer(vocab, lower=True), length)
    for (ours, (ids, valid_length), types), row in zip(
        rows_of_both_paths(texts, vocab, True, length), texts
    ):
        np.testing.assert_array_equal(ours[0], ids)
        assert ours[1] == valid_length
        np.testing.assert_array_equal(ours[2], types)
        for mine, other, adapted in zip(ours, theirs(row), with_theirs(row)):
            assert mine.dtype == other.dtype == np.int32
            np.testing.assert_array_equal(mine, other)
            np.testing.assert_array_equal(mine, adapted)


@pytest.mark.parametrize('name', ['MRPC', 'CoLA', 'STS-B'])
def test_real_rows(real_glue, published_vocabularies, monkeypatch, name):
    """All rows of a dev set, with the vocabulary of BERT base."""
    from bert.checkpoints.gluon import gluon_vocab
    from bert.text.vocab import load_vocab

    monkeypatch.setenv('GLUE_DIR', str(real_glue))
    vocab = gluon_vocab(load_vocab(published_vocabularies / 'bert-base-uncased-vocab.txt'))
    texts = [row[:-1] for row in DATASETS[name]('dev')]
    assert texts == read_glue(real_glue, TASKS[name], TASKS[name].dev[0]).texts
    for ours, (ids, valid_length), types in rows_of_both_paths(texts, vocab, True, 128):
        np.testing.assert_array_equal(ours[0], ids)
        assert ours[1] == valid_length
        np.testing.assert_array_equal(ours[2], types)


def test_labels(vocab):
    tokenizer = gluon.BERTTokenizer(vocab)
    transform = gluon.BERTDatasetTransform(
        tokenizer, 16, class_labels=['no', 'yes'], label_alias={'1': 'yes'}, pad=False
    )
    for label, number in (('no', 0), ('yes', 1), ('1', 1)):
        ids, valid_length, types, found = transform('the film', 'a film', label)
        assert found.dtype == np.int32 and found.tolist() == [number]
        assert [vocab.idx_to_token[i] for i in ids] == [
            *('[CLS]', 'the', 'film', '[SEP]'),
            *('a', 'film', '[SEP]'),
        ] or len(ids) == valid_length
        assert types.tolist() == [0] * types.tolist().index(1) + [1] * types.tolist().count(1)
    with pytest.raises(UsageError, match="'maybe' is not one of no, yes, 1"):
        transform(('the film', 'a film', 'maybe'))
    numbers = gluon.BERTDatasetTransform(tokenizer, 16, pair=False)
    *_, found = numbers(('the film', 2.5))
    assert found.dtype == np.float32 and found.tolist() == [2.5]
    unlabelled = gluon.BERTDatasetTransform(tokenizer, 16, has_label=False)
    assert len(unlabelled(('the film', 'a film'))) == 3
    with pytest.raises(UsageError, match='a row has 1 texts, but the transform needs 2'):
        unlabelled(('the film',))


def test_the_metric_is_of_the_whole_set():
    """F1 of all batches together differs from the mean over the batches."""
    metric = gluon.MRPCDataset.get_metric()
    assert np.isnan(metric.get()[1]).all()
    outputs = np.array([[0, 1], [0, 1], [1, 0], [1, 0], [0, 1.0]])
    labels = np.array([1, 0, 1, 0, 1])
    for rows in (slice(0, 3), slice(3, 5)):
        metric.update([mx.nd.array(labels[rows])], [mx.nd.array(outputs[rows])])
    expected = compute(('accuracy', 'f1'), labels, outputs.argmax(axis=1))
    assert dict(zip(*metric.get())) == expected
    assert expected['f1'] == pytest.approx(2 / 3)  # 2 right, 1 false, 1 missed
    numbers = gluon.STSBDataset.get_metric()
    numbers.update([mx.nd.array([1, 2, 3])], [mx.nd.array([[2.0], [4.0], [6.0]])])
    assert dict(zip(*numbers.get())) == pytest.approx({'pearsonr': 1, 'spearmanr': 1})


def test_models_have_the_defaults_of_gluonnlp(tiny_bert):
    bert, _ = gluon.get_model(str(tiny_bert))
    outputs = bert(
        mx.nd.ones((2, 7)), mx.nd.zeros((2, 7)), mx.nd.array([7, 4]), mx.nd.array([[1, 2], [2, 3]])
    )
    vocab_size = bert.settings['vocab_size']
    assert [array.shape for array in outputs] == [(2, 7, 16), (2, 16), (2, 2), (2, 2, vocab_size)]


@pytest.mark.parametrize(
    'name, full',
    [('wiki_cn', 'wiki_cn_cased'), ('wiki_multilingual', 'wiki_multilingual_uncased')],
)
def test_the_spellings_of_the_zoo(monkeypatch, name, full):
    from bert.checkpoints import zoo

    asked = []

    def fetch(*names):
        asked.append(names)
        raise ToolkitError('not here')

    monkeypatch.setattr(zoo, 'fetch', fetch)
    for spelling in (name, full):
        with pytest.raises(ToolkitError, match='not here'):
            gluon.get_model('bert_12_768_12', spelling)
    assert asked == [('bert_12_768_12', full)] * 2


def test_instances(vocab):
    """Each is checked against the definition: where a token was masked, the text has its label."""
    tokenizer = gluon.BERTTokenizer(vocab)
    path = ROOT / 'sample_text.txt'
    make = gluon.create_training_instances
    instances = make([str(path)], tokenizer, max_seq_length=64, dupe_factor=2, rng=3)
    assert instances == make([str(path)], tokenizer, 64, 2, rng=np.random.default_rng(3))
    assert len(instances) > 20
    joined = ' '.join(tokenizer(path.read_text(encoding='utf8').replace('\n', ' ')))
    for instance in instances:
        tokens = list(instance.tokens)
        assert len(instance.segment_ids) == len(tokens) <= 64
        assert tokens[0] == '[CLS]' and tokens[-1] == '[SEP]' and tokens.count('[SEP]') == 2
        assert 1 <= len(instance.masked_lm_labels) == len(instance.masked_lm_positions) <= 20
        for position, label in zip(instance.masked_lm_positions, instance.masked_lm_labels):
            tokens[position] = label
        middle = tokens.index('[SEP]')
        assert instance.segment_ids == [0] * (middle + 1) + [1] * (len(tokens) - middle - 1)
        for segment in (tokens[1:middle], tokens[middle + 1 : -1]):
            assert ' '.join(segment) in joined
    assert {instance.is_random_next for instance in instances} == {False, True}


def documented_loop():
    """Return the training loop of docs/programs.rst."""
    ((_, code),) = blocks('docs/programs.rst', 'python')
    return f'{code}\n'


def write_learnable(folder):
    """Write pairs of which half are equal sentences, the others of other words."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name, count in (('train', 320), ('dev', 40)):
        lines = ['label\ta\tb\tfirst\tsecond']
        for label in rng.permutation(count) % 2:
            first = ' '.join(['good'] * rng.integers(2, 6))
            second = first if label else ' '.join(['dog'] * rng.integers(2, 6))
            lines.append(f'{label}\t1\t2\t{first}\t{second}')
        (folder / f'{name}.tsv').write_text('\n'.join(lines))


def test_the_documented_loop(tiny_bert, tmp_path):
    code = documented_loop()
    assert len([line for line in code.splitlines() if line]) <= 33
    # With the small model and so few rows, a larger rate learns something in three epochs.
    code = code.replace('learning_rate=5e-5', 'learning_rate=1e-3')
    write_learnable(tmp_path / 'MRPC')
    path = tmp_path / 'loop.py'
    path.write_text(code)
    ran = subprocess.run(
        [sys.executable, str(path), str(tiny_bert)],
        env={**os.environ, 'GLUE_DIR': str(tmp_path), 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 3
    for epoch, line in enumerate(lines, 1):
        assert re.fullmatch(rf"{epoch} [0-9.]+ \['accuracy', 'f1'\] \[[0-9.]+, [0-9.]+\]", line)
    assert float(lines[-1].split('[')[-1].split(',')[0]) > 0.9
