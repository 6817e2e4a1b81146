"""TODO"""

import sys

import numpy as np

from bert import ops
from bert.checkpoints import huggingface, reading, writing
from bert.convert import onnx
from bert.model import loading
from bert.model.build import build_bert
from bert.model.encoder import speed_up
from bert.system.errors import ToolkitError
from bert.text import encoding
from bert.text import tokenizer as text_tokenizer
from bert.text.tokenizer import build_tokenizer

# What both models run on. Any vocabulary knows some of it.
PAIRS = (
    ('The bank said on Monday that profits rose by 4.5 %.', 'Profits fell, said the bank.'),
    ('A man is playing a guitar on the stage.', 'Someone plays an instrument.'),
    ('No.', 'Why not? It costs nothing, it is quick, and nobody will know (I think).'),
    ('Der Zug fährt um 7 Uhr ab.', 'Le train part à sept heures du matin.'),
    ('今天天气很好。', '我们去公园吧!'),
    ('unbelievably well-written, co-operative naïveté', 'WHO? The World Health Organization!'),
)


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


def build(contents):
    """The model as this project trains it."""
    import mxnet as mx

    model = loading.build_whole(contents, mx.cpu())
    speed_up(getattr(model, 'bert', model), ops.serve_on(mx.cpu()))
    return model


def make_batch(contents):
    """:data:`PAIRS` as a model takes them.

    Returns
    -------
    (B, L) int32 ids, (B, L) int32 token types, (B,) float32 valid lengths
    """
    tokenizer = build_tokenizer(contents.vocab, contents.lower)
    texts = PAIRS if contents.settings['token_type_vocab_size'] > 1 else [(a,) for a, _ in PAIRS]
    limit = min(contents.settings['max_length'], 128)
    encoded = encoding.encode(texts, tokenizer, contents.vocab, limit)
    return encoding.pad_batch(encoded, np.arange(len(texts)))


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


def check_gluon(folder, contents, batch):
    """Load a directory with nothing but GluonNLP, and run it."""
    import gluonnlp as nlp
    import mxnet as mx

    vocab = nlp.vocab.BERTVocab.from_json((folder / 'vocab.vocab').read_text(encoding='utf8'))
    parameters = contents.weights.bert
    settings = {name: v for name, v in contents.settings.items() if name != 'vocab_size'}
    model = build_bert(
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
        return witness, run_gluon(build(reading.read(reading.find_parts(folder))), batch)
    check_tokenizer(transformers.AutoTokenizer.from_pretrained(folder), contents)
    architecture = huggingface.architecture_of(*contents.weights[1:])
    transformers.utils.logging.disable_progress_bar()
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    ids, token_types, lengths = batch
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    with torch.no_grad():
        outputs = model(
            **{
                name: torch.from_numpy(array.astype(np.int64))
                for name, array in zip(onnx.INPUTS, (ids, mask, token_types))
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
    ours = text_tokenizer.build_tokenizer(contents.vocab, contents.lower)
    encoded = encoding.encode(PAIRS, ours, contents.vocab, sys.maxsize)
    for pair, ids in zip(PAIRS, encoded.ids):
        if tokenizer(*pair)['input_ids'] != ids.tolist():
            raise ToolkitError(f'transformers splits {" ".join(pair)!r} into other tokens')


def write_onnx(folder, contents):
    """Write ``model.onnx`` and what a program needs beside it to make its inputs."""
    import mxnet as mx

    model = loading.build_whole(contents, mx.cpu())
    onnx.export(folder / 'model.onnx', model)
    writing.write_readable(folder, contents)


def check_onnx(folder, contents, batch):
    """Run a directory with onnxruntime."""
    import onnxruntime

    found = onnx.run(folder / 'model.onnx', *batch)
    return f'onnxruntime {onnxruntime.__version__}', blank_padding(found, batch)
