"""Hugging Face's tensor files: safetensors and PyTorch's, whole or in parts."""

import json
import os
import re
import struct

import numpy as np

from bert.system.errors import ToolkitError
from bert.system.files import read_json

# The safetensors format: 8 bytes of header length, a JSON header, then the data.
MAX_SAFETENSORS_HEADER = 100 * 1024 * 1024


def read_tensors(path):
    """Read all tensors of a weight file by name, or those of the parts that an index names."""
    if path.name.endswith('.index.json'):
        return _read_shards(path)
    if path.suffix == '.bin':
        return read_pytorch(path)
    return read_safetensors(path)


def shard_names(index):
    """Return the files that an index names, sorted; each must be beside the index.

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
    """Read all tensors of a ``pytorch_model.bin`` by name, floats as float32.

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
    # A damaged or hostile file can raise almost anything.
    except Exception as error:
        reason = str(error).strip().split('\n')[0]
        raise ToolkitError(f'{path}: not a whole file of PyTorch tensors ({reason})') from None


def read_safetensors(path):
    """Read all tensors of a safetensors file by name, bfloat16 and float16 as float32.

    Returns
    -------
    dict of str to numpy.ndarray

    Raises
    ------
    ToolkitError
        If the file is truncated or is not a safetensors file.
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
        # read() allocates the whole size before it looks at the file
        if size > min(MAX_SAFETENSORS_HEADER, os.fstat(file.fileno()).st_size):
            raise ValueError(f'a header of {size} bytes')
        return size, json.loads(file.read(size))


def _safetensors_dtypes(path):
    _, header = _safetensors_header(path)
    return {name: entry['dtype'] for name, entry in header.items() if name != '__metadata__'}


def _bfloat16_tensors(path, dtypes):
    """Read the bfloat16 tensors as float32, of which a bfloat16 is the upper half."""
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
