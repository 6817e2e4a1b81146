"""Vocabularies: the tokens in the order of their ids, and which of them are special."""

import hashlib
import io
import os
import re
import zipfile
from collections import Counter
from pathlib import Path

from bert.cli import ToolkitError
from bert.files import read_json, read_text, replacing

SPECIAL_TOKENS = {
    'unknown_token': '[UNK]',
    'padding_token': '[PAD]',
    'cls_token': '[CLS]',
    'sep_token': '[SEP]',
    'mask_token': '[MASK]',
}

# The vocabularies that GluonNLP's model zoo serves, by data set, and the sha1 of their files.
ZOO_SHA1 = {
    'book_corpus_wiki_en_uncased': 'a66073971aa0b1a262453fe51342e57166a8abcf',
    'book_corpus_wiki_en_cased': '2d62af22535ed51f35cc8e2abb607723c89c2636',
    'wiki_multilingual_uncased': '2b2514cc539047b9179e9d98a4e68c36db05c97a',
    'wiki_multilingual_cased': '0247cb442074237c38c62021f36b7a4dbd2e55f7',
    'wiki_cn_cased': 'ddebd8f3867bca5a61023f73326fb125cf12b4f5',
}
# Names that the scripts of early 2019 took as well.
OTHER_SPELLINGS = {
    'wiki_multilingual': 'wiki_multilingual_uncased',
    'wiki_cn': 'wiki_cn_cased',
}
# The largest of them has 4 MB; an archive that promises more than this is not opened.
MOST_BYTES = 64 * 1024 * 1024
ZOO_URL = 'https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/'


class Vocab:
    """Tokens and ids, with the attribute names of ``gluonnlp.vocab.BERTVocab``.

    Unlike that class it needs no MXNet, so that data generation does without its 280 MB.

    Parameters
    ----------
    tokens : sequence of str
        ``tokens[i]`` is the token with id ``i``. All different.
    source : str
        Where they come from, for error messages.
    specials : dict
        Tokens that have other names than :data:`SPECIAL_TOKENS`, such as
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
            raise ToolkitError(f'{source}: the token {token!r} stands there twice')
        for name, token in {**SPECIAL_TOKENS, **specials}.items():
            if token not in self.token_to_idx:
                raise ToolkitError(f'{source}: the token {token!r} is missing')
            setattr(self, name, token)

    def __len__(self):
        return len(self.idx_to_token)

    def __getitem__(self, token):
        """The id of a token, or that of the unknown token."""
        return self.token_to_idx.get(token, self.token_to_idx[self.unknown_token])


def load_vocab(path):
    """Read a ``vocab.txt`` (a token a line) or a Gluon ``.vocab`` (JSON), told by its content.

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
    # Only newlines end a token: some vocabularies hold others of str.splitlines's line ends.
    lines = read_text(path).replace('\r\n', '\n').split('\n')
    if lines[-1] == '':
        lines.pop()
    return Vocab(lines, source=path)


def _from_gluon_json(content, path):
    """Both shapes of a Gluon file: special tokens at the top (2018) or in a table of their own."""
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


def zoo_data_set(path):
    """The data set of a file name such as ``wiki_cn_cased-ddebd8f3.vocab``, or None."""
    match = re.fullmatch(r'(\w+)-[0-9a-f]{8}\.vocab', Path(path).name)
    return match.group(1) if match and match.group(1) in ZOO_SHA1 else None


def zoo_vocab_path(data_set):
    """The file of a vocabulary of the model zoo, fetched if it is not there yet.

    GluonNLP keeps it in the same place, ``models`` under ``MXNET_HOME`` (``~/.mxnet``), fetches
    it from the same address, that of ``MXNET_GLUON_REPO``, and checks it in the same way, but
    cannot be imported without MXNet.

    Parameters
    ----------
    data_set : str
        A key of :data:`ZOO_SHA1` or of :data:`OTHER_SPELLINGS`.

    Returns
    -------
    Path
    """
    data_set = OTHER_SPELLINGS.get(data_set, data_set)
    sha1 = ZOO_SHA1[data_set]
    name = f'{data_set}-{sha1[:8]}'
    home = os.path.expanduser(os.environ.get('MXNET_HOME', os.path.join('~', '.mxnet')))
    path = Path(home, 'models', f'{name}.vocab')
    if not path.is_file() or _sha1(path.read_bytes()) != sha1:
        address = os.environ.get('MXNET_GLUON_REPO', ZOO_URL).rstrip('/')
        content = _download(f'{address}/gluon/dataset/vocab/{name}.zip', path.name, path)
        if _sha1(content) != sha1:
            raise ToolkitError(f'{address}: what it serves as {path.name} is not the right file')
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return path


