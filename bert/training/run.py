"""TODO"""

import contextlib

import mxnet as mx

from bert.cli.program import is_out_of_memory
from bert.system.errors import ToolkitError
from bert.training.update import OverflowAtLowestScale


@contextlib.contextmanager
def naming_step(run):
    """Tell at which step a training had to stop, and what is left of it.

    Parameters
    ----------
    run : object
        With ``step``, the present one, and ``kept()``, a clause about what is saved.
    """
    try:
        yield
    except OverflowAtLowestScale as error:
        raise ToolkitError(f'step {run.step}: {error}; {run.kept()}') from None
    except mx.MXNetError as error:
        # MXNet computes later than it is told to: the step is this one or a few before.
        if not is_out_of_memory(error):
            raise
        raise ToolkitError(
            f'the GPU has not enough memory, at step {run.step}: try a smaller --batch_size with '
            f'a larger --accumulate, or shorter rows; {run.kept()}'
        ) from None
