#!/usr/bin/env python3
"""Time an epoch of MRPC here and in PyTorch, side by side in one run.

Both train the same model on the same batches, grouped by length, in turns of a few steps, so that
whatever else the machine does slows both. Needs what ``make parity`` installs, and GLUE_DIR:

    GLUE_DIR=glue_data python3 benchmarks/mrpc_epoch.py --bert_model MODEL
"""

import math
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bert  # noqa: E402
from bert.cli import build_parser, positive_int, run  # noqa: E402

BATCH_SIZE = 32
LEARNING_RATE = 5e-5
TURN = 10  # steps


def parse_args(argv=None):
    """The flags."""
    parser = build_parser(__doc__.splitlines()[0])
    parser.add_argument('--bert_model', required=True, help='directory in Hugging Face layout')
    parser.add_argument('--steps', type=positive_int, help='of each; an epoch if not given')
    return parser.parse_args(argv)


def our_step(folder, total):
    """A function that trains one step here: (inputs, labels, step) -> loss, not waited for."""
    encoder, _ = bert.model.load_bert(folder)
    ctx = bert.training.contexts([])
    model = bert.model.build_head(encoder, 2, ctx)
    model.hybridize(static_alloc=True)
    trainer = bert.training.build_trainer(model, 'bertadam', LEARNING_RATE, 1e-6)
    parameters = bert.training.trainable(model)
    loss_function, loss_scale = bert.training.loss_of(2), bert.training.LossScale('float32')

    def step(inputs, labels, number):
        bert.training.seed_step(1, number)
        loss, _ = bert.training.forward_backward(
            model, loss_function, inputs, labels, ctx[0], scale=1
        )
        rate = bert.schedule.learning_rate(number, LEARNING_RATE, total // 10, total)
        bert.training.update(trainer, parameters, len(labels), rate, loss_scale)
        return loss

    def wait():
        bert.training.mx.nd.waitall()

    return step, wait


def pytorch_step(folder, total):
    """The same in PyTorch, at its best in eager mode: SDPA attention and the fused AdamW."""
    import torch
    import transformers

    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    model = transformers.BertForSequenceClassification.from_pretrained(
        folder, num_labels=2, attn_implementation='sdpa'
    ).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True
    )

    def step(inputs, labels, number):
        ids, token_types, lengths = (torch.from_numpy(array) for array in inputs)
        loss = model(
            input_ids=ids.long(),
            token_type_ids=token_types.long(),
            attention_mask=(torch.arange(ids.shape[1]) < lengths[:, None]).long(),
            labels=torch.from_numpy(labels).long(),
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = bert.schedule.learning_rate(number, LEARNING_RATE, total // 10, total)
        optimizer.param_groups[0]['lr'] = rate
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step, lambda: None


def main(argv=None):
    """Print seconds an epoch of both and their ratio; return (ours, PyTorch's)."""
    args = parse_args(argv)
    task = bert.tasks.TASKS['MRPC']
    examples = bert.datasets.read_glue(bert.datasets.glue_folder(), task, task.train)
    vocab = bert.vocab.load_vocab(Path(args.bert_model) / 'vocab.txt')
    tokenizer = bert.tokenizer.build_tokenizer(vocab, lower=True)
    encoded = bert.transform.encode(examples.texts, tokenizer, vocab, 128)
    epoch = bert.batches.training_batches(encoded.lengths, BATCH_SIZE, np.random.default_rng(1))
    batches = epoch[: args.steps]
    sides = [build(args.bert_model, len(batches)) for build in (our_step, pytorch_step)]
    seconds = [0.0, 0.0]
    for step, wait in sides:  # the first step of each builds graphs and allocates memory
        step(bert.transform.pad_batch(encoded, epoch[-1]), examples.labels[epoch[-1]], 1)
        wait()
    with bert.cli.progress(len(batches), 'both', 'step') as bar:
        for turn in range(math.ceil(len(batches) / TURN)):
            numbered = list(enumerate(batches, 1))[turn * TURN : (turn + 1) * TURN]
            for side, (step, wait) in enumerate(sides):
                start = time.perf_counter()
                for number, rows in numbered:
                    step(bert.transform.pad_batch(encoded, rows), examples.labels[rows], number)
                wait()
                seconds[side] += time.perf_counter() - start
            bar.update(len(numbered))
    ours, pytorch = (s * len(epoch) / len(batches) for s in seconds)
    share = bert.batches.padding_share(encoded.lengths, epoch)
    print(
        f'{len(batches)} steps, {100 * share:.1f}% padding, {os.environ["OMP_NUM_THREADS"]} threads'
    )
    print(f'seconds an epoch: here {ours:.1f}, PyTorch {pytorch:.1f}, ratio {ours / pytorch:.2f}')
    return ours, pytorch


if __name__ == '__main__':
    run(main)
