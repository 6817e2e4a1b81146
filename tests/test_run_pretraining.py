"""run_pretraining.py end to end with a tiny model: losses, updates, checkpoints, errors."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT, approximately, need_bfloat16, read_events, spoil_array, stop_at
from huggingface_hub import ModelCard

import bert  # noqa: F401 (prepares for MXNet)
import create_pretraining_data
import run_pretraining
from bert.checkpoints import reading
from bert.model.loading import build_from_configuration, load_bert
from bert.model.parameters import named
from bert.pretraining import batches, evaluation, recorder, shards, sources
from bert.pretraining.flags import parse_args
from bert.pretraining.instances import Recipe
from bert.pretraining.loss import (
    build_loss,
    finish_initialization,
    gradients,
    statistics,
)
from bert.system.errors import Stopped, ToolkitError, UsageError
from bert.text.vocab import SPECIAL_TOKENS, load_vocab, plain_vocab
from bert.training import batches as training_batches
from bert.training import states as training_states
from bert.training import update
from bert.training import update as training_update
from bert.training.states import _indices, _split, load, newest, save, saved_steps
from bert.training.update import build_trainer, trainable

# isort: split
import gluonnlp
import mxnet as mx

WORDS = [f'w{i}' for i in range(50)]
CONFIG = {
    'vocab_size': 55,
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 32,
    'max_position_embeddings': 32,
    'type_vocab_size': 2,
    'hidden_dropout_prob': 0.1,
}
MAX_SEQ_LENGTH = 24
MAX_PREDICTIONS = 5


def write_model(folder, tokens=None, **changes):
    """Write a folder with a configuration and a vocabulary; return the configuration's path."""
    folder.mkdir(exist_ok=True)
    tokens = tokens or [*SPECIAL_TOKENS.values(), *WORDS]
    (folder / 'vocab.txt').write_text(''.join(f'{token}\n' for token in tokens))
    path = folder / 'config.json'
    path.write_text(json.dumps({**CONFIG, **changes}))
    return path


def write_text(path, seed, documents=6):
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(documents):
        lines += [' '.join(rng.choice(WORDS, rng.integers(3, 9))) for _ in range(8)] + ['']
    path.write_text('\n'.join(lines))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Make configurations with and without dropout, text, and shards from it."""
    folder = tmp_path_factory.mktemp('pretraining')
    write_model(folder / 'tiny')
    write_model(folder / 'steady', hidden_dropout_prob=0.0)
    for i in range(2):
        write_text(folder / f'{i}.txt', seed=i)
    make_shards(folder / '*.txt', folder / 'shards', folder / 'tiny' / 'vocab.txt', num_outputs=2)
    return folder


def make_shards(text, output, vocab, num_outputs=1):
    create_pretraining_data.main(
        f'--input_file {text} --output_dir {output} --num_outputs {num_outputs} --num_workers 1 '
        f'--vocab_file {vocab} --max_seq_length {MAX_SEQ_LENGTH} '
        f'--max_predictions_per_seq {MAX_PREDICTIONS} --dupe_factor 3 --do_lower_case'.split()
    )


@pytest.fixture
def train(folder, tmp_path):
    """Run the script in this process; ``name`` is the folder of its checkpoints."""

    def run(*flags, name='run', model='tiny', **values):
        values = {
            'data': folder / 'shards' / '*.npz',
            'bert_model': folder / model / 'config.json',
            'ckpt_dir': tmp_path / name,
            'num_steps': 6,
            'lr': 1e-2,
            **values,
        }
        flags = ['--do-training', *flags]
        return run_pretraining.main(flags + [f'--{key}={value}' for key, value in values.items()])

    return run


def lines(path):
    """Return the content of a ``metrics.jsonl`` without the values that depend on the clock."""
    values = [json.loads(line) for line in (path / 'metrics.jsonl').read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ('tokens_per_second', 'seconds')}
        for line in values
    ]


def parameters(path, step):
    return {
        name: array.asnumpy() for name, array in mx.nd.load(f'{path}/{step:07d}.params').items()
    }


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max(np.abs(one[name] - other[name]).max() for name in one)


def test_time_without_data_is_logged(train, monkeypatch, capsys):
    load = sources.ShardUnit.load

    def load_slowly(unit):
        time.sleep(0.7)
        return load(unit)

    monkeypatch.setattr(sources.ShardUnit, 'load', load_slowly)
    train(num_steps=2)
    (waited,) = re.findall(r'waited (\d+\.\d)s for data', capsys.readouterr().err)
    assert 0.7 <= float(waited) < 10


def test_a_quiet_run(folder, tmp_path, capsys):
    """The result of the evaluation is shown, and all lines are in the log."""
    (shard, _) = sorted((folder / 'shards').iterdir())
    run_pretraining.main(
        f'--do-training --do-eval --data {shard} --data_eval {shard} --num_steps 2 --quiet '
        f'--bert_model {folder}/tiny/config.json --ckpt_dir {tmp_path} --verbose'.split()
    )
    (shown,) = capsys.readouterr().err.splitlines()
    assert re.match(r'INFO:root:mlm_loss=\d', shown)
    log = (tmp_path / 'pretraining.log').read_text().splitlines()
    assert shown in log and log[0].startswith('INFO:root:Namespace(')
    assert any(line.startswith('DEBUG:root:step 2: batches of') for line in log)


def test_original_command(folder, tmp_path, monkeypatch, capsys):
    """It runs as printed, except for the GPU and the model; it names no checkpoint folder."""
    monkeypatch.chdir(tmp_path)
    (shard, _) = sorted((folder / 'shards').iterdir())
    (tmp_path / 'out.npz').write_bytes(shard.read_bytes())
    result = run_pretraining.main(
        '--do-training --batch_size 32 --lr 2e-5 --data out.npz --warmup_ratio 0.5 '
        '--num_steps 20 --log_interval=1 --do-eval --data_eval out.npz --batch_size_eval 8 '
        f'--bert_model {folder}/tiny/config.json'.split()
    )
    printed = capsys.readouterr().err
    assert printed == (tmp_path / 'ckpt_dir' / 'pretraining.log').read_text()
    messages = re.findall(r'^INFO:root:(.*)$', printed, flags=re.MULTILINE)
    assert messages[0].startswith('Namespace(')
    pattern = (
        r'\[step {}\]\tmlm_loss=\d+\.\d+\tmlm_acc=\d+\.\d+\tnsp_loss=\d+\.\d+\tnsp_acc=\d+\.\d+'
        r'\tthroughput=\d+\.\dK tks/s\tlr={} time=\d+\.\d\d'
    )
    for step, rate in ((1, '0.0000020'), (10, '0.0000200'), (11, '0.0000180'), (20, '0.0000000')):
        assert sum(bool(re.fullmatch(pattern.format(step, rate), m)) for m in messages) == 1
    assert sum(bool(re.fullmatch(r'Train cost=\d+\.\ds', m)) for m in messages) == 1
    assert re.fullmatch(
        r'mlm_loss=\d+\.\d{3}\tmlm_acc=\d+\.\d\tnsp_loss=\d+\.\d{3}\tnsp_acc=\d+\.\d', messages[-2]
    )
    assert re.fullmatch(r'Eval cost=\d+\.\ds', messages[-1])
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*') if path.is_file()}
    tokenizer = {'vocab.txt', 'tokenizer.json', 'tokenizer_config.json'}
    model = {'README.md', 'config.json', 'model.safetensors', *tokenizer}
    assert written == {
        'out.npz',
        *(f'ckpt_dir/0000020.{kind}' for kind in ('params', 'states')),
        *(f'ckpt_dir/{name}' for name in ('metrics.jsonl', 'pretraining.log')),
        *(f'ckpt_dir/model/{name}' for name in model),
    }
    card = ModelCard.load(tmp_path / 'ckpt_dir' / 'model' / 'README.md').data
    assert (card.pipeline_tag, card.library_name) == ('fill-mask', 'transformers')
    shares = {each.metric_name: each.metric_value for each in card.eval_results}
    assert shares['mlm_acc'] == round(result['eval']['mlm_acc'] / 100, 4)
    assert shares['nsp_loss'] == round(result['eval']['nsp_loss'], 4)
    facts = card.mxnet_bert_toolkit
    assert facts['Training'] == {
        'weights': f'random, with the sizes of {folder}/tiny/config.json',
        'data': 'out.npz',
        'held-out data': 'out.npz',
        'steps': 20,
    }
    assert facts['Flags']['batch_size'] == 32 and 'ckpt_dir' not in facts['Flags']
    logged = lines(tmp_path / 'ckpt_dir')
    assert [line['step'] for line in logged] == [*range(1, 21), 20]
    assert logged[-1]['eval'] == result['eval']
    written = json.loads((tmp_path / 'ckpt_dir/model/tokenizer_config.json').read_text())
    assert written['do_lower_case'] is True


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_training_learns(train, folder, dtype):
    """The loss on a small set falls far below that of guessing, log 50 = 3.9."""
    if dtype == 'bfloat16':
        need_bfloat16()
    shard = sorted((folder / 'shards').iterdir())[0]
    first, last = (
        train(data=shard, num_steps=steps, batch_size=32, name=str(steps), dtype=dtype)['train']
        for steps in (1, 150)
    )
    assert first['mlm_loss'] > 3.5
    assert last['mlm_loss'] < 2.5
    assert last['mlm_acc'] > 25


@pytest.mark.parametrize('num_masks', [1, 3, 5, 7])
def test_losses_by_numpy(folder, num_masks, operators):
    """Both losses equal NumPy's, on encodings gathered by NumPy, with odd sizes."""
    model, _ = build_from_configuration(
        folder / 'steady/config.json', mx.cpu(), use_decoder=True, use_classifier=True
    )
    rng = np.random.default_rng(num_masks)
    rows, length = 13, 11
    lengths = rng.integers(num_masks, length + 1, rows)
    batch = batches.Batch(
        rng.integers(0, 55, (rows, length)),
        rng.integers(0, 2, (rows, length)),
        lengths.astype(np.float32),
        np.stack([rng.integers(0, n, num_masks) for n in lengths]),
        rng.integers(0, 55, (rows, num_masks)),
        rng.integers(0, 2, (rows, num_masks)).astype(np.float32),
        rng.integers(0, 2, rows),
    )
    loss = build_loss([mx.cpu()])
    objective, sums = statistics(model, loss, batch, mx.cpu(), (0.5, 0.25))

    encodings, _, nsp_scores, _ = model(
        *(mx.nd.array(array) for array in batch[:3]), mx.nd.array(batch.mlm_positions)
    )
    masked = encodings.asnumpy()[np.arange(rows)[:, None], batch.mlm_positions]
    mlm_scores = model.decoder(mx.nd.array(masked)).asnumpy()
    mlm_loss, mlm_correct = cross_entropy(mlm_scores, batch.mlm_labels, batch.mlm_weights)
    nsp_loss, nsp_correct = cross_entropy(nsp_scores.asnumpy(), batch.nsp_labels, np.ones(rows))
    np.testing.assert_allclose(
        sums.asnumpy(), [mlm_loss, mlm_correct, nsp_loss, nsp_correct], rtol=1e-5
    )
    np.testing.assert_allclose(objective.asscalar(), mlm_loss / 2 + nsp_loss / 4, rtol=1e-5)


