"""Gradient and Hessian-vector products of one training loss, by one of four engines with the same signature.

    symbol  name       shape               meaning
    L       losses     (M,)                the training closure's loss of each member at θ; () without a population
    g       gradient   (M, N)              ∇L, zero for a parameter the loss does not use
    Z       tangents   (K, M, N)           directions dθ/dh
    H Z     products   (K, M, N)           Hessian of L times each direction

    pearlmutter           sweeps over a tape of the closure's operations, all directions at once (`oho.engines.tape`); for a
                          closure it does not know, double_backward
    double_backward       ∇(g · z): the gradient's own graph is differentiated once more for each direction
    forward_over_reverse  the loss and its backward pass run on dual numbers θ + ε z, one pass for each direction
    finite_difference     (g(θ + r z) − g(θ − r z)) / 2r

Members never mix: the loss differentiated is the sum of theirs.  The first two call the closure once; the others
call it again for each direction, with the random state and the buffers of the first call (`oho.engines.repetition`).

Parameters narrower than float32 are differentiated as they are; tangents, gradient and products are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from oho.engines.repetition import Closure, repeatable
from oho.engines.tape import Tape, sweep
from oho.engines.twice import TwiceDifferentiable
from oho.flat_parameters import FlatParameters

Gradients = list[Tensor | None]

BATCHED_FROM = 3
"""Directions from which one batched pass beats a pass for each: on two cores, with the 784-128-128-128-10 network and
batch 100, a loop took 1.0 times the batched pass's time for 2 or 3 directions, 1.2 for 4, 1.3 for 8, 1.5 for 16."""
BATCHED_ELEMENTS = 1 << 24
"""Largest K·M·N of one batched pass: beyond it memory costs more than the calls saved."""


class Derivatives(NamedTuple):
    """What an engine returns: detached losses, () or (M,); gradient (M, N); products (K, M, N).

    `unused` are the places of parameters the loss does not depend on; `engine` is the name of the engine that answered,
    if that is not the one that was asked.
    """

    losses: Tensor
    gradient: Tensor
    unused: tuple[int, ...]
    products: Tensor
    engine: str = ""


class Engine(Protocol):
    """(closure, parameters, tangents (K, M, N)) -> `Derivatives`.

    `on_products` is called once the gradient is there and the products begin.
    """

    def __call__(
        self,
        closure: Closure,
        parameters: FlatParameters,
        tangents: Tensor,
        *,
        on_products: Callable[[], None] = ...,
    ) -> Derivatives:
        """Returns gradient and products at the parameters as they are."""
        ...


def _nothing() -> None:
    return None


def gradient_of(closure: Closure, parameters: FlatParameters) -> tuple[Tensor, Gradients]:
    """Returns the closure's losses, detached, and the gradient of each parameter, None for one that it does not use.

    Raises:
        TypeError: for a closure that returns no tensor.
        ValueError: for a loss of another shape, or one that depends on no parameter.
    """
    loss = _loss_of(closure, parameters)
    return loss.detach(), _gradients(loss, parameters)


def _loss_of(closure: Closure, parameters: FlatParameters) -> Tensor:
    with torch.enable_grad():
        loss = closure()
    _check_loss(loss, parameters.members)
    return loss


def _gradients(loss: Tensor, parameters: FlatParameters, *, graph: bool = False) -> Gradients:
    try:
        with torch.enable_grad():
            total = loss if loss.ndim == 0 else loss.sum()
            found = torch.autograd.grad(total, parameters.tensors, create_graph=graph, allow_unused=True)
    except RuntimeError as error:
        if "second time" in str(error):
            raise RuntimeError("a closure returns its loss and leaves backward() to the optimizer") from error
        if "does not require grad" in str(error):
            raise ValueError("a closure freezes parameters of this optimizer; freeze them before it is made") from error
        raise
    if all(gradient is None for gradient in found):
        raise ValueError("a closure's loss depends on none of this optimizer's parameters; is it that of another model?")
    return [None if gradient is None else _dense(gradient) for gradient in found]


