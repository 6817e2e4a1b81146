"""The processor and the GPUs, with simulated drivers and processors."""

import ctypes
import os
import sys

import pytest

from bert.system import machine


class FakeDriver:
    """The functions of libcuda for GPUs of given compute capabilities.

    The attribute numbers are those of ``cuda.h``: COMPUTE_CAPABILITY_MAJOR 75, MINOR 76.
    """

    def __init__(self, *capabilities, init=0):
        self.capabilities, self.init = capabilities, init

    def cuInit(self, flags):
        return self.init

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.capabilities)
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = 100 + index  # a handle is not an index
        return 0

    def cuDeviceGetName(self, name, length, device):
        name.value = f'GPU with handle {device.value}'.encode()[: length - 1]
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.capabilities[device.value - 100][{75: 0, 76: 1}[attribute]]
        return 0


@pytest.fixture
def gpu_wheel(monkeypatch):
    monkeypatch.setattr(machine, 'installed_wheels', lambda: ['mxnet-cu112'])


@pytest.mark.parametrize('capability', [(5, 0), (5, 2), (6, 1), (7, 5), (8, 0), (8, 6), (8, 9)])
def test_gpus_that_the_wheel_serves(gpu_wheel, capability):
    assert machine.gpu_problem([0], FakeDriver(capability)) is None


@pytest.mark.parametrize('capability', [(3, 5), (3, 7), (9, 0), (10, 0), (12, 0)])
def test_gpus_that_the_wheel_has_no_code_for(gpu_wheel, capability):
    expected = (
        f'GPU 1 has compute capability {capability[0]}.{capability[1]}, and the mxnet-cu112 wheel '
        'holds code for 5.0 to 8.9 only (Maxwell to Ada)'
    )
    driver = FakeDriver((8, 6), capability)
    assert machine.gpu_problem([0, 1], driver) == expected
    # The other one can be used.
    assert machine.gpu_problem([0], driver) is None


def test_no_such_gpu(gpu_wheel):
    driver = FakeDriver((8, 6), (8, 6))
    assert machine.gpu_problem([0, 2], driver) == 'there is no GPU 2: the driver finds 2'
    assert machine.gpu_problem([0], FakeDriver()) == 'there is no GPU 0: the driver finds 0'
    expected = 'the NVIDIA driver finds no GPU'
    assert machine.gpu_problem([0], FakeDriver(init=100)) == expected


def test_no_driver(gpu_wheel, monkeypatch):
    def fail(name, mode=0):
        raise OSError(f'{name}: cannot open shared object file')

    monkeypatch.setattr(ctypes, 'CDLL', fail)
    expected = 'no NVIDIA driver is installed (libcuda.so.1 was not found)'
    assert machine.gpu_problem([0]) == expected


def test_a_cpu_wheel_has_no_gpus(monkeypatch):
    monkeypatch.setattr(machine, 'installed_wheels', lambda: ['mxnet'])
    problem = machine.gpu_problem([0], FakeDriver((8, 6)))
    assert problem.startswith('the installed mxnet has no GPU support: pip uninstall mxnet')


def test_gpu_names(monkeypatch):
    names = ['GPU with handle 100', 'GPU with handle 101']
    assert machine.gpu_names(FakeDriver((8, 6), (9, 0))) == names
    assert machine.gpu_names(FakeDriver(init=100)) == []

    def fail(name, mode=0):
        raise OSError(name)

    monkeypatch.setattr(ctypes, 'CDLL', fail)
    assert machine.gpu_names() == []


def test_describe(monkeypatch):
    """Versions are those stated by the packages; everything is text."""
    import numpy
    import psutil

    monkeypatch.setattr(machine, 'gpu_names', lambda: ['A', 'B'])
    found = machine.describe()
    assert all(isinstance(value, str) and value for value in found.values())
    assert found['numpy'] == numpy.__version__
    assert found['Python'] == '.'.join(map(str, sys.version_info[:3]))
    assert found['GPUs'] == 'A, B'
    assert abs(int(found['memory'].split()[0]) * 2**30 - psutil.virtual_memory().total) < 2**30


@pytest.mark.parametrize(
    ('flags', 'permitted', 'expected'),
    [({'amx_bf16'}, 0, 'AVX512_CORE_AMX'), ({'amx_bf16'}, -1, None), ({'avx512_bf16'}, 0, None)],
)
def test_amx_is_asked_for_where_the_processor_has_it(monkeypatch, flags, permitted, expected):
    class Library:
        def syscall(self, *numbers):
            assert numbers == (158, 0x1023, 18)
            return permitted

    monkeypatch.delenv('DNNL_MAX_CPU_ISA', raising=False)
    monkeypatch.setattr(machine, 'processor_flags', lambda: flags)
    monkeypatch.setattr(ctypes, 'CDLL', lambda name: Library())
    monkeypatch.setattr(machine, 'has_matrix_unit', machine.has_matrix_unit.__wrapped__)
    assert machine.has_matrix_unit() == (expected is not None)
    machine.prepare_bfloat16()
    assert os.environ.pop('DNNL_MAX_CPU_ISA', None) == expected


def test_a_choice_of_the_user_is_kept(monkeypatch):
    monkeypatch.setenv('DNNL_MAX_CPU_ISA', 'AVX2')
    monkeypatch.setattr(machine, 'has_matrix_unit', lambda: True)
    machine.prepare_bfloat16()
    assert os.environ['DNNL_MAX_CPU_ISA'] == 'AVX2'
