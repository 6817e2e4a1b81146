"""Fixtures shared by the tests: real data if available, and tiny models."""

import io
import json
import logging
import os
import shutil
import signal
import string
import struct
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# A test runner in the background may ignore SIGINT, and programs inherit that; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tiny models gain nothing from threads, which wait for each other on a busy machine.
os.environ.setdefault('OMP_NUM_THREADS', '1')


def real_data(name, variable, example):
    """Return a folder of data that the project may not ship, or skip the test.

    It is beside the project, or where the environment variable points.
    """
    folder = Path(os.environ.get(variable, ROOT.parent / 'shared' / 'data' / name))
    if not (folder / example).is_file():
        pytest.skip(f'{folder} has no {example}; the variable {variable} can name another folder')
    return folder


def need_bfloat16():
    """Skip the test if the processor lacks the instructions."""
    from bert.system import machine

    if 'avx512_bf16' not in machine.processor_flags():
        pytest.skip('this processor has no bfloat16')


@pytest.fixture(scope='session')
def real_glue():
    """Return the folder of the real MRPC, CoLA and STS-B files."""
    return real_data('glue', 'REAL_GLUE_DIR', 'MRPC/train.tsv')


@pytest.fixture(scope='session')
def published_vocabularies():
    """Return the folder of ``bert-base-uncased-vocab.txt`` and its like."""
    return real_data('vocab', 'REAL_VOCABULARY_DIR', 'bert-base-uncased-vocab.txt')


@pytest.fixture(scope='session')
def real_corpus():
    """Return the validation text of WikiText-2."""
    folder = real_data('corpus', 'REAL_CORPUS', 'wikitext2-valid.txt')
    return (folder / 'wikitext2-valid.txt').read_text(encoding='utf8')


@pytest.fixture(scope='session')
def published_logs():
    """Return the folder of GluonNLP's logs of early 2019, such as ``finetuned_mrpc.log``."""
    return real_data('published', 'PUBLISHED_LOG_DIR', 'finetuned_mrpc.log')


@pytest.fixture(scope='session')
def minilm():
    """Return the folder of a real pre-trained BERT, without importing the package that has it."""
    from bert.checkpoints import installed
    from bert.system.errors import ToolkitError

    try:
        return installed.find('minilm')
    except ToolkitError as error:
        pytest.skip(str(error))


@pytest.fixture(params=['stock', 'fused'])
def operators(request, monkeypatch):
    """Run a test with MXNet's own operators, then with the fused ones."""
    from bert import ops

    if request.param == 'stock':
        monkeypatch.setattr(ops, 'available', lambda: False)
    elif not ops.available():
        pytest.skip('the fused operators cannot be built here')
    return request.param


@pytest.fixture
def root_logger():
    """Restore the handlers of the root logger, which the scripts replace."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    for handler in logger.handlers[:]:
        if handler not in handlers:
            handler.close()
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def zoo_server(monkeypatch):
    """Serve a local model zoo; return its files by path, the requested paths and its address.

    In place of a file there may be functions of the handler, the next of which answers.
    """
    files, requested = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requested.append(self.path)
            content = files.get(self.path, b'')
            if not isinstance(content, bytes):
                answers = files[self.path] = iter(content)
                return next(answers)(self)
            self.send_response(200 if self.path in files else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setenv('MXNET_GLUON_REPO', address)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    yield files, requested, address
    server.shutdown()
    server.server_close()


def zipped(name, content):
    """Return a zip file with one member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


SPECIALS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
WORDS = (
    'the a an of to in on at and or not is are was were be has had it he she they we you i '
    'this that these one two three red green blue good bad great poor film story plot music '
    'movie actor dog cat bird man woman child house street city river market price company '
    'said says went came bought sold reads wrote saw ate runs old new small big long short '
    'very really never always today yesterday because while with for from by as more less'
)


def tiny_vocab():
    """Return tokens in the order of their ids, with all letters, so no English word is unknown."""
    characters = string.ascii_lowercase + string.digits
    inner = [f'##{character}' for character in characters]
    words = [word for word in WORDS.split() if len(word) > 1]
    return [*SPECIALS, *string.punctuation, *characters, *inner, *words]


