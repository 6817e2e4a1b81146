"""Texts to labels with their probabilities, or to numbers, with a fine-tuned model."""

import numpy as np

from bert.checkpoints import reading
from bert.checkpoints.config import check_segments
from bert.finetuning.flags import check_remembered, glue_name
from bert.finetuning.inference import TextModel, choose_casing, choose_max_len
from bert.finetuning.parser import build_flags
from bert.model.build import build_head, cast
from bert.model.loading import build_located
from bert.model.parameters import set_finetuned
from bert.system.errors import ToolkitError, UsageError
from bert.tasks.predictions import probabilities
from bert.tasks.table import ALL_TASKS
from bert.training import batches

# The names of the text and of the second one, where the model remembers no others: transformers'.
TEXT_COLUMNS = ('text', 'text_pair')


class Predictor(TextModel):
    """Predicts with a fine-tuned model. Several threads may use it at once.

    Parameters
    ----------
    labels : list of str or None
        In the order of the class ids; None in regression.
    is_multilabel : bool
        Whether a row may have several of them.
    columns : tuple of str
        The names of the columns with the text that the model was fine-tuned on.
    sizes : tuple of int
        How many texts a row may have: ``(1,)``, ``(2,)``, or ``(1, 2)`` if the model does not say.
    *others
        See :class:`bert.finetuning.inference.TextModel`.
    """

    def __init__(self, labels, is_multilabel, columns, sizes, *others):
        super().__init__(*others)
        self.labels = labels
        self.is_multilabel = is_multilabel
        self.columns = columns
        self.sizes = sizes
        # How many rows are sorted by length together, and answered together.
        self.window_size = batches.POOL * self.batch_size

    def __call__(self, texts):
        """Return the answers of the model to some texts.

        Parameters
        ----------
        texts : iterable of str, or of tuples of one or two str

        Returns
        -------
        list of dict, of list of dict, or of float
            The most likely ``label`` and its probability, ``score``; where a row may have several
            labels, all of them, the most likely first, as transformers' pipeline gives them with
            ``top_k=None``; in regression the numbers.
        """
        return list(self.stream(texts))

    def stream(self, texts):
        """Yield the answers, as :meth:`__call__` gives them, for any number of texts.

        They come in the order of the texts, a window at a time. At most two windows of texts are
        in memory.
        """
        for _, output in self.outputs(texts, self.window_size, self._check):
            yield self._answer(output)

    def _check(self, row):
        if len(row) not in self.sizes:
            sizes = ' or '.join(map(str, self.sizes))
            raise UsageError(f'a row has {len(row)} texts, but the model takes {sizes}')

    def _answer(self, output):
        if self.labels is None:
            if not np.isfinite(output[0]):
                raise ToolkitError('an output of the model is not a finite number')
            return float(output[0])
        (scores,) = probabilities(output[None], self.is_multilabel)
        order = np.argsort(-output, kind='stable') if self.is_multilabel else [output.argmax()]
        answers = [{'label': self.labels[i], 'score': float(scores[i])} for i in order]
        return answers if self.is_multilabel else answers[0]


def load_predictor(location, max_len, batch_size, contexts, dtype, lower=None):
    """Load a fine-tuned model that predicts.

    Parameters
    ----------
    location : bert.checkpoints.contents.Location
    max_len : int or None
        See :func:`bert.finetuning.inference.choose_max_len`.
    batch_size, contexts
        See :class:`bert.finetuning.inference.TextModel`.
    dtype : str
        See :func:`bert.model.build.cast`.
    lower : bool, optional
        Whether to lower-case the text; by default what the model says.

    Returns
    -------
    Predictor
    """
    weights = reading.read_weights(location)
    if not weights.head:
        raise ToolkitError(f'{weights.path}: has no classifier: the model is not fine-tuned')
    labels, flags, is_multilabel = reading.read_labels(location, weights)
    columns, sizes = read_columns(check_remembered(build_flags(), flags, location.folder))
    bert, vocab = build_located(location, contexts, weights)
    if sizes == (2,):
        check_segments(bert.settings, location.folder)
    elif bert.settings['token_type_vocab_size'] < 2:
        sizes = (1,)
    max_len = choose_max_len(max_len, location, bert.settings['max_length'])
    shortest = 2 * max(sizes) + 1
    if max_len < shortest:
        raise UsageError(f'{max_len} tokens leave no room for text: at least {shortest}')
    lower = choose_casing(location, vocab, lower)
    model = add_head(bert, labels, contexts, dtype, weights)
    return Predictor(
        labels,
        is_multilabel,
        columns,
        sizes,
        *(model, vocab, lower, max_len, batch_size, contexts),
    )


def add_head(bert, labels, contexts, dtype, weights=None, theirs=None):
    """Put a head on a BERT, to make a model that is ready to be called.

    Parameters
    ----------
    bert : gluonnlp.model.BERTModel
    labels : sequence of str or None
        In the order of the class ids; None in regression.
    contexts : list of mxnet.Context
    dtype : str
        See :func:`bert.model.build.cast`.
    weights : bert.checkpoints.contents.Weights, optional
        Those of a fine-tuned model, to set all parameters; otherwise the head is new, and the
        others stay as they are.
    theirs : sequence of str, optional
        The labels of these weights, if they may be in another order.

    Returns
    -------
    gluonnlp.model.BERTClassifier or bert.model.build.BERTRegression
    """
    model = build_head(bert, None if labels is None else len(labels), contexts)
    if weights:
        set_finetuned(model, weights, theirs, labels)
    cast(model, dtype)
    model.hybridize(static_alloc=True)
    return model


def read_columns(flags):
    """Return the columns with the text, and how many a row may have.

    Parameters
    ----------
    flags : dict
        Those that the model remembers.

    Returns
    -------
    tuple of str, tuple of int
        See :class:`Predictor`.
    """
    task_name, columns = flags.get('task_name'), tuple(flags.get('text_columns') or ())
    if task_name:
        return TEXT_COLUMNS, (2 if ALL_TASKS[glue_name(task_name)].has_pairs else 1,)
    if len(columns) in (1, 2):
        return columns, (len(columns),)
    return TEXT_COLUMNS, (1, 2)
