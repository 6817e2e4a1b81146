"""The fused operators, compared with their equations in float64 NumPy, and their dropout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from bert import ops
from bert.model import load_bert
from bert.model.encoder import speed_up
from bert.model.parameters import named
from bert.training.optimizer import BERTAdam
from bert.training.update import global_norm

import mxnet as mx  # isort: skip

HERE = Path(__file__).parent
NO_DROPOUT = np.ones(ops.SEED_SIZE)
EPSILON = 1e-5


@pytest.fixture(autouse=True)
def _need_operators():
    if not ops.available():
        pytest.skip('the fused operators cannot be built here')


def need(name):
    """Skip the test of an operator that this processor or compiler does not support."""
    if name == 'dense' and not ops.has_dense():
        pytest.skip('processor or compiler has no bfloat16')


def normal(*shape, seed=0, scale=1.0):
    """Return fixed normal random numbers that float32 represents exactly."""
    numbers = np.random.default_rng([seed, *shape]).normal(0, scale, shape)
    return numbers.astype(np.float32).astype(np.float64)


def bits(seed):
    """Return a seed like those of :func:`bert.ops.seed` in training."""
    return 2.0 * np.random.default_rng(seed).integers(0, 2, ops.SEED_SIZE)


def run(function, *inputs, head=None, grad_req='write', times=1):
    """Return the output of an operator and its gradients for a head gradient as NumPy arrays.

    Parameters
    ----------
    grad_req : str or list of str
        For all inputs, or for each.
    times : int
        How often the backward pass is done.

    Returns
    -------
    array, list of arrays (None where grad_req is null)
    """
    arrays = [mx.nd.array(array) for array in inputs]
    wanted = [grad_req] * len(arrays) if isinstance(grad_req, str) else grad_req
    for array, request in zip(arrays, wanted):
        if request != 'null':
            array.attach_grad(request)
    for _ in range(times):
        with mx.autograd.record():
            out = function(*arrays)
        out.backward(None if head is None else mx.nd.array(head))
    return out.asnumpy(), [None if a.grad is None else a.grad.asnumpy() for a in arrays]


def assert_close(found, expected, rtol=1e-5):
    """Compare within ``rtol`` of the largest element; NaN must be where NaN is expected."""
    assert found.shape == expected.shape
    scale = np.nanmax(np.append(np.abs(expected), 0))  # 0 in case it is empty
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * scale + 1e-30)


def assert_all_close(found, expected, rtol=1e-5):
    assert len(found) == len(expected)
    for array, other in zip(found, expected):
        assert_close(array, other, rtol)


# The references: each returns the output, and a function from the head gradient to the gradients.


def layer_norm(data, gamma, beta):
    deviation = np.sqrt(data.var(axis=-1, keepdims=True) + EPSILON)
    x = (data - data.mean(axis=-1, keepdims=True)) / deviation

    def gradients(head):
        # Through the normalisation: each element also moves the mean and the variance.
        d = head * gamma
        d_data = d - d.mean(axis=-1, keepdims=True) - x * (d * x).mean(axis=-1, keepdims=True)
        rows = tuple(range(data.ndim - 1))
        return [d_data / deviation, (head * x).sum(axis=rows), head.sum(axis=rows)]

    return gamma * x + beta, gradients


def dropout_add_layer_norm(data, residual, gamma, beta, factors=1.0):
    out, inner = layer_norm(data * factors + residual, gamma, beta)

    def gradients(head):
        d_sum, d_gamma, d_beta = inner(head)
        return [d_sum * factors, d_sum, d_gamma, d_beta]

    return out, gradients


def attention(queries, keys_values, valid_length, heads, factors=1.0, all_queries=True):
    """Compute attention; axes are q: query, k: key, b: batch, h: head, d: within a head."""
    (number, batch, units), length = queries.shape, keys_values.shape[0]
    q = queries.reshape(number, batch, heads, -1)
    k, v = (part.reshape(length, batch, heads, -1) for part in np.split(keys_values, 2, axis=-1))
    root = np.sqrt(units // heads)
    key_valid = np.arange(length) < np.asarray(valid_length)[:, None]
    query_valid = key_valid.any(axis=1, keepdims=True) & np.full((batch, number), all_queries)
    if not all_queries:
        query_valid = key_valid
    mask = (query_valid[:, :, None] & key_valid[:, None, :])[:, None]
    with np.errstate(invalid='ignore'):
        scores = np.where(mask, np.einsum('qbhd,kbhd->bhqk', q, k) / root, -np.inf)
        highest = scores.max(axis=-1, keepdims=True, initial=-np.finfo(float).max)
        p = np.where(mask, np.exp(scores - highest), 0)
    p = p / np.where(mask.any(axis=-1, keepdims=True), p.sum(axis=-1, keepdims=True), 1)
    dropped = p * factors
    out = np.einsum('bhqk,kbhd->qbhd', dropped, v).reshape(number, batch, units)

    def gradients(head):
        d_out = head.reshape(q.shape) * query_valid.T[:, :, None, None]
        d_v = np.einsum('bhqk,qbhd->kbhd', dropped, d_out)
        d_p = np.einsum('qbhd,kbhd->bhqk', d_out, v) * factors
        d_s = p * (d_p - (p * d_p).sum(axis=-1, keepdims=True)) / root
        d_q = np.einsum('bhqk,kbhd->qbhd', d_s, k)
        d_k = np.einsum('bhqk,qbhd->kbhd', d_s, q)
        d_k, d_v = (array.reshape(length, batch, units) for array in (d_k, d_v))
        return [d_q.reshape(queries.shape), np.concatenate([d_k, d_v], axis=-1)]

    return out, gradients


def self_attention(projections, valid_length, heads, factors=1.0):
    units = projections.shape[-1] // 3
    out, inner = attention(
        projections[..., :units],
        projections[..., units:],
        valid_length,
        heads,
        factors,
        all_queries=False,
    )
    return out, lambda head: [np.concatenate(inner(head), axis=-1)]


def cross_entropy(scores, labels):
    rows = np.arange(len(scores))
    clipped = np.clip(np.trunc(labels), 0, scores.shape[1] - 1).astype(int)
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    def gradients(head):
        d = np.exp(logs)
        d[rows, clipped] -= 1
        return [d * head[:, None]]

    return -logs[rows, clipped], gradients


def bfloat16(array):
    """Round to the nearest number with 8 significant bits, ties to even."""
    bits = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    rounded = bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1)) & np.uint64(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def dense(data, weight, bias):
    def gradients(head):
        d_out, x = head.reshape(-1, len(weight)), data.reshape(-1, weight.shape[1])
        d_data = (bfloat16(d_out) @ bfloat16(weight)).reshape(data.shape)
        return [d_data, bfloat16(d_out).T @ bfloat16(x), d_out.sum(axis=0)]

    return bfloat16(data) @ bfloat16(weight).T + bias, gradients


# The operators as functions of arrays, with the settings of the tests.


def fused_layer_norm(data, gamma, beta):
    return ops.layer_norm(mx.nd, data, gamma, beta, EPSILON)


def fused_dropout_add_layer_norm(rate=0.0, site=0):
    def function(*arrays):
        return ops.dropout_add_layer_norm(mx.nd, *arrays, epsilon=EPSILON, rate=rate, site=site)

    return function


def fused_self_attention(heads, rate=0.0, site=0):
    return lambda *arrays: ops.self_attention(mx.nd, *arrays, heads=heads, rate=rate, site=site)


def fused_attention(heads, rate=0.0, site=0):
    return lambda *arrays: ops.attention(mx.nd, *arrays, heads=heads, rate=rate, site=site)


def fused_loss(scores, labels):
    return ops.cross_entropy(mx.nd, scores, labels)[0]


def fused_dense(data, weight, bias):
    return ops.dense(mx.nd, data, weight, bias)


def test_gradients_of_the_references():
    """They are the derivatives of the outputs, by central differences."""
    factors = np.random.default_rng(1).integers(0, 2, (2, 2, 3, 3)) * 1.5
    cases = [
        (dropout_add_layer_norm, (normal(2, 5), normal(2, 5, seed=1), normal(5), normal(5)), 4, {}),
        (self_attention, (normal(3, 2, 12), [3, 2]), 1, {'heads': 2, 'factors': factors}),
        (
            attention,
            (normal(3, 2, 4), normal(3, 2, 8), [3, 2]),
            2,
            {'heads': 2, 'factors': factors},
        ),
        (cross_entropy, (normal(3, 4), np.array([0, 3, 9])), 1, {}),
    ]
    for function, inputs, count, settings in cases:
        out, gradients = function(*inputs, **settings)
        head = normal(*out.shape, seed=3)
        for i, gradient in enumerate(gradients(head)[:count]):
            expected = np.zeros_like(inputs[i])
            for index in np.ndindex(expected.shape):
                ends = []
                for step in (1e-5, -1e-5):
                    moved = [np.array(array, dtype=float) for array in inputs]
                    moved[i][index] += step
                    ends.append((function(*moved, **settings)[0] * head).sum())
                expected[index] = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(gradient, expected, atol=1e-8)


# One element, and sizes around vectors of 8 and 16, blocks of 8 rows and tiles of 128 elements.
ROWS_AND_UNITS = [(1, 1), (1, 2), (7, 5), (8, 15), (9, 16), (17, 33), (3, 127), (2, 128), (5, 129)]
ROWS_AND_UNITS += [(64, 31), (13, 384), (512, 7), (2, 1000)]


@pytest.mark.parametrize(('rows', 'units'), ROWS_AND_UNITS)
def test_layer_norm(rows, units):
    inputs = normal(rows, units, seed=1), normal(units, seed=2), normal(units, seed=3)
    head = normal(rows, units, seed=4)
    expected, gradients = layer_norm(*inputs)
    found, found_gradients = run(fused_layer_norm, *inputs, head=head)
    assert_close(found, expected)
    # With one or two elements, x is 0 or 1, and d_data is only rounding.
    if units > 2:
        assert_close(found_gradients[0], gradients(head)[0])
    assert_all_close(found_gradients[1:], gradients(head)[1:])


@pytest.mark.parametrize('shape', [(3,), (2, 3, 4, 5)])
def test_layer_norm_takes_any_number_of_axes(shape):
    inputs = normal(*shape), normal(shape[-1]), normal(shape[-1], seed=1)
    head = normal(*shape, seed=2)
    expected, gradients = layer_norm(*inputs)
    found, found_gradients = run(fused_layer_norm, *inputs, head=head)
    assert_close(found, expected)
    assert_all_close(found_gradients, gradients(head))


@pytest.mark.parametrize(('rows', 'units'), ROWS_AND_UNITS)
@pytest.mark.parametrize('rate', [0.0, 0.1])
def test_dropout_add_layer_norm(rows, units, rate):
    inputs = [normal(rows, units, seed=1), normal(rows, units, seed=2)]
    inputs += [normal(units, seed=3), normal(units, seed=4)]
    head, seed = normal(rows, units, seed=5), bits(6)
    factors = dropout_factors(seed, 3, 0, rows, units, rate)
    expected, gradients = dropout_add_layer_norm(*inputs, factors)
    function = fused_dropout_add_layer_norm(rate, site=3)
    found, found_gradients = run(function, *inputs, seed, head=head)
    assert_close(found, expected)
    if units > 2:
        assert_all_close(found_gradients[:2], gradients(head)[:2])
    assert_all_close(found_gradients[2:4], gradients(head)[2:])
    assert not found_gradients[4].any()  # of the seed


# (length, batch, heads, width of a head, valid lengths): one element, empty and full rows, sizes
# around the blocks of 32 queries and the vectors of 8 and 16, the longest sequences.
ATTENTIONS = [
    (1, 1, 1, 1, [1]),
    (1, 1, 1, 1, [0]),
    (5, 3, 2, 1, [5, 0, 2]),
    (7, 2, 3, 5, [7, 6]),
    (16, 2, 1, 32, [16, 15]),
    (33, 4, 2, 5, [33, 32, 31, 1]),
    (40, 3, 2, 32, [17, 40, 9]),
    (65, 2, 1, 80, [65, 64]),
    (128, 1, 2, 64, [97]),
    (130, 2, 1, 33, [130, 129]),
    (512, 1, 1, 64, [512]),
    (512, 2, 1, 8, [0, 511]),
]


def head_factors(seed, site, batch, heads, queries, keys, rate):
    """Return dropout factors of attention weights, (batch, heads, queries, keys)."""
    planes = [
        dropout_factors(seed, site, plane, queries, keys, rate) for plane in range(batch * heads)
    ]
    return np.reshape(planes, (batch, heads, queries, keys))


@pytest.mark.parametrize(('length', 'batch', 'heads', 'width', 'valid'), ATTENTIONS)
@pytest.mark.parametrize('rate', [0.0, 0.1])
def test_self_attention(length, batch, heads, width, valid, rate):
    projections, seed = normal(length, batch, 3 * heads * width), bits(1)
    head = normal(length, batch, heads * width, seed=2)
    factors = head_factors(seed, 4, batch, heads, length, length, rate)
    expected, gradients = self_attention(projections, valid, heads, factors)
    function = fused_self_attention(heads, rate, site=4)
    found, (gradient, *others) = run(function, projections, valid, seed, head=head)
    assert_close(found, expected)
    assert_close(gradient, gradients(head)[0])
    # The padding, the lengths and the seed have no gradients, and the padding no output.
    for row, number in enumerate(valid):
        assert not found[number:, row].any()
        assert not gradient[number:, row].any()
    assert not any(other.any() for other in others)


@pytest.mark.parametrize('number', [1, 8, 33])
@pytest.mark.parametrize(('length', 'batch', 'heads', 'width', 'valid'), ATTENTIONS[:-2])
def test_attention(number, length, batch, heads, width, valid):
    queries = normal(number, batch, heads * width)
    keys_values, seed = normal(length, batch, 2 * heads * width, seed=1), bits(2)
    head = normal(number, batch, heads * width, seed=2)
    factors = head_factors(seed, 5, batch, heads, number, length, 0.1)
    expected, gradients = attention(queries, keys_values, valid, heads, factors)
    function = fused_attention(heads, 0.1, site=5)
    found, found_gradients = run(function, queries, keys_values, valid, seed, head=head)
    assert_close(found, expected)
    assert_all_close(found_gradients[:2], gradients(head))
    assert not found_gradients[2].any()
    assert not found_gradients[3].any()


def test_valid_lengths_out_of_range_are_clipped():
    projections = normal(6, 3, 12)
    expected, _ = self_attention(projections, [0, 6, 2], 2)
    found, _ = run(fused_self_attention(2), projections, [-3, 7, 2.9], NO_DROPOUT)
    assert_close(found, expected)


@pytest.mark.parametrize('classes', [1, 2, 15, 16, 17, 1023, 1024, 1025, 2049])
@pytest.mark.parametrize('rows', [1, 7])
def test_cross_entropy(rows, classes):
    scores = normal(rows, classes, scale=3)
    labels = np.random.default_rng(1).integers(0, classes, rows)
    labels[0] = classes - 1
    head = normal(rows, seed=2)
    expected, gradients = cross_entropy(scores, labels)
    found, found_gradients = run(fused_loss, scores, labels, head=head)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(found_gradients[0], gradients(head)[0], rtol=1e-4, atol=1e-6)
    assert not found_gradients[1].any()
    best = ops.cross_entropy(mx.nd, mx.nd.array(scores), mx.nd.array(labels))[1]
    np.testing.assert_array_equal(best.asnumpy(), scores.argmax(axis=1))


def test_the_first_of_equal_classes_is_the_best():
    scores = np.zeros((1, 70))
    scores[0, [33, 34, 60]] = 2
    best = ops.cross_entropy(mx.nd, mx.nd.array(scores), mx.nd.zeros(1))[1]
    assert best.asnumpy() == 33


def test_labels_out_of_range_are_treated_as_by_pick():
    """MXNet's ``pick`` takes the nearest class and drops the fraction."""
    scores, labels = normal(6, 5), np.array([-1, 5, 100, 1.7, -0.5, 4])
    found, (gradient, _) = run(fused_loss, scores, labels)
    stock, (stock_gradient, _) = run(
        lambda s, y: -mx.nd.pick(mx.nd.log_softmax(s), y), scores, labels
    )
    np.testing.assert_allclose(found, stock, rtol=1e-5)
    np.testing.assert_allclose(gradient, stock_gradient, atol=1e-5)
    np.testing.assert_allclose(found, cross_entropy(scores, labels)[0], rtol=1e-5)


