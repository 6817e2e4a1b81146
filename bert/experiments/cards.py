"""The cards of runs: the best run of a task says how all of its seeds have done."""

from bert.checkpoints import cards
from bert.experiments.results import best_seed, measures, summarize

SEEDS = 'Several seeds'


def write_cards(records, folders, plans):
    """Write anew the cards of the runs of each task, as far as they change.

    Parameters
    ----------
    records : dict of str to dict of int to dict
        The records of each task by seed.
    folders : dict of (str, int) to Path
        By task and seed.
    plans : dict of str to bert.experiments.runs.Plan
        By task.
    """
    for task, done in records.items():
        best = best_seed(plans[task].task, done)
        for seed in done:
            folder = folders[task, seed]
            if not cards.is_ours(folder):
                continue  # a run of an earlier version
            card = cards.read_card(folder)
            facts = {heading: table for heading, table in card.facts.items() if heading != SEEDS}
            if seed == best and len(done) > 1:
                facts[SEEDS] = {'this model': f'seed {seed}, the best', **describe_seeds(done)}
            text = cards.format_card(card._replace(facts=facts), cards.CLASSIFICATION, 'output')
            cards.write_card(folder, text)


def describe_seeds(done):
    """Return the seeds and, by name, the mean of each metric with its 95 % interval, if it has one.

    Parameters
    ----------
    done : dict of int to dict
        The record of each seed.
    """
    measured = [measures(record) for record in done.values()]
    facts = {'seeds': list(done)}
    for name in measured[0]:
        if name not in ('best epoch', 'seconds'):
            mean, _, low, high, *_ = summarize([row[name] for row in measured]).values()
            facts[name] = f'{mean:.4f}'
            if low is not None:
                facts[name] += f', 95 % interval of the mean {low:.4f} to {high:.4f}'
    return facts
