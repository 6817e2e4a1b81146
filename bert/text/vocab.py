"""Vocabularies: the tokens in the order of their ids, and which of them are special."""

import hashlib
from collections import Counter
from pathlib import Path

from bert.system.errors import ToolkitError
from bert.system.files import read_json, read_text

SPECIAL_TOKENS = {
    'unknown_token': '[UNK]',
    'padding_token': '[PAD]',
    'cls_token': '[CLS]',
    'sep_token': '[SEP]',
    'mask_token': '[MASK]',
}


class Vocab:
    """Tokens and ids, with the attribute names of ``gluonnlp.vocab.BERTVocab``.

    Unlike that class it does not need MXNet, which saves data generation 280 MB of memory.

    Parameters
    ----------
    tokens : sequence of str
        ``tokens[i]`` is the token with id ``i``. All must differ.
    source : str
        The origin of the tokens, for error messages.
    specials : dict
        Special tokens with names other than those of :data:`SPECIAL_TOKENS`, such as
        ``{'unknown_token': '<unk>'}``.

    Raises
    ------
    ToolkitError
        If a token occurs twice or a special token is missing.
    """

    def __init__(self, tokens, source='vocabulary', **specials):
        self.idx_to_token = list(tokens)
        self.token_to_idx = {token: i for i, token in enumerate(self.idx_to_token)}
        if len(self.token_to_idx) < len(self.idx_to_token):
            token, _ = Counter(self.idx_to_token).most_common(1)[0]
            raise ToolkitError(f'{source}: the token {token!r} occurs twice')
        for name, token in {**SPECIAL_TOKENS, **specials}.items():
            if token not in self.token_to_idx:
                raise ToolkitError(f'{source}: the token {token!r} is missing')
            setattr(self, name, token)

    def __len__(self):
        return len(self.idx_to_token)

    def __getitem__(self, token):
        """Return the id of a token, or the unknown token's."""
        return self.token_to_idx.get(token, self.token_to_idx[self.unknown_token])


def load_vocab(path):
    """Read a ``vocab.txt`` (one token per line) or a Gluon ``.vocab`` file (JSON).

    The content, not the name, decides which of the two it is.

    Returns
    -------
    Vocab
    """
    path = Path(path)
    if not path.is_file():
        raise ToolkitError(f'{path}: there is no such vocabulary file')
    with open(path, 'rb') as file:
        is_json = file.read(64).lstrip().startswith(b'{"')
    if is_json:
        return _from_gluon_json(read_json(path), path)
    # Only newlines end a token: some vocabularies contain characters at which splitlines() splits.
    lines = read_text(path).replace('\r\n', '\n').split('\n')
    if lines[-1] == '':
        lines.pop()
    return Vocab(lines, source=path)


def _from_gluon_json(content, path):
    """Build a vocabulary from the JSON of a Gluon file.

    The special tokens are at the top level (2018) or in a table of their own (today).
    """
    token_to_idx = content.get('token_to_idx')
    if not isinstance(token_to_idx, dict) or not all(
        isinstance(i, int) for i in token_to_idx.values()
    ):
        raise ToolkitError(f'{path}: token_to_idx does not map tokens to ids')
    tokens = sorted(token_to_idx, key=token_to_idx.get)
    if [token_to_idx[token] for token in tokens] != list(range(len(tokens))):
        raise ToolkitError(f'{path}: the ids are not 0 to {len(tokens) - 1}, each once')
    table = content.get('identifiers_to_tokens') or {}
    if not isinstance(table, dict):
        raise ToolkitError(f'{path}: identifiers_to_tokens is not a table')
    named = {**content, **table}
    specials = {key: named[key] for key in SPECIAL_TOKENS if named.get(key)}
    for key, token in specials.items():
        if not isinstance(token, str):
            raise ToolkitError(f'{path}: {key} is not a token')
    return Vocab(tokens, source=path, **specials)


def pad_vocab(vocab, size):
    """Extend a vocabulary with names for the rows of an embedding beyond its tokens.

    Some models round the number of rows up; the extra ones are never looked up.
    """
    unnamed = [f'[unnamed{number}]' for number in range(len(vocab), size)]
    return _with_tokens(vocab, list(vocab.idx_to_token) + unnamed)


def plain_vocab(vocab):
    """Undo :func:`pad_vocab`; also accepts a ``gluonnlp.vocab.BERTVocab``."""
    tokens = list(vocab.idx_to_token)
    while tokens[-1] == f'[unnamed{len(tokens) - 1}]':
        tokens.pop()
    return _with_tokens(vocab, tokens)


def _with_tokens(vocab, tokens):
    return Vocab(tokens, **{name: getattr(vocab, name) for name in SPECIAL_TOKENS})


def fingerprint(vocab):
    """Return a sha256, in hexadecimal, of the tokens and their order."""
    return hashlib.sha256('\n'.join(vocab.idx_to_token).encode('utf8')).hexdigest()


def has_capitals(vocab):
    """Return whether any token, other than markers such as [CLS] or <S>, has a capital letter."""
    return any(
        token != token.lower() and (token[0] + token[-1]) not in ('[]', '<>')
        for token in vocab.idx_to_token
    )
