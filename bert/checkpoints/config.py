"""``config.json``: the sizes of a model, and the labels of a classifier, in Hugging Face's keys."""

import re
import unicodedata

from bert.system.errors import ToolkitError

# The sizes in which the models of the GluonNLP zoo differ.
ZOO_SIZES = {
    'bert_12_768_12': {'num_layers': 12, 'units': 768, 'hidden_size': 3072, 'num_heads': 12},
    'bert_24_1024_16': {'num_layers': 24, 'units': 1024, 'hidden_size': 4096, 'num_heads': 16},
}
# The same of sizes that have a name only, for training from scratch: BERT-Tiny, -Mini, -Small and
# -Medium of Turc et al. 2019, "Well-Read Students Learn Better" (arXiv 1908.08962).
SMALL_SIZES = {
    'bert_2_128_2': {'num_layers': 2, 'units': 128, 'hidden_size': 512, 'num_heads': 2},
    'bert_4_256_4': {'num_layers': 4, 'units': 256, 'hidden_size': 1024, 'num_heads': 4},
    'bert_4_512_8': {'num_layers': 4, 'units': 512, 'hidden_size': 2048, 'num_heads': 8},
    'bert_8_512_8': {'num_layers': 8, 'units': 512, 'hidden_size': 2048, 'num_heads': 8},
}
NAMED_SIZES = {**SMALL_SIZES, **ZOO_SIZES}
# Other names for the zoo's data sets, which the scripts of early 2019 accepted.
OTHER_SPELLINGS = {
    'wiki_multilingual': 'wiki_multilingual_uncased',
    'wiki_cn': 'wiki_cn_cased',
}
# By width: the only size that the shapes of a file's parameters do not show.
ATTENTION_HEADS = {sizes['units']: sizes['num_heads'] for sizes in ZOO_SIZES.values()}
# The settings that all published models share.
PUBLISHED_SETTINGS = {'activation': 'gelu', 'dropout': 0.1, 'layer_norm_eps': 1e-12}
# A few hundred bytes of JSON can ask for a model that fits no machine. Layers, and the names of
# rows without a token, take memory before any parameter does.
MOST = {'num_layers': 1000, 'vocab_size': 2**22}
# transformers' word for a classifier of rows that may have several labels.
MULTILABEL = 'multi_label_classification'
LAYER = r'encoder\.transformer_cells\.\d+\.'
# config.json's keys -> ours, for the sizes that every configuration must give.
SIZES = {
    'num_hidden_layers': 'num_layers',
    'hidden_size': 'units',
    'intermediate_size': 'hidden_size',
    'num_attention_heads': 'num_heads',
    'max_position_embeddings': 'max_length',
    'vocab_size': 'vocab_size',
    'type_vocab_size': 'token_type_vocab_size',
}


def parse_config(config, path):
    """Read and check the settings in a configuration with Hugging Face's keys.

    ``attention_probs_dropout_prob`` is not read: GluonNLP's encoder has one dropout rate, and
    every published BERT has the same one in both places.
    """
    settings = {}
    for key, name in SIZES.items():
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**24:
            raise ToolkitError(f'{path}: {key} is {value!r}, not a positive whole number')
        if value > MOST.get(name, value):
            raise ToolkitError(f'{path}: {key} is {value}, more than {MOST[name]}')
        settings[name] = value
    if settings['units'] % settings['num_heads']:
        raise ToolkitError(
            f'{path}: hidden_size {settings["units"]} is not a multiple of '
            f'num_attention_heads {settings["num_heads"]}'
        )
    for key, expected in [('model_type', 'bert'), ('position_embedding_type', 'absolute')]:
        if config.get(key, expected) != expected:
            raise ToolkitError(f'{path}: {key} is {config[key]!r}, not {expected!r}')
    activations = {'gelu': 'gelu', 'gelu_new': 'approx_gelu', 'gelu_pytorch_tanh': 'approx_gelu'}
    activation = config.get('hidden_act', 'gelu')
    if not isinstance(activation, str) or activation not in activations:
        raise ToolkitError(f'{path}: hidden_act is {activation!r}, not one of {list(activations)}')
    settings['activation'] = activations[activation]
    for key, name, default in [
        ('hidden_dropout_prob', 'dropout', 0.1),
        ('layer_norm_eps', 'layer_norm_eps', 1e-12),
    ]:
        value = config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ToolkitError(f'{path}: {key} is {value!r}, not a number from 0 to below 1')
        settings[name] = value
    return settings


def check_segments(settings, model):
    """Refuse pairs of texts for a model that has no second segment.

    Parameters
    ----------
    settings : dict
    model : str or Path
        For the error.
    """
    if settings['token_type_vocab_size'] < 2:
        raise ToolkitError(
            f'{model}: type_vocab_size is 1, so this model takes single texts, not pairs'
        )


