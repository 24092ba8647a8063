"""The hypergradient against the reverse-mode derivative of the whole unrolled training, in float64."""

import pytest
import torch
from small_trainings import RULES, SETS, STEPS, loss_of, make_problem, online, relative_error, unrolled
from torch import nn

import oho
from oho.engines.comparison import random_direction
from oho.flat_parameters import flat_parameters

WIDTHS = {"lr": 3e-5, "weight_decay": 1e-4, "momentum": 3e-4, "beta1": 3e-4, "beta2": 3e-4}
"""Of the central differences: small against each hyperparameter's distance to where the rule changes quickly."""


@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("rule", RULES)
def test_exact_equals_reverse_mode(rule, sets):
    optimizer, _ = online(RULES[rule], SETS[sets])
    values, loss = unrolled(RULES[rule], optimizer.set_map)
    tuned = RULES[rule].tune
    for name, exact in zip(tuned, torch.autograd.grad(loss, [values[n] for n in tuned]), strict=True):
        assert relative_error(optimizer.hypergradient[name], exact) < 1e-10, name


@pytest.mark.parametrize("rule", RULES)
def test_exact_equals_central_differences(rule):
    """The fourth-order difference of a loss near 1 resolves some 1e-16 / width of the slope; its own error is O(width⁴)."""
    optimizer, _ = online(RULES[rule], "global")
    for name in RULES[rule].tune:
        width = WIDTHS[name]
        near, far = (
            [float(unrolled(RULES[rule], optimizer.set_map, shifts={name: s * k * width})[1].detach()) for s in (1, -1)]
            for k in (1, 2)
        )
        slope = (8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * width)
        assert float(optimizer.hypergradient[name]) == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize("rule", RULES)
def test_meta_rate_zero_is_the_torch_optimizer(rule):
    model, batches = make_problem()
    options = {"lr": RULES[rule].lr, "weight_decay": RULES[rule].weight_decay}
    twin = {
        "sgd": lambda p: torch.optim.SGD(p, **options),
        "momentum": lambda p: torch.optim.SGD(p, momentum=0.8, **options),
        "nesterov": lambda p: torch.optim.SGD(p, momentum=0.8, nesterov=True, **options),
        "adam": lambda p: torch.optim.Adam(p, **options),
        "adamw": lambda p: torch.optim.AdamW(p, **options),
    }[rule](model.parameters())
    for batch in batches[:STEPS]:
        twin.zero_grad()
        loss_of(model, batch).backward()
        twin.step()
    _, found = online(RULES[rule], "full")
    for ours, theirs in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)


def test_hypergradients_of_sets_sum_to_the_global_one():
    whole, _ = online(RULES["momentum"], "global")
    parts, _ = online(RULES["momentum"], "full")
    for name, value in whole.hypergradient.items():
        assert float(parts.hypergradient[name].sum()) == pytest.approx(float(value), rel=1e-10)


def test_collapsed_is_exact_with_one_set_and_biased_with_more():
    exact, _ = online(RULES["sgd"], "global")
    one, _ = online(RULES["sgd"], "global", influence="collapsed")
    assert torch.equal(exact.hypergradient["lr"], one.hypergradient["lr"])
    full, _ = online(RULES["sgd"], "full")
    many, _ = online(RULES["sgd"], "full", influence="collapsed")
    assert relative_error(many.hypergradient["lr"], full.hypergradient["lr"]) > 0.1


def test_quadratic_has_the_closed_form_tangent():
    """On L = a θ²/2 with rate η, θ_T = (1 − ηa)^T θ_0, so dθ_T/dη = −aT (1 − ηa)^(T−1) θ_0."""
    theta = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = oho.OHO([theta], oho.SGD(0.1, tune=("lr",)), meta=oho.MetaSGD(0.0))
    for _ in range(7):
        optimizer.step(lambda: 1.5 * theta.pow(2).sum(), lambda: theta.sum())
    assert float(optimizer.hypergradient["lr"]) == pytest.approx(-3 * 7 * (1 - 0.3) ** 6 * 2, rel=1e-12)


def test_discount_zero_is_the_one_step_hypergradient():
    """Baydin et al.: d = −v · (g + λθ) for the learning rate."""
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), meta=oho.MetaSGD(0.0), discount=0.0)
    for batch in batches[:3]:
        training = torch.autograd.grad(loss_of(model, batch), list(model.parameters()))
        optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))
    validation = torch.autograd.grad(loss_of(model, batches[-1]), list(model.parameters()))
    expected = -sum((v * g).sum() for v, g in zip(validation, training, strict=True))
    assert float(optimizer.hypergradient["lr"]) == pytest.approx(float(expected), rel=1e-12)


def test_a_loss_that_is_linear_in_its_parameters_has_no_curvature():
    """Its gradient depends on tensors that are not the optimizer's alone, and products are made for all rows at once."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk, head = nn.Linear(5, 4).double(), nn.Linear(4, 2).double()
        inputs = torch.randn(8, 5).double()
    optimizer = oho.OHO(head.named_parameters(), oho.SGD(0.1), sets="full", meta=oho.MetaSGD(0.0))
    for _ in range(3):
        optimizer.step(lambda: head(trunk(inputs)).mean(), lambda: head(trunk(inputs)).square().mean())
    gradient = torch.autograd.grad(head(trunk(inputs)).mean(), list(head.parameters()))
    vector = torch.autograd.grad(head(trunk(inputs)).square().mean(), list(head.parameters()))
    for found, g, v in zip(optimizer.hypergradient["lr"].tolist(), gradient, vector, strict=True):
        assert found == pytest.approx(-3 * float((g * v).sum()), rel=1e-12)  # each step moved a parameter by -η g alone


def test_the_direction_of_a_check_is_drawn_on_the_cpu_wherever_tensors_are_made():
    parameters = flat_parameters(make_problem()[0].parameters())
    with torch.device("meta"):
        direction = random_direction(parameters)
    assert torch.equal(direction, random_direction(parameters))
