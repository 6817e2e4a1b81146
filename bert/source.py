"""Finding a model: in the GluonNLP zoo, on the Hugging Face Hub, or in a directory.

A directory has Hugging Face's layout, Gluon's, or Google's with a TensorFlow checkpoint, or is an
output directory of this project.
"""

from pathlib import Path
from typing import NamedTuple, Optional, Tuple

from bert import configuration, hub, huggingface, zoo
from bert.cli import ToolkitError, UsageError
from bert.files import read_json

# Stands in an output directory of finetune_classifier.py beside config.json and vocab.txt.
FINETUNED = 'finetune.json'
# What run_pretraining.py leaves in its --ckpt_dir.
PRETRAINED = 'model'


class Location(NamedTuple):
    """Where the parts of a model are."""

    folder: Path
    weights: Optional[Path]  # None: the folder holds none
    vocab: Path
    zoo: Optional[Tuple[str, str]] = None  # model and data set, of a model of the zoo


def locate(source, dataset=None, with_weights=True):
    """Where the parts of a model are, fetched if need be.

    Parameters
    ----------
    source : str
        See the top of this module; a Gluon ``.params`` file beside its vocabulary will do too.
    dataset : str, optional
        Needed for a model of the zoo.
    with_weights : bool
        Whether the weights of a model of the zoo are to be fetched.

    Raises
    ------
    UsageError
        If there is no such model.
    ToolkitError
        If it could not be fetched, or is not one model.
    """
    path = Path(source)
    if source in zoo.ZOO:
        dataset = zoo.zoo_dataset(source, dataset)
        if not with_weights:
            vocab = zoo.vocab_path(dataset)
            return Location(vocab.parent, None, vocab, (source, dataset))
        weights, vocab = zoo.fetch(source, dataset)
        return Location(weights.parent, weights, vocab, (source, dataset))
    if is_parameter_file(source):
        if path.suffix in ('.safetensors', '.bin', '.json', '.index'):
            raise UsageError(f'{path}: name the folder of this file; its vocabulary is there too')
        return Location(path.parent, path, _find_vocab(path.parent))
    if path.is_dir():
        if (path / PRETRAINED / 'config.json').is_file() and not (path / 'config.json').is_file():
            path = path / PRETRAINED
        return Location(path, _find_weights(path), _find_vocab(path))
    if hub.is_repository(source):
        path = _fetch(source)
        return Location(path, _find_weights(path), _find_vocab(path))
    if '/' not in source:
        zoo.zoo_dataset(source, dataset)  # which says what there is
    raise UsageError(f'there is no model directory {source}')


def _fetch(source):
    """The folder of a model of the Hub; its name may have been meant for a directory."""
    try:
        return hub.fetch(source)
    except ToolkitError as error:
        raise ToolkitError(f'there is no directory {source}, and {error}') from None


def _find_weights(folder):
    """The file with a folder's weights, or None."""
    if (folder / FINETUNED).is_file():
        return read_finetune_json(folder)['parameters']
    for name in huggingface.WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    for pattern in ('model.params', '*.params', 'bert_model.ckpt.index', '*.ckpt*.index'):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise ToolkitError(
                f'{folder}: holds {len(found)} models, such as {found[0].name}: name one of them'
            )
        if found:
            return found[0]
    return None


def _find_vocab(folder):
    """A folder's vocabulary file: an error tells its usual name if there is none."""
    for pattern in ('vocab.txt', 'vocab.vocab', '*.vocab', 'tokenizer.json'):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
    return folder / 'vocab.txt'


def is_zoo_model(source):
    """Whether a source is the name of a model of the zoo, as opposed to a directory and so on."""
    return source in zoo.ZOO


def is_parameter_file(source):
    """Whether a source is a file with weights alone, there or not."""
    return Path(source).is_file() or Path(source).suffix == '.params'


def is_finetuned(source):
    """Whether a source has a classifier or regressor and says what its labels are."""
    if is_zoo_model(source):
        return False
    source = str(source)
    fetched = hub.is_repository(source) and not Path(source).exists()
    folder = _fetch(source) if fetched else Path(source)
    if (folder / FINETUNED).is_file():
        return True
    path = folder / 'config.json'
    if not path.is_file():
        return False
    return configuration.architecture_of(read_json(path)) == huggingface.FINETUNED_CLASS


def read_finetuned(source):
    """What a fine-tuned model says of itself.

    Returns
    -------
    dict
        ``flags``: those of finetune_classifier.py that are needed for inference, or nothing;
        ``labels``: in the order of the class ids, or None for regression; ``parameters``: the
        path of the best epoch's file.
    """
    location = locate(str(source))
    if (location.folder / FINETUNED).is_file():
        return read_finetune_json(location.folder)
    config = read_json(location.folder / 'config.json')
    labels = configuration.parse_labels(config, location.folder / 'config.json')
    return {'flags': {}, 'labels': labels, 'parameters': location.weights}


def read_finetune_json(folder):
    path = folder / FINETUNED
    content = read_json(path)
    flags, labels, name = (content.get(key) for key in ('flags', 'labels', 'parameters'))
    if not isinstance(flags, dict):
        raise ToolkitError(f'{path}: flags is not a table')
    if labels is not None and not (
        isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    ):
        raise ToolkitError(f'{path}: labels is not a list of names')
    if not isinstance(name, str) or Path(name).name != name or name in ('', '..') or '\0' in name:
        raise ToolkitError(f'{path}: parameters is not the name of a file in this folder')
    return {'flags': flags, 'labels': labels, 'parameters': folder / name}
