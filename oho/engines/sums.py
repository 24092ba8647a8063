"""What a sweep adds up: adjoints or swings, by the number of a value."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from oho.engines.pearlmutter import Pieces
from oho.engines.structure import Part
from oho.engines.tape import Note
from oho.flat_parameters import FlatParameters


class Sums:
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
