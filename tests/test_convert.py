"""Conversions: tiny models that the reference libraries wrote, in, out as each kind, and back.

Their weights and outputs are in tests/data/checkpoints, with the script that made them.
"""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, WORDS, failure, parameters_of, write_tiny_bert

import bert  # noqa: F401 (prepares for MXNet)
import finetune_classifier
from bert.checkpoints import reading, writing
from bert.checkpoints.contents import reorder
from bert.convert import __main__, comparison, conversion, onnx, witnesses
from bert.convert.__main__ import main
from bert.model import build, loading
from bert.pretraining import loss
from bert.system import errors
from bert.system.errors import UsageError
from bert.text import encoding
from bert.text import tokenizer as text_tokenizer
from bert.text.tokenizer import build_tokenizer, tokenize
from bert.text.vocab import Vocab
from bert.training import update

GOLDEN = Path(__file__).parent / 'data' / 'checkpoints'
NAMES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
# Those that need PyTorch or TensorFlow to be read.
NEEDS = {'hf_2018': 'torch', 'google': 'tensorflow'}


def golden(name):
    """The folder of a golden model, if it can be read here."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    return GOLDEN / name


def contents_of(folder):
    """The bytes of all files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- in


@pytest.mark.parametrize('name', NAMES)
def test_outputs_are_those_of_the_library_that_wrote_it(name):
    folder = golden(name)
    contents = reading.read(str(folder))
    expected = dict(np.load(folder / 'expected.npz'))
    batch = [expected.pop(key) for key in ('ids', 'types', 'lengths')]
    if name == 'hf_masked_lm':
        expected['prediction_logits'] = expected.pop('logits')
    found = witnesses.run_gluon(witnesses.build(contents), batch)
    # transformers' classifiers keep the pooled encodings to themselves.
    assert set(found) - set(expected) <= {'pooler_output'}
    for key, array in witnesses.blank_padding(expected, batch).items():
        np.testing.assert_allclose(found[key], array, rtol=1e-4, atol=2e-6, err_msg=key)
        assert np.ptp(array) > 0.1


@pytest.mark.parametrize('name', NAMES)
def test_load_bert_gives_them_too(name):
    folder = golden(name)
    expected = np.load(folder / 'expected.npz')
    ids, types, lengths = (update.mx.nd.array(expected[key]) for key in ('ids', 'types', 'lengths'))
    model, vocab = loading.load_bert(str(folder), use_pooler='pooler' not in name)
    encodings = model(ids, types, lengths)
    if 'pooler' not in name:
        encodings, _ = encodings
    is_token = np.arange(9) < expected['lengths'][:, None]
    np.testing.assert_allclose(
        encodings.asnumpy()[is_token],
        expected['last_hidden_state'][is_token],
        rtol=1e-4,
        atol=2e-6,
    )
    first = ['[UNK]', '[PAD]'] if name.startswith('gluon') else ['[PAD]', '[UNK]']
    assert vocab.idx_to_token[:2] == first
    assert len(vocab) == 18


def test_labels_and_kinds_of_heads():
    found = {
        name: reading.read(str(GOLDEN / name)).labels
        for name in NAMES
        if 'classifier' in name or 'regressor' in name
    }
    assert found == {
        'gluon_classifier': ['LABEL_0', 'LABEL_1', 'LABEL_2'],
        'gluon_classifier_without_dropout': ['LABEL_0', 'LABEL_1', 'LABEL_2'],
        'gluon_regressor': None,
        'hf_classifier': ['neutral', 'yes', 'no'],
        'hf_regressor': None,
    }


# --- out and back