# (rows, inputs, units): one element; sizes around the tiles of 16 and 32 and the blocks of 32 rows,
# or without AMX the tiles of 6 rows, panels of 64 columns and chunks of 1024 numbers; more rows
# than a task has.
DENSE = [(1, 1, 1), (1, 2, 3), (5, 31, 15), (16, 32, 16), (17, 33, 17), (31, 15, 33), (33, 64, 32)]
DENSE += [(48, 100, 70), (130, 3, 260), (8, 768, 2), (600, 512, 40), (70, 5000, 20), (40, 20, 3000)]
DENSE += [(6, 63, 64), (13, 1023, 65), (1025, 64, 63), (7, 1025, 129)]


@pytest.mark.parametrize(('rows', 'inputs', 'units'), DENSE)
def test_dense(rows, inputs, units):
    need('dense')
    arrays = normal(rows, inputs), normal(units, inputs, seed=1), normal(units, seed=2)
    head = normal(rows, units, seed=3)
    expected, gradients = dense(*arrays)
    found, found_gradients = run(fused_dense, *arrays, head=head)
    assert_close(found, expected)
    assert_all_close(found_gradients, gradients(head))


@pytest.mark.parametrize('allowed', [False, True])
def test_the_matrix_unit_is_used_if_allowed(allowed, monkeypatch):
    """Where the processor has it, the operator can use nothing else, and the encoder is slower."""
    need('dense')
    monkeypatch.setattr(ops.machine, 'processor_flags', lambda: {'avx512_bf16', 'amx_bf16'})
    monkeypatch.setattr(ops.machine, 'has_matrix_unit', lambda: allowed)
    assert ops.has_dense() == allowed
    assert ops.has_encoder('bfloat16') != allowed


