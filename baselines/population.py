"""Population-based training (Jaderberg et al., 2017): members train in turn, and the worst copy and vary the best."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field
from torch import nn

from baselines.training import Training, TrainingState, hyper_at_start, is_scheduled_training
from bench.protocol import Dimension, Ledger, MethodEntry, Options, State, Task, Trial, adopt, draw, remade, stream_seed


class PopulationOptions(Options):
    """Each of the `members` trains the method `over`; the hyperparameters that it leaves open evolve.

    Whenever all members have trained for `interval_epochs`, each of the worst `fraction` of them takes over the weights,
    optimizer state and hyperparameters of one of the best, then multiplies each hyperparameter by one of the `factors` or,
    with probability `redraw`, draws it anew.
    """

    over: Any
    members: int = Field(default=10, ge=2)
    interval_epochs: int = Field(default=1, ge=1)
    fraction: float = Field(default=0.2, gt=0, le=0.5)
    factors: tuple[float, float] = (0.8, 1.25)
    redraw: float = Field(default=0.25, ge=0, le=1)

    @property
    def validates_after_epochs(self) -> int:
        """An interval's end."""
        return self.interval_epochs


@dataclass(kw_only=True)
class PopulationState(State):
    """Members in order, of which number `place` trains now.  A trial is one interval of one member."""

    model: nn.Module = remade()
    hyper: dict[str, Any] = remade()
    members: list[TrainingState] = remade()
    searched: list[str] = remade()
    """Names of the hyperparameters that evolve."""
    losses: list[float] = field(default_factory=list)
    """Each member's validation loss at the end of its last interval; infinite if it diverged."""
    place: int = 0
    generation: int = 0
    """The number of intervals that all members have finished."""
    curve_start: int = 0
    """The index in the member's curve at which the current interval begins."""

    @property
    def trainings(self) -> list[TrainingState]:
        """All members."""
        return self.members

    @property
    def member(self) -> TrainingState:
        """The member that trains now."""
        return self.members[self.place]

    @property
    def spans_budget(self) -> bool:
        """Whether the members' schedule depends on the budget."""
        return self.member.spans_budget

    def scalars(self) -> dict[str, float]:
        """Returns the number of intervals that all members have finished."""
        return {"generation": float(self.generation)}

    def saved(self) -> dict[str, Any]:
        """Returns the saved fields together with every member."""
        return {**super().saved(), "members": [member.saved() for member in self.members]}

    def begin_interval(self, steps: int) -> None:
        """Begins the current member's interval."""
        member = self.member
        self.trial, self.trial_step, self.curve_start = len(self.trials), 0, len(member.curve)
        member.end = member.trial_step + steps
        adopt(self, member)

    def close_interval(self, status: str) -> None:
        """Ends the current member's interval as finished, diverged or cut."""
        member = self.member
        curve = tuple(member.curve[self.curve_start :])
        losses = [loss if math.isfinite(loss) else math.inf for loss in curve]
        point = {name: value for name, value in member.options.values().items() if name in self.searched}
        self.losses[self.place] = math.inf if member.diverged or not losses else losses[-1]
        self.trials.append(Trial(point, min(losses, default=math.inf), self.trial_step, status, curve))

    def finish(self) -> None:
        """Cuts the interval in progress."""
        if self.is_open and self.trial_step:
            self.close_interval("cut")


