"""The shared part of the BERT scripts for MXNet/Gluon.

Importing this package before ``mxnet`` is all the preparation that a program needs; see
:mod:`bert.environment` for what it does.
"""

from bert import environment

__version__ = '1.0.0'

environment.prepare()
