"""The two losses of pre-training, and the gradients of one update."""

import mxnet as mx
import numpy as np

from bert import ops
from bert.distributed.workers import ALONE
from bert.training.devices import spread

# The sums that PretrainingLoss returns, in this order.
STATISTICS = ('mlm_loss', 'mlm_correct', 'nsp_loss', 'nsp_correct')


class PretrainingLoss(mx.gluon.HybridBlock):
    """Masked-LM and next-sentence cross entropy, and the numbers of correct answers.

    Parameters
    ----------
    fused : bool
        Whether to use :func:`bert.ops.cross_entropy`; MXNet's own is slow over a vocabulary.
    """

    def __init__(self, fused):
        super().__init__()
        self.fused = fused

    def hybrid_forward(
        self, F, nsp_scores, mlm_scores, mlm_labels, mlm_weights, nsp_labels, factors
    ):
        """Add up the losses of one batch.

        Parameters
        ----------
        nsp_scores : (B, 2) array of float32
        mlm_scores : (B, M, V) array of float32
        mlm_labels, mlm_weights : (B, M) arrays
            Weight 0 where a row has fewer than M masked tokens.
        nsp_labels : (B,) array
        factors : (2,) array
            The factors of the sums of the two losses in the objective.

        Returns
        -------
        (1,) array, (4,) array
            The objective and, without gradients, the sums named in :data:`STATISTICS`.
        """
        mlm_labels, mlm_weights = F.reshape(mlm_labels, -1), F.reshape(mlm_weights, -1)
        mlm_losses, mlm_best = self.cross_entropy(F, F.reshape(mlm_scores, (-3, 0)), mlm_labels)
        nsp_losses, nsp_best = self.cross_entropy(F, nsp_scores, nsp_labels)
        mlm_loss, nsp_loss = F.sum(mlm_losses * mlm_weights), F.sum(nsp_losses)
        mlm_correct = F.sum((mlm_best == mlm_labels) * mlm_weights)
        nsp_correct = F.sum(nsp_best == nsp_labels)
        losses = F.concat(mlm_loss, nsp_loss, dim=0)
        statistics = F.concat(mlm_loss, mlm_correct, nsp_loss, nsp_correct, dim=0)
        return F.sum(losses * factors), F.stop_gradient(statistics)

    def cross_entropy(self, F, scores, labels):
        """Return the loss of each row of (rows, classes) scores, and its best class."""
        if self.fused:
            return ops.cross_entropy(F, scores, labels)
        return -F.pick(F.log_softmax(scores), labels), F.argmax(scores, axis=-1)


class Tally:
    """Sums over any number of batches.

    Attributes
    ----------
    sums : (6,) array of float64
        The sums in :data:`STATISTICS`, the masked tokens and the rows.
    """

    def __init__(self, sums=(0,) * 6):
        self.sums = np.array(sums, dtype=np.float64)

    def add(self, batch, statistics):
        """Wait for the statistics of a batch and add them."""
        rows = len(batch.nsp_labels)
        self.sums += [*statistics.asnumpy(), batch.mlm_weights.sum(), rows]

    def metrics(self, no_nsp=False):
        """Return mean losses, and accuracies in percent.

        Parameters
        ----------
        no_nsp : bool
            Whether to leave out next sentences.

        Returns
        -------
        dict of str to float
        """
        mlm_loss, mlm_correct, nsp_loss, nsp_correct, masks, rows = self.sums.tolist()
        masks = max(1, masks)
        metrics = {'mlm_loss': mlm_loss / masks, 'mlm_acc': 100 * mlm_correct / masks}
        if not no_nsp:
            metrics.update(nsp_loss=nsp_loss / rows, nsp_acc=100 * nsp_correct / rows)
        return metrics


def describe(metrics, digits):
    """Format metrics as the original does: ``mlm_loss=0.082<TAB>mlm_acc=98.9``.

    Parameters
    ----------
    metrics : dict of str to float
        See :meth:`Tally.metrics`.
    digits : int
        The decimals of a loss; an accuracy has fewer.
    """
    shown = {'loss': digits, 'acc': {5: 2, 3: 1}[digits]}
    return '\t'.join(
        f'{name}={value:.{shown[name.rpartition("_")[2]]}f}' for name, value in metrics.items()
    )


def freeze_next_sentence(model):
    """Keep the pooler and the next-sentence head as they are.

    Without gradients they would still decay.
    """
    for head in (model.pooler, model.classifier):
        head.collect_params().setattr('grad_req', 'null')


def finish_initialization(model, ctx):
    """Run the model once, so that every parameter gets its size and initial values."""
    zeros = mx.nd.zeros((1, 1), ctx=ctx, dtype='int32')
    model(zeros, zeros, mx.nd.ones((1,), ctx=ctx), zeros)
    mx.nd.waitall()


def build_loss(contexts):
    """Build a hybridized :class:`PretrainingLoss` for these contexts."""
    loss = PretrainingLoss(fused=ops.serve_on(contexts))
    loss.hybridize()
    return loss


def statistics(model, loss, batch, ctx, factors=(0, 0)):
    """Compute the objective and the statistics of one batch, without waiting for them.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel
        With both heads. The masked-LM head sees only the masked positions.
    batch : bert.pretraining.batches.Batch
    ctx : mxnet.Context
    factors : (float, float)
        See :class:`PretrainingLoss`, which returns the two arrays.
    """
    dtype = next(iter(model.collect_params().values())).dtype
    _, _, nsp_scores, mlm_scores = model(
        mx.nd.array(batch.ids, ctx=ctx, dtype='int32'),
        mx.nd.array(batch.token_types, ctx=ctx, dtype='int32'),
        mx.nd.array(batch.valid_lengths, ctx=ctx, dtype=dtype),
        mx.nd.array(batch.mlm_positions, ctx=ctx, dtype='int32'),
    )
    return loss(
        nsp_scores.astype('float32', copy=False),
        mlm_scores.astype('float32', copy=False),
        mx.nd.array(batch.mlm_labels, ctx=ctx),
        mx.nd.array(batch.mlm_weights, ctx=ctx),
        mx.nd.array(batch.nsp_labels, ctx=ctx),
        mx.nd.array(factors, ctx=ctx),
    )


def gradients(model, loss, batches, contexts, scale, workers=ALONE, no_nsp=False):
    """Compute the gradients of one update, spread over workers and their devices.

    The objective is the mean masked-LM loss of the masked tokens plus the mean next-sentence
    loss of the rows, both over the whole update, so that it does not matter how the update is
    cut into batches.

    Parameters
    ----------
    batches : list of bert.pretraining.batches.Batch
        Those of all workers, on each worker.
    contexts : list of mxnet.Context
    scale : float
        Multiplies the gradients, but not the statistics.
    workers : bert.distributed.workers.Workers
    no_nsp : bool
        Whether to leave the next-sentence loss out of the objective.

    Returns
    -------
    list of (4,) mxnet.nd.NDArray
        The statistics of each batch, which are still being computed.
    """
    masks = max(1, sum(float(batch.mlm_weights.sum()) for batch in batches))
    rows = sum(len(batch.nsp_labels) for batch in batches)
    counted = []
    for batch, ctx, weight in spread(batches, contexts, workers, filler=batches[0]):
        factors = weight * scale / masks, 0 if no_nsp else weight * scale / rows
        with mx.autograd.record():
            objective, sums = statistics(model, loss, batch, ctx, factors)
        objective.backward()
        counted.append(sums)
    share = len(workers.share(batches))
    return workers.gather(counted[:share], len(batches), (len(STATISTICS),))
