"""How an optimizer differentiates closures: by the engine asked for, or by another where that one cannot.

    engine asked for        another one
    pearlmutter             double_backward, silently, since it is as exact
    any of ours             finite_difference, with a warning that an operation of the closure has no second derivative

At the first step the closure is watched (`oho.engines.watch`) and, with check="first", one product is compared with central
differences of gradients (`oho.engines.comparison`).  None of this moves parameters, buffers or random numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oho.engines.branches import Branches
from oho.engines.callers import say
from oho.engines.comparison import compare
from oho.engines.curvature import (
    Closure,
    Derivatives,
    Engine,
    GraphGoneError,
    OnProducts,
    double_backward,
    gradient_alone,
    gradient_of,
    ignore,
    pearlmutter,
    pearlmutter_alone,
)
from oho.engines.names import ENGINES, name_of, resolve_engine
from oho.engines.repeating import finite_difference
from oho.engines.repetition import Buffers, Repeatable
from oho.engines.replicas import Replicas
from oho.engines.watch import Watch
from oho.flat_parameters import FlatParameters

ONCE_DIFFERENTIABLE = ("is not implemented", "double backward", "differentiate twice", "forward AD", "forward mode AD")
"""Parts of PyTorch's messages where an operation has no second derivative."""
CALLS_ONCE = (pearlmutter, double_backward)


@dataclass
class GraphSteps:
    """The steps of a graph: their streams, and whether a closure evaluated aside moves anything, None until one was."""

    branches: Branches
    moves_aside: bool | None = None


