#!/usr/bin/env python3
"""Fine-tune on GLUE tasks with several seeds each: what to expect, how sure, how it compares."""

import logging
import shlex
import sys
import time
from pathlib import Path

from bert.cli.console import start_logging
from bert.cli.flags import Parser, positive_int, seed
from bert.cli.program import run
from bert.experiments import curves, recipes, results
from bert.experiments.logs import compare_lines, differing_flags, read_log
from bert.experiments.plans import compare_published, digest, make_plan
from bert.experiments.report import make_sections, write_report
from bert.experiments.results import unique
from bert.experiments.runs import Run, do_runs
from bert.finetuning import flags
from bert.finetuning.flags import OWN_DATA
from bert.system import environment, machine
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import write_text
from bert.tasks import files, table
from bert.tasks import submission as tasks_submission
from bert.tasks.predictions import has_outputs, read_outputs
from bert.tasks.submission import FILES, check, combine, format_predictions, majority, write

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

    recipe = recipes.RECIPES[args.recipe] if args.recipe else None
    tasks = args.tasks or (list(recipe) if recipe else ['MRPC'])
    tasks = table.TASKS if 'all' in tasks else tasks
    args.tasks = unique(table.OTHER_NAMES.get(name, name) for name in tasks)
    args.seeds = unique(args.seeds or [1, 2, 3, 4, 5])
    missing = [task for task in args.tasks if recipe and task not in recipe]
    if missing:
        raise UsageError(
            f'the recipe {args.recipe} has no {", ".join(missing)}: it has {", ".join(recipe)}'
        )

    other_parser = flags.build_flags()
    other_parser.error = parser.error  # with the usage of this script
    passed = {}
    for task in args.tasks:
        words = [*(recipes.flags_of(args.recipe, task) if recipe else []), *given]
        meant = other_parser.parse_args(words)
        flags.check_args(meant)
        if args.jobs > 1 and meant.gpus and len(meant.gpus) != args.jobs:
            raise UsageError(
                f'--jobs {args.jobs} with {len(meant.gpus)} --gpus: each run has a GPU of its own'
            )
        passed[task] = (words, meant)
    return args, passed


