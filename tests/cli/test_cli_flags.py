"""Flag types, the parser, and the choice of a dtype that the device supports."""

import argparse
import os

import pytest

from bert.cli import flags, spelling
from bert.system.errors import UsageError

# Beyond these a float overflows, and Python refuses to convert the digits.
HUGE = ['2147483648', '1000000000000', '9' * 400, '9' * 5000]


@pytest.mark.parametrize(
    ('kind', 'right', 'wrong'),
    [
        (flags.positive_int, {'1': 1, '32': 32}, ['0', '-1', '1.5', 'x', '', *HUGE]),
        (flags.natural, {'0': 0, '7': 7}, ['-1', '0.5', 'x', *HUGE]),
        (flags.seed, {'0': 0, '2147483647': 2**31 - 1}, ['-1', 'x', *HUGE]),
        (flags.integer, {'-12': -12, '12': 12}, ['-2147483648', '0.5', *HUGE]),
        (flags.count, {'1': 1, '1000000': 10**6}, ['0', '1000001', *HUGE]),
        (flags.process_count, {'1': 1, '1000': 1000}, ['0', '1001', *HUGE]),
        (flags.positive_float, {'2e-5': 2e-5, '1': 1.0}, ['0', '-1e-5', 'nan', 'inf', 'x']),
        (flags.fraction, {'0': 0.0, '0.1': 0.1}, ['1', '-0.1', 'nan', 'x']),
        (flags.gpu_list, {'0': [0], '2,0': [2, 0]}, ['', '0,', '0,0', '-1', 'a', '0 1']),
    ],
)
def test_number_types(kind, right, wrong):
    for text, value in right.items():
        assert kind(text) == value
    for text in wrong:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            kind(text)
        # The sentence repeats the value and says what is allowed.
        assert str(caught.value).startswith(f'{text!r} is not a')


def test_a_wrong_number_ends_with_status_2_and_names_the_flag(capsys):
    parser = flags.Parser('Test.')
    parser.add_argument('--epochs', type=flags.positive_int, default=3)
    with pytest.raises(SystemExit) as left:
        parser.parse_args(['--epochs', 'none'])
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert "argument --epochs: 'none' is not a whole number from 1 to 2147483647" in message


SHORTENED = ('--batch_size', '--bert_model', '--data', '--data_eval', '--do-eval', '--epochs')


def add_flags(parser):
    for name in SHORTENED:
        parser.add_argument(name)
    return parser


def outcome(parse, words, capsys):
    """Return the flags that were set, or the sentence of the usage error."""
    try:
        return {name: value for name, value in vars(parse(words)).items() if value}
    except SystemExit:
        return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('form', [['{}', '3'], ['{}=3'], ['--epochs', '1', '{}', '3']])
def test_flags_are_shortened_as_by_argparse(form, capsys):
    """Every beginning of every flag means the same, or fails with the same sentence."""
    ours = add_flags(flags.Parser('Test.', prog='test'))
    reference = add_flags(argparse.ArgumentParser(prog='test'))
    for short in {name[:end] for name in SHORTENED for end in range(3, len(name) + 1)}:
        words = [word.format(short) for word in form]
        expected = outcome(reference.parse_args, words, capsys)
        assert outcome(ours.parse_args, words, capsys) == expected
        if short == '--epoch':
            assert expected == {'epochs': '3'}
        if short == '--b':
            option = words[-1] if '=' in words[-1] else short
            assert expected == (
                f'test: error: ambiguous option: {option} could match --batch_size, --bert_model'
            )


def test_two_spellings_of_a_flag_are_not_ambiguous(capsys):
    parser = flags.Parser('Test.', prog='test')
    parser.flag(parser, '--by-token', '--by_token', action='store_true')
    parser.flag(parser, '--data')
    for word in ('--by', '--by-', '--by_t', '--by_token'):
        assert outcome(parser.parse_args, [word], capsys) == {'by_token': True}
    parser.add_argument('--bytes')
    ambiguous = 'test: error: ambiguous option: --by could match --by-token, --bytes'
    assert outcome(parser.parse_args, ['--by'], capsys) == ambiguous


def test_words_are_spelled_out():
    """An exact flag is never short for a longer one; the others count where no flag fits."""
    errors = []

    def spell_out(line):
        known = ['--epochs', '--epsilon', '--seeds', '--help']
        others = ['--seed', '--train_file']
        return ' '.join(spelling.spell_out(line.split(), known, others, errors.append))

    assert spell_out('--epo 3 --eps=1=2 -h x') == '--epochs 3 --epsilon=1=2 -h x'
    assert spell_out('--seed 3 --see 3 --tr x') == '--seed 3 --seeds 3 --train_file x'
    assert spell_out('--none 1 -- --') == '--none 1 -- --'
    assert errors == []
    spell_out('--ep=1')
    assert errors == ['ambiguous option: --ep=1 could match --epochs, --epsilon']


