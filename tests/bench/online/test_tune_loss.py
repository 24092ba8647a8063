"""Hyperparameters of the training loss, tuned by OHO's methods on tasks that offer them."""

import re
from typing import ClassVar

import pytest
import torch
from helpers import experiment, run_one, same, write_config
from images import write_classes
from trainings import CPU, advanced, first_spec, method_and_task, trained

import oho
from bench.command.audit import audit_run
from bench.experiment.expansion import load_experiment
from bench.experiment.spec import task_of
from bench.experiment.yaml_file import ConfigError
from bench.protocol import LossHyperparameter, Objective
from bench.records import read_run, run_id
from bench.tasks import CLASSIFICATION, LANGUAGE
from bench.testing import MethodContract as _Contract  # by another name pytest would run it by itself, too

NAMES = ["label_smoothing", "input_noise"]
START = {"lr": 0.05, "weight_decay": 1e-4}
MOVING = {
    "oho-global": {"meta_rate": 1e-6, "meta_rates": {"label_smoothing": 1e-3, "input_noise": 1e-3}, **START},
    "oho-layerwise": {"meta_rate": 1e-6, **START},
    "oho-full": {"meta_rate": 1e-6, "optimizer": {"name": "momentum", "momentum": 0.5}, **START},
    "oho-default": {"optimizer": {"name": "adamw"}, "lr": 1e-3, "weight_decay": 1e-4},
}


@pytest.mark.parametrize("method", [
    "oho-global", "oho-default", *(pytest.param(name, marks=pytest.mark.slow) for name in ("oho-layerwise", "oho-full")),
])  # fmt: skip
def test_hypergradients_are_exact(method, tmp_path):
    """In float64, against reverse-mode differentiation, from within a run whose values move."""
    spec = first_spec(tmp_path, method, **MOVING[method], tune_loss=NAMES, compare_exact=True)
    _, state = trained(spec, 3, dtype=torch.float64)
    assert all(len(state.hyper[name]) == 1 and state.hyper[name] != [0.1] for name in NAMES)
    if method != "oho-default":  # whose discounted influence is not that of the whole run
        assert max(state.scalars()[f"hypergradient_error_{name}"] for name in NAMES) < 1e-10
    report = oho.audit(state.model, state.optimizer, [state.closures(step) for step in range(3, 8)])
    assert set(report.exact) == {"lr", "weight_decay", *NAMES}
    for name, exact in report.exact.items():
        assert float((report.found[name] - exact).norm() / exact.norm()) < 1e-8, name


@pytest.mark.parametrize("method", ["oho-full", pytest.param("oho-default", marks=pytest.mark.slow)])
def test_a_run_goes_on_bit_for_bit(method, tmp_path):
    spec = first_spec(tmp_path, method, **MOVING[method], tune_loss=NAMES, compare_exact=True)
    method, state = trained(spec, 3)
    other, task = method_and_task(spec)
    restored = other.restored(task, 0, state.saved())
    state, restored = advanced(method, state, 6), advanced(other, restored, 6)
    assert same(state.model.state_dict(), restored.model.state_dict())
    assert state.hyper == restored.hyper
    assert state.scalars() == restored.scalars()


def test_a_recorded_run_is_audited(tmp_path):
    spec = first_spec(tmp_path, "oho-global", **MOVING["oho-global"], tune_loss=NAMES)
    spec |= {"budget": {"unit": "steps", "amount": 10}, "evaluations": 1}
    run_one(spec, tmp_path)
    last = read_run(tmp_path / run_id(spec)).evaluations[-1]
    assert set(last["hyper"]) == {"lr", "weight_decay", *NAMES}
    text = audit_run(tmp_path / run_id(spec), steps=5, at=None, data_root=None)
    errors = {line.split()[0]: float(line.split()[-1]) for line in text.splitlines()[2:-1]}
    assert set(errors) == {"lr", "weight_decay", *NAMES}
    assert max(errors.values()) < 1e-3


def test_a_transplant_trains_with_the_donors_values(tmp_path):
    spec = first_spec(tmp_path, "transplant", epochs=1)
    over = first_spec(tmp_path, "oho-global", **MOVING["oho-global"], tune_loss=NAMES)["method"]
    spec["method"]["over"] = over
    method, task = method_and_task(spec)
    donor, _ = method_and_task({**spec, "method": over})
    found, state, plain = donor.init(task, 1000), method.init(task, 0), donor.init(task, 0)
    first = {name: values[0] for name, values in state.hyper.items()}
    assert first == pytest.approx({**START, "label_smoothing": 0.1, "input_noise": 0.1})
    found, state, plain = advanced(donor, found, 3), advanced(method, state, 4), advanced(donor, plain, 1)
    assert state.hyper == found.hyper
    begun = advanced(method, method.init(task, 0), 1)
    assert same(begun.model.state_dict(), plain.model.state_dict())


