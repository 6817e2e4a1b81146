"""benchmarks/speed.py: flags, figures from made-up times, and a tiny real run."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import speed
import speed_lines
import speed_sides
from conftest import ROOT

from bert import ops
from bert.system.errors import ToolkitError, UsageError
from bert.system.machine import processor_flags

SCRIPT = ROOT / 'benchmarks' / 'speed.py'


@pytest.fixture
def with_pytorch(monkeypatch):
    """Pretend that PyTorch is installed."""
    monkeypatch.setattr(speed.importlib.util, 'find_spec', lambda name: True)


def test_flags():
    args = speed.parse_args('--only infer-6x384 datagen --only mrpc-epoch --steps 3'.split())
    assert args.only == ['infer-6x384', 'datagen', 'mrpc-epoch']
    assert (args.turns, args.steps, args.json) == (7, 3, None)
    with pytest.raises(SystemExit) as left:
        speed.parse_args(['--only', 'infer-5x384'])
    assert left.value.code == 2


def test_without_pytorch_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(speed.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ToolkitError, match=r"pip install '\.\[parity\]'") as refused:
        speed.main(['--only', 'train-6x384'])
    assert refused.value.status == 1
    with pytest.raises(ToolkitError, match=r"pip install '\.\[parity,bench\]'"):
        speed.main(['--only', 'infer-latency-6x384'])


@pytest.mark.parametrize('name', ['mrpc-epoch', 'datagen', 'beside-other-work'])
def test_what_is_missing_is_named_before_anything_is_measured(
    name, with_pytorch, monkeypatch, tmp_path, tiny_bert
):
    monkeypatch.delenv('GLUE_DIR', raising=False)
    with pytest.raises(UsageError, match=f'{name} needs a --bert_model'):
        speed.main(['--only', 'infer-6x384', name])
    flags = ['--only', name, '--bert_model', str(tiny_bert)]
    with pytest.raises(UsageError, match='GLUE_DIR is not set'):
        speed.main(flags)
    monkeypatch.setenv('GLUE_DIR', str(tmp_path))
    with pytest.raises(ToolkitError, match='MRPC/train.tsv, which download_glue_data.py'):
        speed.main(flags)
    monkeypatch.setenv('GLUE_DIR', str(ROOT / 'sample_glue'))
    with pytest.raises(UsageError, match='--json no/such/folder.json: there is no such folder'):
        speed.main([*flags, '--json', 'no/such/folder.json'])


def test_help_names_every_line():
    ran = subprocess.run([sys.executable, SCRIPT, '--help'], capture_output=True, text=True)
    assert ran.returncode == 0
    for name in (
        'train-12x768 train-6x384 infer-12x768 infer-6x384 infer-latency-12x768 '
        'infer-latency-6x384 mrpc-epoch pretrain-12x768 datagen beside-other-work'
    ).split():
        assert name in speed.LINES
        assert name in ran.stdout


def test_turns_alternate():
    calls = []
    seconds = speed.take_turns(
        {name: lambda name=name: calls.append(name) or len(calls) for name in 'abc'}, 3, 'test'
    )
    assert ''.join(calls) == 'abccbaabc'
    assert seconds == {'a': [1, 6, 7], 'b': [2, 5, 8], 'c': [3, 4, 9]}


# A product of 2048 x 2048 matrices has 17.18 billion operations: 171.8 billion a second.
PRODUCT = [0.1, 0.1, 9.0]


def test_row_of_a_step():
    """Median, quartiles, and the share of BERT base's products are worked out by hand."""
    seconds = {
        'product': PRODUCT,
        'ours': [2.0, 9.0, 2.2, 2.1, 2.4],
        'stock': [4.4] * 5,
        'pytorch': [3.3] * 5,
        'pytorch_bfloat16': [1.1] * 5,
        'pytorch_compiled': [3.0] * 5,
    }
    row = speed.make_row('train-12x768', seconds)
    assert [row[key] for key in ('name', 'ours_s', 'stock_s', 'pytorch_s')] == [
        'train-12x768',
        2.2,
        4.4,
        3.3,
    ]
    assert row['ratio'] == pytest.approx(1.5)
    assert row['ours_spread_s'] == pytest.approx(2.4 - 2.1)
    assert row['matrix_gflops'] == pytest.approx(171.8, rel=1e-3)
    # In a layer a position takes two operations for each of 12 x 768 x 768 weights, and two
    # products of 768 with 128 keys; the pooler runs once per row. All of this counts three times,
    # for 1024 positions and 8 rows.
    layers = 12 * 1024 * (2 * 12 * 768**2 + 4 * 128 * 768)
    operations = 3 * (layers + 8 * 2 * 768**2)
    assert row['pytorch_share'] == pytest.approx(operations / 171.8e9 / 3.3, rel=1e-3)
    # In this toolkit 1016 positions of the last layer have only keys and values.
    operations -= 3 * 1016 * (2 * 10 * 768**2 + 4 * 128 * 768)
    assert row['ours_share'] == pytest.approx(operations / 171.8e9 / 2.2, rel=1e-3)
    assert 'pytorch_bfloat16_share' not in row
    table = speed.describe_row(row).splitlines()
    assert [line.split()[-1] for line in table] == ['1.00', '2.00', '1.50', '0.50', '1.36']
    assert table[0].split() == ['train-12x768', 'here', '2.200', '0.300', '132', '%', '1.00']
    assert {len(line) for line in [*table, speed.heading()]} == {len(table[0])}


