"""Checks before a long training whether the engines' Hessian-vector products are right, and measures what they cost.

The reference is a central difference of gradients in float64 (`oho.engines.comparison`), which needs no second derivative.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from oho.ambient import outside_autocast
from oho.engines.answering import eager, one_line
from oho.engines.blame import blame
from oho.engines.comparison import Comparison, Difference, compare, errors_of, random_direction
from oho.engines.curvature import Closure, Engine, gradient_of
from oho.engines.names import ENGINES, name_of, resolve_engine
from oho.engines.repeating import finite_difference
from oho.engines.repetition import Repeatable
from oho.flat_parameters import FlatParameters, Given, flat_parameters
from oho.float64_closures import tensors_in_float64, wide
from oho.peak_memory import PeakMemory

Found = TypeVar("Found")
REPEATS = 5
INEXACT = 1e-2
"""The error, in the parameters' own type, from which finite differences are called inexact."""


@dataclass(frozen=True)
class Checked:
    """What one engine answered.

    `verdict` is "right", "wrong", "inexact" (finite differences across kinks, or with few digits), "undecided", or the
    reason that PyTorch gives for not answering.  `error` is the largest relative error of a product in the parameters' own
    type.  `cost` is the time of a gradient and one product as a multiple of the time of a gradient, `memory` the peak of
    both in bytes, and `gradient_memory` that of a gradient alone.  Without an answer these are NaN and 0.
    """

    engine: str
    answered_by: str
    verdict: str
    error: float = float("nan")
    cost: float = float("nan")
    memory: int = 0
    gradient_memory: int = 0


@dataclass(frozen=True)
class Check:
    """What each of the `engines` answered, in the order asked for; printed, it is a table with advice.

    `to_blame` names the operations whose second derivative is wrong.
    """

    engines: tuple[Checked, ...]
    to_blame: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the first engine: it is right, or undecided."""
        return self.engines[0].verdict in ("right", "undecided")

    @property
    def advice(self) -> str:
        """One line that says what to change."""
        first = self.engines[0]
        if self.ok:
            return f"nothing to change: curvature={first.engine!r} is {first.verdict}"
        right = [found.engine for found in self.engines if found.verdict == "right"]
        change = f"choose curvature={right[0]!r}" if right else "replace the operation"
        why = f"{first.engine} is wrong" if first.verdict == "wrong" else f"{first.engine}: {first.verdict}"
        named = f"; to blame: {', '.join(self.to_blame)}" if self.to_blame else ""
        return f"{change}: {why}{named}"

    def __str__(self) -> str:
        """Returns a table with a line for each engine, and the advice."""
        lines = [f"{'engine':<21} {'error':>8} {'gradients':>10} {'MiB':>8} {'gradient':>9}  product"]
        for found in self.engines:
            sizes = f"{found.memory / 2**20:>8.3g} {found.gradient_memory / 2**20:>9.3g}"
            by = f", by {found.answered_by}" if found.answered_by != found.engine else ""
            lines.append(f"{found.engine:<21} {found.error:>8.1e} {found.cost:>10.1f} {sizes}  {found.verdict}{by}")
        return "\n".join([*lines, self.advice])


def check(
    model: nn.Module | Given,
    closure: Closure,
    *,
    engines: Iterable[str | Engine] = tuple(ENGINES),
    members: int | None = None,
) -> Check:
    """Compares a product of each engine with central differences of gradients, and measures what it costs.

    This takes seconds and some fifty calls of the closure.  Parameters, buffers and random numbers are left as they were.

    Args:
        model: what the closure computes with, or its parameters as `oho.OHO` takes them.
        closure: a training closure, as `OHO.step` takes it.
        engines: names, or functions of their signature.
        members: as in `oho.OHO`.

    Raises:
        TypeError, ValueError: for parameters that `oho.OHO` refuses, or a closure that returns no loss.
        RuntimeError: for a closure that returns another loss when it is called again.
    """
    if callable(model) and not isinstance(model, nn.Module):
        raise TypeError("check: a function was given first; give the model, then the closure: oho.check(model, closure)")
    parameters = flat_parameters(model.named_parameters() if isinstance(model, nn.Module) else model, members)
    asked = [(name_of(engine), resolve_engine(engine)) for engine in engines]
    device = parameters.tensors[0].device
    with outside_autocast(device) as under:
        measured = _Measured(under(closure), parameters)
        found = tuple(measured.engine(name, engine) for name, engine in asked)
        wrong = any(row.verdict == "wrong" for row in found)
        return Check(found, measured.blamed() if wrong else ())


class _Measured:
    """Measures engines on one closure; all products are compared with the same central difference."""

    def __init__(self, closure: Closure, parameters: FlatParameters):
        self._closure, self._parameters = closure, parameters
        self._direction = random_direction(parameters)
        reference = self._compared(None)
        if reference.verdict == "unrepeatable":
            up, down = reference.losses
            raise RuntimeError(
                f"check: the closure returns another loss when it is called again, {up:.6g} and then {down:.6g}; allowed is"
                " one that computes the loss of the same batch anew"
            )
        self._reference: Difference = reference.difference
        self._seconds, self._bytes = self._cost(lambda again: gradient_of(again, parameters))

    def engine(self, name: str, engine: Engine) -> Checked:
        direction = self._direction.to(self._parameters.dtype)

        def answer(again: Repeatable) -> tuple[Tensor, str]:
            found = engine(again, self._parameters, direction)
            return found.products[0], found.engine or name

        with nullcontext() if engine is finite_difference else eager():
            try:
                product, answered_by = self._undone(answer)
                verdict, reference = self._verdict(engine)
            except (RuntimeError, ValueError) as reason:
                return Checked(name, name, one_line(reason))
            seconds, peak = self._cost(answer)
        error = max(errors_of(self._parameters, product.double(), reference).values())
        if engine is finite_difference and error > INEXACT:
            verdict = "inexact"
        return Checked(name, answered_by, verdict, error, seconds / self._seconds, peak, self._bytes)

    def blamed(self) -> tuple[str, ...]:
        with tensors_in_float64(self._parameters.tensors) as dtype, wide(dtype), eager():
            return self._undone(blame)

    def _verdict(self, engine: Engine) -> tuple[str, Difference]:
        if engine is finite_difference:
            return "right", self._reference
        found = self._compared(lambda again, z: engine(again, self._parameters, z))
        return found.verdict, found.difference

    def _compared(self, products) -> Comparison:
        with eager():
            return self._undone(lambda again: compare(products, again, self._parameters))

    def _undone(self, use: Callable[[Repeatable], Found]) -> Found:
        again = Repeatable(self._closure, self._parameters.tensors[0].device)
        try:
            return use(again)
        finally:
            again.undo()

    def _cost(self, use: Callable[[Repeatable], object]) -> tuple[float, int]:
        """Returns seconds and peak of memory in bytes."""
        device, seconds = self._parameters.tensors[0].device, []
        for _ in range(REPEATS):
            start = time.perf_counter()
            self._undone(use)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
        with PeakMemory() as memory:
            self._undone(use)
        return min(seconds), memory.peak
