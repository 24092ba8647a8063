"""Budgets that end before anything is selected are said with numbers, and the outcome bears them."""

import math

import pytest
from helpers import Ticks, experiment, run_one, write_config
from typer.testing import CliRunner

from bench.cli import app
from bench.records import Status

TOO_SHORT = {
    ("fixed", "steps=9"): "'Fixed' returns the untrained model in every run: the budget of 9 steps ends before the first "
    "selection, after 10 steps (1 epoch)",
    ("fixed", "epochs=0.5"): "the budget of 0.5 epochs ends before the first selection, after 10 steps",
    ("fixed", "plain_steps=9"): "the budget of 9 plain steps ends before the first selection, after 10 steps",
    ("random-search", "steps=9"): "'Random search: Fixed' returns the untrained model",
}
LONG_ENOUGH = [("fixed", "steps=10", 1), ("fixed", "steps=14", 0.5), ("random-search", "steps=10", 5),
               ("population", "epochs=1", 5), ("fixed", "seconds=0.001", 5)]  # fmt: skip
"""A trial and an interval last one epoch, of ten steps: they are validated at their end whatever the task's period."""


@pytest.mark.parametrize(("method", "budget"), TOO_SHORT)
def test_too_short_a_budget_is_said_and_the_outcome_bears_it(method, budget, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.run.plain_steps.BLOCK_SECONDS", (1e-3,))
    found = experiment(tmp_path, method, overrides=[f"budget.{budget}"])
    (warning,) = found.warnings
    assert TOO_SHORT[method, budget] in warning
    outcome = run_one(found.specs[0], tmp_path, now=Ticks())
    assert outcome.status is Status.BUDGET_REACHED
    assert outcome.final["selected_step"] == 0
    assert outcome.steps > 0


@pytest.mark.parametrize(("method", "budget", "epochs"), LONG_ENOUGH)
def test_one_that_is_long_enough_is_not(method, budget, epochs, tmp_path):
    found = experiment(tmp_path, method, overrides=[f"budget.{budget}", f"task.selection_epochs={epochs}"])
    assert found.warnings == ()
    if "seconds" not in budget:
        assert run_one(found.specs[0], tmp_path).final["selected_step"] == 10


@pytest.mark.parametrize("method", ["fixed", "random-search", "population"])
def test_a_timed_run_says_it_at_its_end(method, tmp_path, caplog):
    overrides = ["budget.seconds=0.01", "task.selection_epochs=7"]
    epochs = {"random-search": "trial_epochs", "population": "interval_epochs"}.get(method)
    overrides += [f"methods.0.{epochs}=7"] if epochs else []
    spec = experiment(tmp_path, method, overrides=overrides).specs[0]
    outcome = run_one(spec, tmp_path / "short", now=Ticks())
    assert outcome.final["selected_step"] == 0
    assert f"the budget of 0.01 seconds ended after {outcome.steps} steps, before the first selection; " in caplog.text
    assert "the task selects every 70 steps" in caplog.text
    caplog.clear()
    longer = run_one({**spec, "budget": {"unit": "seconds", "amount": 0.1}}, tmp_path / "long", now=Ticks())
    assert longer.steps >= 70
    assert math.isfinite(longer.final["incumbent_test_loss"])
    assert "untrained" not in caplog.text


def test_a_dry_run_warns_once_for_methods_that_select_at_the_same_step(tmp_path, caplog):
    config = write_config(tmp_path, "fixed", "adam")
    arguments = ["run", str(config), "--dry-run", "--set", "budget.steps=5", "--seeds", "0-4", "--device", "cpu"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0
    warnings = [line for line in caplog.messages if "untrained" in line]
    assert [line.partition(" the untrained")[0] for line in warnings] == ["experiment small: 'Fixed' and 'Adam' return"]


def test_of_many_methods_a_warning_names_the_first_ones(tmp_path):
    labels = ["x" * 200, *(f"m{number}" for number in range(2, 41))]
    methods = [f"{{name: fixed, lr: {number}, label: {label}}}" for number, label in enumerate(labels, start=1)]
    (warning,) = experiment(tmp_path, "fixed", overrides=["budget.steps=5", f"methods=[{', '.join(methods)}]"]).warnings
    assert warning.startswith(f"'{'x' * 22}…{'x' * 21}', 'm2', 'm3', 'm4' and 36 more return the untrained model")


def test_status_counts_the_runs_that_return_the_untrained_model(tmp_path):
    config = write_config(tmp_path, "fixed", "random-search")
    budget = ["--set", "budget.steps=9", "--set", "task.selection_epochs=1"]
    arguments = ["run", str(config), "--in-process", *budget, "--device", "cpu", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    answer = CliRunner().invoke(app, ["status", str(tmp_path / "out")])
    assert answer.stdout.splitlines()[0] == "small: 2 runs: 2 budget reached; 2 return the untrained model"
