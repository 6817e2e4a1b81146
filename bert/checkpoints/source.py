"""Find a model: in the GluonNLP zoo, in a package, on the Hugging Face Hub, or in a directory.

A directory has Hugging Face's layout, Gluon's, or Google's with a TensorFlow checkpoint, or is an
output directory of this project.
"""

import glob
from pathlib import Path

from bert.checkpoints import hub, installed, zoo
from bert.checkpoints.config import NAMED_SIZES
from bert.checkpoints.contents import FINETUNED, PRETRAINED, Location
from bert.checkpoints.reading import find_parts, find_vocab
from bert.checkpoints.tensors import shard_names
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import read_json

# Besides weights and vocabulary, what a model directory says of itself.
DESCRIPTION_FILES = (
    'config.json',
    'bert_config.json',
    'tokenizer_config.json',
    'tokenizer.json',
    FINETUNED,
)


def locate(source, dataset=None, with_weights=True):
    """Find the parts of a model, and fetch them if need be.

    Parameters
    ----------
    source : str
        See the top of this module; a Gluon ``.params`` file beside its vocabulary works too. A
        directory of a package's short name, or with the name of a model of the Hub, comes first.
    dataset : str, optional
        Needed for a model of the zoo.
    with_weights : bool
        Whether to fetch the weights of a zoo model.

    Raises
    ------
    UsageError
        If there is no such model.
    ToolkitError
        If it could not be fetched, is not installed, or is more than one model.
    """
    path = Path(source)
    if source in zoo.ZOO:
        name = zoo.zoo_dataset(source, dataset)
        if not with_weights:
            vocab = zoo.vocab_path(name)
            return Location(vocab.parent, None, vocab, (source, dataset))
        weights, vocab = zoo.fetch(source, name)
        return Location(weights.parent, weights, vocab, (source, dataset))
    if is_parameter_file(source):
        if path.suffix in ('.safetensors', '.bin', '.json', '.index'):
            raise UsageError(f'{path}: name the folder of this file; its vocabulary is there too')
        return Location(path.parent, path, find_vocab(path.parent))
    if path.is_dir():
        if (path / PRETRAINED / 'config.json').is_file() and not (path / 'config.json').is_file():
            path = path / PRETRAINED
        return find_parts(path)
    if source in installed.INSTALLED:
        return find_parts(installed.find(source))
    if hub.is_repository(source):
        path = _fetch(source)
        return find_parts(path)
    if '/' not in source:
        zoo.zoo_dataset(source, dataset)  # its error says which models there are
    raise UsageError(f'there is no model directory {source}')


def _fetch(source):
    """Fetch a model from the Hub; on failure, add that there is no such directory either."""
    try:
        return hub.fetch(source)
    except ToolkitError as error:
        raise ToolkitError(f'there is no directory {source}, and {error}') from None


def list_files(location):
    """List the files of a model, in a fixed order.

    Parameters
    ----------
    location : Location

    Returns
    -------
    list of Path
        Weights, vocabulary, and what says how to use them.
    """
    paths = [location.weights, location.vocab, location.config]
    if location.weights and location.weights.suffix == '.json':
        paths += [location.folder / name for name in shard_names(read_json(location.weights))]
    if location.weights and location.weights.suffix == '.index':
        paths += sorted(location.folder.glob(f'{glob.escape(location.weights.stem)}.data-*'))
    # Of the model that a vocabulary is taken from, only the casing counts.
    is_own = not (location.config or location.sizes)
    paths += [location.folder / n for n in DESCRIPTION_FILES if is_own or n.startswith('tokenizer')]
    return [path for path in dict.fromkeys(paths) if path and path.is_file()]


def hub_name(source, dataset=None):
    """Return the name of a model on the Hub, or None if it has none.

    Parameters
    ----------
    source, dataset : str
        See :func:`locate`.
    """
    if source in zoo.ZOO:
        return zoo.ZOO[source].get(zoo.OTHER_SPELLINGS.get(dataset, dataset))
    if Path(source).exists():
        return None
    if source in installed.INSTALLED:
        return installed.INSTALLED[source].hub
    return source if hub.is_repository(source) else None


def is_zoo_model(source):
    """Return whether a source is the name of a model of the zoo."""
    return source in zoo.ZOO


def is_parameter_file(source):
    """Return whether a source names a file of weights alone, existing or not."""
    return Path(source).is_file() or Path(source).suffix == '.params'


def locate_configuration(source, vocab=None):
    """Find the parts of a model to train from scratch.

    Parameters
    ----------
    source : str or Path
        A key of :data:`bert.checkpoints.config.NAMED_SIZES`; or a configuration in Hugging Face's
        keys, whatever its name.
    vocab : str or Path, optional
        The vocabulary file; by default ``vocab.txt`` beside the configuration.

    Returns
    -------
    Location
        Its folder is that of the vocabulary, where a tokenizer_config.json may say more of it.
    """
    if vocab and not Path(vocab).is_file():
        raise UsageError(f'there is no vocabulary file {vocab}')
    if source in NAMED_SIZES:
        return Location(Path(vocab).parent, None, Path(vocab), sizes=source)
    path = Path(source)
    if not path.is_file():
        raise UsageError(f'there is no configuration file {path}')
    vocab = Path(vocab or path.parent / 'vocab.txt')
    return Location(vocab.parent, None, vocab, config=path)
