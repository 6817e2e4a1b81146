#!/usr/bin/env python3
"""Fine-tune with several seeds, on GLUE tasks or your own data, and report means and spreads."""

import signal

if __name__ == '__main__':
    # Until the program catches an interrupt, that ends it without a traceback of the imports.
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as in a background job
    signal.signal(signal.SIGINT, signal.SIG_IGN if is_ignored else signal.SIG_DFL)

import logging
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

from bert.cli.console import start_logging
from bert.cli.flags import Parser, add_quiet_flag, process_count, seed
from bert.cli.program import run
from bert.cli.spelling import spell_out
from bert.experiments import cards, plans, recipes, report, results, runs, submitting
from bert.finetuning.data import choose_task
from bert.finetuning.flags import check_args, complete, own_files
from bert.finetuning.parser import build_flags as build_run_flags
from bert.report import curves, logs
from bert.system import machine, packages
from bert.system.errors import ToolkitError, UsageError
from bert.system.files import write_text
from bert.system.terminal import show
from bert.tasks import files, library, submission
from bert.tasks.table import ALL_TASKS, OTHER_NAMES, TASKS

SCRIPT = Path(__file__).resolve().with_name('finetune_classifier.py')
EPILOG = """\
All other flags are those of finetune_classifier.py; its --help lists them. Each run has a folder
in the --output_dir, named after its task, its seed and a hash of its settings. Finished runs are
not repeated, so an interrupted command continues where it stopped when it is given again.

The best epoch is chosen on the same dev set that it is reported on, so its metrics are optimistic;
those of the last epoch are not.

examples:
  GLUE_DIR=glue_data glue.py --tasks MRPC RTE --seeds 1 2 3 --lr 2e-5
  GLUE_DIR=glue_data glue.py --tasks all --bert_model DIR --submission glue.zip --ensemble
  glue.py --train_file train.csv --dev_share 0.1 --text_columns text --label_column label
  glue.py --check-submission glue.zip
  glue.py --compare-log published.log glue_output/MRPC/seed-1-0a1b2c3d/finetune.log
"""
# Flags of finetune_classifier.py that are not passed on, and why; --output_dir is a flag here too.
REFUSED = {
    '--task_name': 'give the tasks with --tasks',
    '--seed': 'give the seeds with --seeds',
    '--only_inference': 'this script trains',
    '--text': 'this script trains',
    '--kvstore': 'each run is one process',
    '--resume': 'an unfinished run continues where it stopped',
}
# Flags that do something other than run tasks, and the flags that may go with them.
STANDALONE = {'--check-submission': (), '--compare-log': ('--output_dir',)}
STYLES = {'csv': 'csv', 'text': 'txt', 'markdown': 'md', 'rst': 'rst'}  # and their extensions


def parse_args(argv=None):
    """Parse the flags of this script and, for each task, those of finetune_classifier.py.

    Returns
    -------
    argparse.Namespace, dict of str to (list of str, argparse.Namespace)
        By the name of a task, the words to pass on and the flag values that they give.
    """
    parser = build_flags()
    run_parser = build_run_flags()
    run_parser.error = parser.error  # with the usage of this script
    flags = dict.fromkeys([*parser.spellings(), *run_parser.spellings()])
    allowed = [flag for flag in flags if flag not in REFUSED]
    argv = spell_out(sys.argv[1:] if argv is None else argv, allowed, list(REFUSED), parser.error)
    args, given = parser.parse_known_args(argv)
    refuse_flags([word.partition('=')[0] for word in argv if word.startswith('--')])
    if args.ensemble and not args.submission:
        raise UsageError('--ensemble goes with --submission')
    args.seeds = list(dict.fromkeys(args.seeds or [1, 2, 3, 4, 5]))
    values = run_parser.parse_args(given)
    if own_files(values):
        args.tasks = [name_own(args, values)]
    else:
        args.tasks = choose_tasks(args.tasks, args.recipe)
        if args.submission and not TASKS.keys() & args.tasks:
            raise UsageError(f'--submission goes with tasks of GLUE: {", ".join(TASKS)}')

    passed = {}
    for task in args.tasks:
        words = [*(recipes.flags_of(args.recipe, task) if args.recipe else []), *given]
        values = run_parser.parse_args(words)
        check_args(values)
        complete(values)
        if not values.task_name and not (values.dev_file or values.dev_share):
            raise UsageError('own data needs a --dev_file or a --dev_share to compare the runs')
        if args.jobs > 1 and values.gpus and len(values.gpus) != args.jobs:
            raise UsageError(
                f'--jobs {args.jobs} with {len(values.gpus)} --gpus: each run has a GPU of its own'
            )
        passed[task] = (words, values)
    return args, passed


def name_own(args, values):
    """Return the name of the user's own task in results; refuse the flags of GLUE's tasks.

    Parameters
    ----------
    args, values : argparse.Namespace
        The flags of this script, and those of finetune_classifier.py.
    """
    for name in ('tasks', 'recipe', 'submission'):
        if getattr(args, name):
            raise UsageError(f'--{name} is for GLUE tasks, not for own data')
    path = values.train_file or ''
    return library.file_stem(path) if library.is_name(path) else Path(path).stem


