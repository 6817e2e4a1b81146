"""Parameter files: Hugging Face's names and layout, and Gluon's.

The models hold the parameter names of GluonNLP 0.5 to 0.10, so a file saved here loads there.
"""

import json
import re
import struct
from pathlib import Path

import numpy as np

from bert.cli import ToolkitError
from bert.files import read_json, replacing, replacing_folder, write_json, write_text

# Hugging Face's name of a tensor -> Gluon's. An encoder layer's stand in LAYER_NAMES.
TOP_NAMES = {
    'embeddings.word_embeddings.weight': 'word_embed.0.weight',
    'embeddings.position_embeddings.weight': 'encoder.position_weight',
    'embeddings.token_type_embeddings.weight': 'token_type_embed.0.weight',
    'embeddings.LayerNorm.weight': 'encoder.layer_norm.gamma',
    'embeddings.LayerNorm.bias': 'encoder.layer_norm.beta',
    'pooler.dense.weight': 'pooler.weight',
    'pooler.dense.bias': 'pooler.bias',
    'cls.predictions.transform.dense.weight': 'decoder.0.weight',
    'cls.predictions.transform.dense.bias': 'decoder.0.bias',
    'cls.predictions.transform.LayerNorm.weight': 'decoder.2.gamma',
    'cls.predictions.transform.LayerNorm.bias': 'decoder.2.beta',
    'cls.predictions.decoder.weight': 'decoder.3.weight',
    'cls.predictions.bias': 'decoder.3.bias',
    'cls.seq_relationship.weight': 'classifier.weight',
    'cls.seq_relationship.bias': 'classifier.bias',
}
LAYER_NAMES = {
    'attention.self.query.weight': 'attention_cell.proj_query.weight',
    'attention.self.query.bias': 'attention_cell.proj_query.bias',
    'attention.self.key.weight': 'attention_cell.proj_key.weight',
    'attention.self.key.bias': 'attention_cell.proj_key.bias',
    'attention.self.value.weight': 'attention_cell.proj_value.weight',
    'attention.self.value.bias': 'attention_cell.proj_value.bias',
    'attention.output.dense.weight': 'proj.weight',
    'attention.output.dense.bias': 'proj.bias',
    'attention.output.LayerNorm.weight': 'layer_norm.gamma',
    'attention.output.LayerNorm.bias': 'layer_norm.beta',
    'intermediate.dense.weight': 'ffn.ffn_1.weight',
    'intermediate.dense.bias': 'ffn.ffn_1.bias',
    'output.dense.weight': 'ffn.ffn_2.weight',
    'output.dense.bias': 'ffn.ffn_2.bias',
    'output.LayerNorm.weight': 'ffn.layer_norm.gamma',
    'output.LayerNorm.bias': 'ffn.layer_norm.beta',
}
# Tensors in Hugging Face files that are no parameters of BERT: a range, and a second name of
# the masked-LM bias.
NOT_PARAMETERS = {'embeddings.position_ids', 'cls.predictions.decoder.bias'}

# A model with fewer than all of its heads is common; an encoder with a tensor short is broken.
HEAD_PREFIXES = ('pooler.', 'decoder.', 'classifier.')

# Stands in an output directory of finetune_classifier.py beside config.json and vocab.txt.
FINETUNED = 'finetune.json'

# The safetensors format: 8 bytes of header length, a JSON header, then the data.
MAX_SAFETENSORS_HEADER = 100 * 1024 * 1024


def gluon_name(name):
    """Gluon's name for a tensor of a Hugging Face file, or None if there is none.

    >>> gluon_name('bert.encoder.layer.3.output.LayerNorm.gamma')
    'encoder.transformer_cells.3.ffn.layer_norm.gamma'
    """
    name = re.sub(r'^bert\.', '', name)
    # The names of 2018, before PyTorch's.
    name = re.sub(r'LayerNorm\.gamma$', 'LayerNorm.weight', name)
    name = re.sub(r'LayerNorm\.beta$', 'LayerNorm.bias', name)
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    match = re.fullmatch(r'encoder\.layer\.(\d+)\.(.+)', name)
    if match and match.group(2) in LAYER_NAMES:
        return f'encoder.transformer_cells.{match.group(1)}.{LAYER_NAMES[match.group(2)]}'
    return None


def huggingface_name(name):
    """The inverse of :func:`gluon_name`, as in a file of ``BertForPreTraining``.

    >>> huggingface_name('encoder.transformer_cells.3.ffn.layer_norm.gamma')
    'bert.encoder.layer.3.output.LayerNorm.weight'
    """
    match = re.fullmatch(r'encoder\.transformer_cells\.(\d+)\.(.+)', name)
    if match:
        (inner,) = (theirs for theirs, ours in LAYER_NAMES.items() if ours == match.group(2))
        return f'bert.encoder.layer.{match.group(1)}.{inner}'
    (outer,) = (theirs for theirs, ours in TOP_NAMES.items() if ours == name)
    return outer if outer.startswith('cls.') else f'bert.{outer}'


