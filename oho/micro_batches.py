"""Micro-batches: the loss is the mean of those of several closures, and takes the memory of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from oho.engines.curvature import Closure, Derivatives

Closures = Closure | Sequence[Closure]
"""One closure, or a closure for each micro-batch."""


def listed(closures: Any, which: str) -> list[Closure]:
    """Returns the closures of a step.

    Raises:
        TypeError: for anything but a closure or a list of closures.
    """
    found = [closures] if callable(closures) else list(closures) if isinstance(closures, list | tuple) else []
    if not found or not all(map(callable, found)):
        given = "nothing" if closures is None else f"a {type(closures).__name__}"
        raise TypeError(
            f"step: for the {which} loss {given} was given; give a closure that returns it, or a list of at least one:"
            " optimizer.step(lambda: loss_of(model(x), y), lambda: loss_of(model(x_held), y_held))"
        )
    return found


def mean_derivatives(closures: list[Closure], differentiate: Callable[[Closure], Derivatives]) -> Derivatives:
    """Returns the mean of the closures' derivatives; a parameter is unused if none of them uses it."""
    total = differentiate(closures[0])
    for closure in closures[1:]:
        found = differentiate(closure)
        unused = tuple(place for place in total.unused if place in found.unused)
        total = Derivatives(total.losses + found.losses, total.gradient + found.gradient, unused, total.products)
        total.products.add_(found.products)
    if len(closures) == 1:
        return total
    total.products.div_(len(closures))
    return total._replace(losses=total.losses / len(closures), gradient=total.gradient / len(closures))


def mean_tensor(closures: Sequence[Closure], compute: Callable[[Closure], Tensor]) -> Tensor:
    """Returns the mean of a tensor that is computed for each closure: a gradient, or products."""
    total = compute(closures[0])
    for closure in closures[1:]:
        total = total + compute(closure)
    return total if len(closures) == 1 else total / len(closures)
