"""Plans of runs: their commands and settings, and the published figures to compare with."""

import os
from pathlib import Path

import pytest
from conftest import ROOT, write_tiny_bert

from bert.experiments import plans, recipes
from bert.finetuning.parser import build_flags
from bert.tasks.table import ALL_TASKS, TASKS

SHORT = ('--epochs', '3', '--lr', '2e-5')  # the recipe 2019-01 for MRPC and RTE


def plan(*words, task='MRPC', data='.', jobs=1):
    values = vars(build_flags().parse_args(words))
    return plans.make_plan(
        Path('script.py'), ALL_TASKS[task], list(words), values, Path(data), jobs
    )


def test_the_hash_follows_what_the_numbers_depend_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny_bert(tmp_path / 'model')
    for folder in ('one/MRPC', 'two/MRPC'):
        os.makedirs(folder)
        Path(folder, 'train.tsv').write_text(folder)

    def name(*words, **keywords):
        return plans.digest(plan(*words, **keywords))

    plain = name()
    assert name('--lr', '5e-5', '--task_name', 'RTE', '--seed', '9', '--output_dir', 'x') == plain
    assert name('--bert_model', 'model') == name('--bert_model', f'{tmp_path}/model')
    assert name(data=tmp_path) == plain
    assert name(jobs=2) == name('--tensorboard') == plain
    gpu = name('--gpu')
    assert name('--gpus', '1') == gpu
    assert name('--gpus', '3,1', jobs=2) == gpu
    others = [name('--lr', '6e-5'), name('--bias_correction'), name(data='one'), name(data='two')]
    assert len({plain, gpu, name('--gpus', '0,1'), *others}) == 7
    # The same settings from a recipe and by hand.
    by_hand = name('--epochs', '3', '--lr', '2e-5', '--batch_size', '32')
    assert name(*recipes.flags_of('2019-01', 'RTE')) == by_hand


@pytest.mark.parametrize(
    ('flags', 'expected'),
    [
        ('', '81c9b739'),
        ('--gpu', '86482342'),
        ('--optimizer lamb --lr 2e-5 --epochs 4', 'd7949673'),
        (
            '--bert_model bert_24_1024_16 --do_lower_case --bias_correction --max_len 64',
            '4f8fdd9a',
        ),
    ],
)
def test_runs_of_earlier_versions_are_found(flags, expected):
    """The hashes are those that this project had before --vocab_file and --tensorboard."""
    assert plans.digest(plan(*flags.split(), data='/nowhere/glue')) == expected


