"""Trainings and searches whose sets of tensors have values of their own."""

import pytest
import torch
from helpers import experiment

from baselines.training import CosineOptions, FixedOptions, Training
from bench.experiment.registries import TASKS
from bench.experiment.spec import method_of
from bench.experiment.yaml_file import ConfigError
from bench.protocol import Kick
from bench.protocol.ledger import Ledger
from bench.protocol.space import Dimension, Space
from bench.tasks.entry import build_task

SPACE = Space(name="test", hyperparameters={"lr": Dimension(low=1e-4, high=0.2, log=True)})
RATES = [f"lr_{kind}_{group}" for group in (1, 2, 3) for kind in ("weights", "biases")]


def digits():
    entry = TASKS["digits-mlp"]
    return build_task("digits-mlp", entry, entry.defaults, device=torch.device("cpu"))[0]


def trained(options, steps=12):
    method = Training(options, SPACE)
    state = method.init(digits(), 0)
    for step in range(steps):
        method.advance(state, steps=1, progress=step / steps, ledger=Ledger())
    return state


def weights(state):
    return torch.cat([parameter.detach().flatten() for parameter in state.model.parameters()])


def test_equal_values_of_all_sets_train_as_one_does():
    given = {"optimizer": "momentum", "lr": 0.1, "weight_decay": 1e-3}
    one, each = (trained(CosineOptions(**given, groups=groups)) for groups in (None, 3))
    torch.testing.assert_close(weights(each), weights(one))
    assert each.hyper["lr"] == pytest.approx([one.hyper["lr"]] * 6)
    assert each.hyper["weight_decay"] == [1e-3] * 6


def test_each_set_has_its_own_rate():
    values = dict.fromkeys(RATES, 0.0) | {"lr_biases_3": 0.5}
    state = trained(FixedOptions(groups=3, weight_decay=0, of_sets=values))
    before = [parameter.detach() for parameter in digits().model(0).parameters()]
    moved = [not torch.equal(now, then) for now, then in zip(state.model.parameters(), before, strict=True)]
    assert moved == [False] * 5 + [True]


def test_a_search_tries_a_value_for_each_set_drawn_from_the_law_that_they_share(tmp_path):
    over = "methods.0.over={name: fixed, groups: 3}"
    spec = experiment(tmp_path, "random-search", overrides=[over]).specs[0]
    assert spec["method"]["label"] == "Random search: Fixed, 12 values"
    state = method_of(spec).init(digits(), 0)
    assert len(state.point) == len(set(state.point.values())) == 12
    assert all(1e-4 <= state.point[name] <= 2 for name in RATES)
    assert state.hyper["lr"] == [state.point[name] for name in RATES]


def test_a_training_that_was_saved_goes_on_bit_for_bit():
    method, ledger = Training(CosineOptions(groups=2, optimizer="adamw", weight_decay=0.1), SPACE), Ledger()
    state = method.init(digits(), 0)
    method.advance(state, steps=5, progress=0.2, ledger=ledger)
    state.kick(Kick("lr_weights_1", factor=2.0))
    again = method.restored(digits(), 0, state.saved())
    again.model.load_state_dict(state.model.state_dict())
    for each in (state, again):
        method.advance(each, steps=3, progress=0.6, ledger=ledger)
    assert torch.equal(weights(state), weights(again))
    assert state.hyper == again.hyper
    assert state.hyper["lr"][0] / state.options.values()["lr_weights_1"] == pytest.approx(
        state.hyper["lr"][1] / state.options.values()["lr_biases_1"]
    )


def test_names_of_sets_that_there_are_not_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no lr_weights_2; there are lr_weights_1, lr_biases_1, "):
        experiment(tmp_path, "fixed", overrides=["methods.0.groups=1", "methods.0.of_sets={lr_weights_2: 1}"])


def test_more_groups_than_layers_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"Layerwise\(4\): allowed are 1 to 3 groups for this model"):
        Training(FixedOptions(groups=4, weight_decay=0), SPACE).check(digits())
