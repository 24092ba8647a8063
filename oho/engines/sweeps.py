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

import torch
from torch import Tensor

from oho.engines.order import IN_ORDER, InOrder
from oho.engines.sums import Sums
from oho.engines.tape import Tape
from oho.flat_parameters import FlatParameters

SWEEP_ELEMENTS = 1 << 26
"""The largest number of elements of all tangents of one sweep; more directions take several sweeps.

With branches, linear layers keep up to three more tensors of that size until the sweep ends.
"""


def sweep(
    tape: Tape, parameters: FlatParameters, tangents: Tensor, on_products: Callable[..., None], order: InOrder
) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """Returns the gradient (M, N), the places of parameters that the loss does not use, and products (K, M, N)."""
    whole = parameters.split(tangents) if _rows_of_sweep(tape) >= len(tangents) else []
    with order.sweeping(tape.notes[:-1], len(parameters.tensors), whole):
        gradient = tangents.new_empty(tangents.shape[1:])
        adjoints = Sums(parameters, gradient)
        of_outputs = _pull(tape, adjoints, order)
        unused = adjoints.close()
        with order.once_pulled():
            on_products(gradient, unused)
        return gradient, unused, _products(tape, parameters, tangents, of_outputs, order)


def products_alone(tape: Tape, parameters: FlatParameters, tangents: Tensor) -> Tensor:
    """Returns products (K, M, N), without the work of the gradient."""
    return _products(tape, parameters, tangents, _pull(tape, Sums(parameters, None), IN_ORDER), IN_ORDER)


def _pull(tape: Tape, adjoints: Sums, order: InOrder) -> list[Tensor | None]:
    """Returns the adjoints of the outputs of all notes but the loss, the last one's first."""
    *notes, last = tape.notes
    adjoints.add(last.inputs[0], last.operation.adjoint())
    of_outputs = []
    for note in reversed(notes):
        of_outputs.append(adjoint := adjoints.take(note.number))
        if adjoint is not None and any(moves := adjoints.wanted(note)):
            order.pull(note, adjoint, moves, adjoints)
    return of_outputs


def _products(
    tape: Tape, parameters: FlatParameters, tangents: Tensor, of_outputs: list[Tensor | None], order: InOrder
) -> Tensor:
    """Returns products (K, M, N), taking as many directions at once as `_rows_of_sweep` allows."""
    products, rows = torch.empty_like(tangents), _rows_of_sweep(tape)
    for part, result in zip(tangents.split(rows), products.split(rows), strict=True):
        _swing(tape, parameters, part, of_outputs, result, order)
        order.join()
    return products


def _rows_of_sweep(tape: Tape) -> int:
    return max(1, SWEEP_ELEMENTS // sum(note.output.numel() for note in tape.notes))


def _swing(
    tape: Tape, parameters: FlatParameters, tangents: Tensor, of_outputs: list[Tensor | None], products: Tensor,
    order: InOrder,
) -> None:  # fmt: skip
    """Carries tangents forward and swings back along some directions; `of_outputs` are what `_pull` returned."""
    *notes, last = tape.notes
    swings = Sums(parameters, products)
    tangent_of: dict[int | None, Tensor] = dict(enumerate(parameters.split(tangents)))
    for note in notes:
        tangent_of[note.number] = order.push(note, [tangent_of.get(number) for number in note.inputs])
    swings.add(last.inputs[0], last.operation.swing(tangent_of[last.inputs[0]]))
    for note, adjoint in zip(reversed(notes), of_outputs, strict=True):
        swing, of_output = swings.take(note.number), tangent_of.pop(note.number)
        if adjoint is not None and swing is not None:
            of_inputs = [tangent_of.get(number) for number in note.inputs]
            order.pull_swing(note, adjoint, swing, of_inputs, of_output, swings)
    swings.close()
