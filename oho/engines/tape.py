"""A tape of the operations that parameters enter, and the sweeps over it.

    symbol  name       shape       meaning
    K       rows       ()          directions
    M       members    ()          independent trainings side by side; 1 without a population
    N       size       ()          tuned elements of one member
    g       gradient   (M, N)      adjoints of the parameters
    H Z     products   (K, M, N)   swings of the parameters: Hessian of the loss times each direction

With members, the loss that is differentiated is the sum of theirs.

Autograd builds its graph beside the tape, so that a tape which cannot answer costs nothing but the noting: one that met an
operation without a recipe, a value changed in place that is needed, a tensor's hook, another dtype, checkpointed
activations, or a loss that is not the last operation.  (A hook on a node of autograd's graph is not seen.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from oho.engines.pearlmutter import Pieces
from oho.engines.recipes import IN_PLACE, LEAVE_THEIR_OUTPUT, LOSSES, RECIPES, Inputs, can_be_written_out, written_out
from oho.engines.structure import Part
from oho.engines.twice import TwiceDifferentiable
from oho.flat_parameters import FlatParameters


class Note(NamedTuple):
    """One operation as it was met, with the numbers of its inputs' values and of its output's; None for what stays."""

    operation: Any
    inputs: tuple[int | None, ...]
    output: Tensor
    number: int


class Value(NamedTuple):
    """What a tensor held when it was last met: the value's number, and the version that PyTorch counts."""

    tensor: Tensor
    number: int
    version: int


class Tape(TwiceDifferentiable):
    """Notes every operation of the closure that it is entered around whose result depends on the parameters."""

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
        """Returns whether the tape holds all that leads from the parameters to this loss."""
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
        """Notes an operation; returns False if the tape cannot follow it."""
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


SWEEP_ELEMENTS = 1 << 26
"""Largest number of elements of all tangents of one sweep: with more directions than fit, there are several sweeps."""


def sweep(
    tape: Tape, parameters: FlatParameters, tangents: Tensor, on_products: Callable[[], None]
) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """Returns the gradient (M, N), the places of parameters that the loss does not use, and products (K, M, N)."""
    gradient = tangents.new_empty(tangents.shape[1:])
    adjoints = _Sums(parameters, gradient)
    of_outputs = _pull(tape, adjoints)
    unused = adjoints.close()
    on_products()
    return gradient, unused, _products(tape, parameters, tangents, of_outputs)


def products_alone(tape: Tape, parameters: FlatParameters, tangents: Tensor) -> Tensor:
    """Returns products (K, M, N), and saves the work of the gradient."""
    return _products(tape, parameters, tangents, _pull(tape, _Sums(parameters, None)))


def _pull(tape: Tape, adjoints: _Sums) -> list[Tensor | None]:
    """Returns the adjoints of the outputs of all notes but the loss, the last one's first."""
    *notes, last = tape.notes
    adjoints.add(last.inputs[0], last.operation.adjoint())
    of_outputs = []
    for note in reversed(notes):
        of_outputs.append(adjoint := adjoints.take(note.number))
        if adjoint is not None and any(moves := adjoints.wanted(note)):
            adjoints.add_all(note, note.operation.pull(adjoint, moves, adjoints.room(note)))
    return of_outputs


