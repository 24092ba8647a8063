"""What every registered method must keep, on real data."""

import time

import pytest
import torch
from helpers import METHOD_LINES, Ticks, experiment, run_one

from bench.experiment.registries import METHODS
from bench.experiment.spec import method_of, task_of
from bench.protocol.ledger import COUNTED, Ledger
from bench.records import Status, read_run, run_id
from bench.records.checkpoints import CHECKPOINT, write_checkpoint
from reports.replay import result_at

WALL = ("counted_seconds", "wall_seconds")


def test_every_registered_method_is_under_contract():
    assert set(METHOD_LINES) == set(METHODS)


@pytest.fixture(params=sorted(METHOD_LINES))
def spec(request, tmp_path):
    return experiment(tmp_path, request.param).specs[0]


def within(spec, unit, amount):
    return {**spec, "budget": {"unit": unit, "amount": amount}}


def timeless(records):
    return [{key: value for key, value in record.items() if key not in WALL} for record in records]


def advanced(method, state, step):
    while state.step < step:
        method.advance(state, steps=step - state.step, progress=state.step / 60, ledger=Ledger())
    return state


def described(method, state):
    """All of a state that can be seen, with every bit of its weights."""
    found = state.incumbent
    weights = [*state.model.state_dict().values(), *(found.weights.values() if found else ())]
    seen = [state.step, state.trial, state.trial_step, state.hyper, state.curve, state.trials, state.train_loss]
    return [repr(seen), repr(state.scalars()), *(weight.detach().numpy().tobytes() for weight in weights)]


class Poisoned:
    """A split that raises when it is touched at the wrong time."""

    def __init__(self, split):
        self._split, self.at_work, self.touched = split, False, 0

    def __getattr__(self, name):
        assert not self.at_work, "a method touched the test split"
        self.touched += 1
        return getattr(self._split, name)