@pytest.mark.parametrize('shape', [(7,), (2, 3, 4, 7)])
def test_dense_takes_any_number_of_axes(shape):
    need('dense')
    arrays = normal(*shape), normal(5, 7, seed=1), normal(5)
    expected, gradients = dense(*arrays)
    head = normal(*expected.shape, seed=2)
    found, found_gradients = run(fused_dense, *arrays, head=head)
    assert_close(found, expected)
    assert_all_close(found_gradients, gradients(head))


def test_dense_rounds_to_the_nearest_and_ties_to_even():
    """1 + 2^-8 is halfway between 1 and the next number, as 1 + 3 * 2^-8 is between two others."""
    need('dense')
    step = 2.0**-7
    data = np.array([[1 + step / 2], [1 + 3 * step / 2], [1 + 0.51 * step], [-1 - step / 2]])
    found, _ = run(fused_dense, data, [[1.0]], [0.0])
    np.testing.assert_array_equal(found, [[1], [1 + 2 * step], [1 + step], [-1]])


@pytest.mark.parametrize('bad', [np.nan, np.inf])
@pytest.mark.parametrize('column', [0, 15, 31, 39])
def test_dense_propagates_numbers_that_are_not_finite(bad, column):
    need('dense')
    data = normal(20, 40)
    data[17, column] = bad
    found, gradients = run(fused_dense, data, normal(18, 40, seed=1), normal(18))
    np.testing.assert_array_equal(np.isfinite(found).all(axis=1), np.arange(20) != 17)
    assert not np.isfinite(found[17]).any()
    np.testing.assert_array_equal(np.isfinite(gradients[1]).all(axis=0), np.arange(40) != column)


def test_sum_of_squares():
    # Chunks have 65,536 elements.
    shapes = [(1,), (3, 5), (65535,), (65536,), (65537,), (2, 70000)]
    arrays = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    for some in (arrays, arrays[:1], arrays[1:2]):
        found = ops.sum_of_squares(mx.nd, [mx.nd.array(array) for array in some]).asnumpy()
        assert found.shape == (1,)
        np.testing.assert_allclose(found[0], sum((a**2).sum() for a in some), rtol=1e-6)