def _sha1(content):
    return hashlib.sha1(content).hexdigest()


def _download(address, member, path):
    """The content of one member of a zip file on the web."""
    import requests

    try:
        answer = requests.get(address, timeout=60)
        answer.raise_for_status()
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            if archive.getinfo(member).file_size > MOST_BYTES:
                raise KeyError(member)
            return archive.read(member)
    except requests.RequestException as error:
        reason = f'{type(error).__name__}: {error}'.split('\n')[0]
        raise ToolkitError(
            f'{path} is missing and could not be fetched from {address} ({reason}); '
            'put it there, or name a vocabulary file that you have'
        ) from None
    # What a damaged archive raises depends on where it is damaged.
    except Exception:
        raise ToolkitError(f'{address}: not a zip file with {member} inside') from None


def load_sentencepiece_vocab(path):
    """The pieces of a sentencepiece model, with the model's own ids.

    Those of BERT's special tokens that the model lacks come after its last piece, [MASK], [CLS],
    [SEP], [PAD] in this order (``gluonnlp.vocab.BERTVocab`` changes it from run to run).

    Returns
    -------
    Vocab
    """
    processor = load_sentencepiece(path)
    try:
        tokens = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    except UnicodeDecodeError:
        raise ToolkitError(f'{path}: a piece is not valid UTF-8') from None
    unknown = tokens[processor.unk_id()]
    padding = tokens[processor.pad_id()] if processor.pad_id() >= 0 else '[PAD]'
    for token in ('[MASK]', '[CLS]', '[SEP]', padding):
        if token not in tokens:
            tokens.append(token)
    return Vocab(tokens, source=path, unknown_token=unknown, padding_token=padding)


def load_sentencepiece(path):
    """A ``sentencepiece.SentencePieceProcessor``, or one sentence why not."""
    import sentencepiece

    if not Path(path).is_file():
        raise ToolkitError(f'{path}: there is no such sentencepiece model')
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    # The library's own sentence may be of bytes from the file, and no valid text.
    except (OSError, RuntimeError, UnicodeDecodeError):
        raise ToolkitError(f'{path}: not a sentencepiece model') from None


def pad_vocab(vocab, size):
    """A vocabulary with a name for each row of an embedding that is rounded up.

    Some models' embeddings are; the extra rows have no token and are never looked up.
    """
    unnamed = [f'[unnamed{number}]' for number in range(len(vocab), size)]
    return _with_tokens(vocab, list(vocab.idx_to_token) + unnamed)


def plain_vocab(vocab):
    """The inverse of :func:`pad_vocab`; a ``gluonnlp.vocab.BERTVocab`` will do too."""
    tokens = list(vocab.idx_to_token)
    while tokens[-1] == f'[unnamed{len(tokens) - 1}]':
        tokens.pop()
    return _with_tokens(vocab, tokens)


def _with_tokens(vocab, tokens):
    return Vocab(tokens, **{name: getattr(vocab, name) for name in SPECIAL_TOKENS})


def fingerprint(vocab):
    """A sha256, in hexadecimal, that tells vocabularies with other tokens or order apart."""
    return hashlib.sha256('\n'.join(vocab.idx_to_token).encode('utf8')).hexdigest()


def has_capitals(vocab):
    """Whether an ordinary token, one that is no marker such as [CLS] or <S>, has a capital."""
    return any(
        token != token.lower() and (token[0] + token[-1]) not in ('[]', '<>')
        for token in vocab.idx_to_token
    )
