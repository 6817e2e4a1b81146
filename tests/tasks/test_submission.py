"""Submissions to GLUE follow the server's rules, and the checker names every defect."""

import time
import zipfile

import numpy as np
import pytest

from bert.system.errors import ToolkitError
from bert.tasks import submission

# By file, its rows and possible predictions (None: a number), from the files that GLUE provides.
BINARY, RTE = {'0', '1'}, {'entailment', 'not_entailment'}
NLI = {'entailment', 'neutral', 'contradiction'}
RULES = {
    'CoLA.tsv': (1063, BINARY),
    'SST-2.tsv': (1821, BINARY),
    'MRPC.tsv': (1725, BINARY),
    'STS-B.tsv': (1379, None),
    'QQP.tsv': (390965, BINARY),
    'MNLI-m.tsv': (9796, NLI),
    'MNLI-mm.tsv': (9847, NLI),
    'QNLI.tsv': (5463, RTE),
    'RTE.tsv': (3000, RTE),
    'WNLI.tsv': (146, BINARY),
    'AX.tsv': (1104, NLI),
}


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    """Return the files of a whole submission without any runs."""
    path = tmp_path_factory.mktemp('zip') / 'glue.zip'
    submission.write(path, {name: submission.majority(name) for name in RULES})
    assert submission.check(path) == []
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def defects(tmp_path, texts, **options):
    """Find the defects of a zip file with these files."""
    path = tmp_path / 'glue.zip'
    with zipfile.ZipFile(path, 'w', **options) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return submission.check(path)


def with_lines(texts, name, change):
    """Change the lines of one of the files."""
    lines = texts[name].split('\n')
    change(lines)
    return {**texts, name: '\n'.join(lines)}


def test_the_time_is_linear_in_the_number_of_files(tmp_path):
    """Comparing each of 50,000 names with all others took minutes."""
    path = tmp_path / 'glue.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        for number in range(50000):
            archive.writestr(f'{number}', '')
    start = time.process_time()
    assert len(submission.check(path)) == 50000 + len(RULES)
    assert time.process_time() - start < 20


def test_the_rules():
    found = {
        name: (answers.rows, answers.labels and set(answers.labels))
        for name, answers in submission.FILES.items()
    }
    assert found == RULES


def test_what_is_written(texts):
    """Header, running index and labels are right, tested independently of the checker."""
    assert set(texts) == set(RULES)
    for name, (rows, labels) in RULES.items():
        header, *lines, end = texts[name].split('\n')
        assert (header, end) == ('index\tprediction', '')
        cells = [line.split('\t') for line in lines]
        assert [int(index) for index, _ in cells] == list(range(rows))
        predictions = {prediction for _, prediction in cells}
        assert predictions <= labels if labels else predictions == {'2.701'}


def test_the_same_predictions_make_the_same_bytes(tmp_path):
    predictions = {name: submission.majority(name) for name in RULES}
    for name in ('a.zip', 'b.zip'):
        submission.write(tmp_path / name, predictions)
    assert (tmp_path / 'a.zip').read_bytes() == (tmp_path / 'b.zip').read_bytes()


def test_majority_of_the_real_data(real_glue):
    """Count the labels of MRPC and CoLA, and take the mean of STS-B's scores."""
    lines = (real_glue / 'MRPC/train.tsv').read_text('utf8').splitlines()[1:]
    assert sum(line.startswith('1') for line in lines) > len(lines) / 2
    lines = (real_glue / 'CoLA/train.tsv').read_text('utf8').splitlines()
    assert sum(line.split('\t')[1] == '1' for line in lines) > len(lines) / 2
    lines = (real_glue / 'STS-B/train.tsv').read_text('utf8').rstrip('\n').split('\n')[1:]
    assert np.mean([float(line.split('\t')[9]) for line in lines]) == pytest.approx(2.701, abs=5e-4)
    assert submission.MAJORITY['MRPC'] == submission.MAJORITY['CoLA'] == '1'


def test_one_run():
    outputs = np.array([[2.0, -1.0], [0.1, 0.2]])
    combined = submission.combine([outputs], is_regression=False)
    assert submission.format_predictions(combined, ('no', 'yes')) == ['no', 'yes']


def test_the_mean_of_probabilities():
    """Two runs give 0 a probability of .6 each, the third gives 1 one of .95: the mean is .417
    against .583, though two of three say 0. As outputs, logarithms of probabilities give them."""
    outputs = [np.log([[0.6, 0.4]]), np.log([[0.6, 0.4]]) + 7, np.log([[0.05, 0.95]])]
    combined = submission.combine(outputs, is_regression=False)
    assert combined == pytest.approx(np.array([[1.25 / 3, 1.75 / 3]]))
    assert submission.format_predictions(combined, ('0', '1')) == ['1']


def test_numbers_are_averaged_and_clipped():
    outputs = [np.array([[5.5], [-1.0], [2.0]]), np.array([[5.0], [-2.0], [3.0]])]
    combined = submission.combine(outputs, is_regression=True)
    assert combined[:, 0] == pytest.approx([5.25, -1.5, 2.5])
    assert submission.format_predictions(combined, None) == ['5.000', '0.000', '2.500']


