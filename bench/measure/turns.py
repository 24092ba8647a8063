"""The seconds of a step: the mean of a turn of several, with the device synchronised at both ends."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def synchronise(device: torch.device) -> None:
    """Waits for a GPU; a CPU has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def mean_seconds(step: Callable[[int], object], count: int, device: torch.device) -> float:
    """Returns the mean seconds of `count` steps, each of which is given its number from 0."""
    synchronise(device)
    began = time.perf_counter()
    for index in range(count):
        step(index)
    synchronise(device)
    return (time.perf_counter() - began) / count
