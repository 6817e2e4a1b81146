"""TensorBoard's event files, which follow the lines of ``metrics.jsonl``."""

import contextlib
import os
import socket
import struct
import time
from pathlib import Path

from bert.system.errors import ToolkitError
from bert.system.files import parse_json
from bert.tasks.metrics import is_number
from bert.training.folder import METRICS_FILE

# The subfolder for the event files.
FOLDER = 'tensorboard'
PATTERN = 'events.out.tfevents.*'
# The names that people look for, where those of metrics.jsonl are shorter.
NAMES = {'lr': 'learning_rate', 'mlm_acc': 'mlm_accuracy', 'nsp_acc': 'nsp_accuracy'}
WITHOUT_CURVE = {'step', 'epoch', 'seconds'}
LINES_AT_ONCE = 1000


def require_tensorboard():
    """Refuse to begin without the package that ``--tensorboard`` needs."""
    try:
        import tensorboardX.proto.event_pb2  # noqa: F401
    except Exception as error:  # protobuf refuses what does not fit it by errors of other kinds
        raise ToolkitError(
            f'--tensorboard needs tensorboardX ({error}): '
            "pip install '.[tensorboard]' in the toolkit's folder"
        ) from None


class EventFile:
    """The event file of a run, with a point of each curve for each line of ``metrics.jsonl``.

    It begins with the lines that are there, and takes the place of the event files of an earlier
    process: so the points of a run that goes on are those of its lines, none of them doubled or
    out of date. They have the time of the process that wrote the file. There is no thread: what
    a killed process leaves is as whole as ``metrics.jsonl``.

    Parameters
    ----------
    folder : Path
        The folder of the run, with its ``metrics.jsonl`` as it is when the run begins or goes on.
    """

    def __init__(self, folder):
        place = Path(folder) / FOLDER
        name = PATTERN.replace('*', f'{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}')
        self.path = place / name
        try:
            place.mkdir(exist_ok=True)
            earlier = [path for path in place.glob(PATTERN) if path != self.path]
            self.path.write_bytes(b'')
        except OSError as error:
            raise ToolkitError(f'{place}: could not be written ({error.strerror})') from None
        # A TensorBoard that shows the earlier files drops their points at this mark.
        self._write([_event(file_version='brain.Event:2'), _event(session_log={'status': 1})])
        metrics = Path(folder) / METRICS_FILE  # a run goes on without it, if somebody removed it
        lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
        for first in range(0, len(lines), LINES_AT_ONCE):
            part = map(_parse, lines[first : first + LINES_AT_ONCE])
            self._write([event for line in part for event in events_of(line)])
        for path in earlier:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def add(self, line):
        """Add the values of a line of ``metrics.jsonl``, a dict."""
        self._write(events_of(line))

    def _write(self, events):
        """Append events to the file."""
        try:
            with open(self.path, 'ab') as file:
                file.write(b''.join(_record(event.SerializeToString()) for event in events))
        except OSError as error:
            raise ToolkitError(f'{self.path}: could not be written ({error.strerror})') from None


def events_of(line):
    """Return the events of a line: one, or none if it names no step.

    Parameters
    ----------
    line : dict
        Of ``metrics.jsonl``.

    Returns
    -------
    list of tensorboardX.proto.event_pb2.Event
    """
    values = [{'tag': tag, 'simple_value': value} for tag, value in scalars(line).items()]
    step = line.get('step')
    if not values or type(step) is not int or not is_number(step):
        return []
    return [_event(step=step, summary={'value': values})]


def scalars(line):
    """Return the values of a line by the names of their curves.

    Those of training begin with ``train/``, those of an evaluation with ``eval/``, and those of
    one of MNLI's dev sets with ``eval/`` and the name of the set. Their units stay as they are.

    Parameters
    ----------
    line : dict
        Of ``metrics.jsonl``.

    Returns
    -------
    dict of str to float
    """
    found = {}
    for name, value in line.items():
        if isinstance(value, dict):
            place = 'eval' if name in ('eval', 'dev') else f'eval/{name}'
            found.update(_curves(place, value))
    return {**_curves('train', line), **found}


def _curves(place, values):
    return {
        f'{place}/{NAMES.get(name, name)}': float(value)
        for name, value in values.items()
        if is_number(value) and name not in WITHOUT_CURVE
    }


def _parse(line):
    """Return the object of a line, or an empty one for half a line of a killed process."""
    with contextlib.suppress(ValueError):
        value = parse_json(line.decode('utf8'))
        if isinstance(value, dict):
            return value
    return {}


def _event(**fields):
    from tensorboardX.proto.event_pb2 import Event

    return Event(wall_time=time.time(), **fields)


def _record(data):
    """Frame the bytes of an event as TensorFlow's record files do.

    The length in 8 bytes, its checksum in 4, the bytes, their checksum in 4, little-endian;
    https://www.tensorflow.org/tutorials/load_data/tfrecord. (tensorboardX's own writer waits for
    the disk after each event, or writes from a thread, in which an error of the disk is lost.)
    """
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack('<Q', len(data))
    checksums = [struct.pack('<I', masked_crc32c(part)) for part in (length, data)]
    return length + checksums[0] + data + checksums[1]
