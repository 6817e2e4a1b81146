"""The script in benchmarks/ that draws the losses of a pre-training."""

import importlib.util
import json
from pathlib import Path

import pytest

from bert.system.errors import ToolkitError

SCRIPT = Path(__file__).resolve().parents[1] / 'benchmarks' / 'plot_pretraining.py'


@pytest.fixture(scope='module')
def plot():
    spec = importlib.util.spec_from_file_location('plot_pretraining', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_losses_are_read(plot, tmp_path):
    """Training lines only; a file without any is refused."""
    path = tmp_path / 'metrics.jsonl'
    lines = [{'step': 10 * i, 'mlm_loss': 7 - i, 'nsp_loss': 0.7 - i / 10} for i in range(1, 4)]
    path.write_text(''.join(json.dumps(line) + '\n' for line in [*lines, {'step': 30, 'eval': {}}]))
    steps, losses = plot.read_losses(path)
    assert steps == [10, 20, 30]
    assert losses['mlm_loss'] == [6, 5, 4]
    path.write_text('')
    with pytest.raises(ToolkitError, match='there is no training step in it'):
        plot.read_losses(path)


def test_picture(plot, tmp_path):
    pytest.importorskip('matplotlib')
    picture = tmp_path / 'curve.svg'
    plot.draw([1, 2], {'mlm_loss': [7, 6], 'nsp_loss': [0.7, 0.6]}, str(picture))
    assert picture.read_text().lstrip().startswith('<?xml')
