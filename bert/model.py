"""BERT for MXNet: loading pre-trained models, and the heads for classification and regression."""

import logging
from pathlib import Path

import gluonnlp as nlp
import mxnet as mx
import psutil
from gluonnlp.model import bert as gluon_bert
from mxnet.gluon import nn

from bert import checkpoint, configuration, ops
from bert.cli import ToolkitError, UsageError
from bert.encoder import read_first_only, speed_up, use_bfloat16
from bert.files import read_json, replacing_folder
from bert.source import is_zoo_model, locate
from bert.vocab import SPECIAL_TOKENS, load_vocab, pad_vocab, plain_vocab
from bert.zoo import zoo_dataset

# Of a new head, and of a whole model without pre-trained weights: the original BERT's.
INITIALIZER = 0.02
# Parameters of a model that is built whether it has weights for them or not: 256 MB.
SMALL = 2**26


def build_bert(
    vocab,
    num_layers,
    units,
    hidden_size,
    num_heads,
    max_length,
    token_type_vocab_size=2,
    dropout=0.1,
    layer_norm_eps=1e-12,
    activation='gelu',
    use_pooler=True,
    use_decoder=False,
    use_classifier=False,
):
    """A BERT of any size, as ``gluonnlp.model.get_model`` builds those of the zoo, uninitialised.

    Parameters
    ----------
    vocab : Vocab or gluonnlp.vocab.BERTVocab
    num_layers, units, hidden_size, num_heads, max_length : int
        Layers, width, inner width of the feed-forward networks, attention heads, positions.

    Returns
    -------
    gluonnlp.model.BERTModel
    """
    encoder = gluon_bert.BERTEncoder(
        num_layers=num_layers,
        units=units,
        hidden_size=hidden_size,
        num_heads=num_heads,
        max_length=max_length,
        dropout=dropout,
        layer_norm_eps=layer_norm_eps,
        activation=activation,
    )
    return gluon_bert.BERTModel(
        encoder,
        vocab_size=len(vocab),
        token_type_vocab_size=token_type_vocab_size,
        units=units,
        embed_size=units,
        use_pooler=use_pooler,
        use_decoder=use_decoder,
        use_classifier=use_classifier,
    )


def settings_of(bert):
    """The sizes of a model, as keyword arguments of :func:`build_bert` and its vocabulary size."""
    encoder = bert.encoder
    cells = list(encoder.transformer_cells)
    approximate = getattr(cells[0].ffn.activation, '_approximate', False)
    return {
        'num_layers': len(cells),
        'units': encoder._units,
        'hidden_size': cells[0].ffn.ffn_1._units,
        'num_heads': cells[0].attention_cell._num_heads,
        'max_length': encoder._max_length,
        'vocab_size': bert.word_embed[0].weight.shape[0],
        'token_type_vocab_size': bert.token_type_embed[0].weight.shape[0],
        'dropout': encoder._dropout,
        'layer_norm_eps': encoder._layer_norm_eps,
        'activation': 'approx_gelu' if approximate else 'gelu',
    }


def load_bert(
    source,
    dataset=None,
    ctx=None,
    use_pooler=True,
    use_decoder=False,
    use_classifier=False,
    pretrained=True,
):
    """A pre-trained BERT and its vocabulary.

    Parameters
    ----------
    source : str
        A model of the GluonNLP zoo (``bert_12_768_12``) or of the Hugging Face Hub
        (``google-bert/bert-base-uncased``), or a directory: in Hugging Face's layout, in Gluon's,
        Google's with its TensorFlow checkpoint, or an output directory of this project.
    dataset : str, optional
        What the zoo's model was trained on; needed for a zoo model only.
    ctx : mxnet.Context or list of them, optional
    use_pooler, use_decoder, use_classifier : bool
        Whether to have the pooler, the masked-LM head and the next-sentence head. A head that
        the source lacks is initialised as for training from scratch, and the log says so.
    pretrained : bool
        False leaves all weights as they are initialised, and a zoo model's are not fetched.

    Returns
    -------
    (gluonnlp.model.BERTModel, gluonnlp.vocab.BERTVocab)
        Called with token ids and token types, both (batch, length), and valid lengths,
        (batch,), the model gives (batch, length, units) encodings and (batch, units) pooled
        ones.

    Raises
    ------
    UsageError
        If there is no such model.
    ToolkitError
        If its files are missing or damaged, or could not be fetched.
    """
    heads = {
        'use_pooler': use_pooler,
        'use_decoder': use_decoder,
        'use_classifier': use_classifier,
    }
    location = locate(source, dataset, with_weights=pretrained)
    weights = None
    if pretrained or not (location.zoo or (location.folder / 'config.json').is_file()):
        weights = checkpoint.read_weights(location)
    settings = checkpoint.read_settings(location, weights)
    vocab = checkpoint.read_vocab(location)
    ctx = ctx or mx.cpu()
    bert, vocab = _build_initialized(
        settings, vocab, location.vocab, ctx, heads, weights if pretrained else None
    )
    if pretrained:
        set_encoder(bert, weights.bert, weights.path)
    speed_up(bert, ops.serve_on(ctx))
    return bert, vocab


