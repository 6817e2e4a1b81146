"""The processor and the GPUs: their descriptions, and what MXNet can do with them."""

import contextlib
import ctypes
import functools
import os
from importlib import metadata

from bert.system.packages import check_mxnet, installed_wheels

# The compute capabilities that the mxnet-cu112 1.9.1 wheel supports. It contains machine code for
# 5.0, 6.0, 7.0, 8.0 and 8.6 and no PTX; code runs on later minor versions of the same major one.
LOWEST_CAPABILITY, HIGHEST_CAPABILITY = (5, 0), (8, 9)


def gpu_problem(indices, driver=None):
    """Return why MXNet cannot run on these GPUs, as a sentence, or None if it can.

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
    count = _count_gpus(driver)
    if count is None:
        return 'the NVIDIA driver finds no GPU'
    for index in indices:
        if index >= count:
            return f'there is no GPU {index}: the driver finds {count}'
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
    """Describe everything that a run's results depend on besides its settings.

    Returns
    -------
    dict of str to str
        Versions of the software, the processor, its cores and memory, and the GPUs.
    """
    import platform

    import psutil

    packages = [*installed_wheels(), 'gluonnlp', 'numpy', 'scikit-learn', 'scipy', 'tokenizers']
    return {
        'Python': platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        'system': platform.platform(),
        'processor': processor_name(),
        'physical cores': str(psutil.cpu_count(logical=False) or 'unknown'),
        'memory': f'{psutil.virtual_memory().total / 2**30:.0f} GiB',
        'GPUs': ', '.join(gpu_names()) or 'none',
    }


def processor_name():
    """Return the model name of the processor."""
    import platform

    return read_cpuinfo('model name') or platform.processor() or platform.machine()


def processor_flags():
    """Return the set of the processor's instruction sets, empty if Linux does not list them."""
    return set((read_cpuinfo('flags') or read_cpuinfo('Features')).split())


def read_cpuinfo(name):
    """Return an entry of the first processor in ``/proc/cpuinfo``, or an empty string."""
    with contextlib.suppress(OSError), open('/proc/cpuinfo', encoding='utf8') as file:
        for line in file:
            if line.split(':')[0].strip() == name:
                return line.partition(':')[2].strip()
    return ''


def gpu_names(driver=None):
    """Return the names of all GPUs that the NVIDIA driver finds, none if there is no driver."""
    try:
        driver = driver or ctypes.CDLL('libcuda.so.1')
    except OSError:
        return []
    name, device, names = ctypes.create_string_buffer(256), ctypes.c_int(), []
    for index in range(_count_gpus(driver) or 0):
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode(errors='replace'))
    return names


def _count_gpus(driver):
    """Return the number of GPUs, or None if the driver cannot say."""
    count = ctypes.c_int()
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return None if failed else count.value


def _compute_capability(driver, index):
    """Return (major, minor) of one GPU; the driver numbers the two attributes 75 and 76."""
    device, value, capability = ctypes.c_int(), ctypes.c_int(), []
    driver.cuDeviceGet(ctypes.byref(device), index)
    for attribute in (75, 76):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return tuple(capability)


# From Linux's arch_prctl(2): a program must ask before it may use the registers of AMX.
ARCH_PRCTL, REQUEST_PERMISSION, AMX_TILE_DATA = 158, 0x1023, 18


@functools.lru_cache(maxsize=None)
def has_matrix_unit():
    """Return whether the processor has the matrix unit AMX and Linux lets this process use it."""
    if 'amx_bf16' not in processor_flags():
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, AMX_TILE_DATA) == 0


def prepare_bfloat16():
    """Let MXNet's oneDNN use the matrix unit AMX, if there is one.

    Version 2.4 does not use it by default, and then its bfloat16 products take longer than those
    in float32. It reads the variable before its first product.
    """
    if has_matrix_unit():
        os.environ.setdefault('DNNL_MAX_CPU_ISA', 'AVX512_CORE_AMX')


def prepare_mxnet(dtype):
    """Check that MXNet can be imported, and prepare it to compute in a type.

    Raises
    ------
    ToolkitError
        See :func:`bert.system.packages.check_mxnet`.
    """
    check_mxnet()
    if dtype == 'bfloat16':
        prepare_bfloat16()
