"""run_pretraining.py with the weights of another run, with LAMB, and other settings of an update.

What each flag does is read off the numbers in the files of a run.
"""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import stop_at
from test_run_pretraining import (  # noqa: F401 (folder and train are fixtures)
    assert_same_arrays,
    folder,
    largest_difference,
    lines,
    parameters,
    train,
    write_model,
)

import run_pretraining
from bert.distributed.workers import Workers
from bert.system.errors import Stopped, ToolkitError, UsageError

# Too little to change any weight.
NOTHING = {'lr': 1e-30, 'weight_decay': 0, 'num_steps': 1, 'warmup_ratio': 0}
# The first step has the whole learning rate, the second none.
ONE_STEP = {'num_steps': 2, 'warmup_ratio': 0.5, 'lr': 1e-3, 'dropout': 0}


def run(folder, output, **values):  # noqa: F811
    """Train in a folder as the fixture ``train`` does."""
    values = {
        'data': folder / 'shards' / '*.npz',
        'bert_model': folder / 'tiny' / 'config.json',
        'ckpt_dir': output,
        **values,
    }
    run_pretraining.main(['--do-training', *(f'--{key}={value}' for key, value in values.items())])
    return output


@pytest.fixture(scope='module')
def first_phase(folder, tmp_path_factory):  # noqa: F811
    """Run a first phase of four steps, with states after the second and the fourth."""
    output = tmp_path_factory.mktemp('first') / 'one'
    return run(folder, output, num_steps=4, ckpt_interval=2, lr=1e-2)


@pytest.fixture(scope='module')
def start(folder, tmp_path_factory):  # noqa: F811
    """Return the random weights with which a run from scratch begins."""
    output = tmp_path_factory.mktemp('start') / 'run'
    return parameters(run(folder, output, **NOTHING), 1)


@pytest.mark.parametrize(('path', 'step'), [('', 4), ('0000004.params', 4), ('0000002.params', 2)])
def test_the_second_phase_begins_with_the_weights(train, first_phase, tmp_path, path, step):  # noqa: F811
    train(**NOTHING, name='two', seed=1, start_from=first_phase / path)
    assert largest_difference(parameters(first_phase, step), parameters(tmp_path / 'two', 1)) == 0


def test_nothing_but_the_weights(train, first_phase, tmp_path):  # noqa: F811
    """As with the model that the first phase wrote, which has no steps and no moments.

    Both heads are among its weights.
    """
    train(name='state', start_from=first_phase, log_interval=1)
    train(name='model', bert_model=first_phase / 'model', log_interval=1)
    for name in ('0000006.params', '0000006.states'):
        assert_same_arrays(tmp_path / 'state' / name, tmp_path / 'model' / name)
    assert lines(tmp_path / 'state') == lines(tmp_path / 'model')


def test_a_second_phase_is_resumed(train, first_phase, tmp_path, monkeypatch, capsys):  # noqa: F811
    """With LAMB, dropout and no next sentences: the same bits as undisturbed.

    Even if the first phase has gone.
    """
    shutil.copytree(first_phase, tmp_path / 'one')
    options = {'start_from': tmp_path / 'one', 'optimizer': 'lamb', 'num_steps': 10}
    options.update(data=make_single(tmp_path), accumulate=2, start_step='auto')
    train('--no_nsp', **options, name='whole')
    stop_at(monkeypatch, 7)
    with pytest.raises(Stopped, match='SIGTERM: step 7 is saved'):
        train('--no_nsp', **options, name='parts')
    monkeypatch.undo()
    shutil.rmtree(tmp_path / 'one')
    train('--no_nsp', **options, name='parts')
    assert '--start_from: not read, as training continues from step 7' in capsys.readouterr().err
    for name in ('0000010.params', '0000010.states'):
        assert_same_arrays(tmp_path / 'whole' / name, tmp_path / 'parts' / name)
    assert lines(tmp_path / 'whole') == lines(tmp_path / 'parts')


def make_single(tmp_path):
    """Make shards without next sentences from the same text."""
    import create_pretraining_data

    text = tmp_path / 'text.txt'
    text.write_text('w1 w2 w3 w4 w5\nw6 w7 w8 w9\n\nw10 w11 w12 w13\n' * 20)
    vocab = write_model(tmp_path / 'single').with_name('vocab.txt')
    create_pretraining_data.main(
        f'--input_file {text} --output_dir {tmp_path}/singles --num_outputs 1 --num_workers 1 '
        f'--vocab_file {vocab} --max_seq_length 24 --do_lower_case --no_nsp'.split()
    )
    return tmp_path / 'singles' / '*.npz'


