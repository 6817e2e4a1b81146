"""Comparisons of models that are the same and of models that differ."""

import golden
import numpy as np

from bert.checkpoints import writing
from bert.checkpoints.contents import reorder
from bert.convert import comparison
from bert.convert.__main__ import main
from bert.system.errors import ToolkitError
from bert.text.vocab import Vocab


def test_nan_is_not_the_same():
    assert comparison.is_same(np.ones(3), np.ones(3))
    assert not comparison.is_same(np.full(3, np.nan), np.ones(3))
    assert not comparison.is_same(np.ones(2), np.ones(3))
    assert comparison.is_same(np.array([1000.01]), np.array([1000.0]))
    assert not comparison.is_same(np.array([0.01]), np.array([0.0]))


def compare(capsys, *names):
    """Return the printed lines, and the sentence of the error or None."""
    try:
        main(['--compare', *map(str, names)])
        sentence = None
    except ToolkitError as error:
        sentence = str(error)
    return capsys.readouterr().out.splitlines(), sentence


def test_a_model_is_the_same_as_its_conversion(tmp_path, capsys):
    source, target = golden.FOLDER / 'hf_pretraining', tmp_path / 'gluon'
    main([str(source), str(target), '--to', 'gluon'])
    capsys.readouterr()
    lines, sentence = compare(capsys, source, target)
    assert sentence is None
    assert lines[-1] == 'the same model'
    rows = [line.split() for line in lines[:-1]]
    assert all(row[2] == '0.0e+00' for row in rows)
    # 2 layers of 16, 3 embeddings and their norm, the pooler, 5 + 2 of the heads, 4 outputs
    assert len(rows) == 32 + 5 + 2 + 5 + 2 + 4
    assert ['word_embed.0.weight', '18x8', '0.0e+00'] in rows


def test_other_ids_of_the_same_tokens(tmp_path, capsys):
    """A model is compared with itself with its vocabulary in another order."""
    source = golden.read(golden.FOLDER / 'hf_pretraining')
    order = Vocab(source.vocab.idx_to_token[::-1])
    (tmp_path / 'other').mkdir()
    writing.write_gluon(tmp_path / 'other', reorder(source, order))
    lines, sentence = compare(capsys, golden.FOLDER / 'hf_pretraining', tmp_path / 'other')
    assert sentence is None
    assert lines[0] == 'the same tokens have different ids: compared token by token'
    assert lines[-1] == 'the same model'
    theirs = golden.read(tmp_path / 'other').weights.bert
    for name in ('word_embed.0.weight', 'decoder.3.bias'):
        ours = source.weights.bert[name]
        assert np.ptp(ours) > 0
        np.testing.assert_array_equal(ours[::-1], theirs[name], err_msg=name)


def test_models_that_differ(tmp_path, capsys):
    source = golden.read(golden.FOLDER / 'hf_pretraining')
    changed = {**source.weights.bert}
    del changed['classifier.weight'], changed['classifier.bias']
    changed['pooler.bias'] = changed['pooler.bias'] + 0.5
    (tmp_path / 'other').mkdir()
    writing.write_gluon(
        tmp_path / 'other', source._replace(weights=source.weights._replace(bert=changed))
    )
    lines, sentence = compare(capsys, golden.FOLDER / 'hf_pretraining', tmp_path / 'other')
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows['pooler.bias'] == ['8', '5.0e-01']
    assert rows['classifier.bias'] == ['2', 'only', 'in', str(golden.FOLDER / 'hf_pretraining')]
    assert rows['encoder.position_weight'] == ['24x8', '0.0e+00']
    assert sentence.startswith(
        f'{golden.FOLDER / "hf_pretraining"} and {tmp_path / "other"} differ: '
    )
    assert 'classifier.bias is only in ' in sentence


def test_models_of_other_sizes(capsys):
    lines, sentence = compare(capsys, golden.FOLDER / 'hf_encoder', golden.FOLDER / 'hf_classifier')
    assert lines[0].split() == ['activation', 'approx_gelu', 'and', 'gelu']
    assert 'activation' in sentence
