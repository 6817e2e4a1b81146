"""The seven pre-trained models of the GluonNLP zoo, and where else their weights are.

A model is fetched from the zoo into ``models`` under ``MXNET_HOME`` (``~/.mxnet``), as GluonNLP
does it. Where the zoo does not answer, the same weights come from the Hugging Face Hub and are kept
there too, converted to Gluon's format.
"""

import logging
import os
import struct
import zipfile
import zlib
from pathlib import Path

from bert import hub
from bert.cli import ToolkitError, UsageError
from bert.files import replacing_folder, write_json
from bert.vocab import OTHER_SPELLINGS, load_vocab, zoo_vocab_path

# By model and data set, the repository of the Hub with the same weights.
ZOO = {
    'bert_12_768_12': {
        'book_corpus_wiki_en_uncased': 'google-bert/bert-base-uncased',
        'book_corpus_wiki_en_cased': 'google-bert/bert-base-cased',
        'wiki_multilingual_uncased': 'google-bert/bert-base-multilingual-uncased',
        'wiki_multilingual_cased': 'google-bert/bert-base-multilingual-cased',
        'wiki_cn_cased': 'google-bert/bert-base-chinese',
    },
    'bert_24_1024_16': {
        'book_corpus_wiki_en_uncased': 'google-bert/bert-large-uncased',
        'book_corpus_wiki_en_cased': 'google-bert/bert-large-cased',
    },
}

# In a folder of converted weights: the repository, the commit and the files.
RECORD = 'source.json'


def zoo_dataset(model, dataset):
    """The zoo's name for a data set, checked to exist for that model.

    >>> zoo_dataset('bert_12_768_12', 'wiki_cn')
    'wiki_cn_cased'
    """
    if model not in ZOO:
        raise UsageError(
            f'--bert_model {model} is neither a directory, nor a file, nor a model of the Hub '
            f'such as google-bert/bert-base-uncased, nor one of {", ".join(ZOO)}'
        )
    dataset = OTHER_SPELLINGS.get(dataset, dataset)
    if dataset not in ZOO[model]:
        raise UsageError(
            f'there is no {model} trained on {dataset}; there is one on {", ".join(ZOO[model])}'
        )
    return dataset


def fetch(model, dataset):
    """The parameter file and the vocabulary file of a model, from the zoo or else from the Hub.

    Parameters
    ----------
    model, dataset : str
        Keys of :data:`ZOO`.

    Returns
    -------
    Path, Path
    """
    converted = converted_folder(model, dataset)
    if converted.is_dir() and not _is_in_zoo_cache(model, dataset):
        return _use(converted)
    try:
        return _from_zoo(model, dataset)
    except ToolkitError as error:
        logging.warning('%s', error)
        if not converted.is_dir():
            repository = ZOO[model][dataset]
            logging.info('the same weights are on the Hub, as %s', repository)
            try:
                _convert(repository, dataset, converted)
            except ToolkitError as second:
                raise ToolkitError(f'{error}; {second}') from None
    return _use(converted)


def settings(model, vocab_size):
    """The sizes of a model, as :func:`bert.configuration.parse_config` gives them."""
    from gluonnlp.model.bert import bert_hparams

    known = bert_hparams[model]
    names = ('num_layers', 'units', 'hidden_size', 'num_heads', 'max_length', 'dropout')
    return {
        **{name: known[name] for name in (*names, 'token_type_vocab_size')},
        'vocab_size': vocab_size,
        'activation': 'gelu',
        'layer_norm_eps': 1e-12,
    }


def _use(converted):
    logging.info('the weights are those of the Hub, converted in %s', converted)
    return converted / 'model.params', converted / 'vocab.vocab'


def converted_folder(model, dataset):
    """Where weights of the Hub are kept in Gluon's format."""
    return _models() / f'{model}_{dataset}-hub'


def _models():
    home = os.environ.get('MXNET_HOME', os.path.join('~', '.mxnet'))
    return Path(os.path.expanduser(home)) / 'models'


def _is_in_zoo_cache(model, dataset):
    """Whether a file of the zoo is there already, good or not."""
    return any(_models().glob(f'{model}_{dataset}-*.params'))


def _from_zoo(model, dataset):
    import mxnet as mx
    from gluonnlp.model.bert import model_store

    try:
        path = model_store.get_model_file(f'{model}_{dataset}', root=str(_models()))
        return Path(path), zoo_vocab_path(dataset)
    except (
        ToolkitError,
        OSError,
        RuntimeError,
        UserWarning,
        # a wrong checksum, and an archive that is none, is damaged or lacks its file
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        KeyError,
        mx.MXNetError,
    ) as error:
        reason = str(error).strip().split('\n')[0]
        raise ToolkitError(
            f'{model} {dataset} could not be fetched from the GluonNLP model zoo: {reason}'
        ) from None


def _convert(repository, dataset, target):
    """Write a model of the Hub in Gluon's format, with a record of where it is from."""
    from bert import checkpoint

    folder = hub.fetch(repository)
    contents = checkpoint.read(str(folder))
    contents = contents._replace(lower=dataset.endswith('_uncased'))
    try:
        # Shards that were made with the zoo's vocabulary fit then too.
        contents = checkpoint.reorder(contents, load_vocab(zoo_vocab_path(dataset)))
    except ToolkitError as error:
        logging.info("the ids are those of the Hub's vocabulary: %s", error)
    with replacing_folder(target) as temporary:
        checkpoint.write_gluon(temporary, contents)
        write_json(temporary / RECORD, hub.digests(repository, folder))


def vocab_path(dataset):
    """The vocabulary of a data set of the zoo, for work that needs no weights.

    Where the weights are converted ones of the Hub, or the zoo does not answer, it is that of the
    Hub's model.

    Returns
    -------
    Path
    """
    dataset = OTHER_SPELLINGS.get(dataset, dataset)
    models = [model for model, repositories in ZOO.items() if dataset in repositories]
    for model in models:
        path = converted_folder(model, dataset) / 'vocab.vocab'
        if path.is_file() and not _is_in_zoo_cache(model, dataset):
            return path
    try:
        return zoo_vocab_path(dataset)
    except ToolkitError as error:
        logging.warning('%s', error)
        repository = ZOO[models[0]][dataset]
        logging.info('the same vocabulary, in another order, is on the Hub in %s', repository)
        try:
            return hub.fetch(repository, with_weights=False) / 'vocab.txt'
        except ToolkitError as second:
            raise ToolkitError(f'{error}; {second}') from None
