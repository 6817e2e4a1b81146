"""BERT's WordPiece tokenizer, from text to token ids.

The rules are those of the original BERT: clean the text, put spaces around Chinese characters,
lower-case and strip accents in uncased models only, split at white space and punctuation, then
split each word greedily into the longest pieces in the vocabulary. Hugging Face's ``tokenizers``
does the work, on all cores for a list of texts.
"""

import numpy as np

# The original's limit; a longer word becomes one unknown token.
MAX_CHARACTERS_PER_WORD = 200


def build_tokenizer(vocab, lower):
    """Build a WordPiece tokenizer that adds no special tokens to its output.

    Parameters
    ----------
    vocab : Vocab or gluonnlp.vocab.BERTVocab
    lower : bool
        Whether to lower-case the text and strip accents, as uncased models need.

    Returns
    -------
    tokenizers.Tokenizer
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordPiece(
            vocab=dict(vocab.token_to_idx),
            unk_token=vocab.unknown_token,
            max_input_chars_per_word=MAX_CHARACTERS_PER_WORD,
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=lower, lowercase=lower
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def tokenize(tokenizer, texts):
    """Tokenize a list of texts.

    Returns
    -------
    list of numpy.ndarray of int32
        The ids of each text, in the order of the texts.
    """
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]


def find_distinct(words):
    """Find the distinct words, so that each needs to be encoded only once.

    Returns
    -------
    distinct : list of str
        In the order of their first occurrences.
    index : numpy.ndarray of int64, (len(words),)
        ``distinct[index[i]]`` is ``words[i]``.
    """
    distinct = list(dict.fromkeys(words))
    number = dict(zip(distinct, range(len(distinct))))
    return distinct, np.fromiter(map(number.__getitem__, words), np.int64, len(words))