class TestMethod:
    def test_same_seed_gives_the_same_records(self, spec, tmp_path):
        folders = [tmp_path / "a", tmp_path / "b"]
        for folder in folders:
            assert run_one(spec, folder).status is Status.BUDGET_REACHED
        first, second = (timeless(read_run(folder / run_id(spec)).records) for folder in folders)
        assert first == second
        assert first[-1]["step"] == 60

    def test_same_seed_and_same_clock_give_the_same_timed_run(self, spec, tmp_path):
        timed = within(spec, "seconds", 0.05)
        folders = [tmp_path / "a", tmp_path / "b"]
        for folder in folders:
            assert run_one(timed, folder, now=Ticks()).status is Status.BUDGET_REACHED
        first, second = (read_run(folder / run_id(timed)) for folder in folders)
        assert timeless(first.records) == timeless(second.records)
        assert first.outcome.counted_seconds == second.outcome.counted_seconds >= 0.05

    def test_another_seed_gives_other_records(self, spec, tmp_path):
        other = {**spec, "seed": 1}
        finals = [run_one(s, tmp_path).final["validation_loss"] for s in (spec, other)]
        assert finals[0] != finals[1]

    def test_incumbent_improves_on_validation_and_was_found_within_the_budget(self, spec, tmp_path):
        run_one(spec, tmp_path)
        found = read_run(tmp_path / run_id(spec)).incumbents
        losses = [record["validation_loss"] for record in found]
        assert len(losses) > 1
        assert losses == sorted(set(losses), reverse=True)
        assert found[0]["step"] == 0
        assert all(record["used"] <= 60 for record in found)

    def test_a_smaller_budget_is_replayed_exactly(self, spec, tmp_path):
        run_one(spec, tmp_path)
        whole = read_run(tmp_path / run_id(spec))
        for amount in (10, 33, 45):
            smaller = {**within(spec, "steps", amount), "evaluations": 2}
            result = result_at(whole, amount)
            if whole.outcome.spans_budget:
                assert result is None
                continue
            final = run_one(smaller, tmp_path).final
            assert result["validation_loss"] == final["incumbent_validation_loss"]
            assert result["test_loss"] == final["incumbent_test_loss"]

    def test_never_touches_the_test_split(self, spec, tmp_path, monkeypatch):
        """Through a whole run, with a test split that raises when it is touched while the method is at work."""
        poisoned: list[Poisoned] = []

        def task_with_poison(*arguments):
            task, test = task_of(*arguments)
            poisoned.append(Poisoned(test))
            return task, poisoned[0]

        class Watched:
            def __init__(self, method):
                self._method = method

            def __getattr__(self, name):
                found = getattr(self._method, name)

                def at_work(*arguments, **options):
                    poisoned[0].at_work = True
                    result = found(*arguments, **options)
                    poisoned[0].at_work = False
                    return result

                return at_work if callable(found) else found

        monkeypatch.setattr("bench.run.runner.task_of", task_with_poison)
        monkeypatch.setattr("bench.run.runner.method_of", lambda spec: Watched(method_of(spec)))
        assert run_one(spec, tmp_path).status is Status.BUDGET_REACHED
        assert poisoned[0].touched
        task, test = task_of(spec, torch.device("cpu"), None)
        held = {tuple(row.tolist()) for row in test.inputs}
        for split in (task.train, task.validation):
            assert sum(tuple(row.tolist()) in held for row in split.inputs) <= 2  # digits has a few images twice

    def test_advance_makes_no_more_steps_than_asked_and_stops_at_a_validation_or_proposal(self, spec):
        task, _ = task_of(spec, torch.device("cpu"), None)
        method = method_of(spec)
        state = method.init(task, 0)
        all_made = []
        for asked in (1, 3, 11, 30, 30, 30, 30, 30):
            before, known, trials = state.step, state.incumbent, len(state.trials)
            method.advance(state, steps=asked, progress=0.1, ledger=Ledger())
            all_made.append(state.step - before)
            assert all_made[-1] <= asked
            assert state.incumbent is known or state.incumbent.step == state.step
            if all_made[-1] == 0:  # a proposal, in the place of steps: the trial before has ended
                assert all_made[-2] > 0
                assert state.trial_step == 0
                assert state.trial == len(state.trials) >= trials > 0

    @pytest.mark.parametrize("at", [7, 34])
    def test_a_saved_state_goes_on_bit_for_bit(self, spec, at, tmp_path):
        """Through a file that is loaded without pickle, into a method made anew."""
        task, _ = task_of(spec, torch.device("cpu"), None)
        method = method_of(spec)
        state = advanced(method, method.init(task, 0), at)
        write_checkpoint(tmp_path, {"method": state.saved()})
        other = method_of(spec)
        saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)["method"]
        restored = other.restored(task, 0, saved)
        assert described(method, state) == described(other, restored)
        for steps in (at + 1, 60):
            state, restored = advanced(method, state, steps), advanced(other, restored, steps)
            assert described(method, state) == described(other, restored)

    def test_the_deadline_is_overshot_by_one_step_at_most(self, spec, tmp_path, monkeypatch):
        """On a clock that a step moves by 3 ms and nothing else moves."""
        method, clock = method_of(spec), Ticks(step=0.0)

        class Watched:
            def __getattr__(self, name):
                return getattr(method, name)

            def advance(self, state, *, steps, progress, ledger):
                before = state.step
                method.advance(state, steps=steps, progress=progress, ledger=ledger)
                clock.now += 0.003 * (state.step - before)

        monkeypatch.setattr("bench.run.runner.method_of", lambda spec: Watched())
        outcome = run_one(within(spec, "seconds", 0.2), tmp_path, now=clock)
        assert outcome.steps == 67
        assert outcome.counted_seconds == pytest.approx(0.201)

    def test_accounts_sum_to_the_wall_time(self, spec, tmp_path):
        timed = within(spec, "seconds", 0.3)
        ends = []

        class Closing:
            def record(self, record):
                pass

            def close(self, outcome):
                ends.append(time.perf_counter())

        start = time.perf_counter()
        outcome = run_one(timed, tmp_path, sink=Closing())
        wall = ends[0] - start
        assert sum(outcome.accounts.values()) == pytest.approx(outcome.wall_seconds, rel=1e-6)
        assert sum(outcome.accounts[name] for name in COUNTED) == pytest.approx(outcome.counted_seconds, rel=1e-6)
        assert outcome.wall_seconds <= wall
        assert outcome.counted_seconds >= 0.3
