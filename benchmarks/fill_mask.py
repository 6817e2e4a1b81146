#!/usr/bin/env python3
"""Fill in each [MASK] in the lines of standard input with a pre-trained model.

With --transformers, transformers does the same with a directory that it can read, the model's own
or one that bert.convert --to hf wrote, and the two must agree.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.special import softmax

from bert.checkpoints.reading import read
from bert.checkpoints.source import locate
from bert.cli.flags import Parser, positive_int
from bert.cli.program import run
from bert.system import machine
from bert.system.errors import ToolkitError
from bert.text.lines import read_lines
from bert.text.tokenizer import build_tokenizer, tokenize

MASK = '[MASK]'
# The largest difference of two probabilities that comes from the order of sums.
TOLERANCE = 1e-3


def parse_args(argv=None):
    """Parse the flags."""
    parser = Parser(__doc__)
    parser.add_argument('model', help='a pre-trained model: CKPT_DIR/model of run_pretraining.py')
    parser.add_argument('--top', type=positive_int, default=3, help='answers for each [MASK]')
    parser.add_argument(
        '--transformers', metavar='DIR', help='the same model, to be run by transformers'
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Print each text with its answers.

    Returns
    -------
    float or None
        The largest difference to a probability of transformers.
    """
    args = parse_args(argv)
    machine.prepare_mxnet('float32')
    texts = [' '.join(line) for line in read_lines(sys.stdin.buffer, 'standard input')]
    location = locate(args.model)
    difference = None
    if args.transformers:
        theirs = load_transformers(args.transformers, args.top)
        difference = 0.0
    fill = load(location)
    for text in texts:
        print(text)
        ours = fill(text, args.top)
        for answers in ours:
            print('   ', ', '.join(f'{token} {share:.3f}' for token, share in answers))
        if args.transformers and ours:
            difference = max(difference, compare(text, ours, theirs(text)))
    if args.transformers:
        print(f'transformers: the same answers; largest difference {difference:.1e}')
    return difference


def load(location):
    """Load a model that fills masks.

    Returns
    -------
    function
        Maps a text and the number of answers to a list, for each mask, of lists of (token,
        probability).
    """
    from bert.model.loading import build_whole
    from bert.model.outputs import run as run_model

    contents = read(location)
    vocab, path = contents.vocab, contents.weights.path
    if not any(name.startswith('decoder.') for name in contents.weights.bert):
        raise ToolkitError(f'{path}: has no masked-LM head to fill masks with')
    model = build_whole(contents)
    tokenizer = build_tokenizer(vocab, contents.lower)
    longest = contents.settings['max_length']

    def fill(text, top):
        ids = [vocab[vocab.cls_token]]
        for i, part in enumerate(tokenize(tokenizer, text.split(MASK))):
            ids += [vocab[vocab.mask_token]] * (i > 0) + part.tolist()
        ids = np.array([[*ids, vocab[vocab.sep_token]]], np.int32)
        if ids.shape[1] > longest:
            raise ToolkitError(
                f'{path}: has {longest} positions, and a text has {ids.shape[1]} tokens: '
                f'{text[:40]} ...'
            )
        batch = ids, np.zeros_like(ids), np.array([ids.shape[1]], np.float32)
        logits = run_model(model, batch)['prediction_logits'][0]
        answers = []
        for shares in softmax(logits[ids[0] == vocab[vocab.mask_token]], axis=-1):
            best = np.argsort(-shares)[:top]
            answers.append([(vocab.idx_to_token[i], float(shares[i])) for i in best])
        return answers

    return fill


def load_transformers(folder, top):
    """Load transformers' pipeline of this task; the result is used as that of :func:`load`."""
    try:
        from transformers import pipeline
    except ImportError:
        raise ToolkitError('--transformers needs transformers and torch') from None
    fill = pipeline('fill-mask', model=folder, top_k=top, device='cpu')

    def answer(text):
        masks = fill(text)
        masks = masks if isinstance(masks[0], list) else [masks]
        return [[(each['token_str'], each['score']) for each in mask] for mask in masks]

    return answer


def compare(text, ours, theirs):
    """Return the largest difference of two probabilities; one above TOLERANCE is an error."""
    largest = 0.0
    for answers, others in zip(ours, map(dict, theirs)):
        for token, share in answers:
            # Of those that are equally probable, the last one may be another.
            other = others.get(token, min(others.values()))
            if abs(share - other) > TOLERANCE:
                raise ToolkitError(f'{text} {token} {share:.3f} here, {other:.3f} by transformers')
            largest = max(largest, abs(share - other))
    return largest


if __name__ == '__main__':
    run(main)
