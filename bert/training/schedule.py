"""The learning rate as a function of the step."""


def learning_rate(step, peak, warmup_steps, total_steps):
    """Warm up linearly from 0 to ``peak``, then decay linearly to 0 (Devlin et al. 2018, A.2).

    Parameters
    ----------
    step : int
        Counted from 1; the last one is ``total_steps``, and its rate is exactly 0.
    peak : float
        Reached at ``warmup_steps``.

    >>> [learning_rate(step, 1.0, 2, 6) for step in range(1, 7)]
    [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    return peak * (total_steps - step) / (total_steps - warmup_steps)
