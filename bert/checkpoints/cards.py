"""Model cards: README.md in the Hugging Face Hub's form, beside each model that is written.

What a card says is data, in the YAML at its beginning, from which the text is written anew when the
model is converted. Everything that a user or a file has said is shown as code.
"""

import contextlib
import functools
import re
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, Optional, Tuple

from bert import __version__
from bert.checkpoints.source import hub_name, is_parameter_file
from bert.system.files import write_text
from bert.system.packages import installed_wheels
from bert.system.terminal import escape

CARD = 'README.md'
PROJECT = 'mxnet-bert-toolkit'
HUB = 'https://huggingface.co'
# The key for what only this project knows. A README.md without it is somebody else's.
FACTS = 'mxnet_bert_toolkit'
# No card is longer. The library takes a second for so much YAML, and longer for nested brackets.
MOST_BYTES, MOST_YAML, MOST_BRACKETS = 2**20, 2**16, 1000
# The labels that a card lists: it must not become too long to be read.
MOST_LABELS = 100

CLASSIFICATION, MASKED, ENCODER = 'text-classification', 'fill-mask', 'feature-extraction'
# The library of each kind of directory: ``output`` is finetune_classifier.py's, the others are
# bert.convert's.
LIBRARIES = {'output': 'mxnet', 'gluon': 'gluonnlp', 'hf': 'transformers', 'onnx': 'onnx'}
TOOLKIT = {
    CLASSIFICATION: 'python -m bert.predict {model} < rows.jsonl > answers.jsonl',
    MASKED: 'finetune_classifier.py --bert_model {model} ...',
    ENCODER: 'python -m bert.embed {model} < lines.txt > vectors.npz',
}
TRANSFORMERS = {
    CLASSIFICATION: "from transformers import pipeline\n\nclassify = pipeline('{kind}', '{model}')",
    MASKED: "from transformers import pipeline\n\nfill = pipeline('{kind}', '{model}')",
    ENCODER: "from transformers import AutoModel\n\nmodel = AutoModel.from_pretrained('{model}')",
}
ONNX = """\
import onnxruntime

session = onnxruntime.InferenceSession('{model}/model.onnx')
# Its inputs are input_ids, attention_mask and token_type_ids, as tokenizer.json makes them."""


class Card(NamedTuple):
    """What a card says of a model, in whatever format it is."""

    name: str
    base: Optional[str] = None  # the model of the Hub that it was made from
    datasets: Tuple[str, ...] = ()  # of the Hub
    languages: Tuple[str, ...] = ()
    license: Optional[str] = None
    results: tuple = ()  # of huggingface_hub.EvalResult
    facts: dict = {}  # by heading, what else there is to say: tables of words, numbers and lists


def format_card(card, kind, layout, model='DIR'):
    """Write a card.

    Parameters
    ----------
    card : Card
    kind : str
        ``text-classification``, ``fill-mask`` or ``feature-extraction``, which are the Hub's words.
    layout : str
        A key of :data:`LIBRARIES`.
    model : str
        What the examples call the model.

    Returns
    -------
    str
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        model_name=card.name,
        base_model=card.base,
        datasets=list(card.datasets) or None,
        language=list(card.languages) or None,
        license=card.license or 'unknown',
        library_name=LIBRARIES[layout],
        pipeline_tag=kind,
        tags=['bert', *(['mxnet'] if layout in ('output', 'gluon') else []), PROJECT],
        eval_results=list(card.results) or None,
        **{FACTS: card.facts},
    )
    origin = f' from [{escape_markdown(card.base)}]({HUB}/{card.base})' if card.base else ''
    parts = [
        f'---\n{data.to_yaml()}\n---\n',
        f'# {escape_markdown(card.name)}\n',
        f'A BERT for {kind}, made by {PROJECT}{origin}.\n',
        f'## How to load it\n\n{_examples(kind, layout, model)}',
    ]
    if card.results:
        parts.append('## Results\n\n' + ''.join(map(_describe, card.results)))
    for heading, table in card.facts.items():
        lines = [f'- {escape_markdown(name)}: {_show(value)}\n' for name, value in table.items()]
        parts.append(f'## {escape_markdown(heading)}\n\n{"".join(lines)}')
    return '\n'.join(parts)


def _examples(kind, layout, model):
    """Return how to load a model, in this toolkit and elsewhere."""
    toolkit = TOOLKIT[kind].format(model=model)
    others = {'hf': TRANSFORMERS[kind].format(model=model, kind=kind), 'onnx': ONNX}
    parts = [] if layout == 'onnx' else [f'In {PROJECT}:\n\n```sh\n{toolkit}\n```\n']
    if layout in others:
        where = 'transformers' if layout == 'hf' else 'onnxruntime'
        parts.append(f'In {where}:\n\n```python\n{others[layout].format(model=model)}\n```\n')
    elif layout == 'output':
        parts.append(
            f'For other libraries: `python -m bert.convert {model} NEW_DIR --to hf`, `gluon` or '
            '`onnx`.\n'
        )
    return '\n'.join(parts)


def _describe(result):
    """Return the line of a result."""
    where = _show(result.dataset_name)
    if result.dataset_split:
        where = f'{where}, {_show(result.dataset_split)}'
    name = result.metric_name or result.metric_type
    return f'- {escape_markdown(str(name))}: {_show(result.metric_value)} ({where})\n'


def _show(value):
    """Write a value as code, a list as several."""
    if isinstance(value, (list, tuple)):
        return ', '.join(map(_show, value)) or 'none'
    text = escape(str(value)) or ' '
    fence = '`' * (1 + max(map(len, re.findall('`+', text)), default=0))
    # A space at each end is not shown, and lets a text begin with a backtick.
    space = ' ' if text[0] in '` ' or text[-1] in '` ' else ''
    return f'{fence}{space}{text}{space}{fence}'


def escape_markdown(text):
    """Write a text so that nothing in it is Markdown or HTML.

    >>> print(escape_markdown('a_b <b> [x](y)'))
    a\\_b \\<b\\> \\[x\\]\\(y\\)
    """
    return re.sub(r'([\\`*_{}\[\]()<>#+!|~&$:@])', r'\\\1', escape(text))


def write_card(folder, text):
    """Write a card into a folder, unless a README.md is there that is not a card of this project.

    Returns
    -------
    bool
        Whether it was written.
    """
    path = Path(folder) / CARD
    if path.exists() and not is_ours(folder):
        return False
    if not path.is_file() or path.read_text(encoding='utf8') != text:
        write_text(path, text)
    return True


def is_ours(folder):
    """Return whether the README.md of a folder is a card of this project."""
    return FACTS in _read_metadata(folder)


def remove_card(folder):
    """Remove the card of a folder, but not another README.md."""
    if is_ours(folder):
        (Path(folder) / CARD).unlink()


def _read_metadata(folder):
    """Return the YAML at the beginning of a README.md, which may be anybody's, or an empty dict."""
    path = Path(folder) / CARD
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return {}
    with open(path, 'rb') as file:
        block = re.match(rb'\s*---\r?\n.*?\n---[ \t]*\r?\n', file.read(MOST_YAML), re.DOTALL)
    if not block or len(re.findall(rb'[\[{]', block[0])) > MOST_BRACKETS:
        return {}
    from huggingface_hub import metadata_load

    try:
        found = metadata_load(path)
    except Exception:  # of the parser, which has many, down to the depth of Python's stack
        return {}
    return found if isinstance(found, dict) else {}


