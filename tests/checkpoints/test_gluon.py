"""MXNet's files against MXNet's own reader and writer, and damaged ones."""

import struct

import numpy as np
import pytest

from bert.checkpoints import gluon

import mxnet as mx  # isort: skip

DTYPES = ('float32', 'float64', 'float16', 'uint8', 'int32', 'int8', 'int64', 'bool')


@pytest.fixture
def path(tmp_path):
    """Return a file of all types and several shapes, as MXNet writes it."""
    rng = np.random.default_rng(0)
    arrays = {
        f'{dtype} é.{len(shape)}': mx.nd.array(rng.integers(0, 2, shape), dtype=dtype)
        for dtype in DTYPES
        for shape in ((3,), (2, 5), (1, 2, 3))
    }
    mx.nd.save(str(tmp_path / 'a.params'), arrays)
    return tmp_path / 'a.params'


def refused(path):
    with pytest.raises(ValueError) as caught:
        gluon.read(path)
    return str(caught.value)


def test_the_same_as_mxnet(path):
    expected = mx.nd.load(str(path))
    found = gluon.read(path)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert (found[name] == array.asnumpy()).all()


def test_shapes_of_numpy(tmp_path):
    """A file written under ``mx.util.np_shape`` has a scalar and an array without elements."""
    with mx.util.np_shape(True), mx.util.np_array(True):
        arrays = {'scalar': mx.np.array(2.5), 'empty': mx.np.zeros((0, 3))}
        mx.npx.save(str(tmp_path / 'a.params'), arrays)
    found = gluon.read(tmp_path / 'a.params')
    assert found['scalar'].shape == () and found['scalar'] == 2.5
    assert found['empty'].shape == (0, 3)


def test_without_names(tmp_path):
    mx.nd.save(str(tmp_path / 'a.params'), [mx.nd.ones((2,))])
    assert gluon.read(tmp_path / 'a.params') == {}


def test_sparse(tmp_path):
    array = mx.nd.ones((2, 2)).tostype('row_sparse')
    mx.nd.save(str(tmp_path / 'a.params'), {'a': array})
    assert refused(tmp_path / 'a.params') == 'an array is sparse, or damaged'


def test_cut_off_anywhere(path):
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        refused(path)
    path.write_bytes(data + b'\0')
    assert refused(path) == 'something follows its end'


def array(*shape, dimensions=None, kind=0):
    dimensions = len(shape) if dimensions is None else dimensions
    head = struct.pack(f'<Iii{len(shape)}q', 0xF993FAC9, 0, dimensions, *shape)
    return head + struct.pack('<iii', 1, 0, kind)


@pytest.mark.parametrize(
    ('count', 'rest', 'sentence'),
    [
        (2**60, b'', f'{2**60} things are promised and 0 bytes are left'),
        (1, array(2**20, 2**20), f'{2**40} things are promised and 0 bytes are left'),
        (1, array(2**30, 2**30, 2**30), f'{2**90} things are promised and 0 bytes are left'),
        (1, array(2**40, 0), f'an array has the shape ({2**40}, 0)'),
        (1, array(-1, 4), 'an array has the shape (-1, 4)'),
        (1, array(dimensions=2**31 - 1), f'an array has {2**31 - 1} dimensions'),
        (1, array(dimensions=-1), 'an array has -1 dimensions'),
        (1, array(1, kind=12) + bytes(4), 'an array has the unknown type 12'),
        (0, struct.pack('<Q', 2**60), f'{2**60} things are promised and 0 bytes are left'),
        (0, struct.pack('<QQ', 1, 2**62), f'{2**62} things are promised and 0 bytes are left'),
        (0, struct.pack('<QQ', 1, 1) + b'a', '1 names for 0 arrays'),
    ],
)
def test_promises(tmp_path, count, rest, sentence):
    path = tmp_path / 'a.params'
    path.write_bytes(struct.pack('<QQQ', 0x112, 0, count) + rest)
    assert refused(path) == sentence


def test_two_arrays_of_one_name(tmp_path):
    names = struct.pack('<QQ', 2, 1) + b'a' + struct.pack('<Q', 1) + b'a'
    data = struct.pack('<QQQ', 0x112, 0, 2) + 2 * (array(1) + bytes(4)) + names
    (tmp_path / 'a.params').write_bytes(data)
    assert refused(tmp_path / 'a.params') == '1 names for 2 arrays'
