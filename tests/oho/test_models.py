"""Models and situations a user brings: batch norm, dropout, tied, frozen and unused parameters, members, engines."""

import copy
import io

import pytest
import torch
from test_exact import RULES, loss_of, make_problem, online, relative_error, unrolled
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


@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_state_dict_continues_bit_for_bit(rule):
    model, batches = make_problem()
    options = {"sets": "full", "meta": oho.MetaAdam(0.01), "discount": 0.99}

    def steps(model, optimizer, part):
        for batch in part:
            optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))

    optimizer = oho.OHO(model.parameters(), RULES[rule], **options)
    steps(model, optimizer, batches[:8])
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    steps(model, optimizer, batches[8:16])
    again, _ = make_problem(seed=5)
    resumed = oho.OHO(again.parameters(), RULES[rule], **options)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    steps(again, resumed, batches[8:16])
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, value in optimizer.hyper.items():
        assert torch.equal(value, resumed.hyper[name])


def test_a_state_that_does_not_fit_changes_nothing():
    model, batches = make_problem()
    rule = RULES["momentum"]
    optimizer = oho.OHO(model.parameters(), rule, meta=oho.MetaAdam(0.01))
    for batch in batches[:3]:
        optimizer.step(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1]))
    saved = optimizer.state_dict()
    noise = {"generator": torch.Generator().manual_seed(0)}
    others = {
        "memory": oho.OHO(model.parameters(), rule, meta=oho.MetaSGD(0.1)),
        "generators": oho.OHO(model.parameters(), rule, meta=oho.MetaAdam(0.1), **noise),
        "hyper": oho.OHO(model.parameters(), rule, meta=oho.MetaAdam(0.1), sets="full"),
        "slots": oho.OHO(model.parameters(), oho.SGD(0.05, 1e-2), meta=oho.MetaAdam(0.1)),
    }
    for other in others.values():
        before = other.hyper["lr"].clone()
        with pytest.raises(ValueError, match="state: "):
            other.load_state_dict(saved)
        assert torch.equal(other.hyper["lr"], before)
        assert other.steps == 0
    for key in saved:
        with pytest.raises(ValueError, match=f"no {key}"):
            optimizer.load_state_dict({k: v for k, v in saved.items() if k != key})


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


def test_a_model_converted_too_late_is_told_so():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1))
    model.float()
    with pytest.raises(ValueError, match="then make the optimizer"):
        optimizer.step(lambda: loss_of(model, batches[0]))


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


MISTAKES = {
    "no parameters": (lambda m: oho.OHO([], oho.SGD(0.1)), "parameters"),
    "sets": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), sets="layers"), "global"),
    "too many groups": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), sets=oho.Layerwise(9)), "2"),
    "tune": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1, tune=("momentum",))), "weight_decay"),
    "limit": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), influence_limit=0.0), "above 0"),
    "influence": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), influence="some"), "collapsed"),
    "a class": (lambda m: oho.OHO(m.parameters(), oho.SGD), "instance"),
    "a text": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1, tune="lr")), "tuple"),
    "named twice": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1, tune=("lr", "lr"))), "once"),
    "a torch optimizer": (lambda m: oho.OHO(m.parameters(), torch.optim.SGD(m.parameters(), 0.1)), "oho.SGD"),
    "a meta-rate alone": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=1e-3), "MetaSGD"),
    "a meta-rule's class": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaAdam), "MetaAdam"),
    "upwards": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaSGD(-1e-3)), "0 or more"),
    "a misspelt bound": (
        lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaAdam(0.1, bounds={"learning_rate": (0, 1)})), "lr",
    ),
    "a list of sets": (lambda m: oho.OHO(m.named_parameters(), oho.SGD(0.1), sets=["a"]), "Layerwise"),
    "a set too many": (
        lambda m: oho.OHO(m.named_parameters(), oho.SGD(0.1), sets={**dict(m.named_parameters()), "9.x": "a"}), "9.x",
    ),
    "no names": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), sets=lambda name: name), "named_parameters"),
    "mixed types": (lambda m: oho.OHO([*m.parameters(), nn.Parameter(torch.ones(1))], oho.SGD(0.1)), "float"),
    "out of bounds": (lambda m: oho.OHO(m.parameters(), oho.SGD(-0.1)), "bounds"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_clear_error(mistake):
    make, expected = MISTAKES[mistake]
    model, _ = make_problem()
    with pytest.raises((ValueError, TypeError), match=expected):
        make(model)


@pytest.mark.parametrize("bad", [lambda m, b: m(b[0]), lambda m, b: torch.tensor(1.0), lambda m, b: 1.0])
def test_a_closure_must_return_a_scalar_loss_of_the_parameters(bad):
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1))
    with pytest.raises((ValueError, TypeError)):
        optimizer.step(lambda: bad(model, batches[0]))


