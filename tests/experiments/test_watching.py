"""Runs that are watched while they go on, here by files that a test writes."""

import io
import json
import sys

import pytest

from bert.experiments import watching
from bert.experiments.runs import Run

BATCH = 'INFO:root:[Epoch 1 Batch 10/20] loss=0.5000, lr=0.00001, metrics=accuracy:0.5\n'


@pytest.fixture
def write(tmp_path):
    """Return a function that appends lines to the metrics of a run."""

    def append(*lines):
        with open(tmp_path / 'metrics.jsonl', 'a') as file:
            file.writelines(
                line if isinstance(line, str) else f'{json.dumps(line)}\n' for line in lines
            )

    (tmp_path / 'run.log').write_text(f'INFO:root:Namespace()\n{BATCH}')
    return append


def update(epoch, step):
    return {'epoch': epoch, 'step': step, 'loss': 0.5, 'lr': 1e-5, 'accuracy': 0.25}


def epoch(number, accuracy):
    return {'epoch': number, 'step': 20 * number, 'seconds': 7.0, 'dev': {'accuracy': accuracy}}


def watch(folder, **settings):
    settings = settings or {'epochs': 3, 'training_steps': None}
    return watching.Watch(Run('RTE', 7, folder), folder / 'run.log', settings, 1)


def test_a_line_for_each_epoch(tmp_path, write, caplog):
    """Seven seconds for 20 of 60 updates leave fourteen; half a line waits for its other half."""
    caplog.set_level('INFO')
    run = watch(tmp_path)
    run.look()
    write(update(1, 10), update(1, 20))
    run.look()
    whole = json.dumps(epoch(1, 0.5))
    write(whole[:9])
    run.look()
    assert caplog.messages == []
    write(f'{whole[9:]}\n')
    run.look()
    run.look()
    assert caplog.messages == ['RTE seed 7, epoch 1: accuracy 0.5000, 7.0 s, 00:14 left']
    write(epoch(2, 0.75), epoch(3, 0.625))
    run.close()
    assert caplog.messages[1:] == [
        'RTE seed 7, epoch 2: accuracy 0.7500, 7.0 s, 00:07 left',
        'RTE seed 7, epoch 3: accuracy 0.6250, 7.0 s',
    ]


def test_what_goes_on_does_not_begin_anew(tmp_path, write, caplog):
    """Epoch 1 was shown by an earlier process; the run cuts what came after it."""
    caplog.set_level('INFO')
    write(epoch(1, 0.5))
    size = (tmp_path / 'metrics.jsonl').stat().st_size
    write(update(2, 30))
    run = watch(tmp_path)
    with open(tmp_path / 'metrics.jsonl', 'r+') as file:
        file.truncate(size)
    run.look()
    write(update(2, 35))
    run.look()
    write({**epoch(2, 0.75), 'dev': {'accuracy': 0.75, 'f1': 1.0}, 'other': {'f1': 0.5}})
    run.look()
    assert caplog.messages == [
        'RTE seed 7, epoch 2: accuracy 0.7500, f1 1.0000, other f1 0.5000, 7.0 s, 00:07 left'
    ]


def test_a_new_run_in_a_used_folder(tmp_path, write, caplog):
    caplog.set_level('INFO')
    write(epoch(1, 0.5), epoch(2, 0.5))
    run = watch(tmp_path, epochs=3, training_steps=40)
    (tmp_path / 'metrics.jsonl').write_text('')
    run.look()
    write(epoch(1, 0.5))
    run.look()
    assert caplog.messages == ['RTE seed 7, epoch 1: accuracy 0.5000, 7.0 s, 00:07 left']


def test_lines_of_another_shape_are_passed_over(tmp_path, write, caplog):
    caplog.set_level('INFO')
    others = (
        '[]',
        '{"step": "x"}',
        '{"epoch": 1, "step": null, "loss": 1}',
        'half',
        '{"epoch": {}}',
    )
    write(*(f'{line}\n' for line in others))
    run = watch(tmp_path)
    write(*(f'{line}\n' for line in others), {**epoch(1, 0.5), 'dev': 5, 'other': {'f1': 0.5}})
    run.look()
    assert caplog.messages == ['RTE seed 7, epoch 1: other f1 0.5000, 7.0 s']


def test_a_bar_on_a_terminal(tmp_path, write, monkeypatch, caplog):
    """It takes the place of the lines."""
    caplog.set_level('INFO')
    screen = io.StringIO()
    monkeypatch.setattr(screen, 'isatty', lambda: True)
    monkeypatch.setattr(sys, 'stderr', screen)
    run = watch(tmp_path)
    write(update(1, 10), update(1, 20), epoch(1, 0.75), update(2, 30))
    run.look()
    last = screen.getvalue().split('\r')[-1]
    assert last.startswith('RTE seed 7:  50%')
    assert ' 30/60 [' in last and 'epoch 2, loss 0.5000, accuracy 0.7500' in last
    run.close()
    assert caplog.messages == []
