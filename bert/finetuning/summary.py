"""The page about a single run, and what its flags say: the facts, and what else to try."""

import logging
import shlex
import time
from pathlib import Path

import numpy as np

import bert
from bert.checkpoints.source import is_zoo_model
from bert.finetuning.parser import build_flags
from bert.report import curves, logs
from bert.report.curves import can_draw
from bert.report.markup import clean, format_lines, mark_flags, timed
from bert.report.page import Page, Section, format_page
from bert.report.quality import Evaluation
from bert.system import machine
from bert.system.errors import ToolkitError
from bert.system.files import parse_json, read_text, write_text
from bert.tasks.files import glue_folder
from bert.tasks.predictions import read_outputs
from bert.training.folder import METRICS_FILE

PAGE = 'report.html'
NO_DEV = (
    'There is no dev set, so nothing here says how good the answers are: give a --dev_file or a '
    '--dev_share.'
)
# The flags that a recipe consists of, those below only if they are given.
RECIPE = ('batch_size', 'lr', 'epochs', 'warmup_ratio', 'optimizer', 'max_len')
RECIPE_IF_GIVEN = (
    *('training_steps', 'accumulate', 'early_stop', 'epsilon', 'bias_correction', 'dtype'),
    *('do_lower_case', 'cased'),
)
VERSIONS = ('toolkit', 'Python', 'mxnet', 'mxnet-cu112')


def format_flags(names, values):
    """Return flags as one would type them.

    >>> format_flags(['lr', 'gpu', 'metric'], {'lr': 5e-5, 'gpu': True, 'metric': ['f1', 'mcc']})
    '--lr 5e-05 --gpu --metric f1 mcc'
    """
    words = []
    for name in names:
        value, flag = values[name], f'--{name}'
        if name == 'gpus':
            value = ','.join(map(str, value))
        given = value if isinstance(value, (list, tuple)) else [value]
        words += [flag] if value is True else [flag, *map(str, given)]
    return shlex.join(words)


def given_flags(names, values):
    """Return those of the names whose flags do not have their default values."""
    parser = build_flags()
    return [name for name in names if values[name] != parser.get_default(name)]


def describe_recipe(values):
    """Return the flags that the result depends on most, as one would type them, as HTML."""
    text = format_flags([*RECIPE, *given_flags(RECIPE_IF_GIVEN, values)], values)
    return f'<code>{mark_flags(clean(text))}</code>'


def describe_model(values):
    """Return where the model came from, as HTML."""
    model = values['bert_model']
    if is_zoo_model(model) and not values.get('vocab_file'):
        model += f', {values["bert_dataset"]}'
    names = ('vocab_file', 'pretrained_bert_parameters', 'model_parameters')
    parts = [model, *(f'--{name} {values[name]}' for name in names if values.get(name))]
    return mark_flags(clean(', '.join(parts)))


def advise(values, with_seed):
    """Return a sentence that says what to try if a run did not learn.

    Parameters
    ----------
    values : dict
        The flags of the run.
    with_seed : bool
        Whether another seed is a suggestion.
    """
    items = []
    if values['optimizer'] == 'bertadam' and not values['bias_correction']:
        items.append('--bias_correction')
    items += [f'a smaller --lr than {values["lr"]:g}', 'more --epochs']
    if values['warmup_ratio'] < build_flags().get_default('warmup_ratio'):
        items.append('a longer --warmup_ratio')
    items += ['another --seed'] * with_seed
    return f'What to try: {", ".join(items[:-1])} or {items[-1]}.'


def describe_versions(found):
    """Return the main versions in the result of :func:`describe_machine`, as text."""
    return ', '.join(f'{name} {found[name]}' for name in VERSIONS if name in found)


def describe_machine():
    """Describe what a run's results depend on besides its settings: a dict of str to str."""
    return {'toolkit': bert.__version__, **machine.describe()}


def last_step(folder):
    """Return how many updates the run in a folder had, by the last line of its metrics."""
    lines = read_text(folder / METRICS_FILE).split('\n')
    steps = [parse_json(line).get('step') for line in lines if line.strip()]
    return max((step for step in steps if isinstance(step, int)), default=0)


def collect_evaluation(folders, task, split, rows, source):
    """Collect the outputs of runs for a dev set.

    Parameters
    ----------
    folders : list of Path
        The folder of each run.
    task : bert.tasks.table.Task
    split : bert.tasks.table.Split
    rows : bert.tasks.files.Examples
    source : Path
        The file that the rows are from, for the error message.

    Returns
    -------
    bert.report.quality.Evaluation
    """
    outputs = [read_outputs(folder, split.dev_name, task.labels) for folder in folders]
    for folder, values in zip(folders, outputs):
        if len(values) != len(rows.texts):
            raise ToolkitError(f'{source} has changed since {folder} was made: remove that folder')
    return Evaluation(split.name, rows.texts, rows.labels, np.stack(outputs))


