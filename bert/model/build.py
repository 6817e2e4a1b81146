"""Build a BERT of any size, and the heads for classification and regression."""

import gluonnlp as nlp
import mxnet as mx
from gluonnlp.model import bert as gluon_bert
from mxnet.gluon import nn

from bert.model.encoder import read_first_only, use_bfloat16
from bert.system.errors import UsageError

# For a new head, and for a whole model without pre-trained weights: the original BERT's.
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
    output_attention=False,
    output_all_encodings=False,
):
    """Build a BERT of any size, uninitialised, as ``gluonnlp.model.get_model`` builds the zoo's.

    Parameters
    ----------
    vocab : Vocab or gluonnlp.vocab.BERTVocab
    num_layers, units, hidden_size, num_heads, max_length : int
        Layers, width, inner width of the feed-forward networks, attention heads, positions.
    output_attention, output_all_encodings : bool
        See :func:`bert.model.loading.load_bert`.

    Returns
    -------
    gluonnlp.model.BERTModel
        With its sizes in the attribute ``settings``.
    """
    settings = {
        'num_layers': num_layers,
        'units': units,
        'hidden_size': hidden_size,
        'num_heads': num_heads,
        'max_length': max_length,
        'dropout': dropout,
        'layer_norm_eps': layer_norm_eps,
        'activation': activation,
    }
    encoder = gluon_bert.BERTEncoder(
        output_attention=output_attention, output_all_encodings=output_all_encodings, **settings
    )
    bert = gluon_bert.BERTModel(
        encoder,
        vocab_size=len(vocab),
        token_type_vocab_size=token_type_vocab_size,
        units=units,
        embed_size=units,
        use_pooler=use_pooler,
        use_decoder=use_decoder,
        use_classifier=use_classifier,
    )
    # Kept with the model, so that they need not be dug out of its blocks.
    sizes = {'vocab_size': len(vocab), 'token_type_vocab_size': token_type_vocab_size}
    bert.settings = {**settings, **sizes}
    bert.has_more_outputs = output_attention or output_all_encodings
    return bert


def cast(model, dtype):
    """Make a BERT, or a model that has one, compute in ``float32``, ``float16`` or ``bfloat16``.

    In float16 the parameters are float16 too; in bfloat16 they stay float32, and only the matrix
    products of the encoder and of the masked-LM head are computed in bfloat16.
    """
    if dtype == 'bfloat16':
        use_bfloat16(getattr(model, 'bert', model))
    else:
        model.cast(dtype)


def initialize(block, ctx):
    """Initialise parameters like the original BERT: normal weights, LayerNorm 1 and 0."""
    block.initialize(mx.init.Normal(INITIALIZER), ctx=ctx)


def infer_shapes(bert):
    """Infer all shapes, as the first batch would, to check those of a file against them."""
    tokens = [mx.nd.zeros((1, 1)), mx.nd.zeros((1, 1)), mx.nd.ones((1,))]
    if hasattr(bert, 'decoder'):
        tokens.append(mx.nd.zeros((1, 1)))
    bert.infer_shape(*tokens)


def finish_initialization(bert, ctx):
    """Run a BERT without pre-training heads once, so that all parameters get their values."""
    zeros = mx.nd.zeros((1, 1), ctx=ctx, dtype='int32')
    bert(zeros, zeros, mx.nd.ones((1,), ctx=ctx))
    mx.nd.waitall()


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
        """Return the score of each pair, (batch, 1)."""
        return super().__call__(inputs, token_types, valid_length)

    def hybrid_forward(self, F, inputs, token_types, valid_length=None):
        _, pooled = self.bert(inputs, token_types, valid_length)
        return self.regression(pooled)


def build_head(bert, num_classes, ctx, dropout=None):
    """Put a classifier, or a regression head for ``num_classes=None``, on top of a BERT.

    Called with token ids and token types, both (batch, length), and valid lengths, (batch,), it
    gives (batch, num_classes) logits or (batch, 1) scores. The head is initialised with
    Normal(0.02). The BERT itself then encodes only the first position, which the head reads.
    The head's dropout defaults to the encoder's, 0.1 in all published models.
    """
    if bert.has_more_outputs:
        raise UsageError(
            'a head goes with a BERT without output_attention and output_all_encodings: '
            'it reads the encoding of the first token only'
        )
    read_first_only(bert)
    if dropout is None:
        dropout = bert.settings['dropout']
    if num_classes is None:
        model = BERTRegression(bert, dropout)
        head = model.regression
    else:
        model = nlp.model.BERTClassifier(bert, num_classes=num_classes, dropout=dropout)
        head = model.classifier
    # Set now, so that the head is initialised here and not in the first step.
    head[-1].weight.shape = (num_classes or 1, bert.settings['units'])
    initialize(head, ctx)
    return model
