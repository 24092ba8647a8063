"""The order in which a sweep does its work: one operation after another.  `oho.engines.branches` has another one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from oho.engines.pearlmutter import Pieces
from oho.engines.sums import Sums
from oho.engines.tape import Note


class InOrder:
    """Does everything at once, on the current stream."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Runs the block, which evaluates a training loss."""
        return nullcontext()

    def sweeping(self, notes: Sequence[Note], parameters: int, tangents: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Makes the sweeps over a tape inside the block, whose first values are the parameters; joins all at its end.

        The tangents (K, *p.shape) of the parameters are those of all directions; there are none if the directions take
        several sweeps.
        """
        return nullcontext()

    def once_pulled(self) -> AbstractContextManager[None]:
        """Does the work of the block when the gradient is there."""
        return nullcontext()

    def pull(self, note: Note, adjoint: Tensor, moves: Sequence[bool], sums: Sums) -> None:
        """Adds what the operation's `pull` returns."""
        sums.add_all(note, note.operation.pull(adjoint, moves, sums.room(note)))

    def push(self, note: Note, tangents: Pieces) -> Tensor:
        """Returns what the operation's `push` returns."""
        return note.operation.push(tangents)

    def pull_swing(self, note: Note, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, sums: Sums) -> None:
        """Adds what the operation's `pull_swing` returns."""
        sums.add_all(note, note.operation.pull_swing(adjoint, swing, tangents, tangent, sums.room(note)))

    def join(self) -> None:
        """Makes later work wait for all of this, at the end of each sweep over directions."""


IN_ORDER = InOrder()
