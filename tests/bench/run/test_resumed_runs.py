"""What a run was in its first process, it still is when a second one has ended it."""

import json
import time

import pytest
from helpers import experiment, judged, run_one, stopped

import bench.run.runner
from baselines.training import Training
from bench.command.planning import plan
from bench.command.run_series import launch
from bench.command.status import describe
from bench.records import Manifest, Status, read_outcome, run_id, write_manifest
from bench.records.processes import changes, disturbances
from bench.run.environment import describe_environment

TIMED = {"unit": "seconds", "amount": 0.3}
STARVED = "it had a processor for"


def asleep(method, state, *, steps, progress, ledger):
    """What a step is in a process that has been stopped: time, and no work of the processor."""
    time.sleep(0.03)
    state.step += steps


def disturbed_first(spec, folder, monkeypatch, looks=3):
    """Leaves a run whose first process slept instead of working."""
    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", asleep)
        return stopped(spec, folder, looks)


def known_as(monkeypatch, **facts):
    """Changes what the next processes know of where they are."""

    def described(*arguments, **options):
        return {**describe_environment(*arguments, **options), **facts}

    monkeypatch.setattr(bench.run.runner, "describe_environment", described)


def listed(folder, spec):
    """The folder's status, as if an experiment had planned the run."""
    write_manifest(folder, Manifest("small", (), {}, (run_id(spec),)))
    return describe(folder)


def test_a_timed_run_that_was_disturbed_before_it_was_resumed_stays_void(tmp_path, monkeypatch):
    spec = {**experiment(tmp_path, "fixed").specs[0], "budget": TIMED}
    left = disturbed_first(spec, tmp_path, monkeypatch).outcome
    assert not left.valid
    (tmp_path / run_id(spec) / "outcome.json").unlink()  # as a process leaves it that is killed: its checkpoint is there
    outcome = run_one(spec, tmp_path)
    assert outcome.status is Status.BUDGET_REACHED
    assert outcome.conditions["resumptions"] == len(outcome.earlier) == 1
    assert outcome.earlier[0]["conditions"]["running"] < 0.5
    first = [reason for reason in outcome.invalid_because if "(in process 1 of 2)" in reason]
    assert len(first) == 1
    assert first[0].startswith(STARVED)
    assert read_outcome(tmp_path / run_id(spec)).earlier == outcome.earlier
    assert f"not valid {tmp_path / run_id(spec)}: {'; '.join(outcome.invalid_because)}" in listed(tmp_path, spec)


def test_of_a_run_without_a_budget_of_seconds_only_the_seconds_are_void(tmp_path, monkeypatch):
    spec = experiment(tmp_path, "fixed").specs[0]
    disturbed_first(spec, tmp_path, monkeypatch)
    outcome = run_one(spec, tmp_path)
    assert outcome.valid
    assert any("(in process 1 of 2)" in reason for reason in outcome.disturbed_because)
    told = "the clock of 1 run was disturbed: losses are valid, seconds are not; `oho-bench report` says why"
    assert told in listed(tmp_path, spec).splitlines()


def test_a_void_run_that_was_stopped_starts_over_when_void_runs_are_repeated(tmp_path, monkeypatch):
    one = experiment(tmp_path, "fixed", overrides=["budget.seconds=0.3"])
    left = disturbed_first(one.specs[0], tmp_path, monkeypatch)
    planned = plan([one], tmp_path, again_invalid=True)
    launch([one], planned, tmp_path, data_root=None)
    assert read_outcome(tmp_path / left.id).conditions["resumptions"] == 0


@pytest.mark.parametrize(
    ("facts", "what", "is_void"),
    [
        ({"commit": "f" * 40, "dirty": False}, "another commit (", False),
        ({"numpy": "0.1"}, "another numpy (", False),
        ({"torch": "0.1"}, "another version of torch (", True),
        ({"device_name": "abacus"}, "another device (", True),
    ],
)  # fmt: skip
def test_a_change_between_two_processes_is_said(facts, what, is_void, tmp_path, monkeypatch):
    spec = {**experiment(tmp_path, "fixed").specs[0], "budget": TIMED}
    judged(monkeypatch)
    before = stopped(spec, tmp_path, 3).outcome.environment
    known_as(monkeypatch, **facts)
    outcome = run_one(spec, tmp_path)
    (change,) = outcome.changes
    (name, *_), (value, *_) = facts.keys(), facts.values()
    assert change.startswith(what)
    assert change.endswith(f", then {value[:12]})")
    assert outcome.environments[0][name] == before[name] != outcome.environment[name] == value
    assert outcome.invalid_because == ([f"it was continued with {change}"] if is_void else [])
    assert f"resumed {tmp_path / run_id(spec)}: with {change}" in listed(tmp_path, spec).splitlines()


def process(*reasons, **environment):
    return {"environment": environment, "conditions": {}, "disturbed_because": list(reasons)}


def test_processes_are_told_apart_only_if_there_are_several():
    assert disturbances([]) == []
    assert disturbances([process("it slept", torch="1")]) == ["it slept"]
    both = [process("it slept", torch="1"), process(torch="1"), process("it slept", torch="2")]
    assert disturbances(both) == [
        "it slept (in process 1 of 3)", "it slept (in process 3 of 3)",
        "it was continued with another version of torch (1, then 2)",
    ]  # fmt: skip
    again = [{"threads": 1, "finished": "a"}, {"threads": 2, "finished": "b"}, {"threads": 1, "finished": "c"}]
    assert changes(again) == ["another number of threads (1, then 2, then 1)"]
    commits = [{"commit": "abc", "dirty": True}, {"commit": "abc", "dirty": False, "mine": "1"}]
    assert changes(commits) == ["another commit (abc with changes, then abc)"]


@pytest.mark.parametrize(
    ("before", "own", "is_disturbed"), [((1.0, 100.0), (0.5, 0.01), False), ((0.5, 100.0), (0.95, 10.0), False),
                                        ((0.91, 10.0), (0.3, 10.0), True), (None, (0.5, 0.01), True)]
)  # fmt: skip
def test_a_process_tells_against_a_run_if_the_run_so_far_lacked_a_processor_as_well(before, own, is_disturbed):
    """A reason that an earlier process has found stays with that process: see the other tests."""
    from torch import device

    from bench.run.disturbances import Conditions

    conditions = Conditions(device("cpu"))
    conditions._running, conditions._elapsed = own[0] * own[1], own[1]
    earlier = [{"running": before[0], "working_seconds": before[1]}] if before else []
    reasons = conditions.verdict(earlier, has_ended=False).reasons
    assert bool(reasons) is is_disturbed
    if is_disturbed:
        assert reasons == [f"{STARVED} {own[0]:.0%} of its counted time"]


def test_an_outcome_of_the_older_schema_is_read(tmp_path):
    outcome = run_one(experiment(tmp_path, "fixed").specs[0], tmp_path)
    path = next(tmp_path.glob("*/outcome.json"))
    older = json.loads(path.read_text()) | {"schema": 2, "invalid_because": ["it slept"]}
    path.write_text(json.dumps({key: older[key] for key in older.keys() - {"earlier", "disturbed_because"}}))
    found = read_outcome(path.parent)
    assert (found.final, found.disturbed_because, found.changes) == (outcome.final, ["it slept"], [])
