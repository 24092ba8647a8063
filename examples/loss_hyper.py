"""Hyperparameters of the training loss, tuned while digits are learned from labels of which two in five are wrong.

A weight for each of 1000 training examples (one-step hypergradients), and label smoothing (the influence); 100 examples
with right labels are the validation set.  The learning rate is fixed, so that nothing else makes a difference.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import oho

STEPS, BATCH, WRONG = 100, 100, 0.4

torch.manual_seed(0)
images, digits = load_digits(return_X_y=True)
images, digits = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits)
train, held, test = torch.randperm(len(images)).split([1000, 100, 697])
labels = digits[train]
is_wrong = torch.rand(len(labels)) < WRONG
labels = torch.where(is_wrong, (labels + torch.randint(1, 10, labels.shape)) % 10, labels)


def trained(tune):
    """Trains a network while what `tune` names of its loss is tuned; returns it and its optimizer."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    loss = oho.LossHyper(
        label_smoothing=0.1, example_weights=torch.full((len(train),), 0.5), tune=tune,
        bounds={"example_weights": (0.0, 1.0)}, rate={"example_weights": 0.1},
    )  # fmt: skip
    optimizer = oho.OHO(model.parameters(), oho.SGD(lr=0.5, tune=()), loss=loss)
    for _ in range(STEPS):
        batch = torch.randint(len(train), (BATCH,))
        optimizer.step(
            lambda h, batch=batch: oho.losses.cross_entropy(
                model(images[train[batch]]),
                labels[batch],
                label_smoothing=h["label_smoothing"],
                example_weights=h["example_weights"][batch],
            ),
            lambda: oho.losses.cross_entropy(model(images[held]), digits[held]),
        )
    return model, optimizer


for tune in ((), ("label_smoothing",), ("example_weights",)):
    model, optimizer = trained(tune)
    outputs = model(images[test])
    accuracy = (outputs.argmax(-1) == digits[test]).float().mean().item()
    loss = oho.losses.cross_entropy(outputs, digits[test]).item()
    weights = optimizer.hyper["example_weights"]
    print(f"tuned {' and '.join(tune) or 'nothing'}: test loss {loss:.3f}, accuracy {accuracy:.3f}")
    print(
        f"  label smoothing {float(optimizer.hyper['label_smoothing']):.3f}, mean weight of right labels"
        f" {float(weights[~is_wrong].mean()):.2f}, of wrong ones {float(weights[is_wrong].mean()):.2f}"
    )
