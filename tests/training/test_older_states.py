"""Training states from the commit before the rooms, from which both kinds of training go on.

They hold whole logs, or nothing of the logs, where today's hold the sizes of the logs.
``tests/data/training_states`` has the state of each run after it was stopped, and the lines of
``metrics.jsonl`` of an undisturbed run.
"""

import json
import shutil

import pytest
from conftest import ROOT

import finetune_classifier
import run_pretraining

DATA = ROOT / 'tests' / 'data'
STATES = DATA / 'training_states'
MODEL = DATA / 'checkpoints' / 'hf_pretraining'


def check_lines(path, expected):
    """Compare two ``metrics.jsonl``, except for the times, which differ from run to run."""
    found, wanted = (
        [json.loads(line) for line in file.read_text().splitlines()] for file in (path, expected)
    )
    for line in (*found, *wanted):
        for name in ('seconds', 'tokens_per_second', 'samples_per_second'):
            line.pop(name, None)
        if 'dev' in line:  # the states are from before the steps of these lines
            line.pop('step', None)
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            # Processors differ in the last bits.
            assert ours[name] == (
                value if isinstance(value, dict) else pytest.approx(value, rel=1e-3, abs=1e-3)
            )


def test_fine_tuning(tmp_path, root_logger):
    shutil.copytree(STATES / 'finetuning', tmp_path / 'run')
    log = (tmp_path / 'run' / 'finetune.log').read_text()
    # A line that the run wrote before it was killed, after the state was saved.
    for name in ('finetune.log', 'metrics.jsonl'):
        with open(tmp_path / 'run' / name, 'a') as file:
            file.write('half a li')
    flags = f"""--train_file {STATES}/train.csv --dev_file {STATES}/train.csv --text_columns text
        --label_column label --bert_model {MODEL} --epochs 3 --batch_size 4 --max_len 20 --lr 1e-2
        --log_interval 2 --output_dir {tmp_path}/run --resume"""
    result = finetune_classifier.main(flags.split())
    assert len(result['epochs']) == 3
    assert (tmp_path / 'run' / 'finetune.log').read_text().startswith(f'{log}INFO:root:Namespace(')
    check_lines(tmp_path / 'run' / 'metrics.jsonl', STATES / 'finetuning_expected.jsonl')


def test_pre_training(tmp_path, root_logger):
    shutil.copytree(STATES / 'pretraining', tmp_path / 'run')
    with open(tmp_path / 'run' / 'metrics.jsonl', 'a') as file:
        file.write('{"step": 8, "mlm_loss": 3}\n{"st')
    flags = f"""--do-training --data {STATES}/shard.npz --bert_model {MODEL} --batch_size 4
        --num_steps 12 --log_interval 4 --ckpt_interval 5 --lr 1e-2 --ckpt_dir {tmp_path}/run
        --start_step auto"""
    assert run_pretraining.main(flags.split())['step'] == 12
    check_lines(tmp_path / 'run' / 'metrics.jsonl', STATES / 'pretraining_expected.jsonl')
