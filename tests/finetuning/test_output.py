"""What an earlier run left in a folder: what is there to go on from, and what is damaged."""

import json

import pytest
from conftest import failure

from bert.finetuning import output, progress, start
from bert.tasks.table import TASKS
from bert.training.folder import require_same

MRPC = TASKS['MRPC']
IDENTITY = {
    'flags': {'lr': 1},
    'devices': ['cpu(0)'],
    'operators': 'fused',
    'data': {},
    'weights': 'a',
}


@pytest.mark.parametrize(
    'run',
    [{}, 5, None, [], 'x', {'flags': 5}, {**IDENTITY, 'flags': []}, {'flags': {'lr': 1}}],
)
def test_a_run_that_does_not_say_how_it_was_made(tmp_path, run):
    sentence = f'{tmp_path}: the run there does not say how it was made'
    assert failure(require_same, run, IDENTITY, tmp_path) == sentence
    (tmp_path / 'finetune.json').write_text(json.dumps({'run': run}))
    assert failure(start.choose_start, tmp_path, MRPC, IDENTITY, True) == sentence
    assert start.choose_start(tmp_path, MRPC, IDENTITY, False) == (False, None)


@pytest.mark.parametrize('content', [{}, {'epochs': 5, 'best_epoch': 1}, {'epochs': [5]}])
def test_results_of_another_shape(tmp_path, content):
    (tmp_path / 'finetune.json').write_text(json.dumps(content))
    sentence = failure(start.finished_result, tmp_path, [])
    assert sentence == f'{tmp_path}/finetune.json: not the results of a run'


STATE = {
    'run': IDENTITY,
    'task_name': 'MRPC',
    'epochs': [{'dev': {'accuracy': 0.5}, 'seconds': 1.0}],
    'seconds': 0.5,
    'seen': {'loss': 0.5, 'rows': 2, 'labels': [0, 1], 'predictions': [1, 1]},
    'logs': {'finetune.log': 10},
    'step': 3,
}


def test_what_is_a_saved_run():
    assert progress.is_saved(STATE, MRPC)
    assert progress.is_saved({**STATE, 'seen': None, 'epochs': []}, MRPC)
    wrong = {
        'epochs': [None, 5, {}, [5], [{'dev': 0.5}], [{}], [{'dev': {'f1': 0.5}}]],
        'seconds': [None, '1', True],
        'seen': [5, [], {}, {**STATE['seen'], 'loss': None}, {**STATE['seen'], 'labels': ['x']}],
        'logs': [None, 5, []],
    }
    for name, values in wrong.items():
        assert not any(progress.is_saved({**STATE, name: value}, MRPC) for value in values), name
    for name in ('run', 'epochs', 'seconds', 'logs'):
        less = {key: value for key, value in STATE.items() if key != name}
        assert not progress.is_saved(less, MRPC), name


def test_a_saved_run_of_another_shape(tmp_path, monkeypatch):
    monkeypatch.setattr(output.states, 'newest', lambda folder: (3, {'step': 3}))
    sentence = failure(start.choose_start, tmp_path, MRPC, IDENTITY, True)
    assert sentence == f'{tmp_path}/resume/0000003.states: not a checkpoint of this program'
