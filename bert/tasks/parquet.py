"""Parquet files, by the library pyarrow, and with care: they may come from anywhere.

A damaged file can end the process that reads it, as pyarrow does not catch all errors of the C++
library that it wraps; and a few bytes can stand for more than fits into memory. So another process
reads the file, a thousand rows at a time, counts what they take, and sends them here. Nothing is
unpickled.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import bert
from bert.system import npz
from bert.system.errors import ToolkitError
from bert.system.files import replacing

# The first release that does not unpickle what a file's schema holds.
OLDEST = '14.0.1'
BATCH = 1024  # rows
ROW, VALUE = 100, 8  # bytes that these take at least as Python's objects
# What the other process runs. It finds this package where this process did, and nowhere else.
CODE = 'import sys; sys.path[0] = sys.argv[1]; from bert.tasks import parquet; parquet.send()'
REFUSED = 3  # its exit status when its standard error has a sentence
SPARE = 2**30  # bytes that it may take beside what is in the file


def require(name):
    """Return pyarrow, or raise ToolkitError with what to install; ``name`` is what needs it."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise ToolkitError(
            f"{name}: needs another package ({error}): pip install '.[parquet]' in the toolkit's "
            'folder'
        ) from None
    from packaging.version import Version

    if Version(pyarrow.__version__) < Version(OLDEST):
        raise ToolkitError(
            f'{name}: needs pyarrow {OLDEST} or later, and {pyarrow.__version__} is installed: '
            "pip install '.[parquet]' in the toolkit's folder"
        )
    return pyarrow


def read(path, columns=None, whole=False):
    """Read a Parquet file.

    Parameters
    ----------
    path : Path
    columns : list of str, optional
        The columns that are wanted as Python values, by default all.
    whole : bool
        Whether the table is to have all columns.

    Returns
    -------
    list of dict, pyarrow.Table
        The rows, with the columns that are wanted, and the table.

    Raises
    ------
    ToolkitError
        If the file is damaged, lacks a column, or would take more than 64 MB in memory and more
        than 100 times its own size.
    """
    arrow = require(path)
    wanted = None if columns is None else unique(columns)
    described = json.dumps({'path': str(path), 'columns': None if whole else wanted})
    root = Path(bert.__file__).parents[1]
    command = [sys.executable, '-W', 'ignore', '-c', CODE, str(root), described]
    # Some of pyarrow's other allocators reserve much more than they use.
    environ = {**os.environ, 'ARROW_DEFAULT_MEMORY_POOL': 'system', 'PYTHONIOENCODING': 'utf8'}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environ) as process:
        try:
            table = arrow.ipc.open_stream(process.stdout).read_all().unify_dictionaries()
        except (arrow.ArrowException, OSError):
            table = None  # it has ended too early
        said = process.stderr.read().decode('utf8', 'replace').strip()
    if process.returncode == REFUSED:
        raise ToolkitError(said)
    if process.returncode or table is None:
        ended = signal.Signals(-process.returncode).name if process.returncode < 0 else said
        raise ToolkitError(f'{path}: {describe_damage(ended)}')
    check_columns(path, wanted or (), table.column_names)
    return to_rows(path, table if wanted is None else table.select(wanted)), table


