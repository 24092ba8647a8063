"""A task of your own, `task: {name: ./own_task.py:WINES}`: scikit-learn's wines, with a loss and metric that you choose."""

from functools import partial

import torch
from sklearn.datasets import load_wine
from torch import nn
from torch.nn import functional

from bench.protocol import Objective, Split
from bench.tasks import DataSet, Loaded, TaskEntry, TaskOptions


def load(root):
    """Thirteen measurements of 178 wines from three growers; every fifth wine is for the test."""
    raw = load_wine()
    inputs, targets = torch.tensor(raw.data, dtype=torch.float32), torch.tensor(raw.target)
    tested = torch.arange(len(targets)) % 5 == 0
    train, test = (Split(inputs[chosen], targets[chosen]) for chosen in (~tested, tested))
    return Loaded(train, test, "wines", measured=13)  # all thirteen are standardised


def network(options, facts):
    """Sixteen hidden units."""
    return nn.Sequential(nn.Linear(facts.features, 16), nn.Tanh(), nn.Linear(16, facts.outputs))


def doubt(outputs, targets):
    """How far the probability of the right answer is from 1."""
    return 1 - outputs.softmax(1).gather(1, targets[:, None]).squeeze(1)


SMOOTHED = Objective(
    kind="classification", loss=partial(functional.cross_entropy, label_smoothing=0.1), errors=doubt,
    loss_name="smoothed cross-entropy", loss_unit="nats per example", metric_name="doubt", metric_unit="probability",
)  # fmt: skip
OPTIONS = TaskOptions(batch_size=16, validation_size=28, validation_batch_size=28, selection_epochs=2)
WINES = TaskEntry(description="wines", data=DataSet(description="178 wines", load=load), model=network,
                  objective=SMOOTHED, defaults=OPTIONS)  # fmt: skip
