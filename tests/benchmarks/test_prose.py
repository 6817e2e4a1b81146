"""benchmarks/prose.py: what it takes from pages and dictionaries, and how it divides it."""

import gzip
import shutil
import subprocess

import pytest
from conftest import failure

pytest.importorskip('lxml')
import prose

PAGE = b"""<!DOCTYPE html><html><head><title>A page about nothing at all, for a test.</title>
<style>p { color: red }</style></head><body>
<nav><p>Home and the next page and the one before it, all links.</p></nav>
<h1>A heading without any end</h1>
<p>The <code>open</code> function of the <em>module</em> opens a
file, and returns it to the caller.</p>
<pre>print("This is a program, and not a sentence of the page at all.")</pre>
<ul><li>An item of a list is a paragraph, if it is a sentence of some length.</li>
<li>Short one.</li></ul>
<table><tr><td>A cell of a table with more than eight words in it, though.</td></tr></table>
<p class="footer">The footer says who wrote this page and when that was.</p>
<!-- A comment on the page is no text that anyone should ever see. -->
<p>a = b[i] + c{j} * d|k| @ e[[f]] == g++ ** &amp;h &lt;&lt; i &gt;&gt; j % k ~ l ^ m or so.</p>
<p>The last paragraph has no end tag, and is there nevertheless, is it not?
</body></html>"""


def test_a_page():
    (blocks,) = prose.read_html(PAGE)
    assert [text for text in map(prose.tidy, blocks) if prose.is_prose(text)] == [
        'The open function of the module opens a file, and returns it to the caller.',
        'An item of a list is a paragraph, if it is a sentence of some length.',
        'The last paragraph has no end tag, and is there nevertheless, is it not?',
    ]


def test_no_page():
    assert list(prose.read_html(b'')) == []


def test_a_pod():
    pod = b"""=head1 NAME

First words of L<perlfunc/open> and B<< I<bold> >> text.

  code, indented

=over 4

Call C<open> or L<the manual|perlfunc>.

X<index entry>See L</Notes>, S<C<const char *>> and L<C<$x>|perlvar/$x>, not C<< $a->$b >>X<arrow>.
"""
    (blocks,) = prose.read_pod(pod)
    assert list(map(prose.tidy, blocks)) == [
        'First words of perlfunc/open and bold text.',
        'Call open or the manual.',
        'See Notes, const char * and $x, not $a->$b.',
    ]


def test_a_dictionary():
    text = """Bark \\Bark\\, n. [OE. barke.]
   1. (Bot.) The exterior covering of the trunk and branches of a
      tree. --Shak.
      [1913 Webster]

   2. Specifically, {Peruvian} bark.

Barm \\Barm\\, n. [OE. berme, AS. beorma; akin to D. b[=a]rm, L.
   f[e^]rmentum yeast. [root]93.]
   Foam rising upon beer.
"""
    (blocks,) = prose.read_dictionary(gzip.compress(text.encode()))
    assert [block for block in map(prose.tidy, blocks) if block] == [
        'The exterior covering of the trunk and branches of a tree.',
        'Specifically, Peruvian bark.',
        'Foam rising upon beer.',
    ]


def test_documents(tmp_path):
    """Each paragraph is there once; one document of HELD_OUT_EVERY is held out; none is empty."""
    documents = [[f'Number {i}.', 'The same everywhere.', ''] for i in range(prose.HELD_OUT_EVERY)]
    sizes = prose.write([[], *documents, documents[0]], tmp_path)
    train, held_out = ((tmp_path / f'{name}.txt').read_text() for name in ('train', 'held_out'))
    assert held_out.count('\n\n') == 1 and train.count('\n\n') == prose.HELD_OUT_EVERY - 1
    texts = (train + held_out).split('\n\n')[:-1]
    assert texts[:99] != sorted(texts[:99])
    assert sorted(text.partition('\n')[0] for text in texts) == sorted(
        f'Number {i}.' for i in range(prose.HELD_OUT_EVERY)
    )
    assert [text for text in texts if 'same' in text] == ['Number 0.\nThe same everywhere.']
    assert sizes == {'train': len(train), 'held_out': len(held_out)}


