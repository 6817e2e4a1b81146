"""Read a model, wherever it comes from: sizes, vocabulary, casing, weights and labels.

:mod:`bert.checkpoints.source` finds the parts of a model. The functions here return parameters
under the names of GluonNLP 0.5 to 0.10.
"""

from pathlib import Path

from bert.checkpoints import huggingface, tensorflow
from bert.checkpoints.config import (
    MULTILABEL,
    OTHER_SPELLINGS,
    architecture_of,
    check_labels,
    infer_settings,
    is_multilabel,
    named_settings,
    parse_config,
    parse_labels,
)
from bert.checkpoints.contents import FINETUNED, Checkpoint, Location, Weights
from bert.checkpoints.gluon import read_gluon, split_gluon
from bert.system.errors import ToolkitError
from bert.system.files import read_json
from bert.text.vocab import Vocab, has_capitals, load_vocab, plain_vocab


def read(location):
    """Read a whole model.

    Parameters
    ----------
    location : Location
        See :func:`bert.checkpoints.source.locate`.

    Returns
    -------
    Checkpoint
    """
    weights = read_weights(location)
    vocab = read_vocab(location)
    labels, flags, has_several = None, {}, False
    if weights.head:
        labels, flags, has_several = read_labels(location, weights)
    return Checkpoint(
        settings=read_settings(location, weights),
        vocab=vocab,
        lower=read_casing(location, vocab)[0],
        weights=weights,
        labels=labels,
        flags=flags,
        is_multilabel=has_several,
    )


def find_parts(folder):
    """Find the weights and the vocabulary in a model directory.

    Returns
    -------
    Location
    """
    return Location(folder, _find_weights(folder), find_vocab(folder))


def read_weights(location):
    """Read the parameters of a model.

    Returns
    -------
    Weights
    """
    path = location.weights
    if path is None:
        raise ToolkitError(
            f'{location.folder}: there are no weights in this model directory, such as '
            'model.safetensors, pytorch_model.bin, model.params or bert_model.ckpt.index'
        )
    if is_gluon(location):
        return Weights(path, *split_gluon(read_gluon(path)))
    if path.suffix == '.index':
        return Weights(path, *tensorflow.read_weights(path))
    config = location.folder / 'config.json'
    architecture = architecture_of(read_json(config)) if config.is_file() else None
    return Weights(path, *huggingface.read_weights(path, architecture))


def is_gluon(location):
    """Return whether the weights are in a Gluon file, which may have any name."""
    path = location.weights
    return path is not None and path.suffix not in ('.index', '.safetensors', '.bin', '.json')


def read_settings(location, weights=None):
    """Read the sizes of a model.

    Parameters
    ----------
    location : Location
    weights : Weights, optional
        The model's weights, if already in memory; without a configuration, they show the sizes.

    Returns
    -------
    dict
        Keyword arguments of :func:`bert.model.build.build_bert`, and ``vocab_size``.
    """
    paths = [location.folder / name for name in ('config.json', 'bert_config.json')]
    if location.config or location.sizes:
        paths = [location.config] if location.config else []
    for path in paths:
        if path.is_file():
            return parse_config(read_json(path), path)
    if location.zoo or location.sizes:
        name = location.sizes or location.zoo[0]
        return named_settings(name, len(load_vocab(location.vocab)))
    if not is_gluon(location):
        raise ToolkitError(f'{location.folder}: there is no config.json in this model directory')
    weights = weights or read_weights(location)
    return infer_settings(weights.bert, weights.path)


def read_vocab(location):
    """Read the vocabulary of a model, without the names of rows that have no token.

    Returns
    -------
    Vocab
    """
    if location.vocab.name != 'tokenizer.json':
        return plain_vocab(load_vocab(location.vocab))
    model = read_json(location.vocab).get('model')
    ids = model.get('vocab') if isinstance(model, dict) else None
    if (
        not isinstance(ids, dict)
        or not all(isinstance(i, int) for i in ids.values())
        or sorted(ids.values()) != list(range(len(ids)))
    ):
        raise ToolkitError(
            f'{location.vocab}: not a WordPiece tokenizer with consecutive ids from 0'
        )
    return Vocab(sorted(ids, key=ids.get), source=location.vocab)


