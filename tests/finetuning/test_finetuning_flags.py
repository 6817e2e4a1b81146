"""The flags of fine-tuning: parsing them reads nothing, and each has its roles."""

import builtins
import json

import pytest

from bert.checkpoints import hub, zoo
from bert.finetuning.flags import fixed_flags, parse_args, recall, remembered_flags
from bert.finetuning.parser import build_flags
from bert.system.errors import ToolkitError, UsageError


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
    source = {'bert_model', 'vocab_file', 'pretrained_bert_parameters', 'model_parameters'}
    run = {'output_dir', 'resume', 'gpu', 'gpus'}
    assert found == {
        'remembered': {'task_name', 'max_len'} | described,
        'may_change': own
        | {'text'}
        | source
        | run
        | {'bert_dataset', 'cased', 'do_lower_case', 'kvstore', 'tensorboard', 'quiet'},
        'own': own | described | {'dev_share', 'text', 'probabilities'},
        'source': source,
        'model': source | {'bert_dataset'},
        'run': run | {'task_name', 'seed'},
        'indifferent': {'log_interval', 'dev_batch_size'},
        'unrecorded': {'tensorboard', 'quiet'},
        'added': {'vocab_file', 'dev_share', 'text', 'probabilities', 'class_weights'},
        'by_worker': {'gpus'},
    }


@pytest.mark.parametrize(('words', 'length'), [([], 64), (['--max_l', '16'], 16)])
def test_a_shortened_flag_overrides_what_the_model_remembers(words, length):
    argv = ['--only_inf', '--bert_mod', 'folder', *words]
    args = parse_args(argv)
    assert args.only_inference and args.task_name is None
    recalled = recall(argv, args, {'flags': {'task_name': 'RTE', 'max_len': 64}})
    assert (recalled.task_name, recalled.max_len) == ('RTE', length)


def test_for_another_task_only_the_length_is_remembered():
    argv = ['--only_inference', '--bert_model', 'folder', '--task_name', 'RTE']
    remembered = {'task_name': None, 'max_len': 64, 'text_columns': ['text'], 'regression': True}
    recalled = recall(argv, parse_args(argv), {'flags': remembered})
    assert (recalled.task_name, recalled.max_len) == ('RTE', 64)
    assert not recalled.text_columns and not recalled.regression


def test_sst_is_sst_2():
    """Both names mean the same run and model, and the flags in the log are those typed."""
    one, other = (parse_args(['--task', name]) for name in ('SST', 'SST-2'))
    assert (one.task_name, other.task_name) == ('SST', 'SST-2')
    assert fixed_flags(one) == fixed_flags(other)
    assert remembered_flags(one) == remembered_flags(other)
    assert remembered_flags(one)['task_name'] == 'SST-2'


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('max_len', None, 'it is not of the type of this flag'),
        ('max_len', [1], 'it is not of the type of this flag'),
        ('max_len', 7.5, "'7.5' is not a whole number from 1 to 2147483647"),
        ('max_len', -5, "'-5' is not a whole number from 1 to 2147483647"),
        ('max_len', True, 'it is not of the type of this flag'),
        ('max_len', '64', 'it is not of the type of this flag'),
        ('task_name', ['MRPC'], 'it is not of the type of this flag'),
        ('task_name', 'COLA', "'COLA' is not one of CoLA, SST-2, "),
        ('text_columns', 5, 'it is not a list'),
        ('text_columns', [], 'it is not a list'),
        ('text_columns', 'text', 'it is not a list'),
        ('text_columns', ['a', 5], 'it is not of the type of this flag'),
        ('label_column', ['a'], 'it is not of the type of this flag'),
        ('label_column', [], 'it is not a list'),
        ('label_column', ['a', 5], 'it is not of the type of this flag'),
        ('regression', 'yes', 'it is neither true nor false'),
        ('regression', 1, 'it is neither true nor false'),
        ('metric', ['accuracy', 'x'], "'x' is not one of accuracy, "),
        ('metric', 'f1', 'it is not a list'),
    ],
)
def test_what_a_model_remembers_is_checked_like_what_is_typed(name, value, reason):
    argv = ['--only_inference', '--bert_model', 'folder', '--test_file', 'new.csv']
    with pytest.raises(ToolkitError) as caught:
        recall(argv, parse_args(argv), {'flags': {'text_columns': ['text'], name: value}})
    start = f'folder: finetune.json says that {name} is {value!r}: {reason}'
    assert str(caught.value).startswith(start)