@np.errstate(invalid='ignore')  # a factor may be infinite
def run_adam(factor, shapes, scale=1.7, epsilon=1e-3, operator=ops.adam):
    """Return arrays before and after one step, and the results of the equations."""
    kinds = [[normal(*s, seed=k) for s in shapes] for k in range(4)]  # weights, gradients, moments
    kinds[3] = [array**2 for array in kinds[3]]
    rates = np.abs(normal(len(shapes), 2, seed=9))
    before = [[mx.nd.array(array) for array in kind] for kind in kinds]
    factor_array = mx.nd.array([factor])
    operator(mx.nd, *before, mx.nd.array(rates), factor_array, 0.9, 0.99, epsilon, scale)
    found = [[array.asnumpy() for array in kind] for kind in before]
    expected = [[], kinds[1], [], []]
    for i, (w, g, m, v) in enumerate(zip(*kinds)):
        m = 0.9 * m + 0.1 * factor * g
        v = 0.99 * v + 0.01 * (factor * g) ** 2
        rate, decay = rates[i]
        u = scale * m / (np.sqrt(v) + epsilon) + decay * w
        ratio = np.linalg.norm(w) / np.linalg.norm(u) if operator is ops.lamb else 1
        expected[0].append(w - rate * ratio * u)
        expected[2].append(m)
        expected[3].append(v)
    return kinds, found, expected


@pytest.mark.parametrize('operator', [ops.adam, ops.lamb])
def test_adam_and_lamb(operator):
    shapes = [(1,), (2, 3), (65535,), (65536,), (2, 65537), (15, 17)]
    _, found, expected = run_adam(0.3, shapes, operator=operator)
    for kind, other in zip(found, expected):
        assert_all_close(kind, other)


@pytest.mark.parametrize('operator', [ops.adam, ops.lamb])
@pytest.mark.parametrize('factor', [0.0, np.inf, -np.inf, np.nan])
def test_adam_changes_nothing_where_the_factor_is_unusable(factor, operator):
    before, found, _ = run_adam(factor, [(5,), (2, 40000)], operator=operator)
    for kind, other in zip(found, before):
        for array, same in zip(kind, other):
            np.testing.assert_array_equal(array, same.astype(np.float32))


# Large, tiny and invalid numbers.


@pytest.mark.parametrize('scale', [1e4, 1e-4, 1e-20])
def test_layer_norm_of_large_and_tiny_numbers(scale):
    inputs = normal(9, 37, scale=scale), normal(37), normal(37, seed=1)
    head = normal(9, 37, seed=2)
    expected, gradients = layer_norm(*inputs)
    found, found_gradients = run(fused_layer_norm, *inputs, head=head)
    assert_close(found, expected)
    assert_all_close(found_gradients, gradients(head), rtol=3e-5)


def test_layer_norm_of_numbers_far_from_0():
    """The variance is the mean of squared differences, not a difference of squares."""
    inputs = normal(4, 64) + 1000, np.ones(64), np.zeros(64)
    assert_close(run(fused_layer_norm, *inputs)[0], layer_norm(*inputs)[0], rtol=1e-3)


@pytest.mark.parametrize('score', [1e4, -1e4, 1e-4, 0.0, 100.0])
def test_attention_with_large_and_tiny_scores(score):
    """One score is far from the others: at the first key, a middle one, or the last."""
    for key in (0, 13, 20):
        projections = normal(21, 1, 24, scale=0.5)
        projections[:, 0, 0] = np.sqrt(8)  # the first number of all queries
        projections[:, 0, 8] = 0
        projections[key, 0, 8] = score
        expected, gradients = self_attention(projections, [21], 1)
        head = normal(21, 1, 8, seed=1)
        found, found_gradients = run(
            fused_self_attention(1), projections, [21], NO_DROPOUT, head=head
        )
        assert_close(found, expected)
        # d_q is a difference of keys, which are as large as the score.
        assert_close(found_gradients[0], gradients(head)[0], rtol=1e-4)


@pytest.mark.parametrize('score', [1e4, -1e4, 1e-20])
def test_cross_entropy_of_large_and_tiny_scores(score):
    scores = normal(3, 50)
    scores[0, 7] = scores[1, 0] = scores[2, 49] = score
    labels = np.array([7, 1, 49])
    expected, gradients = cross_entropy(scores, labels)
    found, found_gradients = run(fused_loss, scores, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found_gradients[0], gradients(np.ones(3))[0], atol=1e-6)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('column', [0, 7, 20, 39])
def test_layer_norm_gives_nan_where_a_row_is_not_finite(bad, column):
    data = normal(9, 40)
    data[4, column] = bad
    found, (gradient, _, _) = run(fused_layer_norm, data, np.ones(40), np.zeros(40))
    for array in (found, gradient):
        np.testing.assert_array_equal(np.isnan(array).all(axis=1), np.arange(9) == 4)


@pytest.mark.parametrize('position', [0, 7, 18, 20])
@pytest.mark.parametrize('part', [0, 1, 2])
def test_attention_gives_nan_where_an_input_is_nan(position, part):
    projections = normal(24, 1, 24)
    projections[position, 0, 8 * part] = np.nan
    expected, gradients = self_attention(projections, [21], 1)
    head = normal(24, 1, 8, seed=1)
    found, found_gradients = run(fused_self_attention(1), projections, [21], NO_DROPOUT, head=head)
    valid = np.arange(24) < 21
    nan = np.isnan(found[:, 0])
    if part == 0:  # a query: its own context
        np.testing.assert_array_equal(nan.all(axis=1), np.arange(24) == position)
    elif part == 1:  # a key: the contexts of all queries
        np.testing.assert_array_equal(nan.all(axis=1), valid)
    else:  # a value: one number of them
        np.testing.assert_array_equal(nan[:, 0], valid)
    gradient = found_gradients[0][:, 0]
    assert np.isnan(gradient[:21]).any()
    assert not gradient[21:].any()


@pytest.mark.parametrize('length', [5, 16, 20])
def test_attention_gives_nan_where_all_scores_of_a_query_are_infinite(length):
    for query, key in [(np.inf, -1.0), (np.inf, 1.0), (-3e38, 3e38)]:
        projections = np.zeros((length, 1, 3))
        projections[:, 0] = [query, key, 1.0]
        found, _ = run(fused_self_attention(1), projections, [length], NO_DROPOUT)
        assert np.isnan(found).all()


@pytest.mark.parametrize('bad', [np.nan, np.inf])
@pytest.mark.parametrize('column', [0, 15, 16, 1030, 1039])
def test_cross_entropy_gives_nan_where_a_row_is_not_finite(bad, column):
    scores = normal(3, 1040)
    scores[1, column] = bad
    found, (gradient, _) = run(fused_loss, scores, [1, 2, 3])
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])
    assert np.isnan(gradient[1]).any()
    assert np.isfinite(gradient[[0, 2]]).all()


def test_cross_entropy_gives_nan_where_all_scores_are_infinite():
    for bad in (np.nan, np.inf, -np.inf):
        found, _ = run(fused_loss, np.full((2, 21), bad), [1, 2])
        assert np.isnan(found).all()


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_sum_of_squares_propagates_numbers_that_are_not_finite(bad):
    for position in (0, 65540, 65549):
        array = normal(65550)
        array[position] = bad
        found = ops.sum_of_squares(mx.nd, [mx.nd.ones(3), mx.nd.array(array)])
        np.testing.assert_equal(found.asnumpy()[0], np.float32(bad))


# Requests of gradients.

