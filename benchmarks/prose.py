#!/usr/bin/env python3
"""Collect prose to pre-train a BERT on: 65 MB of English from Debian packages, or text of your own.

The packages, those of Debian 12, are fetched with apt-get download into DIR/packages and read
without root; those that apt-get cannot find are left out. Most markup is removed, and most
paragraphs that do not consist of English sentences, such as code and tables, are dropped. Text of
your own is taken as it is. A repeated paragraph is kept only where it comes first. DIR/train.txt
and DIR/held_out.txt, which has one document in a hundred, have a paragraph on each line and a
blank line after each document, for create_pretraining_data.py --segment.
"""

import gzip
import hashlib
import logging
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bert.cli.console import progress, start_logging
from bert.cli.flags import Parser
from bert.cli.program import run
from bert.pretraining.files import find_files
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import read_text, write_text

# One document of this many, but at least one, is held out, never to be trained on.
HELD_OUT_EVERY = 100
SEED = 0
# What a model of a few million parameters needs, in bytes: with less, it learns the text by heart.
ENOUGH = 40_000_000
# Text files without markup are divided into documents of about this many bytes.
DOCUMENT_BYTES = 8192
# Entries of a dictionary are one sentence or two: this many make a document.
ENTRIES_PER_DOCUMENT = 20
# HTML elements that hold no prose.
SKIPPED = frozenset('script style head nav header footer pre table figure form svg math'.split())
# HTML elements that stand within a paragraph.
INLINE = frozenset(
    'a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark q s samp '
    'small span strong sub sup time tt u var wbr'.split()
)
# Classes of elements that hold no prose, in the packages below.
SKIPPED_CLASSES = frozenset(
    'footer headerlink highlight navfooter navheader programlisting related sphinxsidebar'.split()
)
SPACE = re.compile(r'\s+')
# What is no letter, digit, white space or common punctuation.
ODD = re.compile(r"[^A-Za-z0-9\s.,;:!?'\"()\u2018\u2019\u201c\u201d\u2013\u2014-]")
WORD = re.compile(r'[A-Za-z]{2,}')
SENTENCE_END = re.compile(r'[.!?]["\')\u2019\u201d]*$')
# What precedes a definition: its number, its letter, its fields.
ENTRY_START = re.compile(r'\s*(\d+\.|\([a-z]\))?\s*((\([A-Z][^)]*\)|<[^>]*>)\s*)*')
FEWEST_WORDS = 8
LARGEST_ODD_SHARE = 0.03


class Package(NamedTuple):
    """A Debian package, which of its files hold prose, and the function that reads one.

    ``files`` is a pattern in which ``*`` stands for any text, slashes included. The function gets
    the bytes of a file, and yields documents: lists of what may be paragraphs.
    """

    name: str
    files: str
    read: object


def read_html(data):
    """Yield one document: the paragraphs of a page."""
    from lxml import etree, html

    try:
        tree = html.fromstring(data)
    except (etree.ParserError, ValueError):
        return
    blocks, parts = [], []
    skipped = 0
    for event, element in etree.iterwalk(tree, events=('start', 'end', 'comment', 'pi')):
        is_element = isinstance(element.tag, str)
        starts = event == 'start'
        if is_element and event in ('start', 'end'):
            if element.tag not in INLINE and not skipped:
                blocks.append(''.join(parts))
                parts.clear()
            if is_skipped(element):
                skipped += 1 if starts else -1
            if starts and element.text and not skipped:
                parts.append(element.text)
        if not starts and element.tail and not skipped:
            parts.append(element.tail)
    blocks.append(''.join(parts))
    yield blocks


def is_skipped(element):
    """Return whether an HTML element holds no prose."""
    return element.tag in SKIPPED or not SKIPPED_CLASSES.isdisjoint(
        element.get('class', '').split()
    )


def read_pod(data):
    """Yield one document: the paragraphs of Perl's documentation, without formatting codes."""
    text = data.decode('utf8', 'replace')
    blocks = re.split(r'\n\s*\n', text)
    plain = [block for block in blocks if not block.startswith(('=', ' ', '\t'))]
    yield list(map(without_codes, plain))