def test_the_objective_by_numpy(folder, operators):
    """Each loss is a mean over the whole update, as the gradients of the last two biases show.

    The derivative of a cross entropy is the softmax, less 1 at the label.
    """
    model, vocab = build_from_configuration(
        folder / 'steady/config.json', mx.cpu(), use_decoder=True, use_classifier=True
    )
    finish_initialization(model, mx.cpu())
    update.accumulate_gradients(model)
    source = sources.Shards(f'{folder}/shards/part-000.npz', plain_vocab(vocab), 32)
    (arrays,) = (unit.load() for unit in source.units(0, 0, rows=1))
    parts = [batches.make_batch(arrays, np.arange(*rows)) for rows in ((0, 9), (9, 12))]
    gradients(model, build_loss([mx.cpu()]), parts, [mx.cpu()], 1)

    mlm, nsp = [], []
    for batch in parts:
        _, _, nsp_scores, mlm_scores = model(*map(mx.nd.array, batch[:4]))
        is_mask = batch.mlm_weights > 0
        mlm.append(less_labels(mlm_scores.softmax().asnumpy()[is_mask], batch.mlm_labels[is_mask]))
        nsp.append(less_labels(nsp_scores.softmax().asnumpy(), batch.nsp_labels))
    assert len(np.concatenate(mlm)) > 20 > len(np.concatenate(nsp)) == 12
    for name, derivatives in (('decoder.3.bias', mlm), ('classifier.bias', nsp)):
        expected = np.concatenate(derivatives).mean(axis=0)
        found = named(model)[name].grad().asnumpy()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6, err_msg=name)


def less_labels(probabilities, labels):
    return probabilities - np.eye(probabilities.shape[1])[labels]


def cross_entropy(scores, labels, weights):
    scores = scores.astype(np.float64)
    picked = np.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
    losses = np.log(np.exp(scores).sum(axis=-1)) - picked
    return (losses * weights).sum(), ((scores.argmax(axis=-1) == labels) * weights).sum()


@pytest.mark.parametrize(
    'cut', [{'batch_size': 4, 'accumulate': 4}, {'batch_size': 4, 'accumulate': 2, 'devices': 2}]
)
def test_accumulation_and_devices_equal_a_large_batch(train, tmp_path, monkeypatch, cut):
    """Without dropout, losses and parameters are those with batches of 16, up to rounding."""
    whole = train(batch_size=16, model='steady', name='whole', log_interval=1)
    devices = [mx.cpu(i) for i in range(cut.pop('devices', 1))]
    monkeypatch.setattr(update, 'contexts', lambda gpus: devices)
    parts = train(**cut, model='steady', name='parts', log_interval=1)
    for one, other in zip(lines(tmp_path / 'whole'), lines(tmp_path / 'parts')):
        assert one == pytest.approx(other, abs=1e-5)
    assert whole['train'] == pytest.approx(parts['train'], abs=1e-5)
    one, other = (parameters(tmp_path / name, 6) for name in ('whole', 'parts'))
    assert largest_difference(one, other) < 1e-5
    # An average over batches instead of tokens would show.
    odd = train(batch_size=15, model='steady', name='odd')
    assert abs(odd['train']['mlm_loss'] - whole['train']['mlm_loss']) > 1e-4


def test_idle_device(train, tmp_path, monkeypatch):
    """With more devices than batches, those without work change nothing."""
    one = train(batch_size=1000, model='steady', name='one')
    monkeypatch.setattr(update, 'contexts', lambda gpus: [mx.cpu(i) for i in range(3)])
    three = train(batch_size=1000, model='steady', name='three')
    assert one['train'] == pytest.approx(three['train'], abs=1e-5)


def test_updates_hold_every_row_once():
    """The updates of a unit have the right rows, sizes and buckets."""
    lengths = np.random.default_rng(0).integers(5, 129, 1000).astype(np.uint8)
    for num_buckets, by_token, size in (
        (1, False, 8),
        (10, False, 8),
        (1, True, 600),
        (9, True, 600),
    ):
        updates = training_batches.bucketed_updates(
            lengths, size, 3, num_buckets, by_token, np.random.default_rng(1)
        )
        rows = np.concatenate([part for update in updates for part in update])
        assert sorted(rows) == list(range(1000))
        assert all(len(update) <= 3 for update in updates)
        tokens = [lengths[part].max() * len(part) for update in updates for part in update]
        if by_token:
            assert max(tokens) <= size
        else:
            assert sorted({sum(map(len, update)) for update in updates}) == [1000 % 24, 24]
        parts = [part for update in updates for part in update]
        padding = training_batches.padding_share(lengths, parts)
        assert padding < 0.1 if num_buckets > 1 else padding > 0.3


