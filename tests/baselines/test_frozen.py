"""Every training moves a network's other layers and leaves a frozen one as it is, bit for bit."""

import pytest
import torch
from torch import nn

from baselines.training import Training
from bench.experiment.registries import METHODS

STEPS = 5
GIVEN = {"weight_decay": 0.1, "lr": 0.01, "milestones": [1]}
TRAININGS = [name for name in METHODS if METHODS[name].build is Training]
CASES = {
    **{name: (name, {}) for name in TRAININGS},
    "fixed, averaged": ("fixed", {"average": 10}),
    "fixed, groups": ("fixed", {"groups": 2}),
    "gdtuo, sgd": ("gdtuo", {"base": "sgd"}),
}


@pytest.mark.parametrize("form", ["stepper", "graph_stepper"])
@pytest.mark.parametrize("case", CASES)
def test_a_frozen_layer_stays_and_the_others_move(case, form):
    name, values = CASES[case]
    entry = METHODS[name]
    if form == "graph_stepper" and not entry.captures:
        pytest.skip("a graph cannot repeat it")
    if entry.package and entry.package.missing:
        pytest.skip(entry.package.missing)
    given = {key: value for key, value in GIVEN.items() if key in entry.options.model_fields}
    options = entry.options.model_validate({**given, **values})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
    model[0].requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    inputs, targets = torch.randn(20, 6), torch.randint(3, (20,))
    stepper = getattr(options, form)(model)
    for _ in range(STEPS):
        stepper.training()
        stepper.step(lambda: nn.functional.cross_entropy(model(inputs), targets), options.initial_lr)
        stepper.evaluation()
    stays = {key: torch.equal(value, before[key]) for key, value in model.state_dict().items()}
    assert stays == {key: key.startswith("0.") for key in before}
