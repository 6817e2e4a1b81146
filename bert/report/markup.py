"""HTML that any text can be put into: cells, tables and lists."""

import re
from html import escape

# Characters that XML does not have, and those that reverse the order of the letters after them.
UNWANTED = re.compile(
    '[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]'
)


def show(text):
    """Return any text without what XML does not have, and what reverses the letters after it."""
    return UNWANTED.sub('\ufffd', str(text))


def clean(text):
    """Return any text as HTML."""
    return escape(show(text))


def mark_flags(html):
    """Mark the flags in HTML, so that no line ends within one."""
    return re.sub(r'--\w+', r'<span class="flag">\g<0></span>', html)


def format_lines(head, lines, first=None, best=()):
    """Return a table of texts.

    Parameters
    ----------
    head : list of str
    lines : list of list of str
    first : str, optional
        The first cell of the line that has a rule above it.
    best : collection of str
        The first cells of the lines to be emphasized.
    """
    header = ''.join(f'<th scope="col">{clean(cell)}</th>' for cell in head)
    body = ''
    for line in lines:
        kind = 'first' if line[0] == first else 'best' if line[0] in best else ''
        cells = ''.join(f'<td>{clean(cell)}</td>' for cell in line)
        body += f'<tr class="{kind}">{cells}</tr>\n' if kind else f'<tr>{cells}</tr>\n'
    return (
        '<div class="wide"><table>\n'
        f'<thead><tr>{header}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>'
    )


def format_matrix(labels, counts):
    """Return a table of counts, each cell shaded by its share of the row.

    Parameters
    ----------
    labels : sequence of str
    counts : (classes, classes) array
    """
    header = ''.join(f'<th scope="col">{clean(label)}</th>' for label in labels)
    lines = []
    for label, row in zip(labels, counts):
        shares = row / max(row.sum(), 1)
        cells = ''.join(
            f'<td style="--share: {share:.2f}">{format_count(count)}<small>{share:.0%}</small></td>'
            for count, share in zip(row, shares)
        )
        lines.append(f'<tr><th scope="row">{clean(label)}</th>{cells}</tr>\n')
    return (
        '<div class="wide"><table class="matrix"><thead><tr><th scope="col">label</th>'
        f'{header}</tr></thead>\n<tbody>{"".join(lines)}</tbody></table></div>'
    )


def format_count(count):
    """Return a mean number of rows as text, with a decimal only if it is not a whole number.

    >>> format_count(1412.0), format_count(7 / 3)
    ('1,412', '2.3')
    """
    return f'{count:,.0f}' if count == round(count) else f'{count:,.1f}'


def format_pairs(pairs):
    """Return names and their values as a list; the values may be HTML of :func:`timed`."""
    items = ''.join(f'<dt>{clean(name)}</dt><dd>{value}</dd>\n' for name, value in pairs)
    return f'<dl>\n{items}</dl>'


def timed(text):
    """Mark text that differs from one run to the next with the same flags, such as its seconds."""
    return f'<time>{clean(text)}</time>'