def test_files_of_ones_own(tmp_path, monkeypatch):
    """Paragraphs are put on a line each; a long file becomes several documents."""
    monkeypatch.setattr(prose, 'DOCUMENT_BYTES', 20)
    (tmp_path / 'a b.txt').write_bytes(
        '\ufeffOne is\r\nwrapped.\r\n\r\nTwo is not.\n\n\nThree.\n'.encode()
    )
    prose.main(['--text', f'{tmp_path}/*.txt', '--output_dir', f'{tmp_path}/out'])
    documents = [(tmp_path / 'out' / f'{name}.txt').read_text() for name in ('train', 'held_out')]
    assert sorted(documents) == ['One is wrapped.\nTwo is not.\n\n', 'Three.\n\n']


def test_too_little_text(tmp_path):
    """A file without text would count as done, and what follows would fail."""
    (tmp_path / 'a.txt').write_text('The only paragraph.\n\nThe only paragraph.\n')
    argv = ['--text', f'{tmp_path}/a.txt', '--output_dir', f'{tmp_path}/out']
    assert failure(prose.main, argv) == (
        'too little text: there must be at least one document to train on and one to hold out'
    )
    assert not list((tmp_path / 'out').iterdir())


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """An apt-get that knows one package, and says so of others."""
    if not shutil.which('dpkg-deb'):
        pytest.skip('dpkg-deb is not there')
    tree = tmp_path / 'tree'
    for path, content in {
        'DEBIAN/control': 'Package: anarchism\nVersion: 1:2\nArchitecture: all\n'
        'Maintainer: A <a@b.invalid>\nDescription: test\n',
        'usr/share/doc/anarchism/html/a.html': PAGE.decode(),
        'usr/share/doc/anarchism/html/c.html': '<p>This file has only one paragraph, this one.',
        'usr/share/doc/anarchism/html/translations/it.html': '<p>Questo file non si legge.',
        'usr/share/doc/anarchism/other/b.html': '<p>This file is not one of those to be read.',
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    made = tmp_path / 'anarchism_1%3a2_all.deb'
    subprocess.run(['dpkg-deb', '--build', tree, made], check=True, capture_output=True)
    (tmp_path / 'bin').mkdir()
    script = tmp_path / 'bin' / 'apt-get'
    script.write_text(
        f'#!/bin/sh\n[ "$3" = anarchism ] && cp {made} . && exit\n'
        'echo "E: Unable to locate package $3" >&2; exit 100\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'), prepend=':')
    return made


def test_packages(tmp_path, apt, capsys):
    """What is there is read, a package that is not is named; what was fetched stays."""
    out = tmp_path / 'out'
    for _ in range(2):
        prose.main(['--output_dir', str(out)])
        text = (out / 'train.txt').read_text() + (out / 'held_out.txt').read_text()
        assert text.count('\n') == 4 + 2
        said = capsys.readouterr().err
        assert 'vim-doc is left out: E: Unable to locate package vim-doc' in said
        apt.unlink(missing_ok=True)
    assert 'not one of those' not in text
    assert f'{len((out / "train.txt").read_bytes())} bytes are too few' in said


def test_no_package_at_all(tmp_path, apt, capsys):
    """As without a network: an earlier text stays as it is."""
    apt.unlink()
    (tmp_path / 'train.txt').write_text('earlier')
    error = failure(prose.main, ['--output_dir', str(tmp_path)])
    assert error.startswith('too little text')
    assert capsys.readouterr().err.count('is left out') == len(prose.PACKAGES)
    assert (tmp_path / 'train.txt').read_text() == 'earlier'


def test_a_damaged_package(tmp_path, apt):
    folder = tmp_path / 'packages'
    folder.mkdir()
    data = apt.read_bytes()
    for size in (0, 50, len(data) // 2, len(data) - 100):
        (folder / apt.name).write_bytes(data[:size])
        with pytest.raises(prose.ToolkitError, match='anarchism_1%3a2_all.deb: damaged'):
            list(prose.read_archive(folder / apt.name, '*'))


def test_a_package_that_ends_between_two_files(tmp_path, apt):
    """The archive looks whole, and dpkg-deb alone knows that it is not."""
    dpkg_deb = shutil.which('dpkg-deb')
    assert len(list(prose.read_archive(apt, '*.html'))) == 3  # without the translation
    (tmp_path / 'bin' / 'dpkg-deb').write_text(f'#!/bin/sh\n{dpkg_deb} "$@"\nexit 2\n')
    (tmp_path / 'bin' / 'dpkg-deb').chmod(0o755)
    with pytest.raises(prose.ToolkitError, match='damaged'):
        list(prose.read_archive(apt, '*.html'))


def test_without_apt(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert failure(prose.main, ['--output_dir', str(tmp_path / 'out')]) == (
        'apt-get, which fetches the text, is missing: name files with --text'
    )
