"""Compares a Hessian-vector product with a central difference of gradients, in float64, at one point and direction.

    symbol  name        shape       meaning
    z       direction   (1, M, N)   random; entries are about as large as those of their tensor
    p       product     (1, M, N)   what an engine returns for z
    r       width       ()          the length of a probe relative to the parameters
    d       difference  (M, N)      (g(θ + s z) − g(θ − s z)) / 2s with s = r (1 + ‖θ‖) / ‖z‖

Only first derivatives enter d, so that a wrong second derivative shows.  There are two reasons for float64 and a tiny r: a
float32 gradient has too few digits to subtract, and a ReLU that switches between the two probes adds a jump to their
difference (with 100 examples and 400 units, at r = 1e-4, a larger one than the product itself).  At r = 1e-8, rounding
leaves an error of 1e-7 in d in the networks we measured, and few of 1e8 units meet a kink.  Where p and d disagree, a
second r tells which is wrong: two differences that agree with each other are right.

p itself needs neither.  In the parameters' own type it costs a third of its time in float64 (ResNet-18 on a CPU), and still
agrees with d to 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from oho.engines.curvature import Derivatives, gradient_of
from oho.engines.repetition import Repeatable
from oho.engines.twice import TwiceDifferentiable, recomputing
from oho.flat_parameters import FlatParameters
from oho.float64_closures import tensors_in_float64, wide

WIDTHS = (1e-8, 1e-9, 1e-10)
TOLERANCE = 1e-2
"""The largest error of a tensor's product that passes; rounding stays below 1e-5, a wrong derivative rarely below this."""
SMALL = 1e-2
"""The share of the whole product relative to which smaller products of single tensors are judged."""
ROUNDING = 1e-13
"""The relative error of a float64 gradient of a deep network."""
SAME_LOSS = 1e-5
"""The largest relative change of the loss over a probe that the parameters' change explains."""

Products = Callable[[Repeatable, Tensor], Derivatives]
Agreement = Callable[[float], float]
"""This process's error -> the largest of all replicas' errors."""


class Difference(NamedTuple):
    """d (M, N), and the norm that it may have from rounding alone."""

    value: Tensor
    rounding: float


@dataclass(frozen=True)
class Comparison:
    """`verdict` is "right", "wrong", "undecided" (kinks or rounding), or "unrepeatable": the loss changed by itself.

    `errors` has |p − d| / |d| of each parameter, and `losses` the closure's first and last loss.
    """

    verdict: str
    errors: dict[str, float]
    difference: Difference
    losses: tuple[float, float]

    @property
    def error(self) -> float:
        """The largest of the errors."""
        return max(self.errors.values(), default=0.0)

    @property
    def worst(self) -> str:
        """The parameters with the largest errors, with these in percent."""
        ordered = sorted(self.errors.items(), key=lambda item: -item[1])
        return ", ".join(f"{error:.1%} in {name!r}" for name, error in ordered[:3] if error > TOLERANCE)


def compare(
    products: Products | None,
    closure: Repeatable,
    parameters: FlatParameters,
    *,
    own_type_first: bool = False,
    agree: Agreement = lambda error: error,
) -> Comparison:
    """Compares an engine's product with central differences; without an engine, finds whether the closure is repeatable.

    With `own_type_first`, a product in the parameters' own type is right where it agrees, and one in float64 decides where
    it does not.  The parameters are left as they were; the caller undoes what the closure did.
    """
    direction, product = random_direction(parameters), None
    if products is not None and own_type_first:
        product = products(closure, direction.to(parameters.dtype)).products[0].double()
    else:
        with torch.enable_grad():
            closure()  # meets the modules whose buffers take part
    earlier = closure.losses[-1:]
    closure.losses.clear()
    with tensors_in_float64((*parameters.tensors, *closure.buffers())) as dtype, wide(dtype):
        try:
            return _compared(products, product, closure, parameters, direction=direction, agree=agree)
        except RuntimeError:
            losses = _ends(earlier + closure.losses)
            if _moved(losses) <= SAME_LOSS:
                raise
            return Comparison("unrepeatable", {}, Difference(direction[0], 0.0), losses)


