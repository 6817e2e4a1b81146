#!/usr/bin/env python3
"""Fine-tune on GLUE tasks with several seeds each: what to expect, how sure, how it compares."""

import contextlib
import hashlib
import json
import logging
import shlex
import sys
import time
from pathlib import Path

import numpy as np

import bert
import finetune_classifier
from bert.cli import (
    ToolkitError,
    UsageError,
    build_parser,
    positive_int,
    run,
    seed,
    start_logging,
)
from bert.files import write_text

EPILOG = """\
All other flags are those of finetune_classifier.py; its --help lists them. Each run has a folder
in the --output_dir, named by task, seed and a hash of its settings. A run that is finished is not
run again, so an interrupted command, given once more, goes on where it was.

The best epoch is chosen by the dev set that it is reported on, which flatters; the last is not.

examples:
  GLUE_DIR=glue_data glue.py --tasks MRPC RTE --seeds 1 2 3 --lr 2e-5
  GLUE_DIR=glue_data glue.py --tasks all --bert_model DIR --submission glue.zip --ensemble
  GLUE_DIR=glue_data glue.py --recipe 2019-01 --gpu
  glue.py --check-submission glue.zip
  glue.py --compare-log published.log glue_output/MRPC/seed-1-0a1b2c3d/finetune.log
"""

OWN_DATA = 'train_file dev_file test_file text_columns label_column regression metric'
# Flags of finetune_classifier.py that are not passed on, and why. (--output_dir is taken here.)
REFUSED = {
    '--task_name': 'give the tasks with --tasks',
    '--seed': 'give the seeds with --seeds',
    '--only_inference': 'this script trains',
    '--kvstore': 'each run is one process',
    '--resume': 'a run that is not finished goes on where it stood',
    **{f'--{name}': 'this script runs GLUE tasks, not own data' for name in OWN_DATA.split()},
}
# What does something else than to run tasks, and the flags that may stand beside it.
ALONE = {'--check-submission': (), '--compare-log': ('--output_dir',)}

STYLES = {'csv': 'csv', 'text': 'txt', 'markdown': 'md', 'rst': 'rst'}  # and their extensions


