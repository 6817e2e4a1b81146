"""ONNX files in int8: what is compared, what is refused, and that the numbers are integers."""

import golden
import numpy as np
import pytest
from conftest import failure

from bert.convert import int8
from bert.convert.__main__ import main
from bert.system.errors import UsageError

CLASSIFIER = golden.FOLDER / 'hf_classifier'


@pytest.mark.parametrize(
    'flags, sentence',
    [
        ('--to hf --dtype int8', '--dtype int8 goes with --to onnx only'),
        ('--compare --dtype int8', '--dtype int8 goes with --to onnx only'),
        ('--to onnx --check rows.tsv', '--check goes with --dtype int8 only'),
        ('--compare --check rows.tsv', '--check goes with --dtype int8 only'),
        ('--to onnx --least_equal 0', '--least_equal goes with --dtype int8 only'),
        ('--to onnx --dtype int8 --check no/rows.tsv', 'there is no file no/rows.tsv'),
    ],
)
def test_flags_that_do_not_go_together(flags, sentence, tmp_path):
    with pytest.raises(UsageError) as caught:
        main(['nowhere', str(tmp_path / 'out'), *flags.split()])
    assert str(caught.value) == sentence


def test_classes_are_compared():
    """The expected numbers were worked out by hand: exp(ln 3) / (exp(ln 3) + 1) is 3 / 4."""
    expected = np.log(np.array([[3.0, 1.0], [1.0, 3.0], [1.0, 1.5]]))
    found = np.log(np.array([[4.0, 1.0], [1.0, 3.0], [1.5, 1.0]]))
    agreement = int8.compare_answers(expected, found, is_regression=False)
    assert (agreement.equal, agreement.rows) == (2, 3)
    assert agreement.difference == pytest.approx(0.6 - 0.4)


def test_sets_of_labels_are_compared():
    """A row has the labels whose outputs are above 0; the sigmoid of ln 3 is 3 / 4."""
    expected = np.array([[np.log(3), -2.0], [0.1, 0.2], [-1.0, -1.0]])
    found = np.array([[0.0001, -2.0], [0.1, -0.1], [-1.0, np.nan]])
    agreement = int8.compare_answers(expected[:2], found[:2], False, is_multilabel=True)
    assert (agreement.equal, agreement.rows) == (1, 2)
    assert agreement.difference == pytest.approx(0.25, abs=1e-4)
    assert int8.compare_answers(expected, found, False, is_multilabel=True).equal == 1


def test_numbers_are_compared():
    """The range is 4, so that a difference of 0.2 counts as equal."""
    expected = np.array([[1.0], [2.0], [5.0], [3.0]])
    found = expected + [[0.19], [-0.21], [0.5], [np.nan]]
    agreement = int8.compare_answers(expected[:3], found[:3], is_regression=True)
    assert (agreement.equal, agreement.rows) == (1, 3)
    assert agreement.difference == pytest.approx(0.5)
    assert int8.compare_answers(expected, found, is_regression=True).equal == 1


def test_nothing_equals_nan():
    found = np.array([[np.nan, 0.0]])
    assert int8.compare_answers(np.array([[1.0, 0.0]]), found, is_regression=False).equal == 0


def read(path, text, flags=None, source=CLASSIFIER):
    """Write a file and read its texts for a model that remembers some flags."""
    path.write_text(text)
    return int8.read_texts(path, golden.read(source)._replace(flags=flags or {}))


def test_rows_of_all_kinds(tmp_path):
    own = {'text_columns': ['b', 'a'], 'task_name': None}
    assert read(tmp_path / 'rows.txt', 'no .\nwhy ?\tno .\n', own) == [('no .',), ('why ?', 'no .')]
    assert read(tmp_path / 'rows.csv', 'a,b\n1,2\n3,4\n', own) == [('2', '1'), ('4', '3')]
    assert read(tmp_path / 'rows.jsonl', '{"a": "x", "b": "y"}\n', own) == [('y', 'x')]
    header = 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n'
    row = '?\t7\t8\tthe bank\tno .\n'  # its label is not one of the task's
    assert read(tmp_path / 'dev.tsv', header + row, {'task_name': 'MRPC'}) == [('the bank', 'no .')]