def send():
    """Send the table of a file to the process that started this one; see :func:`read`."""
    request = json.loads(sys.argv[2])
    path = request['path']
    arrow = require(path)
    writer = None
    try:
        with open(path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            limit = max(npz.ALWAYS_ALLOWED, npz.LARGEST_RATIO * size)
            limit_memory(size + limit + SPARE)
            for part in unpack(arrow, path, file, limit, request['columns']):
                writer = writer or arrow.ipc.new_stream(sys.stdout.buffer, part.schema)
                writer.write_table(part)
            writer.close()
            sys.stdout.flush()
    except ToolkitError as error:
        sentence = str(error)
    except MemoryError:
        sentence = f'{path}: would unpack to more than {limit} bytes'
    except (arrow.ArrowException, OSError, *npz.DAMAGE) as error:
        sentence = f'{path}: {describe_damage(first_line(error))}'
    else:
        return
    print(sentence, file=sys.stderr)
    sys.exit(REFUSED)


def limit_memory(more):
    """Let this process take so many more bytes, where the system can limit them."""
    import resource

    import psutil

    with contextlib.suppress(OSError, ValueError):
        total = psutil.Process().memory_info().vms + more
        resource.setrlimit(resource.RLIMIT_AS, (total, resource.getrlimit(resource.RLIMIT_AS)[1]))


def unpack(arrow, path, file, limit, columns):
    """Yield the columns of a file, or all if that is None, as tables; first one without rows."""
    described = arrow.parquet.ParquetFile(file, pre_buffer=False)
    schema = described.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise ToolkitError(f'{path}: two columns have the same name')
    names = schema.names if columns is None else columns
    check_columns(path, names, schema.names)
    target = arrow.schema([schema.field(name) for name in names], schema.metadata)
    yield target.empty_table()
    # A text that is repeated a million times takes some bytes in the file. Read as a dictionary it
    # takes no more in memory, so that its size can be counted first. pyarrow cannot do so inside of
    # lists and structures; there, the memory of this process is the limit.
    leaves = [described.schema.column(number) for number in range(len(described.schema))]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == 'BYTE_ARRAY']
    repeated = [name for name in texts if name in schema.names]
    reader = arrow.parquet.ParquetFile(file, read_dictionary=repeated, pre_buffer=False)
    count, left = 0, limit
    for batch in reader.iter_batches(BATCH, columns=names, use_threads=False):
        left -= ROW * batch.num_rows
        left -= sum(unpacked_size(arrow, column) for column in batch.columns)
        if left < 0:
            raise ToolkitError(f'{path}: would unpack to more than {limit} bytes')
        count += batch.num_rows
        yield arrow.Table.from_batches([batch]).select(names).cast(target)
    if count != described.metadata.num_rows:
        raise ValueError(f'{described.metadata.num_rows} rows are promised')


def unpacked_size(arrow, array):
    """Return how many bytes an array has once its dictionaries are replaced by their values."""
    kind = array.type
    if arrow.types.is_dictionary(kind):
        words = array.dictionary
        if words.type not in (arrow.string(), arrow.binary()):
            return max(array.nbytes, VALUE * len(array))
        lengths = arrow.compute.binary_length(words).cast(arrow.int64())
        total = arrow.compute.sum(lengths.take(array.indices)).as_py() or 0
        return total + VALUE * len(array)
    if arrow.types.is_list(kind) or arrow.types.is_large_list(kind):
        return VALUE * len(array) + unpacked_size(arrow, array.flatten())
    return max(array.nbytes, VALUE * len(array))


def unique(names):
    """Return names without repetition, in their order."""
    return list(dict.fromkeys(names))


def check_columns(path, names, there):
    """Raise ToolkitError for a column that is wanted and not there."""
    for name in names:
        if name not in there:
            raise ToolkitError(f'{path}: there is no column {name!r} among {", ".join(there)}')


def to_rows(path, table):
    """Return the rows of a table as a list of dict; raise ToolkitError if one is not valid."""
    try:
        return table.to_pylist()
    except (ValueError, ImportError) as error:
        reason = error
    for number in range(len(table)):
        try:
            table.slice(number, 1).to_pylist()
        except UnicodeDecodeError:
            raise ToolkitError(f'{path}:{number + 1}: not valid UTF-8') from None
        except (ValueError, ImportError) as error:  # times of which only pandas has a type
            raise ToolkitError(f'{path}:{number + 1}: {first_line(error)}') from None
    raise reason


def write(path, table, answers):
    """Write a table with added columns; see :func:`bert.tasks.rows.write_rows`."""
    arrow = require(path)
    for name in answers[0]:
        column = arrow.array([answer[name] for answer in answers])
        place = table.schema.get_field_index(name)
        if place < 0:
            table = table.append_column(name, column)
        else:
            table = table.set_column(place, name, column)
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        arrow.parquet.write_table(table, file)


def describe_damage(reason):
    """Return the end of the sentence about a damaged file."""
    return f'not a Parquet file, or a damaged one ({reason})'


def first_line(error):
    """Return the first line of what an exception says, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
