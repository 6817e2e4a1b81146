"""The card of a fine-tuned model: what it was made from, how, and how well it does."""

import functools

from bert.checkpoints.cards import (
    CLASSIFICATION,
    MOST_LABELS,
    Card,
    describe_source,
    format_card,
    short_name,
    versions,
)
from bert.finetuning.flags import fixed_flags
from bert.finetuning.parser import build_flags
from bert.tasks.table import LANGUAGES, TASKS

# The data sets of the Hub.
GLUE = 'nyu-mll/glue'
OTHERS = {'SNLI': 'stanfordnlp/snli', 'XNLI': 'facebook/xnli'}
# The Hub's names of metrics that have another one here.
METRICS = {'mcc': 'matthews_correlation', 'f1_macro': 'f1'}


def card_of_run(args, task, datasets, weights):
    """Return a function that makes the card of a run from its history; see :func:`format_run`.

    Parameters
    ----------
    datasets : dict of str to list of bert.finetuning.data.Dataset
    """
    rows = {name: [len(each.labels) for each in datasets[name]] for name in ('train', 'dev')}
    return functools.partial(format_run, args, task, rows, weights)


def format_run(args, task, rows, weights, history):
    """Write the card of a run after some epochs.

    Parameters
    ----------
    args : argparse.Namespace
    task : bert.tasks.table.Task
    rows : dict of str to list of int
        The rows of the ``train`` and ``dev`` sets.
    weights : bert.checkpoints.contents.Location or None
        Of the model that training begins with; None if it is trained from scratch.
    history : bert.finetuning.progress.History

    Returns
    -------
    str
    """
    source = args.pretrained_bert_parameters or args.model_parameters or args.bert_model
    base = describe_source(source, args.bert_dataset, weights) if weights else Card('')
    name, config = published_name(task) if is_published(task, rows) else (None, None)
    card = Card(
        name=f'{short_name(source)}-{task.name}',
        base=base.base,
        datasets=(name,) if name else (),
        languages=languages_of(task) or base.languages,
        license=base.license,
        results=list_results(task, history, name, config),
        facts={
            'Training': {
                'weights': source if weights else f'random, with the sizes of {source}',
                **describe_data(args, task, rows),
                'epochs': len(history.epochs),
                'best epoch': history.best_epoch,
            },
            'Flags': list_flags(args),
            'Versions': versions(),
        },
    )
    return format_card(card, CLASSIFICATION, 'output')


def is_published(task, rows):
    """Return whether the training set has as many rows as the published one."""
    return rows['train'][0] in (task.train.rows, task.train.older_rows)


def list_results(task, history, dataset, config):
    """Return the dev metrics of the best epoch, as tuple of huggingface_hub.EvalResult."""
    from huggingface_hub import EvalResult

    best = history.epochs[history.best_epoch - 1]
    return tuple(
        EvalResult(
            task_type=CLASSIFICATION,
            dataset_type=dataset or task.name.lower(),
            dataset_name=split.path if task.is_own else task.name,
            dataset_config=config,
            dataset_split='_'.join(filter(None, ['validation', split.name])),
            metric_type=METRICS.get(metric, metric),
            metric_name=metric,
            metric_value=round(float(value), 4),
        )
        for split in task.dev
        for metric, value in best[split.dev_name].items()
    )


def describe_data(args, task, rows):
    """Return what there is to say of the data, by name."""
    facts = {'task': task.name}
    if task.is_own:
        files = {'training file': args.train_file, 'dev file': args.dev_file}
        facts = {name: path for name, path in files.items() if path}
    (facts['training rows'],) = rows['train']
    if not (task.is_own or is_published(task, rows)):
        facts['rows of the published training set'] = task.train.rows
    for split, count in zip(task.dev, rows['dev']):
        facts[f'{split.name or "dev"} rows'] = count
    facts['labels'] = 'numbers' if task.labels is None else list(task.labels)
    if len(task.labels or ()) > MOST_LABELS:
        facts['labels'] = f'{len(task.labels)} classes'
    return facts


def list_flags(args):
    """Return the flags that results depend on and that are set, by name."""
    others = {*build_flags().with_role('indifferent'), 'task_name'}
    return {
        name: value
        for name, value in fixed_flags(args).items()
        if name not in others and value is not None and value is not False
    }


def published_name(task):
    """Return the name of a task's data set on the Hub and of its part, as far as there are any."""
    if task.name in TASKS:
        return GLUE, task.name.lower().replace('-', '')
    name, _, language = task.name.partition('-')
    return OTHERS.get(name), (language or 'zh') if name == 'XNLI' else None


def languages_of(task):
    """Return the languages of a published task, none for a user's own."""
    if task.is_own:
        return ()
    name, _, language = task.name.partition('-')
    if language in LANGUAGES:
        return (language,)
    return ('zh',) if name in ('XNLI', 'LCQMC', 'ChnSentiCorp') else ('en',)
