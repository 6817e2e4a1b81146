"""The command ``python -m bert.vocabulary``: other readers of its output, and what it refuses."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, failure

from bert import vocabulary
from bert.pretraining import files
from bert.system.errors import Interrupted, UsageError
from bert.text import vocabulary_training
from bert.text.tokenizer import build_tokenizer, tokenize
from bert.text.vocab import has_capitals, load_vocab

pytestmark = pytest.mark.usefixtures('root_logger')

SAMPLE = ROOT / 'sample_glue' / 'MRPC' / 'train.tsv'
TEXTS = [
    'Émile Zola wrote "Germinal" in 1885, didn\'t he?',
    '中文 text, half-known: 2,000 Wörter!',
    'the \U0001f600 is unknown',
    '',
]


def command(*arguments):
    return [sys.executable, '-W', 'ignore', '-m', 'bert.vocabulary', *map(str, arguments)]


def run(*arguments):
    """Run the command; return its status and what it wrote to stderr."""
    ran = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True)
    assert 'Traceback' not in ran.stderr and not ran.stdout
    return ran.returncode, ran.stderr


@pytest.fixture(params=[True, False], ids=['uncased', 'cased'])
def trained(request, tmp_path):
    """Return whether it is uncased, and the vocabulary of the bundled text and two others."""
    lower = request.param
    (tmp_path / 'more.txt').write_text(f'{TEXTS[0]} {TEXTS[1]}\n' * 5, encoding='utf8')
    path = tmp_path / 'vocab.txt'
    texts = [str(SAMPLE), f'{tmp_path}/m*.txt']
    cased = [] if lower else ['--cased']
    tokens = vocabulary.main([*texts, '--size', '700', '--output', str(path), *cased])
    assert path.read_text(encoding='utf8') == ''.join(f'{token}\n' for token in tokens)
    assert len(tokens) == 700
    return lower, path


def test_others_read_the_same_ids(trained):
    """The tokenizer that the library builds from such a file, with BERT's rules of its own."""
    from tokenizers import BertWordPieceTokenizer

    lower, path = trained
    vocab = load_vocab(path)
    assert vocab.idx_to_token[:5] == ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    assert has_capitals(vocab) is not lower
    texts = [*SAMPLE.read_text(encoding='utf8').split('\n')[:200], *TEXTS]
    ours = [ids.tolist() for ids in tokenize(build_tokenizer(vocab, lower), texts)]
    theirs = BertWordPieceTokenizer(str(path), lowercase=lower)
    assert ours == [theirs.encode(text, add_special_tokens=False).ids for text in texts]
    assert [vocab['[UNK]'] in ids for ids in ours[-4:]] == [False, False, True, False]
    assert sum(map(len, ours[:-4])) > 2000 and not any(vocab['[UNK]'] in ids for ids in ours[:-4])


def test_transformers_reads_the_same_ids(trained):
    transformers = pytest.importorskip('transformers')
    lower, path = trained
    theirs = transformers.BertTokenizer(str(path), do_lower_case=lower)
    texts = [*SAMPLE.read_text(encoding='utf8').split('\n')[:200], *TEXTS]
    ours = tokenize(build_tokenizer(load_vocab(path), lower), texts)
    for text, ids in zip(texts, ours):
        assert theirs.encode(text, add_special_tokens=False) == ids.tolist()


def test_log_lines(tmp_path):
    path, count = tmp_path / 'vocab.txt', 5 + 2 * 8 + 9
    # A pair is joined for each letter after the first: of low; of lower, beyond low; of newest.
    (tmp_path / 'text').write_text('low lower low newest ' * 3 + 'Low\n' + 'x' * 201)
    status, lines = run(tmp_path / 'text', '--output', path, '--size', '100')
    assert status == 0
    assert lines.splitlines() == [
        'INFO:root:input files: 1, 0.0 MB',
        'INFO:root:14 words, 3 distinct',
        f'WARNING:root:the text yields only {count} of the 100 tokens',
        f'INFO:root:wrote {path}: {count} tokens; of the words 92.9% stay whole and '
        '7.14% become [UNK], 1.00 tokens a word',
    ]
    assert sorted(os.listdir(tmp_path)) == ['text', 'vocab.txt']


def refused(*arguments):
    """Return the sentence, and whether it is about the usage."""
    with pytest.raises(UsageError) as caught:
        vocabulary.main(list(map(str, arguments)))
    return str(caught.value)


