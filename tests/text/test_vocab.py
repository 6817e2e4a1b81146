"""Vocabulary files: both shapes of Gluon's JSON, vocab.txt, and errors in them."""

import json

import pytest

from bert.system.errors import ToolkitError
from bert.text.vocab import SPECIAL_TOKENS, Vocab, fingerprint, has_capitals, load_vocab

SPECIALS = ['[UNK]', '[PAD]', '[CLS]', '[SEP]', '[MASK]']


def write(path, content):
    data = content if isinstance(content, bytes) else content.encode('utf8')
    path.write_bytes(data)
    return path


def old_shape(tokens):
    """Return the JSON of December 2018, with special tokens at the top level."""
    return {
        'idx_to_token': tokens,
        'token_to_idx': {token: i for i, token in enumerate(tokens)},
        'reserved_tokens': [token for token in SPECIALS if token != '[UNK]'],
        'bos_token': None,
        'eos_token': None,
        **SPECIAL_TOKENS,
    }


def new_shape(tokens):
    """Return today's JSON, with special tokens in a separate table."""
    return {
        'unknown_token': '[UNK]',
        'idx_to_token': tokens,
        'token_to_idx': {token: i for i, token in enumerate(tokens)},
        'reserved_tokens': [token for token in SPECIALS if token != '[UNK]'],
        'identifiers_to_tokens': {k: v for k, v in SPECIAL_TOKENS.items() if k != 'unknown_token'},
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
    assert [getattr(loaded, name) for name in SPECIAL_TOKENS] == SPECIALS


def test_a_file_that_gluonnlp_wrote(tmp_path):
    """GluonNLP's ``to_json`` writes the new shape."""
    nlp = pytest.importorskip('gluonnlp')
    theirs = nlp.vocab.BERTVocab(nlp.data.count_tokens(['the', '##s', 'cat', 'the']))
    loaded = load_vocab(write(tmp_path / 'a.vocab', theirs.to_json()))
    assert loaded.idx_to_token == theirs.idx_to_token
    assert loaded.padding_token == theirs.padding_token


def test_special_tokens_with_other_names(tmp_path):
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
    # U+2028 is a token of the multilingual vocabularies, not a line end.
    assert loaded.idx_to_token == TOKENS
    assert loaded['[MASK]'] == 4
    assert loaded['never seen'] == loaded['[UNK]'] == 0


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ('\n'.join([*TOKENS, 'the']), "the token 'the' occurs twice"),
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
def test_bad_files_are_named(tmp_path, content, sentence):
    path = write(tmp_path / 'vocab.txt', content)
    with pytest.raises(ToolkitError) as caught:
        load_vocab(path)
    expected = f'{path}:3: not valid UTF-8' if sentence is None else f'{path}: {sentence}'
    assert str(caught.value) == expected


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ToolkitError) as caught:
        load_vocab(tmp_path / 'vocab.txt')
    assert str(caught.value) == f'{tmp_path / "vocab.txt"}: there is no such vocabulary file'


@pytest.mark.parametrize(
    ('token', 'expected'), [('the', False), ('The', True), ('[unused1A]', False), ('É', True)]
)
def test_has_capitals(token, expected):
    assert has_capitals(Vocab([*SPECIALS, token])) is expected


def test_published_vocabularies(published_vocabularies):
    """Their sizes, casing and ids of special tokens are those of the published models.

    The Chinese one has capitals only in two markers, <S> and <T>: its text was lower-cased.
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
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(Vocab([*SPECIALS, 'a', 'b']))
