"""Make the tiny models beside this file with the libraries that define their formats.

    python tests/data/checkpoints/make.py transformers    # needs torch too
    python tests/data/checkpoints/make.py gluonnlp
    python tests/data/checkpoints/make.py tensorflow      # after transformers

Every folder holds random weights as the library writes them, and ``expected.npz``: a batch and the
outputs of the library's own model. The TensorFlow checkpoint has the weights of ``hf_pretraining``
under the variable names of google-research/bert.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SIZES = {
    'num_hidden_layers': 2,
    'hidden_size': 8,
    'intermediate_size': 12,
    'num_attention_heads': 2,
    'max_position_embeddings': 24,
    'type_vocab_size': 2,
}
WORDS = ['the', 'bank', 'said', 'man', 'no', 'why', 'it', '.', ',', '?', '##s', '##ing', 'play']
TOKENS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS]


def batch():
    """Return (3, 9) ids, (3, 9) token types and (3,) valid lengths."""
    rng = np.random.default_rng(0)
    ids = rng.integers(5, len(TOKENS), (3, 9))
    types = (np.arange(9) >= np.array([[4], [6], [3]])).astype(np.int64)
    return ids, types, np.array([9, 7, 4])


def fresh(name):
    """Make an empty folder for a model."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def save_expected(folder, **outputs):
    ids, types, lengths = batch()
    np.savez(folder / 'expected.npz', ids=ids, types=types, lengths=lengths, **outputs)


def write_vocab(folder):
    (folder / 'vocab.txt').write_text(''.join(f'{token}\n' for token in TOKENS))