def read_safetensors(path):
    """All tensors of a safetensors file, by name; bfloat16 and float16 come as float32.

    Returns
    -------
    dict of str to numpy.ndarray

    Raises
    ------
    ToolkitError
        If the file is truncated or is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    tensors = {}
    try:
        dtypes = _safetensors_dtypes(path)
        with safe_open(path, framework='numpy') as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                if dtypes[name] == 'BF16':
                    continue
                tensor = file.get_tensor(name)
                is_half = tensor.dtype == np.float16
                tensors[name] = tensor.astype(np.float32) if is_half else tensor
    except (
        SafetensorError,
        struct.error,
        ValueError,
        # a header that is JSON, but of another shape
        AttributeError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:
        raise ToolkitError(f'{path}: not a whole safetensors file ({error})') from None
    tensors.update(_bfloat16_tensors(path, dtypes))
    return tensors


def _safetensors_header(path):
    with open(path, 'rb') as file:
        (size,) = struct.unpack('<Q', file.read(8))
        if size > MAX_SAFETENSORS_HEADER:
            raise ValueError(f'a header of {size} bytes')
        return size, json.loads(file.read(size))


def _safetensors_dtypes(path):
    _, header = _safetensors_header(path)
    return {name: entry['dtype'] for name, entry in header.items() if name != '__metadata__'}


def _bfloat16_tensors(path, dtypes):
    """The bfloat16 tensors as float32: numpy has no bfloat16, but it is float32's upper half."""
    names = [name for name, dtype in dtypes.items() if dtype == 'BF16']
    if not names:
        return {}
    size, header = _safetensors_header(path)
    tensors = {}
    for name in names:
        start, end = header[name]['data_offsets']
        upper = np.fromfile(path, dtype='<u2', count=(end - start) // 2, offset=8 + size + start)
        bits = upper.astype(np.uint32) << 16
        tensors[name] = bits.view(np.float32).reshape(header[name]['shape'])
    return tensors


def read_huggingface(folder):
    """The parameters of a directory in Hugging Face layout, under Gluon's names.

    Returns
    -------
    dict of str to numpy.ndarray
        Of the encoder and of those heads that the file has. A head of another task
        (question answering, say) is left out.
    """
    path = Path(folder) / 'model.safetensors'
    if not path.is_file():
        raise ToolkitError(f'{folder}: there is no model.safetensors in this model directory')
    parameters = {}
    for name, tensor in read_safetensors(path).items():
        name = re.sub(r'^bert\.', '', name)
        target = gluon_name(name)
        if target:
            parameters[target] = tensor
        elif name.startswith(('embeddings.', 'encoder.')) and name not in NOT_PARAMETERS:
            raise ToolkitError(f'{path}: {name} is no tensor of a BERT encoder')
    return parameters


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
    write_json(folder / 'config.json', {**format_config(settings), **padding, **more})
    write_text(folder / 'vocab.txt', ''.join(f'{token}\n' for token in vocab.idx_to_token))
    write_json(folder / 'tokenizer_config.json', {'do_lower_case': lower})


def write_huggingface(folder, bert, vocab, lower):
    """Write a model directory, whole or not at all, that transformers reads too.

    Parameters
    ----------
    folder : Path
        Replaced where it is there.
    bert : gluonnlp.model.BERTModel
        With both heads.
    vocab, lower
        As in :func:`write_description`.
    """
    from safetensors.numpy import save_file

    from bert.model import settings_of

    # The output weight of the masked-LM head is the word embedding.
    tensors = {
        huggingface_name(name): parameter.data(parameter.list_ctx()[0]).astype('float32').asnumpy()
        for name, parameter in bert._collect_params_with_prefix().items()
        if name != 'decoder.3.weight'
    }
    settings = settings_of(bert)
    with replacing_folder(folder) as temporary:
        write_description(temporary, settings, vocab, lower)
        config = {**format_config(settings), 'architectures': ['BertForPreTraining']}
        write_json(
            temporary / 'config.json', {**config, 'pad_token_id': vocab[vocab.padding_token]}
        )
        with replacing(temporary / 'model.safetensors') as path:
            save_file(tensors, path, metadata={'format': 'pt'})


def read_config(folder):
    """``config.json`` of a model directory as the settings of GluonNLP's BERT.

    Returns
    -------
    dict
        Keyword arguments of :func:`bert.model.build_bert`.
    """
    path = Path(folder) / 'config.json'
    if not path.is_file():
        raise ToolkitError(f'{folder}: there is no config.json in this model directory')
    return parse_config(read_json(path), path)


def is_finetuned(source):
    """Whether ``--bert_model`` is an output directory of finetune_classifier.py."""
    return (Path(source) / FINETUNED).is_file()


def read_finetuned(folder):
    """What an output directory of finetune_classifier.py says of itself.

    Returns
    -------
    dict
        ``flags``: those needed for inference; ``labels``: in the order of the class ids, or None
        for regression; ``parameters``: the path of the best epoch's file.
    """
    path = Path(folder) / FINETUNED
    content = read_json(path)
    flags, labels, name = (content.get(key) for key in ('flags', 'labels', 'parameters'))
    if not isinstance(flags, dict):
        raise ToolkitError(f'{path}: flags is not a table')
    if labels is not None and not (
        isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    ):
        raise ToolkitError(f'{path}: labels is not a list of names')
    if not isinstance(name, str) or Path(name).name != name:
        raise ToolkitError(f'{path}: parameters is not the name of a file in this folder')
    return {'flags': flags, 'labels': labels, 'parameters': Path(folder) / name}


# config.json's keys -> ours, for the sizes that every configuration must name.
SIZES = {
    'num_hidden_layers': 'num_layers',
    'hidden_size': 'units',
    'intermediate_size': 'hidden_size',
    'num_attention_heads': 'num_heads',
    'max_position_embeddings': 'max_length',
    'vocab_size': 'vocab_size',
    'type_vocab_size': 'token_type_vocab_size',
}


def parse_config(config, path):
    """The settings in a configuration in Hugging Face's keys, checked.

    ``attention_probs_dropout_prob`` is not read: GluonNLP's encoder has one dropout rate, and
    every published BERT has the same one in both places.
    """
    settings = {}
    for key, name in SIZES.items():
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**24:
            raise ToolkitError(f'{path}: {key} is {value!r}, not a positive whole number')
        settings[name] = value
    if settings['units'] % settings['num_heads']:
        raise ToolkitError(
            f'{path}: hidden_size {settings["units"]} is not a multiple of '
            f'num_attention_heads {settings["num_heads"]}'
        )
    for key, expected in [('model_type', 'bert'), ('position_embedding_type', 'absolute')]:
        if config.get(key, expected) != expected:
            raise ToolkitError(f'{path}: {key} is {config[key]!r}; this reads {expected!r} only')
    activations = {'gelu': 'gelu', 'gelu_new': 'approx_gelu', 'gelu_pytorch_tanh': 'approx_gelu'}
    activation = config.get('hidden_act', 'gelu')
    if not isinstance(activation, str) or activation not in activations:
        raise ToolkitError(f'{path}: hidden_act is {activation!r}, not one of {list(activations)}')
    settings['activation'] = activations[activation]
    for key, name, default in [
        ('hidden_dropout_prob', 'dropout', 0.1),
        ('layer_norm_eps', 'layer_norm_eps', 1e-12),
    ]:
        value = config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ToolkitError(f'{path}: {key} is {value!r}, not a number from 0 to below 1')
        settings[name] = value
    return settings


def format_config(settings):
    """The inverse of :func:`parse_config`: a configuration in Hugging Face's keys."""
    config = {key: settings[name] for key, name in SIZES.items()}
    config['model_type'] = 'bert'
    config['hidden_act'] = {'gelu': 'gelu', 'approx_gelu': 'gelu_new'}[settings['activation']]
    config['hidden_dropout_prob'] = settings['dropout']
    config['attention_probs_dropout_prob'] = settings['dropout']
    config['layer_norm_eps'] = settings['layer_norm_eps']
    return config


def read_gluon(path):
    """The parameters in a Gluon ``.params`` file, under their names.

    Returns
    -------
    dict of str to mxnet.nd.NDArray

    Raises
    ------
    ToolkitError
        If the file is truncated, is no parameter file or has no names.
    """
    import mxnet as mx

    path = Path(path)
    if not path.is_file():
        raise ToolkitError(f'{path}: there is no such parameter file')
    try:
        parameters = mx.nd.load(str(path))
    except mx.MXNetError:
        raise ToolkitError(f'{path}: not a whole Gluon parameter file') from None
    if not isinstance(parameters, dict) or not parameters:
        raise ToolkitError(f'{path}: holds no named parameters')
    if any(name.startswith(('arg:', 'aux:')) for name in parameters):
        raise ToolkitError(
            f'{path}: was written by HybridBlock.export for deployment; '
            'training takes the file that save_parameters wrote'
        )
    return parameters


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
