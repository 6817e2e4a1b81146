"""BERT's WordPiece tokenizer, from text to token ids.

The rules are those of the original BERT: clean the text, put spaces around Chinese characters,
lower-case and strip accents in uncased models only, split at white space and punctuation, then
split each word greedily into the longest pieces in the vocabulary. Hugging Face's ``tokenizers``
does the work, on all cores for a list of texts. Its character tables are older than Unicode 11 and
it lower-cases letter by letter, so texts with the few characters where this matters are split into
words here, by :func:`split_words`.
"""

import re
import unicodedata
from collections import Counter
from typing import NamedTuple

import numpy as np

# The original's limit; a longer word becomes one unknown token.
MAX_CHARACTERS_PER_WORD = 200

# In hexadecimal, the characters for which the library's rules are not the original's: marks,
# punctuation and format characters of newer scripts, Chinese from U+2B820, private use.
EXCEPTIONS = (
    '61d 7fd 890-89f 8ca-8e2 9fd-9fe a76 afa-aff b55 c04 c3c c77-c84 d00 d3b-d3c d81 eba 166d '
    '1734 180f 1885-1886 1abf-1ace 1b7d-1b7e 1df6-1dfb 2e43-2e5d a82c a8c5 a8ff a9bd e000-f8ff '
    '10d24-10d27 10eab-10ead 10f46-10f59 10f82-10f89 11070-11074 110c2-110cd 111c9-111cf 1123e '
    '1133b 11438-1145e 11660-1166c 116b9 1182f-1183b 11938-11946 119d4-119e2 11a01-11a0a '
    '11a33-11a5b 11a8a-11aa2 11c30-11c45 11c70-11c71 11c92-11cb6 11d31-11d47 11d90-11d97 '
    '11ef3-11ef8 11fff 12ff1-12ff2 13430-13438 16e97-16e9a 16f4f 16fe2-16fe4 1cf00-1cf46 '
    '1e000-1e02a 1e130-1e136 1e2ae 1e2ec-1e2ef 1e944-1e94a 1e95e-1e95f 2b820-2b91f f0000-10fffd'
)
# The capital letter whose lower case depends on its place in the word.
SIGMA = '3a3'
# google-research/bert's CJK blocks.
CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def _compile(ranges):
    """Compile a pattern that finds a character of ranges such as ``61d 890-89f``."""
    characters = re.sub('[0-9a-f]+', lambda code: chr(int(code[0], 16)), ranges)
    return re.compile(f'[{characters.replace(" ", "")}]')


EXCEPTION_WHEN_CASED = _compile(EXCEPTIONS)
EXCEPTION_WHEN_LOWER = _compile(f'{SIGMA} {EXCEPTIONS}')


class Tokenizer(NamedTuple):
    """A WordPiece tokenizer that adds no special tokens to its output."""

    library: object  # tokenizers.Tokenizer, for texts without exceptions
    of_words: object  # tokenizers.Tokenizer, for words separated by spaces
    lower: bool

    def encode_batch(self, texts):
        """Tokenize a list of texts.

        Returns
        -------
        list of tokenizers.Encoding
        """
        texts = list(texts)
        exceptions = [i for i, text in enumerate(texts) if is_exception(text, self.lower)]
        words = [' '.join(split_words(texts[i], self.lower)) for i in exceptions]
        for i in exceptions:
            texts[i] = ''
        encodings = self.library.encode_batch(texts, add_special_tokens=False)
        of_words = self.of_words.encode_batch(words, add_special_tokens=False)
        for i, encoding in zip(exceptions, of_words):
            encodings[i] = encoding
        return encodings


def build_tokenizer(vocab, lower):
    """Build a WordPiece tokenizer.

    Parameters
    ----------
    vocab : Vocab or gluonnlp.vocab.BERTVocab
    lower : bool
        Whether to lower-case the text and strip accents, as uncased models need.

    Returns
    -------
    Tokenizer
    """
    from tokenizers import pre_tokenizers

    of_words = build_library_tokenizer(vocab, lower)
    of_words.normalizer = None
    of_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(build_library_tokenizer(vocab, lower), of_words, lower)


def build_library_tokenizer(vocab, lower):
    """Build a ``tokenizers.Tokenizer``, whose rules are the original's for all but exceptions.

    It can be written to a file for other programs. See :func:`build_tokenizer`.
    """
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(
        models.WordPiece(
            vocab=dict(vocab.token_to_idx),
            unk_token=vocab.unknown_token,
            max_input_chars_per_word=MAX_CHARACTERS_PER_WORD,
        )
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = _library_rules(lower)
    return tokenizer


def _library_rules(lower):
    """Return the library's ``Normalizer`` and ``PreTokenizer``, which split text into words."""
    from tokenizers import normalizers, pre_tokenizers

    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=lower, lowercase=lower
    )
    return normalizer, pre_tokenizers.BertPreTokenizer()


def build_word_counter(lower):
    """Build a function that counts the words and punctuation marks a :class:`Tokenizer` would see.

    Parameters
    ----------
    lower : bool
        See :func:`build_tokenizer`.

    Returns
    -------
    function
        From a str to a collections.Counter.
    """
    normalizer, pre_tokenizer = _library_rules(lower)

    def count(text):
        if is_exception(text, lower):
            return Counter(split_words(text, lower))
        words = Counter()
        for string, times in Counter(normalizer.normalize_str(text).split()).items():
            if string.isalnum():  # most are, and need no further splitting
                words[string] += times
            else:
                for word, _ in pre_tokenizer.pre_tokenize_str(string):
                    words[word] += times
        return words

    return count


def is_exception(text, lower):
    """Return whether the library would split a text by rules that are not the original's."""
    pattern = EXCEPTION_WHEN_LOWER if lower else EXCEPTION_WHEN_CASED
    return not text.isascii() and bool(pattern.search(text))


def tokenize(tokenizer, texts):
    """Tokenize a list of texts.

    Returns
    -------
    list of numpy.ndarray of int32
        The ids of each text, in the order of the texts.
    """
    return [np.array(encoding.ids, dtype=np.int32) for encoding in tokenizer.encode_batch(texts)]


def split_words(text, lower):
    """Split a text into words and punctuation, by the rules of the original's basic tokenizer.

    The character tables are those of the running Python, which has Unicode 12.1 or later.

    Returns
    -------
    list of str

    >>> split_words('ΟΔΟΣ, Ärger', lower=True)
    ['οδος', ',', 'arger']
    """
    words = ''.join(map(_clean, text)).split()
    if lower:
        words = [_strip_marks(word.lower()) for word in words]
    return ''.join(
        f' {character} ' if _is_punctuation(character) else character
        for character in ' '.join(words)
    ).split()


def _clean(character):
    """Return a space for white space, nothing for what is not shown, and spaces around Chinese."""
    category = unicodedata.category(character)
    if character in '\t\n\r' or category == 'Zs':
        return ' '
    if character in '\0\ufffd' or category in ('Cc', 'Cf'):
        return ''
    if any(first <= ord(character) <= last for first, last in CHINESE):
        return f' {character} '
    return character


def _strip_marks(word):
    decomposed = unicodedata.normalize('NFD', word)
    return ''.join(c for c in decomposed if unicodedata.category(c) != 'Mn')


def _is_punctuation(character):
    """Return whether a character is punctuation, or another ASCII character that is no letter."""
    is_ascii = '!' <= character <= '~' and not character.isalnum()
    return is_ascii or unicodedata.category(character).startswith('P')


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
