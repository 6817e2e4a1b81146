"""Sentences of plain text, against sentences that were written one by one."""

import random
import sys
import textwrap
from importlib import metadata

import pytest

from bert.system.errors import ToolkitError
from bert.text import sentences
from bert.text.sentences import Paragraphs, segmenter_version

pytest.importorskip('sentencex')
OLD = metadata.version('sentencex').startswith('0.')  # for Python 3.8 and 3.9
WHOLE_WORDS = {'break_on_hyphens': False, 'break_long_words': False}

# One sentence per line, a blank line between paragraphs.
PAGE = """\
Dr. Smith arrived at 5 p.m. on Tuesday.
He had come from Washington, D.C., where it was raining.
Mrs. Jones and Prof. Lee met him at the station, near St. James Street.
The U.S. Army had closed the road.
She moved to the U.S. in 1994.
Many birds, e.g. sparrows and finches, stay all winter.
Others leave, i.e. they fly south.
See Fig. 3 for the map, and No. 5 on the list for the names.
The results are on pp. 12-15 of vol. 2.
Acme Inc. sold its shares to Widget Co. in Jan. 2003.
The case was called Brown vs. Board of Education.
Gen. Grant wrote to Gov. Hill that winter.
Smith et al. found the same in their study.
The match was between Leeds and York, approx. 40 miles apart.

J. R. R. Tolkien wrote long books.
They were read by C.S. Lewis first.
George W. Bush was president then.
E. coli is a bacterium.
The line was drawn by M. Dupont.
It is his best.

The value of pi is about 3.14 in most books.
It cost $1,000.50 in all.
Version 2.0.1 came out on 3.5.2019.
The rate fell by 0.5 percent.
There were 12.
Ten were sold.
In 1999 the tower fell.
1984 is a novel.
It begins at 10.30 a.m. every day.
The door shuts at 6 p.m.
Nobody waits.

Write to jane.doe@example.com for details.
The page is at https://www.example.org/a.b/index.html?q=1.
It moved to www.example.net last year.
The server has the address 192.168.0.1 at home.
Open the file readme.txt first.
He works for Yahoo! in London.
She uses .NET and Node.js at work.

"I am tired," he said.
"Go home. Sleep well," she answered.
"Is it late?" he asked.
"Stop!" cried the guard.
He said, "I will come."
Then he left.
“Where are we?” asked the boy.
“At sea,” said the captain.
She called it ‘a mess.’
No one laughed.
The sign read 'No entry. Keep out.' in red.

Who is there?
It is me!
Come in.
What?!
You heard me.
No!!!
Not again...
Well, perhaps.
I thought … but never mind.
He waited. . . and then he ran.
Is this the end?
Yes.

The house (built in 1900) is old.
It has a garden.
(The garden is small.)
The tower (see Sect. 4.2) fell in 1703.
He left the firm (Smith & Sons Ltd.) in May.
It was proved long ago [12].
Nobody read it.
This was known.[3]
It was forgotten.

The cat (what a beast!) slept.
The train stopped; nobody got off.
There are three: one, two, three.
He was born in St. Petersburg.
His father, Sen. Hill, was not there.
We met on Mt. Everest.
The U.N. voted on it.
It was a U.N. vote.
He earned his Ph.D. in Bonn.
The band played until 3 a.m.
It was loud.
iPhones are telephones.
They ring.
I did it.
It was I.
You saw it.
That is plan B.
Plan A failed.
Is vitamin C. good for you?
The temperature was -5.5 °C in Jan. and Feb. of that year.
Ms. Hall, of 12 Park Ave., Boston, paid.
Mr. and Mrs. Hall paid, too.
Bring paper, pens, etc.
We start at nine.
"""
# What is found instead of some of them.
MISTAKES = [
    ('(The garden is small.)', 'The tower (see Sect. 4.2) fell in 1703.'),
    ('That is plan B.', 'Plan A failed.'),
]


def split(*lines):
    """Return the sentences of one paragraph."""
    paragraphs = Paragraphs()
    return [s for line in lines for s in paragraphs.add(line)] + paragraphs.end()


@pytest.mark.parametrize('width', [40, 72, 10**6])
def test_a_page(width):
    """Wherever its lines are wrapped."""
    expected, found = [], []
    for paragraph in PAGE.strip().split('\n\n'):
        lines = textwrap.wrap(paragraph.replace('\n', ' '), width, **WHOLE_WORDS)
        expected += paragraph.split('\n')
        found += split(*lines)
    if OLD:
        assert len(set(expected) & set(found)) == 73
        return
    for first, second in MISTAKES:
        place = expected.index(first)
        assert expected[place + 1] == second
        expected[place : place + 2] = [f'{first} {second}']
    assert found == expected