def test_one_column_with_labels_is_no_list():
    """Models and runs of earlier versions have it so."""
    for typed, value in (('c', 'c'), ('c d', ['c', 'd'])):
        args = parse_args(f'--train_file a.csv --text_columns a --label_column {typed}'.split())
        assert remembered_flags(args)['label_column'] == value
        argv = ['--only_inference', '--bert_model', 'folder', '--test_file', 'new.csv']
        remembered = {'text_columns': ['a'], 'label_column': value}
        recalled = recall(argv, parse_args(argv), {'flags': remembered})
        assert recalled.label_column == value


def test_everything_that_can_be_typed_is_remembered():
    typed = """--train_file a.csv --text_columns a b --label_column c --regression --max_len 7
        --metric pearsonr spearmanr""".split()
    remembered = json.loads(json.dumps(remembered_flags(parse_args(typed))))
    argv = ['--only_inference', '--bert_model', 'folder', '--test_file', 'new.csv']
    recalled = recall(argv, parse_args(argv), {'flags': remembered})
    assert remembered_flags(recalled) == {**remembered, 'task_name': None}
    assert recalled.text_columns == ['a', 'b'] and recalled.regression


def test_other_flags_are_not_taken_from_a_model():
    argv = ['--only_inference', '--bert_model', 'folder']
    flags = {'task_name': 'RTE', 'output_dir': '/', 'dev_batch_size': -5, 'resume': True, 'x': 1}
    recalled = recall(argv, parse_args(argv), {'flags': flags})
    assert vars(recalled) == {**vars(parse_args(argv)), 'task_name': 'RTE'}


def test_a_label_is_not_read_as_text():
    with pytest.raises(UsageError, match='^--label_column a is one of the --text_columns too$'):
        parse_args(['--train_file', 'a.csv', '--text_columns', 'b', 'a', '--label_column', 'a'])


OWN = '--train_file a.csv --text_columns a --label_column b'


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (
            f'{OWN} --dev_share 0.1 --dev_file b.csv',
            '--dev_share and --dev_file exclude each other',
        ),
        (f'{OWN} --early_stop 1', '--early_stop needs a --dev_file or a --dev_share'),
        ('--dev_share 0.1', '--dev_share goes with own data, such as --train_file'),
        (
            '--only_inference --bert_model m --test_file a.csv --dev_share 0.1',
            '--dev_share goes with training, not with --only_inference',
        ),
        (
            '--train_file hf:imdb --text_columns a --label_column b',
            'hf:imdb is not hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT',
        ),
        (
            '--only_inference --bert_model m --test_file hf:imdb',
            'hf:imdb is not hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT',
        ),
    ],
)
def test_a_dev_share_and_names_of_data_sets(words, sentence):
    with pytest.raises(UsageError) as caught:
        parse_args(words.split())
    assert str(caught.value) == sentence


@pytest.mark.parametrize('share', ['0', '1', '-0.1', 'nan', 'x'])
def test_a_share_that_is_none(share, capsys):
    with pytest.raises(SystemExit):
        parse_args([*OWN.split(), '--dev_share', share])
    sentence = f'argument --dev_share: {share!r} is not a number above 0 and below 1\n'
    assert capsys.readouterr().err.endswith(sentence)


def test_a_dev_share_is_enough_for_an_early_stop():
    assert parse_args([*OWN.split(), '--dev_share', '0.1', '--early_stop', '1']).dev_share == 0.1
