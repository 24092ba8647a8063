"""The tape's sweeps against autograd's second backward pass, and what must make a tape be dropped."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from oho.engines.branches import Branches
from oho.engines.curvature import double_backward, pearlmutter, pearlmutter_alone
from oho.engines.tape import Tape
from oho.flat_parameters import flat_parameters

ROUNDING = 1e-13


def network(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*(layer() for layer in layers)).double()


def data(classes=3, features=5):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(8, features, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(classes, (8,), generator=generator)


def wide():
    return network(
        lambda: nn.Linear(5, 4), nn.Tanh, lambda: nn.Linear(4, 4), nn.Sigmoid, lambda: nn.Linear(4, 4), nn.ReLU,
        lambda: nn.Linear(4, 3, bias=False),
    )  # fmt: skip


def compare(parameters, closure, rows=3):
    """Largest relative difference of gradient and products, alone too, and whether the tape answered.

    Branches, which a captured step takes, change nothing.
    """
    flat = flat_parameters(parameters)
    tangents = torch.randn(rows, 1, flat.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with Tape(flat) as tape:
        loss = closure()
    ours, theirs = pearlmutter(closure, flat, tangents), double_backward(closure, flat, tangents)
    assert torch.equal(ours.losses, theirs.losses)
    assert ours.unused == theirs.unused
    branched = pearlmutter(closure, flat, tangents, order=Branches(torch.device("cpu")))
    assert branched.unused == ours.unused
    assert torch.equal(branched.gradient, ours.gradient)
    assert torch.equal(branched.products, ours.products)
    alone = pearlmutter_alone(closure, flat, tangents)
    pairs = [(ours.gradient, theirs.gradient), (ours.products, theirs.products), (alone, theirs.products)]
    return max(float((a - b).norm() / (1e-300 + b.norm())) for a, b in pairs), tape.answers_for(loss)


def loss_on(model, head=functional.cross_entropy):
    inputs, targets = data()
    return lambda: head(model(inputs), targets)


def squared(outputs, targets):
    return functional.mse_loss(outputs, functional.one_hot(targets, 3).double())


KNOWN_HEADS = {
    "cross entropy": functional.cross_entropy,
    "summed": lambda x, y: functional.cross_entropy(x, y, reduction="sum"),
    "some ignored": lambda x, y: functional.cross_entropy(x, y, ignore_index=0),
    "log-softmax and likelihood": lambda x, y: functional.nll_loss(functional.log_softmax(x, dim=1), y),
    "squared error": squared,
    "reshaped": lambda x, y: functional.cross_entropy(x.view(4, 6).reshape(8, 3), y),
    "argmax beside it": lambda x, y: (x.argmax(1) == y).sum() and functional.cross_entropy(x, y),
}


@pytest.mark.parametrize("head", KNOWN_HEADS.values(), ids=KNOWN_HEADS)
def test_known_losses_equal_the_second_backward_pass(head):
    model = wide()
    difference, answered = compare(model.parameters(), loss_on(model, head))
    assert answered
    assert difference < ROUNDING


def test_frozen_and_unused_parameters():
    model, unused = wide(), nn.Linear(2, 2).double()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    model[4].requires_grad_(False)
    difference, answered = compare([*model.parameters(), *unused.parameters()], loss_on(model))
    assert answered
    assert difference < ROUNDING


def test_parameters_left_out_are_constants():
    model = wide()
    difference, _ = compare([model[2].weight, model[6].weight], loss_on(model))
    assert difference < ROUNDING


def test_a_layer_used_twice():
    layer = network(lambda: nn.Linear(5, 5))[0]
    inputs, targets = data(classes=5)
    difference, answered = compare(
        layer.parameters(), lambda: functional.cross_entropy(layer(torch.tanh(layer(inputs))), targets)
    )
    assert answered
    assert difference < ROUNDING


def test_several_sweeps_are_one(monkeypatch):
    model = wide()
    monkeypatch.setattr("oho.engines.sweeps.SWEEP_ELEMENTS", 300)  # two directions at a time
    difference, answered = compare(model.parameters(), loss_on(model), rows=5)
    assert answered
    assert difference < ROUNDING


def test_a_loss_of_one_parameter():
    theta = nn.Parameter(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64))
    difference, answered = compare([theta], lambda: functional.cross_entropy(theta, torch.tensor([1])))
    assert answered
    assert difference < ROUNDING


class Cube(torch.autograd.Function):
    """A function that PyTorch's overrides do not see."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x * x * gradient


def with_inplace(model, inputs):
    hidden = torch.sigmoid(model[0](inputs))
    kept = torch.tanh(model[2](hidden))
    return model[6](model[4](kept).add_(hidden))


def with_dropout(model, inputs):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return model[6](functional.dropout(model[0](inputs), 0.4))


def with_a_change_unseen(model, inputs):
    hidden, other = model[0](inputs), torch.tanh(model[0](inputs))
    with torch.no_grad():
        hidden.add_(other)
    return model[6](hidden)


