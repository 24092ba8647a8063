"""What the options of OHO do: sets, intervals, resets, limits, transforms."""


import pytest
import torch
from small_trainings import RULES, loss_of, make_problem, online, unrolled
from torch import nn

import oho


def test_sets_have_labels():
    model, _ = make_problem()
    own = {"0.weight": "a", "0.bias": "b", "2.weight": "a", "2.bias": "a"}
    cases = {"global": ("global",), "full": ("0.weight", "0.bias", "2.weight", "2.bias")}
    for sets, labels in cases.items():
        assert oho.OHO(model.named_parameters(), oho.SGD(0.1), sets=sets).set_map.labels == labels
    assert oho.OHO(model.named_parameters(), oho.SGD(0.1), sets=own).set_map.labels == ("a", "b")
    layerwise = oho.OHO(model.named_parameters(), oho.SGD(0.1), sets=oho.Layerwise(2)).set_map
    assert layerwise.labels == ((0, "weight"), (0, "bias"), (1, "weight"), (1, "bias"))
    assert layerwise.of_tensor == (0, 1, 2, 3)


def test_layerwise_keeps_a_layer_together():
    """Scale and shift of a norm are in the group of the convolution they follow, however many layers a group has."""
    layers = [[nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2)] for _ in range(5)]
    model = nn.Sequential(nn.LayerNorm(2), *(module for pair in layers for module in pair), nn.Linear(2, 2))
    set_map = oho.OHO(model.named_parameters(), oho.SGD(0.1), sets=oho.Layerwise(4)).set_map
    groups = [set_map.labels[index][0] for index in set_map.of_tensor]
    assert groups == [0, 0, *(group for group in (0, 0, 1, 2, 2) for _ in range(3)), 3, 3]
    norms = nn.ModuleList([nn.LayerNorm(2) for _ in range(2)])
    assert oho.OHO(norms.parameters(), oho.SGD(0.1), sets=oho.Layerwise(4)).set_map.count == 4


def test_collapsed_sets_of_one_element_keep_their_own_values():
    model = nn.ParameterList([nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(3)])
    rates = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    rule = oho.SGD(rates, tune=("lr",))
    optimizer = oho.OHO(model.parameters(), rule, sets="full", influence="collapsed", meta=oho.MetaSGD(0.0))
    optimizer.step(lambda: sum(p.sum() for p in model))
    assert torch.allclose(torch.cat(list(model)).detach(), 1 - rates)


def test_unrolled_twin_sees_the_sets_it_is_given():
    """The twin of these tests is itself checked: equal values in all sets give the global derivative."""
    optimizer, _ = online(RULES["sgd"], "full")
    values, loss = unrolled(RULES["sgd"], optimizer.set_map)
    (parts,) = torch.autograd.grad(loss, [values["lr"]])
    whole, _ = online(RULES["sgd"], "global")
    assert float(parts.sum()) == pytest.approx(float(whole.hypergradient["lr"]), rel=1e-10)


def test_update_every_skips_meta_steps_but_no_transition():
    model, batches = make_problem()
    rare = oho.OHO(model.parameters(), RULES["sgd"], meta=oho.MetaSGD(0.0), update_every=20)
    calls = []
    for batch in batches[:20]:
        rare.step(lambda b=batch: loss_of(model, b), lambda: calls.append(1) or loss_of(model, batches[-1]))
    always, _ = online(RULES["sgd"], "global")
    assert len(calls) == 1
    assert torch.equal(rare.hypergradient["lr"], always.hypergradient["lr"])


def test_reset_every_forgets():
    optimizer, _ = online(RULES["sgd"], "global", reset_every=20)
    assert float(optimizer.influence_norm()["lr"]) == 0


def test_a_limit_keeps_the_influence_short_where_training_is_unstable():
    """θ hops across a steep valley, |1 − ηa| > 1 at each step: its tangent grows without bound, if nothing limits it."""

    def elasticity(limit):
        theta = nn.Parameter(torch.tensor([0.1, 1.0], dtype=torch.float64))
        rule = oho.SGD(0.1, tune=("lr",))
        optimizer = oho.OHO([theta], rule, meta=oho.MetaSGD(0.0), influence_limit=limit)
        loss = lambda: (10 * theta).cosh().log().sum()  # noqa: E731
        for _ in range(50):
            optimizer.step(loss, loss)
        return 0.1 * float(optimizer.influence_norm()["lr"] / theta.detach().norm()), optimizer.shortened

    free, never = elasticity(None)
    limited, often = elasticity(1.0)
    assert never == 0
    assert free > 1e3
    assert 0 < often <= 50
    assert limited <= 1 + 1e-12
    assert elasticity(1e300) == (free, 0)


def test_a_nan_validation_loss_skips_the_meta_step_and_is_counted():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), meta=oho.MetaSGD(0.1))
    optimizer.step(lambda: loss_of(model, batches[0]), lambda: loss_of(model, batches[1]) * float("nan"))
    assert optimizer.skipped["hypergradient"] == 1
    assert float(optimizer.hyper["lr"]) == 0.1
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_before_the_first_meta_step_there_is_no_hypergradient():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1))
    optimizer.step(lambda: loss_of(model, batches[0]))
    assert bool(optimizer.hypergradient["lr"].isnan().all())


def test_a_weight_decay_of_zero_can_be_tuned_on_a_logarithm():
    model, _ = make_problem()
    assert float(oho.OHO(model.parameters(), oho.SGD(0.1)).hyper["weight_decay"]) == 1e-5
    bounds = {"weight_decay": (1e-4, 1.0)}
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), meta=oho.MetaAdam(0.1, bounds=bounds))
    assert float(optimizer.hyper["weight_decay"]) == 1e-4
    raw = oho.OHO(model.parameters(), oho.SGD(0.1), meta=oho.MetaSGD(0.1))
    assert float(raw.hyper["weight_decay"]) == 0
