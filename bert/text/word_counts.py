"""Count the words of text files as a tokenizer sees them, in memory that the text does not fill."""

from collections import Counter
from itertools import groupby
from typing import NamedTuple

from bert.system.errors import ToolkitError
from bert.text.lines import MARK
from bert.text.tokenizer import MAX_CHARACTERS_PER_WORD, build_word_counter, is_exception

# How many bytes are read at a time, and how many, or distinct strings between spaces, are held
# before they are split into words.
CHUNK_BYTES, HELD_BYTES, HELD_STRINGS = 2**20, 2**26, 2**19
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


def count_words(paths, lower, on_read=lambda size: None):
    """Count the words of some files, in memory that does not grow with them.

    Parameters
    ----------
    paths : list of str
        Text files in UTF-8; white space of any kind separates words.
    lower : bool
        Whether to lower-case the text and strip accents.
    on_read : function
        Called with each number of bytes that has been read.

    Returns
    -------
    Counts

    Raises
    ------
    ToolkitError
        If a file is not UTF-8 (the error names the line), or if there are no words.
    """
    count = build_word_counter(lower)
    counts = Counts(Counter(), Counter(), set(), 0, 0, 0)
    strings, held = Counter(), 0
    for path in paths:
        for text, size in read_chunks(path):
            # These end a word in any text; strings between them are split into words once each.
            for space in '\t\n\r':
                text = text.replace(space, ' ')
            strings.update(text.split(' '))
            held += size
            if held >= HELD_BYTES or len(strings) >= HELD_STRINGS:
                counts = _add(counts, strings, count, lower)
                strings, held = Counter(), 0
            on_read(size)
    counts = _add(counts, strings, count, lower)
    if not counts.words:
        names = ', '.join(paths[:3]) + ', ...' * (len(paths) > 3)
        raise ToolkitError(f'{names}: no words to make a vocabulary from')
    return counts


def read_chunks(path):
    """Yield the text of a file in pieces, with the number of bytes that each comes from.

    A piece ends at white space or, in a megabyte without any, between two characters.
    """
    line, rest, is_first = 1, b'', True
    with open(path, 'rb') as file:
        while True:
            data = file.read(CHUNK_BYTES)
            is_last = not data
            data = rest + data
            cut = len(data) if is_last else _find_end(data)
            piece, rest = data[:cut], data[cut:]
            if is_first and piece.startswith(MARK):
                piece = piece[len(MARK) :]
            try:
                text = piece.decode('utf8')
            except UnicodeDecodeError as error:
                line += piece.count(b'\n', 0, error.start)
                raise ToolkitError(f'{path}:{line}: not valid UTF-8') from None
            line += piece.count(b'\n')
            yield text, cut
            if is_last:
                return
            is_first = False


def _find_end(data):
    """Return where to cut bytes: after the last space or line end, else the last character."""
    cut = max(data.rfind(b' '), data.rfind(b'\n')) + 1
    if cut:
        return cut
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] < 0x80:  # ASCII
            break
        if data[-back] >= 0xC0:  # the first byte of a character, which may have more
            return len(data) - back
    return len(data)


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
