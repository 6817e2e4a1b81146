"""Damaged and hostile files: readers return a valid value or raise one sentence.

They take no more memory than the size of the file justifies. ``make fuzz`` goes on for as long as
you like.
"""

import importlib.util
import io
import json
import random
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip('hypothesis')

from fuzz_targets import TARGETS, Sandbox, archive, mutate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = 80  # for each target, half a minute for all


@pytest.fixture(params=TARGETS)
def target(request):
    """Return each target, or skip the test if its package is not installed."""
    found = TARGETS[request.param]
    if found.needs and importlib.util.find_spec(found.needs) is None:
        pytest.skip(f'{found.needs} is not installed')
    return found


@pytest.mark.filterwarnings('ignore')
def test_any_file(target, tmp_path):
    sandbox, seeds = Sandbox(target, tmp_path), target.seeds()
    changed = st.builds(
        lambda seed, number: mutate(target, seed, random.Random(number)),
        st.sampled_from(seeds),
        st.integers(0, 2**32),
    )

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(changed, changed, changed, st.binary(max_size=200)))
    def run(data):
        refusal = sandbox.run(data)
        assert refusal is None or refusal.strip(), 'refused without a sentence'

    run()


def test_whole_files_are_read(target, tmp_path):
    """Otherwise a reader that refuses everything would pass."""
    sandbox = Sandbox(target, tmp_path)
    if target is TARGETS['GLUE record']:
        pytest.skip('it describes other files')
    for seed in target.seeds():
        assert sandbox.run(seed) is None


# --- declared sizes that are too large, and other hostile files


def safetensors(header, body=b''):
    written = json.dumps(header).encode()
    return struct.pack('<Q', len(written)) + written + body


def gluon(shape, count=1, name=b'x', length=None):
    """Return a Gluon file with one array, without its data."""
    array = struct.pack(f'<Iii{len(shape)}qiii', 0xF993FAC9, 0, len(shape), *shape, 1, 0, 0)
    names = struct.pack('<QQ', 1, len(name) if length is None else length) + name
    return struct.pack('<QQQ', 0x112, 0, count) + array + names


def npz(name, header, body=b''):
    """Return the first shard with an array added or replaced."""
    out = io.BytesIO()
    written = (repr(header) + '\n').encode()
    with zipfile.ZipFile(io.BytesIO(TARGETS['shard .npz'].seeds()[0])) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    members[f'{name}.npy'] = b'\x93NUMPY\1\0' + struct.pack('<H', len(written)) + written + body
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as new:
        for member, content in members.items():
            new.writestr(member, content)
    return out.getvalue()


def npy_header(shape, descr='|u1'):
    return {'descr': descr, 'fortran_order': False, 'shape': shape}


def config(**changes):
    seed = json.loads(TARGETS['config.json'].seeds()[0])
    return json.dumps({**seed, **changes}).encode()


def curves(**line):
    line = {'epoch': 1, 'batch': 1, 'batches': 2, 'loss': 0.5, 'lr': 1e-5, 'metrics': {}, **line}
    return json.dumps({'training': [line]}).encode()


def twice(members):
    """Return a zip file that has each member twice."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, 'w') as file:
        warnings.simplefilter('ignore')
        for name, content in [*members.items(), *members.items()]:
            file.writestr(name, content)
    return out.getvalue()


def link(target):
    """Return a GLUE archive whose train.tsv is a symbolic link."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as file:
        info = zipfile.ZipInfo('train.tsv')
        info.external_attr = 0o120777 << 16
        file.writestr(info, target)
        file.writestr('dev.tsv', '')
        file.writestr('test.tsv', '')
    return out.getvalue()


SPLITS = dict.fromkeys(('train.tsv', 'dev.tsv', 'test.tsv'), 'x')
MILLIONS = 200 * 2**20
ROW = 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n{}\t2\t3\tA b.\tA c.\n'
NO_JSON = {
    'nested': b'{"a":' * 10**6,
    'a number of 5000 digits': b'{"vocab_size": ' + b'9' * 5000 + b'}',
    'half a character': b'{"hidden_act": "\\ud800"}',
}

