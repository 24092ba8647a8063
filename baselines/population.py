"""Population-based training (Jaderberg et al., 2017): members train in turn, the worst copy the best and vary that."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from baselines.optimizers import TorchStepper
from baselines.training import Training, TrainingState
from bench.protocol import Dimension, Incumbent, Ledger, Options, State, Task, Trial, draw, select, stream_seed


class PopulationOptions(Options):
    """`over` is the method each of `members` trains: what it leaves open evolves.

    After every `interval_epochs` of all members, each of the worst `fraction` of them takes weights, optimizer state and
    hyperparameters of one of the best, and multiplies each hyperparameter by one of `factors`, or draws it anew with
    probability `redraw`.
    """

    over: Any
    members: int = Field(default=10, ge=2)
    interval_epochs: int = Field(default=1, ge=1)
    fraction: float = Field(default=0.2, gt=0, le=0.5)
    factors: tuple[float, float] = (0.8, 1.25)
    redraw: float = Field(default=0.25, ge=0, le=1)


@dataclass
class PopulationState(State):
    """Members in order; the one that trains is number `place`.  A trial is one member's interval."""

    members: list[TrainingState] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Validation loss of each member at the end of its last interval, infinite if it diverged."""
    place: int = 0
    generation: int = 0
    """Intervals that all members have finished."""
    curve_start: int = 0
    """Where the present interval begins in the member's curve."""


class Population:
    """Members in turn, one interval each, then the population evolves."""

    def __init__(self, options: PopulationOptions, over: Training):
        self.options, self.over = options, over
        self.spans_budget = over.spans_budget

    def init(self, task: Task, seed: int) -> PopulationState:
        """Member m starts from draw m of the seed, so that member 0 starts where the other methods do."""
        members = [self._fresh(task, seed, number) for number in range(self.options.members)]
        first = members[0]
        return PopulationState(
            task, seed, first.model, first.hyper, members=members, losses=[math.inf] * len(members)
        )

    def advance(self, state: PopulationState, *, steps: int, progress: float, ledger: Ledger) -> PopulationState:
        """Updates of the present member; after the last one's interval the population evolves, on the account `search`."""
        member, length = state.members[state.place], self.options.interval_epochs * state.task.steps_per_epoch
        steps = min(steps, length - state.trial_step)
        before, seen = member.step, len(member.curve)
        self.over.advance(member, steps=steps, progress=progress, ledger=ledger)
        made = member.step - before
        state.step, state.trial_step = state.step + made, state.trial_step + made
        if state.trial_step >= length and len(member.curve) == seen:
            with ledger.account("selection"):
                member.curve.append(select(member))
        self._mirror(state, member)
        if member.diverged or state.trial_step >= length:
            self._close(state, "diverged" if member.diverged else "finished")
            with ledger.account("search"):
                self._next(state)
        return state

    def finish(self, state: PopulationState) -> None:
        """The interval in progress is cut."""
        if state.trial_step:
            self._close(state, "cut")

    def incumbent(self, state: PopulationState) -> Incumbent | None:
        """The best validated model of all members."""
        return state.incumbent

    def scalars(self, state: PopulationState) -> dict[str, float]:
        """How many intervals all members have finished."""
        return {"generation": float(state.generation)}

    def _fresh(self, task: Task, seed: int, number: int) -> TrainingState:
        drawn = draw(self.over.space, self.over.open, seed, number)
        return self.over.start(task, seed, drawn, number)

    def _mirror(self, state: PopulationState, member: TrainingState) -> None:
        """The run's view of the member that trains, and the better of both incumbents."""
        state.model, state.hyper, state.train_loss = member.model, member.hyper, member.train_loss
        best, known = member.incumbent, state.incumbent
        if best and (known is None or best.validation_loss < known.validation_loss):
            state.incumbent = Incumbent(best.validation_loss, best.weights, state.step, state.trial)

    def _close(self, state: PopulationState, status: str) -> None:
        member = state.members[state.place]
        curve = tuple(member.curve[state.curve_start :])
        point = {name: value for name, value in member.options.values().items() if name in self.over.open}
        state.losses[state.place] = curve[-1] if curve and not member.diverged else math.inf
        state.trials.append(Trial(point, min(curve, default=math.inf), state.trial_step, status, curve))

    def _next(self, state: PopulationState) -> None:
        """The next member's turn; after the last one, the next generation."""
        state.place = (state.place + 1) % len(state.members)
        if state.place == 0:
            self._evolve(state)
            state.generation += 1
        member = state.members[state.place]
        state.trial, state.trial_step, state.curve_start = len(state.trials), 0, len(member.curve)
        self._mirror(state, member)

    def _evolve(self, state: PopulationState) -> None:
        """Truncation selection: the worst, and all that diverged, are replaced."""
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
        """The target goes on from where the source is, with hyperparameters near its own."""
        model, found = state.members[target].model, state.members[source]
        options = found.options.replace(self._vary(found, chance))
        model.load_state_dict(found.model.state_dict())
        stepper = options.stepper(model)
        assert isinstance(stepper, TorchStepper)
        assert isinstance(found.stepper, TorchStepper)
        _take_state(stepper.optimizer, found.stepper.optimizer)
        state.members[target] = TrainingState(
            state.task, state.seed, model, dict(options.values()), step=found.step, trial=target,
            trial_step=found.trial_step, incumbent=found.incumbent, options=options, stepper=stepper,
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


def _take_state(optimizer: Any, source: Any) -> None:
    """The slots of another optimizer, the hyperparameters of its own."""
    own = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(copy.deepcopy(source.state_dict()))
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update(values)
