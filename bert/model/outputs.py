"""Run a model on NumPy arrays, and return all its outputs."""

import mxnet as mx
import numpy as np


def run(model, batch):
    """Return all outputs of a model.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel, or a model with one in ``bert`` and a head
    batch : (B, L) int32 ids, (B, L) int32 token types, (B,) float32 valid lengths
        See :func:`bert.text.encoding.pad_batch`.

    Returns
    -------
    dict of str to numpy.ndarray
        Under transformers' names: ``last_hidden_state`` (B, L, units) and, if the model has
        them, ``pooler_output`` (B, units), ``seq_relationship_logits`` (B, 2),
        ``prediction_logits`` (B, L, vocabulary) and ``logits`` (B, classes).
    """
    ids, token_types, lengths = (mx.nd.array(array) for array in batch)
    bert = getattr(model, 'bert', model)
    names, inputs = ['last_hidden_state'], [ids, token_types, lengths]
    if hasattr(bert, 'pooler'):
        names.append('pooler_output')
    if hasattr(bert, 'classifier'):
        names.append('seq_relationship_logits')
    if hasattr(bert, 'decoder'):
        names.append('prediction_logits')
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        inputs.append(mx.nd.array(positions))
    values = bert(*inputs)
    outputs = dict(zip(names, values if isinstance(values, tuple) else [values]))
    if model is not bert:
        outputs['logits'] = model(ids, token_types, lengths)
    return {name: output.asnumpy() for name, output in outputs.items()}
