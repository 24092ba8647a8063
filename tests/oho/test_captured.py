"""A captured step is the eager one, bit for bit, and what no graph can repeat is refused.

There is no GPU here: the stand-in holds each step to what a graph asks of it, that nothing is asked of a tensor above all.
"""

from functools import cache

import pytest
import torch
from small_trainings import RULES, make_problem
from torch.nn import functional

import oho

STEPS = 10
CASES = {
    "default": {},
    "momentum, full": {"rule": RULES["momentum"], "sets": "full", "meta": oho.MetaAdam(0.01)},
    "adamw": {"rule": RULES["adamw"]},
    "collapsed": {"rule": RULES["adam"], "sets": "full", "influence": "collapsed", "influence_limit": 0.1},
    "twice": {"rule": RULES["nesterov"], "curvature": "double_backward", "discount": 0.9},
    "layers apart": {"rule": oho.SGD(0.1, 1e-2), "sets": oho.Layerwise(2), "update_every": 2, "reset_every": 5},
    "noisy": {"rule": oho.SGD(0.1, 1e-2, temperature=1e-4)},
    "own groups": {"groups": True, "rule": oho.Adam(0.01, 1e-2, tune=("lr", "weight_decay", "beta2"))},
    "smoothed": {"rule": oho.SGD(0.1, 1e-2), "smoothed": True},
    "explodes": {"rule": oho.SGD(1e3, 1e-2), "meta": oho.MetaSGD(0.1)},
    "explodes, kept": {"rule": oho.Momentum(1e3, 1e-2), "meta": oho.MetaSGD(0.1), "on_nonfinite": "skip"},
    "narrow": {"rule": oho.SGD(0.1, 1e-2), "dtype": torch.bfloat16},
}
SLOW = ("collapsed", "twice", "explodes, kept", "narrow")


class Training:
    """One of the cases; `loss` and `valid` are losses of a batch."""

    def __init__(self, rule=RULES["sgd"], groups=False, smoothed=False, dtype=torch.float64, **options):
        self.model, batches = make_problem()
        self.model.to(dtype)
        self.batches = [(x.to(dtype), y) for x, y in batches]
        parameters = self.model.named_parameters()
        if groups:
            weights, biases = ([p for p in self.model.parameters() if p.ndim == axes] for axes in (2, 1))
            parameters = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
        if smoothed:
            options["loss"] = oho.LossHyper(label_smoothing=0.1, rate=0.01)
        if rule.temperature:
            options["generator"] = torch.Generator().manual_seed(0)
        self.optimizer = oho.OHO(parameters, rule, **options)

        self.loss = self.smoothed_loss if smoothed else self.valid

    def valid(self, x, y):
        return functional.cross_entropy(self.model(x), y)

    def smoothed_loss(self, x, y, hyper):
        return oho.losses.cross_entropy(self.model(x), y, **hyper)

    def pair(self, step):
        return self.batches[step % 8], self.batches[8 + step % 8]

    def eager(self, step):
        batch, held_out = self.pair(step)
        train = lambda *hyper: self.loss(*batch, *hyper)  # noqa: E731
        return self.optimizer.step(train, lambda: self.valid(*held_out))

    def result(self, losses):
        state = self.optimizer.state_dict()
        parts = {f"memory of {name}": memory for name, memory in state.pop("memory").items()}
        parts |= {key: part for key, part in state.items() if isinstance(part, dict)}
        tensors = {(key, name): tensor for key, part in parts.items() for name, tensor in part.items()}
        weights = dict(enumerate(parameter.detach() for parameter in self.model.parameters()))
        return {**tensors, **weights, "losses": torch.stack(losses), "steps": torch.tensor(state["steps"])}


