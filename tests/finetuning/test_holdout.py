"""Dev sets from rows of the training file, beside scikit-learn's own split."""

import logging
from collections import Counter

import numpy as np
import pytest
from conftest import failure
from sklearn.model_selection import train_test_split

from bert.finetuning.holdout import SEED, hold_out
from bert.tasks.files import Examples
from bert.tasks.table import own_task


def split(labels, share, texts=None, names=('a', 'b')):
    """Return the numbers of the rows on each side, and the labels there."""
    labels = np.array(labels)
    examples = Examples([(text,) for text in texts or map(str, range(len(labels)))], labels)
    task = own_task('d.csv', None, None, ['text'], 'label', None, names)
    sides = hold_out(examples, task, share)
    rows = [[examples.texts.index(text) for text in side.texts] for side in sides]
    for side, numbers in zip(sides, rows):
        if not texts:
            np.testing.assert_array_equal(side.labels, labels[numbers])
    return rows


@pytest.mark.parametrize('share', [0.1, 0.25, 0.5, 0.77])
def test_the_rows_are_those_of_scikit_learn(share):
    labels = np.random.default_rng(1).integers(3, size=200).astype(np.int32)
    expected = train_test_split(
        range(200), test_size=share, random_state=SEED, stratify=labels.tolist()
    )
    assert split(labels, share, names=('a', 'b', 'c')) == [sorted(rows) for rows in expected]
    numbers = labels.astype(np.float32)
    expected = train_test_split(range(200), test_size=share, random_state=SEED)
    assert split(numbers, share, names=None) == [sorted(rows) for rows in expected]
    several = np.eye(3, dtype=np.float32)[labels]
    assert split(several, share, names=('a', 'b', 'c')) == [sorted(rows) for rows in expected]


def test_each_side_has_the_same_shares(caplog):
    """Of 12 and 8 rows, a quarter is 3 and 2."""
    caplog.set_level(logging.INFO)
    labels = np.array([0] * 12 + [1] * 8)
    train, dev = split(labels, 0.25)
    assert Counter(labels[dev]) == {0: 3, 1: 2} and Counter(labels[train]) == {0: 9, 1: 6}
    assert sorted([*train, *dev]) == list(range(20))
    message = 'the dev set is 5 of the 20 rows of d.csv (a: 3 of 12, b: 2 of 8)'
    assert caplog.messages == [message]
    caplog.clear()
    split(np.arange(20, dtype=np.float32), 0.25, names=None)
    assert caplog.messages == ['the dev set is 5 of the 20 rows of d.csv']


def test_rows_with_the_same_text_stay_together():
    texts = [str(number % 50) for number in range(150)]
    labels = np.array([number % 50 % 2 for number in range(150)])
    examples = Examples([(text,) for text in texts], labels)
    task = own_task('d.csv', None, None, ['text'], 'label', None, ('a', 'b'))
    train, dev = hold_out(examples, task, 0.2)
    assert (len(train.texts), len(dev.texts)) == (120, 30)
    assert not set(train.texts) & set(dev.texts)
    # The texts are those that are chosen where each stands once.
    once = split(labels[:50], 0.2)[1]
    assert {text for (text,) in dev.texts} == {str(row) for row in once}


@pytest.mark.parametrize(
    ('labels', 'share', 'sentence'),
    [
        (
            [0] * 9 + [1],
            0.2,
            "--dev_share: only one row, or one text, has the label 'b': give a --dev_file, or "
            'leave that row out',
        ),
        (
            [0, 1] * 5,
            0.1,
            '--dev_share 0.1 of its 10 different rows leaves 9 for training and 1 for the dev set, '
            'but each needs a row of each of the 2 labels',
        ),
        (
            [0, 1] * 5,
            0.85,
            '--dev_share 0.85 of its 10 different rows leaves 1 for training and 9 for the dev '
            'set, but each needs a row of each of the 2 labels',
        ),
    ],
)
def test_too_few_rows(labels, share, sentence):
    assert failure(split, labels, share) == f'd.csv: {sentence}'


def test_one_number():
    assert failure(split, np.ones(1, np.float32), 0.5, names=None) == (
        'd.csv: --dev_share 0.5 of its 1 different rows leaves 0 for training and 1 for the dev '
        'set, but each needs a row'
    )
