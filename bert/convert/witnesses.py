"""Run a model here, and its conversion in the library that it was converted for.

Each library, MXNet too, is imported inside the function that needs it: the command's help and its
usage errors do without them.
"""

import numpy as np

from bert import ops
from bert.checkpoints import huggingface, reading, writing
from bert.system.errors import ToolkitError
from bert.text.encoding import encode, pad_batch
from bert.text.tokenizer import build_tokenizer

# The input for both models. Any vocabulary knows some of it.
PAIRS = (
    ('The bank said on Monday that profits rose by 4.5 %.', 'Profits fell, said the bank.'),
    ('A man is playing a guitar on the stage.', 'Someone plays an instrument.'),
    ('No.', 'Why not? It costs nothing, it is quick, and nobody will know (I think).'),
    ('Der Zug fährt um 7 Uhr ab.', 'Le train part à sept heures du matin.'),
    ('今天天气很好。', '我们去公园吧!'),
    ('unbelievably well-written, co-operative naïveté', 'WHO? The World Health Organization!'),
)


def build(contents):
    """Build a model just as this project trains it.

    Parameters
    ----------
    contents : bert.checkpoints.contents.Checkpoint

    Returns
    -------
    gluonnlp.model.BERTModel, or a model with one in ``bert`` and a head
    """
    from bert.model.encoder import speed_up
    from bert.model.loading import build_whole

    model = build_whole(contents)
    speed_up(getattr(model, 'bert', model), ops.available())
    return model


def example_texts(contents):
    """Return :data:`PAIRS`, or their first texts for a model that takes no pairs."""
    return PAIRS if contents.settings['token_type_vocab_size'] > 1 else [(a,) for a, _ in PAIRS]


def make_batch(contents):
    """Encode :data:`PAIRS` for a model.

    Returns
    -------
    (B, L) int32 ids, (B, L) int32 token types, (B,) float32 valid lengths
    """
    tokenizer = build_tokenizer(contents.vocab, contents.lower)
    texts = example_texts(contents)
    limit = min(contents.settings['max_length'], 128)
    return pad_batch(encode(texts, tokenizer, contents.vocab, limit), np.arange(len(texts)))


def run_gluon(model, batch):
    """Return all outputs of a Gluon model, with 0 at padding.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel, or a model with one in ``bert`` and a head
    batch : tuple
        See :func:`make_batch`.

    Returns
    -------
    dict of str to numpy.ndarray
        Under transformers' names.
    """
    from bert.model import outputs

    return blank_padding(outputs.run(model, batch), batch)


def blank_padding(outputs, batch):
    """Set a model's outputs for padding to 0, as they differ between libraries."""
    is_token = token_mask(batch)
    return {
        name: array * is_token[:, :, None] if array.ndim == 3 else array
        for name, array in outputs.items()
    }


def token_mask(batch):
    """Return the attention mask of a batch, (B, L) bool: True for tokens, False for padding."""
    ids, _, lengths = batch
    return np.arange(ids.shape[1]) < lengths[:, None]


def run_gluonnlp(folder, contents, batch):
    """Load a directory with nothing but GluonNLP, and run it.

    Returns
    -------
    str, dict of str to numpy.ndarray
        The name of the library and the outputs, as in the other ``run_`` functions.
    """
    import gluonnlp as nlp

    from bert.model import build_bert

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
        classes = len(contents.labels) if contents.labels else 1
        model = nlp.model.BERTClassifier(model, num_classes=classes, dropout=0.1)
    model.load_parameters(str(folder / 'model.params'))
    return f'GluonNLP {nlp.__version__}', run_gluon(model, batch)


def run_transformers(folder, contents, batch):
    """Load a directory with transformers, or with this project if it is missing, and run it."""
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
    ids, token_types, mask = (
        torch.from_numpy(array.astype(np.int64)) for array in (*batch[:2], token_mask(batch))
    )
    with torch.no_grad():
        outputs = model(
            input_ids=ids,
            attention_mask=mask,
            token_type_ids=token_types,
            output_hidden_states=True,
        )
    found = {'last_hidden_state': outputs.hidden_states[-1]}
    # The classes with one of the two heads name its output differently from the class with both.
    logits = {
        'BertForMaskedLM': 'prediction_logits',
        'BertForNextSentencePrediction': 'seq_relationship_logits',
    }
    for name in ('pooler_output', 'prediction_logits', 'seq_relationship_logits', 'logits'):
        if getattr(outputs, name, None) is not None:
            found[logits.get(architecture, name) if name == 'logits' else name] = outputs[name]
    if 'pooler.weight' not in contents.weights.bert:
        found.pop('pooler_output', None)  # from a pooler that transformers made up
    found = {name: output.numpy() for name, output in found.items()}
    return f'transformers {transformers.__version__}', blank_padding(found, batch)


def check_tokenizer(tokenizer, contents):
    """Refuse a tokenizer that splits one of :data:`PAIRS` differently from this project."""
    ours = build_tokenizer(contents.vocab, contents.lower)
    # No limit, in the type of lengths, which numpy 2 does not widen.
    encoded = encode(PAIRS, ours, contents.vocab, np.iinfo(np.int32).max)
    for pair, ids in zip(PAIRS, encoded.ids):
        if tokenizer(*pair)['input_ids'] != ids.tolist():
            raise ToolkitError(f'transformers splits {" ".join(pair)!r} into different tokens')


def write_onnx(folder, contents):
    """Write ``model.onnx``, and the files that a program needs to make its inputs."""
    from bert.convert import onnx
    from bert.model.loading import build_whole

    onnx.export(folder / 'model.onnx', build_whole(contents))
    writing.write_readable(folder, contents)


def run_onnxruntime(folder, contents, batch):
    """Run the model in a directory with onnxruntime."""
    import onnxruntime

    from bert.convert import onnx

    found = onnx.run(folder / 'model.onnx', *batch)
    return f'onnxruntime {onnxruntime.__version__}', blank_padding(found, batch)
