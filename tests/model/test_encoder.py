"""The encoder: GluonNLP's numbers and gradients, from MXNet's operators and the fused ones."""

import numpy as np
import pytest
from conftest import need_bfloat16

from bert.model.encoder import (
    Encoder,
    SelfAttention,
    attention_mask,
    bfloat16_product,
    read_first_only,
    speed_up,
    use_bfloat16,
)

import gluonnlp as nlp  # isort: skip
import mxnet as mx  # isort: skip

LENGTH, ROWS = 21, 6


@pytest.fixture
def fused(operators):
    """Return whether the fused operators are used."""
    return operators == 'fused'


def gluonnlp_bert(dropout=0.0, **settings):
    """Build a BERT of plain gluonnlp, the same each time except for the dropout."""
    encoder = nlp.model.bert.BERTEncoder(
        num_layers=3,
        units=24,
        hidden_size=40,
        num_heads=3,
        max_length=32,
        dropout=dropout,
        prefix='encoder_',
        **settings,
    )
    bert = nlp.model.BERTModel(
        encoder,
        vocab_size=50,
        token_type_vocab_size=2,
        units=24,
        embed_size=24,
        use_decoder=False,
        use_classifier=False,
        prefix='bert_',
    )
    bert.settings = {'num_heads': 3, 'dropout': dropout}
    mx.random.seed(5)
    bert.initialize(mx.init.Normal(0.2))
    return bert


def batch():
    """Return ids, token types and valid lengths from 1 to the full length."""
    rng = np.random.default_rng(3)
    ids, types = rng.integers(0, 50, (ROWS, LENGTH)), rng.integers(0, 2, (ROWS, LENGTH))
    lengths = [1, LENGTH, 16, 17, 2, LENGTH - 1]
    return [mx.nd.array(array) for array in (ids, types, lengths)]


def outputs_and_gradients(bert, inputs, grad_req='write'):
    """Return the outputs, and the gradients of a randomly weighted sum of the pooled ones."""
    bert.collect_params().setattr('grad_req', grad_req)
    bert(*inputs)
    bert.collect_params().zero_grad()
    with mx.autograd.record():
        outputs = bert(*inputs)
        weights = mx.nd.array(np.random.default_rng(4).normal(size=(ROWS, 24)))
        total = (outputs[-1] * weights).sum()
    total.backward()
    gradients = {
        name: parameter.grad().asnumpy()
        for name, parameter in bert._collect_params_with_prefix().items()
        if parameter.grad_req != 'null'
    }
    return outputs, gradients


