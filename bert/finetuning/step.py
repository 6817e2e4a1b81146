"""TODO"""

import mxnet as mx

from bert.text import encoding


def micro_batches(batches, batch_size):
    """Cut the rows of each update into batches that fit a device."""
    return [
        rows[start : start + batch_size]
        for rows in batches
        for start in range(0, len(rows), batch_size)
    ]


def gradients(loop, dataset, rows, batch_size):
    """Forward and backward over the rows of one update, spread over workers and devices.

    Yields
    ------
    (1,) sum of losses, (B, classes) outputs, (B,) labels
        A batch each, those of all workers.
    """
    workers = loop.workers
    parts = micro_batches([rows], batch_size)
    rounds = [parts[i : i + workers.count] for i in range(0, len(parts), workers.count)]
    idle = [[]] * (len(loop.contexts) - len(rounds))
    for number, together in enumerate(rounds + idle):
        # Each device of each worker must compute something, or MXNet takes its gradients for
        # stale ones; where rows are short, it does the first row once more, at weight 0.
        (part,) = workers.share(together) or [rows[:1]]
        loss, outputs = forward_backward(
            loop.model,
            loop.loss_function,
            encoding.pad_batch(dataset.encoded, part),
            dataset.labels[part],
            loop.contexts[number % len(loop.contexts)],
            loop.loss_scale.value if workers.rank < len(together) else 0,
        )
        if not together:
            continue
        losses = workers.gather([loss], len(together), (1,))
        all_outputs = workers.gather([outputs], len(together), (batch_size, outputs.shape[1]))
        for part, loss, outputs in zip(together, losses, all_outputs):
            yield loss, outputs[: len(part)], dataset.labels[part]


def loss_of(num_classes):
    """The loss of one row: cross entropy, or half the squared error for ``num_classes=None``."""
    loss = mx.gluon.loss.L2Loss() if num_classes is None else mx.gluon.loss.SoftmaxCELoss()
    loss.hybridize()
    return loss


def predict(model, inputs, ctx):
    """The model's outputs, in float32 and not waited for.

    Parameters
    ----------
    model : mxnet.gluon.Block
    inputs : (B, L) int32 ids, (B, L) int32 token types, (B,) valid lengths
        As :func:`bert.text.encoding.pad_batch` makes them.
    ctx : mxnet.Context
    """
    ids, token_types, valid_lengths = inputs
    dtype = next(iter(model.collect_params().values())).dtype
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
        The sum of the losses and the outputs, not waited for.
    """
    with mx.autograd.record():
        outputs = predict(model, inputs, ctx)
        loss = loss_function(outputs, mx.nd.array(labels, ctx=ctx)).sum()
        scaled = loss if scale == 1 else loss * scale
    scaled.backward()
    return loss, outputs
