"""Tiny models that the reference libraries wrote, with their outputs.

They are in tests/data/checkpoints, with the script that made them.
"""

import numpy as np
import pytest
from conftest import ROOT

from bert.checkpoints import reading
from bert.checkpoints.source import locate

FOLDER = ROOT / 'tests' / 'data' / 'checkpoints'
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
# The models that need PyTorch or TensorFlow to be read.
NEEDS = {'hf_2018': 'torch', 'google': 'tensorflow'}


def find(name):
    """Return the folder of a golden model, or skip the test if it cannot be read here."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    return FOLDER / name


def read(folder):
    """Read a whole model; see :func:`bert.checkpoints.reading.read`."""
    return reading.read(locate(str(folder)))


def expected_outputs(folder):
    """Read the input batch and the outputs of a golden model.

    Returns
    -------
    list of ids, token types and valid lengths, dict of str to numpy.ndarray
    """
    expected = dict(np.load(folder / 'expected.npz'))
    return [expected.pop(key) for key in ('ids', 'types', 'lengths')], expected
