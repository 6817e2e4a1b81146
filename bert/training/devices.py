"""Spread batches over workers and their devices, and read the results late."""

from collections import deque

# Values are read this many batches late, so that the devices always have work waiting.
IN_FLIGHT = 2


def spread(parts, contexts, workers, filler):
    """Spread the parts of one update over all workers and all their devices.

    Each device of each worker must compute something, or MXNet considers its gradients stale; a
    device without a part computes the filler at weight 0.

    Parameters
    ----------
    parts : list
        The parts of the whole update, the same on each worker.
    contexts : list of mxnet.Context
        This worker's devices.
    workers : bert.distributed.workers.Workers
    filler : object
        The part for devices that would be idle.

    Returns
    -------
    list of (part, mxnet.Context, int)
        This worker's parts, then fillers, each with its device and its weight.
    """
    share = workers.share(parts)
    work = [(part, 1) for part in share] + [(filler, 0)] * (len(contexts) - len(share))
    return [
        (part, contexts[number % len(contexts)], weight)
        for number, (part, weight) in enumerate(work)
    ]


def take_turns(number, contexts, workers):
    """Choose the device for a batch in an evaluation.

    Returns
    -------
    mxnet.Context or None
        None if the batch is another worker's.
    """
    if number % workers.count != workers.rank:
        return None
    return contexts[number // workers.count % len(contexts)]


class Late:
    """A queue of values that are still being computed, read a few batches late.

    Parameters
    ----------
    read : function
        Called with the values of one batch, as they were added; waits for them.
    limit : int
        The most batches that may be in the queue.
    """

    def __init__(self, read, limit):
        self.read = read
        self.limit = limit
        self.waiting = deque()

    def add(self, *values):
        """Add the values of a batch, and read the oldest if there are too many."""
        self.waiting.append(values)
        if len(self.waiting) > self.limit:
            self.read(*self.waiting.popleft())

    def finish(self):
        """Read all that is left."""
        while self.waiting:
            self.read(*self.waiting.popleft())
