"""The hypergradient of a residual network with batch norm, against the unrolled twin."""

import pytest
import torch
from small_trainings import online, relative_error, unrolled

import oho
from bench.tasks.models import channel_moments, residual_network

STEPS = 3


def make_problem():
    """A ResNet-18 of width 4 in float64 and batches of eight 8x8 images, the last for validation."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.randint(256, (STEPS + 1, 8, 3, 8, 8), dtype=torch.uint8)
        mean, deviation = channel_moments(images[:-1].flatten(0, 1))
        model = residual_network(18, width=4, classes=3, mean=mean, deviation=deviation).double()
        targets = torch.randint(3, (STEPS + 1, 8))
    return model, list(zip(images, targets, strict=True))


@pytest.mark.parametrize(
    ("rule", "sets"),
    [
        (oho.SGD(0.05, 1e-2), "global"),
        pytest.param(oho.SGD(0.05, 1e-2), "full", marks=pytest.mark.slow),
        (oho.Momentum(0.02, 1e-2, 0.8), "global"),
    ],
    ids=["sgd", "sgd-full", "momentum"],
)
def test_exact_through_batch_statistics(rule, sets):
    optimizer, _ = online(rule, sets, make=make_problem)
    assert optimizer.set_map.count == (62 if sets == "full" else 1)
    values, loss = unrolled(rule, optimizer.set_map, make=make_problem)
    for name, exact in zip(rule.tune, torch.autograd.grad(loss, [values[n] for n in rule.tune]), strict=True):
        assert relative_error(optimizer.hypergradient[name], exact) < 1e-10, name
