"""Forward and backward passes of fine-tuning, on one device or spread over many."""

import mxnet as mx
import numpy as np

from bert.text.encoding import pad_batch
from bert.training.batches import cut
from bert.training.devices import spread


def loss_of(num_classes, is_multilabel=False, positive_weights=None):
    """Return the loss of each row: cross entropy, or half the squared error for ``None``.

    Where a row may have several labels, it is the mean of the binary cross entropies of all labels,
    with the sigmoids of the outputs.

    Parameters
    ----------
    num_classes : int or None
    is_multilabel : bool
    positive_weights : (labels,) array, optional
        Multiply the part of the loss from rows that have a label, for rows with several.

    Returns
    -------
    function
        Takes outputs, labels and perhaps weights of the rows, (B, 1), and returns (B,) losses.
    """
    if is_multilabel:
        loss = mx.gluon.loss.SigmoidBCELoss()
    else:
        loss = mx.gluon.loss.L2Loss() if num_classes is None else mx.gluon.loss.SoftmaxCELoss()
    loss.hybridize()
    if positive_weights is None:
        return loss

    def weighted(outputs, labels):
        weights = mx.nd.array(positive_weights[None], ctx=outputs.context)
        return loss(outputs, labels, None, weights)

    return weighted


def predict(model, inputs, ctx):
    """Compute the model's outputs, in float32, without waiting for them.

    Parameters
    ----------
    model : mxnet.gluon.Block
    inputs : (B, L) int32 ids, (B, L) int32 token types, (B,) valid lengths
        From :func:`bert.text.encoding.pad_batch`.
    ctx : mxnet.Context
    """
    ids, token_types, valid_lengths = inputs
    dtype = model.bert.word_embed[0].weight.dtype
    outputs = model(
        mx.nd.array(ids, ctx=ctx, dtype='int32'),
        mx.nd.array(token_types, ctx=ctx, dtype='int32'),
        mx.nd.array(valid_lengths, ctx=ctx, dtype=dtype),
    )
    return outputs.astype('float32', copy=False)


def forward_backward(model, loss_function, inputs, labels, ctx, scale, weights=None):
    """Compute the gradients of one batch.

    Parameters
    ----------
    labels : (B,) array, or (B, labels) where a row may have several
    scale : float
        Multiplies the loss, and so the gradients, but not the loss that is returned.
    weights : (B,) array of float32, optional
        Those of the rows; they multiply the losses, also in what is returned.

    Returns
    -------
    mxnet.nd.NDArray of shape (1,), mxnet.nd.NDArray of shape (B, classes)
        The sum of the losses and the outputs, which are still being computed.
    """
    with mx.autograd.record():
        outputs = predict(model, inputs, ctx)
        arrays = [labels] if weights is None else [labels, weights[:, None]]
        loss = loss_function(outputs, *(mx.nd.array(array, ctx=ctx) for array in arrays)).sum()
        scaled = loss if scale == 1 else loss * scale
    scaled.backward()
    return loss, outputs


def gradients(model, loss_function, dataset, rows, batch_size, contexts, scale, workers):
    """Compute the gradients of one update, spread over workers and their devices.

    Parameters
    ----------
    model : gluonnlp.model.BERTClassifier or bert.model.build.BERTRegression
    loss_function : mxnet.gluon.loss.Loss
        See :func:`loss_of`.
    dataset : bert.finetuning.data.Dataset
        Its labels may have weights.
    rows : (N,) array of int
        The rows of the update.
    batch_size : int
        How many of them a device takes at a time.
    contexts : list of mxnet.Context
    scale : float
        Multiplies the gradients, which are sums over the rows, each by its weight.
    workers : bert.distributed.workers.Workers

    Returns
    -------
    list of ((1,) sum of losses, (B, classes) outputs, (B,) or (B, classes) labels, float)
        One per batch, for the batches of all workers. The number is the sum of the rows' weights,
        by which the sum of their losses is to be divided; without weights it counts the rows.
    """
    parts = cut(rows, batch_size)
    losses, outputs = [], []
    for part, ctx, weight in spread(parts, contexts, workers, filler=rows[:1]):
        inputs, labels = pad_batch(dataset.encoded, part), dataset.labels[part]
        loss, output = forward_backward(
            model, loss_function, inputs, labels, ctx, weight * scale, dataset.weigh(part)
        )
        losses.append(loss)
        outputs.append(output)
    classes = outputs[0].shape[1]
    share = len(workers.share(parts))
    losses = workers.gather(losses[:share], len(parts), (1,))
    outputs = workers.gather(outputs[:share], len(parts), (batch_size, classes))
    return [
        (loss, output[: len(part)], dataset.labels[part], total_weight(dataset.weigh(part), part))
        for part, loss, output in zip(parts, losses, outputs)
    ]


def total_weight(weights, rows):
    """Return the sum of the weights of rows, which without weights is their number."""
    return len(rows) if weights is None else float(weights.sum(dtype=np.float64))