@pytest.fixture
def converted(tmp_path, capsys):
    """A function that converts, and returns the new folder and the differences."""
    made = []

    def run(source, kind):
        target = tmp_path / f'{len(made)}_{kind}'
        made.append(target)
        differences = main([str(source), str(target), '--to', kind])
        printed = capsys.readouterr().out.splitlines()
        assert printed[0].startswith(f'{target}: 2 layers, 8 units, 18 tokens, ')
        assert printed[1].startswith('largest difference, this project and ')
        return target, differences

    return run


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kinds', [('gluon', 'hf', 'gluon'), ('hf', 'gluon', 'hf')])
def test_a_round_trip_changes_no_byte(name, kinds, converted):
    """From whatever a model was, and with whatever stands in for its head."""
    folder, results = golden(name), []
    for kind in kinds:
        folder, differences = converted(folder, kind)
        assert max(differences.values()) < 1e-5
        results.append(contents_of(folder))
    assert results[0] == results[2]
    names = {
        'gluon': {'model.params', 'vocab.vocab', 'config.json', 'tokenizer_config.json'},
        'hf': {
            'model.safetensors',
            'config.json',
            'vocab.txt',
            'tokenizer.json',
            'tokenizer_config.json',
        },
    }
    for kind, files in zip(kinds, results):
        assert set(files) == names[kind]


PLAIN = """
import sys
import numpy as np
if 'bool' not in vars(np):
    np.bool = np.bool_
import gluonnlp as nlp
import mxnet as mx

folder, expected = sys.argv[1], np.load(sys.argv[2])
vocab = nlp.vocab.BERTVocab.from_json(open(folder + '/vocab.vocab').read())
model, _ = nlp.model.get_model(
    'bert_12_768_12', dataset_name=None, vocab=vocab, pretrained=False, hparam_allow_override=True,
    num_layers=2, units=8, embed_size=8, hidden_size=12, num_heads=2, max_length=24,
)
model.load_parameters(folder + '/model.params')
inputs = [mx.nd.array(expected[name]) for name in ('ids', 'types', 'lengths')]
outputs = model(*inputs, mx.nd.array(np.tile(np.arange(9), (3, 1))))
names = ('last_hidden_state', 'pooler_output', 'seq_relationship_logits', 'prediction_logits')
is_token = np.arange(9) < expected['lengths'][:, None]
for name, output in zip(names, outputs):
    if name not in expected:  # the pooled encodings, which stay inside of transformers' model
        continue
    found, wanted = output.asnumpy(), expected[name]
    if found.ndim == 3:
        found, wanted = found[is_token], wanted[is_token]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-6)
assert 'bert' not in sys.modules
print(vocab.idx_to_token[:3])
"""


def test_plain_gluonnlp_reads_it_without_this_project(converted):
    target, _ = converted(GOLDEN / 'hf_pretraining', 'gluon')
    expected = GOLDEN / 'hf_pretraining' / 'expected.npz'
    command = [sys.executable, '-W', 'ignore', '-c', PLAIN, str(target), str(expected)]
    ran = subprocess.run(command, cwd=target, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, '')
    assert ran.stdout == "['[PAD]', '[UNK]', '[CLS]']\n"


@pytest.mark.parametrize('name', NAMES)
def test_onnx(name, converted):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    target, differences = converted(golden(name), 'onnx')
    assert set(differences) == {
        'hf_classifier': {'logits'},
        'gluon_classifier': {'logits'},
        'gluon_classifier_without_dropout': {'logits'},
        'hf_regressor': {'logits'},
        'gluon_regressor': {'logits'},
        'gluon_without_pooler': {'last_hidden_state'},
        'hf_encoder': {'last_hidden_state', 'pooler_output'},
        'gluon_encoder': {'last_hidden_state', 'pooler_output'},
        'hf_sharded': {'last_hidden_state', 'pooler_output'},
        'gluon_masked_lm': {'prediction_logits'},
        'hf_masked_lm': {'prediction_logits'},
        'gluon_next_sentence': {'seq_relationship_logits'},
    }.get(name, {'prediction_logits', 'seq_relationship_logits'})
    assert max(differences.values()) < 1e-5
    # Against the reference library itself, in its own batch.
    expected = np.load(GOLDEN / name / 'expected.npz')
    batch = [expected[key] for key in ('ids', 'types', 'lengths')]
    found = witnesses.blank_padding(onnx.run(target / 'model.onnx', *batch), batch)
    for key, array in found.items():
        key = 'logits' if name == 'hf_masked_lm' else key
        wanted = witnesses.blank_padding({key: expected[key]}, batch)[key]
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=5e-6, err_msg=key)


