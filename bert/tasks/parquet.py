"""Parquet files, by the library pyarrow, and with care: they may come from anywhere.

The sizes that such a file declares are not trusted: it is read some rows at a time, and what these
take in memory is counted. Nothing is unpickled.
"""

import os

from bert.system import npz
from bert.system.errors import ToolkitError
from bert.system.files import replacing

# The first release that does not unpickle what a file's schema holds.
OLDEST = '14.0.1'
BATCH = 1024  # rows


def require(name):
    """Return pyarrow, or raise ToolkitError with what to install; ``name`` is what needs it."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise ToolkitError(
            f"{name}: takes another package ({error}): pip install '.[parquet]' in the toolkit's "
            'folder'
        ) from None
    from packaging.version import Version

    if Version(pyarrow.__version__) < Version(OLDEST):
        raise ToolkitError(
            f'{name}: takes pyarrow {OLDEST} or later, and {pyarrow.__version__} is installed: '
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
    with open(path, 'rb') as file:
        try:
            table = _read_table(arrow, path, file, None if whole else columns)
        except (arrow.ArrowException, OSError, *npz.DAMAGE) as error:
            raise ToolkitError(
                f'{path}: not a Parquet file, or a damaged one ({first_line(error)})'
            ) from None
    return to_rows(path, table if columns is None else table.select(unique(columns))), table


def _read_table(arrow, path, file, columns):
    """Return the table; see :func:`read`. None stands for all columns."""
    described = arrow.parquet.ParquetFile(file, pre_buffer=False)
    schema = described.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise ToolkitError(f'{path}: two columns have the same name')
    names = schema.names if columns is None else unique(columns)
    check_columns(path, names, schema.names)
    target = arrow.schema([schema.field(name) for name in names], schema.metadata)
    leaves = [described.schema.column(number) for number in range(len(described.schema))]
    limit = max(npz.ALWAYS_ALLOWED, npz.LARGEST_RATIO * os.fstat(file.fileno()).st_size)
    too_large = ToolkitError(f'{path}: would unpack to more than {limit} bytes')
    widest = max((leaf.length for leaf in leaves), default=0)
    if max(_promised_size(described.metadata, names), BATCH * widest) > limit:
        raise too_large
    # A text that is repeated a million times takes some bytes in the file. Read as a dictionary it
    # takes no more in memory, so that its size can be counted first.
    repeated = [leaf.path for leaf in leaves if leaf.physical_type == 'BYTE_ARRAY']
    reader = arrow.parquet.ParquetFile(file, read_dictionary=repeated, pre_buffer=False)
    parts = [target.empty_table()]
    for batch in reader.iter_batches(BATCH, columns=names, use_threads=False):
        limit -= sum(_unpacked_size(arrow, column) for column in batch.columns)
        if limit < 0:
            raise too_large
        parts.append(arrow.Table.from_batches([batch]).select(names).cast(target))
    table = arrow.concat_tables(parts)
    if table.num_rows != described.metadata.num_rows:
        raise ValueError(f'{described.metadata.num_rows} rows are promised')
    return table


def _promised_size(metadata, names):
    """Return how many bytes some columns have at least, by what the file says of itself."""
    total = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if any(f'{column.path_in_schema}.'.startswith(f'{name}.') for name in names):
                total += max(column.total_uncompressed_size, column.num_values)
    return total


def _unpacked_size(arrow, array):
    """Return how many bytes an array has once its dictionaries are replaced by their values."""
    kind = array.type
    if arrow.types.is_dictionary(kind):
        words = array.dictionary
        if words.type not in (arrow.string(), arrow.binary()):
            return array.nbytes
        lengths = arrow.compute.binary_length(words).cast(arrow.int64())
        total = arrow.compute.sum(lengths.take(array.indices)).as_py() or 0
        return total + array.indices.nbytes
    if arrow.types.is_map(kind):
        return sum(_unpacked_size(arrow, part) for part in (array.keys, array.items))
    if arrow.types.is_list(kind) or arrow.types.is_large_list(kind):
        return 4 * len(array) + _unpacked_size(arrow, array.flatten())
    if arrow.types.is_struct(kind):
        return sum(_unpacked_size(arrow, part) for part in array.flatten())
    return array.nbytes


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


def first_line(error):
    """Return the first line of what an exception says, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