def _check_size(settings, folder, weights):
    """Refuse a model that the weights cannot fill, or the memory not hold, before it is built."""
    count = configuration.count_parameters(settings)
    if weights:
        # What is missing, or of another shape, is told by its name where that costs little.
        most = max(SMALL, 2 * sum(array.size for array in weights.bert.values()))
        reason = 'its weights are far fewer'
    else:
        most = psutil.virtual_memory().total // 4
        reason = 'the memory of this machine does not hold them as float32'
    if count > most:
        raise ToolkitError(f'{folder}: the configuration asks for {count} parameters, and {reason}')


def _build_initialized(settings, vocab, path, ctx, heads, weights=None):
    """A BERT of these settings with random weights, and the vocabulary as GluonNLP's class."""
    _check_size(settings, path.parent, weights)
    settings = dict(settings)
    size = settings.pop('vocab_size')
    if size < len(vocab):
        raise ToolkitError(
            f'{path.parent}: {path.name} has {len(vocab)} tokens and config.json a vocab_size of '
            f'{size}'
        )
    vocab = pad_vocab(vocab, size)
    bert = build_bert(vocab, **settings, **heads)
    initialize(bert, ctx)
    infer_shapes(bert)
    return bert, gluon_vocab(vocab)


def build_from_configuration(path, ctx, use_pooler=True, use_decoder=False, use_classifier=False):
    """A BERT to be trained from scratch, and its vocabulary.

    Parameters
    ----------
    path : str or Path
        A configuration in Hugging Face's keys, whatever its name, with ``vocab.txt`` beside it.
    ctx, use_pooler, use_decoder, use_classifier
        As in :func:`load_bert`.

    Returns
    -------
    (gluonnlp.model.BERTModel, gluonnlp.vocab.BERTVocab)
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f'there is no configuration file {path}')
    settings = configuration.parse_config(read_json(path), path)
    vocab_path = path.parent / 'vocab.txt'
    heads = {
        'use_pooler': use_pooler,
        'use_decoder': use_decoder,
        'use_classifier': use_classifier,
    }
    bert, vocab = _build_initialized(settings, load_vocab(vocab_path), vocab_path, ctx, heads)
    speed_up(bert, ops.serve_on(ctx))
    return bert, vocab


def build_whole(contents, ctx):
    """The model of a checkpoint, with just those heads that it has.

    Parameters
    ----------
    contents : bert.checkpoint.Checkpoint
    ctx : mxnet.Context

    Returns
    -------
    gluonnlp.model.BERTModel, gluonnlp.model.BERTClassifier or BERTRegression
        With GluonNLP's own attention, which any program can export.
    """
    parameters, head = contents.weights.bert, contents.weights.head
    heads = {
        flag: any(name.startswith(prefix) for name in parameters)
        for flag, prefix in zip(
            ('use_pooler', 'use_decoder', 'use_classifier'), checkpoint.HEAD_PREFIXES
        )
    }
    path = contents.weights.path
    if (heads['use_classifier'] or head) and not heads['use_pooler']:
        raise ToolkitError(f'{path}: lacks pooler.weight, which its classifier needs')
    bert, _ = _build_initialized(
        contents.settings, contents.vocab, path, ctx, heads, contents.weights
    )
    if not head:
        checkpoint.set_parameters(bert, parameters, path)
        return bert
    for name in ('weight', 'bias'):
        if name not in head:
            raise ToolkitError(f"{path}: lacks its classifier's {name}")
    model = build_head(bert, contents.labels and len(contents.labels), ctx)
    set_finetuned(model, parameters, head, path)
    return model


def load_encoder(bert, source):
    """Load the BERT inside a Gluon parameter file, fine-tuned or not, or another source."""
    weights = checkpoint.read_weights(locate(str(source)))
    set_encoder(bert, weights.bert, weights.path)


def set_encoder(bert, parameters, path):
    """Set the weights of a BERT; heads that are not among them stay as they are, logged."""
    missing = checkpoint.set_parameters(bert, parameters, path, checkpoint.HEAD_PREFIXES)
    if missing:
        logging.info('%s lacks %s: initialised', path, ', '.join(missing))


def load_finetuned(model, source, labels=None):
    """Load a fine-tuned model, its classifier included.

    Parameters
    ----------
    model : gluonnlp.model.BERTClassifier or BERTRegression
    source : str or Path
        A Gluon parameter file, or any other source of a fine-tuned model.
    labels : sequence of str, optional
        In the order of the classes of ``model``. The rows of the head are put into that order
        where the source says that it has the same labels in another one.
    """
    location = locate(str(source))
    weights = checkpoint.read_weights(location)
    head = weights.head
    theirs, _ = checkpoint.read_labels(location, weights) if head else (None, {})
    if labels and theirs and list(labels) != theirs:
        if sorted(labels) == sorted(theirs):
            rows = [theirs.index(label) for label in labels]
            head = {name: array[rows] for name, array in head.items()}
        elif len(labels) == len(theirs) and theirs != configuration.generic_labels(len(theirs)):
            pairs = (f'{their} as {label}' for their, label in zip(theirs, labels))
            logging.info('%s: takes its classes %s', weights.path, ', '.join(pairs))
    set_finetuned(model, weights.bert, head, weights.path)


def set_finetuned(model, parameters, head, path):
    """Set all weights of a fine-tuned model; pre-training heads that it lacks are left out."""
    name = 'regression' if isinstance(model, BERTRegression) else 'classifier'
    number = len(getattr(model, name)) - 1  # after the dropout, if there is one
    named = {f'bert.{key}': array for key, array in parameters.items()}
    named.update({f'{name}.{number}.{key}': array for key, array in head.items()})
    checkpoint.set_parameters(model, named, path)


def save_huggingface(folder, bert, vocab, lower):
    """Write a model directory, whole or not at all, that transformers reads too.

    Parameters
    ----------
    folder : Path
        Replaced where it is there.
    bert : gluonnlp.model.BERTModel
    vocab : gluonnlp.vocab.BERTVocab
    lower : bool
        Whether the text is lower-cased.
    """
    parameters = {
        name: parameter.data(parameter.list_ctx()[0]).astype('float32').asnumpy()
        for name, parameter in bert._collect_params_with_prefix().items()
    }
    contents = checkpoint.Checkpoint(
        settings=settings_of(bert),
        vocab=plain_vocab(vocab),
        lower=lower,
        weights=checkpoint.Weights(Path(folder), parameters, {}),
        labels=None,
        flags={},
    )
    with replacing_folder(folder) as temporary:
        checkpoint.write_huggingface(temporary, contents)


def cast(model, dtype):
    """Have a BERT, or a model with one, compute in ``float32``, ``float16`` or ``bfloat16``.

    In float16 the parameters are float16 too; in bfloat16 they stay float32, and the matrix
    products of the encoder and of the masked-LM head alone are computed in bfloat16.
    """
    if dtype == 'bfloat16':
        use_bfloat16(getattr(model, 'bert', model))
    else:
        model.cast(dtype)


def initialize(block, ctx):
    """Initialise parameters as the original BERT does: normal weights, LayerNorm 1 and 0."""
    block.initialize(mx.init.Normal(INITIALIZER), ctx=ctx)


def infer_shapes(bert):
    """Make all shapes known, as the first batch would, to compare those of a file with them."""
    tokens = [mx.nd.zeros((1, 1)), mx.nd.zeros((1, 1)), mx.nd.ones((1,))]
    if hasattr(bert, 'decoder'):
        tokens.append(mx.nd.zeros((1, 1)))
    bert.infer_shape(*tokens)


def gluon_vocab(vocab):
    """A :class:`~bert.vocab.Vocab` as GluonNLP's class, with the same ids."""
    return nlp.vocab.BERTVocab(
        nlp.data.count_tokens(vocab.idx_to_token),
        token_to_idx=vocab.token_to_idx,
        **{name: getattr(vocab, name) for name in SPECIAL_TOKENS},
    )


