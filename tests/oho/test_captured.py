"""A captured step is the eager one, bit for bit, and what no graph can repeat is refused.

There is no GPU here: the stand-in holds each step to what a graph asks of it, that nothing is asked of a tensor above all.
"""

from functools import cache

import pytest
import torch
from small_trainings import RULES, make_problem
from torch.nn import functional

import oho
from oho.stand_in import StandIn

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
    "averaged": {"average": oho.Recent(), "present_share": 0.5, "part": 3},
    "averaged, whole": {"average": oho.Recent(), "present_share": 0.5},
    "in windows": {"average": oho.Recent(), "present_share": 0.5, "part": 3, "tuned_steps": oho.Windows(2, 2, 4)},
    "held": {"rule": RULES["momentum"], "curvature_factor": 0.2, "tuned_after": {"weight_decay": 6}, "part": 3},
    "unused": {"rule": RULES["adamw"], "unused": True},
    "uniform": {"rule": oho.SGD(0.1, 1e-2), "average": oho.Uniform(3), "meta": oho.MetaSGD(1e-3), "discount": 1.0},
    "schedule-free": {"rule": RULES["adamw"], "average": "schedule-free"},
    "dropout": {"dropout": True},
    "own dropout": {"dropout": torch.Generator(), "part": 5, "curvature": "double_backward"},
}
UNKNOWN = torch.Generator()
SLOW = ("collapsed", "twice", "explodes, kept", "narrow", "uniform")


class Training:
    """One of the cases; `loss` and `valid` are losses of a batch, `part` the examples that products are taken from.

    Dropout is PyTorch's own, or draws from a generator that is seeded before each step.
    """

    def __init__(
        self, rule=RULES["sgd"], groups=False, smoothed=False, dtype=torch.float64, part=None, dropout=None, unused=False,
        **options,
    ):
        torch.manual_seed(0)
        self.part, self.dropout, self.places = part, dropout, []
        self.model, batches = make_problem()
        self.model.to(dtype)
        self.batches = [(x.to(dtype), y) for x, y in batches]
        if unused:
            self.model.register_parameter("unused", torch.nn.Parameter(torch.ones(2, dtype=dtype)))
        parameters = self.model.named_parameters()
        if groups:
            weights, biases = ([p for p in self.model.parameters() if p.ndim == axes] for axes in (2, 1))
            parameters = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
        if smoothed:
            options["loss"] = oho.LossHyper(label_smoothing=0.1, rate=0.01)
        if rule.temperature:
            options["generator"] = torch.Generator().manual_seed(0)
        self.optimizer = oho.OHO(parameters, rule, **options)

        self.loss = self.smoothed_loss if smoothed else self.dropout_loss if dropout else self.valid
        self.seeded = [dropout] if isinstance(dropout, torch.Generator) else []

    def valid(self, x, y):
        return functional.cross_entropy(self.model(x), y)

    def placed_valid(self, x, y):
        self.places.append(self.model[0].weight.data_ptr())
        return self.valid(x, y)

    def smoothed_loss(self, x, y, hyper):
        return oho.losses.cross_entropy(self.model(x), y, **hyper)

    def dropout_loss(self, x, y):
        if self.dropout is True:
            return self.valid(functional.dropout(x, 0.3), y)
        return self.valid(x * (torch.rand(x.shape, generator=self.dropout) > 0.3), y)

    def loss_of_part(self, x, y):
        return self.loss(x[: self.part], y[: self.part])

    def captured(self, stand_in=True, **options):
        return oho.CapturedStep(
            self.optimizer, self.loss, self.placed_valid, curvature=self.loss_of_part if self.part else None,
            generators=self.seeded, stand_in=stand_in, **options,
        )  # fmt: skip

    def pair(self, step):
        for generator in self.seeded:
            generator.manual_seed(step)
        return self.batches[step % 8], self.batches[8 + step % 8]

    def eager(self, step):
        batch, held_out = self.pair(step)
        train = lambda *hyper: self.loss(*batch, *hyper)  # noqa: E731
        part = {"curvature_closure": lambda: self.loss_of_part(*batch)} if self.part else {}
        return self.optimizer.step(train, lambda: self.valid(*held_out), **part)

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
    captured = training.captured()
    asked = []
    losses = []
    for step in range(STEPS):
        batch, held_out = training.pair(step)
        losses.append(captured(batch, lambda held_out=held_out, step=step: asked.append(step) or held_out).clone())
    assert_same(training.result(losses), usual(case))
    assert asked == [step for step in range(STEPS) if training.optimizer.is_meta_step(step + 1)]
    assert training.loss is not training.dropout_loss or len({float(loss) for loss in losses}) == STEPS


