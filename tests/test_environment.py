"""What is done before MXNet is imported, and whether it can run at all."""

import ctypes
import os
import subprocess
import sys

import pytest
from conftest import ROOT

import bert
from bert.cli import flags as cli_flags
from bert.cli.flags import check_dtype
from bert.system import environment, machine
from bert.system.errors import ToolkitError, UsageError
from bert.training import schedule


def python(code, **environ):
    """The output of a fresh interpreter; a value of None takes a variable away."""
    env = {**os.environ, **environ}
    env = {name: value for name, value in env.items() if value is not None}
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        env=env,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return result.stdout.strip()


THREADS = "import os, bert; print(os.environ['OMP_NUM_THREADS'])"


def test_thread_count_of_the_user_is_kept():
    assert python(THREADS, OMP_NUM_THREADS='7') == '7'


def test_thread_count_is_that_of_the_physical_cores():
    import psutil

    allowed = os.sched_getaffinity(0)
    physical = psutil.cpu_count(logical=False) or len(allowed)
    assert python(THREADS, OMP_NUM_THREADS=None) == str(min(len(allowed), physical))
    # A process that may run on one processor gets one thread.
    one = f'import os; os.sched_setaffinity(0, [{min(allowed)}]); {THREADS}'
    assert python(one, OMP_NUM_THREADS=None) == '1'


@pytest.mark.parametrize(
    ('allowed', 'physical', 'expected'),
    [(8, 4, '4'), (2, 4, '2'), (8, None, '8')],
)
def test_thread_count_with_other_processors(monkeypatch, allowed, physical, expected):
    import psutil

    monkeypatch.delenv('OMP_NUM_THREADS')
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(allowed)))
    monkeypatch.setattr(psutil, 'cpu_count', lambda logical: physical)
    environment.set_thread_count()
    assert os.environ['OMP_NUM_THREADS'] == expected


def test_numpy_bool_is_there_and_importing_bert_does_not_import_mxnet():
    code = (
        'import sys, bert, numpy\n'
        "print(numpy.bool is numpy.bool_, numpy.array([1], numpy.bool).dtype, 'mxnet' in "
        'sys.modules)'
    )
    assert python(code) == 'True bool False'


def test_an_existing_numpy_bool_is_kept(monkeypatch):
    import numpy

    monkeypatch.setattr(numpy, 'bool', 'as it was')
    environment.supply_numpy_bool()
    assert numpy.bool == 'as it was'


class FakeDistribution:
    def __init__(self, name):
        self.metadata = {'Name': name}


@pytest.mark.parametrize(
    ('names', 'sentence'),
    [
        (['numpy', 'mxnet'], None),
        (['mxnet_cu112', 'mxnet-bert-toolkit'], None),
        (['mxnet', 'mxnet', None], None),
        (
            ['numpy', 'mxnet-bert-toolkit'],
            "MXNet is not installed: pip install 'mxnet==1.9.1' for CPU, or pip install "
            "'.[cu112]' in the toolkit's folder for NVIDIA GPUs",
        ),
        (
            ['MXNet', 'mxnet_cu112'],
            'mxnet and mxnet-cu112 are both installed, and overwrite each other: pip uninstall '
            'mxnet mxnet-cu112, then install only one of them',
        ),
    ],
)
def test_exactly_one_wheel(monkeypatch, names, sentence):
    found = [FakeDistribution(name) for name in names]
    monkeypatch.setattr(environment.metadata, 'distributions', lambda: found)
    monkeypatch.setattr(environment.ctypes, 'CDLL', lambda name: None)  # the driver is there
    if sentence is None:
        environment.check_mxnet()
    else:
        with pytest.raises(ToolkitError) as caught:
            environment.check_mxnet()
        assert str(caught.value) == sentence


def test_the_gpu_build_needs_the_driver(monkeypatch):
    def missing(name):
        raise OSError(f'{name}: cannot open shared object file')

    found = [FakeDistribution('mxnet-cu112')]
    monkeypatch.setattr(environment.metadata, 'distributions', lambda: found)
    monkeypatch.setattr(environment.ctypes, 'CDLL', missing)
    with pytest.raises(ToolkitError, match='mxnet-cu112 needs the NVIDIA driver'):
        environment.check_mxnet()


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
    monkeypatch.setattr(environment, 'installed_wheels', lambda: ['mxnet-cu112'])


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
    # The other one may be used.
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
    monkeypatch.setattr(environment, 'installed_wheels', lambda: ['mxnet'])
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
    """Versions as the packages tell them, and this machine; everything is text."""
    import numpy
    import psutil

    monkeypatch.setattr(machine, 'gpu_names', lambda: ['A', 'B'])
    told = machine.describe()
    assert all(isinstance(value, str) and value for value in told.values())
    assert told['numpy'] == numpy.__version__
    assert told['toolkit'] == bert.__version__
    assert told['Python'] == '.'.join(map(str, sys.version_info[:3]))
    assert told['GPUs'] == 'A, B'
    assert abs(int(told['memory'].split()[0]) * 2**30 - psutil.virtual_memory().total) < 2**30


