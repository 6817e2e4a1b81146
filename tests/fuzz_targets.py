"""The readers of untrusted files: for each, files to start from and a check of its results.

A reader keeps its contract if it returns a valid value or raises a sentence that names the file,
and if nothing is written outside the folder. Everything else is a crash.
"""

import contextlib
import functools
import io
import json
import os
import random
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Callable, NamedTuple

import fuzz_mutations as mutations
import numpy as np
from conftest import ROOT

import bert  # noqa: F401 (prepares for MXNet)
from bert.checkpoints import cards, config, download, gluon, huggingface, reading, sentences
from bert.checkpoints.contents import Location
from bert.checkpoints.source import locate
from bert.pretraining import batches, corpus, sources
from bert.pretraining import files as text_files
from bert.pretraining.shards import write_npz
from bert.report import logs
from bert.system.errors import ToolkitError
from bert.system.files import read_json
from bert.tasks import files, rows, submission
from bert.tasks.table import TASKS, Split, Task
from bert.text import sentencepiece
from bert.text.tokenizer import build_tokenizer, tokenize
from bert.text.vocab import Vocab, fingerprint, has_capitals, load_vocab
from bert.training import folder, states, update

CHECKPOINTS = ROOT / 'tests' / 'data' / 'checkpoints'


class Target(NamedTuple):
    """A reader and its files."""

    file: str  # the name of the file, in a separate folder
    seeds: Callable  # () -> list of bytes
    mutate: Callable  # (bytes, random.Random) -> bytes
    read: Callable  # reads the file at a path, and asserts that the value is valid
    prepare: Callable = lambda inside: None  # writes the files that must be beside it
    needs: str = ''  # a package


class Sandbox:
    """A folder in which a target reads one file after another."""

    def __init__(self, target, folder):
        self.target = target
        self.outside = Path(folder)
        self.inside = self.outside / 'inside'
        self.inside.mkdir()
        target.prepare(self.inside)
        self.allowed = {path.name for path in self.inside.iterdir()} | {'out', target.file}

    def run(self, data):
        """Let the target read a file.

        Returns
        -------
        str or None
            The sentence of the refusal.
        """
        path = self.inside / self.target.file
        path.write_bytes(data)
        refusal = None
        try:
            self.target.read(path)
        except OSError as error:
            # bert.cli.program.run turns it into a sentence.
            assert error.filename, error
            refusal = error.strerror
        except ToolkitError as error:
            refusal = str(error)
            assert refusal.isprintable() and len(refusal) < 2100, repr(refusal)
            assert str(self.inside) in refusal, f'{refusal!r} does not name the file'
        assert os.listdir(self.outside) == ['inside'], os.listdir(self.outside)
        found = {path.name for path in self.inside.iterdir()}
        assert found <= self.allowed, found - self.allowed
        return refusal


