"""Models a user brings: batch norm, dropout, tied, frozen and unused parameters, members; and every engine."""

import copy

import pytest
import torch
from small_trainings import RULES, loss_of, make_problem, online, relative_error
from torch import nn
from torch.nn import functional

import oho


def stacked_losses(weights, batch):
    """Losses (M,) of M linear models with weights (M, 5, 3)."""
    outputs = torch.einsum("bi,mio->mbo", batch[0], weights)
    return torch.stack([functional.cross_entropy(member, batch[1]) for member in outputs])


@pytest.mark.parametrize("curvature", ["forward_over_reverse", "finite_difference"])
@pytest.mark.parametrize("rule", ["sgd", "momentum", "adam"])
def test_curvature_engines_agree(rule, curvature):
    """Forward mode to rounding; central differences of step 1e-5 to what their O(r²) and ε/r leave."""
    exact, _ = online(RULES[rule], "global")
    other, _ = online(RULES[rule], "global", curvature=curvature)
    tolerance = 1e-10 if curvature == "forward_over_reverse" else 1e-5
    for name in RULES[rule].tune:
        assert relative_error(other.hypergradient[name], exact.hypergradient[name]) < tolerance


def test_clipping_and_noise_are_differentiated():
    """Against a central difference of the whole training, noise held still by its generator."""

    def final_loss(lr, *, tuned):
        model, batches = make_problem()
        rule = oho.SGD(lr, clip_norm=0.3, temperature=1e-4, tune=("lr",) if tuned else ())
        generator = torch.Generator().manual_seed(1)
        optimizer = oho.OHO(model.parameters(), rule, meta=oho.MetaSGD(0.0), generator=generator)
        for batch in batches[:10]:
            optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))
        return optimizer, float(loss_of(model, batches[-1]).detach())

    optimizer, _ = final_loss(0.5, tuned=True)
    high, low = final_loss(0.5 + 1e-6, tuned=False)[1], final_loss(0.5 - 1e-6, tuned=False)[1]
    assert float(optimizer.hypergradient["lr"]) == pytest.approx((high - low) / 2e-6, rel=1e-6)


def test_members_equal_separate_runs_and_a_broken_member_touches_no_other():
    torch.manual_seed(0)
    start = torch.randn(3, 5, 3, dtype=torch.float64)
    batches = [(torch.randn(8, 5).double(), torch.randint(3, (8,))) for _ in range(12)]
    rates = [0.05, 0.5, 0.1]

    def train(weights, lr, members):
        parameter = nn.Parameter(weights.clone())
        meta = oho.MetaAdam(0.01)
        optimizer = oho.OHO([parameter], oho.Momentum(lr, 1e-3), meta=meta, members=members)
        for batch in batches:
            def loss(b=batch):
                losses = stacked_losses(parameter if members else parameter.unsqueeze(0), b)
                return losses if members else losses[0]
            optimizer.step(loss, loss)
        return parameter.detach(), optimizer.hyper["lr"]

    together, learned = train(start, torch.tensor(rates, dtype=torch.float64), 3)
    for member in range(3):
        alone, rate = train(start[member], rates[member], None)
        torch.testing.assert_close(together[member], alone, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(learned[member], rate, rtol=1e-12, atol=1e-14)
    poisoned = start.clone()
    poisoned[1] = float("nan")
    with_broken, _ = train(poisoned, torch.tensor(rates, dtype=torch.float64), 3)
    assert torch.equal(with_broken[[0, 2]], together[[0, 2]])


class Awkward(nn.Module):
    """Batch norm without running statistics, a tied weight, a frozen layer and one nobody uses."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 5, bias=False)  # its gradient would be rounding alone, which Adam amplifies
        self.norm = nn.BatchNorm1d(5, track_running_stats=False)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.unused = nn.Linear(4, 2)
        self.last = nn.Linear(5, 3)
        self.tied = self.first.weight

    def forward(self, inputs):
        hidden = torch.relu(self.norm(self.first(inputs)))
        return self.last(functional.linear(self.frozen(hidden), self.tied))


@pytest.mark.parametrize("rule", ["momentum", "adam", "adamw"])
def test_awkward_models_train_as_with_torch_and_are_exact(rule):
    torch.manual_seed(3)
    model = Awkward().double()
    twin_model = copy.deepcopy(model)
    _, batches = make_problem()
    options = {"lr": 0.05, "weight_decay": 0.1}
    twins = {"momentum": (torch.optim.SGD, {"momentum": 0.9}), "adam": (torch.optim.Adam, {}),
             "adamw": (torch.optim.AdamW, {})}  # fmt: skip
    rules = {"momentum": oho.Momentum, "adam": oho.Adam, "adamw": oho.AdamW}
    optimizer = oho.OHO(model.parameters(), rules[rule](**options), meta=oho.MetaSGD(0.0), sets="full")
    kind, extra = twins[rule]
    twin = kind(twin_model.parameters(), **options, **extra)
    for batch in batches[:10]:
        optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))
        twin.zero_grad()
        loss_of(twin_model, batch).backward()
        twin.step()
    for ours, theirs in zip(model.parameters(), twin_model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert all(bool(values.isfinite().all()) for values in optimizer.hypergradient.values())
    assert optimizer.skipped == {"hypergradient": 0, "influence": 0}


def test_dead_units_under_adam_keep_tangents_finite():
    """Inputs that are always 0 give gradients that are exactly 0: √v has no derivative there."""
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    inputs = torch.zeros(6, 4, dtype=torch.float64)
    inputs[:, 0] = torch.linspace(-1, 1, 6)
    batch = (inputs, torch.tensor([0, 1, 0, 1, 0, 1]))
    optimizer = oho.OHO(model.parameters(), oho.Adam(0.01, tune=("lr", "beta2")), meta=oho.MetaSGD(0.0))
    for _ in range(5):
        optimizer.step(lambda: loss_of(model, batch), lambda: loss_of(model, batch))
    assert all(float(norm) < 1e6 for norm in optimizer.influence_norm().values())
    assert optimizer.skipped["influence"] == 0


def test_one_value_a_member_where_there_are_as_many_sets():
    model = nn.ParameterList([nn.Parameter(torch.ones(2, 1)) for _ in range(2)])
    optimizer = oho.OHO(model.parameters(), oho.SGD(torch.tensor([0.1, 0.2])), sets="full", members=2)
    assert torch.equal(optimizer.hyper["lr"], torch.tensor([[0.1, 0.1], [0.2, 0.2]]))
