"""LAMB against Algorithm 2 of its paper in NumPy, and against MXNet's own."""

import numpy as np
import pytest

from bert.training.optimizer import LAMB

import mxnet as mx  # isort: skip

SHAPES = [(3, 4), (5,), (2, 3, 2), (1,), (300, 250), (4,)]
RATES = [1e-2, 2e-2, 5e-3, 1e-3, 0.0]


class Reference:
    """A reference for one weight: lines 4 to 11 of Algorithm 2 in float64, phi the identity."""

    def __init__(self, weight, beta1=0.9, beta2=0.999, epsilon=1e-6, decay=0.01):
        self.x = weight.astype(np.float64)
        self.m, self.v, self.t = np.zeros_like(self.x), np.zeros_like(self.x), 0
        self.beta1, self.beta2, self.epsilon, self.decay = beta1, beta2, epsilon, decay

    def step(self, gradient, rate):
        self.t += 1
        g = gradient.astype(np.float64)
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        m = self.m / (1 - self.beta1**self.t)
        v = self.v / (1 - self.beta2**self.t)
        r = m / (np.sqrt(v) + self.epsilon)
        moved = r + self.decay * self.x
        norms = np.sqrt((self.x**2).sum()), np.sqrt((moved**2).sum())
        ratio = norms[0] / norms[1] if all(norms) else 1
        self.x = self.x - rate * ratio * moved


