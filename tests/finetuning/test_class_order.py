"""The classes of the GLUE tasks have the order that they have in every GluonNLP.

A parameter file has no names of classes, so models of the originals only mean the same here if the
order is the same.
"""

import json

import numpy as np
import pytest

import finetune_classifier
from bert.model import build_head, load_bert
from bert.tasks.table import TASKS

import mxnet as mx  # isort: skip

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


def test_the_order_of_all_classes():
    assert {name: task.labels for name, task in TASKS.items()} == ORDER


@pytest.mark.parametrize('name', ['RTE', 'QNLI'])
def test_class_1_of_a_model_of_gluonnlp(tiny_bert, tmp_path, monkeypatch, name):
    """A classifier that always answers with class 1, saved by GluonNLP's own method."""
    data = tmp_path / 'glue' / name
    data.mkdir(parents=True)
    rows = [f'{i}\tthe old film\ta good film\t{label}' for i, label in enumerate(ORDER[name])]
    (data / 'dev.tsv').write_text('\n'.join(['index\ta\tb\tlabel', *rows]))
    (data / 'test.tsv').write_text(
        '\n'.join(['index\ta\tb', *(r.rpartition('\t')[0] for r in rows)])
    )
    monkeypatch.setenv('GLUE_DIR', str(tmp_path / 'glue'))
    model = build_head(load_bert(str(tiny_bert))[0], 2, [mx.cpu()])
    model.classifier[-1].weight.set_data(mx.nd.zeros((2, 16)))
    model.classifier[-1].bias.set_data(mx.nd.array([0, 9]))
    (tmp_path / 'old').mkdir()
    path = tmp_path / 'old' / f'model_bert_{name}_2.params'
    model.save_parameters(str(path))

    def predict(*flags):
        finetune_classifier.main(
            ['--only_inference', *map(str, flags), '--output_dir', str(tmp_path / 'out')]
        )
        with np.load(tmp_path / 'out' / 'outputs.npz') as outputs:
            assert outputs['dev'].shape == (2, 2)
        lines = (tmp_path / 'out' / f'{name}.tsv').read_text().splitlines()[1:]
        return {line.split('\t')[1] for line in lines}

    flags = ('--task_name', name, '--bert_model', tiny_bert, '--model_parameters', path)
    assert predict(*flags) == {'entailment'}
    # A model that this project wrote with the other order remembers it.
    (tmp_path / 'old' / 'finetune.json').write_text(
        json.dumps(
            {
                'flags': {'task_name': name},
                'labels': ['entailment', 'not_entailment'],
                'parameters': path.name,
            }
        )
    )
    assert predict(*flags) == {'not_entailment'}
