"""Endings of a run, and what makes its seconds void."""

import math
import subprocess
import time
from types import SimpleNamespace

import pytest
import torch
from helpers import Ticks, experiment, judged, run_one

from baselines.searchers import RandomSearcher
from baselines.training import Training
from bench.records import Status, read_outcome, read_run, result_at, run_id
from bench.run import disturbances
from bench.run.disturbances import Conditions, others_on, slowdowns_of
from bench.run.node import driver_of


def test_deadline_cuts_a_trial_where_it_stands(tmp_path):
    spec = experiment(tmp_path, "random-search", overrides=["methods.0.trial_epochs=4"]).specs[0]
    outcome = run_one(spec, tmp_path)
    trials = read_run(tmp_path / run_id(spec)).trials
    assert [trial["status"] for trial in trials] == ["finished", "cut"]
    assert [trial["steps"] for trial in trials] == [40, 20]
    assert [len(trial["curve"]) for trial in trials] == [4, 2]
    assert outcome.steps == 60


def test_evaluations_are_spread_evenly_whatever_fractions_round_to(tmp_path):
    """A step is a tenth of an epoch here, and three tenths added up are more than 0.3."""
    (spec,) = experiment(tmp_path, "fixed", overrides=["budget.epochs=4", "evaluations=40"]).specs
    run_one(spec, tmp_path)
    assert [found["step"] for found in read_run(tmp_path / run_id(spec)).evaluations] == list(range(41))


def test_nothing_is_validated_at_the_deadline(tmp_path):
    """A budget that ends within the first selection period returns the untrained model."""
    spec = {**experiment(tmp_path, "fixed").specs[0], "budget": {"unit": "steps", "amount": 9}}
    final = run_one(spec, tmp_path).final
    found = read_run(tmp_path / run_id(spec)).incumbents
    assert [record["step"] for record in found] == [0]
    assert final["incumbent_test_loss"] == found[0]["test_loss"]
    assert final["test_loss"] != final["incumbent_test_loss"]


def test_a_trial_that_ends_between_validations_is_validated(tmp_path):
    overrides = ["task.selection_epochs=2", "methods.0.trial_epochs=3"]
    spec = experiment(tmp_path, "random-search", overrides=overrides).specs[0]
    run_one(spec, tmp_path)
    trials = read_run(tmp_path / run_id(spec)).trials
    assert [len(trial["curve"]) for trial in trials] == [2, 2]
    assert min(trials[0]["curve"]) == trials[0]["validation_loss"]


def test_a_diverged_training_is_a_result(tmp_path):
    spec = experiment(tmp_path, "fixed", overrides=["methods.0.lr=1e30"]).specs[0]
    outcome = run_one(spec, tmp_path)
    assert outcome.status is Status.DIVERGED
    assert read_run(tmp_path / run_id(spec)).outcome.status.is_result


@pytest.mark.parametrize("search", ["bayesian-search", "tpe-search", "gp-search", "cma-search", "population"])
def test_a_search_is_told_a_diverged_trial_and_goes_on(search, tmp_path):
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces/wild.yaml").write_text(
        "name: wild\nhyperparameters:\n  lr: {low: 1e20, high: 1e30, log: true}\n"
        "  weight_decay: {low: 0.1, high: 1}\n"
    )
    overrides = ["space=spaces/wild", "methods.0.over.name=fixed"]
    spec = experiment(tmp_path, search, overrides=overrides).specs[0]
    outcome = run_one(spec, tmp_path)
    assert outcome.status is Status.BUDGET_REACHED
    assert outcome.trials >= 6
    assert {t["status"] for t in read_run(tmp_path / run_id(spec)).trials} == {"diverged"}


def test_a_method_that_raises_is_a_failed_run_with_its_traceback(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("baselines.training.Training.advance", broken)
    outcome = run_one(experiment(tmp_path, "fixed").specs[0], tmp_path)
    assert outcome.status is Status.FAILED
    assert "out of luck" in outcome.message
    assert math.isfinite(outcome.wall_seconds)


def test_a_run_without_a_processor_is_not_valid(tmp_path, monkeypatch):
    """A method that sleeps stands for one whose process is not given a processor: elapsed time, no processor time."""

    def asleep(self, state, *, steps, progress, ledger):
        time.sleep(0.01)
        state.step += 1
        return state

    monkeypatch.setattr("baselines.training.Training.advance", asleep)
    spec = experiment(tmp_path, "fixed", overrides=["budget.seconds=0.2"]).specs[0]
    outcome = run_one(spec, tmp_path)
    assert outcome.status is Status.BUDGET_REACHED
    assert not outcome.valid
    assert "had a processor for" in outcome.invalid_because[0]
    assert read_outcome(tmp_path / run_id(spec)).invalid_because == outcome.invalid_because


def test_a_budget_of_steps_cannot_be_disturbed(tmp_path, monkeypatch):
    judged(monkeypatch, "disturbed")
    spec = experiment(tmp_path, "fixed").specs[0]
    assert run_one(spec, tmp_path).valid
    assert not run_one({**spec, "budget": {"unit": "seconds", "amount": 0.05}}, tmp_path).valid


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("bench.run.disturbances.throttle_events", [5, 8], "throttled 3 times"),
        ("bench.run.disturbances.others_on", [0, 2, 0], "2 other processes used the GPU"),
        ("bench.run.disturbances.slowdowns_of", [set(), {"hw_thermal_slowdown"}, set()], "hw_thermal_slowdown"),
        ("time.time", [1_000.0, 1_007.5], "clock jumped by 7"),
    ],
)
def test_each_disturbance_is_named(name, value, reason, monkeypatch):
    values = iter(value)
    monkeypatch.setattr(name, lambda *arguments: next(values))
    monkeypatch.setattr("bench.run.disturbances.LOOK_SECONDS", 0.0)
    conditions = Conditions(torch.device("cpu"))
    for _ in range(3 if name.endswith("on") or name.endswith("of") else 0):
        conditions.look()
    (found,) = conditions.verdict().reasons
    assert reason in found


