"""The commands of README.rst and docs/: each is given to the parser of its program.

The identifier of a test is the place of the command, and whether test_documented_runs.py runs it.
"""

import argparse
import importlib
import importlib.machinery
import re
import sys
import types

import pytest
from conftest import ROOT
from documents import (
    PAGES,
    PROJECT_PROGRAMS,
    RUNS,
    Command,
    blocks,
    commands,
    is_command,
    parse,
    read,
    run_lines,
)

from bert.cli import flags
from bert.pretraining.files import Layout
from bert.pretraining.instances import Recipe
from bert.system.errors import UsageError

# Programs of others, whose flags are their own.
OTHERS = {'apt', 'curl', 'dask', 'echo', 'tensorboard'}
# What the variables of a process of dist_sync are, on any of its machines.
PARAMETER_SERVER = {'DMLC_ROLE': 'worker', 'DMLC_PS_ROOT_URI': '10.0.0.1'}
PARAMETER_SERVER.update(DMLC_PS_ROOT_PORT='9091', DMLC_NUM_SERVER='1', DMLC_NUM_WORKER='2')
# Flags in the text that belong to other programs.
OTHER_FLAGS = {'--cpus', '--help', '--no-deps'}
COMMANDS = commands()


class ParsedError(Exception):
    """The command line of a program that parses it in its main function is right."""


def check(command, monkeypatch):
    """Check the flags of a command, and all that it starts."""
    for name, value in command.variables.items():
        monkeypatch.setenv(name, value)
    program, *words = command.words
    if program in PROJECT_PROGRAMS:
        check_program(program[: -len('.py')], words, monkeypatch)
    elif program in ('python', 'python3'):
        check_python(command, words, monkeypatch)
    elif program == 'make':
        check_make(words)
    elif program in ('pip', 'uv'):
        check_pip(words)
    elif program == 'horovodrun':
        module = types.ModuleType('horovod')
        module.__spec__ = importlib.machinery.ModuleSpec('horovod', None)
        monkeypatch.setitem(sys.modules, 'horovod', module)
        monkeypatch.setenv('HOROVOD_RANK', '0')
        check_python(command, words[words.index('python3') + 1 :], monkeypatch)
    else:
        assert program in OTHERS, f'{command}: what is {program}?'


def check_python(command, words, monkeypatch):
    """Check the flags of a script or a module."""
    first, *rest = words
    if first == '-c':
        compile(rest[0], '-c', 'exec')
    elif first == '-m':
        check_program(rest[0], rest[1:], monkeypatch)
    elif (ROOT / first).is_file():
        check_program(first[: -len('.py')].split('/')[-1], rest, monkeypatch)
    else:
        assert f'``{first}``' in read(command.page), f'{command}: there is no {first}'


def check_program(name, words, monkeypatch):
    """Give the words to the parser of a program of this project, with its usage errors."""
    if name in ('bert.convert', 'bert.ops'):
        name += '.__main__'
    assert name != 'sphinx'
    module = importlib.import_module(name)
    # The processor of the reader.
    monkeypatch.setattr(flags, 'processor_flags', lambda: {'avx512_bf16'})
    if hasattr(module, 'parse_args'):
        args = module.parse_args(words)
        if name == 'bert.cluster':
            check_cluster(args.command, monkeypatch)
        return
    original = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, args=None, namespace=None):
        original(parser, args, namespace)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_stop)
    monkeypatch.setattr(sys, 'argv', [name, *words])
    with pytest.raises(ParsedError):
        module.main()


def check_cluster(words, monkeypatch):
    """Check the command that ``bert.cluster`` starts."""
    for name, value in PARAMETER_SERVER.items():
        monkeypatch.setenv(name, value)
    check_program(words[0][: -len('.py')], words[1:], monkeypatch)


def check_make(words):
    """Check that targets and variables are there."""
    makefile = (ROOT / 'Makefile').read_text(encoding='utf8')
    for word in words:
        name, is_variable, _ = word.partition('=')
        assert re.search(
            rf'^(\w+: )?{name} \?=|\$\$?\{{?\(?{name}\b' if is_variable else rf'^{name}:',
            makefile,
            re.M,
        ), word


def check_pip(words):
    """Check that the extras are there."""
    assert 'install' in words
    text = (ROOT / 'pyproject.toml').read_text(encoding='utf8')
    table = text.split('[project.optional-dependencies]')[1].split('\n[')[0]
    extras = set(re.findall(r'^(\w+) = \[', table, re.M))
    for word in words:
        match = re.fullmatch(r'\.\[([\w,]+)\]', word)
        assert match or not word.startswith('.')
        assert not match or set(match[1].split(',')) <= extras, word


RUN = {line for story in RUNS for line in run_lines(story)}


def identify(command):
    """Return the place of a command, and whether another test runs it too."""
    return f'{command}-{"run" if command.text in RUN else "parsed"}'


