"""Model cards: their YAML as the Hub's own library reads it, and hostile words in their text."""

import doctest
import json

import pytest
from conftest import write_tiny_bert
from huggingface_hub import EvalResult, ModelCard

from bert.checkpoints import cards, source
from bert.checkpoints.cards import CLASSIFICATION, ENCODER, MASKED, Card
from bert.checkpoints.installed import INSTALLED

HOSTILE = 'x\n---\n# a <b>[c](d)</b> | `e` \x1b[2J __f__'
RESULT = EvalResult(
    task_type='text-classification',
    dataset_type='nyu-mll/glue',
    dataset_name='MRPC',
    dataset_config='mrpc',
    dataset_split='validation',
    metric_type='accuracy',
    metric_name='accuracy',
    metric_value=0.9013,
)
WHOLE = Card(
    name='bert-base-uncased-MRPC',
    base='google-bert/bert-base-uncased',
    datasets=('nyu-mll/glue',),
    languages=('en',),
    license='apache-2.0',
    results=(RESULT,),
    facts={'Flags': {'lr': 5e-05, 'bias_correction': True, 'text_columns': ['a', 'b']}},
)


def write(folder, card, kind=CLASSIFICATION, layout='output', **more):
    text = cards.format_card(card, kind, layout, **more)
    assert cards.write_card(folder, text)
    return text


def test_examples_of_the_docstrings():
    result = doctest.testmod(cards)
    assert result.attempted and not result.failed


def test_what_the_hub_reads(tmp_path):
    write(tmp_path, WHOLE)
    data = ModelCard.load(tmp_path / 'README.md').data
    assert data.to_dict() == {
        'base_model': 'google-bert/bert-base-uncased',
        'datasets': ['nyu-mll/glue'],
        'language': ['en'],
        'library_name': 'mxnet',
        'license': 'apache-2.0',
        'pipeline_tag': 'text-classification',
        'tags': ['bert', 'mxnet', 'mxnet-bert-toolkit'],
        'mxnet_bert_toolkit': WHOLE.facts,
        'model-index': [
            {
                'name': 'bert-base-uncased-MRPC',
                'results': [
                    {
                        'task': {'type': 'text-classification'},
                        'dataset': {
                            'name': 'MRPC',
                            'type': 'nyu-mll/glue',
                            'config': 'mrpc',
                            'split': 'validation',
                        },
                        'metrics': [{'type': 'accuracy', 'value': 0.9013, 'name': 'accuracy'}],
                    }
                ],
            }
        ],
    }
    assert data.eval_results == [RESULT]


@pytest.mark.parametrize('card', [WHOLE, Card('x'), Card(HOSTILE, facts={'A': {HOSTILE: HOSTILE}})])
@pytest.mark.parametrize('layout', cards.LIBRARIES)
@pytest.mark.parametrize('kind', [CLASSIFICATION, MASKED, ENCODER])
def test_a_card_says_what_it_was_made_from(card, layout, kind, tmp_path):
    text = write(tmp_path, card, kind, layout)
    again = cards.read_card(tmp_path)
    assert again._replace(license=card.license) == card
    assert again.license == card.license or (again.license, card.license) == ('unknown', None)
    assert cards.format_card(again, kind, layout) == text
    assert ModelCard(text).data.library_name == cards.LIBRARIES[layout]


def test_the_text(tmp_path):
    text = write(tmp_path, WHOLE)
    assert text.endswith("""
# bert-base-uncased-MRPC

A BERT for text-classification, made by mxnet-bert-toolkit from \
[google-bert/bert-base-uncased](https://huggingface.co/google-bert/bert-base-uncased).

## How to load it

In mxnet-bert-toolkit:

```sh
python -m bert.predict DIR < rows.jsonl > answers.jsonl
```

For other libraries: `python -m bert.convert DIR NEW_DIR --to hf`, `gluon` or `onnx`.

## Results

- accuracy: `0.9013` (`MRPC`, `validation`)

## Flags

- lr: `5e-05`
- bias\\_correction: `True`
- text\\_columns: `a`, `b`
""")
    text = write(tmp_path, WHOLE, layout='hf', model='own/bert')
    assert "\nclassify = pipeline('text-classification', 'own/bert')\n" in text