def test_order_depends_on_seed_and_epoch_only(folder):
    """From any position, the rest of the stream is the same; other seeds give a different one."""
    vocab = load_vocab(folder / 'tiny/vocab.txt')
    source = sources.Shards(f'{folder}/shards/*.npz', vocab, 32)
    cut = batches.Cut(batch_size=7, parts=1, num_buckets=2, by_token=False)

    def take(count, seed=0, position=(0, 0, 0)):
        with batches.updates(source, cut, seed, position) as updates:
            return [update for _, update in zip(range(count), updates)]

    def ids(updates):
        return [batch.ids.tolist() for parts, _ in updates for batch in parts]

    per_epoch = sum(len(np.load(path)['valid_lengths']) for path in source.paths) / 7
    count = int(2.5 * per_epoch)
    whole = take(count)
    assert whole[-1][1][0] == 2
    for start in (1, int(per_epoch), count - 2):
        rest = take(count - start, position=whole[start - 1][1])
        assert ids(rest) == ids(whole[start:])
    assert ids(take(3, seed=1)) != ids(take(3))


def test_each_epoch_has_its_own_batches(folder):
    """Both epochs have all instances of a shard, but no batch in common."""
    vocab = load_vocab(folder / 'tiny/vocab.txt')
    source = sources.Shards(f'{folder}/shards/part-000.npz', vocab, 32)
    cut = batches.Cut(batch_size=7, parts=1, num_buckets=2, by_token=False)
    epochs = {0: [], 1: []}
    with batches.updates(source, cut, 0, (0, 0, 0)) as updates:
        for (batch,), (epoch, _, _) in updates:
            if epoch not in epochs:
                break
            lengths = batch.valid_lengths.astype(int)
            rows = [tuple(row[:length]) for row, length in zip(batch.ids.tolist(), lengths)]
            epochs[epoch].append(tuple(sorted(rows)))
    first, second = epochs.values()
    assert sorted(sum(first, ())) == sorted(sum(second, ()))
    assert len(first) == len(second) > 9 and set(first).isdisjoint(second)


def test_units_hold_small_shards_together(folder):
    vocab = load_vocab(folder / 'tiny/vocab.txt')
    source = sources.Shards(f'{folder}/shards/*.npz', vocab, 32)
    (unit,) = source.units(0, 0, rows=source.count)
    assert len(unit.load()['valid_lengths']) == source.count
    assert len(source.units(0, 0, rows=1)) == 2
    first = [source.units(0, epoch, rows=1)[0].paths for epoch in range(10)]
    assert len({tuple(paths) for paths in first}) > 1


def test_batches_are_trimmed():
    """A batch is as long as its longest row, and as wide in masks as the row with the most."""
    arrays = {
        'input_ids': np.array([[2, 5, 3, 6, 3, 1, 1], [2, 5, 3, 6, 7, 3, 1]], np.uint16),
        'segment_ids': np.array([[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 0]], np.uint8),
        'masked_lm_positions': np.array([[1, 0, 0], [1, 3, 0]], np.uint8),
        'masked_lm_ids': np.array([[5, 1, 1], [5, 6, 1]], np.uint16),
        'masked_lm_weights': np.array([[1, 0, 0], [1, 1, 0]], np.uint8),
        'next_sentence_labels': np.array([0, 1], np.uint8),
        'valid_lengths': np.array([5, 6], np.uint8),
    }
    both = batches.make_batch(arrays, np.array([1, 0]))
    assert both.ids.tolist() == [[2, 5, 3, 6, 7, 3], [2, 5, 3, 6, 3, 1]]
    assert both.mlm_weights.tolist() == [[1, 1], [1, 0]]
    assert both.nsp_labels.tolist() == [1, 0]
    assert batches.make_batch(arrays, np.array([0])).mlm_positions.tolist() == [[1]]
    wide = {
        name: np.pad(array, ((0, 0), (0, 2))) if array.ndim == 2 else array
        for name, array in arrays.items()
    }
    joined = sources.concatenate([arrays, wide])
    for got, wanted in zip(batches.make_batch(joined, np.array([1, 2])), both):
        assert got.tolist() == wanted[[0, 1]].tolist()


def test_resumed_run_has_the_same_bits(train, tmp_path, monkeypatch):
    """A run that SIGTERM stopped and one that was never stopped end alike, with dropout."""
    flags = {'num_steps': 14, 'log_interval': 4, 'ckpt_interval': 5, 'accumulate': 2}
    train(**flags, name='whole')
    stop_at(monkeypatch, 7)
    with pytest.raises(Stopped, match='SIGTERM: step 7 is saved') as stopped:
        train(**flags, name='parts')
    assert stopped.value.status == 143
    assert saved_steps(tmp_path / 'parts') == [5, 7]
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(**flags, name='parts', start_step='auto')
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert (whole / '0000014.params').read_bytes() == (parts / '0000014.params').read_bytes()
    assert lines(whole) == lines(parts)
    assert training_states.saved_steps(whole) == [5, 10, 14]
    assert training_states.saved_steps(parts) == [7, 10, 14]
    for name in ('model.safetensors', 'config.json', 'README.md'):
        assert (whole / 'model' / name).read_bytes() == (parts / 'model' / name).read_bytes()
    # The last step has been reached already.
    result = train(**flags, name='parts', start_step='auto')
    assert result == {'step': 14, 'train': None, 'eval': None}
    assert lines(whole) == lines(parts)
    # Lines after the checkpoint are rewritten, and half a line is ignored.
    (parts / '0000014.states').unlink()
    with open(parts / 'metrics.jsonl', 'a') as file:
        file.write('{"step": 3, "mlm')
    train(**flags, name='parts', start_step='auto')
    assert lines(whole) == lines(parts)
    assert (whole / '0000014.params').read_bytes() == (parts / '0000014.params').read_bytes()


