"""Count the words of a text as a tokenizer sees them, in memory that the text does not fill."""

from collections import Counter
from itertools import groupby
from typing import NamedTuple

from bert.text.tokenizer import MAX_CHARACTERS_PER_WORD, build_word_counter, is_exception

# How many characters, or distinct strings between spaces, are held before they are split.
HELD_CHARACTERS, HELD_STRINGS = 2**26, 2**19
# How many characters the library normalizes at a time; it takes about 50 bytes for each.
SPLIT_CHARACTERS = 2**18
# How many characters the distinct words may have; the library takes about 120 bytes for each.
MOST_CHARACTERS = 2**23


class Counts(NamedTuple):
    """The words of a text."""

    words: Counter  # how often each occurs; of a text with too many, the more frequent ones
    characters: Counter  # how often each occurs, in all words
    joined: set  # the characters that have a neighbour in a word, unlike Chinese and punctuation
    total: int  # how many words there are in all
    too_long: int  # how many have more characters than a tokenizer takes
    left_out: int  # how many are not in ``words`` for want of room


def count_words(texts, lower):
    """Count the words of texts, in memory that does not grow with their number.

    Parameters
    ----------
    texts : iterable of str
        No word goes on in the next text.
    lower : bool
        Whether to lower-case the text and strip accents.

    Returns
    -------
    Counts
    """
    count = build_word_counter(lower)
    counts = Counts(Counter(), Counter(), set(), 0, 0, 0)
    strings, held = Counter(), 0
    for text in texts:
        # These end a word in any text; strings between them are split into words once each.
        for space in '\t\n\r':
            text = text.replace(space, ' ')
        strings.update(text.split(' '))
        held += len(text)
        if held >= HELD_CHARACTERS or len(strings) >= HELD_STRINGS:
            counts = _add(counts, strings, count, lower)
            strings, held = Counter(), 0
    return _add(counts, strings, count, lower)


def _add(counts, strings, count_in, lower):
    """Add the words of counted strings to the others, and return the sums."""
    words, characters, joined, total, too_long, left_out = counts
    del strings['']

    def key(string):
        # One exception would make the whole text that it is joined to slow to split.
        return strings[string], is_exception(string, lower)

    for (repeats, _), group in groupby(sorted(strings, key=key), key):
        for text in _join(group):
            for word, times in count_in(text).items():
                times *= repeats
                total += times
                if len(word) > MAX_CHARACTERS_PER_WORD:
                    too_long += times
                    continue
                words[word] += times
                for character in word:
                    characters[character] += times
                if len(word) > 1:
                    joined.update(word)
    words, dropped = _drop_rare(words)
    return Counts(words, characters, joined, total, too_long, left_out + dropped)


def _join(strings):
    """Yield texts of strings with spaces in between, not much longer than the library should get.

    A string is not cut, as its words may depend on all of it.
    """
    parts, size = [], 0
    for string in strings:
        parts.append(string)
        size += len(string) + 1
        if size >= SPLIT_CHARACTERS:
            yield ' '.join(parts)
            parts, size = [], 0
    if parts:
        yield ' '.join(parts)


def _drop_rare(words):
    """Return the more frequent words, if all are too many, and how often the others occur."""
    if sum(map(len, words)) <= MOST_CHARACTERS:
        return words, 0
    kept, size = Counter(), 0
    # Of equally frequent ones, those that came first, as sorting leaves their order as it is.
    for word in sorted(words, key=words.get, reverse=True):
        size += len(word)
        # Half, or the next words would make the next sorting necessary.
        if size > MOST_CHARACTERS // 2:
            break
        kept[word] = words[word]
    return kept, sum(words.values()) - sum(kept.values())