CALLS = {
    'layer_norm': (fused_layer_norm, (normal(9, 21), normal(21), normal(21, seed=1))),
    'dropout_add_layer_norm': (
        fused_dropout_add_layer_norm(0.3),
        (normal(9, 21), normal(9, 21, seed=1), normal(21), normal(21, seed=1), bits(1)),
    ),
    'self_attention': (fused_self_attention(2, 0.3), (normal(11, 2, 24), [11, 7], bits(1))),
    'attention': (
        fused_attention(2, 0.3),
        (normal(3, 2, 8), normal(11, 2, 16), [11, 7], bits(1)),
    ),
    'cross_entropy': (fused_loss, (normal(4, 21), [1, 2, 3, 4])),
    'dense': (fused_dense, (normal(19, 21), normal(35, 21, seed=1), normal(35))),
}


@pytest.mark.parametrize('name', CALLS)
def test_an_input_without_gradient_does_not_change_the_others(name):
    """grad_req is null for each input in turn, then for all but that input."""
    need(name)
    function, inputs = CALLS[name]
    head = normal(*run(function, *inputs)[0].shape, seed=7)
    _, expected = run(function, *inputs, head=head)
    for chosen in range(len(inputs)):
        for others_null in (False, True):
            requests = [
                'null' if (i == chosen) != others_null else 'write' for i in range(len(inputs))
            ]
            _, found = run(function, *inputs, head=head, grad_req=requests)
            for request, gradient, other in zip(requests, found, expected):
                if request == 'write':
                    np.testing.assert_array_equal(gradient, other)


def test_gradients_of_parameters_add_up():
    """With grad_req add, each backward pass adds to the gradients of gamma and beta."""
    for name, first in [('layer_norm', 1), ('dropout_add_layer_norm', 2)]:
        function, inputs = CALLS[name]
        head = normal(*inputs[0].shape, seed=7)
        _, once = run(function, *inputs, head=head)
        requests = ['null'] * len(inputs)
        requests[first : first + 2] = ['add', 'add']
        _, thrice = run(function, *inputs, head=head, grad_req=requests, times=3)
        _, last = run(function, *inputs, head=head, times=3)
        for i in (first, first + 1):
            np.testing.assert_allclose(thrice[i], 3 * once[i], rtol=1e-6)
            np.testing.assert_array_equal(last[i], once[i])


def test_gradients_of_an_input_used_twice_add_up():
    """MXNet adds up the gradients of an array that several operators use."""
    x, gamma, beta = normal(9, 21), normal(21), normal(21, seed=1)
    head = normal(9, 21, seed=2)

    def both(x, gamma, beta):
        array = x * 1
        inner = ops.layer_norm(mx.nd, array, gamma, beta, EPSILON)
        seed = mx.nd.ones(64)
        return ops.dropout_add_layer_norm(
            mx.nd, inner, array, gamma, beta, seed, EPSILON, rate=0.1, site=0
        )

    inner, inner_gradients = layer_norm(x, gamma, beta)
    _, gradients = dropout_add_layer_norm(inner, x, gamma, beta)
    d_inner, d_x, d_gamma, d_beta = gradients(head)
    expected = [a + b for a, b in zip((d_x, d_gamma, d_beta), inner_gradients(d_inner))]
    _, found = run(both, x, gamma, beta, head=head)
    assert_all_close(found, expected)


@pytest.mark.parametrize('name', ['dropout_add_layer_norm', 'self_attention', 'attention'])
def test_a_seed_of_ones_means_no_dropout(name):
    """The results are bit for bit those at rate 0."""
    maker = globals()[f'fused_{name}']
    settings = (2,) if name.endswith('attention') else ()
    inputs = CALLS[name][1][:-1]
    out, gradients = run(maker(*settings, 0.4), *inputs, NO_DROPOUT)
    same, same_gradients = run(maker(*settings, 0.0), *inputs, bits(2))
    other, _ = run(maker(*settings, 0.4), *inputs, bits(2))
    np.testing.assert_array_equal(out, same)
    for array, other_array in zip(gradients, same_gradients):
        np.testing.assert_array_equal(array, other_array)
    assert np.abs(other - out).max() > 1e-3


def test_the_seed_is_ones_in_evaluation_and_bits_in_training():
    mx.random.seed(1)
    with mx.autograd.record(train_mode=False):
        np.testing.assert_array_equal(ops.seed(mx.nd).asnumpy(), NO_DROPOUT)
    with mx.autograd.record():
        seeds = [ops.seed(mx.nd).asnumpy() for _ in range(50)]
    assert set(np.unique(seeds)) == {0, 2}
    assert len(np.unique(seeds, axis=0)) == 50
    mx.random.seed(1)
    with mx.autograd.record():
        np.testing.assert_array_equal(ops.seed(mx.nd).asnumpy(), seeds[0])


# The dropout masks.


