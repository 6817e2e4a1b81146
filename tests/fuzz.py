"""Coverage-guided fuzzing with atheris: ``make fuzz``.

    python tests/fuzz.py --seconds 60 [target ...]

Each target runs in a separate process. A file that caused a crash is kept in ``fuzz_output/`` and
is an input of later runs, as is each file that reached new code. The last lines are a table of the
inputs tried and the crashes found.
"""

import argparse
import importlib
import importlib.util
import logging
import os
import pkgutil
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

SECONDS_PER_INPUT = 60  # more is a hang, unless other programs use up the processor
MEGABYTES = 3072  # for a process with MXNet and a fuzzer; a larger allocation is a crash


def main():
    parser = argparse.ArgumentParser(description='Fuzz the readers of files.')
    parser.add_argument('targets', nargs='*', help='all by default')
    parser.add_argument('--seconds', type=int, default=60, help='for each target')
    parser.add_argument('--output', type=Path, default=ROOT / 'fuzz_output')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        (name,) = args.targets
        return fuzz(name, folder_of(args.output, name), args.seconds)

    from fuzz_targets import TARGETS

    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f'{", ".join(unknown)}: not one of {", ".join(TARGETS)}')
    rows = []
    for name in args.targets or TARGETS:
        needs = TARGETS[name].needs
        if needs and importlib.util.find_spec(needs) is None:
            rows.append((name, '-', f'{needs} is not installed'))
            continue
        rows.append((name, *supervise(name, args)))
        print('{:24} {:>10} {}'.format(*rows[-1]), flush=True)
    print('\n{:24} {:>10} {}'.format('target', 'inputs', 'crashes'))
    for row in rows:
        print('{:24} {:>10} {}'.format(*row))
    sys.exit(any(row[2] not in (0,) and row[1] != '-' for row in rows))


def folder_of(output, name):
    return output / re.sub(r'\W+', '-', name).strip('-')


def supervise(name, args):
    """Run a target until its time is over, restarting it after each crash.

    Returns
    -------
    int, int
        The number of inputs and of different crashes.
    """
    folder = folder_of(args.output, name)
    (folder / 'crashes').mkdir(parents=True, exist_ok=True)
    inputs, crashes = 0, set()
    end = time.time() + args.seconds
    while time.time() < end - 1:
        flags = ['--child', f'--seconds={int(end - time.time())}', f'--output={args.output}']
        # Thousands of files per second would wear out a disk.
        memory = '/dev/shm' if Path('/dev/shm').is_dir() else None
        with tempfile.TemporaryDirectory(dir=memory) as temporary:
            result = subprocess.run(
                [sys.executable, __file__, *flags, name],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding='utf8',
                errors='replace',
                env={**os.environ, 'TMPDIR': temporary},
            )
        counts = re.findall(r'^#(\d+)|stat::number_of_executed_units:\s*(\d+)', result.stdout, re.M)
        inputs += max((int(a or b) for a, b in counts), default=0)
        if result.returncode == 0:
            break
        crash = describe(result.stdout)
        if crash not in crashes:
            print(f'{name}: {crash}', flush=True)
            (folder / 'crashes' / f'{len(crashes)}.log').write_text(result.stdout, 'utf8')
        crashes.add(crash)
        if not counts:
            break  # it did not even start
    return inputs, len(crashes)


def describe(output):
    """Return the error and the place of a crash, so that equal crashes are counted once."""
    places = re.findall(r'File ".*?/((?:bert/(?:\w+/)?)?\w+\.py)", line (\d+)', output)
    ours = [place for place in places if not place[0].startswith('fuzz')] or places
    error = re.findall(r'^(\w+(?:Error|Exception)\b.*|ERROR: libFuzzer: .*)$', output, re.M)
    where = ':'.join(ours[-1]) if ours else ''
    return f'{error[0][:200] if error else output[-200:]} {where}'


def fuzz(name, folder, seconds):
    """Fuzz a target in this process, which libFuzzer ends."""
    import atheris

    # Before anything else imports them: libFuzzer looks for files that reach new lines of these.
    with atheris.instrument_imports(include=['bert', 'download_glue_data', 'zipfile']):
        import bert

        for module in pkgutil.walk_packages(bert.__path__, 'bert.'):
            importlib.import_module(module.name)
        import fuzz_targets

    target = fuzz_targets.TARGETS[name]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter('ignore')
    corpus = folder / 'corpus'
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f'seed-{number}').write_bytes(data)
    sandbox = fuzz_targets.Sandbox(target, tempfile.mkdtemp())

    def mutate(data, max_size, seed):
        return fuzz_targets.mutate(target, data, random.Random(seed))[:max_size]

    def run(data):
        sandbox.run(data)

    atheris.Setup(
        [sys.argv[0], str(corpus)]
        + [f'-max_total_time={seconds}', f'-timeout={SECONDS_PER_INPUT}', '-print_final_stats=1']
        + [f'-rss_limit_mb={MEGABYTES}', f'-malloc_limit_mb={MEGABYTES}', '-max_len=200000']
        + [f'-artifact_prefix={folder}/crashes/', '-len_control=0'],
        run,
        custom_mutator=mutate,
    )
    atheris.Fuzz()


if __name__ == '__main__':
    main()