def parse_args(argv=None):
    """The flags of this script, and by task those of finetune_classifier.py.

    Returns
    -------
    argparse.Namespace, dict of str to (list of str, argparse.Namespace)
        By task the words to pass on, and what they mean with all defaults, checked by the parser
        of finetune_classifier.py.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = build_flags()
    args, given = parser.parse_known_args(argv)
    names = [word.partition('=')[0] for word in argv if word.startswith('--')]
    for flag, others in ALONE.items():
        for name in names if flag in names else ():
            if name not in (flag, *others):
                raise UsageError(f'{name} does not go with {flag}')
    for name in names:
        if name in REFUSED:
            raise UsageError(f'{name} is not for glue.py: {REFUSED[name]}')
    if args.ensemble and not args.submission:
        raise UsageError('--ensemble goes with --submission')

    recipe = bert.recipes.RECIPES[args.recipe] if args.recipe else None
    tasks = args.tasks or (list(recipe) if recipe else ['MRPC'])
    tasks = bert.tasks.TASKS if 'all' in tasks else tasks
    args.tasks = unique(bert.tasks.OTHER_NAMES.get(name, name) for name in tasks)
    args.seeds = unique(args.seeds or [1, 2, 3, 4, 5])
    missing = [task for task in args.tasks if recipe and task not in recipe]
    if missing:
        raise UsageError(
            f'the recipe {args.recipe} has no {", ".join(missing)}: it has {", ".join(recipe)}'
        )

    other_parser = finetune_classifier.build_flags()
    other_parser.error = parser.error  # with the usage of this script
    passed = {}
    for task in args.tasks:
        words = [*(bert.recipes.flags_of(args.recipe, task) if recipe else []), *given]
        meant = other_parser.parse_args(words)
        finetune_classifier.check_args(meant)
        if args.jobs > 1 and meant.gpus and len(meant.gpus) != args.jobs:
            raise UsageError(
                f'--jobs {args.jobs} with {len(meant.gpus)} --gpus: each run has a GPU of its own'
            )
        passed[task] = (words, meant)
    return args, passed


def build_flags():
    """The argument parser."""
    parser = build_parser(__doc__, epilog=EPILOG)
    runs = parser.add_argument_group('runs')
    runs.add_argument(
        '--tasks',
        nargs='+',
        choices=[*bert.tasks.TASKS, *bert.tasks.OTHER_NAMES, 'all'],
        metavar='TASK',
        help=f'{", ".join(bert.tasks.TASKS)}, or all; their files are in the folder that the '
        'variable GLUE_DIR names (default: those of the --recipe, else MRPC)',
    )
    runs.add_argument(
        '--seeds',
        nargs='+',
        type=seed,
        metavar='SEED',
        help='each task is run with each of them (default: 1 2 3 4 5)',
    )
    runs.add_argument(
        '--recipe',
        choices=bert.recipes.RECIPES,
        help='the settings of published runs, which other flags override: 2019-01 of the first '
        "logs, 2020-01 of GluonNLP 0.10's table, small-data with bias correction and 20 epochs",
    )
    runs.add_argument(
        '--jobs',
        type=positive_int,
        default=1,
        metavar='N',
        help='runs at once: on the CPU they share the cores, with --gpu or --gpus each has a GPU',
    )
    runs.add_argument('--output_dir', default='./glue_output', help='where results go')

    submission = parser.add_argument_group("for GLUE's evaluation server")
    submission.add_argument(
        '--submission',
        metavar='ZIP',
        help='write the predictions for all eleven test sets, by the best run of each task',
    )
    submission.add_argument(
        '--ensemble',
        action='store_true',
        help='by all runs of each task: the mean of their probabilities',
    )
    submission.add_argument(
        '--check-submission', metavar='ZIP', help='only check such a file, and name its defects'
    )

    logs = parser.add_argument_group('logs')
    logs.add_argument(
        '--compare-log',
        nargs=2,
        metavar=('A', 'B'),
        help='only compare two logs of fine-tuning, line by line, and draw both to '
        'comparison.svg and .png in the --output_dir',
    )
    return parser


def unique(items):
    """The items in their order, each once."""
    return list(dict.fromkeys(items))


def main(argv=None):
    """Do what the flags ask for.

    Returns
    -------
    dict of str to list of dict
        Of runs the table of each task; see :func:`bert.results.tabulate`.
    """
    args, passed = parse_args(argv)
    if args.check_submission:
        return check_submission(args.check_submission)
    if args.compare_log:
        return compare_logs(*args.compare_log, Path(args.output_dir))
    return run_tasks(args, passed, ['glue.py', *(sys.argv[1:] if argv is None else argv)])


def run_tasks(args, passed, command):
    """Do the runs that are missing, then print and write what all of them give."""
    start = time.time()
    data = bert.datasets.glue_folder()
    plans = {task: make_plan(*passed[task], data, args.jobs) for task in args.tasks}
    check_needs(args, plans, data)
    start_logging()
    has_pictures = can_draw()
    output = Path(args.output_dir)
    runs = [
        bert.runs.Run(task, number, output / task / f'seed-{number}-{digest(plans[task].settings)}')
        for task in args.tasks
        for number in args.seeds
    ]
    records = {task: {} for task in args.tasks}
    for current, record in bert.runs.do_runs(runs, plans, args.jobs).items():
        records[current.task][current.seed] = record
    folders = {(current.task, current.seed): current.folder for current in runs}
    # In the order of the seeds that were given, not in that in which the runs ended.
    records = {
        task: {number: done[number] for number in args.seeds if number in done}
        for task, done in records.items()
        if done
    }

    tables = {}
    if records:
        published = {task: compare_published(task, plans[task], data) for task in records}
        tables = make_tables(records, published)
        for style, extension in STYLES.items():
            write_text(output / f'results.{extension}', bert.results.format_document(tables, style))
        print(f'\n{bert.results.format_document(tables, "text")}', end='', flush=True)
        sections = make_sections(tables, records, folders, published, data)
        write_report(output, format_command(data, command), tables, sections, records, has_pictures)
    failed = [str(r) for r in runs if r.seed not in records.get(r.task, {})]
    if args.submission:
        without = [task for task in args.tasks if task not in records]
        if without:
            logging.error('no submission is written: %s has no run', ', '.join(without))
        else:
            write_submission(args.submission, records, folders, args.ensemble)
    logging.info(
        '%d of %d runs; %.0f s in all', len(runs) - len(failed), len(runs), time.time() - start
    )
    if failed:
        raise ToolkitError(f'{len(failed)} of {len(runs)} runs failed: {", ".join(failed)}')
    return tables


def format_command(data, words):
    """A command as one types it, each flag on a line.

    >>> print(format_command('glue data', ['glue.py', '--tasks', 'RTE', '--gpu']))
    GLUE_DIR='glue data' glue.py \\
        --tasks RTE \\
        --gpu
    """
    text = f'GLUE_DIR={shlex.quote(str(data))}'
    for word in words:
        text += (' \\\n    ' if word.startswith('--') else ' ') + shlex.quote(word)
    return text


def make_plan(flags, meant, data, jobs):
    """The :class:`bert.runs.Plan` of a task, from the flags for it and what they mean."""
    devices = meant.gpus or [0] * meant.gpu
    if devices and jobs > 1:
        devices = meant.gpus or list(range(jobs))
        # Each process sees only its own GPU, as number 0; the last of two --gpus counts.
        flags = [*flags, '--gpus', '0'] if meant.gpus else flags
    count = min(len(devices), 1) if jobs > 1 else len(devices)
    resume = ['--resume'] if meant.optimizer.lower() == 'bertadam' else []
    command = [sys.executable, '-u', finetune_classifier.__file__, *resume, *flags]
    return bert.runs.Plan(command, collect_settings(meant, data, count), devices)


def collect_settings(meant, data, devices):
    """What the numbers of a run depend on beside its task and seed.

    Those are the flags of finetune_classifier.py, how many GPUs a run has (0 is the CPU), and the
    folder of the data, with paths that do not depend on where the command was given.
    """
    settings = {**vars(meant), 'GLUE_DIR': str(data.resolve()), 'devices': devices}
    for name in ('task_name', 'seed', 'output_dir', 'resume', 'gpu', 'gpus'):
        del settings[name]
    for name in ('bert_model', 'pretrained_bert_parameters', 'model_parameters'):
        if settings[name] and Path(settings[name]).exists():
            settings[name] = str(Path(settings[name]).resolve())
    return settings


def digest(settings):
    """A short hash of the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def check_needs(args, plans, data):
    """Refuse, before hours of training, what could not be finished."""
    bert.environment.check_mxnet()
    devices = sorted({device for plan in plans.values() for device in plan.devices})
    problem = devices and bert.environment.gpu_problem(devices)
    if problem:
        raise ToolkitError(problem)
    if not args.submission:
        return
    if Path(args.submission).is_dir():
        raise UsageError(f'--submission {args.submission} is a folder, not a file to write')
    for task in (bert.tasks.TASKS[name] for name in args.tasks):
        for split in task.test:
            # The diagnostic set is fetched apart, and can be filled.
            if split.submission == 'AX.tsv' and not (data / split.path).is_file():
                continue
            count = len(bert.datasets.read_glue(data, task, split).texts)
            if count != split.rows:
                raise ToolkitError(
                    f"{data / split.path} has {count} rows, and GLUE's file {split.rows}: "
                    '--submission needs all of them'
                )


