"""Plans of runs: their commands and settings, and the published figures to compare with."""

from pathlib import Path

import pytest
from conftest import ROOT

from bert.experiments import plans, recipes
from bert.finetuning.parser import build_flags
from bert.tasks.table import TASKS

SHORT = ('--epochs', '3', '--lr', '2e-5')  # the recipe 2019-01 for MRPC and RTE


def plan(*words, data='.', jobs=1):
    values = vars(build_flags().parse_args(words))
    return plans.make_plan(Path('script.py'), list(words), values, Path(data), jobs)


def test_the_hash_follows_what_the_numbers_depend_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'model').mkdir()

    def name(*words, **keywords):
        return plans.digest(plan(*words, **keywords).settings)

    plain = name()
    assert name('--lr', '5e-5', '--task_name', 'RTE', '--seed', '9', '--output_dir', 'x') == plain
    assert name('--bert_model', 'model') == name('--bert_model', f'{tmp_path}/model')
    assert name(data=tmp_path) == plain
    assert name(jobs=2) == plain
    gpu = name('--gpu')
    assert name('--gpus', '1') == gpu
    assert name('--gpus', '3,1', jobs=2) == gpu
    others = [name('--lr', '6e-5'), name('--bias_correction'), name(data='model')]
    assert len({plain, gpu, name('--gpus', '0,1'), *others}) == 6
    # The same settings from a recipe and by hand.
    by_hand = name('--epochs', '3', '--lr', '2e-5', '--batch_size', '32')
    assert name(*recipes.flags_of('2019-01', 'RTE')) == by_hand


def test_folders():
    runs = plans.list_runs(Path('out'), {'RTE': plan(), 'MRPC': plan()}, [3, 1])
    assert [(run.task, run.seed) for run in runs] == [
        ('RTE', 3),
        ('RTE', 1),
        ('MRPC', 3),
        ('MRPC', 1),
    ]
    assert runs[0].folder == Path(f'out/RTE/seed-3-{plans.digest(plan().settings)}')


def test_devices_of_jobs():
    """A run alone has all GPUs; simultaneous ones see one each, as number 0."""
    assert plan('--gpus', '2,3').devices == [2, 3]
    assert plan('--gpu', jobs=3).devices == [0, 1, 2]
    several = plan('--gpus', '2,3', jobs=2)
    assert several.devices == [2, 3]
    assert several.command[-2:] == ['--gpus', '0']
    assert plan(jobs=3).devices == []


def test_only_bertadam_goes_on_where_it_was():
    assert '--resume' in plan().command
    assert '--resume' not in plan('--optimizer', 'adam').command


def compare(settings, data, task='MRPC'):
    """Return, by recipe, why runs with these settings cannot be compared with it."""
    return {name: reason for name, _, reason in plans.compare_published(task, settings, data)}


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
    for model in (['--bert_model', str(tmp_path)], ['--bert_dataset', 'wiki_cn']):
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
