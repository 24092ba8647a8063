"""Repeats closures of a run in float64: from the same random state and buffers, with the same random numbers.

`Replayed` records what a closure starts from, `in_float64` and `tensors_in_float64` convert the tensors that it uses, and
`wide` converts all that it computes.  `wide` consists of two modes of PyTorch: one widens what functions are given and
return, the other draws random numbers in the type of the run, so that they are the run's own, and widens them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from oho.randomness import random_state, replay

NARROW = (torch.float32, torch.float16, torch.bfloat16)
NARROWING = (Tensor.float, Tensor.half, Tensor.bfloat16)
"""Loops cast logits with these methods, which would round away a tiny change in float64."""
LEAVES = frozenset((int, float, bool, str, type(None), torch.dtype, torch.device, torch.Size))
"""Types that hold no tensor."""


class Replayed:
    """A closure that records at its first call what it starts from: random state and buffers.

    While `replaying`, it starts from there again, and leaves the random state as it found it.
    """

    def __init__(self, closure: Callable[..., Tensor], model: nn.Module, device: torch.device):
        self._closure, self._model, self._device = closure, model, device
        self._start: tuple[list[Tensor], list[Tensor]] | None = None
        self.replaying = False

    def __call__(self, *given: Mapping[str, Tensor]) -> Tensor:
        """Calls the closure, with the hyperparameters of its loss if it has any."""
        if not self.replaying or self._start is None:
            buffers = [buffer.clone() for buffer in self._model.buffers()]
            self._start = self._start or (random_state(self._device), buffers)
            return self._closure(*given)
        random, buffers = self._start
        for buffer, value in zip(self._model.buffers(), buffers, strict=True):
            buffer.copy_(value)
        with replay(random, self._device):
            return self._closure(*given)


@contextmanager
def in_float64(model: nn.Module) -> Iterator[torch.dtype]:
    """Converts the model to float64 for a block, and then restores its own tensors and values.  Yields their type."""
    owners = [(module, name, b) for module in model.modules() for name, b in module.named_buffers(recurse=False)]
    try:
        with tensors_in_float64((*model.parameters(), *(buffer for _, _, buffer in owners))) as kind:
            yield kind
    finally:
        for module, name, buffer in owners:  # a closure may have put another tensor in its place
            setattr(module, name, buffer)


@contextmanager
def tensors_in_float64(tensors: Sequence[Tensor]) -> Iterator[torch.dtype]:
    """Replaces the memory of tensors by copies for a block, those of real tensors in float64, and then gives it back.

    Yields the type of the first real one.  It works through `.data`, as modules do, so that the memory keeps its address,
    on which cuDNN's joined weights and others rely.
    """
    own = [tensor.data for tensor in tensors]
    try:
        for tensor, data in zip(tensors, own, strict=True):
            tensor.data = data.to(torch.float64 if data.is_floating_point() else data.dtype, copy=True)
        yield next(data.dtype for data in own if data.is_floating_point())
    finally:
        for tensor, data in zip(tensors, own, strict=True):
            tensor.data = data
        torch.clear_autocast_cache()


@contextmanager
def wide(dtype: torch.dtype) -> Iterator[None]:
    """Makes every function inside the block take and return float64 instead of a narrower type.

    `dtype` is that of the run; float64 changes nothing.  A tensor made outside keeps its type when it is written into.

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
        if function in NARROWING:
            return args[0].double()
        is_given_tensor = any(isinstance(value, Tensor) for value in args)
        if is_given_tensor or any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs))):
            args, kwargs = _mapped(_wide_type, args), _mapped(_wide_type, kwargs)  # others may draw numbers
        in_place = name == "__setitem__" or "out" in kwargs or (name.endswith("_") and not name.endswith("__"))
        if in_place:  # the tensor written into stays what it is
            return function(*args[:1], *_mapped(_widened, args[1:]), **kwargs)
        return _mapped(_widened, function(*_mapped(_widened, args), **_mapped(_widened, kwargs)))


class _DrawAs(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch imports its compiler only to hide this mode from it, which takes seconds

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


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Applies the change to each leaf, as `tree_map` does, which takes longer than most functions that are called here."""
    kind = type(value)
    if isinstance(value, Tensor) or kind in LEAVES:
        return change(value)
    if kind is tuple or kind is list:
        return kind([_mapped(change, each) for each in value])
    if kind is dict:
        return {name: _mapped(change, each) for name, each in value.items()}
    return tree_map(change, value)


def _wide_type(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in NARROW else value


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.dtype in NARROW else value
