"""Makes one run: advances the method, evaluates, records, and saves what is needed to continue."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.experiment.shocks import Event, change_data
from bench.experiment.spec import Spec
from bench.process.signals import Stopper
from bench.protocol import Evaluation, Incumbent, Method, Split, State, Task, judged_anew, select
from bench.protocol.checkpoints import packed, write_checkpoint
from bench.protocol.ledger import Ledger
from bench.records import RunWriter, Status
from bench.records.processes import Process
from bench.records.schema import TIMED
from bench.run.cut_short import cut_short
from bench.run.disturbances import Conditions
from bench.run.environment import finished_now
from bench.run.gradient_correlations import gradient_correlations
from bench.run.pace import Pace
from bench.tracking.sink import Sink

CHECKPOINT_VERSION = 6
SAVED = ("due", "result", "final", "recorded_trials")
"""The loop's fields with plain values, which checkpoints save."""
CHUNK_SECONDS = 0.02
"""The time between two looks at the clock, so that neither reading it nor a late deadline matters."""
CHUNK_STEPS = 10
"""The most steps between two looks, for budgets in steps or epochs: fixed, so that no run depends on a machine's speed."""
MOST_IDLE = 100
"""Calls of `advance` in a row that may make no step, as a proposal does.  A method that makes none would never end."""
RESULT = ("incumbent_validation_loss", "incumbent_test_loss", "incumbent_test_error")
log = logging.getLogger("oho-bench")
Progress = Callable[[float, State], None]
"""Called a few times a second with the fraction of the budget used and the state."""


