"""Muon trains matrices, AdamW the rest, and one schedule moves both."""

import copy

import pytest
import torch
from torch import nn

from baselines.matrix_optimizers import MuonOptions, MuonStepper

RATE, DECAY = 0.01, 0.1


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def loss_of(model):
    return model(torch.arange(7)).square().mean()


def test_muon_trains_all_matrices_but_embeddings_and_the_last_layer(model):
    other = copy.deepcopy(model)
    stepper = MuonOptions(lr=RATE, weight_decay=DECAY).stepper(model)
    matrix = [other[1].weight]
    rest = [parameter for parameter in other.parameters() if parameter is not matrix[0]]
    muon = torch.optim.Muon(matrix, lr=RATE, weight_decay=DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=RATE, weight_decay=DECAY)
    for factor in (1.0, 0.5, 0.25):
        stepper.step(lambda: loss_of(model), factor * RATE)
        for optimizer in (muon, adamw):
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = factor * RATE
        loss_of(other).backward()
        muon.step()
        adamw.step()
    for own, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(own, expected)


def test_a_model_without_hidden_matrices_is_trained_by_adamw_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 3))
    stepper = MuonOptions(lr=RATE, weight_decay=DECAY).stepper(model)
    assert isinstance(stepper, MuonStepper)
    inputs, first = torch.ones(2, 1, 3, 3), copy.deepcopy(model.state_dict())
    stepper.step(lambda: model(inputs).square().mean(), RATE)
    assert all(not torch.equal(value, first[name]) for name, value in model.state_dict().items())
