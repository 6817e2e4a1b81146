"""What MXNet 1.9.1 and GluonNLP 0.10 ask of other packages, and what these lack today.

Both are at their last release. They look up names that numpy, onnx and the standard library have
dropped since, and print numbers into the attributes of operators, which numpy 2 prints in another
way. All of this is supplied to their own modules, if they are imported after this package. Other
modules, a program's own among them, see numpy as it is.

MXNet also imports scipy and scikit-learn, which take longer than all of itself, for functions that
few programs call. It gets scipy when it first uses it, and scikit-learn, which has a class that its
deprecated ``FeedForward`` is derived from, not at all.
"""

import builtins
import functools
import importlib.machinery
import importlib.util
import re
import sys
import types

PACKAGES = ('mxnet', 'gluonnlp')
# The modules whose functions import what is extended here.
IMPORTING_LATE = ('mxnet.onnx', 'mxnet.contrib.onnx')
# The modules that hand the attributes of operators, as text, to the C++ library.
PRINTING = ('mxnet._ctypes.ndarray', 'mxnet._ctypes.symbol')


def supply():
    """Supply the names that are missing here to MXNet and GluonNLP, whenever they are imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


@functools.lru_cache(maxsize=None)
def extended_numpy():
    """Return numpy with the names that MXNet looks up and this release lacks."""
    import numpy

    def renamed(function):
        # Another object: MXNet keeps a table by function.
        return lambda *args, **keywords: function(*args, **keywords)

    def in1d(ar1, ar2, *args, **keywords):
        return numpy.isin(numpy.ravel(ar1), ar2, *args, **keywords)

    def array(object, dtype=None, **keywords):
        try:
            return numpy.array(object, dtype, **keywords)
        except OverflowError:  # with numpy 1, -1 is 255 as an unsigned byte
            return numpy.array(object, **keywords).astype(dtype)

    def dropped(*args, **keywords):
        raise RuntimeError('numpy has dropped this function')

    older = {
        **dict.fromkeys('fv ipmt irr mirr nper npv pmt ppmt pv rate'.split(), dropped),
        'bool': numpy.bool_,
        'int': int,
        'PZERO': 0.0,
        'NZERO': -0.0,
        'PINF': numpy.inf,
        'NINF': -numpy.inf,
        'Inf': numpy.inf,
        'NaN': numpy.nan,
        'NAN': numpy.nan,
        'alltrue': renamed(numpy.all),
        'sometrue': renamed(numpy.any),
        'product': renamed(numpy.prod),
        'round_': renamed(numpy.round),
        'trapz': renamed(getattr(numpy, 'trapezoid', None)),
        'msort': lambda a: numpy.sort(a, axis=0),
        'in1d': in1d,
        'compat': types.SimpleNamespace(basestring=str),
    }
    older = {name: value for name, value in older.items() if name not in vars(numpy)}
    return _extended(numpy, {**older, 'array': array} if prints_types() else older)


@functools.lru_cache(maxsize=None)
def extended_onnx():
    """Return onnx with ``onnx.mapping``, which its release 1.19 dropped."""
    import onnx
    from onnx import TensorProto, helper

    if hasattr(onnx, 'mapping'):
        return onnx
    numbers = 'FLOAT UINT8 INT8 UINT16 INT16 INT32 INT64 BOOL FLOAT16 DOUBLE UINT32 UINT64'.split()
    types_of = {
        number: helper.tensor_dtype_to_np_dtype(number)
        for number in (getattr(TensorProto, name) for name in numbers)
    }
    mapping = types.SimpleNamespace(
        TENSOR_TYPE_TO_NP_TYPE=types_of,
        NP_TYPE_TO_TENSOR_TYPE={dtype: number for number, dtype in types_of.items()},
    )
    return _extended(onnx, {'mapping': mapping})


@functools.lru_cache(maxsize=None)
def own_distutils():
    """Return ``distutils`` with what MXNet uses of it; Python 3.12 dropped it."""
    distutils = types.ModuleType('distutils')
    distutils.version = types.ModuleType('distutils.version')
    distutils.version.LooseVersion = distutils.version.StrictVersion = _Version
    return distutils


@functools.lru_cache(maxsize=None)
def later_scipy():
    """Return scipy with the two modules that MXNet names, each imported when it is first used."""
    if importlib.util.find_spec('scipy') is None:
        raise ImportError('scipy is not installed')
    scipy = types.ModuleType('scipy')
    scipy.sparse, scipy.stats = _Later('scipy.sparse'), _Later('scipy.stats')
    return scipy


def no_sklearn():
    """Refuse to import scikit-learn; MXNet does without."""
    raise ImportError('scikit-learn is not imported for MXNet')


def prints_types():
    """Return whether numpy prints the types of numbers within tuples, as numpy 2 does."""
    import numpy

    return str((numpy.int64(1),)) != '(1,)'


def text_of(value):
    """Return the text of an attribute of an operator, as it was with numpy 1.

    >>> import numpy
    >>> text_of((numpy.int64(2), numpy.float32(0.5)))
    '(2, 0.5)'
    """
    import numpy

    if not isinstance(value, (tuple, list)):
        return str(value)
    parts = []
    for part in value:
        is_nested = isinstance(part, (tuple, list))
        is_number = isinstance(part, numpy.generic)
        parts.append(text_of(part) if is_nested else str(part) if is_number else repr(part))
    if isinstance(value, list):
        return f'[{", ".join(parts)}]'
    return f'({", ".join(parts)}{"," * (len(parts) == 1)})'


# What an import statement of MXNet's and GluonNLP's modules gets.
EXTENDED = {'numpy': extended_numpy, 'onnx': extended_onnx}
REPLACED = {'distutils': own_distutils, 'scipy': later_scipy, 'sklearn': no_sklearn}


def supplying_import(name, globals=None, locals=None, fromlist=(), level=0):
    """Import a module like the built-in ``__import__``, but extended where names are missing."""
    top, _, rest = name.partition('.')
    if not level and top in REPLACED:
        module = REPLACED[top]()
        return getattr(module, rest) if rest and fromlist else module
    if level or top not in EXTENDED or (rest and fromlist):
        return builtins.__import__(name, globals, locals, fromlist, level)
    try:
        builtins.__import__(name, globals, locals, fromlist, level)
    except Exception as error:
        # MXNet imports onnx if it can; one that does not fit its own packages raises anything.
        raise ImportError(f'{top} cannot be imported: {error}') from error
    return EXTENDED[top]()


class _Later(types.ModuleType):
    """A module that is imported when one of its names is first looked up."""

    def __getattr__(self, name):
        return getattr(importlib.import_module(self.__name__), name)


class _Version(tuple):
    """A version such as ``2.5.0rc1``, compared by the numbers that it begins with."""

    def __new__(cls, text):
        return super().__new__(cls, map(int, re.match(r'\d+(?:\.\d+)*', text)[0].split('.')))


class _Finder:
    """Finds the modules of MXNet and GluonNLP in the usual places, for :class:`_Loader`."""

    def find_spec(self, name, path=None, target=None):
        """Return the specification of a module, or None to leave it to other finders."""
        if name.partition('.')[0] not in PACKAGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a module with :func:`supplying_import` in place of the built-in one."""

    def exec_module(self, module):
        names = module.__builtins__ = {**vars(builtins), '__import__': supplying_import}
        if module.__name__ in PRINTING and prints_types():
            module.str = text_of
        super().exec_module(module)
        # Operators import within functions too, and Python's own import is faster.
        if not module.__name__.startswith(IMPORTING_LATE):
            names['__import__'] = builtins.__import__


def _extended(module, more):
    """Return a module with the names of another one, and some more."""
    extended = types.ModuleType(module.__name__)
    # All are there, as MXNet looks some up at each call; submodules may be imported later.
    extended.__dict__.update({**vars(module), **more})
    extended.__getattr__ = lambda name: getattr(module, name)
    extended.__dir__ = lambda: sorted({*dir(module), *more})
    return extended
