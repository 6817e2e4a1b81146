"""The models of speed.py: random weights that all sides read, and the same as an ONNX file."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from speed_sides import ONNX_FILE

from bert.system.errors import ToolkitError
from bert.system.files import write_json

ROOT = Path(__file__).resolve().parents[1]
DEVIATION = 0.02  # of random weights, in the original BERT


def write_model(line, folder):
    """Write the configuration of a model, and a vocabulary for it, into a new folder.

    Parameters
    ----------
    line : speed_lines.Line
    folder : Path
    """
    config = {
        'model_type': 'bert',
        'architectures': ['BertForSequenceClassification'],
        'num_hidden_layers': line.layers,
        'hidden_size': line.units,
        'intermediate_size': 4 * line.units,
        'num_attention_heads': line.heads,
        'max_position_embeddings': 512,
        'vocab_size': line.vocab_size,
        'type_vocab_size': 2,
        'hidden_act': 'gelu',
        'hidden_dropout_prob': 0.1,
        'attention_probs_dropout_prob': 0.1,
        'layer_norm_eps': 1e-12,
    }
    folder.mkdir()
    write_json(folder / 'config.json', config)
    (folder / 'vocab.txt').write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n')


def write_weights(line, folder):
    """Write random weights of a classifier with two classes, in Hugging Face's layout."""
    units, inner = line.units, 4 * line.units
    tensors, rng = {}, np.random.default_rng(1)

    def add(name, *shape):
        tensors[f'{name}.weight'] = rng.normal(0, DEVIATION, shape).astype(np.float32)

    def add_dense(name, outputs, inputs):
        add(name, outputs, inputs)
        tensors[f'{name}.bias'] = np.zeros(outputs, np.float32)

    def add_layer_norm(name):
        tensors[f'{name}.weight'] = np.ones(units, np.float32)
        tensors[f'{name}.bias'] = np.zeros(units, np.float32)

    add('bert.embeddings.word_embeddings', line.vocab_size, units)
    add('bert.embeddings.position_embeddings', 512, units)
    add('bert.embeddings.token_type_embeddings', 2, units)
    add_layer_norm('bert.embeddings.LayerNorm')
    for number in range(line.layers):
        layer = f'bert.encoder.layer.{number}'
        for name in ('self.query', 'self.key', 'self.value', 'output.dense'):
            add_dense(f'{layer}.attention.{name}', units, units)
        add_layer_norm(f'{layer}.attention.output.LayerNorm')
        add_dense(f'{layer}.intermediate.dense', inner, units)
        add_dense(f'{layer}.output.dense', units, inner)
        add_layer_norm(f'{layer}.output.LayerNorm')
    add_dense('bert.pooler.dense', units, units)
    add_dense('classifier', 2, units)
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})


def export(folder):
    """Write a model with weights as an ONNX file beside them, as a user would."""
    ran = subprocess.run(
        [sys.executable, '-m', 'bert.convert', folder, folder / Path(ONNX_FILE).parent]
        + ['--to', 'onnx'],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1'},
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        raise ToolkitError(f'the ONNX file could not be made: {ran.stderr.strip()}')
