#!/usr/bin/env python3
"""Kill the programs at random moments and check what is left.

Each round starts a program of the project, with tiny models and data, and sends it SIGKILL: half of
the time after a random delay, half of the time just after a file was created or grew. After each
kill every output must be complete or absent, and no process may be left; then the same command is
run again, as a user would. When a program has finished, its results must have the same bits as
those of an undisturbed one.

    python tests/chaos.py --kills 60

With ``--disk`` nothing is killed: each program runs on disks that are full ever later, up to one on
which it completes. It must complete, or end with status 1 and one sentence that names a file there,
leave every output complete or absent, and get to the right result with the same command once there
is room. Only the administrator of a Linux machine may mount such disks.

    python tests/chaos.py --disk 10
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, NamedTuple

import psutil
from conftest import ROOT, write_tiny_bert
from test_download_glue_data import Handler, Site, make_zip, sha256

from bert.checkpoints import gluon, reading
from bert.checkpoints.source import locate
from bert.pretraining import shards
from bert.system.files import HALF_WRITTEN
from bert.text import vocab
from bert.training import states
from download_glue_data import TASKS, Remote, is_complete

LONGEST = 600  # seconds that an undisturbed run may take
VOCABULARY = ROOT / 'sample_model' / 'vocab.txt'


class Kind(NamedTuple):
    """A program to kill."""

    name: str
    command: list  # without the last word, the folder of the outputs
    check: Callable  # takes that folder and raises an error if an output is damaged
    result: Callable  # takes that folder and returns {name: bytes} of the results


class Lost(Exception):
    """Damage done by a kill."""


def python(script, *flags):
    return [sys.executable, '-W', 'ignore', str(ROOT / script), *map(str, flags)]


def make_kinds(folder, site):
    """Make the inputs of all programs, in a folder and on a server.

    Returns
    -------
    dict of str to Kind
    """
    text = (ROOT / 'sample_text.txt').read_text(encoding='utf8').strip() + '\n\n'
    for number in range(4):
        (folder / f'text-{number}.txt').write_text(text * 20, encoding='utf8')
    generate = python(
        *('create_pretraining_data.py', '--input_file', folder / 'text-*.txt'),
        *('--vocab_file', VOCABULARY, '--do_lower_case', '--dupe_factor', 10),
        *('--num_outputs', 4, '--num_workers', 2, '--output_dir'),
    )
    subprocess.run([*generate, folder / 'shards'], check=True, stderr=subprocess.DEVNULL)
    sizes = json.loads((ROOT / 'sample_model' / 'config.json').read_text())
    sizes.update(hidden_size=32, intermediate_size=64)
    (folder / 'config.json').write_text(json.dumps(sizes))
    (folder / 'vocab.txt').write_bytes(VOCABULARY.read_bytes())
    tiny = write_tiny_bert(folder / 'tiny')
    table = serve_archives(site)
    (folder / 'table.json').write_text(json.dumps(table))
    source = ROOT / 'tests' / 'data' / 'checkpoints' / 'hf_pretraining'
    kinds = [
        Kind('data generation', generate, check_shards, shards_made),
        Kind(
            'pre-training',
            python(
                *('run_pretraining.py', '--do-training', '--data', folder / 'shards' / '*.npz'),
                *('--bert_model', folder / 'config.json', '--num_steps', 24, '--batch_size', 4),
                *('--lr', '1e-3', '--ckpt_interval', 3, '--ckpt_keep', 2, '--log_interval', 5),
                *('--start_step', 'auto', '--ckpt_dir'),
            ),
            check_pretraining,
            pretraining_made,
        ),
        Kind(
            'fine-tuning',
            python(
                *('finetune_classifier.py', '--bert_model', tiny, '--batch_size', 32),
                *('--lr', '1e-3', '--epochs', 3, '--max_len', 32, '--resume', '--output_dir'),
            ),
            check_finetuning,
            finetuning_made,
        ),
        Kind(
            'download',
            [
                *(sys.executable, '-c', DOWNLOAD, str(ROOT), str(folder / 'table.json')),
                *('--base_url', site.url, '--tasks', 'CoLA,RTE,WNLI', '--data_dir'),
            ],
            lambda data: check_download(data, table),
            all_files,
        ),
        Kind(
            'conversion',
            [sys.executable, '-m', 'bert.convert', str(source), '--to', 'gluon'],
            check_conversion,
            all_files,
        ),
    ]
    return {kind.name: kind for kind in kinds}


# Data generation


def check_shards(folder):
    words = vocab.load_vocab(VOCABULARY)
    for path in folder.glob('*.npz'):
        shards.read_shard(path, words)


def shards_made(folder):
    return {path.name: path.read_bytes() for path in folder.glob('*.npz')}


# Pre-training


def check_pretraining(folder):
    check_pairs(folder)
    if (folder / 'model').exists():
        reading.read(locate(str(folder / 'model')))


def check_pairs(folder):
    """Check the training states from which a run is resumed."""
    for step in states.saved_steps(folder):
        states.read_progress(folder, step)
        with open(states.states_path(folder, step), 'rb') as file:
            assert file.read(2) == b'PK'
        gluon.read_gluon(states.parameters_path(folder, step))


def pretraining_made(folder):
    made = {path.name: path.read_bytes() for path in folder.glob('*.params')}
    made.update({path.name: path.read_bytes() for path in (folder / 'model').iterdir()})
    made['metrics.jsonl'] = without_times(folder)
    return made


def without_times(folder):
    """Return ``metrics.jsonl`` without the values that depend on the clock."""
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    for line in lines:
        for name in ('seconds', 'tokens_per_second', 'samples_per_second'):
            line.pop(name, None)
    return json.dumps(lines).encode()


# Fine-tuning


def check_finetuning(folder):
    check_pairs(folder / 'resume')
    for path in folder.glob('*.params'):
        gluon.read_gluon(path)
    if (folder / 'finetune.json').exists():
        reading.read(locate(str(folder)))
    if (folder / 'report.html').exists():
        assert (folder / 'report.html').read_text(encoding='utf8').endswith('</html>\n')
    if (folder / 'outputs.npz').exists():
        import numpy as np

        with np.load(folder / 'outputs.npz', allow_pickle=False) as outputs:
            sets = set(outputs.files) - {'labels'}
            assert sets and all(np.isfinite(outputs[name]).all() for name in sets)
    if (folder / 'MRPC.tsv').exists():
        rows = len((ROOT / 'sample_glue' / 'MRPC' / 'test.tsv').read_bytes().splitlines())
        assert len((folder / 'MRPC.tsv').read_text().splitlines()) == rows


def finetuning_made(folder):
    made = {
        name: data
        for name, data in all_files(folder).items()
        if name.endswith(('.params', '.npz', '.tsv', 'vocab.txt', 'config.json'))
    }
    made['metrics.jsonl'] = without_times(folder)
    return made


# Download

DOWNLOAD = """
import json, sys
sys.path.insert(0, sys.argv.pop(1))
import download_glue_data as script
table = json.load(open(sys.argv.pop(1)))
script.TASKS.update({
    name: script.TASKS[name]._replace(remotes=tuple(script.Remote(*each) for each in remotes))
    for name, remotes in table.items()
})
sys.exit(script.main())
"""


class SlowHandler(Handler):
    """A handler that sends its files slowly, in pieces."""

    class Slow:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            for start in range(0, len(data), 2**15):
                self.file.write(data[start : start + 2**15])
                time.sleep(0.01)

    def send(self, body, *args, **kwargs):
        whole, self.wfile = self.wfile, self.Slow(self.wfile)
        try:
            super().send(body, *args, **kwargs)
        finally:
            self.wfile = whole


def serve_archives(site):
    """Put three tasks on the server; return the downloads of each."""
    table, numbers = {}, random.Random(0)
    for name in ('CoLA', 'RTE', 'WNLI'):
        entries = [
            (f'{name}/{split}.tsv', f'{split}\t{numbers.getrandbits(8 * 300000):x}\n')
            for split in ('train', 'dev', 'test')
        ]
        body, path = make_zip(entries), TASKS[name].remotes[0].path
        site.files[path] = body
        table[name] = [[path, len(body), sha256(body)]]
    return table


def check_download(folder, table):
    """Check that each task present under its name is complete, byte for byte."""
    for name, remotes in table.items():
        task = TASKS[name]._replace(remotes=tuple(Remote(*each) for each in remotes))
        is_complete(folder / task.folder, task)


# Conversion


def check_conversion(folder):
    if folder.exists():
        contents = reading.read(locate(str(folder)))
        assert contents.weights.bert and (folder / 'config.json').is_file()


def all_files(folder):
    """Return {relative path: bytes} of all files in a folder, including hidden ones."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


