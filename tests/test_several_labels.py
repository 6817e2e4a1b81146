"""Fine-tuning on rows with several labels, class weights, probabilities, and single answers."""

import csv
import json
import signal

import numpy as np
import pytest
from conftest import ROOT, failure, stop_at
from sklearn.metrics import f1_score

import bert.predict
import finetune_classifier
from bert.checkpoints import reading
from bert.checkpoints.source import locate
from bert.convert.__main__ import main as convert
from bert.finetuning import step
from bert.finetuning.flags import parse_args
from bert.model import build
from bert.system.errors import Stopped, ToolkitError, UsageError
from bert.tasks import files
from bert.training import update

import mxnet as mx  # isort: skip

pytestmark = pytest.mark.usefixtures('root_logger')

LABELS = ['animal', 'colour', 'place']
# What the first word says of a text.
SETS = {'red': [0, 0, 0], 'green': [1, 0, 0], 'blue': [1, 1, 0], 'dog': [0, 1, 1]}
OTHERS = 'the one two very really film city was were you'
SMALL = ['--lr', '2e-3', '--max_len', '16', '--log_interval', '1', '--batch_size', '8']


def finetune(output, *flags):
    return finetune_classifier.main(['--output_dir', str(output), *map(str, flags)])


def make_rows(count, seed):
    """Return texts, and for each a 1 or a 0 for each of LABELS."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(count):
        first, *others = rng.choice(list(SETS)), *rng.choice(OTHERS.split(), rng.integers(2, 6))
        rows.append((' '.join([first, *others]), SETS[first]))
    return rows


def write_csv(path, rows, with_labels=True):
    with open(path, 'w', encoding='utf8', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['words', *(LABELS if with_labels else [])])
        writer.writerows([text, *(has if with_labels else [])] for text, has in rows)
    return path


def write_lists(path, rows):
    with open(path, 'w', encoding='utf8') as file:
        for text, has in rows:
            names = [label for label, one in zip(LABELS, has) if one][::-1]
            file.write(json.dumps({'words': text, 'about': names}) + '\n')
    return path


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    for name, count, seed in (('train', 96, 1), ('dev', 20, 2), ('new', 7, 3)):
        write_csv(folder / f'{name}.csv', make_rows(count, seed), name != 'new')
        write_lists(folder / f'{name}.jsonl', make_rows(count, seed))
    return folder


COLUMNS = ['--text_columns', 'words', '--label_column', *LABELS]
LISTS = ['--text_columns', 'words', '--label_column', 'about']


def sets(data, extension='csv', names=('train', 'dev', 'test')):
    other = {'test': 'new'}
    return [
        word
        for name in names
        for word in (f'--{name}_file', data / f'{other.get(name, name)}.{extension}')
    ]


@pytest.fixture(scope='module')
def model(data, tiny_bert_without_dropout, tmp_path_factory):
    """Fine-tune on a column for each label; return the output directory and the result."""
    output = tmp_path_factory.mktemp('model') / 'out'
    flags = [*SMALL, '--bert_model', tiny_bert_without_dropout, '--epochs', '8', '--probabilities']
    metric = ['--metric', 'f1_micro', 'f1_macro', 'accuracy']
    return output, finetune(output, *flags, *COLUMNS, *sets(data), *metric)


def outputs_of(folder, name):
    with np.load(folder / 'outputs.npz') as arrays:
        return arrays[name]


def test_labels_are_learned_and_measured(model, data):
    """The metrics are those of scikit-learn for the outputs; the labels are learned."""
    output, result = model
    best = result['epochs'][result['best_epoch'] - 1]['dev']
    assert list(best) == ['f1_micro', 'f1_macro', 'accuracy']
    labels = np.array([has for _, has in make_rows(20, 2)])
    decided = outputs_of(output, 'dev') > 0
    assert best['f1_micro'] == f1_score(labels, decided, average='micro') > 0.8
    assert best['f1_macro'] == f1_score(labels, decided, average='macro')
    assert best['accuracy'] == (labels == decided).all(axis=1).mean()
    scores = [epoch['dev']['f1_micro'] for epoch in result['epochs']]
    assert result['best_epoch'] == 1 + scores.index(max(scores)) and len(set(scores)) > 1
    log = (output / 'finetune.log').read_text()
    assert f'validation metrics:f1_micro:{scores[0]:.4f},f1_macro:' in log
    assert '[Epoch 1 Batch 1/12] loss=' in log
    remembered = json.loads((output / 'finetune.json').read_text())
    assert remembered['problem_type'] == 'multi_label_classification'
    assert remembered['labels'] == remembered['flags']['label_column'] == LABELS


def test_predictions_and_probabilities(model, data):
    output, result = model
    assert result['test'] == ['new_predictions.csv']
    rows = [row.cells for row in files.read_rows(output / 'new_predictions.csv')]
    outputs = outputs_of(output, 'test').astype(np.float64)
    names = [f'{kind}_{label}' for kind in ('prediction', 'probability') for label in LABELS]
    assert list(rows[0]) == ['words', *names]
    for row, values in zip(rows, outputs):
        assert [row[f'prediction_{label}'] for label in LABELS] == [
            str(int(value > 0)) for value in values
        ]
        found = [float(row[f'probability_{label}']) for label in LABELS]
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-values)), atol=1e-6)
    assert len({row['prediction_animal'] for row in rows}) == 2


def test_lists_of_labels_equal_columns(model, data, tiny_bert_without_dropout, tmp_path):
    output, result = model
    flags = [*SMALL, '--bert_model', tiny_bert_without_dropout, '--epochs', '8', '--probabilities']
    metric = ['--metric', 'f1_micro', 'f1_macro', 'accuracy']
    lists = finetune(tmp_path / 'out', *flags, *LISTS, *sets(data, 'jsonl'), *metric)
    for epoch, other in zip(lists['epochs'], result['epochs']):
        assert epoch['dev'] == other['dev']
    np.testing.assert_array_equal(outputs_of(tmp_path / 'out', 'test'), outputs_of(output, 'test'))
    columns = files.read_rows(output / 'new_predictions.csv')
    for row, other in zip(files.read_rows(tmp_path / 'out' / 'new_predictions.jsonl'), columns):
        yes = [label for label in LABELS if other.cells[f'prediction_{label}'] == '1']
        assert row.cells['prediction'] == yes
        assert row.cells['probabilities'] == {
            label: float(other.cells[f'probability_{label}']) for label in LABELS
        }
    # A model of lists takes columns too, and the other way round.
    for folder, extension, columns in (
        (tmp_path / 'out', 'csv', COLUMNS),
        (output, 'jsonl', LISTS),
    ):
        flags = ['--only_inference', '--bert_model', folder, *columns[2:]]
        finetune(tmp_path / 'again', *flags, *sets(data, extension, ['dev']))
        np.testing.assert_array_equal(
            outputs_of(tmp_path / 'again', 'dev'), outputs_of(output, 'dev')
        )


def test_inference_from_the_output_directory_alone(model, data, tmp_path):
    output, result = model
    flags = ['--only_inference', '--bert_model', output, *sets(data, names=['dev', 'test'])]
    finetune(tmp_path / 'out', *flags, '--probabilities')
    name = 'new_predictions.csv'
    assert (tmp_path / 'out' / name).read_bytes() == (output / name).read_bytes()
    best = result['epochs'][result['best_epoch'] - 1]['dev']
    log = (tmp_path / 'out' / 'inference.log').read_text()
    assert f'validation metrics:f1_micro:{best["f1_micro"]:.4f},f1_macro:' in log
    finetune(tmp_path / 'out', *flags)
    assert 'probability' not in (tmp_path / 'out' / name).read_text()


def test_answers_of_all_ways_are_the_same(model, data, capsys, tmp_path):
    """Of bert.predict, --text and the file with probabilities; the most likely label first."""
    output, _ = model
    texts = [text for text, _ in make_rows(7, 3)]
    answers = bert.predict.load(output)(texts)
    rows = files.read_rows(output / 'new_predictions.csv')
    for answer, row in zip(answers, rows):
        scores = [each['score'] for each in answer]
        assert scores == sorted(scores, reverse=True)
        assert sorted(each['label'] for each in answer) == LABELS
        for each in answer:
            written = float(row.cells[f'probability_{each["label"]}'])
            assert each['score'] == pytest.approx(written, abs=1e-6)
            assert (each['score'] > 0.5) == (row.cells[f'prediction_{each["label"]}'] == '1')
    (tmp_path / 'lines').write_text(f'{json.dumps(texts[0])}\n')
    capsys.readouterr()
    bert.predict.main([str(output), '--input', str(tmp_path / 'lines')])
    line = capsys.readouterr().out
    found = finetune_classifier.main(
        ['--only_inference', '--bert_model', str(output), '--text', texts[0]]
    )
    assert capsys.readouterr().out == line
    assert found == json.loads(line)


@pytest.fixture
def no_dropout(monkeypatch):
    """Set dropout to 0 in the head too."""
    build_head = build.build_head
    monkeypatch.setattr(build, 'build_head', lambda *args: build_head(*args, dropout=0.0))


def write_classes(path, rows):
    """Write a label of two per row, one of which is rare."""
    names = ['rare' if has == [0, 1, 1] else 'common' for _, has in rows]
    path.write_text(
        ''.join(f'{t}\t{n}\n' for t, n in [('words', 'y'), *zip([r for r, _ in rows], names)])
    )
    return path


@pytest.fixture(scope='module')
def classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('classes')
    return [
        *('--train_file', write_classes(folder / 'train.tsv', make_rows(43, 1))),
        *('--dev_file', write_classes(folder / 'dev.tsv', make_rows(20, 2))),
        *('--text_columns', 'words', '--label_column', 'y', '--test_file', folder / 'dev.tsv'),
    ]


def lines_of(output):
    return [json.loads(line) for line in (output / 'metrics.jsonl').read_text().splitlines()]


def assert_equal_runs(one, other):
    lines, others = lines_of(one), lines_of(other)
    assert len(lines) == len(others) > 5
    for line, other_line in zip(lines, others):
        for name in ('loss', 'dev'):
            if name in line:
                assert line[name] == pytest.approx(other_line[name], rel=1e-4, abs=1e-5)
    np.testing.assert_allclose(outputs_of(one, 'test'), outputs_of(other, 'test'), atol=1e-4)


@pytest.mark.parametrize('kind', ['classes', 'several'])
def test_however_an_update_is_spread(
    data, classes, kind, tiny_bert_without_dropout, no_dropout, tmp_path, monkeypatch
):
    """Accumulated batches and two devices equal one batch, with weights, in a short update too."""
    task = classes if kind == 'classes' else [*COLUMNS, *sets(data)]
    flags = ['--bert_model', tiny_bert_without_dropout, *task, *SMALL, '--epsilon', '1e-4']
    flags += ['--epochs', '2', '--lr', '1e-3', '--class_weights', 'balanced']
    finetune(tmp_path / 'one', *flags, '--batch_size', '16')
    finetune(tmp_path / 'many', *flags, '--batch_size', '4', '--accumulate', '4')
    assert_equal_runs(tmp_path / 'one', tmp_path / 'many')
    monkeypatch.setattr(update, 'contexts', lambda gpus: [mx.cpu(0), mx.cpu(1)])
    finetune(tmp_path / 'two', *flags, '--batch_size', '8')
    assert_equal_runs(tmp_path / 'one', tmp_path / 'two')
    # The weights matter.
    monkeypatch.undo()
    finetune(tmp_path / 'equal', *flags[:-2], '--batch_size', '16')
    losses = [lines_of(tmp_path / name)[0]['loss'] for name in ('one', 'equal')]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_the_loss_in_the_log_is_the_weighted_mean(
    classes, tiny_bert_without_dropout, tmp_path, monkeypatch
):
    """With a rate that changes nothing, that of the outputs; worked out with plain NumPy."""
    found, gradients = [], step.gradients

    def keep(*args):
        computed = gradients(*args)
        found.extend((output.asnumpy(), labels) for _, output, labels, _ in computed)
        return computed

    monkeypatch.setattr(step, 'gradients', keep)
    flags = ['--bert_model', tiny_bert_without_dropout, *classes, *SMALL, '--lr', '1e-30']
    finetune(tmp_path, *flags, '--epochs', '1', '--class_weights', 'rare=5', '--log_interval', '3')
    outputs, labels = (np.concatenate(arrays) for arrays in zip(*found[:3]))
    weights = np.array([1, 5])[labels]
    odds = np.exp(outputs.astype(np.float64))
    losses = -np.log(odds[np.arange(24), labels] / odds.sum(axis=1))
    assert 0 < labels.sum() < 24
    line = lines_of(tmp_path)[0]
    assert line['loss'] == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-5)
    assert 'class weights: common:1.0000, rare:5.0000\n' in (tmp_path / 'finetune.log').read_text()


def test_glue_tasks_have_class_weights_too(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setenv('GLUE_DIR', str(ROOT / 'sample_glue'))
    flags = ['--bert_model', tiny_bert, '--training_steps', '1', '--max_len', '16']
    finetune(tmp_path / 'a', *flags, '--class_weights', '1=3', '0=2')
    assert 'class weights: 0:2.0000, 1:3.0000\n' in (tmp_path / 'a' / 'finetune.log').read_text()
    with pytest.raises(UsageError, match="^--class_weights: the label '2' is not one of 0, 1$"):
        finetune(tmp_path / 'a', *flags, '--class_weights', '2=3')
    assert (tmp_path / 'a' / 'finetune.json').is_file()


@pytest.mark.parametrize('kind', ['classes', 'several'])
def test_a_stopped_run_goes_on(data, classes, kind, tiny_bert, tmp_path, monkeypatch):
    """Stopped in the middle of an epoch and resumed, it has all bits of one run, with dropout."""
    task = classes if kind == 'classes' else [*LISTS, *sets(data, 'jsonl')]
    flags = ['--bert_model', tiny_bert, *task, *SMALL, '--epochs', '2', '--probabilities']
    flags += ['--log_interval', '3', '--class_weights', 'balanced']
    whole = finetune(tmp_path / 'whole', *flags)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 4, number=signal.SIGTERM)
        finetune(tmp_path / 'parts', *flags)
    with pytest.raises(
        UsageError, match=r"--class_weights was \['balanced'\] in .* and is None now"
    ):
        finetune(tmp_path / 'parts', *flags[:-2], '--resume')
    parts = finetune(tmp_path / 'parts', *flags, '--resume')
    assert parts['best_epoch'] == whole['best_epoch'] and parts['test'] == whole['test']
    for path in (tmp_path / 'whole').iterdir():
        if path.suffix in ('.params', '.npz', '.tsv', '.jsonl') and path.name != 'metrics.jsonl':
            assert path.read_bytes() == (tmp_path / 'parts' / path.name).read_bytes(), path.name
    losses = [[line.get('loss') for line in lines_of(tmp_path / n)] for n in ('whole', 'parts')]
    assert losses[0] == losses[1] and len(losses[0]) > 3


def test_a_run_older_than_a_flag_goes_on(classes, tiny_bert, tmp_path, monkeypatch):
    """What it does not say of the flag means that it was not given."""
    flags = ['--bert_model', tiny_bert, *classes, *SMALL, '--epochs', '1']
    finetune(tmp_path, *flags)
    content = json.loads((tmp_path / 'finetune.json').read_text())
    for name in ('probabilities', 'class_weights'):
        del content['run']['flags'][name]
    (tmp_path / 'finetune.json').write_text(json.dumps(content))
    assert finetune(tmp_path, *flags, '--resume')['best_epoch'] == 1
    with pytest.raises(UsageError, match='--probabilities was None in the run in .* and is True'):
        finetune(tmp_path, *flags, '--resume', '--probabilities')


# --- conversion


@pytest.mark.parametrize('kind', ['hf', 'gluon'])
def test_a_round_trip_keeps_the_meaning(model, kind, tmp_path, capsys):
    output, _ = model
    convert([str(output), str(tmp_path / kind), '--to', kind])
    assert 'a head with any of animal colour place' in capsys.readouterr().out
    config = json.loads((tmp_path / kind / 'config.json').read_text())
    assert config['problem_type'] == 'multi_label_classification'
    assert config['id2label'] == dict(zip('012', LABELS))
    texts = [text for text, _ in make_rows(7, 3)]
    expected = bert.predict.load(output)(texts)
    assert bert.predict.load(tmp_path / kind)(texts) == expected
    # As another library leaves it.
    (tmp_path / kind / 'finetune.json').unlink()
    assert bert.predict.load(tmp_path / kind, 16)(texts) == expected
    assert reading.read(locate(str(tmp_path / kind))).is_multilabel


def test_a_checkpoint_of_another_library(model, data, tmp_path, capsys):
    """Its config.json alone says that a row may have several labels."""
    output, result = model
    convert([str(output), str(tmp_path / 'hf'), '--to', 'hf'])
    (tmp_path / 'hf' / 'finetune.json').unlink()
    flags = ['--only_inference', '--bert_model', tmp_path / 'hf', *COLUMNS, '--max_len', '16']
    finetune(tmp_path / 'out', *flags, *sets(data, names=['dev', 'test']), '--probabilities')
    name = 'new_predictions.csv'
    assert (tmp_path / 'out' / name).read_bytes() == (output / name).read_bytes()
    best = result['epochs'][result['best_epoch'] - 1]['dev']
    log = (tmp_path / 'out' / 'inference.log').read_text()
    assert f'validation metrics:f1_micro:{best["f1_micro"]:.4f}\n' in log


@pytest.mark.parametrize(
    ('change', 'clause'),
    [
        ({'problem_type': 'regression'}, "problem_type is 'regression', which does not fit"),
        ({'problem_type': []}, 'problem_type is [], which does not fit'),
        ({'labels': None}, "problem_type is 'multi_label_classification', which does not fit"),
    ],
)
def test_a_model_that_contradicts_itself(model, tmp_path, change, clause):
    content = json.loads((model[0] / 'finetune.json').read_text())
    (tmp_path / 'finetune.json').write_text(json.dumps({**content, **change}))
    sentence = failure(reading.read_finetuned, tmp_path)
    assert sentence == f'{tmp_path}/finetune.json: {clause}'


def test_in_onnx_and_int8(model, data, tmp_path, capsys):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    output, _ = model
    check = ['--dtype', 'int8', '--check', str(data / 'dev.csv'), '--least_equal', '0.5']
    convert([str(output), str(tmp_path / 'onnx'), '--to', 'onnx', *check])
    assert 'of 20 answers are equal' in capsys.readouterr().out
    config = json.loads((tmp_path / 'onnx' / 'config.json').read_text())
    assert config['problem_type'] == 'multi_label_classification'


# --- single answers


def answer(capsys, folder, *texts):
    words = [word for text in texts for word in ('--text', text)]
    capsys.readouterr()
    finetune_classifier.main(['--only_inference', '--bert_model', str(folder), *words])
    return json.loads(capsys.readouterr().out)


def test_one_text(classes, tiny_bert, tmp_path, capsys, monkeypatch):
    finetune(tmp_path / 'run', '--bert_model', tiny_bert, *classes, *SMALL, '--epochs', '1')
    monkeypatch.chdir(tmp_path)
    for text in ('the dog', '', '- a dash', 'a very long one ' * 30):
        expected = bert.predict.load(tmp_path / 'run')([text])
        assert [answer(capsys, tmp_path / 'run', text)] == expected
    assert [path.name for path in tmp_path.iterdir()] == ['run']
    with pytest.raises(UsageError, match='^a row has 2 texts, but the model takes 1$'):
        answer(capsys, tmp_path / 'run', 'one', 'two')
    with pytest.raises(ToolkitError, match='has no classifier'):
        answer(capsys, tiny_bert, 'one')


def test_a_pair_and_a_number(tiny_bert, tmp_path, capsys):
    path = tmp_path / 'd.tsv'
    path.write_text('a\tb\ty\n' + ''.join(f'the dog\tcat {i}\t{i / 3}\n' for i in range(9)))
    flags = ['--train_file', path, '--text_columns', 'a', 'b', '--label_column', 'y']
    finetune(tmp_path / 'run', '--bert_model', tiny_bert, *flags, '--regression', '--epochs', '1')
    expected = bert.predict.load(tmp_path / 'run')([('the dog', 'cat 3')])
    assert [answer(capsys, tmp_path / 'run', 'the dog', 'cat 3')] == [{'score': expected[0]}]
    capital = answer(capsys, tmp_path / 'run', 'THE DOG', 'cat 3')
    assert capital == {'score': expected[0]}
    finetune_classifier.main(
        [
            *('--only_inference', '--bert_model', str(tmp_path / 'run'), '--cased'),
            *('--text', 'THE DOG', '--text', 'cat 3'),
        ]
    )
    assert json.loads(capsys.readouterr().out) != capital
    new = ['--only_inference', '--bert_model', tmp_path / 'run', '--test_file', path]
    with pytest.raises(UsageError, match='^--probabilities goes with labels, not with'):
        finetune(tmp_path / 'new', *new, '--probabilities')


# --- what is refused


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        ('--text a', '--text goes with --only_inference'),
        ('--only_inference --bert_model x --text a --text b --text c', '--text is given 3 times: '),
        *(
            (
                f'--only_inference --bert_model x --text a --{flag}',
                f'--text does not go with --{name}: ',
            )
            for flag, name in [
                ('test_file f', 'test_file'),
                ('dev_file f', 'dev_file'),
                ('task_name RTE', 'task_name'),
                ('text_columns a', 'text_columns'),
                ('label_column a', 'label_column'),
                ('regression', 'regression'),
                ('metric f1', 'metric'),
                ('probabilities', 'probabilities'),
                ('model_parameters y', 'model_parameters'),
                ('output_dir y', 'output_dir'),
                ('kvstore local', 'kvstore'),
            ]
        ),
        ('--only_inference --text a', '--only_inference needs --model_parameters, or a'),
        ('--text_columns a', '--text_columns goes with own data'),
        ('--probabilities', '--probabilities goes with own data'),
        ('--task_name RTE --probabilities', '--probabilities goes with own data'),
        ('OWN --label_column b --probabilities', '--probabilities needs a --test_file'),
        (
            'OWN --test_file t --label_column b --regression --probabilities',
            '--probabilities goes with labels, not with --regression',
        ),
        ('OWN --label_column b c --regression', '--regression takes one --label_column: '),
        ('OWN --label_column b c b', '--label_column names b twice'),
        ('OWN --label_column b a', '--label_column a is one of the --text_columns too'),
        (
            'OWN --label_column b --regression --class_weights balanced',
            '--class_weights goes with labels, not with --regression',
        ),
        ('--task_name STS-B --class_weights balanced', '--class_weights goes with classes, and in'),
        (
            '--only_inference --bert_model x --class_weights balanced',
            '--class_weights goes with training, not with --only_inference',
        ),
        ('--class_weights balanced a=1', '--class_weights balanced does not go with LABEL=WEIGHT'),
    ],
)
def test_flags_that_do_not_go_together(flags, sentence):
    flags = flags.replace('OWN', '--train_file d.csv --text_columns a')
    with pytest.raises(UsageError) as caught:
        parse_args(flags.split())
    assert str(caught.value).startswith(sentence)


def test_columns_that_a_model_does_not_have(model, data, tmp_path):
    output, _ = model
    flags = ['--only_inference', '--bert_model', output, *sets(data, names=['dev'])]
    with pytest.raises(UsageError, match='^the label columns animal, place are not the labels '):
        finetune(tmp_path / 'out', *flags, '--label_column', 'animal', 'place')
    with pytest.raises(UsageError, match='^the metric mcc does not fit: a row may have several'):
        finetune(tmp_path / 'out', *flags, '--metric', 'mcc')
    with pytest.raises(
        UsageError, match='^--task_name RTE: its rows have one label, and those of '
    ):
        finetune(tmp_path / 'out', *flags[:3], '--task_name', 'RTE')
    assert not (tmp_path / 'out').exists()
