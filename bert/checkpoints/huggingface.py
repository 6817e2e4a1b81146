"""Hugging Face's side of a model: the names of its tensors, its weights and its tokenizer."""

import re

import numpy as np

from bert.checkpoints.tensors import read_tensors
from bert.system.errors import ToolkitError
from bert.system.files import replacing, write_json, write_text

# Hugging Face's tensor names -> Gluon's. Those of an encoder layer are in LAYER_NAMES.
TOP_NAMES = {
    'embeddings.word_embeddings.weight': 'word_embed.0.weight',
    'embeddings.position_embeddings.weight': 'encoder.position_weight',
    'embeddings.token_type_embeddings.weight': 'token_type_embed.0.weight',
    'embeddings.LayerNorm.weight': 'encoder.layer_norm.gamma',
    'embeddings.LayerNorm.bias': 'encoder.layer_norm.beta',
    'pooler.dense.weight': 'pooler.weight',
    'pooler.dense.bias': 'pooler.bias',
    'cls.predictions.transform.dense.weight': 'decoder.0.weight',
    'cls.predictions.transform.dense.bias': 'decoder.0.bias',
    'cls.predictions.transform.LayerNorm.weight': 'decoder.2.gamma',
    'cls.predictions.transform.LayerNorm.bias': 'decoder.2.beta',
    'cls.predictions.decoder.weight': 'decoder.3.weight',
    'cls.predictions.bias': 'decoder.3.bias',
    'cls.seq_relationship.weight': 'classifier.weight',
    'cls.seq_relationship.bias': 'classifier.bias',
}
LAYER_NAMES = {
    'attention.self.query.weight': 'attention_cell.proj_query.weight',
    'attention.self.query.bias': 'attention_cell.proj_query.bias',
    'attention.self.key.weight': 'attention_cell.proj_key.weight',
    'attention.self.key.bias': 'attention_cell.proj_key.bias',
    'attention.self.value.weight': 'attention_cell.proj_value.weight',
    'attention.self.value.bias': 'attention_cell.proj_value.bias',
    'attention.output.dense.weight': 'proj.weight',
    'attention.output.dense.bias': 'proj.bias',
    'attention.output.LayerNorm.weight': 'layer_norm.gamma',
    'attention.output.LayerNorm.bias': 'layer_norm.beta',
    'intermediate.dense.weight': 'ffn.ffn_1.weight',
    'intermediate.dense.bias': 'ffn.ffn_1.bias',
    'output.dense.weight': 'ffn.ffn_2.weight',
    'output.dense.bias': 'ffn.ffn_2.bias',
    'output.LayerNorm.weight': 'ffn.layer_norm.gamma',
    'output.LayerNorm.bias': 'ffn.layer_norm.beta',
}
# Tensors in Hugging Face files that are not parameters of BERT: a range, and a second name for the
# masked-LM bias.
NOT_PARAMETERS = {'embeddings.position_ids', 'cls.predictions.decoder.bias'}
# The class of transformers whose head is that of a fine-tuned model.
FINETUNED_CLASS = 'BertForSequenceClassification'
# The files in which a model directory may have its weights, best choice first.
WEIGHT_FILES = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)


def gluon_name(name):
    """Return Gluon's name for a tensor of a Hugging Face file, or None.

    >>> gluon_name('bert.encoder.layer.3.output.LayerNorm.gamma')
    'encoder.transformer_cells.3.ffn.layer_norm.gamma'
    """
    name = re.sub(r'^bert\.', '', name)
    # The names of 2018, before PyTorch's were used.
    name = re.sub(r'LayerNorm\.gamma$', 'LayerNorm.weight', name)
    name = re.sub(r'LayerNorm\.beta$', 'LayerNorm.bias', name)
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    match = re.fullmatch(r'encoder\.layer\.(\d+)\.(.+)', name)
    if match and match.group(2) in LAYER_NAMES:
        return f'encoder.transformer_cells.{match.group(1)}.{LAYER_NAMES[match.group(2)]}'
    return None


