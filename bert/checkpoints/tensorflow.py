"""Google's own BERT files: a TensorFlow checkpoint with the names of ``google-research/bert``."""

import re

from bert.checkpoints.huggingface import gluon_name
from bert.system.errors import ToolkitError

# Variables that are not parameters: Adam's two moments and the step.
TRAINING_STATE = re.compile(r'(.*/)?(adam_[mv]|global_step)$')
# Names that are not simply Hugging Face's with slashes in place of dots.
OTHER_NAMES = {
    'embeddings.word_embeddings': 'embeddings.word_embeddings.weight',
    'embeddings.position_embeddings': 'embeddings.position_embeddings.weight',
    'embeddings.token_type_embeddings': 'embeddings.token_type_embeddings.weight',
    'cls.predictions.output_bias': 'cls.predictions.bias',
    'cls.seq_relationship.output_weights': 'cls.seq_relationship.weight',
    'cls.seq_relationship.output_bias': 'cls.seq_relationship.bias',
}
# The head of run_classifier.py.
HEAD = {'output_weights': 'weight', 'output_bias': 'bias'}


def gluon_name_of(variable):
    """Return Gluon's name for a variable, or None.

    >>> gluon_name_of('bert/encoder/layer_3/attention/self/query/kernel')
    'encoder.transformer_cells.3.attention_cell.proj_query.weight'
    """
    name = re.sub(r'^bert/', '', variable).replace('/', '.').replace('layer_', 'layer.')
    name = re.sub(r'\.kernel$', '.weight', name)
    return gluon_name(OTHER_NAMES.get(name, name))


def read_weights(index):
    """Read the parameters of a checkpoint, under Gluon's names.

    Parameters
    ----------
    index : Path
        The checkpoint's file that ends in ``.index``.

    Returns
    -------
    dict of str to numpy.ndarray, dict of str to numpy.ndarray
        As from :func:`bert.checkpoints.huggingface.read_weights`. The kernels are transposed:
        TensorFlow stores (inputs, outputs).
    """
    try:
        import tensorflow as tf
    except ImportError:
        raise ToolkitError(
            f'{index}: TensorFlow is needed to read this file: '
            "pip install '.[tensorflow]' in the toolkit's folder"
        ) from None
    prefix = str(index)[: -len('.index')]
    try:
        reader = tf.train.load_checkpoint(prefix)
        variables = {
            name: reader.get_tensor(name)
            for name in reader.get_variable_to_shape_map()
            if not TRAINING_STATE.match(name)
        }
    # The errors come from TensorFlow's file systems, of which there are many.
    except Exception as error:
        reason = str(error).strip().split('\n')[0]
        raise ToolkitError(f'{prefix}: not a whole TensorFlow checkpoint ({reason})') from None
    parameters, head = {}, {}
    for name, array in variables.items():
        target = gluon_name_of(name)
        if target:
            parameters[target] = array.T if name.endswith('/kernel') else array
        elif name in HEAD:
            head[HEAD[name]] = array
        elif name.startswith('bert/'):
            raise ToolkitError(f'{prefix}: {name} is not a variable of a BERT encoder')
    return parameters, head