@pytest.mark.parametrize('command', COMMANDS, ids=identify)
def test_a_command_has_the_flags_of_its_program(command, monkeypatch):
    for name in PARAMETER_SERVER:
        monkeypatch.delenv(name, raising=False)
    check(command, monkeypatch)


@pytest.mark.parametrize(
    'line',
    [
        'python3 glue.py --tasks MRPC --sedes 1 2',
        'python3 glue.py --tasks MPRC',
        'GLUE_DIR=glue_data finetune_classifier.py --batch_size many',
        'finetune_classifier.py --train_file train.csv --text_columns question',
        'run_pretraining.py --do-training --data shards --data_eval shards',
        'create_pretraining_data.py --output_file out --vocab vocab.txt',
        'DMLC_ROLE=leader python3 run_pretraining.py --do-training --data a --kvstore dist_sync',
        'horovodrun -np 2 python3 run_pretraining.py --do-training --data a --kvstore horovd',
        'python3 -m bert.cluster -- run_pretraining.py --do-training --kvstore dist_sync',
        'python3 -m bert.convert a b',
        'python3 -m bert.convert a b --to gluon --dtype int8',
        'python3 -m bert.embed',
        'python3 -m bert.predict model --vectors mean',
        'python3 -m bert.ops --quick',
        'python3 benchmarks/plan.py --second 5 --sequences x',
        'python3 benchmarks/predictions.py',
        'python3 benchmarks/no_such_script.py',
        "python3 -c 'import numpy; print('",
        'make demos',
        'make test PYTHN=python3.8',
        "pip install '.[cpu,plots]'",
        'pip uninstall mxnet',
        'conda install mxnet',
    ],
)
def test_a_wrong_command_is_noticed(line, monkeypatch, capsys):
    (command,) = parse('README.rst', 1, line, {})
    with pytest.raises((SystemExit, UsageError, AssertionError, SyntaxError)):
        check(command, monkeypatch)


def test_how_a_line_becomes_commands():
    variables = {}
    assert parse('page', 1, 'export A=1 B=2', variables) == []
    assert parse('page', 2, 'RUN="glue.py --tasks MRPC"  # a name', variables) == []
    assert parse('page', 3, 'C=x python3 $RUN < in > out &   # here', variables) == [
        Command(
            *('page', 3, 'C=x python3 $RUN < in > out &   # here'),
            {'A': '1', 'B': '2', 'RUN': 'glue.py --tasks MRPC', 'C': 'x'},
            ['python3', 'glue.py', '--tasks', 'MRPC'],
        )
    ]
    first, second = parse('page', 4, "echo 'numpy>=2' | uv pip install --overrides - 'a b'", {})
    assert first.words == ['echo', 'numpy>=2']
    assert second.words == ['uv', 'pip', 'install', '--overrides', '-', 'a b']


@pytest.mark.parametrize('page', PAGES)
def test_commands_stand_in_blocks_of_commands(page):
    """Each line of such a block is a command, and none of another block is."""
    for start, text in blocks(page, 'sh'):
        for number, line in enumerate(text.split('\n'), start):
            known = is_command(line) or re.match(r'[A-Z_]+="|$', line)
            assert known, f'{page}:{number} is no command: {line}'
    for start, text in [*blocks(page), *blocks(page, 'python')]:
        for number, line in enumerate(text.split('\n'), start):
            assert not is_command(line), f'{page}:{number} is a command: {line}'


def test_all_programs_are_shown():
    """So that a page that is not read, or a block of another kind, is noticed."""
    started = {word for command in COMMANDS for word in command.words[:3]}
    scripts = {path.name for path in ROOT.glob('benchmarks/*.py')}
    scripts = {f'benchmarks/{name}' for name in scripts if not name.startswith('speed_')}
    modules = {f'bert.{name}' for name in ('cluster', 'convert', 'embed', 'ops', 'predict')}
    assert {*PROJECT_PROGRAMS, *scripts, *modules, 'bert.vocabulary'} <= started


def all_flags():
    """Return the flags of all programs of this project, and of the tests' own."""
    sources = [*ROOT.glob('*.py'), *ROOT.glob('bert/**/*.py'), *ROOT.glob('benchmarks/*.py')]
    texts = [path.read_text(encoding='utf8') for path in sources]
    written = {flag for text in texts for flag in re.findall(r"'(--[\w-]+)'", text)}
    return written.union(f'--{name}' for name in (*Recipe._fields, *Layout._fields))


@pytest.mark.parametrize('page', PAGES)
def test_flags_in_the_text_are_there(page):
    inline = ' '.join(re.findall(r'``([^`]+)``', read(page)))
    named = set(re.findall(r'(?<![\w-])--[a-z][\w-]*', inline))
    prefixes = {'--task', '--batch'} if page == 'docs/history.rst' else set()
    assert named - all_flags() - OTHER_FLAGS <= prefixes