def test_damaged_checkpoint_is_passed_over(train, tmp_path):
    """auto takes the newest whole pair; a step that is given by number must be whole."""
    train(name='run', ckpt_interval=2)
    folder = tmp_path / 'run'
    assert newest(folder)[0] == 6
    whole = (folder / '0000006.params').read_bytes()
    (folder / '0000006.params').write_bytes((folder / '0000004.params').read_bytes())
    assert training_states.newest(folder)[0] == 4
    with pytest.raises(ToolkitError, match='0000006.params: not the file that belongs to'):
        train(name='run', start_step=6)
    (folder / '0000006.params').write_bytes(whole)
    states = (folder / '0000006.states').read_bytes()
    (folder / '0000006.states').write_bytes(states[: len(states) // 2])
    (folder / '0000004.params').unlink()
    assert training_states.newest(folder)[0] == 2
    with pytest.raises(ToolkitError, match='0000006.states: not a whole checkpoint file'):
        train(name='run', start_step=6)
    with pytest.raises(ToolkitError, match='0000003.params: there is no such checkpoint file'):
        train(name='run', start_step=3)
    # One bit of an array: everything else about the file is as it should be.
    spoil_array(folder / '0000002.states')
    assert training_states.newest(folder) == (0, None)
    with pytest.raises(ToolkitError, match='0000002.states: .* is missing or damaged'):
        train(name='run', start_step=2)
    assert training_states.newest(tmp_path / 'nowhere')[0] == 0


def test_a_run_goes_on_from_an_older_state(train, tmp_path, capsys):
    """If an array of the newest is damaged, with the bits of an undisturbed run."""
    train(name='whole', num_steps=8, ckpt_interval=2)
    shutil.copytree(tmp_path / 'whole', tmp_path / 'parts')
    path = tmp_path / 'parts' / '0000008.states'
    spoil_array(path)
    train(name='parts', num_steps=8, ckpt_interval=2, start_step='auto')
    printed = capsys.readouterr().err
    assert f'skipped: {path}: ' in printed and '--start_step auto: step 6' in printed
    for name in ('0000008.params', '0000008.states'):
        assert_same_arrays(tmp_path / 'whole' / name, tmp_path / 'parts' / name)


def assert_same_arrays(one, other):
    if one.suffix == '.params':
        assert one.read_bytes() == other.read_bytes()
        return
    with np.load(one) as left, np.load(other) as right:
        assert set(left) == set(right) > {'progress'}
        for name in set(left) - {'progress'}:
            assert np.array_equal(left[name], right[name]), name


@pytest.mark.parametrize(
    'change',
    [
        {'position': None},
        {'position': [1, 2]},
        {'position': [0.5, 0, 0]},
        {'loss_scale': 1},
        {'sums': 'x'},
        {'order': None, 'sums': {}},
    ],
)
def test_a_checkpoint_that_says_something_else(train, tmp_path, change):
    """The arrays and the checksum of the other file are right, the rest is not."""
    train(name='run')
    path = tmp_path / 'run' / '0000006.states'
    with np.load(path, allow_pickle=False) as states:
        arrays = dict(states)
    progress = {**json.loads(arrays['progress'].item()), **change}
    if change.get('order', 0) is None:
        del progress['order']
    with open(path, 'wb') as file:
        np.savez(file, **{**arrays, 'progress': np.array(json.dumps(progress))})
    with pytest.raises(ToolkitError) as caught:
        train(name='run', start_step=6, num_steps=8)
    assert str(caught.value) == f'{path}: not a checkpoint of this program'


def test_states_are_plain_arrays(train, tmp_path):
    train(name='run')
    with np.load(tmp_path / 'run' / '0000006.states', allow_pickle=False) as states:
        names = {name.split(':')[0] for name in states.files}
        assert names == {'progress', 'mean', 'variance'}
        assert states['mean:word_embed.0.weight'].shape == (55, 16)
        assert json.loads(states['progress'].item())['step'] == 6


def test_float16_states(folder, tmp_path):
    """The moments and the float32 copies of float16 weights come back bit for bit."""

    def build(seed):
        training_update.seed_step(seed, 0)
        model, _ = build_from_configuration(
            folder / 'tiny/config.json', mx.cpu(), use_decoder=True, use_classifier=True
        )
        finish_initialization(model, mx.cpu())
        model.cast('float16')
        return model, build_trainer(model, 'bertadam', 1e-3, 1e-6)

    def states(model, trainer):
        (updater,) = trainer._updaters
        names = _indices(model, trainer)
        return {
            (name, kind): array.asnumpy()
            for name, index in names.items()
            for kind, array in _split(updater.states[index]).items()
        }

    model, trainer = build(0)
    for parameter in trainable(model):
        # MXNet cannot run this model on a CPU, but it can update it.
        parameter.data()._fresh_grad = True
        parameter.grad()[:] = mx.nd.random.normal(shape=parameter.shape).astype('float16')
    trainer.update(1)
    save(tmp_path, 1, model, trainer, {'position': [0, 1, 2]}, keep=1)
    other_model, other_trainer = build(1)
    assert load(tmp_path, 1, other_model, other_trainer)['position'] == [0, 1, 2]
    whole, again = states(model, trainer), states(other_model, other_trainer)
    assert {kind for _, kind in whole} == {'mean', 'variance', 'master'}
    for key, array in whole.items():
        assert array.dtype == np.float32
        assert (array == again[key]).all()


def test_new_run_moves_an_earlier_one_aside(train, tmp_path):
    """Files that --start_step auto would mistake for this run's must move, but are not deleted."""
    train(name='run', num_steps=5)
    first = parameters(tmp_path / 'run', 5)
    train(name='run', num_steps=3, seed=1)
    assert training_states.saved_steps(tmp_path / 'run') == [3]
    assert largest_difference(parameters(tmp_path / 'run' / 'earlier', 5), first) == 0
    with pytest.raises(
        UsageError, match='holds step 3, which is after the last one, --num_steps 2'
    ):
        train(name='run', num_steps=2, start_step='auto')


def test_other_data_after_a_checkpoint(train, folder, capsys):
    """The position in the old data says nothing about the new."""
    train(name='run', num_steps=3)
    shard = sorted((folder / 'shards').iterdir())[1]
    train(name='run', num_steps=5, start_step='auto', data=shard)
    assert 'different data or batches than up to step 3: they start from' in capsys.readouterr().err


def test_result_is_a_model_directory(train, folder, tmp_path):
    """Evaluations of the model directory, of the checkpoint and in the run itself are the same."""
    evaluation = ['--do-eval', f'--data_eval={folder}/shards/part-001.npz']
    result = train(*evaluation, name='run')
    for source in (
        [f'--bert_model={tmp_path}/run/model'],
        [f'--bert_model={folder}/tiny/config.json', '--start_step=auto', '--num_steps=2'],
        [f'--bert_model={folder}/tiny/config.json', '--start_step=6', '--batch_size_eval=50'],
    ):
        again = run_pretraining.main([*evaluation, *source, f'--ckpt_dir={tmp_path}/run'])
        assert again['eval'] == pytest.approx(result['eval'], rel=1e-4)
    with pytest.raises(ToolkitError, match='nowhere: there is no checkpoint to evaluate'):
        run_pretraining.main([*evaluation, '--start_step=auto', f'--ckpt_dir={tmp_path}/nowhere'])
    fresh = run_pretraining.main([*evaluation, f'--bert_model={folder}/tiny/config.json'])
    assert fresh['eval']['mlm_loss'] > result['eval']['mlm_loss'] + 0.05
    model, vocab = load_bert(str(tmp_path / 'run' / 'model'))
    assert len(vocab) == 55
    train(name='second', bert_model=tmp_path / 'run' / 'model', num_steps=1)

    encoder = gluonnlp.model.BERTEncoder(
        num_layers=2, units=16, hidden_size=32, num_heads=2, max_length=32, dropout=0.1
    )
    plain = gluonnlp.model.BERTModel(
        encoder, vocab_size=55, token_type_vocab_size=2, units=16, embed_size=16
    )
    plain.load_parameters(str(tmp_path / 'run' / '0000006.params'))
    ids, types = mx.nd.ones((1, 4)), mx.nd.zeros((1, 4))
    np.testing.assert_allclose(
        plain(ids, types, mx.nd.array([4]), mx.nd.zeros((1, 1)))[1].asnumpy(),
        model(ids, types, mx.nd.array([4]))[1].asnumpy(),
        atol=1e-6,
    )


@pytest.mark.parametrize('lower', [True, False])
def test_sizes_by_name_with_a_vocabulary(train, folder, tmp_path, capsys, lower):
    """The model has as many rows as the file has tokens, and its casing is that of the text."""
    path = tmp_path / 'words.txt'
    tokens = [*SPECIAL_TOKENS.values(), *WORDS, *([] if lower else ['Word'])]
    path.write_text(''.join(f'{token}\n' for token in tokens))
    create_pretraining_data.main(
        f'--input_file {folder}/*.txt --output_file {tmp_path}/s --vocab_file {path} '
        f'--max_seq_length 24 {"--do_lower_case" if lower else ""}'.split()
    )
    train(data=f'{tmp_path}/s.npz', bert_model='bert_2_128_2', vocab_file=path, num_steps=1)
    assert 'the weights of the model are random' in capsys.readouterr().err
    result = tmp_path / 'run' / 'model'
    config = json.loads((result / 'config.json').read_text())
    assert config['vocab_size'] == len(tokens)
    assert (config['num_hidden_layers'], config['hidden_size']) == (2, 128)
    assert json.loads((result / 'tokenizer_config.json').read_text())['do_lower_case'] is lower
    model, vocab = load_bert(str(result))
    assert vocab.idx_to_token == tokens and model.word_embed[0].weight.shape == (len(tokens), 128)


def test_a_configuration_with_a_vocabulary_from_elsewhere(train, folder, tmp_path):
    config = tmp_path / 'sizes.json'
    config.write_text(json.dumps({**CONFIG, 'vocab_size': 60}))
    vocab = folder / 'tiny' / 'vocab.txt'
    train(name='apart', bert_model=config, vocab_file=vocab, num_steps=2)
    model, vocabulary = load_bert(str(tmp_path / 'apart' / 'model'))
    assert plain_vocab(vocabulary).idx_to_token == load_vocab(vocab).idx_to_token
    assert model.word_embed[0].weight.shape == (60, 16)
    config.write_text(json.dumps({**CONFIG, 'vocab_size': 54}))
    with pytest.raises(ToolkitError) as caught:
        train(bert_model=config, vocab_file=vocab)
    assert str(caught.value) == (
        f'{vocab}: 55 tokens are more than the vocab_size of the configuration, 54'
    )


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'type_vocab_size': 1}, 'type_vocab_size is 1'),
        ({'intermediate_size': 2**23, 'num_hidden_layers': 1000}, 'the configuration asks for'),
    ],
)
def test_a_fault_of_a_configuration_with_a_vocabulary_from_elsewhere(
    train, folder, tmp_path, change, sentence
):
    config = tmp_path / 'sizes.json'
    config.write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(ToolkitError) as caught:
        train(bert_model=config, vocab_file=folder / 'tiny' / 'vocab.txt')
    assert str(caught.value).startswith(f'{config}: {sentence}')