def test_the_members_of_a_population_share_a_look_at_the_gpu(monkeypatch):
    asked = []
    monkeypatch.setattr("bench.run.disturbances.others_on", lambda device: asked.append(device) or 0)
    conditions = Conditions(torch.device("cpu"))
    for _ in range(64):
        conditions.look()
    assert len(asked) == 1


def test_what_a_gpu_says_is_read(monkeypatch):
    """nvidia-smi's answers, as it gives them."""
    answers = {"--query-compute-apps=pid": "4711\n4712\n", "clocks": "Not Active, Active, Not Active\n",
               "--query-gpu=driver_version": "550.54.15\n"}  # fmt: skip

    def answer(command, **options):
        assert command[0] == "nvidia-smi"
        text = next(text for key, text in answers.items() if key in command[1])
        return subprocess.CompletedProcess(command, 0, stdout=text)

    monkeypatch.setattr("subprocess.run", answer)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(uuid="abc"))
    device = torch.device("cuda")
    assert others_on(device) == 1
    assert slowdowns_of(device) == {"sw_thermal_slowdown"}
    assert driver_of.__wrapped__(device) == "550.54.15"


def test_a_model_is_found_before_the_next_trial_is_proposed(tmp_path, monkeypatch):
    """A proposal that takes a second neither delays the model found before it nor is begun after the deadline."""
    clock = Ticks(step=0.0)
    plain = RandomSearcher.propose

    def slow(self, trials):
        clock.now += 1.0
        return plain(self, trials)

    def advance(self, state, **options):
        clock.now += 0.01
        return trained(self, state, **options)

    trained = Training.advance
    monkeypatch.setattr(RandomSearcher, "propose", slow)
    monkeypatch.setattr(Training, "advance", advance)
    spec = {**experiment(tmp_path, "random-search").specs[0], "budget": {"unit": "seconds", "amount": 1.0}}
    outcome = run_one(spec, tmp_path, now=clock)
    run = read_run(tmp_path / run_id(spec))
    first = next(record for record in run.incumbents if record["step"] == 10)
    assert first["used"] == run.trials[0]["used"] < 0.5
    assert outcome.accounts["search"] == pytest.approx(1.0)


def test_a_diverged_trial_ends_at_the_same_step_whatever_the_chunks(tmp_path):
    (tmp_path / "wild.yaml").write_text(
        "name: wild\nhyperparameters:\n  lr: {low: 1e-2, high: 1e30, log: true}\n  weight_decay: {low: 0, high: 1e-6}\n"
    )
    spec = experiment(tmp_path, "random-search", overrides=["space=wild", "methods.0.trial_epochs=3"]).specs[0]
    run_one(spec, tmp_path)
    whole = read_run(tmp_path / run_id(spec))
    assert "diverged" in {trial["status"] for trial in whole.trials}
    for amount in (15, 27, 50):
        smaller = {**spec, "budget": {"unit": "steps", "amount": amount}, "evaluations": 40}
        final = run_one(smaller, tmp_path).final
        assert result_at(whole, amount)["validation_loss"] == final["incumbent_validation_loss"]


def test_the_probe_after_one_run_stands_before_the_next(monkeypatch):
    found = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(disturbances, "speed_probe", lambda device: next(found))
    monkeypatch.setattr(disturbances, "_recent", {})
    cpu = torch.device("cpu")
    assert Conditions(cpu).verdict().readings["probe_seconds"] == [1.0, 2.0]
    assert Conditions(cpu).verdict().readings["probe_seconds"] == [2.0, 3.0]
    monkeypatch.setattr(disturbances, "PROBE_KEPT_SECONDS", 0.0)
    assert Conditions(cpu).verdict().readings["probe_seconds"] == [4.0, 5.0]
