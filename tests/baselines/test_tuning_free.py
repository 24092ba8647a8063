"""Tuning-free methods train a real task, repeat to the bit, and evaluate what their packages say must be evaluated."""

import copy
import gc
import importlib.util
import math
from functools import partial

import pytest
import torch
from torch import nn

from baselines.training import Training
from baselines.tuning_free import MechanicOptions
from bench.experiment.registries import METHODS, TASKS
from bench.experiment.shipped import spaces
from bench.experiment.yaml_file import read_yaml
from bench.protocol import Dimension, Ledger, Space
from bench.tasks.entry import build_task

SPACE = Space(
    name="narrow",
    hyperparameters={
        "lr": Dimension(low=0.01, high=0.03, log=True),
        "weight_decay": Dimension(low=1e-6, high=1e-4, log=True),
    },
)
NAMES = [name for name in METHODS if METHODS[name].family in ("tuning-free", "one-step")] + ["muon", "soap"]
PACKAGED = sorted(name for name in NAMES if METHODS[name].package)
STARTS = {
    "prodigy": {},
    "d-adaptation": {},
    "dowg": {},
    "muon": {"lr": 0.005},
    "soap": {"lr": 0.005},
    "meta-optimize": {"lr": 0.003},
    "schedule-free-sgd": {"lr": 2.0},
    "schedule-free-adamw": {"lr": 0.01},
    "dog": {},
    "ldog": {},
    "mechanic": {},
    "mechanic, sgd": {"base": "sgd"},
    "gdtuo": {"lr": 0.003},
    "gdtuo, sgd": {"lr": 0.1, "base": "sgd"},
    "hypergradient-descent": {"lr": 0.3},
    "hdm": {"lr": 0.01},
    "osgm": {},
    "hdm, scalar": {"lr": 0.01, "scaling": "scalar"},
}
REACHED = {"osgm": 0.99}
"""Part of the untrained loss.  OSGM takes a network to be smoother than it is, and most of its first steps are refused."""
LATE = {"dog": 200, "ldog": 200, "gdtuo, sgd": 150}
"""The steps until it is reached, where 100 are not enough."""
AVERAGING = ["schedule-free-sgd", "schedule-free-adamw", "dog", "ldog"]


def options_of(case, **values):
    name = case.partition(",")[0]
    options = METHODS[name].options
    if options.package:
        pytest.importorskip(options.package.module.partition(".")[0])
    return options(**{"weight_decay": 1e-5, **STARTS[case], **values})


@pytest.fixture(scope="module")
def task():
    return build_task("digits-mlp", TASKS["digits-mlp"], TASKS["digits-mlp"].defaults, device=torch.device("cpu"))[0]


def trained(task, options, *, steps, chunk=25):
    method = Training(options, SPACE)
    state = method.init(task, 0)
    while state.step < steps:
        method.advance(state, steps=min(chunk, steps - state.step), progress=0.0, ledger=Ledger())
    return state


def weights(model):
    return copy.deepcopy(model.state_dict())


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def updates(options, task, model, *, count):
    """A stepper in the middle of a training, and the model's parameters after each of its updates."""
    stepper, batches, points = options.stepper(model), task.train_batches(0), []
    stepper.training()
    for step in range(count):
        stepper.step(partial(task.training_loss, model, batches.at(step)), None)
        points.append(weights(model))
    return stepper, points


def test_every_method_is_tried():
    assert {case.partition(",")[0] for case in STARTS} == set(NAMES)


@pytest.mark.parametrize("case", STARTS)
def test_trains(case, task):
    state = trained(task, options_of(case), steps=LATE.get(case, 100))
    untrained = task.evaluate(task.model(0), task.validation)[0].loss
    assert state.curve[-1] < REACHED.get(case, 0.4) * untrained
    assert all(math.isfinite(value) for value in state.hyper.values())


@pytest.mark.parametrize("case", [case for case in STARTS if "," in case])
def test_repeats_to_the_bit_however_often_it_is_looked_at(case, task):
    """The contract asks this of every method as it is by default; these are the other cases."""
    options = options_of(case)
    assert same(*(weights(trained(task, options, steps=30, chunk=chunk).model) for chunk in (25, 10)))


@pytest.mark.parametrize("case", STARTS)
def test_weight_decay_shrinks_the_weights(case, task):
    without, strong = (trained(task, options_of(case, weight_decay=value), steps=30) for value in (0.0, 0.2))
    sizes = [sum(value.square().sum() for value in weights(state.model).values()) for state in (without, strong)]
    assert sizes[1] < sizes[0]


def test_the_shipped_space_has_the_law_of_decoupled_weight_decay_where_it_is_decoupled():
    """Such a decay is multiplied by the learning rate of Adam, and an L2 penalty by that of SGD."""
    content = read_yaml(spaces()["fair"]).content
    fair = Space.model_validate(content)
    laws = {name: fair.of(name).hyperparameters["weight_decay"] for name in NAMES}
    decoupled = {"muon", "soap", "meta-optimize", "schedule-free-adamw", "prodigy", "d-adaptation", "mechanic"}
    assert {name for name, law in laws.items() if law == fair.of("adamw").hyperparameters["weight_decay"]} == decoupled
    assert MechanicOptions().base == "adamw"


@pytest.mark.parametrize("name", NAMES)
def test_open_values_are_drawn_and_replaced(name):
    options = METHODS[name].options()
    assert options.optimizer_name == name
    open_values = Training(options, SPACE).open
    assert open_values == list(options.values())
    assert open_values[-1] == "weight_decay"
    drawn = dict.fromkeys(open_values, 0.02)
    assert options.replace(drawn).values() == drawn


