"""Golden models converted to each kind and back, and conversions that must fail."""

import json
import re
import shutil
import subprocess
import sys

import golden
import mxnet as mx
import numpy as np
import pytest
from conftest import failure, parameters_of, write_tiny_bert
from huggingface_hub import ModelCard

from bert.checkpoints import cards, writing
from bert.convert import comparison, conversion, witnesses
from bert.convert.__main__ import main
from bert.model import load_bert, save_huggingface
from bert.pretraining.loss import finish_initialization
from bert.text.tokenizer import build_tokenizer, tokenize


def contents_of(folder):
    """Read the bytes of all files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def converted(tmp_path, capsys):
    """Return a function that converts, and returns the new folder and the differences."""
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


@pytest.mark.parametrize('name', golden.NAMES)
@pytest.mark.parametrize('kinds', [('gluon', 'hf', 'gluon'), ('hf', 'gluon', 'hf')])
def test_a_round_trip_changes_no_byte(name, kinds, converted):
    """This holds for every original kind of model and for every head."""
    folder, results = golden.find(name), []
    for kind in kinds:
        folder, differences = converted(folder, kind)
        assert max(differences.values()) < 1e-5
        results.append(contents_of(folder))
    assert results[0] == results[2]
    both = {'config.json', 'tokenizer_config.json', 'README.md'}
    names = {
        'gluon': {'model.params', 'vocab.vocab', *both},
        'hf': {
            'model.safetensors',
            'vocab.txt',
            'tokenizer.json',
            *both,
        },
    }
    for kind, files in zip(kinds, results):
        assert set(files) == names[kind]


def test_a_card_goes_with_the_model(tmp_path, capsys):
    """What it says of the training stays; the library and the examples are those of the kind."""
    folder = tmp_path / 'finetuned'
    shutil.copytree(golden.find('hf_classifier'), folder)
    facts = {'Flags': {'lr': 1e-3}}
    made = cards.Card('a', 'own/bert', ('own/data',), ('de',), 'mit', facts=facts)
    cards.write_card(folder, cards.format_card(made, cards.CLASSIFICATION, 'output'))
    for kind, library in [('hf', 'transformers'), ('gluon', 'gluonnlp')]:
        main([str(folder), str(tmp_path / kind), '--to', kind])
        assert cards.read_card(tmp_path / kind) == made
        data = ModelCard.load(tmp_path / kind / 'README.md').data
        assert (data.library_name, data.pipeline_tag) == (library, 'text-classification')
        folder = tmp_path / kind


@pytest.mark.parametrize(
    ('name', 'use'),
    [('hf_encoder', 'feature-extraction'), ('hf_pretraining', 'fill-mask')],
)
def test_the_card_of_a_model_without_one(name, use, tmp_path, capsys):
    main([str(golden.find(name)), str(tmp_path / 'x'), '--to', 'hf'])
    data = ModelCard.load(tmp_path / 'x' / 'README.md').data
    assert (data.pipeline_tag, data.license, data.model_name) == (use, 'unknown', name)
    # No path of this machine is in it.
    assert not re.search(r'/(?!huggingface|www)\w+/', (tmp_path / 'x' / 'README.md').read_text())


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
    if name not in expected:  # transformers' model keeps the pooled encodings to itself
        continue
    found, wanted = output.asnumpy(), expected[name]
    if found.ndim == 3:
        found, wanted = found[is_token], wanted[is_token]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-6)
assert 'bert' not in sys.modules
print(vocab.idx_to_token[:3])
"""


def test_plain_gluonnlp_reads_it_without_this_project(converted):
    target, _ = converted(golden.FOLDER / 'hf_pretraining', 'gluon')
    expected = golden.FOLDER / 'hf_pretraining' / 'expected.npz'
    alone = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', 'import mxnet'], capture_output=True
    )
    if alone.returncode:
        pytest.skip('MXNet cannot be imported without this project')
    command = [sys.executable, '-W', 'ignore', '-c', PLAIN, str(target), str(expected)]
    ran = subprocess.run(command, cwd=target, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, '')
    assert ran.stdout == "['[PAD]', '[UNK]', '[CLS]']\n"


