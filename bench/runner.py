"""Runs one spec: owns the loop, the clock, the deadline and the test split, and writes the records."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from bench.clock import Ledger
from bench.environment import describe_environment
from bench.protocol import Incumbent, Method, Split, State, Task
from bench.records import Outcome, RunWriter, Status
from bench.spec import Spec, method_of, set_threads, task_of
from bench.tasks import Evaluation, evaluate
from oho.memory import keep_freed_memory

CHUNK_SECONDS = 0.02
"""Between two looks at the clock, so that neither reading it nor a late deadline weighs."""
CHUNK_STEPS = 10
"""The same where the budget is in steps or epochs: fixed, so that a run does not depend on the machine's speed."""
WARM_UP_STEPS = 3


class Sink(Protocol):
    """Receives what the records receive.  Whatever it raises is the sink's own affair: see `bench.tracking`."""

    def record(self, record: dict[str, Any]) -> None:
        """One line of the records."""
        ...

    def close(self, outcome: Outcome) -> None:
        """The run's end."""
        ...


Progress = Callable[[float, State], None]
"""Called a few times a second with the fraction of the budget used, and the state."""


class Interrupted(BaseException):
    """Raised by a signal handler: the run ends where it stands, its records kept."""


def run(spec: Spec, root: Path, *, data_root: Path | None, open_sink: Callable[[str, Spec, Path], Sink],
        progress: Progress = lambda fraction, state: None) -> Outcome:  # fmt: skip
    """Runs a spec from its beginning and writes its folder.  A failure is an outcome too; only signals are raised on."""
    device = torch.device(spec["device"])
    ledger = Ledger(torch.cuda.synchronize if device.type == "cuda" else None)
    threads = set_threads(spec)
    keep_freed_memory()
    writer = RunWriter(root, spec)
    sink = open_sink(writer.id, spec, writer.folder)
    task: Task | None = None
    run_loop: _Loop | None = None
    status, message = Status.FAILED, ""
    stop: BaseException | None = None
    try:
        task, test = task_of(spec, device, data_root)
        method = method_of(spec)
        _warm_up(method, task, spec["seed"])
        run_loop = _Loop(method, task, test, spec, ledger, writer, sink, progress)
        status = run_loop.until_budget()
    except (Interrupted, KeyboardInterrupt) as signal:
        status, message, stop = Status.INTERRUPTED, "stopped by a signal; run it again to start it anew", signal
    except Exception:
        message = traceback.format_exc()
    environment = describe_environment(device, threads, data=task.data if task else None)
    outcome = _outcome(status, message, run_loop, ledger, environment)
    writer.close(outcome)
    sink.close(outcome)
    if stop is not None:
        raise stop
    return outcome


