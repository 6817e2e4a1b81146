"""The shared part of the BERT scripts for MXNet/Gluon.

Import this package before ``mxnet``: it sets what MXNet reads only once, when it is loaded; see
:mod:`bert.system.environment`. The README lists the rooms, one subpackage each, and what they
hold; imports run only from upper floors to lower ones.
"""

from bert.system import environment

__version__ = '1.0.0'

environment.prepare()