# By target and fault, the file and a part of the sentence (None: it is read nevertheless).
HOSTILE = {
    ('shard .npz', 'an array of a terabyte'): lambda: (
        npz('input_ids', npy_header((2**40,))), '1099511627776 bytes are promised'),
    ('shard .npz', 'a size beyond 64 bits'): lambda: (
        npz('input_ids', npy_header((2**32, 2**32))), 'bytes are promised'),
    ('shard .npz', 'a text of two gigabytes'): lambda: (
        npz('settings', npy_header((), '<U536870911')), 'bytes are promised'),
    ('shard .npz', 'a header of millions of brackets'): lambda: (
        npz('settings', npy_header((), '(' * 60000)), 'the array settings cannot be read'),
    ('shard .npz', 'a member that unpacks to 1000 times its size'): lambda: (
        npz('input_ids', npy_header((MILLIONS,)), bytes(MILLIONS)), 'would unpack to'),
    ('safetensors', 'a header of 2**60 bytes'): lambda: (
        struct.pack('<Q', 2**60) + b'{}', 'a header of 1152921504606846976 bytes'),
    ('safetensors', 'a header of 99 MB in a file of 10 bytes'): lambda: (
        struct.pack('<Q', 99 * 10**6) + b'{}', 'a header of 99000000 bytes'),
    ('safetensors', '2**40 classes without a number'): lambda: (
        safetensors({'classifier.weight':
                     {'dtype': 'F32', 'shape': [2**40, 0], 'data_offsets': [0, 0]}}),
        'the classifier has the shape (1099511627776, 0)'),
    ('safetensors', 'a tensor of a terabyte'): lambda: (
        safetensors({'a': {'dtype': 'BF16', 'shape': [2**39], 'data_offsets': [0, 2**40]}}),
        'not a whole safetensors file'),
    ('safetensors index', 'a file elsewhere'): lambda: (
        b'{"weight_map": {"a": "../../x.safetensors"}}', 'does not name files beside this one'),
    ('safetensors index', 'itself'): lambda: (
        b'{"weight_map": {"a": "model.safetensors.index.json"}}',
        'does not name files beside this one'),
    ('Gluon .params', 'an array of a terabyte'): lambda: (
        gluon((2**20, 2**18)), '274877906944 things are promised'),
    ('Gluon .params', 'a size beyond 64 bits'): lambda: (
        gluon((2**30, 2**30, 2**30)), 'things are promised'),
    ('Gluon .params', 'a negative size'): lambda: (gluon((-1, 4)), 'the shape (-1, 4)'),
    ('Gluon .params', '2**60 arrays'): lambda: (gluon((1,), count=2**60), 'are promised'),
    ('Gluon .params', 'a name of 2**62 bytes'): lambda: (
        gluon((0,), length=2**62), 'are promised'),
    ('Gluon .params', '2**31 - 1 dimensions'): lambda: (
        struct.pack('<QQQIii', 0x112, 0, 1, 0xF993FAC9, 0, 2**31 - 1) + bytes(100), 'dimensions'),
    ('sentencepiece', 'a piece of 2**40 bytes'): lambda: (
        b'\x0a\x80\x80\x80\x80\x80\x20' + b'a' * 50, 'not a sentencepiece model'),
    ('GLUE .zip', 'a member that unpacks to 1000 times its size'): lambda: (
        archive({**SPLITS, 'train.tsv': bytes(MILLIONS)}), 'over the limit'),
    ('GLUE .zip', 'a way out'): lambda: (
        archive({**SPLITS, '../../x': ''}), 'points outside the task folder'),
    ('GLUE .zip', 'a symbolic link'): lambda: (link('/etc/passwd'), 'is a link or a device'),
    ('GLUE .zip', '1500 folders'): lambda: (
        archive({**SPLITS, 'a/' * 1500 + 'x': ''}), 'folders deep'),
    ('GLUE .zip', 'each member twice'): lambda: (twice(SPLITS), None),
    ('zoo vocabulary .zip', 'a member that unpacks to 1000 times its size'): lambda: (
        archive({'x.vocab': bytes(MILLIONS)}), 'not a zip file with x.vocab inside'),
    ('submission .zip', 'a member that unpacks to 1000 times its size'): lambda: (
        archive({'QQP.tsv': bytes(MILLIONS)}), None),
    ('submission .zip', 'ten million lines'): lambda: (
        archive({'RTE.tsv': b'a\tb\n' * 10**7}), None),
    ('submission .zip', '10,000 other files'): lambda: (
        archive({str(i): '' for i in range(10000)}), None),
    ('log', 'a number of a million digits'): lambda: (
        b'[Epoch 1 Batch 1/2] loss=' + b'9' * 10**6 + b'x', 'no line of a fine-tuning log'),
    ('log', 'flags in flags'): lambda: (b'Namespace(' * 10**5, 'no line of a fine-tuning log'),
    ('log', 'flags that Python cannot nest'): lambda: (
        b'Namespace(a=' + b'-' * 10**5 + b'1)\nvalidation metrics:accuracy:0.5', None),
    ('log', 'flags that are another expression'): lambda: (
        b'Namespace(a=1) + (2)\nvalidation metrics:accuracy:0.5', None),
    ('log', 'no batches'): lambda: (
        b'[Epoch 1 Batch 1/0] loss=1, lr=1, metrics:f1:1', 'no line of a fine-tuning log'),
    ('published curves', 'no batches'): lambda: (curves(batches=0), 'not the curves'),
    ('published curves', 'a loss that is no float'): lambda: (
        curves(loss=10**400), 'not the curves'),
    ('own .jsonl', 'a number of 5000 digits'): lambda: (
        b'{"text": "a", "label": ' + b'9' * 5000 + b'}', ':1: not a JSON object'),
    ('own .jsonl', 'half a character'): lambda: (
        b'{"text": "\\ud800", "label": 1}', ':1: not a JSON object'),
    ('own .jsonl', 'a value nested a million times'): lambda: (
        b'{"text": ' + b'[' * 10**6, ':1: not a JSON object'),
    ('own .csv', 'a cell of a megabyte'): lambda: (
        b'text,label\n"' + b'a' * 2**20, ':2: not CSV'),
    ('own .tsv', 'a column that moves the cursor'): lambda: (
        b'text\t\x1b[2J\na\tb\n', "no column 'label' among text, \\x1b[2J"),
    ('GLUE MRPC', 'a label of a megabyte'): lambda: (
        ROW.format('1' * 2**20).encode(), 'is not one of 0, 1'),
    ('GLUE STS-B', 'a number beyond float32'): lambda: (
        TARGETS['GLUE STS-B'].seeds()[0].replace(b'5.000', b'1e39'), "'1e39' is not a number"),
    ('tokenizer.json', 'ids that cannot be ordered'): lambda: (
        b'{"model": {"vocab": {"a": 0, "b": "1"}}}', 'not a WordPiece tokenizer'),
    ('config.json', '2**24 - 1 layers'): lambda: (
        config(num_hidden_layers=2**24 - 1), 'num_hidden_layers is 16777215, more than 1000'),
    **{('config.json', what): lambda data=data: (data, 'not a JSON object')
       for what, data in NO_JSON.items()},
}  # fmt: skip

