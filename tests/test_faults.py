"""Disk and machine faults: one sentence, the right status, and intact earlier files.

Kills at random moments are in test_chaos.py, signals in test_program.py and beside each script.
"""

import itertools
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from conftest import ROOT

import create_pretraining_data
import download_glue_data
import finetune_classifier
import run_pretraining
from bert.cli.program import run
from bert.convert import __main__ as convert
from bert.pretraining import generation
from bert.system.processes import alone
from bert.training import update

pytestmark = pytest.mark.usefixtures('root_logger')

SAMPLE = ['--input_file', str(ROOT / 'sample_text.txt'), '--do_lower_case', '--dupe_factor', '2']
VOCABULARY = ['--vocab_file', str(ROOT / 'sample_model' / 'vocab.txt')]


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Return a folder with a shard and the configuration of a model for it."""
    folder = tmp_path_factory.mktemp('inputs')
    create_pretraining_data.main([*SAMPLE, *VOCABULARY, '--output_file', str(folder / 'shard')])
    for name in ('config.json', 'vocab.txt'):
        shutil.copy(ROOT / 'sample_model' / name, folder)
    return folder


@pytest.fixture
def programs(inputs, tiny_bert, monkeypatch):
    """Return functions, by name, that run a program with an output folder in a second or two."""
    monkeypatch.setenv('GLUE_DIR', str(ROOT / 'sample_glue'))
    finetune = ['--bert_model', str(tiny_bert), '--training_steps', '6', '--log_interval', '1']
    pretrain = ['--do-training', '--data', str(inputs / 'shard.npz'), '--num_steps', '6']
    pretrain += ['--bert_model', str(inputs / 'config.json'), '--log_interval', '1']
    source = str(ROOT / 'tests' / 'data' / 'checkpoints' / 'hf_encoder')
    return {
        'generate': lambda folder: create_pretraining_data.main(
            [*SAMPLE, *VOCABULARY, '--output_file', str(folder / 'made')]
        ),
        'pretrain': lambda folder: run_pretraining.main(
            [*pretrain, '--ckpt_interval', '2', '--ckpt_dir', str(folder)]
        ),
        'finetune': lambda folder: finetune_classifier.main(
            [*finetune, '--output_dir', str(folder)]
        ),
        'convert': lambda folder: convert.main([source, str(folder / 'made'), '--to', 'gluon']),
    }


NAMES = ('generate', 'pretrain', 'finetune', 'convert')


def complaint(program, folder, capsys):
    """Run a program that ends with status 1, and return its sentence."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        run(lambda: program(folder))
    error = capsys.readouterr().err
    assert left.value.code == 1
    assert 'Traceback' not in error
    assert error.splitlines()[-1].count('error: ') == 1
    return error.splitlines()[-1].partition('error: ')[2]


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 1 MB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(folder)]
    if os.geteuid() or sys.platform != 'linux' or subprocess.run(mount).returncode:
        pytest.skip('only the administrator of a Linux machine may mount a small disk')
    yield folder
    subprocess.run(['umount', '--lazy', str(folder)], check=True)


@pytest.mark.parametrize('name', NAMES)
def test_a_full_disk(programs, small_disk, capsys, name):
    (small_disk / 'old').write_bytes(b'old')
    room = shutil.disk_usage(small_disk).free - 16384
    (small_disk / 'filler').write_bytes(bytes(room))
    sentence = complaint(programs[name], small_disk, capsys)
    assert sentence.startswith(f'{small_disk}/')
    assert 'could not be written' in sentence
    assert (small_disk / 'old').read_bytes() == b'old'
    assert not [path for path in small_disk.rglob('*') if path.name.endswith('.tmp')]
    assert not (small_disk / 'made').exists() and not (small_disk / 'made.npz').exists()
    assert not [*small_disk.rglob('*.states'), *small_disk.rglob('*.params')]


@pytest.mark.parametrize('name', NAMES)
def test_a_folder_that_can_only_be_read(programs, small_disk, capsys, name):
    (small_disk / 'old').write_bytes(b'old')
    subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
    sentence = complaint(programs[name], small_disk, capsys)
    assert sentence.startswith(str(small_disk))
    assert 'Read-only file system' in sentence or 'no permission to write' in sentence
    assert os.listdir(small_disk) == ['old']


