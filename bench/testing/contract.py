"""The rules that every method must keep, as a class to subclass in one's own tests.

    from bench.testing import MethodContract

    class TestRestarts(MethodContract):
        method = "./restarts.py:METHOD"
        options = {"epochs": 2}

`oho-bench check ./restarts.py:METHOD` applies the same rules without pytest.  Every rule is a method `test_*` whose
docstring begins with the rule in one line; a broken rule raises AssertionError with a sentence.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch

from bench.experiment.engines import why_eager
from bench.experiment.expansion import load_experiment
from bench.experiment.shipped import configurations
from bench.experiment.spec import Spec, method_of, task_of
from bench.experiment.yaml_file import ConfigError
from bench.protocol import GRAPH, Ledger, Method, State, Task
from bench.protocol.checkpoints import CHECKPOINT, write_checkpoint
from bench.protocol.ledger import COUNTED
from bench.records import Outcome, Run, Status, read_run, result_at, run_id
from bench.run.runner import run
from bench.testing.probes import Poisoned, Proxy, Ticks, Watched, require, require_same
from bench.tracking.wandb_sink import NoSink

CPU = torch.device("cpu")
CLOCKS = ("counted_seconds", "wall_seconds")
ROUNDING = 0.1
"""The largest relative difference of two losses that other kernels explain, since trainings amplify rounding."""
STEP_SECONDS = 0.003
"""How long a step takes on the clock of the rule about deadlines."""


class MethodContract:
    """The rules, applied to one method with given options on one task; every run lasts `steps` updates."""

    method: ClassVar[str]
    """A registered name, `./FILE.py:NAME`, or `package.module:NAME`."""
    options: ClassVar[Mapping[str, Any]] = {}
    task: ClassVar[Mapping[str, Any]] = {"name": "digits-mlp", "selection_epochs": 1}
    space: ClassVar[str] = str(configurations() / "spaces" / "fair")
    steps: ClassVar[int] = 60
    smaller_budgets: ClassVar[tuple[int, ...]] = (10, 33, 45)
    _spec: ClassVar[Spec]
    _measured: ClassVar[dict[str, Run]] = {}
    """Runs with seed 0, which several rules examine, by run id."""

    def test_the_same_seed_gives_the_same_records(self) -> None:
        """The same seed gives the same records, to the last digit."""
        with _folder() as folder:
            outcome, second = _run(self.spec(), folder)
        require(outcome.status is Status.BUDGET_REACHED, f"the run ended as {outcome.status}: {outcome.message}")
        require_same(_timeless(self._first()), _timeless(second))

    def test_the_same_clock_gives_the_same_timed_run(self) -> None:
        """The same seed and the same clock give the same run under a budget of seconds."""
        timed, found = _within(self.spec(), "seconds", 0.05), []
        for _ in range(2):
            with _folder() as folder:
                found.append(_run(timed, folder, now=Ticks(0.0025)))
        (first, one), (second, other) = found
        require_same(_timeless(one), _timeless(other))
        require(first.counted_seconds == second.counted_seconds >= 0.05, "the counted seconds differ")

    def test_another_seed_gives_other_records(self) -> None:
        """Another seed gives another training."""
        with _folder() as folder:
            outcome, _ = _run({**self.spec(), "seed": 1}, folder)
        first = self._first().outcome
        assert first is not None
        require(outcome.final["validation_loss"] != first.final["validation_loss"], "both seeds end in the same loss")

    def test_the_incumbent_improves_within_the_budget(self) -> None:
        """The incumbent improves on the validation split and is found within the budget."""
        found = self._first().incumbents
        losses = [record["validation_loss"] for record in found]
        require(len(losses) > 1, "only the untrained model was selected: `select` was not called or found nothing better")
        require(losses == sorted(set(losses), reverse=True), f"validation losses do not fall: {losses}")
        require(found[0]["step"] == 0, "the first incumbent is not the untrained model")
        require(all(record["used"] <= self.steps for record in found), "an incumbent was found after the budget had ended")

    def test_a_smaller_budget_is_replayed_exactly(self) -> None:
        """The result of a smaller budget can be read off the records, unless the schedule spans the budget."""
        whole = self._first()
        assert whole.outcome is not None
        for amount in self.smaller_budgets:
            result = result_at(whole, amount)
            if whole.outcome.spans_budget:
                require(result is None, "a schedule that spans the budget was replayed")
                continue
            with _folder() as folder:
                outcome, _ = _run({**_within(self.spec(), "steps", amount), "evaluations": 2}, folder)
            require(result is not None, f"nothing was selected within {amount} steps")
            for name in ("validation_loss", "test_loss"):
                read, made = (result or {})[name], outcome.final[f"incumbent_{name}"]
                difference = f"{name} at {amount} steps is {read} in the records but {made} in a run with that budget"
                require(read == made, f"{difference}; a method that knows its budget must say so by `State.spans_budget`")

    def test_the_test_split_is_never_touched(self) -> None:
        """The method never touches the test split, which raises here while the method is at work."""
        poisoned: list[Poisoned] = []

        def with_poison(*arguments: Any) -> tuple[Task, Any]:
            task, test = task_of(*arguments)
            poisoned.append(Poisoned(test))
            return task, poisoned[0]

        with (
            mock.patch("bench.run.runner.task_of", with_poison),
            mock.patch("bench.run.runner.method_of", lambda spec, *rest: Watched(method_of(spec), poisoned)),
            _folder() as folder,
        ):
            outcome, _ = _run(self.spec(), folder)
        require(outcome.status is Status.BUDGET_REACHED, f"the run ended as {outcome.status}: {outcome.message}")

    def test_advance_makes_no_more_steps_than_asked(self) -> None:
        """`advance` makes at most the requested number of steps, and returns at a validation or a proposal."""
        method, state = self._begun()
        made = [1]
        for asked in (1, 3, 11, 30, 30, 30):
            before, known = state.step, state.incumbent
            method.advance(state, steps=asked, progress=0.1, ledger=Ledger())
            made.append(state.step - before)
            require(made[-1] <= asked, f"`advance` made {made[-1]} steps when asked for {asked}")
            fresh = state.incumbent is known or (state.incumbent is not None and state.incumbent.step == state.step)
            require(fresh, "`advance` made steps after it had selected a model")
            if made[-1] == 0:  # a proposal instead of steps: the previous trial has ended
                require(made[-2] > 0, "`advance` made no step in two calls in a row")
                proposed = state.trial_step == 0 and state.trial == len(state.trials) > 0
                require(proposed, "`advance` made no step, although no trial had ended")

    def _advance(self, method: Method, state: State, step: int) -> None:
        idle = 0
        while state.step < step:
            before = state.step
            method.advance(state, steps=step - state.step, progress=state.step / self.steps, ledger=Ledger())
            idle = idle + 1 if state.step == before else 0
            require(idle < 2, "`advance` made no step in two calls in a row")

    def test_a_saved_state_goes_on_bit_for_bit(self) -> None:
        """A state that was saved and restored continues as if nothing had happened, bit for bit."""
        places = (7 * self.steps // 60, 34 * self.steps // 60)
        stops = sorted({stop for at in places for stop in (at, at + 1)} | {self.steps})
        method, state = self._begun()
        expected, saved = {}, {}
        for step in stops:
            self._advance(method, state, step)
            expected[step] = _described(state)
            if step in places:
                saved[step] = _stored(state)
        for at in places:
            other, (task, _) = method_of(self.spec()), task_of(self.spec(), CPU, None)
            restored = other.restored(task, 0, saved[at])
            for step in (stop for stop in stops if stop >= at):
                self._advance(other, restored, step)
                require(expected[step] == _described(restored), f"saved at step {at}, the state differs at step {step}")

    def test_a_graph_repeats_its_steps(self) -> None:
        """A graph can repeat the steps, if the entry says so, and gives their losses; a stand-in for graphs tries it."""
        whole = self._first()
        assert whole.outcome is not None
        if why_eager(self.spec()["method"]):
            return
        with _folder() as folder:
            outcome, _ = _run({**self.spec(), "engine": GRAPH}, folder)
        eager, graph = (each.final["incumbent_validation_loss"] for each in (whole.outcome, outcome))
        difference = f"the loss is {eager} with eager steps and {graph} with a graph's, which rounding does not explain"
        require(math.isclose(eager, graph, rel_tol=ROUNDING), difference)

    def test_the_deadline_is_overshot_by_one_step_at_most(self) -> None:
        """A timed run ends within one step of its deadline, on a clock that only steps advance."""
        clock, budget = Ticks(0.0), 0.1

        class Timed(Proxy):
            def advance(self, state: State, **options: Any) -> None:
                before = state.step
                self._of.advance(state, **options)
                clock.now += STEP_SECONDS * (state.step - before)

        with mock.patch("bench.run.runner.method_of", lambda spec, *rest: Timed(method_of(spec))), _folder() as folder:
            outcome, _ = _run(_within(self.spec(), "seconds", budget), folder, now=clock)
        expected = math.ceil(budget / STEP_SECONDS)
        require(outcome.steps == expected, f"the run made {outcome.steps} steps until its deadline, not {expected}")

    def test_the_accounts_sum_to_the_wall_time(self) -> None:
        """Every second is in one account: all accounts sum to the wall time, the counted ones to the counted time."""
        with _folder() as folder:
            outcome, _ = _run(_within(self.spec(), "seconds", 0.1), folder)
        every, counted = sum(outcome.accounts.values()), sum(outcome.accounts[name] for name in COUNTED)
        booked = f"the accounts sum to {every} s, but the run took {outcome.wall_seconds} s"
        require(math.isclose(every, outcome.wall_seconds, rel_tol=1e-6), booked)
        summed = f"the counted accounts sum to {counted} s, not to {outcome.counted_seconds} s"
        require(math.isclose(counted, outcome.counted_seconds, rel_tol=1e-6), summed)
        require(outcome.counted_seconds >= 0.1, f"the run used only {outcome.counted_seconds} s of its budget of 0.1 s")

    @classmethod
    def spec(cls) -> Spec:
        """Returns the spec of a run with seed 0.  Raises `ConfigError` if the method, options or task are wrong."""
        if "_spec" not in vars(cls):
            cls._spec = cls._resolved()
        return copy.deepcopy(cls._spec)

    @classmethod
    def _resolved(cls) -> Spec:
        content = {
            "experiment": "contract", "task": cls.task, "budget": {"steps": cls.steps}, "seeds": [0], "space": cls.space,
            "threads": 1, "evaluations": 6, "tracking": {"mode": "disabled"},
            "methods": [{"name": _absolute(cls.method), **cls.options}],
        }  # fmt: skip
        with _folder() as folder:
            path = folder / "contract.yaml"
            path.write_text(json.dumps(content, default=dict), encoding="utf-8")
            try:
                return load_experiment(path).specs[0]
            except ConfigError as error:  # without the place in a file that the user does not know
                told = re.sub(rf"^{re.escape(str(path))}:\d+:\d+: ", "", str(error))
                raise ConfigError(re.sub(r"\bmethods\.0\.(?=\w)", "", told)) from None

    @classmethod
    def rules(cls) -> dict[str, str]:
        """Returns each rule's first line, by the name of its method, in the order they are written."""
        names = [name for name in vars(MethodContract) if name.startswith("test_")]
        return {name: (getattr(cls, name).__doc__ or name).split("\n")[0] for name in names}

    def _first(self) -> Run:
        spec = self.spec()
        identity = run_id(spec)
        if identity not in self._measured:
            with _folder() as folder:
                self._measured[identity] = _run(spec, folder)[1]
        return self._measured[identity]

    def _begun(self) -> tuple[Method, Any]:
        task, _ = task_of(self.spec(), CPU, None)
        method = method_of(self.spec())
        return method, method.init(task, 0)