@cache
def usual(case):
    """What a case comes to as users run it."""
    training = Training(**CASES[case])
    return training.result([training.eager(step).clone() for step in range(STEPS)])


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True, msg=str(name))


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in CASES]
)
def test_a_captured_step_gives_the_same(case):
    training = Training(**CASES[case])
    captured = oho.CapturedStep(training.optimizer, training.loss, training.valid, stand_in=True)
    asked = []
    losses = []
    for step in range(STEPS):
        batch, held_out = training.pair(step)
        losses.append(captured(batch, lambda held_out=held_out, step=step: asked.append(step) or held_out).clone())
    assert_same(training.result(losses), usual(case))
    assert len(asked) == STEPS // training.optimizer.update_every


def captured_for(case="default", **changed):
    training = Training(**{**CASES[case], **changed})
    return training, oho.CapturedStep(training.optimizer, training.loss, training.valid, stand_in=True)


def test_a_loaded_state_goes_on():
    first, step = captured_for("momentum, full")
    losses = [step(*first.pair(number)).clone() for number in range(5)]
    other, again = captured_for("momentum, full")
    for number in range(4):
        again(*other.pair(number + 1))
    other.model.load_state_dict(first.model.state_dict())
    other.optimizer.load_state_dict(first.optimizer.state_dict())
    losses += [again(*other.pair(number)).clone() for number in range(5, STEPS)]
    assert_same(other.result(losses), usual("momentum, full"))


def test_values_are_set_and_shown_between_replays():
    training, step = captured_for()
    group = training.optimizer.param_groups[0]
    for number in range(6):
        before = group["lr"]
        step(*training.pair(number))
        assert group["lr"] == float(training.optimizer.hyper["lr"]) != before
    training.optimizer.hyper["lr"] = 0.3
    step(*training.pair(6))
    assert dict(group)["lr"] == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda loss, step, y: loss * (1 if float(loss.detach()) > 0 else 2), "asks the host what a tensor holds"),
        (lambda loss, step, y: loss[(loss > 0).expand(1)[0]].sum(), "asks the host what a tensor holds"),
        (lambda loss, step, y: loss * torch.tensor(2.0), "makes a tensor of Python's numbers"),
        (lambda loss, step, y: loss * (1 + step), "mul is given 5 where 4 was captured: keep the number in a tensor"),
        (lambda loss, step, y: loss * y[step], "mul is given another tensor \\(\\) than was captured"),
        (lambda loss, step, y: loss + loss.square() if step > 4 else loss * 1.5, "it takes another course"),
    ],
)
def test_what_no_graph_can_repeat_is_refused(change, message):
    training, numbers, steps = Training(), [torch.ones(()) for _ in range(9)], []
    loss = lambda x, y: change(training.valid(x, y), len(steps), numbers)  # noqa: E731
    step = oho.CapturedStep(training.optimizer, loss, training.valid, stand_in=True)

    def make_steps():
        for number in range(6):
            step(*training.pair(number))
            steps.append(number)

    with pytest.raises(oho.NotCapturableError, match=message):
        make_steps()
    assert len(steps) >= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average": "schedule-free"}, "average of the weights"),
        ({"on_nonfinite": "raise"}, "on_nonfinite='raise' asks in each step"),
        ({"curvature": "finite_difference"}, "calls the training closure again"),
        ({"stand_in": False}, "a graph needs a CUDA device; the parameters are on cpu"),
        ({"inputs": 3}, r"takes inputs of one kind, \(8, 5\) float64, \(8,\) int64; given \(3, 5\) float64, \(3,\) int64"),
    ],
)
def test_what_cannot_be_captured_says_so(options, message):
    inputs, stand_in = options.pop("inputs", None), options.pop("stand_in", True)
    training = Training(**options)

    def make_two_steps():
        step = oho.CapturedStep(training.optimizer, training.loss, training.valid, stand_in=stand_in)
        step(*training.pair(0))
        step([tensor[:inputs] for tensor in training.pair(1)[0]], training.pair(1)[1])

    with pytest.raises(ValueError, match=message):
        make_two_steps()