def count_parameters(settings):
    """Count the parameters of an encoder, without its heads."""
    units, hidden_size = settings['units'], settings['hidden_size']
    rows = sum(settings[name] for name in ('vocab_size', 'max_length', 'token_type_vocab_size'))
    layer = 4 * (units + 1) * units + 2 * units * hidden_size + hidden_size + 5 * units
    return (rows + 2) * units + settings['num_layers'] * layer


def format_config(settings):
    """Make a configuration with Hugging Face's keys: the inverse of :func:`parse_config`."""
    config = {key: settings[name] for key, name in SIZES.items()}
    config['model_type'] = 'bert'
    config['hidden_act'] = {'gelu': 'gelu', 'approx_gelu': 'gelu_new'}[settings['activation']]
    config['hidden_dropout_prob'] = settings['dropout']
    config['attention_probs_dropout_prob'] = settings['dropout']
    config['layer_norm_eps'] = settings['layer_norm_eps']
    return config


def architecture_of(config):
    """Return the class of transformers that a configuration names first, or None."""
    names = config.get('architectures')
    return names[0] if isinstance(names, list) and names else None


def generic_labels(classes):
    """Return the names that transformers gives to classes without names."""
    return [f'LABEL_{i}' for i in range(classes)]


def is_multilabel(config):
    """Return whether a configuration is that of a classifier of rows with several labels."""
    return config.get('problem_type') == MULTILABEL


def parse_labels(config, path, classes=2):
    """Return a configuration's labels in the order of the class ids, or None for regression.

    >>> parse_labels({'id2label': {'1': 'yes', '0': 'no'}}, 'config.json')
    ['no', 'yes']
    """
    if config.get('problem_type') == 'regression':
        return None
    table = config.get('id2label')
    if table is None:
        table = {str(i): label for i, label in enumerate(generic_labels(classes))}
    if (
        not isinstance(table, dict)
        or sorted(table) != sorted(str(i) for i in range(len(table)))
        or (not table and is_multilabel(config))
    ):
        raise ToolkitError(f'{path}: id2label does not map the ids from 0 on to names')
    labels = [str(table[str(i)]) for i in range(len(table))]
    # Without a problem_type, a single class means regression in transformers.
    return check_labels(labels, path) if len(labels) > 1 or is_multilabel(config) else None


def check_labels(labels, path):
    """Return the labels of a classifier; refuse those that would spoil a file with its answers."""
    for label in labels:
        problem = find_label_problem(label)
        if problem:
            raise ToolkitError(f'{path}: the label {label!r} {problem}')
    return labels


def find_label_problem(label):
    """Return why a text cannot be a label, a clause, or None."""
    if not label.strip():
        return 'is empty'
    # Logs and TSV files have one row a line.
    if any(unicodedata.category(character) == 'Cc' for character in label):
        return 'has a line end, a tab or another control character'
    return None


def infer_settings(parameters, path):
    """Infer the sizes of a BERT in one of the zoo's two widths from its parameters' shapes."""
    names = (
        'word_embed.0.weight',
        'encoder.position_weight',
        'token_type_embed.0.weight',
        'encoder.transformer_cells.0.ffn.ffn_1.weight',
    )
    missing = [name for name in names if name not in parameters]
    if missing:
        raise ToolkitError(f'{path}: lacks {", ".join(missing)}')
    shapes = [parameters[name].shape for name in names]
    for name, shape in zip(names, shapes):
        if len(shape) != 2 or 0 in shape:
            raise ToolkitError(f'{path}: {name} has the shape {tuple(shape)}')
    units = shapes[0][-1]
    if units not in ATTENTION_HEADS:
        raise ToolkitError(
            f'{path}: a config.json beside it must say how many attention heads this model of '
            f'{units} units has'
        )
    layers = {name.split('.')[2] for name in parameters if re.match(LAYER, name)}
    return {
        'num_layers': len(layers),
        'units': units,
        'hidden_size': shapes[3][0],
        'num_heads': ATTENTION_HEADS[units],
        'max_length': shapes[1][0],
        'vocab_size': shapes[0][0],
        'token_type_vocab_size': shapes[2][0],
        **PUBLISHED_SETTINGS,
    }


def named_settings(model, vocab_size):
    """Return the settings of a model of :data:`NAMED_SIZES`; see :func:`parse_config`."""
    return {
        'max_length': 512,
        **NAMED_SIZES[model],
        'token_type_vocab_size': 2,
        'vocab_size': vocab_size,
        **PUBLISHED_SETTINGS,
    }
