"""Golden models run here, with the outputs of the libraries that wrote them."""

import golden
import numpy as np
import pytest

from bert.convert import witnesses


@pytest.mark.parametrize('name', golden.NAMES)
def test_outputs_are_those_of_the_library_that_wrote_it(name):
    folder = golden.find(name)
    batch, expected = golden.expected_outputs(folder)
    if name == 'hf_masked_lm':
        expected['prediction_logits'] = expected.pop('logits')
    found = witnesses.run_gluon(witnesses.build(golden.read(folder)), batch)
    # transformers' classifiers do not return the pooled encodings.
    assert set(found) - set(expected) <= {'pooler_output'}
    for key, array in witnesses.blank_padding(expected, batch).items():
        np.testing.assert_allclose(found[key], array, rtol=1e-4, atol=2e-6, err_msg=key)
        assert np.ptp(array) > 0.1


def test_labels_and_kinds_of_heads():
    found = {
        name: golden.read(golden.FOLDER / name).labels
        for name in golden.NAMES
        if 'classifier' in name or 'regressor' in name
    }
    assert found == {
        'gluon_classifier': ['LABEL_0', 'LABEL_1', 'LABEL_2'],
        'gluon_classifier_without_dropout': ['LABEL_0', 'LABEL_1', 'LABEL_2'],
        'gluon_regressor': None,
        'hf_classifier': ['neutral', 'yes', 'no'],
        'hf_regressor': None,
    }