def without_codes(text):
    """Return a paragraph of Perl's documentation without formatting codes, entries of an index too.

    A code is written X<...>, or X<< ... >> if there are such signs in its text.
    """
    text = re.sub(r'[A-Z]<<+\s+(.*?)\s+>>+', r'\1', text, flags=re.S)
    for _ in range(3):  # codes within codes
        text = re.sub(r'[XZ]<[^<>]*>', '', text)
        text = re.sub(r'L</"?([^<>|"]*)"?>', r'\1', text)
        text = re.sub(r'[A-Z]<([^<>|]*)(?:\|[^<>]*)?>', r'\1', text)
    return text


def read_help(data):
    """Yield one document: the paragraphs of Vim's help, which is plain text within one <pre>."""
    from lxml import html

    text = html.fromstring(data).text_content()
    yield [block for block in re.split(r'\n\s*\n', text) if not re.search(r'^\t\t|~$', block, re.M)]


def read_dictionary(data):
    """Yield entries, several to a document, so that a document has more than one sentence."""
    text = gzip.decompress(data).decode('utf8', 'replace')
    for _ in range(3):  # sources, and etymology with its brackets within brackets
        text = re.sub(r'\[(?:(?!\n\s*\n)[^][])*\]', '', text)
    text = re.sub(r'[{}]|--[A-Z][\w. ]*$', '', text, flags=re.M)
    entries = re.split(r'\n(?=\S)', text)
    for start in range(0, len(entries), ENTRIES_PER_DOCUMENT):
        blocks = []
        for entry in entries[start : start + ENTRIES_PER_DOCUMENT]:
            body = entry.partition('\n')[2]
            for block in re.split(r'\n\s*\n', body):
                blocks.append(block[ENTRY_START.match(block).end() :])
        yield blocks


PACKAGES = (
    Package('anarchism', 'usr/share/doc/anarchism/html/*.html', read_html),
    Package('apache2-doc', 'usr/share/doc/apache2-doc/manual/en/*.html', read_html),
    Package('debian-handbook', 'usr/share/doc/debian-handbook/html/en-US/*.html', read_html),
    Package('debian-reference-en', 'usr/share/debian-reference/*.en.html', read_html),
    Package('dict-foldoc', 'usr/share/dictd/foldoc.dict.dz', read_dictionary),
    Package('dict-gcide', 'usr/share/dictd/gcide.dict.dz', read_dictionary),
    Package('gimp-help-en', 'usr/share/gimp/2.0/help/en/*.html', read_html),
    Package('git-doc', 'usr/share/doc/git-doc/*.html', read_html),
    Package('libreoffice-help-en-us', 'usr/share/libreoffice/help/en-US/text/*.html', read_html),
    Package('linux-doc-6.1', 'usr/share/doc/linux-doc-6.1/html/*.html', read_html),
    Package('perl-doc', '*.pod', read_pod),
    Package('postgresql-doc-15', 'usr/share/doc/postgresql-doc-15/html/*.html', read_html),
    Package('python3.11-doc', 'usr/share/doc/python3.11/html/*.html', read_html),
    Package('vim-doc', 'usr/share/doc/vim/html/*.html', read_help),
)


