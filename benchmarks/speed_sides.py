#!/usr/bin/env python3
"""One side of speed.py: a process that repeats the same work on demand.

speed.py starts it with a description of the work (:class:`Work`, as JSON) and writes a line to its
standard input for every turn; it answers with the seconds. Each side is a process that imports
only what it runs, because MXNet and PyTorch each have their own thread pools.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bert import ops
from bert.cli.flags import Parser, check_dtype
from bert.cli.program import run
from bert.distributed.workers import ALONE
from bert.pretraining.batches import Batch
from bert.system import machine
from bert.system.errors import ToolkitError
from bert.system.files import read_json
from bert.tasks import files
from bert.tasks.table import TASKS
from bert.text.encoding import encode, pad_batch
from bert.text.tokenizer import build_tokenizer
from bert.text.vocab import load_vocab
from bert.training.batches import training_batches

LEARNING_RATE = 5e-5
EPSILON = 1e-6
MAX_LENGTH = 128
# Rows and columns of the matrices whose product shows the machine's speed.
PRODUCT_SIZE = 2048
ONNX_FILE = 'onnx/model.onnx'  # in the folder of a model
ONNX_INPUTS = ('input_ids', 'attention_mask', 'token_type_ids')


class Work(NamedTuple):
    """The work of a process."""

    kind: str  # train, infer, mrpc, pretrain or product
    framework: str  # mxnet, pytorch, onnxruntime or openvino
    model: str  # a folder with config.json and vocab.txt; for infer and mrpc, with the weights
    steps: int  # in a turn
    batch_size: int
    length: int = MAX_LENGTH
    masks: int = 20  # tokens of a row to predict, in pretrain
    padding: str = 'grouped'  # how the batches of mrpc are made: max, batch or grouped
    # Or bfloat16, in PyTorch by autocast; or int8, of the weights and inputs of products.
    dtype: str = 'float32'
    compiled: bool = False  # PyTorch's model goes through torch.compile
    gathered: bool = True  # PyTorch's masked-LM head sees the masked positions only


def description(text):
    """Parse the work that speed.py describes."""
    return Work(**json.loads(text))


def main(argv=None):
    """Prepare the work, then do a turn for each line of standard input."""
    parser = Parser(__doc__)
    parser.add_argument('work', metavar='WORK', type=description, help='a Work, as JSON')
    work = parser.parse_args(argv).work
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    batches, weight = make_batches(work)
    build = {
        ('product', 'mxnet'): build_product,
        ('infer', 'mxnet'): build_inference,
        ('infer', 'onnxruntime'): build_onnxruntime,
        ('infer', 'openvino'): build_openvino,
        ('pretrain', 'mxnet'): build_pretraining,
        ('pretrain', 'pytorch'): build_pytorch_pretraining,
    }
    if work.framework == 'mxnet' and os.environ.get('BERT_STOCK_OPS') != '1':
        check_operators()
    if work.framework == 'mxnet' and work.dtype == 'bfloat16':
        check_dtype(work.dtype, on_gpu=False)
        machine.prepare_bfloat16()
    usual = build_classifier if work.framework == 'mxnet' else build_pytorch_classifier
    step, wait = build.get((work.kind, work.framework), usual)(work)
    count = 0

    def turn():
        nonlocal count
        start = time.perf_counter()
        for batch in batches:
            count += 1
            step(batch, count)
        wait()
        return (time.perf_counter() - start) * weight

    turn()  # to build graphs and allocate memory
    ready = {'logits': step(batches[0], count).tolist()} if work.kind == 'infer' else {}
    answers.write(json.dumps(ready) + '\n')
    for _ in sys.stdin:
        answers.write(json.dumps({'seconds': turn()}) + '\n')


def check_operators():
    """Refuse to time MXNet's own operators under another name."""
    if not ops.available():
        raise ToolkitError('the fused operators cannot be used: python -m bert.ops says why')


