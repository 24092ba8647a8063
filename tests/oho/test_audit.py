"""The audit: exact runs pass to rounding, approximations show their error, and the run is left untouched."""

import copy
import math

import pytest
import torch
from small_trainings import RULES, SETS, loss_of, make_problem
from torch import nn
from torch.nn import functional

import oho

STEPS = 12


def pairs(model, batches, *, start, count):
    def on(batch):
        return lambda: loss_of(model, batch)

    return [(on(batch), on(batches[-1])) for batch in batches[start : start + count]]


def audited(rule, *, before=0, count=STEPS, dtype=torch.float64, **options):
    """An audit of steps before+1 ... before+count of a run whose hyperparameters move."""
    model, batches = make_problem()
    model = model.to(dtype)
    batches = [(inputs.to(dtype), targets) for inputs, targets in batches]
    options = {"meta": oho.MetaAdam(0.01), **options}
    optimizer = oho.OHO(model.named_parameters(), rule, **options)
    for train, valid in pairs(model, batches, start=0, count=before):
        optimizer.step(train, valid)
    return oho.audit(model, optimizer, pairs(model, batches, start=before, count=count)), optimizer, model


def largest(report):
    """Largest error of a hyperparameter, relative to its hypergradient's norm over the sets."""
    return max(float((report.found[n] - e).norm() / e.norm()) for n, e in report.exact.items())


@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("rule", RULES)
def test_an_exact_run_passes_to_rounding(rule, sets):
    report, _, _ = audited(RULES[rule], sets=SETS[sets])
    assert largest(report) < 1e-11


@pytest.mark.parametrize(
    "options",
    [
        {"discount": 0.9}, {"discount": 0.0}, {"reset_every": 5}, {"reset_every": 12}, {"update_every": 4},
        {"curvature": "forward_over_reverse"},
    ],
    ids=str,
)  # fmt: skip
def test_options_of_the_influence_are_part_of_the_derivative(options):
    report, _, _ = audited(RULES["momentum"], sets="full", **options)
    assert largest(report) < 1e-11


def test_the_influence_carried_in_is_continued():
    report, _, _ = audited(RULES["adam"], before=6, count=6, sets="full")
    assert largest(report) < 1e-11


def test_clipping_and_noise():
    rule = oho.SGD(0.5, 1e-2, clip_norm=0.3, clip_value=0.2, temperature=1e-4)
    report, _, _ = audited(rule, generator=torch.Generator().manual_seed(1))
    assert largest(report) < 1e-11


def test_a_norm_to_which_nothing_is_clipped_leaves_the_derivative_finite():
    report, _, _ = audited(oho.SGD(0.5, 1e-2, clip_norm=math.inf))
    assert largest(report) < 1e-11


def test_a_float32_run_shows_its_rounding_and_no_more():
    report, _, _ = audited(RULES["momentum"], dtype=torch.float32)
    assert 1e-9 < largest(report) < 1e-4


def test_collapsed_influence_shows_its_bias():
    report, _, _ = audited(RULES["sgd"], sets="full", influence="collapsed")
    assert largest(report) > 0.1


