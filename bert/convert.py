"""Convert a BERT of any kind to another kind and prove that it is the same model, or compare two.

SOURCE is what every --bert_model takes: a model of the GluonNLP zoo or of the Hugging Face Hub, or
a directory in Hugging Face's layout, in Gluon's, with a TensorFlow checkpoint of Google, or written
by this project; or a Gluon .params file beside its vocabulary. TARGET is a new directory.
"""

import sys
from pathlib import Path

import numpy as np

import bert
from bert import checkpoint
from bert.cli import ToolkitError, UsageError, build_parser, run, start_logging
from bert.files import replacing_folder

EPILOG = """\
targets:
  gluon  model.params, vocab.vocab and config.json, for GluonNLP 0.10 and for --bert_model
  hf     model.safetensors, config.json and the tokenizer, for transformers and for --bert_model
  onnx   model.onnx, config.json and the tokenizer, for ONNX runtimes; needs pip install '.[onnx]'

examples:
  python -m bert.convert google-bert/bert-base-uncased bert_base --to gluon
  python -m bert.convert output_dir my_classifier --to hf
  python -m bert.convert bert_12_768_12 chinese --bert_dataset wiki_cn --to onnx
  python -m bert.convert --compare output_dir my_classifier
"""

# Largest difference of an output that counts as the same, for outputs of the size 1.
TOLERANCE = 1e-4

# What both models run on. Any vocabulary knows some of it.
PAIRS = (
    ('The bank said on Monday that profits rose by 4.5 %.', 'Profits fell, said the bank.'),
    ('A man is playing a guitar on the stage.', 'Someone plays an instrument.'),
    ('No.', 'Why not? It costs nothing, it is quick, and nobody will know (I think).'),
    ('Der Zug fährt um 7 Uhr ab.', 'Le train part à sept heures du matin.'),
    ('今天天气很好。', '我们去公园吧!'),
    ('unbelievably well-written, co-operative naïveté', 'WHO? The World Health Organization!'),
)