@pytest.mark.parametrize(
    'name, text, flags, sentence',
    [
        ('rows.txt', '', {}, 'rows.txt: has no lines'),
        ('rows.csv', 'a\n', {'text_columns': ['a']}, 'rows.csv: has no rows'),
        (
            'rows.csv',
            'a\n1\n',
            {'text_columns': ['b']},
            "rows.csv:2: there is no column 'b'",
        ),
        ('rows.tsv', 'a\n1\n', {}, 'rows.tsv: this model does not remember the columns'),
        ('rows.tsv', 'a\n1\n', {'text_columns': [[]]}, 'rows.tsv: this model does not remember'),
        ('dev.tsv', '', {'task_name': 'MRPC'}, 'dev.tsv: is empty'),
        (
            'dev.tsv',
            'a\n1\n',
            {'task_name': 'MRPC'},
            'dev.tsv:2: 1 columns, but column 4',
        ),
    ],
)
def test_rows_that_cannot_be_read(name, text, flags, sentence, tmp_path):
    assert failure(read, tmp_path / name, text, flags).startswith(f'{tmp_path}/{sentence}')


def test_pairs_for_a_model_of_single_texts(tmp_path):
    contents = golden.read(CLASSIFIER)
    contents = contents._replace(settings={**contents.settings, 'token_type_vocab_size': 1})
    path = tmp_path / 'rows.txt'
    path.write_text('no .\tno .\n')
    assert 'takes single texts' in failure(int8.read_texts, path, contents)


def convert(source, target, *flags):
    """Convert to int8, unless onnxruntime is absent."""
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    return main([str(source), str(target), '--to', 'onnx', '--dtype', 'int8', *flags])


def test_a_model_without_answers(tmp_path):
    source = golden.FOLDER / 'hf_encoder'
    assert failure(convert, source, tmp_path / 'out') == (
        f'--dtype int8 is for fine-tuned models: {source} has no classifier or regressor, so there '
        'are no answers to compare'
    )


@pytest.mark.parametrize('name', ['hf_classifier', 'gluon_regressor'])
def test_its_weights_are_integers_and_its_outputs_near(name, tmp_path, capsys):
    target = tmp_path / 'out'
    convert(golden.FOLDER / name, target, '--least_equal', '0')
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith('largest difference, this project and onnxruntime ')
    assert lines[2].startswith('model.onnx: ')
    assert lines[3].startswith('float32 and int8: ')
    assert sorted(path.name for path in target.iterdir()) == [
        'README.md',
        'config.json',
        'model.onnx',
        'tokenizer.json',
        'tokenizer_config.json',
        'vocab.txt',
    ]
    import onnx

    from bert.convert.onnx import run

    model = onnx.load(str(target / 'model.onnx'))
    assert [entry.domain for entry in model.opset_import] == ['']
    kinds = [node.op_type for node in model.graph.node]
    # 2 layers with 3 products of int8 weights, the pooler's and the head's
    assert kinds.count('MatMulInteger') == 8
    # 18 tokens, 24 positions and the products but the last of each layer
    shapes = {tuple(t.dims): t.data_type for t in model.graph.initializer}
    integers = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert {shapes[shape] for shape in [(18, 8), (24, 8), (8, 24), (8, 12)]} <= integers
    assert shapes[12, 8] == onnx.TensorProto.FLOAT
    batch, expected = golden.expected_outputs(golden.FOLDER / name)
    found = run(target / 'model.onnx', *batch)['logits']
    assert 0 < np.abs(found - expected['logits']).max() < 0.05


def test_a_model_with_other_answers_is_not_written(tmp_path):
    """The regressor's numbers hardly vary, so that those of int8 are too far off."""
    (tmp_path / 'rows.txt').write_text('the bank\nno\tyes\n')
    flags = '--check', str(tmp_path / 'rows.txt'), '--least_equal'
    sentence = failure(convert, golden.FOLDER / 'hf_regressor', tmp_path / 'out', *flags, '0.5')
    assert sentence.startswith(
        f'{tmp_path / "out"} was not written: in float32 and in int8 only 0 of 2 answers are equal'
    )
    assert [path.name for path in tmp_path.iterdir()] == ['rows.txt']
