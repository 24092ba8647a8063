"""How often the guards of a training acted: how many meta-steps were skipped, and how many influences shortened.

    symbol  name     shape    meaning
    M       members  ()       independent trainings side by side
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from oho.saved_state import copied, load_tensors

REASONS = ("hypergradient", "influence")
"""Why a meta-step is skipped."""
CPU = torch.device("cpu")


class GuardCounts:
    """Counts for each member, kept where the parameters are; without a population they are shown as plain numbers."""

    def __init__(self, members: int | None, device: torch.device):
        self._members, rows = members, members or 1
        self._skipped = {reason: torch.zeros(rows, dtype=torch.int64, device=device) for reason in REASONS}
        self._shortened = torch.zeros(rows, dtype=torch.int64, device=device)

    def add_skipped(self, **skipped: Tensor) -> None:
        """Counts a meta-step; each argument is named after a reason, and says which members skipped it for that (M,)."""
        for reason, members in skipped.items():
            self._skipped[reason] += members

    def add_shortened(self, shortened: Tensor) -> None:
        """Counts a step for the members whose influence was shortened (M,)."""
        self._shortened += shortened

    @property
    def skipped(self) -> dict[str, Any]:
        """The number of skipped meta-steps by reason: an int, or (M,)."""
        return {reason: self._shown(count) for reason, count in self._skipped.items()}

    @property
    def shortened(self) -> Any:
        """The number of steps with a shortened influence: an int, or (M,)."""
        return self._shown(self._shortened)

    def _shown(self, count: Tensor) -> Any:
        return int(count) if self._members is None else count.to(CPU, copy=True)

    def state(self) -> dict[str, Any]:
        """Returns copies of everything."""
        return {"skipped": copied(self._skipped, CPU), "shortened": copied({"steps": self._shortened}, CPU)}

    def loaded(self, state: Mapping[str, Any]) -> GuardCounts:
        """Returns counts of the same kind with what `state` holds.

        Raises:
            ValueError: for counts of another number of members.
        """
        other, device = copy.copy(self), self._shortened.device
        other._skipped = load_tensors("skipped", state, self._skipped, device)
        other._shortened = load_tensors("shortened", state, {"steps": self._shortened}, device)["steps"]
        return other
