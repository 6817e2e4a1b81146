"""The metrics, compared with their formulas and with cases worked by hand."""

import numpy as np
import pytest

from bert.tasks import metrics

# Worked by hand: 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
LABELS = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
PREDICTIONS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])


def test_binary_metrics_by_hand():
    """accuracy = 7/10; F1 = 2*3 / (2*3+1+2) = 2/3; MCC = (3*4 - 1*2) / sqrt(4*5*5*6)."""
    values = metrics.compute(['accuracy', 'f1', 'mcc'], LABELS, PREDICTIONS)
    assert values['accuracy'] == pytest.approx(0.7)
    assert values['f1'] == pytest.approx(2 / 3)
    assert values['mcc'] == pytest.approx(10 / np.sqrt(600))


def test_f1_macro_by_hand():
    """F1 of class 1 is 2/3, of class 0 it is 2*4 / (2*4+2+1) = 8/11; the mean is 23/33."""
    assert metrics.f1_macro(LABELS, PREDICTIONS) == pytest.approx(23 / 33)
    # Three classes: [0 1 2 2] for [0 1 1 2]. F1: 1, 2/3, 2/3.
    assert metrics.f1_macro([0, 1, 1, 2], [0, 1, 2, 2]) == pytest.approx(7 / 9)


def test_mcc_of_three_classes():
    """Gorodkin's R_K: (c s - sum p t) / sqrt((s^2 - sum p^2)(s^2 - sum t^2))."""
    labels, predictions = np.array([0, 1, 1, 2, 2, 2]), np.array([0, 1, 2, 2, 2, 0])
    true, predicted = np.bincount(labels), np.bincount(predictions)
    correct, size = (labels == predictions).sum(), len(labels)
    expected = (correct * size - true @ predicted) / np.sqrt(
        (size**2 - predicted @ predicted) * (size**2 - true @ true)
    )
    assert metrics.mcc(labels, predictions) == pytest.approx(expected)


def test_correlations_against_their_formulas():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 26, 200) / 5  # with ties, as in STS-B
    predictions = labels + rng.normal(0, 1, 200)

    def correlation(x, y):
        x, y = x - x.mean(), y - y.mean()
        return x @ y / np.sqrt((x @ x) * (y @ y))

    def ranks(x):
        """Return the ranks; equal values share the mean of theirs."""
        return np.array([(x < value).sum() + ((x == value).sum() + 1) / 2 for value in x])

    values = metrics.compute(['pearsonr', 'spearmanr'], labels, predictions)
    assert values['pearsonr'] == pytest.approx(correlation(labels, predictions))
    assert values['spearmanr'] == pytest.approx(correlation(ranks(labels), ranks(predictions)))
    assert 0.3 < values['pearsonr'] < 0.95


@pytest.mark.parametrize('constant', [0, 1])
def test_constant_class(constant, recwarn):
    values = metrics.compute(['accuracy', 'f1', 'f1_macro', 'mcc'], LABELS, np.full(10, constant))
    # All ones: accuracy 1/2, F1 = 2*5/(10+5) = 2/3, and its mean with 0.
    f1 = 2 / 3 * constant
    assert values['accuracy'] == 0.5
    assert values['f1'] == pytest.approx(f1)
    assert values['f1_macro'] == pytest.approx(1 / 3)
    assert values['mcc'] == 0.0
    assert not recwarn.list


@pytest.mark.parametrize('name', ['pearsonr', 'spearmanr'])
def test_constant_numbers(name, recwarn):
    constant, varied = np.full(5, 2.5, np.float32), np.arange(5, dtype=np.float32)
    for labels, predictions in [(constant, varied), (varied, constant), (constant, constant)]:
        assert metrics.compute([name], labels, predictions) == {name: 0.0}
    assert metrics.compute([name], varied[:1], varied[:1]) == {name: 0.0}
    assert not recwarn.list


def test_values_are_plain_numbers_in_the_order_asked_for():
    values = metrics.compute(['f1', 'accuracy'], LABELS, PREDICTIONS)
    assert list(values) == ['f1', 'accuracy']
    assert all(type(value) is float for value in values.values())


def test_description_as_in_the_published_logs():
    assert metrics.describe({'accuracy': 0.88725, 'f1': 0.916}) == 'accuracy:0.8872,f1:0.9160'
    assert metrics.describe({'mcc': -0.5}) == 'mcc:-0.5000'
