"""Forward and backward passes of fine-tuning, on one device or spread over many."""

import mxnet as mx

from bert.text.encoding import pad_batch
from bert.training.batches import cut
from bert.training.devices import spread


def loss_of(num_classes):
    """Return the loss of a row: cross entropy, or half the squared error for ``None``."""
    loss = mx.gluon.loss.L2Loss() if num_classes is None else mx.gluon.loss.SoftmaxCELoss()
    loss.hybridize()
    return loss


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


def forward_backward(model, loss_function, inputs, labels, ctx, scale):
    """Compute the gradients of one batch.

    Parameters
    ----------
    labels : (B,) array
    scale : float
        Multiplies the loss, and so the gradients, but not the loss that is returned.

    Returns
    -------
    mxnet.nd.NDArray of shape (1,), mxnet.nd.NDArray of shape (B, classes)
        The sum of the losses and the outputs, which are still being computed.
    """
    with mx.autograd.record():
        outputs = predict(model, inputs, ctx)
        loss = loss_function(outputs, mx.nd.array(labels, ctx=ctx)).sum()
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
    rows : (N,) array of int
        The rows of the update.
    batch_size : int
        How many of them a device takes at a time.
    contexts : list of mxnet.Context
    scale : float
        Multiplies the gradients, which are sums over the rows.
    workers : bert.distributed.workers.Workers

    Returns
    -------
    list of ((1,) sum of losses, (B, classes) outputs, (B,) labels)
        One per batch, for the batches of all workers.
    """
    parts = cut(rows, batch_size)
    losses, outputs = [], []
    for part, ctx, weight in spread(parts, contexts, workers, filler=rows[:1]):
        inputs, labels = pad_batch(dataset.encoded, part), dataset.labels[part]
        loss, output = forward_backward(model, loss_function, inputs, labels, ctx, weight * scale)
        losses.append(loss)
        outputs.append(output)
    classes = outputs[0].shape[1]
    share = len(workers.share(parts))
    losses = workers.gather(losses[:share], len(parts), (1,))
    outputs = workers.gather(outputs[:share], len(parts), (batch_size, classes))
    return [
        (loss, output[: len(part)], dataset.labels[part])
        for part, loss, output in zip(parts, losses, outputs)
    ]
