"""The encoder of BERT (Devlin et al. 2018): GluonNLP's, with a faster forward pass.

:func:`speed_up` gives the blocks of a GluonNLP model the classes of this module. Parameters, their
names and the results stay. Two things make it faster: on the CPU the operators of :mod:`bert.ops`,
elsewhere MXNet's own with the padding masked by an addition; and, for a model that only reads the
encoding of the first token, a last layer that computes no more than that.
"""

import numpy as np
from gluonnlp.model import bert as gluon_bert
from gluonnlp.model.transformer import PositionwiseFFN
from mxnet.gluon import nn

from bert import ops

# Subtracted from the attention scores of padding. exp(-1e4) is exactly 0, and it fits float16.
MASKED_SCORE = -1e4

# MXNet's name for the type, which numpy lacks.
BFLOAT16 = np.dtype([('bfloat16', np.uint16)])


def speed_up(bert, fused):
    """Give the blocks of a GluonNLP model the classes of this module.

    Parameters
    ----------
    bert : gluonnlp.model.BERTModel
    fused : bool
        Whether to use :mod:`bert.ops`: for float32 on the CPU, where :func:`bert.ops.available`.
    """
    encoder = bert.encoder
    encoder.__class__ = Encoder
    encoder.fused = fused
    encoder.first_only = False
    layer_norms = [encoder.layer_norm]
    if hasattr(bert, 'decoder'):
        layer_norms.append(bert.decoder[2])
    for layer_norm in layer_norms:
        layer_norm.__class__ = LayerNorm
        layer_norm.fused = fused
    for number, cell in enumerate(encoder.transformer_cells):
        cell.__class__ = Layer
        cell.first_only = False
        cell.attention_cell.__class__ = SelfAttention
        cell.attention_cell.site = 3 * number
        cell.ffn.__class__ = FeedForward
        for block, site in ((cell, 3 * number + 1), (cell.ffn, 3 * number + 2)):
            block.layer_norm.__class__ = DropoutAddLayerNorm
            block.layer_norm.rate = block._dropout
            block.layer_norm.site = site


def read_first_only(bert):
    """Compute the last layer at the first position only, which is all that the pooler reads.

    The sequence of encodings that the model gives is then that one, (batch, 1, units). The results
    are the same; with 6 layers a seventh of the products is saved, with 12 a fourteenth.
    """
    bert.encoder.first_only = bert.encoder.transformer_cells[-1].first_only = True


def use_bfloat16(bert):
    """Compute the matrix products in bfloat16, but for those within the attention.

    The parameters, their gradients and everything else stay float32: as with PyTorch's autocast,
    the inputs of a product are rounded to bfloat16, and its sums are kept in float32 until they
    are complete. The heads on the pooled encoding, of one row each, stay float32. The gradients of
    parameters whose grad_req is 'add' at the first forward pass are added up; it is not to become
    'add' later.
    """
    fused = bert.encoder.fused and ops.has_dense()
    product = fused_bfloat16_product if fused else bfloat16_product
    denses = [*bert.decoder[0:1], *bert.decoder[3:4]] if hasattr(bert, 'decoder') else []
    for layer in bert.encoder.transformer_cells:
        layer.attention_cell.product = product
        denses += [layer.proj, layer.ffn.ffn_1, layer.ffn.ffn_2]
    for dense in denses:
        dense.__class__ = Bfloat16Dense
        dense.product = product


class Encoder(gluon_bert.BERTEncoder):
    """GluonNLP's encoder."""

    def hybrid_forward(self, F, inputs, states=None, valid_length=None, position_weight=None):
        """Encode (length, batch, units) embeddings.

        Parameters
        ----------
        valid_length : (batch,) array, optional

        Returns
        -------
        (length, batch, units) array, list of (batch, heads, length, length) arrays
            The encodings, 0 at the padding, or with ``output_all_encodings`` a list of those of
            each layer; and with ``output_attention`` the attention weights of each layer.
        """
        steps = F.contrib.arange_like(inputs, axis=0)
        # Looked up for each row: the sum over the rows in the gradient of a broadcast array would
        # cost five times the lookup's.
        tokens = F.reshape(F.slice_axis(inputs, axis=2, begin=0, end=1), shape=(0, 0))
        each = F.broadcast_like(F.expand_dims(steps, axis=1), tokens)
        encodings = inputs + F.Embedding(each, position_weight, self._max_length, self._units)
        if self._dropout:
            encodings = self.dropout_layer(encodings)
        # The attention weights are nothing that the fused operators give out.
        fused = self.fused and not self._output_attention
        # From here on, a seed means the fused operators.
        seed = ops.seed(F) if fused else None
        encodings = self.layer_norm(encodings)
        if fused:
            attended = valid_lengths(F, inputs) if valid_length is None else valid_length
        elif valid_length is not None:
            heads = self.transformer_cells[0].attention_cell._num_heads
            attended = attention_mask(F, steps, valid_length, heads)
        else:
            attended = None
        all_encodings, all_weights = [], []
        for layer in self.transformer_cells:
            encodings, weights = layer(encodings, attended, seed)
            all_encodings.append(encodings)
            all_weights.append(weights)
        # The first position is never padding.
        if valid_length is not None and not self.first_only:
            all_encodings = [
                F.SequenceMask(
                    encodings, sequence_length=valid_length, use_sequence_length=True, axis=0
                )
                for encodings in all_encodings
            ]
        return (
            all_encodings if self._output_all_encodings else all_encodings[-1],
            all_weights if self._output_attention else [],
        )


