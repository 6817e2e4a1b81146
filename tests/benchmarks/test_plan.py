"""benchmarks/plan.py: its arithmetic, checked by hand."""

import plan
import pytest


def test_the_parameters_of_bert_base():
    """Count embeddings, 12 layers, pooler, masked-LM head less tied matrix, next-sentence head."""
    assert plan.parameters() == 23835648 + 1536 + 12 * 7087872 + 590592 + 622650 + 1538


def test_a_sequence():
    """Attention adds 2.8 % to the products at 128 tokens, and 11 % at 512."""
    share = (1 + 0.1111) / (1 + 0.02778)
    assert plan.sequence_seconds(8, 4) == pytest.approx(2 * (0.9 + 0.4 * share), rel=1e-4)


def test_exchanges():
    """1 GB at 8 Gbit/s takes one second; it is 15 buffers of 64 MiB, for four workers."""
    seconds = plan.exchanges(4, 10**9, 8, 0.01)
    assert seconds == pytest.approx(
        {'dist_sync, 1 server': 4, 'dist_sync, n servers': 1.5, 'horovod': 1.5 + 6 * 15 * 0.01}
    )
    assert set(plan.exchanges(1, 10**9, 8, 0.01).values()) == {0}


def test_the_table(capsys):
    plan.main('--steps 86400 --batch_size 8 --workers 1 2 --bandwidth 1 10 --latency 1e-9'.split())
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith('horovod                          1 '))
    # An update takes 2.93 s on one device; on two it is 1.47 s and 440 MB at 125 MB/s.
    assert row.split()[2:4] == ['3', '5']
    assert row.endswith('  1 workers')
