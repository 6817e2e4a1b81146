"""Convert a model to another kind, and verify that the result is the same model."""

from typing import List, NamedTuple

from bert.checkpoints import cards, reading, writing
from bert.convert import comparison, int8, witnesses
from bert.system.errors import ToolkitError
from bert.system.files import replacing_folder
from bert.system.processes import alone
from bert.system.terminal import show

# By kind: a function that writes a directory, given the folder and the checkpoint; and one that
# loads and runs it, given the folder, the checkpoint and a batch, and returns the name of the
# library that ran it and the outputs.
KINDS = {
    'gluon': (writing.write_gluon, witnesses.run_gluonnlp),
    'hf': (writing.write_huggingface, witnesses.run_transformers),
    'onnx': (witnesses.write_onnx, witnesses.run_onnxruntime),
}


class Check(NamedTuple):
    """What an int8 model must prove before it is written."""

    texts: List[tuple]  # the rows that it answers
    least_equal: float  # the share of its answers that must be those of float32


def convert(contents, card, target, kind, check=None, name=None):
    """Convert a model to another kind, load the result and run both.

    An ONNX file can be quantised to int8 then, and compared with the one that was proven.

    Parameters
    ----------
    contents : bert.checkpoints.contents.Checkpoint
    card : bert.checkpoints.cards.Card
    target : Path
        A new directory, made only if the two models agree.
    kind : str
        One of :data:`KINDS`.
    check : Check, optional
        For a fine-tuned model in ``onnx``: makes it int8.
    name : str, optional
        What the result will be called, on the Hub; by default it is the path of ``target``.

    Returns
    -------
    dict of str to float
        The largest difference in each output.
    """
    write, run_witness = KINDS[kind]
    title = name or target
    # The model comes first: importing MXNet forks, which tokenizers object to once in use.
    model = witnesses.build(contents)
    batch = witnesses.make_batch(contents)
    expected = witnesses.run_gluon(model, batch)
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    with alone(target), replacing_folder(target.absolute()) as temporary:
        write(temporary, contents)
        if kind != 'onnx':
            written = reading.read(reading.find_parts(temporary))
            comparison.require_equal(contents, written, title)
        witness, found = run_witness(temporary, contents, batch)
        differences = {
            name: comparison.largest_difference(array, expected[name])
            for name, array in found.items()
        }
        listed = ', '.join(f'{name} {value:.1e}' for name, value in differences.items())
        if not all(comparison.is_same(array, expected[name]) for name, array in found.items()):
            raise ToolkitError(
                f'{title} was not written: {witness} gets different outputs from it than this '
                f'project (largest difference: {listed})'
            )
        lines = quantise(temporary, contents, target, check) if check else []
        text = cards.format_card(card, find_use(contents), kind, name or 'DIR')
        cards.write_card(temporary, text)
    show(f'{title}: {describe(contents)}')
    count = len(witnesses.PAIRS)
    show(f'largest difference, this project and {witness}, {count} texts: {listed}', *lines)
    return differences


def quantise(folder, contents, target, check):
    """Quantise ``model.onnx`` in a folder to int8, if its answers stay the same.

    Returns
    -------
    list of str
        Lines about the sizes and the answers.
    """
    path = folder / 'model.onnx'
    expected = int8.compute_logits(path, check.texts, contents)
    before = path.stat().st_size
    int8.quantise(path)
    found = int8.compute_logits(path, check.texts, contents)
    equal, rows, difference = int8.compare_answers(
        expected, found, contents.labels is None, contents.is_multilabel
    )
    answers = f'{equal} of {rows} answers are equal'
    largest = f'largest difference of a score: {difference:.3f}'
    if equal / rows < check.least_equal:
        raise ToolkitError(
            f'{target} was not written: in float32 and in int8 only {answers}, but a share of '
            f'{check.least_equal:g} is needed ({largest})'
        )
    after = path.stat().st_size
    return [
        f'model.onnx: {before / 1e6:.1f} MB in float32, {after / 1e6:.1f} MB in int8',
        f'float32 and int8: {answers} ({equal / rows:.4f}), {largest}',
    ]


def find_use(contents):
    """Return what a model is for, in the words of the Hub, by its heads."""
    if contents.weights.head:
        return cards.CLASSIFICATION
    return cards.MASKED if 'decoder.0.weight' in contents.weights.bert else cards.ENCODER


def describe(contents):
    """Describe a model's size and, if it has a head, what that predicts, in one line."""
    settings = contents.settings
    size = (
        f'{settings["num_layers"]} layers, {settings["units"]} units, '
        f'{settings["vocab_size"]} tokens, {len(contents.weights.bert)} tensors'
    )
    if not contents.weights.head:
        return size
    number = 'any of ' if contents.is_multilabel else ''
    labels = number + ' '.join(contents.labels) if contents.labels else 'a number'
    return f'{size}, a head with {labels}'
