"""The command ``python -m bert.predict``: its answers, when it writes them, and what it refuses."""

import io
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from conftest import ROOT, write_finetuned

import bert.predict
import finetune_classifier
from bert.system.errors import ToolkitError, UsageError

LABELS = ['no', 'sí', 'who knows']
ROWS = [
    {'question': 'the cat saw a dog', 'answer': 'why ?', 'id': 7},
    ['it was a very good film', 'one man , two women'],
    {'answer': 'a ' * 30, 'question': 'xylophones are red'},
    ['', ''],
]
LINES = ''.join(f'{json.dumps(row)}\n' for row in ROWS).encode()
PAIRS = [tuple(row) if isinstance(row, list) else (row['question'], row['answer']) for row in ROWS]


@pytest.fixture(scope='module')
def model(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    flags = {'max_len': 24, 'text_columns': ['question', 'answer']}
    write_finetuned(folder / 'numbers', tiny_bert, None, flags)
    return write_finetuned(folder / 'classes', tiny_bert, LABELS, flags)


@pytest.fixture
def predict(monkeypatch, capsysbinary, root_logger):
    """Return a function that runs ``main`` here, and returns its output and the error."""

    def run(*flags, lines=LINES):
        monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(lines)))
        error = None
        try:
            bert.predict.main(list(map(str, flags)))
        except ToolkitError as caught:
            error = caught
        return capsysbinary.readouterr().out, error

    return run


def command(*arguments):
    return [sys.executable, '-W', 'ignore', '-m', 'bert.predict', *map(str, arguments)]


def answers(output):
    return list(map(json.loads, output.decode().splitlines()))


def test_answers_in_the_order_of_the_rows(model, predict):
    output, error = predict(model, lines=LINES + b'\n')
    assert error is None
    assert answers(output) == bert.predict.load(model)(PAIRS)
    assert '"label": "sí"' in output.decode()
    output, _ = predict(model.parent / 'numbers')
    numbers = bert.predict.load(model.parent / 'numbers')(PAIRS)
    assert answers(output) == [{'score': number} for number in numbers]
    assert predict(model, lines=b'') == (b'', None)


def test_files_columns_and_lengths(model, predict, tmp_path):
    rows = ''.join(f'{json.dumps({"a": one, "b": two})}\n' for one, two in PAIRS)
    (tmp_path / 'rows.jsonl').write_text(rows)
    path = tmp_path / 'answers.jsonl'
    path.write_text('an earlier file')
    flags = ['--input', tmp_path / 'rows.jsonl', '--output', path, '--text_columns', 'a', 'b']
    assert predict(model, *flags, '--max_len', 9, '--batch_size', 2) == (b'', None)
    assert answers(path.read_bytes()) == bert.predict.load(model, 9, batch_size=2)(PAIRS)
    assert answers(path.read_bytes()) != bert.predict.load(model)(PAIRS)
    assert sorted(os.listdir(tmp_path)) == ['answers.jsonl', 'rows.jsonl']


def test_an_error_comes_after_the_answers_of_the_rows_before_it(model, predict, tmp_path):
    expected = bert.predict.load(model, batch_size=1)(PAIRS * 20)
    for line, sentence in (
        (b'{"question": "a"}', "there is no column 'answer' among question"),
        (b'["a", 3]', 'neither a text, nor a list of texts, nor an object'),
        (b'\xff', 'not valid UTF-8'),
        (b'{', 'not JSON'),
    ):
        output, error = predict(model, '--batch_size', 1, lines=LINES * 20 + line + b'\n' + LINES)
        assert str(error) == f'standard input:81: {sentence}' and error.status == 1
        assert answers(output) == expected
    path = tmp_path / 'answers.jsonl'
    path.write_text('an earlier file')
    output, error = predict(model, '--output', path, lines=LINES + b'{')
    assert (output, str(error)) == (b'', 'standard input:5: not JSON')
    assert path.read_text() == 'an earlier file' and os.listdir(tmp_path) == ['answers.jsonl']