def arrays(dtype='float32', seed=1, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [mx.nd.array(rng.normal(size=shape), dtype=dtype) for shape in shapes]


def gradients(step, dtype='float32'):
    return arrays(dtype, [2, step])


def states(optimizer, weights):
    return [optimizer.create_state_multi_precision(i, w) for i, w in enumerate(weights)]


def update(optimizer, weights, grads, all_states):
    indices = list(range(len(weights)))
    optimizer.update_multi_precision(indices, weights, grads, all_states)


def assert_close(array, expected, rtol=2e-5, atol=5e-6):
    np.testing.assert_allclose(array.asnumpy(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    'keywords',
    [
        {},
        {'beta1': 0.8, 'beta2': 0.95, 'epsilon': 1e-2},
        {'rescale_grad': 0.125},
        {'clip_gradient': 0.3},
        {'wd': 0.1},
        {'wd': 0.0},
    ],
    ids=str,
)
def test_states_over_several_steps(keywords, operators):
    settings = {'wd': 0.01, **keywords}
    optimizer = LAMB(**settings)
    weights = arrays()
    names = {name: keywords[name] for name in ('beta1', 'beta2', 'epsilon') if name in keywords}
    references = [Reference(w.asnumpy(), decay=settings['wd'], **names) for w in weights]
    moments = states(optimizer, weights)
    limit = keywords.get('clip_gradient', np.inf)
    for step, rate in enumerate(RATES):
        optimizer.set_learning_rate(rate)
        grads = gradients(step)
        update(optimizer, weights, grads, moments)
        for weight, (mean, variance), grad, reference in zip(weights, moments, grads, references):
            gradient = grad.asnumpy() * keywords.get('rescale_grad', 1)
            reference.step(np.clip(gradient, -limit, limit), rate)
            assert_close(mean, reference.m)
            assert_close(variance, reference.v, rtol=2e-4, atol=1e-7)
            assert_close(weight, reference.x)


def test_first_step_by_hand(operators):
    """From w = (3, 4), g = (2, -7), rate 0.1, decay 0.5.

    Corrected, the first step of Adam is the sign of g, (1, -1). u = (1, -1) + 0.5 (3, 4) = (2.5, 1)
    has the norm sqrt(7.25) = 2.692582, and w the norm 5: w moves by 0.1 * 5 / 2.692582 * u =
    0.185695 u.
    """
    optimizer = LAMB(learning_rate=0.1, wd=0.5)
    weight = mx.nd.array([3.0, 4.0])
    state = optimizer.create_state(0, weight)
    optimizer.update(0, weight, mx.nd.array([2.0, -7.0]), state)
    assert_close(weight, [3 - 0.464238, 4 - 0.185695])


def test_norms_of_0(operators):
    """A weight of 0 moves by the rate, as with Adam; without an update a weight stays."""
    optimizer = LAMB(learning_rate=0.1, wd=0.0)
    weights = [mx.nd.zeros((2,)), mx.nd.array([3.0, 4.0])]
    update(optimizer, weights, [mx.nd.ones((2,)), mx.nd.zeros((2,))], states(optimizer, weights))
    assert_close(weights[0], [-0.1, -0.1])
    assert weights[1].asnumpy().tolist() == [3, 4]


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_as_mxnets(dtype, operators):
    """With the decay of biases 0, as here, and a weight that is a new bias, of norm 0."""
    names = ['weight', 'bias', 'weight', 'bias', 'weight', 'bias']
    parameters = {
        i: mx.gluon.Parameter(name, wd_mult=float(name == 'weight')) for i, name in enumerate(names)
    }
    keywords = {'learning_rate': 0.02, 'wd': 0.1, 'multi_precision': True}
    ours, theirs = (kind(param_dict=parameters, **keywords) for kind in (LAMB, mx.optimizer.LAMB))
    weights, copies = arrays(dtype), arrays(dtype)
    for each in (weights, copies):
        each[5][:] = 0
    all_states, their_states = states(ours, weights), states(theirs, copies)
    for step in range(4):
        grads = gradients(step, dtype)
        update(ours, weights, grads, all_states)
        update(theirs, copies, grads, their_states)
    tolerance = {'rtol': 1e-5, 'atol': 1e-6} if dtype == 'float32' else {'rtol': 2e-3, 'atol': 1e-5}
    for weight, copy in zip(weights, copies):
        assert weight.dtype == copy.dtype == np.dtype(dtype)
        assert_close(weight, copy.asnumpy(), **tolerance)


def test_float16_weights_follow_float32_copies():
    optimizer = LAMB(wd=0.01, multi_precision=True)
    weights = arrays('float16')
    references = [Reference(weight.asnumpy()) for weight in weights]
    all_states = states(optimizer, weights)
    for step, rate in enumerate(RATES):
        optimizer.set_learning_rate(rate)
        grads = gradients(step, 'float16')
        update(optimizer, weights, grads, all_states)
        for weight, state, grad, reference in zip(weights, all_states, grads, references):
            (mean, variance), master = state
            reference.step(grad.asnumpy(), rate)
            assert {mean.dtype, variance.dtype, master.dtype} == {np.float32}
            assert_close(master, reference.x)
            np.testing.assert_array_equal(weight.asnumpy(), master.asnumpy().astype(np.float16))


def test_float16_without_copies():
    optimizer = LAMB(learning_rate=0.01, wd=0.01)
    weight = mx.nd.array([1.0, -2.0], dtype='float16')
    with pytest.warns(UserWarning, match='LAMB with float16 weights'):
        state = optimizer.create_state_multi_precision(0, weight)
    optimizer.update_multi_precision(0, weight, mx.nd.array([0.5, 1.0], dtype='float16'), state)
    reference = Reference(np.array([1.0, -2.0]))
    reference.step(np.array([0.5, 1.0]), 0.01)
    assert_close(weight, reference.x, rtol=3e-3)


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_many_arrays_equal_single_ones(dtype, operators):
    """MXNet's operators take 45 at once."""
    keywords = {'wd': 0.01, 'multi_precision': True}
    together, alone = LAMB(**keywords), LAMB(**keywords)
    shapes = [(3, 1 + i) for i in range(100)]
    weights, copies, grads = (arrays(dtype, seed, shapes) for seed in (1, 1, 2))
    all_states, other_states = states(together, weights), states(alone, copies)
    for _ in range(2):
        update(together, weights, grads, all_states)
        for i in range(len(copies)):
            alone.update_multi_precision(i, copies[i], grads[i], other_states[i])
    for weight, copy in zip(weights, copies):
        np.testing.assert_array_equal(weight.asnumpy(), copy.asnumpy())


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_clip_factor_multiplies_the_gradients(dtype, operators):
    keywords = {'wd': 0.01, 'rescale_grad': 0.5, 'epsilon': 0.1, 'multi_precision': True}
    clipped, plain = LAMB(**keywords), LAMB(**keywords)
    weights, copies = arrays(dtype), arrays(dtype)
    all_states, other_states = states(clipped, weights), states(plain, copies)
    for step in range(3):
        grads = gradients(step, dtype)
        clipped.clip_factor = mx.nd.array([0.25])
        update(clipped, weights, grads, all_states)
        update(plain, copies, [grad * 0.25 for grad in grads], other_states)
    for weight, copy in zip(weights, copies):
        assert_close(weight, copy.asnumpy(), rtol=1e-6 if dtype == 'float32' else 1e-3)


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
@pytest.mark.parametrize('factor', [np.nan, np.inf, -np.inf, 0.0])
def test_nothing_moves_where_the_clip_factor_is_not_finite(dtype, factor, operators):
    optimizer = LAMB(learning_rate=0.1, wd=0.5, multi_precision=True)
    weights = arrays(dtype)
    all_states = states(optimizer, weights)
    update(optimizer, weights, gradients(0, dtype), all_states)

    def snapshot():
        flat = [*weights]
        for state in all_states:
            flat += [*state[0], state[1]] if dtype == 'float16' else state
        return [array.asnumpy().copy() for array in flat]

    before = snapshot()
    optimizer.clip_factor = mx.nd.array([factor])
    update(optimizer, weights, [grad * np.inf for grad in gradients(1, dtype)], all_states)
    for old, new in zip(before, snapshot()):
        np.testing.assert_array_equal(old, new)
