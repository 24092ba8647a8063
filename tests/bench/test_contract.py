"""What every registered method must keep, on real data."""

import math

import pytest
import torch
from helpers import METHOD_LINES, experiment, run_one

from bench.clock import COUNTED, Ledger
from bench.method_registry import METHODS
from bench.protocol import Split
from bench.records import Status, read_run, run_id
from bench.spec import method_of, task_of

TIMES = ("counted_seconds", "wall_seconds")


def test_every_registered_method_is_under_contract():
    assert set(METHOD_LINES) == set(METHODS)


@pytest.fixture(params=sorted(METHOD_LINES))
def spec(request, tmp_path):
    return experiment(tmp_path, request.param).specs[0]


def timeless(records):
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


class TestMethod:
    def test_same_seed_gives_the_same_records(self, spec, tmp_path):
        folders = [tmp_path / "a", tmp_path / "b"]
        for folder in folders:
            assert run_one(spec, folder).status is Status.BUDGET_REACHED
        first, second = (timeless(read_run(folder / run_id(spec)).records) for folder in folders)
        assert first == second
        assert first[-1]["step"] == 60

    def test_another_seed_gives_other_records(self, spec, tmp_path):
        other = {**spec, "seed": 1}
        finals = [run_one(s, tmp_path).final["validation_loss"] for s in (spec, other)]
        assert finals[0] != finals[1]

    def test_incumbent_never_worsens_on_validation(self, spec, tmp_path):
        run_one(spec, tmp_path)
        losses = [r["incumbent_validation_loss"] for r in read_run(tmp_path / run_id(spec)).evaluations]
        known = [loss for loss in losses if loss is not None]
        assert known
        assert known == sorted(known, reverse=True)

    def test_never_sees_the_test_split(self, spec):
        """The task a method gets is built from training data alone: no tensor of it holds a test example."""
        task, test = task_of(spec, torch.device("cpu"), None)
        held = {tuple(row.tolist()) for row in test.inputs}
        method = method_of(spec)
        state = method.init(task, 0)
        method.advance(state, steps=5, progress=0.0, ledger=Ledger())
        splits = [value for value in vars(task).values() if isinstance(value, Split)]
        assert len(splits) == 2
        for split in splits:
            seen = sum(tuple(row.tolist()) in held for row in split.inputs)
            assert seen <= 2  # digits has a few images that occur twice
        assert not any(value is test.inputs for value in vars(state).values())

    def test_advance_makes_no_more_steps_than_asked(self, spec):
        task, _ = task_of(spec, torch.device("cpu"), None)
        method = method_of(spec)
        state = method.init(task, 0)
        for asked in (1, 3, 11, 30):
            before = state.step
            state = method.advance(state, steps=asked, progress=0.1, ledger=Ledger())
            assert 0 < state.step - before <= asked

    def test_accounts_sum_to_the_wall_time(self, spec, tmp_path):
        timed = {**spec, "budget": {"unit": "seconds", "amount": 0.3}}
        outcome = run_one(timed, tmp_path)
        assert sum(outcome.accounts.values()) == pytest.approx(outcome.wall_seconds, rel=1e-6)
        assert sum(outcome.accounts[name] for name in COUNTED) == pytest.approx(outcome.counted_seconds, rel=1e-6)
        assert outcome.counted_seconds >= 0.3


def test_deadline_cuts_a_trial_where_it_stands(tmp_path):
    spec = experiment(tmp_path, "random-search", overrides=["methods.0.trial_epochs=4"]).specs[0]
    outcome = run_one(spec, tmp_path)
    trials = read_run(tmp_path / run_id(spec)).trials
    assert [trial["status"] for trial in trials] == ["finished", "cut"]
    assert [trial["steps"] for trial in trials] == [40, 20]
    assert outcome.steps == 60


def test_a_diverged_training_is_a_result(tmp_path):
    spec = experiment(tmp_path, "fixed", overrides=["methods.0.lr=1e30"]).specs[0]
    outcome = run_one(spec, tmp_path)
    assert outcome.status is Status.DIVERGED
    assert read_run(tmp_path / run_id(spec)).outcome.status.is_result


def test_a_search_tells_a_diverged_trial_and_goes_on(tmp_path):
    lines = ["space=spaces/wild", "methods.0.over.name=fixed"]
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces/wild.yaml").write_text(
        "name: wild\nhyperparameters:\n  lr: {low: 1e20, high: 1e30, log: true}\n"
        "  weight_decay: {low: 0.1, high: 1}\n"
    )
    spec = experiment(tmp_path, "bayesian-search", overrides=lines).specs[0]
    outcome = run_one(spec, tmp_path)
    assert outcome.status is Status.BUDGET_REACHED
    assert outcome.trials >= 6
    assert {t["status"] for t in read_run(tmp_path / run_id(spec)).trials} == {"diverged"}


class Clock:
    """A clock that moves only when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_ledger_books_nested_accounts_once():
    clock = Clock()
    ledger = Ledger(now=clock)
    clock.now = 1.0
    with ledger.account("train"):
        clock.now = 3.0
        with ledger.account("selection"):
            clock.now = 3.5
        clock.now = 4.0
    clock.now = 6.0
    assert ledger.wall() == 6.0
    assert ledger.counted() == 3.0
    assert {k: v for k, v in ledger.seconds.items() if v} == {"setup": 3.0, "train": 2.5, "selection": 0.5}


def test_a_method_that_raises_is_a_failed_run_with_its_traceback(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("baselines.training.Training.advance", broken)
    outcome = run_one(experiment(tmp_path, "fixed").specs[0], tmp_path)
    assert outcome.status is Status.FAILED
    assert "out of luck" in outcome.message
    assert math.isfinite(outcome.wall_seconds)
