"""The precision of the validation gradients that hyperparameters follow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.online.options import OnlineOptions


def at_precision(options: OnlineOptions, device: torch.device, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns the loss itself or, where the options ask for bfloat16, one whose matrices are multiplied in it.

    Parameters, gradients and the loss stay in float32, and in float64 all that an audit computes in it.
    """
    if not options.validates_narrowly:
        return loss

    def narrow(*inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):  # each parameter is cast once in any case
            return loss(*inputs)

    return narrow
