"""Models from other libraries or conversions: loading, fine-tuning and predicting."""

import json
import logging

import golden
import numpy as np
import pytest
from conftest import WORDS, failure

import finetune_classifier
from bert.convert import witnesses
from bert.convert.__main__ import main
from bert.model import build_head, load_bert, outputs
from bert.model.parameters import set_finetuned
from bert.text.encoding import encode, pad_batch
from bert.text.tokenizer import build_tokenizer


@pytest.mark.parametrize('name', golden.NAMES)
def test_load_bert_gives_the_encodings_of_the_library_that_wrote_it(name):
    folder = golden.find(name)
    batch, expected = golden.expected_outputs(folder)
    model, vocab = load_bert(str(folder), use_pooler='pooler' not in name)
    encodings = outputs.run(model, batch)['last_hidden_state']
    is_token = np.arange(9) < batch[2][:, None]
    np.testing.assert_allclose(
        encodings[is_token], expected['last_hidden_state'][is_token], rtol=1e-4, atol=2e-6
    )
    first = ['[UNK]', '[PAD]'] if name.startswith('gluon') else ['[PAD]', '[UNK]']
    assert vocab.idx_to_token[:2] == first
    assert len(vocab) == 18


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    """Return a file with labelled pairs, and the flags for it."""
    path = tmp_path_factory.mktemp('texts') / 'pairs.csv'
    rows = ['question,answer,good,score']
    for number in range(12):
        words = WORDS.split()[number:]
        rows.append(f'{words[0]} {words[9]},{words[3]},{["no", "yes"][number % 2]},{number / 2}')
    path.write_text('\n'.join(rows) + '\n')
    return path, ['--text_columns', 'question', 'answer', '--max_len', '16']


def finetune(output, *flags):
    """Run the script in this process, and restore the handlers of the root logger."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    try:
        finetune_classifier.main(['--output_dir', str(output), *map(str, flags)])
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    return output


def predictions(output):
    """Read the predictions that the script wrote beside the rows of the file."""
    return (output / 'pairs_predictions.csv').read_text()


@pytest.fixture(scope='module', params=['classifier', 'regressor'])
def trained(request, texts, tiny_bert, tmp_path_factory):
    """Return an output directory of the script, trained on own data."""
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
    """The new directory suffices to know task, labels and casing, under either flag."""
    path, _ = texts
    target = tmp_path / 'target'
    main([str(trained), str(target), '--to', kind])
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
    """The classifier remembers its labels, but not the columns."""
    path, columns = texts
    folder = golden.FOLDER / 'hf_classifier'
    flags = ['--only_inference', '--bert_model', folder, '--test_file', path]
    output = finetune(tmp_path, *flags, *columns)
    rows = [row.split(',') for row in predictions(output).splitlines()[1:]]
    contents = golden.read(folder)
    tokenizer = build_tokenizer(contents.vocab, contents.lower)
    encoded = encode([row[:2] for row in rows], tokenizer, contents.vocab, 16)
    batch = pad_batch(encoded, np.arange(len(rows)))
    logits = witnesses.run_gluon(witnesses.build(contents), batch)['logits']
    expected = [['neutral', 'yes', 'no'][i] for i in logits.argmax(axis=1)]
    assert [row[-1] for row in rows] == expected


def test_classes_in_another_order_are_put_into_that_of_the_task(caplog):
    folder = golden.FOLDER / 'hf_classifier'
    contents = golden.read(folder)
    batch, expected = golden.expected_outputs(folder)

    def logits(wanted):
        bert, _ = load_bert(str(folder))
        model = build_head(bert, 3, None)
        with caplog.at_level('INFO'):
            set_finetuned(model, contents.weights, contents.labels, wanted)
        return outputs.run(model, batch)['logits']

    close = {'rtol': 1e-4, 'atol': 2e-6}
    np.testing.assert_allclose(
        logits(('yes', 'no', 'neutral')), expected['logits'][:, [1, 2, 0]], **close
    )
    assert 'classes' not in caplog.text
    np.testing.assert_allclose(logits(('a', 'b', 'c')), expected['logits'], **close)
    assert 'takes its classes neutral as a, yes as b, no as c' in caplog.text


def test_other_encoder_weights_with_their_vocabulary(texts, tiny_bert, tmp_path):
    """A directory has the same effect under --pretrained_bert_parameters as under --bert_model."""
    path, columns = texts
    flags = ['--train_file', path, *columns, '--label_column', 'good', '--training_steps', '2']
    other = str(golden.FOLDER / 'gluon_encoder')
    a = finetune(tmp_path / 'a', '--bert_model', other, *flags)
    b = finetune(
        tmp_path / 'b', '--bert_model', tiny_bert, '--pretrained_bert_parameters', other, *flags
    )
    name = 'model_bert_own_0.params'
    assert (a / name).read_bytes() == (b / name).read_bytes()
    assert (a / 'vocab.txt').read_text().startswith('[UNK]\n[PAD]\n')


def test_a_file_that_goes_with_another_vocabulary(texts, tiny_bert, tmp_path):
    path, columns = texts
    folder = golden.FOLDER / 'gluon_encoder'
    sentence = failure(
        finetune,
        *(tmp_path, '--bert_model', tiny_bert, '--train_file', path, *columns),
        *('--label_column', 'good', '--pretrained_bert_parameters', folder / 'tiny.params'),
    )
    assert sentence == (
        f'{folder}/tiny.params: goes with {folder}/tiny.vocab, which is not the vocabulary of the '
        'other model: name the folder instead of the file'
    )


@pytest.mark.parametrize('name', ['gluon_encoder', 'bert_12_768_12'])
def test_model_parameters_without_a_classifier(name, texts, tiny_bert, tmp_path):
    path, columns = texts
    source = name if name.startswith('bert') else golden.FOLDER / name
    sentence = failure(
        finetune,
        *(tmp_path, '--bert_model', tiny_bert, '--train_file', path, *columns),
        *('--label_column', 'good', '--model_parameters', source),
    )
    if name == 'bert_12_768_12':
        assert sentence == '--model_parameters bert_12_768_12: it has no classifier'
    else:
        assert sentence == f'{source}/tiny.params: lacks classifier.1.weight, classifier.1.bias'