def read_card(folder):
    """Read what the README.md of a folder says, as far as it is of use.

    Returns
    -------
    Card or None
        None if there is no card.
    """
    found = _read_metadata(folder)
    if not found:
        return None
    name, results, facts = Path(folder).absolute().name, [], {}
    if FACTS in found:
        facts = _check_facts(found[FACTS])
        name = str(found.get('model_name', name))
        with contextlib.suppress(Exception):  # whatever an index of another shape leads to
            name, results = _read_index(found.get('model-index'))
    return Card(
        name=name,
        base=next(iter(_words(found.get('base_model'), r'\w[\w.-]*/\w[\w.-]*')), None),
        datasets=_words(found.get('datasets'), r'\w[\w./-]*'),
        languages=_words(found.get('language'), r'[a-z]{2,3}|multilingual'),
        license=next(iter(_words(found.get('license'), r'[a-z0-9][a-z0-9.-]*')), None),
        results=tuple(results),
        facts=facts,
    )


def _words(value, pattern):
    """Return those words of a list, or a single one, that have a form."""
    words = value if isinstance(value, list) else [value]
    return tuple(w for w in words if isinstance(w, str) and re.fullmatch(pattern, w))


def _check_facts(facts):
    """Return the tables of facts without all that has another type."""
    if not isinstance(facts, dict):
        return {}

    def is_sound(value):
        return all(map(_is_plain, value)) if isinstance(value, list) else _is_plain(value)

    return {
        heading: {n: value for n, value in table.items() if isinstance(n, str) and is_sound(value)}
        for heading, table in facts.items()
        if isinstance(heading, str) and isinstance(table, dict)
    }


def _is_plain(value):
    """Return whether a value is a text or a number, but none of thousands of digits."""
    if isinstance(value, int):
        return abs(value) < 2**63
    return isinstance(value, (str, float))


def _read_index(index):
    """Return the name and the results of a card's model-index."""
    from huggingface_hub.repocard_data import model_index_to_eval_results

    name, results = model_index_to_eval_results(index)
    if not all(v is None or _is_plain(v) for result in results for v in vars(result).values()):
        raise ValueError('a result is neither a number nor a text')
    return str(name), results


def describe_source(source, dataset=None, location=None):
    """Describe a model by its name and by the card in its folder.

    Parameters
    ----------
    source : str
        As for :func:`bert.checkpoints.source.locate`.
    dataset : str, optional
    location : bert.checkpoints.contents.Location, optional
        Where it is.

    Returns
    -------
    Card
    """
    is_folder = location and not is_parameter_file(source)
    card = (is_folder and read_card(location.folder)) or Card(short_name(source))
    base = hub_name(source, dataset)
    return card._replace(name=short_name(source), base=base) if base else card


def short_name(source):
    """Return the last part of a model's name or path.

    >>> short_name('google-bert/bert-base-uncased'), short_name('sample_model/config.json')
    ('bert-base-uncased', 'sample_model')
    """
    path = Path(source)
    if path.suffix in ('.json', '.params'):
        path = path.parent if path.stem == 'config' else path.with_suffix('')
    return path.name or path.absolute().name or 'bert'


@functools.lru_cache(maxsize=None)
def versions():
    """Return the versions of what has made a model, by name."""
    import platform

    packages = [*installed_wheels(), 'gluonnlp', 'numpy']
    found = {name: metadata.version(name) for name in packages}
    return {PROJECT: __version__, 'Python': platform.python_version(), **found}