class _Loop:
    """One run in progress."""

    def __init__(self, method: Method, task: Task, test: Split, spec: Spec, ledger: Ledger, writer: RunWriter,
                 sink: Sink, progress: Progress):  # fmt: skip
        self.method, self.task, self.spec, self.ledger = method, task, spec, ledger
        self.writer, self.sink, self.progress = writer, sink, progress
        self.unit, self.amount = spec["budget"]["unit"], spec["budget"]["amount"]
        self.evaluator = _Evaluator(task, test, spec["seed"])
        self.final: dict[str, Any] = {}
        self.recorded_trials = 0
        self.state = method.init(task, spec["seed"])

    def until_budget(self) -> Status:
        """Advances and evaluates until the budget is used or the training has diverged."""
        state, interval, shown = self.state, self.amount / self.spec["evaluations"], -1.0
        self.ledger.switch("runner")
        self.evaluate()
        due = interval
        while (used := self.used()) < self.amount and not state.diverged:
            steps = self.chunk(used, due)
            with self.ledger.account("train"):
                state = self.state = self.method.advance(
                    state, steps=steps, progress=used / self.amount, ledger=self.ledger
                )
            found = self.record_trials()
            used = self.used()
            if used >= due or found:
                self.evaluate()
                due = interval * (math.floor(used / interval) + 1)
            if (now := self.ledger.wall()) - shown > 0.1:
                self.progress(min(1.0, used / self.amount), state)
                shown = now
        with self.ledger.account("evaluation"):
            if not state.diverged:
                self.method.finish(state)
        self.record_trials()
        self.evaluate()
        return Status.DIVERGED if state.diverged else Status.BUDGET_REACHED

    def used(self) -> float:
        """The budget's unit spent so far."""
        if self.unit == "seconds":
            return self.ledger.counted()
        return self.state.step / (self.task.steps_per_epoch if self.unit == "epochs" else 1)

    def chunk(self, used: float, due: float) -> int:
        """Steps until the next look at the clock.  Near the deadline of a timed run it is one step."""
        remaining = min(due, self.amount) - used
        if self.unit == "seconds":
            per_step = used / max(1, self.state.step) or CHUNK_SECONDS
            return max(1, int(min(CHUNK_SECONDS, 0.5 * remaining) / per_step))
        per_step = 1 if self.unit == "steps" else 1 / self.task.steps_per_epoch
        return max(1, min(CHUNK_STEPS, math.ceil(remaining / per_step - 1e-9)))

    def record_trials(self) -> bool:
        """Writes the trials ended since the last call; True if one of them holds the incumbent."""
        found = False
        for index in range(self.recorded_trials, len(self.state.trials)):
            counted = self.ledger.counted()
            self.write({"kind": "trial", "trial": index, "counted_seconds": counted, **asdict(self.state.trials[index])})
            found |= self.state.incumbent is not None and self.state.incumbent.trial == index
        self.recorded_trials = len(self.state.trials)
        return found

    def evaluate(self) -> None:
        """Looks at validation and test, on the runner's account, and writes a record."""
        state = self.state
        counted, wall = self.ledger.counted(), self.ledger.wall()
        with self.ledger.account("evaluation"):
            losses = self.evaluator(state, self.method.incumbent(state))
            scalars = self.method.scalars(state)
        self.final = {
            "kind": "evaluation",
            "step": state.step,
            "epoch": state.step / self.task.steps_per_epoch,
            "trial": state.trial,
            "counted_seconds": counted,
            "wall_seconds": wall,
            "train_loss": state.train_loss,
            **losses,
            "hyper": {name: value if isinstance(value, list) else [value] for name, value in state.hyper.items()},
            "scalars": scalars,
        }
        self.write(self.final)

    def write(self, record: dict[str, Any]) -> None:
        """To disk first, then to the sink."""
        self.writer.append(record)
        with self.ledger.account("tracking"):
            self.sink.record(record)


class _Evaluator:
    """Losses of the present model and of the incumbent; an incumbent is looked at once."""

    def __init__(self, task: Task, test: Split, seed: int):
        self._task, self._test = task, test
        self._model = task.model(seed)
        self._known: Incumbent | None = None
        self._incumbent_test: Evaluation | None = None

    def __call__(self, state: State, incumbent: Incumbent | None) -> dict[str, float | None]:
        validation, test = self._task.evaluate(state.model, self._task.validation, self._test)
        if incumbent is not self._known and incumbent is not None:
            self._model.load_state_dict(incumbent.weights)
            self._known, self._incumbent_test = incumbent, evaluate(self._model, self._test)
        best, best_test = self._known, self._incumbent_test
        return {
            "validation_loss": validation.loss,
            "test_loss": test.loss,
            "test_error": test.error,
            "incumbent_validation_loss": best.validation_loss if best else None,
            "incumbent_test_loss": best_test.loss if best_test else None,
            "incumbent_test_error": best_test.error if best_test else None,
        }


def _warm_up(method: Method, task: Task, seed: int) -> None:
    """The first steps of a process are slow (thread pools, kernels); they belong to nobody's budget."""
    state = method.init(task, seed)
    method.advance(state, steps=WARM_UP_STEPS, progress=0.0, ledger=Ledger())
    task.evaluate(state.model, task.validation)


def _outcome(status: Status, message: str, loop: _Loop | None, ledger: Ledger, environment: dict) -> Outcome:
    state = loop.state if loop else None
    counted, wall = ledger.counted(), ledger.wall()
    return Outcome(
        status=status,
        message=message,
        steps=state.step if state else 0,
        trials=len(state.trials) if state else 0,
        counted_seconds=counted,
        wall_seconds=wall,
        accounts=dict(ledger.seconds),
        final=loop.final if loop else {},
        environment=environment,
    )
