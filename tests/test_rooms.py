"""The rooms of the package: imports run downward, MXNet stays in its rooms, files stay short.

Every import counts, even inside functions. The checks take source text by module name, so that the
last tests can show that each check finds planted faults.
"""

import ast
from collections import Counter
from importlib.util import resolve_name
from typing import NamedTuple

from conftest import ROOT

# From the ground floor up; a module may import its own room and the floors below.
FLOORS = [
    ['bert.system'],
    ['bert.text', 'bert.distributed', 'bert.cli'],
    ['bert.checkpoints', 'bert.ops', 'bert.cluster'],
    ['bert.tasks', 'bert.model'],
    ['bert.training', 'bert.convert', 'bert.report'],
    ['bert.finetuning', 'bert.pretraining'],
    [
        'bert.experiments',
        'bert.embed',
        'bert.predict',
        'bert.vocabulary',
        'bert.gluon',
        'finetune_classifier',
        'run_pretraining',
        'create_pretraining_data',
        'download_glue_data',
    ],
    ['glue', 'benchmarks'],
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

MXNET = {'mxnet', 'gluonnlp', 'horovod'}
WITH_MXNET = {
    'bert.gluon',
    'bert.model',
    'bert.training.update',
    'bert.training.states',
    'bert.training.optimizer',
    'bert.finetuning.datasets',
    'bert.finetuning.step',
    'bert.finetuning.output',
    'bert.pretraining.loss',
    'bert.pretraining.recorder',
    'bert.convert.onnx',
}
WITH_MXNET_IN_FUNCTIONS = {
    'bert.ops',
    'bert.distributed.connection',
    'bert.distributed.workers',
    'bert.distributed.parameter_server',
    'bert.distributed.horovod',
    'bert.checkpoints.gluon',
    'bert.convert.witnesses',  # runs a model in GluonNLP, to compare with it
    'run_pretraining',  # the profiler
}

WITH_PRIVATE_NAMES = {'bert.model.parameters', 'bert.training.states'}
PUBLIC = {'_replace', '_asdict', '_fields', '_make', '_exit'}  # of namedtuple and os

LONGEST_SCRIPT = 420
LONGEST_MODULE = 320


class Import(NamedTuple):
    """One imported module."""

    name: str
    line: int
    in_function: bool


def read_sources():
    """Return {module name: source} of the package, the scripts and the benchmarks."""
    sources = {}
    for path in [*ROOT.glob('bert/**/*.py'), *ROOT.glob('*.py'), *ROOT.glob('benchmarks/*.py')]:
        name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        if name != 'setup':
            sources[name.replace('.__init__', '')] = path.read_text(encoding='utf8')
    return sources


def imports_of(name, sources):
    """Return the imports of a module; modules in ``sources`` are given by full name."""
    tree, found = ast.parse(sources[name]), []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {node for function in functions for node in ast.walk(function)}
    is_package = any(other.startswith(f'{name}.') for other in sources)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = name if is_package else name.rpartition('.')[0]
            base = resolve_name('.' * node.level + (node.module or ''), package)
            inner = [f'{base}.{alias.name}' for alias in node.names]
            targets = [module if module in sources else base for module in inner]
        else:
            continue
        found += [Import(target, node.lineno, node in inside) for target in targets]
    return found


def room_of(name):
    """Return the room of a module, or None."""
    if name == 'bert':
        return 'bert.system'  # bert/__init__.py prepares the environment
    return next((room for room in FLOOR_OF if is_in(name, [room])), None)


def is_in(name, places):
    """Return whether a module is one of some modules or packages, or inside one."""
    return any(name == place or name.startswith(f'{place}.') for place in places)


# The checks: each returns a line for each fault.


def find_homeless(sources):
    return [name for name in sources if room_of(name) is None]


def find_upward(sources):
    found = []
    for name in sources:
        for target, line, _ in imports_of(name, sources):
            rooms = room_of(name), room_of(target) if target in sources else None
            if None in rooms or rooms[0] == rooms[1]:
                continue
            if FLOOR_OF[rooms[1]] >= FLOOR_OF[rooms[0]]:
                found.append(f'{name}:{line} imports {target}')
    return found


def find_circles(sources):
    """Return the modules that remain when those without imports or importers are removed."""
    graph = {
        name: {target.name for target in imports_of(name, sources)} & set(sources) - {name}
        for name in sources
    }
    while True:
        imported = set().union(*graph.values())
        ends = {name for name in graph if not graph[name] or name not in imported}
        if not ends:
            return sorted(graph)
        graph = {name: graph[name] - ends for name in graph if name not in ends}


def find_mxnet(sources):
    found = []
    for name in sources:
        for target, line, in_function in imports_of(name, sources):
            places = WITH_MXNET | WITH_MXNET_IN_FUNCTIONS if in_function else WITH_MXNET
            if target.split('.')[0] in MXNET and not is_in(name, [*places, 'benchmarks']):
                found.append(f'{name}:{line} imports {target}')
    return found


def find_private_names(sources):
    """Return the private names that do not belong to the object itself or its classes."""
    found = []
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            names = []
            if isinstance(node, ast.Attribute):
                owner = getattr(node.value, 'func', node.value)
                if getattr(owner, 'id', '') not in ('self', 'cls', 'super'):
                    names = [node.attr]
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names if node.module != '__future__']
            elif isinstance(node, ast.Call) and getattr(node.func, 'id', '').endswith('attr'):
                names = [arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)]
            private = [n for n in names if n.startswith('_') and not n.startswith('__')]
            if set(private) - PUBLIC and not is_in(name, [*WITH_PRIVATE_NAMES, 'benchmarks']):
                found.append(f'{name}:{node.lineno} uses {private[0]}')
    return found


