"""Labels and probabilities of texts, beside plain GluonNLP with its own tokenizer."""

import itertools
import json
import shutil
import threading
import time

import golden
import numpy as np
import pytest
from conftest import failure, write_finetuned

import bert.predict
from bert.checkpoints import reading, writing
from bert.checkpoints.source import locate
from bert.finetuning import inference
from bert.model import load_bert
from bert.system.errors import UsageError

import gluonnlp as nlp  # isort: skip
import mxnet as mx  # isort: skip

PAIRS = [
    ('the bank said no .', 'why ?'),
    ('it was a very good film because the actor was there', 'one man , two women and three dogs'),
    ('', 'b'),
    ('xylophones are red', 'c'),
    ('the cat saw a dog ' * 5, 'a long one ' * 9),
    ('a', 'a'),
    ('one two three', 'three two one'),
]
SINGLE = [first for first, _ in PAIRS]
LABELS = ['no', 'yes', 'não sei']
MAX_LEN = 24
KINDS = {
    'pairs': (LABELS, ['question', 'answer'], PAIRS),
    'single': (LABELS, ['review'], SINGLE),
    'numbers': (None, ['question', 'answer'], PAIRS),
}


@pytest.fixture(scope='module')
def models(tiny_bert, tmp_path_factory):
    """Return the folders of the models, by kind."""
    folder, made = tmp_path_factory.mktemp('models'), {}
    for kind, (labels, columns, _) in KINDS.items():
        flags = {'max_len': MAX_LEN, 'text_columns': columns}
        made[kind] = write_finetuned(folder / kind, tiny_bert, labels, flags)
    return made


def plain_outputs(folder, rows, tmp_path):
    """Run plain GluonNLP on each row by itself, padded to a length; return (N, classes)."""
    _, vocab = load_bert(str(folder))
    arrays = mx.nd.load(str(folder / 'model_bert_own_0.params'))
    arrays = {name.replace('regression', 'classifier'): array for name, array in arrays.items()}
    mx.nd.save(str(tmp_path / 'plain.params'), arrays)
    encoder = nlp.model.BERTEncoder(
        num_layers=2, units=16, hidden_size=32, num_heads=2, max_length=128, dropout=0.1
    )
    bert = nlp.model.BERTModel(
        encoder, len(vocab), 2, 16, 16, use_decoder=False, use_classifier=False
    )
    classes = len(arrays['classifier.1.bias'])
    model = nlp.model.BERTClassifier(bert, num_classes=classes, dropout=0.1)
    model.load_parameters(str(tmp_path / 'plain.params'))
    transform = nlp.data.BERTSentenceTransform(
        nlp.data.BERTTokenizer(vocab, lower=True), MAX_LEN, pair=not isinstance(rows[0], str)
    )
    outputs = []
    for row in rows:
        ids, length, types = transform((row,) if isinstance(row, str) else row)
        batch = [mx.nd.array([each]) for each in (ids, types)]
        outputs.append(model(*batch, mx.nd.array([length]))[0].asnumpy())
    return np.array(outputs, np.float64)


@pytest.mark.parametrize('kind', KINDS)
def test_answers_beside_plain_gluonnlp(models, kind, operators, tmp_path):
    labels, columns, rows = KINDS[kind]
    classify = bert.predict.load(models[kind], batch_size=2)
    assert classify.labels == labels and classify.columns == tuple(columns)
    assert classify.max_len == MAX_LEN
    found, outputs = classify(rows), plain_outputs(models[kind], rows, tmp_path)
    if labels is None:
        assert all(type(number) is float for number in found)
        np.testing.assert_allclose(found, outputs[:, 0], rtol=1e-4, atol=1e-5)
        return
    probabilities = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert [answer['label'] for answer in found] == [labels[i] for i in outputs.argmax(axis=1)]
    assert len({answer['label'] for answer in found}) > 1
    scores = [answer['score'] for answer in found]
    np.testing.assert_allclose(scores, probabilities.max(axis=1), rtol=1e-4)


def test_any_number_of_rows(models):
    """An endless iterator is answered in its order, and no more than two windows are read."""
    classify = bert.predict.load(models['pairs'], batch_size=1)
    read = []
    endless = (read.append(number) or PAIRS[number % 7] for number in itertools.count())
    expected = classify(PAIRS)
    for number, answer in enumerate(itertools.islice(classify.stream(endless), 200)):
        assert answer['label'] == expected[number % 7]['label']
        assert answer['score'] == pytest.approx(expected[number % 7]['score'], rel=1e-5)
        assert len(read) <= (number // classify.window_size + 2) * classify.window_size
    assert classify([]) == []


def in_threads(function, arguments):
    """Call a function in as many threads at once; return the results, or the errors."""
    results, barrier = [None] * len(arguments), threading.Barrier(len(arguments))

    def call(number):
        barrier.wait()
        try:
            results[number] = function(arguments[number])
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=call, args=[i]) for i in range(len(arguments))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_several_threads_get_the_answers_of_one(models):
    """From the first call on, in which MXNet builds the graph."""
    rng = np.random.default_rng(0)
    parts = [[PAIRS[i] for i in rng.integers(0, 7, 40)] for _ in range(4)]
    alone = bert.predict.load(models['pairs'], batch_size=2)
    expected = [alone(part) for part in parts]
    for _ in range(2):
        shared = bert.predict.load(models['pairs'], batch_size=2)
        assert in_threads(shared, parts) == expected
        assert in_threads(shared, parts) == expected


