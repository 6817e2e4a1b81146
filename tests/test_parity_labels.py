"""Losses with weights and several labels, and the answers of a pipeline, in PyTorch."""

import json

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from conftest import write_finetuned

import bert.predict
from bert.checkpoints import reading, writing
from bert.checkpoints.source import locate
from bert.finetuning.step import loss_of

import mxnet as mx  # isort: skip

LABELS = ['one', 'two', 'three']
TEXTS = ['the cat saw a dog', 'it was a very good film', 'xylophones are red', 'no']
WEIGHTS = np.array([0.5, 2.5, 1.25], np.float32)


def losses(loss_function, outputs, *labels_and_weights):
    """Return (B,) losses and the gradient of their sum by the outputs."""
    outputs = mx.nd.array(outputs)
    outputs.attach_grad()
    with mx.autograd.record():
        loss = loss_function(outputs, *map(mx.nd.array, labels_and_weights))
    loss.backward()
    return loss.asnumpy(), outputs.grad.asnumpy()


@pytest.fixture
def outputs():
    return np.random.default_rng(1).normal(0, 3, (11, 3)).astype(np.float32)


def test_the_weighted_mean_of_cross_entropies(outputs):
    labels = np.random.default_rng(2).integers(0, 3, 11)
    rows = WEIGHTS[labels]
    loss, gradient = losses(loss_of(3), outputs, labels.astype(np.float32), rows[:, None])
    theirs = torch.tensor(outputs, requires_grad=True)
    expected = torch.nn.CrossEntropyLoss(torch.tensor(WEIGHTS))(theirs, torch.tensor(labels))
    expected.backward()
    assert loss.sum() / rows.sum() == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient / rows.sum(), theirs.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('weights', [None, WEIGHTS])
def test_the_mean_of_binary_cross_entropies(outputs, weights):
    labels = np.random.default_rng(2).integers(0, 2, (11, 3)).astype(np.float32)
    loss, gradient = losses(loss_of(3, True, weights), outputs, labels)
    theirs = torch.tensor(outputs, requires_grad=True)
    positive = None if weights is None else torch.tensor(weights)
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=positive)(theirs, torch.tensor(labels))
    expected.backward()
    assert loss.mean() == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient / 11, theirs.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_a_model_of_several_labels_in_transformers(tiny_bert, tmp_path):
    """Its own loss, from problem_type alone, and the answers of its pipeline with top_k=None."""
    folder = write_finetuned(tmp_path / 'ours', tiny_bert, LABELS, {'max_len': 24})
    content = json.loads((folder / 'finetune.json').read_text())
    content['problem_type'] = 'multi_label_classification'
    (folder / 'finetune.json').write_text(json.dumps(content))
    (tmp_path / 'hf').mkdir()
    writing.write_huggingface(tmp_path / 'hf', reading.read(locate(str(folder))))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / 'hf').eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / 'hf')
    pipeline = transformers.pipeline(
        'text-classification', model=model, tokenizer=tokenizer, top_k=None, device='cpu'
    )
    classify = bert.predict.load(folder)
    for ours, theirs in zip(classify(TEXTS), pipeline(TEXTS)):
        assert [each['label'] for each in ours] == [each['label'] for each in theirs]
        for mine, their in zip(ours, theirs):
            assert mine['score'] == pytest.approx(their['score'], abs=1e-5)

    labels = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], np.float32)
    inputs = tokenizer(TEXTS, padding=True, return_tensors='pt')
    with torch.no_grad():
        expected = model(**inputs, labels=torch.tensor(labels))
    loss, _ = losses(loss_of(3, True), expected.logits.numpy(), labels)
    assert loss.mean() == pytest.approx(expected.loss.item(), rel=1e-5)
