"""The card of a pre-trained model: what it was made from, how, and how well it does."""

from pathlib import Path

from bert.checkpoints.cards import (
    MASKED,
    Card,
    describe_source,
    format_card,
    short_name,
    versions,
)
from bert.pretraining.parser import build_flags
from bert.system.files import parse_json
from bert.training.folder import METRICS_FILE


def format_run(args, weights, evaluation):
    """Write the card of a finished run.

    Parameters
    ----------
    args : argparse.Namespace
    weights : bert.checkpoints.contents.Location or None
        Of the model that training began with; None if it was trained from scratch.
    evaluation : dict or None
        Losses and accuracies of held-out data.

    Returns
    -------
    str
    """
    base = describe_source(args.bert_model, args.dataset_name, weights) if weights else Card('')
    training = {
        'weights': args.bert_model if weights else f'random, with the sizes of {args.bert_model}',
        'data': args.data,
        'held-out data': args.data_eval,
        'started from the weights of': args.start_from,
        'steps': args.num_steps,
    }
    parser = build_flags()
    others = {*parser.with_role('by_worker'), 'do_training', 'do_eval', 'log_interval'}
    flags = {name: value for name, value in vars(args).items() if name not in others}
    card = Card(
        name=short_name(args.bert_model),
        base=base.base,
        languages=base.languages,
        license=base.license,
        results=list_results(args.data_eval, evaluation or {}),
        facts={
            'Training': {name: value for name, value in training.items() if value is not None},
            'Last steps of training': last_metrics(Path(args.ckpt_dir)),
            'Flags': {n: v for n, v in flags.items() if v is not None and v is not False},
            'Versions': versions(),
        },
    )
    return format_card(card, MASKED, 'hf')


def last_metrics(folder):
    """Return the losses and accuracies of the last log line of a run, by name."""
    found = {}
    for line in (folder / METRICS_FILE).read_text(encoding='utf8').splitlines():
        values = parse_json(line)
        if 'mlm_loss' in values:
            found = values
    return {n: round(value, 4) for n, value in found.items() if n.endswith(('_loss', '_acc'))}


def list_results(data, metrics):
    """Return the losses and accuracies of held-out data, as a tuple of huggingface_hub.EvalResult.

    Accuracies are shares, as on the Hub.
    """
    from huggingface_hub import EvalResult

    return tuple(
        EvalResult(
            task_type=MASKED,
            dataset_type='text',
            dataset_name=str(data),
            metric_type='accuracy' if name.endswith('_acc') else 'loss',
            metric_name=name,
            metric_value=round(value / 100 if name.endswith('_acc') else value, 4),
        )
        for name, value in metrics.items()
    )