def test_refused_flags(tmp_path):
    assert refused(SAMPLE, '--size', 5) == (
        '--size 5 leaves no room beside the 5 special tokens: at least 6 are needed'
    )
    assert refused(SAMPLE, '--output', tmp_path) == f'--output {tmp_path} is a folder, not a file'
    path = tmp_path / 'missing' / 'vocab.txt'
    assert refused(SAMPLE, '--output', path) == f'--output {path}: there is no such folder'
    text = tmp_path / 'text.txt'
    text.write_text('some words')
    link = tmp_path / 'link.txt'
    link.symlink_to(text)
    assert refused(f'{tmp_path}/te*', '--output', link) == f'--output {link} is one of the texts'
    assert text.read_text() == 'some words'


def test_the_smallest_size(tmp_path):
    (tmp_path / 'text').write_text('a')
    path = tmp_path / 'vocab.txt'
    assert vocabulary.main([str(tmp_path / 'text'), '--size', '6', '--output', str(path)])[5:] == [
        'a'
    ]


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (b'one\ntwo \x80\n', 'text:2: not valid UTF-8'),
        (b'eins\nf\xc3\xbcnf\n' * 20 + b'a \xed\xa0\x80', 'text:41: not valid UTF-8'),
        (b'\n\n \n', 'text: no words to make a vocabulary from'),
    ],
)
def test_bad_text_leaves_an_earlier_file_as_it_is(tmp_path, content, sentence):
    (tmp_path / 'text').write_bytes(content)
    path = tmp_path / 'vocab.txt'
    path.write_text('an earlier file')
    status, lines = run(tmp_path / 'text', '--output', path)
    assert (status, lines.splitlines()[-1]) == (
        1,
        f'vocabulary.py: error: {tmp_path}/{sentence}',
    )
    assert path.read_text() == 'an earlier file'
    assert failure(vocabulary.main, [f'{tmp_path}/none*']) == f'{tmp_path}/none*: no file matches'


def test_files_of_any_kind_give_the_same_bytes(tmp_path, monkeypatch):
    """With a byte-order mark, other line ends, no last one, or cut into several files."""
    lines = SAMPLE.read_text(encoding='utf8').split('\n')[:60]
    whole = '\n'.join(lines)
    kinds = {
        'whole': [whole],
        'mark': ['\ufeff' + whole],
        'carriage': ['\r\n'.join(lines)],
        'old': ['\r'.join(lines)],
        'several': ['\n'.join(lines[:9]), '', '\n'.join(lines[9:])],
        'one': [whole.replace('\n', ' ')],
    }
    monkeypatch.setattr(files, 'CHUNK_BYTES', 100)
    made = set()
    for name, texts in kinds.items():
        for i, text in enumerate(texts):
            (tmp_path / f'{name}{i}').write_bytes(text.encode())
        vocabulary.main([f'{tmp_path}/{name}*', '--size=300', f'--output={tmp_path}/vocab.txt'])
        made.add((tmp_path / 'vocab.txt').read_bytes())
    assert len(made) == 1


def test_an_interrupt_while_the_library_is_at_work(tmp_path, monkeypatch):
    """It does not wait for the library, which may take a minute."""

    def wait(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    def interrupt(signum, frame):
        raise Interrupted(signum)

    monkeypatch.setattr(vocabulary_training, 'GRACE', 0.01)
    before = signal.signal(signal.SIGTERM, interrupt)
    since = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            vocabulary_training._in_thread(wait, [])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - since < 20


def test_an_interrupt_while_the_library_reads(tmp_path):
    """Its next text ends it, as it must not call Python any more once that ends."""
    taken = []

    def read(texts):
        for text in texts:
            taken.append(text)
            if len(taken) == 3:
                raise MemoryError

    with pytest.raises(MemoryError):
        vocabulary_training._in_thread(read, 'abcdef')
    assert taken == ['a', 'b', 'c']


def test_an_interrupted_command(tmp_path):
    """It comes in the midst of counting, which takes a second."""
    text = tmp_path / 'text'
    with open(text, 'w') as file:
        for number in range(200000):
            file.write(f'{number:x} and {number * 7919:x} words\n')
    path = tmp_path / 'vocab.txt'
    path.write_text('an earlier file')
    process = subprocess.Popen(
        command(text, '--output', path), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr.readline() == 'INFO:root:input files: 1, 4.9 MB\n'
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert process.stderr.read() == 'vocabulary.py: error: stopped by SIGTERM\n'
    process.stderr.close()
    assert path.read_text() == 'an earlier file'
    assert sorted(os.listdir(tmp_path)) == ['text', 'vocab.txt']
