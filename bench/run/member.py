"""One run of a batch: its part in what all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from bench.experiment.shocks import Event
from bench.experiment.spec import Spec
from bench.protocol import Evaluation, Incumbent, Split, Task
from bench.protocol.ledger import COUNTED, Ledger
from bench.records.processes import Process
from bench.run.loop import Loop


class MemberLedger(Ledger):
    """The common ledger of a batch, as one of its members sees it: with the seconds of its own earlier processes."""

    def __init__(self, common: Ledger):
        self._common = common
        self._earlier = dict.fromkeys(common.seconds, 0.0)

    @property
    def seconds(self) -> dict[str, float]:  # type: ignore[override]
        """Each account's total so far."""
        return {account: spent + self._earlier[account] for account, spent in self._common.seconds.items()}

    def resume(self, seconds: Mapping[str, float], lost: float) -> None:
        """Continues from the accounts of an earlier process, which had worked `lost` seconds more than they say."""
        for account, spent in {**seconds, "lost": seconds["lost"] + lost}.items():
            self._earlier[account] += spent

    def switch(self, account: str) -> str:
        """Switches the common ledger."""
        return self._common.switch(account)

    def counted(self) -> float:
        """Returns the seconds billed so far, including the running account."""
        return self._common.counted() + sum(self._earlier[account] for account in COUNTED)

    def wall(self) -> float:
        """Returns the seconds since the first process opened its ledger."""
        return self._common.wall() + sum(self._earlier.values())


class Evaluations(Protocol):
    """What makes a member's evaluations with those of the others."""

    def evaluation(self, loop: MemberLoop, name: str) -> Evaluation:
        """Returns a member's evaluation on its validation or test split, or that of its selected model on the latter."""
        ...


class MemberLoop(Loop):
    """One run in progress, whose steps and evaluations its batch makes."""

    batch: Evaluations | None = None
    data_changed_at = -1
    """The step at which a shock changed the member's data, so that evaluations made together before are not its own."""

    @property
    def looks_each_step(self) -> bool:
        """False: the batch works out what fraction of the budget is used before each of its steps."""
        return False

    def progress_after(self, steps: int) -> float:
        """Returns the fraction of the budget that is used after so many further steps."""
        return self.used_at(self.state.step + steps) / self.amount

    def process(self, *, has_ended: bool) -> Process:
        """Describes this process's part in the run; nothing disturbs seconds that are not the run's own."""
        return {**super().process(has_ended=False), "disturbed_because": []}

    def shock(self, event: Event, used: float) -> None:
        """Applies an event; evaluations of the same step that follow are the member's own."""
        if self.final["step"] < self.state.step:
            self.evaluate(used)
        self.data_changed_at = self.state.step
        super().shock(event, used)

    def test_of(self, incumbent: Incumbent) -> Evaluation:
        """Evaluates a selected model on the test split, with those of the other members if all were judged just now."""
        if self._is_common and incumbent.judged == self.state.step:
            assert self.batch is not None
            return self.batch.evaluation(self, "test" if incumbent.step == incumbent.judged else "selected")
        return super().test_of(incumbent)

    def evaluations(self) -> Sequence[Evaluation]:
        """Evaluates the current model on the validation and the test split, with those of the other members."""
        if self._is_common:
            assert self.batch is not None
            return [self.batch.evaluation(self, name) for name in ("validation", "test")]
        return super().evaluations()

    @property
    def _is_common(self) -> bool:
        return self.batch is not None and self.data_changed_at < self.state.step


def of_its_own(task: Task, spec: Spec) -> Task:
    """Returns the task with a world of its own and, if shocks write into the examples, with examples of its own."""
    events = [Event(**event) for event in spec.get("shock", {}).get("events", [])]
    world = replace(task.world)
    if not any(event.changes_data for event in events):
        return replace(task, world=world)
    train, validation = (Split(*(part.clone() for part in split)) for split in (task.train, task.validation))
    return replace(task, world=world, train=train, validation=validation)
