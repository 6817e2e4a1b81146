"""The zip file that GLUE's evaluation server takes: writing it, and checking any such file."""

import math
import re
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from bert.system.errors import ToolkitError
from bert.system.files import replacing
from bert.tasks.table import TASKS

HEADER = 'index\tprediction'
# The scores of STS-B go from 0 to 5.
LOWEST, HIGHEST = 0.0, 5.0
# The most frequent label of each training set, and the mean score of STS-B's.
MAJORITY = {
    'CoLA': '1',
    'SST-2': '1',
    'MRPC': '1',
    'STS-B': '2.701',
    'QQP': '0',
    'MNLI': 'contradiction',
    'QNLI': 'not_entailment',
    'RTE': 'entailment',
    'WNLI': '0',
}
# The largest file, QQP.tsv, has 3.4 MB; a member that unpacks to more than this is not read.
MOST_BYTES = 64 * 1024 * 1024
# Others can ask for gigabytes to unpack a few bytes.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
SHOWN = 3  # lines with the same defect that are named; the others are counted


class Answers(NamedTuple):
    """What one file of a submission has to hold."""

    task: str
    rows: int
    labels: Optional[tuple]  # None: a number


# The eleven files. A test set without training data of its own is answered by its task's model.
FILES = {
    split.submission: Answers(task.name, split.rows, task.labels)
    for task in TASKS.values()
    for split in task.test
}


def majority(name):
    """The predictions of a file whose task was not run."""
    return [MAJORITY[FILES[name].task]] * FILES[name].rows


def combine(outputs, is_regression):
    """The answers of several runs as one: the mean of their probabilities, or of their scores.

    Parameters
    ----------
    outputs : list of (N, classes) arrays
        Scores before the softmax, or (N, 1) numbers.

    Returns
    -------
    (N, classes) array
    """
    from scipy.special import softmax

    return np.mean(outputs if is_regression else [softmax(o, axis=1) for o in outputs], axis=0)


def format_predictions(outputs, labels):
    """Predictions as GLUE's server wants them: label names, or numbers from 0 to 5.

    Parameters
    ----------
    outputs : (N, classes) array
    labels : sequence of str or None

    Returns
    -------
    list of str
    """
    if labels is None:
        return [f'{number:.3f}' for number in np.clip(outputs[:, 0], LOWEST, HIGHEST)]
    return [labels[i] for i in outputs.argmax(axis=1)]


def write(path, predictions):
    """Write a submission; the same predictions make the same bytes.

    Parameters
    ----------
    path : path-like
    predictions : dict of str to list of str
        By the name of the file, such as ``MRPC.tsv``.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, 'w') as archive:
        for name in FILES:
            lines = [f'{index}\t{label}\n' for index, label in enumerate(predictions[name])]
            member = zipfile.ZipInfo(name)  # dated 1980
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, HEADER + '\n' + ''.join(lines))


def check(path):
    """What is wrong with a submission.

    Returns
    -------
    list of str
        A sentence for each defect; none if the server will take it.

    Raises
    ------
    ToolkitError
        Where the file is no zip file at all.
    """
    if not Path(path).is_file():
        raise ToolkitError(f'there is no file {path}')
    try:
        with zipfile.ZipFile(path) as archive:
            return check_archive(archive)
    # A damaged directory gives zipfile wrong numbers, versions and names too.
    except (zipfile.BadZipFile, struct.error, ArithmeticError, RuntimeError, ValueError) as error:
        raise ToolkitError(f'{path}: not a zip file ({error})') from None
    except OSError as error:
        # It also seeks where the directory points.
        if error.filename:
            raise
        raise ToolkitError(f'{path}: not a zip file ({error.strerror})') from None


def check_archive(archive):
    """The defects of an open zip file."""
    defects = []
    names = Counter(archive.namelist())
    for name, count in names.items():
        if count > 1:
            defects.append(f'{name!a} is there {count} times')
        if name not in FILES:
            base = name.replace('\\', '/').rstrip('/').rpartition('/')[2]
            if name.endswith('/'):
                what = 'is a folder: the files have to be at the top'
            elif base in FILES:
                what = f'is in a folder: {base} has to be at the top'
            else:
                what = 'does not belong to a submission'
            defects.append(f'{name!a} {what}')
    defects += [f'{name} is missing' for name in FILES if name not in names]
    for name in names:
        if name in FILES:
            member = archive.getinfo(name)
            defects += [f'{name}: {defect}' for defect in check_member(archive, member)]
    return defects


def check_member(archive, member):
    """The defects of one of the eleven files."""
    if member.flag_bits & 1:
        return ['is encrypted']
    if member.compress_type not in METHODS:
        return ['is compressed in an unusual way']
    if member.file_size > MOST_BYTES:
        return [f'unpacks to {member.file_size} bytes, more than {MOST_BYTES}']
    try:
        # Not more than the header of the member promises, whatever the data unpack to.
        with archive.open(member) as file:
            text = file.read(MOST_BYTES + 1).decode('utf8')
    except UnicodeDecodeError:
        return ['is not valid UTF-8']
    except Exception as error:  # zipfile and zlib have many
        return [f'cannot be unpacked ({error})']
    return check_text(text, FILES[member.filename])


def check_text(text, answers):
    """The defects of the text of one file."""
    text = text[:-1] if text.endswith('\n') else text
    count = text.count('\n')
    # A file of empty lines takes many times its size as a list; no more are needed than these.
    lines = text.split('\n', answers.rows + 1)[: answers.rows + 1]
    lines = [line[:-1] if line.endswith('\r') else line for line in lines]
    header, rows = lines[0], lines[1:]
    defects = []
    if header != HEADER:
        defects.append(f'its first line is {shorten(header)}, not {HEADER!r}')
    if count != answers.rows:
        defects.append(f'has {count} predictions, and the test set {answers.rows} rows')
    found = {}  # a kind of defect: the lines that have it, each with what stands there
    for number, line in enumerate(rows):
        cells = line.split('\t')
        if len(cells) != 2:
            found.setdefault('not two columns', []).append((number, line))
            continue
        index, prediction = cells
        if index != str(number):
            found.setdefault('not the index that belongs there', []).append((number, index))
        defect = check_prediction(prediction, answers.labels)
        if defect:
            found.setdefault(defect, []).append((number, prediction))
    for kind, places in found.items():
        told = ', '.join(f'{shorten(what)} in line {number + 2}' for number, what in places[:SHOWN])
        more = f' and {len(places) - SHOWN} lines more' if len(places) > SHOWN else ''
        defects.append(f'{kind}: {told}{more}')
    return defects


def check_prediction(prediction, labels):
    """What is wrong with one prediction, or None."""
    if labels is not None:
        return None if prediction in labels else f'not one of {", ".join(labels)}'
    # float() also takes '1_0', ' 1' and other digits than these.
    if not re.fullmatch(r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?', prediction, re.ASCII):
        return 'not a number'
    if not (math.isfinite(float(prediction)) and LOWEST <= float(prediction) <= HIGHEST):
        return f'not from {LOWEST:.0f} to {HIGHEST:.0f}'
    return None


def shorten(text):
    """A text from a stranger's file, in quotes, on one line."""
    return ascii(text if len(text) <= 40 else text[:37] + '...')
