"""Pre-training beside PyTorch: the same weights, shard, batches and updates (``make parity``)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from test_parity import ReferenceBERTAdam

import create_pretraining_data
import run_pretraining
from bert.model import load_bert, save_huggingface
from bert.pretraining import batches, sources
from bert.pretraining.loss import Tally, build_loss, finish_initialization, gradients
from bert.text.vocab import plain_vocab
from bert.training import schedule, update

STEPS = 20
BATCH_SIZE = 16
LEARNING_RATE = 1e-4


@pytest.fixture(scope='module')
def shard(minilm, tmp_path_factory):
    """Return a shard of instances from the sample text."""
    folder = tmp_path_factory.mktemp('shard')
    create_pretraining_data.main(
        f'--input_file {Path(run_pretraining.__file__).parent}/sample_text.txt '
        f'--output_file {folder}/out --vocab_file {minilm}/vocab.txt --do_lower_case '
        '--max_seq_length 64 --dupe_factor 10'.split()
    )
    return folder / 'out.npz'


@pytest.fixture(scope='module')
def model_folder(minilm, tmp_path_factory):
    """Write the real encoder without dropout, with both heads, like run_pretraining.py."""
    source = tmp_path_factory.mktemp('minilm')
    for name in ('model.safetensors', 'vocab.txt'):
        shutil.copy(minilm / name, source)
    config = json.loads((minilm / 'config.json').read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (source / 'config.json').write_text(json.dumps(config))
    update.seed_step(0, 0)
    model, vocab = load_bert(str(source), use_decoder=True, use_classifier=True)
    finish_initialization(model, update.contexts([])[0])
    folder = tmp_path_factory.mktemp('heads') / 'model'
    save_huggingface(folder, model, vocab, lower=True)
    return folder


def load_reference(folder):
    """Load transformers' model; a missing or surplus tensor would be an error."""
    reference, info = transformers.BertForPreTraining.from_pretrained(
        folder, output_loading_info=True
    )
    for problem, names in info.items():
        assert not names, f'{problem}: {names}'
    return reference


def reference_loss(reference, batch):
    """Return both losses of a batch, computed at all positions as transformers does."""
    ids, token_types, lengths = (torch.from_numpy(array).long() for array in batch[:3])
    labels = torch.full(ids.shape, -100)
    for row, position, label, weight in zip(
        labels, batch.mlm_positions, batch.mlm_labels, batch.mlm_weights
    ):
        row[position[weight > 0]] = torch.from_numpy(label[weight > 0]).long()
    outputs = reference(
        input_ids=ids,
        token_type_ids=token_types,
        attention_mask=(torch.arange(ids.shape[1]) < lengths[:, None]).long(),
    )
    cross_entropy = torch.nn.functional.cross_entropy
    scores = outputs.prediction_logits
    return (
        cross_entropy(scores.view(-1, scores.shape[-1]), labels.view(-1)),
        cross_entropy(outputs.seq_relationship_logits, torch.from_numpy(batch.nsp_labels).long()),
    )


def test_pretraining_equals_pytorch(model_folder, shard, operators):
    """In 20 updates, both losses of every step agree within 5e-4."""
    model, vocab = load_bert(str(model_folder), use_decoder=True, use_classifier=True)
    model.hybridize(static_alloc=True)
    contexts = update.contexts([])
    trainer = update.build_trainer(model, 'bertadam', LEARNING_RATE, run_pretraining.EPSILON)
    parameters, loss = update.trainable(model), build_loss(contexts)
    reference = load_reference(model_folder).train()
    reference_adam = ReferenceBERTAdam(reference.named_parameters())

    source = sources.Shards(str(shard), plain_vocab(vocab), 512)
    cut = batches.Cut(BATCH_SIZE, parts=1, num_buckets=1, by_token=False)
    losses = []
    with batches.updates(source, cut, 0, [0, 0, 0]) as updates:
        for step, ((batch,), _) in zip(range(1, STEPS + 1), updates):
            rate = schedule.learning_rate(step, LEARNING_RATE, STEPS // 10, STEPS)
            (sums,) = gradients(model, loss, [batch], contexts, scale=1)
            update.update(trainer, parameters, 1, rate, update.LossScale('float32'))
            tally = Tally()
            tally.add(batch, sums)
            mlm_loss, nsp_loss = reference_loss(reference, batch)
            (mlm_loss + nsp_loss).backward()
            reference_adam.step(rate)
            metrics = tally.metrics()
            losses.append(
                [(metrics['mlm_loss'], mlm_loss.item()), (metrics['nsp_loss'], nsp_loss.item())]
            )
    losses = np.array(losses)  # (STEPS, 2 losses, 2 implementations)
    difference = np.abs(losses[..., 0] - losses[..., 1]).max(axis=0)
    print(
        'largest difference of a loss: masked LM {:.1e}, next sentence {:.1e}'.format(*difference)
    )
    assert difference.max() < 5e-4
    # Training made progress, so the comparison is meaningful.
    assert losses[-5:, 0, 0].mean() < losses[:5, 0, 0].mean() - 0.5