def write_tiny_bert(folder, dropout=0.1, seed=1):
    """Write a BERT of 2 layers and 16 units in Hugging Face layout.

    The weights are ten times as large as usual, so that the outputs differ from text to text.
    """
    from safetensors.numpy import save_file

    tokens = tiny_vocab()
    config = {
        'model_type': 'bert',
        'num_hidden_layers': 2,
        'hidden_size': 16,
        'intermediate_size': 32,
        'num_attention_heads': 2,
        'max_position_embeddings': 128,
        'vocab_size': len(tokens),
        'type_vocab_size': 2,
        'hidden_act': 'gelu',
        'hidden_dropout_prob': dropout,
        'attention_probs_dropout_prob': dropout,
        'layer_norm_eps': 1e-12,
    }
    rng = np.random.default_rng(seed)
    tensors = {}

    def dense(name, rows, columns):
        tensors[f'{name}.weight'] = rng.normal(0, 0.2, (rows, columns)).astype(np.float32)
        tensors[f'{name}.bias'] = rng.normal(0, 0.2, rows).astype(np.float32)

    def layer_norm(name):
        tensors[f'{name}.LayerNorm.weight'] = rng.normal(1, 0.2, 16).astype(np.float32)
        tensors[f'{name}.LayerNorm.bias'] = rng.normal(0, 0.2, 16).astype(np.float32)

    for name, rows in [('word', len(tokens)), ('position', 128), ('token_type', 2)]:
        table = rng.normal(0, 0.2, (rows, 16)).astype(np.float32)
        tensors[f'embeddings.{name}_embeddings.weight'] = table
    layer_norm('embeddings')
    for layer in ('encoder.layer.0', 'encoder.layer.1'):
        for name in ('query', 'key', 'value'):
            dense(f'{layer}.attention.self.{name}', 16, 16)
        dense(f'{layer}.attention.output.dense', 16, 16)
        layer_norm(f'{layer}.attention.output')
        dense(f'{layer}.intermediate.dense', 32, 16)
        dense(f'{layer}.output.dense', 16, 32)
        layer_norm(f'{layer}.output')
    dense('pooler.dense', 16, 16)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config), encoding='utf8')
    (folder / 'vocab.txt').write_text(''.join(f'{token}\n' for token in tokens), encoding='utf8')
    save_file(tensors, folder / 'model.safetensors')
    return folder


def write_finetuned(folder, bert, labels, flags):
    """Write what finetune_classifier.py leaves of a tiny BERT, with random weights in its head.

    Parameters
    ----------
    folder : Path
    bert : Path
        The folder of a pre-trained one.
    labels : list of str or None
        None for regression.
    flags : dict
        Those that the model remembers.
    """
    import mxnet as mx

    from bert.checkpoints.writing import write_description
    from bert.model import load_bert
    from bert.model.build import build_head
    from bert.model.parameters import save

    encoder, vocab = load_bert(str(bert))
    model = build_head(encoder, labels and len(labels), mx.cpu())
    head = (model.classifier if labels else model.regression)[-1]
    # With this seed, not all texts get the same label.
    rng = np.random.default_rng(50)
    for parameter in (head.weight, head.bias):
        parameter.set_data(mx.nd.array(rng.normal(0, 1, parameter.shape)))
    folder.mkdir(parents=True)
    write_description(folder, encoder.settings, vocab, lower=True)
    save(model, folder / 'model_bert_own_0.params')
    content = {'flags': flags, 'labels': labels, 'parameters': 'model_bert_own_0.params'}
    (folder / 'finetune.json').write_text(json.dumps(content), encoding='utf8')
    return folder


@pytest.fixture(scope='session')
def tiny_bert(tmp_path_factory):
    """Return the folder of a tiny uncased BERT with fixed random weights; no test writes to it."""
    return write_tiny_bert(tmp_path_factory.mktemp('tiny') / 'bert')


@pytest.fixture(scope='session')
def tiny_bert_without_dropout(tmp_path_factory):
    """Return the folder of the same weights as ``tiny_bert``, configured with dropout 0."""
    return write_tiny_bert(tmp_path_factory.mktemp('tiny') / 'bert-without-dropout', dropout=0.0)