def make_transformers():
    import torch
    import transformers

    def config(**more):
        # ten times the usual range, so that the outputs depend on the inputs
        return transformers.BertConfig(
            **SIZES, vocab_size=len(TOKENS), initializer_range=0.2, **more
        )

    def run(model):
        ids, types, lengths = (torch.from_numpy(array) for array in batch())
        mask = (torch.arange(9) < lengths[:, None]).long()
        with torch.no_grad():
            outputs = model.eval()(
                ids, attention_mask=mask, token_type_ids=types, output_hidden_states=True
            )
        names = ('pooler_output', 'prediction_logits', 'seq_relationship_logits', 'logits')
        found = {name: outputs[name].numpy() for name in names if name in outputs}
        return {**found, 'last_hidden_state': outputs.hidden_states[-1].numpy()}

    def shake(model):
        """Disturb all parameters, as biases and LayerNorms are 0 or 1 throughout at first."""
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        return model

    torch.manual_seed(1)
    for name, model in {
        'hf_encoder': transformers.BertModel(config(hidden_act='gelu_new')),
        'hf_pretraining': transformers.BertForPreTraining(config()),
        'hf_masked_lm': transformers.BertForMaskedLM(config()),
        'hf_classifier': transformers.BertForSequenceClassification(
            config(id2label={0: 'neutral', 1: 'yes', 2: 'no'}, label2id={})
        ),
        'hf_regressor': transformers.BertForSequenceClassification(
            config(num_labels=1, problem_type='regression')
        ),
        'hf_sharded': transformers.BertModel(config()),
    }.items():
        folder = fresh(name)
        model = shake(model)
        size = {'max_shard_size': '4KB'} if name == 'hf_sharded' else {}
        model.save_pretrained(folder, **size)
        save_expected(folder, **run(model))
        if name == 'hf_encoder':
            # The tokenizer as transformers 5 writes it: no vocab.txt.
            write_vocab(folder)
            transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)
            (folder / 'vocab.txt').unlink()
        else:
            write_vocab(folder)

    # As converted in 2018 and 2019: old names, a prefix, the heads, PyTorch's own format.
    folder = fresh('hf_2018')
    model = shake(transformers.BertForPreTraining(config()))
    tensors = {
        name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace(
            'LayerNorm.bias', 'LayerNorm.beta'
        ): tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save(tensors, folder / 'pytorch_model.bin')
    sizes = {**SIZES, 'vocab_size': len(TOKENS), 'hidden_act': 'gelu'}
    (folder / 'config.json').write_text(json.dumps(sizes))
    write_vocab(folder)
    save_expected(folder, **run(model))


def make_gluonnlp():
    if 'bool' not in vars(np):
        np.bool = np.bool_  # which MXNet uses
    import gluonnlp as nlp
    import mxnet as mx
    from mxnet.gluon import nn

    # The ids of the zoo's vocabularies; by itself GluonNLP chooses different ones in each run.
    specials = ['[UNK]', '[PAD]', '[CLS]', '[SEP]', '[MASK]']
    vocab = nlp.vocab.BERTVocab(
        nlp.data.count_tokens(WORDS),
        token_to_idx={token: i for i, token in enumerate([*specials, *WORDS])},
    )

    def bert(**heads):
        model, _ = nlp.model.get_model(
            'bert_12_768_12',
            dataset_name=None,
            vocab=vocab,
            pretrained=False,
            hparam_allow_override=True,
            num_layers=2,
            units=8,
            embed_size=8,
            hidden_size=12,
            num_heads=2,
            max_length=24,
            **heads,
        )
        return model

    class Regression(mx.gluon.HybridBlock):
        """The model of the original's own script, which GluonNLP itself does not have."""

        def __init__(self, bert):
            super().__init__()
            self.bert = bert
            with self.name_scope():
                self.regression = nn.HybridSequential()
                self.regression.add(nn.Dropout(0.1), nn.Dense(1))

        def __call__(self, inputs, token_types, valid_length=None):
            return super().__call__(inputs, token_types, valid_length)

        def hybrid_forward(self, F, inputs, token_types, valid_length=None):
            return self.regression(self.bert(inputs, token_types, valid_length)[1])

    def write_description(folder, old=False):
        content = json.loads(vocab.to_json())
        if old:
            # The shape of December 2018.
            content.update(content.pop('identifiers_to_tokens'))
            content['bos_token'] = content['eos_token'] = None
        (folder / 'tiny.vocab').write_text(json.dumps(content))
        sizes = {**SIZES, 'vocab_size': len(vocab)}
        (folder / 'config.json').write_text(json.dumps(sizes))

    mx.random.seed(1)
    ids, types, lengths = (mx.nd.array(array) for array in batch())
    positions = mx.nd.array(np.tile(np.arange(9), (3, 1)))
    every = {'use_pooler': True, 'use_decoder': True, 'use_classifier': True}
    none = {name: False for name in every}
    head_names = ['pooler_output', 'seq_relationship_logits', 'prediction_logits']
    for name, heads, block in [
        ('gluon_pretraining', every, None),
        ('gluon_encoder', {**none, 'use_pooler': True}, None),
        ('gluon_without_pooler', none, None),
        ('gluon_masked_lm', {**every, 'use_classifier': False}, None),
        ('gluon_next_sentence', {**every, 'use_decoder': False}, None),
        ('gluon_classifier', {**none, 'use_pooler': True}, 'classifier'),
        ('gluon_classifier_without_dropout', {**none, 'use_pooler': True}, 'plain'),
        ('gluon_regressor', {**none, 'use_pooler': True}, 'regression'),
    ]:
        folder = fresh(name)
        encoder = bert(**heads)
        model = {
            None: lambda e: e,
            'classifier': lambda e: nlp.model.BERTClassifier(e, num_classes=3, dropout=0.1),
            'plain': lambda e: nlp.model.BERTClassifier(e, num_classes=3),
            'regression': Regression,
        }[block](encoder)
        model.initialize(mx.init.Normal(0.2))
        inputs = [ids, types, lengths, *([positions] if heads['use_decoder'] else [])]
        model(*inputs)
        for parameter in model.collect_params().values():
            parameter.set_data(parameter.data() + mx.nd.random.normal(0, 0.1, parameter.shape))
        outputs = encoder(*inputs)
        flags = ('use_pooler', 'use_classifier', 'use_decoder')
        names = [head for head, flag in zip(head_names, flags) if heads[flag]]
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        found = dict(zip(['last_hidden_state', *names], outputs))
        if block:
            found['logits'] = model(*inputs)
        model.save_parameters(str(folder / 'tiny.params'))
        write_description(folder, old=name == 'gluon_encoder')
        save_expected(folder, **{name: array.asnumpy() for name, array in found.items()})


def make_tensorflow():
    import tensorflow.compat.v1 as tf
    from safetensors.numpy import load_file

    names = {
        'cls.predictions.bias': 'cls/predictions/output_bias',
        'cls.seq_relationship.weight': 'cls/seq_relationship/output_weights',
        'cls.seq_relationship.bias': 'cls/seq_relationship/output_bias',
    }
    folder = fresh('google')
    tf.disable_eager_execution()
    for name, tensor in load_file(HERE / 'hf_pretraining' / 'model.safetensors').items():
        target = names.get(name, name.replace('.', '/').replace('layer/', 'layer_'))
        if target.endswith('embeddings/weight'):
            target = target[: -len('/weight')]
        elif 'LayerNorm' in target:
            target = target.replace('weight', 'gamma').replace('bias', 'beta')
        elif target.endswith('/weight'):
            target, tensor = target.replace('/weight', '/kernel'), tensor.T
        tf.get_variable(target, initializer=tensor)
        # Also in a checkpoint of a training run.
        tf.get_variable(f'{target}/adam_m', initializer=0 * tensor)
    tf.get_variable('global_step', initializer=np.int64(1))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(folder / 'bert_model.ckpt'), write_meta_graph=False)
    (folder / 'checkpoint').unlink()
    sizes = {**SIZES, 'vocab_size': len(TOKENS), 'hidden_act': 'gelu'}
    (folder / 'bert_config.json').write_text(json.dumps(sizes))
    write_vocab(folder)
    shutil.copy(HERE / 'hf_pretraining' / 'expected.npz', folder)


if __name__ == '__main__':
    for library in sys.argv[1:]:
        globals()[f'make_{library}']()
