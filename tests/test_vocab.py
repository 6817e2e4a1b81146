"""Vocabulary files: both shapes of Gluon's JSON, vocab.txt, and what is wrong with others."""

import http.server
import io
import json
import threading
import zipfile

import pytest

from bert.checkpoints import zoo
from bert.system.errors import ToolkitError
from bert.text import vocab
from bert.text.sentencepiece import load_sentencepiece_vocab
from bert.text.vocab import Vocab, has_capitals, load_vocab

SPECIALS = ['[UNK]', '[PAD]', '[CLS]', '[SEP]', '[MASK]']
NAMES = {
    'unknown_token': '[UNK]',
    'padding_token': '[PAD]',
    'cls_token': '[CLS]',
    'sep_token': '[SEP]',
    'mask_token': '[MASK]',
}


def write(path, content):
    data = content if isinstance(content, bytes) else content.encode('utf8')
    path.write_bytes(data)
    return path


def old_shape(tokens):
    """The JSON of December 2018: special tokens at the top."""
    return {
        'idx_to_token': tokens,
        'token_to_idx': {token: i for i, token in enumerate(tokens)},
        'reserved_tokens': [token for token in SPECIALS if token != '[UNK]'],
        'bos_token': None,
        'eos_token': None,
        **NAMES,
    }


def new_shape(tokens):
    """Today's JSON: special tokens in a table of their own."""
    return {
        'unknown_token': '[UNK]',
        'idx_to_token': tokens,
        'token_to_idx': {token: i for i, token in enumerate(tokens)},
        'reserved_tokens': [token for token in SPECIALS if token != '[UNK]'],
        'identifiers_to_tokens': {k: v for k, v in NAMES.items() if k != 'unknown_token'},
    }


TOKENS = [*SPECIALS, 'the', '##s', 'é', '中', '"', '\u2028']


@pytest.mark.parametrize('shape', [old_shape, new_shape])
def test_gluon_json(tmp_path, shape):
    content = shape(TOKENS)
    # The order of the table does not matter, only the ids in it.
    content['token_to_idx'] = dict(reversed(list(content['token_to_idx'].items())))
    loaded = load_vocab(write(tmp_path / 'a.vocab', json.dumps(content)))
    assert loaded.idx_to_token == TOKENS
    assert [loaded[token] for token in TOKENS] == list(range(len(TOKENS)))
    assert len(loaded) == len(TOKENS)
    assert {name: getattr(loaded, name) for name in NAMES} == NAMES


def test_a_file_that_gluonnlp_wrote(tmp_path):
    """The new shape is what gluonnlp's own ``to_json`` makes."""
    nlp = pytest.importorskip('gluonnlp')
    theirs = nlp.vocab.BERTVocab(nlp.data.count_tokens(['the', '##s', 'cat', 'the']))
    loaded = load_vocab(write(tmp_path / 'a.vocab', theirs.to_json()))
    assert loaded.idx_to_token == theirs.idx_to_token
    assert loaded.padding_token == theirs.padding_token


def test_special_tokens_of_other_names(tmp_path):
    content = old_shape(['<unk>', *TOKENS[1:]])
    content['unknown_token'] = '<unk>'
    loaded = load_vocab(write(tmp_path / 'a.vocab', json.dumps(content)))
    assert loaded.unknown_token == '<unk>'
    assert loaded['not there'] == 0


@pytest.mark.parametrize('content', [b'%s\n', b'%s', b'\xef\xbb\xbf%s\n'])
@pytest.mark.parametrize('end', [b'\n', b'\r\n'])
def test_vocab_txt(tmp_path, content, end):
    data = content.replace(b'\n', end) % end.join(token.encode() for token in TOKENS)
    loaded = load_vocab(write(tmp_path / 'vocab.txt', data))
    # U+2028 is a token of the multilingual vocabularies, and no line end.
    assert loaded.idx_to_token == TOKENS
    assert loaded['[MASK]'] == 4
    assert loaded['never seen'] == loaded['[UNK]'] == 0


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ('\n'.join([*TOKENS, 'the']), "the token 'the' stands there twice"),
        ('\n'.join(TOKENS).replace('[MASK]', 'mask'), "the token '[MASK]' is missing"),
        ('', "the token '[UNK]' is missing"),
        (b'[UNK]\n[PAD]\n\xff\n', None),
        (json.dumps({'token_to_idx': [1]}), 'token_to_idx does not map tokens to ids'),
        (json.dumps({'token_to_idx': {'a': '0'}}), 'token_to_idx does not map tokens to ids'),
        (json.dumps({'idx_to_token': ['a']}), 'token_to_idx does not map tokens to ids'),
        (json.dumps({'token_to_idx': {'a': 0, 'b': 2}}), 'the ids are not 0 to 1, each once'),
        (json.dumps({'token_to_idx': {'a': 0, 'b': 0}}), 'the ids are not 0 to 1, each once'),
        (json.dumps({'token_to_idx': {'a': -1, 'b': 0}}), 'the ids are not 0 to 1, each once'),
        ('{"token_to_idx": {"a": 0', 'not a JSON object'),
        (json.dumps(old_shape(TOKENS[:4])), "the token '[MASK]' is missing"),
        (json.dumps({**old_shape(TOKENS), 'cls_token': '<s>'}), "the token '<s>' is missing"),
        (json.dumps({**old_shape(TOKENS), 'cls_token': ['<s>']}), 'cls_token is not a token'),
        (
            json.dumps({**old_shape(TOKENS), 'identifiers_to_tokens': [1]}),
            'identifiers_to_tokens is not a table',
        ),
    ],
)
def test_bad_files_are_told_by_name(tmp_path, content, sentence):
    path = write(tmp_path / 'vocab.txt', content)
    with pytest.raises(ToolkitError) as caught:
        load_vocab(path)
    expected = f'{path}:3: not valid UTF-8' if sentence is None else f'{path}: {sentence}'
    assert str(caught.value) == expected