def make_batches(work):
    """Make the batches of a turn.

    Returns
    -------
    list, float
        The batches, and the factor from the seconds of a turn to those of a step, or of an epoch
        with ``mrpc``.
    """
    if work.kind == 'mrpc':
        return mrpc_batches(work)
    if work.kind == 'product':
        return [None] * work.steps, 1 / work.steps
    rng = np.random.default_rng(1)
    config = read_json(Path(work.model) / 'config.json')
    vocab_size = config['vocab_size']
    shape = (work.batch_size, work.length)
    ids = rng.integers(0, vocab_size, shape).astype(np.int32)
    token_types = np.tile(np.arange(work.length) >= work.length // 2, (work.batch_size, 1))
    inputs = ids, token_types.astype(np.int32), np.full(len(ids), work.length, np.float32)
    labels = rng.integers(0, 2, len(ids)).astype(np.int32)
    batch = inputs, labels
    if work.kind == 'pretrain':
        shape = (work.batch_size, work.masks)
        rows = [rng.choice(work.length, work.masks, replace=False) for _ in range(len(ids))]
        batch = Batch(
            *inputs,
            mlm_positions=np.sort(rows).astype(np.int32),
            mlm_labels=rng.integers(0, vocab_size, shape).astype(np.int32),
            mlm_weights=np.ones(shape, np.float32),
            nsp_labels=labels,
        )
    return [batch] * work.steps, 1 / work.steps


def mrpc_batches(work):
    """Choose batches that represent an epoch of MRPC, from the narrowest to the widest."""
    task = TASKS['MRPC']
    examples = files.read_glue(files.glue_folder(), task, task.train)
    vocab = load_vocab(Path(work.model) / 'vocab.txt')
    tokenizer = build_tokenizer(vocab, lower=True)
    encoded = encode(examples.texts, tokenizer, vocab, MAX_LENGTH)
    rng = np.random.default_rng(1)
    count = len(examples.labels)
    if work.padding == 'grouped':
        epoch = training_batches(encoded.lengths, work.batch_size, rng)
    else:
        starts = range(work.batch_size, count, work.batch_size)
        epoch = np.split(rng.permutation(count), starts)
    width = MAX_LENGTH if work.padding == 'max' else None
    # With the epoch sorted by width and cut into equal parts, the middle batch of each part.
    epoch.sort(key=lambda rows: encoded.lengths[rows].max())
    steps = min(work.steps, len(epoch))
    chosen = [epoch[int((i + 0.5) * len(epoch) / steps)] for i in range(steps)]
    rng.shuffle(chosen)
    batches = [
        (widen(pad_batch(encoded, rows), width, encoded), examples.labels[rows]) for rows in chosen
    ]
    return batches, len(epoch) / steps


def widen(inputs, width, encoded):
    """Pad a batch with more columns, up to a width if there is one."""
    ids, token_types, lengths = inputs
    further = ((0, 0), (0, (width or ids.shape[1]) - ids.shape[1]))
    ids = np.pad(ids, further, constant_values=encoded.padding)
    return ids, np.pad(token_types, further), lengths


def build_product(work):
    """Build steps that multiply two large float32 matrices, with MXNet's FullyConnected."""
    from mxnet import nd

    left, right = (nd.random.normal(shape=(PRODUCT_SIZE, PRODUCT_SIZE)) for _ in range(2))

    def step(batch, number):
        nd.FullyConnected(left, right, no_bias=True, flatten=False, num_hidden=PRODUCT_SIZE)

    return step, nd.waitall


def build_inference(work):
    """Build steps that predict as finetune_classifier.py does, each until its logits are there.

    Returns
    -------
    function of a batch and the number of the step from 1, function without arguments
        As by :func:`build_classifier`. The first returns the logits, a (B, 2) numpy.ndarray.
    """
    from mxnet import nd

    from bert.checkpoints import reading
    from bert.checkpoints.source import locate
    from bert.finetuning.prediction import add_head
    from bert.finetuning.step import predict
    from bert.model.loading import build_located
    from bert.model.prepared import prepare
    from bert.training.update import contexts

    ctx = contexts([])
    location = locate(work.model)
    weights = reading.read_weights(location)
    bert, _ = build_located(location, ctx, weights)
    prepared = prepare(add_head(bert, ('0', '1'), ctx, work.dtype, weights), ctx)
    return lambda batch, number: predict(prepared, batch[0], ctx[0]).asnumpy(), nd.waitall


def build_classifier(work):
    """Build training steps of finetune_classifier.py.

    Returns
    -------
    function of a batch and the number of the step from 1, function without arguments
        The first does a step, and may return before it is done; the second waits for all steps.
    """
    from mxnet import nd

    from bert.finetuning.step import forward_backward, loss_of
    from bert.model import build_from_configuration, build_head, load_bert
    from bert.model.build import cast
    from bert.training.update import contexts

    ctx = contexts([])
    if work.kind == 'mrpc':
        bert, _ = load_bert(work.model, ctx=ctx)
    else:
        bert, _ = build_from_configuration(f'{work.model}/config.json', ctx)
    model = build_head(bert, 2, ctx)
    cast(model, work.dtype)
    model.hybridize(static_alloc=True)
    loss_function = loss_of(2)
    updater = build_updater(model)

    def step(batch, number):
        inputs, labels = batch
        updater.begin(number)
        forward_backward(model, loss_function, inputs, labels, ctx[0], scale=1)
        updater.finish(number, len(labels))

    return step, nd.waitall


def build_pretraining(work):
    """Build training steps of run_pretraining.py; see :func:`build_classifier`."""
    from mxnet import nd

    from bert.model import build_from_configuration
    from bert.model.build import cast
    from bert.pretraining.loss import build_loss, finish_initialization, gradients
    from bert.training.update import contexts

    ctx = contexts([])
    model, _ = build_from_configuration(
        f'{work.model}/config.json', ctx, use_decoder=True, use_classifier=True
    )
    finish_initialization(model, ctx[0])
    cast(model, work.dtype)
    model.hybridize(static_alloc=True)
    loss = build_loss(ctx)
    updater = build_updater(model)

    def step(batch, number):
        updater.begin(number)
        gradients(model, loss, [batch], ctx, scale=1)
        updater.finish(number, 1)

    return step, nd.waitall


def build_updater(model):
    """Build the object that seeds each step and updates the weights, at a constant rate."""
    from bert.training.update import Updater, build_trainer

    trainer = build_trainer(model, 'bertadam', LEARNING_RATE, EPSILON)
    rate, seed = lambda step: LEARNING_RATE, 1
    return Updater(model, trainer, rate, 'float32', seed, ALONE, adds_up=False)


def build_pytorch_classifier(work):
    """Build the steps of :func:`build_classifier`, or of :func:`build_inference`, with PyTorch."""
    import torch
    import transformers

    auto = transformers.AutoModelForSequenceClassification
    if work.kind in ('mrpc', 'infer'):
        model = auto.from_pretrained(work.model, attn_implementation='sdpa')
    else:
        config = transformers.AutoConfig.from_pretrained(work.model)
        model = auto.from_config(config, attn_implementation='sdpa')
    call = prepare_pytorch(model, work)

    def infer(batch, number):
        with torch.inference_mode():
            return call(**pytorch_inputs(*batch[0])).logits.float().numpy()

    def loss(batch):
        inputs, labels = batch
        return call(**pytorch_inputs(*inputs), labels=torch.from_numpy(labels).long()).loss

    step = infer if work.kind == 'infer' else pytorch_training(model, loss)
    return step, lambda: None


def build_pytorch_pretraining(work):
    """Build the steps of :func:`build_pretraining` with transformers' model.

    By itself it computes scores over the whole vocabulary at every position. ``gathered`` avoids
    that, as far as a few lines can.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(work.model)
    auto = transformers.AutoModelForPreTraining
    model = auto.from_config(config, attn_implementation='sdpa')
    cross_entropy = torch.nn.functional.cross_entropy

    class Gathered(torch.nn.Module):
        """The loss of transformers' model, with the masked-LM head at masked positions only."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, inputs, positions, labels, nsp_labels):
            encodings, pooled = self.model.bert(**inputs, return_dict=False)[:2]
            masked = encodings[torch.arange(len(encodings))[:, None], positions]
            scores, nsp_scores = self.model.cls(masked, pooled)
            mlm_loss = cross_entropy(scores.flatten(0, 1), labels.flatten())
            return mlm_loss + cross_entropy(nsp_scores, nsp_labels)

    call = prepare_pytorch(Gathered() if work.gathered else model, work)

    def loss(batch):
        inputs = pytorch_inputs(batch.ids, batch.token_types, batch.valid_lengths)
        positions, labels, nsp_labels = (
            torch.from_numpy(array).long()
            for array in (batch.mlm_positions, batch.mlm_labels, batch.nsp_labels)
        )
        if work.gathered:
            return call(inputs, positions, labels, nsp_labels)
        everywhere = torch.full(batch.ids.shape, -100).scatter(1, positions, labels)
        return call(**inputs, labels=everywhere, next_sentence_label=nsp_labels).loss

    return pytorch_training(model, loss), lambda: None


def build_onnxruntime(work):
    """Build the steps of :func:`build_inference` with onnxruntime."""
    import onnxruntime

    path = Path(work.model) / ONNX_FILE
    if work.dtype == 'int8':
        from onnxruntime.quantization import quantize_dynamic

        quantized = path.with_name('int8.onnx')
        quantize_dynamic(path, quantized)
        path = quantized
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ['OMP_NUM_THREADS'])
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])

    def step(batch, number):
        return session.run(None, onnx_inputs(*batch[0]))[0]

    return step, lambda: None


