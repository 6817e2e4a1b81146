"""Install the package ``bert`` and the five scripts; pyproject.toml says the rest."""

import setuptools

# The license is no key of pyproject.toml that all releases of setuptools read: the last ones for
# Python 3.8 take a table there, the newest ones an expression.
is_new = int(setuptools.__version__.split('.')[0]) >= 77
setuptools.setup(**{'license_expression' if is_new else 'license': 'Apache-2.0'})
