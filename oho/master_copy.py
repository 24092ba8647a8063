"""Parameters kept in float32 beside a model of a narrower type, as mixed-precision optimizers keep them.

    symbol  name        shape    meaning
    θ       parameters  (M, N)   in float32; the model holds them rounded

Where updates are smaller than the spacing of bfloat16 numbers, θ moves and the model does not, until enough of them have
accumulated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from oho.flat_parameters import FlatParameters
from oho.saved_state import copied, load_tensors


class MasterCopy:
    """Reads and writes θ.  Parameters in float32 or float64 need no copy: the model's own are read and written."""

    def __init__(self, parameters: FlatParameters):
        self._parameters = parameters
        self._theta = parameters.gather() if parameters.is_narrow else None

    def gather(self) -> Tensor:
        """Returns θ (M, N), including what was written into the model from outside, by a checkpoint for example."""
        present = self._parameters.gather()
        if self._theta is None:
            return present
        rounded = self._theta.to(self._parameters.tensors[0].dtype).to(present.dtype)
        return torch.where(rounded == present, self._theta, present)

    def write(self, theta: Tensor) -> None:
        """Sets θ (M, N), and the model's parameters to what it rounds to."""
        self._parameters.write(theta)
        if self._theta is not None:
            self._theta.copy_(theta)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Returns a copy of θ under "master", or nothing if θ is the model's own."""
        return {} if self._theta is None else {"master": copied({"theta": self._theta})}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        if self._theta is not None and "master" in state:
            self._theta = load_tensors("master", state, {"theta": self._theta}, self._theta.device)["theta"]
