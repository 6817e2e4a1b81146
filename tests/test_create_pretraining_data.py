"""create_pretraining_data.py as its users run it: files in, files out."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT, zipped

import create_pretraining_data
from bert.checkpoints import download
from bert.checkpoints.zoo import ZOO_SHA1
from bert.pretraining import files, generation
from bert.pretraining.corpus import Corpus
from bert.pretraining.files import Span
from bert.pretraining.instances import make_instances
from bert.pretraining.masking import symbols_of
from bert.pretraining.shards import ARRAYS, read_settings, read_shard
from bert.system.errors import ToolkitError, UsageError
from bert.text.sentencepiece import load_sentencepiece_vocab
from bert.text.tokenizer import build_tokenizer, tokenize
from bert.text.vocab import SPECIAL_TOKENS, fingerprint, load_vocab

SCRIPT = ROOT / 'create_pretraining_data.py'
WORDS = ['the', 'cat', 'dog', 'sat', 'ran', 'under', 'hat', 'red', 'blue', 'old', 'new', 'it']
TOKENS = [*SPECIAL_TOKENS.values(), '.', '##s', '##ly', *WORDS]
# The original's command without its file names.
PRINTED = ['--do_lower_case', '--max_seq_length', '128', '--max_predictions_per_seq', '20']
PRINTED += ['--dupe_factor', '5', '--masked_lm_prob', '0.15', '--short_seq_prob', '0.1']


def story(seed, documents=12):
    rng = random.Random(seed)
    ends = ('', 's', 'ly')
    return '\n\n'.join(
        '\n'.join(
            ' '.join(rng.choice(WORDS) + rng.choice(ends) for _ in range(rng.randint(1, 40))) + '.'
            for _ in range(rng.randint(1, 9))
        )
        for _ in range(documents)
    )


def test_number_of_workers(monkeypatch):
    """By default as many as processors, which may be fewer than the machine's."""
    monkeypatch.setattr(create_pretraining_data, 'count_processors', lambda: 3)
    choose = create_pretraining_data.choose_workers
    assert [choose(None, 8), choose(None, 2), choose(5, 8), choose(5, 2)] == [3, 2, 5, 2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a folder with vocab.txt and three texts; return its path."""
    monkeypatch.chdir(tmp_path)
    Path('vocab.txt').write_text('\n'.join(TOKENS) + '\n')
    for i in range(3):
        Path(f'text{i}.txt').write_text(story(i).capitalize())
    return tmp_path


def make(*flags, inputs='text?.txt', vocab='--vocab_file=vocab.txt', lower=True):
    """Run the script in this process."""
    return create_pretraining_data.main(
        ['--input_file', inputs, vocab, *(['--do_lower_case'] if lower else []), *flags]
    )


def unmasked(arrays):
    """Return the token ids of the instances before masking."""
    ids = arrays['input_ids'].copy()
    row, slot = np.nonzero(arrays['masked_lm_weights'])
    ids[row, arrays['masked_lm_positions'][row, slot]] = arrays['masked_lm_ids'][row, slot]
    return [line[:length] for line, length in zip(ids, arrays['valid_lengths'])]


# The original command.


def test_the_printed_command(here, capsys):
    summary = make('--output_file', 'out', *PRINTED, inputs='text0.txt', lower=False)
    assert os.listdir(here).count('out.npz') == 1
    assert sorted(os.listdir(here)) == ['out.npz', *(f'text{i}.txt' for i in range(3)), 'vocab.txt']
    arrays = read_shard('out.npz', load_vocab('vocab.txt'))
    assert arrays['input_ids'].shape == (summary['instances'], 128)
    assert arrays['masked_lm_ids'].shape == (summary['instances'], 20)
    log = capsys.readouterr().err.splitlines()
    assert log[0].startswith('INFO:root:Namespace(') and "output_file='out'" in log[0]
    assert log[-4] == f'INFO:root:wrote out.npz ({summary["instances"]} instances)'
    assert log[-3] == f'INFO:root:wrote {summary["instances"]} total instances'
    assert log[-2].startswith(f'INFO:root:instances={summary["instances"]}, mean length=')
    assert log[-1].startswith('INFO:root:Time cost=') and log[-1].endswith(' instances/s)')


def test_all_the_text_is_there_and_nothing_else(here):
    make('--output_file', 'out', *PRINTED, lower=False)
    vocab = load_vocab('vocab.txt')
    tokenizer = build_tokenizer(vocab, lower=True)
    lines = [line for i in range(3) for line in Path(f'text{i}.txt').read_text().split('\n')]
    text = ' '.join(' '.join(map(str, ids)) for ids in tokenize(tokenizer, lines))
    text = f' {text} '.replace('  ', ' ')
    pieces = set()
    for ids in unmasked(read_shard('out.npz', vocab)):
        first, second = np.flatnonzero(ids == vocab['[SEP]'])
        for segment in (ids[1:first], ids[first + 1 : second]):
            assert ' ' + ' '.join(map(str, segment)) + ' ' in text
            pieces.update(segment)
    assert pieces == set(map(int, text.split()))


def test_summary(here):
    summary = make('--output_dir', 'd', '--num_outputs', '2', *PRINTED, lower=False)
    assert summary['files'] == ['d/part-000.npz', 'd/part-001.npz']
    shards = [read_shard(path, load_vocab('vocab.txt')) for path in summary['files']]
    all_of = {name: np.concatenate([shard[name] for shard in shards]) for name in ARRAYS}
    tokens = all_of['valid_lengths'].sum(dtype=int)
    assert summary['instances'] == len(all_of['input_ids'])
    assert summary['mean_length'] == pytest.approx(tokens / len(all_of['input_ids']))
    assert summary['padding'] == pytest.approx(1 - tokens / all_of['input_ids'].size)
    assert summary['masked'] == pytest.approx(all_of['masked_lm_weights'].sum(dtype=int) / tokens)
    assert summary['random_next'] == pytest.approx(all_of['next_sentence_labels'].mean())
    assert summary['instances_per_second'] == pytest.approx(
        summary['instances'] / summary['seconds']
    )


def test_recorded_settings(here):
    summary = make('--output_dir', 'd', '--random_seed', '3', '--whole_word_mask')
    settings = read_settings('d/part-000.npz')
    assert settings.pop('vocab_fingerprint') == fingerprint(load_vocab('vocab.txt'))
    assert settings == {
        'max_seq_length': 128,
        'max_predictions_per_seq': 20,
        'masked_lm_prob': 0.15,
        'short_seq_prob': 0.1,
        'dupe_factor': 10,
        'whole_word_mask': True,
        'lower': True,
        'tokenized': False,
        'sentencepiece': False,
        'sp_nbest': 0,
        'sp_alpha': 1.0,
        'random_seed': 3,
        'output': 0,
        'instances': summary['instances'],
    }


def test_whole_words(here):
    make('--output_file', 'out', '--whole_word_mask', '--dupe_factor', '2')
    vocab = load_vocab('vocab.txt')
    arrays = read_shard('out.npz', vocab)
    for row, ids in enumerate(unmasked(arrays)):
        masked = arrays['masked_lm_positions'][row, arrays['masked_lm_weights'][row] > 0]
        for position in range(2, len(ids)):
            if vocab.idx_to_token[ids[position]].startswith('##') and ids[position - 1] > 4:
                assert (position in masked) == (position - 1 in masked)


# File names.


@pytest.mark.parametrize(
    'flags, files',
    [
        (['--output_file', 'x.npz'], ['x.npz']),
        (['--output_file', 'x.y'], ['x.y.npz']),
        (['--output_file', 'new/x'], ['new/x.npz']),
        (['--output_file', 'x.npz,new/y.npz'], ['x.npz', 'new/y.npz']),
        (['--output_file', 'x,y', '--format', 'recordio'], ['x.rec', 'y.rec']),
        (['--output_dir', 'new/d'], ['new/d/part-000.npz']),
        (['--output_dir', 'd', '--num_outputs', '3'], [f'd/part-00{i}.npz' for i in range(3)]),
        (['--output_dir', 'd', '--num_outputs', '5'], [f'd/part-00{i}.npz' for i in range(5)]),
        (['--output_file', 'x', '--format', 'recordio'], ['x.rec']),
        (['--output_dir', 'd', '--format', 'recordio'], ['d/part-000.rec']),
    ],
)
def test_names(here, flags, files):
    before = {path for path in here.rglob('*') if path.is_file()}
    summary = make(*flags, '--dupe_factor', '1')
    assert summary['files'] == files
    made = {path for path in here.rglob('*') if path.is_file()} - before
    expected = {here / name for name in files}
    assert made == expected | {p.with_suffix('.idx') for p in expected if p.suffix == '.rec'}


def test_files_that_are_named_are_the_parts_of_a_folder(here):
    """As the original's help has it: a comma-separated list of files."""
    named = contents(make('--output_file', 'x.npz,y', '--num_workers', '2'))
    parts = contents(make('--output_dir', 'd', '--num_outputs', '2'))
    assert named == parts and len(named) == 2


def test_files_of_an_earlier_run_are_pointed_out(here, capsys):
    make('--output_dir', 'd', '--num_outputs', '3', '--dupe_factor', '1')
    assert 'WARNING' not in capsys.readouterr().err
    make('--output_dir', 'd', '--dupe_factor', '1')
    assert 'd/part-001.npz: left over from an earlier run (2 files)' in capsys.readouterr().err


def test_recordio_holds_the_same_instances(here):
    pytest.importorskip('mxnet')
    from mxnet.recordio import MXIndexedRecordIO

    make('--output_file', 'x', '--format', 'recordio')
    make('--output_file', 'x')
    arrays = read_shard('x.npz', load_vocab('vocab.txt'))
    records = MXIndexedRecordIO('x.idx', 'x.rec', 'r')
    assert len(records.keys) == len(arrays['input_ids'])
    for key in (0, len(records.keys) - 1):
        record = json.loads(records.read_idx(key))
        assert all(record[name] == arrays[name][key].tolist() for name in ARRAYS[:5])


# The same bytes.


def contents(summary):
    return [Path(path).read_bytes() for path in summary['files']]


@pytest.mark.parametrize('inputs', ['text?.txt', 'text0.txt'])
def test_workers_make_no_difference(here, inputs):
    outputs = [
        contents(make('--output_dir', f'd{n}', '--num_outputs=4', f'--num_workers={n}',
                      inputs=inputs))
        for n in (1, 2, 3)
    ]  # fmt: skip
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(set(outputs[0])) == 4


def texts(summary):
    """Return the token ids of each output, which, unlike its bytes, do not contain the seed."""
    return [read_shard(path, load_vocab('vocab.txt'))['input_ids'] for path in summary['files']]


def test_the_seed_makes_a_difference(here):
    (first,), (again,), (other,) = (
        texts(make(f'--output_file=x{i}', f'--random_seed={seed}', '--dupe_factor=1'))
        for i, seed in enumerate((1, 1, 2))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_output_depends_on_its_own_inputs_only(here):
    before = contents(make('--output_dir', 'a', '--num_outputs', '3'))
    Path('text1.txt').write_text(story(99, documents=40))
    Path('text2.txt').write_text(story(98, documents=2))
    after = contents(make('--output_dir', 'b', '--num_outputs', '3'))
    assert [x == y for x, y in zip(before, after)] == [True, False, False]


def test_equal_inputs_make_different_instances(here):
    flags = ['--output_dir=d', '--num_outputs=2', '--dupe_factor=1']
    assert not np.array_equal(*texts(make(*flags, inputs='text0.txt,text0.txt')))


class Inline(Executor):
    """An executor that runs a task when it is submitted, in place of the real one."""

    def __init__(self, error=None):
        self.error, self.submitted = error, 0

    def submit(self, function, *args):
        self.submitted += 1
        # Otherwise Ctrl-C would reach a worker before it is set up.
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        future = Future()
        if self.error:
            future.set_exception(self.error)
        else:
            future.set_result(function(*args))
        return future


class Bar:
    n = 0

    def update(self, step):
        self.n += step


def plan(*flags):
    return create_pretraining_data.plan_shards(create_pretraining_data.parse_args(flags))


def test_any_executor(here):
    flags = ['--input_file=text?.txt', '--vocab_file=vocab.txt', '--output_dir=d']
    plans = plan(*flags, '--num_outputs=3')
    os.mkdir('d')
    executor, bar = Inline(), Bar()
    tallies = create_pretraining_data.submit_all(plans, executor, bar)
    assert (executor.submitted, bar.n) == (3, 300)
    assert tallies == create_pretraining_data.make_here(plans, 1, Bar())
    for error, words in (
        (BrokenProcessPool(), 'a worker process was killed'),
        (ToolkitError('so it is'), 'so it is'),
    ):
        with pytest.raises(ToolkitError, match=words):
            create_pretraining_data.submit_all(plans, Inline(error), Bar())


def test_an_output_of_much_text(here, monkeypatch):
    """It has the instances of one corpus after another, from all documents in order."""
    monkeypatch.setattr(generation, 'CORPUS_TOKENS', 800)
    monkeypatch.setattr(files, 'CHUNK_BYTES', 1000)
    flags = ['--input_file=text?.txt', '--vocab_file=vocab.txt', '--output_file=x', '--tokenized']
    (only,) = plan(*flags)
    fractions = []
    tally = generation.make_shard(only, fractions.append)
    assert fractions == sorted(fractions) and len(fractions) > 9
    assert fractions[-1] == pytest.approx(1)

    vocab = load_vocab('vocab.txt')
    rng = np.random.default_rng([12345, 0])
    blocks = []
    documents = [
        [[vocab[word] for word in line.split()] for line in document.split('\n')]
        for i in range(3)
        for document in Path(f'text{i}.txt').read_text().split('\n\n')
    ]
    for part in cut_slowly(documents, 800):
        sentences = [sentence for document in part for sentence in document]
        whole = Corpus(
            ids=np.array([token for sentence in sentences for token in sentence], np.uint8),
            sentences=np.cumsum([0, *map(len, sentences)]),
            documents=np.cumsum([0, *map(len, part)]),
        )
        blocks += make_instances(whole, only.recipe, symbols_of(vocab), rng)[1]
    assert len(blocks) > 2
    arrays = read_shard('x.npz', vocab)
    assert tally['instances'] == len(arrays['input_ids'])
    for name in ARRAYS:
        assert np.array_equal(arrays[name], np.concatenate([block[name] for block in blocks]))


def cut_slowly(documents, tokens):
    """Cut after two documents or more with ``tokens`` tokens, if at least that many follow."""
    parts, part = [], []
    for i, document in enumerate(documents):
        part.append(document)
        size = sum(len(sentence) for each in part for sentence in each)
        rest = documents[i + 1 :]
        left = sum(len(sentence) for each in rest for sentence in each)
        if size >= tokens and left >= tokens and len(part) > 1 and len(rest) > 1:
            parts.append(part)
            part = []
    return [*parts, part]


def test_an_output_that_is_no_longer_wanted(here):
    (only,) = plan('--input_file=text?.txt', '--vocab_file=vocab.txt', '--output_dir=d')
    beacon = here / 'beacon'
    beacon.touch()
    os.mkdir('d')
    generation.make_shard(only._replace(beacon=str(beacon)))
    os.unlink('d/part-000.npz')
    beacon.unlink()
    with pytest.raises(ToolkitError, match='given up'):
        generation.make_shard(only._replace(beacon=str(beacon)))
    assert os.listdir('d') == []


def test_paths_for_other_machines_are_absolute(here, monkeypatch):
    monkeypatch.setenv('HOME', '/home/somebody')
    relative = generation.ShardPlan(
        Path('d/x.npz'), 0, [Span('a.txt', 0, 9)], None,
        generation.Tokenization(True, False, '~/sp.model', 0, 1.0), (), 1, 'numpy',
    )  # fmt: skip
    moved = generation.with_absolute_paths(relative)
    assert moved.path == here / 'd/x.npz'
    assert moved.spans == [Span(f'{here}/a.txt', 0, 9)]
    assert moved.tokenization.sentencepiece == '/home/somebody/sp.model'
    without = relative._replace(tokenization=relative.tokenization._replace(sentencepiece=None))
    assert generation.with_absolute_paths(without).tokenization.sentencepiece is None


def test_leftovers_of_killed_processes(here):
    Path('d').mkdir()
    for name in (
        '.part-000.npz.abc.bert.tmp',
        '.part-001.idx.abc.bert.tmp',
        '.part-002.npz.abc.bert.tmp',
    ):
        Path('d', name).write_text('half')
    make('--output_dir=d', '--num_outputs=2', '--dupe_factor=1')
    assert sorted(os.listdir('d')) == ['.part-002.npz.abc.bert.tmp', 'part-000.npz', 'part-001.npz']


def start_slow(here):
    """Start the program with two workers, and wait until both are writing an output."""
    flags = ['--input_file=text?.txt', '--vocab_file=vocab.txt', '--output_dir=d']
    flags += ['--num_outputs=3', '--num_workers=2', '--dupe_factor=20000', '--do_lower_case']
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *flags],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and len(list(here.glob('d/.part-00*'))) < 2:
        time.sleep(0.05)
    return process


def test_a_killed_worker_process(here):
    """It is reported in one sentence, and no half-written file is left."""
    process = start_slow(here)
    os.kill(psutil.Process(process.pid).children()[0].pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'a worker process was killed' in errors.splitlines()[-1]
    assert 'Traceback' not in errors
    assert os.listdir('d') == []


def test_progress_ends_at_all(here):
    flags = ['--input_file=text?.txt', '--vocab_file=vocab.txt', '--output_dir=d']
    Path('d').mkdir()
    bar = Bar()
    create_pretraining_data.make_here(plan(*flags, '--num_outputs=2'), 1, bar)
    assert bar.n == 200


def test_an_error_in_a_worker_process_is_one_sentence(here):
    Path('text1.txt').write_bytes(b'a\n\xff\n')
    with pytest.raises(ToolkitError, match=r'^text1\.txt:2: not valid UTF-8$'):
        make('--output_dir', 'd', '--num_outputs', '3', '--num_workers', '2')


# Vocabularies.


def gluon_vocab(shape, tokens=TOKENS):
    """Return the JSON of a .vocab file, as GluonNLP wrote it in 2018 or writes it today."""
    content = {
        'idx_to_token': tokens,
        'token_to_idx': {token: i for i, token in enumerate(tokens)},
        'reserved_tokens': tokens[1:5],
        'unknown_token': '[UNK]',
    }
    specials = {k: v for k, v in SPECIAL_TOKENS.items() if k != 'unknown_token'}
    return json.dumps({**content, **(specials if shape == 2018 else
                                     {'identifiers_to_tokens': specials})})  # fmt: skip


@pytest.mark.parametrize('shape', [2018, 2020])
def test_both_shapes_of_gluon_vocabularies(here, shape):
    Path('gluon.vocab').write_text(gluon_vocab(shape))
    expected = contents(make('--output_file', 'x'))
    assert contents(make('--output_file', 'y', vocab='--vocab_file=gluon.vocab')) == expected


def test_padding_has_the_id_in_the_vocabulary(here):
    """[PAD] is 1 in vocab.txt here, and the last token of another file."""
    Path('other.txt').write_text('\n'.join([t for t in TOKENS if t != '[PAD]'] + ['[PAD]']))
    for name, number in (('vocab.txt', 1), ('other.txt', len(TOKENS) - 1)):
        make('--output_file', 'x', vocab=f'--vocab_file={name}')
        arrays = read_shard('x.npz', load_vocab(name))
        padding = np.arange(128) >= arrays['valid_lengths'][:, None]
        assert padding.any() and (arrays['input_ids'][padding] == number).all()
        assert (arrays['masked_lm_ids'][arrays['masked_lm_weights'] == 0] == number).all()


def test_a_model_with_the_tokens_in_another_order(here):
    """A shard that is read for the model equals one that was made for it."""
    Path('other.txt').write_text('\n'.join(TOKENS[:5] + TOKENS[:4:-1]))
    make('--output_file', 'x', '--masked_lm_prob', '0')
    theirs = load_vocab('other.txt')
    words = [theirs.idx_to_token[i] for i in unmasked(read_shard('x.npz', theirs))[0]]
    ours = load_vocab('vocab.txt')
    assert words == [ours.idx_to_token[i] for i in unmasked(read_shard('x.npz', ours))[0]]


def test_a_forgotten_lower_case_flag(here, capsys):
    make('--output_file', 'x', lower=False)
    assert 'is --do_lower_case missing?' in capsys.readouterr().err
    make('--output_file', 'x')
    assert 'WARNING' not in capsys.readouterr().err


def test_tokenized_text(here):
    """Tokens that are written to a file and read again give the same instances."""
    make('--output_file', 'x', inputs='text0.txt')
    vocab = load_vocab('vocab.txt')
    tokenizer = build_tokenizer(vocab, lower=True)
    lines = Path('text0.txt').read_text().split('\n')
    Path('tokens.txt').write_text(
        '\n'.join(
            ' '.join(vocab.idx_to_token[i] for i in ids) for ids in tokenize(tokenizer, lines)
        )
    )
    make('--output_file', 'y', '--tokenized', inputs='tokens.txt', lower=False)
    first, second = (read_shard(name, vocab) for name in ('x.npz', 'y.npz'))
    assert all((first[name] == second[name]).all() for name in ARRAYS)
    assert read_settings('y.npz')['tokenized']


# Plain text.


def write_plain(name, number):
    """Write a story as sentences on lines, and as wrapped paragraphs with markers."""
    stories = [
        [f'{line[:-1].capitalize()} e.g. by Dr. {i}.' for i, line in enumerate(text.split('\n'))]
        for text in story(number).split('\n\n')
    ]
    Path(f'lines-{name}').write_text('\n\n'.join('\n'.join(lines) for lines in stories))
    paragraphs = [[' '.join(lines[:3]), ' '.join(lines[3:])] for lines in stories]
    Path(f'plain-{name}').write_text(
        '\n###\n'.join('\n\n'.join(map(textwrap.fill, parts)) for parts in paragraphs)
    )


PLAIN = ['--segment', '--document_marker=###']


@pytest.mark.parametrize('kind', ['pairs', 'no_nsp', 'sentencepiece', 'recordio'])
def test_plain_text(here, request, kind):
    """It makes the same instances as its sentences on lines, with any number of workers."""
    pytest.importorskip('sentencex')
    for i in range(3):
        write_plain(f'{i}.txt', i)
    flags = {'no_nsp': ['--no_nsp'], 'recordio': ['--format=recordio']}.get(kind, [])
    vocab = (
        request.getfixturevalue('model') if kind == 'sentencepiece' else '--vocab_file=vocab.txt'
    )

    def make_from(kind, folder, outputs, workers, *more):
        where = [f'--output_dir={folder}', f'--num_outputs={outputs}', f'--num_workers={workers}']
        lower = not vocab.startswith('--sentencepiece')
        inputs = f'{kind}-?.txt'
        return make(*where, *flags, *more, inputs=inputs, vocab=vocab, lower=lower)['files']

    one, three = (make_from('plain', f'd{n}', 7, n, *PLAIN) for n in (1, 3))
    assert [Path(p).read_bytes() for p in one] == [Path(p).read_bytes() for p in three]
    plain, lines = make_from('plain', 'p', 3, 1, *PLAIN), make_from('lines', 'l', 3, 1)
    for paths in zip(plain, lines):
        if kind == 'recordio':
            assert len({Path(path).read_bytes() for path in paths}) == 1
            continue
        first, second = map(np.load, paths)
        assert all((first[name] == second[name]).all() for name in ARRAYS)
        of_plain, of_lines = map(read_settings, paths)
        version = metadata.version('sentencex')
        added = {'segment': f'sentencex {version}', 'document_marker': '###'}
        assert of_plain == {**of_lines, **added}


def test_plain_text_that_cannot_be_read(here, monkeypatch):
    pytest.importorskip('sentencex')
    Path('binary.txt').write_bytes(b'Some text.\n\x7fELF\xff\x00\n')
    Path('endless.txt').write_text('Some text.\n' + 'x' * 10**5 + '\nMore.\n')
    monkeypatch.setattr(files, 'CHUNK_BYTES', 10)
    monkeypatch.setattr(files, 'LONGEST_LINE', 10**4)
    for name, words in (
        ('binary', r'binary.txt:2: not valid'),
        ('endless', 'endless.txt:2: a line'),
    ):
        with pytest.raises(ToolkitError, match=words):
            make('--output_file=x', '--segment', '--no_nsp', inputs=f'{name}.txt')
    assert not list(here.glob('*x.npz*'))


def test_segmenting_without_its_library(here, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sentencex', None)
    with pytest.raises(ToolkitError, match=r"'\.\[segment\]'"):
        make('--output_file=x', '--segment')


# Sentencepiece.


@pytest.fixture
def model(here):
    sentencepiece = pytest.importorskip('sentencepiece')
    sentencepiece.SentencePieceTrainer.train(
        input='text0.txt,text1.txt,text2.txt',
        model_prefix='sp',
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return '--sentencepiece=sp.model'


def test_sentencepiece(here, model):
    make('--output_file', 'x', '--whole_word_mask', vocab=model, lower=False)
    vocab = load_sentencepiece_vocab('sp.model')
    arrays = read_shard('x.npz', vocab)
    for row, ids in enumerate(unmasked(arrays)):
        masked = arrays['masked_lm_positions'][row, arrays['masked_lm_weights'][row] > 0]
        tokens = [vocab.idx_to_token[i] for i in ids]
        assert (tokens[0], tokens[-1]) == ('[CLS]', '[SEP]')
        for position in range(2, len(ids)):
            inside = tokens[position][0] not in '\u2581[' and tokens[position - 1][0] != '['
            if inside:
                assert (position in masked) == (position - 1 in masked)


def test_sentencepiece_case(here, model):
    """Text is lower-cased without --cased; with it, upper-case text has different pieces."""
    Path('upper.txt').write_text(Path('text0.txt').read_text().upper())
    lower, upper = (
        make('--output_file', 'x', inputs=name, vocab=model, lower=False)
        for name in ('text0.txt', 'upper.txt')
    )
    cased = make('--output_file', 'x', '--cased', inputs='upper.txt', vocab=model, lower=False)
    assert lower['mean_length'] == upper['mean_length'] != cased['mean_length']


@pytest.mark.parametrize('num_best', [-1, 5])
def test_sentencepiece_sampling(here, model, num_best):
    """The pieces are the same in other processes and with more workers, but not the best ones."""
    flags = ['--num_outputs=2', '--dupe_factor=1', f'--sp_nbest={num_best}', '--sp_alpha=0.1']
    first = contents(make('--output_dir', 'a', *flags, '--num_workers=1', vocab=model, lower=False))
    again = contents(make('--output_dir', 'b', *flags, '--num_workers=2', vocab=model, lower=False))
    run('--output_dir', 'c', *flags, vocab=model)
    assert first == again == [Path(f'c/part-00{i}.npz').read_bytes() for i in range(2)]
    plain = make('--output_dir', 'd', *flags[:2], vocab=model, lower=False)
    assert contents(plain) != first


def test_each_occurrence_of_a_word_is_sampled(here, model):
    Path('same.txt').write_text('\n\n'.join([' '.join(WORDS)] * 30))
    flags = ['--output_file=x', '--dupe_factor=1', '--masked_lm_prob=0', '--sp_nbest=-1']
    make(*flags, '--sp_alpha=0.1', inputs='same.txt', vocab=model, lower=False)
    vocab = load_sentencepiece_vocab('sp.model')
    first = {
        tuple(ids[: list(ids).index(vocab['[SEP]'])])
        for ids in unmasked(read_shard('x.npz', vocab))
    }
    assert len(first) > 5


# The model zoo.


@pytest.fixture
def serve(zoo_server, here, monkeypatch):
    """Return a function that makes the zoo serve a vocabulary, and returns its name."""
    files, _, _ = zoo_server
    monkeypatch.setenv('HOME', str(here))
    monkeypatch.delenv('MXNET_HOME', raising=False)

    def serve(data_set, content):
        sha1 = hashlib.sha1(content).hexdigest()
        monkeypatch.setitem(ZOO_SHA1, data_set, sha1)
        name = f'{data_set}-{sha1[:8]}'
        files[f'/gluon/dataset/vocab/{name}.zip'] = zipped(f'{name}.vocab', content)
        return name

    return serve


def test_the_printed_vocabulary(zoo_server, serve, here, capsys):
    """The zoo's present file replaces the one named in the original command, which is gone."""
    _, requested, _ = zoo_server
    name = serve('book_corpus_wiki_en_uncased', gluon_vocab(2020).encode())
    printed = '~/.mxnet/models/book_corpus_wiki_en_uncased-c3e2bd00.vocab'
    command = ['--input_file', 'text0.txt', '--output_file', 'out', '--vocab_file', printed]
    create_pretraining_data.main([*command, *PRINTED])
    assert requested == [f'/gluon/dataset/vocab/{name}.zip']
    fetched = here / '.mxnet/models' / f'{name}.vocab'
    assert fetched.read_text() == gluon_vocab(2020)
    line = f"INFO:root:{here}/{printed[2:]} is missing: the zoo's current one, {fetched}, is used"
    assert line in capsys.readouterr().err
    read_shard('out.npz', load_vocab('vocab.txt'))
    # It is fetched once, and again only if it is damaged.
    create_pretraining_data.main([*command, *PRINTED])
    assert len(requested) == 1
    fetched.write_text('{"half of it')
    create_pretraining_data.main([*command, *PRINTED])
    assert len(requested) == 2
    # If the named file exists, it is used.
    old = Path(printed).expanduser()
    old.write_text(gluon_vocab(2018, [*TOKENS, 'more']))
    create_pretraining_data.main([*command, *PRINTED])
    read_shard('out.npz', load_vocab(old))
    assert len(requested) == 2


@pytest.mark.parametrize(
    'flag, data_set, lower',
    [
        ('--vocab=book_corpus_wiki_en_uncased', 'book_corpus_wiki_en_uncased', True),
        ('--dataset_name=book_corpus_wiki_en_cased', 'book_corpus_wiki_en_cased', False),
        ('--vocab=wiki_cn', 'wiki_cn_cased', False),
        ('--dataset_name=wiki_cn_cased', 'wiki_cn_cased', False),
        ('--vocab=wiki_multilingual', 'wiki_multilingual_uncased', True),
        ('--vocab=wiki_multilingual_uncased', 'wiki_multilingual_uncased', True),
    ],
)
def test_zoo_names(serve, here, monkeypatch, flag, data_set, lower):
    monkeypatch.setenv('MXNET_HOME', str(here / 'elsewhere'))
    name = serve(data_set, gluon_vocab(2018).encode())
    make('--output_file', 'x', '--dupe_factor=1', vocab=flag, lower=False)
    assert (here / 'elsewhere/models' / f'{name}.vocab').exists()
    assert read_settings('x.npz')['lower'] == lower


def test_the_vocabulary_of_an_installed_model(minilm, here):
    """Its tokenizer lower-cases, which need not be said."""
    named = make('--output_file', 'x', '--dupe_factor=1', vocab='--vocab=minilm', lower=False)
    vocab = f'--vocab_file={minilm}/vocab.txt'
    assert contents(named) == contents(make('--output_file=y', '--dupe_factor=1', vocab=vocab))


def test_zoo_trouble(zoo_server, serve, here, monkeypatch):
    monkeypatch.setattr(download, 'BACKOFF', 0)
    files, _, _ = zoo_server
    name = serve('wiki_cn_cased', gluon_vocab(2018).encode())
    address = f'/gluon/dataset/vocab/{name}.zip'
    good = files.pop(address)
    for content, words in (
        (None, 'is missing, and http://127.0.0.1.* answered 404 Not Found; '),
        (b'<html>', 'not a zip file with'),
        (good.replace(b'"the"', b'"teh"'), 'not a zip file with|not the right file'),
    ):
        if content is not None:
            files[address] = content
        with pytest.raises(ToolkitError, match=words) as error:
            make('--output_file', 'x', vocab='--vocab=wiki_cn', lower=False)
        assert '\n' not in str(error.value)
    assert list((here / '.mxnet').rglob('*.*')) == []


# Refusals.


def run(*flags, inputs='text?.txt', vocab='--vocab_file=vocab.txt'):
    """Run the script as a program."""
    command = [sys.executable, str(SCRIPT), f'--input_file={inputs}', vocab, *flags]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    'flags, words',
    [
        (['--output_file=x', '--num_outputs=2'], '--num_outputs goes with --output_dir'),
        (['--output_file=x,x.npz'], 'does not name different files'),
        (['--output_file=,'], 'does not name different files'),
        (['--output_file=x', '--max_seq_length=4'], 'at least 5'),
        (['--output_file=x', '--cased'], '--cased goes with --sentencepiece'),
        (['--output_file=x', '--sp_nbest=3'], '--sp_nbest goes with --sentencepiece'),
        (['--output_file=x', '--sp_alpha=.3'], '--sp_alpha goes with --sentencepiece'),
        (['--output_file=x', '--tokenized', '--do_lower_case'], 'drop --do_lower_case'),
        (['--output_file=x', '--tokenized', '--segment'], 'drop --segment'),
        (['--output_file=x', '--document_marker= '], "--document_marker ' ' is not a line"),
        (['--output_file=x', '--document_marker=a\nb'], 'is not a line of text'),
        (['--output_dir=x', '--scheduler=h:1', '--num_workers=2'], 'drop one of them'),
        (['--output_dir=x', '--scheduler=h:1', '--verbose'], 'drop it or --scheduler'),
    ],
)
def test_flags_that_do_not_go_together(here, flags, words):
    with pytest.raises(UsageError, match=words):
        make(*flags, lower=False)


@pytest.mark.parametrize(
    'flags, words',
    [
        (['--cased', '--tokenized'], 'drop --cased'),
        (['--sp_nbest=3', '--tokenized'], 'drop --sp_nbest'),
        (['--cased', '--do_lower_case'], 'contradict'),
    ],
)
def test_sentencepiece_flags_that_do_not_go_together(here, flags, words):
    with pytest.raises(UsageError, match=words):
        make('--output_file=x', *flags, vocab='--sentencepiece=sp.model', lower=False)


@pytest.mark.parametrize(
    'flags, words',
    [
        (['--output_file=x', '--output_dir=y'], 'not allowed with'),
        ([], 'one of the arguments --output_file --output_dir is required'),
        (['--output_file=x', '--vocab=wiki_cn'], 'not allowed with'),
        (['--output_file=x', '--masked_lm_prob=1.5'], "'1.5' is not a number"),
        (['--output_file=x', '--short_seq_prob=nan'], "'nan' is not a number"),
        (['--output_file=x', '--dupe_factor=0'], "'0' is not a whole number"),
        (['--output_file=x', '--num_workers=0'], "'0' is not a whole number"),
        (['--output_file=x', '--format=h5py'], 'invalid choice'),
        (['--output_file=x', '--scheduler=h'], "'h' is not HOST:PORT"),
        (['--output_file=x', '--scheduler=http://h:1'], 'is not HOST:PORT'),
        (['--output_file=x', '--random_seed=-1'], "'-1' is not a whole number"),
    ],
)
def test_what_the_parser_refuses(here, capsys, flags, words):
    with pytest.raises(SystemExit) as error:
        make(*flags)
    assert error.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    'inputs, flags, words',
    [
        ('none*', [], r'none\*: no file matches'),
        ('folder', [], 'folder: a directory'),
        ('empty.txt', [], 'empty.txt: no text'),
        ('text0.txt', ['--num_outputs=99'], 'text0.txt: no text for an output'),
        ('text0.txt', ['--vocab_file=none.txt'], 'none.txt: there is no such vocabulary'),
        ('text0.txt', ['--output_dir=text1.txt'], 'text1.txt: not a directory'),
        ('text0.txt', ['--output_dir=taken'], 'part-000.npz: a directory is in the way'),
    ],
)
def test_what_cannot_be_made(here, inputs, flags, words):
    Path('empty.txt').write_text('\n\n')
    Path('folder').mkdir()
    Path('taken/part-000.npz').mkdir(parents=True)
    with pytest.raises(ToolkitError, match=words):
        make('--output_dir=d', *flags, inputs=inputs)
    assert not list(here.glob('d/.*'))  # nothing half written


@pytest.mark.parametrize('workers', [1, 2])
def test_a_single_document_is_its_own_random_next(here, capsys, workers):
    """As in the originals; the warning is the only difference."""
    sentences = ['the cat sat', 'the old dog ran', 'the red hat under the blue hat']
    Path('one.txt').write_text('\n'.join(sentences * 5))
    Path('two.txt').write_text('\n'.join(sentences * 5))
    summary = make(
        '--output_dir=d', '--num_outputs=2', f'--num_workers={workers}', inputs='one.txt,two.txt'
    )
    printed = capsys.readouterr().err
    assert printed.count('only one document') == 1
    assert 'WARNING:root:one.txt (and 1 more): only one document, so random next' in printed
    vocab = load_vocab('vocab.txt')
    random_next = 0
    for path in summary['files']:
        arrays = read_shard(path, vocab)
        random_next += int(arrays['next_sentence_labels'].sum())
        for row, length in zip(unmasked(arrays), arrays['valid_lengths']):
            words = [vocab.idx_to_token[i] for i in row[:length]]
            assert words.count('[SEP]') == 2
    assert 0 < random_next < summary['instances']


@pytest.mark.parametrize('flags', [[], ['--whole_word_mask']])
def test_no_next_sentences(here, capsys, flags):
    """Every instance is a run of whole sentences; together they are the text, dupe_factor times."""
    text = [f'the {word} ran under it' for word in ('cat', 'dog', 'hat', 'old', 'new')] * 4
    Path('one.txt').write_text('\n'.join(text))
    summary = make(
        *('--output_dir=d', '--no_nsp', '--short_seq_prob=0', '--max_seq_length=14', *flags),
        inputs='one.txt',
    )
    printed = capsys.readouterr().err
    assert 'only one document' not in printed and 'random next' not in printed
    assert f'wrote {summary["instances"]} total instances' in printed
    (path,) = summary['files']
    assert read_settings(path)['no_nsp'] is True
    vocab = load_vocab('vocab.txt')
    arrays = read_shard(path, vocab)
    assert not arrays['next_sentence_labels'].any() and not arrays['segment_ids'].any()
    found = []
    for row, length in zip(unmasked(arrays), arrays['valid_lengths']):
        words = [vocab.idx_to_token[i] for i in row[:length]]
        assert words[0] == '[CLS]' and words[-1] == '[SEP]' and words.count('[SEP]') == 1
        assert length == 2 + 2 * 5  # two sentences of five tokens fit, three do not
        found.append(' '.join(words[1:-1]))
    pairs = [' '.join(text[i : i + 2]) for i in range(0, len(text), 2)]
    assert sorted(found) == sorted(pairs * (len(found) // len(pairs)))


def test_text_without_documents_makes_many_outputs(here, monkeypatch):
    """Outputs and the parts of one are cut at line ends; all text is there, dupe_factor times."""
    monkeypatch.setattr(generation, 'CORPUS_TOKENS', 200)
    monkeypatch.setattr(files, 'CHUNK_BYTES', 1000)
    text = [' '.join(WORDS[i % 5 : 3 + i % 9]) for i in range(2, 1000) if i % 9 > 4]
    Path('one.txt').write_text('\n'.join(text))
    flags = ['--output_dir=d', '--num_outputs=4', '--num_workers=1', '--no_nsp', '--dupe_factor=3']
    summary = make(*flags, inputs='one.txt')
    assert len(summary['files']) == 4
    vocab = load_vocab('vocab.txt')
    found = []
    for path in summary['files']:
        arrays = read_shard(path, vocab)
        words = [vocab.idx_to_token[i] for ids in unmasked(arrays) for i in ids[1:-1]]
        assert len(words) > 3 * 700
        found += words
    assert sorted(found) == sorted(' '.join(text * 3).split())


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_no_permission_to_write(here):
    Path('d').mkdir(mode=0o500)
    with pytest.raises(ToolkitError, match='d: no permission to write there'):
        make('--output_dir=d')


def test_a_scheduler_without_dask(here, monkeypatch):
    monkeypatch.setitem(sys.modules, 'distributed', None)
    with pytest.raises(ToolkitError, match=r"--scheduler needs more packages .*'\.\[dask\]'"):
        make('--output_dir=d', '--scheduler=[::1]:8786')


def test_short_documents_and_long_sentences(here):
    """With single sentences and an endless one, every pair is random, and short or full."""
    Path('odd.txt').write_text('cat\n\ndog\n\n' + 'the old red hat ' * 500)
    summary = make('--output_file=x', '--max_seq_length=16', inputs='odd.txt')
    arrays = read_shard('x.npz', load_vocab('vocab.txt'))
    assert summary['instances'] == 30 and summary['random_next'] == 1
    assert set(arrays['valid_lengths']) <= {5, 16}
    assert (arrays['masked_lm_weights'].sum(axis=1) > 0).all()


def test_as_a_program(here):
    done = run('--output_file=x', '--do_lower_case', '--verbose')
    assert (done.returncode, done.stdout) == (0, '')
    assert done.stderr.count('DEBUG:root:instance: [CLS] ') == 20
    for inputs, flags, status in (('none', ['--output_file=x'], 1), ('none', ['--cased'], 2)):
        done = run(*flags, inputs=inputs)
        assert (done.returncode, done.stdout) == (status, '')
        assert done.stderr.splitlines()[-1].startswith('create_pretraining_data.py: error: ')
        assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    ('number', 'status', 'sentence'),
    [
        (signal.SIGINT, 130, 'interrupted'),
        (signal.SIGTERM, 143, 'stopped by SIGTERM'),
        (signal.SIGKILL, 1, 'a worker process was killed, perhaps for lack of memory: '),
    ],
)
def test_stopped(here, number, status, sentence):
    """It ends soon, with one sentence, and leaves neither files nor processes.

    SIGINT goes to all processes, as from a terminal, SIGTERM to the main one, SIGKILL to a worker.
    """
    process = start_slow(here)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    elif number == signal.SIGTERM:
        process.send_signal(number)
    else:
        workers[-1].kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    last = errors.splitlines()[-1]
    assert last.startswith(f'create_pretraining_data.py: error: {sentence}')
    assert 'Traceback' not in errors
    psutil.wait_procs(workers, timeout=10)
    assert not [worker for worker in workers if worker.is_running()]
    if number != signal.SIGKILL:
        assert list(here.glob('d/*')) + list(here.glob('d/.*')) == []


def test_mxnet_is_not_imported(here):
    """It would more than double the memory use."""
    code = (
        'import sys; sys.argv[0] = "x"; import create_pretraining_data as script; '
        'script.main(sys.argv[1:]); print([m for m in sys.modules if m.startswith("mxnet")])'
    )
    flags = ['--input_file=text0.txt', '--output_file=x', '--vocab_file=vocab.txt']
    done = subprocess.run(
        [sys.executable, '-c', code, *flags, '--do_lower_case'],
        capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}, check=True,
    )  # fmt: skip
    assert done.stdout == '[]\n'


def test_help(capsys):
    with pytest.raises(SystemExit) as error:
        create_pretraining_data.main(['--help'])
    text = capsys.readouterr().out
    assert error.value.code == 0
    for words in ('--dupe_factor', '(default: 12345)', 'wiki_cn_cased', '--sp_alpha'):
        assert words in text