def valid_lengths(F, inputs):
    """The lengths of the rows where nothing is padding, (batch,), of (length, batch, units)."""
    return F.sum(F.ones_like(F.slice_axis(inputs, axis=2, begin=0, end=1)), axis=(0, 2))


def attention_mask(F, steps, valid_length, heads):
    """What to add to the scores: 0 at valid keys and :data:`MASKED_SCORE` at padding.

    Parameters
    ----------
    steps : (length,) array
        0, 1, and so on.
    valid_length : (batch,) array

    Returns
    -------
    (batch * heads, length, length) array
        Of full size: adding a broadcast array would cost a slow kernel in every layer.
    """
    key = F.reshape(steps, shape=(1, 1, -1))
    length = F.broadcast_add(
        F.reshape(valid_length, shape=(-1, 1)), F.zeros_like(F.reshape(steps, shape=(1, -1)))
    )
    padding = F.broadcast_greater_equal(key, F.expand_dims(length, axis=2))  # batch, query, key
    return F.stop_gradient(F.repeat(padding * MASKED_SCORE, repeats=heads, axis=0))


class Layer(gluon_bert.BERTEncoderCell):
    """One layer: self-attention and feed-forward network, each with dropout, residual, LayerNorm.

    Attributes
    ----------
    first_only : bool
        Whether the output is that of the first position only.
    """

    def hybrid_forward(self, F, inputs, attended, seed):
        """Encode (length, batch, units) encodings of the layer below.

        Returns
        -------
        (length, batch, units) array, (batch, heads, queries, length) array or None
        """
        queries = F.slice_axis(inputs, axis=0, begin=0, end=1) if self.first_only else None
        context, weights = self.attention_cell(inputs, queries, attended, seed)
        residual = inputs if queries is None else queries
        outputs = self.layer_norm(self.proj(context), residual, seed)
        return self.ffn(outputs, seed), weights


def float32_product(F, inputs, weight, bias, units):
    """The product of a dense layer, over the last axis."""
    return F.FullyConnected(inputs, weight, bias, num_hidden=units, flatten=False)


class SelfAttention(gluon_bert.DotProductSelfAttentionCell):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2).

    Attributes
    ----------
    product : function
        :func:`float32_product`, :func:`bfloat16_product` or :func:`fused_bfloat16_product`: how
        the projections are computed.
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
            Those that are wanted, if not all.
        attended : array or None
            With a seed the valid lengths, else what :func:`attention_mask` gives.
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
        """One product for several (weight, bias), side by side."""
        # Of one array too: see bert.ops.dense about the gradients of parameters.
        weight, bias = (F.concat(*arrays, dim=0) for arrays in zip(*projections))
        units = len(projections) * self.units
        return self.product(F, inputs, weight, bias, units)

    def attend_interleaved(self, F, inputs, mask, query, key, value):
        """All queries, with the operators that want query, key and value of each head together."""
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
        """The first queries only."""
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


def bfloat16_product(F, inputs, weight, bias, units):
    """A dense layer's product in bfloat16, by MXNet's operators; the arrays are float32."""
    rounded = [F.amp_cast(array, dtype=BFLOAT16) for array in (inputs, weight, bias)]
    return F.amp_cast(float32_product(F, *rounded, units), dtype='float32')


def fused_bfloat16_product(F, inputs, weight, bias, units):
    """The same by :func:`bert.ops.dense`."""
    return ops.dense(F, inputs, weight, bias)


class Bfloat16Dense(nn.Dense):
    """A dense layer over the last axis that multiplies in bfloat16.

    Attributes
    ----------
    product : function
        :func:`bfloat16_product` or :func:`fused_bfloat16_product`.
    """

    def hybrid_forward(self, F, x, weight, bias):
        """Transform (..., inputs) into (..., units), both float32."""
        if 'add' in (self.weight.grad_req, self.bias.grad_req):
            weight, bias = F.identity(weight), F.identity(bias)  # see bert.ops.dense
        return self.product(F, x, weight, bias, self._units)


class FeedForward(PositionwiseFFN):
    """The feed-forward network of a layer (Vaswani et al. 2017, section 3.3)."""

    def hybrid_forward(self, F, inputs, seed):
        """Transform (length, batch, units) encodings."""
        outputs = self.ffn_2(self.activation(self.ffn_1(inputs)))
        return self.layer_norm(outputs, inputs, seed)


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis.

    Attributes
    ----------
    fused : bool
    """

    def hybrid_forward(self, F, data, gamma, beta):
        """Normalise."""
        if self.fused:
            return ops.layer_norm(F, data, gamma, beta, self._epsilon)
        return F.LayerNorm(data, gamma, beta, axis=-1, eps=self._epsilon)


class DropoutAddLayerNorm(nn.LayerNorm):
    """What follows each part of a layer: dropout, the residual connection, LayerNorm.

    Attributes
    ----------
    rate : float
        Of the dropout.
    site : int
        See :func:`bert.ops.dropout_add_layer_norm`.
    """

    def hybrid_forward(self, F, data, residual, seed, gamma, beta):
        """LayerNorm(dropout(data) + residual)."""
        if seed is not None:
            return ops.dropout_add_layer_norm(
                F, data, residual, gamma, beta, seed, self._epsilon, self.rate, self.site
            )
        dropped = F.Dropout(data, p=self.rate) if self.rate else data
        return F.LayerNorm(dropped + residual, gamma, beta, axis=-1, eps=self._epsilon)
