"""A tape of the operations that depend on parameters, which `oho.engines.sweeps` differentiates.

Autograd builds its graph at the same time, so that a tape which cannot answer costs no more than the recording.  A tape
cannot answer if it met an operation without a recipe, a change in place of a value that is needed, a hook on a tensor,
another dtype or checkpointed activations, or if the loss is not its last operation.  (It does not see a hook on a node of
autograd's graph.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from oho.engines.attention import can_be_written_out, written_out
from oho.engines.recipes import IN_PLACE, LEAVE_THEIR_OUTPUT, LOSSES, RECIPES, Inputs
from oho.engines.twice import TwiceDifferentiable
from oho.flat_parameters import FlatParameters


class Note(NamedTuple):
    """One recorded operation, with the numbers of the values of its inputs (None for constants) and of its output."""

    operation: Any
    inputs: tuple[int | None, ...]
    output: Tensor
    number: int


class Value(NamedTuple):
    """The value of a tensor when it was last met: its number, and the version that PyTorch counts."""

    tensor: Tensor
    number: int
    version: int


class Tape(TwiceDifferentiable):
    """Records, inside the block, every operation of a closure whose result depends on the parameters."""

    def __init__(self, parameters: FlatParameters):
        super().__init__()
        self.notes: list[Note] = []
        self._parameters, self._dtype = parameters.tensors, parameters.tensors[0].dtype
        self._values = {id(tensor): Value(tensor, i, tensor._version) for i, tensor in enumerate(parameters.tensors)}
        self._count = len(self._values)
        self._constants: list[tuple[Tensor, int]] = []
        self._kept: set[int] = set()
        self._dropped = parameters.is_narrow or any(map(_is_hooked, parameters.tensors))

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """PyTorch calls this for each of its functions."""
        attends = function is functional.scaled_dot_product_attention and not self._dropped
        if attends and can_be_written_out(*args, **(kwargs or {})):
            with self:
                return written_out(*args, **(kwargs or {}))
        result = super().__torch_function__(function, types, args, kwargs)
        if not self._dropped and (_holds(args, self._values) or (kwargs and _holds(kwargs.values(), self._values))):
            self._dropped = not self._note(function, args, kwargs or {}, result)
            if self._dropped:
                self.notes.clear()  # and with them the values that they keep
        return result

    def answers_for(self, loss: Tensor) -> bool:
        """Returns whether the tape has every operation between the parameters and this loss."""
        return (
            not self._dropped
            and bool(self.notes)
            and self.notes[-1].output is loss
            and isinstance(self.notes[-1].operation, LOSSES)
            and not any(isinstance(note.operation, LOSSES) for note in self.notes[:-1])
            and all(parameter.requires_grad for parameter in self._parameters)
            and all(value.tensor._version == value.version for value in self._values.values())
            and all(tensor._version == version for tensor, version in self._constants)
            and not any(_is_hooked(note.output) for note in self.notes)
        )

    def _note(self, function: Any, args: tuple, kwargs: dict, result: Any) -> bool:
        """Records an operation; returns False if the tape cannot follow it."""
        outputs = result if type(result) is tuple else (result,)
        if not any(tensor.requires_grad for tensor in _tensors(result)):
            return True  # a shape, a dtype, a detached value
        if all(self._is_as_before(output) for output in outputs):
            return True  # its input, as contiguous() and dropout return it
        if not torch.is_grad_enabled():
            return False  # changed in place without autograd's knowledge
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            return False  # checkpointing, or values kept elsewhere: the tape would keep them here
        recipe = RECIPES.get(function)
        if recipe is None or any(type(output) is not Tensor or output.dtype != self._dtype for output in outputs):
            return False
        try:
            found = recipe(result, *args, **kwargs)
        except (TypeError, ZeroDivisionError):  # an option the recipe does not know; a number divided by 0
            return False
        if found is None:
            return False
        operations, inputs = found
        each = operations if isinstance(operations, tuple) else (operations,)
        return all(
            self._note_one(operation, inputs, output, in_place=function in IN_PLACE)
            for operation, output in zip(each, outputs, strict=True)
        )

    def _is_as_before(self, tensor: Any) -> bool:
        known = self._values.get(id(tensor))
        return known is not None and known.version == tensor._version

    def _note_one(self, operation: Any, inputs: Inputs, output: Tensor, *, in_place: bool) -> bool:
        before = self._values.get(id(output))
        if before is not None and (not in_place or id(output) in self._kept or before.version + 1 != output._version):
            return False
        numbers = []
        for tensor in inputs:
            known = self._values.get(id(tensor)) if tensor.requires_grad else None  # None too after detach_()
            if tensor.layout != torch.strided or (known is None and tensor.requires_grad and not tensor.is_leaf):
                return False  # sparse, or depends on parameters by a way the tape has not seen
            if known is None:
                self._constants.append((tensor, tensor._version))
            elif tensor is not output:
                if known.version != tensor._version:
                    return False
                self._kept.add(id(tensor))
            numbers.append(None if known is None else known.number)
        if len(set(map(id, inputs))) < len(inputs) or not any(number is not None for number in numbers):
            return False
        self.notes.append(Note(operation, tuple(numbers), output, self._count))
        self._values[id(output)] = Value(output, self._count, output._version)
        if not isinstance(operation, LEAVE_THEIR_OUTPUT):
            self._kept.add(id(output))
        self._count += 1
        return True


CONTAINERS = (tuple, list, dict)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yields the tensors in a value and in the containers inside it."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _holds(values: Iterable[Any], known: Mapping[int, Value]) -> bool:
    """Returns whether one of these arguments is a known value, or a container with one in it."""
    for value in values:
        if id(value) in known:
            return True
        if isinstance(value, CONTAINERS) and any(id(tensor) in known for tensor in _tensors(value)):
            return True
    return False


def _is_hooked(tensor: Tensor) -> bool:
    return bool(tensor._backward_hooks)
