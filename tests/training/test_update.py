"""Devices, gradients, clipping, the update and its loss scale, against NumPy."""

import os
import resource

import numpy as np
import pytest
from conftest import run_here

from bert.finetuning import step as finetuning_step
from bert.finetuning.step import loss_of
from bert.model import parameters
from bert.system import machine
from bert.system.errors import ToolkitError, UsageError
from bert.training import update
from bert.training.failures import naming_step
from bert.training.optimizer import LAMB

import mxnet as mx  # isort: skip
from mxnet.gluon import nn  # isort: skip


class Net(nn.HybridBlock):
    """A dense layer, a LayerNorm and another dense layer."""

    def __init__(self):
        super().__init__(prefix='net_')
        with self.name_scope():
            self.body = nn.HybridSequential()
            self.body.add(nn.Dense(5, in_units=4), nn.LayerNorm(in_channels=5))
            self.body.add(nn.Dense(3, in_units=5))

    def hybrid_forward(self, F, x):
        return self.body(x)


def build_net(contexts=None, seed=1):
    rng = np.random.default_rng(seed)
    net = Net()
    net.initialize(ctx=contexts or [mx.cpu()])
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.array(rng.normal(size=parameter.shape)))
    return net


def values(net):
    return {
        name.split('_', 1)[1]: parameter.list_data()[0].asnumpy().copy()
        for name, parameter in net.collect_params().items()
    }


def backward(net, rows, contexts, scale=1.0):
    """Differentiate the sum over rows of half the squared outputs; each device takes its share."""
    parts = np.array_split(rows, len(contexts))
    losses = []
    with mx.autograd.record():
        for part, ctx in zip(parts, contexts):
            losses.append((net(mx.nd.array(part, ctx=ctx)) ** 2).sum() * (0.5 * scale))
    mx.autograd.backward(losses)


def rows_of(step, count=8, size=1.0):
    return np.random.default_rng([3, step]).normal(size=(count, 4)) * size


class Reference:
    """Clipping to norm 1, then BERTAdam, in float64, on gradients by differences of the loss."""

    def __init__(self, weights, decays):
        self.w = {name: w.astype(np.float64) for name, w in weights.items()}
        self.m = {name: np.zeros(w.shape) for name, w in weights.items()}
        self.v = {name: np.zeros(w.shape) for name, w in weights.items()}
        self.decays = decays

    def loss(self, rows):
        """Compute the loss from the definitions of the three layers."""
        w = self.w
        hidden = rows @ w['dense0_weight'].T + w['dense0_bias']
        mean = hidden.mean(axis=1, keepdims=True)
        deviation = np.sqrt(((hidden - mean) ** 2).mean(axis=1, keepdims=True) + 1e-5)
        normal = (hidden - mean) / deviation * w['layernorm0_gamma'] + w['layernorm0_beta']
        return 0.5 * ((normal @ w['dense1_weight'].T + w['dense1_bias']) ** 2).sum()

    def gradient(self, rows):
        found = {}
        for name, w in self.w.items():
            found[name] = np.empty(w.shape)
            for index in np.ndindex(w.shape):
                kept = w[index]
                w[index] = kept + 1e-6
                above = self.loss(rows)
                w[index] = kept - 1e-6
                found[name][index] = (above - self.loss(rows)) / 2e-6
                w[index] = kept
        return found

    def step(self, rows, rate):
        gradient = {name: g / len(rows) for name, g in self.gradient(rows).items()}
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        for name, g in gradient.items():
            g = g * min(1, 1 / norm)
            self.m[name] = 0.9 * self.m[name] + 0.1 * g
            self.v[name] = 0.999 * self.v[name] + 0.001 * g * g
            change = self.m[name] / (np.sqrt(self.v[name]) + 1e-6)
            self.w[name] = self.w[name] - rate * (change + self.decays[name] * self.w[name])
        return norm