def test_the_losses_that_are_looked_at_have_none(tmp_path):
    """With training batches as the source, too, the loss whose hypergradient is followed is the plain one."""
    spec = first_spec(tmp_path, "oho-global", **START, tune_loss=NAMES, source="training")
    _, state = trained(spec, 1)
    train, followed = state.closures(2)
    batch = state.batches.at(2)
    with torch.no_grad():
        assert followed() == state.task.validation_loss(state.model, batch)
        values = {name: torch.tensor(0.3) for name in NAMES}
        assert train(values) == train(values) != followed()
        torch.testing.assert_close(train(dict.fromkeys(NAMES, torch.tensor(0.0))), followed())


def test_noise_on_bytes_is_as_strong_as_on_floats(tmp_path):
    write_classes(tmp_path, train=30, test=6)
    overrides = ["task.name=cifar10-cnn", "task.validation_size=10", "task.batch_size=10", "task.validation_batch_size=10"]
    task, _ = task_of(experiment(tmp_path, "oho-default", overrides=overrides).specs[0], CPU, tmp_path)
    (noise,) = (each for each in task.tunable if each.name == "input_noise")
    inputs = task.train_batches(0).at(0).inputs
    assert inputs.dtype == torch.uint8
    drawn = noise.of_inputs(inputs, torch.tensor(0.1), torch.Generator().manual_seed(0)) - inputs
    assert float(drawn.std()) == pytest.approx(25.5, rel=0.05)


def test_smoothing_is_that_of_torch():
    stream = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(4, 6, 7, generator=stream), torch.randint(7, (4, 6), generator=stream)
    found = LANGUAGE.tuned_loss(logits, targets, label_smoothing=torch.tensor(0.2))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.2)
    torch.testing.assert_close(found, expected)


def test_an_objective_without_a_tuned_loss_is_told_so():
    offered = LossHyperparameter(name="margin", description="of a loss", initial=1.0, bounds=(0.0, 2.0))
    with pytest.raises(ValueError, match="tunable hyperparameters \\(margin\\) needs a tuned_loss"):
        Objective(**{**vars(CLASSIFICATION), "tunable": (offered,), "tuned_loss": None})


def test_ids_stay_where_the_option_is_not_given(tmp_path):
    plain, (empty, tuned) = first_spec(tmp_path, "oho-full"), (
        experiment(tmp_path, "oho-full", overrides=[f"methods.0.tune_loss={names}"]).specs[0]
        for names in ("[]", "[label_smoothing]")
    )  # fmt: skip
    assert "tune_loss" not in plain["method"]
    assert run_id(plain) == run_id(empty)
    assert run_id(tuned) != run_id(plain)
    assert tuned["method"]["label"] == "Full OHO, label smoothing"


@pytest.mark.slow
class TestContract(_Contract):
    method = "oho-full"
    options: ClassVar[dict] = {**MOVING["oho-full"], "tune_loss": NAMES}


MISTAKES = {
    "unknown": (
        "digits-mlp", "{name: oho-global, tune_loss: [mixup]}",
        ":11:24: tune_loss: digits-mlp offers no 'mixup' to tune; it offers label_smoothing, input_noise",
    ),
    "of a task that offers none": (
        "diabetes-mlp", "{name: oho-full, tune_loss: [label_smoothing]}",
        ":11:22: tune_loss: diabetes-mlp offers no 'label_smoothing' to tune; it offers nothing to tune of its training l",
    ),
    "of a donor": (
        "digits-mlp", "{name: transplant, epochs: 1, over: {name: oho-default, tune_loss: [lr]}}",
        ":11:61: tune_loss: digits-mlp offers no 'lr' to tune;",
    ),
    "twice": (
        "digits-mlp", "{name: oho-default, tune_loss: [input_noise, input_noise]}",
        ":11:25: methods.0.tune_loss: each name once",
    ),
    "of the published code": (
        "digits-mlp", "{name: oho-published, tune_loss: [input_noise]}", ":11:27: unknown key 'methods.0.tune_loss'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(mistake, tmp_path):
    task, line, expected = MISTAKES[mistake]
    path = write_config(tmp_path, "fixed")
    path.write_text(path.read_text().replace("{name: fixed}", line).replace("digits-mlp", task))
    with pytest.raises(ConfigError, match=re.escape(expected)) as error:
        load_experiment(path)
    assert "\n" not in str(error.value)
