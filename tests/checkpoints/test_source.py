"""Finding models: directories of every kind, files, and the metadata of fine-tuned models."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, failure

from bert.checkpoints import reading, source
from bert.checkpoints.contents import Location


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ('[]', 'not a JSON object'),
        ('{}', 'flags is not a table'),
        ('{"flags": {}, "labels": "ab"}', 'labels is not a list of names'),
        ('{"flags": {}, "labels": [0, 1]}', 'labels is not a list of names'),
        ('{"flags": {}}', 'parameters is not the name of a file in this folder'),
        (
            '{"flags": {}, "parameters": "../other.params"}',
            'parameters is not the name of a file in this folder',
        ),
    ],
)
def test_damaged_finetune_json(tmp_path, content, sentence):
    path = tmp_path / 'finetune.json'
    path.write_text(content)
    assert failure(source.locate, str(tmp_path)) == f'{path}: {sentence}'


def test_finetune_json(tmp_path):
    assert reading.read_finetuned(tmp_path) is None
    content = {'flags': {'max_len': 9}, 'labels': None, 'parameters': 'a.params', 'more': 1}
    (tmp_path / 'finetune.json').write_text(json.dumps(content))
    assert reading.read_finetuned(tmp_path) == {
        'flags': {'max_len': 9},
        'labels': None,
        'is_multilabel': False,
        'parameters': tmp_path / 'a.params',
    }


# --- finding

GOLDEN = ROOT / 'tests' / 'data' / 'checkpoints'


def test_where_the_parts_are():
    for name, weights, vocab in [
        ('hf_encoder', 'model.safetensors', 'tokenizer.json'),
        ('hf_sharded', 'model.safetensors.index.json', 'vocab.txt'),
        ('hf_2018', 'pytorch_model.bin', 'vocab.txt'),
        ('gluon_encoder', 'tiny.params', 'tiny.vocab'),
        ('google', 'bert_model.ckpt.index', 'vocab.txt'),
    ]:
        folder = GOLDEN / name
        found = source.locate(str(folder))
        assert found == Location(folder, folder / weights, folder / vocab)


def test_a_parameter_file_and_what_is_beside_it():
    path = GOLDEN / 'gluon_encoder' / 'tiny.params'
    assert source.locate(str(path)) == source.locate(str(path.parent))


def test_a_file_of_another_kind():
    path = GOLDEN / 'hf_classifier' / 'model.safetensors'
    assert failure(source.locate, str(path)) == (
        f'{path}: name the folder of this file; its vocabulary is there too'
    )


def test_several_models_in_one_folder(tmp_path):
    for name in ('a.params', 'b.params'):
        (tmp_path / name).touch()
    assert failure(source.locate, str(tmp_path)) == (
        f'{tmp_path}: holds 2 models, such as a.params: name one of them'
    )
    assert source.locate(str(tmp_path / 'b.params')).weights == tmp_path / 'b.params'


def test_finetuned_models():
    def read(name):
        return reading.read_finetuned(GOLDEN / name)

    labels = ['neutral', 'yes', 'no']
    assert read('hf_classifier') == {'flags': {}, 'labels': labels, 'is_multilabel': False}
    assert read('hf_regressor')['labels'] is None
    for name in ('hf_encoder', 'gluon_encoder', 'google'):
        assert read(name) is None
    assert reading.read_finetuned(GOLDEN / 'nowhere') is None


@pytest.mark.parametrize('name', ['MXNET_HOME', 'HF_HOME'])
def test_a_user_without_a_home(name, tmp_path):
    """As in a container with a user of no name: no folder ``~`` is made."""
    fetch = {
        'MXNET_HOME': 'from bert.checkpoints import zoo; zoo.vocab_path("wiki_cn_cased")',
        'HF_HOME': 'from bert.checkpoints import hub; hub.fetch("owner/model")',
    }[name]
    code = (
        'import pwd, sys; sys.path.insert(0, sys.argv[1])\n'
        'def getpwuid(number): raise KeyError(number)\n'
        f'pwd.getpwuid = getpwuid\n{fetch}'
    )
    places = ('HOME', 'XDG_CACHE_HOME', 'MXNET_HOME', 'HF_HOME', 'HF_HUB_CACHE')
    variables = {key: value for key, value in os.environ.items() if key not in places}
    done = subprocess.run(
        [sys.executable, '-c', code, str(ROOT)],
        cwd=tmp_path,
        env={**variables, 'MXNET_GLUON_REPO': 'http://127.0.0.1:9', 'HF_HUB_OFFLINE': '1'},
        capture_output=True,
        text=True,
        timeout=60,
    )
    sentence = f'there is no home directory for models: the variable {name} can name a folder'
    assert done.stderr.splitlines()[-1].endswith(f'ToolkitError: {sentence}')
    assert os.listdir(tmp_path) == []
