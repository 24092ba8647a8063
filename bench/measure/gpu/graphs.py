"""The library's steps as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import oho
from bench.measure.gpu.timing import WARM_UP, CannotCaptureError, Step

Loss = Callable[..., Tensor]
Batch = Sequence[Tensor]


def captured_step(
    optimizer: Any, loss: Loss, batches: tuple[Batch, Batch], device: torch.device, *, valid: Loss | None = None,
    first: int = WARM_UP + 2, look_ahead: bool = False, stand_in: bool = False,
) -> Step:  # fmt: skip
    """Returns steps of the optimizer on a training and a validation batch that replay graphs, after so many first ones.

    `loss` takes the tensors of a batch; `valid`, unless it is the same, those of a validation batch; `look_ahead` is as in
    `oho.CapturedStep`.  With `stand_in`, a CPU checks that a graph would repeat each step.

    Raises:
        CannotCaptureError: if that is not available, or for a step that asks the host for something.
    """
    if device.type != "cuda" and not stand_in:
        raise CannotCaptureError("graph: not available on a CPU")
    try:
        step = oho.CapturedStep(optimizer, loss, valid or loss, look_ahead=look_ahead, stand_in=stand_in)
        for _ in range(first):  # the next steps are replays
            step(*batches)
    except Exception as error:
        raise CannotCaptureError(f"graph: not available ({' '.join(str(error).split())[:100]})") from None
    return lambda: step(*batches)
