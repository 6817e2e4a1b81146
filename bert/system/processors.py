"""The processors that this process may use: the machine's, its own share, its container's limit."""

import contextlib
import math
import os
import re
from pathlib import Path


def count_processors():
    """Return how many processors can be at work for this process at once, at least 1.

    These are the logical processors that it may run on, or fewer if its control group, or one
    around that, is limited to less processor time. A limit is rounded up: with 1.5 processors, two
    threads get all of this time, and one would leave a third of it unused.
    """
    has_affinity = hasattr(os, 'sched_getaffinity')
    count = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    limit = read_limit()
    return count if limit is None else max(min(count, math.ceil(limit)), 1)


def read_limit(process='/proc/self'):
    """Return the limit of the processor time that Linux sets to this process.

    Parameters
    ----------
    process : path-like
        The process's folder in ``/proc``.

    Returns
    -------
    float or None
        In processors; the lowest limit of the process's control groups, of version 1 and 2. What
        cannot be read counts as no limit.
    """
    limits = []
    for folder, read in _find_groups(Path(process)):
        # An unreadable limit, or "max", is none; the limit of a group further out may be.
        with contextlib.suppress(OSError, ValueError):
            quota, period = read(folder)
            if quota > 0 and period > 0:  # version 1 has a quota of -1 where there is no limit
                limits.append(quota / period)
    return min(limits, default=None)


def _find_groups(process):
    """Yield the folder of each control group that the process is in, and how to read its limit."""
    try:
        groups = (process / 'cgroup').read_text('utf8', 'replace').splitlines()
        mounts = (process / 'mountinfo').read_text('utf8', 'replace').splitlines()
    except OSError:  # another system than Linux
        return
    # Version 1 has a line for each controller, "4:cpu,cpuacct:/path"; version 2 one, "0::/path".
    paths = {}
    for line in groups:
        number, controllers, path = line.split(':', 2) if line.count(':') > 1 else ('', '', '')
        if 'cpu' in controllers.split(','):
            paths['cgroup'] = path
        elif (number, controllers) == ('0', ''):
            paths['cgroup2'] = path
    for line in mounts:
        mount, _, system = line.partition(' - ')
        words, (kind, *options) = mount.split(' '), system.split(' ')
        if kind not in paths or len(words) < 5:
            continue
        if kind == 'cgroup' and 'cpu' not in ','.join(options).split(','):
            continue
        root, point = (_unescape(word) for word in words[3:5])
        read = _read_version_1 if kind == 'cgroup' else _read_version_2
        top = Path(point)
        folder = top / _path_below(root, paths[kind])
        yield folder, read
        while folder != top:
            folder = folder.parent
            yield folder, read


def _path_below(root, path):
    """Return a group's path below the group that is mounted, as a relative path.

    A container may see the path that its group has outside, and only that group is mounted: what
    is not below the mounted group stands for that group itself.
    """
    try:
        below = Path(path).relative_to(root)
    except ValueError:
        return Path()
    return Path() if '..' in below.parts else below


def _unescape(word):
    r"""Return a word of mountinfo, where a space is ``\040``."""
    return re.sub(r'\\([0-7]{3})', lambda match: chr(int(match.group(1), 8)), word)


def _read_version_1(folder):
    return [int((folder / f'cpu.cfs_{name}_us').read_text()) for name in ('quota', 'period')]


def _read_version_2(folder):
    quota, period = (folder / 'cpu.max').read_text().split()
    return int(quota), int(period)  # "max" raises a ValueError, as any other word