def test_what_is_refused(model, tiny_bert, predict, tmp_path):
    for flags, kind, sentence in (
        ([tiny_bert], ToolkitError, f'{tiny_bert}/model.safetensors: has no classifier: the model'),
        (['bert_12_768_12'], ToolkitError, 'bert_12_768_12 is pre-trained only'),
        (['no/such/model'], UsageError, 'there is no model directory no/such/model'),
        ([model, '--output', tmp_path], UsageError, f'--output {tmp_path} is a folder, not a file'),
        ([model, '--max_len', 4], UsageError, '4 tokens leave no room for text: at least 5'),
        ([model, '--text_columns', 'a'], UsageError, '--text_columns has 1 names, but the model'),
        ([model, '--dtype', 'float16'], UsageError, '--dtype float16 needs --gpu'),
    ):
        output, error = predict(*flags)
        assert output == b'' and type(error) is kind and str(error).startswith(sentence)


def test_answers_are_those_of_the_fine_tuning(tiny_bert, predict, tmp_path, root_logger):
    """What finetune_classifier.py predicts for its test file, whose rows this command can read."""
    labels = ['bad', 'good']
    rows = [
        {'review': f'{labels[i % 2]} film ' * (1 + i % 5), 'stars': labels[i % 2]}
        for i in range(24)
    ]
    path = tmp_path / 'rows.jsonl'
    path.write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
    flags = ['--train_file', path, '--test_file', path, '--text_columns', 'review']
    flags += ['--label_column', 'stars', '--bert_model', tiny_bert, '--max_len', 8]
    flags += ['--lr', '1e-2', '--epochs', 2, '--output_dir', tmp_path / 'run']
    finetune_classifier.main(list(map(str, flags)))
    text = (tmp_path / 'run' / 'rows_predictions.jsonl').read_text()
    predictions = [json.loads(line)['prediction'] for line in text.splitlines()]
    assert set(predictions) == set(labels)
    output, error = predict(tmp_path / 'run', lines=path.read_bytes())
    assert error is None and [each['label'] for each in answers(output)] == predictions


def test_a_pipe_gets_windows_and_may_close(model):
    """The first window is written once the second is read, while the input stays open."""
    with subprocess.Popen(
        command(model, '--batch_size', 1),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        late = threading.Timer(60, process.kill)  # so that a missing answer is not waited for
        late.start()
        process.stdin.write(LINES * 32)
        process.stdin.flush()
        first = [json.loads(process.stdout.readline()) for _ in range(64)]
        process.stdout.close()
        process.stdin.write(LINES * 32)
        process.stdin.close()
        stderr = process.stderr.read().decode()
        late.cancel()
    assert [each['label'] for each in first[:4]] == [each['label'] for each in first[-4:]]
    assert process.returncode == 1 and 'Traceback' not in stderr and 'wrote' not in stderr


@pytest.mark.parametrize('stream, flag', [('input', '<&-'), ('output', '>&-')])
def test_a_closed_stream(model, stream, flag):
    ran = subprocess.run(
        ['sh', '-c', f'"$@" {flag}', 'sh', *command(model)],
        cwd=ROOT,
        input=b'',
        stderr=subprocess.PIPE,
    )
    assert ran.returncode == 2
    assert ran.stderr.decode() == (
        f'predict.py: error: standard {stream} is closed: name an --{stream}\n'
    )


def test_a_signal_leaves_nothing(model, tmp_path):
    with subprocess.Popen(
        command(model, '--output', tmp_path / 'answers.jsonl'),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        # More than a pipe holds: when this is written, the program has begun.
        process.stdin.write((b'["a", "%s"]\n' % (b'x' * 4000)) * 80)
        process.stdin.flush()
        process.send_signal(signal.SIGTERM)
        *_, line = process.stderr.read().decode().splitlines()
    assert (process.returncode, line) == (143, 'predict.py: error: stopped by SIGTERM')
    assert os.listdir(tmp_path) == []