@pytest.mark.parametrize(
    ("case", "looks"),
    [
        ("momentum, full", True), ("schedule-free", True), ("smoothed", False), ("dropout", True), ("layers apart", True),
        ("averaged, whole", True), ("averaged", False), ("twice", False), ("noisy", False), ("unused", False),
        ("narrow", False),
    ],
)  # fmt: skip
def test_looking_ahead_gives_the_same(case, looks):
    training = Training(**CASES[case])
    captured, own = training.captured(look_ahead=True), training.model[0].weight.data_ptr()
    losses = [captured(*training.pair(step)).clone() for step in range(STEPS)]
    assert_same(training.result(losses), usual(case))
    assert (own in training.places[1:]) is not looks
    assert training.model[0].weight.data_ptr() == own


def captured_for(case="default", **changed):
    training = Training(**{**CASES[case], **changed})
    return training, training.captured()


@pytest.mark.parametrize("case", ["momentum, full", "schedule-free"])
def test_a_loaded_state_goes_on(case):
    first, step = captured_for(case)
    losses = [step(*first.pair(number)).clone() for number in range(5)]
    other, again = captured_for(case)
    for number in range(4):
        again(*other.pair(number + 1))
    other.model.load_state_dict(first.model.state_dict())
    other.optimizer.load_state_dict(first.optimizer.state_dict())
    losses += [again(*other.pair(number)).clone() for number in range(5, STEPS)]
    assert_same(other.result(losses), usual(case))


def test_a_batch_that_is_one_tensor_is_not_taken_for_its_rows():
    training, step = captured_for()
    with pytest.raises(TypeError, match=r"a batch is a sequence of tensors, such as \(inputs, targets\); given one tensor"):
        step(training.batches[0][0])


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
        (lambda loss, step, y: loss * torch.rand((), generator=UNKNOWN), "a generator that the graph does not know"),
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


def test_a_step_that_cannot_be_captured_says_so_again_and_can_be_made_eagerly():
    training = Training()
    asks = lambda x, y: training.valid(x, y) * (1 if training.valid(x, y).item() > 0 else 2)  # noqa: E731
    step = oho.CapturedStep(training.optimizer, asks, training.valid, stand_in=True)
    losses = [step(*training.pair(number)).clone() for number in range(3)]
    for _ in range(2):
        with pytest.raises(oho.NotCapturableError, match="asks the host what a tensor holds"):
            step(*training.pair(3))
    step.release()
    losses += [training.eager(number).clone() for number in range(3, STEPS)]
    usual = Training()
    own, usual.loss = usual.loss, lambda x, y: usual.valid(x, y) * 1
    expected = [usual.eager(number).clone() for number in range(3)]
    usual.loss = own
    expected += [usual.eager(number).clone() for number in range(3, STEPS)]
    assert_same(training.result(losses), usual.result(expected))


def test_a_capture_that_broke_is_not_begun_again(monkeypatch):
    """As CUDA's, which then complains of what the first one has left."""

    class Broken(StandIn):
        captures = iter(["the first reason", "its remains"])

        def capture(self, function):
            raise oho.NotCapturableError(next(self.captures))

    monkeypatch.setattr("oho.graphs.StandIn", Broken)
    captured = oho.Captured(lambda: torch.ones(1), torch.device("cpu"), stand_in=True)
    assert [float(captured()) for _ in range(3)] == [1.0, 1.0, 1.0]
    for _ in range(2):
        with pytest.raises(oho.NotCapturableError, match="the first reason"):
            captured()
    assert not captured.is_captured