def test_missing_and_extra_files(tmp_path, texts):
    changed = {name: text for name, text in texts.items() if name not in ('AX.tsv', 'WNLI.tsv')}
    changed.update({'readme.txt': '', '__MACOSX/RTE.tsv': '', 'out/AX.tsv': '', '../QQP.tsv': ''})
    changed['sub/'] = ''
    assert defects(tmp_path, changed) == [
        "'readme.txt' does not belong to a submission",
        "'__MACOSX/RTE.tsv' is in a folder: RTE.tsv has to be at the top",
        "'out/AX.tsv' is in a folder: AX.tsv has to be at the top",
        "'../QQP.tsv' is in a folder: QQP.tsv has to be at the top",
        "'sub/' is a folder: the files have to be at the top",
        'AX.tsv is missing',
        'WNLI.tsv is missing',
    ]


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_duplicated_member(tmp_path, texts):
    path = tmp_path / 'glue.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        for name, text in [*texts.items(), ('RTE.tsv', texts['RTE.tsv'])]:
            archive.writestr(name, text)
    assert submission.check(path) == ["'RTE.tsv' occurs 2 times"]


@pytest.mark.parametrize(
    ('name', 'change', 'expected'),
    [
        (
            'RTE.tsv',
            lambda lines: lines.__setitem__(0, 'id\tlabel'),
            r"its first line is 'id\tlabel', not 'index\tprediction'",
        ),
        (
            'WNLI.tsv',
            lambda lines: lines.pop(),  # the newline at the end
            None,
        ),
        (
            'WNLI.tsv',
            lambda lines: lines.__delitem__(slice(-3, -1)),
            'has 144 predictions, but the test set has 146 rows',
        ),
        (
            'WNLI.tsv',
            lambda lines: lines.insert(-1, '146\t0'),
            'has 147 predictions, but the test set has 146 rows',
        ),
        (
            'CoLA.tsv',
            lambda lines: lines.__setitem__(slice(5, 7), [lines[6], lines[5]]),
            "not the index that belongs there: '5' in line 6, '4' in line 7",
        ),
        (
            'MRPC.tsv',
            lambda lines: lines.__setitem__(3, '2\tequivalent'),
            "not one of 0, 1: 'equivalent' in line 4",
        ),
        (
            'QNLI.tsv',
            lambda lines: lines.__setitem__(slice(2, 8), [f'{i}\t1' for i in range(1, 7)]),
            "not one of not_entailment, entailment: '1' in line 3, '1' in line 4, '1' in line 5 "
            'and 3 more lines',
        ),
        (
            'MNLI-m.tsv',
            lambda lines: lines.__setitem__(1, '0\tNeutral'),
            "not one of neutral, entailment, contradiction: 'Neutral' in line 2",
        ),
        (
            'AX.tsv',
            lambda lines: lines.__setitem__(1, '0 neutral'),
            "not two columns: '0 neutral' in line 2",
        ),
        (
            'AX.tsv',
            lambda lines: lines.__setitem__(1, '0\tneutral\t'),
            r"not two columns: '0\tneutral\t' in line 2",
        ),
        ('STS-B.tsv', lambda lines: lines.__setitem__(1, '0\t5'), None),
        ('STS-B.tsv', lambda lines: lines.__setitem__(1, '0\t1e-1'), None),
        *[
            (
                'STS-B.tsv',
                lambda lines, number=number: lines.__setitem__(1, f'0\t{number}'),
                f'not a number: {number!a} in line 2',
            )
            for number in ('nan', '1_0', '', ' 1', 'high', '\u0663')
        ],
        *[
            (
                'STS-B.tsv',
                lambda lines, number=number: lines.__setitem__(1, f'0\t{number}'),
                f'not from 0 to 5: {number!a} in line 2',
            )
            for number in ('5.01', '-0.1', '1e999')
        ],
    ],
)
def test_each_defect_is_named(texts, name, change, expected):
    text = with_lines(texts, name, change)[name]
    found = submission.check_text(text, submission.FILES[name])
    assert found == ([expected] if expected else [])


def test_several_defects_are_all_named(tmp_path, texts):
    changed = with_lines(texts, 'RTE.tsv', lambda lines: lines.__setitem__(0, 'index,prediction'))
    changed['SST-2.tsv'] = ''
    del changed['CoLA.tsv']
    assert defects(tmp_path, changed) == [
        'CoLA.tsv is missing',
        "SST-2.tsv: its first line is '', not 'index\\tprediction'",
        'SST-2.tsv: has 0 predictions, but the test set has 1821 rows',
        "RTE.tsv: its first line is 'index,prediction', not 'index\\tprediction'",
    ]


def test_windows_line_ends_are_accepted(tmp_path, texts):
    changed = {**texts, 'RTE.tsv': texts['RTE.tsv'].replace('\n', '\r\n')}
    assert defects(tmp_path, changed) == []


def test_bytes_that_are_no_text(tmp_path, texts):
    assert defects(tmp_path, {**texts, 'AX.tsv': b'index\xff'}) == ['AX.tsv: is not valid UTF-8']


def test_a_member_that_would_fill_the_memory(tmp_path, texts):
    changed = {**texts, 'AX.tsv': b'0' * (64 * 1024 * 1024 + 1)}
    found = defects(tmp_path, changed, compression=zipfile.ZIP_DEFLATED)
    assert found == ['AX.tsv: unpacks to 67108865 bytes, more than 67108864']


def test_damaged_data(tmp_path, texts):
    """A byte within a member is changed, so the checksum does not match."""
    path = tmp_path / 'glue.zip'
    assert defects(tmp_path, texts) == []
    data = bytearray(path.read_bytes())
    data[data.index(b'index\tprediction') + 2] ^= 1
    path.write_bytes(data)
    (defect,) = submission.check(path)
    assert defect.startswith('CoLA.tsv: cannot be unpacked (Bad CRC-32')


def test_a_file_that_is_no_zip(tmp_path):
    with pytest.raises(ToolkitError, match=r'^there is no file .*none\.zip$'):
        submission.check(tmp_path / 'none.zip')
    (tmp_path / 'a.zip').write_text('index')
    with pytest.raises(ToolkitError, match=r'a\.zip: not a zip file'):
        submission.check(tmp_path / 'a.zip')
