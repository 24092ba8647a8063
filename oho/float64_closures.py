"""Closures of a narrower type, computed in float64.

Two modes of PyTorch: one widens what its functions are given and return, the other draws random numbers in the type of
the run, so that they are the run's own, and widens those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

NARROW = (torch.float32, torch.float16, torch.bfloat16)


@contextmanager
def wide(dtype: torch.dtype) -> Iterator[None]:
    """Inside the block every function takes and returns float64 in the place of a narrower type.

    `dtype` is the run's: for float64 nothing is changed.  A tensor made outside keeps its type when it is written into.

    Raises, from inside:
        ValueError: for an operation that draws random numbers into an argument, such as rrelu.
    """
    if dtype == torch.float64:
        yield
        return
    with _Widen(), _DrawAs(dtype):
        yield


class _Widen(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        in_place = name == "__setitem__" or "out" in kwargs or (name.endswith("_") and not name.endswith("__"))
        if in_place:  # the tensor written into stays what it is
            return function(*args[:1], *tree_map(_widened, args[1:]), **kwargs)
        return tree_map(_widened, function(*tree_map(_widened, args), **tree_map(_widened, kwargs)))


class _DrawAs(TorchDispatchMode):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in function.tags:
            return function(*args, **kwargs)
        if kwargs.get("dtype") == torch.float64:
            kwargs = {**kwargs, "dtype": self.dtype}
        narrow = tree_map(self._narrowed, args)
        name = function._schema.name
        if not function._schema.is_mutable:
            return tree_map(_widened, function(*narrow, **kwargs))
        if not name.endswith("_"):
            raise ValueError(f"{name} draws random numbers in a way that cannot be repeated in float64")
        drawn = function(*narrow, **kwargs)
        return args[0] if narrow[0] is args[0] else args[0].copy_(drawn)

    def _narrowed(self, value: Any) -> Any:
        return value.to(self.dtype) if isinstance(value, Tensor) and value.dtype == torch.float64 else value


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype in NARROW else value
