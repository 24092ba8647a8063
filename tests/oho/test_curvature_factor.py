"""A factor on the Hessian in one hyperparameter's influence, and hyperparameters that are tuned after some steps only."""

import copy

import pytest
import torch
from small_trainings import make_problem
from torch.nn import functional

import oho

RATE, DECAY, FACTOR = 0.1, 0.05, 0.2
CURVATURE = torch.diag(torch.tensor([3.0, 1.0, 0.1], dtype=torch.float64))
TARGET = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def train(model, optimizer, batches, steps):
    """Makes steps, and yields after each of them."""
    for step in steps:
        (x, y), (u, v) = batches[step], batches[step + 8]
        optimizer.step(
            lambda x=x, y=y: functional.cross_entropy(model(x), y), lambda u=u, v=v: functional.cross_entropy(model(u), v)
        )
        yield step


def on_a_quadratic(steps, **options):
    """Tunes nothing on a quadratic loss, and returns the optimizer and the weights before each step."""
    weights = torch.nn.Parameter(torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64))
    optimizer = oho.OHO([weights], oho.SGD(RATE, DECAY), meta=oho.MetaSGD(0.0), **options)
    before = []
    for _ in range(steps):
        before.append(weights.detach().clone())
        optimizer.step(lambda: weights @ CURVATURE @ weights / 2, lambda: (weights - TARGET).square().sum() / 2)
    return optimizer, [*before, weights.detach().clone()]


def test_the_hessian_has_the_factor_in_the_influence_of_the_named_hyperparameter():
    steps = 20
    optimizer, weights = on_a_quadratic(steps, curvature_factor={"weight_decay": FACTOR})
    influence = torch.zeros(3, dtype=torch.float64)
    for theta in weights[:-1]:
        influence = (1 - RATE * DECAY) * influence - FACTOR * RATE * CURVATURE @ influence - RATE * theta
    expected = (weights[-1] - TARGET) @ influence
    torch.testing.assert_close(optimizer.hypergradient["weight_decay"][0], expected, rtol=1e-12, atol=0)
    exact, _ = on_a_quadratic(steps)
    assert torch.equal(optimizer.hypergradient["lr"], exact.hypergradient["lr"])
    assert not torch.allclose(optimizer.hypergradient["weight_decay"], exact.hypergradient["weight_decay"], rtol=0.1)


@pytest.mark.parametrize("rule", [oho.Momentum(0.1, 1e-2), oho.Adam(0.01, 1e-2), oho.AdamW(0.01, 1e-2)])
def test_a_factor_of_one_is_the_derivative_and_one_for_all_is_one_for_each(rule):
    def trained(**options):
        model, batches = make_problem()
        optimizer = oho.OHO(model.parameters(), rule, meta=oho.MetaAdam(0.01), sets=oho.Layerwise(2), **options)
        list(train(model, optimizer, batches, range(6)))
        return optimizer.hypergradient

    def assert_equal(found, expected):
        assert all(torch.equal(found[name], value) for name, value in expected.items())

    assert_equal(trained(curvature_factor=1.0), trained())
    assert_equal(trained(curvature_factor=0.3), trained(curvature_factor=dict.fromkeys(rule.names, 0.3)))


def test_a_hyperparameter_stays_as_it_is_until_its_steps_are_over():
    model, batches = make_problem()
    optimizer = oho.averaged(model.parameters(), oho.SGD(0.1, 1e-2), tuned_after={"weight_decay": 5})
    rates, decays = [], []
    for _ in train(model, optimizer, batches, range(8)):
        rates.append(float(optimizer.hyper["lr"]))
        decays.append(float(optimizer.hyper["weight_decay"]))
    assert len(set(rates)) == 8
    assert len(set(decays[:5])) == 1
    assert len(set(decays[4:])) == 4


def test_a_training_goes_on_from_a_state_saved_while_a_value_is_held():
    model, batches = make_problem()

    def made(model):
        return oho.averaged(model.parameters(), oho.AdamW(0.01, 1e-2), tuned_after={"weight_decay": 5})

    optimizer = made(model)
    list(train(model, optimizer, batches, range(3)))
    copied = copy.deepcopy(model)
    other = made(copied)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    list(train(model, optimizer, batches, range(3, 8)))
    list(train(copied, other, batches, range(3, 8)))
    assert all(torch.equal(optimizer.hyper[name], value) for name, value in other.hyper.items())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), copied.parameters(), strict=True))


@pytest.mark.parametrize("influence", ["exact", "collapsed"])
def test_groups_and_hyperparameters_of_the_loss_keep_their_rows(influence):
    """Only the weight decay's rows change, whatever else has rows before and behind them."""
    model, batches = make_problem()

    def trained(**options):
        own = copy.deepcopy(model)
        loss = oho.LossHyper(label_smoothing=0.1, rate=0.01)
        optimizer = oho.OHO(
            own.named_parameters(), oho.SGD(0.1, 1e-2), sets=oho.Layerwise(2), meta=oho.MetaSGD(0.0), loss=loss,
            influence=influence, **options,
        )  # fmt: skip
        for step in range(6):
            (x, y), (u, v) = batches[step], batches[step + 8]
            optimizer.step(
                lambda h, x=x, y=y: oho.losses.cross_entropy(own(x), y, **h),
                lambda u=u, v=v: functional.cross_entropy(own(u), v),
            )
        return optimizer.hypergradient

    usual, factored = trained(), trained(curvature_factor={"weight_decay": 0.2})
    held = trained(tuned_after={"weight_decay": 6})
    for name in ("lr", "label_smoothing"):
        assert torch.equal(usual[name], factored[name])
        assert torch.equal(usual[name], held[name])
    assert not torch.equal(usual["weight_decay"], factored["weight_decay"])
    assert not held["weight_decay"].any()


def test_only_what_is_tuned_is_held():
    weights = [torch.nn.Parameter(torch.ones(3))]
    assert oho.averaged(weights, oho.SGD(0.1)).held == ("weight_decay",)
    assert oho.averaged(weights, oho.SGD(0.1, tune=("lr",))).held == ()


def test_averaged_gives_the_weight_decay_a_factor_and_leaves_it_alone_at_first():
    weights = [torch.nn.Parameter(torch.ones(3))]
    optimizer = oho.averaged(weights, oho.AdamW(1e-3))
    assert optimizer.curvature_factor == {"weight_decay": 0.2}
    assert optimizer.tuned_after == {"weight_decay": oho.Windows.first}
    assert oho.averaged(weights, oho.SGD(0.1), curvature_factor=1.0, tuned_after={}).curvature_factor == {}


@pytest.mark.parametrize(("options", "kind", "said"), [
    ({"curvature_factor": 2}, ValueError, r"curvature_factor=2 of lr: must lie in \[0, 1\]"),
    ({"curvature_factor": {"momentum": 0.5}}, ValueError, "curvature_factor: SGD has no momentum; it has lr, weight_decay"),
    ({"curvature_factor": {"lr": "half"}}, TypeError, "curvature_factor='half': a number"),
    ({"tuned_after": 400}, TypeError, "tuned_after=400: a mapping from name to steps is expected"),
    ({"tuned_after": {"lr": 1.5}}, TypeError, "tuned_after=1.5 of lr: a whole number"),
    ({"tuned_after": {"lr": -1}}, ValueError, "tuned_after=-1 of lr: must be 0 or more"),
])  # fmt: skip
def test_mistakes_are_named(options, kind, said):
    with pytest.raises(kind, match=said):
        oho.OHO([torch.nn.Parameter(torch.ones(3))], oho.SGD(0.1), **options)