class Population:
    """A method that trains the members in turn, one interval each, and then lets the population evolve.

    `advance` returns at the end of an interval; the next call starts the next member's turn and, before the first member's,
    evolves the population.
    """

    def __init__(self, options: PopulationOptions, over: Training):
        self.options, self.over = options, over
        if not over.open:
            raise ValueError("nothing is left open to evolve: give one or more of the hyperparameters the value null")

    def check(self, task: Task) -> None:
        """Raises ValueError where what it repeats cannot train the network."""
        self.over.check(task)

    def init(self, task: Task, seed: int) -> PopulationState:
        """Starts member m from draw m of the seed, so that member 0 starts where the other methods do."""
        members = [self._fresh(task, seed, number) for number in range(self.options.members)]
        state = self._state(task, seed, members)
        state.begin_interval(self._interval(task))
        return state

    def _state(self, task: Task, seed: int, members: list[TrainingState]) -> PopulationState:
        return PopulationState(
            task=task, seed=seed, model=members[0].model, hyper=members[0].hyper, members=members, searched=self.over.open,
            losses=[math.inf] * len(members),
        )  # fmt: skip

    def _interval(self, task: Task) -> int:
        """Returns the number of steps in a member's interval."""
        return self.options.interval_epochs * task.steps_per_epoch

    def advance(self, state: PopulationState, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Updates the current member or, if its interval has ended, starts the next turn on the account `search`."""
        if not state.is_open:
            with ledger.account("search"):
                self._next(state)
            return
        member, before = state.member, state.member.step
        self.over.advance(member, steps=steps, progress=progress, ledger=ledger)
        made = member.step - before
        state.step, state.trial_step = state.step + made, state.trial_step + made
        adopt(state, member, ledger)
        if member.diverged or member.trial_step == member.end:
            state.close_interval("diverged" if member.diverged else "finished")

    def restored(self, task: Task, seed: int, saved: Mapping[str, Any]) -> PopulationState:
        """Returns the population that was saved."""
        state = self._state(task, seed, [self.over.restored(task, seed, member) for member in saved["members"]])
        state.restore(saved)
        state.model, state.hyper = state.member.model, state.member.hyper
        return state

    def _fresh(self, task: Task, seed: int, number: int) -> TrainingState:
        drawn = draw(self.over.space, self.over.open, seed, number)
        return self.over.start(task, seed, drawn, number)

    def _next(self, state: PopulationState) -> None:
        """Starts the next member's turn; after the last member, the next generation."""
        state.place = (state.place + 1) % len(state.members)
        if state.place == 0:
            self._evolve(state)
            state.generation += 1
        state.begin_interval(self._interval(state.task))

    def _evolve(self, state: PopulationState) -> None:
        """Replaces the worst members and all that diverged (truncation selection)."""
        count = len(state.members)
        order = sorted(range(count), key=lambda number: (state.losses[number], number))
        alive = [number for number in order if math.isfinite(state.losses[number])]
        few = max(1, round(self.options.fraction * count))
        best = alive[:few]
        chance = random.Random(stream_seed(state.seed, "population", state.generation))
        for number in order[max(len(best), min(len(alive), count - few)) :]:
            if best:
                self._copy(state, chance.choice(best), number, chance)
            else:
                draws = count * (state.generation + 1) + number
                state.members[number] = self._fresh(state.task, state.seed, draws)

    def _copy(self, state: PopulationState, source: int, target: int, chance: random.Random) -> None:
        """Lets the target continue from the source's state, with hyperparameters near the source's."""
        model, found = state.members[target].model, state.members[source]
        options = found.options.replace(self._vary(found, chance))
        model.load_state_dict(found.model.state_dict())
        stepper: Any = options.stepper(model)
        stepper.take_state(found.stepper)
        state.members[target] = TrainingState(
            task=state.task, seed=state.seed, model=model, hyper=hyper_at_start(options, stepper), step=found.step,
            trial=target, trial_step=found.trial_step, incumbent=found.incumbent, options=options, stepper=stepper,
            batches=found.batches, curve=list(found.curve),
        )  # fmt: skip

    def _vary(self, found: TrainingState, chance: random.Random) -> dict[str, float]:
        return {
            name: self._varied(self.over.space.hyperparameters[name], found.options.values()[name], chance)
            for name in self.over.open
        }

    def _varied(self, law: Dimension, value: float, chance: random.Random) -> float:
        if chance.random() < self.options.redraw:
            return law.at(chance.random())
        return law.near(value, chance.choice(self.options.factors))


POPULATION = MethodEntry(
    description="population-based training: the worst copy the best and vary",
    label="Population",
    family="population",
    options=PopulationOptions,
    build=Population,
    repeats=is_scheduled_training,
    takes_kicks=True,
    captures=True,
)