def threefry(counter, key, rounds=13):
    """Compute Threefry4x32 (Salmon et al. 2011, section 4.2), written from the paper.

    Parameters
    ----------
    counter : (..., 4) array
    key : sequence of 4 integers
    """
    constants = [(10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20)]
    keys = [np.uint64(word) for word in key]
    keys.append(np.bitwise_xor.reduce([*keys, np.uint64(0x1BD11BDA)]))
    word_mask = np.uint64(2**32 - 1)
    x = [np.asarray(counter)[..., i].astype(np.uint64) for i in range(4)]

    def inject(words, number):
        added = [(word + keys[(number + i) % 5]) & word_mask for i, word in enumerate(words)]
        added[3] = (added[3] + np.uint64(number)) & word_mask
        return added

    def mix(a, b, constant):
        a = (a + b) & word_mask
        b = (b << np.uint64(constant) | b >> np.uint64(32 - constant)) & word_mask
        return a, b ^ a

    x = inject(x, 0)
    for number in range(rounds):
        first, second = constants[number % 8]
        x[0], x[1] = mix(x[0], x[1], first)
        x[2], x[3] = mix(x[2], x[3], second)
        x[1], x[3] = x[3], x[1]
        if number % 4 == 3:
            x = inject(x, number // 4 + 1)
    # The paper's permutation swaps the odd words after each round.
    if rounds % 2:
        x[1], x[3] = x[3], x[1]
    return np.stack(x, axis=-1).astype(np.uint32)


def dropout_factors(seed, site, plane, rows, columns, rate):
    """Return the factors of a (rows, columns) plane: 0, or the one that preserves the expectation.

    A row takes 16-bit numbers, their count rounded up to a multiple of 16; 128 of them come from 16
    calls of the generator side by side: the low halves of their first words, the high halves, and
    so on. The key is made from the seed, the site and the plane.
    """
    threshold = round(rate * 65536)
    if threshold == 0:
        return np.ones((rows, columns))
    pitch = -(-columns // 16) * 16
    number = np.arange(-(-rows * pitch // 128) * 128)
    tile, within = number // 128, number % 128
    word, half, lane = within // 32, within % 32 // 16, within % 16
    counter = np.zeros((len(number) // 8, 4), np.int64)
    counter[:, 0] = np.arange(len(counter))
    low, high = (
        sum(int(b > 0) << i for i, b in enumerate(part)) for part in (seed[:32], seed[32:])
    )
    words = threefry(counter, (low, high, site, plane))[tile * 16 + lane, word]
    numbers = words >> (16 * half).astype(np.uint32) & 0xFFFF
    scale = np.float32(65536) / np.float32(65536 - threshold)
    factors = np.where(numbers >= threshold, scale, np.float32(0)).astype(np.float64)
    return factors[: rows * pitch].reshape(rows, pitch)[:, :columns]


@pytest.mark.parametrize(
    ('counter', 'key', 'words'),
    [
        ('00000000 ' * 4, '00000000 ' * 4, '531c7e4f 39491ee5 2c855a92 3d6abf9a'),
        ('ffffffff ' * 4, 'ffffffff ' * 4, 'c4189358 1c9cc83a d5881c67 6a0a89e0'),
        (
            '243f6a88 85a308d3 13198a2e 03707344',
            'a4093822 299f31d0 082efa98 ec4e6c89',
            '4aa71d8f 734738c2 431fc6a8 ae6debf1',
        ),
    ],
)
def test_the_generator_gives_the_published_numbers(counter, key, words):
    """The numbers are from Random123, the generator's distribution, for 13 rounds."""
    counter, key, words = ([int(word, 16) for word in t.split()] for t in (counter, key, words))
    np.testing.assert_array_equal(threefry(np.array(counter), key), words)


def masks(rows, units, seed, rate, site=0):
    """Return the dropout factors of a fused LayerNorm, computed from its two gradients."""
    inputs = np.ones((rows, units)), normal(rows, units), np.ones(units), np.zeros(units), seed
    function = fused_dropout_add_layer_norm(rate, site)
    _, (d_data, d_residual, *_) = run(function, *inputs, head=normal(rows, units, seed=1))
    assert d_residual.all()
    return d_data / d_residual


@pytest.mark.parametrize(('rows', 'units'), [(1, 1), (9, 15), (8, 16), (17, 130), (300, 384)])
@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_dropout_factors_are_those_of_threefry(rows, units, rate):
    """The data's gradient is exactly the residual's times the factor."""
    inputs = np.ones((rows, units)), normal(rows, units), np.ones(units), np.zeros(units)
    for seed, site in [(bits(1), 0), (bits(2), 35), (2 * NO_DROPOUT, 2**31)]:
        _, (d_data, d_residual, *_) = run(
            fused_dropout_add_layer_norm(rate, site), *inputs, seed, head=normal(rows, units)
        )
        factors = dropout_factors(seed, site, 0, rows, units, rate).astype(np.float32)
        np.testing.assert_array_equal(d_data, d_residual * factors)


@pytest.mark.parametrize('length', [1, 31, 100])
def test_attention_drops_by_the_factors_of_threefry_in_both_directions(length):
    """With scores of 0 and the identity as values, the output is the dropped weights."""
    batch, heads, seed = 2, 2, bits(3)
    projections = np.zeros((length, batch, 3, heads, length))
    projections[:, :, 2] = np.eye(length)[:, None, None]
    head = np.zeros((length, batch, heads, length))
    head[:] = np.eye(length)[:, None, None]
    function = fused_self_attention(heads, 0.25, site=6)
    out, (gradient, _, _) = run(
        function,
        projections.reshape(length, batch, -1),
        [length] * batch,
        seed,
        head=head.reshape(length, batch, -1),
    )
    expected = head_factors(seed, 6, batch, heads, length, length, 0.25)
    found = out.reshape(length, batch, heads, length).transpose(1, 2, 0, 3) * length
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    d_values = gradient.reshape(length, batch, 3, heads, length)[:, :, 2]  # its transpose
    np.testing.assert_allclose(d_values.transpose(1, 2, 3, 0) * length, expected, rtol=1e-6)


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_the_rate_of_dropout(rate):
    from scipy import stats  # not for the processes that import this file

    for seed in range(3):
        kept = masks(512, 1000, bits(seed), rate) > 0
        assert stats.binomtest(int((~kept).sum()), kept.size, rate).pvalue > 1e-3
        # The rate does not depend on the row or the column.
        for axis in (0, 1):
            dropped, count = (~kept).sum(axis=axis), kept.shape[axis]
            scores = (dropped - rate * count) / np.sqrt(rate * (1 - rate) * count)
            assert stats.kstest(scores, 'norm').pvalue > 1e-3


def test_masks_are_independent():
    """Chi-square tests compare different sites, seeds and heads, and neighbours in a mask."""
    from scipy import stats

    one_bit = bits(1)
    one_bit[40] = 2 - one_bit[40]
    base = masks(256, 1024, bits(1), 0.3) > 0
    factors = head_factors(bits(1), 0, 2, 2, 256, 1024, 0.3) > 0
    pairs = [(base, masks(256, 1024, bits(1), 0.3, site) > 0) for site in (1, 2, 256)]
    pairs += [(base, masks(256, 1024, seed, 0.3) > 0) for seed in (bits(2), one_bit)]
    pairs += [(base[:, :-lag], base[:, lag:]) for lag in (1, 16, 32, 128)]
    pairs += [(base[:-lag], base[lag:]) for lag in (1, 2, 8)]
    pairs += [(factors[0, 0], other) for other in (factors[0, 1], factors[1, 0])]
    for first, second in pairs:
        table = np.histogram2d(first.ravel(), second.ravel(), bins=2)[0]
        assert stats.chi2_contingency(table)[1] > 1e-4


FOLDERS = [str(HERE), str(HERE.parent)]  # of this file and of conftest.py


def threads_environment(threads):
    """Return an environment whose threads sleep while they wait, as there may be fewer cores."""
    return {**os.environ, 'OMP_NUM_THREADS': str(threads), 'OMP_WAIT_POLICY': 'passive'}


THREADS = """
import sys
import numpy as np
sys.path[:0] = {folders!r}
import test_ops
test_ops.ops.available()
np.savez(sys.argv[1], **test_ops.results())
"""


def results():
    """Return outputs and gradients for inputs that are large enough for several threads."""
    found = {}
    rows, seed = normal(203, 70), bits(5)
    norm = rows, normal(203, 70, seed=1), normal(70), normal(70, seed=1), seed
    attended = normal(90, 3, 96), [90, 17, 64], seed
    queried = normal(2, 3, 32), normal(90, 3, 64), [90, 17, 64], seed
    for name, function, inputs in [
        ('norm', fused_dropout_add_layer_norm(0.2), norm),
        ('self', fused_self_attention(4, 0.2), attended),
        ('some', fused_attention(4, 0.2), queried),
        ('loss', fused_loss, (normal(33, 1500), np.arange(33))),
    ]:
        out, gradients = run(function, *inputs)
        found[name] = out
        found.update({f'd_{name}{i}': gradient for i, gradient in enumerate(gradients)})
    if ops.has_dense():
        found['dense'], (found['d_data'], found['d_weight'], found['d_bias']) = run(
            fused_dense, normal(203, 70), normal(90, 70, seed=1), normal(90)
        )
    found['mask'] = masks(203, 70, seed, 0.2) > 0
    arrays = [mx.nd.array(normal(70000, seed=i)) for i in range(4)]
    found['squares'] = ops.sum_of_squares(mx.nd, arrays).asnumpy()
    for operator in (ops.adam, ops.lamb):
        _, after, _ = run_adam(0.5, [(70000,), (3, 5), (140000,)], operator=operator)
        name = operator.__name__
        found.update(
            {f'{name}{k}{i}': a for k, kind in enumerate(after) for i, a in enumerate(kind)}
        )
    return found


def test_results_do_not_depend_on_the_number_of_threads(tmp_path):
    """Only sums over rows may differ, in rounding; equal numbers of threads give equal bits."""
    runs = [1, 2, 3, 5, 3]
    processes = []
    for i, threads in enumerate(runs):
        code = THREADS.format(folders=FOLDERS)
        environment = threads_environment(threads)
        command = [sys.executable, '-c', code, str(tmp_path / f'{i}.npz')]
        processes.append(subprocess.Popen(command, env=environment, cwd=ROOT))
    assert [process.wait(120) for process in processes] == [0] * len(runs)
    found = [dict(np.load(tmp_path / f'{i}.npz')) for i in range(len(runs))]
    # Sums over the rows, which the threads share.
    summed = {'d_norm2', 'd_norm3'}
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, array in found[0].items():
            if name in summed:
                assert_close(other[name], array)
            else:
                np.testing.assert_array_equal(other[name], array, err_msg=name)
    for name, array in found[2].items():
        np.testing.assert_array_equal(found[4][name], array, err_msg=name)


FORK = """
import json
import multiprocessing
import sys
import numpy as np
sys.path[:0] = {folders!r}
from test_ops import CALLS, ops, run

def numpy_alone(_):
    return float((np.ones((300, 300)) @ np.ones((300, 300))).sum())

def operators(_):
    calls = [call for name, call in CALLS.items() if name != 'dense' or ops.has_dense()]
    return [float(np.abs(run(function, *inputs)[0]).sum()) for function, inputs in calls]

ops.available()
expected = operators(0)
with multiprocessing.get_context('fork').Pool(2) as pool:
    found = pool.map_async(numpy_alone, range(4)).get(60), pool.map_async(operators, [0]).get(60)
print(json.dumps([*found, expected, operators(0)]))
"""


def test_forked_children_compute():
    """Data workers are forked after the operators ran in the parent with several threads.

    They need only NumPy. The operators run too, as MXNet starts new threads after a fork.
    """
    environment = threads_environment(3)
    command = [sys.executable, '-c', FORK.format(folders=FOLDERS)]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, timeout=120, check=True, stdout=subprocess.PIPE
    )
    by_numpy, by_children, by_parent, by_parent_later = json.loads(done.stdout)
    assert by_numpy == [300.0**3] * 4
    np.testing.assert_allclose(by_children[0], by_parent, rtol=1e-6)
    np.testing.assert_allclose(by_parent_later, by_parent, rtol=1e-6)


# Refusals.

LN = {'epsilon': EPSILON}
DROPOUT = {'epsilon': EPSILON, 'rate': 0.1, 'site': 0}
ATTENTION = {'heads': 2, 'rate': 0.1, 'site': 0}
ADAM = {'count': 1, 'beta1': 0.9, 'beta2': 0.9, 'epsilon': 1e-6, 'scale': 1.0}
AXIS = 'gamma and beta must be as long as the last axis of data'
PARTS = 'attention needs projections of (length, batch, parts * heads * width)'
LENGTHS = 'attention needs one valid length for each row of the batch'
BATCHES = 'the queries have another batch size or width than the keys and values'
LABELS = 'cross entropy needs (rows, classes) scores and a label for each row'
MOMENTS = 'a weight has another shape than its gradient or moments'
DENSES = 'a dense layer needs (..., inputs), (units, inputs) and (units,)'
RATES = 'the update needs a learning rate and a weight decay for each array'

REFUSED = [
    ('layer_norm', [(2, 3), (4,), (3,)], LN, AXIS),
    ('layer_norm', [(2, 3), (3,), (1, 3)], LN, AXIS),
    (
        'dropout_add_layer_norm',
        [(2, 3), (3, 2), (3,), (3,), (64,)],
        DROPOUT,
        'data and residual have different shapes',
    ),
    ('dropout_add_layer_norm', [(2, 3), (2, 3), (2,), (3,), (64,)], DROPOUT, AXIS),
    ('self_attention', [(5, 2, 13), (2,), (64,)], ATTENTION, PARTS),
    ('self_attention', [(5, 12), (2,), (64,)], ATTENTION, PARTS),
    ('self_attention', [(5, 2, 12), (2,), (64,)], {**ATTENTION, 'heads': 0}, PARTS),
    ('self_attention', [(5, 2, 12), (2,), (64,)], {**ATTENTION, 'heads': -1}, PARTS),
    ('self_attention', [(5, 2, 12), (2,), (64,)], {**ATTENTION, 'heads': 2**31}, PARTS),
    ('self_attention', [(5, 2, 12), (5,), (64,)], ATTENTION, LENGTHS),
    ('self_attention', [(5, 2, 12), (2, 1), (64,)], ATTENTION, LENGTHS),
    ('attention', [(1, 2, 4), (5, 2, 10), (2,), (64,)], ATTENTION, PARTS),
    ('attention', [(2, 4), (5, 2, 8), (2,), (64,)], ATTENTION, PARTS),
    ('attention', [(1, 2, 4), (5, 2, 8), (2,), (64,)], {**ATTENTION, 'heads': 2**31}, PARTS),
    ('attention', [(1, 3, 4), (5, 2, 8), (2,), (64,)], ATTENTION, BATCHES),
    ('attention', [(1, 2, 8), (5, 2, 8), (2,), (64,)], ATTENTION, BATCHES),
    ('attention', [(1, 2, 4), (5, 2, 8), (1,), (64,)], ATTENTION, LENGTHS),
    ('cross_entropy', [(2, 3, 4), (2,)], {}, LABELS),
    ('cross_entropy', [(2, 3), (3,)], {}, LABELS),
    ('dense', [(2, 3), (4, 2), (4,)], {}, DENSES),
    ('dense', [(2, 3), (4, 3, 1), (4,)], {}, DENSES),
    ('dense', [(2, 3), (4, 3), (3,)], {}, DENSES),
    ('adam', [(2, 2), (1,), (3,), (3,), (3,), (3,)], ADAM, RATES),
    ('adam', [(1, 2), (1,), (3,), (4,), (3,), (3,)], ADAM, MOMENTS),
    ('adam', [(1, 2), (1,), (3,), (3,), (3,), (1, 3)], ADAM, MOMENTS),
    ('lamb', [(2, 2), (1,), (3,), (3,), (3,), (3,)], ADAM, RATES),
    ('lamb', [(1, 2), (1,), (3,), (4,), (3,), (3,)], ADAM, MOMENTS),
]


def refusal(name, arrays, attributes):
    """Return the last line of MXNet's message, which repeats earlier errors above."""
    with pytest.raises(mx.MXNetError) as error:
        out = getattr(mx.nd, f'bert_{name}')(*arrays, **attributes)
        (out[0] if isinstance(out, list) else out).wait_to_read()
    return str(error.value).strip().splitlines()[-1]


@pytest.mark.parametrize(('name', 'shapes', 'attributes', 'sentence'), REFUSED)
def test_wrong_shapes_are_refused(name, shapes, attributes, sentence):
    need(name)
    arrays = [mx.nd.ones(shape) for shape in shapes]
    assert refusal(name, arrays, attributes).endswith(f': {sentence}')


SHAPES = {
    'layer_norm': ([(2, 3), (3,), (3,)], LN),
    'dropout_add_layer_norm': ([(2, 3), (2, 3), (3,), (3,), (64,)], DROPOUT),
    'self_attention': ([(5, 2, 12), (2,), (64,)], ATTENTION),
    'attention': ([(1, 2, 4), (5, 2, 8), (2,), (64,)], ATTENTION),
    'cross_entropy': ([(2, 3), (2,)], {}),
    'dense': ([(2, 3), (4, 3), (4,)], {}),
    'sum_of_squares': ([(2, 3)], {'count': 1}),
    'adam': ([(1, 2), (1,), (3,), (3,), (3,), (3,)], ADAM),
    'lamb': ([(1, 2), (1,), (3,), (3,), (3,), (3,)], ADAM),
}


@pytest.mark.parametrize('name', SHAPES)
def test_other_types_and_missing_attributes_are_refused(name):
    need(name)
    shapes, attributes = SHAPES[name]
    arrays = [mx.nd.ones(shape) for shape in shapes]
    for wrong in range(len(shapes)):
        for dtype in ('float16', 'float64', 'int32'):
            others = [a.astype(dtype) if i == wrong else a for i, a in enumerate(arrays)]
            sentence = refusal(name, others, attributes)
            assert sentence.endswith(': this operator computes with float32 only')
    for missing in attributes:
        rest = {key: value for key, value in attributes.items() if key != missing}
        sentence = refusal(name, arrays, rest)
        assert sentence.endswith(f': the attribute {missing} is missing')
        sentence = refusal(name, arrays, {**attributes, missing: 'many'})
        assert sentence.endswith(f'the attribute {missing} is no number: many')
    with pytest.raises(mx.MXNetError, match=r'expects \d+ inputs'):
        getattr(mx.nd, f'bert_{name}')(*arrays, arrays[0], **attributes)


def test_an_empty_last_axis_is_refused_and_empty_batches_are_not():
    """Sizes of 0 exist only under ``np_shape``."""
    with mx.util.np_shape(True):
        sentence = refusal('layer_norm', [mx.nd.ones((2, 0)), mx.nd.ones(0), mx.nd.ones(0)], LN)
        assert sentence.endswith(': LayerNorm needs a last axis of size 1 or more')
        data = np.zeros((0, 3))
        out, gradients = run(fused_layer_norm, data, np.ones(3), np.ones(3))
        assert out.shape == (0, 3)
        assert not gradients[1].any()
        empty = mx.nd.zeros((4, 0, 12)), mx.nd.zeros(0), mx.nd.ones(64)
        assert fused_self_attention(2)(*empty).shape == (4, 0, 4)
        assert fused_loss(mx.nd.zeros((0, 5)), mx.nd.zeros(0)).shape == (0,)
        zero = ops.sum_of_squares(mx.nd, [mx.nd.zeros((0, 5))])
        assert zero.asnumpy() == 0
        if ops.has_dense():
            out, gradients = run(fused_dense, data, np.ones((2, 3)), np.ones(2))
            assert out.shape == (0, 2)
            assert not gradients[1].any()
            assert not gradients[2].any()


# A real model.


def real_model(folder, fused):
    bert, _ = load_bert(str(folder))
    speed_up(bert, fused)
    bert.hybridize(static_alloc=True)
    return bert


def real_loss(bert):
    """Return a loss of all outputs without dropout, for 4 rows of different lengths."""
    rng = np.random.default_rng(1)
    ids, lengths = rng.integers(1000, 20000, (4, 33)), np.array([33, 1, 16, 27])
    ids[np.arange(33) >= lengths[:, None]] = 0
    types = np.arange(33) >= (lengths // 2)[:, None]
    inputs = [mx.nd.array(array) for array in (ids, types, lengths)]
    with mx.autograd.record(train_mode=False):
        encodings, pooled = bert(*inputs)
        weights = [mx.nd.array(normal(*array.shape, seed=1)) for array in (encodings, pooled)]
        loss = (encodings * weights[0]).sum() + (pooled * weights[1]).sum() * 10
    loss.backward()
    return float(loss.asscalar())


def test_a_real_model_has_the_same_gradients(minilm):
    losses, gradients = [], []
    for fused in (False, True):
        bert = real_model(minilm, fused)
        losses.append(real_loss(bert))
        gradients.append({name: p.grad().asnumpy() for name, p in named(bert).items()})
    assert abs(losses[1] - losses[0]) < 1e-5 * max(abs(losses[0]), 1)
    for name, expected in gradients[0].items():
        # The gradient of a key's bias is 0 apart from rounding.
        scale = np.abs(expected).max() if 'proj_key.bias' not in name else 1
        np.testing.assert_allclose(gradients[1][name], expected, atol=1e-5 * scale, err_msg=name)


def test_three_steps_of_a_real_model_are_the_same(minilm, monkeypatch):
    """Forward, backward, the global norm and BERTAdam agree between both kinds of operators."""
    losses, norms, weights = [], [], []
    for fused in (False, True):
        with monkeypatch.context() as patch:
            if not fused:
                patch.setattr(ops, 'available', lambda: False)
            bert = real_model(minilm, fused)
            parameters = list(bert.collect_params().values())
            # A large epsilon: otherwise rounding would decide the step where a gradient is near 0.
            optimizer = BERTAdam(learning_rate=1e-5, wd=0.01, epsilon=1e-3)
            trainer = mx.gluon.Trainer(parameters, optimizer, update_on_kvstore=False)
            losses.append([])
            norms.append([])
            for _ in range(3):
                losses[-1].append(real_loss(bert))
                norm = global_norm([p.grad() for p in parameters])
                norms[-1].append(float(norm.asscalar()))
                optimizer.clip_factor = 1 / norm
                trainer.update(1)
            weights.append({p.name.split('_', 1)[1]: p.data().asnumpy() for p in parameters})
    assert abs(losses[0][0] - losses[0][2]) > 1e-3 * abs(losses[0][0])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    np.testing.assert_allclose(norms[1], norms[0], rtol=1e-4)
    for name, expected in weights[0].items():
        np.testing.assert_allclose(weights[1][name], expected, rtol=1e-5, atol=1e-7, err_msg=name)