def test_a_download_to_a_folder_that_can_only_be_read(small_disk, capsys):
    subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
    assert download_glue_data.main(['--data_dir', str(small_disk), '--tasks', 'AX']) == 1
    assert 'Read-only file system' in capsys.readouterr().err


@pytest.mark.parametrize('name', NAMES)
def test_two_programs_do_not_write_to_one_place(programs, tmp_path, capsys, name):
    """The second is refused, and leaves everything to the first."""
    made = {'generate': 'made.npz', 'convert': 'made'}
    place = tmp_path / made.get(name, '')
    (tmp_path / '.made.npz.first.bert.tmp').write_text('half')
    with alone(place):
        before = sorted(os.listdir(tmp_path))
        sentence = complaint(programs[name], tmp_path, capsys)
        assert sentence == f'{place}: another program is writing there: wait until it has ended'
        assert sorted(os.listdir(tmp_path)) == before
    programs[name](tmp_path)
    assert not list(tmp_path.glob('.*.lock'))


def test_two_programs_do_not_generate_to_one_folder(tmp_path, capsys):
    def generate(folder):
        create_pretraining_data.main([*SAMPLE, *VOCABULARY, '--output_dir', str(folder)])

    with alone(tmp_path):
        sentence = complaint(generate, tmp_path, capsys)
    assert sentence == f'{tmp_path}: another program is writing there: wait until it has ended'
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('name', NAMES[:3])
def test_a_folder_that_vanishes(programs, tmp_path, capsys, monkeypatch, name):
    """It is not created again: the program's earlier files are gone, so going on is useless."""
    folder = tmp_path / 'out'
    seed_step, shard_settings = update.seed_step, generation.shard_settings

    def seed_and_remove(seed, step, rank=0):
        if step == 3:
            shutil.rmtree(folder)
        seed_step(seed, step, rank)

    def remove_and_describe(plan):
        shutil.rmtree(folder)
        return shard_settings(plan)

    monkeypatch.setattr(update, 'seed_step', seed_and_remove)
    monkeypatch.setattr(generation, 'shard_settings', remove_and_describe)
    sentence = complaint(programs[name], folder, capsys)
    assert sentence.startswith(f'{folder}/')
    assert sentence.endswith('could not be written (No such file or directory)')
    assert not folder.exists()


# Runs a command where nothing can be written to /dev/shm.
WITHOUT_SHARED_MEMORY = 'mount -t tmpfs -o ro tmpfs /dev/shm || exit 99; exec "$@"'


def test_worker_processes_without_shared_memory(tmp_path):
    """One process needs none; several need its semaphores, which is said."""
    (tmp_path / 'out').mkdir()
    command = [sys.executable, str(ROOT / 'create_pretraining_data.py'), *SAMPLE, *VOCABULARY]
    command += ['--num_outputs', '2', '--output_dir', str(tmp_path / 'out'), '--num_workers']

    def hidden(workers):
        return subprocess.run(
            ['unshare', '-m', 'sh', '-c', WITHOUT_SHARED_MEMORY, 'sh', *command, workers],
            capture_output=True,
            text=True,
            timeout=120,
        )

    if os.geteuid() or not shutil.which('unshare') or hidden('1').returncode == 99:
        pytest.skip('only the administrator of a Linux machine may hide /dev/shm')
    assert sorted(os.listdir(tmp_path / 'out')) == ['part-000.npz', 'part-001.npz']
    made = {path: path.read_bytes() for path in (tmp_path / 'out').iterdir()}
    several = hidden('2')
    assert several.returncode == 1
    assert several.stderr.splitlines()[-1] == (
        'create_pretraining_data.py: error: worker processes cannot be started: the system '
        'provides no semaphores, for which Linux needs a writable /dev/shm (Read-only file system)'
    )
    assert {path: path.read_bytes() for path in (tmp_path / 'out').iterdir()} == made