@pytest.mark.parametrize('name', NAMES)
def test_transformers_opens_it_without_a_word(name, converted):
    """In a process of its own, with the class that AutoModel… and AutoTokenizer choose."""
    pytest.importorskip('transformers')
    target, _ = converted(golden(name), 'hf')
    if name == 'gluon_without_pooler':
        pytest.skip('transformers says, rightly, that it makes up a pooler for this one')
    if name == 'gluon_masked_lm':
        pytest.skip('transformers has no masked LM with a pooler, and says that it leaves it out')
    architecture = json.loads((target / 'config.json').read_text())['architectures'][0]
    automatic = {
        'BertModel': 'AutoModel',
        'BertForPreTraining': 'AutoModelForPreTraining',
        'BertForMaskedLM': 'AutoModelForMaskedLM',
        'BertForNextSentencePrediction': 'AutoModelForNextSentencePrediction',
        'BertForSequenceClassification': 'AutoModelForSequenceClassification',
    }[architecture]
    code = (
        'import sys, transformers\n'
        'transformers.utils.logging.disable_progress_bar()\n'
        f'model = transformers.{automatic}.from_pretrained(sys.argv[1])\n'
        'tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])\n'
        'print(type(model).__name__, tokenizer.pad_token_id, tokenizer.model_max_length)\n'
        "print(tokenizer('the bank said no .', 'why ?')['input_ids'])\n"
        "print(model.config.id2label if 'Sequence' in sys.argv[2] else None)\n"
    )
    ran = subprocess.run(
        [sys.executable, '-c', code, str(target), automatic], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, '')
    kind, tokens, labels = ran.stdout.splitlines()
    assert kind == f'{architecture} {1 if name.startswith("gluon") else 0} 24'
    vocab = reading.read(str(target)).vocab
    words = '[CLS] the bank said no . [SEP] why ? [SEP]'.split()
    assert json.loads(tokens) == [vocab[word] for word in words]
    if name == 'hf_classifier':
        assert labels == "{0: 'neutral', 1: 'yes', 2: 'no'}"


def test_long_words_and_accents_are_split_alike(tmp_path, capsys):
    """A word of 150 letters is one that transformers' own tokenizer would give up on."""
    transformers = pytest.importorskip('transformers')
    folder = write_tiny_bert(tmp_path / 'bert')
    __main__.main([str(folder), str(tmp_path / 'hf'), '--to', 'hf'])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    contents = reading.read(str(folder))
    ours = build_tokenizer(contents.vocab, contents.lower)
    for text in ('a' * 150, 'b' * 201, 'Die Züge in Übersee', 'x\u200by 中文 e\u0301', "don't"):
        expected = tokenize(ours, [text])[0].tolist()
        assert theirs(text, add_special_tokens=False)['input_ids'] == expected


# --- refusals


@pytest.fixture
def damaged(monkeypatch):
    """Let the Gluon writer change one number."""

    def write_wrong(folder, contents):
        changed = dict(contents.weights.bert)
        changed['pooler.bias'] = changed['pooler.bias'] + 0.01
        wrong = contents._replace(weights=contents.weights._replace(bert=changed))
        writing.write_gluon(folder, wrong)

    monkeypatch.setitem(conversion.WRITERS, 'gluon', (write_wrong, witnesses.check_gluon))


def test_a_result_that_is_another_model_is_not_kept(tmp_path, damaged):
    target = tmp_path / 'out'
    source = str(GOLDEN / 'hf_encoder')
    sentence = failure(__main__.main, [source, str(target), '--to', 'gluon'])
    assert sentence == f'{target} was not written: its tensors did not come back'
    assert list(tmp_path.iterdir()) == []


def test_a_result_with_other_outputs_is_not_kept(tmp_path, damaged, monkeypatch):
    """The tensors are not looked at here, only what plain GluonNLP makes of them."""
    monkeypatch.setattr(comparison, 'require_equal', lambda *args: None)
    target = tmp_path / 'out'
    sentence = failure(__main__.main, [str(GOLDEN / 'hf_encoder'), str(target), '--to', 'gluon'])
    assert sentence.startswith(
        f'{target} was not written: GluonNLP 0.10.0 gets other outputs from it than this project '
        '(largest difference: last_hidden_state '
    )
    assert list(tmp_path.iterdir()) == []


