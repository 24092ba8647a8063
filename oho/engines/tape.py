"""A tape of the operations that parameters enter, and the sweeps over it.

    symbol  name       shape       meaning
    K       rows       ()          directions
    M       members    ()          independent trainings side by side; 1 without a population
    N       size       ()          tuned elements of one member
    g       gradient   (M, N)      adjoints of the parameters
    H Z     products   (K, M, N)   swings of the parameters: Hessian of the loss times each direction

With members, the loss that is differentiated is the sum of theirs.

Autograd builds its graph beside the tape, so that a tape which cannot answer costs nothing but the noting: one that met an
operation without a recipe, a value changed in place, a tensor's hook, another dtype, or a loss that is not the last
operation.  (A hook on a node of autograd's graph is not seen.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from oho import members
from oho.engines.pearlmutter import (
    CrossEntropy,
    Elementwise,
    Linear,
    LogSoftmax,
    Loss,
    MemberLinear,
    NegativeLogLikelihood,
    Operation,
    Reshape,
    SquaredError,
)
from oho.engines.twice import TwiceDifferentiable
from oho.flat_parameters import FlatParameters

Inputs = tuple[Tensor, ...]
Recipe = Callable[..., tuple[Operation | Loss, Inputs] | None]
"""(output, *arguments of the function) -> the operation and those arguments that may move; None for a variant unknown."""


class Note(NamedTuple):
    """One operation as it was met.  `moves` says which inputs depend on parameters."""

    operation: Any
    inputs: Inputs
    moves: tuple[bool, ...]
    output: Tensor


class Tape(TwiceDifferentiable):
    """Notes every operation of the closure that it is entered around whose result depends on the parameters."""

    def __init__(self, parameters: FlatParameters):
        super().__init__()
        self.notes: list[Note] = []
        self._dtype = parameters.tensors[0].dtype
        self._moving: dict[int, Tensor] = {id(tensor): tensor for tensor in parameters.tensors}
        self._versions: list[tuple[Tensor, int]] = []
        self._dropped = parameters.is_narrow or any(map(_is_hooked, parameters.tensors))

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """PyTorch calls this for each of its functions."""
        result = super().__torch_function__(function, types, args, kwargs)
        if not self._dropped and (_holds(args, self._moving) or (kwargs and _holds(kwargs.values(), self._moving))):
            self._dropped = not self._note(function, args, kwargs or {}, result)
        return result

    def answers_for(self, loss: Tensor) -> bool:
        """Returns whether the tape holds all that leads from the parameters to this loss."""
        return (
            not self._dropped
            and bool(self.notes)
            and self.notes[-1].output is loss
            and isinstance(self.notes[-1].operation, LOSSES)
            and not any(isinstance(note.operation, LOSSES) for note in self.notes[:-1])
            and all(tensor._version == version for tensor, version in self._versions)
            and not any(_is_hooked(note.output) for note in self.notes)
        )

    def _note(self, function: Any, args: tuple, kwargs: dict, result: Any) -> bool:
        """Notes an operation; returns False if the tape cannot follow it."""
        plain = type(result) is Tensor
        if not (result.requires_grad if plain else any(tensor.requires_grad for tensor in _tensors(result))):
            return True  # a shape, a dtype, a detached value
        recipe = RECIPES.get(function)
        if recipe is None or not plain or result.dtype != self._dtype:
            return False
        try:
            found = recipe(result, *args, **kwargs)
        except TypeError:  # an option the recipe does not know
            return False
        if found is None:
            return False
        operation, inputs = found
        moves, versions = [], []
        for tensor in inputs:
            moves.append(moving := id(tensor) in self._moving)
            if tensor.layout != torch.strided or (tensor.requires_grad and not moving and not tensor.is_leaf):
                return False  # sparse, or depends on parameters by a way the tape has not seen
            versions.append((tensor, tensor._version))
        if len(set(map(id, inputs))) < len(inputs):
            return False
        self.notes.append(Note(operation, inputs, tuple(moves), result))
        self._versions += [*versions, (result, result._version)]
        self._moving[id(result)] = result
        return True


SWEEP_ELEMENTS = 1 << 24
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
        of_outputs.append(adjoint := adjoints.take(note.output))
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
    tangent_of: dict[int, Tensor] = {
        id(tensor): view for tensor, view in zip(parameters.tensors, parameters.split(tangents), strict=True)
    }
    for note in notes:
        tangent_of[id(note.output)] = note.operation.push([tangent_of.get(id(tensor)) for tensor in note.inputs])
    swings.add(last.inputs[0], last.operation.swing(tangent_of[id(last.inputs[0])]))
    for note, adjoint in zip(reversed(notes), of_outputs, strict=True):
        swing = swings.take(note.output)
        if adjoint is not None and swing is not None:
            of_inputs, of_output = [tangent_of.get(id(tensor)) for tensor in note.inputs], tangent_of[id(note.output)]
            swings.add_all(note, note.operation.pull_swing(adjoint, swing, of_inputs, of_output, swings.room(note)))
    swings.close()


class _Sums:
    """The terms that operations contribute to each tensor, added up; a parameter's sum lies in the flat result.

    Without a flat result (None), sums of parameters are not wanted.
    """

    def __init__(self, parameters: FlatParameters, flat: Tensor | None):
        self._order = [id(tensor) for tensor in parameters.tensors]
        self._views = {} if flat is None else dict(zip(self._order, parameters.split(flat), strict=True))
        self._unwanted = set(self._order).difference(self._views)
        self._fresh = set(self._views)
        self._sums: dict[int, Tensor] = {}

    def wanted(self, note: Note) -> tuple[bool, ...]:
        """Returns which inputs depend on parameters, and have sums that are wanted."""
        if not self._unwanted:
            return note.moves
        return tuple([moves and id(x) not in self._unwanted for x, moves in zip(note.inputs, note.moves, strict=True)])

    def room(self, note: Note) -> Callable[[int], Tensor | None]:
        """Returns a parameter's place, as long as nothing has been written there."""
        return lambda place: self._views[key] if (key := id(note.inputs[place])) in self._fresh else None

    def add(self, tensor: Tensor, piece: Tensor) -> None:
        """Adds one more term."""
        key = id(tensor)
        if key not in self._views:
            self._sums[key] = self._sums[key] + piece if key in self._sums else piece
        elif key in self._fresh:
            self._fresh.discard(key)
            if piece is not self._views[key]:
                self._views[key].copy_(piece)
        else:
            self._views[key].add_(piece)

    def add_all(self, note: Note, pieces: tuple[Tensor | None, ...]) -> None:
        """Adds one term for each input that moves."""
        for tensor, piece in zip(note.inputs, pieces, strict=True):
            if piece is not None:
                self.add(tensor, piece)

    def take(self, tensor: Tensor) -> Tensor | None:
        """Takes out the sum of a tensor that is no parameter; None if it has no terms."""
        return self._sums.pop(id(tensor), None)

    def close(self) -> tuple[int, ...]:
        """Sets the sums of parameters without terms to zero, and returns their places."""
        for key in self._fresh:
            self._views[key].zero_()
        return tuple(place for place, key in enumerate(self._order) if key in self._fresh)


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


