"""What a model is made of: sizes, vocabulary, casing and weights, wherever they come from.

:mod:`bert.source` finds a model, :func:`read` reads it whole, and :func:`write_gluon` and
:func:`write_huggingface` write it. The models hold the parameter names of GluonNLP 0.5 to 0.10, so
a file saved here loads there.
"""

import re
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from bert import configuration, gluon_file, huggingface, tensorflow_checkpoint, zoo
from bert.cli import ToolkitError
from bert.files import read_json, replacing, write_json, write_text
from bert.source import FINETUNED, locate, read_finetune_json
from bert.vocab import Vocab, has_capitals, load_vocab, pad_vocab, plain_vocab

# A model with fewer than all of its heads is common; an encoder with a tensor short is broken.
HEAD_PREFIXES = ('pooler.', 'decoder.', 'classifier.')


class Weights(NamedTuple):
    """The parameters of a model under Gluon's names, without the prefix of a fine-tuned one."""

    path: Path  # for error messages
    bert: dict  # of the encoder and the pre-training heads
    head: dict  # ``weight`` (classes, units) and ``bias`` of a fine-tuned model, or nothing


class Checkpoint(NamedTuple):
    """A whole model, as arrays."""

    settings: dict  # keyword arguments of bert.model.build_bert, and vocab_size
    vocab: Vocab
    lower: bool  # whether the text is lower-cased
    weights: Weights
    labels: Optional[list]  # of a classifier, in the order of the class ids; None: regression
    flags: dict  # what finetune_classifier.py remembers


# --- reading


def read(source, dataset=None):
    """A whole model.

    Parameters
    ----------
    source, dataset
        As in :func:`bert.source.locate`.

    Returns
    -------
    Checkpoint
    """
    location = locate(source, dataset)
    weights = read_weights(location)
    vocab = read_vocab(location)
    labels, flags = None, {}
    if weights.head:
        labels, flags = read_labels(location, weights)
    return Checkpoint(
        settings=read_settings(location, weights),
        vocab=vocab,
        lower=read_casing(location, vocab)[0],
        weights=weights,
        labels=labels,
        flags=flags,
    )


def read_weights(location):
    """The parameters of a located model.

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
        return Weights(path, *tensorflow_checkpoint.read_weights(path))
    config = location.folder / 'config.json'
    architecture = configuration.architecture_of(read_json(config)) if config.is_file() else None
    return Weights(path, *huggingface.read_weights(path, architecture))


def is_gluon(location):
    """Whether the weights of a located model are in a Gluon file, which may be called anything."""
    path = location.weights
    return path is not None and path.suffix not in ('.index', '.safetensors', '.bin', '.json')


def split_gluon(parameters):
    """Part the BERT of a Gluon file from the head of a fine-tuned model.

    >>> split_gluon({'bert.pooler.bias': 1, 'classifier.1.bias': 2})
    ({'pooler.bias': 1}, {'bias': 2})
    """
    prefix = 'bert.'
    if not any(name.startswith(prefix) for name in parameters):
        return parameters, {}
    inner, head = {}, {}
    for name, array in parameters.items():
        # classifier.0 without dropout, and regression in the original's regression model
        match = re.fullmatch(r'(?:classifier|regression)\.[01]\.(weight|bias)', name)
        if match:
            head[match.group(1)] = array
        else:
            inner[name[len(prefix) :] if name.startswith(prefix) else name] = array
    return inner, head


def read_settings(location, weights=None):
    """The sizes of a located model.

    Parameters
    ----------
    location : Location
    weights : Weights, optional
        Asked for the sizes where there is no configuration.

    Returns
    -------
    dict
        Keyword arguments of :func:`bert.model.build_bert`, and ``vocab_size``.
    """
    for name in ('config.json', 'bert_config.json'):
        path = location.folder / name
        if path.is_file():
            return configuration.parse_config(read_json(path), path)
    if location.zoo:
        return zoo.settings(location.zoo[0], len(load_vocab(location.vocab)))
    if not is_gluon(location):
        raise ToolkitError(f'{location.folder}: there is no config.json in this model directory')
    weights = weights or read_weights(location)
    return configuration.infer_settings(weights.bert, weights.path)


def read_vocab(location):
    """The vocabulary of a located model, without the names of rows that have no token.

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
        raise ToolkitError(f'{location.vocab}: not a WordPiece tokenizer with the ids 0 to its end')
    return Vocab(sorted(ids, key=ids.get), source=location.vocab)