def _dense(gradient: Tensor) -> Tensor:
    return gradient if gradient.layout == torch.strided else gradient.to_dense()


def gradient_alone(closure: Closure, parameters: FlatParameters, tangents: Tensor) -> Derivatives:
    """Returns what an engine returns, for tangents that are zero."""
    loss, gradients = gradient_of(closure, parameters)
    return Derivatives(loss, *_flat(gradients, parameters), torch.zeros_like(tangents))


def pearlmutter(
    closure: Closure,
    parameters: FlatParameters,
    tangents: Tensor,
    *,
    on_products: Callable[[], None] = _nothing,
) -> Derivatives:
    """Computes gradient and products by the tape's sweeps where it answers, else by a second backward pass."""
    with Tape(parameters) as tape:
        loss = _loss_of(closure, parameters)
    if not tape.answers_for(loss):
        return _differentiate_twice(loss, parameters, tangents, on_products)._replace(engine="double_backward")
    with torch.no_grad():
        return Derivatives(loss.detach(), *sweep(tape, parameters, tangents, on_products))


def double_backward(
    closure: Closure,
    parameters: FlatParameters,
    tangents: Tensor,
    *,
    on_products: Callable[[], None] = _nothing,
) -> Derivatives:
    """Computes products by a second backward pass: for few directions one by one, for many in one batched pass."""
    with TwiceDifferentiable():
        loss = _loss_of(closure, parameters)
    return _differentiate_twice(loss, parameters, tangents, on_products)


def _differentiate_twice(
    loss: Tensor, parameters: FlatParameters, tangents: Tensor, on_products: Callable[[], None]
) -> Derivatives:
    gradients = _gradients(loss, parameters, graph=True)
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
    return Derivatives(loss.detach(), *_flat(gradients, parameters), products)


def _lengths(tangents: Tensor) -> Tensor:
    """Returns the largest entry of each direction, (K, M, 1): float16 has no numbers beyond 65504."""
    largest = tangents.abs().amax(-1, keepdim=True)
    return torch.where(largest > 0, largest, 1.0)


def _flat(gradients: Gradients, parameters: FlatParameters) -> tuple[Tensor, tuple[int, ...]]:
    """Returns the gradient (M, N), and the places of parameters that have none."""
    detached = [None if g is None else g.detach() for g in gradients]
    return parameters.flatten(detached), tuple(i for i, g in enumerate(gradients) if g is None)


def _second_backward(gradients: dict[int, Tensor], parameters: FlatParameters, tangents: Tensor, products: Tensor) -> None:
    """Fills `products` from those gradients that depend on the parameters, by the parameter's index."""

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


def forward_over_reverse(
    closure: Closure,
    parameters: FlatParameters,
    tangents: Tensor,
    *,
    on_products: Callable[[], None] = _nothing,
) -> Derivatives:
    """Computes products as tangents of the gradient: the parameters are dual numbers while the closure runs.

    It makes a forward and a backward pass for each direction, and needs memory for one direction only, whatever K.  Where
    PyTorch cannot differentiate a backward pass forward, as that of its squared error, it is differentiated backward.
    """
    if len(tangents) == 0:
        return gradient_alone(closure, parameters, tangents)
    with repeatable(closure, tangents.device) as again:
        try:
            return _forward_products(again, parameters, tangents, on_products)
        except RuntimeError as error:
            if "ZeroTensors are immutable" not in str(error):
                raise
        found = double_backward(again, parameters, tangents, on_products=on_products)
        return found._replace(engine="double_backward")


