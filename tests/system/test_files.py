"""Files that are complete or absent, and the errors for unreadable ones."""

import errno
import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from bert.system import files
from bert.system.errors import ToolkitError


def test_replacing_renames_a_finished_file(tmp_path):
    path = tmp_path / 'file.txt'
    with files.replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert not path.exists()
        temporary.write_text('whole')
    assert path.read_text() == 'whole'
    assert os.listdir(path.parent) == ['file.txt']


def test_replacing_flushes_the_whole_file_before_it_takes_its_place(tmp_path, monkeypatch):
    """After a crash of the machine, a renamed file could otherwise be empty."""
    path, fsync, flushed = tmp_path / 'file.txt', os.fsync, []
    path.write_text('old')

    def record(file):
        fsync(file)
        flushed.append((os.fstat(file).st_ino, os.fstat(file).st_size, path.read_text()))

    monkeypatch.setattr(os, 'fsync', record)
    files.write_text(path, 'a new text')
    assert flushed == [(path.stat().st_ino, len('a new text'), 'old')]


@pytest.mark.parametrize('error', [ToolkitError, OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / 'file.txt'
    path.write_text('old')
    with pytest.raises(error), files.replacing(path) as temporary:
        temporary.write_text('half of the n')
        raise error('a sentence')
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file.txt']


def test_a_block_that_removes_its_file_is_an_error_that_leaves_the_old_one(tmp_path):
    path = tmp_path / 'file.txt'
    path.write_text('old')
    with pytest.raises(ToolkitError), files.replacing(path) as temporary:
        temporary.unlink()
    assert path.read_text() == 'old'


@pytest.mark.parametrize(('umask', 'mode'), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_file_has_the_mode_that_open_would_have_given(tmp_path, umask, mode):
    old = os.umask(umask)
    try:
        files.write_text(tmp_path / 'file', 'text')
        assert os.umask(umask) == umask
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / 'file').stat().st_mode) == mode


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / 'a[1].txt'
    for name in ('a[1].txt', 'other', '.a[1].txt.swp', '.a1.txt.x.bert.tmp', '.a[1].txt.x.tmp'):
        (tmp_path / name).write_text('')
    (tmp_path / '.a[1].txt.x1_y.bert.tmp').write_text('half')
    files.remove_leftovers(path)
    files.remove_leftovers(tmp_path / 'no folder' / 'file')
    assert sorted(os.listdir(tmp_path)) == [
        '.a1.txt.x.bert.tmp',
        '.a[1].txt.swp',
        '.a[1].txt.x.tmp',
        'a[1].txt',
        'other',
    ]


def test_write_text_writes_utf8_as_it_is(tmp_path):
    files.write_text(tmp_path / 'file', 'é 中\n')
    assert (tmp_path / 'file').read_bytes() == b'\xc3\xa9 \xe4\xb8\xad\n'


def test_json_survives_the_round_trip(tmp_path):
    value = {'labels': ['ja', 'nein', 'ö'], 'best': 0.5, 'none': None}
    files.write_json(tmp_path / 'file.json', value)
    assert json.loads((tmp_path / 'file.json').read_bytes()) == value
    assert files.read_json(tmp_path / 'file.json') == value


@pytest.mark.parametrize('text', ['', '{', '[1]', '"text"', '3', 'null', '[' * 100000])
def test_a_file_without_a_json_object_is_named(tmp_path, text):
    path = tmp_path / 'config.json'
    path.write_text(text)
    with pytest.raises(ToolkitError) as caught:
        files.read_json(path)
    assert str(caught.value) == f'{path}: not a JSON object'


def test_invalid_utf8_is_reported_with_file_and_line(tmp_path):
    path = tmp_path / 'text'
    path.write_bytes(b'one\ntwo\nthr\xffee\n')
    with pytest.raises(ToolkitError) as caught:
        files.read_text(path)
    assert str(caught.value) == f'{path}:3: not valid UTF-8'
    # A sequence cut off by the end of the file is in the last line.
    path.write_bytes('one\né'.encode()[:-1])
    with pytest.raises(ToolkitError) as caught:
        files.read_text(path)
    assert str(caught.value) == f'{path}:2: not valid UTF-8'


def test_a_byte_order_mark_is_not_text(tmp_path):
    path = tmp_path / 'text'
    path.write_bytes(b'\xef\xbb\xbfone\r\n')
    assert files.read_text(path) == 'one\r\n'


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    """When the second of the two renames fails, the old folder is put back."""
    target = tmp_path / 'model'
    target.mkdir()
    (target / 'old').write_text('')
    rename = Path.rename

    def fail_for_the_new_one(self, other):
        if self.name.endswith('.new.bert.tmp'):
            raise OSError(5, 'Input/output error')
        return rename(self, other)

    monkeypatch.setattr(Path, 'rename', fail_for_the_new_one)
    with pytest.raises(OSError), files.replacing_folder(target) as temporary:
        (temporary / 'new').write_text('')
    assert [path.name for path in tmp_path.rglob('*')] == ['model', 'old']


# --- disk errors


def test_a_folder_that_vanished_is_not_created_again(tmp_path):
    path = tmp_path / 'gone' / 'file'
    for write in (files.write_text, files.append_line):
        with pytest.raises(ToolkitError) as caught:
            write(path, 'text')
        assert str(caught.value) == f'{path}: could not be written (No such file or directory)'
    assert not path.parent.exists()


def test_a_folder_that_vanishes_meanwhile(tmp_path):
    path = tmp_path / 'folder' / 'file'
    path.parent.mkdir()
    with pytest.raises(ToolkitError) as caught, files.replacing(path) as temporary:
        temporary.write_text('new')
        shutil.rmtree(path.parent)
    assert str(caught.value) == f'{path}: could not be written (No such file or directory)'


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    """The error of write() has no file name."""
    path = tmp_path / 'file'
    path.write_text('old')
    with pytest.raises(ToolkitError) as caught, files.replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(caught.value) == f'{path}: could not be written (No space left on device)'
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['file']
    # An error of another file keeps its name.
    with pytest.raises(FileNotFoundError, match='other'), files.replacing(path):
        (tmp_path / 'other').read_text()


def test_errors_in_a_new_folder_name_the_folder_to_be(tmp_path):
    target = tmp_path / 'model'
    with pytest.raises(ToolkitError) as caught, files.replacing_folder(target) as temporary:
        files.write_text(temporary / 'missing' / 'file', 'text')
    sentence = f'{target}/missing/file: could not be written (No such file or directory)'
    assert str(caught.value) == sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('can_link', [True, False])
def test_copy_file(tmp_path, monkeypatch, can_link):
    """Replacing one of the two leaves the other unchanged."""
    if not can_link:
        monkeypatch.setattr(os, 'link', lambda *_: (_ for _ in ()).throw(OSError('no links')))
    source, copy = tmp_path / 'source', tmp_path / 'copy'
    source.write_text('one')
    copy.write_text('old')
    files.copy_file(source, copy)
    assert copy.read_text() == 'one'
    files.write_text(source, 'two')
    assert copy.read_text() == 'one' and len(os.listdir(tmp_path)) == 2
