"""What a card says of several seeds."""

from bert.experiments.cards import describe_seeds


def record(accuracy):
    epochs = [{'dev': {'accuracy': accuracy}, 'seconds': 1.0}]
    return {'task': 'SST-2', 'epochs': epochs, 'best_epoch': 1, 'seconds': 1.0}


def test_three_seeds():
    """By hand: the deviation is 0.1, and the interval 4.3027 * 0.1 / sqrt(3) to either side."""
    facts = describe_seeds({5: record(0.6), 6: record(0.7), 7: record(0.8)})
    assert facts['seeds'] == [5, 6, 7]
    expected = '0.7000, 95 % interval of the mean 0.4516 to 0.9484'
    assert facts['last accuracy'] == facts['best accuracy'] == expected


def test_two_seeds_have_no_interval():
    facts = describe_seeds({1: record(0.6), 2: record(0.7)})
    assert facts == {'seeds': [1, 2], 'last accuracy': '0.6500', 'best accuracy': '0.6500'}
