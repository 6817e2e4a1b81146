"""A model as one ONNX file, with transformers' names of inputs and outputs.

MXNet's exporter dates from 2021. It writes nodes of ONNX's operator set 13, but declares the newest
set of the installed ``onnx``, which that package then refuses; here it declares 13.
"""

import contextlib
import logging
from unittest import mock

import mxnet as mx
import numpy as np

OPERATOR_SET = 13
FILE_VERSION = 7  # the "IR version" that came with that set, which older runtimes read too
INPUTS = ('input_ids', 'attention_mask', 'token_type_ids')


class WithMask(mx.gluon.HybridBlock):
    """A model that takes an attention mask instead of valid lengths.

    Parameters
    ----------
    model : gluonnlp.model.BERTModel, or a model with one in ``bert`` and a head

    Attributes
    ----------
    output_names : list of str
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        bert = getattr(model, 'bert', model)
        # In a bare BERT this is the next-sentence head, if there is one.
        self.head = getattr(model, 'classifier', getattr(model, 'regression', None))
        if bert is not model:
            self.output_names = ['logits']
        elif hasattr(bert, 'decoder') or hasattr(bert, 'classifier'):
            heads = {'prediction_logits': 'decoder', 'seq_relationship_logits': 'classifier'}
            self.output_names = [name for name, head in heads.items() if hasattr(bert, head)]
        else:
            self.output_names = ['last_hidden_state']
            self.output_names += ['pooler_output'] * hasattr(bert, 'pooler')

    def hybrid_forward(self, F, input_ids, attention_mask, token_type_ids):
        """Compute the outputs in :attr:`output_names`, those per token at all positions.

        This repeats the forward pass of GluonNLP's BERTModel, which would compute the masked-LM
        head at given positions only.

        Padding is on the right, so the sum of a row of the mask is its valid length.
        """
        bert = getattr(self.model, 'bert', self.model)
        lengths = F.sum(attention_mask, axis=1)
        embedding = bert.word_embed(input_ids) + bert.token_type_embed(token_type_ids)
        # The encoder takes and gives (length, batch, units).
        encodings, _ = bert.encoder(embedding.transpose((1, 0, 2)), valid_length=lengths)
        encodings = encodings.transpose((1, 0, 2))
        outputs = []
        for name in self.output_names:
            if name == 'last_hidden_state':
                outputs.append(encodings)
            elif name == 'prediction_logits':
                outputs.append(bert.decoder(encodings))
            else:
                first = encodings.slice(begin=(0, 0, 0), end=(None, 1, None))
                pooled = bert.pooler(first.reshape(shape=(-1, bert.settings['units'])))
                outputs.append(pooled if name == 'pooler_output' else self.head(pooled))
        return outputs


@contextlib.contextmanager
def _operator_set():
    """Make ``onnx`` consider 13 its newest operator set, and silence the exporter."""
    import onnx.checker

    context = onnx.checker.DEFAULT_CONTEXT
    known = context.opset_imports
    context.opset_imports = {'': OPERATOR_SET}
    # It logs its input shapes, which say nothing about the result.
    logging.disable(logging.INFO)
    try:
        with mock.patch('onnx.defs.onnx_opset_version', return_value=OPERATOR_SET):
            yield
    finally:
        logging.disable(logging.NOTSET)
        context.opset_imports = known


def export(path, model):
    """Write an ONNX file that takes batches of any size and length.

    Parameters
    ----------
    path : Path
    model : gluonnlp.model.BERTModel, or a model with one in ``bert`` and a head
        Initialised, with GluonNLP's own attention.
    """
    import onnx

    block = WithMask(model)
    symbol = mx.sym.Group(block(*[mx.sym.var(name) for name in INPUTS]))
    used = set(symbol.list_inputs())
    parameters = {p.name: p.data() for p in block.collect_params().values() if p.name in used}
    with _operator_set():
        mx.onnx.export_model(
            symbol,
            parameters,
            in_shapes=[(2, 8)] * len(INPUTS),
            in_types=[np.float32] * len(INPUTS),
            onnx_file_path=str(path),
            dynamic=True,
            dynamic_input_shapes=[('batch', 'length')] * len(INPUTS),
        )
    exported = onnx.load(str(path))
    del exported.opset_import[:]
    exported.opset_import.append(onnx.helper.make_opsetid('', OPERATOR_SET))
    exported.ir_version = FILE_VERSION
    _rename_outputs(exported.graph, symbol.list_outputs(), block.output_names)
    _take_integers(exported.graph)
    _tidy_constants(exported.graph)
    onnx.checker.check_model(exported)
    onnx.save(exported, str(path))


def _rename_outputs(graph, old_names, new_names):
    new_name = {output.name: name for output, name in zip(graph.output, new_names)}
    assert len(graph.output) == len(old_names) == len(new_names)
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = new_name.get(name, name)
    for output in graph.output:
        output.name = new_name[output.name]


def _take_integers(graph):
    """Make the inputs int64, as from tokenizers; MXNet's graph takes ids as float32."""
    from onnx import TensorProto, helper

    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in INPUTS:
                node.input[i] = f'{name}_float'
    for value in graph.input:
        if value.name in INPUTS:
            value.type.tensor_type.elem_type = TensorProto.INT64
    for i, name in enumerate(INPUTS):
        cast = helper.make_node('Cast', [name], [f'{name}_float'], name, to=TensorProto.FLOAT)
        graph.node.insert(i, cast)


def _tidy_constants(graph):
    """Drop unused constants, and take the others out of the graph's inputs.

    The exporter leaves both behind, and runtimes warn about each.
    """
    used = {name for node in graph.node for name in node.input}
    for initializer in [i for i in graph.initializer if i.name not in used]:
        graph.initializer.remove(initializer)
    for value in [i for i in graph.input if i.name not in INPUTS]:
        graph.input.remove(value)


def load(path):
    """Load an ONNX file with onnxruntime, to compute on the CPU.

    Returns
    -------
    onnxruntime.InferenceSession
    """
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])


def compute(session, ids, token_types, lengths):
    """Return the outputs of a loaded ONNX file, by name.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    ids, token_types : (B, L) arrays of int
    lengths : (B,) array

    Returns
    -------
    dict of str to numpy.ndarray
    """
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    inputs = [array.astype(np.int64) for array in (ids, mask, token_types)]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(zip(INPUTS, inputs)))))


def run(path, ids, token_types, lengths):
    """Return the outputs of an ONNX file, by name; see :func:`compute`.

    The first row comes from a separate run, so that two batch sizes and lengths are tested.
    """
    session = load(path)
    found = compute(session, ids, token_types, lengths)
    first = int(lengths[0])
    alone = compute(session, ids[:1, :first], token_types[:1, :first], lengths[:1])
    for name, output in alone.items():
        row = (0, slice(first)) if output.ndim == 3 else (0,)
        found[name][row] = output[0]
    return found
