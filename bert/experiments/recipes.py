"""The settings of published runs, by name, and the results of those runs.

Figures and curves are in ``published/RECIPE/TASK.json`` beside this module, with the address of
each log.
"""

from pathlib import Path

from bert.system.files import read_json

PUBLISHED = Path(__file__).with_name('published')
# For flags that are not named here, the published value is the default.
_SHORT = {'batch_size': 32, 'epochs': 3, 'lr': 2e-5}
_LONG = {'batch_size': 32, 'epochs': 5, 'lr': 2e-5}
_SMALL = {'batch_size': 16, 'epochs': 20, 'lr': 2e-5, 'bias_correction': True}
RECIPES = {
    # The logs of GluonNLP's example of early 2019.
    '2019-01': {
        'MRPC': _SHORT,
        'RTE': _SHORT,
        'SST-2': {'batch_size': 16, 'epochs': 4, 'lr': 2e-5, 'log_interval': 500},
        'MNLI': {'max_len': 80, 'epsilon': 1e-8, 'log_interval': 100},
    },
    # The table of GluonNLP 0.10. The command printed there for CoLA says 10 epochs, the log 7.
    '2020-01': {
        'CoLA': {**_LONG, 'epochs': 7},
        'SST-2': {**_LONG, 'log_interval': 400},
        'MRPC': _LONG,
        'STS-B': _LONG,
        'QQP': {**_LONG, 'log_interval': 400},
        'MNLI': {**_LONG, 'epochs': 4, 'batch_size': 48, 'log_interval': 500},
        'RTE': _LONG,
    },
    # Mosbach et al. (2006.04884): bias correction, a small rate, 20 epochs, on CoLA, MRPC and RTE.
    # Zhang et al. (2006.05987), who asked for bias correction and more updates, on STS-B too.
    'small-data': {'CoLA': _SMALL, 'MRPC': _SMALL, 'STS-B': _SMALL, 'RTE': _SMALL},
}


def flags_of(recipe, task):
    """Return the flags of a recipe for a task, as words of a command line.

    >>> flags_of('2019-01', 'RTE')
    ['--batch_size', '32', '--epochs', '3', '--lr', '2e-05']
    """
    words = []
    for name, value in RECIPES[recipe][task].items():
        words += [f'--{name}'] if value is True else [f'--{name}', str(value)]
    return words


def published(task):
    """Read the published runs of a task.

    Returns
    -------
    dict of str to dict
        By recipe, the content of its JSON file: ``source``, ``seed``, ``note``, the dev metrics
        by dev set at the ``last`` and the ``best`` epoch if known, and the curves, which
        :func:`bert.report.logs.read_log` can read too.
    """
    files = {name: PUBLISHED / name / f'{task}.json' for name in RECIPES}
    return {name: read_json(path) for name, path in files.items() if path.is_file()}
