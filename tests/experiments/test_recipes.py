"""The recipes against the commands and figures that were published."""

import json

import pytest

from bert.experiments import recipes
from bert.finetuning.parser import build_flags

# The command line of each published run, from its log or its page.
COMMANDS = {
    ('2019-01', 'MRPC'): '--batch_size 32 --optimizer bertadam --epochs 3 --lr 2e-5',
    ('2019-01', 'RTE'): '--batch_size 32 --optimizer bertadam --epochs 3 --lr 2e-5',
    ('2019-01', 'SST-2'): '--batch_size 16 --epochs 4 --lr 2e-5',
    ('2019-01', 'MNLI'): '--max_len 80 --epsilon 1e-8 --batch_size 32 --epochs 3 --lr 5e-5',
    ('2020-01', 'CoLA'): '--batch_size 32 --lr 2e-5 --epochs 7',
    ('2020-01', 'SST-2'): '--batch_size 32 --lr 2e-5 --warmup_ratio 0.1 --epochs 5',
    ('2020-01', 'MRPC'): '--batch_size 32 --lr 2e-5 --epochs 5 --warmup_ratio 0.1',
    ('2020-01', 'STS-B'): '--batch_size 32 --lr 2e-5 --epochs 5',
    ('2020-01', 'QQP'): '--batch_size 32 --lr 2e-5 --epochs 5 --warmup_ratio 0.1',
    ('2020-01', 'MNLI'): '--batch_size 48 --lr 2e-5 --warmup_ratio 0.1 --epochs 4',
    ('2020-01', 'RTE'): '--batch_size 32 --lr 2e-5 --epochs 5',
    # As in the configuration files published with 2006.04884.
    **{
        ('small-data', task): '--batch_size 16 --lr 2e-5 --epochs 20 --bias_correction '
        '--epsilon 1e-6 --warmup_ratio 0.1'
        for task in ('CoLA', 'MRPC', 'STS-B', 'RTE')
    },
}
# Dev results at the last and at the best epoch; None if not known.
FIGURES = {
    ('2019-01', 'MRPC'): ({'dev': {'accuracy': 0.8873}}, {'dev': {'accuracy': 0.8873}}),
    ('2019-01', 'RTE'): ({'dev': {'accuracy': 0.7076}}, {'dev': {'accuracy': 0.7076}}),
    ('2019-01', 'SST-2'): ({'dev': {'accuracy': 0.93}}, {'dev': {'accuracy': 0.93}}),
    ('2019-01', 'MNLI'): (
        {'matched': {'accuracy': 0.8455}, 'mismatched': {'accuracy': 0.8466}},
        None,
    ),
    ('2020-01', 'CoLA'): ({'dev': {'mcc': 0.5843}}, {'dev': {'mcc': 0.6032}}),
    ('2020-01', 'SST-2'): (None, {'dev': {'accuracy': 0.9346}}),
    ('2020-01', 'MRPC'): (
        {'dev': {'accuracy': 0.8848, 'f1': 0.9188}},
        {'dev': {'accuracy': 0.8873, 'f1': 0.9196}},
    ),
    ('2020-01', 'STS-B'): ({'dev': {'pearsonr': 0.9023}}, {'dev': {'pearsonr': 0.9034}}),
    ('2020-01', 'QQP'): (None, {'dev': {'accuracy': 0.9097, 'f1': 0.8783}}),
    ('2020-01', 'MNLI'): (
        None,
        {'matched': {'accuracy': 0.8429}, 'mismatched': {'accuracy': 0.8507}},
    ),
    ('2020-01', 'RTE'): ({'dev': {'accuracy': 0.7256}}, {'dev': {'accuracy': 0.7401}}),
}


def test_all_recipes_are_in_the_table():
    assert [(r, t) for r, tasks in recipes.RECIPES.items() for t in tasks] == list(COMMANDS)


@pytest.mark.parametrize(('recipe', 'task'), COMMANDS)
def test_settings(recipe, task):
    """All flags, the defaults included, except how often lines are logged."""
    parse = build_flags().parse_args
    values = vars(parse(recipes.flags_of(recipe, task)))
    assert {**values, 'log_interval': 10} == vars(parse(COMMANDS[recipe, task].split()))


@pytest.mark.parametrize(('recipe', 'task'), FIGURES)
def test_figures(recipe, task):
    found = recipes.published(task)[recipe]
    assert (found.get('last'), found.get('best')) == FIGURES[recipe, task]
    assert found['source'].startswith('https://github.com/dmlc/web-data/')


def test_no_other_figures():
    files = {(path.parent.name, path.stem) for path in recipes.PUBLISHED.rglob('*.json')}
    assert files == set(FIGURES)
    assert recipes.published('QNLI') == {}


def test_curves_agree_with_figures():
    for path in recipes.PUBLISHED.rglob('*.json'):
        kept = json.loads(path.read_text('utf8'))
        if 'best' in kept and kept['validation']:
            (metric, *_) = kept['best']['dev']
            of_epochs = [entry['dev'] for entry in kept['validation']]
            assert of_epochs[-1] == kept['last']['dev']
            assert max(values[metric] for values in of_epochs) == kept['best']['dev'][metric]
