"""README.rst and docs/ as text: their sections, and the commands in their blocks."""

import re
import shlex
from typing import List, NamedTuple

from conftest import ROOT

PAGES = ['README.rst', *sorted(f'docs/{path.name}' for path in ROOT.glob('docs/*.rst'))]
PROJECT_PROGRAMS = sorted(path.name for path in ROOT.glob('*.py') if path.name != 'setup.py')
# What begins a command, after variables.
PROGRAMS = [*PROJECT_PROGRAMS, 'python', 'python3', 'make', 'pip', 'uv', 'echo', 'export']
PROGRAMS += ['dask', 'horovodrun', 'tensorboard', 'curl', 'apt']
ASSIGNMENT = re.compile(r'([A-Z_]+)=(.*)', re.S)
# Commands that tests run as they are printed, one after the other: each as a whole, or by a part
# that no other has.
RUNS = {
    'own data': [
        '--dev_file dev.csv --text_columns question answer',
        '--only_inference --bert_model output_dir --test_file new.csv --output_dir answers',
        '-m bert.predict output_dir < rows.jsonl > answers.jsonl',
        "--text 'How long does it last?'",
    ],
    'vectors': ['-m bert.embed minilm < lines.txt', "-c 'import numpy; print(numpy.load("],
    'converting': [
        '-m bert.convert minilm minilm_gluon --to gluon',
        '-m bert.convert minilm_gluon minilm_hf --to hf',
        '-m bert.convert --compare minilm minilm_gluon',
    ],
    'ONNX': [
        '-m bert.convert minilm minilm_gluon --to gluon',
        '-m bert.convert minilm_gluon minilm_onnx --to onnx',
    ],
    'a program': ['loop.py minilm'],
    'GLUE': [
        '--task_name MRPC --bert_model minilm --batch_size 32 --epochs 3 --lr 5e-5 --seed 1',
        '--only_inference --bert_model output_dir --output_dir predictions',
        'glue.py --compare-log',
    ],
    'pre-training': [
        '--vocab_file ~/.mxnet/models/book_corpus_wiki_en_uncased-c3e2bd00.vocab',
        '--do-training --data out.npz --bert_model sample_model/config.json',
        'benchmarks/plot_pretraining.py ckpt_dir/metrics.jsonl curves.svg',
        'benchmarks/fill_mask.py ckpt_dir/model --top 3',
    ],
    'the plan': ['python3 benchmarks/plan.py', 'benchmarks/plan.py --seconds 0.5'],
}


class Command(NamedTuple):
    """A command of a page."""

    page: str
    line: int  # the first is 1
    text: str
    variables: dict  # those that it is started with, by name
    words: List[str]  # without redirections

    def __str__(self):
        return f'{self.page}:{self.line}'


def read(page):
    """Return the text of a page."""
    return (ROOT / page).read_text(encoding='utf8')


def section(page, title):
    """Return the text of a section."""
    text = read(page)
    start = re.search(rf'^{title}\n[-~]+\n', text, re.M).end()
    following = re.compile(r'^[^\n]+\n([-~])\1\1+\n', re.M).search(text, start)
    return text[start : following and following.start()]


def blocks(page, language=None):
    """Return the literal blocks of a page, without indentation.

    Parameters
    ----------
    page : str
    language : str, optional
        That of a ``code-block``; by default, the blocks after two colons.

    Returns
    -------
    list of (int, str)
        The number of the first line, and the text.
    """
    text = read(page)
    opening = rf'\.\. code-block:: {language}' if language else r'(?!\.\. )(?:[^\n]*[^\n:])?::'
    pattern = rf'^( *){opening}\n\n((?:\1    .*\n|\n)+)'
    found = []
    for match in re.finditer(pattern, text, re.M):
        lines = [line[len(match[1]) + 4 :] for line in match[2].rstrip('\n').split('\n')]
        found.append((text.count('\n', 0, match.start(2)) + 1, '\n'.join(lines)))
    return found


def is_command(line):
    """Tell whether a line of a block begins as a command does."""
    words = line.split()
    while words and ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    if len(words) < 2 or words[0] not in PROGRAMS:
        return False
    # A table has a column of this name.
    return words[0] != 'python' or words[1][0] in '-$' or words[1].endswith('.py')


def parse(page, line, text, variables):
    """Return the commands of a line of a shell script, and set the variables that it sets.

    Only as much of a shell's language is known as these pages use.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars='<>|&')
    lexer.whitespace_split = True
    words = [part for word in lexer for part in expand(word, variables)]
    commands = []
    while words:
        end = next((i for i, word in enumerate(words) if word in ('|', '&')), len(words))
        part, words = words[:end], words[end + 1 :]
        for sign in '<>':
            if sign in part:
                at = part.index(sign)
                del part[at : at + 2]
        own = {}
        while part and ASSIGNMENT.fullmatch(part[0]):
            name, value = ASSIGNMENT.fullmatch(part.pop(0)).groups()
            own[name] = value
        if part[:1] == ['export']:
            own.update(ASSIGNMENT.fullmatch(word).groups() for word in part[1:])
        if not part or part[0] == 'export':
            variables.update(own)
        else:
            commands.append(Command(page, line, text, {**variables, **own}, part))
    return commands


def expand(word, variables):
    """Return the words that a word with a variable stands for."""
    return variables[word[1:]].split() if word.startswith('$') else [word]


def commands():
    """Return all commands of all pages, in their order: those of blocks and those within text."""
    found = []
    for page in PAGES:
        for start, text in blocks(page, 'sh'):
            variables = {}
            for number, line in enumerate(text.split('\n'), start):
                found += parse(page, number, line, variables)
        text = read(page)
        for match in re.finditer(r'``([^`]+)``', text):
            inline = ' '.join(match[1].split())
            # Other programs are mentioned without the flags that they need.
            if inline.startswith(('make ', 'pip install ')):
                number = text.count('\n', 0, match.start()) + 1
                found += parse(page, number, inline, {})
    return found


def run_lines(story):
    """Return the lines of the pages with the commands of a story of :data:`RUNS`."""
    lines = list(dict.fromkeys(command.text for command in commands()))
    found = []
    for text in RUNS[story]:
        matching = [text] if text in lines else [line for line in lines if text in line]
        assert len(matching) == 1, f'{text}: {matching}'
        found += matching
    return found
