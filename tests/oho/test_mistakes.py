"""A user's mistake is a clear error."""

import copy
import io
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from small_trainings import loss_of, make_problem
from torch import nn
from torch.nn import functional

import oho

MISTAKES = {
    "no parameters": (lambda m: oho.OHO([], oho.SGD(0.1)), "parameters"),
    "sets": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), sets="layers"), "global"),
    "too many groups": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), sets=oho.Layerwise(9)), "2"),
    "tune": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1, tune=("momentum",))), "weight_decay"),
    "limit": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), influence_limit=0.0), "above 0"),
    "influence": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), influence="some"), "collapsed"),
    "a class": (lambda m: oho.OHO(m.parameters(), oho.SGD), "instance"),
    "nothing to tune": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1, tune=None)), "tune=None: .* \\(\\) tunes nothing"),
    "no transform": (
        lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaAdam(0.1, transform=None)), "transform=None: a word"
    ),
    "one step of what is fixed": (
        lambda m: oho.LossHyper(a=0.1, b=torch.ones(3), tune=("a",), one_step=("b",)), "one_step: b is not tuned"
    ),
    "published layers without biases": (
        lambda m: oho.PublishedOHO(
            nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).parameters(),
            "layerwise", 2, lr=0.1, weight_decay=0.0, meta_lr=0.1,
        ),
        "each group must have weights and biases",
    ),
    "the name of a rule": (lambda m: oho.averaged(m.parameters(), "sgd"), "an instance of oho.SGD, .* given str"),
    "a text": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1, tune="lr")), "tuple"),
    "named twice": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1, tune=("lr", "lr"))), "once"),
    "a torch optimizer": (lambda m: oho.OHO(m.parameters(), torch.optim.SGD(m.parameters(), 0.1)), "oho.SGD"),
    "a meta-rate alone": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=1e-3), "MetaSGD"),
    "a meta-rule's class": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaAdam), "MetaAdam"),
    "upwards": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaSGD(-1e-3)), "0 or more"),
    "a misspelt bound": (
        lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaAdam(0.1, bounds={"learning_rate": (0, 1)})),
        "lr",
    ),
    "a list of sets": (lambda m: oho.OHO(m.named_parameters(), oho.SGD(0.1), sets=["a"]), "Layerwise"),
    "a set too many": (
        lambda m: oho.OHO(m.named_parameters(), oho.SGD(0.1), sets={**dict(m.named_parameters()), "9.x": "a"}),
        "9.x",
    ),
    "no names": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), sets=lambda name: name), "named_parameters"),
    "mixed types": (lambda m: oho.OHO([*m.parameters(), nn.Parameter(torch.ones(1))], oho.SGD(0.1)), "float"),
    "out of bounds": (lambda m: oho.OHO(m.parameters(), oho.SGD(-0.1)), "bounds"),
    "no number": (lambda m: oho.OHO(m.parameters(), oho.SGD("0.1")), "lr='0.1': a number"),
    "a fixed rate below 0": (lambda m: oho.OHO(m.parameters(), oho.SGD(-0.1, tune=())), "lr=-0.1: allowed"),
    "a fixed average of one": (lambda m: oho.OHO(m.parameters(), oho.AdamW(0.1, beta1=1)), "beta1=1: allowed"),
    "a clipping of nothing": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1, clip_norm=-1)), "clip_norm=-1: .* above 0"),
    "an epsilon below 0": (lambda m: oho.OHO(m.parameters(), oho.AdamW(0.1, epsilon=-1)), "epsilon=-1: .* 0 or more"),
    "half a step": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), update_every=2.5), "update_every=2.5: a whole"),
    "an engine": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), curvature="exact"), "allowed are 'pearlmutter', "),
    "a policy": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), on_nonfinite="stop"), "allowed are 'reset', 'skip'"),
    "a count below 0": (
        lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), reset_every=-1), "^reset_every=-1: must be 0 or more$"
    ),
    "a discount in words": (lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), discount="none"), "discount='none': a number"),
    "a method": (lambda m: oho.OHO(m.parameters, oho.SGD(0.1)), "a method was given"),
    "a computed tensor": (lambda m: oho.OHO([m[0].weight * 1], oho.SGD(0.1)), "computed from other"),
    "half a meta-rule": (
        lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=SimpleNamespace(rate=1, step=1)), "no transform, bounds, clip"
    ),
    "a meta-rule that only climbs": (
        lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaAdam(0.1, clip=-1)), "clip=-1 of MetaAdam"
    ),
    "a meta-rule that remembers all": (
        lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaAdam(0.1, beta1=1)), "beta1=1 of MetaAdam"
    ),
    "one bound": (
        lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaAdam(0.1, bounds={"lr": 1})), "given 1"
    ),
    "bounds without a name": (
        lambda m: oho.OHO(m.parameters(), oho.SGD(0.1), meta=oho.MetaAdam(0.1, bounds=(0, 1))), "mapping from name"
    ),
}  # fmt: skip


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


def test_a_step_where_its_work_would_be_lost_is_refused():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), average=oho.Recent())
    optimizer.step(lambda: loss_of(model, batches[0]))
    before = model[0].weight.detach().clone()
    with pytest.raises(RuntimeError, match="leave `with optimizer"), optimizer.averaged():
        optimizer.step(lambda: loss_of(model, batches[0]))
    with pytest.raises(RuntimeError, match="inference_mode"), torch.inference_mode():
        optimizer.step(lambda: loss_of(model, batches[0]))
    assert torch.equal(model[0].weight, before)
    optimizer.step(lambda: loss_of(model, batches[0]))
    assert optimizer.steps == 2


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


