"""The state of PyTorch's global generators, for closures that draw from them and are called again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def random_state(device: torch.device) -> list[Tensor]:
    """Returns the state of the CPU's generator and, for a GPU, that of its own generator."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def has_moved(states: list[Tensor], device: torch.device) -> bool:
    """Returns whether anything was drawn since the generators were where `random_state` found them."""
    return not all(map(torch.equal, states, random_state(device)))


@contextmanager
def replay(states: list[Tensor], device: torch.device) -> Iterator[None]:
    """Repeats inside the block the draws that followed `states`; afterwards the generators are where they were."""
    present = random_state(device)
    restore(states, device)
    try:
        yield
    finally:
        restore(present, device)


def restore(states: list[Tensor], device: torch.device) -> None:
    """Puts the generators where `random_state` found them."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