class Curvature:
    """Gradients and products of an optimizer's closures, and their means over the replicas of the model.

    `engine` names the engine in use: before the first step, the one asked for.
    """

    def __init__(self, curvature: str | Engine, parameters: FlatParameters, *, check: str | None):
        if check not in ("first", None):
            raise ValueError(f"check={check!r}: allowed are 'first' and None")
        self._engine = resolve_engine(curvature)
        self.engine = self._name = name_of(curvature)
        self._parameters, self._device = parameters, parameters.tensors[0].device
        self._check, self._watch = check, Watch()
        self._replicas: Replicas | None = None
        self._buffers = Buffers()
        self._settled = self._answered = False
        self.graph: GraphSteps | None = None
        """The steps of the graph that is making one; None in an eager step."""

    def products(
        self, closure: Closure, tangents: Tensor, *, on_products: OnProducts = ignore
    ) -> Derivatives:
        """Returns the engine's derivatives for these tangents (K, M, N).

        Raises:
            RuntimeError: for a second derivative that is wrong, or that no engine can compute.
        """
        if self._answered:
            with self.repeatable(closure) if self.calls_again else nullcontext(closure) as closure, self._uncompiled():
                if self.graph is not None and self._engine is pearlmutter:
                    order = self.graph.branches
                    return pearlmutter(closure, self._parameters, tangents, on_products=on_products, order=order)
                return self._engine(closure, self._parameters, tangents, on_products=on_products)
        doubt = self._doubt(closure) if self._check == "first" else None
        with self.repeatable(closure) as again, self._uncompiled():
            try:
                found = self._answer(again, tangents, on_products=on_products)
            except RuntimeError as error:
                if doubt and isinstance(error, GraphGoneError):  # a loss that adds to a running total
                    raise RuntimeError(doubt) from error
                raise
        self._settle()
        self._answered = True
        if doubt:
            say(doubt)
        self.engine = found.engine or self._name
        return found

    def products_alone(self, closure: Closure, tangents: Tensor) -> Tensor:
        """Returns the products (K, M, N) alone, without the work of the gradient where the engine can do without it."""
        if self._answered and self._engine is pearlmutter:
            with self._uncompiled():
                return pearlmutter_alone(closure, self._parameters, tangents)
        return self.products(closure, tangents).products

    def gradient_alone(self, closure: Closure, tangents: Tensor) -> Derivatives:
        """Returns the derivatives for tangents that are zero."""
        if self._settled:
            return gradient_alone(closure, self._parameters, tangents)
        found = gradient_alone(self.repeatable(closure), self._parameters, tangents)
        self._settle()
        return found

    def gradient(self, closure: Closure) -> Tensor:
        """Returns the gradient (M, N) of a loss that is differentiated once."""
        return self._parameters.flatten(gradient_of(closure, self._parameters)[1])

    def unused(self, closure: Closure) -> tuple[int, ...]:
        """Returns the places of parameters that the loss does not use, and undoes what the closure did."""
        again = self._fresh(closure)
        try:
            gradients = gradient_of(again, self._parameters)[1]
        finally:
            again.undo()
        return tuple(place for place, gradient in enumerate(gradients) if gradient is None)

    def mean(self, found: Derivatives) -> Derivatives:
        """Returns the mean over the replicas of the model, if there are any."""
        return found if self._replicas is None else self._replicas.mean_derivatives(found, len(self._parameters.tensors))

    def mean_vector(self, vector: Tensor) -> Tensor:
        """Returns the mean of a gradient (M, N) over the replicas, if there are any."""
        return vector if self._replicas is None else self._replicas.mean(vector)

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a copy keeps: all but the modules that were seen, which belong to this model."""
        check = None if self._answered else self._check
        fresh = {"_watch": Watch(), "_buffers": Buffers(), "_replicas": None, "_settled": False, "_answered": False}
        fresh["_check"] = check
        return {**vars(self), **fresh}

    @property
    def buffers(self) -> Buffers:
        """The buffers that closures were seen to use, once the first step has been made."""
        return self._buffers

    def repeatable(self, closure: Closure) -> Repeatable:
        """Returns a closure that can be called again, itself if it is one already."""
        return closure if isinstance(closure, Repeatable) else self._fresh(closure)

    @contextmanager
    def aside(self, closure: Closure) -> Iterator[Closure]:
        """Undoes at the end of the block what the closure moved, since only the step's own evaluation may move anything.

        A graph cannot undo anything: if the first evaluation moved nothing, later ones are not undone.
        """
        graph = self.graph
        if graph is not None and graph.moves_aside is False:
            yield closure
            return
        again = self.repeatable(closure)
        try:
            yield again
        finally:
            if graph is not None:
                graph.moves_aside = again.has_moved()
            again.undo()

    def _fresh(self, closure: Closure) -> Repeatable:
        """Returns a repeatable closure that has not been called."""
        closure = closure.closure if isinstance(closure, Repeatable) else closure
        return Repeatable(closure, self._device, watch=self._watch, buffers=self._buffers)

    def _settle(self) -> None:
        """Draws the conclusions from the first evaluation, once."""
        if self._settled:
            return
        self._settled = True
        if self._watch.replicated is not None:
            self._replicas = Replicas(self._watch.replicated)
        if self._watch.scale > 1:
            say(
                f"the training closure returns its loss times {self._watch.scale:g}, as GradScaler.scale does: gradients"
                " and hypergradients are scaled with it; return the loss itself, float16 parameters need no scaler here"
            )
        if self._watch.compiled and self._engine is not finite_difference:
            say(
                "code compiled by torch.compile cannot be differentiated twice: the training closure runs without it;"
                " curvature='finite_difference' runs it compiled, two gradients for each direction and step"
            )

    def _answer(self, closure: Closure, tangents: Tensor, *, on_products: OnProducts = ignore) -> Derivatives:
        """Asks the engine; where an operation has no second derivative, takes finite differences from now on."""
        try:
            return self._engine(closure, self._parameters, tangents, on_products=on_products)
        except RuntimeError as error:
            if self._engine is finite_difference or self._engine not in ENGINES.values() or not _lacks_second(error):
                raise
            say(
                f"{one_line(error)}: products are central differences of gradients from now on, two gradients for each"
                " direction and step (curvature='finite_difference' says so without this warning)"
            )
        self._engine, self._name = finite_difference, "finite_difference"
        return self._engine(closure, self._parameters, tangents, on_products=on_products)

    def _doubt(self, closure: Closure) -> str | None:
        """Compares one product with central differences.  Returns why that was impossible, or None.

        Raises:
            RuntimeError: for a wrong second derivative, a graph that is gone, or an engine that would call again a
                closure that cannot be repeated.
        """
        repeated = self._fresh(closure)
        try:
            with eager():
                asked = None if self._engine is finite_difference else self._answer
                found = compare(
                    asked, repeated, self._parameters, own_type_first=not self._parameters.is_narrow, agree=self._largest
                )
        except GraphGoneError:
            raise
        except Exception as error:  # if it is the user's, the step that follows raises it again
            return f"the second derivative of the training loss could not be checked: {one_line(error)}"
        finally:
            repeated.undo()
        if found.verdict == "wrong" and self._engine is not finite_difference:
            raise RuntimeError(
                f"the second derivative of the training loss is wrong: products of {self._name} differ from central"
                f" differences of its gradient by {found.worst}; an operation keeps detached values, or its backward pass"
                " cannot be differentiated (oho.check names it).  Choose curvature='finite_difference', or check=None to"
                " train with it all the same"
            )
        if found.verdict != "unrepeatable":
            return None
        first, last = found.losses
        what = (
            f"the training closure returns another loss when it is called again, {first:.6g} and then {last:.6g}: allowed"
            " is one that computes the loss of its batch anew (no running total, no batch drawn inside, random numbers from"
            " torch's own generators)"
        )
        if self.calls_again:
            raise RuntimeError(f"{what}; products of {self._name} call it again")
        return f"{what}; its second derivative could not be checked"

    def _largest(self, error: float) -> float:
        model = self._watch.replicated
        return error if model is None else Replicas(model).largest(error, self._device)

    @property
    def has_replicas(self) -> bool:
        """Whether derivatives are means over the replicas of the model."""
        return self._replicas is not None

    @property
    def can_look_ahead(self) -> bool:
        """Whether another loss can be differentiated between gradient and products just as it can after the step."""
        return self._answered and self._replicas is None and not self._watch.compiled

    @property
    def calls_again(self) -> bool:
        """Whether the engine calls a closure more than once."""
        return self._engine not in CALLS_ONCE

    def _uncompiled(self) -> AbstractContextManager[object]:
        return nullcontext() if self._engine is finite_difference else eager()


def eager() -> AbstractContextManager[object]:
    """Makes compiled code run uncompiled, and hides the block from the compiler."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    if compiler is None or not getattr(compiler, "cached_backends", True):  # nothing was compiled
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _lacks_second(error: RuntimeError) -> bool:
    return any(part in str(error) for part in ONCE_DIFFERENTIABLE)


def one_line(error: Exception) -> str:
    """Returns an error's type and the first line of its message."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first.rstrip('.')}"
