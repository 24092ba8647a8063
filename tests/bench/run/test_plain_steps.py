"""Budgets in plain steps: what one is measured to be, and runs that have so many of them."""

import statistics
import time
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from helpers import Ticks, experiment, run_one, stopped

from bench.experiment.spec import task_of
from bench.records import read_run, result_at, run_id
from bench.run import plain_steps
from bench.run.plain_steps import Measurement, measured, summed_up

FOUND = Measurement((0.001, 0.002, 0.003), steps_per_block=4, running=1.0)


def of(seconds, blocks=6):
    return FOUND._replace(blocks=(seconds,) * blocks)


@pytest.fixture
def found(monkeypatch):
    """What the next measurements find, in turn; the last is found again and again.  `made` has how many rounds each had."""
    results, made = [FOUND], []

    def made_up(task, block_seconds, now, rounds):
        made.append(rounds)
        return results.pop(0) if len(results) > 1 else results[0]

    monkeypatch.setattr(plain_steps, "measured", made_up)
    monkeypatch.setattr(plain_steps, "_newest", {})
    made_up.results, made_up.made = results, made
    return made_up


def small(folder, *methods, amount=100, **options):
    return experiment(folder, *methods, overrides=[f"budget.plain_steps={amount}"], **options).specs


def test_a_plain_step_is_the_median_of_blocks_in_turn(tmp_path):
    task, _ = task_of(small(tmp_path, "fixed")[0], torch.device("cpu"), None)
    step = summed_up([measured(task, 1e-4)])
    assert 0 < step.lower_quartile <= step.seconds <= step.upper_quartile
    assert step.blocks == 15
    assert task.world.step == 0
    ticked = measured(task, 1e-4, Ticks(0.01), rounds=2)
    assert ticked.blocks == pytest.approx((0.01 / ticked.steps_per_block,) * 6)


def test_a_run_has_the_counted_seconds_of_its_plain_steps(found, tmp_path):
    (spec,) = small(tmp_path, "cosine")
    assert spec["budget"] == {"unit": "plain_steps", "amount": 100}
    outcome = run_one(spec, tmp_path, now=Ticks())
    assert outcome.plain_step["seconds"] == 0.002
    assert outcome.counted_seconds == pytest.approx(0.2, abs=0.01)
    run = read_run(tmp_path / run_id(spec))
    assert run.outcome.plain_step == outcome.plain_step
    last = run.evaluations[-1]
    assert last["used"] == pytest.approx(last["counted_seconds"] / 0.002, rel=0.02)
    assert last["hyper"]["lr"][0] < 0.01 * run.evaluations[0]["hyper"]["lr"][0]  # the cosine ends with the budget
    assert [round(each["used"] / 100, 1) for each in run.evaluations] == [0.0, 0.2, 0.3, 0.5, 0.7, 0.8, 1.0]


def test_a_smaller_budget_is_read_off_in_plain_steps(found, tmp_path):
    (spec,) = small(tmp_path, "fixed")
    run_one(spec, tmp_path, now=Ticks())
    run = read_run(tmp_path / run_id(spec))
    half = result_at(run, 50)
    assert half is not None
    assert half["used"] <= 50 < min(each["used"] for each in run.incumbents if each["step"] > half["step"])


def test_a_slow_moment_is_outweighed_by_those_after_it(found, tmp_path):
    """The first measurement falls into one, that of the third run, too; from the tenth on the machine is faster."""
    found.results[:] = [of(0.004, 15), of(0.002), of(0.009), *[of(0.002)] * 6, of(0.001)]
    specs = small(tmp_path, "fixed", amount=1, seeds=range(18))
    seconds = [run_one(spec, tmp_path).plain_step["seconds"] for spec in specs]
    assert found.made == [5, *[2] * 17]
    assert seconds[:3] == [0.004] * 3
    assert set(seconds[5:9]) == {0.002}
    assert seconds[-1] == 0.001


def test_a_gpu_is_measured_once(found, tmp_path):
    (spec,) = small(tmp_path, "fixed")
    task, _ = task_of(spec, torch.device("cpu"), None)
    on_gpu = replace(task, device=torch.device("cuda"))
    found.results[:] = [of(0.002), of(0.004)]
    assert [plain_steps.plain_step(on_gpu, spec)["seconds"] for _ in range(2)] == [0.002, 0.002]


def test_a_resumed_run_keeps_its_budget(found, tmp_path, monkeypatch):
    found.results[:] = [FOUND, of(1.0)]
    (spec,) = small(tmp_path, "fixed")
    stopped(spec, tmp_path, 5)
    monkeypatch.setattr(plain_steps, "_newest", {})  # another process
    outcome = run_one(spec, tmp_path)
    assert outcome.plain_step["seconds"] == 0.002
    assert 0.2 <= outcome.counted_seconds < 5


def test_a_disturbed_calibration_is_tried_again_and_else_voids_its_run_alone(found, tmp_path):
    poor = of(1.0)._replace(running=0.4)
    found.results[:] = [poor, poor, poor, FOUND, poor]
    outcomes = [run_one(spec, tmp_path) for spec in small(tmp_path, "fixed", amount=2, seeds=range(3))]
    assert outcomes[0].invalid_because[0] == "it had a processor for 40% of the time in which its budget was calibrated"
    for outcome in outcomes[1:]:  # a later one that is disturbed leaves what is known
        assert not any("calibrated" in reason for reason in outcome.invalid_because)
        assert outcome.plain_step["seconds"] == 0.002


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_half_of_the_processor_names_the_same_order(tmp_path, monkeypatch):
    """A process that is stopped half of the time has a budget of twice the seconds, as many steps and the same order.

    The clock is that of the processor, so that other processes have no part in it.
    """
    monkeypatch.setattr(plain_steps, "_newest", {})
    values = ("methods.0.lr=0.3", "methods.1.lr=3e-4", "methods.2.lr=3e-3")
    overrides = ["budget.plain_steps=1000", *values, *(f"methods.{place}.weight_decay=0" for place in range(3))]
    specs = experiment(tmp_path, "fixed", "adam", "oho-global", overrides=overrides, seeds=[0, 1, 2]).specs
    whole = _measured(specs, tmp_path / "whole", time.thread_time)
    half = _measured(specs, tmp_path / "half", _halved)
    print(whole, half, sep="\n")
    assert sorted(whole, key=lambda label: whole[label].loss) == sorted(half, key=lambda label: half[label].loss)
    for label, found in half.items():
        assert found.seconds == pytest.approx(2 * whole[label].seconds, rel=0.4)
        assert found.steps == pytest.approx(whole[label].steps, rel=0.3)


def _halved():
    """The clock of a process that gets 50 ms of every 100, as containers do that may use half a processor."""
    now = time.thread_time()
    return now + 0.05 * (now // 0.05)


class Medians(NamedTuple):
    """Of a method's runs."""

    loss: float
    steps: float
    seconds: float


def _measured(specs, folder, clock):
    found = {}
    for spec in specs:
        outcome = run_one(spec, folder, now=clock)
        values = outcome.final["incumbent_test_loss"], outcome.steps, outcome.counted_seconds
        found.setdefault(spec["method"]["label"], []).append(values)
    return {label: Medians(*map(statistics.median, zip(*runs, strict=True))) for label, runs in found.items()}
