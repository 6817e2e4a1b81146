"""Convert a BERT to another format and verify that it is the same model, or compare two models.

SOURCE is anything that --bert_model accepts: a model of the GluonNLP zoo or of the Hugging Face
Hub; or minilm, a small one installed with pip; or a directory in the layout of Hugging Face or of
Gluon, with a Google TensorFlow checkpoint, or written by this project; or a Gluon .params file
beside its vocabulary. TARGET is a new directory, or the name of a model on the Hub.
"""

import tempfile
from pathlib import Path

from bert.checkpoints import reading
from bert.checkpoints.cards import describe_source
from bert.checkpoints.source import locate
from bert.checkpoints.upload import check_upload, upload
from bert.cli.console import start_logging
from bert.cli.flags import Parser, add_quiet_flag, share
from bert.cli.program import run
from bert.convert.comparison import compare
from bert.convert.conversion import KINDS, Check, convert
from bert.convert.int8 import read_texts
from bert.convert.witnesses import example_texts
from bert.system import packages
from bert.system.errors import ToolkitError, UsageError
from bert.system.terminal import show

EPILOG = """\
targets:
  gluon  model.params, vocab.vocab and config.json, for GluonNLP 0.10 and for --bert_model
  hf     model.safetensors, config.json and the tokenizer, for transformers and for --bert_model
  onnx   model.onnx, config.json and the tokenizer, for ONNX runtimes; needs pip install '.[onnx]'
  hub    the same as hf, uploaded to the Hugging Face Hub as OWNER/NAME, with the token from the
         variable HF_TOKEN or from hf auth login
Each has a README.md, the model card that the Hub shows.

examples:
  python -m bert.convert google-bert/bert-base-uncased bert_base --to gluon
  python -m bert.convert output_dir my_classifier --to hf
  python -m bert.convert bert_12_768_12 chinese --bert_dataset wiki_cn --to onnx
  python -m bert.convert output_dir small --to onnx --dtype int8 --check glue_data/MRPC/dev.tsv
  python -m bert.convert output_dir OWNER/NAME --to hub --private
  python -m bert.convert --compare output_dir my_classifier

int8:
  Most weights of a fine-tuned model become integers, and so do most matrix products. TARGET is
  written only if enough of its answers equal those of the float32 model: classes, or sets of labels
  if a row may have several, must be the same; numbers may differ by at most a twentieth of the
  range of all float32 answers. Scores are the probabilities of labels, or the numbers.
  A .txt file for --check has a text on each line, or two separated by a tab; any other file is like
  the --dev_file of the fine-tuning, or the dev set of the GLUE task, and needs no labels.
"""
LEAST_EQUAL = 0.98


def parse_args(argv=None):
    """Parse the flags."""
    parser = Parser(__doc__, prog='python -m bert.convert', epilog=EPILOG)
    parser.add_argument('source', metavar='SOURCE', help='the model to convert or compare')
    parser.add_argument(
        'target',
        metavar='TARGET',
        help='a new directory; with --to hub, OWNER/NAME; with --compare, another model',
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument('--to', choices=[*KINDS, 'hub'], help='the format of TARGET')
    action.add_argument(
        '--compare',
        action='store_true',
        help='print by how much all tensors and outputs of the models differ; status 1 if they do',
    )
    parser.add_argument(
        '--bert_dataset',
        default='book_corpus_wiki_en_uncased',
        help='what a model of the zoo was pre-trained on',
    )
    parser.add_argument(
        '--private', action='store_true', help='with --to hub: upload to a private model only'
    )
    add_quiet_flag(parser, parser, files='')
    quantised = parser.add_argument_group('int8')
    quantised.add_argument(
        '--dtype',
        choices=['float32', 'int8'],
        default='float32',
        help='data type of the weights; int8 is for --to onnx only',
    )
    quantised.add_argument(
        '--check',
        metavar='FILE',
        help='the rows on which the answers in float32 and int8 are compared (default: six texts '
        'that come with this program; rows of your own are a better test)',
    )
    quantised.add_argument(
        '--least_equal',
        metavar='SHARE',
        type=share,
        help='the minimum share of equal answers; below it, TARGET is not written (default: '
        f'{LEAST_EQUAL})',
    )
    args = parser.parse_args(argv)
    if args.private and args.to != 'hub':
        raise UsageError('--private goes with --to hub only')
    if args.dtype == 'int8' and args.to != 'onnx':
        raise UsageError('--dtype int8 goes with --to onnx only')
    for name in ('check', 'least_equal'):
        if args.dtype != 'int8' and getattr(args, name) is not None:
            raise UsageError(f'--{name} goes with --dtype int8 only')
    return args


def main(argv=None):
    """Convert, or compare.

    Returns
    -------
    dict of str to float, or None
        After a conversion, the largest difference in each output.
    """
    args = parse_args(argv)
    target = Path(args.target)
    if args.to == 'hub':
        check_upload(args.target)
    elif args.to and target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f'{target} already exists: TARGET must be a new directory')
    if args.check and not Path(args.check).is_file():
        raise UsageError(f'there is no file {args.check}')
    if args.to == 'onnx':
        require_onnx()
    packages.check_mxnet()
    start_logging(args.quiet)
    location = locate(args.source, args.bert_dataset)
    contents = reading.read(location)
    if args.compare:
        other = reading.read(locate(args.target, args.bert_dataset))
        compare(contents, other, (args.source, args.target))
        return None
    card = describe_source(args.source, args.bert_dataset, location)
    if args.to == 'hub':
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / 'model'
            differences = convert(contents, card, made, 'hf', name=args.target)
            show(f'uploaded: {upload(made, args.target, args.private)}')
        return differences
    check = choose_check(args, contents) if args.dtype == 'int8' else None
    if check:
        card = card._replace(facts={**card.facts, 'Conversion': {'weights': args.dtype}})
    return convert(contents, card, target, args.to, check)


def choose_check(args, contents):
    """Return what the int8 model must prove; refuse a model without answers to compare."""
    if not contents.weights.head:
        raise ToolkitError(
            f'--dtype int8 is for fine-tuned models: {args.source} has no classifier or regressor, '
            'so there are no answers to compare'
        )
    texts = read_texts(Path(args.check), contents) if args.check else example_texts(contents)
    return Check(texts, LEAST_EQUAL if args.least_equal is None else args.least_equal)


def require_onnx():
    """Refuse to begin without the packages of the onnx extra, or with ones that do not fit."""
    packages.check_fit('onnx', 'onnxruntime', 'protobuf')
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ToolkitError(
            f'--to onnx needs more packages ({error}): '
            "pip install '.[onnx]' in the toolkit's folder"
        ) from None
    except Exception as error:  # whatever a release makes of another one that it did not expect
        raise ToolkitError(
            f'--to onnx needs other releases of its packages ({type(error).__name__}: {error}): '
            "pip install --upgrade --upgrade-strategy eager '.[onnx]' in the toolkit's folder"
        ) from None


if __name__ == '__main__':
    run(main)
