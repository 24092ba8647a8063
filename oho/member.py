"""One member of a population, which reads and writes its part of the population's optimizer.

    symbol  name     shape    meaning
    M       members  ()       independent trainings side by side
    S       sets     ()       values of one hyperparameter
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oho.argument_checks import unknown_name
from oho.tuned_values import check_labels

if TYPE_CHECKING:
    from oho.optimizer import OHO
    from oho.published import PublishedOHO

AXES = {"influence": 1, "slot_influence": 1, "averaged_influence": 1}
"""The axis of members in the tensors under some keys of a state; under all others it is the first."""


class Member:
    """Member `index` of a population's `optimizer`.

    All that it shows is as it is now, in the shapes of an optimizer without members.

    Raises:
        ValueError: for an index outside the population of so many `members`, or without a population (None).
    """

    def __init__(self, optimizer: OHO | PublishedOHO, index: int, *, members: int | None):
        if members is None or not 0 <= index < members:
            raise ValueError(f"member({index}): allowed are 0 to members - 1, and this optimizer has members={members}")
        self.population, self._index = optimizer, index
        self.set_map, self.is_meta_step = optimizer.set_map, optimizer.is_meta_step

    @property
    def steps(self) -> int:
        """The number of steps made."""
        return self.population.steps

    @property
    def hyper(self) -> dict[str, Tensor]:
        """Present values by name, (S,)."""
        return {name: value[self._index].clone() for name, value in self.population.hyper.items()}

    @property
    def hypergradient(self) -> dict[str, Tensor]:
        """d(validation loss)/d(value) at the last meta-step, by tuned name, (S,)."""
        return {name: value[self._index] for name, value in self.population.hypergradient.items()}

    @property
    def skipped(self) -> dict[str, int]:
        """The number of meta-steps skipped, by reason."""
        return {reason: int(count[self._index]) for reason, count in self.population.skipped.items()}

    @property
    def shortened(self) -> int:
        """The number of steps in which the influence limit acted."""
        return int(self.population.shortened[self._index])

    @torch.no_grad()
    def influence_norm(self) -> dict[str, Tensor]:
        """Returns the norm of dθ/dh over all sets, by tuned name, ()."""
        found = self.population.norms_of(slice(self._index, self._index + 1))
        return {name: norm[0] for name, norm in found.items()}

    @torch.no_grad()
    def set_hyper(self, name: str, value: float | Tensor | Mapping[Hashable, float]) -> None:
        """Sets a hyperparameter of this member to one number or one for each set (S,), or by label for some sets.

        A hyperparameter of the loss is given as a number or a vector (V,), or by place.

        Raises as `OHO.set_hyper`.
        """
        hyper = self.population.hyper
        by_label = value if isinstance(value, Mapping) else {}
        if name not in hyper:
            raise ValueError(unknown_name(name, hyper))
        labels = self.population.labels_of(name)
        check_labels(name, by_label, labels)
        values = hyper[name].clone()
        try:
            for label, number in by_label.items():
                values[self._index].view(-1)[labels.index(label)] = number
            if not by_label:
                values[self._index] = torch.as_tensor(value, dtype=values.dtype, device=values.device)
        except (TypeError, ValueError, RuntimeError):
            what = f"one for each of {len(labels)} sets or components"
            raise ValueError(f"{name}={value!r}: a number is expected, or {what}") from None
        self.population.set_hyper(name, values)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that an optimizer of this member alone would have."""
        width = slice(self._index, self._index + 1)

        def own(axis: int, tensors: list[Tensor]) -> Tensor:
            return tensors[0][(slice(None),) * axis + (width,)].clone()

        return _mapped(own, [self.population.state_dict()], width)


def joined(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the state of a population, joined from the states of optimizers with one member each.

    Raises:
        ValueError: for no state, or if they made different numbers of steps.
    """
    if not states:
        raise ValueError("load_members: at least one state is expected")
    if len({state["steps"] for state in states}) > 1:
        made = ", ".join(str(state["steps"]) for state in states)
        raise ValueError(f"members made {made} steps; all must have made equally many")
    return _mapped(lambda axis, tensors: torch.cat(tensors, axis), states, slice(None))


def _mapped(
    join: Callable[[int, list[Tensor]], Tensor], states: Sequence[Mapping[str, Any]], width: slice
) -> dict[str, Any]:
    """Returns a state with the tensors `join(axis of members, tensors of all states)`."""

    def walk(axis: int, values: list[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return {key: walk(axis, [value[key] for value in values]) for key in values[0]}
        return join(axis, _of_one_width(values))

    found: dict[str, Any] = {"steps": states[0]["steps"]}
    if "generators" in states[0]:
        found["generators"] = [state for each in states for state in each["generators"]][width]
    rest = [key for key in states[0] if key not in found]
    return found | {key: walk(AXES.get(key, 0), [state[key] for state in states]) for key in rest}


def _of_one_width(tensors: list[Tensor]) -> list[Tensor]:
    """Returns tensors whose last axes are equally long: a count may be one for all elements, or one for each."""
    widest = max(tensor.shape[-1] for tensor in tensors)
    return [tensor.expand(*tensor.shape[:-1], widest) for tensor in tensors]
