"""Named tensors of a state: copied for saving, checked when loaded, and given new values in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def copied(tensors: Mapping[str, Tensor], device: torch.device | None = None) -> dict[str, Tensor]:
    """Returns independent copies, on `device` if given."""
    return {name: tensor.detach().to(device, copy=True) for name, tensor in tensors.items()}


def put(present: dict[str, Tensor], tensors: Mapping[str, Tensor], *, in_place: bool) -> None:
    """Puts `tensors` into `present`; in place, a tensor that is there already keeps its memory and takes the new values."""
    if in_place:
        known = [name for name in tensors if name in present and present[name].shape == tensors[name].shape]
        if known:
            torch._foreach_copy_([present[name] for name in known], [tensors[name] for name in known])
        tensors = {name: tensor for name, tensor in tensors.items() if name not in known}
    present.update(tensors)


def require(state: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Raises ValueError unless `state` has all of `keys`."""
    if missing := [key for key in keys if key not in state]:
        raise ValueError(f"state: no {', '.join(missing)}; give what state_dict() returned")


def load_tensors(key: str, state: Mapping[str, Any], mine: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Returns copies of the tensors `state[key]`, checked against those that they replace.

    A slot that has one count for each member, (M, 1), may be replaced by one with a count for each element, (M, N).

    Raises:
        ValueError: for another name, shape or dtype.
    """
    given = state[key]
    if set(given) != set(mine):
        raise ValueError(f"state: {key} has {sorted(given)}, this optimizer has {sorted(mine)}")
    for name, tensor in mine.items():
        fits = given[name].shape == tensor.shape or (key == "slots" and given[name].shape[:1] == tensor.shape[:1])
        if not fits or given[name].dtype != tensor.dtype:
            theirs, ours = (f"{tuple(t.shape)} {t.dtype}" for t in (given[name], tensor))
            raise ValueError(f"state: {key}[{name!r}] is {theirs}, this optimizer has {ours}")
    return copied(given, device)