def all_parsers():
    """Return the parser of every program, by name."""
    import create_pretraining_data
    import glue
    from bert import cluster, embed, predict
    from bert.convert import __main__ as convert
    from bert.finetuning import parser as finetuning
    from bert.pretraining import flags as pretraining

    made = []

    class Recorded(flags.Parser):
        def parse_known_args(self, args=None, namespace=None):
            made.append(self)
            raise SystemExit

    for module in (create_pretraining_data, cluster, convert):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, 'Parser', Recorded)
            with pytest.raises(SystemExit):
                module.parse_args([])
    return [
        *made,
        glue.build_flags(),
        embed.build_flags(),
        predict.build_flags(),
        finetuning.build_flags(),
        pretraining.build_flags(),
    ]


def test_every_flag_with_a_number_refuses_absurd_ones(capsys):
    """No program reads a whole number without a limit."""
    numbers = 0
    for parser in all_parsers():
        for action in parser._actions:
            if action.type is None or not action.option_strings:
                continue
            assert action.type not in (int, float), action.dest
            with pytest.raises(SystemExit) as left:
                flags.Parser.parse_known_args(parser, [action.option_strings[-1], '9' * 400])
            assert left.value.code == 2, action.dest
            numbers += 1
    assert numbers > 40


def test_a_word_that_is_not_utf8_is_a_usage_error(capsys):
    """Python hands on the bytes of such a path as halves of surrogate pairs."""
    for parser in all_parsers():
        word = os.fsdecode(b'out\xff\x1b[2J')
        with pytest.raises(SystemExit) as left:
            flags.Parser.parse_known_args(parser, ['--output_dir', word])
        assert left.value.code == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.endswith(r": error: 'out\udcff\x1b[2J' is not valid UTF-8")


def test_errors_and_usage_are_escaped(capsys):
    parser = flags.Parser('Test.', prog='test')
    with pytest.raises(SystemExit):
        parser.parse_args(['a\x1b[2J\nforged: \u202e'])
    assert capsys.readouterr().err.splitlines()[1:] == [
        'test: error: unrecognized arguments: a\\x1b[2J\\nforged: \\u202e'
    ]


def test_values_that_a_flag_could_have():
    parser = flags.Parser('Test.')
    parser.flag(parser, '--max_len', type=flags.positive_int, default=128)
    parser.flag(parser, '--task', choices=['RTE', 'CoLA'])
    parser.flag(parser, '--columns', nargs='+')
    parser.flag(parser, '--metric', nargs='+', choices=['f1', 'mcc'])
    parser.flag(parser, '--raw', action='store_true')

    def accepts(name, value):
        try:
            return parser.check(name, value) == value
        except ValueError:
            return False

    right = {
        'max_len': [1, 128],
        'task': [None, 'RTE'],
        'columns': [None, ['-x', 'é']],
        'metric': [None, ['f1'], ['f1', 'mcc']],
        'raw': [True, False],
    }
    others = [0, 5.0, 'x', [], [5], {}, ['x', None], {'a': 1}, [['f1']], '9' * 400, 10**400]
    wrong = {
        'max_len': [None, True, '16', *(o for o in others if o != 1)],
        'task': [*others, True, ['RTE'], 'rte'],
        'columns': [o for o in [*others, True, 'é'] if o != ['x']],
        'metric': [*others, True, 'f1', ['f1', 'x']],
        'raw': [None, 'True', *others],
    }
    for name in right:
        assert all(accepts(name, value) for value in right[name]), name
        accepted = [value for value in wrong[name] if accepts(name, value)]
        assert accepted == [], name


def test_help_shows_defaults_but_no_empty_ones():
    parser = flags.Parser('Test.\n  Two lines.')
    parser.add_argument('--lr', default=5e-5, help='peak rate')
    parser.add_argument('--gpu', action='store_true', help='use it')
    parser.add_argument('--name', help='a name')
    parser.add_argument('--seed', default=0, help='a number')
    text = parser.format_help()
    assert 'Test.\n  Two lines.' in text
    assert 'peak rate (default: 5e-05)' in text
    assert 'a number (default: 0)' in text
    assert text.count('default') == 2


@pytest.mark.parametrize(
    ('dtype', 'on_gpu', 'instructions'),
    [
        ('float32', False, set()),
        ('float32', True, set()),
        ('float16', True, set()),
        ('bfloat16', False, {'avx512_bf16'}),
    ],
)
def test_a_type_that_the_device_has_is_taken(dtype, on_gpu, instructions):
    assert flags.check_dtype(dtype, on_gpu, instructions) is None


@pytest.mark.parametrize(
    ('dtype', 'on_gpu', 'sentence'),
    [
        ('float16', False, 'needs --gpu or --gpus: MXNet has no float16 on CPUs'),
        ('bfloat16', True, 'is for CPUs: MXNet has no bfloat16 on GPUs'),
        ('bfloat16', False, 'needs a processor with the instructions avx512_bf16'),
    ],
)
def test_a_type_that_the_device_lacks_is_refused(dtype, on_gpu, sentence):
    with pytest.raises(UsageError, match=f'--dtype {dtype} {sentence}'):
        flags.check_dtype(dtype, on_gpu, flags={'avx2', 'avx512f'})
