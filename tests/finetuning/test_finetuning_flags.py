"""The flags of fine-tuning: parsing them reads nothing, and each has its roles."""

import builtins

import pytest
from conftest import failure

from bert.checkpoints import hub, zoo
from bert.finetuning.flags import fixed_flags, parse_args, recall, remembered_flags
from bert.finetuning.parser import build_flags


def test_parsing_reads_no_model_and_fetches_nothing(monkeypatch, tiny_bert, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError(args)

    for module, name in ((hub, 'fetch'), (zoo, 'fetch'), (zoo, 'vocab_path'), (builtins, 'open')):
        monkeypatch.setattr(module, name, refuse)
    for source in ('someone/model', str(tiny_bert), str(tmp_path / 'nowhere')):
        args = parse_args(['--only_inference', '--bert_model', source])
        assert args.bert_model == source
        assert args.task_name is None  # it may be remembered
        assert parse_args(['--bert_model', source]).task_name == 'MRPC'
    with pytest.raises(AssertionError):
        open('file')  # noqa: SIM115


def test_every_role_is_that_of_flags_that_exist():
    """Each role has a list made by hand here, so that new flags are put where they belong."""
    parser = build_flags()
    flags = vars(parser.parse_args([])).keys()
    assert parser.roles.keys() == flags
    found = {role: set(parser.with_role(role)) for roles in parser.roles.values() for role in roles}
    own = {'train_file', 'dev_file', 'test_file'}
    described = {'text_columns', 'label_column', 'regression', 'metric'}
    source = {'bert_model', 'pretrained_bert_parameters', 'model_parameters'}
    run = {'output_dir', 'resume', 'gpu', 'gpus'}
    assert found == {
        'remembered': {'task_name', 'max_len'} | described,
        'may_change': own | source | run | {'bert_dataset', 'cased', 'do_lower_case', 'kvstore'},
        'own': own | described,
        'source': source,
        'model': source | {'bert_dataset'},
        'run': run | {'task_name', 'seed'},
        'indifferent': {'log_interval', 'dev_batch_size'},
        'by_worker': {'gpus'},
    }


@pytest.mark.parametrize(('words', 'length'), [([], 64), (['--max_l', '16'], 16)])
def test_a_shortened_flag_overrides_what_the_model_remembers(words, length):
    argv = ['--only_inf', '--bert_mod', 'folder', *words]
    args = parse_args(argv)
    assert args.only_inference and args.task_name is None
    recalled = recall(argv, args, {'flags': {'task_name': 'RTE', 'max_len': 64}})
    assert (recalled.task_name, recalled.max_len) == ('RTE', length)


@pytest.mark.parametrize(
    ('name', 'value'),
    [('task_name', 5), ('task_name', 'none'), ('max_len', '16'), ('text_columns', [5])],
)
def test_remembered_flags_of_another_shape_are_refused(name, value):
    argv = ['--only_inference', '--bert_model', 'folder', '--test_file', 'x.csv']
    found = failure(recall, argv, parse_args(argv), {'flags': {name: value}})
    assert found == f'folder: finetune.json has the flag {name} as {value!r}'


def test_sst_is_sst_2():
    """Both names mean the same run and model, and the flags in the log are those typed."""
    one, other = (parse_args(['--task', name]) for name in ('SST', 'SST-2'))
    assert (one.task_name, other.task_name) == ('SST', 'SST-2')
    assert fixed_flags(one) == fixed_flags(other)
    assert remembered_flags(one) == remembered_flags(other)
    assert remembered_flags(one)['task_name'] == 'SST-2'
