"""The toolkit for your own programs: data sets, transforms, models and the optimizer.

The names are those of the modules of the original GluonNLP scripts.

>>> from bert.gluon import BERTAdam, BERTClassifier, BERTDatasetTransform, BERTTokenizer
>>> from bert.gluon import MRPCDataset, get_model
"""

from functools import partial
from typing import List, NamedTuple

import numpy as np
from gluonnlp.model import BERTClassifier

from bert.finetuning.datasets import (
    COLADataset,
    MNLIDataset,
    MRPCDataset,
    QNLIDataset,
    QQPDataset,
    RTEDataset,
    SSTDataset,
    STSBDataset,
    TaskMetric,
    WNLIDataset,
)
from bert.finetuning.transforms import BERTDatasetTransform, BERTSentenceTransform, BERTTokenizer
from bert.model import load_bert
from bert.model.build import BERTRegression
from bert.pretraining.corpus import read_corpus
from bert.pretraining.files import find_files, share_out
from bert.pretraining.instance_flags import check_max_seq_length
from bert.pretraining.instances import Recipe, make_instances
from bert.pretraining.masking import symbols_of
from bert.text.tokenizer import tokenize
from bert.training.optimizer import BERTAdam

__all__ = [
    'BERTAdam',
    'BERTClassifier',
    'BERTDatasetTransform',
    'BERTRegression',
    'BERTSentenceTransform',
    'BERTTokenizer',
    'COLADataset',
    'MNLIDataset',
    'MRPCDataset',
    'QNLIDataset',
    'QQPDataset',
    'RTEDataset',
    'SSTDataset',
    'STSBDataset',
    'TaskMetric',
    'TrainingInstance',
    'WNLIDataset',
    'create_training_instances',
    'get_model',
]


def get_model(
    name,
    dataset_name=None,
    pretrained=True,
    ctx=None,
    use_pooler=True,
    use_decoder=True,
    use_classifier=True,
    **keywords,
):
    """Load a BERT and its vocabulary, with the defaults of ``gluonnlp.model.get_model``.

    Parameters
    ----------
    name : str
        Anything that :func:`bert.model.load_bert` accepts, including ``bert_12_768_12`` and model
        directories.
    dataset_name : str, optional
        For a model of the zoo, in any of its spellings: ``wiki_cn`` and ``wiki_cn_cased`` are one.
    pretrained, ctx, use_pooler, use_decoder, use_classifier, **keywords
        See :func:`bert.model.load_bert`.

    Returns
    -------
    (gluonnlp.model.BERTModel, gluonnlp.vocab.BERTVocab)
    """
    return load_bert(
        name,
        dataset_name,
        ctx=ctx,
        pretrained=pretrained,
        use_pooler=use_pooler,
        use_decoder=use_decoder,
        use_classifier=use_classifier,
        **keywords,
    )


class TrainingInstance(NamedTuple):
    """A pre-training instance, like the class of this name in google-research/bert."""

    tokens: List[str]  # with [MASK], without padding
    segment_ids: List[int]  # of the same length
    masked_lm_positions: List[int]
    masked_lm_labels: List[str]  # the tokens that were there
    is_random_next: bool


def create_training_instances(
    input_files,
    tokenizer,
    max_seq_length=128,
    dupe_factor=10,
    short_seq_prob=0.1,
    masked_lm_prob=0.15,
    max_predictions_per_seq=20,
    rng=12345,
    whole_word_mask=False,
):
    """Make masked-LM and next-sentence instances from text, like google-research/bert's function.

    Parameters
    ----------
    input_files : sequence of str
        With one sentence per line and a blank line between documents.
    tokenizer : BERTTokenizer
    max_seq_length, dupe_factor, short_seq_prob, masked_lm_prob, max_predictions_per_seq
        See create_pretraining_data.py.
    whole_word_mask : bool
        Likewise.
    rng : int or numpy.random.Generator

    Returns
    -------
    list of TrainingInstance
        In random order.
    """
    check_max_seq_length(max_seq_length)
    vocab = tokenizer.vocab
    recipe = Recipe(
        max_seq_length=max_seq_length,
        max_predictions_per_seq=max_predictions_per_seq,
        masked_lm_prob=masked_lm_prob,
        short_seq_prob=short_seq_prob,
        dupe_factor=dupe_factor,
        whole_word_mask=whole_word_mask,
    )
    (spans,) = share_out(find_files(','.join(input_files)), 1)
    corpus = read_corpus(spans, partial(tokenize, tokenizer), len(vocab))
    rng = np.random.default_rng(rng)
    _, blocks = make_instances(corpus, recipe, symbols_of(vocab), rng)
    tokens_of = vocab.idx_to_token
    instances = []
    for block in blocks:
        for row, length in enumerate(block['valid_lengths'].tolist()):
            masks = int(block['masked_lm_weights'][row].sum())
            labels = block['masked_lm_ids'][row, :masks]
            instances.append(
                TrainingInstance(
                    [tokens_of[i] for i in block['input_ids'][row, :length]],
                    block['segment_ids'][row, :length].tolist(),
                    block['masked_lm_positions'][row, :masks].tolist(),
                    [tokens_of[i] for i in labels],
                    bool(block['next_sentence_labels'][row]),
                )
            )
    return instances