def build_flags():
    """Build the parser of this script's own flags."""
    # Which flag a word is short for depends on those of finetune_classifier.py too.
    parser = Parser(__doc__, epilog=EPILOG, allow_abbrev=False)
    group = parser.add_argument_group('runs')
    group.add_argument(
        '--tasks',
        nargs='+',
        choices=[*ALL_TASKS, *OTHER_NAMES, 'all'],
        metavar='TASK',
        help=f'{", ".join(TASKS)}, or all of these; also SNLI, XNLI, LCQMC, ChnSentiCorp, and XNLI '
        'in other languages, such as XNLI-de; the environment variable GLUE_DIR names the folder '
        'with their files (default: those of the --recipe, else MRPC)',
    )
    group.add_argument(
        '--seeds',
        nargs='+',
        type=seed,
        metavar='SEED',
        help='run each task with each of these seeds (default: 1 2 3 4 5)',
    )
    group.add_argument(
        '--recipe',
        choices=recipes.RECIPES,
        help='published settings, which other flags override: 2019-01 (the first published logs), '
        "2020-01 (GluonNLP 0.10's table), small-data (bias correction and 20 epochs)",
    )
    group.add_argument(
        '--jobs',
        type=process_count,
        default=1,
        metavar='N',
        help='number of concurrent runs; they share the cores of the CPU or, with --gpu or --gpus, '
        'have a GPU each',
    )
    group.add_argument('--output_dir', default='./glue_output', help='folder for the results')
    add_quiet_flag(parser, group, files='the run.log of each run')

    group = parser.add_argument_group("for GLUE's evaluation server")
    group.add_argument(
        '--submission',
        metavar='ZIP',
        help="write a submission: the predictions of each task's best run for all eleven test sets",
    )
    group.add_argument(
        '--ensemble',
        action='store_true',
        help='with --submission: predict with the mean probabilities of all runs of each task',
    )
    group.add_argument(
        '--check-submission', metavar='ZIP', help='only check such a file, and list its defects'
    )

    group = parser.add_argument_group('logs')
    group.add_argument(
        '--compare-log',
        nargs=2,
        metavar=('A', 'B'),
        help='only compare two fine-tuning logs, line by line, and plot both in comparison.svg '
        'and .png in the --output_dir',
    )
    return parser


def refuse_flags(names):
    """Refuse flags that do not go together, and those that runs cannot have.

    Parameters
    ----------
    names : list of str
        The flags that were given.
    """
    for flag, others in STANDALONE.items():
        for name in names if flag in names else ():
            if name not in (flag, *others):
                raise UsageError(f'{name} does not go with {flag}')
    for name in names:
        if name in REFUSED:
            raise UsageError(f'{name} is not for glue.py: {REFUSED[name]}')


def choose_tasks(given, recipe):
    """Return the names of the tasks to run, each once.

    Parameters
    ----------
    given : list of str or None
        The --tasks; by default those of the recipe.
    recipe : str or None
    """
    covered = list(recipes.RECIPES[recipe]) if recipe else list(ALL_TASKS)
    names = given or (covered if recipe else ['MRPC'])
    names = TASKS if 'all' in names else names
    tasks = list(dict.fromkeys(OTHER_NAMES.get(name, name) for name in names))
    missing = [task for task in tasks if task not in covered]
    if missing:
        raise UsageError(
            f'the recipe {recipe} has no {", ".join(missing)}: it has {", ".join(covered)}'
        )
    return tasks


def main(argv=None):
    """Run what the flags ask for.

    Returns
    -------
    dict of str to list of dict
        After runs, the table of each task; see :func:`bert.experiments.results.tabulate`.
    """
    args, passed = parse_args(argv)
    if args.check_submission:
        return check_submission(args.check_submission)
    if args.compare_log:
        return compare_logs(*args.compare_log, Path(args.output_dir))
    return run_tasks(args, passed, ['glue.py', *(sys.argv[1:] if argv is None else argv)])