def test_not_a_number_is_not_the_same():
    assert comparison.is_same(np.ones(3), np.ones(3))
    assert not comparison.is_same(np.full(3, np.nan), np.ones(3))
    assert not comparison.is_same(np.ones(2), np.ones(3))
    assert comparison.is_same(np.array([1000.01]), np.array([1000.0]))
    assert not comparison.is_same(np.array([0.01]), np.array([0.0]))


def test_a_target_that_is_there(tmp_path):
    (tmp_path / 'mine').write_text('work')
    with pytest.raises(UsageError) as caught:
        __main__.main([str(GOLDEN / 'hf_encoder'), str(tmp_path), '--to', 'gluon'])
    assert str(caught.value) == f'{tmp_path} is there already: TARGET is a new directory'
    assert (tmp_path / 'mine').read_text() == 'work'


def test_onnx_without_its_packages(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    sentence = failure(__main__.main, ['nowhere', str(tmp_path / 'out'), '--to', 'onnx'])
    assert sentence.startswith('--to onnx needs more packages (')
    assert sentence.endswith("): pip install '.[onnx]' in the toolkit's folder")


# --- comparing


def compare(capsys, *names):
    try:
        __main__.main(['--compare', *map(str, names)])
        sentence = None
    except errors.ToolkitError as error:
        sentence = str(error)
    return capsys.readouterr().out.splitlines(), sentence


def test_a_model_is_the_same_as_its_conversion(converted, capsys):
    source = GOLDEN / 'hf_pretraining'
    target, _ = converted(source, 'gluon')
    lines, sentence = compare(capsys, source, target)
    assert sentence is None
    assert lines[-1] == 'the same model'
    rows = [line.split() for line in lines[:-1]]
    assert all(row[2] == '0.0e+00' for row in rows)
    # 2 layers of 16, 3 embeddings and their norm, the pooler, 5 + 2 of the heads, 4 outputs
    assert len(rows) == 32 + 5 + 2 + 5 + 2 + 4
    assert ['word_embed.0.weight', '18x8', '0.0e+00'] in rows


def test_other_ids_of_the_same_tokens(tmp_path, capsys):
    """A model and the same one with its vocabulary in another order."""
    source = reading.read(str(GOLDEN / 'hf_pretraining'))
    order = Vocab(source.vocab.idx_to_token[::-1])
    (tmp_path / 'other').mkdir()
    writing.write_gluon(tmp_path / 'other', reorder(source, order))
    lines, sentence = compare(capsys, GOLDEN / 'hf_pretraining', tmp_path / 'other')
    assert sentence is None
    assert lines[0] == 'the same tokens have other ids: compared token by token'
    assert lines[-1] == 'the same model'
    ours, theirs = (
        reading.read(str(f)).weights.bert['word_embed.0.weight']
        for f in (GOLDEN / 'hf_pretraining', tmp_path / 'other')
    )
    np.testing.assert_array_equal(ours[::-1], theirs)


def test_models_that_differ(tmp_path, capsys):
    source = reading.read(str(GOLDEN / 'hf_pretraining'))
    changed = {**source.weights.bert}
    del changed['classifier.weight'], changed['classifier.bias']
    changed['pooler.bias'] = changed['pooler.bias'] + 0.5
    (tmp_path / 'other').mkdir()
    writing.write_gluon(
        tmp_path / 'other', source._replace(weights=source.weights._replace(bert=changed))
    )
    lines, sentence = compare(capsys, GOLDEN / 'hf_pretraining', tmp_path / 'other')
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows['pooler.bias'] == ['8', '5.0e-01']
    assert rows['classifier.bias'] == ['2', 'only', 'in', str(GOLDEN / 'hf_pretraining')]
    assert rows['encoder.position_weight'] == ['24x8', '0.0e+00']
    assert sentence.startswith(f'{GOLDEN / "hf_pretraining"} and {tmp_path / "other"} differ: ')
    assert 'classifier.bias is only in ' in sentence


def test_models_of_other_sizes(capsys):
    lines, sentence = compare(capsys, GOLDEN / 'hf_encoder', GOLDEN / 'hf_classifier')
    assert lines[0].split() == ['activation', 'approx_gelu', 'and', 'gelu']
    assert 'activation' in sentence


# --- the command


def test_the_command_and_its_one_sentence(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'bert.convert', *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    target = tmp_path / 'out'
    ran = run(str(GOLDEN / 'hf_classifier'), str(target), '--to', 'gluon')
    assert (ran.returncode, ran.stderr) == (0, '')
    assert ran.stdout.splitlines()[0] == (
        f'{target}: 2 layers, 8 units, 18 tokens, 39 tensors, a head with neutral yes no'
    )
    ran = run('--help')
    assert ran.stdout.startswith('usage: python -m bert.convert [-h] ')
    ran = run('no/such/folder', str(tmp_path / 'other'), '--to', 'gluon')
    assert ran.returncode == 2
    assert ran.stderr == 'convert.py: error: there is no model directory no/such/folder\n'
    ran = run(str(target), str(tmp_path / 'other'))
    assert ran.returncode == 2
    assert 'one of the arguments --to --compare is required' in ran.stderr


# --- what the scripts make of it


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    """Labelled pairs in a file of one's own, and the flags for it."""
    path = tmp_path_factory.mktemp('texts') / 'pairs.csv'
    rows = ['question,answer,good,score']
    for number in range(12):
        words = WORDS.split()[number:]
        rows.append(f'{words[0]} {words[9]},{words[3]},{["no", "yes"][number % 2]},{number / 2}')
    path.write_text('\n'.join(rows) + '\n')
    return path, ['--text_columns', 'question', 'answer', '--max_len', '16']


def finetune(output, *flags):
    """Run the script here, and give the root logger its handlers back."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    try:
        finetune_classifier.main(['--output_dir', str(output), *map(str, flags)])
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    return output


def predictions(output):
    """What the script wrote beside the rows of the file."""
    return (output / 'pairs_predictions.csv').read_text()


@pytest.fixture(scope='module', params=['classifier', 'regressor'])
def trained(request, texts, tiny_bert, tmp_path_factory):
    """An output directory of the script on own data."""
    path, columns = texts
    kind = {
        'classifier': ['--label_column', 'good'],
        'regressor': ['--label_column', 'score', '--regression'],
    }[request.param]
    return finetune(
        tmp_path_factory.mktemp('trained') / request.param,
        *('--bert_model', tiny_bert, '--train_file', path, '--test_file', path, *columns, *kind),
        *('--training_steps', 4, '--batch_size', 4, '--lr', '1e-2'),
    )


@pytest.mark.parametrize('kind', ['gluon', 'hf'])
def test_a_finetuned_model_predicts_the_same_in_its_new_place(trained, kind, texts, tmp_path):
    """The new directory alone knows task, labels and casing, under either flag."""
    path, _ = texts
    target = tmp_path / 'target'
    __main__.main([str(trained), str(target), '--to', kind])
    config = json.loads((target / 'config.json').read_text())
    if trained.name == 'classifier':
        assert config['id2label'] == {'0': 'no', '1': 'yes'}
        assert len(set(predictions(trained).split())) > 2
    else:
        assert config['problem_type'] == 'regression'
    again = finetune(
        tmp_path / 'a', '--only_inference', '--bert_model', target, '--test_file', path
    )
    assert predictions(again) == predictions(trained)
    again = finetune(
        *(tmp_path / 'b', '--only_inference', '--bert_model', target, '--test_file', path),
        *('--model_parameters', target),
    )
    assert predictions(again) == predictions(trained)


def test_predictions_of_a_classifier_that_transformers_made(texts, tmp_path):
    """It remembers its labels, though not the columns."""
    path, columns = texts
    folder = GOLDEN / 'hf_classifier'
    flags = ['--only_inference', '--bert_model', folder, '--test_file', path]
    output = finetune(tmp_path, *flags, *columns)
    rows = [row.split(',') for row in predictions(output).splitlines()[1:]]
    contents = reading.read(str(folder))
    tokenizer = text_tokenizer.build_tokenizer(contents.vocab, contents.lower)
    pairs = [row[:2] for row in rows]
    encoded = encoding.encode(pairs, tokenizer, contents.vocab, 16)
    batch = encoding.pad_batch(encoded, np.arange(len(rows)))
    logits = witnesses.run_gluon(witnesses.build(contents), batch)['logits']
    expected = [['neutral', 'yes', 'no'][i] for i in logits.argmax(axis=1)]
    assert [row[-1] for row in rows] == expected


def test_classes_in_another_order_are_put_into_that_of_the_task(caplog):
    folder = str(GOLDEN / 'hf_classifier')
    expected = np.load(GOLDEN / 'hf_classifier' / 'expected.npz')
    batch = [expected[key] for key in ('ids', 'types', 'lengths')]

    def logits(labels):
        encoder, _ = loading.load_bert(folder)
        model = build.build_head(encoder, 3, None)
        with caplog.at_level('INFO'):
            loading.load_finetuned(model, folder, labels)
        return witnesses.run_gluon(model, batch)['logits']

    close = {'rtol': 1e-4, 'atol': 2e-6}
    np.testing.assert_allclose(
        logits(('yes', 'no', 'neutral')), expected['logits'][:, [1, 2, 0]], **close
    )
    assert 'classes' not in caplog.text
    np.testing.assert_allclose(logits(('a', 'b', 'c')), expected['logits'], **close)
    assert 'takes its classes neutral as a, yes as b, no as c' in caplog.text


def test_other_encoder_weights_with_their_vocabulary(texts, tiny_bert, tmp_path):
    """A directory under --pretrained_bert_parameters equals the same one under --bert_model."""
    path, columns = texts
    flags = ['--train_file', path, *columns, '--label_column', 'good', '--training_steps', '2']
    other = str(GOLDEN / 'gluon_encoder')
    a = finetune(tmp_path / 'a', '--bert_model', other, *flags)
    b = finetune(
        tmp_path / 'b', '--bert_model', tiny_bert, '--pretrained_bert_parameters', other, *flags
    )
    name = 'model_bert_own_0.params'
    assert (a / name).read_bytes() == (b / name).read_bytes()
    assert (a / 'vocab.txt').read_text().startswith('[UNK]\n[PAD]\n')


def test_a_file_that_goes_with_another_vocabulary(texts, tiny_bert, tmp_path):
    path, columns = texts
    folder = GOLDEN / 'gluon_encoder'
    sentence = failure(
        finetune,
        *(tmp_path, '--bert_model', tiny_bert, '--train_file', path, *columns),
        *('--label_column', 'good', '--pretrained_bert_parameters', folder / 'tiny.params'),
    )
    assert sentence == (
        f'{folder}/tiny.params: goes with {folder}/tiny.vocab, which is not the vocabulary of the '
        'other model: name the folder in place of the file'
    )


@pytest.mark.parametrize('name', ['gluon_encoder', 'bert_12_768_12'])
def test_model_parameters_without_a_classifier(name, texts, tiny_bert, tmp_path):
    path, columns = texts
    source = name if name.startswith('bert') else GOLDEN / name
    sentence = failure(
        finetune,
        *(tmp_path, '--bert_model', tiny_bert, '--train_file', path, *columns),
        *('--label_column', 'good', '--model_parameters', source),
    )
    if name == 'bert_12_768_12':
        assert sentence == '--model_parameters bert_12_768_12: it has no classifier'
    else:
        assert sentence == f'{source}/tiny.params: lacks classifier.1.weight, classifier.1.bias'


def test_the_folder_of_a_pretraining(tmp_path, tiny_bert):
    """--ckpt_dir holds checkpoints and, in the end, the model."""
    model, vocab = loading.load_bert(str(tiny_bert), use_decoder=True, use_classifier=True)
    loss.finish_initialization(model, update.mx.cpu())
    (tmp_path / 'ckpt').mkdir()
    model.save_parameters(str(tmp_path / 'ckpt' / '0000020.params'))
    loading.save_huggingface(tmp_path / 'ckpt' / 'model', model, vocab, lower=True)
    target = tmp_path / 'target'
    differences = __main__.main([str(tmp_path / 'ckpt'), str(target), '--to', 'gluon'])
    assert set(differences) == {
        'last_hidden_state',
        'pooler_output',
        'seq_relationship_logits',
        'prediction_logits',
    }
    found = reading.read(str(target)).weights.bert
    for name, array in parameters_of(model).items():
        np.testing.assert_array_equal(found[name], array)