def test_a_loss_of_another_model_or_one_already_taken_backward_is_told_so():
    model, batches = make_problem()
    other, _ = make_problem(seed=1)
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1))
    with pytest.raises(ValueError, match="another model"):
        optimizer.step(lambda: loss_of(other, batches[0]))
    with pytest.raises(ValueError, match="another model"):
        optimizer.step(lambda: loss_of(model, batches[0]), lambda: loss_of(other, batches[0]))

    def backward():
        loss = loss_of(model, batches[0])
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="leaves backward"):
        optimizer.step(lambda: loss_of(model, batches[0]), backward)


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


def test_unrolled_twin_sees_the_sets_it_is_given():
    """The twin of these tests is itself checked: equal values in all sets give the global derivative."""
    optimizer, _ = online(RULES["sgd"], "full")
    values, loss = unrolled(RULES["sgd"], optimizer.set_map)
    (parts,) = torch.autograd.grad(loss, [values["lr"]])
    whole, _ = online(RULES["sgd"], "global")
    assert float(parts.sum()) == pytest.approx(float(whole.hypergradient["lr"]), rel=1e-10)


class Signed:
    """A user's rule outside the arithmetic of `oho.dual`: θ' = θ − η tanh(g), the gradient kept in two slots."""

    names = ("lr",)
    slot_names = ("last", "copy")
    counter_names = ()
    clip_norm = clip_value = None
    temperature = 0.0
    tune = ("lr",)

    def __init__(self, lr, squash):
        self.lr, self.squash = lr, squash

    def __call__(self, theta, gradient, slots, hyper, noise=None):
        step = gradient + 0.5 * slots["last"]
        return theta - hyper["lr"] * self.squash(step), {"last": step, "copy": step}


class Averaged:
    """A rule that remembers θ as it was: its slot's tangent is the one it was given."""

    names, slot_names, counter_names = ("lr",), ("previous",), ()
    clip_norm = clip_value = None
    temperature = 0.0
    tune = ("lr",)

    def __init__(self, lr):
        self.lr = lr

    def __call__(self, theta, gradient, slots, hyper, noise=None):
        moved = theta - hyper["lr"] * gradient + 0.3 * (theta - slots["previous"])
        rate = torch.where(theta > 0, hyper["lr"], 0.1 * hyper["lr"])
        return moved - rate * gradient, {"previous": theta}


def test_a_rule_may_keep_what_it_was_given():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), Averaged(0.1), sets="full", meta=oho.MetaSGD(0.0))
    steps = [(lambda b=batch: loss_of(model, b), lambda: loss_of(model, batches[-1])) for batch in batches[:8]]
    report = oho.audit(model, optimizer, steps)
    assert float((report.found["lr"] - report.exact["lr"]).norm() / report.exact["lr"].norm()) < 1e-12


def test_collapsed_sets_of_one_element_keep_their_own_values():
    model = nn.ParameterList([nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(3)])
    rates = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    rule = oho.SGD(rates, tune=("lr",))
    optimizer = oho.OHO(model.parameters(), rule, sets="full", influence="collapsed", meta=oho.MetaSGD(0.0))
    optimizer.step(lambda: sum(p.sum() for p in model))
    assert torch.allclose(torch.cat(list(model)).detach(), 1 - rates)


