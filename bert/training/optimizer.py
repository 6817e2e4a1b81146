"""The optimizers of BERT: BERTAdam, and LAMB for large batches."""

import math
import warnings

import mxnet as mx
import numpy as np

from bert import ops

# MXNet's adamw operators update several arrays per call; more than 4 gains nothing (measured).
ARRAYS_PER_CALL = 4
# MXNet's operators for LAMB take no more.
LAMB_ARRAYS_PER_CALL = 45
# The operators of bert.ops update all arrays in one call.
ALL_ARRAYS = 2**31


class TwoMoments(mx.optimizer.Optimizer):
    """What both optimizers share: two moments, float32 copies, and a factor for the gradients.

    With ``multi_precision`` a float16 weight has a float32 copy, on which everything is computed.

    Parameters
    ----------
    learning_rate : float
    beta1, beta2 : float
        In [0, 1).
    epsilon : float
    bias_correction : bool
        Whether the moments are corrected for beginning at 0 (Kingma and Ba 2014).
    **kwargs
        Passed to :class:`mxnet.optimizer.Optimizer`; ``wd`` is the weight decay.

    Attributes
    ----------
    clip_factor : mxnet.nd.NDArray of shape (1,) or None
        Multiplies every gradient, along with ``rescale_grad``. If it is 0 or not finite, the
        weights and states stay as they are; the step still counts in the bias correction.
    fused : function
        The operator of :mod:`bert.ops`.
    arrays_per_call : int
        How many arrays MXNet's own operator takes.
    """

    fused = None
    arrays_per_call = None

    def __init__(self, learning_rate, beta1, beta2, epsilon, bias_correction, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.bias_correction = bias_correction
        self.clip_factor = None
        self.aggregate_num = ALL_ARRAYS

    def create_state(self, index, weight):
        """Return the first and second moment: zeros of the weight's shape and type."""
        return mx.nd.zeros_like(weight), mx.nd.zeros_like(weight)

    def create_state_multi_precision(self, index, weight):
        """Return the moments or, with a copy of a float16 weight, ((mean, variance), copy)."""
        if self._has_copy(weight):
            master = weight.astype('float32')
            return self.create_state(index, master), master
        if weight.dtype == np.float16:
            warnings.warn(
                f'{type(self).__name__} with float16 weights loses small updates: '
                'multi_precision=True keeps float32 copies of them',
                stacklevel=2,
            )
        return self.create_state(index, weight)

    def _has_copy(self, weight):
        return self.multi_precision and weight.dtype == np.float16

    def _columns(self, weight, states):
        """Return the means, the variances and, of weights with copies, the copies."""
        if not self._has_copy(weight):
            return list(zip(*states))
        moments, masters = zip(*states)
        return [*zip(*moments), masters]

    def update(self, index, weight, grad, state):
        """Update weights without copies, given as lists of arrays or as single arrays."""
        self._update(index, weight, grad, state)

    def update_multi_precision(self, index, weight, grad, state):
        """Update weights, given as lists of arrays of one type or as single arrays."""
        self._update(index, weight, grad, state)

    def _update(self, indices, weights, grads, states):
        if not isinstance(indices, (list, tuple)):
            indices, weights, grads, states = [indices], [weights], [grads], [states]
        self._update_count(indices)
        step = self._index_update_count[indices[0]]
        rates, decays = self._get_lrs(indices), self._get_wds(indices)
        factor = self._gradient_factor(weights[0].context)
        if ops.serve(weights[0]) and not self.clip_gradient:
            means, variances = zip(*states)
            rates = mx.nd.array(list(zip(rates, decays)))
            settings = self._settings(step)
            self.fused(mx.nd, weights, grads, means, variances, rates, factor, **settings)
            return
        for start in range(0, len(weights), self.arrays_per_call):
            part = slice(start, start + self.arrays_per_call)
            arrays = weights[part], grads[part], states[part]
            self._update_stock(*arrays, rates[part], decays[part], factor, step)

    def _settings(self, step):
        """Return the numbers of the update scale * m / (sqrt(v) + epsilon), bias correction in."""
        root = math.sqrt(1 - self.beta2**step) if self.bias_correction else 1.0
        scale = root / (1 - self.beta1**step) if self.bias_correction else 1.0
        common = {'beta1': self.beta1, 'beta2': self.beta2}
        return {**common, 'epsilon': self.epsilon * root, 'scale': scale}

    def _gradient_factor(self, ctx):
        """Return the product of ``rescale_grad`` and ``clip_factor``, an array of shape (1,)."""
        if self.clip_factor is None:
            return mx.nd.full((1,), self.rescale_grad, ctx=ctx)
        return self.clip_factor.as_in_context(ctx) * self.rescale_grad


class BERTAdam(TwoMoments):
    r"""The optimizer of BERT (Devlin et al. 2018, A.2; google-research/bert ``optimization.py``).

    For a weight :math:`w` with gradient :math:`g`, rescaled and clipped, at learning rate
    :math:`\eta` and weight decay :math:`\lambda`:

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        w &\leftarrow w - \eta \left( \frac{m}{\sqrt{v} + \epsilon} + \lambda w \right)

    With ``bias_correction``, at step :math:`t` from 1, :math:`m` and :math:`v` in the last line
    are divided by :math:`1 - \beta_1^t` and :math:`1 - \beta_2^t` (Kingma and Ba 2014). The
    original lacks this, one cause of unstable fine-tuning (Zhang et al. 2006.05987).

    Names and defaults are those of ``gluonnlp.optimizer.BERTAdam``; more is in the base class.

    Parameters
    ----------
    learning_rate : float
    beta1, beta2 : float
    epsilon : float
    bias_correction : bool
    **kwargs
        Passed to :class:`mxnet.optimizer.Optimizer`; ``wd`` is :math:`\lambda`.
    """

    fused = staticmethod(ops.adam)
    arrays_per_call = ARRAYS_PER_CALL

    def __init__(
        self,
        learning_rate=0.001,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-6,
        bias_correction=False,
        **kwargs,
    ):
        super().__init__(learning_rate, beta1, beta2, epsilon, bias_correction, **kwargs)

    def _update_stock(self, weights, grads, states, rates, decays, factor, step):
        # MXNet's w - eta * (lr * m / (sqrt(v) + eps) + wd * w), where our learning rate is eta.
        keywords = self._settings(step)
        keywords['lrs'] = [keywords.pop('scale')] * len(weights)
        keywords.update(etas=rates, wds=decays, rescale_grad=factor, out=weights, size=len(weights))
        if self.clip_gradient:
            keywords['clip_gradient'] = self.clip_gradient
        arrays = [weights, grads, *self._columns(weights[0], states)]
        if self._has_copy(weights[0]):
            mx.nd.contrib.multi_mp_adamw_update(*arrays, **keywords)
        elif weights[0].dtype == np.float16:
            self._update_float16(*arrays, keywords)
        else:
            mx.nd.contrib.multi_adamw_update(*arrays, **keywords)

    def _update_float16(self, weights, grads, means, variances, keywords):
        """Update without lasting copies; MXNet's operator takes no float16."""
        arrays = weights, grads, means, variances
        copies = [[array.astype('float32') for array in each] for each in arrays]
        mx.nd.contrib.multi_adamw_update(*copies, **{**keywords, 'out': copies[0]})
        for each, updated in zip(arrays, copies):
            if each is not grads:
                for array, copy in zip(each, updated):
                    array[:] = copy


class LAMB(TwoMoments):
    r"""Layer-wise adaptive moments for large batches (You et al. 2019, 1904.00962, Algorithm 2).

    For a weight :math:`w` with gradient :math:`g`, rescaled and clipped, at learning rate
    :math:`\eta` and weight decay :math:`\lambda`, at step :math:`t` from 1:

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        u &= \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \lambda w \\
        w &\leftarrow w - \eta \frac{\|w\|}{\|u\|} u

    The quotient is 1 if either norm is 0, as a new bias is. The norms are those of one array, and
    every array has its own quotient, LayerNorm and biases too, as in ``mxnet.optimizer.LAMB``,
    with which GluonNLP pre-trains. (Others leave the quotient out where there is no weight decay.)

    Names and defaults are those of ``mxnet.optimizer.LAMB``; more is in the base class.

    Parameters
    ----------
    learning_rate : float
    beta1, beta2 : float
    epsilon : float
    **kwargs
        Passed to :class:`mxnet.optimizer.Optimizer`; ``wd`` is :math:`\lambda`.
    """

    fused = staticmethod(ops.lamb)
    arrays_per_call = LAMB_ARRAYS_PER_CALL

    def __init__(self, learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-6, **kwargs):
        super().__init__(learning_rate, beta1, beta2, epsilon, bias_correction=True, **kwargs)

    def _update_stock(self, weights, grads, states, rates, decays, factor, step):
        # MXNet's operators take a number, for which this waits, and would apply inf and NaN.
        factor = float(factor.asscalar())
        if not factor or not math.isfinite(factor):
            return
        keywords = {
            'beta1': self.beta1,
            'beta2': self.beta2,
            'epsilon': self.epsilon,
            'rescale_grad': factor,
            'step_count': [step] * len(weights),
            'lrs': rates,
            'wds': decays,
            'out': weights,
        }
        if self.clip_gradient:
            keywords['clip_gradient'] = self.clip_gradient
        arrays = [weights, grads, *self._columns(weights[0], states)]
        if self._has_copy(weights[0]):
            mx.nd.contrib.multi_mp_lamb_update(*arrays, **keywords)
        else:
            mx.nd.contrib.multi_lamb_update(*arrays, **keywords)
