"""The attention weights and all encodings, as GluonNLP's own model gives them."""

import itertools

import numpy as np
import pytest

from bert.model import build_head, load_bert
from bert.system.errors import UsageError

import gluonnlp as nlp  # isort: skip
import mxnet as mx  # isort: skip

LENGTH, HEADS, LAYERS, UNITS = 9, 2, 2, 16
FLAGS = ('use_pooler', 'use_decoder', 'use_classifier', 'output_attention', 'output_all_encodings')


def theirs(bert, flags, path):
    """Build GluonNLP's model with the parameters of ours."""
    sizes = dict(bert.settings)
    vocab_size = sizes.pop('vocab_size')
    types = sizes.pop('token_type_vocab_size')
    outputs = {name: flags[name] for name in FLAGS if name.startswith('output')}
    encoder = nlp.model.BERTEncoder(**sizes, **outputs)
    heads = {name: flags[name] for name in FLAGS if name.startswith('use')}
    model = nlp.model.BERTModel(encoder, vocab_size, types, units=UNITS, embed_size=UNITS, **heads)
    bert.save_parameters(str(path))
    model.load_parameters(str(path))
    return model


def flat(outputs):
    """Return the shapes' structure and all arrays of nested outputs."""
    if isinstance(outputs, (list, tuple)):
        parts = [flat(part) for part in outputs]
        return [shape for shape, _ in parts], [array for _, arrays in parts for array in arrays]
    return outputs.shape, [outputs.asnumpy()]


COMBINATIONS = [
    values
    for values in itertools.product([False, True], repeat=len(FLAGS))
    if values[0] or not values[2]  # the next-sentence head reads the pooler
]


@pytest.mark.parametrize('values', COMBINATIONS, ids=str)
def test_outputs_and_their_order_are_gluonnlps(tiny_bert, tmp_path, operators, values):
    flags = dict(zip(FLAGS, values))
    bert, _ = load_bert(str(tiny_bert), **flags)
    rng = np.random.default_rng(1)
    inputs = [
        mx.nd.array(rng.integers(5, 60, (3, LENGTH))),
        mx.nd.array(np.arange(LENGTH) >= np.array([[4], [6], [3]])),
        mx.nd.array([LENGTH, 7, 4]),
    ]
    if flags['use_decoder']:
        inputs.append(mx.nd.array([[1, 2], [3, 1], [2, 2]]))
    bert(*inputs)  # initialises heads that the tiny model lacks
    expected_shapes, expected = flat(theirs(bert, flags, tmp_path / 'bert.params')(*inputs))
    for hybrid in (False, True):
        if hybrid:
            bert.hybridize(static_alloc=True)
        shapes, found = flat(bert(*inputs))
        assert shapes == expected_shapes
        for ours, other in zip(found, expected):
            if ours.shape == (3, HEADS, LENGTH, LENGTH):
                # The queries of padding attend to something that nothing reads.
                for row, length in enumerate((LENGTH, 7, 4)):
                    np.testing.assert_allclose(ours[row, :, :length].sum(axis=-1), 1, rtol=1e-5)
                    ours[row, :, length:] = other[row, :, length:] = 0
            np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('hybrid', [False, True])
def test_without_valid_lengths_nothing_is_padding(tiny_bert, operators, hybrid):
    """As GluonNLP's own tests call it, whether or not with valid lengths."""
    bert, _ = load_bert(
        str(tiny_bert), use_decoder=True, output_attention=True, output_all_encodings=True
    )
    bert.hybridize(hybrid, static_alloc=True)
    ids, types, positions = mx.nd.ones((2, 7)), mx.nd.ones((2, 7)), mx.nd.ones((2, 3))
    shapes, found = flat(bert(ids, types, masked_positions=positions))
    bert.hybridize(hybrid, static_alloc=True)  # a graph is made for a fixed number of inputs
    expected_shapes, expected = flat(bert(ids, types, mx.nd.array([7, 7]), positions))
    assert shapes == expected_shapes
    for array, other in zip(found, expected):
        np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-6)


def test_transformers_has_the_same_hidden_states_and_attentions(tiny_bert, operators):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    reference = transformers.BertModel.from_pretrained(tiny_bert, attn_implementation='eager')
    rng = np.random.default_rng(0)
    ids, lengths = rng.integers(5, 196, (4, 11)), np.array([11, 3, 7, 1])
    is_token = np.arange(11) < lengths[:, None]
    with torch.no_grad():
        expected = reference.eval()(
            torch.from_numpy(ids),
            attention_mask=torch.from_numpy(is_token.astype(int)),
            output_hidden_states=True,
            output_attentions=True,
        )
    bert, _ = load_bert(str(tiny_bert), output_attention=True, output_all_encodings=True)
    encodings, weights, _ = bert(mx.nd.array(ids), mx.nd.zeros((4, 11)), mx.nd.array(lengths))
    for found, other in zip(encodings, expected.hidden_states[1:]):
        np.testing.assert_allclose(
            found.asnumpy()[is_token], other.numpy()[is_token], rtol=1e-4, atol=1e-5
        )
    for (found,), other in zip(weights, expected.attentions):
        by_query = [array.transpose(0, 2, 1, 3) for array in (found.asnumpy(), other.numpy())]
        np.testing.assert_allclose(*(array[is_token] for array in by_query), atol=1e-5)


def test_the_shapes_of_everything(tiny_bert):
    """Worked by hand: 3 rows of 9 tokens, 2 layers, 2 heads, 16 units."""
    bert, vocab = load_bert(
        str(tiny_bert),
        use_decoder=True,
        use_classifier=True,
        output_attention=True,
        output_all_encodings=True,
    )
    ids = mx.nd.ones((3, LENGTH))
    outputs = bert(ids, mx.nd.zeros((3, LENGTH)), mx.nd.array([9, 7, 4]), mx.nd.ones((3, 5)))
    assert flat(outputs)[0] == [
        [(3, LENGTH, UNITS)] * LAYERS,
        [[(3, HEADS, LENGTH, LENGTH)]] * LAYERS,
        (3, UNITS),
        (3, 2),
        (3, 5, len(vocab)),
    ]


@pytest.mark.parametrize('name', ['output_attention', 'output_all_encodings'])
def test_a_head_is_refused(tiny_bert, name):
    bert, _ = load_bert(str(tiny_bert), **{name: True})
    with pytest.raises(UsageError, match='a BERT without output_attention'):
        build_head(bert, 2, mx.cpu())


def test_training_with_attention_weights(tiny_bert, operators):
    """The gradients are those of the model that does not return them."""
    found = []
    for flag in (False, True):
        bert, _ = load_bert(str(tiny_bert), output_attention=flag)
        bert.hybridize(static_alloc=True)
        inputs = mx.nd.ones((2, 6)), mx.nd.zeros((2, 6)), mx.nd.array([6, 3])
        with mx.autograd.record(train_mode=False):
            loss = (bert(*inputs)[-1] ** 2).sum()
        loss.backward()
        parameters = bert.collect_params().values()
        found.append([p.grad().asnumpy() for p in parameters if p.grad_req != 'null'])
    for plain, other in zip(*found):
        np.testing.assert_allclose(plain, other, rtol=1e-3, atol=1e-5)
