"""Text to token ids: BERT's WordPiece tokenizer.

The rules are those of the original BERT: clean the text, put spaces around Chinese characters,
lower-case and strip accents in uncased models only, split at white space and punctuation, then
take the longest pieces of each word that the vocabulary has. Hugging Face's ``tokenizers`` does
the work, a list of texts on all cores.
"""

from itertools import chain, islice

import numpy as np

from bert.vocab import load_sentencepiece

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


def sentencepiece_encoder(path, lower, num_best=0, alpha=1.0, rng=None):
    """A function from texts to ids that works as ``gluonnlp.data.BERTSPTokenizer`` does.

    The text is cleaned and split into words like for WordPiece, and each word into pieces.

    Parameters
    ----------
    path : str or Path
        A sentencepiece model.
    lower : bool
        Lower-case the text and strip accents.
    num_best : int
        Sample the pieces of each word from this number of the best ways to split it, or from all
        if negative; 0 or 1 takes the best.
    alpha : float
        The inverse temperature of the sampling.
    rng : numpy.random.Generator, optional
        For the sampling.

    Returns
    -------
    function
        From a list of str to a list of lists of int.
    """
    from tokenizers import normalizers, pre_tokenizers

    from bert.subwords import UnigramSampler

    processor = load_sentencepiece(path)
    normalizer = normalizers.BertNormalizer(strip_accents=lower, lowercase=lower)
    splitter = pre_tokenizers.BertPreTokenizer()
    if num_best in (0, 1):

        def split(words):
            return processor.encode(words, num_threads=1)
    else:
        sampler = UnigramSampler(processor, num_best, alpha)

        def split(words):
            return sampler.sample(words, rng)

    def encode(texts):
        words = [
            [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
            for text in texts
        ]
        pieces = iter(split(list(chain.from_iterable(words))))
        return [list(chain.from_iterable(islice(pieces, len(text)))) for text in words]

    return encode