def mutate(target, data, rng):
    """Return a file that differs from ``data`` in one to four places."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = target.mutate(data, rng)
    return data


# --- texts


GLUE_ROWS = {
    'MRPC': 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\tA b.\tA c.\n0\t4\t5\td "e\tf\n',
    'CoLA': 'gj04\t1\t\tA b.\ngj04\t0\t*\tThe c é.\r\n',
    'STS-B': 'index\tg\tf\ty\to\ts1\ts2\tsentence1\tsentence2\tscore\n'
    '0\tm\tM\t2\t1\tn\tn\tA p.\tAn a.\t5.000\n1\tm\tM\t2\t1\tn\tn\tA q.\tA b.\t3.8\n',
}


def glue_target(name):
    task = TASKS[name]

    def read(path):
        examples = files.read_glue(path.parents[1], task, task.train)
        check_examples(examples, task)

    def in_folder(path):
        (path.parent / name).mkdir(exist_ok=True)
        shutil.copyfile(path, path.parent / name / 'train.tsv')
        read(path.parent / name / 'train.tsv')

    return Target(
        'file.tsv',
        lambda: [GLUE_ROWS[name].encode()],
        mutations.text,
        in_folder,
        lambda inside: (inside / name).mkdir(),
    )


def check_examples(examples, task):
    assert len(examples.texts) == len(examples.labels) > 0
    for row in examples.texts:
        assert len(row) == len(task.train.text_columns)
        for cell in row:
            cell.encode('utf8')
    if task.labels is None:
        assert examples.labels.dtype == np.float32 and np.isfinite(examples.labels).all()
    elif task.is_multilabel:
        assert examples.labels.shape == (len(examples.texts), len(task.labels))
        assert set(np.unique(examples.labels)) <= {0, 1}
    else:
        assert examples.labels.dtype == np.int32
        assert ((examples.labels >= 0) & (examples.labels < len(task.labels))).all()


OWN_ROWS = {
    '.tsv': ['text\tlabel\tmore\nA b.\tyes\t1\nc "d\tno\t2\n'],
    '.csv': ['text,label,more\n"A, b.",yes,1\nc d,no,"2\n3"\n'],
    '.jsonl': [
        '{"text": "A b.", "label": "yes", "more": 1}\n'
        '{"text": "c \\u00e9 \\ud83d\\ude00", "label": "no", "more": [2.5]}\n',
        '{"text": "A b.", "label": ["yes", "no"]}\n{"text": "c", "label": []}\n',
    ],
}


def own_target(suffix):
    def read(path):
        labels, is_multilabel = files.find_labels(path, 'label')
        split = Split(str(path), ('text',), 'label')
        for known in [labels] if is_multilabel else [labels, None]:
            task = Task('own', split, (), (), known, is_multilabel=is_multilabel)
            with numbers_may_be_missing(known):
                check_examples(files.read_own(task, split), task)
        table = rows.read_table(path, whole=True)
        out = path.parent / f'out{suffix}'
        rows.write_rows(out, table.original, [{'prediction': 'yes'}] * len(table.rows))
        written = [row.cells for row in rows.read_rows(out)]
        assert written == [{**row.cells, 'prediction': 'yes'} for row in table.rows]

    @contextlib.contextmanager
    def numbers_may_be_missing(known):
        try:
            yield
        except ToolkitError as error:
            if known is not None or not str(error).endswith('is not a number'):
                raise

    def prepare(inside):
        (inside / f'out{suffix}').touch()

    return Target(
        f'own{suffix}',
        lambda: [rows.encode() for rows in OWN_ROWS[suffix]],
        mutations.text,
        read,
        prepare,
    )


def read_corpus(path):
    tokenizer = build_tokenizer(vocabulary(), lower=True)
    spans = [text_files.Span(str(path), 0, path.stat().st_size)]
    found = corpus.read_corpus(spans, lambda texts: tokenize(tokenizer, texts), len(vocabulary()))
    assert found.documents[-1] == len(found.sentences) - 1
    assert found.sentences[-1] == len(found.ids) and found.ids.max() < len(vocabulary())


LOG = """INFO:root:Namespace(accumulate=None, batch_size=32, gpu=True, lr=2e-05, task_name='MRPC')
INFO:root:[Epoch 1 Batch 10/119] loss=0.6271, lr=0.0000059, metrics=accuracy:0.6937,f1:0.7
INFO:root:On MNLI Matched
INFO:root:validation metrics:accuracy:0.8309,f1:nan
INFO:root:Time cost=53.4s
INFO:root:[Epoch 2 Batch 20/119] loss=nan, lr=2e-5, metrics:accuracy:0.6937
INFO:root:validation metrics (matched):accuracy:0.88
INFO:root:Now we are doing evaluation on dev_mismatched with gpu(0).
INFO:root:Time cost=52.3s
"""


def read_log(path):
    log = logs.read_log(path)
    assert all(isinstance(name, str) for name in log.flags)
    logs.dev_curves(log)
    logs.training_curve(log, 'accuracy')
    positions, losses = logs.loss_curve(log)
    assert len(positions) == len(losses) == len(log.training)
    logs.differing_flags(log, logs.parse_log(LOG))
    rows = logs.compare_lines(log, logs.parse_log(LOG))
    assert all(isinstance(cell, str) for row in rows for cell in row.values())


# --- vocabularies


@functools.lru_cache(maxsize=None)
def vocabulary():
    tokens = (CHECKPOINTS / 'hf_masked_lm' / 'vocab.txt').read_text().split()
    return Vocab(tokens)


def gluon_vocabularies():
    new = (CHECKPOINTS / 'gluon_masked_lm' / 'tiny.vocab').read_bytes()
    table = json.loads(new)
    # The format of 2018 has the special tokens at the top.
    old = {**table, **table.pop('identifiers_to_tokens', {}), 'identifiers_to_tokens': {}}
    return [new, json.dumps(old).encode()]


def read_vocab(path):
    check_vocab(load_vocab(path))


def check_vocab(vocab):
    assert all(isinstance(token, str) for token in vocab.idx_to_token)
    assert [vocab[token] for token in vocab.idx_to_token] == list(range(len(vocab)))
    fingerprint(vocab)
    has_capitals(vocab)
    tokenizer = build_tokenizer(vocab, lower=True)
    (ids,) = tokenize(tokenizer, ['The bank, said \x00 é.'])
    assert ((ids >= 0) & (ids < len(vocab))).all()


@functools.lru_cache(maxsize=None)
def sentencepiece_models():
    """Train a unigram, a BPE and a byte-fallback model."""
    import sentencepiece

    rng = random.Random(0)
    words = [''.join(rng.choices('aabcdeé', k=rng.randint(2, 8))) for _ in range(100)]
    lines = [' '.join(rng.choices(words, k=9)) for _ in range(200)]
    models = []
    for options in ({}, {'model_type': 'bpe'}, {'byte_fallback': True, 'pad_id': 3}):
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=out, vocab_size=320,
            hard_vocab_limit=False, minloglevel=2, **options,
        )  # fmt: skip
        models.append(out.getvalue())
    return models


def read_sentencepiece(path):
    vocab = sentencepiece.load_sentencepiece_vocab(path)
    assert [vocab[token] for token in vocab.idx_to_token] == list(range(len(vocab)))
    fingerprint(vocab)
    for num_best in (0, 3, -1):
        rng = np.random.default_rng(0)
        try:
            encode = sentencepiece.sentencepiece_encoder(path, True, num_best, 0.5, rng)
        except ToolkitError as error:
            if 'can only be sampled' not in str(error):
                raise
            continue
        for ids in encode(['a bad bed é', 'x']):
            assert all(0 <= i < len(vocab) for i in ids)


def read_vocab_archive(path):
    """Unpack the archive of a vocabulary."""
    with open(path, 'rb') as file:
        content = b''.join(download.read_member(file, 'x.vocab', 64 * 2**20, path))
    assert isinstance(content, bytes)


# --- arrays


def make_shard(path, vocab):
    """Write a shard of three instances."""
    rng = np.random.default_rng(0)
    lengths = np.array([12, 9, 5])
    inside = np.arange(12) < lengths[:, None]
    block = {
        'input_ids': (rng.integers(5, len(vocab), (3, 12)) * inside).astype(np.uint8),
        'segment_ids': ((np.arange(12) > 3) & inside).astype(np.uint8),
        'masked_lm_positions': np.array([[1, 5], [2, 0], [3, 4]], np.uint8),
        'masked_lm_ids': np.array([[5, 6], [7, 0], [8, 9]], np.uint8),
        'masked_lm_weights': np.array([[1, 1], [1, 0], [1, 1]], np.uint8),
        'next_sentence_labels': np.array([0, 1, 0], np.uint8),
        'valid_lengths': lengths.astype(np.uint8),
    }
    write_npz(path, [block], {'lower': True}, vocab)


def written(name, write):
    """Return the bytes of a file that ``write(path)`` writes, ``name`` in a temporary folder."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        write(path)
        return path.read_bytes()


