"""What MXNet is given beside numpy as it is, and that nobody else sees any of it."""

import doctest
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from conftest import ROOT

from bert.system import compatibility

# isort: split
import mxnet as mx

# Prints what a program can see of numpy: names, values of constants, and how it prints.
LOOK = """
import inspect, json, sys
import numpy
def look():
    names = {name: repr(getattr(numpy, name, None)) for name in dir(numpy)
             if isinstance(getattr(numpy, name, None), (int, float, str, type))}
    found = []
    for name in 'bool int PZERO NaN Inf alltrue in1d trapz product pv'.split():
        try:
            found.append(name in vars(numpy))
        except Exception as error:
            found.append(repr(error))
    numbers = [repr(numpy.float32(0.1)), str((numpy.int64(1), numpy.ones(2)))]
    try:
        numbers.append(str(numpy.array([-1], dtype='uint8')))
    except OverflowError as error:
        numbers.append(str(error))
    options = {name: str(value) for name, value in numpy.get_printoptions().items()}
    # MXNet imports more of its submodules.
    public = [name for name in dir(numpy) if not inspect.ismodule(getattr(numpy, name, None))]
    return [public, names, found, numbers, options, id(numpy.array), id(numpy)]
before = look()
before_modules = set(sys.modules)
import bert
import mxnet, gluonnlp
import numpy
after = look()
assert sys.modules['numpy'] is numpy
print(json.dumps([before == after, 'distutils' in set(sys.modules) - before_modules,
                  __import__ is __builtins__.__import__,
                  sorted({'scipy.stats', 'sklearn', 'pandas'} & set(sys.modules))]))
"""


def test_examples_of_the_docstrings():
    result = doctest.testmod(compatibility)
    assert result.attempted and not result.failed


def test_a_programs_own_numpy_is_not_changed_and_imports_are_few():
    command = [sys.executable, '-W', 'ignore', '-c', LOOK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unchanged, has_distutils, same_import, needless = json.loads(done.stdout)
    assert unchanged and same_import and needless == []
    assert not has_distutils or sys.version_info < (3, 12)


def test_an_onnx_that_cannot_be_imported_is_none_for_mxnet(tmp_path):
    """onnx 1.18 reads a name that ml_dtypes 0.1 lacks, and MXNet expects no AttributeError."""
    (tmp_path / 'onnx.py').write_text('import sys\nsys.no_such_name')
    code = 'import bert, mxnet; print(mxnet.__version__)'
    convert = ['-m', 'bert.convert', 'sample_model', str(tmp_path / 'new'), '--to', 'onnx']
    for command, status in ((['-c', code], 0), (convert, 1)):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', *command],
            cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        assert done.stderr.count('\n') == status
        if status:
            assert 'no_such_name' in done.stderr and 'other releases' in done.stderr


@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # numpy 1 still has them
def test_mxnet_gets_the_names_that_it_looks_up():
    """Their values are those of numpy's own documentation of them."""
    assert mx.np.NAN != mx.np.NAN and np.inf == mx.np.PINF and -np.inf == mx.np.NINF
    assert mx.np.bool in (bool, np.bool_)
    given = compatibility.extended_numpy()
    assert given.alltrue([1, 0]) == np.False_ and given.sometrue([1, 0]) == np.True_
    assert given.product([2, 3]) == 6 and given.round_(1.26, 1) == 1.3
    assert given.trapz([1, 2, 3]) == 4.0  # two trapezoids of width 1
    assert given.msort(np.array([[3, 1], [2, 4]])).tolist() == [[2, 1], [3, 4]]
    assert given.in1d([[1, 2]], [2]).tolist() == [False, True]
    assert given.zeros is np.zeros
    assert not hasattr(given, 'no_such_name')
    if not hasattr(np, 'pv'):  # dropped by numpy 1.20
        with pytest.raises(RuntimeError):
            given.pv(0, 1, 2)


def test_mxnet_gets_scipy_when_it_uses_it():
    assert mx.contrib.quantization.stats.entropy is scipy.stats.entropy
    assert mx.test_utils.ss.chisquare is scipy.stats.chisquare
    matrix = mx.nd.array(scipy.sparse.csr_matrix([[0.0, 2.0]]))
    assert matrix.stype == 'csr' and matrix.asscipy().toarray().tolist() == [[0, 2]]


def test_numbers_of_numpy_as_attributes_of_operators():
    data = mx.nd.arange(6)
    shape = (np.int64(3), np.int64(2))
    assert mx.nd.reshape(data, shape=shape).shape == (3, 2)
    assert mx.sym.reshape(mx.sym.var('x'), shape=shape).attr('shape') == '(3, 2)'
    assert mx.nd.clip(data, np.float32(1), np.float64(2)).asnumpy().tolist() == [1, 1, 2, 2, 2, 2]
    assert mx.nd.slice(data, begin=[np.int32(1)], end=[None]).shape == (5,)
    assert mx.nd.array([-1, 256], dtype='uint8').asnumpy().tolist() == [255, 0]


@pytest.mark.parametrize(
    'value',
    [
        'a',
        1,
        0.1,
        None,
        True,
        (),
        (1,),
        [1, 2],
        ('a', None),
        ((1, 2), [3.5]),
        [True, 'b'],
        {'a': 1},
    ],
)
def test_other_attributes_are_printed_as_ever(value):
    assert compatibility.text_of(value) == str(value)


@pytest.mark.parametrize(
    ('one', 'other', 'is_less'),
    [('1.9', '1.17', True), ('2.5.0rc1', '2.5', False), ('1.26.4', '2.0', True)],
)
def test_versions(one, other, is_less):
    version = compatibility.own_distutils().version.LooseVersion
    assert (version(one) < version(other)) == is_less