def test_the_published_recursion_shows_its_error():
    model, batches = make_problem()
    optimizer = oho.PublishedOHO(model.parameters(), lr=0.1, weight_decay=1e-3, meta_lr=1e-3, weight_decay_max=1.0)
    report = oho.audit(model, optimizer, pairs(model, batches, start=0, count=STEPS))
    # λ enters its tangent twice, so that its hypergradient is about twice too large.
    assert float(report.found["weight_decay"] / report.exact["weight_decay"]) == pytest.approx(2, rel=0.3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_run_is_left_as_it_would_be(dtype):
    _, optimizer, model = audited(RULES["adam"], before=3, count=5, dtype=dtype)
    twin_model, batches = make_problem()
    twin_model = twin_model.to(dtype)
    twin = oho.OHO(twin_model.named_parameters(), RULES["adam"], meta=oho.MetaAdam(0.01))
    for train, valid in pairs(twin_model, [(x.to(dtype), y) for x, y in batches], start=0, count=8):
        twin.step(train, valid)
    for ours, theirs in zip(model.parameters(), twin_model.parameters(), strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, theirs)
    assert torch.equal(optimizer.hyper["lr"], twin.hyper["lr"])
    assert torch.equal(optimizer.state_dict()["influence"]["theta"], twin.state_dict()["influence"]["theta"])


def test_models_with_dropout_batch_norm_and_unused_parameters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 3))
    unused = nn.Linear(2, 2)
    whole = nn.ModuleList([model, unused])
    _, batches = make_problem()
    batches = [(inputs.float(), targets) for inputs, targets in batches]
    optimizer = oho.OHO(whole.parameters(), oho.AdamW(0.01, tune=("lr", "weight_decay", "beta1")), sets="full")
    state = copy.deepcopy(whole.state_dict())
    report = oho.audit(whole, optimizer, pairs(model, batches, start=0, count=6))
    used = slice(0, 6)
    for name, exact in report.exact.items():
        assert float((report.found[name] - exact)[used].norm() / exact[used].norm()) < 1e-3, name
    assert torch.equal(unused.weight, state["1.weight"])
    # Running statistics saw each batch once: the replay has left no trace.
    assert int(model[1].num_batches_tracked) == 12
    assert model[1].running_mean.dtype == torch.float32


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(16, 3)
        self.register_buffer("scale", torch.tensor(0.5, dtype=torch.float64))

    def forward(self, inputs):
        images = nn.functional.pad(inputs, (0, 11)).view(-1, 1, 4, 4)
        hidden = torch.zeros(len(inputs), 4, 2, 2, dtype=inputs.dtype)
        hidden[:] = torch.tanh(self.norm(self.convolution(images)))
        return self.head(hidden.flatten(1)) * self.scale.to(hidden.dtype)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(1, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.head(self.cell(inputs.unsqueeze(-1))[0][:, -1])


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = torch.tanh(self.body(inputs))
        noise = torch.randn(hidden.shape, dtype=hidden.dtype) + torch.rand_like(hidden)
        mask = torch.zeros(hidden.shape)
        mask[:, 0] = 1
        return self.head(hidden + 0.3 * noise * mask)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", [Convolutions, Recurrent, Noisy])
def test_ordinary_models_in_either_type(kind, dtype):
    """float32 models are repeated in float64 with their own random numbers, buffers and the tensors they make."""
    torch.manual_seed(0)
    model = kind().to(dtype)
    scale = getattr(model, "scale", None)
    _, batches = make_problem()

    def loss(batch, *, training):
        model.train(training)
        return functional.cross_entropy(model(batch[0].to(next(model.parameters()).dtype)), batch[1])

    optimizer = oho.OHO(model.parameters(), oho.Momentum(0.05, 1e-3), meta=oho.MetaAdam(0.01))
    steps = [(lambda b=b: loss(b, training=True), lambda: loss(batches[-1], training=False)) for b in batches[:6]]
    report = oho.audit(model, optimizer, steps)
    assert largest(report) < (1e-11 if dtype == torch.float64 else 1e-4)
    assert all(parameter.dtype == dtype for parameter in model.parameters())
    assert getattr(model, "scale", None) is scale


def test_refuses_what_it_cannot_repeat():
    model = nn.Sequential(nn.Linear(5, 4), nn.RReLU(), nn.Linear(4, 3))
    _, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), meta=oho.MetaSGD(0.0))
    with pytest.raises(ValueError, match="rrelu"):
        oho.audit(model, optimizer, pairs(model, [(x.float(), y) for x, y in batches], start=0, count=2))
    assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize("curvature", ["pearlmutter", "forward_over_reverse"])
def test_random_numbers_go_on_as_they_would(curvature):
    """One closure for all steps, drawing masks: the audit replays each call's own, and the run draws on from there."""

    def trained(*, audit):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 3)).double()
        _, batches = make_problem()
        optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), meta=oho.MetaAdam(0.01), curvature=curvature)
        train, valid = pairs(model, batches, start=0, count=1)[0]
        if audit:
            report = oho.audit(model, optimizer, [(train, valid)] * 6)
            assert largest(report) < 1e-11
        for _ in range(2 if audit else 8):
            optimizer.step(train, valid)
        return [p.detach() for p in model.parameters()]

    for ours, theirs in zip(trained(audit=True), trained(audit=False), strict=True):
        assert torch.equal(ours, theirs)


def test_members():
    torch.manual_seed(0)
    weights = nn.Parameter(torch.randn(3, 5, 3, dtype=torch.float64))
    model = nn.ParameterList([weights])
    _, batches = make_problem()

    def on(batch):
        def losses():
            outputs = torch.einsum("bi,mio->mbo", batch[0], weights)
            return torch.stack([functional.cross_entropy(member, batch[1]) for member in outputs])

        return losses

    rates = torch.tensor([0.05, 0.5, 0.1], dtype=torch.float64)
    optimizer = oho.OHO([weights], oho.Momentum(rates, 1e-3), meta=oho.MetaAdam(0.01), members=3)
    report = oho.audit(model, optimizer, [(on(batch), on(batches[-1])) for batch in batches[:8]])
    assert report.exact["lr"].shape == (3, 1)
    assert largest(report) < 1e-11


def test_the_report_is_a_table():
    report, _, _ = audited(RULES["sgd"], sets="full")
    lines = str(report).splitlines()
    assert len(lines) == 1 + 2 * 4 + 1
    assert all(word in lines[0] for word in ("set", "exact", "relative error"))


def test_refuses():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), update_every=5)
    with pytest.raises(ValueError, match="no steps"):
        oho.audit(model, optimizer, [])
    with pytest.raises(ValueError, match="give 2 more"):
        oho.audit(model, optimizer, pairs(model, batches, start=0, count=3))
    with pytest.raises(ValueError, match="not the model's"):
        oho.audit(copy.deepcopy(model), optimizer, pairs(model, batches, start=0, count=5))
    with pytest.raises(TypeError, match="pair"):
        oho.audit(model, optimizer, [lambda: None])
    with pytest.raises(TypeError, match="Sequential"):
        oho.audit(optimizer, model, [])
    with pytest.raises(ValueError, match="tunes nothing"):
        oho.audit(model, oho.OHO(model.parameters(), oho.SGD(0.1, tune=())), pairs(model, batches, start=0, count=1))
    layerwise = oho.PublishedOHO(model.parameters(), "layerwise", 1, lr=0.1, meta_lr=0.0)
    with pytest.raises(ValueError, match="layer-wise"):
        oho.audit(model, layerwise, pairs(model, batches, start=0, count=2))
