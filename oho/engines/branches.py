"""The sweeps of a captured step, in which linear layers have streams of their own.  Symbols: see `oho.engines.pearlmutter`.

    stream      work for a layer y = x Wᵀ + b whose weight and bias are parameters
    the step's  x̄ = ȳ W | ẏ = (x Ẇᵀ + ḃ) + ẋ Wᵀ | x̄̇ = ȳ Ẇ + ȳ̇ W
    early       x Ẇᵀ + ḃ, once the loss is there; ȳ Ẇ, once ȳ is
    late        W̄ = ȳᵀ x, b̄ = Σ ȳ; W̄̇ = ȳ̇ᵀ x + ȳᵀ ẋ, b̄̇ = Σ ȳ̇, which are needed only after the last layer

A small network's matrices leave most of a GPU idle, and a step takes as long as its longest chain of kernels.  With these
branches, that chain has one matrix product for each layer and sweep.  The numbers stay the same, bit for bit.  Layers of
members, inputs with more than two axes and all other operations stay on the step's own stream, and if the directions take
several sweeps, nothing is early.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from oho.engines.order import InOrder
from oho.engines.pearlmutter import Linear, Pieces
from oho.engines.side_stream import Mark, SideStream, wait
from oho.engines.sums import Sums
from oho.engines.tape import Note


class Branches(InOrder):
    """The streams of one optimizer's captured steps; on a CPU, all work is done at once, in the same order.

    Training losses are evaluated on the stream `training`, if it is given, and otherwise on the step's own.
    """

    def __init__(self, device: torch.device, training: SideStream | None = None):
        self._early, self._late, self._training = SideStream(device), SideStream(device), training
        self._layers: set[int] = set()
        self._tangents: Sequence[Tensor] = ()
        self._pushed: dict[int, tuple[Tensor | None, Mark]] = {}
        self._swung: dict[int, tuple[Tensor | None, Mark]] = {}
        self._written: set[int] = set()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Runs the block, which evaluates a training loss, on the stream for that."""
        if self._training is None:
            yield
            return
        try:
            with self._training.work():
                yield
        finally:
            self._training.join()

    @contextmanager
    def sweeping(self, notes: Sequence[Note], parameters: int, tangents: Sequence[Tensor]) -> Iterator[None]:
        """Makes the sweeps over a tape inside the block, whose first values are the parameters; joins all at its end.

        The tangents (K, *p.shape) of the parameters are those of all directions; there are none if the directions take
        several sweeps.
        """
        try:
            self._begin(notes, parameters, tangents)
            yield
        finally:
            self.join()
            self._tangents = ()

    def _begin(self, notes: Sequence[Note], parameters: int, tangents: Sequence[Tensor]) -> None:
        """Starts what is early."""
        self._pushed, self._swung = {}, {}
        self._layers = {note.number for note in notes if _is_layer(note, parameters)}
        self._tangents = tangents
        if tangents:
            with self._early.work():
                for note in notes:
                    if note.number in self._layers:
                        pushed = note.operation.of_own(self._own_tangents(note))
                        self._pushed[note.number] = pushed, self._early.mark()

    def pull(self, note: Note, adjoint: Tensor, moves: Sequence[bool], sums: Sums) -> None:
        """Adds what the operation's `pull` returns."""
        if note.number not in self._layers:
            self._let_late_ones_end(note)
            super().pull(note, adjoint, moves, sums)
            return
        operation, room = note.operation, sums.room(note)
        of_x, *own = moves
        with self._late.work(adjoint):
            sums.add_all(note, operation.pull(adjoint, (False, *own), room))
        self._note_written(note)
        if of_x:
            if self._tangents:
                with self._early.work(adjoint):
                    swung = operation.of_weight(adjoint, self._own_tangents(note)[0])
                    self._swung[note.number] = swung, self._early.mark()
            sums.add_all(note, operation.pull(adjoint, (True, *[False] * len(own)), room))

    @contextmanager
    def once_pulled(self) -> Iterator[None]:
        """Does the work of the block when the gradient is there, which the step's own stream does not wait for."""
        with self._late.work():
            yield
        self._written.clear()  # the sums of swings are others

    def push(self, note: Note, tangents: Pieces) -> Tensor:
        """Returns what the operation's `push` returns."""
        if note.number not in self._pushed:
            return super().push(note, tangents)
        pushed, mark = self._pushed.pop(note.number)
        wait(mark)
        return note.operation.push(tangents, pushed)

    def pull_swing(self, note: Note, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, sums: Sums) -> None:
        """Adds what the operation's `pull_swing` returns."""
        if note.number not in self._layers:
            self._let_late_ones_end(note)
            super().pull_swing(note, adjoint, swing, tangents, tangent, sums)
            return
        operation, room = note.operation, sums.room(note)
        with self._late.work(adjoint, swing, *[each for each in tangents if each is not None]):
            sums.add_all(note, operation.swing_of_own(adjoint, swing, tangents, room))
        self._note_written(note)
        swung, mark = self._swung.pop(note.number, (None, None))
        wait(mark)
        sums.add_all(note, (operation.swing_of_x(adjoint, swing, tangents, swung), *[None] * (len(tangents) - 1)))

    def join(self) -> None:
        """Makes later work wait for all branches: at the end of each sweep over directions."""
        self._early.join()
        self._late.join()
        self._written.clear()

    def _own_tangents(self, note: Note) -> Pieces:
        return [None if number is None else self._tangents[number] for number in note.inputs[1:]]

    def _note_written(self, note: Note) -> None:
        self._written.update(number for number in note.inputs[1:] if number is not None)

    def _let_late_ones_end(self, note: Note) -> None:
        """Waits for a layer that has added to the same parameter."""
        if not self._written.isdisjoint(note.inputs):
            self._late.join()
            self._written.clear()


def _is_layer(note: Note, parameters: int) -> bool:
    """Returns whether an operation is a linear layer whose weight and moving bias are parameters, but not its x."""
    if not isinstance(note.operation, Linear):
        return False
    x, weight, *bias = note.inputs
    own = [number for number in (weight, *bias) if number is not None]
    return weight is not None and all(number < parameters for number in own) and (x is None or x >= parameters)
