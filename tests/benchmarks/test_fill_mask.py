"""benchmarks/fill_mask.py: the answers for each [MASK]."""

import io
import sys
import types

import fill_mask
import mxnet as mx
import numpy as np
import pytest
from conftest import ROOT, failure

from bert.model.loading import build_from_configuration
from bert.model.parameters import named, save_huggingface
from bert.pretraining.loss import finish_initialization

TEXT = 'the [MASK] sees a [MASK].'


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A model whose masked-LM head always prefers the same tokens."""
    path = ROOT / 'sample_model' / 'config.json'
    built, vocab = build_from_configuration(path, mx.cpu(), use_decoder=True, use_classifier=True)
    finish_initialization(built, mx.cpu())
    gamma, bias = (named(built)[f'decoder.{name}'] for name in ('2.gamma', '3.bias'))
    gamma.set_data(mx.nd.zeros(gamma.shape))
    values = np.zeros(bias.shape, np.float32)
    values[[vocab['river'], vocab['bread']]] = 30, 29
    bias.set_data(mx.nd.array(values))
    folder = tmp_path_factory.mktemp('model')
    save_huggingface(folder / 'model', built, vocab, True)
    return str(folder / 'model')


@pytest.fixture
def stdin(monkeypatch):
    monkeypatch.setattr(sys, 'stdin', types.SimpleNamespace(buffer=io.BytesIO(TEXT.encode())))


def test_answers(model, stdin, capsys):
    """Softmax of 30 and 29, for both masks."""
    fill_mask.main([model, '--top', '2'])
    assert capsys.readouterr().out.splitlines() == [TEXT] + ['    river 0.731, bread 0.269'] * 2


def test_other_lines(model, monkeypatch, capsys):
    """A tab is white space; a line without masks is left to itself, by transformers too."""
    text = b'the [MASK]\tsees.\nno mask\n\n'
    monkeypatch.setattr(sys, 'stdin', types.SimpleNamespace(buffer=io.BytesIO(text)))
    monkeypatch.setattr(
        fill_mask, 'load_transformers', lambda *_: lambda text: [[('river', 0.731)]][: '[' in text]
    )
    fill_mask.main([model, '--top', '1', '--transformers', 'folder'])
    assert capsys.readouterr().out.splitlines()[:-1] == [
        'the [MASK] sees.',
        '    river 0.731',
        'no mask',
        '',
    ]


def test_refused(model, tmp_path, monkeypatch):
    """A model without the head would give random answers."""
    text = b'the river [MASK] ' * 500
    monkeypatch.setattr(sys, 'stdin', types.SimpleNamespace(buffer=io.BytesIO(text)))
    assert failure(fill_mask.main, [model]).endswith(
        ' positions, and a text has 1502 tokens: the river [MASK] the river [MASK] the ri ...'
    )
    built, vocab = build_from_configuration(ROOT / 'sample_model' / 'config.json', mx.cpu())
    finish_initialization(built, mx.cpu())
    save_huggingface(tmp_path / 'model', built, vocab, True)
    assert failure(fill_mask.main, [str(tmp_path / 'model')]).endswith(
        ': has no masked-LM head to fill masks with'
    )


@pytest.mark.parametrize(
    'others, error',
    [
        ([('river', 0.7311), ('bread', 0.2689)], None),
        ([('river', 0.75), ('bread', 0.25)], f'{TEXT} river 0.731 here, 0.750 by transformers'),
        ([('bread', 0.73), ('river', 0.26)], f'{TEXT} river 0.731 here, 0.260 by transformers'),
    ],
)
def test_comparison(model, stdin, monkeypatch, others, error):
    monkeypatch.setattr(fill_mask, 'load_transformers', lambda *_: lambda text: [others] * 2)
    argv = [model, '--top', '2', '--transformers', 'folder']
    if error:
        assert failure(fill_mask.main, argv) == error
    else:
        assert fill_mask.main(argv) < 1e-4
