"""A row of texts as the inputs of BERT, for a user's own program: what ``bert.gluon`` gives.

The whole sets that the scripts encode go the same way, through :mod:`bert.text.encoding`.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np

from bert.system.errors import UsageError
from bert.text.encoding import encode, pad_batch
from bert.text.tokenizer import build_tokenizer


class BERTTokenizer:
    """The WordPiece tokenizer of :mod:`bert.text.tokenizer`, as a function.

    Parameters
    ----------
    vocab : gluonnlp.vocab.BERTVocab
    lower : bool
        Whether to lower-case the text and strip accents, as uncased models need.
    """

    def __init__(self, vocab, lower=True):
        self.vocab = vocab
        self.encode_batch = build_tokenizer(vocab, lower).encode_batch

    def __call__(self, sample):
        """Split a text into a list of tokens."""
        return self.encode_batch([sample])[0].tokens

    def convert_tokens_to_ids(self, tokens):
        """Return the ids of a list of tokens."""
        return self.vocab.to_indices(tokens)


class BERTSentenceTransform:
    """Turn one text, or a pair, into the inputs of BERT.

    Parameters
    ----------
    tokenizer : BERTTokenizer, gluonnlp.data.BERTTokenizer or gluonnlp.data.BERTSPTokenizer
    max_seq_length : int
        The maximum number of tokens in a row, including [CLS] and [SEP].
    vocab : gluonnlp.vocab.BERTVocab, optional
        Defaults to the tokenizer's.
    pad : bool
        Whether to pad each row to ``max_seq_length``.
    pair : bool
        Whether rows have two texts.
    """

    def __init__(self, tokenizer, max_seq_length, vocab=None, pad=True, pair=True):
        self.vocab = vocab or tokenizer.vocab
        self.max_seq_length = max_seq_length
        self.pad = pad
        self.count = 2 if pair else 1
        self._tokenizer = tokenizer
        if not hasattr(tokenizer, 'encode_batch'):
            self._tokenizer = SimpleNamespace(encode_batch=partial(_encode_batch, tokenizer))

    def __call__(self, line):
        """Encode a row of one or two texts.

        Returns
        -------
        (L,) int32 ids, int32 valid length, (L,) int32 token types
        """
        if len(line) != self.count:
            raise UsageError(f'a row has {len(line)} texts, but the transform needs {self.count}')
        encoded = encode([tuple(line)], self._tokenizer, self.vocab, self.max_seq_length)
        ids, token_types, lengths = (array[0] for array in pad_batch(encoded, np.array([0])))
        if self.pad:
            missing = (0, self.max_seq_length - len(ids))
            ids = np.pad(ids, missing, constant_values=encoded.padding)
            token_types = np.pad(token_types, missing)
        return ids, np.array(lengths, dtype=np.int32), token_types


def _encode_batch(tokenizer, texts):
    """Do what :meth:`bert.text.tokenizer.Tokenizer.encode_batch` does with one of GluonNLP's."""
    return [
        SimpleNamespace(ids=tokenizer.convert_tokens_to_ids(tokenizer(sample))) for sample in texts
    ]


class BERTDatasetTransform:
    """Turn a row of a data set, texts and a label, into the inputs of BERT and an array.

    Parameters
    ----------
    tokenizer, max_seq_length, vocab, pad, pair
        See :class:`BERTSentenceTransform`.
    class_labels : sequence of str, optional
        In the order of the class ids; without them the label is a number.
    label_alias : dict of str to str, optional
        Other names of labels.
    has_label : bool
        Whether rows end with a label; those of test sets do not.
    """

    def __init__(
        self,
        tokenizer,
        max_seq_length,
        vocab=None,
        class_labels=None,
        label_alias=None,
        pad=True,
        pair=True,
        has_label=True,
    ):
        self.has_label = has_label
        self.sentence_transform = BERTSentenceTransform(
            tokenizer, max_seq_length, vocab, pad=pad, pair=pair
        )
        self.label_dtype = 'int32' if class_labels else 'float32'
        self.ids = {label: i for i, label in enumerate(class_labels or ())}
        for alias, label in (label_alias or {}).items():
            self.ids[alias] = self.ids[label]

    def __call__(self, *line):
        """Encode a row, given as one sequence or, by ``Dataset.transform``, cell by cell.

        Returns
        -------
        (L,) int32 ids, int32 valid length, (L,) int32 token types[, (1,) label]
            The label is int32 for a class and float32 for a number.
        """
        if len(line) == 1 and not isinstance(line[0], str):
            (line,) = line
        if not self.has_label:
            return self.sentence_transform(line)
        *texts, label = line
        if self.ids:
            if label not in self.ids:
                raise UsageError(f'the label {label!r} is not one of {", ".join(self.ids)}')
            label = self.ids[label]
        return (*self.sentence_transform(texts), np.array([label], dtype=self.label_dtype))
