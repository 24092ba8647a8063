"""Gradient and Hessian-vector products of one training loss, by one of four engines with the same signature.

    symbol  name       shape               meaning
    L       losses     (M,)                the training closure's loss of each member at θ; () without a population
    g       gradient   (M, N)              ∇L, zero for a parameter the loss does not use
    Z       tangents   (K, M, N)           directions dθ/dh
    H Z     products   (K, M, N)           Hessian of L times each direction

    pearlmutter           sweeps over a tape of the closure's operations, all directions at once (`oho.engines.sweeps`);
                          double_backward for a closure with operations that the tape does not know
    double_backward       ∇(g · z): the gradient's own graph is differentiated once more for each direction
    forward_over_reverse  the loss and its backward pass run on dual numbers θ + ε z, one pass for each direction
    finite_difference     (g(θ + r z) − g(θ − r z)) / 2r

Members never mix, since the loss that is differentiated is the sum of theirs.  The first two engines call the closure once;
the others call it again for each direction (`oho.engines.repeating`).

Parameters narrower than float32 are differentiated in their own type; tangents, gradient and products are float32.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from oho.engines.order import IN_ORDER, InOrder
from oho.engines.repetition import Closure
from oho.engines.sweeps import products_alone, sweep
from oho.engines.tape import Tape
from oho.engines.twice import TwiceDifferentiable, recomputing
from oho.flat_parameters import FlatParameters

Gradients = list[Tensor | None]

BATCHED_FROM = 3
"""The number of directions from which one batched pass beats a pass for each: on two cores, with the 784-128-128-128-10
network and batch 100, a loop took 1.0 times as long for 2 or 3 directions, 1.2 for 4, 1.3 for 8 and 1.5 for 16."""
BATCHED_ELEMENTS = 1 << 24
"""The largest K·M·N of one batched pass: beyond it, memory costs more than the saved calls."""


class OnProducts(Protocol):
    """What an engine calls where the products begin: without arguments, or with the gradient and unused parameters."""

    def __call__(self, gradient: Tensor | None = None, unused: tuple[int, ...] = ()) -> None:
        """Takes a gradient (M, N) and the places of the parameters that the loss does not use."""
        ...


class GraphGoneError(RuntimeError):
    """Raised for a loss that was taken backward before it came here."""

    def __init__(self) -> None:
        super().__init__(
            "the graph of a closure's loss is gone: a closure computes its loss inside (model(x) too) and leaves backward()"
            " to the optimizer"
        )


class Derivatives(NamedTuple):
    """What an engine returns: detached losses, () or (M,); gradient (M, N); products (K, M, N).

    `unused` has the places of parameters on which the loss does not depend; `engine` names the engine that answered, if it
    is not the one that was asked.
    """

    losses: Tensor
    gradient: Tensor
    unused: tuple[int, ...]
    products: Tensor
    engine: str = ""


class Engine(Protocol):
    """(closure, parameters, tangents (K, M, N)) -> `Derivatives`.

    `on_products` is called after the gradient has been computed, where the products begin.  An engine whose products need
    nothing more of the closure may pass it the gradient (M, N) and the places of unused parameters.
    """

    def __call__(
        self,
        closure: Closure,
        parameters: FlatParameters,
        tangents: Tensor,
        *,
        on_products: OnProducts = ...,
    ) -> Derivatives:
        """Returns losses, gradient and products at the present parameters."""
        ...


def ignore(gradient: Tensor | None = None, unused: tuple[int, ...] = ()) -> None:
    """Does nothing where the products begin."""


def gradient_of(closure: Closure, parameters: FlatParameters) -> tuple[Tensor, Gradients]:
    """Returns the closure's losses, detached, and the gradient of each parameter, or None where the loss does not use it.

    Raises:
        TypeError: for a closure that returns no tensor.
        ValueError: for a loss of another shape, or one that depends on no parameter.
    """
    loss = loss_of(closure, parameters)
    return loss.detach(), gradients_of(loss, parameters)


def loss_of(closure: Closure, parameters: FlatParameters) -> Tensor:
    """Returns the closure's losses with their graph; raises as `gradient_of` does."""
    with torch.enable_grad():
        loss = closure()
    _check_loss(loss, parameters.members)
    return loss