def can_draw():
    """Whether there is matplotlib; if not, that is told."""
    try:
        bert.curves.check_matplotlib()
    except ToolkitError as error:
        logging.warning('%s', error)
        return False
    return True


def make_tables(records, published):
    """The table of each task that has a record, and of GLUE's score where all tasks have."""
    tables = {}
    for name, done in records.items():
        measured = {number: bert.results.measures(record) for number, record in done.items()}
        tables[name] = bert.results.tabulate(measured, published[name])
    if len(records) == len(bert.tasks.TASKS):
        scores = bert.results.macro_average(records)
        if scores:
            tables['GLUE'] = bert.results.tabulate(scores)
    return tables


def compare_published(name, plan, data):
    """The published runs of a task, and why the own ones cannot be compared with them, if so.

    Returns
    -------
    list of (str, dict, str or None)
        Name of the recipe, its figures, and ``other model``, ``other recipe``, ``other data``
        or None.
    """
    parser = finetune_classifier.build_flags()
    found = []
    for recipe, figures in bert.recipes.published(name).items():
        meant = parser.parse_args(bert.recipes.flags_of(recipe, name))
        # One device: --batch_size is that of a device.
        reference = collect_settings(meant, data, max(min(plan.settings['devices'], 1), 0))
        reason = bert.recipes.difference(plan.settings, reference)
        if reason is None and not is_whole(bert.tasks.TASKS[name], data):
            reason = 'other data'
        found.append((recipe, figures, reason))
    return found


