"""The command ``python -m bert.embed``: its output, its memory, and what it refuses."""

import io
import os
import pty
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, failure, run_here

import bert.embed
from bert.system.errors import UsageError

LINES = 'the cat saw a dog\none man\tthe woman said\n\nxylophones are red\n'
TEXTS = ['the cat saw a dog', ('one man', 'the woman said'), '', 'xylophones are red']


def command(*arguments):
    return [sys.executable, '-W', 'ignore', '-m', 'bert.embed', *map(str, arguments)]


@pytest.fixture
def run(monkeypatch, capsysbinary):
    """Return a function that runs the command in this process.

    It returns the status, what was written and the last line on stderr.
    """

    def run(*arguments, lines=LINES):
        data = lines if isinstance(lines, bytes) else lines.encode()
        monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(data)))
        status = run_here(bert.embed.main, [bert.embed.__file__, *arguments])
        output, errors = capsysbinary.readouterr()
        return status, output, errors.decode().splitlines()[-1]

    return run


@pytest.fixture(scope='module')
def vectors(tiny_bert):
    return bert.embed.load(tiny_bert)(TEXTS)


def test_a_pipe_and_a_file(tiny_bert, vectors, run, tmp_path):
    ran = subprocess.run(command(tiny_bert), cwd=ROOT, input=LINES.encode(), capture_output=True)
    output, line = ran.stdout, ran.stderr.decode().splitlines()[-1]
    assert (ran.returncode, line) == (0, 'INFO:root:wrote 4 x 16 numbers to standard output')
    with np.load(io.BytesIO(output)) as found:
        assert list(found) == ['vectors'] and found['vectors'].dtype == np.float32
        np.testing.assert_allclose(found['vectors'], vectors, rtol=1e-5, atol=1e-6)
    (tmp_path / 'lines.txt').write_text(LINES)
    path = tmp_path / 'vectors.npz'
    path.write_text('an earlier file')
    files = ('--input', tmp_path / 'lines.txt', '--output', path)
    status, nothing, line = run(tiny_bert, *files, lines='')
    assert (status, nothing, line) == (0, b'', f'INFO:root:wrote 4 x 16 numbers to {path}')
    assert sorted(os.listdir(tmp_path)) == ['lines.txt', 'vectors.npz']
    with np.load(path) as found, np.load(io.BytesIO(output)) as other:
        np.testing.assert_array_equal(found['vectors'], other['vectors'])


def test_all_tokens(tiny_bert, run):
    flags = ('--vectors', 'tokens', '--layers', '-1', '-2', '--max_len', 8, '--batch_size', 2)
    status, output, line = run(tiny_bert, *flags)
    assert status == 0
    expected = bert.embed.load(tiny_bert, 'tokens', [-1, -2], max_len=8)(TEXTS)
    with np.load(io.BytesIO(output)) as found:
        arrays = dict(found)
    assert line == f'INFO:root:wrote {sum(map(len, expected))} x 2 x 16 numbers to standard output'
    offsets = arrays['offsets']
    assert len(offsets) == len(TEXTS) + 1 and offsets[0] == 0
    tokens = arrays['vocabulary'][arrays['ids']]
    for row, array in enumerate(expected):
        part = slice(offsets[row], offsets[row + 1])
        np.testing.assert_allclose(arrays['vectors'][part], array, rtol=1e-5, atol=1e-6)
    assert tokens[offsets[1] : offsets[3]].tolist() == (
        '[CLS] one man [SEP] the woman said [SEP] [CLS] [SEP]'.split()
    )
    assert len(tokens) == offsets[-1] == len(arrays['ids']) == len(arrays['vectors'])


def test_what_is_cut_is_said(tiny_bert, tmp_path, capsys):
    (tmp_path / 'lines.txt').write_text(LINES)
    files = ['--input', tmp_path / 'lines.txt', '--output', tmp_path / 'vectors.npz']
    assert run_here(bert.embed.main, [bert.embed.__file__, tiny_bert, '--max_len', 6, *files]) == 0
    assert 'INFO:root:3 of 4 texts were cut to 6 tokens\n' in capsys.readouterr().err


