"""Text to token ids: BERT's WordPiece tokenizer.

The rules are those of the original BERT: clean the text, put spaces around Chinese characters,
lower-case and strip accents in uncased models only, split at white space and punctuation, then
take the longest pieces of each word that the vocabulary has. Hugging Face's ``tokenizers`` does
the work, a list of texts on all cores.
"""

import numpy as np

# The original's limit; a longer word becomes one unknown token.
MAX_CHARACTERS_PER_WORD = 200


def build_tokenizer(vocab, lower):
    """A WordPiece tokenizer without special tokens in its output.

    Parameters
    ----------
    vocab : Vocab or gluonnlp.vocab.BERTVocab
    lower : bool
        Lower-case the text and strip accents, as uncased models want it.

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
    """Ids of each text.

    Returns
    -------
    list of numpy.ndarray of int32
        One array a text, in the order given.
    """
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
