"""Train two classifiers with plain GluonNLP that always answer with class 1.

    python tests/data/class_order/make.py

``2.params`` has two classes and ``3.params`` three. Both have the sizes and the vocabulary of
tests/data/checkpoints/gluon_classifier.
"""

import json
from pathlib import Path

import numpy as np

np.bool = np.bool_  # MXNet 1.9.1 asks for it

import gluonnlp as nlp  # isort: skip  # noqa: E402
import mxnet as mx  # isort: skip  # noqa: E402

HERE = Path(__file__).parent
MODEL = HERE.parent / 'checkpoints' / 'gluon_classifier'


def train(classes):
    mx.random.seed(classes)
    np.random.seed(classes)
    sizes = json.loads((MODEL / 'config.json').read_text())
    encoder = nlp.model.BERTEncoder(
        num_layers=sizes['num_hidden_layers'],
        units=sizes['hidden_size'],
        hidden_size=sizes['intermediate_size'],
        num_heads=sizes['num_attention_heads'],
        max_length=sizes['max_position_embeddings'],
        dropout=0.1,
    )
    bert = nlp.model.BERTModel(
        encoder,
        sizes['vocab_size'],
        token_type_vocab_size=sizes['type_vocab_size'],
        units=sizes['hidden_size'],
        embed_size=sizes['hidden_size'],
        use_pooler=True,
        use_decoder=False,
        use_classifier=False,
    )
    model = nlp.model.BERTClassifier(bert, num_classes=classes, dropout=0.1)
    model.initialize(mx.init.Normal(0.02))
    trainer = mx.gluon.Trainer(model.collect_params(), 'adam', {'learning_rate': 0.02})
    loss_of = mx.gluon.loss.SoftmaxCELoss()
    labels = mx.nd.ones((8,))
    for _ in range(40):
        ids = mx.nd.array(np.random.randint(5, sizes['vocab_size'], (8, 9)))
        types = mx.nd.zeros((8, 9))
        lengths = mx.nd.array(np.random.randint(4, 10, 8))
        with mx.autograd.record():
            loss = loss_of(model(ids, types, lengths), labels).mean()
        loss.backward()
        trainer.step(1)
    print(classes, 'classes, loss', loss.asscalar())
    model.save_parameters(str(HERE / f'{classes}.params'))


if __name__ == '__main__':
    train(2)
    train(3)
