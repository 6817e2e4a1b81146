"""The classes of the GLUE tasks have the order that they have in every GluonNLP.

A parameter file has no names of classes, so models of the originals only mean the same here if the
order is the same. Files of earlier versions of this project, where RTE and QNLI had another order,
go on by the names that they remember.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

import finetune_classifier
from bert.system.errors import ToolkitError
from bert.tasks import predictions
from bert.tasks.table import TASKS

pytestmark = pytest.mark.usefixtures('root_logger')

# As in GluonNLP 0.5 to 0.10, read off its data sets.
ORDER = {
    'CoLA': ('0', '1'),
    'SST-2': ('0', '1'),
    'MRPC': ('0', '1'),
    'STS-B': None,
    'QQP': ('0', '1'),
    'MNLI': ('neutral', 'entailment', 'contradiction'),
    'QNLI': ('not_entailment', 'entailment'),
    'RTE': ('not_entailment', 'entailment'),
    'WNLI': ('0', '1'),
}
OTHER = ['entailment', 'not_entailment']
DATA = ROOT / 'tests' / 'data'
MODEL = DATA / 'checkpoints' / 'gluon_classifier'  # the sizes and the vocabulary


@pytest.mark.parametrize('name', ORDER)
def test_the_order_of_all_classes(name):
    assert TASKS[name].labels == ORDER[name]


def write_table(path, split, labels=None):
    """Write a GLUE file with six rows; the labels take turns."""
    columns = max(*split.text_columns, split.label_column or 0) + 1
    rows = []
    for number in range(6):
        row = ['x'] * columns
        for column in split.text_columns:
            row[column] = 'the bank said no' if number % 2 else 'the man said why'
        if labels:
            row[split.label_column] = labels[number % len(labels)]
        rows.append('\t'.join(row))
    header = ['\t'.join(f'c{i}' for i in range(columns))] if split.has_header else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in [*header, *rows]))


@pytest.fixture
def glue_of(tmp_path, monkeypatch):
    """Return a function that writes the files of a task, and sets GLUE_DIR."""
    monkeypatch.setenv('GLUE_DIR', str(tmp_path / 'glue'))

    def write(name):
        task = TASKS[name]
        for split in (task.train, *task.dev):
            write_table(tmp_path / 'glue' / split.path, split, task.labels)
        for split in task.test:
            write_table(tmp_path / 'glue' / split.path, split)
        return task

    return write


def answers(path):
    return {line.split('\t')[1] for line in path.read_text().splitlines()[1:]}


def infer(folder, *flags):
    flags = ('--only_inference', '--max_len', 24, '--bert_model', MODEL, *flags)
    finetune_classifier.main([*map(str, flags), '--output_dir', str(folder)])


@pytest.mark.parametrize('name', [name for name, labels in ORDER.items() if labels])
def test_class_1_of_a_model_that_gluonnlp_trained(glue_of, tmp_path, name):
    """See tests/data/class_order/make.py."""
    task = glue_of(name)
    parameters = DATA / 'class_order' / f'{len(ORDER[name])}.params'
    infer(tmp_path / 'out', '--task_name', name, '--model_parameters', parameters)
    for split in task.test:  # with MNLI, the diagnostic set too
        assert answers(tmp_path / 'out' / split.submission) == {ORDER[name][1]}


def test_a_model_of_an_earlier_version_goes_on_by_its_labels(glue_of, tmp_path):
    glue_of('RTE')
    folder = tmp_path / 'old'
    folder.mkdir()
    path = folder / 'model_bert_RTE_2.params'
    path.write_bytes((DATA / 'class_order' / '2.params').read_bytes())
    remembered = {'flags': {'task_name': 'RTE'}, 'labels': OTHER, 'parameters': path.name}
    (folder / 'finetune.json').write_text(json.dumps(remembered))
    infer(tmp_path / 'out', '--task_name', 'RTE', '--model_parameters', path)
    assert answers(tmp_path / 'out' / 'RTE.tsv') == {'not_entailment'}


def test_outputs_of_an_earlier_version_are_put_in_order(tmp_path):
    """Without names in outputs.npz those of finetune.json hold."""
    old = np.array([[1.0, 2.0], [5.0, 3.0]])
    np.savez(tmp_path / 'outputs.npz', dev=old)
    (tmp_path / 'finetune.json').write_text(json.dumps({'labels': OTHER}))
    ours = predictions.read_outputs(tmp_path, 'dev', ORDER['RTE'])
    assert ours.tolist() == [[2, 1], [3, 5]]
    # What is written now says so itself, also beside the description of an older model.
    predictions.write_outputs(tmp_path, {'dev': old}, ORDER['RTE'])
    assert predictions.read_outputs(tmp_path, 'dev', ORDER['RTE']).tolist() == old.tolist()
    with pytest.raises(ToolkitError, match='has the classes not_entailment, entailment, and not'):
        predictions.read_outputs(tmp_path, 'dev', ORDER['MRPC'])


def test_an_unfinished_run_of_an_earlier_version_is_resumed(
    glue_of, tmp_path, monkeypatch, tiny_bert
):
    """Its labels keep their order, so that it ends as it would have."""
    glue_of('RTE')

    def train(folder, *flags):
        flags = ('--task_name', 'RTE', '--bert_model', tiny_bert, *flags)
        flags = (*flags, '--epochs', 2, '--batch_size', 2, '--output_dir', folder)
        return finetune_classifier.main([*map(str, flags)])

    earlier = {**TASKS, 'RTE': replace(TASKS['RTE'], labels=tuple(OTHER))}
    with monkeypatch.context() as patch:
        patch.setattr('bert.finetuning.data.ALL_TASKS', earlier)
        train(tmp_path / 'whole')
        from bert.finetuning.output import Output

        save_epoch = Output.save_epoch

        def interrupted(self, *args):
            save_epoch(self, *args)
            raise KeyboardInterrupt

        patch.setattr(Output, 'save_epoch', interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / 'run')
    train(tmp_path / 'run', '--resume')
    assert json.loads((tmp_path / 'run' / 'finetune.json').read_text())['labels'] == OTHER
    for name in ('model_bert_RTE_1.params', 'RTE.tsv', 'outputs.npz'):
        assert (tmp_path / 'run' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()