def read_casing(location, vocab):
    """Whether the text must be lower-cased for a located model, and why, as a clause.

    A zoo model's name says so; else ``tokenizer_config.json`` or ``tokenizer.json``; else the
    vocabulary: one without capital letters is uncased.
    """
    if location.zoo:
        return location.zoo[1].endswith('_uncased'), f'by its name {location.zoo[1]}'
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
    """The labels (None: regression) and the flags that go with the head of a located model."""
    if (location.folder / FINETUNED).is_file():
        content = read_finetune_json(location.folder)
        return content['labels'], content['flags']
    path = location.folder / 'config.json'
    config = read_json(path) if path.is_file() else {}
    shape = weights.head['weight'].shape if 'weight' in weights.head else (0, 1)
    # Without elements a tensor can have any number of rows.
    if len(shape) != 2 or not shape[1]:
        raise ToolkitError(f'{weights.path}: the classifier has the shape {tuple(shape)}')
    classes = shape[0]
    labels = configuration.parse_labels(config, path, classes)
    return labels, {}


def check_vocab(source, vocab):
    """Refuse a parameter file beside whose vocabulary is another than the one it is to go with."""
    location = locate(str(source))
    if location.vocab.is_file():
        theirs = read_vocab(location)
        if theirs.idx_to_token != plain_vocab(vocab).idx_to_token:
            raise ToolkitError(
                f'{location.weights}: goes with {location.vocab}, which is not the vocabulary of '
                'the other model: name the folder in place of the file'
            )


def reorder(contents, vocab):
    """The same model with the ids of another vocabulary, which must have the same tokens.

    Parameters
    ----------
    contents : Checkpoint
    vocab : Vocab

    Returns
    -------
    Checkpoint
    """
    old = contents.vocab
    if set(old.idx_to_token) != set(vocab.idx_to_token):
        raise ToolkitError('the two vocabularies do not have the same tokens')
    size = contents.settings['vocab_size']
    rows = [old.token_to_idx[token] for token in vocab.idx_to_token]
    rows += range(len(rows), size)  # rows without a token, where the embedding is rounded up
    parameters = dict(contents.weights.bert)
    for name in ('word_embed.0.weight', 'decoder.3.weight', 'decoder.3.bias'):
        if name in parameters:
            parameters[name] = parameters[name][rows]
    return contents._replace(vocab=vocab, weights=contents.weights._replace(bert=parameters))


# --- writing


def write_description(folder, settings, vocab, lower, **more):
    """Write what a model directory holds beside the weights: sizes, vocabulary, casing.

    Parameters
    ----------
    folder : Path
    settings : dict
        See :func:`bert.model.settings_of`.
    vocab : Vocab or gluonnlp.vocab.BERTVocab
    lower : bool
        Whether the text is lower-cased.
    **more
        For ``config.json``.
    """
    padding = {'pad_token_id': vocab[vocab.padding_token]}
    write_json(folder / 'config.json', {**configuration.format_config(settings), **padding, **more})
    write_text(folder / 'vocab.txt', ''.join(f'{token}\n' for token in vocab.idx_to_token))
    write_json(folder / 'tokenizer_config.json', {'do_lower_case': lower})


def write_gluon(folder, contents):
    """Write ``model.params``, ``vocab.vocab`` and ``config.json``, as plain GluonNLP 0.10 reads
    them, the same bytes for the same model.

    Parameters
    ----------
    folder : Path
        There already.
    contents : Checkpoint
    """
    import mxnet as mx

    from bert.model import gluon_vocab

    parameters = dict(contents.weights.bert)
    if 'decoder.3.bias' in parameters:
        # One array under two names, as save_parameters writes it.
        parameters['decoder.3.weight'] = parameters['word_embed.0.weight']
    if contents.weights.head:
        parameters = {f'bert.{name}': array for name, array in parameters.items()}
        # A regressor too: GluonNLP 0.10 has it as a classifier with one class.
        for name, array in contents.weights.head.items():
            parameters[f'classifier.1.{name}'] = array
    arrays = {name: mx.nd.array(parameters[name], dtype=np.float32) for name in sorted(parameters)}
    path, last_name = folder / 'model.params', list(arrays)[-1]
    write_parameters(path, lambda name: mx.nd.save(name, arrays), last_name)
    vocab = pad_vocab(contents.vocab, contents.settings['vocab_size'])
    write_text(folder / 'vocab.vocab', gluon_vocab(vocab).to_json() + '\n')
    write_json(folder / 'tokenizer_config.json', {'do_lower_case': contents.lower})
    _write_config(folder, contents)
    _write_flags(folder, contents, 'model.params')


def write_huggingface(folder, contents):
    """Write a directory that transformers opens, the same bytes for the same model.

    Parameters
    ----------
    folder : Path
        There already.
    contents : Checkpoint
    """
    weights = contents.weights
    huggingface.write_weights(folder / 'model.safetensors', weights.bert, weights.head)
    write_readable(folder, contents)
    _write_flags(folder, contents, 'model.safetensors')


def write_readable(folder, contents):
    """Write the configuration and the tokenizer as transformers reads them."""
    huggingface.write_tokenizer(
        folder, contents.vocab, contents.lower, contents.settings['max_length']
    )
    _write_config(folder, contents)


