"""benchmarks/plot_pretraining.py: the curves that it reads, and the picture."""

import json
import re

import plot_pretraining as plot
import pytest

from bert.system.errors import ToolkitError


def write(path, lines):
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_curves_are_read(tmp_path):
    """Evaluations have curves of their own, and a file without training is refused."""
    path = tmp_path / 'metrics.jsonl'
    lines = [{'step': 10 * i, 'mlm_loss': 7 - i, 'mlm_acc': 5 * i} for i in range(1, 4)]
    held_out = [{'step': step, 'eval': {'mlm_loss': step / 5}} for step in (15, 30)]
    write(path, [*lines[:1], held_out[0], *lines[1:], held_out[1]])
    training, evaluation = plot.read_curves(path)
    steps = [10, 20, 30]
    assert training == {'mlm_loss': (steps, [6, 5, 4]), 'mlm_acc': (steps, [5, 10, 15])}
    assert evaluation == {'mlm_loss': ([15, 30], [3.0, 6.0])}
    training, evaluation = plot.read_curves(path, path)
    assert training['mlm_acc'] == ([10, 20, 30, 40, 50, 60], [5, 10, 15] * 2)
    assert evaluation['mlm_loss'] == ([15, 30, 45, 60], [3.0, 6.0] * 2)
    write(path, lines)
    assert plot.read_curves(path)[1] == {}
    # A phase with next sentences, and one without.
    other = tmp_path / 'other.jsonl'
    write(other, [{'step': 1, 'mlm_loss': 5, 'nsp_loss': 1}])
    assert plot.read_curves(other, path)[0]['nsp_loss'] == ([1], [1])
    assert plot.read_curves(path, other)[0]['nsp_loss'] == ([31], [1])
    write(path, held_out)
    with pytest.raises(ToolkitError, match='there is no training step in it'):
        plot.read_curves(path)


@pytest.mark.parametrize('line', ['{"step": 1, "mlm', '7', '{}', '{"step": 1, "eval": 2}'])
def test_another_file(tmp_path, line):
    path = tmp_path / 'metrics.jsonl'
    path.write_text(f'{{"step": 1, "mlm_loss": 2}}\n{line}\n')
    with pytest.raises(ToolkitError) as caught:
        plot.read_curves(path)
    assert str(caught.value) == f'{path}, line 2: not a line of run_pretraining.py'


@pytest.mark.parametrize('names', [['mlm_loss', 'mlm_acc'], list(plot.CURVES)])
def test_picture(tmp_path, monkeypatch, names):
    """Each curve has a panel; those of evaluations are drawn over the others."""
    matplotlib = pytest.importorskip('matplotlib')
    monkeypatch.setitem(matplotlib.rcParams, 'svg.fonttype', 'none')  # text stays text
    curves = {name: ([1, 2], [7, 6]) for name in names}
    counts = []
    for evaluation in ({}, {'mlm_loss': ([2], [5])}):
        picture = tmp_path / 'curve.svg'
        plot.draw(curves, evaluation, str(picture))
        text = picture.read_text()
        assert text.lstrip().startswith('<?xml')
        assert [text.count(f'>{plot.CURVES[name]}<') for name in names] == [1] * len(names)
        counts.append(text.count('>held-out data<'))
        assert len(set(re.findall(r'id="axes_\d+"', text))) == len(names)
    assert counts == [0, 1]