def build_openvino(work):
    """Build the steps of :func:`build_inference` with OpenVINO, compiled for this shape alone.

    Release 2026.4 fails to compile these files for batches of any size and length at once.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(Path(work.model) / ONNX_FILE)
    model.reshape({name: [work.batch_size, work.length] for name in ONNX_INPUTS})
    settings = {
        'INFERENCE_NUM_THREADS': int(os.environ['OMP_NUM_THREADS']),
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_PRECISION_HINT': {'float32': 'f32', 'bfloat16': 'bf16'}[work.dtype],
    }
    compiled = core.compile_model(model, 'CPU', settings)

    def step(batch, number):
        return compiled(onnx_inputs(*batch[0]))[0]

    return step, lambda: None


def onnx_inputs(ids, token_types, lengths):
    """Return the arrays of :func:`bert.text.encoding.pad_batch` as an ONNX file takes them."""
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    arrays = (ids, mask, token_types)
    return {name: array.astype(np.int64) for name, array in zip(ONNX_INPUTS, arrays)}


def prepare_pytorch(model, work):
    """Return a function that calls the model, with as many threads as MXNet uses."""
    import torch

    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    model.train(work.kind != 'infer')
    compiled = torch.compile(model) if work.compiled else model

    def call(*args, **kwargs):
        with torch.autocast('cpu', torch.bfloat16, enabled=work.dtype == 'bfloat16'):
            return compiled(*args, **kwargs)

    return call


def pytorch_inputs(ids, token_types, lengths):
    """Return the arrays of :func:`bert.text.encoding.pad_batch` under transformers' names."""
    import torch

    ids, token_types, lengths = map(torch.from_numpy, (ids, token_types, lengths))
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return {
        'input_ids': ids.long(),
        'token_type_ids': token_types.long(),
        # Without a mask, attention need not add one to its scores.
        'attention_mask': None if mask.all() else mask.long(),
    }


def pytorch_training(model, loss):
    """Build training steps with fused AdamW and the same clipping."""
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, eps=EPSILON, weight_decay=0.01, fused=True
    )

    def step(batch, number):
        loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == '__main__':
    run(main)
