"""Vectors of sentences beside transformers and sentence-transformers, run by ``make parity``."""

import numpy as np
import pytest
from conftest import ROOT

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

import bert.embed


def sentences():
    """Return sentences of the sample, some texts of other lengths, and pairs."""
    lines = (ROOT / 'sample_glue' / 'MRPC' / 'dev.tsv').read_text(encoding='utf8').split('\n')
    pairs = [tuple(line.split('\t')[3:5]) for line in lines[1:] if line]
    return [pair[0] for pair in pairs[:40]] + ['', 'x', 'word ' * 300], pairs[:20]


def cosines(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_minilm_in_transformers(minilm, operators):
    """sentence-transformers' rule, mean over the mask and length 1, on transformers' numbers."""
    model = transformers.BertModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    encode = bert.embed.load(minilm)
    for texts in sentences():
        columns = list(zip(*texts)) if isinstance(texts[0], tuple) else [texts]
        inputs = tokenizer(
            *map(list, columns), truncation=True, max_length=256, padding=True, return_tensors='pt'
        )
        with torch.no_grad():
            encodings = model(**inputs).last_hidden_state
        mask = inputs['attention_mask'][:, :, None]
        means = ((encodings * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
        expected = means / np.linalg.norm(means, axis=1, keepdims=True)
        found = encode(texts)
        print(f'largest difference of a vector: {np.abs(found - expected).max():.1e}')
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(cosines(found, expected) - 1).max() < 1e-5


def test_minilm_in_sentence_transformers(minilm):
    """Run if that package is installed, which ``make parity`` does not do."""
    sentence_transformers = pytest.importorskip('sentence_transformers')
    reference = sentence_transformers.SentenceTransformer(str(minilm), device='cpu')
    encode = bert.embed.load(minilm)
    assert encode.max_len == reference.max_seq_length
    for texts in sentences():
        found, expected = encode(texts), reference.encode(texts)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(cosines(found, expected) - 1).max() < 1e-5
