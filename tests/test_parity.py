"""The same model, weights, batches and updates in PyTorch, run by ``make parity``."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

import bert  # noqa: F401 (prepares for MXNet)
from bert.finetuning.step import forward_backward, loss_of, predict
from bert.model.build import build_head
from bert.model.loading import load_bert
from bert.tasks import files, table
from bert.text import encoding
from bert.text.tokenizer import build_tokenizer
from bert.training import batches, schedule, update

import mxnet as mx  # isort: skip

STEPS = 40
BATCH_SIZE = 32
LEARNING_RATE = 5e-5


@pytest.fixture(scope='module')
def without_dropout(minilm, tmp_path_factory):
    """Return the real model's directory, with dropout 0 in its configuration."""
    folder = tmp_path_factory.mktemp('minilm')
    for name in ('model.safetensors', 'vocab.txt'):
        shutil.copy(minilm / name, folder)
    config = json.loads((minilm / 'config.json').read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (folder / 'config.json').write_text(json.dumps(config))
    return folder


def encode_mrpc(folder, split, vocab):
    task = table.TASKS['MRPC']
    examples = files.read_glue(folder, task, split)
    encoded = encoding.encode(examples.texts, build_tokenizer(vocab, lower=True), vocab, 128)
    return encoded, examples.labels


def torch_inputs(inputs):
    ids, token_types, valid_lengths = (torch.from_numpy(array) for array in inputs)
    return {
        'input_ids': ids.long(),
        'token_type_ids': token_types.long(),
        'attention_mask': (torch.arange(ids.shape[1]) < valid_lengths[:, None]).long(),
    }


class ReferenceBERTAdam:
    """BERTAdam from the paper's equations, independent of the project's."""

    def __init__(self, named_parameters):
        self.parameters = [
            (p, not name.endswith('bias') and 'LayerNorm' not in name)
            for name, p in named_parameters
        ]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p, _ in self.parameters]

    @torch.no_grad()
    def step(self, rate):
        torch.nn.utils.clip_grad_norm_([p for p, _ in self.parameters], 1.0)
        for (p, decays), (m, v) in zip(self.parameters, self.moments):
            m.mul_(0.9).add_(p.grad, alpha=0.1)
            v.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
            change = m / (v.sqrt() + 1e-6)
            if decays:
                change += 0.01 * p
            p -= rate * change
            p.grad = None


def test_encoder_outputs_equal_transformers(without_dropout, real_glue, operators):
    """Encodings of valid tokens and pooled outputs of 64 real pairs agree within 1e-5."""
    model, vocab = load_bert(str(without_dropout))
    encoded, _ = encode_mrpc(real_glue, table.TASKS['MRPC'].dev[0], vocab)
    reference = transformers.BertModel.from_pretrained(without_dropout).eval()
    for rows in (np.arange(32), np.arange(32, 64)):
        inputs = encoding.pad_batch(encoded, rows)
        sequence, pooled = model(*(mx.nd.array(array) for array in inputs))
        with torch.no_grad():
            expected = reference(**torch_inputs(inputs))
        valid = np.arange(inputs[0].shape[1]) < inputs[2][:, None]
        difference = sequence.asnumpy()[valid] - expected.last_hidden_state.numpy()[valid]
        assert np.abs(difference).max() < 1e-5
        assert np.abs(pooled.asnumpy() - expected.pooler_output.numpy()).max() < 1e-5


def test_fine_tuning_equals_pytorch(without_dropout, real_glue, operators):
    """In 40 updates on real MRPC, losses agree within 2e-4, and the final logits within 1e-3."""
    encoder, vocab = load_bert(str(without_dropout))
    ctx = update.contexts([])
    model = build_head(encoder, 2, ctx, dropout=0.0)
    model.hybridize(static_alloc=True)
    encoded, labels = encode_mrpc(real_glue, table.TASKS['MRPC'].train, vocab)

    config = transformers.BertConfig.from_pretrained(without_dropout, num_labels=2)
    reference = transformers.BertForSequenceClassification(config)
    reference.bert = transformers.BertModel.from_pretrained(without_dropout)
    head = model.classifier[-1]
    with torch.no_grad():
        reference.classifier.weight.copy_(torch.from_numpy(head.weight.data().asnumpy()))
        reference.classifier.bias.copy_(torch.from_numpy(head.bias.data().asnumpy()))
    reference.train()

    trainer = update.build_trainer(model, 'bertadam', LEARNING_RATE, 1e-6)
    parameters = update.trainable(model)
    reference_adam = ReferenceBERTAdam(
        [(name, p) for name, p in reference.named_parameters() if p.requires_grad]
    )
    loss_function, loss_scale = loss_of(2), update.LossScale('float32')
    chosen = batches.training_batches(encoded.lengths, BATCH_SIZE, np.random.default_rng(1))[:STEPS]
    losses = []
    for step, rows in enumerate(chosen, 1):
        inputs = encoding.pad_batch(encoded, rows)
        rate = schedule.learning_rate(step, LEARNING_RATE, STEPS // 10, STEPS)
        loss, _ = forward_backward(model, loss_function, inputs, labels[rows], ctx[0], scale=1)
        update.update(trainer, parameters, len(rows), rate, loss_scale)

        expected = reference(**torch_inputs(inputs), labels=torch.from_numpy(labels[rows]).long())
        expected.loss.backward()
        reference_adam.step(rate)
        losses.append((loss.asscalar() / len(rows), expected.loss.item()))
    difference = np.abs(np.diff(losses, axis=1)).max()
    print(f'largest difference of a loss: {difference:.1e}')
    assert difference < 2e-4
    # Training made progress, so the comparison is meaningful.
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.02

    reference.eval()
    inputs = encoding.pad_batch(encoded, np.arange(64))
    logits = predict(model, inputs, ctx[0]).asnumpy()
    with torch.no_grad():
        expected = reference(**torch_inputs(inputs)).logits.numpy()
    print(f'largest difference of a logit: {np.abs(logits - expected).max():.1e}')
    assert np.abs(logits - expected).max() < 1e-3