def test_a_size_of_the_zoo_with_a_vocabulary(folder):
    """It is not fetched."""
    vocab = str(folder / 'tiny' / 'vocab.txt')
    args = parse_args(f'--do-training --data x --vocab_file {vocab}'.split())
    location = run_pretraining.find_model(args)
    assert not run_pretraining.has_weights(args)
    settings = reading.read_settings(location)
    assert (settings['units'], settings['vocab_size']) == (768, 55)
    assert reading.read_casing(location, reading.read_vocab(location)) == (
        True,
        'by its vocabulary',
    )


def test_two_vocabularies(capsys):
    with pytest.raises(SystemExit) as left:
        parse_args('--do-training --data x --vocab_file v --dataset_name wiki_cn'.split())
    assert left.value.code == 2
    assert 'not allowed with argument' in capsys.readouterr().err


def test_rates_reach_zero(train, tmp_path):
    train(num_steps=10, lr=1e-3, warmup_ratio=0.2, log_interval=1)
    rates = [line['lr'] for line in lines(tmp_path / 'run')]
    assert rates == pytest.approx([5e-4, 1e-3, *np.linspace(1e-3, 0, 9)[1:]])
    assert rates[-1] == 0


def test_raw_text(train, folder, tmp_path):
    """Instances from text are the same for any number of processes, and for a resumed run."""
    flags = {
        'data': f'{folder}/*.txt',
        'max_seq_length': MAX_SEQ_LENGTH,
        'max_predictions_per_seq': MAX_PREDICTIONS,
        'log_interval': 5,
        'ckpt_interval': 15,
        'batch_size': 16,
    }
    train('--raw', **flags, num_steps=30, name='one')
    train('--raw', **flags, num_steps=30, num_workers=2, name='two')
    assert (tmp_path / 'one/0000030.params').read_bytes() == (
        tmp_path / 'two/0000030.params'
    ).read_bytes()
    (tmp_path / 'one/0000030.states').unlink()
    before = lines(tmp_path / 'one')
    train('--raw', **flags, num_steps=30, name='one', start_step='auto')
    assert lines(tmp_path / 'one') == before


def test_raw_plain_text(train, folder, tmp_path):
    """Plain text trains as its sentences on lines do."""
    pytest.importorskip('sentencex')
    for i in range(2):
        text = (folder / f'{i}.txt').read_text()
        documents = [
            [f'{line.capitalize()}.' for line in document.split('\n')]
            for document in text.strip().split('\n\n')
        ]
        for kind, between, end in (('lines', '\n', '\n\n'), ('plain', ' ', '\n---\n')):
            path = tmp_path / f'{kind}-{i}.txt'
            path.write_text(end.join(between.join(lines) for lines in documents))
    flags = {'max_seq_length': MAX_SEQ_LENGTH, 'num_steps': 2, 'log_interval': 1}
    train('--raw', **flags, data=f'{tmp_path}/lines-*.txt', name='lines')
    layout = {'document_marker': '---', 'num_workers': 2}
    train('--raw', '--segment', **flags, **layout, data=f'{tmp_path}/plain-*.txt', name='plain')
    one, two = (parameters(tmp_path / name, 2) for name in ('lines', 'plain'))
    assert largest_difference(one, two) == 0