def with_a_part_detached(model, inputs):
    return model[6](torch.tanh(model[0](inputs)) + torch.sigmoid(model[0](inputs)).detach_())


UNKNOWN = {
    "changed without a graph": with_a_change_unseen,
    "another function": lambda model, x: model(x).exp(),
    "a weight by hand": lambda model, x: model[6](torch.tanh(model[4](x @ model[0].weight.t()))),
    "a function of one's own": lambda model, x: model[6](Cube.apply(model[0](x))),
    "twice the same": lambda model, x: model[6]((hidden := model[0](x)) + hidden),
}
KNOWN = {
    "a residual": lambda model, x: model[6](model[0](x) + model[2](torch.tanh(model[0](x)))),
    "in place": with_inplace,
    "dropout": with_dropout,
    "detached in place": with_a_part_detached,
    "no dropout, a mask": lambda model, x: model[6](functional.dropout(model[0](x), 0.0) * (x[:, :4] > 0) / 0.5),
}


@pytest.mark.parametrize("name", [*KNOWN, *UNKNOWN])
def test_what_the_tape_does_not_know_is_differentiated_all_the_same(name):
    """What layers are joined by it knows."""
    model, forward = wide(), {**KNOWN, **UNKNOWN}[name]
    inputs, targets = data()
    difference, answered = compare(
        model.parameters(), lambda: functional.cross_entropy(forward(model, inputs), targets)
    )
    assert answered is (name in KNOWN)
    assert difference < ROUNDING


def test_odd_arguments_are_left_to_the_second_backward_pass():
    """A bias that is broadcast, a parameter that is two arguments, targets of another type, no examples."""
    inputs, targets = data()
    weight, wide_bias = (nn.Parameter(torch.randn(3, n, dtype=torch.float64)) for n in (5, 1))
    bias = nn.Parameter(torch.randn(1, dtype=torch.float64))
    square = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
    cases = [
        ([weight, bias], lambda: functional.cross_entropy(functional.linear(inputs, weight, bias), targets)),
        ([weight, wide_bias], lambda: functional.cross_entropy(functional.linear(inputs, weight, wide_bias[0]), targets)),
        ([square], lambda: functional.cross_entropy(functional.linear(square, square), torch.tensor([0, 1, 2, 3]))),
        ([weight], lambda: functional.cross_entropy(functional.linear(inputs, weight), targets.to(torch.uint8))),
    ]
    for parameters, closure in cases:
        difference, answered = compare(parameters, closure)
        assert not answered
        assert difference < ROUNDING


HEADS_UNKNOWN = {
    "scaled": lambda x, y: 2 * functional.cross_entropy(x, y),
    "smoothed": lambda x, y: functional.cross_entropy(x, y, label_smoothing=0.1),
    "weighted": lambda x, y: functional.cross_entropy(x, y, weight=torch.ones(3, dtype=torch.float64)),
    "two losses": lambda x, y: functional.cross_entropy(x, y) + functional.mse_loss(x, torch.zeros_like(x)),
}


@pytest.mark.parametrize("head", HEADS_UNKNOWN.values(), ids=HEADS_UNKNOWN)
def test_losses_the_tape_does_not_know(head):
    model = wide()
    difference, answered = compare(model.parameters(), loss_on(model, head))
    assert not answered
    assert difference < ROUNDING


def test_a_hook_on_a_parameter_acts():
    model = wide()
    model[0].weight.register_hook(lambda gradient: 2 * gradient)
    difference, answered = compare(model.parameters(), loss_on(model))
    assert not answered
    assert difference < ROUNDING


def test_a_parameter_that_the_closure_freezes_is_refused():
    model = wide()
    inputs, targets = data()

    def closure():
        model[0].weight.requires_grad_(False)
        return functional.cross_entropy(model(inputs), targets)

    flat = flat_parameters(model.parameters())
    with pytest.raises(ValueError, match="freezes parameters"):
        pearlmutter(closure, flat, torch.ones(1, 1, flat.size, dtype=torch.float64))


def test_a_value_changed_behind_the_tape_is_refused_as_autograd_refuses_it():
    model = wide()
    inputs, targets = data()

    def closure():
        hidden = model[0](inputs)
        loss = functional.cross_entropy(model[6](torch.tanh(hidden)), targets)
        with torch.no_grad():
            model[6].weight.mul_(2.0)
        return loss

    with pytest.raises(RuntimeError, match="inplace"):
        compare(model.parameters(), closure)


def test_a_value_that_is_needed_is_not_overwritten():
    model = wide()
    inputs, targets = data()

    def closure():
        hidden = model[0](inputs)
        after = model[2](hidden)
        hidden += 1
        return functional.cross_entropy(model[6](after + hidden), targets)

    with pytest.raises(RuntimeError, match="inplace"):
        compare(model.parameters(), closure)
