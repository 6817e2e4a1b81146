"""Fill, write and check the zip file for GLUE's evaluation server."""

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
from bert.tasks.predictions import has_outputs, read_outputs
from bert.tasks.table import TASKS

HEADER = 'index\tprediction'
DIAGNOSTIC = 'AX.tsv'  # the file for a test set that is not downloaded with the others
# The range of STS-B's scores.
LOWEST, HIGHEST = 0.0, 5.0
# The most frequent label of each training set; for STS-B the mean score.
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
# The largest file, QQP.tsv, has 3.4 MB; members that unpack to more than this are not read.
MOST_BYTES = 64 * 1024 * 1024
# Other methods can take gigabytes to unpack a few bytes.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
SHOWN = 3  # lines with the same defect are named, the others counted


class Answers(NamedTuple):
    """The rows that one file of a submission must have, and their possible answers."""

    task: str
    rows: int
    labels: Optional[tuple]  # None: a number


# The eleven files. Test sets without training data of their own are answered by a task's model.
FILES = {
    split.submission: Answers(task.name, split.rows, task.labels)
    for task in TASKS.values()
    for split in task.test
}


def majority(name):
    """Return the predictions for a file whose task was not run."""
    return [MAJORITY[FILES[name].task]] * FILES[name].rows


def can_answer(name, folders):
    """Return whether runs have the outputs to answer a test set.

    Parameters
    ----------
    name : str
        The name of the file, such as ``MRPC.tsv``.
    folders : list of Path
        The folders of the runs. They may lack the diagnostic set; for any other missing set,
        :func:`answer` raises an error.
    """
    if name == DIAGNOSTIC:
        return bool(folders) and all(
            has_outputs(f, Path(name).stem, FILES[name].labels) for f in folders
        )
    return bool(folders)


def answer(name, folders):
    """Answer a test set with the combined outputs of runs.

    Parameters
    ----------
    name, folders
        See :func:`can_answer`.

    Returns
    -------
    list of str
    """
    labels = FILES[name].labels
    outputs = [read_outputs(folder, Path(name).stem, labels) for folder in folders]
    return format_predictions(combine(outputs, labels is None), labels)


def combine(outputs, is_regression):
    """Combine the outputs of several runs: the mean of their probabilities, or of their scores.

    Parameters
    ----------
    outputs : list of (N, classes) arrays
        Before the softmax; or (N, 1) scores.

    Returns
    -------
    (N, classes) array
    """
    from scipy.special import softmax

    return np.mean(outputs if is_regression else [softmax(o, axis=1) for o in outputs], axis=0)


def format_predictions(outputs, labels):
    """Turn outputs into predictions for GLUE's server: label names, or numbers from 0 to 5.

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
    """Write a submission; the same predictions give the same bytes.

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
    """Find all defects of a submission.

    Returns
    -------
    list of str
        A sentence for each defect; none if the server will accept it.

    Raises
    ------
    ToolkitError
        If the file is not a zip file at all.
    """
    if not Path(path).is_file():
        raise ToolkitError(f'there is no file {path}')
    try:
        with zipfile.ZipFile(path) as archive:
            return check_archive(archive)
    # In a damaged directory zipfile also reads wrong numbers, versions and names.
    except (zipfile.BadZipFile, struct.error, ArithmeticError, RuntimeError, ValueError) as error:
        raise ToolkitError(f'{path}: not a zip file ({error})') from None
    except OSError as error:
        # It also seeks to wherever the directory points.
        if error.filename:
            raise
        raise ToolkitError(f'{path}: not a zip file ({error.strerror})') from None


def check_archive(archive):
    """Find the defects of an open zip file."""
    defects = []
    names = Counter(archive.namelist())
    for name, count in names.items():
        if count > 1:
            defects.append(f'{name!a} occurs {count} times')
        if name not in FILES:
            base = name.replace('\\', '/').rstrip('/').rpartition('/')[2]
            if name.endswith('/'):
                defect = 'is a folder: the files have to be at the top'
            elif base in FILES:
                defect = f'is in a folder: {base} has to be at the top'
            else:
                defect = 'does not belong to a submission'
            defects.append(f'{name!a} {defect}')
    defects += [f'{name} is missing' for name in FILES if name not in names]
    for name in names:
        if name in FILES:
            member = archive.getinfo(name)
            defects += [f'{name}: {defect}' for defect in check_member(archive, member)]
    return defects


def check_member(archive, member):
    """Find the defects of one of the eleven files."""
    if member.flag_bits & 1:
        return ['is encrypted']
    if member.compress_type not in METHODS:
        return ['is compressed in an unusual way']
    if member.file_size > MOST_BYTES:
        return [f'unpacks to {member.file_size} bytes, more than {MOST_BYTES}']
    try:
        # No more than the size in the member's header is read, whatever the data unpacks to.
        with archive.open(member) as file:
            text = file.read(MOST_BYTES + 1).decode('utf8')
    except UnicodeDecodeError:
        return ['is not valid UTF-8']
    except Exception as error:  # zipfile and zlib have many
        return [f'cannot be unpacked ({error})']
    return check_text(text, FILES[member.filename])


def check_text(text, answers):
    """Find the defects of the text of one file."""
    text = text[:-1] if text.endswith('\n') else text
    count = text.count('\n')
    # As a list, a file of empty lines would take many times its size; these lines are enough.
    lines = text.split('\n', answers.rows + 1)[: answers.rows + 1]
    lines = [line[:-1] if line.endswith('\r') else line for line in lines]
    header, rows = lines[0], lines[1:]
    defects = []
    if header != HEADER:
        defects.append(f'its first line is {quote(header)}, not {HEADER!r}')
    if count != answers.rows:
        defects.append(f'has {count} predictions, but the test set has {answers.rows} rows')
    found = {}  # by kind of defect: the numbers and the contents of its lines
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
        named = ', '.join(f'{quote(text)} in line {number + 2}' for number, text in places[:SHOWN])
        more = f' and {len(places) - SHOWN} more lines' if len(places) > SHOWN else ''
        defects.append(f'{kind}: {named}{more}')
    return defects


def check_prediction(prediction, labels):
    """Return what is wrong with one prediction, or None."""
    if labels is not None:
        return None if prediction in labels else f'not one of {", ".join(labels)}'
    # float() also takes '1_0', ' 1' and the digits of other scripts.
    if not re.fullmatch(r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?', prediction, re.ASCII):
        return 'not a number'
    if not (math.isfinite(float(prediction)) and LOWEST <= float(prediction) <= HIGHEST):
        return f'not from {LOWEST:.0f} to {HIGHEST:.0f}'
    return None


def quote(text):
    """Return a text from an untrusted file, shortened and in quotes, on one line."""
    return ascii(text if len(text) <= 40 else text[:37] + '...')
