"""Operators in C++ that replace the slow ones of MXNet on the CPU.

Each source file says what it computes. MXNet loads them through its interface for external
operators; :mod:`bert.ops.build` compiles them at first use. Where that cannot be, models run on
MXNet's own operators, with the same results.
"""

import functools
import logging
import os

import numpy as np

from bert.ops import build
from bert.system import machine

# The numbers of a seed: as many random bits.
SEED_SIZE = 64


@functools.lru_cache(maxsize=None)
def available():
    """Build the operators if need be and load them into MXNet.

    Returns
    -------
    bool
        False where MXNet's own operators must do; the log says why, once.
    """
    import mxnet as mx

    if os.environ.get('BERT_STOCK_OPS', '0') not in ('', '0'):
        logging.info("operators: MXNet's own, as the variable BERT_STOCK_OPS asks")
        return False
    try:
        mx.library.load(str(build.build()), verbose=False)
    except (build.BuildError, OSError, mx.MXNetError) as error:
        reason = str(error).strip().splitlines()[-1]
        logging.info("operators: MXNet's own, which are slower (%s)", reason)
        return False
    return True


def serve(array):
    """Whether the operators compute with arrays like this one: float32, on the CPU."""
    return array.dtype == np.float32 and serve_on([array.context])


def serve_on(contexts):
    """Whether the operators serve a context, or all of a list: the CPU, where they can be built."""
    contexts = contexts if isinstance(contexts, (list, tuple)) else [contexts]
    return all(ctx.device_type.startswith('cpu') for ctx in contexts) and available()


def seed(F):
    """Random bits for the dropouts of one forward pass, from MXNet's generator.

    Returns
    -------
    (64,) array
        0 or 2 in training; in evaluation ones, by which the operators know that nothing is to be
        dropped.
    """
    return F.BlockGrad(F.Dropout(F.ones((SEED_SIZE,)), p=0.5))


def layer_norm(F, data, gamma, beta, epsilon):
    """LayerNorm over the last axis of ``data``; ``gamma`` and ``beta`` have its length."""
    return F.bert_layer_norm(data, F.identity(gamma), F.identity(beta), epsilon=epsilon)


def dropout_add_layer_norm(F, data, residual, gamma, beta, seed, epsilon, rate, site):
    """``LayerNorm(dropout(data) + residual)``.

    Parameters
    ----------
    data, residual : arrays of one shape
    gamma, beta : arrays as long as the last axis
    seed : (64,) array
        See :func:`seed`.
    site : int
        Tells the dropouts of one forward pass apart.
    """
    return F.bert_dropout_add_layer_norm(
        data,
        residual,
        F.identity(gamma),
        F.identity(beta),
        seed,
        epsilon=epsilon,
        rate=rate,
        site=site,
    )


def self_attention(F, projections, valid_length, seed, heads, rate, site):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2) over the valid positions.

    Parameters
    ----------
    projections : (length, batch, 3 * units) array
        Queries, keys and values, in this order.
    valid_length : (batch,) array

    Returns
    -------
    (length, batch, units) array
        0 at the padding.
    """
    return F.bert_self_attention(projections, valid_length, seed, heads=heads, rate=rate, site=site)


def attention(F, queries, keys_values, valid_length, seed, heads, rate, site):
    """Multi-head attention of some queries, all of them valid.

    Parameters
    ----------
    queries : (number, batch, units) array
    keys_values : (length, batch, 2 * units) array

    Returns
    -------
    (number, batch, units) array
    """
    return F.bert_attention(
        queries, keys_values, valid_length, seed, heads=heads, rate=rate, site=site
    )


def cross_entropy(F, scores, labels):
    """Softmax cross entropy, and the class with the highest score.

    Parameters
    ----------
    scores : (rows, classes) array
    labels : (rows,) array

    Returns
    -------
    (rows,) array, (rows,) array without gradient
    """
    loss, best = F.bert_cross_entropy(scores, labels)
    return loss, F.BlockGrad(best)


def has_dense():
    """Whether :func:`dense` can be used: the processor and the compiler have AMX."""
    import mxnet as mx

    return available() and machine.has_matrix_unit() and hasattr(mx.nd, 'bert_dense')


def dense(F, data, weight, bias):
    """A dense layer over the last axis, whose products have inputs rounded to bfloat16.

    It overwrites the gradients of parameters, also where grad_req is 'add'; an identity between
    would take as long as a seventh of the layer.

    Parameters
    ----------
    data : (..., inputs) array
    weight : (units, inputs) array
    bias : (units,) array

    Returns
    -------
    (..., units) array
        float32, as all the others.
    """
    return F.bert_dense(data, weight, bias)


def sum_of_squares(F, arrays):
    """The sum of the squares of all elements of all arrays, of shape (1,)."""
    return F.bert_sum_of_squares(*arrays, count=len(arrays))


def adam(F, weights, gradients, means, variances, rates, factor, beta1, beta2, epsilon, scale):
    """One update of :class:`bert.training.optimizer.BERTAdam`, in place.

    Parameters
    ----------
    weights, gradients, means, variances : lists of float32 arrays
    rates : (N, 2) array
        Learning rate and weight decay of each weight.
    factor : (1,) array
        Multiplies the gradients; where it is 0 or not finite, nothing is changed.
    scale : float
        Multiplies the step, but not the weight decay.
    """
    F.bert_adam(
        rates,
        factor,
        *weights,
        *gradients,
        *means,
        *variances,
        count=len(weights),
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        scale=scale,
    )
