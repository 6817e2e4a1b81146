"""The seven pre-trained models of the GluonNLP zoo, and another source of their weights.

A model is fetched from the zoo into ``models`` under ``MXNET_HOME`` (``~/.mxnet``), under the names
that GluonNLP gives the files. If the zoo is unreachable, the same weights come from the Hugging
Face Hub and are kept in the same place, converted to Gluon's format.
"""

import hashlib
import logging
import os
import re
import tempfile
from pathlib import Path

from bert.checkpoints import hub
from bert.checkpoints.config import OTHER_SPELLINGS
from bert.checkpoints.contents import reorder
from bert.checkpoints.download import DownloadError, download, read_member
from bert.checkpoints.installed import INSTALLED
from bert.checkpoints.reading import find_parts, read
from bert.checkpoints.writing import write_gluon
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import (
    hash_file,
    remove_leftovers,
    replacing,
    replacing_folder,
    write_json,
)
from bert.system.processes import locked
from bert.text.vocab import load_vocab

# The Hub's repository with the same weights, by model and data set.
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
# The vocabularies that GluonNLP's model zoo serves, by data set, and the sha1 of their files.
ZOO_SHA1 = {
    'book_corpus_wiki_en_uncased': 'a66073971aa0b1a262453fe51342e57166a8abcf',
    'book_corpus_wiki_en_cased': '2d62af22535ed51f35cc8e2abb607723c89c2636',
    'wiki_multilingual_uncased': '2b2514cc539047b9179e9d98a4e68c36db05c97a',
    'wiki_multilingual_cased': '0247cb442074237c38c62021f36b7a4dbd2e55f7',
    'wiki_cn_cased': 'ddebd8f3867bca5a61023f73326fb125cf12b4f5',
}
# The same of the weights, by model and data set.
WEIGHTS_SHA1 = {
    'bert_12_768_12_book_corpus_wiki_en_uncased': '75cc780f085e8007b3bf6769c6348bb1ff9a3074',
    'bert_12_768_12_book_corpus_wiki_en_cased': '5656dac6965b5054147b0375337d5a6a7a2ff832',
    'bert_12_768_12_wiki_multilingual_uncased': '237f39851b24f0b56d70aa20efd50095e3926e26',
    'bert_12_768_12_wiki_multilingual_cased': 'b0f57a207f85a7d361bb79de80756a8c9a4276f7',
    'bert_12_768_12_wiki_cn_cased': '885ebb9adc249a170c5576e90e88cfd1bbd98da6',
    'bert_24_1024_16_book_corpus_wiki_en_uncased': '24551e1446180e045019a87fc4ffbf714d99c0b5',
    'bert_24_1024_16_book_corpus_wiki_en_cased': '4e685a966f8bf07d533bd6b0e06c04136f23f620',
}
# The largest vocabulary has 4 MB, the largest weights 1.5 GB; more is not taken.
MOST_BYTES = {'.vocab': 64 * 2**20, '.params': 2 * 2**30}
ZOO_URL = 'https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/'
# The file, in a folder of converted weights, with the repository, the commit and the files.
ORIGIN = 'source.json'


def zoo_dataset(model, dataset):
    """Return the zoo's name for a data set, and check that the model exists.

    >>> zoo_dataset('bert_12_768_12', 'wiki_cn')
    'wiki_cn_cased'
    """
    if model not in ZOO:
        raise UsageError(
            f'the model {model} is neither a directory, nor a file, nor a model of the Hub such as '
            f'google-bert/bert-base-uncased, nor one of {", ".join([*ZOO, *INSTALLED])}'
        )
    dataset = OTHER_SPELLINGS.get(dataset, dataset)
    if dataset not in ZOO[model]:
        raise UsageError(
            f'there is no {model} trained on {dataset}; there is one on {", ".join(ZOO[model])}'
        )
    return dataset


def fetch(model, dataset):
    """Fetch the parameter file and the vocabulary file of a model, from the zoo or from the Hub.

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


def _use(converted):
    logging.info('the weights are those of the Hub, converted in %s', converted)
    return converted / 'model.params', converted / 'vocab.vocab'


def converted_folder(model, dataset):
    """Return the folder for weights of the Hub in Gluon's format."""
    return _models() / f'{model}_{dataset}-hub'