def test_row_of_pretraining_refers_to_the_better_way():
    seconds = {
        'product': PRODUCT,
        'ours': [2.0],
        'stock': [5.0],
        'pytorch_whole': [4.0],
        'pytorch_gathered': [3.0],
        'pytorch_compiled': [1.0],
    }
    row = speed.make_row('pretrain-12x768', seconds)
    assert (row['pytorch_s'], row['ratio']) == (3.0, 1.5)
    # The masked-LM head, a 768 x 768 layer and 30,522 scores, is at 1024 positions or at 8 x 20.
    operations = [
        row[f'pytorch_{side}_share'] * row[f'pytorch_{side}_s'] for side in ('whole', 'gathered')
    ]
    head = 3 * (1024 - 160) * 2 * 768 * (768 + 30522)
    assert operations[0] - operations[1] == pytest.approx(head / 171.8e9, rel=1e-3)


def test_row_of_an_epoch():
    seconds = {
        'product': PRODUCT,
        'ours': [80.0],
        'stock': [130.0],
        'pytorch_max': [280.0],
        'pytorch_batch': [160.0],
        'pytorch_grouped': [120.0],
    }
    row = speed.make_row('mrpc-epoch', seconds)
    assert (row['pytorch_s'], row['ratio'], row['ratio_max']) == (120.0, 1.5, 3.5)
    assert 'padded to 128' in speed.describe_row(row)


def test_row_of_data_generation():
    row = speed.make_row('datagen', {'ours': [0.5], 'gluonnlp': [0.8]})
    assert (row['ours_s'], row['stock_s'], row['pytorch_s']) == (0.5, None, None)
    assert row['ratio'] == pytest.approx(1.6)
    assert "GluonNLP's tokenizer" in speed.describe_row(row)


def test_rows_beside_other_work():
    seconds = {
        'ours': [2.0, 1.0, 9.0],
        'ours_beside': [3.0],
        'ours_unbounded': [2.5],
        'ours_unbounded_beside': [20.0],
    }
    row = speed.make_beside_row('infer-latency-12x768', seconds)
    assert (row['name'], row['ours_s'], row['ours_spread_s']) == (
        'beside-infer-latency-12x768',
        2.0,
        4.0,  # the quartiles are 1.5 and 5.5
    )
    assert (row['ratio'], row['ratio_unbounded']) == (1.5, 8.0)
    table = speed.describe_row(row).splitlines()
    assert [line.split()[-1] for line in table] == ['1.00', '1.50', '1.25', '10.00']
    assert {len(line) for line in [*table, speed.heading()]} == {len(table[0])}


def test_sides_of_the_inference_lines():
    def sides(name, *flags):
        return list(speed.sides_of(speed.LINES[name], speed.parse_args(flags)))

    usual = ['ours', 'stock', 'pytorch']
    assert sides('train-6x384', '--int8') == usual
    assert sides('infer-latency-6x384') == [*usual, 'onnxruntime', 'openvino']
    more = set(sides('infer-6x384', '--int8', '--bfloat16', '--unbounded')) - set(usual)
    runtimes = {'onnxruntime', 'openvino', 'openvino_bfloat16', 'onnxruntime_int8'}
    assert more == {'ours_unbounded', 'ours_bfloat16', 'pytorch_bfloat16', *runtimes}


def test_waiting_of_each_side():
    """Ours is as importing bert leaves it; all others wait as they would without."""
    for name, side in speed_lines.ALL_SIDES.items():
        if side.work['framework'] in ('mxnet', 'pytorch'):
            is_bounded = name in ('ours', 'stock', 'ours_bfloat16')
            assert ('GOMP_SPINCOUNT' in side.environment) == (not is_bounded)


def test_other_logits_are_refused():
    logits = {'ours': [[1.0, -4.0]], 'pytorch': [[1.001, -4.001]], 'ours_bfloat16': [[1.2, -4.0]]}
    speed.check_same({})
    speed.check_same(logits)
    for wrong in (1.01, float('nan')):
        with pytest.raises(ToolkitError, match='OpenVINO gets different logits'):
            speed.check_same({**logits, 'openvino': [[wrong, -4.0]]})


