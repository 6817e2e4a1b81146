"""What MXNet 1.9.1 needs of the process before it is imported, and whether it can run at all.

:func:`prepare` runs when :mod:`bert` is imported and does only what must come before
``import mxnet``. The checks are separate: a script calls them once it knows what it was asked for.
"""

import contextlib
import ctypes
import functools
import os
import sys
from importlib import metadata
from pathlib import Path

from bert.cli import ToolkitError, UsageError

# The compute capabilities that the mxnet-cu112 1.9.1 wheel can serve. It holds machine code for
# 5.0, 6.0, 7.0, 8.0 and 8.6 and no PTX; code serves later minor versions of the same major one.
LOWEST_CAPABILITY, HIGHEST_CAPABILITY = (5, 0), (8, 9)

# In loading order: a library comes after those that it links against.
CUDA_LIBRARIES = (
    'cuda_runtime/lib/libcudart.so.11.0',
    'cuda_nvrtc/lib/libnvrtc.so.11.2',
    'cublas/lib/libcublasLt.so.11',
    'cublas/lib/libcublas.so.11',
    'cufft/lib/libcufft.so.10',
    'curand/lib/libcurand.so.10',
    'cusparse/lib/libcusparse.so.11',
    'cusolver/lib/libcusolver.so.11',
    'cudnn/lib/libcudnn.so.8',
    'nccl/lib/libnccl.so.2',
    'nvtx/lib/libnvToolsExt.so.1',
)


def prepare():
    """Set the thread count, preload the CUDA libraries and supply ``numpy.bool``."""
    set_thread_count()
    preload_cuda_libraries()
    supply_numpy_bool()


def set_thread_count():
    """Use the physical cores that this process may run on, unless ``OMP_NUM_THREADS`` is set.

    MXNet's own choice, half of the logical processors, leaves half of the cores idle on machines
    without hyper-threading. OpenMP reads the variable once, when MXNet is loaded.
    """
    if 'OMP_NUM_THREADS' not in os.environ:
        import psutil

        allowed = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None
        physical = psutil.cpu_count(logical=False)
        counts = [n for n in (allowed, physical) if n]
        os.environ['OMP_NUM_THREADS'] = str(min(counts, default=1))


def preload_cuda_libraries():
    """Load the CUDA 11 libraries of the ``cu112`` extra, which MXNet would not find by itself."""
    for folder in sys.path:
        nvidia = Path(folder) / 'nvidia'
        if (nvidia / CUDA_LIBRARIES[0]).exists():
            for library in CUDA_LIBRARIES:
                # One that is absent may be installed system-wide: MXNet's import says if not.
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(nvidia / library), ctypes.RTLD_GLOBAL)
            return


def supply_numpy_bool():
    """Give numpy 1.24 and later the alias ``numpy.bool`` that MXNet looks up on import."""
    import numpy

    if 'bool' not in vars(numpy):
        numpy.bool = numpy.bool_


def installed_wheels():
    """Names of the installed distributions that provide ``mxnet``, sorted."""
    return sorted(
        {
            name.lower().replace('_', '-')
            for name in (d.metadata['Name'] for d in metadata.distributions())
            if name and name.lower().replace('_', '-').startswith('mxnet')
        }
        - {'mxnet-bert-toolkit'}
    )


def check_mxnet():
    """Refuse to go on where MXNet cannot be imported, saying what to install."""
    wheels = installed_wheels()
    if not wheels:
        raise ToolkitError(
            "MXNet is not installed: pip install 'mxnet==1.9.1' for CPU, or "
            "pip install '.[cu112]' in the toolkit's folder for NVIDIA GPUs"
        )
    if len(wheels) > 1:
        raise ToolkitError(
            f'{" and ".join(wheels)} are both installed, and overwrite each other: '
            f'pip uninstall {" ".join(wheels)}, then install only one of them'
        )
    if wheels != ['mxnet']:
        try:
            ctypes.CDLL('libcuda.so.1')
        except OSError:
            raise ToolkitError(
                f'{wheels[0]} needs the NVIDIA driver (libcuda.so.1 was not found), on the CPU '
                f"too: install it, or pip uninstall {wheels[0]} and pip install 'mxnet==1.9.1'"
            ) from None