def test_cuda_libraries_are_loaded_in_order_from_the_first_folder(tmp_path, monkeypatch):
    loaded = []

    def fake(path, mode=ctypes.DEFAULT_MODE):
        if not os.path.exists(path):
            raise OSError(path)
        loaded.append((os.path.relpath(path, tmp_path), mode))

    first, second = tmp_path / 'one', tmp_path / 'two'
    for folder in (first, second):
        for library in environment.CUDA_LIBRARIES:
            path = folder / 'nvidia' / library
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    # One that is missing may be a system library: the others are loaded nevertheless.
    (first / 'nvidia' / 'nccl' / 'lib' / 'libnccl.so.2').unlink()
    monkeypatch.setattr(ctypes, 'CDLL', fake)
    monkeypatch.setattr(sys, 'path', [str(tmp_path / 'nothing'), str(first), str(second)])
    environment.preload_cuda_libraries()
    names = [name for name, _ in loaded]
    assert all(name.startswith('one/nvidia/') for name in names)
    assert len(names) == len(set(names)) == len(environment.CUDA_LIBRARIES) - 1
    assert {mode for _, mode in loaded} == {ctypes.RTLD_GLOBAL}
    # Each after those it links against (readelf -d of the CUDA 11 libraries).
    position = {os.path.basename(name).split('.so')[0]: i for i, name in enumerate(names)}
    for library, needed in [
        ('libcublas', 'libcublasLt'),
        ('libcusolver', 'libcublas'),
        ('libcusolver', 'libcublasLt'),
        ('libcusolver', 'libcusparse'),
        ('libcudnn', 'libcublas'),
    ]:
        assert position[needed] < position[library]


def test_nothing_is_preloaded_where_there_is_nothing(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(ctypes, 'CDLL', lambda *args: loaded.append(args))
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    environment.preload_cuda_libraries()
    assert loaded == []


def test_modules_are_attributes_and_others_are_not():
    assert schedule.learning_rate(1, 1.0, 0, 2) == 0.5
    with pytest.raises(AttributeError, match="module 'bert' has no attribute 'nothing'"):
        _ = bert.nothing


# --- the type of the matrix products


@pytest.mark.parametrize(
    ('dtype', 'on_gpu', 'flags'),
    [
        ('float32', False, set()),
        ('float32', True, set()),
        ('float16', True, set()),
        ('bfloat16', False, {'avx512_bf16'}),
    ],
)
def test_a_type_that_the_device_has_is_taken(dtype, on_gpu, flags):
    assert check_dtype(dtype, on_gpu, flags) is None


@pytest.mark.parametrize(
    ('dtype', 'on_gpu', 'sentence'),
    [
        ('float16', False, 'needs --gpu or --gpus: MXNet has no float16 on CPUs'),
        ('bfloat16', True, 'is for CPUs: MXNet has no bfloat16 on GPUs'),
        ('bfloat16', False, 'needs a processor with the instructions avx512_bf16'),
    ],
)
def test_a_type_that_the_device_lacks_is_refused(dtype, on_gpu, sentence):
    with pytest.raises(UsageError, match=f'--dtype {dtype} {sentence}'):
        cli_flags.check_dtype(dtype, on_gpu, flags={'avx2', 'avx512f'})


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
    monkeypatch.setattr(environment.ctypes, 'CDLL', lambda name: Library())
    monkeypatch.setattr(machine, 'has_matrix_unit', machine.has_matrix_unit.__wrapped__)
    assert machine.has_matrix_unit() == (expected is not None)
    machine.prepare_bfloat16()
    assert os.environ.pop('DNNL_MAX_CPU_ISA', None) == expected


def test_the_user_may_tell_onednn_otherwise(monkeypatch):
    monkeypatch.setenv('DNNL_MAX_CPU_ISA', 'AVX2')
    monkeypatch.setattr(machine, 'has_matrix_unit', lambda: True)
    machine.prepare_bfloat16()
    assert os.environ['DNNL_MAX_CPU_ISA'] == 'AVX2'
