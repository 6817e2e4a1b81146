"""The mutants of ``make mutants`` fit the project, and the tool finds survivors in a tiny one."""

import ast
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from mutants import Mutant, try_one
from mutants_list import MUTANTS

MUTANTS = [Mutant(*row) for row in MUTANTS]


def test_each_mutant_has_one_place_and_a_name_of_its_own():
    for mutant in MUTANTS:
        text = mutant.put_into((ROOT / mutant.file).read_text(encoding='utf8'))
        if mutant.file.endswith('.py'):
            ast.parse(text)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 60


def test_the_tests_of_each_mutant_exist():
    for name in {name for mutant in MUTANTS for name in mutant.tests.split()}:
        path, _, function = name.partition('::')
        lines = (ROOT / path).read_text(encoding='utf8').splitlines()
        assert not function or any(line.startswith(f'def {function}(') for line in lines), name


@pytest.fixture
def tree(tmp_path):
    """Write a project with one function and its tests, and copy the tool to it."""
    (tmp_path / 'tests').mkdir()
    (tmp_path / 'number.py').write_text('def double(n):\n    return 2 * n\n')
    (tmp_path / 'tests' / 'test_number.py').write_text(
        'import pytest\n'
        'from number import double\n\n'
        'def test_double():\n    assert double(2) == 4\n\n'
        'def test_elsewhere():\n    pytest.skip("not here")\n'
    )
    shutil.copy(ROOT / 'tests' / 'mutants.py', tmp_path / 'tests')
    return tmp_path


def planted(name, after, test='double'):
    return name, 'number.py', '2 * n', after, f'tests/test_number.py::test_{test}'


def run(tree, rows, *words):
    """Run the tool, and return its status and the lines that it prints."""
    (tree / 'tests' / 'mutants_list.py').write_text(f'MUTANTS = {rows!r}\n')
    ran = subprocess.run(
        [sys.executable, str(tree / 'tests' / 'mutants.py'), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding='utf8',
    )
    return ran.returncode, ran.stdout.splitlines()


def test_a_survivor_is_reported(tree):
    rows = [planted('trebled', '3 * n'), planted('added', '2 + n'), planted('none', '(')]
    rows.append(planted('elsewhere', '4 * n', 'elsewhere'))
    status, lines = run(tree, rows)
    verdicts = [line.split()[:2] for line in lines[:4]]
    assert verdicts == [
        ['trebled', 'killed'],
        ['added', 'survived'],
        ['none', 'broken'],
        ['elsewhere', 'skipped'],
    ]
    assert lines[4] == '4 mutants: 1 killed, 1 survived, 1 broken, 1 skipped'
    assert status == 1
    assert (tree / 'number.py').read_text().endswith('2 * n\n')
    status, lines = run(tree, rows, 'trebled')
    assert (status, lines[1:]) == (0, ['1 mutants: 1 killed'])


def test_a_hang_is_noticed(tree):
    mutant = Mutant(*planted('asleep', '__import__("time").sleep(60)'))
    outcome = try_one(tree, mutant, limit=3)
    assert outcome.verdict == 'out of time' and outcome.seconds < 20
    assert (tree / 'number.py').read_text().endswith('2 * n\n')
