"""The hypergradient against the reverse-mode derivative of the whole unrolled training, in float64."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

import oho

STEPS = 20
WIDTHS = {"lr": 3e-5, "weight_decay": 1e-4, "momentum": 3e-4, "beta1": 3e-4, "beta2": 3e-4}
"""Of the central differences: small against each hyperparameter's distance to where the rule changes quickly."""
RULES = {
    "sgd": oho.SGD(0.1, 1e-2),
    "momentum": oho.Momentum(0.05, 1e-2, 0.8, tune=("lr", "weight_decay", "momentum")),
    "nesterov": oho.Momentum(0.05, 1e-2, 0.8, nesterov=True, tune=("lr", "weight_decay", "momentum")),
    "adam": oho.Adam(0.01, 1e-2, tune=("lr", "weight_decay", "beta1", "beta2")),
    "adamw": oho.AdamW(0.01, 1e-2, tune=("lr", "weight_decay", "beta1", "beta2")),
}
SETS = {
    "global": "global",
    "full": "full",
    "layerwise": oho.Layerwise(2),
    "own": {"0.weight": "a", "0.bias": "b", "2.weight": "a", "2.bias": "a"},
}


def make_problem(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        batches = [(torch.randn(8, 5).double(), torch.randint(3, (8,))) for _ in range(STEPS + 1)]
    return model, batches


def loss_of(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


def online(rule, sets, *, make=make_problem, **options):
    """Trains on all batches but the last, hyperparameters held still; returns the optimizer and the parameters."""
    model, batches = make()
    optimizer = oho.OHO(model.named_parameters(), rule, sets=sets, meta=oho.MetaSGD(0.0), **options)
    for batch in batches[:-1]:
        optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))
    return optimizer, [p.detach().clone() for p in model.parameters()]


def unrolled(rule, set_map, *, make=make_problem, shifts=None):
    """The same training as one differentiable function of the hyperparameters; returns them and the final loss."""
    model, batches = make()
    names, like = zip(*model.named_parameters(), strict=True)
    values = {n: torch.full((set_map.count,), getattr(rule, n), dtype=torch.float64) for n in rule.names}
    for name, shift in (shifts or {}).items():
        values[name] = values[name] + shift
    values = {n: v.requires_grad_() for n, v in values.items()}
    pieces = list(zip(set_map.of_tensor, set_map.sizes, strict=True))
    hyper = {n: torch.cat([v[s].expand(size) for s, size in pieces]) for n, v in values.items()}
    theta = torch.cat([p.detach().reshape(-1) for p in like]).requires_grad_()
    slots = {n: torch.zeros_like(theta) for n in (*rule.slot_names, *rule.counter_names)}

    def named(flat):
        parts = flat.split([p.numel() for p in like])
        return {n: part.view(p.shape) for n, part, p in zip(names, parts, like, strict=True)}

    for inputs, targets in batches[:-1]:
        loss = functional.cross_entropy(functional_call(model, named(theta), inputs), targets)
        (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta, slots = rule(theta, gradient, slots, hyper)
    inputs, targets = batches[-1]
    return values, functional.cross_entropy(functional_call(model, named(theta), inputs), targets)


def relative_error(found, exact):
    return float((found - exact).norm() / exact.norm())


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