def _compared(
    products: Products | None,
    product: Tensor | None,
    closure: Repeatable,
    parameters: FlatParameters,
    *,
    direction: Tensor,
    agree: Agreement,
) -> Comparison:
    """Compares `product` and, if there is none or it disagrees, one in float64."""
    in_float64 = product is None
    if products is not None and in_float64:
        product = products(closure, direction).products[0]
    found: list[Difference] = []
    errors: dict[str, float] = {}
    for width in WIDTHS:
        found.append(_difference(closure, parameters, direction, width))
        losses = _ends(closure.losses)
        if agree(_moved(losses)) > SAME_LOSS:
            return Comparison("unrepeatable", {}, found[-1], losses)
        if product is not None:
            errors = errors_of(parameters, product, found[-1])
        error = agree(max(errors.values(), default=0.0))
        if products is not None and error > TOLERANCE and not in_float64:
            product, in_float64 = products(closure, direction).products[0], True
            errors = errors_of(parameters, product, found[-1])
            error = agree(max(errors.values()))
        if error <= TOLERANCE:
            return Comparison("right", errors, found[-1], losses)
        if len(found) > 1:
            between = max(errors_of(parameters, found[-2].value, found[-1]).values())
            if agree(between / max(errors.values())) < 0.1:
                return Comparison("wrong", errors, found[-1], losses)
    return Comparison("undecided", errors, found[-1], losses)


def random_direction(parameters: FlatParameters) -> Tensor:
    """Returns z in float64, the same at every call; no global generator moves."""
    generator = torch.Generator().manual_seed(0)
    theta = parameters.gather().double()
    overall = float(theta.square().mean().sqrt()) or 1.0
    pieces = []
    for piece in theta.split(parameters.sizes, dim=-1):
        scale = float(piece.square().mean().sqrt()) or overall
        drawn = torch.randn(piece.shape, generator=generator, dtype=torch.float64, device="cpu")
        pieces.append(scale * drawn.to(theta.device))
    return torch.cat(pieces, -1).unsqueeze(0)


def _difference(closure: Repeatable, parameters: FlatParameters, direction: Tensor, width: float) -> Difference:
    theta = parameters.gather()
    length = width * (1 + theta.norm(dim=-1, keepdim=True)) / direction[0].norm(dim=-1, keepdim=True)
    sides = []
    try:
        for sign in (1, -1):
            parameters.write(theta + sign * length * direction[0])
            with TwiceDifferentiable(), recomputing():  # as the product: other kernels draw other random numbers
                sides.append(parameters.flatten(gradient_of(closure, parameters)[1]))
    finally:
        parameters.write(theta)
    rounding = ROUNDING * float((sides[0].norm(dim=-1, keepdim=True) / length).max())
    return Difference((sides[0] - sides[1]) / (2 * length), rounding)


def errors_of(parameters: FlatParameters, product: Tensor, difference: Difference) -> dict[str, float]:
    """Returns |p − d| / |d| for each parameter and a product p (M, N)."""
    value, whole = difference.value, float(difference.value.norm())
    least = max(SMALL * whole, difference.rounding)
    pairs = zip(
        parameters.names, product.split(parameters.sizes, -1), value.split(parameters.sizes, -1), strict=True
    )  # fmt: skip
    found = {name: float((p - d).norm()) / max(float(d.norm()), least) if least else 0.0 for name, p, d in pairs}
    return {name: error if error == error else torch.inf for name, error in found.items()}


def _ends(losses: Sequence[Tensor]) -> tuple[float, float]:
    """Returns the first and the last of the losses that a closure returned."""
    return float(losses[0].sum()), float(losses[-1].sum())


def _moved(losses: tuple[float, float]) -> float:
    """Returns the relative change of the loss between evaluations at what is nearly one point."""
    first, last = losses
    return abs(first - last) / max(abs(first), abs(last), 1e-300)
