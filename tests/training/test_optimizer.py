"""BERTAdam, state by state, against its equations in NumPy."""

import numpy as np
import pytest

from bert.training.optimizer import ARRAYS_PER_CALL, BERTAdam

import mxnet as mx  # isort: skip

SHAPES = [(3, 4), (5,), (2, 3, 2), (1,), (7, 2), (4,)]
RATES = [1e-2, 2e-2, 5e-3, 1e-3, 0.0]


class Reference:
    """A reference for one weight: the published equations in float64."""

    def __init__(self, weight, beta1=0.9, beta2=0.999, epsilon=1e-6, decay=0.01, correct=False):
        self.w = weight.astype(np.float64)
        self.m, self.v = np.zeros_like(self.w), np.zeros_like(self.w)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.decay, self.correct, self.t = decay, correct, 0

    def step(self, gradient, rate):
        self.t += 1
        g = gradient.astype(np.float64)
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        m, v = self.m, self.v
        if self.correct:
            m, v = m / (1 - self.beta1**self.t), v / (1 - self.beta2**self.t)
        self.w = self.w - rate * (m / (np.sqrt(v) + self.epsilon) + self.decay * self.w)


def arrays(dtype='float32', seed=1):
    rng = np.random.default_rng(seed)
    return [mx.nd.array(rng.normal(size=shape), dtype=dtype) for shape in SHAPES]


def gradients(step, dtype='float32'):
    rng = np.random.default_rng([2, step])
    return [mx.nd.array(rng.normal(size=shape), dtype=dtype) for shape in SHAPES]


def states(optimizer, weights):
    return [optimizer.create_state_multi_precision(i, w) for i, w in enumerate(weights)]


def chunks(count):
    return [
        list(range(start, min(start + ARRAYS_PER_CALL, count)))
        for start in range(0, count, ARRAYS_PER_CALL)
    ]


def update(optimizer, weights, grads, all_states):
    for indices in chunks(len(weights)):
        optimizer.update_multi_precision(
            indices,
            [weights[i] for i in indices],
            [grads[i] for i in indices],
            [all_states[i] for i in indices],
        )


def assert_close(array, expected, rtol=2e-6, atol=1e-7):
    np.testing.assert_allclose(array.asnumpy(), expected, rtol=rtol, atol=atol)