def test_weights_that_do_not_fit(train, first_phase, tmp_path):  # noqa: F811
    other = write_model(tmp_path / 'other', hidden_size=24)
    with pytest.raises(ToolkitError) as caught:
        train(name='two', start_from=first_phase, bert_model=other)
    assert str(caught.value).startswith(f'{first_phase}/0000004.params: ')
    assert 'has the shape' in str(caught.value) and 'but this model needs' in str(caught.value)
    (tmp_path / 'empty').mkdir()
    shutil.copytree(first_phase / 'model', tmp_path / 'one' / 'model')
    (tmp_path / 'x.params').write_bytes(b'nothing')
    for path, sentence in (
        ('empty', 'there is no checkpoint in this folder$'),
        ('one/model', 'there is no checkpoint .*; --bert_model takes a model directory'),
        ('none', 'there is no such parameter file'),
        ('x.params', 'not a whole Gluon parameter file'),
    ):
        with pytest.raises(ToolkitError, match=f'{re.escape(str(tmp_path / path))}: {sentence}'):
            train(name='two', start_from=tmp_path / path)
    assert not (tmp_path / 'two').exists()


def test_another_vocabulary_of_the_same_size(train, folder, first_phase, tmp_path):  # noqa: F811
    """Nothing but the tokens themselves shows it; states of earlier versions do not have them."""
    tokens = (folder / 'tiny' / 'vocab.txt').read_text().split()
    other = write_model(tmp_path / 'other', tokens=[*tokens[:5], *tokens[:4:-1]])
    shutil.copytree(first_phase, tmp_path / 'run')
    evaluation = f'--do-eval --data_eval={folder}/shards/part-000.npz --start_step=2'.split()
    model = [f'--bert_model={other}', f'--ckpt_dir={tmp_path}/run']
    sentence = 'the run there had another vocabulary than this one'
    for path, act in (
        ('run/0000004.params', lambda: train(name='two', start_from='run', bert_model=other)),
        (
            'run/0000002.params',
            lambda: train(name='two', start_from='run/0000002.params', bert_model=other),
        ),
        ('run', lambda: train(start_step='auto', bert_model=other)),
        ('run', lambda: run_pretraining.main([*evaluation, *model])),
    ):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(UsageError) as caught:
            patch.chdir(tmp_path)
            act()
        assert str(caught.value) in (f'{path}: {sentence}', f'{tmp_path / path}: {sentence}')
    # A file of parameters alone says nothing.
    shutil.copy(first_phase / '0000004.params', tmp_path / 'alone.params')
    train(name='two', start_from=tmp_path / 'alone.params', bert_model=other, num_steps=1)


def test_a_first_phase_without_next_sentences(train, tmp_path, capsys):  # noqa: F811
    options = {'data': make_single(tmp_path), 'num_steps': 1}
    train('--no_nsp', **options, name='one')
    train('--no_nsp', **options, name='two', start_from=tmp_path / 'one')
    line = 'that run had --no_nsp: it did not train the next-sentence classifier'
    assert line not in capsys.readouterr().err
    train(name='three', num_steps=1, start_from=tmp_path / 'one')
    assert line in capsys.readouterr().err


def test_random_weights_are_told_only_where_they_are_used(train, first_phase, capsys):  # noqa: F811
    line = 'the weights of the model are random'
    for flags, expected in (
        ({'num_steps': 1}, True),
        ({'num_steps': 2, 'start_step': 'auto'}, False),
        ({'num_steps': 1, 'start_from': first_phase, 'name': 'two'}, False),
        ({'num_steps': 1, 'bert_model': first_phase / 'model', 'name': 'three'}, False),
    ):
        train(**flags)
        assert (line in capsys.readouterr().err) == expected


def test_workers_compare_their_models(train, folder, tmp_path, monkeypatch):  # noqa: F811
    """Files of another path may hold the same, and those of the same path something else."""
    seen = []

    def check_same(self, what, value):
        if what == 'sizes, vocabulary or casing':
            seen.append(json.dumps(value))  # as workers send it

    monkeypatch.setattr(Workers, 'check_same', check_same)
    tokens = (folder / 'tiny' / 'vocab.txt').read_text().split()
    models = [
        write_model(tmp_path / 'same', tokens=tokens),
        write_model(tmp_path / 'deeper', tokens=tokens, num_hidden_layers=3),
        write_model(tmp_path / 'other', tokens=[*tokens[:5], *tokens[:4:-1]]),
    ]
    (write_model(tmp_path / 'cased', tokens=tokens)).with_name('tokenizer_config.json').write_text(
        '{"do_lower_case": false}'
    )
    models.append(tmp_path / 'cased' / 'config.json')
    text = {'data': folder / '*.txt', 'max_seq_length': 24, **NOTHING}
    for number, model in enumerate([folder / 'tiny' / 'config.json', *models]):
        train('--raw', **text, name=str(number), bert_model=model)
    assert seen[0] == seen[1]
    assert all(seen[0] != each for each in seen[2:]) and len(seen) == 5


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        ('--do-eval --data_eval x --start_from y', '--start_from goes with --do-training'),
        ('--start_from y --pretrained', '--start_from and --pretrained exclude each other'),
        ('--start_from y --ckpt_dir y', '--start_from y is in --ckpt_dir y: a new run needs'),
        ('--start_from y/1.params --ckpt_dir ./y', '--start_from y/1.params is in --ckpt_dir ./y'),
        ('--optimizer lamb --bias_correction', 'bertadam only: lamb always has it'),
    ],
)
def test_refused_flags(flags, sentence):
    training = '' if 'eval' in flags else '--do-training --data x '
    with pytest.raises(UsageError, match=re.escape(sentence)):
        run_pretraining.main((training + flags).split())


