"""The processors that a process may use: by files in a temporary folder, and by a real limit."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from conftest import ROOT

from bert.system import processors
from bert.system.processors import read_limit

V1 = '31 23 0:30 {root} {point} rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct'
V2 = '31 23 0:30 {root} {point} rw,relatime - cgroup2 cgroup2 rw,nsdelegate'


@pytest.fixture
def process(tmp_path):
    """Return a function that writes the files of a process, and gives its folder."""

    def write(groups, mounts, limits):
        for path, text in limits.items():
            file = tmp_path / 'fs' / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (tmp_path / 'cgroup').write_text('\n'.join(groups) + '\n')
        other = '22 27 0:21 / /proc rw,relatime - proc proc rw'
        lines = [
            mount.format(root=root, point=str(tmp_path / 'fs' / point).replace(' ', r'\040'))
            for mount, root, point in mounts
        ]
        (tmp_path / 'mountinfo').write_text('\n'.join([other, *lines]) + '\n')
        return tmp_path

    return write


def quota(path, microseconds, period=100000):
    """Return the two files of a limit of version 1."""
    return {
        f'{path}/cpu.cfs_quota_us': f'{microseconds}\n',
        f'{path}/cpu.cfs_period_us': f'{period}\n',
    }


@pytest.mark.parametrize(
    ('limits', 'expected'),
    [
        ({'a/b/cpu.max': '150000 100000\n'}, 1.5),
        ({'a/b/cpu.max': '25000 50000\n', 'a/cpu.max': '200000 100000\n'}, 0.5),
        ({'a/b/cpu.max': '300000 100000\n', 'a/cpu.max': '200000 100000\n'}, 2),
        # The group that is mounted may itself be one within the machine's.
        ({'a/b/cpu.max': 'max 100000\n', 'cpu.max': '100000 100000\n'}, 1),
        ({'a/b/cpu.max': 'max 100000\n', 'a/cpu.max': 'max 100000\n'}, None),
        ({'a/b/c/cpu.max': '100000 100000\n', 'd/cpu.max': '100000 100000\n'}, None),
        # What is not understood does not hide the other limits.
        ({'a/b/cpu.max': 'two 100000\n', 'a/cpu.max': '200000 100000\n'}, 2),
        ({'a/b/cpu.max': '100000\n', 'a/cpu.max': '', 'cpu.max': '100000 0\n'}, None),
        ({}, None),
    ],
)
def test_version_2(process, limits, expected):
    assert read_limit(process(['0::/a/b'], [(V2, '/', '')], limits)) == expected


@pytest.mark.parametrize(
    ('limits', 'expected'),
    [
        (quota('cpu/a/b', 150000), 1.5),
        ({**quota('cpu/a/b', -1), **quota('cpu/a', 40000, 20000), **quota('cpu', -1)}, 2),
        ({**quota('cpu/a/b', 100000), **quota('cpu/a', 400000)}, 1),
        (quota('cpu/a/b', -1), None),
        (quota('cpu/a/b', 'many'), None),
        ({'cpu/a/b/cpu.cfs_quota_us': '100000\n'}, None),
        # Another controller's hierarchy.
        (quota('memory/a/b', 100000), None),
    ],
)
def test_version_1(process, limits, expected):
    memory = V1.replace('cpu,cpuacct', 'memory')
    groups = ['4:memory:/a/b', '3:cpuset:/c', '2:cpu,cpuacct:/a/b', '1:name=systemd:/d', '0::/']
    mounts = [(memory, '/', 'memory'), (V1, '/', 'cpu')]
    assert read_limit(process(groups, mounts, limits)) == expected


def test_both_versions_at_once(process):
    """As where version 1 has the processors, and version 2 the names of systemd, or the reverse."""
    limits = {**quota('cpu/a', 300000), 'unified/e/cpu.max': '200000 100000\n'}
    folder = process(['1:cpu:/a', '0::/e'], [(V1, '/', 'cpu'), (V2, '/', 'unified')], limits)
    assert read_limit(folder) == 2


@pytest.mark.parametrize(
    ('path', 'root'),
    [
        ('/docker/1f', '/docker/1f'),  # the names outside
        ('/', '/'),  # the container has names of its own
        ('/docker/1f', '/'),
        ('/', '/docker/1f'),
        ('/../other', '/'),
    ],
)
def test_in_a_container_the_mounted_group_is_its_own(process, path, root):
    for mount, limits in [
        (V1, {**quota('my cpu', 150000), **quota('other', 100000)}),
        (V2, {'my cpu/cpu.max': '150000 100000\n', 'other/cpu.max': '100000 100000\n'}),
    ]:
        groups = [f'2:cpu,cpuacct:{path}'] if mount == V1 else [f'0::{path}']
        assert read_limit(process(groups, [(mount, root, 'my cpu')], limits)) == 1.5


def test_a_group_within_a_container(process):
    folder = process(
        ['0::/docker/1f/job'],
        [(V2, '/docker/1f', '')],
        {'job/cpu.max': '100000 100000\n', 'cpu.max': '200000 100000\n'},
    )
    assert read_limit(folder) == 1


@pytest.mark.parametrize(
    'text',
    ['', 'garbage\n', '::::\n\n', '0\n0:\n1:cpu\n', 'ÿ - - -\n', '1 - cgroup2']
    + ['1:cpu:/', '1 2 3 / /x - cgroup', '1 2 3 / /x'],
)
def test_files_that_are_not_understood(process, text):
    folder = process(['0::/'], [(V2, '/', '')], {'cpu.max': '100000 100000\n'})
    assert read_limit(folder) == 1
    for name in ('cgroup', 'mountinfo'):
        before = (folder / name).read_text()
        (folder / name).write_text(text, encoding='latin1')
        assert read_limit(folder) is None
        (folder / name).write_text(before)


def test_another_system(tmp_path):
    assert read_limit(tmp_path / 'missing') is None


@pytest.mark.parametrize(
    ('allowed', 'limit', 'expected'),
    [(8, None, 8), (8, 2, 2), (8, 1.5, 2), (8, 1.01, 2), (8, 0.2, 1), (2, 3.5, 2)],
)
def test_count(monkeypatch, allowed, limit, expected):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(allowed)), raising=False)
    monkeypatch.setattr(processors, 'read_limit', lambda: limit)
    assert processors.count_processors() == expected


def test_a_real_limit():
    """A process in a group of Linux with a limit uses as many threads as that allows."""
    if not hasattr(os, 'sched_getaffinity') or len(os.sched_getaffinity(0)) < 2:
        pytest.skip('one processor at most')
    for top, name, text in [
        ('/sys/fs/cgroup', 'cpu.max', '100000 100000'),
        ('/sys/fs/cgroup/cpu', 'cpu.cfs_quota_us', '100000'),  # of the usual 100,000
    ]:
        group = Path(top) / f'mxnet-bert-test-{uuid.uuid4()}'
        if not Path(top, 'cgroup.procs').exists():
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(text)
            print_threads = "import os, bert; print(os.environ['OMP_NUM_THREADS'])"
            ran = subprocess.run(
                ['sh', '-c', 'echo $$ > "$1" && exec "$2" -c "$3"', 'sh']
                + [str(group / 'cgroup.procs'), sys.executable, print_threads],
                cwd=ROOT,
                env={n: v for n, v in os.environ.items() if n != 'OMP_NUM_THREADS'},
                capture_output=True,
                text=True,
            )
        except OSError:
            continue
        finally:
            group.rmdir()
        if 'cgroup.procs' not in ran.stderr:  # the shell may have been refused
            assert ran.stdout == '1\n', ran.stderr
            return
    pytest.skip('this system does not let a test make a group with a limit')