def is_lower_case(source, dataset, vocab):
    """Whether the text must be lower-cased for a model, and why, as a clause.

    See :func:`bert.checkpoint.read_casing`; nothing is fetched for a model of the zoo.
    """
    if is_zoo_model(source):
        return zoo_dataset(source, dataset).endswith('_uncased'), f'by its name {dataset}'
    return checkpoint.read_casing(locate(source), vocab)


class BERTRegression(mx.gluon.HybridBlock):
    """A pooled BERT encoding and one dense unit, for similarity scores.

    The parameters have the names of the original's regression model, ``bert.*`` and
    ``regression.1.*``.
    """

    def __init__(self, bert, dropout=0.1):
        super().__init__()
        self.bert = bert
        with self.name_scope():
            self.regression = nn.HybridSequential()
            self.regression.add(nn.Dropout(dropout), nn.Dense(1))

    def __call__(self, inputs, token_types, valid_length=None):
        """Score (batch, 1) of each pair."""
        return super().__call__(inputs, token_types, valid_length)

    def hybrid_forward(self, F, inputs, token_types, valid_length=None):
        _, pooled = self.bert(inputs, token_types, valid_length)
        return self.regression(pooled)


def build_head(bert, num_classes, ctx, dropout=None):
    """A classifier, or for ``num_classes=None`` a regression model, on top of a loaded BERT.

    Called with token ids and token types, both (batch, length), and valid lengths, (batch,), it
    gives (batch, num_classes) logits or (batch, 1) scores. The head is initialised with
    Normal(0.02). The BERT itself then encodes the first position only, which the head reads.
    Unless told, its dropout is that of the encoder, 0.1 in all published models.
    """
    read_first_only(bert)
    if dropout is None:
        dropout = bert.encoder._dropout
    if num_classes is None:
        model = BERTRegression(bert, dropout)
        head = model.regression
    else:
        model = nlp.model.BERTClassifier(bert, num_classes=num_classes, dropout=dropout)
        head = model.classifier
    # Known now, so that the head is initialised here and not in the first step.
    head[-1].weight.shape = (num_classes or 1, bert._units)
    initialize(head, ctx)
    return model
