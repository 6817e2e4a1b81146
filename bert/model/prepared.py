"""A model for evaluation alone, in which what depends on the weights only is done once.

On the CPU, that is the order of the weights in memory, for :func:`bert.ops.encode`; or, where that
cannot be used, whatever of MXNet's graph depends on parameters only: the joined weights of query,
key and value.
"""

import json
import warnings

import mxnet as mx
from mxnet.gluon import nn

from bert import ops
from bert.model.encoder import Bfloat16Dense

INPUTS = ('inputs', 'token_types', 'valid_length')


class Prepared(mx.gluon.Block):
    """A function that computes what a model does, from the weights as they were.

    Parameters
    ----------
    bert : gluonnlp.model.BERTModel
        The model's.
    compute : function
    """

    def __init__(self, bert, compute):
        super().__init__()
        self.bert = bert
        self.compute = compute

    def forward(self, inputs, token_types, valid_length):
        """Return the model's outputs."""
        return self.compute(inputs, token_types, valid_length)


def prepare(model, contexts):
    """Return a model that computes the same in evaluation, with the weights as they are now.

    When weights change, it is out of date: prepare the model anew for each evaluation.

    Parameters
    ----------
    model : gluonnlp.model.BERTClassifier, bert.model.build.BERTRegression or \
            bert.model.vectors.Vectors
        Its parameters are initialised.
    contexts : list of mxnet.Context

    Returns
    -------
    Prepared, or the model itself
        The latter on GPUs, and in bfloat16 with MXNet's own operators, in which a graph that was
        read back computes no products.
    """
    bert = model.bert
    in_bfloat16 = isinstance(bert.encoder.transformer_cells[0].proj, Bfloat16Dense)
    dtype = 'bfloat16' if in_bfloat16 else 'float32'
    if not all(ctx.device_type.startswith('cpu') for ctx in contexts):
        return model
    if bert.encoder.fused and not bert.has_more_outputs and ops.has_encoder(dtype):
        return Prepared(bert, pack(model, dtype))
    return model if in_bfloat16 else Prepared(bert, fold(model))


def pack(model, dtype):
    """Return a function that computes a model with :func:`bert.ops.encode`."""
    bert = model.bert
    parameters = (
        *(bert.word_embed[0].weight, bert.token_type_embed[0].weight),
        *(
            bert.encoder.position_weight,
            bert.encoder.layer_norm.gamma,
            bert.encoder.layer_norm.beta,
        ),
    )
    embeddings = [parameter.data() for parameter in parameters]
    layers = [
        ops.pack_layer([parameter.data() for parameter in layer_parameters(layer)], dtype)
        for layer in bert.encoder.transformer_cells
    ]
    head = getattr(model, 'classifier', getattr(model, 'regression', None))
    if head:
        finish = nn.HybridSequential()
        finish.add(nn.Flatten(), bert.pooler, head)  # of the first token's encodings
        finish.hybridize(static_alloc=True)

    def compute(ids, token_types, valid_length):
        encodings = ops.encode(
            *(ids, token_types, valid_length, embeddings, layers, bert.settings),
            first_only=bert.encoder.first_only,
            dtype=dtype,
        )
        if head:
            return finish(encodings)
        pooled = bert.pooler(encodings[:, 0]) if hasattr(bert, 'pooler') else None
        return model.combine(
            mx.nd, encodings if pooled is None else (encodings, pooled), valid_length
        )

    return compute


def layer_parameters(layer):
    """Return the parameters of a layer in the order of :func:`bert.ops.pack_layer`."""
    attention, ffn = layer.attention_cell, layer.ffn
    return [
        *(attention.query_weight, attention.query_bias),
        *(attention.key_weight, attention.key_bias),
        *(attention.value_weight, attention.value_bias),
        *(layer.proj.weight, layer.proj.bias, layer.layer_norm.gamma, layer.layer_norm.beta),
        *(ffn.ffn_1.weight, ffn.ffn_1.bias, ffn.ffn_2.weight, ffn.ffn_2.bias),
        *(ffn.layer_norm.gamma, ffn.layer_norm.beta),
    ]


def fold(model):
    """Return the graph of a model as a block in which constants take the place of some operators.

    These are the last operators, going through the graph from the inputs on, that depend on
    parameters only.
    """
    symbol = model(*map(mx.sym.var, INPUTS))
    parameters = model.collect_params()
    graph = json.loads(symbol.tojson())
    nodes, constant = graph['nodes'], []
    for node in nodes:
        sources = [constant[source] for source, *_ in node['inputs']]
        is_parameter = node['op'] == 'null' and node['name'] in parameters
        constant.append(is_parameter or (bool(sources) and all(sources)))
    read = {
        source
        for node, is_constant in zip(nodes, constant)
        if not is_constant
        for source, *_ in node['inputs']
    }
    folded = sorted(i for i in read if constant[i] and nodes[i]['op'] != 'null')
    internals = symbol.get_internals()
    group = mx.sym.Group([internals[f'{nodes[i]["name"]}_output'] for i in folded])
    names = group.list_arguments()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # types that it cannot infer are float32
        evaluate = mx.gluon.SymbolBlock(group, [mx.sym.var(name) for name in names])
        values = evaluate(*[parameters[name].data() for name in names])
        constants = mx.gluon.ParameterDict()
        for i, value in zip(folded, values):
            name = f'{nodes[i]["name"]}_folded'
            nodes[i] = {'op': 'null', 'name': name, 'inputs': []}
            constants.get_constant(name, value).initialize()
        graph['arg_nodes'] = [i for i, node in enumerate(nodes) if node['op'] == 'null']
        symbol = mx.sym.load_json(json.dumps(graph))
        arguments = set(symbol.list_arguments())
        constants.update({name: p for name, p in parameters.items() if name in arguments})
        block = mx.gluon.SymbolBlock(symbol, list(map(mx.sym.var, INPUTS)), constants)
    block.hybridize(static_alloc=True)
    return block
