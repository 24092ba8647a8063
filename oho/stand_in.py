"""A stand-in for CUDA graphs on machines without them: it repeats a step, and refuses it where a graph would get it wrong.

A graph repeats the operations that it has recorded, with the same numbers and the same memory.  It cannot ask the host, and
it does not notice that a tensor has taken another one's place or that a number has changed.  The stand-in calls the step
itself each time, and compares its operations with those of the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ASKS = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique")
"""Operations for whose result the host has to wait."""
FROM_THE_HOST = ("lift_fresh",)
"""The operation by which `torch.tensor` and `torch.as_tensor` turn Python's numbers into tensors."""
BY_INDEX = ("index", "index_put_", "index_put", "_index_put_impl_")
"""Operations that look for the True entries of an index of booleans."""


class NotCapturableError(RuntimeError):
    """Raised for a step that a graph could not repeat."""


class HostWatch(TorchDispatchMode):
    """Refuses, inside the block, every operation that waits for the device or brings a number from the host to it."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """PyTorch calls this for each of its operations."""
        self.check(operation, args, kwargs or {})
        return operation(*args, **(kwargs or {}))

    def check(self, operation: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """Raises NotCapturableError for an operation that a step without a host cannot have."""
        name = _name(operation)
        if name in ASKS or (name in BY_INDEX and any(_is_mask(index) for index in args[1])):
            raise NotCapturableError(f"the step asks the host what a tensor holds ({name})")
        if name in FROM_THE_HOST:
            raise NotCapturableError("the step makes a tensor of Python's numbers; make it once, before the first step")
        target = kwargs.get("device")
        if name == "_to_copy" and target is not None and target != args[0].device:
            raise NotCapturableError(f"the step copies a tensor from {args[0].device} to {target}")


class StandIn:
    """Makes a step over and over: `capture` takes the function, and `replay` calls it as a graph would repeat it."""

    def __init__(self, generators: Sequence[torch.Generator] = ()) -> None:
        self._generators = generators
        self._function: Callable[[], Tensor] | None = None
        self._first: list[tuple[Any, ...]] | None = None

    def capture(self, function: Callable[[], Tensor]) -> None:
        """Takes the function; its operations are recorded at the first replay, since capturing runs nothing."""
        self._function = function

    def replay(self) -> Tensor:
        """Calls the function and returns its result.

        Raises:
            NotCapturableError: if the function departs from its first replay, or does what no graph can repeat.
        """
        assert self._function is not None
        with _Trace(self._first, self._generators) as trace:
            result = self._function()
        if self._first is None:
            self._first = trace.lines
        elif len(trace.lines) < len(self._first):
            raise NotCapturableError(f"the step ends before {self._first[len(trace.lines)][0]}, which was captured")
        return result


class _Trace(HostWatch):
    """Records operations with their numbers and the tensors from outside the step, and compares them with `expected`."""

    def __init__(self, expected: list[tuple[Any, ...]] | None, generators: Sequence[torch.Generator]):
        super().__init__()
        self._generators = generators
        self.lines: list[tuple[Any, ...]] = []
        self._expected, self._made = expected, set[int]()

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """PyTorch calls this for each of its operations."""
        if operation.namespace == "profiler":  # marks of a profiler, which do nothing
            return operation(*args, **(kwargs or {}))
        self.check(operation, args, kwargs or {})
        leaves = _leaves((args, kwargs or {}))
        line = (_name(operation), *(self._seen(leaf) for leaf in leaves))
        given = _places(leaves)
        if self._expected is not None:
            self._compare(line, self._expected)
        self.lines.append(line)
        result = operation(*args, **(kwargs or {}))
        self._made |= _places(_leaves(result)) - given
        return result

    def _seen(self, leaf: Any) -> Any:
        """Returns what must stay the same from step to step for a graph to repeat it."""
        if isinstance(leaf, torch.Generator):
            own: Any = leaf  # a wrapper of this operation's own
            known = [place for place, each in enumerate[Any](self._generators) if each._cdata == own._cdata]
            if not known:
                raise NotCapturableError("the step draws from a generator that the graph does not know: name it beforehand")
            return f"generator {known[0]}"
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        kind = (tuple(leaf.shape), leaf.dtype)
        return (*kind, "made here") if _place(leaf) in self._made else (*kind, "from outside", leaf.data_ptr())

    def _compare(self, line: tuple[Any, ...], expected: list[tuple[Any, ...]]) -> None:
        there = expected[len(self.lines)] if len(self.lines) < len(expected) else None
        if there == line:
            return
        if there is None or there[0] != line[0] or len(there) != len(line):
            captured = "nothing" if there is None else there[0]
            raise NotCapturableError(f"the step calls {line[0]} where {captured} was captured: it takes another course")
        before, now = next((a, b) for a, b in zip(there, line, strict=True) if a != b)
        if isinstance(now, str):
            raise NotCapturableError(f"{line[0]} is given {now} where {before} was captured: keep the number in a tensor")
        if now[:2] != before[:2]:
            raise NotCapturableError(f"{line[0]} is given a tensor {now[0]} where {before[0]} was captured")
        raise NotCapturableError(
            f"{line[0]} is given another tensor {now[0]} than was captured: copy it to where that one lies"
        )


@cache
def _name(operation: Any) -> str:
    return operation._schema.name.partition("::")[2]


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype.itemsize == 1 and not index.is_floating_point()


def _leaves(value: Any) -> list[Any]:
    """Returns what an operation is given or returns, without the tuples, lists and dictionaries around it.

    This is called twice for each operation; PyTorch's own function for trees of any kind takes most of a step's time.
    """
    if isinstance(value, tuple | list):
        return [leaf for each in value for leaf in _leaves(each)]
    if isinstance(value, dict):
        return _leaves(list(value.values()))
    return [value]


def _places(leaves: list[Any]) -> set[int]:
    return {_place(leaf) for leaf in leaves if isinstance(leaf, Tensor)}


def _place(tensor: Tensor) -> int:
    """Returns an identity of the memory that holds a tensor's values, which its views share."""
    if tensor.layout is not torch.strided:
        raise NotCapturableError(
            f"the step uses a tensor {tuple(tensor.shape)} of layout {tensor.layout}, which has no fixed place in memory:"
            " keep it dense (to_dense())"
        )
    return tensor.untyped_storage()._cdata
