"""Vectors for texts, or for their tokens, from the encodings of a BERT."""

import mxnet as mx

from bert.checkpoints import reading, sentences
from bert.model.build import cast
from bert.model.encoder import read_first_only
from bert.model.loading import build_located
from bert.model.parameters import set_encoder
from bert.system.errors import ToolkitError, UsageError


class Vectors(mx.gluon.HybridBlock):
    """A BERT and what becomes of its encodings.

    Parameters
    ----------
    bert : gluonnlp.model.BERTModel
        With ``output_all_encodings`` for several layers.
    kind : str
        One of :data:`bert.checkpoints.sentences.KINDS`.
    layers : list of int
        Counted from 1. A single one is the last.
    normalized : bool
        Whether the vectors are scaled to length 1.
    """

    def __init__(self, bert, kind, layers, normalized):
        super().__init__()
        self.bert = bert
        self.kind = kind
        self.layers = layers
        self.normalized = normalized
        units = bert.settings['units']
        # The shape of a vector.
        self.shape = (units,) if len(layers) == 1 else (len(layers), units)

    def __call__(self, inputs, token_types, valid_length):
        """Return float32 vectors, (batch, units), or (batch, length, units) for all tokens.

        Several layers have an axis of their own, the last but one.
        """
        return super().__call__(inputs, token_types, valid_length)

    def hybrid_forward(self, F, inputs, token_types, valid_length):
        return self.combine(F, self.bert(inputs, token_types, valid_length), valid_length)

    def combine(self, F, outputs, valid_length):
        """Make vectors of what the BERT returns."""
        if self.kind == 'pooled':
            chosen = [outputs[1]]
        elif len(self.layers) > 1:
            chosen = [outputs[layer - 1] for layer in self.layers]
        else:
            chosen = [outputs]
        # A sum over many tokens needs more than float16.
        vectors = [self.pool(F, F.cast(array, 'float32'), valid_length) for array in chosen]
        if self.normalized:
            vectors = [F.L2Normalization(array, eps=1e-24) for array in vectors]
        return vectors[0] if len(vectors) == 1 else F.stack(*vectors, axis=-2)

    def pool(self, F, encodings, valid_length):
        """Turn the encodings of a layer, 0 at the padding, into vectors."""
        if self.kind == 'mean':
            lengths = F.expand_dims(F.cast(valid_length, 'float32'), axis=1)
            return F.broadcast_div(F.sum(encodings, axis=1), lengths)
        if self.kind == 'first':
            return F.reshape(F.slice_axis(encodings, axis=1, begin=0, end=1), shape=(0, -1))
        return encodings


def load_vectors(location, kind, layers, normalized, contexts, dtype):
    """Load a pre-trained or fine-tuned BERT that turns texts into vectors.

    Parameters
    ----------
    location : bert.checkpoints.contents.Location
    kind, normalized
        See :class:`Vectors`.
    layers : list of int
        Counted from 1, or from the last one, which is -1.
    contexts : list of mxnet.Context
    dtype : str
        See :func:`bert.model.build.cast`.

    Returns
    -------
    Vectors, gluonnlp.vocab.BERTVocab
    """
    weights = reading.read_weights(location)
    count = reading.read_settings(location, weights)['num_layers']
    for layer in layers:
        if not 1 <= abs(layer) <= count:
            raise UsageError(
                f'there is no layer {layer}: the model has {count}, 1 to {count}, or -1 (the last) '
                f'to -{count}'
            )
    if kind not in sentences.KINDS:
        raise UsageError(f'{kind!r} is not one of the vectors {", ".join(sentences.KINDS)}')
    layers = [layer % (count + 1) for layer in layers]
    if kind == 'pooled':
        if layers != [count]:
            raise UsageError('the pooler reads the last layer only')
        if 'pooler.weight' not in weights.bert:
            raise ToolkitError(f'{weights.path}: has no pooler: take the mean or the first token')
    bert, vocab = build_located(
        location,
        contexts,
        weights,
        use_pooler=kind == 'pooled',
        output_all_encodings=len(layers) > 1,
    )
    set_encoder(bert, weights)
    # The layers above are not computed.
    bert.encoder.transformer_cells = bert.encoder.transformer_cells[: max(layers)]
    if kind in ('first', 'pooled') and len(layers) == 1:
        read_first_only(bert)
    model = Vectors(bert, kind, layers, normalized)
    cast(model, dtype)
    model.hybridize(static_alloc=True)
    return model, vocab
