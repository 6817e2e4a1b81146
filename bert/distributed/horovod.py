"""A worker's connection to Horovod."""

import ctypes

from bert.system.errors import ToolkitError


class Horovod:
    """A worker's connection to Horovod.

    Attributes
    ----------
    saved : str
        A clause about what is on disk, for the message that another worker is lost.
    """

    saved = 'nothing was saved yet'

    def __init__(self):
        hvd = import_horovod()
        hvd.init()
        self.hvd = hvd
        self.rank = hvd.rank()
        self.count = hvd.size()
        self.local_rank = hvd.local_rank()

    def sum(self, key, copies, priority):
        """Sum one array, which has a single copy; see :meth:`Workers.sum`."""
        (array,) = copies
        self.hvd.allreduce_(array, average=False, name=key, priority=priority)

    def translate_error(self, error):
        """Return the exception to raise in place of one of Horovod's, if a worker is lost."""
        if 'Horovod has been shut down' not in str(error):
            return error
        return ToolkitError(
            f'worker {self.rank}: another worker of horovod was lost: start all of them again; '
            f'{self.saved}'
        )

    def leave(self):
        """Leave the other workers."""
        self.hvd.shutdown()


def import_horovod():
    """Return the module ``horovod.mxnet``, its library loaded with RTLD_LOCAL.

    Horovod itself would load it with RTLD_GLOBAL. Its C++ templates, from a newer compiler, would
    then replace those in MXNet's library, which crashes as soon as a model is built.
    """
    import mxnet  # noqa: F401 (the library that Horovod's is linked against)

    mode, ctypes.RTLD_GLOBAL = ctypes.RTLD_GLOBAL, ctypes.RTLD_LOCAL
    try:
        import horovod.mxnet
    finally:
        ctypes.RTLD_GLOBAL = mode
    return horovod.mxnet
