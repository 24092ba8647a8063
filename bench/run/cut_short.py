"""What a run's budget has ended before: its first selection, and events of its shock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.experiment.shocks import Event
from bench.experiment.spec import Spec
from bench.protocol import State, Task, Trial
from bench.records.durations import amount_of
from bench.records.schema import TIMED


def cut_short(spec: Spec, task: Task, state: State, events: Sequence[Event]) -> Iterator[str]:
    """Yields a line if the budget ended before the first selection, and one for each of `events`, which have not come.

    What a budget in steps or epochs ends before is known, and said, before the first run.
    """
    unit, amount = spec["budget"]["unit"], spec["budget"]["amount"]
    if unit in TIMED and not has_selected(state):
        yield (
            f"returns the untrained model: the budget of {amount_of(amount, unit)} ended after {state.step} steps,"
            f" before the first selection; the task selects every {_period(spec, task)}"
        )
    for event in events:
        yield f"ended before {event}"


def has_selected(state: State) -> bool:
    """Returns whether the method has validated any trained model, even one that was not the best."""
    others: list[Trial | State] = [*state.trials, *(each for each in state.trainings if each is not state)]
    return len(state.curve) > 1 or any(each.curve for each in others)


def _period(spec: Spec, task: Task) -> str:
    """Returns what lies between two validations that select, in the unit in which it was given."""
    if every := spec["task"].get("selection_every"):
        ((unit, amount),) = every.items()
        return amount_of(amount, unit)
    return f"{task.selection_period} steps"
