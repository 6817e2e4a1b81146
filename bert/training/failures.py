"""The ways in which training fails, and their error messages."""

import contextlib

from bert.cli.program import is_out_of_memory
from bert.system.errors import ToolkitError


class LossNotFinite(Exception):
    """An infinite or NaN loss; the argument is a clause that says where."""


class OverflowAtLowestScale(Exception):
    """Float16 gradients that are infinite at every loss scale."""


@contextlib.contextmanager
def naming_step(describe):
    """Turn a failure into an error that names the step and says what is saved.

    Parameters
    ----------
    describe : function
        Returns the current step, and a clause about what is saved.
    """
    try:
        yield
    except LossNotFinite as error:
        _, saved = describe()
        raise ToolkitError(
            f'{error}: try a lower --lr or a longer --warmup_ratio; {saved}'
        ) from None
    except OverflowAtLowestScale:
        step, saved = describe()
        raise ToolkitError(
            f'step {step}: the float16 gradients overflow whatever the loss scale: '
            f'try a lower --lr, or --dtype float32; {saved}'
        ) from None
    except RuntimeError as error:  # MXNetError is one
        # MXNet computes asynchronously: the step that failed may be one of the last few.
        if not is_out_of_memory(error):
            raise
        step, saved = describe()
        raise ToolkitError(
            f'the GPU does not have enough memory, at step {step}: try a smaller --batch_size with '
            f'a larger --accumulate, or shorter rows; {saved}'
        ) from None