def _absolute(name: str) -> str:
    """Returns the name with the absolute path of the file, if it names one."""
    source, _, place = name.rpartition(":")
    return f"{Path(source).resolve()}:{place}" if source.endswith(".py") else name


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _stored(state: State) -> Any:
    """Returns what a checkpoint of the state holds once it is read."""
    with _folder() as folder:
        write_checkpoint(folder, {"method": state.saved()})
        return torch.load(folder / CHECKPOINT, weights_only=True)["method"]


def _run(spec: Spec, folder: Path, **options: Any) -> tuple[Outcome, Run]:
    outcome = run(spec, folder, data_root=None, open_sink=lambda *arguments: NoSink(), **options)
    if outcome.status is Status.FAILED:
        raise AssertionError(_raised(outcome.message))
    return outcome, read_run(folder / run_id(spec))


def _raised(message: str) -> str:
    """Returns the last line of a failed run's traceback and the place that raised it, as FILE:LINE."""
    lines = message.strip().splitlines()
    places = re.findall(r'^ *File "(.+)", line (\d+)', message, re.MULTILINE)
    return f"{lines[-1].strip()} ({':'.join(places[-1])})" if places else lines[-1].strip()


def _within(spec: Spec, unit: str, amount: float) -> Spec:
    return {**spec, "budget": {"unit": unit, "amount": amount}}


def _timeless(found: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in CLOCKS} for record in found.records]


def _described(state: State) -> list[object]:
    """Returns all visible parts of a state, with every bit of its weights."""
    weights = [*state.model.state_dict().values(), *(state.incumbent.weights.values() if state.incumbent else ())]
    seen = [state.step, state.trial, state.trial_step, state.hyper, state.curve, state.trials, state.train_loss]
    return [repr(seen), repr(state.scalars()), *(weight.detach().numpy().tobytes() for weight in weights)]
