"""Evaluations between updates: each sees the weights as they are then."""

from types import SimpleNamespace

import numpy as np

from bert.distributed.workers import ALONE
from bert.finetuning.data import Dataset
from bert.finetuning.evaluation import predict_all
from bert.finetuning.step import predict
from bert.model import build_head, load_bert
from bert.text.encoding import Encoded, pad_batch

import mxnet as mx  # isort: skip

ROWS = 7


def test_an_evaluation_never_sees_old_weights(tiny_bert, operators):
    """The reference is the model itself, called row by row."""
    bert, vocab = load_bert(str(tiny_bert))
    model = build_head(bert, 3, mx.cpu())
    rng = np.random.default_rng(1)
    lengths = rng.integers(3, 20, ROWS).astype(np.int32)
    ids = [rng.integers(5, len(vocab), length).astype(np.int32) for length in lengths]
    encoded = Encoded(ids, lengths // 2, lengths, padding=0)
    dataset = Dataset(SimpleNamespace(path='dev.tsv', name=''), encoded, None)
    seen = []
    for update in range(3):
        for parameter in model.collect_params().values() if update else ():
            parameter.set_data(parameter.data() + mx.nd.random.normal(0, 0.1, parameter.shape))
        found = predict_all(model, dataset, 4, [mx.cpu()], ALONE)
        rows = [predict(model, pad_batch(encoded, np.array([i])), mx.cpu()) for i in range(ROWS)]
        expected = np.concatenate([row.asnumpy() for row in rows])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        seen.append(expected)
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(seen, seen[1:]))