def is_whole(task, data):
    """Whether the training and dev sets have as many rows as those of GLUE."""
    return all(
        len(bert.datasets.read_glue(data, task, split).texts) == split.rows
        for split in (task.train, *task.dev)
    )


def make_sections(tables, records, folders, published, data):
    """What the report shows of each task, from what its runs wrote.

    Returns
    -------
    list of bert.report.Section
    """
    sections = []
    for name, done in records.items():
        task = bert.tasks.TASKS[name]
        panels = collect_panels(task, done, folders, published[name])
        evaluations = [
            collect_evaluation(task, split, [folders[name, number] for number in done], data)
            for split in task.dev
        ]
        sections.append(bert.report.Section(task, tables[name], panels, evaluations))
    return sections


def write_report(output, command, tables, sections, records, has_pictures):
    """Write ``report.html``, and for each task ``curves.svg`` and ``curves.png``."""
    for section in sections if has_pictures else ():
        bert.curves.save(bert.curves.draw(section.panels), output / section.task.name / 'curves')
    machines = {}
    for record in (record for done in records.values() for record in done.values()):
        for name, value in record['machine'].items():
            machines[name] = unique([*machines.get(name, []), value])
    title = f'GLUE: {", ".join(records)}'
    page = bert.report.write_page(title, command, tables, sections, machines, has_pictures)
    write_text(output / 'report.html', page)
    logging.info('wrote %s', output / 'report.html')


def collect_panels(task, done, folders, published):
    """The curves of a task, own and published; see :func:`bert.curves.collect_panels`."""
    own = {
        f'seed {number}': bert.logs.read_log(folders[task.name, number] / 'finetune.log')
        for number in done
    }
    others = {}
    for recipe, figures, reason in published:
        remark = ' (BERT base)' if reason == 'other model' else ''
        others[f'published {recipe}{remark}'] = bert.logs.Log(
            {}, figures['training'], figures['validation']
        )
    return bert.curves.collect_panels(own, others, task.metrics[0])


def collect_evaluation(task, split, folders, data):
    """What all runs of a task say of a dev set."""
    rows = bert.datasets.read_glue(data, task, split)
    outputs = [read_outputs(folder, split.name or 'dev') for folder in folders]
    for folder, values in zip(folders, outputs):
        if len(values) != len(rows.texts):
            raise ToolkitError(
                f'{data / split.path} has changed since {folder} was made: remove that folder'
            )
    return bert.report.Evaluation(split.name, rows.texts, rows.labels, np.stack(outputs))