@pytest.mark.parametrize('name', golden.NAMES)
def test_transformers_opens_it_without_a_warning(name, converted):
    """This runs in another process, with the classes that AutoModel… and AutoTokenizer choose."""
    pytest.importorskip('transformers')
    target, _ = converted(golden.find(name), 'hf')
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
    vocab = golden.read(target).vocab
    words = '[CLS] the bank said no . [SEP] why ? [SEP]'.split()
    assert json.loads(tokens) == [vocab[word] for word in words]
    if name == 'hf_classifier':
        assert labels == "{0: 'neutral', 1: 'yes', 2: 'no'}"


def test_long_words_and_accents_are_split_alike(tmp_path, capsys):
    """By default transformers' tokenizer gives up on a word of 150 letters."""
    transformers = pytest.importorskip('transformers')
    folder = write_tiny_bert(tmp_path / 'bert')
    main([str(folder), str(tmp_path / 'hf'), '--to', 'hf'])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    contents = golden.read(folder)
    ours = build_tokenizer(contents.vocab, contents.lower)
    for text in ('a' * 150, 'b' * 201, 'Die Züge in Übersee', 'x\u200by 中文 e\u0301', "don't"):
        expected = tokenize(ours, [text])[0].tolist()
        assert theirs(text, add_special_tokens=False)['input_ids'] == expected


def test_the_folder_of_a_pretraining(tmp_path, tiny_bert):
    """--ckpt_dir holds training states and, in the end, the model."""
    model, vocab = load_bert(str(tiny_bert), use_decoder=True, use_classifier=True)
    finish_initialization(model, mx.cpu())
    (tmp_path / 'ckpt').mkdir()
    model.save_parameters(str(tmp_path / 'ckpt' / '0000020.params'))
    save_huggingface(tmp_path / 'ckpt' / 'model', model, vocab, lower=True)
    target = tmp_path / 'target'
    differences = main([str(tmp_path / 'ckpt'), str(target), '--to', 'gluon'])
    assert set(differences) == {
        'last_hidden_state',
        'pooler_output',
        'seq_relationship_logits',
        'prediction_logits',
    }
    found = golden.read(target).weights.bert
    for name, array in parameters_of(model).items():
        np.testing.assert_array_equal(found[name], array)


@pytest.fixture
def damaged(monkeypatch):
    """Make the Gluon writer alter a number."""

    def write_wrong(folder, contents):
        changed = dict(contents.weights.bert)
        changed['pooler.bias'] = changed['pooler.bias'] + 0.01
        wrong = contents._replace(weights=contents.weights._replace(bert=changed))
        writing.write_gluon(folder, wrong)

    monkeypatch.setitem(conversion.KINDS, 'gluon', (write_wrong, witnesses.run_gluonnlp))


def test_a_result_that_is_another_model_is_not_kept(tmp_path, damaged):
    target = tmp_path / 'out'
    source = str(golden.FOLDER / 'hf_encoder')
    sentence = failure(main, [source, str(target), '--to', 'gluon'])
    assert sentence == f'{target} was not written: its tensors changed when read back'
    assert list(tmp_path.iterdir()) == []


def test_a_result_with_other_outputs_is_not_kept(tmp_path, damaged, monkeypatch):
    """Only the outputs of plain GluonNLP are compared here, not the tensors."""
    monkeypatch.setattr(comparison, 'require_equal', lambda *args: None)
    target = tmp_path / 'out'
    sentence = failure(main, [str(golden.FOLDER / 'hf_encoder'), str(target), '--to', 'gluon'])
    assert sentence.startswith(
        f'{target} was not written: GluonNLP 0.10.0 gets different outputs from it than this '
        'project (largest difference: last_hidden_state '
    )
    assert list(tmp_path.iterdir()) == []
