"""Weights of labels: what they are, and losses and gradients beside plain NumPy."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import failure
from sklearn.utils.class_weight import compute_class_weight

from bert.distributed.workers import ALONE
from bert.finetuning import step, weights
from bert.finetuning.data import Dataset
from bert.model import build_head, load_bert
from bert.system.errors import UsageError
from bert.text.encoding import Encoded

import mxnet as mx  # isort: skip

NAMES = ['a', 'b=c', 'd']
LABELS = np.array([0, 0, 1, 0, 2, 2, 0, 1, 0], np.int32)
SEVERAL = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0], [1, 0, 0]], np.float32)


def test_balanced_weights_are_those_of_scikit_learn():
    found = weights.weigh_labels(['balanced'], LABELS, NAMES, False)
    expected = compute_class_weight('balanced', classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found, [9 / 15, 9 / 6, 9 / 6], rtol=1e-6)
    assert found.dtype == np.float32


def test_balanced_weights_where_a_row_may_have_several():
    found = weights.weigh_labels(['balanced'], SEVERAL, NAMES, True)
    np.testing.assert_allclose(found, [1 / 3, 3 / 1, 2 / 2], rtol=1e-6)


def test_weights_by_name():
    found = weights.weigh_labels(['d=0.25', 'b=c=3'], LABELS, NAMES, False)
    assert found.tolist() == [1, 3, 0.25]
    # A label may be called so, but then it has a weight.
    assert weights.weigh_labels(['balanced=2'], LABELS, ['balanced', 'x'], False).tolist() == [2, 1]


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['balanced', 'a=1'], '--class_weights balanced does not go with LABEL=WEIGHT'),
        (['a=1', 'balanced'], '--class_weights balanced does not go with LABEL=WEIGHT'),
        (['a=1', 'a=2'], "--class_weights has 'a' twice"),
        (['e=1'], "--class_weights: the label 'e' is not one of a, b=c, d"),
    ],
)
def test_words_that_do_not_fit(words, sentence):
    with pytest.raises(UsageError) as caught:
        weights.weigh_labels(words, LABELS, NAMES, False)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    'word', ['a', 'a=', 'a=x', '=1', 'a=0', 'a=-1', 'a=nan', 'a=1e7', 'a=1e-7']
)
def test_words_that_are_no_weights(word):
    with pytest.raises(argparse.ArgumentTypeError):
        weights.class_weight(word)
    assert weights.class_weight('a=1e-6') == 'a=1e-6'


@pytest.mark.parametrize(
    ('labels', 'is_multilabel', 'clause'),
    [
        (LABELS % 2, False, "no row of the training set has the label 'd'"),
        (SEVERAL[:2], True, "no row of the training set has the label 'b=c'"),
        (SEVERAL[1:3] + [[0, 0, 1]], True, "each row of the training set has the label 'd'"),
    ],
)
def test_labels_that_cannot_be_balanced(labels, is_multilabel, clause):
    labels = np.minimum(labels, 1) if is_multilabel else labels
    sentence = failure(weights.weigh_labels, ['balanced'], labels, NAMES, is_multilabel)
    assert sentence == f'--class_weights balanced: {clause}'


# --- losses and gradients

ROWS = 9
WEIGHTS = np.array([0.5, 3, 1.25], np.float32)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def expected_of_classes(outputs, labels, label_weights):
    """Return the sum of w * loss, the sum of w, and the gradient of the first by the outputs."""
    rows, hot = label_weights[labels], np.eye(3)[labels]
    losses = -np.log(softmax(outputs)[np.arange(len(labels)), labels])
    return (rows * losses).sum(), rows.sum(), rows[:, None] * (softmax(outputs) - hot)


def expected_of_several(outputs, labels, label_weights):
    """The same by the definition in torch's BCEWithLogitsLoss, without its stable form."""
    p = 1 / (1 + np.exp(-outputs))
    losses = -(label_weights * labels * np.log(p) + (1 - labels) * np.log(1 - p))
    gradient = -label_weights * labels * (1 - p) + (1 - labels) * p
    return losses.mean(axis=1).sum(), len(labels), gradient / 3


