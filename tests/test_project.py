"""The project as a whole: its scripts, and the effects of importing modules."""

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = sorted(path.name for path in ROOT.glob('*.py') if path.name != 'setup.py')
BENCHMARKS = sorted(
    path for path in ROOT.glob('benchmarks/*.py') if path.read_text('utf8').startswith('#!')
)
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('bert/**/*.py'))
MODULES = [path[: -len('.py')].replace('/__init__', '').replace('/', '.') for path in FILES]
PACKAGE = 'bert/__init__.py'
FACES = ['cluster', 'convert', 'embed', 'ops', 'predict', 'vocabulary']
PROGRAMS = [*SCRIPTS, *(f'bert.{name}' for name in FACES)]


def run(*command, **kwargs):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        **kwargs,
    )


def test_the_scripts_that_are_installed_are_there():
    """Python before 3.11 cannot read TOML, so the lists are found by their lines."""
    text = (ROOT / 'pyproject.toml').read_text(encoding='utf8')
    files = re.search(r'^script-files = \[(.*?)\]', text, re.M | re.S)[1]
    assert re.findall(r'"(.*?)"', files) == SCRIPTS
    commands = re.findall(r'^(\w+) = "bert\.cli\.entry:run_script"$', text, re.M)
    assert [f'{command}.py' for command in commands] == SCRIPTS


@pytest.mark.parametrize('name', SCRIPTS)
def test_a_script_can_be_executed(name):
    path = ROOT / name
    assert path.read_text(encoding='utf8').split('\n')[0] == '#!/usr/bin/env python3'
    assert os.access(path, os.X_OK)


def run_without_mxnet(program, flag):
    """Run a program with a flag that ends it, and assert that MXNet was not imported.

    Returns
    -------
    subprocess.CompletedProcess, float
        The finished program, and its seconds of processor time.
    """
    function = 'run_path' if program in SCRIPTS else 'run_module'
    code = (
        'import runpy, sys, resource\n'
        f'sys.argv = [{program!r}, {flag!r}]\n'
        'try:\n'
        f'    runpy.{function}({program!r}, run_name="__main__")\n'
        'finally:\n'
        '    used = resource.getrusage(resource.RUSAGE_SELF)\n'
        '    print("mxnet" in sys.modules, used.ru_utime + used.ru_stime)\n'
    )
    ran = run('-c', code, env={**os.environ, 'OPENBLAS_NUM_THREADS': '1'})
    has_mxnet, seconds = ran.stdout.splitlines()[-1].split()
    assert has_mxnet == 'False'
    return ran, float(seconds)


@pytest.mark.parametrize('name', PROGRAMS)
def test_help_is_quick_and_does_without_mxnet(name):
    """It takes less than half a second of processor time in the best of 3 runs."""
    seconds = []
    while len(seconds) < 3 and min(seconds, default=1) >= 0.5:
        ran, used = run_without_mxnet(name, '--help')
        assert ran.returncode == 0, ran.stderr
        assert re.match(f'usage: (python -m )?{name} ', ran.stdout)
        seconds.append(used)
    assert min(seconds) < 0.5


@pytest.mark.parametrize('path', BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_runs_from_the_root(path):
    ran = run(f'benchmarks/{path.name}', '--help')
    assert (ran.returncode, ran.stderr) == (0, '')
    assert ran.stdout.startswith(f'usage: {path.name} ')
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize('name', PROGRAMS)
def test_a_wrong_flag_ends_with_status_2(name):
    ran, _ = run_without_mxnet(name, '--no_such_flag')
    assert ran.returncode == 2
    assert re.match(rf'(python -m )?{name}: error: ', ran.stderr.splitlines()[-1])
    assert 'Traceback' not in ran.stderr


def test_every_module_can_be_imported():
    code = f'import importlib\nfor name in {MODULES}: importlib.import_module(name)'
    ran = run('-c', code)
    assert (ran.returncode, ran.stderr) == (0, '')


@pytest.mark.parametrize('path', [*SCRIPTS, *(file for file in FILES if file != PACKAGE)])
def test_import_does_nothing(path):
    """The top level has imports, definitions, constants and the guard, but does no work.

    Its only calls make constants (a table of tasks, a compiled pattern).
    """
    tree = ast.parse((ROOT / path).read_text(encoding='utf8'))
    for node in tree.body:
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), ast.dump(node)
        elif isinstance(node, ast.If):
            assert ast.dump(node.test) == ast.dump(
                ast.parse("__name__ == '__main__'").body[0].value
            )
        else:
            assert isinstance(
                node,
                (
                    ast.Import,
                    ast.ImportFrom,
                    ast.FunctionDef,
                    ast.AsyncFunctionDef,
                    ast.ClassDef,
                    ast.Assign,
                    ast.AnnAssign,
                ),
            ), ast.dump(node)
    assigned = [node.value for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    called = {
        getattr(call.func, 'attr', getattr(call.func, 'id', ''))
        for value in assigned
        for call in ast.walk(value)
        if isinstance(call, ast.Call)
    }
    forbidden = {'ArgumentParser', 'parse_args', 'getLogger', 'basicConfig', 'seed', 'open', 'cpu'}
    forbidden |= {'gpu', 'Parser', 'get', 'getenv', 'mkdir', 'default_rng', 'load'}
    assert not called & forbidden


def test_a_program_loads_a_model_after_importing_the_package():
    """``bert.model`` is imported, and MXNet with it, when it is first used."""
    code = (
        'import bert, sys; assert "mxnet" not in sys.modules; print(bert.model.load_bert.__name__)'
    )
    ran = run('-c', code)
    assert (ran.returncode, ran.stdout) == (0, 'load_bert\n'), ran.stderr
    ran = run('-c', 'import bert; bert.modle')
    assert ran.stderr.endswith("AttributeError: module 'bert' has no attribute 'modle'\n")


def test_importing_the_package_only_prepares():
    """bert/__init__.py calls environment.prepare() and neither prints nor logs anything."""
    tree = ast.parse((ROOT / PACKAGE).read_text(encoding='utf8'))
    expressions = [node for node in tree.body if isinstance(node, ast.Expr)][1:]
    assert [
        ast.unparse(e) if sys.version_info >= (3, 9) else 'environment.prepare()'
        for e in expressions
    ] == ['environment.prepare()']
    ran = run('-c', 'import bert, logging; assert not logging.getLogger().handlers')
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, '', '')
