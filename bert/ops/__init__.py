"""Operators in C++ that replace the slow ones of MXNet on the CPU.

Each source file begins by saying what it computes. MXNet loads the operators through its interface
for external ones; :mod:`bert.ops.build` compiles them at first use. If that fails, models run on
MXNet's own operators, with the same results.
"""

import functools
import logging
import os

import numpy as np

from bert.ops import build
from bert.system import machine
from bert.system.errors import ToolkitError

# The number of random bits in a seed, each stored as a number.
SEED_SIZE = 64


@functools.lru_cache(maxsize=None)
def available():
    """Build the operators if necessary and load them into MXNet.

    Returns
    -------
    bool
        False if MXNet's own operators have to be used; the log says why, once.
    """
    import mxnet as mx

    if os.environ.get('BERT_STOCK_OPS', '0') not in ('', '0'):
        logging.info("operators: MXNet's own, as requested by the variable BERT_STOCK_OPS")
        return False
    try:
        mx.library.load(str(build.build()), verbose=False)
    except (ToolkitError, OSError, mx.MXNetError) as error:
        reason = str(error).strip().splitlines()[-1]
        logging.info("operators: MXNet's own, which are slower (%s)", reason)
        return False
    return True


def serve(array):
    """Return whether the operators can take an array, which must be float32 on the CPU."""
    return array.dtype == np.float32 and serve_on([array.context])


def serve_on(contexts):
    """Return whether the operators can be used in a context, or in every context of a list."""
    contexts = contexts if isinstance(contexts, (list, tuple)) else [contexts]
    return all(ctx.device_type.startswith('cpu') for ctx in contexts) and available()


def seed(F):
    """Draw random bits for the dropouts of one forward pass from MXNet's generator.

    Returns
    -------
    (64,) array
        Zeros and twos in training; in evaluation ones, which mean that nothing is dropped.
    """
    return F.BlockGrad(F.Dropout(F.ones((SEED_SIZE,)), p=0.5))


def layer_norm(F, data, gamma, beta, epsilon):
    """Apply LayerNorm over the last axis of ``data``; ``gamma`` and ``beta`` have its length."""
    return F.bert_layer_norm(data, F.identity(gamma), F.identity(beta), epsilon=epsilon)


def dropout_add_layer_norm(F, data, residual, gamma, beta, seed, epsilon, rate, site):
    """Compute ``LayerNorm(dropout(data) + residual)``.

    Parameters
    ----------
    data, residual : arrays of one shape
    gamma, beta : arrays as long as the last axis
    seed : (64,) array
        See :func:`seed`.
    site : int
        A different number for each dropout of a forward pass.
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
    """Compute multi-head self-attention (Vaswani et al. 2017, section 3.2) over valid positions.

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
    """Compute multi-head attention of some queries, all of which are valid.

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
    """Compute the softmax cross entropy, and the class with the highest score.

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
    """Return whether :func:`dense` can be used.

    Processor and compiler must have AVX512-BF16. On a processor with AMX, Linux must allow its use.
    """
    import mxnet as mx

    if 'amx_bf16' in machine.processor_flags() and not machine.has_matrix_unit():
        return False
    return available() and hasattr(mx.nd, 'bert_dense')


def dense(F, data, weight, bias):
    """Apply a dense layer to the last axis, with the inputs of its products rounded to bfloat16.

    It overwrites the gradients of parameters even if grad_req is 'add': an identity in between
    would prevent that, but take a seventh of the layer's time.

    Parameters
    ----------
    data : (..., inputs) array
    weight : (units, inputs) array
    bias : (units,) array

    Returns
    -------
    (..., units) array
        In float32, like all the others.
    """
    return F.bert_dense(data, weight, bias)


def has_encoder(dtype):
    """Return whether :func:`encode` can be used.

    In bfloat16, processor and compiler must have AVX512-BF16; with AMX, :func:`dense` is faster.
    """
    import mxnet as mx

    if not available() or dtype == 'float32':
        return available()
    return hasattr(mx.nd, 'bert_dense') and not machine.has_matrix_unit()


def pack_layer(parameters, dtype):
    """Put the parameters of a layer into the order in which :func:`encode` reads them.

    Parameters
    ----------
    parameters : list of 16 float32 arrays
        Weight and bias of the query, the key, the value and the projection after them; gamma and
        beta; weight and bias of the two dense layers of the feed-forward network; gamma and beta.
    dtype : str
        ``float32`` or ``bfloat16``, to which weights are rounded then.

    Returns
    -------
    (size,) array
    """
    import mxnet as mx

    return mx.nd.bert_pack_layer(*parameters, bfloat16=int(dtype == 'bfloat16'))


def encode(ids, token_types, valid_length, embeddings, layers, settings, first_only, dtype):
    """Compute the encodings of tokens, in evaluation.

    Parameters
    ----------
    ids, token_types : (batch, length) int32 arrays
    valid_length : (batch,) array
        At least 1.
    embeddings : list of 5 arrays
        Of the words, token types and positions; gamma and beta of the LayerNorm after them.
    layers : list of arrays
        From :func:`pack_layer`.
    settings : dict
        Those of a model, see :func:`bert.model.build.build_bert`.
    first_only : bool
        Whether to encode the first token of each row only, as far as that saves work.
    dtype : str
        As the layers were packed.

    Returns
    -------
    (batch, length, units) array, or (batch, 1, units)
        0 at the padding.
    """
    import mxnet as mx

    return mx.nd.bert_encode(
        ids,
        token_types,
        valid_length,
        *embeddings,
        *layers,
        layers=len(layers),
        units=settings['units'],
        hidden=settings['hidden_size'],
        heads=settings['num_heads'],
        epsilon=settings['layer_norm_eps'],
        tanh_gelu=int(settings['activation'] == 'approx_gelu'),
        first_only=int(first_only),
        bfloat16=int(dtype == 'bfloat16'),
    )


def sum_of_squares(F, arrays):
    """Return the sum of the squares of all elements of all arrays, of shape (1,)."""
    return F.bert_sum_of_squares(*arrays, count=len(arrays))


def adam(F, weights, gradients, means, variances, rates, factor, beta1, beta2, epsilon, scale):
    """Do one update of :class:`bert.training.optimizer.BERTAdam` in place.

    Parameters
    ----------
    weights, gradients, means, variances : lists of float32 arrays
    rates : (N, 2) array
        Learning rate and weight decay of each weight.
    factor : (1,) array
        Multiplies the gradients; if it is 0 or not finite, nothing is changed.
    scale : float
        Multiplies the step, but not the weight decay.
    """
    arrays = weights, gradients, means, variances
    settings = {'beta1': beta1, 'beta2': beta2, 'epsilon': epsilon, 'scale': scale}
    _update(F.bert_adam, arrays, rates, factor, settings)


def lamb(F, weights, gradients, means, variances, rates, factor, beta1, beta2, epsilon, scale):
    """Do one update of :class:`bert.training.optimizer.LAMB` in place; see :func:`adam`."""
    arrays = weights, gradients, means, variances
    settings = {'beta1': beta1, 'beta2': beta2, 'epsilon': epsilon, 'scale': scale}
    _update(F.bert_lamb, arrays, rates, factor, settings)


def _update(operator, arrays, rates, factor, settings):
    flat = [array for kind in arrays for array in kind]
    operator(rates, factor, *flat, count=len(arrays[0]), **settings)
