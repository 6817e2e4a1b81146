"""The shared part of the BERT scripts for MXNet/Gluon.

Import this package before ``mxnet``: it sets what MXNet reads only once, when it is loaded; see
:mod:`bert.system.environment`. The README lists the rooms, one subpackage each, and what they
hold; imports run only from upper floors to lower ones.
"""

import importlib

from bert.system import environment

__version__ = '1.0.0'


def __getattr__(name):
    """Import ``bert.model``, and MXNet with it, when a program first uses ``bert.model``."""
    if name == 'model':
        return importlib.import_module('bert.model')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


environment.prepare()
