"""``--kvstore`` and its environment variables, which are checked before MXNet is imported."""

import pytest
from conftest import failure

from bert.distributed.connection import connect
from bert.finetuning import flags as finetuning_flags
from bert.pretraining import flags as pretraining_flags
from bert.system.errors import UsageError

VARIABLES = {
    'DMLC_ROLE': 'worker',
    'DMLC_PS_ROOT_URI': '127.0.0.1',
    'DMLC_PS_ROOT_PORT': '9091',
    'DMLC_NUM_SERVER': '1',
    'DMLC_NUM_WORKER': '2',
}
PRETRAINING = ['--do-training', '--data', 'x.npz']


@pytest.mark.parametrize(
    ('parse', 'flags'),
    [(pretraining_flags.parse_args, PRETRAINING), (finetuning_flags.parse_args, [])],
)
@pytest.mark.parametrize(
    ('kvstore', 'changes', 'sentence'),
    [
        ('dist_sync', {'DMLC_ROLE': None}, 'variables DMLC_ROLE: on one .* python -m bert.cluster'),
        ('dist_sync', {'DMLC_NUM_SERVER': ''}, 'needs the variables DMLC_NUM_SERVER'),
        ('dist_sync', {'DMLC_ROLE': 'boss'}, 'DMLC_ROLE=boss is not one of scheduler, server, wor'),
        ('dist_sync', {'DMLC_NUM_WORKER': '-2'}, 'DMLC_NUM_WORKER=-2 is not a number'),
        ('dist_sync', {'DMLC_PS_ROOT_PORT': '70000'}, 'DMLC_PS_ROOT_PORT=70000 is not a number'),
        ('dist_sync', {'PS_HEARTBEAT_TIMEOUT': 'soon'}, 'TIMEOUT=soon is not a number from 1'),
        ('dist_sync', {'PS_HEARTBEAT_TIMEOUT': '-3'}, 'TIMEOUT=-3 is not a number from 1 to 65535'),
        ('dist_sync', {'PS_HEARTBEAT_INTERVAL': '0'}, 'INTERVAL=0 is not a number from 1 to 65535'),
        ('dist_sync', {'PS_HEARTBEAT_INTERVAL': ''}, 'INTERVAL= is not a number from 1 to 65535'),
        (
            'dist_sync',
            {'PS_HEARTBEAT_INTERVAL': '8'},
            'PS_HEARTBEAT_TIMEOUT=15 must be more than twice PS_HEARTBEAT_INTERVAL=8, or',
        ),
        ('device', {'DMLC_ROLE': 'server'}, 'DMLC_ROLE=server goes with --kvstore dist_sync'),
        ('horovod', {}, 'horovod'),
    ],
)
def test_refusals(parse, flags, kvstore, changes, sentence, monkeypatch):
    for name, value in {**VARIABLES, 'HOROVOD_RANK': None, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=sentence):
        parse([*flags, '--kvstore', kvstore])


def test_the_variables_of_a_worker_are_accepted(monkeypatch):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    args = pretraining_flags.parse_args([*PRETRAINING, '--kvstore=dist_sync'])
    assert args.kvstore == 'dist_sync'


def test_horovod_takes_one_gpu_for_each_process(monkeypatch):
    monkeypatch.setenv('HOROVOD_RANK', '0')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: 'found')
    flags = [*PRETRAINING, '--kvstore', 'horovod', '--gpus', '0,1']
    assert failure(pretraining_flags.parse_args, flags) == (
        '--kvstore horovod has a process for each GPU: give --gpu instead of --gpus, and start as '
        'many processes, horovodrun -np, as there are GPUs'
    )


def test_an_unknown_host_is_refused(monkeypatch):
    for name, value in {**VARIABLES, 'DMLC_PS_ROOT_URI': 'no.such.host.invalid'}.items():
        monkeypatch.setenv(name, value)
    assert failure(connect) == 'DMLC_PS_ROOT_URI=no.such.host.invalid: there is no such host'
