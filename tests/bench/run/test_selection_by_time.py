"""Selections by counted time: a training validates once a period of its own seconds is over, whatever a step costs."""

import itertools
from dataclasses import replace

import pytest
import torch
from helpers import StoppedAfter, experiment, run_one, write_config

from baselines.pruners import PRUNERS
from bench.experiment.expansion import load_experiment
from bench.experiment.spec import method_of, set_threads, task_of
from bench.experiment.yaml_file import ConfigError
from bench.process.signals import Interrupted
from bench.protocol import Ledger, Stacked, Trial, World, train_together
from bench.records import read_run, run_id
from bench.run import plain_steps
from bench.run.plain_steps import Measurement

PERIOD = 0.5


def begun(folder, method, *overrides):
    spec = experiment(folder, method, overrides=["budget.seconds=9", *overrides]).specs[0]
    set_threads(spec)
    task = replace(task_of(spec, torch.device("cpu"), None)[0], selection_seconds=PERIOD)
    method = method_of(spec)
    return method, method.init(task, 0)


class StepClock:
    """A clock that only steps advance, each by so many seconds; `world` counts them, and starts again after a warm-up."""

    def __init__(self, step_seconds, world):
        self.step_seconds, self.world, self.now, self.seen = step_seconds, world, 0.0, 0

    def __call__(self):
        self.now += self.step_seconds * max(0, self.world.step - self.seen)
        self.seen = self.world.step
        return self.now


def validated_at(folder, method, step_seconds, *overrides):
    """The steps of the first 40 after which a model was validated, if each takes so many seconds."""
    method, state = begun(folder, method, *overrides)
    ledger, found = Ledger(now=StepClock(step_seconds, state.task.world)), []
    while state.step < 40:
        before = [len(training.curve) for training in state.trainings]
        with ledger.account("train"):
            method.advance(state, steps=1, progress=0.0, ledger=ledger)
        if before != [len(training.curve) for training in state.trainings] and state.step:
            found.append(state.step)
    return found


def test_trainings_made_together_select_by_steps_alone(tmp_path):
    _, state = begun(tmp_path, "fixed")
    stacked = Stacked([state.task], [state.model])
    with pytest.raises(ValueError, match="selection_seconds is set; allowed is a selection period in steps"):
        train_together([state], stacked, 1, Ledger(), update=lambda made: torch.zeros(1))
    assert state.step == 0


@pytest.mark.parametrize("method", ["fixed", "oho-default", "hdm"])
def test_slow_steps_make_no_late_selection(method, tmp_path):
    assert validated_at(tmp_path, method, 0.0626) == [8, 16, 24, 32, 40]
    assert validated_at(tmp_path, method, 0.26) == list(range(2, 41, 2))


def test_a_trial_and_an_interval_also_end_with_one(tmp_path):
    assert validated_at(tmp_path, "population", 0.126) == [4, 8, 10, 14, 18, 20, 24, 28, 30, 34, 38, 40]
    trials = validated_at(tmp_path, "random-search", 0.126)
    assert [step for step in trials if step % 10 in (4, 8)] == [4, 8, 14, 18, 24, 28, 34, 38]


def test_the_time_since_the_last_validation_is_saved(tmp_path):
    method, state = begun(tmp_path, "fixed")
    ledger = Ledger(now=StepClock(0.26, state.task.world))
    for _ in range(3):
        with ledger.account("train"):
            method.advance(state, steps=1, progress=0.0, ledger=ledger)
    restored = method.restored(state.task, 0, state.saved())
    assert restored.unselected_seconds == state.unselected_seconds == pytest.approx(0.26)


@pytest.fixture
def run_in_plain_steps(tmp_path, monkeypatch):
    """Makes a run of 400 plain steps of 2 ms each, on a clock that only steps advance, once or in two processes."""
    found = Measurement((0.002,) * 15, steps_per_block=4, running=1.0)
    monkeypatch.setattr(plain_steps, "measured", lambda *arguments: found)
    monkeypatch.setattr(plain_steps, "_newest", {})
    clock = StepClock(0.003, World())

    def watched(*arguments):
        task, test = task_of(*arguments)
        clock.world, clock.seen = task.world, 0
        return task, test

    monkeypatch.setattr("bench.run.runner.task_of", watched)

    def made(period, looks=None):
        overrides = ["budget.plain_steps=400", f"task.selection_every.plain_steps={period}", "methods.0.lr=0.05"]
        (spec,) = experiment(tmp_path, "fixed", overrides=overrides).specs
        folder = tmp_path / f"{period} {looks}"
        if looks:
            with pytest.raises(Interrupted):
                run_one(spec, folder, now=clock, stopper=StoppedAfter(looks))
        run_one(spec, folder, now=clock)
        return read_run(folder / run_id(spec)).incumbents

    return made


def test_the_runner_gives_the_period_in_the_unit_of_the_budget(run_in_plain_steps, caplog):
    found = run_in_plain_steps(60)
    assert found[1]["used"] == pytest.approx(60, abs=10)  # the clock is read every 0.02 s
    for early, late in itertools.pairwise(found):
        assert 60 <= late["used"] - early["used"] <= 70
    assert len(found) == 7
    assert len(run_in_plain_steps(60, looks=3)) == 7
    assert [record["step"] for record in run_in_plain_steps(1000)] == [0]
    assert caplog.messages[-1].endswith("before the first selection; the task selects every 1000 plain steps")


MISTAKES = {
    "0.5": r":3:47: task.selection_every: \{seconds: 0.5\} or \{plain_steps: 500\} is expected \(given 0.5\)",
    "{}": r":3:47: task.selection_every: exactly one of seconds, plain_steps is needed",
    "{minutes: 1}": r":3:65: unknown key 'task.selection_every.minutes'; allowed: seconds, plain_steps",
    "{seconds: 0}": r":3:65: task.selection_every.seconds: a number above 0 is expected \(given 0\)",
    "{seconds: 1}": r":3:65: task.selection_every: a budget in seconds is needed, and this one is in steps; or give selec",
}


@pytest.mark.parametrize("given", MISTAKES)
def test_a_period_that_cannot_be_is_refused_in_one_line(given, tmp_path):
    path = write_period(tmp_path, given)
    with pytest.raises(ConfigError, match=f"^{path}{MISTAKES[given]}"):
        load_experiment(path)


def write_period(folder, given):
    path = write_config(folder, "fixed")
    path.write_text(path.read_text().replace("selection_epochs: 1", f"selection_epochs: 1, selection_every: {given}"))
    return path


def test_a_spec_without_a_period_is_the_one_that_it_was(tmp_path):
    (spec,) = experiment(tmp_path, "fixed", overrides=["task.selection_every=null"]).specs
    assert "selection_every" not in spec["task"]
    with pytest.raises(ConfigError, match="the unit of the budget, plain_steps, is expected"):
        experiment(tmp_path, "fixed", overrides=["budget.plain_steps=9", "task.selection_every.seconds=1"])


def test_hyperband_waits_for_a_trial_that_finishes():
    pruner = PRUNERS["hyperband"](None, 0)
    good, bad = tuple(0.9 - 0.05 * k for k in range(9)), [9.0] * 9
    assert not pruner.prunes([], bad)
    trials = [Trial({}, min(good), 90, "finished", good)] * 3
    assert any(pruner.prunes(trials, bad[:length]) for length in range(1, 10))