def huggingface_name(name):
    """Return the name of a tensor in a file of ``BertForPreTraining``, from Gluon's name.

    >>> huggingface_name('encoder.transformer_cells.3.ffn.layer_norm.gamma')
    'bert.encoder.layer.3.output.LayerNorm.weight'
    """
    match = re.fullmatch(r'encoder\.transformer_cells\.(\d+)\.(.+)', name)
    if match:
        (inner,) = (theirs for theirs, ours in LAYER_NAMES.items() if ours == match.group(2))
        return f'bert.encoder.layer.{match.group(1)}.{inner}'
    (outer,) = (theirs for theirs, ours in TOP_NAMES.items() if ours == name)
    return outer if outer.startswith('cls.') else f'bert.{outer}'


def read_weights(path, architecture=None):
    """Read the parameters in one of :data:`WEIGHT_FILES`, under Gluon's names.

    Parameters
    ----------
    path : Path
    architecture : str, optional
        The class in transformers that the configuration names.

    Returns
    -------
    dict of str to numpy.ndarray
        The parameters of the encoder and of any pre-training heads in the file.
    dict of str to numpy.ndarray
        ``weight`` and ``bias`` of the classifier or regressor of a fine-tuned model, or nothing.
        A head of another task (question answering, say) is left out.
    """
    parameters, head = {}, {}
    for name, tensor in read_tensors(path).items():
        name = re.sub(r'^bert\.', '', name)
        target = gluon_name(name)
        if target:
            parameters[target] = tensor
        elif name in ('classifier.weight', 'classifier.bias'):
            head[name.partition('.')[2]] = tensor
        elif name.startswith(('embeddings.', 'encoder.')) and name not in NOT_PARAMETERS:
            raise ToolkitError(f'{path}: {name} is not a tensor of a BERT encoder')
    # Taggers have a tensor of this name too.
    return parameters, head if architecture in (None, FINETUNED_CLASS) else {}


def architecture_of(parameters, head):
    """Return the class of transformers that has exactly these heads."""
    if head:
        return FINETUNED_CLASS
    return {
        (True, True): 'BertForPreTraining',
        (True, False): 'BertForMaskedLM',
        (False, True): 'BertForNextSentencePrediction',
        (False, False): 'BertModel',
    }['decoder.0.weight' in parameters, 'classifier.weight' in parameters]


def write_weights(path, parameters, head):
    """Write ``model.safetensors`` as float32, whole or not at all.

    The same parameters give the same bytes.

    Parameters
    ----------
    path : Path
    parameters, head : dict
        As :func:`read_weights` returns them.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # The output weight of the masked-LM head is the word embedding.
    tensors = {
        huggingface_name(name): array
        for name, array in parameters.items()
        if name != 'decoder.3.weight'
    }
    tensors.update({f'classifier.{name}': array for name, array in head.items()})
    if architecture_of(parameters, head) == 'BertModel':
        tensors = {re.sub(r'^bert\.', '', name): array for name, array in tensors.items()}
    tensors = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={'format': 'pt'})
        except SafetensorError as error:
            raise ToolkitError(f'{path}: could not be written ({error})') from None


def write_tokenizer(folder, vocab, lower, max_length):
    """Write ``vocab.txt``, ``tokenizer.json`` and ``tokenizer_config.json``.

    The tokenizer itself is written because transformers' BERT tokenizer limits words to 100
    characters, while this project and the original allow 200.
    """
    from tokenizers import decoders, processors

    from bert.text.tokenizer import build_library_tokenizer

    names = {
        'unk_token': vocab.unknown_token,
        'pad_token': vocab.padding_token,
        'cls_token': vocab.cls_token,
        'sep_token': vocab.sep_token,
        'mask_token': vocab.mask_token,
    }
    tokenizer = build_library_tokenizer(vocab, lower)
    tokenizer.add_special_tokens(list(names.values()))
    cls, sep = vocab.cls_token, vocab.sep_token
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f'{cls}:0 $A:0 {sep}:0',
        pair=f'{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1',
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix='##')
    write_text(folder / 'tokenizer.json', tokenizer.to_str(pretty=True))
    write_text(folder / 'vocab.txt', ''.join(f'{token}\n' for token in vocab.idx_to_token))
    write_json(
        folder / 'tokenizer_config.json',
        {
            'tokenizer_class': 'PreTrainedTokenizerFast',
            'do_lower_case': lower,
            'model_max_length': max_length,
            'model_input_names': ['input_ids', 'token_type_ids', 'attention_mask'],
            **names,
        },
    )