def assert_close_states(mean, variance, weight, reference):
    """Compare; MXNet's float32 v, beta2 * (v - g * g) + g * g, rounds g * g, which is 1,000 v."""
    assert_close(mean, reference.m, rtol=2e-5, atol=2e-6)
    assert_close(variance, reference.v, rtol=2e-4)
    assert_close(weight, reference.w, rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize('bias_correction', [False, True])
@pytest.mark.parametrize(
    'keywords',
    [
        {},
        {'beta1': 0.8, 'beta2': 0.95, 'epsilon': 1e-2},
        {'rescale_grad': 0.125},
        {'clip_gradient': 0.3},
        {'wd': 0.1},
    ],
)
def test_states_over_several_steps(bias_correction, keywords):
    settings = {'wd': 0.01, **keywords}
    optimizer = BERTAdam(bias_correction=bias_correction, **settings)
    weights = arrays()
    references = [
        Reference(
            weight.asnumpy(),
            decay=settings['wd'],
            correct=bias_correction,
            **{name: keywords[name] for name in ('beta1', 'beta2', 'epsilon') if name in keywords},
        )
        for weight in weights
    ]
    moments = states(optimizer, weights)
    for step, rate in enumerate(RATES):
        optimizer.set_learning_rate(rate)
        grads = gradients(step)
        update(optimizer, weights, grads, moments)
        for weight, (mean, variance), grad, reference in zip(weights, moments, grads, references):
            gradient = grad.asnumpy() * keywords.get('rescale_grad', 1)
            limit = keywords.get('clip_gradient', np.inf)
            reference.step(np.clip(gradient, -limit, limit), rate)
            assert_close_states(mean, variance, weight, reference)


def test_first_step_by_hand():
    """From w = 1, g = 1, rate 0.1, decay 0.01, beta1 0.9, beta2 0.999.

    m = 0.1, v = 0.001: w = 1 - 0.1 * (0.1 / (sqrt(0.001) + 1e-6) + 0.01) = 0.68278. With the
    correction m and v become 1: w = 1 - 0.1 * (1 / (1 + 1e-6) + 0.01) = 0.899.
    """
    for correct, expected in [(False, 0.682782), (True, 0.8990001)]:
        optimizer = BERTAdam(learning_rate=0.1, wd=0.01, bias_correction=correct)
        weight = mx.nd.ones((1,))
        optimizer.update(0, weight, mx.nd.ones((1,)), optimizer.create_state(0, weight))
        assert weight.asscalar() == pytest.approx(expected, rel=1e-5)


def test_no_decay_where_the_multiplier_is_zero():
    parameters = {0: mx.gluon.Parameter('weight'), 1: mx.gluon.Parameter('bias', wd_mult=0.0)}
    optimizer = BERTAdam(learning_rate=0.1, wd=0.5, param_dict=parameters)
    weights = [mx.nd.ones((2,)), mx.nd.ones((2,))]
    moments = states(optimizer, weights)
    zero = [mx.nd.zeros((2,)), mx.nd.zeros((2,))]
    for _ in range(2):
        update(optimizer, weights, zero, moments)
    # Without a gradient only decay moves a weight: twice by the factor 1 - 0.1 * 0.5.
    assert_close(weights[0], np.full(2, 0.95**2))
    assert weights[1].asnumpy().tolist() == [1, 1]


def test_float16_weights_follow_float32_copies():
    optimizer = BERTAdam(wd=0.01, multi_precision=True)
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
            assert_close_states(mean, variance, master, reference)
            assert weight.dtype == np.float16
            np.testing.assert_array_equal(weight.asnumpy(), master.asnumpy().astype(np.float16))


def test_steps_too_small_for_float16_add_up():
    """Each step moves 1.0 by less than half of float16's spacing, 2**-11; 100 steps by more."""
    optimizer = BERTAdam(learning_rate=1e-5, wd=0.0, multi_precision=True)
    weight = mx.nd.ones((1,), dtype='float16')
    state = optimizer.create_state_multi_precision(0, weight)
    for step in range(100):
        optimizer.update_multi_precision(0, weight, mx.nd.ones((1,), dtype='float16'), state)
        if step == 0:
            assert weight.asscalar() == 1.0
    assert weight.asscalar() < 0.999


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
@pytest.mark.parametrize('bias_correction', [False, True])
def test_lists_equal_single_arrays(dtype, bias_correction):
    keywords = {'wd': 0.01, 'bias_correction': bias_correction, 'multi_precision': True}
    together, alone = BERTAdam(**keywords), BERTAdam(**keywords)
    weights, copies = arrays(dtype), arrays(dtype)
    all_states, other_states = states(together, weights), states(alone, copies)
    for step in range(3):
        grads = gradients(step, dtype)
        update(together, weights, grads, all_states)
        for i in range(len(copies)):
            alone.update_multi_precision(i, copies[i], grads[i], other_states[i])
    for weight, copy in zip(weights, copies):
        np.testing.assert_array_equal(weight.asnumpy(), copy.asnumpy())


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_clip_factor_multiplies_the_gradients(dtype):
    keywords = {'wd': 0.01, 'rescale_grad': 0.5, 'multi_precision': True}
    clipped, plain = BERTAdam(**keywords), BERTAdam(**keywords)
    weights, copies = arrays(dtype), arrays(dtype)
    all_states, other_states = states(clipped, weights), states(plain, copies)
    for step in range(3):
        grads = gradients(step, dtype)
        clipped.clip_factor = mx.nd.array([0.25])
        update(clipped, weights, grads, all_states)
        update(plain, copies, [grad * 0.25 for grad in grads], other_states)
    for weight, copy in zip(weights, copies):
        assert_close(weight, copy.asnumpy(), rtol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
@pytest.mark.parametrize('factor', [np.nan, np.inf, -np.inf, 0.0])
def test_nothing_moves_where_the_clip_factor_is_not_finite(dtype, factor):
    optimizer = BERTAdam(learning_rate=0.1, wd=0.5, multi_precision=True)
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
    grads = [grad * np.inf for grad in gradients(1, dtype)]
    update(optimizer, weights, grads, all_states)
    for old, new in zip(before, snapshot()):
        np.testing.assert_array_equal(old, new)


def test_update_counts():
    optimizer = BERTAdam()
    weights = arrays()
    all_states = states(optimizer, weights)
    for step in range(3):
        update(optimizer, weights, gradients(step), all_states)
    assert optimizer.num_update == 3
    assert {optimizer._index_update_count[i] for i in range(len(weights))} == {3}


def test_the_correction_takes_the_count_of_its_own_weight():
    """A weight that joins later starts at step 1."""
    optimizer = BERTAdam(learning_rate=0.1, wd=0.0, bias_correction=True)
    old, new = mx.nd.ones((1,)), mx.nd.ones((1,))
    state = optimizer.create_state(0, old)
    for _ in range(5):
        optimizer.update(0, old, mx.nd.ones((1,)), state)
    optimizer.update(1, new, mx.nd.ones((1,)), optimizer.create_state(1, new))
    # The first corrected step is the rate, whatever the gradient.
    assert new.asscalar() == pytest.approx(0.9, rel=1e-5)


# The combinations of GluonNLP's own test of its BERTAdam, 3 * 3 * 3 * 4.
COMBINATIONS = [
    {**beta, **clip, **rescale, **decay}
    for beta in ({}, {'beta1': 0.5}, {'beta1': 0.7})
    for clip in ({}, {'clip_gradient': 0.4}, {'clip_gradient': 0.5})
    for rescale in ({}, {'rescale_grad': 0.14}, {'rescale_grad': 0.8})
    for decay in ({}, {'wd': 0.03}, {'wd': 0.05}, {'wd': 0.07})
]


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
@pytest.mark.parametrize('keywords', COMBINATIONS, ids=str)
def test_as_gluonnlps_and_as_the_equations(keywords, dtype):
    """All defaults but those in ``keywords``, the learning rate's among them, are GluonNLP's."""
    from gluonnlp.optimizer import BERTAdam as Theirs

    keywords = {**keywords, 'multi_precision': dtype == 'float16'}
    ours, theirs = BERTAdam(**keywords), Theirs(**keywords)
    weights, copies = arrays(dtype), arrays(dtype)
    names = {'beta1': keywords.get('beta1', 0.9), 'decay': keywords.get('wd', 0.0)}
    references = [Reference(weight.asnumpy(), **names) for weight in weights]
    all_states, their_states = states(ours, weights), states(theirs, copies)
    limit = keywords.get('clip_gradient', np.inf)
    for step in range(3):
        grads = gradients(step, dtype)
        update(ours, weights, grads, all_states)
        # GluonNLP's takes the states of the first array of a list for those of all, in float16.
        for i, copy in enumerate(copies):
            theirs.update_multi_precision([i], [copy], [grads[i]], [their_states[i]])
        for grad, reference in zip(grads, references):
            gradient = grad.asnumpy().astype(np.float64) * keywords.get('rescale_grad', 1)
            reference.step(np.clip(gradient, -limit, limit), 0.001)
    tolerance = {'rtol': 1e-4, 'atol': 1e-6} if dtype == 'float32' else {'rtol': 1e-3, 'atol': 1e-3}
    for weight, copy, reference in zip(weights, copies, references):
        assert weight.dtype == copy.dtype == np.dtype(dtype)
        assert_close(weight, copy.asnumpy(), **tolerance)
        assert_close(weight, reference.w, **tolerance)


def test_float16_without_copies():
    """As every optimizer of MXNet does by default: float16 states, and a warning."""
    optimizer = BERTAdam(learning_rate=0.01, wd=0.01)
    weight = mx.nd.array([1.0, -2.0], dtype='float16')
    with pytest.warns(UserWarning, match='multi_precision=True'):
        state = optimizer.create_state_multi_precision(0, weight)
    assert [array.dtype for array in state] == [np.float16] * 2
    optimizer.update_multi_precision(0, weight, mx.nd.array([0.5, 1.0], dtype='float16'), state)
    reference = Reference(np.array([1.0, -2.0]))
    reference.step(np.array([0.5, 1.0]), 0.01)
    assert_close(weight, reference.w, rtol=3e-3)


def test_the_minimum_of_a_quadratic_is_found():
    """As google-research/bert's test of its optimizer: 100 steps from (0.1, -0.2, -0.1)."""
    target = mx.nd.array([0.4, 0.2, -0.5])
    weight = mx.nd.array([0.1, -0.2, -0.1])
    optimizer = BERTAdam(learning_rate=0.2)
    state = optimizer.create_state(0, weight)
    for _ in range(100):
        optimizer.update(0, weight, 2 * (weight - target) / 3, state)
    assert_close(weight, target.asnumpy(), rtol=1e-2, atol=1e-2)
