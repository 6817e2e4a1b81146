"""One update of the weights: its seed, the loss scale, clipping, the optimizer, and their state."""

import inspect
import math

import mxnet as mx
import numpy as np

from bert import ops
from bert.distributed.workers import ALONE
from bert.system import machine
from bert.system.errors import ToolkitError, UsageError
from bert.training import states
from bert.training.failures import OverflowAtLowestScale
from bert.training.flags import MAX_GRADIENT_NORM, WEIGHT_DECAY
from bert.training.optimizer import LAMB, BERTAdam, TwoMoments


def contexts(gpus, purpose='train'):
    """Return MXNet's contexts for a list of GPU numbers, or the CPU for an empty one.

    Parameters
    ----------
    gpus : sequence of int
    purpose : str
        What they are for, a verb for the error.

    Raises
    ------
    ToolkitError
        If MXNet cannot run on one of them.
    """
    if not gpus:
        return [mx.cpu()]
    problem = machine.gpu_problem(gpus)
    if problem:
        raise ToolkitError(f'cannot {purpose} on a GPU: {problem}')
    return [mx.gpu(index) for index in gpus]


def seed_step(seed, step, rank=0):
    """Seed MXNet's random numbers, which dropout uses, for one step of one worker.

    MXNet's generator cannot be saved. With a new seed for each step, a run can resume without it.
    """
    mx.random.seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0] >> 1))


def build_trainer(
    model,
    optimizer,
    learning_rate,
    epsilon,
    bias_correction=False,
    kvstore='device',
    weight_decay=WEIGHT_DECAY,
):
    """Build a trainer for all parameters, without weight decay on LayerNorm and biases.

    Parameters
    ----------
    model : mxnet.gluon.Block
    optimizer : str
        ``bertadam``, ``lamb`` or one of MXNet's.
    bias_correction : bool
        For BERTAdam; LAMB always has it.
    kvstore : str
        The store that adds up the gradients of several devices.

    Returns
    -------
    mxnet.gluon.Trainer
        The weights are updated here, not on the key-value store, which would unpickle what it
        is sent.
    """
    for parameter in model.collect_params('.*beta|.*gamma|.*bias').values():
        parameter.wd_mult = 0.0
    name = optimizer.lower()
    keywords = {'learning_rate': learning_rate, 'wd': weight_decay, 'multi_precision': True}
    if name == 'bertadam':
        instance = BERTAdam(epsilon=epsilon, bias_correction=bias_correction, **keywords)
    elif name == 'lamb':
        instance = LAMB(epsilon=epsilon, **keywords)
    else:
        instance = _mxnet_optimizer(optimizer, epsilon, keywords)
    return mx.gluon.Trainer(
        model.collect_params(), instance, kvstore=kvstore, update_on_kvstore=False
    )


def _mxnet_optimizer(name, epsilon, keywords):
    registry = mx.optimizer.Optimizer.opt_registry
    if name.lower() not in registry:
        raise UsageError(f'--optimizer {name} is not one of {", ".join(sorted(registry))}')
    if 'epsilon' in inspect.signature(registry[name.lower()]).parameters:
        keywords = {**keywords, 'epsilon': epsilon}
    return mx.optimizer.create(name, **keywords)


def trainable(model):
    """Return the parameters that have gradients."""
    return [p for p in model.collect_params().values() if p.grad_req != 'null']


class LossScale:
    """Dynamic loss scaling for float16, whose smallest gradients would otherwise become 0.

    Micikevicius et al. 2017 (1710.03740), section 3.2: halve the scale when a gradient
    overflows, double it after ``PATIENCE`` steps without overflow.
    """

    FIRST = 2.0**15
    LOWEST = 1.0
    PATIENCE = 2000

    def __init__(self, dtype):
        self.dynamic = dtype == 'float16'
        self.value = self.FIRST if self.dynamic else 1.0
        self.good_steps = 0

    def adjust(self, norm):
        """Set the scale for the next step from this step's gradient norm.

        Only float16 waits for the norm; for float32 the scale is 1.

        Raises
        ------
        OverflowAtLowestScale
            If the gradients overflow even at the lowest scale.
        """
        if not self.dynamic:
            return
        if math.isfinite(float(norm.asscalar())):
            self.good_steps += 1
            if self.good_steps % self.PATIENCE == 0:
                self.value *= 2
        else:
            self.good_steps = 0
            self.value /= 2
            if self.value < self.LOWEST:
                raise OverflowAtLowestScale


