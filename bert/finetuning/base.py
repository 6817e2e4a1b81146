"""The model that a fine-tuning begins with, or that predicts: finding it, and giving it a head."""

import logging
from pathlib import Path
from typing import NamedTuple, Optional

from bert.checkpoints import reading
from bert.checkpoints.config import check_segments
from bert.checkpoints.contents import Location
from bert.checkpoints.source import is_parameter_file, is_zoo_model, locate, locate_configuration
from bert.system.errors import UsageError
from bert.training.scratch import FROM_SCRATCH, is_from_scratch


class ModelFiles(NamedTuple):
    """The locations of the model's parts."""

    model: Location  # sizes, vocabulary and casing
    weights: Optional[Location]  # the same, or that of a file of weights alone; None: from scratch


def find_model(args):
    """Find the model that the flags name, and fetch it if need be.

    Sizes, vocabulary and casing come with the weights, except with a file of weights alone: then
    they are those of --bert_model.
    """
    if is_from_scratch(args.bert_model, args.vocab_file):
        return ModelFiles(locate_configuration(args.bert_model, args.vocab_file), None)
    parameters = args.pretrained_bert_parameters or args.model_parameters
    if parameters and is_parameter_file(parameters):
        model = locate(args.bert_model, args.bert_dataset, with_weights=False)
        return ModelFiles(model, locate(parameters))
    location = locate(parameters or args.bert_model, args.bert_dataset)
    return ModelFiles(location, location)


def find_finetuned(files, args):
    """Return what the model of --bert_model says of itself if it is fine-tuned, or None."""
    if is_zoo_model(args.bert_model) or is_parameter_file(args.bert_model):
        return None
    parameters = args.model_parameters
    is_model = not parameters or is_parameter_file(parameters)
    return reading.read_finetuned(files.model.folder if is_model else Path(args.bert_model))


def build_model(files, task, contexts, args):
    """Build BERT with a head for the task, and load its weights.

    Returns
    -------
    gluonnlp.model.BERTClassifier or bert.model.build.BERTRegression, gluonnlp.vocab.BERTVocab
    """
    from bert.finetuning.prediction import add_head
    from bert.model.build import finish_initialization
    from bert.model.loading import build_located
    from bert.model.parameters import set_encoder
    from bert.training import update

    update.seed_step(args.seed, 0)
    weights = None
    if files.weights is files.model:
        weights = reading.read_weights(files.weights)
    bert, vocab = build_located(files.model, contexts, weights)
    if args.max_len > bert.settings['max_length']:
        raise UsageError(
            f'--max_len {args.max_len} is more than the {bert.settings["max_length"]} positions '
            'of this model'
        )
    if task.has_pairs:
        check_segments(bert.settings, files.model.config or files.model.folder)
    if files.weights is None:
        logging.info(FROM_SCRATCH)
        finish_initialization(bert, contexts[0])
        return add_head(bert, task.labels, contexts, args.dtype), vocab
    if weights is None:
        reading.check_vocab(files.weights, vocab)
        weights = reading.read_weights(files.weights)
    if not args.only_inference and not args.model_parameters:
        set_encoder(bert, weights)
        return add_head(bert, task.labels, contexts, args.dtype), vocab
    theirs = reading.read_labels(files.weights, weights)[0] if weights.head else None
    return add_head(bert, task.labels, contexts, args.dtype, weights, theirs), vocab
