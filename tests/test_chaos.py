"""A few kills of every program; ``make chaos`` does many more."""

import chaos


def test_kills_at_random_moments(tmp_path):
    found = chaos.disturb(tmp_path, kills=7, seed=1)
    print(chaos.format_table(found))
    assert [fault for counts in found.values() for fault in counts['faults']] == []
    assert sum(counts['kills'] for counts in found.values()) == 7
    assert all(counts['resumed'] == counts['kills'] for counts in found.values())
