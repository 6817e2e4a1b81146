"""Vocabularies of the model zoo alone: their names, and how they are fetched and checked."""

import hashlib
import json

import pytest
from conftest import tiny_vocab, zipped

from bert.checkpoints import zoo
from bert.system.errors import ToolkitError
from bert.text.vocab import SPECIAL_TOKENS, load_vocab


@pytest.mark.parametrize(
    ('name', 'data_set'),
    [
        ('book_corpus_wiki_en_uncased-c3e2bd00.vocab', 'book_corpus_wiki_en_uncased'),
        ('/home/me/.mxnet/models/wiki_cn_cased-ddebd8f3.vocab', 'wiki_cn_cased'),
        ('vocab.txt', None),
        ('other-ddebd8f3.vocab', None),
        ('wiki_cn_cased.vocab', None),
    ],
)
def test_data_set_of_a_file_name(name, data_set):
    assert zoo.zoo_data_set(name) == data_set


def test_zoo_vocabulary_is_fetched_once_and_again_when_damaged(zoo_server, monkeypatch, tmp_path):
    files, requested, _ = zoo_server
    monkeypatch.setenv('MXNET_HOME', str(tmp_path / 'mxnet'))
    tokens = tiny_vocab()
    token_to_idx = {token: i for i, token in enumerate(tokens)}
    content = json.dumps({'token_to_idx': token_to_idx, **SPECIAL_TOKENS}).encode()
    sha1 = hashlib.sha1(content).hexdigest()
    monkeypatch.setitem(zoo.ZOO_SHA1, 'wiki_cn_cased', sha1)
    name = f'wiki_cn_cased-{sha1[:8]}'
    address = f'/gluon/dataset/vocab/{name}.zip'
    files[address] = zipped(f'{name}.vocab', content)
    for _ in range(2):
        path = zoo.zoo_vocab_path('wiki_cn')
        assert path == tmp_path / 'mxnet' / 'models' / f'{name}.vocab'
        assert load_vocab(path).idx_to_token == tokens
    assert requested == [address]
    path.write_bytes(content[:-1])
    assert load_vocab(zoo.zoo_vocab_path('wiki_cn_cased')).idx_to_token == tokens
    assert requested == [address, address]


def test_zoo_vocabulary_that_cannot_be_fetched(zoo_server, monkeypatch, tmp_path):
    files, _, address = zoo_server
    monkeypatch.setenv('MXNET_HOME', str(tmp_path / 'mxnet'))
    name = 'wiki_cn_cased-ddebd8f3'
    path = f'/gluon/dataset/vocab/{name}.zip'
    with pytest.raises(ToolkitError) as caught:
        zoo.zoo_vocab_path('wiki_cn_cased')
    sentence = str(caught.value)
    assert sentence.startswith(
        f'{tmp_path / "mxnet" / "models" / name}.vocab is missing, and {address}{path} '
        'answered 404 Not Found; '
    )
    assert '\n' not in sentence
    for served, expected in [
        (b'<html>', f'{address}{path}: not a zip file with {name}.vocab inside'),
        (zipped('other', b''), f'{address}{path}: not a zip file with {name}.vocab inside'),
        (
            zipped(f'{name}.vocab', b'{}'),
            f'{address}{path}: {name}.vocab in it is not the right file',
        ),
    ]:
        files[path] = served
        with pytest.raises(ToolkitError) as caught:
            zoo.zoo_vocab_path('wiki_cn_cased')
        assert str(caught.value) == expected
    assert list((tmp_path / 'mxnet' / 'models').iterdir()) == []