def shards():
    tokens = vocabulary().idx_to_token
    vocabularies = vocabulary(), Vocab([*tokens[:5], *reversed(tokens[5:])])
    return [written('shard.npz', functools.partial(make_shard, vocab=v)) for v in vocabularies]


def read_shards(path):
    source = sources.Shards(str(path), vocabulary(), 12)
    (unit,) = source.units(0, 0, 2)
    arrays = unit.load()
    count = source.count
    assert count == len(arrays['input_ids'])
    assert arrays['input_ids'].max() < len(vocabulary())
    assert arrays['masked_lm_ids'].max() < len(vocabulary())
    batch = batches.make_batch(arrays, np.arange(count))
    width = batch.ids.shape[1]
    assert batch.valid_lengths.min() >= 1 and batch.valid_lengths.max() == width
    assert batch.mlm_positions.min() >= 0 and batch.mlm_positions.max() < width
    for array in (batch.token_types, batch.mlm_weights, batch.nsp_labels):
        assert set(np.unique(array)) <= {0, 1}


@functools.lru_cache(maxsize=None)
def training():
    """Return a tiny model and its trainer."""
    import mxnet as mx

    net = mx.gluon.nn.Dense(2, in_units=3)
    net.initialize()
    trainer = update.build_trainer(net, 'bertadam', 0.1, 1e-6)
    with mx.autograd.record():
        loss = net(mx.nd.ones((1, 3))).sum()
    loss.backward()
    trainer.step(1)
    return net, trainer