def build_flags():
    """The argument parser."""
    parser = Parser(__doc__, epilog=EPILOG)
    runs = parser.add_argument_group('runs')
    runs.add_argument(
        '--tasks',
        nargs='+',
        choices=[*table.TASKS, *table.OTHER_NAMES, 'all'],
        metavar='TASK',
        help=f'{", ".join(table.TASKS)}, or all; their files are in the folder that the '
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
        choices=recipes.RECIPES,
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


def main(argv=None):
    """Do what the flags ask for.

    Returns
    -------
    dict of str to list of dict
        Of runs the table of each task; see :func:`bert.experiments.results.tabulate`.
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
    data = files.glue_folder()
    plans = {task: make_plan(*passed[task], data, args.jobs) for task in args.tasks}
    check_needs(args, plans, data)
    start_logging()
    has_pictures = can_draw()
    output = Path(args.output_dir)
    runs = [
        Run(task, number, output / task / f'seed-{number}-{digest(plans[task].settings)}')
        for task in args.tasks
        for number in args.seeds
    ]
    records = {task: {} for task in args.tasks}
    for current, record in do_runs(runs, plans, args.jobs).items():
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
            write_text(output / f'results.{extension}', results.format_document(tables, style))
        print(f'\n{results.format_document(tables, "text")}', end='', flush=True)
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


def check_needs(args, plans, data):
    """Refuse, before hours of training, what could not be finished."""
    environment.check_mxnet()
    devices = sorted({device for plan in plans.values() for device in plan.devices})
    problem = devices and machine.gpu_problem(devices)
    if problem:
        raise ToolkitError(problem)
    if not args.submission:
        return
    if Path(args.submission).is_dir():
        raise UsageError(f'--submission {args.submission} is a folder, not a file to write')
    for task in (table.TASKS[name] for name in args.tasks):
        for split in task.test:
            # The diagnostic set is fetched apart, and can be filled.
            if split.submission == 'AX.tsv' and not (data / split.path).is_file():
                continue
            count = len(files.read_glue(data, task, split).texts)
            if count != split.rows:
                raise ToolkitError(
                    f"{data / split.path} has {count} rows, and GLUE's file {split.rows}: "
                    '--submission needs all of them'
                )


def can_draw():
    """Whether there is matplotlib; if not, that is told."""
    try:
        curves.check_matplotlib()
    except ToolkitError as error:
        logging.warning('%s', error)
        return False
    return True


def make_tables(records, published):
    """The table of each task that has a record, and of GLUE's score where all tasks have."""
    tables = {}
    for name, done in records.items():
        measured = {number: results.measures(record) for number, record in done.items()}
        tables[name] = results.tabulate(measured, published[name])
    if len(records) == len(table.TASKS):
        scores = results.macro_average(records)
        if scores:
            tables['GLUE'] = results.tabulate(scores)
    return tables


def write_submission(path, records, folders, ensemble):
    """Write the predictions for all test sets, and say of each file what they come from."""
    predictions = {}
    for name, answers in FILES.items():
        done = records.get(answers.task, {})
        chosen = list(done) if ensemble or not done else [best_seed(answers.task, done)]
        stem = name[: -len('.tsv')]
        if name == 'AX.tsv' and not all(has_outputs(folders['MNLI', n], stem) for n in chosen):
            chosen = []
        if not chosen:
            predictions[name] = majority(name)
            logging.info('%s: no run, every prediction is %s', name, predictions[name][0])
            continue
        outputs = [read_outputs(folders[answers.task, number], stem) for number in chosen]
        combined = combine(outputs, answers.labels is None)
        predictions[name] = format_predictions(combined, answers.labels)
        if ensemble:
            logging.info('%s: the mean of %d runs', name, len(chosen))
        else:
            logging.info('%s: seed %d, the best of %d by the dev set', name, chosen[0], len(done))
    write(path, predictions)
    check_submission(path)


def best_seed(name, done):
    """The seed whose best epoch has the best first metric on the first dev set."""
    task = table.TASKS[name]

    def score(number):
        epoch = done[number]['epochs'][done[number]['best_epoch'] - 1]
        return epoch[task.dev[0].name or 'dev'][task.metrics[0]]

    return max(done, key=score)


def check_submission(path):
    """Print each defect of a submission; if it has one, that is an error."""
    defects = check(path)
    for defect in defects:
        print(defect)
    if defects:
        raise ToolkitError(f'{path}: {len(defects)} defects')
    total = sum(answers.rows for answers in tasks_submission.FILES.values())
    print(f'{path}: complete, {len(tasks_submission.FILES)} files with {total} predictions')


def compare_logs(first, second, output):
    """Print two logs line by line, and draw them.

    Returns
    -------
    list of dict
        See :func:`bert.experiments.logs.compare_lines`.
    """
    logs = [read_log(path) for path in (first, second)]
    names = [f'{letter}: {path}' for letter, path in zip('AB', (first, second))]
    print('\n'.join(names))
    for flag, values in differing_flags(*logs).items():
        print(f'{flag}: A {values[0]!r}, B {values[1]!r}')
    batches = [log.training[0]['batches'] for log in logs if log.training]
    if len(set(batches)) > 1:
        print(f'batches an epoch: A {batches[0]}, B {batches[1]}')
    rows = compare_lines(*logs)
    print(f'\n{results.format_table(rows)}', flush=True)

    curves.check_matplotlib()
    output.mkdir(parents=True, exist_ok=True)
    metrics = [unique(name for line in log.training for name in line['metrics']) for log in logs]
    common = [name for name in metrics[0] if name in metrics[1]]
    panels = curves.collect_panels(dict(zip(names, logs)), {}, next(iter(common), None))
    curves.save(curves.draw(panels), output / 'comparison')
    print(f'\ndrawn to {output / "comparison.svg"} and .png')
    return rows


if __name__ == '__main__':
    run(main)