@pytest.mark.parametrize('devices', [1, 2])
def test_update_equals_numpy(devices):
    """Forward, backward, clipping and four updates are the same; the first updates are clipped."""
    contexts = [mx.cpu(i) for i in range(devices)]
    net = build_net(contexts)
    trainer = update.build_trainer(net, 'bertadam', 1e-3, 1e-6)
    decays = {name: 0.01 if name.endswith('weight') else 0.0 for name in values(net)}
    assert sorted(decays.values()) == [0, 0, 0, 0, 0.01, 0.01]
    reference = Reference(values(net), decays)
    scale = update.LossScale('float32')
    norms = []
    for step, size in enumerate([1.0, 2.0, 0.5, 1.0]):
        rows, rate = rows_of(step, size=size), 0.02 / (step + 1)
        backward(net, rows, contexts)
        norm = update.update(trainer, update.trainable(net), len(rows), rate, scale)
        norms.append((norm.asscalar(), reference.step(rows, rate)))
    np.testing.assert_allclose(*zip(*norms), rtol=1e-4)
    assert max(norms[0]) > 1.5
    for name, found in values(net).items():
        np.testing.assert_allclose(found, reference.w[name], rtol=1e-3, atol=2e-5, err_msg=name)
    for parameter in net.collect_params().values():
        copies = [data.asnumpy() for data in parameter.list_data()]
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])