def test_a_capture_that_broke_leaves_the_number_of_steps(monkeypatch):
    class Broken(StandIn):
        def capture(self, function):
            function()
            raise oho.NotCapturableError("it broke at its end")

    monkeypatch.setattr("oho.graphs.StandIn", Broken)
    training = Training()
    step = oho.CapturedStep(training.optimizer, training.loss, training.valid, stand_in=True)
    for number in range(3):
        step(*training.pair(number))
    with pytest.raises(oho.NotCapturableError, match="it broke at its end"):
        step(*training.pair(3))
    assert training.optimizer.steps == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": True, "part": 4}, "its curvature closure draws from PyTorch's own generators"),
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
        step = training.captured(stand_in=stand_in)
        step(*training.pair(0))
        step([tensor[:inputs] for tensor in training.pair(1)[0]], training.pair(1)[1])

    with pytest.raises(ValueError, match=message):
        make_two_steps()


@pytest.mark.parametrize("released", [False, True])
def test_an_eager_step_is_eager_again_after_captured_ones(released):
    """Its curvature closure draws masks here, which the step takes back; those of a graph stay."""
    first, step = captured_for("averaged")
    for number in range(5):
        step(*first.pair(number))
    if released:
        step.release()
    other = Training(**CASES["averaged"])
    other.model.load_state_dict(first.model.state_dict())
    other.optimizer.load_state_dict(first.optimizer.state_dict())

    def eager_steps(training):
        torch.manual_seed(3)
        training.loss_of_part = lambda x, y: training.valid(functional.dropout(x[:4], 0.3), y[:4])
        losses = [training.eager(number).clone() for number in (5, 6)]
        return training.result([*losses, torch.rand(()).to(losses[0])])

    assert_same(eager_steps(first), eager_steps(other))
    if not released:
        step(*first.pair(7))


def test_a_released_step_is_captured_anew():
    training, step = captured_for()
    losses = [step(*training.pair(number)).clone() for number in range(5)]
    step.release()
    losses.append(training.eager(5).clone())
    losses += [step(*training.pair(number)).clone() for number in range(6, STEPS)]
    assert_same(training.result(losses), usual("default"))
    step.release()
    step([tensor[:3] for tensor in training.pair(0)[0]], training.pair(0)[1])


def test_another_captured_step_judges_its_own_closures():
    training, step = captured_for("averaged")
    step(*training.pair(0))
    training.loss_of_part = lambda x, y: training.valid(functional.dropout(x[:4], 0.3), y[:4])
    again = training.captured()
    again(*training.pair(1))
    with pytest.raises(ValueError, match="its curvature closure draws from PyTorch's own generators"):
        again(*training.pair(2))


def graph_layer(layout):
    """A network with a matrix of neighbours as a buffer, and the losses of its eager steps."""
    torch.manual_seed(0)
    model, neighbours = torch.nn.Linear(5, 3), (torch.rand(6, 6) > 0.5).float()
    model.register_buffer("neighbours", neighbours.to_sparse() if layout == "sparse" else neighbours)
    optimizer = oho.OHO(model.parameters(), oho.SGD(0.1))
    loss = lambda x, y: functional.cross_entropy(model(model.neighbours @ x), y)  # noqa: E731
    return optimizer, loss, (torch.randn(6, 5), torch.arange(6) % 3)


def test_a_sparse_buffer_is_stepped_with_eagerly_and_refused_by_a_graph():
    found = {}
    for layout in ("dense", "sparse"):
        optimizer, loss, batch = graph_layer(layout)
        closure = lambda loss=loss, batch=batch: loss(*batch)  # noqa: E731
        steps = [optimizer.step(closure, closure, curvature_closure=closure) for _ in range(4)]
        found[layout] = [float(each) for each in steps]
    assert found["sparse"] == pytest.approx(found["dense"], rel=1e-5)
    with pytest.raises(ValueError, match=r"cannot be captured: the model has a sparse buffer \(6, 6\); keep it dense"):
        oho.CapturedStep(optimizer, loss, loss, stand_in=True)
    optimizer, loss, batch = graph_layer("dense")
    other = torch.eye(6).to_sparse()
    step = oho.CapturedStep(optimizer, lambda x, y: loss(other @ x, y), loss, stand_in=True)
    for _ in range(3):
        step(batch, batch)
    with pytest.raises(oho.NotCapturableError, match=r"a tensor \(6, 6\) of layout torch.sparse_coo.*: keep it dense"):
        step(batch, batch)
