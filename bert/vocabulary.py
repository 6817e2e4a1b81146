"""Train a WordPiece vocabulary on text, for a BERT of your own.

The output is a vocab.txt with one token per line, for --vocab_file and for model directories. The
same text always gives the same bytes. Memory stays bounded whatever the size of the text.
"""

import logging
import os
from pathlib import Path

from bert.cli.console import first_of, progress, start_logging
from bert.cli.flags import Parser, add_quiet_flag, count
from bert.cli.program import run
from bert.pretraining.files import BY_LINE, find_files, read_sentences, share_out
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import write_text
from bert.text import vocabulary_training as training
from bert.text.word_counts import MOST_CHARACTERS, count_words

EPILOG = f"""\
Words are those of the tokenizer; Chinese characters and punctuation marks are words, too.
The tokens are {' '.join(training.FIRST_TOKENS)}; then the characters of the text: all of
ASCII, and as many of the most frequent others as cover {training.COVERAGE:.2%} of the text or fit
in a tenth of the tokens, whichever is more; then joined pairs of tokens, the most frequent first.
A word with any other character becomes [UNK]. If the distinct words have more than
{MOST_CHARACTERS / 1e6:.0f} million characters in all, the rarest are left out.

examples:
  python -m bert.vocabulary 'text/*.txt' --size 8000 --output vocab.txt
  create_pretraining_data.py --input_file 'text/*.txt' --output_dir data \\
      --vocab_file vocab.txt --do_lower_case
  run_pretraining.py --do-training --data 'data/*.npz' --bert_model bert_4_256_4 \\
      --vocab_file vocab.txt
"""


def build_flags():
    """Build the parser."""
    parser = Parser(__doc__, prog='python -m bert.vocabulary', epilog=EPILOG)
    parser.add_argument(
        'text', nargs='+', metavar='TEXT', help='text files in UTF-8: comma-separated globs'
    )
    parser.add_argument(
        '--size',
        type=count,
        default=8000,
        metavar='N',
        help='number of tokens in the vocabulary, including special tokens; fewer if the text does '
        'not yield so many',
    )
    parser.add_argument('--output', metavar='FILE', default='vocab.txt', help='the file to write')
    parser.add_argument(
        '--cased',
        action='store_true',
        help='keep capital letters and accents, instead of lower-casing and stripping accents',
    )
    add_quiet_flag(parser, parser, files='')
    return parser


def main(argv=None):
    """Train a vocabulary.

    Returns
    -------
    list of str
        The tokens.
    """
    args = build_flags().parse_args(argv)
    smallest = len(training.FIRST_TOKENS) + 1
    if args.size < smallest:
        raise UsageError(
            f'--size {args.size} leaves no room beside the {smallest - 1} special tokens: '
            f'at least {smallest} are needed'
        )
    paths = list(dict.fromkeys(find_files(','.join(args.text))))
    check_output(args.output, paths)
    start_logging(args.quiet)
    total = sum(map(os.path.getsize, paths))
    logging.info('input files: %d, %.1f MB', len(paths), total / 1e6)
    with progress(total, 'counting words', 'B') as bar:
        counts = count_words(read_texts(paths, bar.update), not args.cased)
    if not counts.words:
        raise ToolkitError(f'{first_of(paths)}: no words to make a vocabulary from')
    logging.info('%d words, %d distinct', counts.total, len(counts.words))
    if counts.left_out:
        logging.info('the rarest are left out, %d words in all', counts.left_out)
    tokens = training.train_tokens(counts, args.size)
    write_text(args.output, ''.join(f'{token}\n' for token in tokens))
    if len(tokens) < args.size:
        logging.warning('the text yields only %d of the %d tokens', len(tokens), args.size)
    logging.info(
        'wrote %s: %d tokens; of the words %.1f%% stay whole and %.2f%% become [UNK], '
        '%.2f tokens a word',
        args.output,
        len(tokens),
        *scale(training.measure(tokens, counts, not args.cased)),
    )
    return tokens


def read_texts(paths, on_read):
    """Yield the lines of files, many to a text, and call ``on_read`` with the bytes of each."""
    (spans,) = share_out(paths, 1)
    for span in spans:
        for lines, size in read_sentences(span, BY_LINE):
            yield '\n'.join(lines)
            on_read(size)


def scale(quality):
    """Return a :class:`bert.text.vocabulary_training.Quality` with its shares in percent."""
    return 100 * quality.whole, 100 * quality.unknown, quality.tokens_per_word


def check_output(name, paths):
    """Raise an error if a file cannot be written, or is one of those that are read."""
    path = Path(name)
    if path.is_dir():
        raise UsageError(f'--output {name} is a folder, not a file')
    if not path.absolute().parent.is_dir():
        raise UsageError(f'--output {name}: there is no such folder')
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise ToolkitError(f'{name}: could not be written (Permission denied)')
    if path.exists() and any(map(path.samefile, paths)):
        raise UsageError(f'--output {name} is one of the texts')


if __name__ == '__main__':
    run(main)
