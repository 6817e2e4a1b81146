"""The GLUE tasks, the diagnostic set and other published tasks as data, and a user's own task."""

from dataclasses import dataclass, replace
from typing import Optional, Tuple

from bert.system.errors import UsageError

# The name of a task made from the user's own files.
OWN = 'own'
# What a fine-tuned model remembers beside its flags: see Task.number_labels.
NUMBER_LABELS = 'number_labels'


@dataclass(frozen=True)
class Split:
    """One TSV file of a task.

    Columns are counted from 0, or from -1 at the end, or have the names of the header, as in all
    files of a user's own.
    """

    path: str  # in the folder of all tasks, such as MRPC/train.tsv
    text_columns: tuple  # one or two
    label_column: Optional[object] = None  # None: no labels
    has_header: bool = True
    name: str = ''  # distinguishes the dev sets of MNLI
    submission: str = ''  # the file for a test set's predictions; GLUE's server expects its own
    rows: Optional[int] = None  # the number in the published file
    older_rows: Optional[int] = None  # the number in the file of 2018, if it was another one
    only: Optional[Tuple[object, str]] = None  # a column, and its cell in the rows that count
    skips_short: bool = False  # in the file of 2018, a line break in a text makes two short rows

    @property
    def dev_name(self):
        """The name of a dev set in results: ``dev``, or that of one of MNLI's two."""
        return self.name or 'dev'


@dataclass(frozen=True)
class Task:
    """The files of a task, its labels and its metrics."""

    name: str
    train: Split
    dev: Tuple[Split, ...]
    test: Tuple[Split, ...]
    labels: Optional[Tuple[str, ...]]  # in the order of the class ids; None in regression
    metrics: Tuple[str, ...] = ('accuracy',)  # the best epoch is chosen by the first
    other_labels: Tuple[Tuple[str, str], ...] = ()  # other spellings, and the labels they mean
    is_multilabel: bool = False  # a row has any number of the labels
    number_labels: bool = False  # the labels are numbers, or true and false, in the user's files

    @property
    def is_regression(self):
        """True if the label is a number."""
        return self.labels is None

    @property
    def num_classes(self):
        """The number of classes; None if the label is a number."""
        return None if self.labels is None else len(self.labels)

    @property
    def has_pairs(self):
        """True if a row has two texts."""
        splits = [*filter(None, [self.train]), *self.dev, *self.test]
        return len(splits[0].text_columns) == 2

    @property
    def is_own(self):
        """True if the files are the user's own."""
        return self.name == OWN


def _glue(
    folder,
    columns,
    label,
    rows,
    labels=('0', '1'),
    test_columns=None,
    older_rows=(None, None, None),
    skips_short=False,
    **keywords,
):
    """Make a row of the tables below for a task laid out as most of GLUE: one dev, one test set."""

    def split(name, number, **more):
        path = f'{folder}/{name}.tsv'
        return Split(path, rows=rows[number], older_rows=older_rows[number], **more)

    labelled = {'text_columns': columns, 'label_column': label, 'skips_short': skips_short}
    test = {'text_columns': test_columns or columns, 'submission': f'{folder}.tsv'}
    return Task(
        name=folder,
        train=split('train', 0, **labelled),
        dev=(split('dev', 1, **labelled),),
        test=(split('test', 2, **test),),
        labels=labels,
        **keywords,
    )


# GluonNLP's order of the classes: its parameter files do not name them.
ENTAILMENT = ('not_entailment', 'entailment')
NLI = ('neutral', 'entailment', 'contradiction')
# The metrics are those of GLUE (Wang et al. 2018, table 1) and of GluonNLP's published logs.
_COLA = _glue('CoLA', (3,), 1, (8551, 1043, 1063), test_columns=(1,), metrics=('mcc',))
TASKS = {
    task.name: task
    for task in [
        # Only CoLA has no headers, except in its test set.
        replace(
            _COLA,
            train=replace(_COLA.train, has_header=False),
            dev=(replace(_COLA.dev[0], has_header=False),),
        ),
        _glue('SST-2', (0,), 1, (67349, 872, 1821), test_columns=(1,)),
        _glue('MRPC', (3, 4), 0, (3668, 408, 1725), metrics=('accuracy', 'f1')),
        _glue(
            'STS-B', (7, 8), 9, (5749, 1500, 1379), labels=None, metrics=('pearsonr', 'spearmanr')
        ),
        _glue(
            'QQP',
            (3, 4),
            5,
            (363846, 40430, 390965),
            test_columns=(1, 2),
            # GluonNLP 0.10 has the file of 2018, and leaves its short rows out too.
            older_rows=(363849, 40430, 390965),
            skips_short=True,
            metrics=('accuracy', 'f1'),
        ),
        Task(
            name='MNLI',
            train=Split('MNLI/train.tsv', (8, 9), 11, rows=392702),
            dev=(
                Split('MNLI/dev_matched.tsv', (8, 9), 15, name='matched', rows=9815),
                Split('MNLI/dev_mismatched.tsv', (8, 9), 15, name='mismatched', rows=9832),
            ),
            test=(
                Split('MNLI/test_matched.tsv', (8, 9), submission='MNLI-m.tsv', rows=9796),
                Split('MNLI/test_mismatched.tsv', (8, 9), submission='MNLI-mm.tsv', rows=9847),
                # The diagnostic set has no training data: a model of MNLI predicts it.
                Split('diagnostic/diagnostic.tsv', (1, 2), submission='AX.tsv', rows=1104),
            ),
            labels=NLI,
        ),
        _glue(
            'QNLI',
            (1, 2),
            3,
            (104743, 5463, 5463),
            labels=ENTAILMENT,
            older_rows=(108436, 5732, 5740),
        ),
        _glue('RTE', (1, 2), 3, (2490, 277, 3000), labels=ENTAILMENT),
        _glue('WNLI', (1, 2), 3, (635, 71, 146)),
    ]
}


