"""The contents of a model, as values that the other modules pass around."""

from pathlib import Path
from typing import NamedTuple, Optional, Tuple

from bert.system.errors import ToolkitError
from bert.text.vocab import Vocab

# The file that marks an output directory of finetune_classifier.py.
FINETUNED = 'finetune.json'
# The model directory inside the --ckpt_dir of run_pretraining.py.
PRETRAINED = 'model'
# Models often lack some of their heads; an encoder that lacks a tensor is broken.
HEAD_PREFIXES = ('pooler.', 'decoder.', 'classifier.')


class Location(NamedTuple):
    """The paths of a model's parts."""

    folder: Path
    weights: Optional[Path]  # None: there are none, or none are wanted
    vocab: Path
    zoo: Optional[Tuple[str, str]] = None  # of a zoo model: its name and data set, as given
    config: Optional[Path] = None  # a configuration with a name of its own
    sizes: Optional[str] = None  # a key of NAMED_SIZES that stands for a configuration


class Weights(NamedTuple):
    """The parameters of a model under Gluon's names, without the prefix of a fine-tuned one."""

    path: Path  # for error messages
    bert: dict  # of the encoder and the pre-training heads
    head: dict  # ``weight`` (classes, units) and ``bias`` of a fine-tuned model, or nothing


class Checkpoint(NamedTuple):
    """A whole model, as arrays."""

    settings: dict  # keyword arguments of bert.model.build.build_bert, and vocab_size
    vocab: Vocab
    lower: bool  # whether the text is lower-cased
    weights: Weights
    labels: Optional[list]  # of a classifier, in the order of the class ids; None: regression
    flags: dict  # the flags of finetune_classifier.py that a model remembers
    is_multilabel: bool = False  # whether a row may have several of the labels


def reorder(contents, vocab):
    """Give a model the ids of another vocabulary, which must have the same tokens.

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
    rows += range(len(rows), size)  # rows without a token, where the embedding's size is rounded up
    parameters = dict(contents.weights.bert)
    for name in ('word_embed.0.weight', 'decoder.3.weight', 'decoder.3.bias'):
        if name in parameters:
            parameters[name] = parameters[name][rows]
    return contents._replace(vocab=vocab, weights=contents.weights._replace(bert=parameters))