def test_one_value_a_member_where_there_are_as_many_sets():
    model = nn.ParameterList([nn.Parameter(torch.ones(2, 1)) for _ in range(2)])
    optimizer = oho.OHO(model.parameters(), oho.SGD(torch.tensor([0.1, 0.2])), sets="full", members=2)
    assert torch.equal(optimizer.hyper["lr"], torch.tensor([[0.1, 0.1], [0.2, 0.2]]))


def test_a_closure_that_raises_changes_nothing():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), discount=0.5, meta=oho.MetaSGD(0.0))
    optimizer.step(lambda: loss_of(model, batches[0]))
    before = optimizer.state_dict()["influence"]["theta"]

    def broken():
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="luck"):
        optimizer.step(broken)
    assert torch.equal(optimizer.state_dict()["influence"]["theta"], before)
    assert optimizer.steps == 1


SQUASHES = {
    "our arithmetic": lambda x: x / (1 + x * x),
    "another function": torch.tanh,
    "another operator": lambda x: x / (1 + abs(x)),
    "another option": lambda x: torch.div(x, 2 + x * x, rounding_mode=None),
    "equality": lambda x: x * (1.0 - 0.5 * (x == 0)),
    "comparison": lambda x: torch.where(x >= 0, x, 0.5 * x),
}


@pytest.mark.parametrize("squash", SQUASHES.values(), ids=SQUASHES)
def test_a_users_rule_is_differentiated_whatever_its_arithmetic(squash):
    """Against central differences of the whole training, discounted by nothing; 'last' and 'copy' are one tensor."""

    def final_loss(lr):
        torch.manual_seed(0)
        model = nn.Linear(4, 3).double()
        x, y = torch.randn(16, 4).double(), torch.randint(3, (16,))
        optimizer = oho.OHO(model.parameters(), Signed(lr, squash), meta=oho.MetaSGD(0.0), discount=1.0)
        closure = lambda: nn.functional.cross_entropy(model(x), y)  # noqa: E731
        for _ in range(10):
            optimizer.step(closure, closure)
        return float(closure().detach()), optimizer

    _, optimizer = final_loss(0.1)
    width = 1e-5
    expected = (final_loss(0.1 + width)[0] - final_loss(0.1 - width)[0]) / (2 * width)
    assert float(optimizer.hypergradient["lr"]) == pytest.approx(expected, rel=1e-7)
    tangents = optimizer.state_dict()["slot_influence"]
    assert torch.equal(tangents["last"], tangents["copy"])
    own = optimizer._influence.slots
    assert own["last"].data_ptr() != own["copy"].data_ptr()


def test_blocks_of_columns_change_nothing(monkeypatch):
    def run():
        torch.manual_seed(0)
        model = nn.Linear(40, 30).double()
        x, y = torch.randn(16, 40).double(), torch.randint(30, (16,))
        optimizer = oho.OHO(model.parameters(), oho.Adam(0.01), sets="full", meta=oho.MetaSGD(1e-4))
        closure = lambda: nn.functional.cross_entropy(model(x), y)  # noqa: E731
        for _ in range(5):
            optimizer.step(closure, closure)
        return optimizer.state_dict()["influence"]["theta"]

    whole = run()
    monkeypatch.setattr("oho.influence.BLOCK_ELEMENTS", 1)
    assert torch.equal(run(), whole)


def test_a_mistake_in_a_users_rule_comes_out():
    model = nn.Linear(4, 3)
    optimizer = oho.OHO(model.parameters(), Signed(0.1, lambda x: x + None), meta=oho.MetaSGD(0.0))
    closure = lambda: functional.cross_entropy(model(torch.ones(2, 4)), torch.tensor([0, 1]))  # noqa: E731
    with pytest.raises(TypeError, match="NoneType"):
        optimizer.step(closure, closure)