def find_long(sources):
    found = []
    for name, source in sources.items():
        limit = LONGEST_MODULE if name.startswith('bert') else LONGEST_SCRIPT
        lines = source.count('\n')
        if lines > limit and name != 'download_glue_data' and not is_in(name, ['benchmarks']):
            found.append(f'{name} has {lines} lines, more than {limit}')
    return found


def test_every_module_is_in_a_room():
    assert find_homeless(read_sources()) == []


def test_imports_run_downward():
    assert find_upward(read_sources()) == []


def test_no_modules_import_each_other_in_a_circle():
    assert find_circles(read_sources()) == []


def test_mxnet_is_imported_in_its_rooms_only():
    assert find_mxnet(read_sources()) == []


def test_private_names_of_other_libraries_are_used_in_two_modules_only():
    assert find_private_names(read_sources()) == []


def test_no_file_is_too_long():
    assert find_long(read_sources()) == []


# Planted faults are found.


def test_a_planted_upward_import_is_found():
    sources = {
        'bert.system.files': 'import os\ndef read():\n    from bert.text import vocab\n',
        'bert.text.vocab': 'from bert.cli.flags import Parser\nfrom bert.system import files\n',
        'bert.cli.flags': '',
        'bert.model': 'from . import build\nimport bert.text.vocab\n',
        'bert.model.build': 'from .. import text\n',
        'glue': 'import finetune_classifier\n',
        'finetune_classifier': 'import run_pretraining\n',
        'run_pretraining': '',
        'bert.other.thing': '',
        'thing': '',
    }
    assert find_upward(sources) == [
        'bert.system.files:3 imports bert.text.vocab',
        'bert.text.vocab:1 imports bert.cli.flags',
        'finetune_classifier:1 imports run_pretraining',
    ]
    assert find_homeless(sources) == ['bert.other.thing', 'thing']


def test_a_planted_circle_is_found():
    sources = {
        'bert.text.a': 'from bert.text import b\nimport os\n',
        'bert.text.b': 'def late():\n    from bert.text.c import name\n',
        'bert.text.c': 'import bert.text.a\nimport bert.text.d\n',
        'bert.text.d': '',
        'bert.text.e': 'from bert.text import a\n',
    }
    assert find_circles(sources) == ['bert.text.a', 'bert.text.b', 'bert.text.c']
    assert find_circles({**sources, 'bert.text.c': ''}) == []


def test_planted_imports_of_mxnet_are_found():
    top, inside = 'try:\n    from mxnet import nd\n', 'finally:\n  def f(): import gluonnlp\n'
    assert find_mxnet({'bert.text.vocab': top + inside}) == [
        'bert.text.vocab:2 imports mxnet',
        'bert.text.vocab:4 imports gluonnlp',
    ]
    assert find_mxnet({'bert.ops.build': top + inside}) == ['bert.ops.build:2 imports mxnet']
    assert find_mxnet({'bert.model.build': top + inside}) == []


def test_planted_private_names_are_found():
    source = (
        'from mxnet.base import _LIB\n'
        'class Block:\n'
        '    _own = 1\n'
        '    def f(self, block):\n'
        '        super()._f(self._own, block._inner, getattr(block, "_outer"))\n'
        '        return os._exit(row._replace(a=block.__class__))\n'
    )
    found = find_private_names({'bert.text.vocab': source, 'bert.training.states': source})
    assert Counter(found) == Counter(
        f'bert.text.vocab:{line} uses {name}'
        for line, name in [(1, '_LIB'), (5, '_inner'), (5, '_outer')]
    )


def test_long_files_are_found():
    sources = dict.fromkeys(['bert.text.vocab', 'glue', 'download_glue_data'], 421 * 'pass\n')
    assert find_long(sources) == [
        'bert.text.vocab has 421 lines, more than 320',
        'glue has 421 lines, more than 420',
    ]
