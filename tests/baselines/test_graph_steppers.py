"""The forms of packages' optimizers that a graph can repeat, in float64 against the packages, along a falling schedule."""

from functools import partial

import pytest
import torch

from baselines.matrix_optimizers import SoapOptions
from baselines.tuning_free import (
    DAdaptationOptions,
    DogOptions,
    LayerwiseDogOptions,
    ProdigyOptions,
    ScheduleFreeAdamWOptions,
    ScheduleFreeOptions,
)
from bench.experiment.registries import TASKS
from bench.tasks.entry import build_task

CASES = {
    "prodigy": (ProdigyOptions(weight_decay=0.1), 1.0),
    "d-adaptation": (DAdaptationOptions(weight_decay=0.1), 1.0),
    "soap": (SoapOptions(lr=3e-3, weight_decay=0.1, every=4), 3e-3),
    "schedule-free-sgd": (ScheduleFreeOptions(lr=1.0, weight_decay=0.1, warmup_steps=7), None),
    "schedule-free-adamw": (ScheduleFreeAdamWOptions(lr=0.01, weight_decay=0.1, beta=0.8), None),
    "dog": (DogOptions(weight_decay=0.1, initial_distance=1e-3), None),
    "ldog": (LayerwiseDogOptions(weight_decay=0.1, initial_distance=1e-3), None),
}


@pytest.fixture
def in_double():
    """Packages make some of their tensors of PyTorch's default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def task():
    options = TASKS["digits-mlp"].defaults.model_copy(update={"width": 8, "hidden_layers": 1})
    return build_task("digits-mlp", TASKS["digits-mlp"], options, device=torch.device("cpu"))[0]


def points(make, task, lr, *, steps=30):
    """The parameters after each step, and last those that are evaluated."""
    model, batches, found = task.model(0).double(), task.train_batches(0), []
    stepper = make(model)
    stepper.training()
    for step in range(steps):
        batch = batches.at(step)
        batch = batch._replace(inputs=batch.inputs.double())
        stepper.step(partial(task.training_loss, model, batch), lr and lr * (1 - step / steps))
        found.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    stepper.evaluation()
    found.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    return torch.stack(found), stepper.hyper()


@pytest.mark.parametrize("case", CASES)
def test_the_steps_are_the_packages(case, task, in_double):
    options, lr = CASES[case]
    if options.package.missing:
        pytest.skip(options.package.missing)
    expected, rates = points(options.stepper, task, lr)
    found, own = points(options.graph_stepper, task, lr)
    assert float((expected[-1] - expected[0]).norm()) > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert own == pytest.approx(rates, rel=1e-9)


@pytest.mark.parametrize("case", ["prodigy", "d-adaptation"])
def test_an_estimate_that_is_not_a_number_leaves_the_distance(case, task):
    options, _ = CASES[case]
    model = task.model(0)
    stepper = options.graph_stepper(model)
    stepper.step(lambda: sum(parameter.sum() for parameter in model.parameters()) * torch.nan, 1.0)
    assert stepper.hyper() == {"lr": 1e-6}