# The rounds


def kill_rounds(kind, folder, kills, numbers):
    """Kill a program several times, and compare its results.

    Parameters
    ----------
    kind : Kind
    folder : Path
    kills : int
    numbers : random.Random

    Returns
    -------
    dict
        The counts ``kills``, ``resumed`` (kills after which the same command reached the right
        result) and ``lost`` (the others), and ``faults``, a sentence about each loss.
    """
    started = time.monotonic()
    expected = finish(kind, folder / 'undisturbed')
    duration = time.monotonic() - started
    counts = {'kills': 0, 'resumed': 0, 'lost': 0, 'faults': []}
    run, since = 0, 0  # since: kills of the current run
    while counts['kills'] < kills:
        output = folder / f'run-{run}'
        try:
            was_killed = kill_once(kind, output, duration, numbers)
            counts['kills'] += was_killed
            since += was_killed
            if was_killed:
                kind.check(output)
            if not was_killed or counts['kills'] == kills:
                compare(finish(kind, output), expected)
                counts['resumed'] += since
                run, since = run + 1, 0
        except Exception as error:
            counts['faults'].append(f'{kind.name}, {output}: {type(error).__name__}: {error}')
            counts['lost'] += max(since, 1)
            run, since = run + 1, 0
    return counts


def start(kind, output, errors=None):
    """Start the program in a new process, with its stderr in a file."""
    return subprocess.Popen(
        [*kind.command, str(output)],
        cwd=ROOT,
        env={**os.environ, 'GLUE_DIR': str(ROOT / 'sample_glue'), 'NO_PROXY': '*'},
        stdout=subprocess.DEVNULL,
        stderr=open(errors or f'{output}.err', 'wb'),
    )


