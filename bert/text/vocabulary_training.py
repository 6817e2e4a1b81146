"""Train a WordPiece vocabulary on counted words.

The tokens are the characters of the text, and then what Hugging Face's ``tokenizers`` makes of
them: it joins, again and again, the pair of neighbours that the text has most often.
"""

import threading
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from bert.text.tokenizer import build_tokenizer
from bert.text.vocab import Vocab

# The special ones, in the order of Google's files without their unused tokens.
FIRST_TOKENS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
# What the text must have this often to become a token.
MIN_FREQUENCY = 2
# Characters beyond ASCII become tokens, the most frequent first, until this share of the text is
# covered and these characters have this share of the tokens.
COVERAGE, SHARE = 0.9999, 0.1
# How many characters of text the library is shown, at about 10 million a second and processor.
MOST_SHOWN = 2**29
# How many words are tokenized at a time, and how often a text for the library has its word.
BATCH = 1000
# Seconds for the library to notice that the program is to end.
GRACE = 1


class Quality(NamedTuple):
    """How a vocabulary splits the words of the text that it was trained on."""

    whole: float  # the share of words that stay whole
    unknown: float  # the share of words that become [UNK]
    tokens_per_word: float


def choose_alphabet(counts, size):
    """Choose the characters that become tokens before any others do.

    All of ASCII that occurs does, then others, the most frequent first, until :data:`COVERAGE` and
    :data:`SHARE` are reached: no fixed number fits both English and Chinese.

    Parameters
    ----------
    counts : bert.text.word_counts.Counts
    size : int
        The most tokens of the vocabulary.

    Returns
    -------
    chosen, others : list of str
        Characters, and those that go on with a word, such as ``##a``, which only characters with
        neighbours do. The others are in the order in which they would be next.
    """
    room, left = size - len(FIRST_TOKENS), SHARE * size
    wanted = COVERAGE * sum(counts.characters.values())
    chosen, others, covered = [], [], 0
    for character in sorted(counts.characters, key=lambda c: (c > '~', -counts.characters[c], c)):
        forms = [character] + [f'##{character}'] * (character in counts.joined)
        if character > '~':
            left -= len(forms)
        is_wanted = covered < wanted or left >= 0 or character <= '~'
        if is_wanted and not others and len(chosen) + len(forms) <= room:
            chosen += forms
            covered += counts.characters[character]
        else:
            others += forms
    return chosen, others


def train_tokens(counts, size):
    """Make the tokens of a vocabulary; the same counts give the same ones in the same order.

    Parameters
    ----------
    counts : bert.text.word_counts.Counts
    size : int
        The most tokens.

    Returns
    -------
    list of str
        The special tokens, the alphabet, and joined pairs, in the order in which they were joined;
        if there is room then, more characters.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    alphabet, others = choose_alphabet(counts, size)
    known = set(alphabet)
    # The library would skip a character without a token, and so join those around it.
    words = {word: count for word, count in counts.words.items() if known.issuperset(word)}
    tokenizer = Tokenizer(models.WordPiece(unk_token='[UNK]'))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # Of pairs that are equally frequent, that of the lower ids is joined first. The library would
    # number the characters that go on with a word as it meets them in a table of words, whose order
    # is another in each process; as special tokens they have their places.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*FIRST_TOKENS, *sorted(alphabet, key=lambda token: (len(token), token))],
        show_progress=False,
    )
    _in_thread(lambda texts: tokenizer.train_from_iterator(texts, trainer), show_words(words))
    ids = tokenizer.get_vocab(with_added_tokens=False)
    tokens = sorted(ids, key=ids.get)
    return tokens + others[: size - len(tokens)]


def show_words(words):
    """Yield texts that have each word as often as it was counted.

    The library takes no counts. Of a text of more than :data:`MOST_SHOWN` characters they are
    scaled down.

    Parameters
    ----------
    words : dict of str to int

    Yields
    ------
    str
        Words, separated by spaces.
    """
    total = sum(len(word) * count for word, count in words.items())
    for word, count in words.items():
        if total > MOST_SHOWN:
            count = (count * MOST_SHOWN + total // 2) // total
        for start in range(0, count, BATCH):
            yield ' '.join([word] * min(BATCH, count - start))


def _in_thread(work, texts):
    """Call ``work(texts)`` in a thread, so that a signal need not wait until it returns."""
    outcome, is_over = Future(), threading.Event()

    def until_over():
        for text in texts:
            if is_over.is_set():
                raise InterruptedError
            yield text

    def call():
        try:
            outcome.set_result(work(until_over()))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        outcome.result()
    finally:
        # Python must not end while the library asks it for another text.
        is_over.set()
        thread.join(GRACE)


def measure(tokens, counts, lower):
    """Measure how a vocabulary splits the words that it was trained on.

    Parameters
    ----------
    tokens : list of str
    counts : bert.text.word_counts.Counts
    lower : bool

    Returns
    -------
    Quality
    """
    vocab = Vocab(tokens)
    tokenizer = build_tokenizer(vocab, lower).of_words
    words = list(counts.words)
    whole, unknown, pieces = 0, counts.too_long, counts.too_long
    for start in range(0, len(words), BATCH):
        batch = words[start : start + BATCH]
        encoding = tokenizer.encode(' '.join(batch), add_special_tokens=False)
        number = np.array(encoding.word_ids)
        times = np.array([counts.words[word] for word in batch])
        lengths = np.bincount(number)
        is_unknown = np.zeros(len(batch), bool)
        is_unknown[number[np.array(encoding.ids) == vocab['[UNK]']]] = True
        whole += int(times[(lengths == 1) & ~is_unknown].sum())
        unknown += int(times[is_unknown].sum())
        pieces += int((times * lengths).sum())
    total = counts.total - counts.left_out
    return Quality(whole / total, unknown / total, pieces / total)