def _xnli(language):
    """Make a row of the table below for XNLI in one language, from the files of its archives.

    The dev and test sets of all languages are in the same files. The training set is that of MNLI,
    translated by a machine.
    """
    name = f'XNLI-{language}'
    texts, only = ('sentence1', 'sentence2'), ('language', language)
    return Task(
        name=name,
        train=Split(
            f'XNLI-MT-1.0/multinli/multinli.train.{language}.tsv',
            ('premise', 'hypo'),
            'label',
            rows=392702,
        ),
        dev=(Split('XNLI-1.0/xnli.dev.tsv', texts, 'gold_label', only=only, rows=2490),),
        test=(
            Split('XNLI-1.0/xnli.test.tsv', texts, submission=f'{name}.tsv', only=only, rows=5010),
        ),
        labels=NLI,
        other_labels=_CONTRADICTORY,
    )


# XNLI's training sets call a contradiction contradictory.
_CONTRADICTORY = (('contradictory', 'contradiction'),)
# Conneau et al. (1809.05053), table 1.
LANGUAGES = 'ar bg de el en es fr hi ru sw th tr ur vi zh'.split()
# Columns, labels and their order are those of GluonNLP 0.10, and of the archives.
MORE_TASKS = {
    task.name: task
    for task in [
        _glue('SNLI', (7, 8), -1, (549367, 9842, 9824), labels=NLI),
        # In Chinese, from the archive of Baidu's ERNIE.
        _glue('XNLI', (0, 1), 2, (392702, 2490, 5010), labels=NLI, other_labels=_CONTRADICTORY),
        _glue('LCQMC', (0, 1), 2, (238766, 8802, 12500)),
        _glue('ChnSentiCorp', (1,), 0, (9600, 1200, 1200)),
        *map(_xnli, LANGUAGES),
    ]
}
ALL_TASKS = {**TASKS, **MORE_TASKS}
OTHER_NAMES = {'SST': 'SST-2'}
# Those of rows that may have several labels.
MULTILABEL_METRICS = ('f1_micro', 'f1_macro', 'accuracy')


def own_task(
    train,
    dev,
    test,
    text_columns,
    label_column,
    metric,
    labels,
    is_multilabel=False,
    number_labels=False,
):
    """Make a task from a user's own files.

    Parameters
    ----------
    train, dev, test : str or None
        Paths; None if there is no such file.
    text_columns : sequence of str
        The names of one or two columns.
    label_column : str, list of str or None
        A list names a column for each label, in any order.
    metric : sequence of str or None
        Names of metrics; None means the usual ones.
    labels : sequence of str or None
        In the order of the class ids; None in regression, where the labels are numbers.
    is_multilabel : bool
        Whether a row has any number of the labels.
    number_labels : bool
        Whether the labels stand for numbers, or for true and false.
    """
    columns = tuple(text_columns)
    default = ['pearsonr', 'spearmanr'] if labels is None else ['accuracy']
    if is_multilabel:
        default = ['f1_micro']
        if len(labels) < 2:
            raise UsageError(
                f'rows with any number of labels need two different ones, not {labels[0]} alone'
            )
    if isinstance(label_column, list):
        check_label_columns(label_column, labels, is_multilabel)
    return Task(
        name=OWN,
        train=train and Split(train, columns, label_column),
        dev=(Split(dev, columns, label_column),) if dev else (),
        test=(Split(test, columns),) if test else (),
        labels=None if labels is None else tuple(labels),
        metrics=check_metrics(metric or default, labels, is_multilabel),
        is_multilabel=is_multilabel,
        number_labels=number_labels,
    )


def check_label_columns(columns, labels, is_multilabel):
    """Raise UsageError unless several columns with labels are those of a task, in any order."""
    if not is_multilabel:
        kind = 'a number' if labels is None else f'one label, of {", ".join(labels)}'
        raise UsageError(f'the label columns {", ".join(columns)}: a row has only {kind}')
    if sorted(columns) != sorted(labels):
        raise UsageError(
            f'the label columns {", ".join(columns)} are not the labels {", ".join(labels)}'
        )


def check_metrics(names, labels, is_multilabel=False):
    """Return metric names as a tuple; raise UsageError for one that does not fit the labels.

    Parameters
    ----------
    names : sequence of str
    labels : sequence of str or None
        None in regression.
    is_multilabel : bool
        Whether a row has any number of the labels.
    """
    for name in names:
        if is_multilabel and name not in MULTILABEL_METRICS:
            raise UsageError(
                f'the metric {name} does not fit: a row may have several labels; '
                f'{", ".join(MULTILABEL_METRICS)} do'
            )
        if name == 'f1_micro' and not is_multilabel:
            raise UsageError('the metric f1_micro does not fit: it is for rows with several labels')
        if (labels is None) != (name in ('pearsonr', 'spearmanr')):
            kind = 'a number is' if labels is None else 'classes are'
            raise UsageError(f'the metric {name} does not fit: {kind} predicted')
        if name == 'f1' and len(labels) != 2:
            raise UsageError(
                f'the metric f1 is for two labels, not {len(labels)}; f1_macro is for any number'
            )
    return tuple(names)
