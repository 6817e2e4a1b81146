"""benchmarks/plot_pretraining.py: the losses that it reads, and the picture."""

import json

import plot_pretraining as plot
import pytest

from bert.system.errors import ToolkitError


def test_losses_are_read(tmp_path):
    """Only training lines count, and a file without any is refused."""
    path = tmp_path / 'metrics.jsonl'
    lines = [{'step': 10 * i, 'mlm_loss': 7 - i, 'nsp_loss': 0.7 - i / 10} for i in range(1, 4)]
    path.write_text(''.join(json.dumps(line) + '\n' for line in [*lines, {'step': 30, 'eval': {}}]))
    steps, losses = plot.read_losses(path)
    assert steps == [10, 20, 30]
    assert losses['mlm_loss'] == [6, 5, 4]
    path.write_text('')
    with pytest.raises(ToolkitError, match='there is no training step in it'):
        plot.read_losses(path)


def test_picture(tmp_path):
    pytest.importorskip('matplotlib')
    picture = tmp_path / 'curve.svg'
    plot.draw([1, 2], {'mlm_loss': [7, 6], 'nsp_loss': [0.7, 0.6]}, str(picture))
    assert picture.read_text().lstrip().startswith('<?xml')