def assert_same_gradients(found, expected):
    """Compare within 1e-5 of the largest of each; a key bias's is 0 except for rounding."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = np.abs(gradient).max() if 'proj_key.bias' not in name else 1
        np.testing.assert_allclose(found[name], gradient, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize('hybridized', [False, True])
@pytest.mark.parametrize('first_only', [False, True])
@pytest.mark.parametrize('grad_req', ['write', 'add'])
def test_outputs_and_gradients_are_those_of_gluonnlp(fused, hybridized, first_only, grad_req):
    expected, expected_gradients = outputs_and_gradients(gluonnlp_bert(), batch())
    bert = gluonnlp_bert()
    speed_up(bert, fused)
    if first_only:
        read_first_only(bert)
    if hybridized:
        bert.hybridize(static_alloc=True)
    found, gradients = outputs_and_gradients(bert, batch(), grad_req)
    encodings = expected[0][:, :1] if first_only else expected[0]
    assert found[0].shape == encodings.shape
    for array, other in zip(found, (encodings, expected[1])):
        np.testing.assert_allclose(array.asnumpy(), other.asnumpy(), atol=1e-5)
    assert_same_gradients(gradients, expected_gradients)


@pytest.mark.parametrize('grad_req', ['write', 'add'])
@pytest.mark.parametrize('first_only', [False, True])
@pytest.mark.parametrize('in_bfloat16', [False, True])
def test_gradients_of_two_batches_add_up_or_not(fused, grad_req, first_only, in_bfloat16):
    """With ``add`` a second backward pass adds to them, with ``write`` it replaces them."""
    bert = gluonnlp_bert()
    speed_up(bert, fused)
    if first_only:
        read_first_only(bert)
    if in_bfloat16:
        need_bfloat16()
        use_bfloat16(bert)
    bert.hybridize(static_alloc=True)
    _, expected = outputs_and_gradients(bert, batch(), grad_req)
    with mx.autograd.record():
        weights = mx.nd.array(np.random.default_rng(4).normal(size=(ROWS, 24)))
        total = (bert(*batch())[-1] * weights).sum()
    total.backward()
    found = {k: p.grad().asnumpy() for k, p in bert._collect_params_with_prefix().items()}
    times = 2 if grad_req == 'add' else 1
    assert_same_gradients(found, {name: times * array for name, array in expected.items()})


@pytest.mark.parametrize(
    'frozen',
    [
        '.*gamma',
        '.*beta|.*bias',
        '.*embed.*|.*position.*',
        '.*layer_norm.*|.*layernorm.*',
        '.*query.*',
        '.*key.*|.*value.*',
        '.*transformer[01]_.*',
    ],
)
@pytest.mark.parametrize('first_only', [False, True])
def test_frozen_parameters(fused, frozen, first_only):
    """The gradients of the others are the same as without freezing."""
    _, expected = outputs_and_gradients(gluonnlp_bert(), batch())
    bert = gluonnlp_bert()
    speed_up(bert, fused)
    if first_only:
        read_first_only(bert)
    bert.hybridize(static_alloc=True)
    names = set(bert.collect_params(frozen))
    assert names
    bert.collect_params().setattr('grad_req', 'write')
    for name in names:
        bert.collect_params()[name].grad_req = 'null'
    with mx.autograd.record():
        weights = mx.nd.array(np.random.default_rng(4).normal(size=(ROWS, 24)))
        total = (bert(*batch())[-1] * weights).sum()
    total.backward()
    found = {
        name: parameter.grad().asnumpy()
        for name, parameter in bert._collect_params_with_prefix().items()
        if parameter.grad_req != 'null'
    }
    assert len(found) < len(expected)
    assert_same_gradients(found, {name: expected[name] for name in found})


def test_without_valid_lengths_nothing_is_padding(fused):
    bert = gluonnlp_bert()
    expected = [array.asnumpy() for array in bert(*batch()[:2])]
    speed_up(bert, fused)
    for array, other in zip(bert(*batch()[:2]), expected):
        np.testing.assert_allclose(array.asnumpy(), other, atol=1e-5)


def test_attention_weights_and_all_encodings_are_given_out(fused):
    settings = {'output_attention': True, 'output_all_encodings': True}
    encodings, weights, pooled = gluonnlp_bert(**settings)(*batch())
    bert = gluonnlp_bert(**settings)
    speed_up(bert, fused)
    found_encodings, found_weights, found_pooled = bert(*batch())
    assert len(found_encodings) == 3
    for array, other in zip(found_encodings, encodings):
        np.testing.assert_allclose(array.asnumpy(), other.asnumpy(), atol=1e-5)
    for (array,), (other,) in zip(found_weights, weights):
        valid = batch()[2].asnumpy().astype(int)
        for row, length in enumerate(valid):
            a, b = (x[row, :, :, :length].asnumpy() for x in (array, other))
            np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(found_pooled.asnumpy(), pooled.asnumpy(), atol=1e-5)


def test_parameters_and_their_names_stay(fused, tmp_path):
    """A model saved here loads in plain gluonnlp."""
    bert = gluonnlp_bert()
    names = list(bert.collect_params())
    speed_up(bert, fused)
    assert list(bert.collect_params()) == names
    expected = bert(*batch())
    bert.save_parameters(str(tmp_path / 'bert.params'))
    plain = gluonnlp_bert()
    plain.initialize(mx.init.Normal(0.1), force_reinit=True)
    plain.load_parameters(str(tmp_path / 'bert.params'))
    for array, other in zip(plain(*batch()), expected):
        np.testing.assert_allclose(array.asnumpy(), other.asnumpy(), atol=1e-5)


def test_attention_by_hand():
    """The expected values are softmax(q k^T / sqrt(d)) v over the valid keys, in NumPy."""
    cell = SelfAttention(units=6, num_heads=2)
    cell.initialize(mx.init.Normal(0.5))
    rng = np.random.default_rng(2)
    x, valid = rng.normal(size=(5, 3, 6)), np.array([5, 2, 1])
    mask = attention_mask(mx.nd, mx.nd.arange(5), mx.nd.array(valid), heads=2)
    context, weights = cell(mx.nd.array(x), None, mask, None)
    w = {name.split('_', 1)[1]: p.data().asnumpy() for name, p in cell.collect_params().items()}

    def project(name):
        projected = x @ w[f'{name}_weight'].T + w[f'{name}_bias']
        return projected.reshape(5, 3, 2, 3).transpose(1, 2, 0, 3)  # batch, head, length, depth

    query, key, value = project('query'), project('key'), project('value')
    scores = np.exp(query @ key.transpose(0, 1, 3, 2) / np.sqrt(3))
    scores *= np.arange(5) < valid[:, None, None, None]
    expected = scores / scores.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(weights.asnumpy(), expected, rtol=1e-4, atol=1e-6)
    expected = (expected @ value).transpose(2, 0, 1, 3).reshape(5, 3, 6)
    np.testing.assert_allclose(context.asnumpy(), expected, rtol=1e-4, atol=1e-6)


def test_dropout_is_on_in_training_only_and_follows_the_seed(fused):
    bert = gluonnlp_bert(dropout=0.3)
    speed_up(bert, fused)
    assert type(bert.encoder) is Encoder
    bert.hybridize(static_alloc=True)

    def pooled(seed, training):
        mx.random.seed(seed)
        with mx.autograd.record(train_mode=training):
            return bert(*batch())[-1].asnumpy()

    evaluated = pooled(1, False)
    np.testing.assert_array_equal(pooled(2, False), evaluated)
    trained = pooled(1, True)
    assert np.abs(trained - evaluated).max() > 1e-3
    np.testing.assert_array_equal(pooled(1, True), trained)
    assert np.abs(pooled(2, True) - trained).max() > 1e-3


@pytest.mark.parametrize('first_only', [False, True])
def test_bfloat16_rounds_the_products_only(fused, first_only):
    """Outputs and gradients are within a few roundings of 2^-9; all types stay float32."""
    need_bfloat16()
    bert = gluonnlp_bert()
    speed_up(bert, fused)
    if first_only:
        read_first_only(bert)
    expected, expected_gradients = outputs_and_gradients(bert, batch())
    use_bfloat16(bert)
    bert.hybridize(static_alloc=True)
    found, gradients = outputs_and_gradients(bert, batch())
    for array, other in zip(found, expected):
        assert array.dtype == np.float32
        difference = np.abs(array.asnumpy() - other.asnumpy()).max()
        assert 1e-5 < difference < 0.05
    for name, gradient in expected_gradients.items():
        assert gradients[name].dtype == np.float32
        if 'proj_key.bias' not in name:
            error = np.linalg.norm(gradients[name] - gradient) / np.linalg.norm(gradient)
            assert error < 0.05, name


def test_bfloat16_is_that_of_pytorch_autocast():
    """A dense layer equals PyTorch's, both with inputs rounded to bfloat16."""
    torch = pytest.importorskip('torch')
    need_bfloat16()
    rng = np.random.default_rng(1)
    x, w, b = (rng.normal(size=shape).astype('float32') for shape in ((5, 7, 48), (32, 48), 32))
    found = bfloat16_product(mx.nd, *map(mx.nd.array, (x, w, b)), 32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        expected = torch.nn.functional.linear(*map(torch.from_numpy, (x, w, b)))
    np.testing.assert_allclose(found.asnumpy(), expected.float().numpy(), rtol=2**-7, atol=1e-2)