def make_dataset(rng, vocab, labels, label_weights):
    lengths = rng.integers(3, 9, ROWS).astype(np.int32)
    ids = [rng.integers(5, len(vocab), length).astype(np.int32) for length in lengths]
    encoded = Encoded(ids, lengths // 2, lengths, padding=0)
    return Dataset(SimpleNamespace(path='train.tsv', name=''), encoded, labels, None, label_weights)


@pytest.mark.parametrize('is_weighted', [False, True])
@pytest.mark.parametrize('is_multilabel', [False, True])
@pytest.mark.parametrize(('batch_size', 'devices'), [(ROWS, 1), (2, 1), (2, 2), (ROWS, 2)])
def test_losses_and_gradients(
    tiny_bert_without_dropout, is_multilabel, is_weighted, batch_size, devices
):
    """However an update is cut, and on however many devices; a device without rows adds nothing.

    The gradient by the bias of the head is the sum of those by the outputs.
    """
    contexts = [mx.cpu(number) for number in range(devices)]
    bert, vocab = load_bert(str(tiny_bert_without_dropout), ctx=contexts)
    model = build_head(bert, 3, contexts, dropout=0.0)
    model.collect_params().setattr('grad_req', 'add')
    rng = np.random.default_rng(1)
    # Large enough that the loss is far from that of equal outputs.
    model.classifier[-1].weight.set_data(mx.nd.array(rng.normal(0, 1, (3, 16))))
    label_weights = WEIGHTS if is_weighted else None
    labels = LABELS
    if is_multilabel:
        labels = rng.integers(0, 2, (ROWS, 3)).astype(np.float32)
    dataset = make_dataset(rng, vocab, labels, label_weights)
    positive = label_weights if is_multilabel else None
    loss_function = step.loss_of(3, is_multilabel, positive)
    rows = rng.permutation(ROWS)
    found = step.gradients(
        model, loss_function, dataset, rows, batch_size, contexts, scale=2.0, workers=ALONE
    )
    outputs = np.concatenate([output.asnumpy() for _, output, _, _ in found]).astype(np.float64)
    assert np.ptp(outputs) > 1
    np.testing.assert_array_equal(np.concatenate([each for _, _, each, _ in found]), labels[rows])
    expected = expected_of_several if is_multilabel else expected_of_classes
    all_equal = np.ones(3)
    loss, total, gradient = expected(
        outputs, labels[rows], all_equal if label_weights is None else label_weights
    )
    assert sum(each.asscalar() for each, *_ in found) == pytest.approx(loss, rel=1e-5)
    assert sum(weight for *_, weight in found) == pytest.approx(total, rel=1e-6)
    bias = model.classifier[-1].bias
    summed = sum(grad.asnumpy() for grad in bias.list_grad())
    np.testing.assert_allclose(summed, 2 * gradient.sum(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('is_multilabel', [False, True])
def test_workers_divide_by_the_same_number(tiny_bert_without_dropout, is_multilabel):
    """Two workers, one after the other, have the gradients of one and the weights of all rows."""
    bert, vocab = load_bert(str(tiny_bert_without_dropout))
    model = build_head(bert, 3, mx.cpu(), dropout=0.0)
    model.collect_params().setattr('grad_req', 'add')
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, (ROWS, 3)).astype(np.float32) if is_multilabel else LABELS
    dataset = make_dataset(rng, vocab, labels, WEIGHTS)
    loss_function = step.loss_of(3, is_multilabel, WEIGHTS if is_multilabel else None)

    def run(*workers):
        model.collect_params().zero_grad()
        found = [
            step.gradients(
                model, loss_function, dataset, np.arange(ROWS), 2, [mx.cpu()], 1.0, workers=worker
            )
            for worker in workers
        ]
        totals = [sum(weight for *_, weight in each) for each in found]
        return totals, model.bert.word_embed[0].weight.grad().asnumpy()

    pair = [
        SimpleNamespace(
            share=lambda parts, rank=rank: parts[rank::2],
            gather=lambda own, count, shape: [np.zeros(shape)] * count,
        )
        for rank in range(2)
    ]
    (total,), gradient = run(ALONE)
    totals, summed = run(*pair)
    assert total == pytest.approx(ROWS if is_multilabel else WEIGHTS[LABELS].sum())
    assert totals == [total, total]
    np.testing.assert_allclose(summed, gradient, rtol=1e-4, atol=1e-6)
    assert np.abs(gradient).max() > 1e-4


def test_losses_of_large_outputs_are_finite():
    outputs = mx.nd.array([[200.0, -200.0], [-200.0, 200.0]])
    labels = mx.nd.array([[1.0, 0.0], [1.0, 0.0]])
    loss_function = step.loss_of(2, True, np.array([3, 1], np.float32))
    assert loss_function(outputs, labels).asnumpy().tolist() == [0, (3 * 200 + 200) / 2]