def gpu_problem(indices, driver=None):
    """Why MXNet cannot run on these GPUs, as a sentence, or None if it can.

    Parameters
    ----------
    indices : list of int
        Device numbers as CUDA counts them.
    driver : object with the functions of ``libcuda``, optional
        Defaults to the system's own.
    """
    if installed_wheels() == ['mxnet']:
        return (
            'the installed mxnet has no GPU support: '
            "pip uninstall mxnet, then pip install '.[cu112]' in the toolkit's folder"
        )
    try:
        driver = driver or ctypes.CDLL('libcuda.so.1')
    except OSError:
        return 'no NVIDIA driver is installed (libcuda.so.1 was not found)'
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 'the NVIDIA driver finds no GPU'
    for index in indices:
        if index >= count.value:
            return f'there is no GPU {index}: the driver finds {count.value}'
        capability = _compute_capability(driver, index)
        if not LOWEST_CAPABILITY <= capability <= HIGHEST_CAPABILITY:
            return (
                'GPU {} has compute capability {}.{}, and the mxnet-cu112 wheel holds code for '
                '{}.{} to {}.{} only (Maxwell to Ada)'.format(
                    index, *capability, *LOWEST_CAPABILITY, *HIGHEST_CAPABILITY
                )
            )
    return None


def describe():
    """What a result depends on beside its settings, for a report.

    Returns
    -------
    dict of str to str
        Versions of the software, the processor, its cores and memory, and the GPUs.
    """
    import platform

    import psutil

    import bert

    packages = [*installed_wheels(), 'gluonnlp', 'numpy', 'scikit-learn', 'scipy', 'tokenizers']
    return {
        'toolkit': bert.__version__,
        'Python': platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        'system': platform.platform(),
        'processor': processor_name(),
        'physical cores': str(psutil.cpu_count(logical=False) or 'unknown'),
        'memory': f'{psutil.virtual_memory().total / 2**30:.0f} GiB',
        'GPUs': ', '.join(gpu_names()) or 'none',
    }


def processor_name():
    """What the processor calls itself."""
    import platform

    return read_cpuinfo('model name') or platform.processor() or platform.machine()


def processor_flags():
    """The names of the processor's instructions, as a set; empty where Linux does not tell."""
    return set((read_cpuinfo('flags') or read_cpuinfo('Features')).split())


def read_cpuinfo(name):
    """What Linux says of the first processor under this name, or an empty string."""
    with contextlib.suppress(OSError), open('/proc/cpuinfo', encoding='utf8') as file:
        for line in file:
            if line.split(':')[0].strip() == name:
                return line.partition(':')[2].strip()
    return ''


def gpu_names(driver=None):
    """The names of all GPUs that the NVIDIA driver finds; none where there is no driver."""
    try:
        driver = driver or ctypes.CDLL('libcuda.so.1')
    except OSError:
        return []
    count, name, device = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names = []
    for index in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode(errors='replace'))
    return names


def _compute_capability(driver, index):
    """(major, minor) of one GPU; 75 and 76 are the CUDA driver's numbers of the two attributes."""
    device, value, capability = ctypes.c_int(), ctypes.c_int(), []
    driver.cuDeviceGet(ctypes.byref(device), index)
    for attribute in (75, 76):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return tuple(capability)


def check_dtype(dtype, on_gpu, flags=None):
    """Refuse a ``--dtype`` that the device cannot compute with.

    Parameters
    ----------
    dtype : str
        ``float32``, ``float16`` or ``bfloat16``.
    on_gpu : bool
    flags : set of str, optional
        Names of the processor's instructions; defaults to this one's.
    """
    if dtype == 'float16' and not on_gpu:
        raise UsageError('--dtype float16 needs --gpu or --gpus: MXNet has no float16 on CPUs')
    if dtype == 'bfloat16':
        if on_gpu:
            raise UsageError('--dtype bfloat16 is for CPUs: MXNet has no bfloat16 on GPUs')
        if 'avx512_bf16' not in (processor_flags() if flags is None else flags):
            raise UsageError(
                '--dtype bfloat16 needs a processor with the instructions avx512_bf16 '
                '(Intel from Cooper Lake, AMD from Zen 4), and this one has none'
            )


# From Linux's arch_prctl(2): a program must ask before it uses the registers of AMX.
ARCH_PRCTL, REQUEST_PERMISSION, AMX_TILE_DATA = 158, 0x1023, 18


@functools.lru_cache(maxsize=None)
def has_matrix_unit():
    """Whether the processor has the matrix unit AMX, and Linux lets this process use it."""
    if 'amx_bf16' not in processor_flags():
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, AMX_TILE_DATA) == 0


def prepare_bfloat16():
    """Let MXNet's oneDNN use the matrix unit AMX, if there is one.

    This oneDNN, 2.4, leaves it alone unless told, and then its products in bfloat16 take longer
    than those in float32. It reads the variable before its first product.
    """
    if has_matrix_unit():
        os.environ.setdefault('DNNL_MAX_CPU_ISA', 'AVX512_CORE_AMX')
