"""Write model directories in Gluon's layout, in Hugging Face's and in that of training output.

The parameters have the names of GluonNLP 0.5 to 0.10, so a file saved here loads there.
"""

import numpy as np

from bert.checkpoints import huggingface
from bert.checkpoints.config import MULTILABEL, format_config
from bert.checkpoints.contents import FINETUNED
from bert.checkpoints.gluon import gluon_vocab, write_parameters
from bert.system.files import write_json, write_text
from bert.text.vocab import pad_vocab


def write_description(folder, settings, vocab, lower):
    """Write sizes, vocabulary and casing: everything in a model directory but the weights.

    Parameters
    ----------
    folder : Path
    settings : dict
        See :func:`bert.checkpoints.config.parse_config`.
    vocab : Vocab or gluonnlp.vocab.BERTVocab
    lower : bool
        Whether the text is lower-cased.
    """
    padding = {'pad_token_id': vocab[vocab.padding_token]}
    write_json(folder / 'config.json', {**format_config(settings), **padding})
    write_text(folder / 'vocab.txt', ''.join(f'{token}\n' for token in vocab.idx_to_token))
    write_json(folder / 'tokenizer_config.json', {'do_lower_case': lower})


def describe_labels(labels, is_multilabel):
    """Return the entries of ``finetune.json`` about the labels."""
    return {'labels': labels, **({'problem_type': MULTILABEL} if is_multilabel else {})}


def write_gluon(folder, contents):
    """Write ``model.params``, ``vocab.vocab`` and ``config.json`` for plain GluonNLP 0.10.

    The same model gives the same bytes.

    Parameters
    ----------
    folder : Path
        An existing folder.
    contents : Checkpoint
    """
    parameters = dict(contents.weights.bert)
    if 'decoder.3.bias' in parameters:
        # One array under two names, as save_parameters writes it.
        parameters['decoder.3.weight'] = parameters['word_embed.0.weight']
    if contents.weights.head:
        parameters = {f'bert.{name}': array for name, array in parameters.items()}
        # A regressor too: in GluonNLP 0.10 it is a classifier with one class.
        for name, array in contents.weights.head.items():
            parameters[f'classifier.1.{name}'] = array
    write_parameters(
        folder / 'model.params',
        ((name, np.asarray(array, np.float32)) for name, array in sorted(parameters.items())),
    )
    vocab = pad_vocab(contents.vocab, contents.settings['vocab_size'])
    write_text(folder / 'vocab.vocab', gluon_vocab(vocab).to_json() + '\n')
    write_json(folder / 'tokenizer_config.json', {'do_lower_case': contents.lower})
    _write_config(folder, contents)
    _write_flags(folder, contents, 'model.params')


def write_huggingface(folder, contents):
    """Write a directory that transformers can load; the same model gives the same bytes.

    Parameters
    ----------
    folder : Path
        An existing folder.
    contents : Checkpoint
    """
    weights = contents.weights
    huggingface.write_weights(folder / 'model.safetensors', weights.bert, weights.head)
    write_readable(folder, contents)
    _write_flags(folder, contents, 'model.safetensors')


def write_readable(folder, contents):
    """Write the configuration and the tokenizer as transformers reads them."""
    huggingface.write_tokenizer(
        folder, contents.vocab, contents.lower, contents.settings['max_length']
    )
    _write_config(folder, contents)


def _write_config(folder, contents):
    weights, vocab = contents.weights, contents.vocab
    config = {
        'architectures': [huggingface.architecture_of(weights.bert, weights.head)],
        **format_config(contents.settings),
        'pad_token_id': vocab[vocab.padding_token],
        'dtype': 'float32',
    }
    if weights.head:
        names = contents.labels or ['LABEL_0']
        config['id2label'] = dict(enumerate(names))
        config['label2id'] = {name: i for i, name in enumerate(names)}
        kind = 'regression' if contents.labels is None else 'single_label_classification'
        config['problem_type'] = MULTILABEL if contents.is_multilabel else kind
    write_json(folder / 'config.json', config)


def _write_flags(folder, contents, parameters):
    """Write the flags and labels that finetune_classifier.py needs to predict again."""
    if contents.flags:
        write_json(
            folder / FINETUNED,
            {
                'flags': contents.flags,
                **describe_labels(contents.labels, contents.is_multilabel),
                'parameters': parameters,
            },
        )
