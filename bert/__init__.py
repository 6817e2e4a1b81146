"""The shared part of the BERT scripts for MXNet/Gluon.

Import this package before ``mxnet``: it sets what MXNet reads only once, when it is loaded; see
:mod:`bert.system.environment`. docs/development.rst lists the rooms, one subpackage each, and
what they hold; imports run only from upper floors to lower ones.
"""

import importlib
import signal
import sys

# An interrupt ends ``python -m bert.embed`` and the like without a traceback of their imports; see
# :func:`bert.cli.program.run`. Any other program has its own way with it.
if (
    sys.argv[:1] == ['-m']
    and any('bert.' in word for word in getattr(sys, 'orig_argv', ()))
    and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from bert.system import environment

__version__ = '1.0.0'


def __getattr__(name):
    """Import ``bert.model``, and MXNet with it, when a program first uses ``bert.model``."""
    if name == 'model':
        return importlib.import_module('bert.model')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


environment.prepare()
