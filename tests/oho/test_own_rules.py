"""Rules that a user writes, and meta-rules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from small_trainings import RULES, loss_of, make_problem
from torch import nn
from torch.nn import functional

import oho


class Signed:
    """A user's rule outside the arithmetic of `oho.engines.dual`: θ' = θ − η tanh(g), the gradient kept in two slots."""

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
    own = optimizer._recursion.influence.slots
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
    monkeypatch.setattr("oho.influence.SMALLEST_WIDTH", 100)
    assert torch.equal(run(), whole)


def test_a_mistake_in_a_users_rule_comes_out():
    model = nn.Linear(4, 3)
    optimizer = oho.OHO(model.parameters(), Signed(0.1, lambda x: x + None), meta=oho.MetaSGD(0.0))
    closure = lambda: functional.cross_entropy(model(torch.ones(2, 4)), torch.tensor([0, 1]))  # noqa: E731
    with pytest.raises(TypeError, match="NoneType"):
        optimizer.step(closure, closure)


class OnesAtATime(oho.MetaAdam):
    """Our rule with a step of its own, so that each hyperparameter is moved by itself."""

    def step(self, name, gradient, memory):
        return super().step(name, gradient, memory)


@dataclass(frozen=True)
class Counting:
    """A user's meta-rule, whose step is one of its fields and whose memory holds integers."""

    step: Callable
    rate: float = 0.1
    transform: str = "log"
    bounds: Mapping = field(default_factory=dict)
    clip: float | None = None


def counted(name, gradient, memory):
    return -0.1 * gradient.sign(), {"count": memory.get("count", torch.zeros(gradient.shape, dtype=torch.int64)) + 1}


def tuned_by(meta, sets="full", first_is_broken=False):
    model, batches = make_problem()
    optimizer = oho.OHO(model.parameters(), RULES["momentum"], sets=sets, meta=meta)
    for step, batch in enumerate(batches[:6]):
        valid = lambda step=step: loss_of(model, batches[-1]) * (torch.nan if first_is_broken and step == 0 else 1)  # noqa: E731
        optimizer.step(lambda batch=batch: loss_of(model, batch), valid)
    state = optimizer.state_dict()
    return state["hyper"], state["memory"]


@pytest.mark.parametrize("rate", [0.01, torch.tensor([[0.01, 0.02, 0.0, 0.01]], dtype=torch.float64)])
def test_hyperparameters_that_move_together_move_as_they_do_alone(rate):
    torch.testing.assert_close(tuned_by(oho.MetaAdam(rate)), tuned_by(OnesAtATime(rate)), rtol=0, atol=0)


def test_a_meta_rule_of_ones_own():
    _, memory = tuned_by(Counting(counted), first_is_broken=True)
    assert [entries["count"].dtype for entries in memory.values()] == [torch.int64] * 3
    assert all(entries["count"].eq(5).all() for entries in memory.values())