def test_text_units(folder, monkeypatch):
    """Instances differ from epoch to epoch; files are cut and grouped, and nothing is lost."""
    vocab = load_vocab(folder / 'tiny/vocab.txt')
    recipe = Recipe(max_seq_length=MAX_SEQ_LENGTH, max_predictions_per_seq=5, dupe_factor=1)
    source = sources.Text(f'{folder}/*.txt', vocab, True, recipe, 1)
    (first,), (second,) = (source.units(0, epoch, rows=1) for epoch in range(2))
    one, again, other = first.load(), first.load(), second.load()
    assert (one['input_ids'] == again['input_ids']).all()
    assert (
        one['input_ids'].shape != other['input_ids'].shape
        or (one['input_ids'] != other['input_ids']).any()
    )
    assert set(one) == set(shards.ARRAYS)
    paths = sorted(str(path) for path in folder.glob('*.txt'))
    monkeypatch.setattr(sources, 'TEXT_PER_UNIT', os.path.getsize(paths[0]) // 2)
    groups = sources.cut_text(paths)
    assert len(groups) > 2
    spans = [span for group in groups for span in group]
    for path in paths:
        edges = [(span.start, span.stop) for span in spans if span.path == path]
        assert edges[0][0] == 0 and edges[-1][1] == os.path.getsize(path)
        assert all(stop == start for (_, stop), (start, _) in zip(edges, edges[1:]))


def test_units_of_text_without_documents(folder, tmp_path, monkeypatch):
    """Without next sentences one document makes several units, and nothing is lost."""
    text = (folder / '0.txt').read_text().replace('\n\n', '\n')
    (tmp_path / 'one.txt').write_text(text)
    monkeypatch.setattr(sources, 'TEXT_PER_UNIT', len(text) // 3)
    vocab = load_vocab(folder / 'tiny/vocab.txt')
    counts = []
    for no_nsp in (False, True):
        recipe = Recipe(MAX_SEQ_LENGTH, 5, dupe_factor=1, no_nsp=no_nsp)
        source = sources.Text(str(tmp_path / 'one.txt'), vocab, True, recipe, 1)
        units = source.units(0, 0, rows=1)
        counts.append(len(units))
    assert counts == [1, 3]
    lengths = np.concatenate([unit.load()['valid_lengths'] for unit in units]).astype(int)
    assert (lengths - 2).sum() == len(text.split())


def damage(path, how):
    """Damage a shard in one of the ways that occur."""
    if how == 'truncated':
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return
    with np.load(path) as whole:
        arrays = dict(whole)
    if how == 'missing':
        del arrays['masked_lm_ids']
    elif how == 'objects':
        arrays['input_ids'] = np.array(list(arrays['input_ids']) + [None], dtype=object)
    else:
        arrays['input_ids'] = arrays['input_ids'].astype(np.int32)
        arrays['input_ids'][3, 2] = 55
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ('how', 'sentence'),
    [
        ('truncated', 'not an .npz file, or not a whole one'),
        ('missing', 'the array masked_lm_ids is missing'),
        ('objects', 'the array input_ids cannot be read'),
        ('over', 'input_ids holds 55, which is out of range'),
    ],
)
def test_damaged_shard(train, folder, tmp_path, how, sentence):
    path = tmp_path / 'bad.npz'
    path.write_bytes((folder / 'shards/part-000.npz').read_bytes())
    damage(path, how)
    with pytest.raises(ToolkitError, match=re.escape(f'bad.npz: {sentence}')) as error:
        train(data=path)
    assert error.value.status == 1
    assert '\n' not in str(error.value)


def test_errors_have_no_traceback(folder, tmp_path):
    """The program too prints one line on stderr after the log, and exits with status 1."""
    path = tmp_path / 'bad.npz'
    path.write_bytes((folder / 'shards/part-000.npz').read_bytes())
    damage(path, 'over')
    done = subprocess.run(
        [sys.executable, ROOT / 'run_pretraining.py', '--do-training', f'--data={path}']
        + [f'--bert_model={folder}/tiny/config.json', f'--ckpt_dir={tmp_path}/run'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith('run_pretraining.py: error: ')


def test_vocabularies(train, folder, tmp_path):
    """The same tokens in another order are the same data; other tokens are refused."""
    tokens = [*SPECIAL_TOKENS.values(), *WORDS]
    turned = tokens[::-1]
    write_model(tmp_path / 'turned', tokens=turned)
    vocab = load_vocab(tmp_path / 'turned/vocab.txt')
    source = sources.Shards(f'{folder}/shards/part-000.npz', vocab, 32)
    (unit,) = source.units(0, 0, 1)
    with np.load(folder / 'shards/part-000.npz') as shard:
        assert (unit.load()['input_ids'] == 54 - shard['input_ids'].astype(int)).all()
    train(bert_model=tmp_path / 'turned/config.json', num_steps=1)
    write_model(tmp_path / 'other', tokens=[*tokens[:-1], 'v'])
    with pytest.raises(ToolkitError, match="tokens are not the model's, such as 'w49'"):
        train(bert_model=tmp_path / 'other/config.json')
    # An embedding with more rows than tokens does not change the tokens.
    write_model(tmp_path / 'round', vocab_size=64)
    train(bert_model=tmp_path / 'round/config.json', num_steps=1)


def test_infinite_loss(train, tmp_path):
    with pytest.raises(ToolkitError, match=r'the loss is not finite at step \d+.*no checkpoint'):
        train(lr=1e30, num_steps=50, warmup_ratio=0)
    with pytest.raises(ToolkitError, match='the last good checkpoint is .*0000001.params'):
        train(lr=1e30, num_steps=50, warmup_ratio=0, ckpt_interval=1, name='saved')


def evaluation_lines(folder, capsys, interval):
    """Evaluate; return the figures of each line that begins with a step, and of the last one."""
    run_pretraining.main(
        f'--do-eval --data_eval {folder}/shards/*.npz --bert_model {folder}/tiny/config.json '
        f'--log_interval {interval} --batch_size_eval 8'.split()
    )
    printed = capsys.readouterr().err
    number = r'(\d+\.\d+)'
    figures = rf'mlm_loss={number}\tmlm_acc={number}\tnsp_loss={number}\tnsp_acc={number}'
    steps = re.findall(
        rf'^INFO:root:\[step (\d+)\]\t{figures}\tthroughput={number}K tks/s\tlr=0\.0000000 time=',
        printed,
        flags=re.MULTILINE,
    )
    (whole,) = re.findall(rf'^INFO:root:{figures}$', printed, flags=re.MULTILINE)
    return [(int(step), *map(float, rest)) for step, *rest in steps], [*map(float, whole)]


def test_evaluation_logs_its_steps(folder, capsys):
    """Each line is about its batches: the weighted mean of all lines is the whole."""
    labels = []
    for path in sorted((folder / 'shards').iterdir()):
        with np.load(path, allow_pickle=False) as shard:
            labels.append(len(shard['next_sentence_labels']))
    counts = [-(-rows // 8) for rows in labels]  # batches of 8 rows, in the order of the shards
    assert len(counts) == 2
    each, whole = evaluation_lines(folder, capsys, 1)
    assert [line[0] for line in each] == list(range(1, sum(counts) + 1))
    rows = [min(8, n - 8 * i) for n, count in zip(labels, counts) for i in range(count)]
    nsp_loss, nsp_acc = (np.average([line[i] for line in each], weights=rows) for i in (3, 4))
    assert nsp_loss == pytest.approx(whole[2], abs=6e-4)
    assert nsp_acc == pytest.approx(whole[3], abs=6e-2)
    # An interval of all batches is the whole evaluation, one that is too long is not logged.
    (line,), again = evaluation_lines(folder, capsys, sum(counts))
    assert line[0] == sum(counts) and again == whole
    assert line[1:5] == pytest.approx(whole, abs=6e-2)
    assert line[1] == pytest.approx(whole[0], abs=6e-4)
    assert evaluation_lines(folder, capsys, sum(counts) + 1) == ([], whole)


def test_profile_and_verbose(train, tmp_path, monkeypatch):
    """Without a file, the profile goes to profile.json; MXNet makes one in a process only."""
    monkeypatch.chdir(tmp_path)
    train('--verbose', '--profile', num_steps=3)
    assert json.loads((tmp_path / 'profile.json').read_text())['traceEvents']
    named = parse_args(['--do-training', '--data', 'x', '--profile', 'steps.json'])
    assert named.profile == 'steps.json'
    assert 'step 3: batches of [(8, ' in (tmp_path / 'run' / 'pretraining.log').read_text()


def test_other_names_of_flags():
    """Those of later originals, and underscores as in all other flags."""
    flags = '--do_training --data x --do_eval --data_eval y --use_avg_len --model z'
    args = parse_args(flags.split())
    assert args.do_training and args.do_eval and args.by_token
    assert args.bert_model == 'z'
    assert parse_args([*flags.split()[:3], '--by_token']).by_token


def test_by_token(train):
    assert train('--by-token', batch_size=100, num_buckets=3)['step'] == 6
    with pytest.raises(UsageError, match='--batch_size 8 with --by-token is fewer tokens than'):
        train('--by-token', batch_size=8)


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        ('', 'nothing to do'),
        ('--do-training', '--do-training needs --data'),
        ('--do-eval', '--do-eval needs --data_eval'),
        ('--do-eval --data_eval x --data y', '--data goes with --do-training'),
        (
            '--do-training --data x --data_eval y',
            '--data_eval goes with --do-eval or --eval_interval',
        ),
        ('--do-training --data x --eval_interval 5', '--eval_interval needs --data_eval'),
        (
            '--do-eval --data_eval x --eval_interval 5',
            '--eval_interval goes with --do-training',
        ),
        ('--do-eval --data_eval x --tensorboard', '--tensorboard goes with --do-training'),
        ('--do-training --data x --dtype float16', '--dtype float16 needs --gpu or --gpus'),
        ('--do-training --data x --max_seq_length 64', '--max_seq_length goes with --raw'),
        ('--do-training --data x --segment', '--segment goes with --raw'),
        ('--do-training --data x --raw --document_marker=', "--document_marker '' is not a line"),
        ('--do-training --data x --document_marker y', '--document_marker goes with --raw'),
        ('--do-training --data x --raw --max_seq_length 4', '--max_seq_length 4: at least 5'),
        ('--do-training --data x --pretrained --bert_model c.json', 'training from scratch'),
        ('--do-training --data x --bert_model c.json', 'there is no configuration file c.json'),
        ('--do-training --data x --bert_model bert_2_128_2', 'a --vocab_file is needed, such as'),
        (
            '--do-training --data x --bert_model bert_2_128_2 --vocab_file v --pretrained',
            '--vocab_file means training from scratch',
        ),
        (
            '--do-training --data x --vocab_file v --pretrained',
            '--vocab_file means training from scratch',
        ),
        ('--do-training --data x --bert_model . --vocab_file v', '*.json, and not .'),
        ('--do-training --data x --bert_model a/b --vocab_file v', '*.json, and not a/b'),
        (
            '--do-training --data x --bert_model bert_2_128_2 --vocab_file v',
            'there is no vocabulary file v',
        ),
        ('--do-training --data x --bert_model none', 'neither a directory, nor a file, nor'),
        ('--do-eval --data_eval x --profile p', '--profile goes with --do-training'),
        ('--do-training --data x --profile no/where', '--profile no/where: there is no such'),
        ('--do_training --data x --max_seq 64', '--max_seq_length goes with --raw'),
        ('--do-t --data_ev x', '--do-training needs --data'),
    ],
)
def test_refused_flags(flags, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        run_pretraining.main(flags.split())


def test_long_instances(train, folder, tmp_path):
    write_model(tmp_path / 'short', max_position_embeddings=20)
    short = tmp_path / 'short' / 'config.json'
    with pytest.raises(ToolkitError, match='part-00.* tokens, but the model has only 20 positions'):
        train(bert_model=short)
    with pytest.raises(UsageError, match='--max_seq_length 128 is more than the 20 positions'):
        train('--raw', bert_model=short, data=f'{folder}/*.txt')
    with pytest.raises(ToolkitError, match='nothing.npz: no file matches'):
        train(data=tmp_path / 'nothing.npz')


# Shards of the original, and masked words only.


def test_shards_of_the_original(train, folder, tmp_path, capsys):
    """Without a description, in the original's types: the same losses, and one line in all."""
    expected = train(name='ours')
    (tmp_path / 'original').mkdir()
    for path in (folder / 'shards').iterdir():
        with np.load(path) as arrays:
            np.savez(tmp_path / 'original' / path.name, **arrays)
    capsys.readouterr()
    theirs = tmp_path / 'original' / '*.npz'
    assert train(data=theirs, name='original') == expected
    assert lines(tmp_path / 'original') == lines(tmp_path / 'ours')
    (tmp_path / 'other.npz').write_bytes((tmp_path / 'original' / 'part-000.npz').read_bytes())
    capsys.readouterr()
    evaluation = f'--data_eval={tmp_path}/other.npz,{theirs}'
    train('--do-eval', evaluation, data=theirs, name='original', num_steps=1)
    (line,) = re.findall('.*does not say how it was made.*', capsys.readouterr().err)
    assert line.startswith(f'INFO:root:{tmp_path}/original/part-000.npz (and 2 more): does not')


@pytest.fixture(scope='module')
def runs(folder):
    """Return the folder of shards that were made with --no_nsp."""
    create_pretraining_data.main(
        f'--input_file {folder}/*.txt --output_dir {folder}/runs --num_workers 1 --no_nsp '
        f'--vocab_file {folder}/tiny/vocab.txt --max_seq_length {MAX_SEQ_LENGTH} '
        f'--max_predictions_per_seq {MAX_PREDICTIONS} --dupe_factor 3 --do_lower_case'.split()
    )
    return folder / 'runs'


def test_shards_without_next_sentences_are_refused(train, runs):
    with pytest.raises(UsageError, match='part-000.npz: made with --no_nsp, .*: give --no_nsp'):
        train(data=runs / '*.npz')


HEADS = ('pooler.', 'classifier.')


@pytest.mark.parametrize('flags', [[], ['--accumulate=2'], ['--raw', '--max_seq_length=20']])
def test_masked_words_only(train, folder, runs, tmp_path, capsys, operators, flags):
    data = folder / '*.txt' if '--raw' in flags else runs / '*.npz'
    flags = ['--no_nsp', '--log_interval=1', '--ckpt_interval=1', '--ckpt_keep=9', *flags]
    result = train('--do-eval', *flags, f'--data_eval={data}', data=data, num_steps=5)
    assert set(result['train']) == set(result['eval']) == {'mlm_loss', 'mlm_acc'}
    printed = capsys.readouterr().err
    assert 'nsp_' not in re.sub(r'Namespace\(.*', '', printed)
    assert re.search(r'\[step 5\]\tmlm_loss=\d\.\d{5}\tmlm_acc=\d+\.\d\d\tthroughput=', printed)
    assert re.search(r'INFO:root:mlm_loss=\d\.\d{3}\tmlm_acc=\d+\.\d\n', printed)
    assert not any('nsp_loss' in line for line in lines(tmp_path / 'run'))
    first, last = parameters(tmp_path / 'run', 1), parameters(tmp_path / 'run', 5)
    assert first.keys() == last.keys()
    still = {name for name in last if (first[name] == last[name]).all()}
    assert still == {name for name in last if name.startswith(HEADS)} != set()


def test_the_masked_lm_part_of_the_gradients(folder, operators):
    """They are those of both losses less those of the next-sentence loss alone."""
    found = {}
    for no_nsp in (False, True):
        model, vocab = build_from_configuration(
            folder / 'steady' / 'config.json', mx.cpu(), use_decoder=True, use_classifier=True
        )
        finish_initialization(model, mx.cpu())
        if no_nsp:
            model.load_parameters(str(folder / 'first.params'))
        else:
            model.save_parameters(str(folder / 'first.params'))
        source = sources.Shards(f'{folder}/shards/part-000.npz', plain_vocab(vocab), 32)
        (batch,) = batches.evaluation(source, 1000, 0)
        loss = build_loss([mx.cpu()])
        gradients(model, loss, [batch], [mx.cpu()], 1, no_nsp=no_nsp)
        found[no_nsp] = {n: p.grad().asnumpy() for n, p in named(model).items()}
    with mx.autograd.record():
        rows = len(batch.nsp_labels)
        objective, _ = statistics(model, loss, batch, mx.cpu(), (0, 1 / rows))
    objective.backward()
    for name, parameter in named(model).items():
        expected = found[False][name] - parameter.grad().asnumpy()
        scale = max(np.abs(found[False][name]).max(), 1e-3)
        np.testing.assert_allclose(found[True][name], expected, atol=1e-5 * scale, err_msg=name)


def test_a_run_without_next_sentences_is_resumed(train, runs, tmp_path):
    flags = ['--no_nsp', '--log_interval=1', '--ckpt_interval=2']
    train(*flags, data=runs / '*.npz', name='whole')
    train(*flags, data=runs / '*.npz', name='run', num_steps=6)
    for path in (tmp_path / 'run').glob('0000006.*'):
        path.unlink()
    train(*flags, '--start_step=auto', data=runs / '*.npz', name='run')
    assert lines(tmp_path / 'run') == lines(tmp_path / 'whole')
    ours, theirs = (parameters(tmp_path / name, 6) for name in ('run', 'whole'))
    assert largest_difference(ours, theirs) == 0


@pytest.mark.parametrize(
    ('flags', 'words'),
    [([], 'without --no_nsp and is with it'), (['--no_nsp'], 'with --no_nsp and is without it')],
)
def test_next_sentences_cannot_come_or_go_on_the_way(train, folder, tmp_path, flags, words):
    """A state can still be evaluated either way."""
    others = [] if flags else ['--no_nsp']
    train(*flags, num_steps=2)
    for start in ('auto', 2):
        with pytest.raises(UsageError) as caught:
            train(*others, f'--start_step={start}', num_steps=4)
        assert str(caught.value) == (
            f'--start_step: the run in {tmp_path}/run was {words} now; use the same, or start over '
            'without --start_step'
        )
    assert saved_steps(tmp_path / 'run') == [2]
    evaluation = f'--do-eval --data_eval={folder}/shards/part-000.npz --start_step=2'.split()
    model = [f'--bert_model={folder}/tiny/config.json', f'--ckpt_dir={tmp_path}/run']
    assert run_pretraining.main([*evaluation, *model, *others])['step'] == 2
    assert train(*flags, '--start_step=auto', num_steps=4)['step'] == 4


def test_states_say_so_only_without_next_sentences(train, tmp_path):
    """Those of earlier versions are valid as they are."""
    for name, flags in (('with', []), ('without', ['--no_nsp'])):
        train(*flags, num_steps=1, name=name)
        with np.load(tmp_path / name / '0000001.states', allow_pickle=False) as states:
            assert json.loads(states['progress'].item()).get('no_nsp') == (True if flags else None)


def test_pairs_need_a_second_segment(train, folder, runs, tmp_path):
    write_model(tmp_path / 'narrow', type_vocab_size=1)
    values = {'bert_model': tmp_path / 'narrow' / 'config.json', 'num_steps': 1}
    with pytest.raises(ToolkitError) as caught:
        train(**values)
    assert str(caught.value) == (
        f'{values["bert_model"]}: type_vocab_size is 1, so this model takes single texts, not pairs'
    )
    assert train('--no_nsp', data=runs / '*.npz', **values)['step'] == 1


def test_workers_are_started_with_signals_held_back():
    """Ctrl-C reaches them while Python starts, and would end them with a traceback."""
    held = []

    class Recorded(ThreadPoolExecutor):
        def submit(self, function):
            held.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            return super().submit(function)

    unit = types.SimpleNamespace(load=lambda: {})
    with Recorded(1) as executor:
        assert len(list(batches.load_ahead(iter([(0, 0, unit), (0, 1, unit)]), executor, 1))) == 2
    assert len(held) == 2 and all({signal.SIGINT, signal.SIGTERM} <= mask for mask in held)


# Evaluation during training.


@pytest.fixture
def evaluating(folder):
    return {'eval_interval': 2, 'data_eval': folder / 'shards' / 'part-001.npz'}


def evaluations(path):
    return [(line['step'], line['eval']) for line in lines(path) if 'eval' in line]


def test_evaluation_during_training(train, folder, tmp_path, evaluating, capsys):
    """It is that of the checkpoints, evaluated by themselves, and changes no bit of training."""
    flags = {'num_steps': 5, 'log_interval': 3, 'ckpt_interval': 1, 'ckpt_keep': 9}
    train(**flags, name='plain')
    capsys.readouterr()
    result = train(**flags, **evaluating)
    printed = capsys.readouterr().err
    plain, watched = tmp_path / 'plain', tmp_path / 'run'
    for step in range(1, 6):
        one, other = (path / f'{step:07d}.params' for path in (plain, watched))
        assert one.read_bytes() == other.read_bytes()
    assert [line for line in lines(watched) if 'eval' not in line] == lines(plain)
    found = evaluations(watched)
    assert [step for step, _ in found] == [2, 4, 5] and result['eval'] == found[-1][1]
    for step, metrics in found:
        alone = run_pretraining.main(
            f'--do-eval --data_eval {evaluating["data_eval"]} --start_step {step} '
            f'--bert_model {folder}/tiny/config.json --ckpt_dir {watched}'.split()
        )
        assert alone['eval'] == metrics
    assert found[0][1] != found[1][1] == found[2][1]  # the rate of the last update is 0
    # The log has the original's two lines about each, and nothing about its batches.
    logged = printed[printed.index('INFO:root:evaluation at step 4') :]
    assert re.fullmatch(
        r'INFO:root:evaluation at step 4\n'
        r'INFO:root:mlm_loss=\d\.\tmlm_acc=\d+\.\tnsp_loss=\d\.\tnsp_acc=\d+\.\n'
        r'INFO:root:Eval cost=\d\.s\nINFO:root:\[step 5\].*\nINFO:root:evaluation at step 5\n.*',
        re.sub(r'(\d)\.\d+', r'\1.', logged),
        flags=re.DOTALL,
    )
    assert printed.count('[step ') == 2


def test_the_last_evaluation_is_done_once(train, tmp_path, evaluating):
    """--do-eval does it, from the same weights."""
    train(**evaluating, name='one')
    result = train('--do-eval', **evaluating, name='other')
    one, other = (evaluations(tmp_path / name) for name in ('one', 'other'))
    assert one == other and [step for step, _ in one] == [2, 4, 6]
    assert result['eval'] == one[-1][1]


@pytest.mark.parametrize(('place', 'ckpt_interval'), [('before', 2), ('within', 100), ('after', 3)])
def test_a_stop_at_an_evaluation(train, tmp_path, monkeypatch, evaluating, ckpt_interval, place):
    """None is lost or doubled, whether its step has a checkpoint of its own or not."""
    flags = {**evaluating, 'ckpt_interval': ckpt_interval, 'log_interval': 3, 'batch_size': 4}
    train(**flags, name='whole')
    original, seen = evaluation.evaluate, []

    def stopped(*args, **keywords):
        seen.append(args)
        if len(seen) != 2:
            return original(*args, **keywords)
        if place == 'after':
            result = original(*args, **keywords)
            os.kill(os.getpid(), signal.SIGTERM)
            return result
        os.kill(os.getpid(), signal.SIGTERM)
        if place == 'within':
            return original(*args, **keywords)
        raise MemoryError('the process is lost here')

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, 'evaluate', stopped)
        with pytest.raises(MemoryError if place == 'before' else Stopped) as caught:
            train(**flags, name='parts')
    if place != 'before':
        step = {'within': 4, 'after': 5}[place]
        assert f'step {step} is saved' in str(caught.value)
    train(**flags, name='parts', start_step='auto')
    assert lines(tmp_path / 'parts') == lines(tmp_path / 'whole')
    for name in ('0000006.params', '0000006.states'):
        assert_same_arrays(tmp_path / 'whole' / name, tmp_path / 'parts' / name)
    train(**flags, name='parts', start_step='auto')  # all steps are done
    assert lines(tmp_path / 'parts') == lines(tmp_path / 'whole')


@pytest.mark.parametrize(
    'flags', [['--raw', '--max_seq_length=20'], ['--no_nsp', '--raw'], ['--dtype=bfloat16']]
)
def test_kinds_of_evaluation_during_training(train, folder, tmp_path, monkeypatch, flags):
    """With a learning rate of 1e-30 every one has the same data and weights; on two devices."""
    if '--dtype=bfloat16' in flags:
        need_bfloat16()
    else:
        monkeypatch.setattr(update, 'contexts', lambda gpus: [mx.cpu(0), mx.cpu(1)])
    data = folder / ('*.txt' if '--raw' in flags else 'shards/*.npz')
    more = ['--max_seq_length=24'] if flags == ['--no_nsp', '--raw'] else []
    train(*flags, *more, data=data, data_eval=data, eval_interval=1, num_steps=3, lr=1e-30)
    (one, first), (two, second), (three, third) = evaluations(tmp_path / 'run')
    assert (one, two, three) == (1, 2, 3) and first == second == third
    assert 3.5 < first['mlm_loss'] < 5 and ('nsp_loss' in first) == ('--no_nsp' not in flags)


def test_the_profile_is_that_of_the_training(train, tmp_path, monkeypatch, evaluating):
    """A run that goes on begins with an evaluation, and profiles after it."""
    events = []
    monkeypatch.setattr(evaluation, 'evaluate', lambda *args, **keywords: events.append('evaluate'))
    monkeypatch.setattr(
        run_pretraining.Profile, '__enter__', lambda self: events.append('profile') or self
    )
    train(**evaluating, num_steps=2)
    assert events == ['profile', 'evaluate']
    train(**evaluating, num_steps=2, start_step=2)
    assert events[2:] == ['evaluate', 'profile']


def test_an_evaluation_takes_no_time_from_the_training(train, folder, tmp_path, monkeypatch):
    """The log line after it counts the seconds of the steps only."""
    original, late = evaluation.evaluate, []

    def slow(*args, **keywords):
        late.append(1e6)
        return original(*args, **keywords)

    clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + sum(late))
    monkeypatch.setattr(recorder, 'time', clock)
    monkeypatch.setattr(evaluation, 'evaluate', slow)
    data = folder / 'shards' / '*.npz'
    train('--do-eval', eval_interval=1, num_steps=2, data_eval=data, log_interval=2)
    written = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    (line,) = (line for line in map(json.loads, written) if 'eval' not in line)
    assert line['step'] == 2 and line['seconds'] < 1e6 <= sum(late)


def test_tensorboard(train, tmp_path, monkeypatch, evaluating):
    """Its points are those of metrics.jsonl, once each, though a killed process wrote more."""
    pytest.importorskip('tensorboardX')
    flags = {**evaluating, 'log_interval': 1, 'ckpt_interval': 3}
    original = evaluation.evaluate

    def killed(*args, **keywords):
        if len(evaluations(tmp_path / 'run')) == 2:
            raise MemoryError('the process is lost here')
        return original(*args, **keywords)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(evaluation, 'evaluate', killed)
        train('--tensorboard', **flags)
    assert ('train/mlm_loss', 5) in [p[:2] for p in read_events(tmp_path / 'run' / 'tensorboard')]
    result = train('--do-eval', '--tensorboard', **flags, start_step='auto')
    names = {'lr': 'learning_rate', 'mlm_acc': 'mlm_accuracy', 'nsp_acc': 'nsp_accuracy'}
    expected = [
        (f'{place}/{names.get(name, name)}', line['step'], value)
        for line in map(json.loads, (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines())
        for place, values in (('train', line), ('eval', line.get('eval', {})))
        for name, value in values.items()
        if name not in ('step', 'seconds', 'eval')
    ]
    points = read_events(tmp_path / 'run' / 'tensorboard')
    assert points == approximately(expected)
    assert len(points) == 6 * 6 + 3 * 4
    assert points[-4:] == approximately(
        [(f'eval/{names.get(name, name)}', 6, value) for name, value in result['eval'].items()]
    )
