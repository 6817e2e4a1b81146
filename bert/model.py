"""BERT for MXNet: loading pre-trained models, and the heads for classification and regression."""

import logging
import os
import zipfile
from pathlib import Path

import gluonnlp as nlp
import mxnet as mx
from gluonnlp.model import bert as gluon_bert
from mxnet.gluon import nn

from bert import checkpoint, ops
from bert.cli import ToolkitError, UsageError
from bert.encoder import read_first_only, speed_up, use_bfloat16
from bert.files import read_json
from bert.vocab import OTHER_SPELLINGS, SPECIAL_TOKENS, Vocab, has_capitals, load_vocab

ENGLISH = ('book_corpus_wiki_en_uncased', 'book_corpus_wiki_en_cased')
OTHERS = ('wiki_multilingual_uncased', 'wiki_multilingual_cased', 'wiki_cn_cased')
# The seven pre-trained models of the GluonNLP zoo that the original scripts offered.
ZOO = {'bert_12_768_12': ENGLISH + OTHERS, 'bert_24_1024_16': ENGLISH}

# Of a new head, and of a whole model without pre-trained weights: the original BERT's.
INITIALIZER = 0.02


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
        A model of the GluonNLP zoo (``bert_12_768_12``), or a directory with ``config.json``,
        ``vocab.txt`` and ``model.safetensors`` in Hugging Face layout or the parameters that
        finetune_classifier.py left there.
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
        If its files are missing or damaged.
    """
    heads = {
        'use_pooler': use_pooler,
        'use_decoder': use_decoder,
        'use_classifier': use_classifier,
    }
    ctx = ctx or mx.cpu()
    if is_directory(source):
        bert, vocab = _load_directory(source, ctx, pretrained, heads)
    else:
        dataset = zoo_dataset(source, dataset)
        try:
            bert, vocab = nlp.model.get_model(
                source, dataset_name=dataset, pretrained=pretrained, ctx=ctx, **heads
            )
        except (
            OSError,
            RuntimeError,
            UserWarning,
            # a wrong checksum, and an archive that is none or lacks its file
            ValueError,
            zipfile.BadZipFile,
            KeyError,
            mx.MXNetError,
        ) as error:
            raise ToolkitError(
                f'{source} {dataset} could not be fetched from the GluonNLP model zoo: {error}'
            ) from None
        if not pretrained:
            initialize(bert, ctx)
            infer_shapes(bert)
    speed_up(bert, ops.serve_on(ctx if isinstance(ctx, (list, tuple)) else [ctx]))
    return bert, vocab


def is_directory(source):
    """Whether ``--bert_model`` names a directory, as opposed to a model of the zoo."""
    return source not in ZOO and (os.sep in source or Path(source).is_dir())


def zoo_dataset(model, dataset):
    """The zoo's name for a data set, checked to exist for that model.

    >>> zoo_dataset('bert_12_768_12', 'wiki_cn')
    'wiki_cn_cased'
    """
    if model not in ZOO:
        raise UsageError(f'--bert_model {model} is neither a directory nor one of {", ".join(ZOO)}')
    dataset = OTHER_SPELLINGS.get(dataset, dataset)
    if dataset not in ZOO[model]:
        raise UsageError(
            f'there is no {model} trained on {dataset}; there is one on {", ".join(ZOO[model])}'
        )
    return dataset


def _load_directory(folder, ctx, pretrained, heads):
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f'there is no model directory {folder}')
    bert, vocab = _build_local(checkpoint.read_config(folder), folder, ctx, heads)
    if not pretrained:
        return bert, vocab
    if checkpoint.is_finetuned(folder):
        load_encoder(bert, checkpoint.read_finetuned(folder)['parameters'])
    else:
        set_encoder(bert, checkpoint.read_huggingface(folder), folder / 'model.safetensors')
    return bert, vocab


def _build_local(settings, folder, ctx, heads):
    """A BERT of these settings, initialised, and the vocabulary in the folder."""
    vocab = load_vocab(folder / 'vocab.txt')
    size = settings.pop('vocab_size')
    if size < len(vocab):
        raise ToolkitError(
            f'{folder}: vocab.txt has {len(vocab)} tokens and config.json a vocab_size of {size}'
        )
    # Some models round the embedding up; the extra rows have no token and are never looked up.
    if size > len(vocab):
        unnamed = [f'[unnamed{number}]' for number in range(len(vocab), size)]
        vocab = Vocab(vocab.idx_to_token + unnamed, source=folder)
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
    settings = checkpoint.parse_config(read_json(path), path)
    heads = {
        'use_pooler': use_pooler,
        'use_decoder': use_decoder,
        'use_classifier': use_classifier,
    }
    bert, vocab = _build_local(settings, path.parent, ctx, heads)
    speed_up(bert, ops.serve_on(ctx if isinstance(ctx, (list, tuple)) else [ctx]))
    return bert, vocab


def load_encoder(bert, path):
    """Load a Gluon parameter file of a BERT, or the BERT inside a fine-tuned model."""
    parameters = checkpoint.read_gluon(path)
    prefix = 'bert.'
    inner = {
        name[len(prefix) :]: array for name, array in parameters.items() if name.startswith(prefix)
    }
    set_encoder(bert, inner or parameters, path)


def set_encoder(bert, parameters, path):
    """Set the weights of a BERT; heads that are not among them stay as they are, logged."""
    missing = checkpoint.set_parameters(bert, parameters, path, checkpoint.HEAD_PREFIXES)
    if missing:
        logging.info('%s lacks %s: initialised', path, ', '.join(missing))


def load_finetuned(model, path):
    """Load a Gluon parameter file of a fine-tuned model, its classifier included."""
    checkpoint.set_parameters(model, checkpoint.read_gluon(path), path)


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


def plain_vocab(vocab):
    """The inverse of :func:`gluon_vocab`, without the tokens that only round an embedding up."""
    tokens = list(vocab.idx_to_token)
    while tokens[-1] == f'[unnamed{len(tokens) - 1}]':
        tokens.pop()
    return Vocab(tokens, **{name: getattr(vocab, name) for name in SPECIAL_TOKENS})


def is_lower_case(source, dataset, vocab):
    """Whether the text must be lower-cased for this model.

    ``tokenizer_config.json`` in the model directory says so; else the name of the zoo's data
    set; else the vocabulary: one without capital letters is uncased.
    """
    if not is_directory(source):
        return zoo_dataset(source, dataset).endswith('_uncased'), f'by its name {dataset}'
    path = Path(source) / 'tokenizer_config.json'
    if path.is_file():
        lower = read_json(path).get('do_lower_case')
        if isinstance(lower, bool):
            return lower, f'by {path}'
    return not has_capitals(vocab), 'by its vocabulary'


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


def build_head(bert, num_classes, ctx, dropout=0.1):
    """A classifier, or for ``num_classes=None`` a regression model, on top of a loaded BERT.

    Called with token ids and token types, both (batch, length), and valid lengths, (batch,), it
    gives (batch, num_classes) logits or (batch, 1) scores. The head is initialised with
    Normal(0.02). The BERT itself then encodes the first position only, which the head reads.
    """
    read_first_only(bert)
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