def _holds(values: Iterable[Any], moving: Mapping[int, Tensor]) -> bool:
    """Returns whether one of these tensors is among the values, or in the containers that they are."""
    for value in values:
        if id(value) in moving:
            return True
        if isinstance(value, CONTAINERS) and any(id(tensor) in moving for tensor in _tensors(value)):
            return True
    return False


def _is_hooked(tensor: Tensor) -> bool:
    return bool(tensor._backward_hooks)


def _linear(output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None):
    if input.ndim != 2 or weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    return Linear(input, weight), (input, weight) if bias is None else (input, weight, bias)


def _tanh(output: Tensor, input: Tensor):
    return Elementwise(output, lambda y: 1 - y * y, lambda y: y, -2.0), (input,)


def _sigmoid(output: Tensor, input: Tensor):
    return Elementwise(output, lambda y: y * (1 - y), lambda y: 1 - 2 * y), (input,)


def _relu(output: Tensor, input: Tensor, inplace: bool = False):
    return None if inplace else (Elementwise(output, lambda y: (y > 0).to(y.dtype)), (input,))


def _log_softmax(output: Tensor, input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None):
    return (LogSoftmax(output), (input,)) if dim in (-1, input.ndim - 1) and dtype is None else None


def _reshape(output: Tensor, input: Tensor, *shape: Any, **options: Any):
    return Reshape(input.shape, output.shape), (input,)


