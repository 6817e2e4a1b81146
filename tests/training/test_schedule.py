"""The learning rate, against the published curves and the two straight lines."""

import doctest
import re
from fractions import Fraction

import pytest

from bert.training import schedule
from bert.training.schedule import learning_rate


def test_example_of_the_docstring():
    result = doctest.testmod(schedule)
    assert result.attempted and not result.failed


@pytest.mark.parametrize(
    ('warmup', 'total'), [(0, 1), (0, 7), (1, 2), (1, 10), (34, 345), (99, 100)]
)
def test_two_straight_lines(warmup, total):
    """The lines go through (0, 0), (warmup, peak) and (total, 0), in exact fractions."""
    for step in range(1, total + 1):
        rising = Fraction(step, warmup) if warmup else 2
        falling = Fraction(total - step, total - warmup)
        rate = learning_rate(step, 2e-5, warmup, total)
        assert rate == pytest.approx(2e-5 * float(min(rising, falling)), rel=1e-14)
    assert rate == 0.0


def test_never_below_zero_nor_above_the_peak():
    rates = [learning_rate(step, 1.0, 3, 50) for step in range(1, 51)]
    assert max(rates) == rates[2] == 1.0
    assert min(rates) == rates[-1] == 0.0
    assert all(a > b for a, b in zip(rates[2:], rates[3:]))


def test_first_published_rates():
    """MRPC has 3,668 rows in batches of 32, 3 epochs, with the original's count of steps.

    That left out the batches with the remainder of each bucket: int(3668 / 32 * 3) = 343, of
    which int(34.3) are warm-up. Step 10: 2e-5 * 10 / 34 = 0.00000588.
    """
    total = int(3668 / 32 * 3)
    warmup = int(total * 0.1)
    assert (total, warmup) == (343, 34)
    assert f'{learning_rate(10, 2e-5, warmup, total):.7f}' == '0.0000059'
    assert f'{learning_rate(20, 2e-5, warmup, total):.7f}' == '0.0000118'


def test_published_curve(published_logs):
    """Every line of the published MRPC log fits, up to where the original's rate fell below 0."""
    text = (published_logs / 'finetuned_mrpc.log').read_text()
    compared = 0
    for match in re.finditer(r'\[Epoch (\d+) Batch (\d+)/(\d+)\] .*?lr=([\d.-]+)', text):
        epoch, batch, batches = (int(group) for group in match.groups()[:3])
        step = (epoch - 1) * batches + batch
        if step > 343:
            continue
        rate = learning_rate(step, 2e-5, 34, 343)
        assert abs(rate - float(match.group(4))) <= 1.0e-7, match.group()
        compared += 1
    assert compared >= 30