def _models():
    home = os.path.expanduser(os.environ.get('MXNET_HOME', os.path.join('~', '.mxnet')))
    if home.startswith('~'):
        raise ToolkitError(
            'there is no home directory for models: the variable MXNET_HOME can name a folder'
        )
    return Path(home) / 'models'


def _is_in_zoo_cache(model, dataset):
    """Return whether a file of the zoo has been fetched, undamaged or not."""
    return any(_models().glob(f'{model}_{dataset}-*.params'))


def _from_zoo(model, dataset):
    name = f'{model}_{dataset}'
    try:
        weights = _zoo_file('models', name, WEIGHTS_SHA1[name], '.params')
        return weights, zoo_vocab_path(dataset)
    except ToolkitError as error:
        raise ToolkitError(
            f'{model} {dataset} could not be fetched from the GluonNLP model zoo: {error}'
        ) from None


def _convert(repository, dataset, target):
    """Write a model of the Hub in Gluon's format, with a record of its origin."""
    folder = hub.fetch(repository)
    contents = read(find_parts(folder))
    contents = contents._replace(lower=dataset.endswith('_uncased'))
    try:
        # With these ids, shards made with the zoo's vocabulary fit too.
        contents = reorder(contents, load_vocab(zoo_vocab_path(dataset)))
    except ToolkitError as error:
        logging.info("the ids are those of the Hub's vocabulary: %s", error)
    with locked(target.with_name(f'.{target.name}.lock')):
        if not target.is_dir():  # another process may have written it meanwhile
            with replacing_folder(target) as temporary:
                write_gluon(temporary, contents)
                write_json(temporary / ORIGIN, hub.digests(repository, folder))


def vocab_path(dataset):
    """Fetch the vocabulary of a data set of the zoo, for work that needs no weights.

    If the weights come from the Hub, or the zoo is unreachable, it is the Hub's vocabulary.

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


def zoo_data_set(path):
    """Return the data set in a file name such as ``wiki_cn_cased-ddebd8f3.vocab``, or None."""
    match = re.fullmatch(r'(\w+)-[0-9a-f]{8}\.vocab', Path(path).name)
    return match.group(1) if match and match.group(1) in ZOO_SHA1 else None


def zoo_vocab_path(data_set):
    """Fetch a vocabulary of the model zoo, unless it has been fetched already.

    Parameters
    ----------
    data_set : str
        A key of :data:`ZOO_SHA1` or of :data:`OTHER_SPELLINGS`.

    Returns
    -------
    Path
    """
    data_set = OTHER_SPELLINGS.get(data_set, data_set)
    return _zoo_file('dataset/vocab', data_set, ZOO_SHA1[data_set], '.vocab')


def _zoo_file(place, name, sha1, suffix):
    """Fetch a file of the model zoo, unless it has been fetched already.

    Address, folder, name and check are GluonNLP's (``MXNET_GLUON_REPO``, ``models`` under
    ``MXNET_HOME`` or ``~/.mxnet``, sha1).

    Parameters
    ----------
    place : str
        The folder of the zip file with it.
    name, sha1, suffix : str

    Returns
    -------
    Path
    """
    name, limit = f'{name}-{sha1[:8]}', MOST_BYTES[suffix]
    path = _models() / f'{name}{suffix}'
    if _has_sha1(path, sha1):
        return path
    root = os.environ.get('MXNET_GLUON_REPO', ZOO_URL).rstrip('/')
    address = f'{root}/gluon/{place}/{name}.zip'
    with locked(path.with_name(f'.{path.name}.lock')):
        if _has_sha1(path, sha1):  # another process has fetched it meanwhile
            return path
        remove_leftovers(path)
        # The archive has no name, so that nothing is left of it even if the process is killed.
        with replacing(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as archive:
            try:
                download(address, archive, limit)
            except DownloadError as error:
                raise ToolkitError(
                    f'{path} is missing, and {error}; you can put it there'
                ) from None
            with open(temporary, 'wb') as file:
                file.writelines(read_member(archive, path.name, limit, address))
            if not _has_sha1(temporary, sha1):
                raise ToolkitError(f'{address}: {path.name} in it is not the right file')
    return path


def _has_sha1(path, sha1):
    """Return whether there is a file with a sha1."""
    return path.is_file() and hash_file(path, hashlib.sha1()) == sha1