def read_casing(location, vocab):
    """Find out whether a model expects lower-cased text, and how that is known.

    The name of a zoo model shows it; otherwise ``tokenizer_config.json`` or ``tokenizer.json``
    does; otherwise the vocabulary, which is uncased if it has no capital letters.

    Returns
    -------
    bool, str
        The answer, and a clause about its source.
    """
    if location.zoo:
        _, name = location.zoo
        return OTHER_SPELLINGS.get(name, name).endswith('_uncased'), f'by its name {name}'
    path = location.folder / 'tokenizer_config.json'
    if path.is_file():
        lower = read_json(path).get('do_lower_case')
        if isinstance(lower, bool):
            return lower, f'by {path}'
    path = location.folder / 'tokenizer.json'
    if path.is_file():
        normalizer = read_json(path).get('normalizer')
        lower = normalizer.get('lowercase') if isinstance(normalizer, dict) else None
        if isinstance(lower, bool):
            return lower, f'by {path}'
    return not has_capitals(vocab), 'by its vocabulary'


def read_labels(location, weights):
    """Read what goes with the head of a model.

    Returns
    -------
    list of str or None, dict, bool
        The labels, None in regression; the flags that the model remembers; whether a row may have
        several of the labels.
    """
    if (location.folder / FINETUNED).is_file():
        content = read_finetune_json(location.folder)
        return content['labels'], content['flags'], content['is_multilabel']
    path = location.folder / 'config.json'
    config = read_json(path) if path.is_file() else {}
    shape = weights.head['weight'].shape if 'weight' in weights.head else (0, 1)
    # Without elements a tensor can have any number of rows.
    if len(shape) != 2 or not shape[1]:
        raise ToolkitError(f'{weights.path}: the classifier has the shape {tuple(shape)}')
    classes = shape[0]
    return parse_labels(config, path, classes), {}, is_multilabel(config)


def _find_weights(folder):
    """Return the file with a folder's weights, or None."""
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


def find_vocab(folder):
    """Return a folder's vocabulary file, or the path it would usually have."""
    for pattern in ('vocab.txt', 'vocab.vocab', '*.vocab', 'tokenizer.json'):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
    return folder / 'vocab.txt'


def read_finetuned(folder):
    """Read what the model in a folder says of itself, without its weights.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict or None
        ``flags``: those of finetune_classifier.py that it remembers; ``labels``: in the order of
        the class ids, or None for regression; ``is_multilabel``: whether a row may have several.
        None where there is no fine-tuned model.
    """
    if (folder / FINETUNED).is_file():
        return read_finetune_json(folder)
    path = folder / 'config.json'
    config = read_json(path) if path.is_file() else {}
    if architecture_of(config) != huggingface.FINETUNED_CLASS:
        return None
    labels = parse_labels(config, path)
    return {'flags': {}, 'labels': labels, 'is_multilabel': is_multilabel(config)}


def read_finetune_json(folder):
    """Read and check ``finetune.json``; see :func:`read_finetuned`.

    ``parameters`` is a path.
    """
    path = folder / FINETUNED
    content = read_json(path)
    flags, labels, name = (content.get(key) for key in ('flags', 'labels', 'parameters'))
    if not isinstance(flags, dict):
        raise ToolkitError(f'{path}: flags is not a table')
    if labels is not None and not (
        isinstance(labels, list) and labels and all(isinstance(label, str) for label in labels)
    ):
        raise ToolkitError(f'{path}: labels is not a list of names')
    check_labels(labels or (), path)
    problem_type = content.get('problem_type')
    if problem_type not in ((None, MULTILABEL) if labels else (None,)):
        raise ToolkitError(f'{path}: problem_type is {problem_type!r}, which does not fit')
    if not isinstance(name, str) or Path(name).name != name or name in ('', '..') or '\0' in name:
        raise ToolkitError(f'{path}: parameters is not the name of a file in this folder')
    return {
        'flags': flags,
        'labels': labels,
        'is_multilabel': is_multilabel(content),
        'parameters': folder / name,
    }


def check_vocab(location, vocab):
    """Refuse weights whose own vocabulary differs from the one they would be used with.

    Parameters
    ----------
    location : Location
        The location of the weights.
    vocab : Vocab or gluonnlp.vocab.BERTVocab
    """
    if location.vocab.is_file():
        theirs = read_vocab(location)
        if theirs.idx_to_token != plain_vocab(vocab).idx_to_token:
            raise ToolkitError(
                f'{location.weights}: goes with {location.vocab}, which is not the vocabulary of '
                'the other model: name the folder instead of the file'
            )
