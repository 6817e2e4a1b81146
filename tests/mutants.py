#!/usr/bin/env python3
"""Put one fault at a time into a copy of the project, and see whether its tests notice.

    python tests/mutants.py [word ...]

The faults, the *mutants*, are in :mod:`mutants_list`; words choose those whose name or file
contains one of them. First all the tests that they name run on an unchanged copy, and must pass.
Then each mutant is put into a copy, and its own tests run up to the first failure. The table says
what became of it: killed; out of time, since a hang is noticed too; survived; skipped, as this
machine cannot run its tests; or broken, as they did not even begin. The working tree stays as it
is.
"""

import argparse
import concurrent.futures
import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from mutants_list import MUTANTS

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300  # seconds for the tests of a mutant, which may have to compile the operators first
PROCESSES = 2
# What the tests do not need.
LEFT_OUT = ('.git', '.venv*', '__pycache__', '.*_cache', '*_output', 'build', '*.egg-info')


class Mutant(NamedTuple):
    """A fault, and the tests of which one must fail."""

    name: str
    file: str
    before: str  # occurs once in the file
    after: str
    tests: str  # files or tests as pytest takes them, separated by spaces

    def put_into(self, text):
        """Return the text of its file with the fault in it; ValueError if there is no one place."""
        count = text.count(self.before)
        if count != 1:
            raise ValueError(f'{self.name}: {count} places in {self.file}')
        return text.replace(self.before, self.after)


class Outcome(NamedTuple):
    """What became of a mutant."""

    name: str
    verdict: str
    seconds: float


def try_all(root, mutants, limit=LIMIT):
    """Try all mutants in copies of a tree.

    Parameters
    ----------
    root : Path
    mutants : list of Mutant
    limit : float
        The most seconds for each.

    Returns
    -------
    list of Outcome
    """
    with tempfile.TemporaryDirectory() as folder:
        copies = queue.Queue()
        for number in range(PROCESSES):
            copy = Path(folder) / f'copy-{number}'
            shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
            copies.put(copy)
        tests = ' '.join(dict.fromkeys(' '.join(mutant.tests for mutant in mutants).split()))
        flags = '-p', 'xdist.plugin', '-n', str(PROCESSES), '--dist', 'loadfile'
        status, output = run_tests(copy, tests, *flags)
        print(output, file=sys.stderr, flush=True)
        if status:
            sys.exit('these tests fail without any mutant')

        def take_turns(mutant):
            copy = copies.get()
            try:
                outcome = try_one(copy, mutant, limit)
            finally:
                copies.put(copy)
            print(format_table([outcome]), file=sys.stderr, flush=True)
            return outcome

        with concurrent.futures.ThreadPoolExecutor(PROCESSES) as executor:
            return list(executor.map(take_turns, mutants))


def try_one(copy, mutant, limit):
    """Try one mutant in a copy of the tree, which is as before afterwards."""
    path, start = copy / mutant.file, time.monotonic()
    text = path.read_text(encoding='utf8')
    path.write_text(mutant.put_into(text), encoding='utf8')
    try:
        status, output = run_tests(copy, mutant.tests, '-x', limit=limit)
    except subprocess.TimeoutExpired:
        verdict = 'out of time'
    else:
        # pytest's statuses: 0, all passed or were skipped; 1, some failed.
        unnoticed = 'survived' if ' passed' in output.splitlines()[-1] else 'skipped'
        verdict = {0: unnoticed, 1: 'killed'}.get(status, 'broken')
    finally:
        path.write_text(text, encoding='utf8')
    return Outcome(mutant.name, verdict, time.monotonic() - start)


def run_tests(copy, tests, *flags, limit=None):
    """Run tests in a copy of the tree.

    Returns
    -------
    int, str
        The exit status of pytest and its output.

    Raises
    ------
    subprocess.TimeoutExpired
        After ``limit`` seconds; no process is left.
    """
    variables = {
        **{'GOMP_SPINCOUNT': '1000', 'OMP_NUM_THREADS': '1'},
        **os.environ,
        'PYTHONPATH': str(copy),
        'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1',  # half of the time to start
        # The date of a compiled module would not tell two changes of the same second apart.
        'PYTHONDONTWRITEBYTECODE': '1',
        'XDG_CACHE_HOME': str(copy.parent / 'cache'),  # for operators with faults
    }
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'pytest', '-q', '--tb=short', '-p', 'no:cacheprovider'),
            *(*flags, *tests.split()),
        ],
        cwd=copy,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding='utf8',
        errors='replace',
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the programs that the tests started too
        process.wait()
    return process.returncode, output


def format_table(outcomes):
    """Format a line for each outcome."""
    width = max(len(outcome.name) for outcome in outcomes)
    return '\n'.join(
        f'{outcome.name:{width}}  {outcome.verdict:11}  {outcome.seconds:4.0f} s'
        for outcome in outcomes
    )


def main():
    """Print the table, and exit with status 1 if a mutant survived or broke its tests."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('words', nargs='*', metavar='word', help='choose some mutants')
    words = parser.parse_args().words or ['']
    mutants = [Mutant(*row) for row in MUTANTS]
    chosen = [m for m in mutants if any(word in f'{m.name} {m.file}' for word in words)]
    if not chosen:
        parser.error('no mutant has such a name or file')
    outcomes = try_all(ROOT, chosen)
    verdicts = [outcome.verdict for outcome in outcomes]
    counts = ', '.join(f'{verdicts.count(each)} {each}' for each in dict.fromkeys(verdicts))
    print(f'{format_table(outcomes)}\n{len(outcomes)} mutants: {counts}')
    sys.exit(bool({'survived', 'broken'}.intersection(verdicts)))


if __name__ == '__main__':
    main()