def _products(
    tape: Tape, parameters: FlatParameters, tangents: Tensor, of_outputs: list[Tensor | None]
) -> Tensor:
    """Returns products (K, M, N), of as many directions at once as SWEEP_ELEMENTS allows."""
    products = torch.empty_like(tangents)
    rows = max(1, SWEEP_ELEMENTS // sum(note.output.numel() for note in tape.notes))
    for part, result in zip(tangents.split(rows), products.split(rows), strict=True):
        _swing(tape, parameters, part, of_outputs, result)
    return products


def _swing(
    tape: Tape, parameters: FlatParameters, tangents: Tensor, of_outputs: list[Tensor | None], products: Tensor
) -> None:
    """Carries tangents forward and swings back along some directions; `of_outputs` are what `_pull` returned."""
    *notes, last = tape.notes
    swings = _Sums(parameters, products)
    tangent_of: dict[int | None, Tensor] = dict(enumerate(parameters.split(tangents)))
    for note in notes:
        tangent_of[note.number] = note.operation.push([tangent_of.get(number) for number in note.inputs])
    swings.add(last.inputs[0], last.operation.swing(tangent_of[last.inputs[0]]))
    for note, adjoint in zip(reversed(notes), of_outputs, strict=True):
        swing, of_output = swings.take(note.number), tangent_of.pop(note.number)
        if adjoint is not None and swing is not None:
            of_inputs = [tangent_of.get(number) for number in note.inputs]
            swings.add_all(note, note.operation.pull_swing(adjoint, swing, of_inputs, of_output, swings.room(note)))
    swings.close()


class _Sums:
    """The terms that operations contribute to each value, by its number; a parameter's sum lies in the flat result.

    Without a flat result (None), sums of parameters are not wanted.
    """

    def __init__(self, parameters: FlatParameters, flat: Tensor | None):
        self._views = [] if flat is None else parameters.split(flat)
        self._parameters = len(parameters.tensors)
        self._fresh = set(range(len(self._views)))
        self._sums: dict[int, Tensor] = {}
        self._ours: set[int] = set()

    def wanted(self, note: Note) -> tuple[bool, ...]:
        """Returns which inputs depend on parameters, and have sums that are wanted."""
        first = 0 if self._views else self._parameters
        return tuple([number is not None and number >= first for number in note.inputs])

    def room(self, note: Note) -> Callable[[int], Tensor | None]:
        """Returns a parameter's place, as long as nothing has been written there."""
        return lambda place: self._views[number] if (number := note.inputs[place]) in self._fresh else None

    def add(self, number: int | None, piece: Tensor | Part) -> None:
        """Adds one more term."""
        if number is None:
            return
        if number >= self._parameters:
            self._add_to_sum(number, piece)
            return
        if not self._views:
            return
        view = self._views[number]
        if isinstance(piece, Part):
            piece = piece.written(None)
        if number in self._fresh:
            self._fresh.discard(number)
            if piece is not view:
                view.copy_(piece)
        else:
            view.add_(piece)

    def _add_to_sum(self, number: int, piece: Tensor | Part) -> None:
        total, ours = self._sums.get(number), number in self._ours
        if isinstance(piece, Part):
            self._sums[number] = piece.written(total.clone() if total is not None and not ours else total)
        elif total is None:
            self._sums[number] = piece
            return
        else:
            self._sums[number] = total.add_(piece) if ours else total + piece
        self._ours.add(number)

    def add_all(self, note: Note, pieces: Pieces) -> None:
        """Adds one term for each input that moves."""
        for number, piece in zip(note.inputs, pieces, strict=True):
            if piece is not None:
                self.add(number, piece)

    def take(self, number: int) -> Tensor | None:
        """Takes out the sum of a value that is no parameter; None if it has no terms."""
        return self._sums.pop(number, None)

    def close(self) -> tuple[int, ...]:
        """Sets the sums of parameters without terms to zero, and returns their places."""
        for place in self._fresh:
            self._views[place].zero_()
        return tuple(sorted(self._fresh))


CONTAINERS = (tuple, list, dict)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yields the tensors in a value and in the containers that it is made of."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _holds(values: Iterable[Any], known: Mapping[int, Value]) -> bool:
    """Returns whether one of these tensors is among the values, or in the containers that they are."""
    for value in values:
        if id(value) in known:
            return True
        if isinstance(value, CONTAINERS) and any(id(tensor) in known for tensor in _tensors(value)):
            return True
    return False


def _is_hooked(tensor: Tensor) -> bool:
    return bool(tensor._backward_hooks)
