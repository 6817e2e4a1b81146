"""The shared part of the BERT scripts for MXNet/Gluon.

Importing this package before ``mxnet`` is all the preparation that a program needs; see
:mod:`bert.environment` for what it does. The modules are imported when they are first used, as in
``bert.model.load_bert``, so that ``--help`` need not wait for MXNet.
"""

import importlib

from bert import environment

__version__ = '1.0.0'

_MODULES = (
    'batches',
    'checkpoint',
    'configuration',
    'convert',
    'curves',
    'datasets',
    'distributed',
    'encoder',
    'gluon_file',
    'hub',
    'huggingface',
    'logs',
    'metrics',
    'model',
    'npz',
    'onnx_export',
    'ops',
    'optimizer',
    'pretraining',
    'pretraining_data',
    'pretraining_dataset',
    'recipes',
    'report',
    'results',
    'resume',
    'runs',
    'schedule',
    'source',
    'submission',
    'tasks',
    'tensorflow_checkpoint',
    'tokenizer',
    'training',
    'transform',
    'vocab',
    'zoo',
)


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f'bert.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


environment.prepare()
