"""Write the page about many runs: what its sections show, and an overview of them."""

import logging

from bert.experiments.results import HEAD, MEAN_INTERVAL, format_cell, metric_name
from bert.finetuning import summary
from bert.finetuning.data import read_dev_sets
from bert.report import curves, logs
from bert.report.markup import clean, format_lines, timed
from bert.report.page import Page, Section, format_page
from bert.system.files import write_text


def make_sections(tables, records, folders, published, plans, data):
    """Make the sections of all tasks.

    Parameters
    ----------
    tables : dict of str to list of dict
        See :func:`bert.experiments.results.tabulate_tasks`.
    records : dict of str to dict of int to dict
        The records of each task by seed.
    folders : dict of (str, int) to Path
        The folder of each run, by task and seed.
    published : dict of str to list
        The result of :func:`bert.experiments.plans.compare_published` for each task.
    plans : dict of str to bert.experiments.runs.Plan
        By task.
    data : Path
        The folder of the tasks' files.

    Returns
    -------
    list of bert.report.page.Section
    """
    sections = []
    for name, done in records.items():
        task, settings = plans[name].task, plans[name].settings
        of_task = [folders[name, number] for number in done]
        left_out = {f'published {recipe}' for recipe, _, reason in published[name] if reason}
        evaluations = [
            summary.collect_evaluation(of_task, task, split, rows, data / split.path)
            for split, rows in read_dev_sets(data, task, settings['dev_share'])
        ]
        sections.append(
            Section(
                name=name,
                task=task,
                runs=[f'seed {number}' for number in done],
                advice=summary.advise(settings, with_seed=False),
                table=format_rows([row for row in tables[name] if row[HEAD] not in left_out]),
                notes=describe_left_out(published[name]),
                panels=collect_panels(name, task.metrics[0], done, folders, published[name]),
                evaluations=evaluations,
            )
        )
    return sections


def collect_panels(name, metric, done, folders, published):
    """Collect the panels of a task, with the curves of its runs and of comparable published ones.

    Parameters
    ----------
    name : str
        Of the task.
    metric : str
        The one to show during training.
    done, folders, published
        See :func:`make_sections`; those of this task.

    Returns
    -------
    list of bert.report.curves.Panel
    """
    own = {f'seed {number}': logs.read_log(folders[name, number] / logs.LOG) for number in done}
    others = {
        f'published {recipe}': logs.Log({}, figures['training'], figures['validation'])
        for recipe, figures, reason in published
        if not reason
    }
    return curves.collect_panels(own, others, metric)


def describe_left_out(published):
    """Return a note for each reason not to show published runs."""
    recipes = {}
    for recipe, _, reason in published:
        if reason:
            recipes.setdefault(reason, []).append(recipe)
    return [
        f'Published runs that cannot be compared, and are not shown: {", ".join(names)} ({reason}).'
        for reason, names in recipes.items()
    ]


def format_rows(table):
    """Return a table of :func:`bert.experiments.results.tabulate` as HTML.

    Its statistics are below a rule; those that there are not, as of few runs, are left out.
    """
    shown = [row for row in table if {row[name] for name in row if name != HEAD} != {None}]
    lines = [[format_cell(*item) for item in row.items()] for row in shown]
    return format_lines(list(table[0]), lines, first='mean')


def format_overview(tables, sections):
    """Return a table with the first metric of each task, at the last and the best epoch."""
    head = ['task', 'metric', 'runs', 'last epoch, mean', *MEAN_INTERVAL, 'best epoch, mean']
    lines = []
    for section in sections:
        by_name = {row[HEAD]: row for row in tables[section.name]}
        for evaluation in section.evaluations:
            metric = section.task.metrics[0]
            dev_set = evaluation.name or 'dev'
            last, best = (metric_name(when, dev_set, metric) for when in ('last', 'best'))
            cells = [('mean', last), *((row, last) for row in MEAN_INTERVAL), ('mean', best)]
            lines.append(
                [
                    section.name,
                    f'{evaluation.name} {metric}'.strip(),
                    str(len(evaluation.outputs)),
                    *(format_cell(column, by_name[row][column]) for row, column in cells),
                ]
            )
    return format_lines(head, lines)


def list_facts(sections, plans, records, source):
    """List what the runs were, as (name, HTML)."""
    facts, several = [], len(sections) > 1
    for name, describe in [('model', summary.describe_model), ('recipe', summary.describe_recipe)]:
        texts = {}
        for section in sections:
            texts.setdefault(describe(plans[section.name].settings), []).append(section.name)
        for text, tasks in texts.items():
            title = f'{name} of {", ".join(tasks)}' if len(texts) > 1 else name
            facts.append((title, text))
    done = [record for of_task in records.values() for record in of_task.values()]
    seeds = dict.fromkeys(seed for of_task in records.values() for seed in of_task)
    runs = f'{len(done)}: ' + (f'{len(sections)} tasks, ' if several else '')
    facts.insert(1, ('data', clean(source)))
    facts.append(('runs', clean(f'{runs}seeds {", ".join(map(str, seeds))}')))
    finished = [record['finished'] for record in done if isinstance(record.get('finished'), str)]
    if finished:
        facts.append(('finished', timed(max(finished))))
    return facts


def collect_machines(records):
    """Collect the descriptions of the machines of all runs, each once."""
    machines = {}
    for record in (record for done in records.values() for record in done.values()):
        for name, value in record['machine'].items():
            machines.setdefault(name, {})[value] = None  # in this order
    return {name: ' / '.join(values) for name, values in machines.items()}


def write_report(output, command, tables, sections, plans, records, source, has_pictures):
    """Write ``report.html``, and for each task ``curves.svg`` and ``curves.png``.

    Parameters
    ----------
    output : Path
        The folder for them.
    command : str
    sections : list of bert.report.page.Section
    tables, plans, records
        See :func:`make_sections`.
    source : str
        Where the data are from.
    has_pictures : bool
        Whether matplotlib can be used.
    """
    for section in sections if has_pictures else ():
        curves.save(curves.draw(section.panels), output / section.name / 'curves')
    machines = collect_machines(records)
    facts = list_facts(sections, plans, records, source)
    page = Page(
        title=f'{", ".join(records)}: {sum(map(len, records.values()))} fine-tuning runs',
        facts=[*facts, ('versions', clean(summary.describe_versions(machines)))],
        tables=[
            *([('Overview', format_overview(tables, sections))] if len(sections) > 1 else []),
            *((name, format_rows(tables[name])) for name in tables if name not in records),
        ],
        sections=sections,
        no_dev=summary.NO_DEV,
        command=command,
        details=[(name, clean(value)) for name, value in machines.items()],
    )
    write_text(output / summary.PAGE, format_page(page, has_pictures))
    logging.info('wrote %s', output / summary.PAGE)
