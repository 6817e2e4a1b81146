"""Data sets by their names, as the library ``datasets`` of Hugging Face loads them."""

import re
import sys
from pathlib import Path
from typing import NamedTuple, Optional

from bert.system.errors import ToolkitError, UsageError
from bert.tasks import parquet

PREFIX = 'hf:'
FORM = 'hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT'
# A split may be a part of one, such as train[:10%].
PATTERN = re.compile(r'hf:([^:]+):(?:([^:\[]+):)?([^:\[]+(?:\[.*\].*)?)', re.DOTALL)


class Name(NamedTuple):
    """The name of a split of a data set."""

    dataset: str  # OWNER/NAME or NAME on the Hub, or a folder
    config: Optional[str]
    split: str


def is_name(path):
    """Return whether what is given in place of a file is the name of a data set."""
    return str(path).startswith(PREFIX)


def parse(path):
    """Return the parts of a name; raise UsageError if it is not ``hf:NAME:[CONFIG:]SPLIT``."""
    found = PATTERN.fullmatch(str(path))
    if not found:
        raise UsageError(f'{path} is not {FORM}')
    return Name(*found.groups())


def file_stem(path):
    """Return what the names of files about a data set begin with.

    >>> file_stem('hf:nyu-mll/glue:mrpc:test')
    'glue_mrpc_test'
    """
    dataset, *others = filter(None, parse(path))
    return re.sub(r'[^\w.-]+', '_', '_'.join([Path(dataset).resolve().name, *others]))


def read(path, columns=None, whole=False):
    """Read a split; parameters and results are those of :func:`bert.tasks.parquet.read`.

    Labels that it keeps as numbers with names, of the type ClassLabel, are the names in the rows.
    """
    datasets = _require(path)
    name = parse(path)
    try:
        dataset = _load(datasets, path, name)
    except ToolkitError:
        raise
    except Exception as error:  # those of the library have many types
        reasons = [parquet.first_line(each) for each in (error, error.__cause__) if each]
        raise ToolkitError(f'{path}: {": ".join(reasons)}') from None
    there = dataset.column_names
    wanted = there if columns is None else parquet.unique(columns)
    parquet.check_columns(path, wanted, there)
    table = dataset.with_format('arrow', columns=there if whole else wanted)[:]
    rows = parquet.to_rows(path, table.select(wanted))
    for column in wanted:
        feature = dataset.features[column]
        feature = getattr(feature, 'feature', feature)  # of a list
        if isinstance(feature, datasets.ClassLabel):
            for row in rows:
                row[column] = _name_label(row[column], feature.names)
    return rows, table


def _name_label(value, names):
    """Return the names of a label or a list of them; None for -1, which means an unknown one."""
    if isinstance(value, list):
        return [_name_label(item, names) for item in value]
    return names[value] if value is not None and 0 <= value < len(names) else None


def _require(path):
    parquet.require(path)
    try:
        import datasets
    except ImportError as error:
        raise ToolkitError(
            f"{path}: needs another package ({error}): pip install '.[datasets]' in the toolkit's "
            'folder'
        ) from None
    return datasets


def _load(datasets, path, name):
    """Return a split as a ``datasets.Dataset``, from the Hub or from a folder."""
    if name.dataset == 'pandas':
        raise ToolkitError(f'{path}: its files would have to be unpickled, which may run code')
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    folder = Path(name.dataset)
    if not any((folder / file).is_file() for file in ('dataset_dict.json', 'state.json')):
        # No code of a data set's own is ever run.
        return datasets.load_dataset(
            name.dataset, name.config, split=name.split, trust_remote_code=False
        )
    # Left by save_to_disk(); a single split may have lost its name.
    saved = datasets.load_from_disk(name.dataset)
    if isinstance(saved, datasets.Dataset):
        saved = {str(saved.split or 'train'): saved}
    if name.config or name.split not in saved:
        raise ToolkitError(f'{path}: has no configurations, and the splits {", ".join(saved)}')
    return saved[name.split]