def test_the_hash_follows_what_the_files_hold(tmp_path):
    """And not where they lie."""
    flags = ['--bert_model', str(write_tiny_bert(tmp_path / 'model'))]
    data = tmp_path / 'data'
    for task in ('MRPC', 'RTE'):
        (data / task).mkdir(parents=True)
        for split in ('train', 'dev', 'test'):
            (data / task / f'{split}.tsv').write_text(f'{task} {split} 1')
    before = plans.digest(plan(*flags, data=data))

    def changed(path, change):
        """Return whether a change of a file changes the hash."""
        content = path.read_bytes()
        path.write_bytes(change(content))
        plans.hash_model.cache_clear()
        after = plans.digest(plan(*flags, data=data))
        path.write_bytes(content)
        plans.hash_model.cache_clear()
        return after != before

    weights = tmp_path / 'model' / 'model.safetensors'
    # One bit of the last weight; one word of a row.
    assert changed(weights, lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    assert changed(tmp_path / 'model' / 'vocab.txt', lambda content: content.upper())
    for split in ('train', 'dev', 'test'):
        path = data / 'MRPC' / f'{split}.tsv'
        assert changed(path, lambda content: content.replace(b'1', b'2'))
    assert not changed(data / 'RTE' / 'train.tsv', lambda content: b'')
    for name in ('model', 'data'):
        (tmp_path / name).rename(tmp_path / f'moved_{name}')
    flags = ['--bert_model', str(tmp_path / 'moved_model')]
    assert plans.digest(plan(*flags, data=tmp_path / 'moved_data')) == before


def test_the_hash_of_a_model_from_scratch(tmp_path):
    """It follows the vocabulary and the configuration, and not where they lie."""
    for name in ('one', 'two', 'three'):
        write_tiny_bert(tmp_path / name)
    with open(tmp_path / 'two' / 'vocab.txt', 'a') as file:
        file.write('more\n')
    config = tmp_path / 'three' / 'config.json'
    config.write_text(config.read_text().replace('0.1', '0.2'))

    def name(model, vocab=None):
        flags = ['--vocab_file', str(tmp_path / vocab / 'vocab.txt')] if vocab else []
        return plans.digest(plan('--bert_model', str(model), *flags))

    def configuration(name):
        return tmp_path / name / 'config.json'

    named = [name('bert_2_128_2', 'one'), name('bert_2_128_2', 'two'), name('bert_4_256_4', 'one')]
    others = [name(configuration(folder)) for folder in ('one', 'two', 'three')]
    assert len({*named, *others, name('bert_12_768_12', 'one'), name('bert_12_768_12')}) == 8
    assert name('bert_2_128_2', 'three') == named[0]
    assert name(configuration('two'), 'three') == others[0]


def test_folders():
    runs = plans.list_runs(Path('out'), {'RTE': plan(), 'MRPC': plan()}, [3, 1])
    assert [(run.task, run.seed) for run in runs] == [
        ('RTE', 3),
        ('RTE', 1),
        ('MRPC', 3),
        ('MRPC', 1),
    ]
    assert runs[0].folder == Path(f'out/RTE/seed-3-{plans.digest(plan())}')


def test_devices_of_jobs():
    """A run alone has all GPUs; simultaneous ones see one each, as number 0."""
    assert plan('--gpus', '2,3').devices == [2, 3]
    assert plan('--gpu', jobs=3).devices == [0, 1, 2]
    several = plan('--gpus', '2,3', jobs=2)
    assert several.devices == [2, 3]
    assert several.command[-4:-2] == ['--gpus', '0']
    assert plan(jobs=3).devices == []


def test_what_goes_on_where_it_was():
    assert '--resume' in plan().command
    assert '--resume' in plan('--optimizer', 'LAMB').command
    assert '--resume' not in plan('--optimizer', 'adam').command


def compare(settings, data, task='MRPC'):
    """Return, by recipe, why runs with these settings cannot be compared with it."""
    found = plans.compare_published(ALL_TASKS[task], settings, data)
    return {name: reason for name, _, reason in found}


def test_published_figures_only_for_the_published_settings(monkeypatch, tmp_path):
    monkeypatch.setattr(plans, 'is_whole', lambda task, data: True)

    def reasons(*words, task='MRPC'):
        return compare(plan(*words).settings, Path('.'), task)

    assert reasons(*SHORT) == {'2019-01': None, '2020-01': 'other recipe'}
    assert reasons(*recipes.flags_of('2020-01', 'MRPC'), '--gpu') == {
        '2019-01': 'other recipe',
        '2020-01': None,
    }
    # Two devices make batches of 64.
    assert reasons(*SHORT, '--gpus', '0,1')['2019-01'] == 'other recipe'
    assert reasons(*SHORT, '--bias_correction')['2019-01'] == 'other recipe'
    own = str(write_tiny_bert(tmp_path / 'model'))
    for model in (['--bert_model', own], ['--bert_dataset', 'wiki_cn']):
        assert set(reasons(*SHORT, *model).values()) == {'other model'}
    # The result does not depend on it.
    assert reasons(*SHORT, '--log_interval', '50')['2019-01'] is None
    assert reasons(task='QNLI') == {}


def test_other_data():
    """The bundled sample is not the whole MRPC."""
    data = ROOT / 'sample_glue'
    assert compare(plan(*SHORT, data=data).settings, data)['2019-01'] == 'other data'


def test_the_older_qqp_is_whole(tmp_path):
    """GluonNLP's published figures are those of 363,849 and 40,430 rows."""
    (tmp_path / 'QQP').mkdir()
    for name, rows in [('train', 363849), ('dev', 40430)]:
        text = 'header\n' + '1\t2\t3\ta\tb\t1\n' * rows
        (tmp_path / 'QQP' / f'{name}.tsv').write_text(text)
    assert plans.is_whole(TASKS['QQP'], tmp_path)
    (tmp_path / 'QQP' / 'dev.tsv').write_text('header\n' + '1\t2\t3\ta\tb\t1\n' * 40429)
    assert not plans.is_whole(TASKS['QQP'], tmp_path)


def test_real_mrpc_is_whole(real_glue):
    assert plans.is_whole(TASKS['MRPC'], real_glue)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({}, None),
        ({'log_interval': 5}, None),
        ({'lr': 2}, 'other recipe'),
        ({'lr': 2, 'bert_model': 'b'}, 'other model'),
    ],
)
def test_difference(change, reason):
    reference = {'lr': 1, 'bert_model': 'a', 'log_interval': 10}
    assert plans.find_difference({**reference, **change}, reference) == reason