def test_a_sentencepiece_model_whose_piece_is_no_text(tmp_path):
    """The library loads it, and fails where it makes a str of the piece."""
    sentencepiece = pytest.importorskip('sentencepiece')
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(['ab ba aab'] * 20), model_writer=model, vocab_size=10,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    assert model.getvalue().count(b'\xe2\x96\x81a')
    (tmp_path / 'm').write_bytes(model.getvalue().replace(b'\xe2\x96\x81a', b'\xe2\xff\x81a'))
    with pytest.raises(ToolkitError) as caught:
        load_sentencepiece_vocab(tmp_path / 'm')
    assert str(tmp_path / 'm') in str(caught.value)


def test_a_missing_file_is_told_by_name(tmp_path):
    with pytest.raises(ToolkitError) as caught:
        load_vocab(tmp_path / 'vocab.txt')
    assert str(caught.value) == f'{tmp_path / "vocab.txt"}: there is no such vocabulary file'


@pytest.mark.parametrize(
    ('token', 'expected'), [('the', False), ('The', True), ('[unused1A]', False), ('É', True)]
)
def test_capitals_tell_a_cased_vocabulary(token, expected):
    assert has_capitals(Vocab([*SPECIALS, token])) is expected


def test_published_vocabularies(published_vocabularies):
    """Their sizes, casing and the ids of the special tokens, as the published models have them.

    The Chinese one has capitals in two markers only, <S> and <T>: its text was lower-cased.
    """
    for name, size, cased in [
        ('bert-base-uncased', 30522, False),
        ('bert-base-cased', 28996, True),
        ('bert-base-chinese', 21128, False),
        ('bert-base-multilingual-cased', 119547, True),
    ]:
        loaded = load_vocab(published_vocabularies / f'{name}-vocab.txt')
        assert len(loaded) == size
        assert has_capitals(loaded) is cased
        assert [loaded[token] for token in SPECIALS] == [100, 0, 101, 102, 103]


def test_fingerprints_differ():
    one, other = Vocab([*SPECIALS, 'a', 'b']), Vocab([*SPECIALS, 'b', 'a'])
    assert vocab.fingerprint(one) != vocab.fingerprint(other)
    assert vocab.fingerprint(one) == vocab.fingerprint(Vocab([*SPECIALS, 'a', 'b']))


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


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """A local server of the model zoo: its files by path, and the paths that were asked for."""
    files, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path in files else 404)
            self.end_headers()
            self.wfile.write(files.get(self.path, b''))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setenv('MXNET_GLUON_REPO', address)
    monkeypatch.setenv('MXNET_HOME', str(tmp_path / 'mxnet'))
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    yield files, asked, address
    server.shutdown()
    server.server_close()


def zipped(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def test_zoo_vocabulary_is_fetched_once_and_again_when_damaged(mirror, monkeypatch, tmp_path):
    import hashlib

    files, asked, _ = mirror
    content = json.dumps(new_shape(TOKENS)).encode()
    sha1 = hashlib.sha1(content).hexdigest()
    monkeypatch.setitem(zoo.ZOO_SHA1, 'wiki_cn_cased', sha1)
    name = f'wiki_cn_cased-{sha1[:8]}'
    address = f'/gluon/dataset/vocab/{name}.zip'
    files[address] = zipped(f'{name}.vocab', content)
    for _ in range(2):
        path = zoo.zoo_vocab_path('wiki_cn')
        assert path == tmp_path / 'mxnet' / 'models' / f'{name}.vocab'
        assert load_vocab(path).idx_to_token == TOKENS
    assert asked == [address]
    path.write_bytes(content[:-1])
    assert load_vocab(zoo.zoo_vocab_path('wiki_cn_cased')).idx_to_token == TOKENS
    assert asked == [address, address]


def test_zoo_vocabulary_that_cannot_be_had(mirror, monkeypatch, tmp_path):
    files, _, address = mirror
    name = 'wiki_cn_cased-ddebd8f3'
    path = f'/gluon/dataset/vocab/{name}.zip'
    with pytest.raises(ToolkitError) as caught:
        zoo.zoo_vocab_path('wiki_cn_cased')
    sentence = str(caught.value)
    assert sentence.startswith(
        f'{tmp_path / "mxnet" / "models" / name}.vocab is missing and could not be fetched from '
        f'{address}{path} (HTTPError: 404'
    )
    assert '\n' not in sentence
    for served, expected in [
        (b'<html>', f'{address}{path}: not a zip file with {name}.vocab inside'),
        (zipped('other', b''), f'{address}{path}: not a zip file with {name}.vocab inside'),
        (
            zipped(f'{name}.vocab', b'{}'),
            f'{address}: what it serves as {name}.vocab is not the right file',
        ),
    ]:
        files[path] = served
        with pytest.raises(ToolkitError) as caught:
            zoo.zoo_vocab_path('wiki_cn_cased')
        assert str(caught.value) == expected
    assert not (tmp_path / 'mxnet').exists()
