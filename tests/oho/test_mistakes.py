"""A user's mistake is a clear error."""

import pytest
import torch
from test_exact import loss_of, make_problem
from torch import nn

import oho

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


def test_a_model_converted_too_late_is_told_so():
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1))
    model.float()
    with pytest.raises(ValueError, match="then make the optimizer"):
        optimizer.step(lambda: loss_of(model, batches[0]))
