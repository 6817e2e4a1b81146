"""The steps of ``make own-bert``, with a Python that only writes down what it is asked to do."""

import os
import shutil
import subprocess

import pytest
from conftest import ROOT

STUB = r"""#!/bin/sh
printf '<%s>' "$@" >> commands
echo >> commands
[ "$(wc -l < commands)" = "$FAIL" ] && exit 1
case "$1" in
benchmarks/prose.py) touch own_bert/train.txt own_bert/held_out.txt ;;
-m) touch own_bert/vocab.txt ;;
create_pretraining_data.py) mkdir -p own_bert/short own_bert/long ;;
run_pretraining.py) for last; do :; done; mkdir -p "$last/model" ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """Return a function that makes own-bert, and returns the status and the commands."""
    if not shutil.which('make'):
        pytest.skip('make is not there')
    shutil.copy(ROOT / 'Makefile', tmp_path)
    (tmp_path / 'pyproject.toml').touch()
    (tmp_path / 'venv' / 'bin').mkdir(parents=True)
    (tmp_path / 'venv' / 'installed').touch()
    (tmp_path / 'venv' / 'bin' / 'python').write_text(STUB)
    (tmp_path / 'venv' / 'bin' / 'python').chmod(0o755)

    def make(*variables, fail=0):
        (tmp_path / 'commands').write_text('')
        environment = {name: value for name, value in os.environ.items() if name != 'TEXT'}
        ran = subprocess.run(
            ['make', 'own-bert', 'PYTHON=echo', 'VENV=venv', *variables],
            cwd=tmp_path,
            env={**environment, 'FAIL': str(fail)},
            capture_output=True,
            text=True,
        )
        return ran, (tmp_path / 'commands').read_text().splitlines()

    return make


def test_each_step_is_repeated_only_if_it_failed(make, tmp_path):
    """Both shares of a text count as one step."""
    ran, commands = make()
    assert ran.returncode == 0 and len(commands) == 10
    assert '--text' not in commands[0]
    assert [command.split('>')[0] for command in make()[1]] == ['<glue.py'] * 2
    for fail in range(1, 11):
        shutil.rmtree(tmp_path / 'own_bert')
        ran, done = make(fail=fail)
        assert ran.returncode == 2 and done == commands[:fail]
        ran, rest = make()
        assert ran.returncode == 0 and rest == commands[len(commands) - len(rest) :]
        assert len(rest) - (11 - fail) == (fail in (4, 6, 10))


@pytest.mark.parametrize('text', ['my/*.txt', "a b/it's *.txt,~/c.txt", '"$(HOME)"'])
def test_a_text_of_ones_own(make, text):
    """It arrives as it was given, and cannot be changed on the way."""
    variable = f'TEXT={text.replace("$", "$$")}'
    ran, commands = make(variable, fail=3)
    assert commands[0] == f'<benchmarks/prose.py><--output_dir><own_bert><--text><{text}>'
    for other in ([], ['TEXT=other.txt']):
        ran, commands = make(*other)
        assert ran.returncode == 2 and not commands
        assert ran.stderr.startswith('own_bert was made from another TEXT')
    ran, commands = make(variable)
    assert ran.returncode == 0 and len(commands) == 8
