"""Files of arrays, compared with ``numpy.load``, and declarations that are refused."""

import io
import struct
import zipfile

import numpy as np
import pytest

from bert.system import npz

ARRAYS = {
    'matrix': np.arange(6, dtype=np.int16).reshape(2, 3),
    'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'scalar': np.array('text of é'),
    'empty': np.zeros((0, 4), np.float32),
}


@pytest.fixture
def path(tmp_path):
    np.savez_compressed(tmp_path / 'a.npz', **ARRAYS)
    return tmp_path / 'a.npz'


def member(shape, descr='|u1', body=b'', version=b'\1\0'):
    header = repr({'descr': descr, 'fortran_order': False, 'shape': shape}).encode() + b'\n'
    return b'\x93NUMPY' + version + struct.pack('<H', len(header)) + header + body


def write(path, content, method=zipfile.ZIP_DEFLATED, name='a.npy'):
    with zipfile.ZipFile(path, 'w', method) as archive:
        archive.writestr(name, content)


def reason(path, name='a'):
    with pytest.raises(npz.Damaged) as caught, npz.open_npz(path) as arrays:
        arrays.read(name)
    return str(caught.value)


def test_the_same_as_numpy(path):
    with npz.open_npz(path) as arrays, np.load(path) as expected:
        assert arrays.names == expected.files
        for name in ARRAYS:
            found = arrays.read(name)
            assert found.dtype == expected[name].dtype and found.shape == expected[name].shape
            assert (found == expected[name]).all()


def test_a_name_that_is_missing(path):
    assert reason(path, 'other') == 'the array other is missing'


@pytest.mark.parametrize(
    ('shape', 'descr', 'body'),
    [
        ((2**40,), '|u1', b'abc'),
        ((2**32, 2**32), '|u1', b''),  # 0 in 64 bits
        ((-1, 3), '|u1', b'abc'),
        ((2,), '|u1', b'abc'),
        ((), '<U536870911', b'abc'),
    ],
)
def test_a_header_that_declares_more_or_less(tmp_path, shape, descr, body):
    write(tmp_path / 'a.npz', member(shape, descr, body))
    expected = f'bytes are promised and {len(body)} are there)'
    assert reason(tmp_path / 'a.npz').endswith(expected)


@pytest.mark.parametrize('descr', ['|O', [('a', '<i4')], '(3,)i4'])
def test_arrays_of_other_things_than_numbers_and_text(tmp_path, descr):
    write(tmp_path / 'a.npz', member((0,), descr))
    assert reason(tmp_path / 'a.npz').startswith('the array a cannot be read (')


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / 'a.npz', a=np.array([print], dtype=object))
    assert 'it is not one of plain numbers or text' in reason(tmp_path / 'a.npz')


def test_a_small_file_of_many_zeros(tmp_path, monkeypatch):
    """The limit applies to all arrays together."""
    write(tmp_path / 'a.npz', member((10**5,), body=bytes(10**5)))
    with npz.open_npz(tmp_path / 'a.npz') as arrays:
        assert not arrays.read('a').any()
    monkeypatch.setattr(npz, 'ALWAYS_ALLOWED', 150000)
    with npz.open_npz(tmp_path / 'a.npz') as arrays:
        arrays.read('a')
        with pytest.raises(npz.Damaged, match=r'the array a would unpack to 1000\d\d bytes'):
            arrays.read('a')


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(tmp_path, method):
    write(tmp_path / 'a.npz', member((3,), body=b'abc'), method)
    assert reason(tmp_path / 'a.npz') == 'the array a is compressed in an unusual way'


def test_other_versions_of_the_format(tmp_path):
    write(tmp_path / 'a.npz', member((3,), body=b'abc', version=b'\x09\0'))
    assert 'format' in reason(tmp_path / 'a.npz')


def test_a_file_that_is_not_a_zip_file(tmp_path):
    out = io.BytesIO()
    np.save(out, np.arange(3))
    (tmp_path / 'a.npz').write_bytes(out.getvalue())
    assert reason(tmp_path / 'a.npz').startswith('not an .npz file, or not a whole one')
    with pytest.raises(FileNotFoundError), npz.open_npz(tmp_path / 'b.npz'):
        pass


def test_a_directory_that_points_outside_of_the_file(path):
    """zipfile then seeks to a negative position, which the system calls an invalid argument."""
    data = bytearray(path.read_bytes())
    end = data.rindex(b'PK\5\6')
    data[end + 12 : end + 16] = struct.pack('<I', 2**31)  # the size of the directory
    path.write_bytes(data)
    assert reason(path).startswith('not an .npz file, or not a whole one')
