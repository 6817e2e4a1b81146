#!/usr/bin/env python3
"""Make vocab.txt: the words of the project's sample texts, and pieces to spell other words."""

from collections import Counter
from pathlib import Path

from tokenizers import normalizers, pre_tokenizers

HERE = Path(__file__).resolve().parent
TEXTS = ['sample_text.txt', *(f'sample_glue/MRPC/{name}.tsv' for name in ('train', 'dev'))]
SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
# Words that occur only once are left out and spelled, so that the pieces are used too.
LOWEST_COUNT = 2


def count_words(text):
    """Count a text's words, lower-cased and without accents, split as in uncased BERT."""
    text = normalizers.BertNormalizer(lowercase=True).normalize_str(text)
    return Counter(word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text))


def make_vocab(words):
    """Return special tokens, characters, word-internal characters, then words by falling count."""
    characters = sorted(set(''.join(words)))
    common = [word for word, n in words.most_common() if n >= LOWEST_COUNT and len(word) > 1]
    common.sort(key=lambda word: (-words[word], word))
    return SPECIAL + characters + [f'##{c}' for c in characters if c.isalnum()] + common


def main():
    """Write vocab.txt beside this script."""
    words = Counter()
    for name in TEXTS:
        words += count_words((HERE.parent / name).read_text(encoding='utf8'))
    vocab = make_vocab(words)
    (HERE / 'vocab.txt').write_text(''.join(f'{token}\n' for token in vocab), encoding='utf8')
    print(f'{len(vocab)} tokens')


if __name__ == '__main__':
    main()