def _write_config(folder, contents):
    weights, vocab = contents.weights, contents.vocab
    config = {
        'architectures': [huggingface.architecture_of(weights.bert, weights.head)],
        **configuration.format_config(contents.settings),
        'pad_token_id': vocab[vocab.padding_token],
        'dtype': 'float32',
    }
    if weights.head:
        names = contents.labels or ['LABEL_0']
        config['id2label'] = dict(enumerate(names))
        config['label2id'] = {name: i for i, name in enumerate(names)}
        regression = contents.labels is None
        config['problem_type'] = 'regression' if regression else 'single_label_classification'
    write_json(folder / 'config.json', config)


def _write_flags(folder, contents, parameters):
    """Keep what finetune_classifier.py needs to predict without being told."""
    if contents.flags:
        write_json(
            folder / FINETUNED,
            {'flags': contents.flags, 'labels': contents.labels, 'parameters': parameters},
        )


# --- Gluon's files


def read_gluon(path):
    """The parameters in a Gluon ``.params`` file, under their names.

    Returns
    -------
    dict of str to numpy.ndarray

    Raises
    ------
    ToolkitError
        If the file is truncated, is no parameter file or has no names.
    """
    path = Path(path)
    if not path.is_file():
        raise ToolkitError(f'{path}: there is no such parameter file')
    try:
        parameters = gluon_file.read(path)
    except ValueError as error:
        raise ToolkitError(f'{path}: not a whole Gluon parameter file ({error})') from None
    if not parameters:
        raise ToolkitError(f'{path}: holds no named parameters')
    if any(name.startswith(('arg:', 'aux:')) for name in parameters):
        raise ToolkitError(
            f'{path}: was written by HybridBlock.export for deployment; '
            'training takes the file that save_parameters wrote'
        )
    return parameters


def write_parameters(path, write, last_name):
    """Write a Gluon ``.params`` file, whole or not at all.

    Parameters
    ----------
    path : str or Path
    write : function
        Writes it to the path that it is called with.
    last_name : str
        The name of the last parameter in it.
    """
    import mxnet as mx

    with replacing(path) as temporary:
        try:
            write(str(temporary))
        except mx.MXNetError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ToolkitError(f'{path}: could not be written ({reason})') from None
        # MXNet does not look whether the last kilobytes, which wait in a buffer, reach the disk.
        # The names of the parameters are at the end of the file.
        end = last_name.encode()
        with open(temporary, 'rb') as file:
            file.seek(max(0, temporary.stat().st_size - len(end)))
            if file.read() != end:
                raise ToolkitError(f'{path}: could not be written whole: is the disk full?')


def set_parameters(block, parameters, source, may_lack=()):
    """Copy arrays into the parameters of a Gluon block, by name.

    Parameters
    ----------
    block : mxnet.gluon.Block
        Initialised or not; afterwards the parameters named in ``parameters`` are set.
    parameters : dict of str to array
        Surplus heads are left out; a surplus encoder tensor is an error.
    source : str
        Where they come from, for error messages.
    may_lack : tuple of str
        Prefixes of parameters that may be missing.

    Returns
    -------
    list of str
        The names of the parameters that were missing.
    """
    import mxnet as mx

    wanted = block._collect_params_with_prefix()
    missing = [name for name in wanted if name not in parameters]
    # The masked-LM output weight is the word embedding; files may leave it out.
    missing = [name for name in missing if not name.endswith('decoder.3.weight')]
    broken = [name for name in missing if not name.startswith(tuple(may_lack))]
    if broken:
        raise ToolkitError(f'{source}: lacks {_some(broken)}')
    surplus = [
        name
        for name in parameters
        if name not in wanted and not re.sub(r'^bert\.', '', name).startswith(HEAD_PREFIXES)
    ]
    if surplus:
        raise ToolkitError(f'{source}: has {_some(surplus)}, which this model has no place for')
    for name, parameter in wanted.items():
        if name not in parameters:
            continue
        array = parameters[name]
        shape = parameter.shape
        if len(array.shape) != len(shape) or any(
            known not in (0, -1, given) for known, given in zip(shape, array.shape)
        ):
            raise ToolkitError(
                f'{source}: {name} has the shape {tuple(array.shape)}, and this model wants {shape}'
            )
        if np.dtype(array.dtype).kind != 'f':
            raise ToolkitError(f'{source}: {name} has the type {np.dtype(array.dtype).name}')
        # What load_parameters calls too; set_data alone would leave the parameter half-made
        # where the block has not seen its input's size.
        parameter.shape = array.shape
        parameter._load_init(mx.nd.array(array, dtype=parameter.dtype), None)
    return missing


def _some(names):
    """The first few of a list of names, and how many more there are."""
    shown = ', '.join(names[:5])
    return f'{shown} and {len(names) - 5} more' if len(names) > 5 else shown
