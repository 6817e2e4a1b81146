"""TODO"""

import ctypes

from bert.system.errors import ToolkitError


class Horovod:
    """A worker's end of Horovod."""

    def __init__(self):
        hvd = import_horovod()
        hvd.init()
        self.kept = None
        self.hvd = hvd
        self.rank = hvd.rank()
        self.count = hvd.size()
        self.local_rank = hvd.local_rank()

    def sum(self, key, copies, priority):
        """Sum one array, of which there is one copy; see :meth:`Workers.sum`."""
        (array,) = copies
        self.hvd.allreduce_(array, average=False, name=key, priority=priority)

    def explain(self, error):
        """What to tell in place of an exception that only says that a worker is gone."""
        if 'Horovod has been shut down' not in str(error):
            return error
        return ToolkitError(
            f'worker {self.rank}: another worker of horovod was lost: start all of them again; '
            f'{self.kept or "nothing was saved yet"}'
        )

    def leave(self):
        """Take leave of the others."""
        self.hvd.shutdown()


def import_horovod():
    """The module ``horovod.mxnet``, with the symbols of its library kept to itself.

    It would load it with RTLD_GLOBAL. Its C++ templates, of a newer compiler, then take the place
    of those in MXNet's library, which crashes as soon as a model is built.
    """
    import mxnet  # noqa: F401 (the library that Horovod's is linked against)

    mode, ctypes.RTLD_GLOBAL = ctypes.RTLD_GLOBAL, ctypes.RTLD_LOCAL
    try:
        import horovod.mxnet
    finally:
        ctypes.RTLD_GLOBAL = mode
    return horovod.mxnet
