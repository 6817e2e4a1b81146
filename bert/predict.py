"""Predict with a fine-tuned model: rows of text in, labels with their probabilities out.

Each line of standard input is a row, in JSON, and each line of the output is its answer, in the
same order. Memory does not grow with the number of rows.
"""

import contextlib
import logging
import sys

from bert.checkpoints.source import is_zoo_model, locate
from bert.cli.console import progress, start_logging
from bert.cli.flags import Parser, add_device_flags, add_quiet_flag, check_dtype, positive_int
from bert.cli.program import run
from bert.cli.streams import check_streams, open_input
from bert.system import machine
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import replacing
from bert.tasks.predictions import format_answer
from bert.text.lines import read_json_rows
from bert.training.stream import windows

EPILOG = """\
an input line is one of
  {"question": "one text", "answer": "and the second", "id": 7}
      an object; the columns with the text are those of --text_columns, by default those that the
      model was fine-tuned on, if it remembers their names, otherwise text and, for pairs,
      text_pair; other columns are ignored
  ["one text", "and the second"]
  "one text"
Blank lines are skipped.

an output line is
  {"label": "good", "score": 0.98}
      the most likely of the labels that the model remembers, and its probability
  [{"label": "polite", "score": 0.9}, {"label": "angry", "score": 0.2}]
      all labels, the most likely first, if a row may have several; finetune_classifier.py predicts
      those above 0.5
  {"score": 3.2}
      for a model that was fine-tuned on numbers

Answers are written in windows of 64 batches, once the next window has been read, or at the end. A
line that cannot be used ends the program with status 1 and an error that gives the line's number;
the rows before it are answered on standard output, but an --output is either complete or absent.

examples:
  python -m bert.predict output_dir < rows.jsonl > answers.jsonl
  python -m bert.predict output_dir --input rows.jsonl --output answers.jsonl --batch_size 64

in a program:
  import bert.predict
  classify = bert.predict.load('output_dir')
  answers = classify([('one text', 'and the second')])
"""


def build_flags():
    """Build the parser."""
    parser = Parser(__doc__, prog='python -m bert.predict', epilog=EPILOG)
    parser.add_argument(
        'model',
        metavar='MODEL',
        help='a fine-tuned model: the --output_dir of finetune_classifier.py, a directory in '
        'the layout of Hugging Face or of bert.convert, or OWNER/MODEL on the Hugging Face Hub',
    )
    files = parser.add_argument_group('files')
    files.add_argument('--input', metavar='FILE', help='the file to read (default: standard input)')
    files.add_argument(
        '--output', metavar='FILE', help='the file to write (default: standard output)'
    )
    files.add_argument(
        '--text_columns',
        nargs='+',
        metavar='NAME',
        help='the column with the text, or the two columns with pairs of texts; see below',
    )
    computing = parser.add_argument_group('model and devices')
    computing.add_argument(
        '--max_len',
        type=positive_int,
        help='maximum number of tokens in a row, including special tokens; longer ones are cut '
        '(default: what the model was fine-tuned with, if it remembers that, else 128)',
    )
    computing.add_argument(
        '--batch_size', type=positive_int, default=32, help='rows per batch on each device'
    )
    add_device_flags(parser, computing, purpose='compute')
    add_quiet_flag(parser, parser, files='')
    return parser


def main(argv=None):
    """Predict for each line."""
    args = build_flags().parse_args(argv)
    check_streams(args.input, args.output)
    check_dtype(args.dtype, on_gpu=bool(args.gpu or args.gpus))
    start_logging(args.quiet)
    with contextlib.ExitStack() as stack:
        file, name = stack.enter_context(open_input(args.input))
        gpus = args.gpus or [0] * args.gpu
        predictor = load(args.model, args.max_len, args.batch_size, args.dtype, gpus)
        columns = choose_columns(args.text_columns, predictor)
        output = sys.stdout.buffer
        if args.output:
            temporary = stack.enter_context(replacing(args.output))
            output = stack.enter_context(open(temporary, 'wb'))
        rows = read_json_rows(file, name, columns, predictor.sizes)
        count = write_answers(output, predictor, rows, name)
    logging.info('wrote %d answers to %s', count, args.output or 'standard output')


def choose_columns(given, predictor):
    """Return the names of the columns with the text."""
    if not given:
        return predictor.columns
    if len(given) not in predictor.sizes:
        sizes = ' or '.join(map(str, predictor.sizes))
        raise UsageError(f'--text_columns has {len(given)} names, but the model takes {sizes}')
    return given


def write_answers(output, predictor, rows, name):
    """Write a line for each row, and return how many; an error among the rows comes afterwards.

    Parameters
    ----------
    output : binary file
        Flushed whenever a window is written.
    predictor : bert.finetuning.prediction.Predictor
    rows : iterable of tuples of str
    name : str
        The origin of the rows, for the progress bar.
    """
    count, errors = 0, []

    def rows_before_an_error():
        try:
            yield from rows
        except ToolkitError as error:
            errors.append(error)

    with progress(None, name, 'row') as bar:
        answers = predictor.stream(rows_before_an_error())
        for window in windows(answers, predictor.window_size):
            lines = (f'{format_answer(answer)}\n' for answer in window)
            output.write(''.join(lines).encode())
            output.flush()
            count += len(window)
            bar.update(len(window))
    if errors:
        raise errors[0]
    return count


def load(model, max_len=None, batch_size=32, dtype='float32', gpus=()):
    """Load a fine-tuned model that predicts.

    Parameters
    ----------
    model : str or Path
        Anything fine-tuned that --bert_model accepts.
    max_len : int, optional
        The maximum number of tokens in a row; by default what the model remembers, or 128.
    batch_size : int
        Rows in a batch, on each device.
    dtype : str
        ``float32``, ``float16`` on a GPU, or ``bfloat16`` on a CPU.
    gpus : sequence of int
        The GPUs to use; none for the CPU.

    Returns
    -------
    bert.finetuning.prediction.Predictor
        Called with a list of texts or pairs it returns a list of ``{'label': ..., 'score': ...}``,
        of lists of them where a row may have several labels, or of numbers in regression; its
        method ``stream`` accepts any number of them. Several threads may use it at once.

    Raises
    ------
    UsageError
        If there is no such model, or ``max_len`` does not fit it.
    ToolkitError
        If it is not fine-tuned, or damaged.
    """
    if is_zoo_model(str(model)):
        raise ToolkitError(f'{model} is pre-trained only: fine-tune it with finetune_classifier.py')
    machine.prepare_mxnet(dtype)
    from bert.finetuning.prediction import load_predictor
    from bert.training.update import contexts

    location = locate(str(model))
    return load_predictor(location, max_len, batch_size, contexts(gpus, purpose='compute'), dtype)


if __name__ == '__main__':
    run(main)