def run_tasks(args, passed, command):
    """Do the missing runs, then print and write the results of all runs."""
    start = time.monotonic()
    planned = {}
    for name, (words, values) in passed.items():
        if values.task_name:
            values.task_name = name
        task = choose_task(values)
        if values.dev_share:
            task = replace(task, dev=(task.train,))
        data = files.folder_of(task)
        planned[name] = plans.make_plan(SCRIPT, task, words, vars(values), data, args.jobs)
    check_needs(args, planned, data)
    start_logging(args.quiet)
    has_pictures = can_draw()
    output = Path(args.output_dir)
    wanted = plans.list_runs(output, planned, args.seeds)
    done = runs.do_runs(wanted, planned, args.jobs)
    # In the order in which tasks and seeds were given, not in which the runs ended.
    records = {}
    for current in wanted:
        if current in done:
            records.setdefault(current.task, {})[current.seed] = done[current]
    folders = {(current.task, current.seed): current.folder for current in wanted}

    tables = {}
    if records:
        published = {
            name: plans.compare_published(planned[name].task, planned[name].settings, data)
            for name in records
        }
        tables = results.tabulate_tasks(records, published)
        for style, extension in STYLES.items():
            write_text(output / f'results.{extension}', results.format_document(tables, style))
        cards.write_cards(records, folders, planned)
        for name, of_task in records.items():
            best = folders[name, results.best_seed(planned[name].task, of_task)]
            logging.info('%s: the best run by the dev set is the model %s', name, best)
        shown = report.make_sections(tables, records, folders, published, planned, data)
        variables, source = describe_data(records, passed, data)
        typed = format_command(variables, command)
        report.write_report(output, typed, tables, shown, planned, records, source, has_pictures)
        show('', *results.format_document(tables, 'text').rstrip('\n').split('\n'))
    if args.submission:
        without = [task for task in args.tasks if task not in records]
        if without:
            logging.error('no submission is written: %s has no run', ', '.join(without))
        else:
            predictions = submitting.collect_answers(records, folders, args.ensemble)
            submission.write(args.submission, predictions)
            check_submission(args.submission)
    logging.info('%d of %d runs; %.0f s in all', len(done), len(wanted), time.monotonic() - start)
    failed = [str(current) for current in wanted if current not in done]
    if failed:
        raise ToolkitError(f'{len(failed)} of {len(wanted)} runs failed: {", ".join(failed)}')
    return tables


def describe_data(records, passed, data):
    """Describe where the data are from.

    Parameters
    ----------
    records : collection of str
        The names of the tasks.
    passed : dict of str to (list of str, argparse.Namespace)
        See :func:`parse_args`.
    data : Path
        The folder of the tasks' files.

    Returns
    -------
    dict of str to str, str
        The variables that were set, and a phrase.
    """
    values = next(iter(passed.values()))[1]
    if values.task_name:
        return {'GLUE_DIR': str(data)}, f'{", ".join(records)} in {data}'
    dev_set = values.dev_file or f'{values.dev_share:g} of its rows'
    return {}, f'{values.train_file}, dev set: {dev_set}'


def check_needs(args, planned, data):
    """Refuse to start a command that would fail only after hours of training."""
    packages.check_mxnet()
    devices = sorted({device for plan in planned.values() for device in plan.devices})
    problem = devices and machine.gpu_problem(devices)
    if problem:
        raise ToolkitError(problem)
    if not args.submission:
        return
    if Path(args.submission).is_dir():
        raise UsageError(f'--submission {args.submission} is a folder, not a file to write')
    for task in (TASKS[name] for name in args.tasks if name in TASKS):
        for split in task.test:
            path = data / split.path
            # The diagnostic set is a separate download; a submission can do without it.
            if split.submission == submission.DIAGNOSTIC and not path.is_file():
                continue
            count = len(files.read(data, task, split).texts)
            if count != split.rows:
                raise ToolkitError(
                    f"{path} has {count} rows, and GLUE's file {split.rows}: "
                    '--submission needs all of them'
                )


def can_draw():
    """Return whether matplotlib is installed, and log a warning if not."""
    found = curves.can_draw()
    if not found:
        logging.warning('%s', curves.NEEDED)
    return found


def format_command(variables, words):
    """Format a command as one would type it, each flag on its own line.

    >>> print(format_command({'GLUE_DIR': 'glue data'}, ['glue.py', '--tasks', 'RTE', '--gpu']))
    GLUE_DIR='glue data' glue.py \\
        --tasks RTE \\
        --gpu
    """
    text = ''.join(f'{name}={shlex.quote(value)} ' for name, value in variables.items())
    text += shlex.quote(words[0])
    for word in words[1:]:
        text += (' \\\n    ' if word.startswith('--') else ' ') + shlex.quote(word)
    return text


def check_submission(path):
    """Print each defect of a submission, and raise an error if there is one."""
    defects = submission.check(path)
    for defect in defects:
        show(defect)
    if defects:
        raise ToolkitError(f'{path}: {len(defects)} defects')
    total = sum(answers.rows for answers in submission.FILES.values())
    show(f'{path}: complete, {len(submission.FILES)} files with {total} predictions')


def compare_logs(first, second, output):
    """Print how two logs differ, line by line, and draw them.

    Returns
    -------
    list of dict
        See :func:`bert.report.logs.compare_lines`.
    """
    named = {f'A: {first}': logs.read_log(first), f'B: {second}': logs.read_log(second)}
    pair = named.values()
    show(*named, *logs.describe_differences(*pair))
    rows = logs.compare_lines(*pair)
    show('', *results.format_table(rows).split('\n'))

    curves.check_matplotlib()
    output.mkdir(parents=True, exist_ok=True)
    panels = curves.collect_panels(named, {}, logs.common_metric(*pair))
    curves.save(curves.draw(panels), output / 'comparison')
    show('', f'drawn to {output / "comparison.svg"} and .png')
    return rows


if __name__ == '__main__':
    run(main)
