"""Self-attention (Vaswani et al. 2017, section 3.2), and the dense products of a BERT layer."""

import numpy as np
from gluonnlp.model import bert as gluon_bert

from bert import ops

# Subtracted from the attention scores of padding. exp(-1e4) is exactly 0, and it fits float16.
MASKED_SCORE = -1e4
# MXNet's name for the type, which numpy lacks.
BFLOAT16 = np.dtype([('bfloat16', np.uint16)])


def attention_mask(F, steps, valid_length, heads):
    """Make an array to add to the scores: 0 for valid keys, :data:`MASKED_SCORE` for padding.

    Parameters
    ----------
    steps : (length,) array
        0, 1, and so on.
    valid_length : (batch,) array

    Returns
    -------
    (batch * heads, length, length) array
        In full size: adding a broadcast array would cost a slow kernel in every layer.
    """
    key = F.reshape(steps, shape=(1, 1, -1))
    length = F.broadcast_add(
        F.reshape(valid_length, shape=(-1, 1)), F.zeros_like(F.reshape(steps, shape=(1, -1)))
    )
    padding = F.broadcast_greater_equal(key, F.expand_dims(length, axis=2))  # batch, query, key
    return F.stop_gradient(F.repeat(padding * MASKED_SCORE, repeats=heads, axis=0))


def float32_product(F, inputs, weight, bias, units):
    """Compute a dense layer over the last axis."""
    return F.FullyConnected(inputs, weight, bias, num_hidden=units, flatten=False)


def bfloat16_product(F, inputs, weight, bias, units):
    """Compute a dense layer of float32 arrays in bfloat16, with MXNet's operators."""
    rounded = [F.amp_cast(array, dtype=BFLOAT16) for array in (inputs, weight, bias)]
    return F.amp_cast(float32_product(F, *rounded, units), dtype='float32')


def fused_bfloat16_product(F, inputs, weight, bias, units):
    """Compute the same with :func:`bert.ops.dense`."""
    return ops.dense(F, inputs, weight, bias)


class SelfAttention(gluon_bert.DotProductSelfAttentionCell):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2).

    Attributes
    ----------
    product : function
        The function that computes the projections: :func:`float32_product`,
        :func:`bfloat16_product` or :func:`fused_bfloat16_product`.
    site : int
        See :func:`bert.ops.self_attention`.
    """

    product = staticmethod(float32_product)

    def hybrid_forward(
        self,
        F,
        inputs,
        queries,
        attended,
        seed,
        query_bias,
        key_bias,
        value_bias,
        query_weight,
        key_weight,
        value_weight,
    ):
        """Attend to the valid positions.

        Parameters
        ----------
        inputs : (length, batch, units) array
        queries : (number, batch, units) array or None
            The positions to encode, if not all.
        attended : array or None
            With a seed, the valid lengths; otherwise the result of :func:`attention_mask`.
        seed : (64,) array or None
            See :func:`bert.ops.seed`.

        Returns
        -------
        (queries, batch, units) array, (batch, heads, queries, length) array or None
            The context vectors and, without a seed, the attention weights.
        """
        query, key = (query_weight, query_bias), (key_weight, key_bias)
        value = value_weight, value_bias
        if seed is not None:
            settings = {'heads': self._num_heads, 'rate': self._dropout, 'site': self.site}
            if queries is None:
                projections = self.project(F, inputs, query, key, value)
                return ops.self_attention(F, projections, attended, seed, **settings), None
            projected = self.project(F, queries, query)
            keys_values = self.project(F, inputs, key, value)
            return ops.attention(F, projected, keys_values, attended, seed, **settings), None
        if queries is None:
            return self.attend_interleaved(F, inputs, attended, query, key, value)
        return self.attend_some(F, inputs, queries, attended, query, key, value)

    def project(self, F, inputs, *projections):
        """Compute several dense layers, each a (weight, bias), as one."""
        # Concatenate even a single one: see bert.ops.dense about the gradients of parameters.
        weight, bias = (F.concat(*arrays, dim=0) for arrays in zip(*projections))
        units = len(projections) * self.units
        return self.product(F, inputs, weight, bias, units)

    def attend_interleaved(self, F, inputs, mask, query, key, value):
        """Attend with all queries, using the operators that take interleaved projections."""
        heads = self._num_heads
        weight = F.concat(
            *[w.reshape(shape=(heads, -1, 0), reverse=True) for w, _ in (query, key, value)], dim=1
        ).reshape(shape=(-1, 0), reverse=True)
        bias = F.concat(*[b.reshape(shape=(heads, -1)) for _, b in (query, key, value)], dim=1)
        projections = self.product(F, inputs, weight, bias.reshape(-1), 3 * self.units)
        scores = F.contrib.interleaved_matmul_selfatt_qk(projections, heads=heads)
        weights = self.dropout_layer(F.softmax(scores if mask is None else scores + mask, axis=-1))
        context = F.contrib.interleaved_matmul_selfatt_valatt(projections, weights, heads=heads)
        return context, weights.reshape(shape=(-1, heads, 0, 0), reverse=True)

    def attend_some(self, F, inputs, queries, mask, query, key, value):
        """Attend with the first queries only."""
        heads, width = self._num_heads, self.units // self._num_heads

        def split(array):  # to (batch * heads, positions, width)
            return array.reshape(shape=(0, -1, width)).transpose((1, 0, 2))

        queried = split(self.project(F, queries, query)) / width**0.5
        scores = F.batch_dot(queried, split(self.project(F, inputs, key)), transpose_b=True)
        if mask is not None:
            scores = scores + F.slice_like(mask, scores)
        weights = self.dropout_layer(F.softmax(scores, axis=-1))
        context = F.batch_dot(weights, split(self.project(F, inputs, value)))
        context = context.transpose((1, 0, 2)).reshape(shape=(0, -1, self.units))
        return context, weights.reshape(shape=(-1, heads, 0, 0), reverse=True)