def parse_args(argv=None):
    """Parse the flags."""
    parser = Parser(__doc__)
    parser.add_argument(
        '--output_dir', required=True, metavar='DIR', help='for train.txt and held_out.txt'
    )
    parser.add_argument(
        '--text',
        metavar='GLOBS',
        help='text files instead of the packages, comma-separated globs; blank lines separate '
        'paragraphs',
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Collect the text.

    Returns
    -------
    dict of str to int
        ``train`` and ``held_out``: their bytes.
    """
    args = parse_args(argv)
    start_logging()
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    documents = read_files(find_files(args.text)) if args.text else read_packages(folder)
    sizes = write(documents, folder)
    logging.info('%d bytes in %s, %d held out', sizes['train'], folder, sizes['held_out'])
    if sizes['train'] < ENOUGH:
        logging.warning(
            '%d bytes are too few to train well on: %d would be better', sizes['train'], ENOUGH
        )
    return sizes


def read_packages(folder):
    """Yield the documents of all packages; if one cannot be fetched, a warning says so."""
    if not shutil.which('apt-get'):
        raise UsageError('apt-get, which fetches the text, is missing: name files with --text')
    try:
        import lxml  # noqa: F401
    except ImportError:
        raise ToolkitError(
            'reading the pages of the packages needs lxml: pip install lxml'
        ) from None
    with progress(len(PACKAGES), 'packages', 'package') as bar:
        for package in PACKAGES:
            path = fetch(package.name, folder / 'packages')
            if path:
                documents = bytes_read = 0
                for data in read_archive(path, package.files):
                    bytes_read += len(data)
                    for blocks in package.read(data):
                        documents += 1
                        yield [block for block in map(tidy, blocks) if is_prose(block)]
                logging.info('%s: %d documents of %d bytes', path, documents, bytes_read)
            bar.update()


def fetch(name, folder):
    """Fetch a package, unless it is there.

    Returns
    -------
    Path or None
    """
    folder.mkdir(exist_ok=True)
    command = ['apt-get', 'download', '-qq', name]
    if not list(folder.glob(f'{name}_*.deb')):
        with tempfile.TemporaryDirectory(dir=folder) as new:
            result = subprocess.run(command, cwd=new, capture_output=True, text=True)
            if result.returncode:
                reason = (result.stderr.strip() or f'status {result.returncode}').splitlines()[-1]
                logging.warning('%s is left out: %s', name, reason)
                return None
            for path in Path(new).iterdir():
                path.rename(folder / path.name)
    return min(folder.glob(f'{name}_*.deb'))


def read_archive(path, pattern):
    """Yield the contents of some files of a package, without unpacking anything to the disk.

    Folders of translations, as the documentation of Linux has them, are left out.
    """
    command = ['dpkg-deb', '--fsys-tarfile', str(path)]
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode='r|') as archive:
                for member in archive:
                    if not member.isfile() or '/translations/' in member.name:
                        continue
                    if fnmatch(member.name, f'./{pattern}'):
                        yield archive.extractfile(member).read()
            process.stdout.read()  # the padding, which dpkg-deb must be able to write
            is_whole = process.wait() == 0
        except tarfile.TarError:
            is_whole = False
    if not is_whole:
        raise ToolkitError(f'{path}: damaged; delete it to fetch it again')


def read_files(paths):
    """Yield documents of about :data:`DOCUMENT_BYTES` from text files."""
    for path in paths:
        blocks, size = [], 0
        for block in re.split(r'\n\s*\n', read_text(path)):
            blocks.append(tidy(block))
            size += len(block)
            if size >= DOCUMENT_BYTES:
                yield blocks
                blocks, size = [], 0
        yield blocks


def tidy(block):
    """Return a block of text on one line."""
    return SPACE.sub(' ', block).strip()


def is_prose(paragraph):
    """Return whether a paragraph consists of English sentences."""
    return (
        len(WORD.findall(paragraph)) >= FEWEST_WORDS
        and SENTENCE_END.search(paragraph) is not None
        and len(ODD.findall(paragraph)) <= LARGEST_ODD_SHARE * len(paragraph)
    )


def write(documents, folder):
    """Write the documents in random order, each paragraph only where it came first.

    The order matters: what a shard is made from should be like the rest of the text.

    Returns
    -------
    dict of str to int
        See :func:`main`.

    Raises
    ------
    ToolkitError
        If there are fewer than two documents.
    """
    seen, texts = set(), []
    for blocks in documents:
        new = []
        for block in filter(None, blocks):
            digest = hashlib.blake2b(block.lower().encode(), digest_size=8).digest()
            if digest not in seen:
                seen.add(digest)
                new.append(block)
        if new:
            texts.append('\n'.join(new) + '\n\n')
    if len(texts) < 2:
        raise ToolkitError(
            'too little text: there must be at least one document to train on and one to hold out'
        )
    random.Random(SEED).shuffle(texts)
    count = max(1, len(texts) // HELD_OUT_EVERY)
    sizes = {}
    for name, part in (('held_out', texts[:count]), ('train', texts[count:])):
        write_text(folder / f'{name}.txt', ''.join(part))
        sizes[name] = (folder / f'{name}.txt').stat().st_size
    return sizes


if __name__ == '__main__':
    run(main)