def write_page(folder, task, examples, args, history):
    """Write ``report.html`` about a run that ends now; return this time, which is for its record.

    The parameters are those of :func:`make_page`, but for the flags, an ``argparse.Namespace``.
    """
    finished = time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())
    write_text(folder / PAGE, make_page(folder, task, examples, vars(args), history, finished))
    logging.info('wrote %s', folder / PAGE)
    return finished


def make_page(folder, task, examples, values, history, finished):
    """Make the page about a run from the logs and outputs in its folder.

    Parameters
    ----------
    folder : Path
    task : bert.tasks.table.Task
    examples : dict of str to list of (Split, Examples)
        See :func:`bert.finetuning.data.read_examples`.
    values : dict
        The flags.
    history : bert.finetuning.progress.History
    finished : str
        The time at which the run ended.

    Returns
    -------
    str
        The same for the same files and parameters.
    """
    epochs, best_epoch = history.epochs, history.best_epoch
    log = logs.parse_log(read_text(folder / logs.LOG))
    found = describe_machine()
    section = Section(
        name=task.name if not task.is_own else Path(values['train_file']).name,
        task=task,
        runs=[''],
        advice=advise(values, with_seed=True),
        table=format_epochs(task, epochs, best_epoch),
        notes=describe_best(task, epochs, best_epoch),
        panels=curves.collect_panels({'': log}, {}, task.metrics[0]),
        evaluations=[
            collect_evaluation([folder], task, split, rows, Path(split.path))
            for split, rows in examples['dev']
        ],
    )
    seconds = sum(epoch['seconds'] for epoch in epochs)
    page = Page(
        title=f'{section.name}: a fine-tuned BERT',
        facts=[
            ('model', describe_model(values)),
            ('data', clean(describe_rows(examples))),
            ('recipe', describe_recipe(values)),
            ('seed', clean(values['seed'])),
            ('training', f'{last_step(folder):,} updates in {timed(format_seconds(seconds))}'),
            ('finished', timed(finished)),
            ('versions', clean(describe_versions(found))),
        ],
        tables=[],
        sections=[section],
        no_dev=NO_DEV,
        command=format_command(task, values),
        details=[(name, clean(value)) for name, value in found.items()],
    )
    return format_page(page, can_draw())


def format_epochs(task, epochs, best_epoch):
    """Return a table of the dev metrics of each epoch, as HTML."""
    columns = [(split, metric) for split in task.dev for metric in task.metrics]
    if not columns:
        return ''
    head = ['epoch', *(f'{split.name} {metric}'.strip() for split, metric in columns)]
    lines = [
        [str(number), *(f'{epoch[split.dev_name][metric]:.4f}' for split, metric in columns)]
        for number, epoch in enumerate(epochs, 1)
    ]
    return format_lines(head, lines, best=[str(best_epoch)])


def describe_best(task, epochs, best_epoch):
    """Return a note about the best epoch, in a list."""
    if not task.dev or len(epochs) < 2:
        return []
    return [
        f'Epoch {best_epoch} is the best by {task.metrics[0]}: its parameters are used for '
        'predictions, and its answers are judged here. It was chosen on the same rows, which makes '
        'it look slightly better than it is.'
    ]


def describe_rows(examples):
    """Return how many rows each set has, as text."""
    parts = [
        f'{len(rows.texts):,} {split.name} {name} rows'.replace('  ', ' ')
        for name, sets in examples.items()
        for split, rows in sets
    ]
    return ', '.join(parts)


def format_seconds(seconds):
    """Return a time span as text.

    >>> format_seconds(41.6), format_seconds(5025)
    ('42 s', '1 h 24 min')
    """
    hours, minutes = divmod(int((seconds + 30) // 60), 60)
    if seconds < 120:
        return f'{seconds:.0f} s'
    return f'{hours} h {minutes} min' if hours else f'{minutes} min'


def format_command(task, values):
    """Return the command that gives the same run, without the folder of its results."""
    left_out = ['resume', 'output_dir', *build_flags().with_role('unrecorded')]
    kept = given_flags([name for name in values if name not in left_out], values)
    flags = format_flags(kept, values)
    start = '' if task.is_own else f'GLUE_DIR={shlex.quote(str(glue_folder()))} '
    return f'{start}finetune_classifier.py {flags}'.replace(' --', ' \\\n    --').rstrip()
