"""`PublishedOHO` against trajectories of the published code, and its distance from the exact derivative."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import oho

GOLDEN = Path(__file__).parent.parent / "golden"
VARIANTS = {"global": ("global", None), "full": ("full", None), "layerwise2": ("layerwise", 2)}
ROUNDING = 1e-12
"""Relative.  300 steps of float64 amplify a last bit to about 1e-15 here."""


@pytest.fixture(scope="module")
def images(mnist_root):
    from torchvision.datasets import MNIST

    data = MNIST(mnist_root, download=False)
    return data.data.double().flatten(1) / 255, data.targets


def network(golden):
    model = nn.Sequential(
        nn.Linear(784, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 10)
    ).double()  # fmt: skip
    with torch.no_grad():
        for layer, index in ((1, 0), (2, 2), (3, 4), (4, 6)):
            model[index].weight.copy_(torch.as_tensor(golden[f"init.layer_{layer}.weight"]))
            model[index].bias.copy_(torch.as_tensor(golden[f"init.layer_{layer}.bias"]))
    return model


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("steps", [20, pytest.param(None, marks=pytest.mark.slow)], ids=["twenty steps", "to the end"])
@pytest.mark.parametrize("name", VARIANTS)
def test_follows_the_published_code(name, steps, images):
    golden = np.load(GOLDEN / f"{name}.npz")
    settings, model, (inputs, targets) = json.loads(str(golden["meta"])), network(golden), images
    variant, n = VARIANTS[name]
    optimizer = oho.PublishedOHO(
        model.parameters(), variant, n, lr=settings["lr"], weight_decay=settings["l2"], meta_lr=settings["mlr"]
    )

    def loss_on(index):
        return functional.cross_entropy(model(inputs[index]), targets[index])

    seen = {"eta": [], "lambda_l2": [], "dFdlr_norm": [], "dFdl2_norm": [], "train_loss": []}
    batches = (golden[part][:steps].astype(int) for part in ("train_index", "valid_index"))
    for train, valid in zip(*batches, strict=True):
        loss = optimizer.step(lambda index=train: loss_on(index), lambda index=valid: loss_on(index))
        norms = optimizer.influence_norm()
        for key, value in (
            ("eta", optimizer.hyper["lr"]),
            ("lambda_l2", optimizer.hyper["weight_decay"]),
            ("dFdlr_norm", norms["lr"]),
            ("dFdl2_norm", norms["weight_decay"]),
            ("train_loss", loss),
        ):
            seen[key].append(value.numpy().copy())
    expected = {key: golden[key][:steps] for key in seen}
    errors = {key: relative_error(np.stack(v).reshape(expected[key].shape), expected[key]) for key, v in seen.items()}
    assert max(errors.values()) < ROUNDING, errors
    if steps is None:
        final = torch.cat([p.detach().flatten() for p in model.parameters()])[::997].numpy()
        assert relative_error(final, golden["final_params"]) < ROUNDING


def test_is_not_the_derivative_of_its_update():
    """After two steps the published λ tangent is about twice the exact one; the η tangents differ little."""
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(16, 4).double(), torch.randint(3, (16,))
    norms = {}
    for name in ("published", "exact"):
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        model.load_state_dict(start.state_dict())
        if name == "published":
            optimizer = oho.PublishedOHO(model.parameters(), lr=0.01, weight_decay=1e-4, meta_lr=0.0)
        else:
            optimizer = oho.OHO(model.parameters(), oho.SGD(0.01, 1e-4), meta=oho.MetaSGD(0.0))
        for _ in range(2):
            closure = lambda model=model: functional.cross_entropy(model(x), y)  # noqa: E731
            optimizer.step(closure, closure)
        norms[name] = {key: float(value) for key, value in optimizer.influence_norm().items()}
    assert norms["published"]["weight_decay"] / norms["exact"]["weight_decay"] == pytest.approx(2, rel=0.02)
    assert norms["published"]["lr"] / norms["exact"]["lr"] == pytest.approx(1, rel=0.05)


def test_state_continues_bit_for_bit():
    torch.manual_seed(0)
    x, y = torch.randn(16, 4), torch.randint(3, (16,))
    model, twin = nn.Linear(4, 3), nn.Linear(4, 3)

    def made(net):
        return oho.PublishedOHO(net.parameters(), "full", lr=0.1, weight_decay=1e-4, meta_lr=1e-2)

    def step(net, optimizer):
        closure = lambda: functional.cross_entropy(net(x), y)  # noqa: E731
        optimizer.step(closure, closure)

    first = made(model)
    for _ in range(3):
        step(model, first)
    twin.load_state_dict(model.state_dict())
    second = made(twin)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(value, second.hypergradient[name]) for name, value in first.hypergradient.items())
    assert float(second.hypergradient["lr"].abs().min()) > 0
    for _ in range(3):
        step(model, first)
        step(twin, second)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert all(torch.equal(first.hyper[name], second.hyper[name]) for name in first.hyper)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, r"lr=-1: allowed is \[0, inf\]"),
        ({"lr": float("nan")}, "lr=nan: must be finite"),
        ({"weight_decay": 5.0}, r"weight_decay=5: allowed is \[0, 0.0002\]"),
        ({"meta_lr": -3.0}, "meta_lr=-3.0: must be a number, 0 or more"),
        ({"meta_lr": float("nan")}, "meta_lr=nan"),
        ({"weight_decay_meta_scale": -1.0}, "weight_decay_meta_scale=-1.0"),
    ],
)
def test_refuses_at_the_start_what_it_refuses_later(options, words):
    with pytest.raises(ValueError, match=words):
        oho.PublishedOHO(nn.Linear(2, 2).parameters(), **{"lr": 0.1, "meta_lr": 0.0} | options)


def test_a_start_at_the_ceiling_is_allowed():
    ceiling = oho.PublishedOHO(nn.Linear(2, 2).parameters(), lr=0.0, weight_decay=2e-4, meta_lr=0.0)
    assert float(ceiling.hyper["weight_decay"]) == pytest.approx(2e-4)


def test_has_the_members_of_its_population_alone():
    population = oho.PublishedOHO([nn.Parameter(torch.ones(3, 2))], lr=0.1, meta_lr=0.0, members=3)
    assert population.member(2).hyper["lr"].shape == (1,)
    for index in (-1, 3):
        with pytest.raises(ValueError, match="allowed are 0 to members - 1"):
            population.member(index)
    with pytest.raises(ValueError, match="members=None"):
        oho.PublishedOHO(nn.Linear(2, 2).parameters(), lr=0.1, meta_lr=0.0).member(0)
    with pytest.raises(ValueError, match="load_members: at least one state"):
        population.load_members([])


@pytest.mark.parametrize(
    ("variant", "n", "words"),
    [("globl", None, "'global', 'full', 'layerwise'"), ("layerwise", None, "n=None"), ("full", 2, "n=2")],
)
def test_refuses(variant, n, words):
    with pytest.raises(ValueError, match=words):
        oho.PublishedOHO(nn.Linear(2, 2).parameters(), variant, n, lr=0.1, meta_lr=0.0)


def test_it_can_be_pickled():
    optimizer = oho.PublishedOHO(nn.Linear(3, 2).parameters(), lr=0.1, weight_decay=1e-4, meta_lr=0.01)
    again = pickle.loads(pickle.dumps(optimizer))
    assert all(torch.equal(value, again.hyper[name]) for name, value in optimizer.hyper.items())
