"""Bits and the number of threads; all other tests have one thread."""

import os
import subprocess
import sys

from conftest import ROOT

# Trains twice, and prints the digest of the parameters each time.
TWICE = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import finetune_classifier
from bert.finetuning import summary
summary.can_draw = lambda: False  # which takes longest
for name in ('one', 'two'):
    finetune_classifier.main([*sys.argv[2:], '--output_dir', name])
    (parameters,) = Path(name).glob('*.params')
    print(hashlib.sha256(parameters.read_bytes()).hexdigest())
"""


def test_several_threads_give_the_same_bits_each_time(tiny_bert, tmp_path):
    flags = ['--bert_model', str(tiny_bert), '--training_steps', '3', '--max_len', '24']
    done = subprocess.run(
        [sys.executable, '-c', TWICE, str(ROOT), *flags],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '3', 'GLUE_DIR': str(ROOT / 'sample_glue')},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    one, two = done.stdout.split()
    assert one == two
