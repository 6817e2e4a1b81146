"""BERT for MXNet: load a model, or build one.

>>> from bert.model import load_bert
>>> bert, vocab = load_bert('bert_12_768_12', 'wiki_cn')  # doctest: +SKIP
"""

from bert.model.build import build_bert, build_head
from bert.model.loading import build_from_configuration, load_bert
from bert.model.parameters import save_huggingface

__all__ = ['build_bert', 'build_from_configuration', 'build_head', 'load_bert', 'save_huggingface']
