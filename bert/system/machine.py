"""TODO"""

import contextlib
import ctypes
import functools
import os
from importlib import metadata

from bert.system.environment import installed_wheels

# The compute capabilities that the mxnet-cu112 1.9.1 wheel can serve. It holds machine code for
# 5.0, 6.0, 7.0, 8.0 and 8.6 and no PTX; code serves later minor versions of the same major one.
LOWEST_CAPABILITY, HIGHEST_CAPABILITY = (5, 0), (8, 9)


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