def test_items_of_lists():
    """Their marks stay with them; a number at the start of a wrapped line is none of them."""
    assert split('Buy this:', '- red apples', '* pears. They are', 'sweet', '• plums') == [
        'Buy this:',
        '- red apples',
        '* pears.',
        'They are sweet',
        '• plums',
    ]
    assert split('Do it so:', '1. Wait. Then', 'go', '2. Stop', '(3) Sleep') == [
        'Do it so:',
        '1. Wait.',
        'Then go',
        '2. Stop',
        '(3) Sleep',
    ]
    # As a part of the text, "(a)" hides the ends of sentences from sentencex 1.0.32.
    assert split('All:', '(a) a "cap". Then', 'go', 'b) Wait. So') == [
        'All:',
        '(a) a "cap".',
        'Then go',
        'b) Wait.',
        'So',
    ]
    assert split('All but', '(iv) were lost.', 'J. B. Hill', '(b. 1900)') == [
        'All but (iv) were lost.',
        'J. B. Hill (b. 1900)',
    ]
    assert split('Do it now.', '12) Wait.', 'Or go') == ['Do it now.', '12) Wait.', 'Or go']
    for page in ('page', 'p.'):
        assert split(f'It was lost on {page}', '12. The rest was found.') == [
            f'It was lost on {page} 12.',
            'The rest was found.',
        ]
    assert split('The value was', '-5 or', '- 6. They fell.') == [
        'The value was -5 or',
        '- 6.',
        'They fell.',
    ]


def test_other_scripts_and_spaces():
    assert split('今天很好。我们走吧！你呢？') == ['今天很好。', '我们走吧！', '你呢？']
    # sentencex 1.0.32 panics at these spaces.
    assert split('So.\u00a0Then B\u2028. No\u3000\tend') == ['So.', 'Then B .', 'No end']


def test_long_paragraphs(monkeypatch):
    """They are cut where sentences end, however they are divided into lines."""
    monkeypatch.setattr(sentences, 'WINDOW', 100)
    rng = random.Random(1)
    text = [
        ' '.join(rng.choice(['Dr. Hill', 'so', 'it', '3.14', 'No. 5']) for _ in range(k)) + ' end.'
        for k in range(1, 12)
    ] * 5
    text = [sentence[0].upper() + sentence[1:] for sentence in text]
    assert max(map(len, text)) < 100 < len(' '.join(text)) / 10
    for width in (30, 200, 10**6):
        assert split(*textwrap.wrap(' '.join(text), width)) == text


def test_text_without_sentence_ends(monkeypatch):
    """It is cut between words, or within a word without end; nothing is kept or lost."""
    monkeypatch.setattr(sentences, 'WINDOW', 50)
    paragraphs = Paragraphs()
    found = [s for _ in range(100) for s in paragraphs.add('some words go on')]
    assert max(map(len, found)) <= 50 and min(map(len, found)) > 40
    found += paragraphs.end()
    assert ' '.join(found) == ' '.join(['some words go on'] * 100)
    assert split('a' * 99 + ' b' * 30) == ['a' * 50, 'a' * 49, 'b ' * 24 + 'b', 'b b b b b']
    assert split('a' * 50 + ' ' + 'b' * 49) == ['a' * 50, 'b' * 49]
    assert split('- ' + 'a' * 60) == ['-', 'a' * 50, 'a' * 10]


def test_nothing_is_lost():
    rng = random.Random(2)
    pieces = 'Mr. U.S. e.g. " ( ) ... 。 “ ” ’ [3] 3.14 .5 - 1. ?!     　 A b. ß. \0 😀. ﻿'
    pieces = [*pieces.split(' '), '\x85', '\u200d', 'http://a.b/c.']
    for _ in range(3000):
        text = ''.join(rng.choice(pieces) + rng.choice(['', ' ']) for _ in range(rng.randrange(30)))
        assert ''.join(''.join(split(text)).split()) == ''.join(text.split())


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sentencex', None)
    for function in (Paragraphs, segmenter_version):
        with pytest.raises(ToolkitError, match=r"another package .*: pip install '\.\[segment\]'"):
            function()
