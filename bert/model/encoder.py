"""The encoder of BERT (Devlin et al. 2018): GluonNLP's, with a faster forward pass.

:func:`speed_up` gives the blocks of a GluonNLP model the classes of this module. Parameters, their
names and the results stay the same. Two things make it faster: on the CPU the operators of
:mod:`bert.ops`, elsewhere MXNet's own with padding masked by an addition; and, for a model that
reads only the encoding of the first token, a last layer that computes no more than that.
"""

from gluonnlp.model import bert as gluon_bert
from gluonnlp.model.transformer import PositionwiseFFN
from mxnet.gluon import nn

from bert import ops
from bert.model.attention import (
    SelfAttention,
    attention_mask,
    bfloat16_product,
    fused_bfloat16_product,
)


def speed_up(bert, fused):
    """Give the blocks of a GluonNLP model the classes of this module and of the attention.

    No argument makes GluonNLP's constructors build other blocks, and blocks whose classes are
    exchanged keep their parameters, whose names are the file format.

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
    encoder.heads = bert.settings['num_heads']
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
            block.layer_norm.rate = bert.settings['dropout']
            block.layer_norm.site = site


def read_first_only(bert):
    """Compute the last layer at the first position only, which is all that the pooler reads.

    The model's sequence of encodings is then just that one, (batch, 1, units). The results are
    the same; with 6 layers a seventh of the products is saved, with 12 a fourteenth.
    """
    bert.encoder.first_only = bert.encoder.transformer_cells[-1].first_only = True


def use_bfloat16(bert):
    """Compute the matrix products in bfloat16, except for those within the attention.

    The parameters, their gradients and everything else stay float32: as with PyTorch's autocast,
    the inputs of a product are rounded to bfloat16, and its sums are kept in float32 until they
    are complete. The heads on the pooled encoding, of one row each, stay float32. The gradients of
    parameters whose grad_req is 'add' at the first forward pass are added up; it must not become
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
        (length, batch, units) array, list of lists of a (batch, heads, length, length) array
            The encodings, 0 at the padding, or a list of each layer's with
            ``output_all_encodings``; and with ``output_attention`` the attention weights, as
            GluonNLP gives them: for each layer a list with one array.
        """
        steps = F.contrib.arange_like(inputs, axis=0)
        # Looked up for each row: in the gradient of a broadcast array, the sum over the rows would
        # cost five times as much as the lookup's.
        tokens = F.reshape(F.slice_axis(inputs, axis=2, begin=0, end=1), shape=(0, 0))
        each = F.broadcast_like(F.expand_dims(steps, axis=1), tokens)
        encodings = inputs + F.Embedding(each, position_weight, self._max_length, self._units)
        if self._dropout:
            encodings = self.dropout_layer(encodings)
        # The fused operators do not return the attention weights.
        fused = self.fused and not self._output_attention
        # From here on, a seed stands for the fused operators.
        seed = ops.seed(F) if fused else None
        encodings = self.layer_norm(encodings)
        if fused:
            attended = valid_lengths(F, inputs) if valid_length is None else valid_length
        elif valid_length is not None:
            attended = attention_mask(F, steps, valid_length, self.heads)
        else:
            attended = None
        all_encodings, all_weights = [], []
        for layer in self.transformer_cells:
            encodings, weights = layer(encodings, attended, seed)
            all_encodings.append(encodings)
            all_weights.append([weights])
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
    """Return the lengths, (batch,), of (length, batch, units) rows without padding."""
    return F.sum(F.ones_like(F.slice_axis(inputs, axis=2, begin=0, end=1)), axis=(0, 2))


class Layer(gluon_bert.BERTEncoderCell):
    """A layer: self-attention and feed-forward network, each with dropout, residual, LayerNorm.

    Attributes
    ----------
    first_only : bool
        Whether to output the first position only.
    """

    def hybrid_forward(self, F, inputs, attended, seed):
        """Transform the (length, batch, units) encodings of the layer below.

        Returns
        -------
        (length, batch, units) array, (batch, heads, queries, length) array or None
        """
        queries = F.slice_axis(inputs, axis=0, begin=0, end=1) if self.first_only else None
        context, weights = self.attention_cell(inputs, queries, attended, seed)
        residual = inputs if queries is None else queries
        outputs = self.layer_norm(self.proj(context), residual, seed)
        return self.ffn(outputs, seed), weights


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
    """The end of each half of a layer: dropout, the residual connection, LayerNorm.

    Attributes
    ----------
    rate : float
        The dropout rate.
    site : int
        See :func:`bert.ops.dropout_add_layer_norm`.
    """

    def hybrid_forward(self, F, data, residual, seed, gamma, beta):
        """Compute LayerNorm(dropout(data) + residual)."""
        if seed is not None:
            return ops.dropout_add_layer_norm(
                F, data, residual, gamma, beta, seed, self._epsilon, self.rate, self.site
            )
        dropped = F.Dropout(data, p=self.rate) if self.rate else data
        return F.LayerNorm(dropped + residual, gamma, beta, axis=-1, eps=self._epsilon)
