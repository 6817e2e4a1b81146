"""Sentences of plain text, as the library sentencex finds them.

Its rules are those of English; of other languages they know the marks that end sentences.
"""

import re
from importlib import metadata

from bert.system.errors import ToolkitError

# At most this many characters are segmented at a time, some thousand tokens. A longer sentence is
# cut, between words if it has any; sentencex 0.6 takes time that grows with their square.
WINDOW = 2**13
# A line that begins with such a mark is an item of a list: a bullet, a number, or (a), b), (iii).
ITEM = re.compile(r'(?:([-*\u2022])|\(?\d{1,3}[.)]|\(?(?:[A-Za-z]|[ivx]{2,4})\)) ')
# Abbreviations that never end a sentence and that sentencex does not know.
UNFINISHED = set('Ms. approx. vol. vols. Vol. Vols. ch. Ch. eq. Eq. eqs. Eqs. figs. Figs.'.split())


def load_segmenter():
    """Return the library's function from a text to its sentences, with the spaces after them."""
    try:
        from sentencex import segment
    except ImportError as error:
        raise ToolkitError(
            f"finding sentences needs another package ({error}): pip install '.[segment]' in the "
            "toolkit's folder"
        ) from None
    return lambda text: segment('en', text)


def segmenter_version():
    """Return the name and the version of the library, on which the sentences depend."""
    load_segmenter()
    return f'sentencex {metadata.version("sentencex")}'


class Paragraphs:
    """The sentences of paragraphs that come line by line.

    They depend on the lines alone, and never more than a line and :data:`WINDOW` characters are
    kept. Any white space becomes one space.
    """

    def __init__(self):
        self._segment = load_segmenter()
        self._text = ''
        self._is_item = False

    def add(self, line):
        """Add a line to the paragraph, or begin another one if it is an item of a list.

        Parameters
        ----------
        line : str
            Not blank.

        Returns
        -------
        list of str
            The sentences that are complete by now, none of them empty.
        """
        # sentencex 1.0.32 panics at spaces outside ASCII.
        line = ' '.join(line.split())
        item = ITEM.match(line)
        sentences = []
        if item and (item[1] or self._is_item or self._is_complete(line)):
            sentences = self.end()
        if not self._text:
            self._is_item = bool(item)
        self._text = f'{self._text} {line}' if self._text else line
        start = 0
        while len(self._text) - start >= WINDOW:
            window = self._text[start : start + WINDOW]
            starts = find_starts(self._segment, window)
            # The last sentence may go on.
            stop = starts.pop() if len(starts) > 1 else window.rfind(' ') + 1 or WINDOW
            sentences += _slices(window, [*starts, stop])
            start += stop
        self._text = self._text[start:]
        return sentences

    def _is_complete(self, line):
        """Return whether a numbered item may follow: "on p. / 12. The rest" has no such item."""
        starts = find_starts(self._segment, f'{self._text} {line}')
        return self._text[-1:] in ':;' or len(self._text) + 1 in starts

    def end(self):
        """End the paragraph, and return its last sentences."""
        text, self._text = self._text, ''
        return _slices(text, [*find_starts(self._segment, text), len(text)])


def find_starts(segment, text):
    """Return where the sentences of a text begin, the first one at 0.

    The mark of a list's item belongs to the sentence after it.
    """
    item = ITEM.match(text)
    first = stop = item.end() if item else 0
    starts = [0]
    for sentence in map(str.strip, segment(text[first:])):
        start = text.index(sentence, stop)
        word = text[max(0, stop - 9) : stop].rpartition(' ')[2].lstrip('(')
        # sentencex takes the point of ".NET" for an end.
        goes_on = stop == first or word in UNFINISHED or text[start - 1] == '.'
        if sentence and not goes_on:
            starts.append(start)
        stop = start + len(sentence)
    return starts


def _slices(text, edges):
    sentences = (text[start:stop].strip() for start, stop in zip(edges, edges[1:]))
    return [sentence for sentence in sentences if sentence]
