"""Event files: what they hold, what TensorBoard reads in them, and those of an earlier run."""

import json
import os
import sys

import pytest
from conftest import approximately, read_events

from bert.system.errors import ToolkitError
from bert.training import folder as folders
from bert.training.events import EventFile, require_tensorboard, scalars

LINES = [
    {'step': 10, 'mlm_loss': 6.5, 'mlm_acc': 12.5, 'lr': 1e-4, 'seconds': 3.0},
    {'step': 20, 'mlm_loss': 6.0, 'mlm_acc': 25.0, 'lr': 2e-4, 'seconds': 3.0},
    {'step': 20, 'eval': {'mlm_loss': 6.25, 'mlm_acc': 20.0}},
]
POINTS = [
    ('train/mlm_loss', 10, 6.5),
    ('train/mlm_accuracy', 10, 12.5),
    ('train/learning_rate', 10, 1e-4),
    ('train/mlm_loss', 20, 6.0),
    ('train/mlm_accuracy', 20, 25.0),
    ('train/learning_rate', 20, 2e-4),
    ('eval/mlm_loss', 20, 6.25),
    ('eval/mlm_accuracy', 20, 20.0),
]


def write_lines(folder, lines):
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_names_of_curves():
    line = {'epoch': 1, 'step': 2, 'seconds': 1.0, 'dev': {'f1': 0.5, 'accuracy': 1}}
    assert scalars(line) == {'eval/f1': 0.5, 'eval/accuracy': 1.0}
    line = {'epoch': 1, 'matched': {'accuracy': 0.5}, 'mismatched': {'accuracy': 0.25}}
    assert scalars(line) == {'eval/matched/accuracy': 0.5, 'eval/mismatched/accuracy': 0.25}
    assert scalars({'step': 1, 'loss': 0.5, 'lr': 0.0, 'text': 'x', 'no': None, 'yes': True}) == {
        'train/loss': 0.5,
        'train/learning_rate': 0.0,
    }


def test_a_file_begins_with_what_the_run_has(tmp_path):
    """It replaces earlier event files, and nothing else; half a line is left out."""
    pytest.importorskip('tensorboardX')
    write_lines(tmp_path, LINES[:1])
    with open(tmp_path / 'metrics.jsonl', 'a') as file:
        file.write('{"loss": 3}\n[1]\n{"step": 1e400, "loss": 3}\n{"step": -1, "lo')
    place = tmp_path / 'tensorboard'
    place.mkdir()
    (place / 'events.out.tfevents.1.host.1').write_text('stale')
    (place / 'notes.txt').write_text('mine')
    EventFile(tmp_path)
    (place / 'notes.txt').unlink()
    assert read_events(place) == approximately(POINTS[:3])


@pytest.mark.parametrize('has_file', [True, False])
def test_lines_go_to_both_files(tmp_path, has_file):
    """A run that goes on without its metrics.jsonl begins a new one."""
    pytest.importorskip('tensorboardX')
    if has_file:
        write_lines(tmp_path, [])
    events = EventFile(tmp_path)
    assert read_events(events.path.parent) == []
    for line in LINES:
        folders.add_line(tmp_path, line, events)
    assert read_events(events.path.parent) == approximately(POINTS)
    written = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line) for line in written] == LINES


def test_tensorboard_reads_it(tmp_path):
    pytest.importorskip('tensorboardX')
    reader = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    write_lines(tmp_path, LINES)
    EventFile(tmp_path)
    accumulator = reader.EventAccumulator(str(tmp_path / 'tensorboard'))
    accumulator.Reload()
    tags = accumulator.Tags()['scalars']
    found = [(tag, each.step, each.value) for tag in tags for each in accumulator.Scalars(tag)]
    assert sorted(found) == approximately(sorted(POINTS))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
    with pytest.raises(ToolkitError) as caught:
        require_tensorboard()
    assert str(caught.value).startswith('--tensorboard needs tensorboardX (')
    assert str(caught.value).endswith("): pip install '.[tensorboard]' in the toolkit's folder")


def test_a_place_that_cannot_be_written(tmp_path):
    pytest.importorskip('tensorboardX')
    write_lines(tmp_path, LINES)
    (tmp_path / 'tensorboard').write_text('')
    with pytest.raises(ToolkitError) as caught:
        EventFile(tmp_path)
    assert str(caught.value) == f'{tmp_path}/tensorboard: could not be written (File exists)'
    (tmp_path / 'tensorboard').unlink()
    events = EventFile(tmp_path)
    if os.path.exists('/dev/full'):
        events.path = '/dev/full'
        with pytest.raises(ToolkitError) as caught:
            events.add(LINES[0])
        assert str(caught.value) == '/dev/full: could not be written (No space left on device)'