def parse_args(argv=None):
    """The flags."""
    parser = build_parser(__doc__, prog='python -m bert.convert', epilog=EPILOG)
    parser.add_argument('source', metavar='SOURCE', help='the model')
    parser.add_argument(
        'target', metavar='TARGET', help='a directory to make; with --compare, another model'
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--to', choices=WRITERS, help='the kind of TARGET')
    what.add_argument(
        '--compare',
        action='store_true',
        help='print how far all tensors and outputs of the two models differ; status 1 if they do',
    )
    parser.add_argument(
        '--bert_dataset',
        default='book_corpus_wiki_en_uncased',
        help='what a model of the zoo was pre-trained on',
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Convert, or compare.

    Returns
    -------
    dict of str to float, or None
        The largest difference of each output of a conversion.
    """
    args = parse_args(argv)
    target = Path(args.target)
    if args.to and target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f'{target} is there already: TARGET is a new directory')
    if args.to == 'onnx':
        require_onnx()
    bert.environment.check_mxnet()
    start_logging()
    contents = checkpoint.read(args.source, args.bert_dataset)
    if args.compare:
        compare(contents, checkpoint.read(args.target, args.bert_dataset), args)
        return None
    return convert(contents, target, args.to)


def require_onnx():
    """Refuse to begin without the packages of the extra."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ToolkitError(
            f'--to onnx needs more packages ({error}): '
            "pip install '.[onnx]' in the toolkit's folder"
        ) from None


def convert(contents, target, kind):
    """Write a model as another kind, load it again and run both.

    Returns
    -------
    dict of str to float
        The largest difference of each output.
    """
    write, check = WRITERS[kind]
    # First the model, as the import of MXNet forks, which tokenizers at work do not like.
    model = build(contents)
    batch = make_batch(contents)
    expected = run_gluon(model, batch)
    with replacing_folder(target.absolute()) as temporary:
        write(temporary, contents)
        if kind != 'onnx':
            require_equal(contents, checkpoint.read(str(temporary)), target)
        witness, found = check(temporary, contents, batch)
        differences = {name: largest_difference(found[name], expected[name]) for name in found}
        told = ', '.join(f'{name} {value:.1e}' for name, value in differences.items())
        if not all(is_same(found[name], expected[name]) for name in found):
            raise ToolkitError(
                f'{target} was not written: {witness} gets other outputs from it than this project '
                f'(largest difference: {told})'
            )
    settings = contents.settings
    print(
        f'{target}: {settings["num_layers"]} layers, {settings["units"]} units, '
        f'{settings["vocab_size"]} tokens, {len(contents.weights.bert)} tensors'
        + (f', a head with {describe_labels(contents)}' if contents.weights.head else '')
    )
    print(f'largest difference, this project and {witness}, {len(PAIRS)} texts: {told}')
    return differences


def describe_labels(contents):
    """What the head of a fine-tuned model predicts."""
    return ' '.join(contents.labels) if contents.labels else 'a number'


def build(contents):
    """The model as this project trains it."""
    import mxnet as mx

    model = bert.model.build_whole(contents, mx.cpu())
    bert.encoder.speed_up(getattr(model, 'bert', model), bert.ops.serve_on(mx.cpu()))
    return model


def make_batch(contents):
    """:data:`PAIRS` as a model takes them.

    Returns
    -------
    (B, L) int32 ids, (B, L) int32 token types, (B,) float32 valid lengths
    """
    tokenizer = bert.tokenizer.build_tokenizer(contents.vocab, contents.lower)
    texts = PAIRS if contents.settings['token_type_vocab_size'] > 1 else [(a,) for a, _ in PAIRS]
    limit = min(contents.settings['max_length'], 128)
    encoded = bert.transform.encode(texts, tokenizer, contents.vocab, limit)
    return bert.transform.pad_batch(encoded, np.arange(len(texts)))


def run_gluon(model, batch):
    """All outputs of a Gluon model, under transformers' names, 0 where a row is padded.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel, or a model with one in ``bert`` and a head
    batch : tuple
        See :func:`make_batch`.

    Returns
    -------
    dict of str to numpy.ndarray
    """
    import mxnet as mx

    ids, token_types, lengths = (mx.nd.array(array) for array in batch)
    encoder = getattr(model, 'bert', model)
    names, inputs = ['last_hidden_state'], [ids, token_types, lengths]
    if encoder._use_pooler:
        names.append('pooler_output')
    if encoder._use_classifier:
        names.append('seq_relationship_logits')
    if encoder._use_decoder:
        names.append('prediction_logits')
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        inputs.append(mx.nd.array(positions))
    values = encoder(*inputs)
    outputs = dict(zip(names, values if isinstance(values, tuple) else [values]))
    if model is not encoder:
        outputs['logits'] = model(ids, token_types, lengths)
    return blank_padding({name: a.asnumpy() for name, a in outputs.items()}, batch)


def blank_padding(outputs, batch):
    """Set to 0 what a model gives for padding, which is nobody's output."""
    ids, _, lengths = batch
    is_token = np.arange(ids.shape[1]) < lengths[:, None]
    return {
        name: array * is_token[:, :, None] if array.ndim == 3 else array
        for name, array in outputs.items()
    }


def largest_difference(found, expected):
    """Of two arrays of the same shape."""
    return float(np.abs(found.astype(np.float64) - expected).max())


def is_same(found, expected):
    """Whether two outputs differ by rounding only; not so where one is not a number."""
    limit = TOLERANCE * max(1, np.abs(expected).max())
    return found.shape == expected.shape and largest_difference(found, expected) <= limit


def require_equal(expected, found, target):
    """Refuse a written model that does not come back as it was, to the bit."""
    for name in ('settings', 'lower', 'labels', 'flags'):
        if getattr(expected, name) != getattr(found, name):
            raise ToolkitError(f'{target} was not written: its {name} did not come back')
    if expected.vocab.idx_to_token != found.vocab.idx_to_token:
        raise ToolkitError(f'{target} was not written: its vocabulary did not come back')
    for ours, theirs in zip(expected.weights[1:], found.weights[1:]):
        names = set(ours) - {'decoder.3.weight'}
        if names != set(theirs) - {'decoder.3.weight'} or not all(
            np.array_equal(ours[name].astype(np.float32), theirs[name], equal_nan=True)
            for name in names
        ):
            raise ToolkitError(f'{target} was not written: its tensors did not come back')


def check_gluon(folder, contents, batch):
    """Load a directory with nothing but GluonNLP, and run it."""
    import gluonnlp as nlp
    import mxnet as mx

    vocab = nlp.vocab.BERTVocab.from_json((folder / 'vocab.vocab').read_text(encoding='utf8'))
    parameters = contents.weights.bert
    settings = {name: v for name, v in contents.settings.items() if name != 'vocab_size'}
    model = bert.model.build_bert(
        vocab,
        **settings,
        use_pooler='pooler.weight' in parameters,
        use_decoder='decoder.0.weight' in parameters,
        use_classifier='classifier.weight' in parameters,
    )
    if contents.weights.head:
        classes = len(contents.labels or 'x')
        model = nlp.model.BERTClassifier(model, num_classes=classes, dropout=0.1)
    model.load_parameters(str(folder / 'model.params'), ctx=mx.cpu())
    return f'GluonNLP {nlp.__version__}', run_gluon(model, batch)


def check_huggingface(folder, contents, batch):
    """Load a directory with transformers, and run it; without transformers with this project."""
    try:
        import torch
        import transformers
    except ImportError:
        witness = 'this project again, as transformers is not installed'
        return witness, run_gluon(build(checkpoint.read(str(folder))), batch)
    check_tokenizer(transformers.AutoTokenizer.from_pretrained(folder), contents)
    architecture = bert.huggingface.architecture_of(*contents.weights[1:])
    transformers.utils.logging.disable_progress_bar()
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    ids, token_types, lengths = batch
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    with torch.no_grad():
        outputs = model(
            **{
                name: torch.from_numpy(array.astype(np.int64))
                for name, array in zip(bert.onnx_export.INPUTS, (ids, mask, token_types))
            },
            output_hidden_states=True,
        )
    found = {'last_hidden_state': outputs.hidden_states[-1]}
    # The classes with one head of two call it differently from the class with both.
    logits = {
        'BertForMaskedLM': 'prediction_logits',
        'BertForNextSentencePrediction': 'seq_relationship_logits',
    }
    for name in ('pooler_output', 'prediction_logits', 'seq_relationship_logits', 'logits'):
        if getattr(outputs, name, None) is not None:
            found[logits.get(architecture, name) if name == 'logits' else name] = outputs[name]
    if 'pooler.weight' not in contents.weights.bert:
        found.pop('pooler_output', None)  # transformers makes one up
    found = {name: output.numpy() for name, output in found.items()}
    return f'transformers {transformers.__version__}', blank_padding(found, batch)


def check_tokenizer(tokenizer, contents):
    """Refuse a tokenizer that splits one of :data:`PAIRS` in another way than this project."""
    ours = bert.tokenizer.build_tokenizer(contents.vocab, contents.lower)
    encoded = bert.transform.encode(PAIRS, ours, contents.vocab, sys.maxsize)
    for pair, ids in zip(PAIRS, encoded.ids):
        if tokenizer(*pair)['input_ids'] != ids.tolist():
            raise ToolkitError(f'transformers splits {" ".join(pair)!r} into other tokens')


def write_onnx(folder, contents):
    """Write ``model.onnx`` and what a program needs beside it to make its inputs."""
    import mxnet as mx

    model = bert.model.build_whole(contents, mx.cpu())
    bert.onnx_export.export(folder / 'model.onnx', model)
    checkpoint.write_readable(folder, contents)


def check_onnx(folder, contents, batch):
    """Run a directory with onnxruntime."""
    import onnxruntime

    found = bert.onnx_export.run(folder / 'model.onnx', *batch)
    return f'onnxruntime {onnxruntime.__version__}', blank_padding(found, batch)


def compare(ours, theirs, args):
    """Print how far two models differ.

    Parameters
    ----------
    ours, theirs : bert.checkpoint.Checkpoint
    args : argparse.Namespace
        With their names, ``source`` and ``target``.

    Raises
    ------
    ToolkitError
        If it is more than rounding.
    """
    ours_order, theirs_order = ours.vocab.idx_to_token, theirs.vocab.idx_to_token
    if ours_order != theirs_order and sorted(ours_order) == sorted(theirs_order):
        print('the same tokens have other ids: compared token by token')
        theirs = checkpoint.reorder(theirs, ours.vocab)
    rows, reasons = compare_descriptions(ours, theirs)
    for more_rows, more_reasons in (
        compare_arrays(tensors_of(ours), tensors_of(theirs), args, lambda *arrays: True),
        compare_arrays(
            *(run_gluon(build(contents), make_batch(contents)) for contents in (ours, theirs)),
            args,
            is_same,
        ),
    ):
        rows += more_rows
        reasons += more_reasons
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, shape, difference in rows:
        print(f'{name:{widths[0]}}  {shape:{widths[1]}}  {difference}'.rstrip())
    if reasons:
        raise ToolkitError(f'{args.source} and {args.target} differ: {"; ".join(reasons[:3])}')
    print('the same model')


def compare_descriptions(ours, theirs):
    """What two models say of themselves.

    Returns
    -------
    list of (str, str, str)
        Rows of the table, where they differ.
    list of str
        Why the models are not the same; another dropout rate is no reason.
    """
    rows, reasons = [], []
    pairs = {name: (value, theirs.settings[name]) for name, value in ours.settings.items()}
    for name in ('lower', 'labels'):
        pairs[name] = tuple(getattr(contents, name) for contents in (ours, theirs))
    pairs['vocabulary'] = tuple(
        bert.vocab.fingerprint(contents.vocab)[:8] for contents in (ours, theirs)
    )
    for name, values in pairs.items():
        if values[0] != values[1]:
            rows.append((name, '', f'{values[0]} and {values[1]}'))
            reasons += [name] * (name != 'dropout')
    return rows, reasons


def tensors_of(contents):
    """All tensors of a model by name; those of a classifier or regressor begin with ``head.``."""
    head = {f'head.{name}': array for name, array in contents.weights.head.items()}
    tensors = {**contents.weights.bert, **head}
    # the word embedding under a second name
    tensors.pop('decoder.3.weight', None)
    return tensors


def compare_arrays(ours, theirs, args, is_good):
    """Two tables of arrays, in the order of their names.

    Returns
    -------
    list of (str, str, str), list of str
        As :func:`compare_descriptions`.
    """
    rows, reasons = [], []
    for name in sorted({**ours, **theirs}, key=natural_order):
        arrays = [table[name] for table in (ours, theirs) if name in table]
        shapes = [by_times(array.shape) for array in arrays]
        if len(arrays) == 1:
            owner = args.source if name in ours else args.target
            rows.append((name, shapes[0], f'only in {owner}'))
            reasons.append(f'{name} is only in {owner}')
        elif shapes[0] != shapes[1]:
            rows.append((name, f'{shapes[0]}, {shapes[1]}', ''))
            reasons.append(f'{name} has another shape')
        else:
            rows.append((name, shapes[0], f'{largest_difference(*arrays):.1e}'))
            if not is_good(*arrays):
                reasons.append(f'{name} by {largest_difference(*arrays):.1e}')
    return rows, reasons


def natural_order(name):
    """A key that sorts layer 10 after layer 9."""
    return [(part.isdigit(), part.zfill(3)) for part in name.split('.')]


def by_times(shape):
    """A shape as text.

    >>> by_times((2, 16))
    '2x16'
    """
    return 'x'.join(str(size) for size in shape)


# By kind: a function that writes a directory, and one that loads and runs it. Each takes the
# folder and the checkpoint, the second one a batch too; it returns who ran it, and the outputs.
WRITERS = {
    'gluon': (checkpoint.write_gluon, check_gluon),
    'hf': (checkpoint.write_huggingface, check_huggingface),
    'onnx': (write_onnx, check_onnx),
}


if __name__ == '__main__':
    run(main)
