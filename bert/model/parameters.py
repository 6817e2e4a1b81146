"""Move parameters between arrays and Gluon blocks, under their names in files."""

import hashlib
import logging
import re

import mxnet as mx
import numpy as np

from bert.checkpoints import config, gluon, writing
from bert.checkpoints.contents import HEAD_PREFIXES, Checkpoint, Weights
from bert.system.errors import ToolkitError
from bert.system.files import replacing_folder
from bert.text.vocab import plain_vocab


def named(block):
    """Return the parameters of a Gluon block by the names that ``save_parameters`` gives them.

    Returns
    -------
    dict of str to mxnet.gluon.Parameter
    """
    return block._collect_params_with_prefix()


def arrays(block):
    """Yield the name and the numpy.ndarray of values of each parameter of a Gluon block."""
    for name, parameter in named(block).items():
        yield name, _values(parameter)


def _values(parameter):
    return parameter.data(parameter.list_ctx()[0]).asnumpy()


def set_parameters(block, parameters, source, may_lack=()):
    """Copy arrays into the parameters of a Gluon block, by name.

    Parameters
    ----------
    block : mxnet.gluon.Block
        Initialised or not; afterwards the parameters named in ``parameters`` are set.
    parameters : dict of str to array
        Surplus heads are left out; a surplus encoder tensor is an error.
    source : str
        The origin of the parameters, for error messages.
    may_lack : tuple of str
        Prefixes of parameters that may be missing.

    Returns
    -------
    list of str
        The names of the missing parameters.
    """
    wanted = named(block)
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
                f'{source}: {name} has the shape {tuple(array.shape)}, but this model needs {shape}'
            )
        if np.dtype(array.dtype).kind != 'f':
            raise ToolkitError(f'{source}: {name} has the type {np.dtype(array.dtype).name}')
        # load_parameters calls this too; set_data alone would leave the parameter half-made if
        # the block has not seen the size of its input.
        parameter.shape = array.shape
        parameter._load_init(mx.nd.array(array, dtype=parameter.dtype), None)
    return missing


def _some(names):
    """List the first few names, and count the others."""
    shown = ', '.join(names[:5])
    return f'{shown} and {len(names) - 5} more' if len(names) > 5 else shown


def set_encoder(bert, weights):
    """Set the parameters of a BERT, and log heads that the weights lack, which stay as they are.

    Parameters
    ----------
    bert : gluonnlp.model.BERTModel
    weights : bert.checkpoints.contents.Weights
    """
    missing = set_parameters(bert, weights.bert, weights.path, HEAD_PREFIXES)
    if missing:
        logging.info('%s lacks %s: initialised', weights.path, ', '.join(missing))


def set_finetuned(model, weights, labels=None, wanted=None):
    """Set all parameters of a fine-tuned model, its head included.

    Parameters
    ----------
    model : gluonnlp.model.BERTClassifier or bert.model.build.BERTRegression
    weights : bert.checkpoints.contents.Weights
        Surplus pre-training heads are left out.
    labels, wanted : sequences of str, optional
        In the order of the classes of ``weights`` and of ``model``. If only the order differs, the
        rows of the head are reordered.
    """
    head = weights.head
    if labels and wanted and list(labels) != list(wanted):
        if sorted(labels) == sorted(wanted):
            rows = [labels.index(label) for label in wanted]
            head = {name: array[rows] for name, array in head.items()}
        elif len(labels) == len(wanted) and labels != config.generic_labels(len(labels)):
            pairs = (f'{their} as {our}' for their, our in zip(labels, wanted))
            logging.info('%s: takes its classes %s', weights.path, ', '.join(pairs))
    name = 'classifier' if hasattr(model, 'classifier') else 'regression'
    number = len(getattr(model, name)) - 1  # after the dropout, if there is one
    parameters = {f'bert.{key}': array for key, array in weights.bert.items()}
    parameters.update({f'{name}.{number}.{key}': array for key, array in head.items()})
    set_parameters(model, parameters, weights.path)


def save(model, path):
    """Write a Gluon ``.params`` file, whole or not at all."""
    gluon.write_parameters(path, arrays(model))


def save_huggingface(folder, bert, vocab, lower):
    """Write a model directory that transformers can read too, whole or not at all.

    Parameters
    ----------
    folder : Path
        Replaced if it exists.
    bert : gluonnlp.model.BERTModel
        From :mod:`bert.model.loading`.
    vocab : gluonnlp.vocab.BERTVocab
    lower : bool
        Whether the text is lower-cased.
    """
    parameters = {name: array.astype(np.float32) for name, array in arrays(bert)}
    contents = Checkpoint(
        settings=bert.settings,
        vocab=plain_vocab(vocab),
        lower=lower,
        weights=Weights(folder, parameters, {}),
        labels=None,
        flags={},
    )
    with replacing_folder(folder) as temporary:
        writing.write_huggingface(temporary, contents)


def digest(model):
    """Hash all parameters, to compare the weights that two runs begin with."""
    found = hashlib.sha256()
    for name, parameter in sorted(named(model).items()):
        array = _values(parameter)
        found.update(f'{name} {array.dtype} {array.shape}'.encode())
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()