def write_state(inside):
    states.save(inside, 1, *training(), {'position': [0, 0, 1]}, 1)


def read_state(path):
    progress = states.load(path.parent, 1, *training())
    assert isinstance(progress, dict)
    assert states.newest(path.parent) == (1, progress)


# --- weights


def checkpoint_files(name):
    return [path.read_bytes() for path in sorted(CHECKPOINTS.glob(f'*/{name}'))]


def model_folder(name):
    """Return a function that copies all files of a golden model but its weights to a folder."""

    def prepare(inside):
        for path in (CHECKPOINTS / name).iterdir():
            if path.suffix in ('.json', '.txt', '.vocab') or 'data-' in path.name:
                shutil.copyfile(path, inside / path.name)

    return prepare


def read_whole(path):
    """Read the whole model to which the file belongs."""
    size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
    contents = reading.read(locate(str(path.parent)))
    arrays = [*contents.weights.bert.values(), *contents.weights.head.values()]
    assert all(isinstance(array, np.ndarray) for array in arrays)
    assert sum(array.nbytes for array in arrays) <= 4 * size
    check_vocab(contents.vocab)
    assert contents.labels is None or all(isinstance(label, str) for label in contents.labels)
    json.dumps([contents.settings, contents.flags, contents.labels])


def bfloat16_model():
    """Return a safetensors file with two-byte types."""
    header = {
        'embeddings.LayerNorm.weight': {'dtype': 'BF16', 'shape': [4], 'data_offsets': [0, 8]},
        'embeddings.LayerNorm.bias': {'dtype': 'F16', 'shape': [2, 2], 'data_offsets': [8, 16]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + bytes(range(16))


def read_gluon(path):
    parameters = gluon.read_gluon(path)
    assert parameters and all(isinstance(name, str) for name in parameters)
    assert sum(array.nbytes for array in parameters.values()) <= path.stat().st_size
    gluon.split_gluon(parameters)
    with contextlib.suppress(ToolkitError):
        settings = config.infer_settings(parameters, path)
        assert all(0 < settings[name] < 2**31 for name in config.SIZES.values())


def shard_index():
    path = CHECKPOINTS / 'hf_sharded' / 'model.safetensors.index.json'
    return [path.read_bytes()]


def sharded_folder(inside):
    for path in (CHECKPOINTS / 'hf_sharded').iterdir():
        shutil.copyfile(path, inside / path.name)


# --- descriptions


def read_configuration(path):
    content = read_json(path)
    config.architecture_of(content)
    settings = config.parse_config(content, path)
    assert set(config.SIZES.values()) <= set(settings)
    labels = config.parse_labels(content, path)
    assert labels is None or all(isinstance(label, str) for label in labels)
    finetuned = reading.read_finetuned(path.parent)
    several = config.is_multilabel(content)
    assert not several or labels
    expected = {'flags': {}, 'labels': labels, 'is_multilabel': several}
    assert finetuned is None or finetuned == expected


def read_casing(path):
    location = Location(path.parent, None, path.parent / 'vocab.txt')
    lower, _ = reading.read_casing(location, vocabulary())
    assert isinstance(lower, bool)


def tokenizers():
    """Return tokenizer.json as this project writes it."""

    def write(path):
        huggingface.write_tokenizer(path.parent, vocabulary(), True, 24)

    return [written('tokenizer.json', write)]


def read_tokenizer(path):
    location = Location(path.parent, None, path)
    check_vocab(reading.read_vocab(location))
    reading.read_casing(location, vocabulary())


FINETUNED = {'flags': {'task_name': 'MRPC', 'max_len': 128}, 'labels': ['0', '1'], 'epochs': [0.5]}


def read_finetuned(path):
    content = reading.read_finetune_json(path.parent)
    assert content['parameters'].parent == path.parent
    assert isinstance(content['flags'], dict)


MODULES = [
    {'path': path, 'type': f'sentence_transformers.models.{kind}'}
    for path, kind in (('', 'Transformer'), ('1_Pooling', 'Pooling'), ('2_Normalize', 'Normalize'))
]


def make_pooling(inside):
    (inside / '1_Pooling').mkdir()
    content = {'pooling_mode_cls_token': False, 'pooling_mode_mean_tokens': True}
    (inside / '1_Pooling' / 'config.json').write_text(json.dumps(content))


def read_modules(path):
    kind, normalized = sentences.read_sentence_vector(path.parent)
    assert kind == 'mean' and isinstance(normalized, bool)
    assert sentences.read_max_len(path.parent) is None


METRICS = '{"step": 1, "mlm_loss": 0.5}\n{"step": 2, "eval": {}}\n{"step": 3}\n'


def read_metrics(path):
    data, size = path.read_bytes(), folder.size_up_to(path, 2)
    assert 0 <= size <= len(data)
    assert not any(json.loads(line)['step'] > 2 for line in data[:size].splitlines())


# --- archives


def archive(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


def glue_archives():
    names = ('train.tsv', 'dev.tsv', 'test.tsv')
    return [
        archive({**{f'{top}{name}': 'a\tb\n' for name in names}, '__MACOSX/._x': 'x'})
        for top in ('', 'CoLA/', 'a/b/')
    ]


def unpack(path):
    import download_glue_data

    out = path.parent / 'out'
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    names = ('train.tsv', 'dev.tsv', 'test.tsv')
    try:
        download_glue_data.unpack({path.name: path}, out, names)
    except download_glue_data.Failure as error:
        raise ToolkitError(f'{path.parent}: {error}') from None
    except OSError as error:
        raise ToolkitError(f'{path.parent}: {error.strerror}') from None
    found = [file for file in out.rglob('*') if not file.is_dir()]
    assert {out / name for name in names} <= set(found)
    assert all(file.is_file() and not file.is_symlink() for file in found)
    assert sum(file.stat().st_size for file in found) <= 20 * path.stat().st_size


RECORD = {'downloads': [], 'files': {'train.tsv': {'size': 1, 'sha256': '0'}}}


def read_record(path):
    import download_glue_data

    try:
        download_glue_data.is_complete(path.parent, download_glue_data.TASKS['CoLA'])
    except download_glue_data.Failure as error:
        raise ToolkitError(str(error)) from None


def submissions():
    """Return short submissions, so that mutations hit the rows that are checked."""
    short = {name: submission.HEADER + '\n0\t1\n1\t0.5\n' for name in submission.FILES}
    return [archive(short), archive({'out/' + name: text for name, text in short.items()})]


def check_submission(path):
    for defect in submission.check(path):
        assert len(defect) < 70000 and '\n' not in defect


def make_out(inside):
    (inside / 'out').mkdir()


def of_file(path, names):
    return [(path / name).read_bytes() for name in names]


def model_cards():
    """Make the card of a model with all that there can be, and that of a stranger."""
    from huggingface_hub import EvalResult

    result = EvalResult('a', 'b/c', 'd', 'accuracy', 0.5, dataset_config='e', dataset_split='f')
    facts = {'Flags': {'lr': 5e-05, 'labels': ['a', 'b'], 'regression': True}}
    card = cards.Card('x', 'own/bert', ('own/data',), ('en',), 'mit', (result,), facts)
    theirs = '---\nlicense: [mit, 1]\nlanguage:\n  en: 0x1f\ndate: 2020-01-01\n---\n# A model\n'
    return [cards.format_card(card, cards.CLASSIFICATION, 'hf').encode(), theirs.encode()]


def read_model_card(path):
    card = cards.read_card(path.parent)
    if card:
        text = cards.format_card(card, cards.MASKED, 'gluon')
        path.write_text(text, encoding='utf8')
        again = cards.read_card(path.parent)
        assert cards.format_card(again, cards.MASKED, 'gluon') == text
        assert '\x1b' not in text


TARGETS = {
    'GLUE MRPC': glue_target('MRPC'),
    'GLUE CoLA': glue_target('CoLA'),
    'GLUE STS-B': glue_target('STS-B'),
    'own .tsv': own_target('.tsv'),
    'own .csv': own_target('.csv'),
    'own .jsonl': own_target('.jsonl'),
    'corpus': Target(
        'corpus.txt',
        lambda: ['The bank said.\n\nNo man, said it\r\nWhy é.\n'.encode()],
        mutations.text,
        read_corpus,
    ),
    'log': Target('finetune.log', lambda: [LOG.encode()], mutations.text, read_log),
    'published curves': Target(
        'curves.json',
        lambda: of_file(
            ROOT / 'bert' / 'experiments' / 'published' / '2019-01', ['RTE.json', 'MNLI.json']
        ),
        mutations.json_tree,
        read_log,
    ),
    'vocab.txt': Target(
        'vocab.txt', lambda: checkpoint_files('vocab.txt')[:1], mutations.text, read_vocab
    ),
    'Gluon .vocab': Target('x.vocab', gluon_vocabularies, mutations.json_tree, read_vocab),
    'tokenizer.json': Target('tokenizer.json', tokenizers, mutations.json_tree, read_tokenizer),
    'zoo vocabulary .zip': Target(
        'x.zip',
        lambda: [archive({'x.vocab': gluon_vocabularies()[0]})],
        mutations.zipped,
        read_vocab_archive,
    ),
    'sentencepiece': Target(
        'sp.model',
        sentencepiece_models,
        mutations.protobuf,
        read_sentencepiece,
        needs='sentencepiece',
    ),
    'shard .npz': Target('shard.npz', shards, mutations.zipped, read_shards),
    'checkpoint .states': Target(
        '0000001.states',
        lambda: [written('0000001.states', lambda path: write_state(path.parent))],
        mutations.zipped,
        read_state,
        write_state,
    ),
    'safetensors': Target(
        'model.safetensors',
        lambda: [*checkpoint_files('model.safetensors'), bfloat16_model()],
        mutations.safetensors,
        read_whole,
        model_folder('hf_classifier'),
    ),
    'safetensors index': Target(
        'model.safetensors.index.json', shard_index, mutations.json_tree, read_whole, sharded_folder
    ),
    'pytorch_model.bin': Target(
        'pytorch_model.bin',
        lambda: checkpoint_files('pytorch_model.bin'),
        mutations.zipped,
        read_whole,
        model_folder('hf_2018'),
        needs='torch',
    ),
    'Gluon .params': Target(
        'model.params', lambda: checkpoint_files('tiny.params'), mutations.plain, read_gluon
    ),
    'Gluon model': Target(
        'model.params',
        lambda: checkpoint_files('tiny.params'),
        mutations.plain,
        read_whole,
        model_folder('gluon_classifier'),
    ),
    'TensorFlow index': Target(
        'bert_model.ckpt.index',
        lambda: checkpoint_files('*.ckpt.index'),
        mutations.plain,
        read_whole,
        model_folder('google'),
        needs='tensorflow',
    ),
    'config.json': Target(
        'config.json',
        lambda: checkpoint_files('config.json'),
        mutations.json_tree,
        read_configuration,
    ),
    'tokenizer_config.json': Target(
        'tokenizer_config.json',
        lambda: [b'{"do_lower_case": true}', b'{"do_lower_case": false, "x": [1]}'],
        mutations.json_tree,
        read_casing,
    ),
    'finetune.json': Target(
        'finetune.json',
        lambda: [json.dumps({**FINETUNED, 'parameters': 'model_bert_MRPC_0.params'}).encode()],
        mutations.json_tree,
        read_finetuned,
    ),
    'README.md': Target('README.md', model_cards, mutations.text, read_model_card),
    'modules.json': Target(
        'modules.json',
        lambda: [json.dumps(MODULES).encode(), json.dumps(MODULES[:2]).encode()],
        mutations.json_tree,
        read_modules,
        make_pooling,
    ),
    'metrics.jsonl': Target(
        'metrics.jsonl', lambda: [METRICS.encode()], mutations.text, read_metrics
    ),
    'GLUE .zip': Target('x.zip', glue_archives, mutations.zipped, unpack, make_out),
    'GLUE record': Target(
        '.verified.json',
        lambda: [json.dumps(RECORD).encode()],
        mutations.json_tree,
        read_record,
    ),
    'submission .zip': Target('x.zip', submissions, mutations.zipped, check_submission),
}
