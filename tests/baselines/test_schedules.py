"""Schedules are those of torch.optim.lr_scheduler."""

import pytest
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler as torch_schedules

from baselines import schedules
from baselines.schedules import Place

STEPS, PER_EPOCH = 60, 6


def torch_factors(make, per_epoch=False):
    """The learning rate before each step, the initial one being 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, found = make(optimizer), []
    for step in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if not per_epoch or (step + 1) % PER_EPOCH == 0:
            schedule.step()
    return found


def our_factors(schedule):
    return [schedule.factor(Place(step / STEPS, step, PER_EPOCH)) for step in range(STEPS)]


SAME = {
    "constant": (schedules.Constant(), lambda o: torch_schedules.ConstantLR(o, 1.0), False),
    "step, in steps": (schedules.Step(step_size=7, gamma=0.5), lambda o: torch_schedules.StepLR(o, 7, 0.5), False),
    "step, in epochs": (schedules.Step(step_size=3, unit="epoch"), lambda o: torch_schedules.StepLR(o, 3, 0.1), True),
    "multistep, in steps": (
        schedules.Multistep(milestones=(5, 31), unit="step"), lambda o: torch_schedules.MultiStepLR(o, [5, 31]), False,
    ),
    "multistep, in epochs": (
        schedules.Multistep(milestones=(2, 7)), lambda o: torch_schedules.MultiStepLR(o, [2, 7]), True,
    ),
    "exponential": (schedules.Exponential(gamma=0.8), lambda o: torch_schedules.ExponentialLR(o, 0.8), True),
    "cosine": (schedules.Cosine(), lambda o: torch_schedules.CosineAnnealingLR(o, STEPS), False),
    "warm-up and cosine": (
        schedules.WarmupCosine(warmup=0.2),
        lambda o: torch_schedules.SequentialLR(
            o,
            [torch_schedules.LinearLR(o, 1e-3, 1.0, 12), torch_schedules.CosineAnnealingLR(o, STEPS - 12)],
            milestones=[12],
        ),
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_factor_is_that_of_torch(name):
    schedule, make, per_epoch = SAME[name]
    assert our_factors(schedule) == pytest.approx(torch_factors(make, per_epoch), rel=1e-9, abs=1e-12)


def test_one_cycle_is_that_of_torch():
    """torch counts its peak and its end from the step before, so that both are compared where they fall."""
    cycle = schedules.OneCycle()
    theirs = torch_factors(lambda o: torch_schedules.OneCycleLR(o, 1.0, total_steps=STEPS, cycle_momentum=False))
    rise = 0.3 * STEPS - 1
    ours = [
        cycle.factor(Place(0.3 * s / rise if s < rise else 0.3 + 0.7 * (s - rise) / (STEPS - 1 - rise), s, PER_EPOCH))
        for s in range(STEPS)
    ]
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("milestones", [(), (3, 2), (0, 1), (2, 2)])
def test_milestones_rise(milestones):
    with pytest.raises(ValidationError):
        schedules.Multistep(milestones=milestones)