def test_nothing_that_was_said_is_markdown(tmp_path):
    """Code in as many backticks as are not in it; everything else is escaped, on its own line."""
    result = EvalResult(
        **{**vars(RESULT), 'dataset_name': HOSTILE, 'metric_name': HOSTILE, 'dataset_split': '`'}
    )
    facts = {HOSTILE: {HOSTILE: HOSTILE, 'b': ['``', '', ' c']}}
    text = write(tmp_path, Card(HOSTILE, results=(result,), facts=facts))
    body = text[text.index('\n---\n\n') :].split('\n')[2:]
    escaped = (
        'x\\\\n---\\\\n\\# a \\<b\\>\\[c\\]\\(d\\)\\</b\\> \\| \\`e\\` \\\\x1b\\[2J \\_\\_f\\_\\_'
    )
    code = '``x\\n---\\n# a <b>[c](d)</b> | `e` \\x1b[2J __f__``'
    said = [line for line in body if 'x1b' in line or line.startswith('- b')]
    assert said == [
        f'# {escaped}',
        f'- {escaped}: `0.9013` ({code}, `` ` ``)',
        f'## {escaped}',
        f'- {escaped}: {code}',
        '- b: ``` `` ```, `   `, `  c `',
    ]


@pytest.mark.parametrize(
    'text',
    [
        'only words',
        '---\nlicense: mit\n---\n# mine\n',
        '---\n[broken\n---\n',
        '---\n- a list\n---\n',
        f'---\na: {"[" * 10000}\n---\n',
        b'---\na: \xff\n---\n',
        '---\nmxnet_bert_toolkit: {}\n---\n' + 'x' * 2**20,
        '---\nmxnet_bert_toolkit: {}\n' + 'a: b\n' * 2**14 + '---\n',
    ],
)
def test_the_readme_of_somebody_else_stays(tmp_path, text):
    path = tmp_path / 'README.md'
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(data)
    assert not cards.write_card(tmp_path, cards.format_card(WHOLE, CLASSIFICATION, 'output'))
    cards.remove_card(tmp_path)
    assert path.read_bytes() == data
    found = cards.read_card(tmp_path)
    assert found is None or found == Card(tmp_path.name, license='mit')


def test_an_unchanged_card_is_not_written_again(tmp_path):
    text = write(tmp_path, WHOLE)
    before = (tmp_path / 'README.md').stat().st_mtime_ns
    assert cards.write_card(tmp_path, text)
    assert (tmp_path / 'README.md').stat().st_mtime_ns == before
    cards.remove_card(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('base_model', ['../../x', '<b>/c', 5]),
        ('datasets', {'a': 1}),
        ('language', ['English', None, '<b>']),
        ('license', ['<b>', 'MIT License']),
        ('model-index', [{'name': 'x', 'results': [{'task': 5}]}]),
        ('model-index', 'x'),
        ('mxnet_bert_toolkit', {'A': {'b': {'c': {}}, 'd': [[1]]}, 'F': 'g'}),
    ],
)
def test_entries_of_another_shape_are_left_out(tmp_path, key, value):
    entries = {'license': 'mit', 'mxnet_bert_toolkit': {}, key: value}
    (tmp_path / 'README.md').write_text(f'---\n{json.dumps(entries)}\n---\n')
    card = cards.read_card(tmp_path)
    facts = {'A': {}} if key == 'mxnet_bert_toolkit' else {}
    assert card._replace(license=None) == Card(tmp_path.name, facts=facts)


def test_the_names_of_models_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, dataset, expected in [
        ('bert_12_768_12', 'wiki_cn', 'google-bert/bert-base-chinese'),
        ('bert_24_1024_16', 'book_corpus_wiki_en_cased', 'google-bert/bert-large-cased'),
        ('minilm', None, 'sentence-transformers/all-MiniLM-L6-v2'),
        ('own/bert', None, 'own/bert'),
        ('../bert', None, None),
        ('bert', None, None),
    ]:
        assert source.hub_name(name, dataset) == expected
    for name in ('minilm', 'own/bert'):
        write_tiny_bert(tmp_path / name)
        assert source.hub_name(name) is None


def test_what_a_base_model_says_of_itself(minilm):
    """Its licence and language are those of its card, and its name is that of the Hub."""
    card = cards.describe_source('minilm', None, source.locate('minilm'))
    assert (card.license, card.languages) == ('apache-2.0', ('en',))
    assert (card.name, card.base) == ('minilm', INSTALLED['minilm'].hub)
    card = cards.describe_source(str(minilm), None, source.locate(str(minilm)))
    assert (card.license, card.languages, card.base) == ('apache-2.0', ('en',), None)
    assert (card.results, card.facts) == ((), {})