def gradients_of(loss: Tensor, parameters: FlatParameters, *, graph: bool = False) -> Gradients:
    """Returns the gradient of each parameter, differentiable if `graph`."""
    try:
        with torch.enable_grad():
            total = loss if loss.ndim == 0 else loss.sum()
            found = torch.autograd.grad(total, parameters.tensors, create_graph=graph, allow_unused=True)
    except RuntimeError as error:
        if "second time" in str(error):
            raise GraphGoneError from error
        if "modified by an inplace operation" in str(error):
            raise RuntimeError(
                "what a closure's loss needs was changed in place before its backward pass: a closure computes all of its"
                f" loss inside (model(x) too); PyTorch says: {str(error).split(' Hint:')[0]}"
            ) from error
        if "does not require grad" in str(error):
            raise ValueError("a closure freezes parameters of this optimizer; freeze them before it is made") from error
        raise
    if all(gradient is None for gradient in found):
        raise ValueError("a closure's loss depends on none of this optimizer's parameters; is it that of another model?")
    return [None if gradient is None else _dense(gradient) for gradient in found]


def _dense(gradient: Tensor) -> Tensor:
    return gradient if gradient.layout == torch.strided else gradient.to_dense()


def gradient_alone(closure: Closure, parameters: FlatParameters, tangents: Tensor) -> Derivatives:
    """Returns what engines return for tangents that are zero."""
    loss, gradients = gradient_of(closure, parameters)
    return Derivatives(loss, *flat_of(gradients, parameters), torch.zeros_like(tangents))


def pearlmutter(
    closure: Closure,
    parameters: FlatParameters,
    tangents: Tensor,
    *,
    on_products: OnProducts = ignore,
    order: InOrder = IN_ORDER,
) -> Derivatives:
    """An engine: computes gradient and products by sweeps over a tape, or else by a second backward pass.

    Takes and returns what every `Engine` does; exact to rounding.  A captured step gives it another `order`.  Raises
    TypeError for a closure that returns no tensor, and ValueError for a loss of another shape, or one that depends on no
    parameter.
    """
    with Tape(parameters) as tape, order.evaluating():
        loss = loss_of(closure, parameters)
    if not tape.answers_for(loss):
        return _differentiate_twice(loss, parameters, tangents, on_products)._replace(engine="double_backward")
    with torch.no_grad():
        return Derivatives(loss.detach(), *sweep(tape, parameters, tangents, on_products, order))


def pearlmutter_alone(closure: Closure, parameters: FlatParameters, tangents: Tensor) -> Tensor:
    """Computes products (K, M, N) as `pearlmutter` does, without the gradient where the tape answers."""
    with Tape(parameters) as tape:
        loss = loss_of(closure, parameters)
    if not tape.answers_for(loss):
        return _differentiate_twice(loss, parameters, tangents, ignore).products
    with torch.no_grad():
        return products_alone(tape, parameters, tangents)


def double_backward(
    closure: Closure,
    parameters: FlatParameters,
    tangents: Tensor,
    *,
    on_products: OnProducts = ignore,
) -> Derivatives:
    """An engine: computes products by a second backward pass, one by one for few directions, batched for many.

    Takes and returns what every `Engine` does; exact to rounding.  Raises as `pearlmutter`, and RuntimeError for an
    operation that cannot be differentiated twice.
    """
    with TwiceDifferentiable():
        loss = loss_of(closure, parameters)
    return _differentiate_twice(loss, parameters, tangents, on_products)