def test_a_small_gradient_is_not_clipped():
    """Plain SGD shows the gradient: without clipping, w - rate * mean gradient."""
    net = build_net()
    trainer = update.build_trainer(net, 'sgd', 0.1, 1e-6)
    trainer.optimizer.wd = 0.0
    before = values(net)
    rows = rows_of(0)
    backward(net, rows, [mx.cpu()], scale=1e-3)
    gradients = {
        name.split('_', 1)[1]: p.grad().asnumpy().copy() for name, p in net.collect_params().items()
    }
    norm = update.update(trainer, update.trainable(net), 8, 0.1, update.LossScale('float32'))
    assert norm.asscalar() < 1
    for name, after in values(net).items():
        np.testing.assert_allclose(
            after, before[name] - 0.1 * gradients[name] / 8, rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize('limit', [0.25, 3.0, 1e60])
def test_the_norm_that_gradients_are_clipped_to(limit):
    """Plain SGD of rate 1 moves the weights by the clipped gradient.

    A limit beyond float32 clips nothing.
    """
    net = build_net()
    trainer = update.build_trainer(net, 'sgd', 1.0, 1e-6, weight_decay=0.0)
    before = values(net)
    backward(net, rows_of(0), [mx.cpu()], scale=100)
    settings = 1.0, update.LossScale('float32')
    norm = update.update(trainer, update.trainable(net), 8, *settings, max_norm=limit)
    assert norm.asscalar() > 3
    moved = [(values(net)[name] - array).ravel() for name, array in before.items()]
    expected = min(limit, norm.asscalar())
    assert np.linalg.norm(np.concatenate(moved)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('optimizer', ['sgd', 'adam', 'bertadam', 'lamb'])
def test_every_optimizer_gets_clipped_gradients(optimizer):
    """Rows ten thousand times as large change nothing but the norm, already above 1."""
    results = []
    for factor in (1, 10000):
        net = build_net()
        trainer = update.build_trainer(net, optimizer, 0.1, 1e-6)
        backward(net, rows_of(0), [mx.cpu()], scale=10 * factor)
        norm = update.update(trainer, update.trainable(net), 8, 0.1, update.LossScale('float32'))
        assert norm.asscalar() > 1
        results.append(values(net))
    for name in results[0]:
        np.testing.assert_allclose(*(r[name] for r in results), rtol=1e-4, atol=1e-6)


def test_gradients_add_up_until_they_are_cleared():
    """Two halves, added up, give the same update as the whole."""
    nets = [build_net(), build_net()]
    scale = update.LossScale('float32')
    trainers = [update.build_trainer(net, 'bertadam', 1e-3, 1e-6) for net in nets]
    update.accumulate_gradients(nets[1])
    for step in range(3):
        rows = rows_of(step)
        backward(nets[0], rows, [mx.cpu()])
        backward(nets[1], rows[:3], [mx.cpu()])
        backward(nets[1], rows[3:], [mx.cpu()])
        for net, trainer in zip(nets, trainers):
            update.update(trainer, update.trainable(net), 8, 0.01, scale)
        update.clear_gradients(nets[1])
    for name, expected in values(nets[0]).items():
        np.testing.assert_allclose(values(nets[1])[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('optimizer', ['bertadam', 'lamb', 'sgd'])
@pytest.mark.parametrize('size', [1, 1e-3])
def test_the_loss_scale_leaves_the_update_as_it_is(optimizer, size):
    """Whether the gradients are clipped, as those of size 1 are, or not."""
    results = []
    for dtype in ('float32', 'float16'):
        net = build_net()
        trainer = update.build_trainer(net, optimizer, 1e-3, 1e-6)
        scale = update.LossScale(dtype)
        for step in range(3):
            backward(net, rows_of(step), [mx.cpu()], scale=scale.value * size)
            update.update(trainer, update.trainable(net), 8, 0.01, scale)
        results.append(values(net))
        assert scale.value == {'float32': 1, 'float16': 2**15}[dtype]
    for name in results[0]:
        np.testing.assert_allclose(*(r[name] for r in results), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('bad', [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize('optimizer', ['bertadam', 'lamb', 'adam', 'sgd'])
def test_overflow_skips_the_update_and_halves_the_scale(optimizer, bad):
    """Float16 gradients overflow at the first, large scale; the next update goes on as before."""
    net, other = build_net(), build_net()
    trainers = [update.build_trainer(n, optimizer, 1e-3, 1e-6) for n in (net, other)]
    if optimizer == 'lamb':  # the skipped step counts in the correction of its moments
        trainers[1].optimizer.begin_num_update = 1
    scale = update.LossScale('float16')
    before = values(net)
    backward(net, rows_of(0), [mx.cpu()], scale=scale.value)
    update.trainable(net)[2].grad()[0] = bad
    update.update(trainers[0], update.trainable(net), 8, 0.01, scale)
    assert scale.value == 2**14
    for name, after in values(net).items():
        np.testing.assert_array_equal(after, before[name], err_msg=name)
    backward(net, rows_of(1), [mx.cpu()], scale=scale.value)
    backward(other, rows_of(1), [mx.cpu()])
    update.update(trainers[0], update.trainable(net), 8, 0.01, scale)
    update.update(trainers[1], update.trainable(other), 8, 0.01, update.LossScale('float32'))
    for name, expected in values(other).items():
        np.testing.assert_allclose(values(net)[name], expected, rtol=1e-5, atol=1e-6)


def test_loss_scale_by_hand():
    finite, infinite = mx.nd.ones((1,)), mx.nd.array([np.inf])
    scale = update.LossScale('float16')
    for _ in range(1999):
        scale.adjust(finite)
    assert scale.value == 2**15
    scale.adjust(finite)
    assert scale.value == 2**16
    # 16 halvings end at the lowest scale, 1; one more is too much.
    for _ in range(16):
        scale.adjust(infinite)
    assert scale.value == 1.0
    with pytest.raises(ToolkitError) as caught, naming_step(lambda: (7, 'nothing is saved')):
        scale.adjust(infinite)
    assert str(caught.value) == (
        'step 7: the float16 gradients overflow whatever the loss scale: try a lower --lr, or '
        '--dtype float32; nothing is saved'
    )
    plain = update.LossScale('float32')
    plain.adjust(infinite)
    assert plain.value == 1.0


def test_global_norm():
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in [(3,), (2, 5), (1, 1, 4)]]
    expected = np.linalg.norm(np.concatenate([array.ravel() for array in arrays]))
    for dtype, tolerance in [('float32', 1e-6), ('float16', 1e-3)]:
        found = update.global_norm([mx.nd.array(array, dtype=dtype) for array in arrays])
        assert found.shape == (1,) and found.dtype == np.float32
        assert found.asscalar() == pytest.approx(expected, rel=tolerance)


def test_losses_of_single_rows():
    logits, labels = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]]), np.array([0, 1])
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[[0, 1], labels]
    found = loss_of(3)(mx.nd.array(logits), mx.nd.array(labels))
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-5)
    found = finetuning_step.loss_of(None)(mx.nd.array([[1.0], [4.0]]), mx.nd.array([3.0, 4.5]))
    assert found.asnumpy().tolist() == [2.0, 0.125]


def test_optimizer_names():
    net = build_net()
    for name in ('bertadam', 'BERTAdam', 'adam', 'SGD', 'LAMB'):
        trainer = update.build_trainer(net, name, 1e-3, 1e-4)
        assert trainer.optimizer.wd == 0.01
        assert trainer.optimizer.epsilon == 1e-4 if 'adam' in name.lower() else True
        assert trainer.optimizer.multi_precision
        trainer = update.build_trainer(net, name, 1e-3, 1e-4, weight_decay=0.3)
        assert trainer.optimizer.wd == 0.3
    # Not MXNet's own of this name.
    assert isinstance(update.build_trainer(net, 'LAMB', 1e-3, 1e-4).optimizer, LAMB)
    with pytest.raises(UsageError) as caught:
        update.build_trainer(net, 'adamm', 1e-3, 1e-4)
    assert str(caught.value).startswith('--optimizer adamm is not one of ')
    assert ', adam, ' in str(caught.value)


def test_contexts(monkeypatch):
    assert update.contexts([]) == update.contexts(None) == [mx.cpu()]
    monkeypatch.setattr(machine, 'gpu_problem', lambda gpus: None)
    assert update.contexts([1, 0]) == [mx.gpu(1), mx.gpu(0)]
    monkeypatch.setattr(machine, 'gpu_problem', lambda gpus: 'there is no GPU 1')
    with pytest.raises(ToolkitError) as caught:
        update.contexts([1])
    assert str(caught.value) == 'cannot train on a GPU: there is no GPU 1'
    assert caught.value.status == 1


def test_each_step_has_its_own_random_numbers():
    def draw(seed, step):
        update.seed_step(seed, step)
        with mx.autograd.record():
            return mx.nd.Dropout(mx.nd.ones((256,)), p=0.5).asnumpy().tolist()

    assert draw(1, 5) == draw(1, 5)
    masks = [draw(1, 5), draw(1, 6), draw(2, 5), draw(5, 1)]
    assert all(a != b for i, a in enumerate(masks) for b in masks[:i])


def test_saved_parameters_are_whole(tmp_path):
    net = build_net()
    parameters.save(net, tmp_path / 'net.params')
    other = build_net(seed=2)
    other.load_parameters(str(tmp_path / 'net.params'))
    for name, expected in values(net).items():
        np.testing.assert_array_equal(values(other)[name], expected)
    assert os.listdir(tmp_path) == ['net.params']


@pytest.mark.parametrize('missing', [1, 200, 300, 5000])
def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path, capsys, missing):
    """The last kilobytes wait in a buffer, and MXNet does not check that they arrive."""
    path = tmp_path / 'net.params'
    net = nn.Dense(80, in_units=90)
    net.initialize()
    parameters.save(net, str(path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size - missing, limits[1]))
    try:
        status = run_here(lambda: parameters.save(net, str(path)), ['script.py'])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    errors = capsys.readouterr().err
    assert status == 1
    assert errors.startswith(f'script.py: error: {path}')
    assert errors.count('\n') == 1
    assert os.listdir(tmp_path) == ['net.params']
    assert len(mx.nd.load(str(path))) == 2