@pytest.mark.parametrize("curvature", ["pearlmutter", "double_backward"])
def test_a_closure_whose_graph_is_not_its_own_is_an_error_at_the_first_step(curvature):
    """Because of a backward() inside, or a forward pass outside."""
    model, batches = make_problem()
    outputs = model(batches[0][0])

    def backward():
        loss = loss_of(model, batches[0])
        loss.backward()
        return loss

    for closure in (backward, lambda: functional.cross_entropy(outputs, batches[0][1])):
        optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), curvature=curvature)
        with pytest.raises(RuntimeError, match=r"^[^\n]*a closure computes .* loss inside \(model\(x\) too\)"):
            optimizer.step(closure, closure)


@pytest.mark.parametrize(
    ("returned", "remedy"),
    [
        (lambda loss: {"loss": loss}, r"dict; return its \['loss'\]"),
        (lambda loss: (loss, None), "tuple; return the loss alone"),
        (lambda loss: SimpleNamespace(loss=loss), r"SimpleNamespace; return its \.loss"),
        (lambda loss: loss.item(), r"float; return the loss itself, without \.item\(\)"),
        (lambda loss: loss.repeat(3), r"shape \(3,\); take the mean"),
    ],
)
def test_a_closure_that_returns_more_or_less_than_its_loss_is_told_what_to_return(returned, remedy):
    model, batches = make_problem()
    with pytest.raises((TypeError, ValueError), match=remedy):
        oho.OHO(model.parameters(), oho.SGD(0.1)).step(lambda: returned(loss_of(model, batches[0])))


def test_a_model_converted_too_late_is_told_so():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1))
    model.float()
    with pytest.raises(ValueError, match="then make the optimizer"):
        optimizer.step(lambda: loss_of(model, batches[0]))


def published(model):
    return oho.PublishedOHO(model.parameters(), "full", lr=0.1, weight_decay=1e-4, meta_lr=1e-3)


MAKE = {
    "oho": lambda model: oho.OHO(model.parameters(), oho.Momentum(0.1, 1e-3, tune=("lr",)), sets="full"),
    "published": published,
}


@pytest.mark.parametrize("value", [-3.0, math.nan, math.inf, [0.1, -0.1, 0.1, 0.1], [0.1, 0.1, math.nan, 0.1]], ids=str)
@pytest.mark.parametrize("kind", MAKE)
def test_a_value_out_of_bounds_is_not_assigned(kind, value):
    optimizer = MAKE[kind](make_problem()[0])
    before = optimizer.hyper["lr"].tolist()
    with pytest.raises(ValueError, match=r"lr=.*: (allowed is|must be finite)"):
        optimizer.hyper["lr"] = torch.as_tensor(value)
    assert optimizer.hyper["lr"].tolist() == before


def test_a_value_that_is_not_tuned_is_finite_too():
    optimizer = MAKE["oho"](make_problem()[0])
    with pytest.raises(ValueError, match="momentum=nan: must be finite"):
        optimizer.hyper["momentum"] = math.nan
    with pytest.raises(ValueError, match=r"weight_decay=.*: allowed is \[0, 0.0005\]"):
        published(make_problem()[0]).hyper["weight_decay"] = 1.0


WRITES = {
    "an item": lambda value: value.__setitem__(0, -3.0),
    "an item of a view": lambda value: value[:2].__setitem__(0, -3.0),
    "a method": lambda value: value.mul_(-1),
    "a detached view": lambda value: value.detach().fill_(-3.0),
    "an output": lambda value: torch.neg(value, out=value),
    "many at once": lambda value: torch._foreach_mul_([value], -1.0),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", MAKE)
def test_a_value_cannot_be_written_into(kind, write):
    optimizer = MAKE[kind](make_problem()[0])
    before = optimizer.hyper["lr"].tolist()
    with pytest.raises(TypeError, match=r"assign a whole one.*optimizer.hyper\[name\] = values$"):
        WRITES[write](optimizer.hyper["lr"])
    assert optimizer.hyper["lr"].tolist() == before


def test_a_value_serves_as_any_tensor():
    """It is read, computed with, differentiated through and saved; what comes of it can be written into."""
    model, batches = make_problem()
    optimizer = MAKE["oho"](model)
    optimizer.hyper["lr"] *= 0.5
    assert optimizer.hyper["lr"].tolist() == [0.05] * 4
    value = optimizer.hyper["weight_decay"]
    penalty = value[0] * model[0].weight.square().sum()
    (gradient,) = torch.autograd.grad(penalty, model[0].weight)
    torch.testing.assert_close(gradient, 2e-3 * model[0].weight.detach())
    for free in (value.clone(), value * 1, copy.deepcopy(value)):
        free[0] = -3.0
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    assert type(torch.load(file, weights_only=True)) is torch.Tensor
    optimizer.step(lambda: loss_of(model, batches[0]) + value[0] * model[0].weight.square().sum())
    assert optimizer.hyper["weight_decay"].tolist() == [1e-3] * 4


@pytest.mark.parametrize(("tune", "every", "warned"), [(("lr",), 1, 1), (("lr",), 3, 1), ((), 1, 0)])
def test_a_training_without_validation_loss_is_told_once_that_nothing_is_tuned(tune, every, warned):
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1, tune=tune), update_every=every)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for batch in batches[:6]:
            optimizer.step(lambda b=batch: loss_of(model, b))
    assert len(said) == warned
    assert all("no validation loss is given, without which nothing is tuned" in str(each.message) for each in said)


def test_a_curvature_closure_without_hyperparameters_is_named():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1), loss=oho.LossHyper(scale=1.0))
    valid = lambda: loss_of(model, batches[-1])  # noqa: E731
    with pytest.raises(TypeError, match="the curvature closure must take the hyperparameters of its loss"):
        optimizer.step(lambda h: h["scale"] * loss_of(model, batches[0]), valid, curvature_closure=valid)
