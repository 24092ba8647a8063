"""Closures written for float32, computed in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

NARROW = (torch.float32, torch.float16, torch.bfloat16)


class Wide(TorchDispatchMode):
    """Inside it every operation takes float64 in the place of a narrower type, however its tensors were made.

    Random numbers are drawn in the type asked for and widened afterwards, so that they are those of the narrow run.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Where PyTorch calls for each operation."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in function.tags:
            return self._draw(function, args, kwargs)
        if kwargs.get("dtype") in NARROW:
            kwargs = {**kwargs, "dtype": torch.float64}
        return function(*tree_map(_widened, args), **tree_map(_widened, kwargs))

    def _draw(self, function: Any, args: tuple, kwargs: dict) -> Any:
        target = args[0] if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64 else None
        if target is None or not function._schema.name.endswith("_"):
            return tree_map(_widened, function(*tree_map(_narrowed, args), **kwargs))
        drawn = function(target.to(torch.float32), *args[1:], **kwargs)  # in place, as dropout draws its mask
        return target.copy_(drawn)


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype in NARROW else value


def _narrowed(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float64 else value