def finish(kind, output):
    """Let the program finish, and return its results.

    A conversion refuses an existing target: then it had already finished.
    """
    if kind.name != 'conversion' or not output.exists():
        process = start(kind, output)
        if process.wait(timeout=LONGEST):
            said = Path(f'{output}.err').read_text(errors='replace').strip().splitlines()
            raise Lost(f'status {process.returncode}, {said[-1] if said else "no message"}')
    return kind.result(output)


def kill_once(kind, output, duration, numbers):
    """Start the program and kill it at a random moment.

    Returns
    -------
    bool
        True if it was still running.
    """
    if kind.name == 'conversion' and output.exists():
        return False
    by_clock, share, change = numbers.random() < 0.5, numbers.random(), numbers.randint(1, 8)
    delay = numbers.random() / 50
    process = start(kind, output)
    end = time.monotonic() + (share * duration if by_clock else 2 * duration)
    seen = look(output)
    while process.poll() is None and time.monotonic() < end and change:
        time.sleep(0.001)
        now = look(output)
        if not by_clock and now != seen:
            seen, change = now, change - 1
    time.sleep(0 if by_clock else delay)
    workers = children(process)
    process.kill()
    killed = process.wait() < 0
    _, alive = psutil.wait_procs(workers, timeout=20)
    if alive:
        for worker in alive:
            worker.kill()
        raise Lost(f'{len(alive)} worker processes are left')
    return killed


# The disks


def disk_rounds(kind, folder, count):
    """Run a program on disks of several sizes, and compare its results.

    Parameters
    ----------
    kind : Kind
    folder : Path
    count : int
        The number of disks.

    Returns
    -------
    dict
        The counts ``disks``, ``completed`` (on the small disk), ``resumed`` (after a sentence) and
        ``lost`` (the others), and ``faults``, a sentence about each loss.
    """
    expected = finish(kind, folder / 'undisturbed')
    disk = folder / 'disk'
    disk.mkdir()
    with mounted(disk, LARGE):
        most = peak_use(kind, disk)
    counts = {'disks': 0, 'completed': 0, 'resumed': 0, 'lost': 0, 'faults': []}
    # A little more than the most that was seen, as it was looked at only from time to time.
    sizes = {max(2, round(1.1 * most * number / count / BLOCK)) for number in range(1, count + 1)}
    for blocks in sorted(sizes):
        counts['disks'] += 1
        with mounted(disk, blocks * BLOCK):
            try:
                outcome = 'completed'
                if run_on_disk(kind, disk):
                    outcome = 'resumed'
                    kind.check(disk / 'out')
                    left = [path for path in disk.rglob('*') if HALF_WRITTEN in path.name]
                    if left:
                        raise Lost(f'{left[0].name} is left')
                    remount(disk, LARGE)
                    if run_on_disk(kind, disk):
                        raise Lost('it does not go on when there is room')
                compare(kind.result(disk / 'out'), expected)
                counts[outcome] += 1
            except Exception as error:
                fault = f'{kind.name}, {blocks} blocks: {type(error).__name__}: {error}'
                counts['faults'].append(fault)
                counts['lost'] += 1
    return counts


