"""Arrays that grow row by row, in ``.npz`` files that numpy and this project read."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, failure

from bert.system import npz
from bert.system.spool import Spool, write_npz


def arrays(folder):
    """Return spooled arrays and what they hold."""
    rng = np.random.default_rng(1)
    expected = {
        'vectors': rng.normal(size=(7, 2, 3)).astype(np.float32),
        'ids': np.arange(11, dtype=np.int32),
        'empty': np.zeros((0, 4), np.float32),
        'names': np.array(['a', 'größer', '']),
    }
    spools = {'names': expected['names']}
    for name in ('vectors', 'ids', 'empty'):
        array = expected[name]
        spools[name] = Spool(folder, array.dtype, array.shape[1:])
        for start in range(0, len(array), 3):
            spools[name].append(array[start : start + 3])
    return spools, expected


def test_numpy_reads_it_without_pickle(tmp_path):
    spools, expected = arrays(tmp_path)
    path = tmp_path / 'a.npz'
    with open(path, 'wb') as file:
        write_npz(file, spools)
    with np.load(path) as found:  # allow_pickle=False
        assert sorted(found) == sorted(expected)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    with npz.open_npz(path) as found:
        np.testing.assert_array_equal(found.read('vectors'), expected['vectors'])
    assert os.listdir(tmp_path) == ['a.npz']  # the temporary files have no names


def test_the_same_bytes_each_time_and_through_a_pipe(tmp_path):
    first, second = io.BytesIO(), io.BytesIO()
    for file in (first, second):
        write_npz(file, arrays(None)[0])
    assert first.getvalue() == second.getvalue()
    code = (
        'import sys, numpy as np\n'
        'from bert.system.spool import Spool, write_npz\n'
        'spool = Spool(None, "int64")\n'
        'spool.append(range(100000))\n'
        'write_npz(sys.stdout.buffer, {"a": spool})\n'
    )
    ran = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE)
    found = np.load(io.BytesIO(ran.stdout))
    np.testing.assert_array_equal(found['a'], np.arange(100000))


def test_rows_of_another_shape(tmp_path):
    spool = Spool(tmp_path, np.float32, (3,))
    with pytest.raises(ValueError, match=r'rows of the shape \(2,\) do not fit \(3,\)'):
        spool.append(np.zeros((1, 2)))


def test_a_folder_that_cannot_be_written(tmp_path):
    assert failure(Spool, tmp_path / 'none', np.float32) == (
        f'{tmp_path}/none: could not be written (No such file or directory)'
    )


def test_a_full_disk(tmp_path):
    spool = Spool(tmp_path, np.float32)
    spool.file.close()
    spool.file = open('/dev/full', 'wb')  # noqa: SIM115
    assert failure(spool.append, np.zeros(10**6)) == (
        f'{tmp_path}: could not be written (No space left on device)'
    )
    spool.close()
