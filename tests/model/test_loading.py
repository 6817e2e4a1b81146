"""The models: stock GluonNLP's numbers, the model zoo, directories and casing."""

import json

import numpy as np
import pytest
from conftest import tiny_vocab, write_tiny_bert

from bert.model.build import build_bert, build_head
from bert.model.encoder import SelfAttention
from bert.model.loading import load_bert
from bert.system.errors import ToolkitError, UsageError
from bert.text.vocab import Vocab, plain_vocab

import gluonnlp as nlp  # isort: skip
import mxnet as mx  # isort: skip


def batch(rows=6, length=9, tokens=196):
    """Return ids, token types and valid lengths from 1 to the length; padding is random tokens."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, tokens, (rows, length))
    types = (np.arange(length) >= rng.integers(0, length, (rows, 1))).astype(int)
    lengths = np.linspace(1, length, rows).round()
    return [mx.nd.array(array) for array in (ids, types, lengths)]


def stock(tiny_bert, dropout):
    """Build an uninitialised classifier of plain gluonnlp, with its own attention."""
    config = json.loads((tiny_bert / 'config.json').read_text())
    encoder = nlp.model.bert.BERTEncoder(
        num_layers=config['num_hidden_layers'],
        units=config['hidden_size'],
        hidden_size=config['intermediate_size'],
        num_heads=config['num_attention_heads'],
        max_length=config['max_position_embeddings'],
        dropout=0.0,
    )
    bert = nlp.model.BERTModel(
        encoder,
        vocab_size=config['vocab_size'],
        token_type_vocab_size=2,
        units=config['hidden_size'],
        embed_size=config['hidden_size'],
        use_decoder=False,
        use_classifier=False,
    )
    return nlp.model.BERTClassifier(bert, num_classes=2, dropout=dropout)


# --- equality with gluonnlp


@pytest.mark.parametrize('hybridized', [False, True])
def test_saved_parameters_give_the_same_numbers_in_plain_gluonnlp(tiny_bert, tmp_path, hybridized):
    """Its attention and LayerNorm equal ours, for valid lengths from 1 to the full length."""
    ours = build_head(load_bert(str(tiny_bert))[0], 2, [mx.cpu()])
    ours.save_parameters(str(tmp_path / 'model.params'))
    theirs = stock(tiny_bert, dropout=0.1)
    theirs.load_parameters(str(tmp_path / 'model.params'))
    cells = [model.bert.encoder.transformer_cells[0].attention_cell for model in (ours, theirs)]
    assert type(cells[1]) is nlp.model.bert.DotProductSelfAttentionCell
    assert type(cells[0]) is SelfAttention
    if hybridized:
        ours.hybridize(static_alloc=True)
        theirs.hybridize(static_alloc=True)
    for length in (9, 1, 13):
        inputs = batch(length=length)
        found, expected = (model(*inputs).asnumpy() for model in (ours, theirs))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(expected[:, 0]) > 0.01  # the rows differ, so the comparison is meaningful
    for model in (ours, theirs):
        model.hybridize(hybridized)  # again, as a graph is made for a fixed number of inputs
    without = [model(*inputs[:2]).asnumpy() for model in (ours, theirs)]
    np.testing.assert_allclose(*without, rtol=1e-5, atol=1e-6)
    assert np.abs(without[0] - found).max() > 1e-3  # and so does the mask


@pytest.mark.parametrize('hybridized', [False, True])
def test_gradients_equal_those_of_plain_gluonnlp(tiny_bert_without_dropout, tmp_path, hybridized):
    folder = tiny_bert_without_dropout
    ours = build_head(load_bert(str(folder))[0], 2, [mx.cpu()], dropout=0.0)
    ours.save_parameters(str(tmp_path / 'model.params'))
    theirs = stock(folder, dropout=0.0)
    theirs.load_parameters(str(tmp_path / 'model.params'))
    inputs = batch()
    gradients = []
    for model in (ours, theirs):
        if hybridized:
            model.hybridize()
        with mx.autograd.record():
            loss = (model(*inputs) ** 2).sum()
        loss.backward()
        gradients.append(
            {
                name: p.grad().asnumpy()
                for name, p in model._collect_params_with_prefix().items()
                if p.grad_req != 'null'
            }
        )
    assert set(gradients[0]) == set(gradients[1])
    largest = max(np.abs(gradient).max() for gradient in gradients[1].values())
    for name, expected in gradients[1].items():
        np.testing.assert_allclose(
            gradients[0][name], expected, rtol=1e-3, atol=1e-5 * largest, err_msg=name
        )


def test_padding_does_not_matter(tiny_bert):
    """The results are the same with other tokens as padding, and with more of it."""
    model, _ = load_bert(str(tiny_bert))
    ids, types, lengths = batch()
    wider = mx.nd.concat(ids, ids, dim=1), mx.nd.concat(types, types, dim=1), lengths
    position = mx.nd.array(np.arange(9) >= lengths.asnumpy()[:, None])
    other = mx.nd.where(position, (ids + 7) % 196, ids), types, lengths
    _, expected = model(ids, types, lengths)
    for inputs in (wider, other):
        _, pooled = model(*inputs)
        np.testing.assert_allclose(pooled.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-6)


def test_regression_model_by_hand(tiny_bert):
    encoder, _ = load_bert(str(tiny_bert))
    model = build_head(encoder, None, [mx.cpu()])
    names = [name for name in model._collect_params_with_prefix() if 'bert.' not in name]
    assert names == ['regression.1.weight', 'regression.1.bias']
    inputs = batch()
    _, pooled = encoder(*inputs)
    weight, bias = (model.regression[1].weight.data(), model.regression[1].bias.data())
    expected = pooled.asnumpy() @ weight.asnumpy().T + bias.asnumpy()
    np.testing.assert_allclose(model(*inputs).asnumpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('num_classes', [None, 2, 5])
def test_a_new_head_is_normal(tiny_bert, num_classes):
    model = build_head(load_bert(str(tiny_bert))[0], num_classes, [mx.cpu()])
    head = model.regression if num_classes is None else model.classifier
    weight = head[-1].weight.data().asnumpy()
    assert weight.shape == (num_classes or 1, 16)
    assert 0.01 < weight.std() < 0.03
    assert not head[-1].bias.data().asnumpy().any()
    assert head[0]._rate == 0.1


# --- directories


def test_settings_of_a_model_are_those_it_was_built_with(tiny_bert):
    settings = {
        'num_layers': 3,
        'units': 12,
        'hidden_size': 20,
        'num_heads': 4,
        'max_length': 17,
        'token_type_vocab_size': 3,
        'dropout': 0.25,
        'layer_norm_eps': 1e-5,
        'activation': 'approx_gelu',
    }
    bert = build_bert(Vocab(tiny_vocab()), **settings)
    assert bert.settings == {**settings, 'vocab_size': 196}


def test_output_shapes(tiny_bert):
    bert, vocab = load_bert(str(tiny_bert))
    sequence, pooled = bert(*batch())
    assert (sequence.shape, pooled.shape) == ((6, 9, 16), (6, 16))
    assert isinstance(vocab, nlp.vocab.BERTVocab)
    assert vocab.idx_to_token == tiny_vocab()
    assert vocab[vocab.padding_token] == 0
    assert vocab['never seen'] == vocab['[UNK]'] == 1


def test_a_vocabulary_padded_to_a_round_size(tmp_path):
    """The embedding has 4 more rows than vocab.txt has lines; the log and the ids do not change."""
    folder = write_tiny_bert(tmp_path / 'bert')
    lines = (folder / 'vocab.txt').read_text().split('\n')
    (folder / 'vocab.txt').write_text('\n'.join(lines[:192]) + '\n')
    bert, vocab = load_bert(str(folder))
    assert len(vocab) == 196 == bert.word_embed[0].weight.shape[0]
    assert vocab.idx_to_token[:192] == tiny_vocab()[:192]
    assert vocab['less'] == vocab['[UNK]']
    assert bert(*batch())[1].shape == (6, 16)
    assert plain_vocab(vocab).idx_to_token == tiny_vocab()[:192]


def test_a_vocabulary_larger_than_the_embedding(tmp_path):
    folder = write_tiny_bert(tmp_path / 'bert')
    with open(folder / 'vocab.txt', 'a') as file:
        file.write('surplus\n')
    with pytest.raises(ToolkitError) as caught:
        load_bert(str(folder))
    assert str(caught.value) == (
        f'{folder}/vocab.txt: 197 tokens are more than the vocab_size of the configuration, 196'
    )


@pytest.mark.parametrize('source', ['no/such/folder', '/no/such/folder'])
def test_no_such_directory(source):
    with pytest.raises(UsageError) as caught:
        load_bert(source)
    assert str(caught.value) == f'there is no model directory {source}'


def test_several_devices_hold_the_same_weights(tiny_bert):
    contexts = [mx.cpu(0), mx.cpu(1)]
    model = build_head(load_bert(str(tiny_bert), ctx=contexts)[0], 2, contexts)
    outputs = [model(*(a.as_in_context(ctx) for a in batch())).asnumpy() for ctx in contexts]
    np.testing.assert_array_equal(*outputs)


# --- casing
