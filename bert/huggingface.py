"""Hugging Face's side of a model: tensor names, weight files, and a directory to write."""

import json
import os
import re
import struct

import numpy as np

from bert.cli import ToolkitError
from bert.files import read_json, replacing, write_json, write_text

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

# The class of transformers whose head :func:`read_weights` takes for that of a fine-tuned model.
FINETUNED_CLASS = 'BertForSequenceClassification'

# Where a model directory has its weights, the best choice first.
WEIGHT_FILES = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)

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


def read_weights(path, architecture=None):
    """The parameters in one of :data:`WEIGHT_FILES`, under Gluon's names.

    Parameters
    ----------
    path : Path
    architecture : str, optional
        The class in transformers that the configuration names.

    Returns
    -------
    dict of str to numpy.ndarray
        Of the encoder and of those pre-training heads that the file has.
    dict of str to numpy.ndarray
        ``weight`` and ``bias`` of the classifier or regressor of a fine-tuned model, or nothing.
        A head of another task (question answering, say) is left out.
    """
    parameters, head = {}, {}
    for name, tensor in read_tensors(path).items():
        name = re.sub(r'^bert\.', '', name)
        target = gluon_name(name)
        if target:
            parameters[target] = tensor
        elif name in ('classifier.weight', 'classifier.bias'):
            head[name.partition('.')[2]] = tensor
        elif name.startswith(('embeddings.', 'encoder.')) and name not in NOT_PARAMETERS:
            raise ToolkitError(f'{path}: {name} is no tensor of a BERT encoder')
    # Taggers have a tensor of this name too.
    return parameters, head if architecture in (None, FINETUNED_CLASS) else {}


def read_tensors(path):
    """All tensors of a weight file by name, or those of the shards that an index names."""
    if path.name.endswith('.index.json'):
        return _read_shards(path)
    if path.suffix == '.bin':
        return read_pytorch(path)
    return read_safetensors(path)


def shard_names(index):
    """The files that an index names, sorted; each must be beside it.

    >>> shard_names({'weight_map': {'a': 'model-2.safetensors', 'b': 'model-1.safetensors'}})
    ['model-1.safetensors', 'model-2.safetensors']
    """
    shards = index.get('weight_map')
    if not isinstance(shards, dict) or not all(map(_is_shard_name, shards.values())):
        raise ToolkitError('weight_map does not name files beside this one')
    return sorted(set(shards.values()))


def _is_shard_name(name):
    return (
        isinstance(name, str)
        and re.fullmatch(r'[^/\\\0]+\.[^/\\\0]+', name) is not None
        # An index that names an index could name itself.
        and not name.endswith('.index.json')
    )


def _read_shards(path):
    index = read_json(path)
    try:
        names = shard_names(index)
    except ToolkitError as error:
        raise ToolkitError(f'{path}: {error}') from None
    tensors = {}
    for name in names:
        shard = path.with_name(name)
        if not shard.is_file():
            raise ToolkitError(f'{shard}: this part of the weights is missing')
        tensors.update(read_tensors(shard))
    missing = sorted(set(index['weight_map']) - set(tensors))
    if missing:
        raise ToolkitError(f'{path}: {missing[0]} is in none of the files that it names')
    return tensors


def read_pytorch(path):
    """All tensors of a ``pytorch_model.bin``, by name, as float32 where they are floats.

    Nothing but tensors is unpickled.
    """
    try:
        import torch
    except ImportError:
        raise ToolkitError(
            f'{path}: PyTorch is needed to read this file: pip install torch; or name a model '
            'that has a model.safetensors'
        ) from None
    try:
        tensors = torch.load(path, map_location='cpu', weights_only=True)
        return {
            name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            for name, tensor in tensors.items()
        }
    # What a damaged or hostile file raises depends on where it is damaged.
    except Exception as error:
        reason = str(error).strip().split('\n')[0]
        raise ToolkitError(f'{path}: not a whole file of PyTorch tensors ({reason})') from None


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
        tensors.update(_bfloat16_tensors(path, dtypes))
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
    return tensors


def _safetensors_header(path):
    with open(path, 'rb') as file:
        (size,) = struct.unpack('<Q', file.read(8))
        # read() takes the memory for all of it before it looks what is there
        if size > min(MAX_SAFETENSORS_HEADER, os.fstat(file.fileno()).st_size):
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


def architecture_of(parameters, head):
    """The class of transformers whose heads are just these."""
    if head:
        return FINETUNED_CLASS
    return {
        (True, True): 'BertForPreTraining',
        (True, False): 'BertForMaskedLM',
        (False, True): 'BertForNextSentencePrediction',
        (False, False): 'BertModel',
    }['decoder.0.weight' in parameters, 'classifier.weight' in parameters]


def write_weights(path, parameters, head):
    """Write ``model.safetensors`` as float32, whole or not at all.

    The same parameters give the same bytes.

    Parameters
    ----------
    path : Path
    parameters, head : dict
        As :func:`read_weights` returns them.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # The output weight of the masked-LM head is the word embedding.
    tensors = {
        huggingface_name(name): array
        for name, array in parameters.items()
        if name != 'decoder.3.weight'
    }
    tensors.update({f'classifier.{name}': array for name, array in head.items()})
    if architecture_of(parameters, head) == 'BertModel':
        tensors = {re.sub(r'^bert\.', '', name): array for name, array in tensors.items()}
    tensors = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={'format': 'pt'})
        except SafetensorError as error:
            raise ToolkitError(f'{path}: could not be written ({error})') from None


def write_tokenizer(folder, vocab, lower, max_length):
    """Write ``vocab.txt``, ``tokenizer.json`` and ``tokenizer_config.json``.

    transformers' own BERT tokenizer gives up on words of more than 100 characters, this project's
    like the original on those of more than 200; so the tokenizer itself is written.
    """
    from tokenizers import decoders, processors

    from bert.tokenizer import build_tokenizer

    names = {
        'unk_token': vocab.unknown_token,
        'pad_token': vocab.padding_token,
        'cls_token': vocab.cls_token,
        'sep_token': vocab.sep_token,
        'mask_token': vocab.mask_token,
    }
    tokenizer = build_tokenizer(vocab, lower)
    tokenizer.add_special_tokens(list(names.values()))
    cls, sep = vocab.cls_token, vocab.sep_token
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f'{cls}:0 $A:0 {sep}:0',
        pair=f'{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1',
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix='##')
    write_text(folder / 'tokenizer.json', tokenizer.to_str(pretty=True))
    write_text(folder / 'vocab.txt', ''.join(f'{token}\n' for token in vocab.idx_to_token))
    write_json(
        folder / 'tokenizer_config.json',
        {
            'tokenizer_class': 'PreTrainedTokenizerFast',
            'do_lower_case': lower,
            'model_max_length': max_length,
            'model_input_names': ['input_ids', 'token_type_ids', 'attention_mask'],
            **names,
        },
    )