@pytest.mark.parametrize(
    'lines, sentence',
    [
        ('', 'standard input: there are no lines'),
        (b'one\n\xff\xfe\n', 'standard input:2: not valid UTF-8'),
        (
            'a\tb\tc\n',
            'standard input:1: has 2 tabs; a line is one text, or two separated by a tab',
        ),
    ],
)
def test_lines_that_are_refused(tiny_bert, run, lines, sentence):
    assert run(tiny_bert, lines=lines) == (1, b'', f'embed.py: error: {sentence}')


def test_an_output_that_is_not_written(tiny_bert, run, tmp_path):
    """An earlier file stays whole, and nothing else is left."""
    path = tmp_path / 'vectors.npz'
    path.write_text('an earlier file')
    status, _, line = run(tiny_bert, '--output', path, lines=b'one\n\xff\n')
    assert (status, line) == (1, 'embed.py: error: standard input:2: not valid UTF-8')
    assert path.read_text() == 'an earlier file' and os.listdir(tmp_path) == ['vectors.npz']
    path = tmp_path / 'none' / 'vectors.npz'
    status, _, line = run(tiny_bert, '--output', path)
    assert (status, line) == (
        1,
        f'embed.py: error: {path.parent}: could not be written (No such file or directory)',
    )


def test_wrong_flags(tiny_bert, tmp_path):
    for flags, sentence in (
        (['no/such/model'], 'there is no model directory no/such/model'),
        ([tiny_bert, '--output', tmp_path], f'--output {tmp_path} is a folder, not a file'),
        ([tiny_bert, '--max_len', '4'], '4 tokens leave no room for a pair of texts: at least 5'),
        ([tiny_bert, '--layers', '7'], 'there is no layer 7: the model has 2, 1 to 2, or -1'),
    ):
        with pytest.raises(UsageError) as caught:
            bert.embed.main(list(map(str, [*flags, '--input', os.devnull])))
        assert str(caught.value).startswith(sentence)
    flags = [str(tiny_bert), '--input', os.devnull, '--dtype', 'float16']
    assert failure(bert.embed.main, flags).startswith('--dtype float16 needs --gpu')


@pytest.fixture(autouse=True)
def restored_logging(root_logger):
    pass


def test_missing_input(tiny_bert, run, tmp_path):
    status, _, line = run(tiny_bert, '--input', tmp_path / 'none')
    assert (status, line) == (1, f'embed.py: error: {tmp_path}/none: No such file or directory')


def test_a_terminal_is_no_place_for_vectors(tiny_bert):
    master, slave = pty.openpty()
    ran = subprocess.run(
        command(tiny_bert), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE
    )
    os.close(slave)
    os.close(master)
    assert ran.returncode == 2
    assert ran.stderr.decode() == (
        'embed.py: error: the vectors are not for a terminal: redirect standard output, or name '
        'an --output\n'
    )


def test_a_signal_leaves_nothing(tiny_bert, tmp_path):
    path = tmp_path / 'vectors.npz'
    with subprocess.Popen(
        command(tiny_bert, '--output', path),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        # More than a pipe holds: when this is written, the program has begun.
        process.stdin.write(b'one line\n' * 20000)
        process.stdin.flush()
        process.send_signal(signal.SIGTERM)
        *_, line = process.stderr.read().decode().splitlines()
    assert (process.returncode, line) == (143, 'embed.py: error: stopped by SIGTERM')
    assert os.listdir(tmp_path) == []


def test_memory_does_not_grow_with_the_lines(tiny_bert, tmp_path):
    """Ten times the lines, whose token vectors are 28 MB more, take less than 12 MB more."""
    code = (
        'import resource, sys\n'
        'from bert.embed import main\n'
        'from bert.finetuning import embedding\n'
        'embedding.MOST_RESULTS = 2**20\n'
        'main(sys.argv[1:])\n'
        'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n'
    )
    path = tmp_path / 'vectors.npz'
    flags = ('--vectors', 'tokens', '--batch_size', '64', '--output', path)
    peaks, sizes = [], []
    for count in (750, 7500):
        lines = (b'the cat saw a dog because it was there ' * 6 + b'\n') * count
        ran = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code, *map(str, (tiny_bert, *flags))],
            cwd=ROOT,
            input=lines,
            stdout=subprocess.PIPE,
            check=True,
        )
        peaks.append(int(ran.stdout) / 1024)
        sizes.append(path.stat().st_size / 2**20)
    assert sizes[1] - sizes[0] > 25
    assert peaks[1] - peaks[0] < 12, peaks
