"""Steps on several streams: no two operations race, and the step waits for all of them.

There is no GPU here: streams are fakes that know which operations they order.
"""

import pytest
import torch
from small_trainings import RULES, make_problem
from stream_races import FakeStream, fake_streams
from torch import nn
from torch.nn import functional

import oho
from oho.engines.branches import Branches
from oho.engines.curvature import pearlmutter
from oho.engines.side_stream import SideStream
from oho.flat_parameters import flat_parameters


def perceptron():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
        model.register_parameter("table", nn.Parameter(torch.randn(6, 5)))
        return model.double()


def twice(model, inputs):
    """One layer is used twice."""
    return model[4](torch.tanh(model[2](torch.tanh(model[2](model[0](inputs))))))


def projected(model, inputs):
    """A parameter is the weight of one layer and the input of another one."""
    keys = functional.linear(model[0].weight, model.table)
    return model[4](torch.tanh(model[0](inputs) + keys.transpose(0, 1)))


FORWARDS = {"layers": lambda model, inputs: model(inputs), "twice": twice, "projected": projected}


@pytest.mark.parametrize("elements", [1 << 26, 200])
@pytest.mark.parametrize("forward", FORWARDS)
def test_sweeps_do_not_race(forward, elements, monkeypatch):
    monkeypatch.setattr("oho.engines.sweeps.SWEEP_ELEMENTS", elements)
    model = perceptron()
    parameters = flat_parameters(model.parameters())
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(6, 5, generator=generator, dtype=torch.float64), torch.arange(6) % 3
    tangents = torch.randn(3, 1, parameters.size, generator=generator, dtype=torch.float64)
    closure = lambda: functional.cross_entropy(FORWARDS[forward](model, inputs), targets)  # noqa: E731
    expected = pearlmutter(closure, parameters, tangents)
    with fake_streams(monkeypatch) as races:
        found = pearlmutter(closure, parameters, tangents, order=Branches(torch.device("cpu")))
    assert expected.engine == found.engine == ""
    assert len(races.used) == (3 if elements > 200 else 2)  # nothing is early if there are several sweeps
    assert torch.equal(found.gradient, expected.gradient)
    assert torch.equal(found.products, expected.products)


CASES = {
    "sgd": {"rule": RULES["sgd"]},
    "averaged": {"rule": RULES["adamw"], "average": oho.Recent(), "present_share": 0.5},
    "schedule-free": {"rule": RULES["nesterov"], "average": "schedule-free"},
}


@pytest.mark.parametrize("look_ahead", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_captured_steps_do_not_race(case, look_ahead, monkeypatch):
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), **CASES[case])

    def loss(x, y):
        return functional.cross_entropy(model(x), y)

    with fake_streams(monkeypatch) as races:
        step = oho.CapturedStep(optimizer, loss, loss, look_ahead=look_ahead, stand_in=True)
        for number in range(5):
            step(batches[number], batches[10 + number])
            races.check_joined()
    assert len(races.used) == (5 if look_ahead else 3)


def test_a_step_that_fails_leaves_nothing_behind(monkeypatch):
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), RULES["sgd"])
    failures = iter([False, True, False, False, False, False])

    def loss(x, y):
        return functional.cross_entropy(model(x), y)

    def valid(x, y):
        if next(failures):
            raise ValueError("no validation data")
        return loss(x, y)

    with fake_streams(monkeypatch) as races:
        step = oho.CapturedStep(optimizer, loss, valid, look_ahead=True, stand_in=True)
        step(batches[0], batches[1])
        with pytest.raises(ValueError, match="no validation data"):
            step(batches[0], batches[1])
        for _ in range(4):
            step(batches[0], batches[1])
        races.check_joined()


def test_a_race_is_found(monkeypatch):
    with fake_streams(monkeypatch):
        total, side = torch.zeros(3), SideStream(torch.device("cpu"))
        with side.work():
            total.add_(1)
        with pytest.raises(AssertionError, match="races"):
            total.add_(1)
        side.join()
        total.add_(1)
    with pytest.raises(AssertionError, match="no part in it"):
        FakeStream().wait_stream(FakeStream())