@pytest.mark.parametrize('name', NAMES[1:3])
def test_a_clock_that_is_set_back(programs, tmp_path, monkeypatch, name):
    """Durations do not depend on it: no negative time in a log line, or anywhere else."""
    clock = itertools.count(time.time(), -3600)
    monkeypatch.setattr(time, 'time', lambda: next(clock))
    programs[name](tmp_path)
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    seconds = [line['seconds'] for line in lines if 'seconds' in line]
    assert seconds and all(0 < each < 600 for each in seconds)
    for path in [*tmp_path.glob('*.log'), *tmp_path.glob('*.json')]:
        times = re.findall(r'(?:cost=|time=|throughput=|"seconds": )(-?[0-9.]+)', path.read_text())
        assert times or path.suffix == '.json'
        assert all(0 <= float(each) < 1e5 for each in times)


@pytest.mark.parametrize('name', NAMES[1:3])
def test_a_full_gpu(programs, tmp_path, capsys, monkeypatch, name):
    """The error is worded like MXNet's own, which would need a GPU."""
    import mxnet as mx

    original = update.update

    def fail(trainer, *args):
        if trainer.optimizer.num_update == 4:
            raise mx.MXNetError('stack\nMXNetError: cudaMalloc retry failed: out of memory')
        return original(trainer, *args)

    monkeypatch.setattr(update, 'update', fail)
    saved = {
        'pretrain': f'the last good checkpoint is {tmp_path}/0000004.params',
        'finetune': 'no epoch was finished',
    }[name]
    assert complaint(programs[name], tmp_path, capsys) == (
        'the GPU does not have enough memory, at step 5: try a smaller --batch_size with a larger '
        f'--accumulate, or shorter rows; {saved}'
    )


@pytest.mark.parametrize('name', NAMES[1:3])
def test_a_collapse_of_the_loss_scale(programs, tmp_path, capsys, monkeypatch, name):
    """As can happen with float16 on a GPU, each norm is infinite from some step on."""
    import mxnet as mx

    adjust = update.LossScale.adjust
    steps = []

    def overflow(self, norm):
        steps.append(norm)
        self.dynamic, self.value = True, 1.0
        if len(steps) > 2:
            norm = mx.nd.array([float('inf')])
        try:
            adjust(self, norm)
        finally:
            self.dynamic = False

    monkeypatch.setattr(update.LossScale, 'adjust', overflow)
    sentence = complaint(programs[name], tmp_path, capsys)
    assert sentence.startswith(
        'step 3: the float16 gradients overflow whatever the loss scale: try a lower --lr, or '
        '--dtype float32; '
    )


def test_a_killed_worker_of_the_pretraining(inputs, tmp_path, capsys, monkeypatch):
    """The loop reports it and does not wait forever."""
    seed_step = update.seed_step

    def seed_and_kill(seed, step, rank=0):
        if step == 2:
            for child in multiprocessing.active_children():
                child.kill()
        seed_step(seed, step, rank)

    monkeypatch.setattr(update, 'seed_step', seed_and_kill)
    flags = ['--do-training', '--raw', '--data', str(ROOT / 'sample_text.txt'), '--num_steps']
    flags += ['1000', '--bert_model', str(inputs / 'config.json'), '--num_workers', '2']
    sentence = complaint(
        lambda folder: run_pretraining.main([*flags, '--ckpt_dir', str(folder)]), tmp_path, capsys
    )
    assert sentence == (
        'a process that made instances was killed, perhaps for lack of memory: use fewer '
        '--num_workers, or shards instead of --raw'
    )
    assert not multiprocessing.active_children()


def test_a_disk_full_of_int8(small_disk, capsys):
    """The float32 file fits, but not what onnxruntime makes of it; that does not notice at once."""
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    room = shutil.disk_usage(small_disk).free - 300 * 1024
    (small_disk / 'filler').write_bytes(bytes(room))
    source = str(ROOT / 'tests' / 'data' / 'checkpoints' / 'hf_classifier')
    flags = [source, str(small_disk / 'made'), '--to', 'onnx', '--dtype', 'int8']
    assert complaint(lambda folder: convert.main(flags), small_disk, capsys) == (
        f'{small_disk}/made/model.onnx: could not be written in int8 (No space left on device)'
    )
    assert os.listdir(small_disk) == ['filler']
