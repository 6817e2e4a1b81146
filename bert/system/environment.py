"""Preparation of the process for MXNet 1.9.1.

:func:`prepare` runs when :mod:`bert` is imported and does only what must come before
``import mxnet``. Once its flags are known to be valid, a script calls
:func:`bert.system.packages.check_mxnet`.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

from bert.system import compatibility
from bert.system.processors import count_processors

# In loading order: each library comes after the ones it links against.
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

# Rounds in which a thread of libgomp looks for new work before it sleeps, some microseconds.
SPINS = '1000'


def prepare():
    """Set up OpenMP's threads, preload the CUDA libraries, and supply what numpy has dropped."""
    set_thread_count()
    bound_waiting()
    preload_cuda_libraries()
    compatibility.supply()


def set_thread_count():
    """Use the physical cores that this process may run on, unless ``OMP_NUM_THREADS`` is set.

    MXNet would take half of the logical processors, which leaves half of the cores idle on
    machines without hyper-threading. OpenMP reads the variable once, when MXNet is loaded; if that
    was before, it reaches only the processes that this one starts.
    """
    if 'OMP_NUM_THREADS' not in os.environ:
        import psutil

        counts = [count_processors(), psutil.cpu_count(logical=False)]
        os.environ['OMP_NUM_THREADS'] = str(min(n for n in counts if n))


def bound_waiting():
    """Let threads that wait for each other sleep soon, unless the user chose how they wait.

    MXNet's wheels link against GNU's libgomp, whose threads spin for milliseconds before they
    sleep. Where another process is at work, they so keep the thread that they wait for from its
    processor. libgomp reads these variables together with ``OMP_NUM_THREADS``.
    """
    if not {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'} & set(os.environ):
        os.environ['GOMP_SPINCOUNT'] = SPINS


def preload_cuda_libraries():
    """Load the CUDA 11 libraries of the ``cu112`` extra, which MXNet does not find by itself."""
    for folder in sys.path:
        nvidia = Path(folder) / 'nvidia'
        if (nvidia / CUDA_LIBRARIES[0]).exists():
            for library in CUDA_LIBRARIES:
                # A missing one may be installed system-wide; if not, importing MXNet will fail.
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(nvidia / library), ctypes.RTLD_GLOBAL)
            return