@recomputing()
def _differentiate_twice(
    loss: Tensor, parameters: FlatParameters, tangents: Tensor, on_products: OnProducts
) -> Derivatives:
    gradients = gradients_of(loss, parameters, graph=True)
    on_products()
    used = {i: g for i, g in enumerate(gradients) if g is not None and g.requires_grad}
    if used:
        products = torch.empty_like(tangents)
        lengths = _lengths(tangents) if parameters.is_narrow else None
        _second_backward(used, parameters, tangents if lengths is None else tangents / lengths, products)
        if lengths is not None:
            products.mul_(lengths)
    else:  # the gradient is the same everywhere
        products = torch.zeros_like(tangents)
    return Derivatives(loss.detach(), *flat_of(gradients, parameters), products)


def _lengths(tangents: Tensor) -> Tensor:
    """Returns the largest entry of each direction (K, M, 1), to divide by, since float16 has no numbers beyond 65504."""
    largest = tangents.abs().amax(-1, keepdim=True)
    return torch.where(largest > 0, largest, 1.0)


def flat_of(gradients: Gradients, parameters: FlatParameters) -> tuple[Tensor, tuple[int, ...]]:
    """Returns the gradient (M, N), and the places of parameters that have none."""
    detached = [g.detach() if g is not None and g.requires_grad else g for g in gradients]
    return parameters.flatten(detached), tuple(i for i, g in enumerate(gradients) if g is None)


def _second_backward(gradients: dict[int, Tensor], parameters: FlatParameters, tangents: Tensor, products: Tensor) -> None:
    """Fills `products` from the gradients that depend on the parameters, given by the parameter's index."""

    def directions(rows: Tensor) -> list[Tensor]:
        views = parameters.directions(rows)
        return [views[i] for i in gradients]

    def differentiate(vectors: list[Tensor], *, retain: bool, batched: bool = False) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(
            list(gradients.values()),
            parameters.tensors,
            vectors,
            retain_graph=retain,
            allow_unused=True,
            is_grads_batched=batched,
        )

    count = len(tangents)
    if count >= BATCHED_FROM and tangents[0].numel() * BATCHED_FROM <= BATCHED_ELEMENTS:
        size = max(BATCHED_FROM, BATCHED_ELEMENTS // tangents[0].numel())
        try:
            for start in range(0, count, size):
                rows = differentiate(directions(tangents[start : start + size]), retain=True, batched=True)
                parameters.flatten(rows, out=products[start : start + size])
            return
        except RuntimeError:
            pass  # an operation that cannot be batched: the loop below can do without, and raises what is really wrong
    for k in range(count):
        parameters.flatten(differentiate(directions(tangents[k]), retain=k + 1 < count), out=products[k])


def _check_loss(loss: object, members: int | None) -> None:
    expected = () if members is None else (members,)
    if not isinstance(loss, Tensor):
        what = type(loss).__name__
        raise TypeError(
            f"a closure must return its loss, a tensor of shape {expected}; it returned {what}{_instead_of(loss)}"
        )
    if tuple(loss.shape) != expected:
        what = "a scalar loss" if members is None else f"one loss for each of {members} members"
        raise ValueError(
            f"a closure must return {what}, shape {expected}; it returned shape {tuple(loss.shape)}; take the mean or the"
            " sum (reduction='mean', loss.mean())"
        )
    if not loss.requires_grad:
        raise ValueError(
            "a closure's loss depends on no parameter: compute it inside, without no_grad, inference_mode or detach"
        )


def _instead_of(given: object) -> str:
    """Returns what a closure that returned no tensor should return."""
    if isinstance(getattr(given, "loss", None), Tensor):
        return "; return its .loss"
    if isinstance(given, dict) and isinstance(given.get("loss"), Tensor):
        return "; return its ['loss']"
    if isinstance(given, tuple | list) and any(isinstance(item, Tensor) for item in given):
        return "; return the loss alone"
    return "; return the loss itself, without .item()" if isinstance(given, float) else ""