@pytest.mark.parametrize("name", AVERAGING)
def test_an_average_is_evaluated_and_training_goes_on_where_it_was(name, task):
    model = task.model(0)
    stepper, points = updates(options_of(name), task, model, count=40)
    stepper.evaluation()
    assert not same(weights(model), points[-1])
    stepper.training()
    assert same(weights(model), points[-1])


@pytest.mark.parametrize("name", ["dog", "ldog"])
def test_dog_averages_with_polynomially_decaying_weights(name, task):
    model = task.model(0)
    stepper, points = updates(options_of(name), task, model, count=30)
    average = {key: torch.zeros_like(value) for key, value in points[0].items()}
    for number, point in enumerate(points, start=1):
        share = 9 / (8 + number)
        average = {key: (1 - share) * value + share * point[key] for key, value in average.items()}
    stepper.evaluation()
    for key, value in weights(model).items():
        torch.testing.assert_close(value, average[key], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("layer", "distance"), [(nn.BatchNorm1d(4), 1e-4), (nn.Tanh(), 1e-6)])
def test_dog_begins_as_its_package_suggests_for_the_model(layer, distance):
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(3, 4), layer), torch.randn(8, 3)

    def first_rate(**values):
        own = copy.deepcopy(model)
        stepper = options_of("dog", **values).stepper(own)
        stepper.step(lambda: own(inputs).exp().mean(), None)
        return stepper.hyper()["lr"]

    assert first_rate() == first_rate(initial_distance=distance) != first_rate(initial_distance=3 * distance)


def test_prodigy_prints_nothing(task, capsys):
    trained(task, options_of("prodigy"), steps=2)
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("case", ["gdtuo", "gdtuo, sgd"])
def test_gdtuo_equals_its_packages_own_loop(case, task):
    """The example of its README, with a backward pass that is itself differentiable."""
    options = options_of(case, weight_decay=0.0)
    from gradient_descent_the_ultimate_optimizer import gdtuo

    _, points = updates(options, task, task.model(0), count=12)
    model, batches = task.model(0), task.train_batches(0)
    base, rate = (gdtuo.SGD, 0.01) if options.base == "sgd" else (gdtuo.Adam, 1e-5)
    wrapper = gdtuo.ModuleWrapper(model, optimizer=base(options.lr, optimizer=gdtuo.SGD(rate)))
    wrapper.initialize()
    for step in range(12):
        wrapper.begin()
        loss = task.training_loss(model, batches.at(step))
        wrapper.zero_grad()
        loss.backward(create_graph=True)
        wrapper.step()
    for key, value in weights(model).items():
        torch.testing.assert_close(points[-1][key], value)


def test_gdtuo_moves_a_parameter_in_two_places_as_one():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    before, stepper, inputs = model[0].weight.detach().clone(), options_of("gdtuo").stepper(model), torch.randn(8, 4)
    for _ in range(3):
        stepper.step(lambda: model(inputs).square().mean(), None)
    assert model[2].weight is model[0].weight
    assert not torch.equal(model[0].weight, before)


def test_gdtuo_holds_no_more_after_many_steps(task):
    model = task.model(0)
    stepper, batches, held = options_of("gdtuo").stepper(model), task.train_batches(0), []
    gc.disable()
    try:
        for step in range(60):
            stepper.step(partial(task.training_loss, model, batches.at(step)), None)
            if step in (9, 59):
                tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
                held.append((tensors, depth(next(model.parameters()).grad_fn)))
    finally:
        gc.enable()
    assert held[0] == held[1]


def depth(node):
    return 0 if node is None else 1 + max((depth(following) for following, _ in node.next_functions), default=0)


@pytest.mark.parametrize("name", PACKAGED)
def test_a_missing_package_is_said_before_anything_runs(name, task, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    options = METHODS[name].options
    package = METHODS[name].package
    sentence = f"needs the package {package.distribution}; install it with: pip install 'oho-bench[baselines]'"
    assert package.missing == sentence
    drawn = dict.fromkeys(options().values(), 0.01)
    with pytest.raises(ValueError, match="needs the package") as raised:
        options().replace(drawn).stepper(task.model(0))
    assert str(raised.value) == sentence


def test_other_methods_need_no_package():
    assert [METHODS[name].package for name in ("hdm", "meta-optimize", "dowg", "muon", "fixed")] == [None] * 5


@pytest.mark.parametrize(("name", "times"), [("prodigy", 1e3), ("mechanic", 1)])
def test_a_schedule_multiplies_what_the_package_finds(name, times, task):
    """After some steps at full rate, one at the cosine's end moves nothing, one at its start as much as without it.

    Mechanic's scale goes on changing and moves what it multiplies.
    """
    moved = {}
    for schedule, progress in (("constant", 0.5), ("cosine", 0.0), ("cosine", 1 - 1e-9)):
        method = Training(options_of(name, schedule=schedule), SPACE)
        state = method.init(task, 0)
        assert state.spans_budget == (schedule == "cosine")
        method.advance(state, steps=10, progress=0.0, ledger=Ledger())
        before = nn.utils.parameters_to_vector(state.model.parameters()).detach().clone()
        method.advance(state, steps=1, progress=progress, ledger=Ledger())
        after = nn.utils.parameters_to_vector(state.model.parameters()).detach()
        moved[schedule, progress] = float((after - before).norm())
    constant, first, last = moved.values()
    assert first == constant > times * last
