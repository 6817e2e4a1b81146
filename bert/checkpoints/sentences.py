"""How a model turns sentences into vectors, and how much of a text it reads.

A model directory of sentence-transformers lists the modules that a text passes in
``modules.json``: the BERT, then a pooling with a folder of its own, then perhaps a normalisation.
"""

from pathlib import Path
from typing import NamedTuple

from bert.checkpoints.contents import FINETUNED
from bert.checkpoints.reading import read_finetune_json
from bert.system.errors import ToolkitError
from bert.system.files import parse_json, read_json, read_text

# The vectors that a text can have: the mean over its tokens, [CLS] and [SEP] included; the first
# token's; what the pooler makes of that; or those of all tokens.
KINDS = ('mean', 'first', 'pooled', 'tokens')
# What sentence-transformers makes of a model of its own, and otherwise the mean.
SENTENCE = 'sentence'
MODULES = 'modules.json'
# sentence-transformers' names for ways of pooling, and the kinds of vectors that they make.
POOLING = {'mean': 'mean', 'cls': 'first'}
# Before version 5, each way of pooling had a key that was true or false.
FLAGS = {
    'pooling_mode_cls_token': 'cls',
    'pooling_mode_max_tokens': 'max',
    'pooling_mode_mean_tokens': 'mean',
    'pooling_mode_mean_sqrt_len_tokens': 'mean_sqrt_len_tokens',
    'pooling_mode_weightedmean_tokens': 'weightedmean',
    'pooling_mode_lasttoken': 'lasttoken',
}


class SentenceVector(NamedTuple):
    """How the encodings of a sentence become one vector."""

    kind: str  # mean or first
    normalized: bool  # to length 1


def read_sentence_vector(folder):
    """Find out how a model turns a sentence into a vector.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    SentenceVector or None
        None if the folder is not one of sentence-transformers.

    Raises
    ------
    ToolkitError
        If it lists modules that this project does not have.
    """
    path = folder / MODULES
    if not path.is_file():
        return None
    try:
        modules = parse_json(read_text(path))
    except ValueError:
        modules = None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ToolkitError(f'{path}: not a list of modules')
    # The names of their classes; the packages that hold these differ between versions.
    kinds = [str(module.get('type')).rpartition('.')[2] for module in modules]
    if kinds not in (['Transformer', 'Pooling'], ['Transformer', 'Pooling', 'Normalize']):
        raise ToolkitError(
            f'{path}: lists the modules {", ".join(kinds) or "of nothing"}; only Transformer, '
            'Pooling and perhaps Normalize are supported'
        )
    if modules[0].get('path', '') not in ('', '.'):
        raise ToolkitError(f'{path}: the Transformer is in another folder, which is the model')
    name = modules[1].get('path')
    if not isinstance(name, str) or Path(name).name != name or name in ('', '..') or '\0' in name:
        raise ToolkitError(f'{path}: the path of the Pooling is not the name of a folder in here')
    return SentenceVector(_read_pooling(folder / name / 'config.json'), len(kinds) == 3)


def _read_pooling(path):
    config = read_json(path) if path.is_file() else {}
    modes = config.get('pooling_mode', [mode for key, mode in FLAGS.items() if config.get(key)])
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in [*POOLING]:
        shown = ' and '.join(map(str, modes)) if isinstance(modes, list) else str(modes)
        raise ToolkitError(
            f'{path}: the pooling is {shown or "not given"}; only {" and ".join(POOLING)} are '
            'supported'
        )
    return POOLING[modes[0]]


def read_max_len(folder):
    """Return the most tokens that a model reads, as far as its directory says, or None.

    Fine-tuned models remember it, and those of sentence-transformers have it as a setting.

    Parameters
    ----------
    folder : Path
    """
    if (folder / FINETUNED).is_file():
        return _positive(read_finetune_json(folder)['flags'].get('max_len'))
    found = None
    if (folder / MODULES).is_file():
        for name, key in (
            ('sentence_bert_config.json', 'max_seq_length'),
            ('tokenizer_config.json', 'model_max_length'),
        ):
            path = folder / name
            found = found or _positive(read_json(path).get(key) if path.is_file() else None)
    return found


def _positive(value):
    """Return a value if it is a positive whole number, or None."""
    is_positive = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if is_positive else None