@pytest.fixture
def has_gpu():
    """Skip the test if MXNet cannot run on GPU 0."""
    from bert.system import machine

    problem = machine.gpu_problem([0])
    if problem:
        pytest.skip(problem)


@pytest.fixture
def folder(tiny_bert, tmp_path):
    """Return a copy of the tiny model that a test may damage."""
    shutil.copytree(tiny_bert, tmp_path / 'bert')
    return tmp_path / 'bert'


@pytest.fixture
def change(folder):
    """Return a function that edits the tensors of the copy."""
    from safetensors.numpy import load_file, save_file

    def apply(edit):
        tensors = load_file(folder / 'model.safetensors')
        tensors = edit(tensors) or tensors
        save_file(tensors, folder / 'model.safetensors')
        return folder

    return apply


def read_events(folder):
    """Read the points of a folder's only event file, by nobody's library.

    Returns
    -------
    list of (str, int, float)
        Name, step and value.
    """
    (path,) = folder.iterdir()
    assert path.name.startswith('events.out.tfevents.')
    data, events = path.read_bytes(), []
    while data:
        (size,) = struct.unpack('<Q', data[:8])
        record = data[12 : 12 + size]
        for checked, stored in ((data[:8], data[8:12]), (record, data[12 + size : 16 + size])):
            assert struct.unpack('<I', stored) == (masked_crc32c(checked),)
        events.append(dict(protobuf_fields(record)))
        data = data[16 + size :]
    version, start, *events = events
    assert version[3] == b'brain.Event:2' and dict(protobuf_fields(start[7])) == {1: 1}
    assert all(1e9 < event[1] < 1e11 for event in (version, start, *events))
    return [
        (point[1].decode(), event.get(2, 0), point[2])
        for event in events
        for point in (dict(protobuf_fields(value)) for _, value in protobuf_fields(event[5]))
    ]


def protobuf_fields(data):
    """Yield the number and the value of each field of a message."""

    def varint():
        nonlocal data
        value, shift = 0, 0
        while True:
            byte, data = data[0], data[1:]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while data:
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        value, data = data[:size], data[size:]
        yield number, value if kind == 2 else struct.unpack({1: '<d', 5: '<f'}[kind], value)[0]


def masked_crc32c(data):
    """Compute TensorFlow's masked checksum bit by bit (RFC 3720, B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def approximately(points):
    """Return points that equal those whose values went through float32."""
    return [(tag, step, pytest.approx(value, rel=1e-6)) for tag, step, value in points]


def parameters_of(block):
    """Return all parameters of a Gluon block, by name, as NumPy arrays."""
    from bert.model.parameters import named

    return {name: p.data(p.list_ctx()[0]).asnumpy() for name, p in named(block).items()}


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """Make this process receive a signal in the middle of a training step."""
    from bert.training import update

    seed_step = update.seed_step

    def seed_and_stop(seed, current, rank=0):
        seed_step(seed, current, rank)
        if current == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(update, 'seed_step', seed_and_stop)


def run_here(main, words):
    """Run a program in this process, without the seconds that a new one takes to begin.

    Parameters
    ----------
    main : function
        Of the program.
    words : list
        Its command line, from the name of the program on.

    Returns
    -------
    int
        The exit status.
    """
    from bert.cli.program import run

    with mock.patch.object(sys, 'argv', [str(word) for word in words]):
        try:
            run(main)
        except SystemExit as left:
            return left.code
    return 0


def failure(function, *args, **kwargs):
    """Return the single sentence that a call fails with."""
    from bert.system.errors import ToolkitError

    with pytest.raises(ToolkitError) as caught:
        function(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def spoil_array(path):
    """Change one bit of the data of the last array of an uncompressed ``.npz`` file."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        member = archive.infolist()[-1]
    data = bytearray(path.read_bytes())
    # After the member's header, its name, what else there is of it and most of the array.
    data[member.header_offset + 30 + len(member.filename) + member.file_size] ^= 1
    path.write_bytes(data)