# This runs in a separate process, as other code uses the address space of this one.
CHILD = """
import resource, sys, tempfile, time, logging
sys.path[:0] = {folders!r}
import test_fuzz
from test_fuzz import HOSTILE, TARGETS, Sandbox
logging.disable(logging.CRITICAL)
names = dict.fromkeys(name for name, _ in HOSTILE)
sandboxes = {{}}
for name in names:
    sandboxes[name] = Sandbox(TARGETS[name], tempfile.mkdtemp(dir={folder!r}))
    sandboxes[name].run(TARGETS[name].seeds()[0])
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
for (name, what), make in HOSTILE.items():
    data, expected = make()
    resource.setrlimit(resource.RLIMIT_AS, (used + len(data) + 400 * 2**20, -1))
    start = time.process_time()
    refusal = sandboxes[name].run(data)
    seconds = time.process_time() - start
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    right = refusal is None if expected is None else expected in (refusal or '')
    if not right or seconds > 5:
        sys.exit(f'{{name}}, {{what}}: {{refusal!r}} after {{seconds:.1f}} s')
print(len(HOSTILE), 'files')
"""


@pytest.mark.skipif(not Path('/proc/self/statm').is_file(), reason='only Linux has the limit')
def test_hostile_files_with_little_memory(tmp_path):
    """Each gets 400 MB more than the libraries take, and 5 seconds."""
    folders = [str(ROOT), str(ROOT / 'tests')]
    code = CHILD.format(folders=folders, folder=str(tmp_path))
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout == f'{len(HOSTILE)} files\n'
