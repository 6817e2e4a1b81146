"""The project as a whole: its scripts, modules, documents and what importing them does."""

import ast
import os
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = sorted(path.name for path in ROOT.glob('*.py') if path.name != 'setup.py')
MODULES = sorted(path.stem for path in (ROOT / 'bert').glob('*.py') if path.stem != '__init__')
# These take part in data generation, download or --help, and so do without MXNet.
WITHOUT_MXNET = [
    'batches',
    'checkpoint',
    'cli',
    'configuration',
    'convert',
    'corpus',
    'curves',
    'dask_workers',
    'datasets',
    'environment',
    'files',
    'hub',
    'huggingface',
    'logs',
    'metrics',
    'pretraining_data',
    'recipes',
    'report',
    'results',
    'runs',
    'schedule',
    'shards',
    'source',
    'submission',
    'subwords',
    'tasks',
    'tensorflow_checkpoint',
    'tokenizer',
    'transform',
    'vocab',
    'zoo',
]


def run(*command, **kwargs):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        **kwargs,
    )


def test_the_scripts_that_setup_installs_are_there():
    text = (ROOT / 'setup.py').read_text(encoding='utf8')
    (call,) = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'setup'
    )
    (scripts,) = (ast.literal_eval(k.value) for k in call.keywords if k.arg == 'scripts')
    assert sorted(scripts) == SCRIPTS


@pytest.mark.parametrize('name', SCRIPTS)
def test_a_script_can_be_executed(name):
    path = ROOT / name
    assert path.read_text(encoding='utf8').split('\n')[0] == '#!/usr/bin/env python3'
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize('name', SCRIPTS)
def test_help_is_quick_and_does_without_mxnet(name):
    """Half a second of processor time, which others on the machine do not change: best of 3."""
    code = (
        'import runpy, sys, resource\n'
        f'sys.argv = [{name!r}, "--help"]\n'
        'try:\n'
        f'    runpy.run_path({name!r}, run_name="__main__")\n'
        'except SystemExit as left:\n'
        '    used = resource.getrusage(resource.RUSAGE_SELF)\n'
        '    print(left.code, "mxnet" in sys.modules, used.ru_utime + used.ru_stime)\n'
    )
    seconds = []
    for _ in range(3):
        ran = run('-c', code, env={**os.environ, 'OPENBLAS_NUM_THREADS': '1'})
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith(f'usage: {name}')
        status, has_mxnet, used = ran.stdout.splitlines()[-1].split()
        assert (status, has_mxnet) == ('0', 'False')
        seconds.append(float(used))
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5


@pytest.mark.parametrize('name', SCRIPTS)
def test_a_wrong_flag_ends_with_status_2(name):
    ran = run(name, '--no_such_flag')
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith(f'{name}: error: ')
    assert 'Traceback' not in ran.stderr


def test_every_module_imports_and_only_some_need_mxnet():
    """Each in the order of the alphabet, those without MXNet first."""
    assert set(WITHOUT_MXNET) <= set(MODULES)
    others = [name for name in MODULES if name not in WITHOUT_MXNET]
    code = (
        'import importlib, sys\n'
        f'for name in {WITHOUT_MXNET}:\n'
        '    importlib.import_module("bert." + name)\n'
        '    assert "mxnet" not in sys.modules, name\n'
        f'for name in {others}:\n'
        '    importlib.import_module("bert." + name)\n'
        'assert "argparse" in sys.modules and "mxnet" in sys.modules\n'
    )
    ran = run('-c', code)
    assert (ran.returncode, ran.stderr) == (0, '')


@pytest.mark.parametrize('path', [*SCRIPTS, *(f'bert/{name}.py' for name in MODULES)])
def test_import_does_nothing(path):
    """At the top level: imports, definitions, constants and the guard, but no work.

    No call stands there, but those that make a constant (a table of tasks, a compiled pattern).
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


def test_importing_the_package_only_prepares():
    """What bert/__init__.py runs is environment.prepare(), and nothing is printed or logged."""
    tree = ast.parse((ROOT / 'bert' / '__init__.py').read_text(encoding='utf8'))
    expressions = [node for node in tree.body if isinstance(node, ast.Expr)][1:]
    assert [
        ast.unparse(e) if sys.version_info >= (3, 9) else 'environment.prepare()'
        for e in expressions
    ] == ['environment.prepare()']
    ran = run('-c', 'import bert, logging; assert not logging.getLogger().handlers')
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, '', '')


DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob('*.rst')
    if not any(part.startswith(('.', 'build', 'venv')) for part in path.relative_to(ROOT).parts)
)


@pytest.mark.parametrize('name', DOCUMENTS)
def test_documents_are_valid(name):
    docutils = pytest.importorskip('docutils.core')
    import io

    warnings = io.StringIO()
    docutils.publish_doctree(
        (ROOT / name).read_text(encoding='utf8'),
        source_path=name,
        settings_overrides={'warning_stream': warnings, 'report_level': 1},
    )
    assert warnings.getvalue() == ''
