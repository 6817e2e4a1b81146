"""Load BERT for MXNet from any source, or build one to train from scratch."""

import mxnet as mx
import psutil

from bert import ops
from bert.checkpoints import config, reading
from bert.checkpoints.contents import HEAD_PREFIXES
from bert.checkpoints.gluon import gluon_vocab
from bert.checkpoints.source import locate, locate_configuration
from bert.model.build import build_bert, build_head, infer_shapes, initialize
from bert.model.encoder import speed_up
from bert.model.parameters import set_encoder, set_finetuned, set_parameters
from bert.system.errors import ToolkitError
from bert.text.vocab import pad_vocab

# A model of up to this many parameters (256 MB) is built even if there are no weights for them.
SMALL = 2**26


def load_bert(
    source,
    dataset=None,
    ctx=None,
    use_pooler=True,
    use_decoder=False,
    use_classifier=False,
    pretrained=True,
    output_attention=False,
    output_all_encodings=False,
):
    """Load a pre-trained BERT and its vocabulary.

    Parameters
    ----------
    source : str
        A model of the GluonNLP zoo (``bert_12_768_12``) or of the Hugging Face Hub
        (``google-bert/bert-base-uncased``), or ``minilm``, installed with pip; or a directory: in
        the layout of Hugging Face or of Gluon, with a Google TensorFlow checkpoint, or an output
        directory of this project.
    dataset : str, optional
        The data that a zoo model was trained on; needed only for a zoo model.
    ctx : mxnet.Context or list of them, optional
    use_pooler, use_decoder, use_classifier : bool
        Whether to have the pooler, the masked-LM head and the next-sentence head. A head that
        the source lacks is initialised as for training from scratch, and the log says so.
    pretrained : bool
        If False, all weights stay as initialised, and a zoo model's are not fetched.
    output_attention : bool
        Whether to return, as the second output, the attention weights as GluonNLP does: for each
        layer a list with one (batch, heads, length, length) array. The attention is then computed
        by MXNet's own operators.
    output_all_encodings : bool
        Whether the first output is a list of the encodings of each layer.

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
        'output_attention': output_attention,
        'output_all_encodings': output_all_encodings,
    }
    location = locate(source, dataset, with_weights=pretrained)
    weights = reading.read_weights(location) if pretrained else None
    bert, vocab = build_located(location, ctx or mx.cpu(), weights, **heads)
    if weights:
        set_encoder(bert, weights)
    return bert, vocab


def build_located(location, ctx, weights=None, dropout=None, **heads):
    """Build the BERT that a model directory describes, with random weights.

    Parameters
    ----------
    location : bert.checkpoints.contents.Location
    ctx : mxnet.Context or list of them
    weights : bert.checkpoints.contents.Weights, optional
        The weights in the same directory, which will be set.
    dropout : float, optional
        A rate to train with in place of the model's own, which its ``settings`` keep.
    **heads
        ``use_pooler``, ``use_decoder``, ``use_classifier``, ``output_attention`` and
        ``output_all_encodings``; see :func:`load_bert`.

    Returns
    -------
    (gluonnlp.model.BERTModel, gluonnlp.vocab.BERTVocab)
        The model has its sizes in the attribute ``settings``; see
        :func:`bert.checkpoints.config.parse_config`.
    """
    settings = reading.read_settings(location, weights)
    own = settings['dropout']
    if dropout is not None:
        settings = {**settings, 'dropout': dropout}
    _check_size(settings, location.config or location.folder, weights)
    vocab = reading.read_vocab(location)
    bert, vocab = _build_initialized(settings, vocab, location.vocab, ctx, heads)
    speed_up(bert, ops.serve_on(ctx))
    bert.settings['dropout'] = own
    return bert, vocab


def build_from_configuration(path, ctx, **heads):
    """Build a BERT to train from scratch, and its vocabulary.

    Parameters
    ----------
    path : str or Path
        See :func:`bert.checkpoints.source.locate_configuration`.
    ctx, **heads
        See :func:`build_located`.

    Returns
    -------
    (gluonnlp.model.BERTModel, gluonnlp.vocab.BERTVocab)
    """
    return build_located(locate_configuration(path), ctx, **heads)


def _check_size(settings, path, weights):
    """Refuse to build a model that the weights cannot fill or the memory cannot hold.

    The path, of the model or its configuration, is for the error.
    """
    count = config.count_parameters(settings)
    if weights:
        # A model that is only slightly too large is built, so that the error can name a tensor.
        most = max(SMALL, 2 * sum(array.size for array in weights.bert.values()))
        reason = 'its weights have far fewer'
    else:
        most = psutil.virtual_memory().total // 4
        reason = 'this machine does not have enough memory for them in float32'
    if count > most:
        raise ToolkitError(f'{path}: the configuration asks for {count} parameters, but {reason}')


def _build_initialized(settings, vocab, path, ctx, heads):
    """Build a BERT with random weights, and its vocabulary as GluonNLP's class."""
    settings = dict(settings)
    size = settings.pop('vocab_size')
    if size < len(vocab):
        raise ToolkitError(
            f'{path}: {len(vocab)} tokens are more than the vocab_size of the configuration, {size}'
        )
    vocab = pad_vocab(vocab, size)
    bert = build_bert(vocab, **settings, **heads)
    initialize(bert, ctx)
    infer_shapes(bert)
    return bert, gluon_vocab(vocab)


def build_whole(contents):
    """Build the model of a checkpoint, with exactly the heads that it has, on the CPU.

    Parameters
    ----------
    contents : bert.checkpoints.contents.Checkpoint

    Returns
    -------
    gluonnlp.model.BERTModel, gluonnlp.model.BERTClassifier or BERTRegression
        With GluonNLP's own attention, which can be exported.
    """
    parameters, head = contents.weights.bert, contents.weights.head
    heads = {
        flag: any(name.startswith(prefix) for name in parameters)
        for flag, prefix in zip(('use_pooler', 'use_decoder', 'use_classifier'), HEAD_PREFIXES)
    }
    path = contents.weights.path
    if (heads['use_classifier'] or head) and not heads['use_pooler']:
        raise ToolkitError(f'{path}: lacks pooler.weight, which its classifier needs')
    _check_size(contents.settings, path.parent, contents.weights)
    bert, _ = _build_initialized(contents.settings, contents.vocab, path, mx.cpu(), heads)
    if not head:
        set_parameters(bert, parameters, path)
        return bert
    for name in ('weight', 'bias'):
        if name not in head:
            raise ToolkitError(f"{path}: lacks its classifier's {name}")
    model = build_head(bert, contents.labels and len(contents.labels), mx.cpu())
    set_finetuned(model, contents.weights)
    return model
