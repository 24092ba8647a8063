"""The sweeps over a tape: adjoints go back, tangents of all directions forward, and swings back.

    symbol  name       shape       meaning
    K       rows       ()          directions
    M       members    ()          independent trainings side by side; 1 without a population
    N       size       ()          tuned elements of one member
    g       gradient   (M, N)      adjoints of the parameters
    H Z     products   (K, M, N)   swings of the parameters: Hessian of the loss times each direction

With members, the loss that is differentiated is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from oho.engines.branches import Branches
from oho.engines.pearlmutter import Pieces
from oho.engines.structure import Part
from oho.engines.tape import Note, Tape
from oho.flat_parameters import FlatParameters

SWEEP_ELEMENTS = 1 << 26
"""The largest number of elements of all tangents of one sweep; more directions take several sweeps.

With branches, linear layers keep up to three more tensors of that size until the sweep ends.
"""


def sweep(
    tape: Tape, parameters: FlatParameters, tangents: Tensor, on_products: Callable[..., None], branches: Branches | None
) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """Returns the gradient (M, N), the places of parameters that the loss does not use, and products (K, M, N)."""
    if branches is None:
        return _sweep(tape, parameters, tangents, on_products, None)
    whole = parameters.split(tangents) if _rows_of_sweep(tape) >= len(tangents) else []
    with branches.sweeping(tape.notes[:-1], len(parameters.tensors), whole):
        return _sweep(tape, parameters, tangents, on_products, branches)


def _sweep(
    tape: Tape, parameters: FlatParameters, tangents: Tensor, on_products: Callable[..., None], branches: Branches | None
) -> tuple[Tensor, tuple[int, ...], Tensor]:
    gradient = tangents.new_empty(tangents.shape[1:])
    adjoints = _Sums(parameters, gradient)
    of_outputs = _pull(tape, adjoints, branches)
    unused = adjoints.close()
    with nullcontext() if branches is None else branches.once_pulled():
        on_products(gradient, unused)
    return gradient, unused, _products(tape, parameters, tangents, of_outputs, branches)


def products_alone(tape: Tape, parameters: FlatParameters, tangents: Tensor) -> Tensor:
    """Returns products (K, M, N), without the work of the gradient."""
    return _products(tape, parameters, tangents, _pull(tape, _Sums(parameters, None), None), None)


def _pull(tape: Tape, adjoints: _Sums, branches: Branches | None) -> list[Tensor | None]:
    """Returns the adjoints of the outputs of all notes but the loss, the last one's first."""
    *notes, last = tape.notes
    adjoints.add(last.inputs[0], last.operation.adjoint())
    of_outputs = []
    for note in reversed(notes):
        of_outputs.append(adjoint := adjoints.take(note.number))
        if adjoint is None or not any(moves := adjoints.wanted(note)):
            continue
        if branches is not None:
            branches.pull(note, adjoint, moves, adjoints)
        else:
            adjoints.add_all(note, note.operation.pull(adjoint, moves, adjoints.room(note)))
    return of_outputs


def _products(
    tape: Tape, parameters: FlatParameters, tangents: Tensor, of_outputs: list[Tensor | None], branches: Branches | None
) -> Tensor:
    """Returns products (K, M, N), taking as many directions at once as `_rows_of_sweep` allows."""
    products, rows = torch.empty_like(tangents), _rows_of_sweep(tape)
    for part, result in zip(tangents.split(rows), products.split(rows), strict=True):
        _swing(tape, parameters, part, of_outputs, result, branches)
        if branches is not None:
            branches.join()
    return products


def _rows_of_sweep(tape: Tape) -> int:
    return max(1, SWEEP_ELEMENTS // sum(note.output.numel() for note in tape.notes))


def _swing(
    tape: Tape, parameters: FlatParameters, tangents: Tensor, of_outputs: list[Tensor | None], products: Tensor,
    branches: Branches | None,
) -> None:  # fmt: skip
    """Carries tangents forward and swings back along some directions; `of_outputs` are what `_pull` returned."""
    *notes, last = tape.notes
    swings = _Sums(parameters, products)
    tangent_of: dict[int | None, Tensor] = dict(enumerate(parameters.split(tangents)))
    for note in notes:
        of_inputs = [tangent_of.get(number) for number in note.inputs]
        tangent_of[note.number] = note.operation.push(of_inputs) if branches is None else branches.push(note, of_inputs)
    swings.add(last.inputs[0], last.operation.swing(tangent_of[last.inputs[0]]))
    for note, adjoint in zip(reversed(notes), of_outputs, strict=True):
        swing, of_output = swings.take(note.number), tangent_of.pop(note.number)
        if adjoint is None or swing is None:
            continue
        of_inputs = [tangent_of.get(number) for number in note.inputs]
        if branches is not None:
            branches.pull_swing(note, adjoint, swing, of_inputs, of_output, swings)
        else:
            swings.add_all(note, note.operation.pull_swing(adjoint, swing, of_inputs, of_output, swings.room(note)))
    swings.close()


class _Sums:
    """The sums of what operations contribute to each value, by its number; sums of parameters lie in a flat result.

    Without a flat result (None), sums of parameters are not computed.
    """

    def __init__(self, parameters: FlatParameters, flat: Tensor | None):
        self._views = [] if flat is None else parameters.split(flat)
        self._parameters = len(parameters.tensors)
        self._fresh = set(range(len(self._views)))
        self._sums: dict[int, Tensor] = {}
        self._ours: set[int] = set()

    def wanted(self, note: Note) -> tuple[bool, ...]:
        """Returns which inputs depend on parameters and have sums to compute."""
        first = 0 if self._views else self._parameters
        return tuple([number is not None and number >= first for number in note.inputs])

    def room(self, note: Note) -> Callable[[int], Tensor | None]:
        """Returns a function that gives a parameter's place, as long as nothing has been written there."""
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
        """Removes and returns the sum of a value that is no parameter; None if it has no terms."""
        return self._sums.pop(number, None)

    def close(self) -> tuple[int, ...]:
        """Sets the sums of parameters without terms to zero, and returns their places."""
        for place in self._fresh:
            self._views[place].zero_()
        return tuple(sorted(self._fresh))