class Updater:
    """A repeatable update of the weights: each step can be redone from a training state.

    Parameters
    ----------
    model : mxnet.gluon.Block
    trainer : mxnet.gluon.Trainer
        See :func:`build_trainer`.
    rate : function
        Maps a step, counted from 1, to its learning rate.
    dtype : str
    seed : int
    workers : bert.distributed.workers.Workers
    adds_up : bool
        Whether a device computes several gradients per update, or there are several devices.
    max_norm : float
        See :func:`update`.
    """

    def __init__(
        self, model, trainer, rate, dtype, seed, workers, adds_up, max_norm=MAX_GRADIENT_NORM
    ):
        if adds_up:
            accumulate_gradients(model)
        self.model = model
        self.trainer = trainer
        self.rate = rate
        self.seed = seed
        self.workers = workers
        self.adds_up = adds_up
        self.max_norm = max_norm
        self.parameters = trainable(model)
        self.loss_scale = LossScale(dtype)

    def begin(self, step):
        """Seed the random numbers of a step, before its gradients are computed."""
        seed_step(self.seed, step, self.workers.rank)

    def finish(self, step, samples):
        """Update the weights with the gradients of a step; see :func:`update`.

        Returns
        -------
        float
            The learning rate.
        """
        rate = self.rate(step)
        settings = rate, self.loss_scale, self.workers, self.max_norm
        update(self.trainer, self.parameters, samples, *settings)
        if self.adds_up:
            clear_gradients(self.model)
        return rate

    def save(self, folder, step, progress, keep, written=None):
        """Write a training state after a step; see :func:`bert.training.states.save`."""
        scale = [self.loss_scale.value, self.loss_scale.good_steps]
        progress = {**progress, 'loss_scale': scale}
        states.save(folder, step, self.model, self.trainer, progress, keep, written)

    def load(self, folder, step):
        """Go on from a training state.

        Returns
        -------
        dict
            The ``progress`` that was saved.
        """
        progress = states.load(folder, step, self.model, self.trainer, self.workers)
        try:
            value, good_steps = progress['loss_scale']
            self.loss_scale.value, self.loss_scale.good_steps = float(value), int(good_steps)
        except (KeyError, TypeError, ValueError):
            path = states.states_path(folder, step)
            raise ToolkitError(f'{path}: not a checkpoint of this program') from None
        return progress


def update(
    trainer,
    parameters,
    samples,
    learning_rate,
    loss_scale,
    workers=ALONE,
    max_norm=MAX_GRADIENT_NORM,
):
    """Clip the gradients to a global norm, and update the weights.

    Parameters
    ----------
    trainer : mxnet.gluon.Trainer
    parameters : list of mxnet.gluon.Parameter
        See :func:`trainable`. Their gradients are sums over the samples, times the loss scale.
    samples : float
        Counted over all workers, devices and accumulated batches, or the sum of their weights;
        their mean gradient is applied.
    learning_rate : float
    loss_scale : LossScale
    workers : bert.distributed.workers.Workers
    max_norm : float
        The largest norm of the mean gradient that is not clipped.

    Returns
    -------
    mxnet.nd.NDArray of shape (1,)
        The norm of the mean gradient before clipping; with float32, and BERTAdam or LAMB, it may
        still be being computed. If it is not finite, the weights stay as they are.
    """
    trainer.set_learning_rate(learning_rate)
    trainer.allreduce_grads()
    workers.sum([parameter.list_grad() for parameter in parameters])
    divisor = samples * loss_scale.value
    norm = global_norm([p.list_grad()[0] for p in parameters]) / divisor
    factor = 1 / mx.nd.maximum(norm / max_norm, 1)  # also 1 if float32 has no such max_norm
    optimizer = trainer.optimizer
    if isinstance(optimizer, TwoMoments):
        # Clipping within the update saves a pass over all gradients.
        optimizer.clip_factor = factor
        trainer.update(divisor)
    elif math.isfinite(float(norm.asscalar())):
        # The other optimizers would apply inf or NaN to the weights, whatever the factor.
        for parameter in parameters:
            for gradient in parameter.list_grad():
                gradient *= factor.as_in_context(gradient.context)
        trainer.update(divisor)
    loss_scale.adjust(norm)
    return norm


def global_norm(arrays):
    """Return the 2-norm of all elements of all arrays, as a float32 array of shape (1,)."""
    if ops.serve(arrays[0]):
        return mx.nd.sqrt(ops.sum_of_squares(mx.nd, arrays))
    squares = mx.nd.multi_sum_sq(*arrays, num_arrays=len(arrays))
    return mx.nd.sqrt(mx.nd.sum(squares, keepdims=True))


def accumulate_gradients(model):
    """Add gradients up over batches and devices until :func:`clear_gradients`."""
    for parameter in trainable(model):
        parameter.grad_req = 'add'


def clear_gradients(model):
    """Set accumulated gradients to 0."""
    model.collect_params().zero_grad()