def test_one_thread_at_a_time_calls_the_model(models, monkeypatch):
    """MXNet does not say so, but mixes up the graphs that two threads build, if they meet."""
    predict, inside, seen = inference.predict, [], []

    def slowly(*args):
        inside.append(1)
        seen.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return predict(*args)

    monkeypatch.setattr(inference, 'predict', slowly)
    in_threads(bert.predict.load(models['pairs'], batch_size=2), [PAIRS] * 3)
    assert seen == [1] * 12


def test_converted_models_keep_their_labels(models, tmp_path):
    """Without finetune.json too, as another library leaves a model."""
    expected = bert.predict.load(models['pairs'])(PAIRS)
    tmp_path.joinpath('hf').mkdir()
    writing.write_huggingface(tmp_path / 'hf', reading.read(locate(str(models['pairs']))))
    classify = bert.predict.load(tmp_path / 'hf')
    assert classify(PAIRS) == expected and classify.sizes == (2,)
    (tmp_path / 'hf' / 'finetune.json').unlink()
    classify = bert.predict.load(tmp_path / 'hf', MAX_LEN)
    assert classify(PAIRS) == expected
    assert (classify.columns, classify.sizes) == (('text', 'text_pair'), (1, 2))
    assert len(classify(SINGLE)) == 7


@pytest.mark.parametrize(
    'name', [name for name in golden.NAMES if name.endswith(('classifier', 'regressor'))]
)
def test_models_of_other_libraries(name):
    """The outputs are those that the library computed when it wrote the model."""
    classify = bert.predict.load(golden.find(name))
    (ids, types, lengths), expected = golden.expected_outputs(golden.find(name))
    outputs = classify.model(*(mx.nd.array(array) for array in (ids, types, lengths))).asnumpy()
    np.testing.assert_allclose(outputs, expected['logits'].reshape(outputs.shape), atol=1e-5)
    assert (classify.labels is None) == name.endswith('regressor')
    assert len(classify(['a text'])) == 1


def with_flags(models, tmp_path, **content):
    """Return a copy of the model of pairs whose finetune.json has other entries."""
    folder = tmp_path / 'changed'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(models['pairs'], folder)
    path = folder / 'finetune.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
    return folder


def test_a_glue_task_says_how_many_texts_a_row_has(models, tmp_path):
    for task_name, sizes in (('MRPC', (2,)), ('SST', (1,)), ('XNLI-de', (2,))):
        folder = with_flags(models, tmp_path, flags={'task_name': task_name})
        classify = bert.predict.load(folder)
        assert (classify.columns, classify.sizes) == (('text', 'text_pair'), sizes)
        assert classify.max_len == 128


def test_what_is_refused(models, tiny_bert, tmp_path):
    load = bert.predict.load
    with pytest.raises(UsageError, match='a row has 1 texts, but the model takes 2'):
        load(models['pairs'])(['a text'])
    with pytest.raises(UsageError, match='a row has 2 texts, but the model takes 1'):
        load(models['single'])(PAIRS)
    with pytest.raises(TypeError):
        load(models['single'])('a text')
    with pytest.raises(TypeError):
        load(models['single'])([3])
    assert failure(load, tiny_bert) == (
        f'{tiny_bert}/model.safetensors: has no classifier: the model is not fine-tuned'
    )
    assert failure(load, 'bert_12_768_12').startswith('bert_12_768_12 is pre-trained only')
    assert failure(load, models['pairs'], 4) == '4 tokens leave no room for text: at least 5'
    assert failure(load, models['single'], 2) == '2 tokens leave no room for text: at least 3'
    assert failure(load, models['pairs'], 129) == (
        '129 tokens are more than the 128 positions of this model'
    )
    folder = with_flags(models, tmp_path, flags={'text_columns': 'question'})
    assert failure(load, folder).startswith(f'{folder}: finetune.json says that text_columns is')
    folder = with_flags(models, tmp_path, labels=[])
    assert failure(load, folder) == f'{folder}/finetune.json: labels is not a list of names'


def test_outputs_that_are_no_numbers(models):
    classify = bert.predict.load(models['pairs'])
    classify.model.classifier[-1].bias.set_data(mx.nd.array([0, np.nan, 0]))
    assert failure(classify, PAIRS) == 'an output of the model is not a finite number'