BLOCK = 4096  # bytes, the smallest amount by which a tmpfs grows
LARGE = 2**30


@contextlib.contextmanager
def mounted(disk, size):
    """Mount a disk of a number of bytes while the block runs."""
    options = f'size={size}'
    subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(['umount', '--lazy', str(disk)], check=True)


def remount(disk, size):
    """Change the size of a disk."""
    subprocess.run(['mount', '-o', f'remount,size={size}', str(disk)], check=True)


def peak_use(kind, disk):
    """Run a program, and return the largest number of bytes on the disk."""
    process, most = start(kind, disk / 'out', disk.with_suffix('.err')), 0
    while process.poll() is None:
        most = max(most, shutil.disk_usage(disk).used)
        time.sleep(0.001)
    if process.returncode:
        raise Lost(f'status {process.returncode} with room for everything')
    return most


def run_on_disk(kind, disk):
    """Run a program, and return its status; raise Lost if it does not end as it should."""
    process = start(kind, disk / 'out', disk.with_suffix('.err'))
    status = process.wait(timeout=LONGEST)
    said = disk.with_suffix('.err').read_text(errors='replace').strip().splitlines() or ['']
    if status and (status != 1 or str(disk) not in said[-1]):
        raise Lost(f'status {status}, {said[-1]}')
    if any(line.startswith('Traceback') for line in said):
        raise Lost(f'a traceback, {said[-1]}')
    return status


def children(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def look(output):
    """Return the sizes of the files in a folder, including those being written."""
    found = {}
    for root in (output, output.with_name(f'.{output.name}.new.bert.tmp')):
        for path, _, names in os.walk(root):
            for name in names:
                with contextlib.suppress(OSError):
                    found[path, name] = os.path.getsize(os.path.join(path, name))
    return found


def compare(made, expected):
    """Raise Lost if two results differ."""
    if set(made) != set(expected):
        raise Lost(f'other files: {sorted(set(made) ^ set(expected))}')
    for name, data in expected.items():
        if made[name] != data:
            digests = [hashlib.sha256(each).hexdigest()[:8] for each in (data, made[name])]
            raise Lost(f'{name} has other bytes: {digests}')


def disturb(folder, kills, seed, names=None, disks=0):
    """Kill all programs, or some of them, or run them on small disks.

    Parameters
    ----------
    folder : Path
        Empty, for their inputs and outputs.
    kills : int
        The number for all programs together.
    seed : int
        Determines the moments.
    disks : int
        The number for each program, in place of kills.
    names : list of str, optional
        The programs; all by default.

    Returns
    -------
    dict of str to dict
        See :func:`kill_rounds` and :func:`disk_rounds`.
    """
    with Site() as site:
        site.RequestHandlerClass = SlowHandler
        threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True).start()
        kinds = make_kinds(folder, site)
        chosen = [kinds[name] for name in names or kinds]
        shares = [(kills + i) // len(chosen) for i in range(len(chosen))]
        found = {}
        for kind, share in zip(chosen, shares):
            (folder / kind.name).mkdir()
            if disks:
                found[kind.name] = disk_rounds(kind, folder / kind.name, disks)
                continue
            numbers = random.Random(f'{seed} {kind.name}')
            found[kind.name] = kill_rounds(kind, folder / kind.name, share, numbers)
        site.shutdown()
    return found


def format_table(found):
    """Format the counts of each program and their sums."""
    columns = [name for name in next(iter(found.values())) if name != 'faults']
    rows = [(name, *(counts[column] for column in columns)) for name, counts in found.items()]
    rows.append(('all', *(sum(column) for column in list(zip(*rows))[1:])))
    lines = ['  '.join([f'{"":15}', *columns])]
    for name, *numbers in rows:
        cells = [f'{number:{len(column)}}' for number, column in zip(numbers, columns)]
        lines.append('  '.join([f'{name:15}', *cells]))
    return '\n'.join(lines)


def main():
    """Print the table, and exit with status 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=60)
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--disk', type=int, default=0, help='small disks for each program')
    parser.add_argument('--kinds', nargs='+', metavar='NAME', help='only some programs')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = disturb(Path(folder), args.kills, args.seed, args.kinds, args.disk)
    for counts in found.values():
        print(*counts['faults'], sep='\n', end='\n' if counts['faults'] else '')
    print(format_table(found))
    sys.exit(any(counts['lost'] for counts in found.values()))


if __name__ == '__main__':
    main()