@pytest.mark.parametrize(
    'flags', ['--weight_decay -1', '--max_grad_norm 0', '--dropout 1', '--optimizer adam']
)
def test_values_out_of_range(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        run_pretraining.main(['--do-training', '--data', 'x', *flags.split()])
    assert caught.value.code == 2
    assert f'argument {flags.split()[0]}: ' in capsys.readouterr().err


@pytest.mark.parametrize(('before', 'now'), [('bertadam', 'lamb'), ('lamb', 'bertadam')])
def test_the_moments_are_those_of_one_optimizer(train, folder, tmp_path, before, now):  # noqa: F811
    """A state can still be evaluated; those of BERTAdam say no more than earlier versions' did."""
    train(num_steps=2, optimizer=before)
    with np.load(tmp_path / 'run' / '0000002.states') as states:
        said = json.loads(states['progress'].item()).get('optimizer')
    assert said == (None if before == 'bertadam' else 'lamb')
    with pytest.raises(UsageError) as caught:
        train(num_steps=4, optimizer=now, start_step='auto')
    assert str(caught.value) == (
        f'--start_step: the run in {tmp_path}/run was with --optimizer {before} and is with {now} '
        'now; use the same, or start over without --start_step'
    )
    evaluation = f'--do-eval --data_eval={folder}/shards/part-000.npz --start_step=2'.split()
    model = [f'--bert_model={folder}/tiny/config.json', f'--ckpt_dir={tmp_path}/run']
    assert run_pretraining.main([*evaluation, *model])['step'] == 2


def test_dropout(train, tmp_path):  # noqa: F811
    """The same as of a model that has none; the model that is written keeps its own."""
    train(name='flag', dropout=0)
    train(name='configuration', model='steady')
    train(name='neither')
    flag, configuration, neither = (
        parameters(tmp_path / name, 6) for name in ('flag', 'configuration', 'neither')
    )
    assert largest_difference(flag, configuration) == 0 < largest_difference(flag, neither)
    for name, expected in (('flag', 0.1), ('configuration', 0.0)):
        config = json.loads((tmp_path / name / 'model' / 'config.json').read_text())
        assert config['hidden_dropout_prob'] == config['attention_probs_dropout_prob'] == expected


def test_clipping_and_bias_correction(train, start, tmp_path):  # noqa: F811
    """After one step the first moment is a tenth of the clipped gradient.

    Then BERTAdam moves each weight by 0.1 / sqrt(0.001) of the rate, and corrected by the rate.
    """
    for norm, correction, factor in ((1e-2, [], 0.1 / 0.001**0.5), (1e-1, ['--bias_corr'], 1)):
        name = str(norm)
        flags = {**NOTHING, 'dropout': 0, 'max_grad_norm': norm}
        train(**flags, name=name)
        with np.load(tmp_path / name / '0000001.states') as states:
            means = [states[file] for file in states.files if file.startswith('mean:')]
        total = np.sqrt(sum((mean.astype(float) ** 2).sum() for mean in means))
        assert total == pytest.approx(norm / 10, rel=1e-4)
        train(*correction, **ONE_STEP, weight_decay=0, name=f'{name}b')
        moved = largest_difference(start, parameters(tmp_path / f'{name}b', 2))
        assert moved == pytest.approx(1e-3 * factor, rel=1e-2)


def test_weight_decay(train, start, tmp_path):  # noqa: F811
    """Weights shrink by rate times decay, those of LayerNorm and biases not at all."""
    for decay in (0, 50):
        train(**ONE_STEP, weight_decay=decay, name=str(decay))
    without, with_decay = (parameters(tmp_path / name, 2) for name in ('0', '50'))
    for name, array in start.items():
        decayed = not name.endswith(('beta', 'gamma', 'bias'))
        expected = -0.05 * array * decayed
        np.testing.assert_allclose(with_decay[name] - without[name], expected, atol=1e-6)


def test_lamb(train, start, tmp_path):  # noqa: F811
    """The first step moves each array by the rate times its norm; a new bias by the rate."""
    train(**ONE_STEP, optimizer='lamb', name='after')
    after = parameters(tmp_path / 'after', 2)
    for name, array in start.items():
        norm = np.linalg.norm(array)
        if norm:
            moved = np.linalg.norm(after[name] - array)
            assert moved == pytest.approx(1e-3 * norm, rel=1e-2), name
        else:
            assert 0 < np.abs(after[name]).max() < 1.001e-3, name
