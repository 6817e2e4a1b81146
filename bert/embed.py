"""Turn texts into vectors, for other programs.

Each line of standard input is a text, or a pair of texts separated by a tab. The output is an .npz
file with their vectors, in the order of the lines, which numpy.load reads. Memory does not grow
with the number of lines.
"""

import contextlib
import logging
import sys
from pathlib import Path

from bert.checkpoints.sentences import KINDS, SENTENCE
from bert.checkpoints.source import locate
from bert.cli.console import start_logging
from bert.cli.flags import (
    Parser,
    add_device_flags,
    add_quiet_flag,
    check_dtype,
    integer,
    positive_int,
)
from bert.cli.program import run
from bert.cli.streams import check_streams, open_input
from bert.system import machine
from bert.system.errors import UsageError
from bert.system.files import replacing
from bert.system.spool import write_npz
from bert.text.lines import read_lines

EPILOG = f"""\
vectors:
  {SENTENCE}  what sentence-transformers computes, if MODEL is one of its models (with a
            modules.json): the mean or the first token, perhaps scaled to length 1;
            otherwise the mean
  mean      the mean over all tokens of the text, including [CLS] and [SEP]
  first     the vector of the first token, [CLS]
  pooled    the output of the pooler for the first token
  tokens    the vectors of all tokens: text i has vectors[offsets[i]:offsets[i + 1]], and its
            tokens are vocabulary[ids[offsets[i]:offsets[i + 1]]]

examples:
  python -m bert.embed minilm < lines.txt > vectors.npz
  python -m bert.embed OWNER/MODEL < lines.txt > vectors.npz
  python -m bert.embed bert_12_768_12 --input lines.txt --output vectors.npz \\
      --vectors tokens --layers -1 -2 -3 -4

in a program:
  import bert.embed
  encode = bert.embed.load('MODEL')
  vectors = encode(['a sentence', ('a sentence', 'and another')])
"""
DATASET = 'book_corpus_wiki_en_uncased'


def build_flags():
    """Build the parser."""
    parser = Parser(__doc__, prog='python -m bert.embed', epilog=EPILOG)
    parser.add_argument(
        'model',
        metavar='MODEL',
        help='a model of the GluonNLP zoo or of the Hugging Face Hub (OWNER/MODEL); or minilm, a '
        'small one installed with pip; or a directory: in the layout of Hugging Face or of '
        'bert.convert, with a Google TensorFlow checkpoint, or the output of a script of this '
        'project',
    )
    files = parser.add_argument_group('files')
    files.add_argument('--input', metavar='FILE', help='the file to read (default: standard input)')
    files.add_argument(
        '--output', metavar='FILE', help='the .npz file to write (default: standard output)'
    )
    vectors = parser.add_argument_group('vectors')
    vectors.add_argument(
        '--vectors',
        choices=[SENTENCE, *KINDS],
        default=SENTENCE,
        help='which vectors; see below',
    )
    vectors.add_argument(
        '--layers',
        type=integer,
        nargs='+',
        metavar='N',
        help='layers whose encodings to use: 1 is the first one, -1 the last; several of them add '
        'an axis to the output (default: -1)',
    )
    vectors.add_argument(
        '--max_len',
        type=positive_int,
        help='maximum number of tokens in a text or pair, including special tokens; longer ones '
        "are cut (default: the model's own setting if it has one, else 128)",
    )
    computing = parser.add_argument_group('model and devices')
    computing.add_argument(
        '--bert_dataset', default=DATASET, help="what the zoo's model was pre-trained on"
    )
    computing.add_argument(
        '--batch_size', type=positive_int, default=32, help='texts per batch on each device'
    )
    add_device_flags(parser, computing, purpose='compute')
    add_quiet_flag(parser, parser, files='')
    return parser


def main(argv=None):
    """Turn lines into vectors."""
    args = build_flags().parse_args(argv)
    if not args.output and sys.stdout.isatty():
        raise UsageError(
            'the vectors are not for a terminal: redirect standard output, or name an --output'
        )
    check_streams(args.input, args.output)
    check_dtype(args.dtype, on_gpu=bool(args.gpu or args.gpus))
    start_logging(args.quiet)
    with contextlib.ExitStack() as stack:
        file, name = stack.enter_context(open_input(args.input))
        gpus = args.gpus or [0] * args.gpu
        embedder = load(
            args.model,
            args.vectors,
            args.layers or [-1],
            max_len=args.max_len,
            batch_size=args.batch_size,
            dtype=args.dtype,
            gpus=gpus,
            dataset=args.bert_dataset,
        )
        from bert.finetuning.embedding import spool_vectors

        folder = args.output and Path(args.output).absolute().parent
        arrays = spool_vectors(embedder, read_lines(file, name), name, folder, stack)
        if args.output:
            temporary = stack.enter_context(replacing(args.output))
            with open(temporary, 'wb') as output:
                write_npz(output, arrays)
        else:
            write_npz(sys.stdout.buffer, arrays)
    shape = ' x '.join(map(str, (arrays['vectors'].count, *embedder.model.shape)))
    logging.info('wrote %s numbers to %s', shape, args.output or 'standard output')


def load(
    model,
    vectors=SENTENCE,
    layers=(-1,),
    max_len=None,
    batch_size=32,
    dtype='float32',
    gpus=(),
    dataset=DATASET,
):
    """Load a model that turns texts into vectors.

    Parameters
    ----------
    model : str
        Anything that --bert_model accepts.
    vectors : str
        ``sentence``, ``mean``, ``first``, ``pooled`` or ``tokens``; see ``--help``.
    layers : sequence of int
        1 is the first layer, -1 the last one.
    max_len : int, optional
        The maximum number of tokens in a text; by default the model's own setting, or 128.
    dtype : str
        ``float32``, ``float16`` on a GPU, or ``bfloat16`` on a CPU.
    gpus : sequence of int
        The GPUs to use; none for the CPU.
    dataset : str
        What a model of the zoo was pre-trained on.

    Returns
    -------
    bert.finetuning.embedding.Embedder
        Called with a list of texts or pairs, it returns their vectors; its method ``stream``
        accepts any number of them.
    """
    if max_len is not None and max_len < 5:
        raise UsageError(f'{max_len} tokens leave no room for a pair of texts: at least 5')
    machine.prepare_mxnet(dtype)
    from bert.finetuning.embedding import load_embedder
    from bert.training.update import contexts

    location = locate(str(model), dataset)
    found = contexts(gpus, purpose='compute')
    return load_embedder(location, vectors, list(layers), max_len, batch_size, found, dtype)


if __name__ == '__main__':
    run(main)
