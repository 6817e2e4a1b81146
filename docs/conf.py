"""Sphinx: how these pages become HTML, by ``make docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bert  # before MXNet, which autodoc imports

project = 'BERT for MXNet and Gluon'
author = 'The mxnet-bert-toolkit maintainers'
copyright = f'the authors of GluonNLP and {author}'
release = version = bert.__version__

extensions = ['sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.mathjax']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = project
highlight_language = 'none'
smartquotes = False  # they would make a dash of the two hyphens of a flag

autodoc_member_order = 'groupwise'
napoleon_google_docstring = False
# Not on these pages: names of other libraries, words in a docstring's types, internals.
nitpick_ignore_regex = [('py:.*', r'(?!bert\.(gluon|predict|embed|model)\.\w+$).*')]