def _class_loss(
    output: Tensor, input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    ignore_index: int = -100, reduce: Any = None, reduction: str = "mean", label_smoothing: float = 0.0,
    *, of_logits: bool,
):  # fmt: skip
    plain = weight is None and size_average is None and reduce is None and label_smoothing == 0
    if not plain or reduction not in ("mean", "sum") or input.ndim != 2 or target.ndim != 1 or target.dtype != torch.int64:
        return None
    share = (target != ignore_index).to(input.dtype).unsqueeze(1)
    if reduction == "mean":
        share.div_(share.sum())
    within = target.clamp(0, input.shape[1] - 1).unsqueeze(1)  # `ignore_index` may lie outside
    hit = input.new_zeros(input.shape).scatter_(1, within, 1.0)
    loss = CrossEntropy(input, hit, share) if of_logits else NegativeLogLikelihood(hit, share)
    return loss, (input,)


def _squared_error(
    output: Tensor, input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", weight: Tensor | None = None,
):  # fmt: skip
    plain = weight is None and size_average is None and reduce is None and not target.requires_grad
    if not plain or reduction not in ("mean", "sum") or input.shape != target.shape or input.numel() == 0:
        return None
    return SquaredError(input.detach() - target, 1 / input.numel() if reduction == "mean" else 1.0), (input,)


def _member_linear(output: Tensor, input: Tensor, weight: Tensor, bias: Tensor):
    return MemberLinear(input, weight), (input, weight, bias)


def _member_class_loss(output: Tensor, input: Tensor, target: Tensor):
    hit = input.new_zeros(input.shape).scatter_(2, target.unsqueeze(2), 1.0)
    return CrossEntropy(input, hit, input.new_full((), 1 / input.shape[1])), (input,)


def _member_squared_error(output: Tensor, input: Tensor, target: Tensor):
    if input.shape != target.shape or target.requires_grad or input.numel() == 0:
        return None
    return SquaredError(input.detach() - target, len(input) / input.numel()), (input,)


LOSSES = (CrossEntropy, NegativeLogLikelihood, SquaredError)
RECIPES: dict[Any, Recipe] = {
    functional.linear: _linear,
    **dict.fromkeys((torch.tanh, Tensor.tanh, functional.tanh), _tanh),
    **dict.fromkeys((torch.sigmoid, Tensor.sigmoid, functional.sigmoid), _sigmoid),
    **dict.fromkeys((torch.relu, Tensor.relu, functional.relu), _relu),
    **dict.fromkeys((torch.log_softmax, Tensor.log_softmax, functional.log_softmax), _log_softmax),
    **dict.fromkeys((torch.flatten, Tensor.flatten, Tensor.view, torch.reshape, Tensor.reshape), _reshape),
    functional.cross_entropy: partial(_class_loss, of_logits=True),
    functional.nll_loss: partial(_class_loss, of_logits=False),
    functional.mse_loss: _squared_error,
    members.linear: _member_linear,
    members.cross_entropy: _member_class_loss,
    members.squared_error: _member_squared_error,
}