def test_a_busy_process_is_busy_and_ends():
    with speed.busy_process() as process:
        before = psutil.Process(process.pid).cpu_times().user
        time.sleep(0.5)
        assert psutil.Process(process.pid).cpu_times().user > before
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != 'linux', reason="only Linux tells a child of its parent's end")
def test_a_busy_process_ends_when_the_benchmark_is_killed():
    code = (
        'import speed, time\n'
        'with speed.busy_process() as process:\n'
        '    print(process.pid, flush=True)\n'
        '    time.sleep(60)\n'
    )
    with subprocess.Popen(
        [sys.executable, '-c', code], cwd=SCRIPT.parent, stdout=subprocess.PIPE
    ) as parent:
        busy = Path('/proc', parent.stdout.readline().decode().strip())
        assert busy.exists()
        parent.kill()
    end = time.monotonic() + 10
    # Until it is reaped, a process that has ended is a zombie.
    while busy.exists() and ') Z ' not in (busy / 'stat').read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_batches_of_an_epoch(tiny_bert, monkeypatch):
    """With enough steps, all batches are chosen, padded to 128, then less, then least."""
    monkeypatch.setenv('GLUE_DIR', str(ROOT / 'sample_glue'))
    positions = {}
    for padding in ('max', 'batch', 'grouped'):
        work = speed_sides.Work('mrpc', 'mxnet', str(tiny_bert), 10**6, 8, padding=padding)
        batches, weight = speed_sides.make_batches(work)
        assert weight == 1
        widths = [inputs[0].shape[1] for inputs, _ in batches]
        positions[padding] = sum(inputs[0].size for inputs, _ in batches)
        assert (set(widths) == {128}) == (padding == 'max')
        rows = [
            tuple(row[:n]) for (ids, _, ns), _ in batches for row, n in zip(ids, ns.astype(int))
        ]
        if padding == 'max':
            expected = sorted(rows)
        assert sorted(rows) == expected
    assert positions['max'] > positions['batch'] > positions['grouped']
    few, weight = speed_sides.make_batches(work._replace(steps=4))
    assert len(few) * weight == len(batches)


def test_a_side_that_fails_is_reported_in_a_sentence(tmp_path):
    work = speed.Work('infer', 'mxnet', str(tmp_path / 'nothing'), 1, 1)
    with speed.Process('ours', work) as process:
        with pytest.raises(ToolkitError, match='here stopped: .*nothing'):
            process.answer()
        with pytest.raises(ToolkitError, match='here stopped: .*nothing'):
            process.turn()


def make_tiny(monkeypatch, names):
    """Give some lines tiny sizes, and real data."""
    if not ops.available():
        pytest.skip('the fused operators cannot be built here')
    monkeypatch.setenv('GLUE_DIR', str(ROOT / 'sample_glue'))
    for name in names:
        line = speed.LINES[name]
        if line.layers:
            line = line._replace(
                batch_size=2, layers=2, units=8, heads=2, length=12, masks=3, vocab_size=50
            )
        monkeypatch.setitem(speed.LINES, name, line)
    monkeypatch.setattr(speed, 'PAUSE', 0)


@pytest.mark.parametrize('name', ['train-12x768', 'infer-6x384', 'pretrain-12x768', 'mrpc-epoch'])
def test_tiny_run(name, tiny_bert, monkeypatch, tmp_path, capsys):
    """All sides of a line work with tiny sizes."""
    kind = speed.LINES[name].kind
    for packages in speed.NEEDS[kind].values():
        for package in packages:
            pytest.importorskip(package)
    make_tiny(monkeypatch, [name])
    path = tmp_path / 'rows.json'
    flags = ['--turns', '1', '--steps', '2', '--bert_model', str(tiny_bert), '--json', str(path)]
    has_bfloat16 = 'avx512_bf16' in processor_flags()
    rows = speed.main(['--only', name, '--int8', *['--bfloat16'] * has_bfloat16, *flags])
    assert json.loads(path.read_text()) == rows
    (row,) = rows
    assert row['name'] == name
    assert min(row[key] for key in ('ours_s', 'stock_s', 'pytorch_s', 'ratio')) > 0
    printed = capsys.readouterr().out.splitlines()
    assert 'GFLOP/s' in printed[0]
    assert printed[2:] == speed.describe_row(row).splitlines()
    usual, in_bfloat16 = {'pretrain': (4, 2), 'mrpc': (5, 0), 'infer': (6, 3)}.get(kind, (3, 2))
    assert len(printed) == 2 + usual + has_bfloat16 * in_bfloat16


def test_tiny_run_beside_other_work(tiny_bert, monkeypatch, capsys):
    names = ('infer-latency-12x768', 'mrpc-epoch')
    make_tiny(monkeypatch, names)
    monkeypatch.setattr(speed, 'BESIDE', names)
    flags = ['--turns', '1', '--steps', '1', '--bert_model', str(tiny_bert)]
    rows = speed.main(['--only', 'beside-other-work', *flags])
    assert [row['name'] for row in rows] == [f'beside-{name}' for name in names]
    assert min(row['ratio'] for row in rows) > 0
    printed = capsys.readouterr().out.splitlines()[2:]
    assert printed == [line for row in rows for line in speed.describe_row(row).splitlines()]
    assert len(printed) == 4
