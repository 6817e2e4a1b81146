"""Flag types, the parser, and the choice of a dtype that the device supports."""

import argparse

import pytest

from bert.cli import flags
from bert.system.errors import UsageError


@pytest.mark.parametrize(
    ('kind', 'right', 'wrong'),
    [
        (flags.positive_int, {'1': 1, '32': 32}, ['0', '-1', '1.5', 'x', '']),
        (flags.natural, {'0': 0, '7': 7}, ['-1', '0.5', 'x']),
        (flags.seed, {'0': 0, '2147483647': 2**31 - 1}, ['-1', '2147483648', 'x']),
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
    assert "argument --epochs: 'none' is not a whole number of at least 1" in message


def test_flags_are_not_abbreviated():
    parser = flags.Parser('Test.')
    parser.add_argument('--epochs', type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(['--epoch', '3'])


def test_help_shows_defaults_but_no_empty_ones():
    parser = flags.Parser('Test.\n  Two lines.')
    parser.add_argument('--lr', default=5e-5, help='peak rate')
    parser.add_argument('--gpu', action='store_true', help='use it')
    parser.add_argument('--name', help='a name')
    text = parser.format_help()
    assert 'Test.\n  Two lines.' in text
    assert 'peak rate (default: 5e-05)' in text
    assert text.count('default') == 1


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