class Loop:
    """One run in progress."""

    def __init__(self, method: Method, task: Task, *, test: Split, spec: Spec, ledger: Ledger, writer: RunWriter,
                 sink: Sink, progress: Progress, environment: Mapping[str, Any],
                 conditions: Conditions | None = None, plain_step: dict[str, float] | None = None,
                 shared_by: int = 1):  # fmt: skip
        self.method, self.task, self.test, self.spec, self.ledger = method, task, test, spec, ledger
        self.writer, self.sink, self.progress, self.environment = writer, sink, progress, environment
        self.unit, self.amount = spec["budget"]["unit"], spec["budget"]["amount"]
        self.plain_step = plain_step
        """What a step of plain SGD takes on this device, if the budget is in such steps: see `bench.run.plain_steps`."""
        self.unit_seconds = 1.0 if plain_step is None else plain_step["seconds"]
        """The counted seconds in a unit of a timed budget."""
        self.model = task.model(spec["seed"])
        self.state: Any = None
        self.selected: Incumbent | None = None
        self.result: dict[str, float | None] = dict.fromkeys(RESULT)
        self.final: dict[str, Any] = {}
        self.recorded_trials = 0
        self.events = [Event(**event) for event in spec.get("shock", {}).get("events", [])]
        if self.events:
            self.test = Split(*(part.clone() for part in test))  # shocks write into it
        self.idle = 0
        """The calls of `advance` since the last one that made a step."""
        self.due = self.due_after(0.0)
        self.earlier: list[Process] = []
        """The processes that worked on the run before this one."""
        self.is_told = False
        """Whether a failure to write a checkpoint has been reported."""
        self.conditions = conditions or Conditions(task.device)
        self.shared_by = shared_by
        """The number of runs whose common seconds these are: see `bench.run.population`."""

    def start(self, earlier: dict[str, Any] | None) -> None:
        """Makes the first evaluation, or restores what an earlier process saved."""
        self.task.world.step = 0  # a warm-up has counted it on
        if earlier is None:
            self.state = self.method.init(self.task, self.spec["seed"])
            self.task.world.step = 0  # a method may have trained for its set-up
            select(self.state)  # a run that validates nothing returns the untrained model
            self.ledger.switch("runner")
            self.record_incumbent(0.0)
            self.evaluate(0.0)
            while self.steps_to_event() == 0:
                self.shock(self.events.pop(0), 0.0)
            return
        while len(self.events) > earlier["events"]:
            change_data(self.events.pop(0), self.task, self.test, self.spec["seed"])
        self.state = self.method.restored(self.task, self.spec["seed"], earlier["method"])
        self.task.world.step = self.state.step
        self.selected = self.state.incumbent
        for name in SAVED:
            setattr(self, name, earlier[name])
        self.earlier = earlier["processes"]
        self.shared_by = max(self.shared_by, earlier["shared_by"])
        self.ledger.switch("runner")

    def process(self, *, has_ended: bool) -> Process:
        """Describes this process's part in the run: where it works, and what has disturbed it so far."""
        readings, reasons = self.conditions.verdict([each["conditions"] for each in self.earlier], has_ended=has_ended)
        return Process(environment=finished_now(self.environment), conditions=readings, disturbed_because=reasons)

    def checkpoint(self, *, is_last: bool) -> None:
        """Writes all that the run needs to continue.  A failure is reported once, and again before the run is left."""
        content = {
            "version": CHECKPOINT_VERSION, "method": self.state.saved(), "events": len(self.events),
            "records": self.writer.durable(), "seconds": dict(self.ledger.seconds),
            "processes": [*self.earlier, self.process(has_ended=False)], "plain_step": self.plain_step,
            "shared_by": self.shared_by,
            **{name: packed(getattr(self, name)) for name in SAVED},
        }  # fmt: skip
        try:
            write_checkpoint(self.writer.folder, content)
        except OSError as error:
            if is_last or not self.is_told:
                then = "the work since the last one will be repeated" if is_last else "the run continues"
                log.warning("%s: no checkpoint (%s); %s", self.writer.folder, error.strerror, then)
            self.is_told = True

    def until_budget(self, stopper: Stopper, checkpoint_seconds: float) -> Status:
        """Advances and evaluates until the budget is used or the training has diverged."""
        pace = Pace(self.ledger, checkpoint_seconds)
        while not self.is_over:
            pace.checkpoint(stopper, [self])
            used = self.advance(self.used())
            if pace.is_time_to_show():
                self.show(used, stopper)
        return self.conclude()

    @property
    def is_over(self) -> bool:
        """Whether the budget is used or the training has diverged."""
        return self.used() >= self.amount or self.state.diverged

    def show(self, used: float, stopper: Stopper) -> None:
        """Shows the progress, waits while the command is stopped, and checks that the records have not been moved."""
        self.progress(min(1.0, used / self.amount), self.state)
        self.conditions.stopped_seconds += stopper.rest()  # on the runner's account, which is not counted
        self.writer.check_in_place()

    def conclude(self) -> Status:
        """Evaluates the last model, unless that has been done, and returns how the run ended."""
        used = self.used()
        self.state.finish()
        self.record_trials(used)
        if self.final["step"] < self.state.step:
            self.evaluate(used)
        self.final = {**self.final, "selected_step": self.selected.step if self.selected else None}
        for line in cut_short(self.spec, self.task, self.state, self.events):
            log.warning("%s: %s", self.writer.folder, line)
        return Status.DIVERGED if self.state.diverged else Status.BUDGET_REACHED

    def advance(self, used: float) -> float:
        """Advances the method by some steps, records what is due after them, and returns the budget used."""
        steps, before = self.chunk(used, self.due), self.state.step
        with self.ledger.account("train"), self.conditions.working():
            self.method.advance(self.state, steps=steps, progress=used / self.amount, ledger=self.ledger)
        self.idle = self.idle + 1 if self.state.step == before else 0
        if self.idle > MOST_IDLE:
            raise RuntimeError(f"the method's `advance` made no step in {self.idle} calls in a row, and must make one")
        return self.follow()

    def follow(self) -> float:
        """Records what is due after the method has advanced, applies shocks, and returns the budget used."""
        self.task.world.step = self.state.step
        used = self.used()
        self.record_trials(used)
        self.record_incumbent(used)
        if used >= self.due:
            self.evaluate(used)
            self.due = self.due_after(used)
        while self.steps_to_event() == 0 and used < self.amount and not self.state.diverged:
            self.shock(self.events.pop(0), used)
        return used

    def due_after(self, used: float) -> float:
        """Returns when the next evaluation is due: quotients round as those of `used_at` do, where sums would not."""
        count = self.spec["evaluations"]
        number = math.floor(used / self.amount * count)
        while (due := self.amount * number / count) <= used:
            number += 1
        return due

    def used(self) -> float:
        """Returns how much of the budget has been used, in its unit."""
        if self.unit in TIMED:
            return self.ledger.counted() / self.unit_seconds
        return self.used_at(self.state.step)

    def used_at(self, step: int) -> float:
        """Returns how much of a budget in steps or epochs has been used at a step, in its unit."""
        return step / (self.task.steps_per_epoch if self.unit == "epochs" else 1)

    def chunk(self, used: float, due: float) -> int:
        """Returns the steps until the next look at the clock or the next shock."""
        return int(min(self.steps_to_look(used, due), self.steps_to_event()))

    def steps_to_event(self) -> float:
        """Returns the steps until the next shock, or infinity if none is left."""
        if not self.events:
            return math.inf
        return max(0, self.events[0].step(self.task.steps_per_epoch) - self.state.step)

    @property
    def looks_each_step(self) -> bool:
        """Whether the method needs the fraction of the budget used before each step."""
        return self.state.spans_budget

    def steps_to_look(self, used: float, due: float) -> int:
        """Returns the steps until the next look at the clock; near the deadline of a timed run it is one step."""
        remaining = min(due, self.amount) - used
        if self.unit in TIMED:
            per_step = used * self.unit_seconds / max(1, self.state.step) or CHUNK_SECONDS
            return max(1, int(min(CHUNK_SECONDS, 0.5 * remaining * self.unit_seconds) / per_step))
        if self.looks_each_step:
            return 1
        per_step = 1 if self.unit == "steps" else 1 / self.task.steps_per_epoch
        return max(1, min(CHUNK_STEPS, math.ceil(remaining / per_step - 1e-9)))

    def shock(self, event: Event, used: float) -> None:
        """Applies an event between two evaluations, and validates again a model that was selected in another world."""
        state = self.state
        if self.final["step"] < state.step:
            self.evaluate(used)
        self.write({**self.moment("shock", used), "trial": state.trial, "event": str(event)})
        with self.ledger.account("evaluation"):
            for training, kick in itertools.product(state.trainings, event.kicks):
                training.kick(kick)
            change_data(event, self.task, self.test, self.spec["seed"])
            if event.changes_world:
                for judged in {id(each): each for each in (state, *state.trainings)}.values():
                    if judged.incumbent is not None:
                        judged.incumbent = judged_anew(judged, judged.incumbent)
        self.record_incumbent(used)
        self.evaluate(used)

    def record_trials(self, used: float) -> None:
        """Writes the trials that have ended since the last call."""
        for index in range(self.recorded_trials, len(self.state.trials)):
            self.write({**self.moment("trial", used), "trial": index, **asdict(self.state.trials[index])})
        self.recorded_trials = len(self.state.trials)

    def record_incumbent(self, used: float) -> None:
        """Writes a model that was selected since the last call and before the deadline."""
        incumbent = self.state.incumbent
        if incumbent is None or incumbent is self.selected or used > self.amount:
            return
        moment = self.moment("incumbent", used)
        with self.ledger.account("evaluation"):
            loss, error = self.test_of(incumbent)
        self.selected = incumbent
        self.result = dict(zip(RESULT, (incumbent.validation_loss, loss, error), strict=True))
        self.write({**moment, "trial": incumbent.trial, "validation_loss": incumbent.validation_loss,
                    "test_loss": loss, "test_error": error})  # fmt: skip

    def test_of(self, incumbent: Incumbent) -> Evaluation:
        """Evaluates a selected model on the test split."""
        self.model.load_state_dict(incumbent.weights)
        return self.task.evaluate_as_is(self.model, self.test)

    def evaluations(self) -> Sequence[Evaluation]:
        """Evaluates the current model on the validation and the test split."""
        return self.task.evaluate(self.state.model, self.task.validation, self.test)

    def evaluate(self, used: float) -> None:
        """Evaluates the current model on validation and test, on the runner's account, and writes a record."""
        self.conditions.look()
        state, moment = self.state, self.moment("evaluation", used)
        with self.ledger.account("evaluation"):
            validation, test = self.evaluations()
            scalars = state.scalars()
            if count := self.spec.get("gradient_batches"):
                seed = self.spec["seed"]
                scalars |= gradient_correlations(self.task, state.model, seed=seed, step=state.step, count=count)
        self.final = {
            **moment,
            "trial": state.trial,
            "train_loss": state.train_loss,
            "validation_loss": validation.loss,
            "test_loss": test.loss,
            "test_error": test.error,
            **self.result,
            "hyper": {name: value if isinstance(value, list) else [value] for name, value in state.hyper.items()},
            "scalars": scalars,
        }
        self.write(self.final)

    def moment(self, kind: str, used: float) -> dict[str, Any]:
        """Returns the fields with which every record begins; `used` is in the budget's unit."""
        step = self.state.step
        return {
            "kind": kind, "space": self.spec["space"]["name"], "used": used, "step": step,
            "epoch": step / self.task.steps_per_epoch, "counted_seconds": self.ledger.counted(),
            "wall_seconds": self.ledger.wall(),
        }  # fmt: skip

    def write(self, record: dict[str, Any]) -> None:
        """Writes a record to disk, then passes it to the sink."""
        self.writer.append(record)
        with self.ledger.account("tracking"):
            self.sink.record(record)