def _forward_products(
    closure: Closure, parameters: FlatParameters, tangents: Tensor, on_products: Callable[[], None]
) -> Derivatives:
    products = torch.zeros_like(tangents)
    for k, tangent in enumerate(tangents):
        with forward_ad.dual_level():
            _make_dual(parameters, tangent)
            with TwiceDifferentiable():
                loss = _loss_of(closure, parameters)
            gradients = _gradients(loss, parameters)
            parts = [None if g is None else forward_ad.unpack_dual(g) for g in gradients]
            parameters.flatten([None if part is None else part.tangent for part in parts], out=products[k])
            if k == 0:
                first_loss = forward_ad.unpack_dual(loss.detach()).primal.clone()
                first_gradients = [None if part is None else part.primal.clone() for part in parts]
                on_products()
    return Derivatives(first_loss, *_flat(first_gradients, parameters), products)


def _make_dual(parameters: FlatParameters, tangent: Tensor) -> None:
    """Gives each parameter its tangent in place; leaving the dual level takes it away again."""
    with torch.no_grad():
        for tensor, direction in zip(parameters.tensors, parameters.directions(tangent), strict=True):
            tensor.copy_(forward_ad.make_dual(tensor.detach().clone(), direction.contiguous()))


def finite_difference(
    closure: Closure,
    parameters: FlatParameters,
    tangents: Tensor,
    *,
    on_products: Callable[[], None] = _nothing,
) -> Derivatives:
    """Takes central differences of the gradient, r = ∛ε (1 + ‖θ‖) / ‖z‖ for each direction and member; error O(r²).

    Parameters are moved in place and put back bit for bit, whatever the closure does.
    """
    if parameters.is_narrow:
        raise ValueError(
            f"finite differences of {parameters.tensors[0].dtype} parameters are rounding alone; allowed are float32 and"
            " float64, with torch.autocast around the closure where it is to compute in a narrower type"
        )
    with repeatable(closure, tangents.device) as again:
        loss, gradients = gradient_of(again, parameters)
        on_products()
        products = _central_differences(again, parameters, tangents)
    return Derivatives(loss, *_flat(gradients, parameters), products)


def _central_differences(closure: Closure, parameters: FlatParameters, tangents: Tensor) -> Tensor:
    theta, products = parameters.gather(), torch.zeros_like(tangents)
    scale = torch.finfo(theta.dtype).eps ** (1 / 3) * (1 + theta.norm(dim=-1, keepdim=True))
    try:
        for k, tangent in enumerate(tangents):
            length = tangent.norm(dim=-1, keepdim=True)
            width = scale / torch.where(length > 0, length, 1.0)
            sides = []
            for sign in (1, -1):
                parameters.write(theta + sign * width * tangent)
                sides.append(parameters.flatten(gradient_of(closure, parameters)[1]))
            products[k] = (sides[0] - sides[1]) / (2 * width)
    finally:
        parameters.write(theta)
    return products


ENGINES: dict[str, Engine] = {
    "pearlmutter": pearlmutter,
    "double_backward": double_backward,
    "forward_over_reverse": forward_over_reverse,
    "finite_difference": finite_difference,
}


def resolve_engine(curvature: str | Engine) -> Engine:
    """Returns an engine by its name, or the user's own function of the same signature."""
    if not isinstance(curvature, str):
        return curvature
    if curvature not in ENGINES:
        raise ValueError(f"curvature={curvature!r}: allowed are {', '.join(ENGINES)} or a function of their signature")
    return ENGINES[curvature]


def _check_loss(loss: object, members: int | None) -> None:
    expected = () if members is None else (members,)
    if not isinstance(loss, Tensor):
        what = type(loss).__name__
        raise TypeError(f"a closure must return its loss, a tensor of shape {expected}; it returned {what}")
    if tuple(loss.shape) != expected:
        what = "a scalar loss" if members is None else f"one loss for each of {members} members"
        raise ValueError(f"a closure must return {what}, shape {expected}; it returned shape {tuple(loss.shape)}")
    if not loss.requires_grad:
        raise ValueError("a closure's loss depends on no parameter: compute it inside, without no_grad or detach")
