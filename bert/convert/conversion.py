"""Write a model as another kind, and prove that the result is the same model."""

from bert.checkpoints import reading, writing
from bert.convert.comparison import is_same, largest_difference, require_equal
from bert.convert.witnesses import (
    PAIRS,
    build,
    check_gluon,
    check_huggingface,
    check_onnx,
    make_batch,
    run_gluon,
    write_onnx,
)
from bert.system.errors import ToolkitError
from bert.system.files import replacing_folder


def convert(contents, target, kind):
    """Write a model as another kind, load it again and run both.

    Returns
    -------
    dict of str to float
        The largest difference of each output.
    """
    write, check = WRITERS[kind]
    # First the model, as the import of MXNet forks, which tokenizers at work do not like.
    model = build(contents)
    batch = make_batch(contents)
    expected = run_gluon(model, batch)
    with replacing_folder(target.absolute()) as temporary:
        write(temporary, contents)
        if kind != 'onnx':
            require_equal(contents, reading.read(reading.find_parts(temporary)), target)
        witness, found = check(temporary, contents, batch)
        differences = {name: largest_difference(found[name], expected[name]) for name in found}
        told = ', '.join(f'{name} {value:.1e}' for name, value in differences.items())
        if not all(is_same(found[name], expected[name]) for name in found):
            raise ToolkitError(
                f'{target} was not written: {witness} gets other outputs from it than this project '
                f'(largest difference: {told})'
            )
    settings = contents.settings
    print(
        f'{target}: {settings["num_layers"]} layers, {settings["units"]} units, '
        f'{settings["vocab_size"]} tokens, {len(contents.weights.bert)} tensors'
        + (f', a head with {describe_labels(contents)}' if contents.weights.head else '')
    )
    print(f'largest difference, this project and {witness}, {len(PAIRS)} texts: {told}')
    return differences


def describe_labels(contents):
    """What the head of a fine-tuned model predicts."""
    return ' '.join(contents.labels) if contents.labels else 'a number'


# By kind: a function that writes a directory, and one that loads and runs it. Each takes the
# folder and the checkpoint, the second one a batch too; it returns who ran it, and the outputs.
WRITERS = {
    'gluon': (writing.write_gluon, check_gluon),
    'hf': (writing.write_huggingface, check_huggingface),
    'onnx': (write_onnx, check_onnx),
}