def read_outputs(folder, name):
    """The outputs (N, classes) that a run wrote for a set, or an error that names the run."""
    path = folder / finetune_classifier.OUTPUTS
    try:
        with bert.npz.open_npz(path) as file:
            return file.read(name)
    except (OSError, bert.npz.Damaged):
        raise ToolkitError(
            f'{path} has no outputs for {name}: remove {folder}, so that it is run again'
        ) from None


def write_submission(path, records, folders, ensemble):
    """Write the predictions for all test sets, and say of each file what they come from."""
    predictions = {}
    for name, answers in bert.submission.FILES.items():
        done = records.get(answers.task, {})
        chosen = list(done) if ensemble or not done else [best_seed(answers.task, done)]
        stem = name[: -len('.tsv')]
        if name == 'AX.tsv' and not all(has_outputs(folders['MNLI', n], stem) for n in chosen):
            chosen = []
        if not chosen:
            predictions[name] = bert.submission.majority(name)
            logging.info('%s: no run, every prediction is %s', name, predictions[name][0])
            continue
        outputs = [read_outputs(folders[answers.task, number], stem) for number in chosen]
        combined = bert.submission.combine(outputs, answers.labels is None)
        predictions[name] = bert.submission.format_predictions(combined, answers.labels)
        if ensemble:
            logging.info('%s: the mean of %d runs', name, len(chosen))
        else:
            logging.info('%s: seed %d, the best of %d by the dev set', name, chosen[0], len(done))
    bert.submission.write(path, predictions)
    check_submission(path)


def best_seed(name, done):
    """The seed whose best epoch has the best first metric on the first dev set."""
    task = bert.tasks.TASKS[name]

    def score(number):
        epoch = done[number]['epochs'][done[number]['best_epoch'] - 1]
        return epoch[task.dev[0].name or 'dev'][task.metrics[0]]

    return max(done, key=score)


def has_outputs(folder, name):
    """Whether a run wrote outputs for a set."""
    with contextlib.suppress(ToolkitError):
        read_outputs(folder, name)
        return True
    return False


def check_submission(path):
    """Print each defect of a submission; if it has one, that is an error."""
    defects = bert.submission.check(path)
    for defect in defects:
        print(defect)
    if defects:
        raise ToolkitError(f'{path}: {len(defects)} defects')
    total = sum(answers.rows for answers in bert.submission.FILES.values())
    print(f'{path}: complete, {len(bert.submission.FILES)} files with {total} predictions')


def compare_logs(first, second, output):
    """Print two logs line by line, and draw them.

    Returns
    -------
    list of dict
        See :func:`bert.logs.compare_lines`.
    """
    logs = [bert.logs.read_log(path) for path in (first, second)]
    names = [f'{letter}: {path}' for letter, path in zip('AB', (first, second))]
    print('\n'.join(names))
    for flag, values in bert.logs.differing_flags(*logs).items():
        print(f'{flag}: A {values[0]!r}, B {values[1]!r}')
    batches = [log.training[0]['batches'] for log in logs if log.training]
    if len(set(batches)) > 1:
        print(f'batches an epoch: A {batches[0]}, B {batches[1]}')
    rows = bert.logs.compare_lines(*logs)
    print(f'\n{bert.results.format_table(rows)}', flush=True)

    bert.curves.check_matplotlib()
    output.mkdir(parents=True, exist_ok=True)
    metrics = [unique(name for line in log.training for name in line['metrics']) for log in logs]
    common = [name for name in metrics[0] if name in metrics[1]]
    panels = bert.curves.collect_panels(dict(zip(names, logs)), {}, next(iter(common), None))
    bert.curves.save(bert.curves.draw(panels), output / 'comparison')
    print(f'\ndrawn to {output / "comparison.svg"} and .png')
    return rows


if __name__ == '__main__':
    run(main)
