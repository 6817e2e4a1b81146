"""ONNX files of golden models, run with onnxruntime."""

import golden
import numpy as np
import pytest

from bert.convert import onnx, witnesses
from bert.convert.__main__ import main


@pytest.mark.parametrize('name', golden.NAMES)
def test_outputs(name, tmp_path):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    source, target = golden.find(name), tmp_path / 'onnx'
    differences = main([str(source), str(target), '--to', 'onnx'])
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
    # Against the reference library itself, in a separate batch.
    batch, expected = golden.expected_outputs(source)
    found = witnesses.blank_padding(onnx.run(target / 'model.onnx', *batch), batch)
    for key, array in found.items():
        key = 'logits' if name == 'hf_masked_lm' else key
        wanted = witnesses.blank_padding({key: expected[key]}, batch)[key]
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=5e-6, err_msg=key)
