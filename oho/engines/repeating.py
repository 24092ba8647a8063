"""Engines that call the closure again for each direction, with the random state and the buffers of its first call.

    symbol  name       shape       meaning
    g       gradient   (M, N)      of the training loss
    z       tangent    (M, N)      one direction
    r       width      (M, 1)      of a probe along z
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from oho.engines.curvature import (
    Derivatives,
    OnProducts,
    double_backward,
    flat_of,
    gradient_alone,
    gradient_of,
    gradients_of,
    ignore,
    loss_of,
)
from oho.engines.repetition import Closure, repeatable
from oho.engines.twice import TwiceDifferentiable, recomputing
from oho.flat_parameters import FlatParameters


def forward_over_reverse(
    closure: Closure,
    parameters: FlatParameters,
    tangents: Tensor,
    *,
    on_products: OnProducts = ignore,
) -> Derivatives:
    """An engine: computes products as tangents of the gradient, with dual numbers for parameters while the closure runs.

    Takes and returns what every `Engine` does; exact to rounding.  It makes a forward and a backward pass for each
    direction, and needs memory for one direction only, whatever K is.  Where PyTorch cannot differentiate a backward pass
    forward, such as that of its squared error, `double_backward` answers.  Raises as `double_backward`.
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
    closure: Closure, parameters: FlatParameters, tangents: Tensor, on_products: OnProducts
) -> Derivatives:
    products = torch.zeros_like(tangents)
    for k, tangent in enumerate(tangents):
        with forward_ad.dual_level():
            _make_dual(parameters, tangent)
            with TwiceDifferentiable():
                loss = loss_of(closure, parameters)
            with recomputing():
                gradients = gradients_of(loss, parameters)
            parts = [None if g is None else forward_ad.unpack_dual(g) for g in gradients]
            parameters.flatten([None if part is None else part.tangent for part in parts], out=products[k])
            if k == 0:
                first_loss = forward_ad.unpack_dual(loss.detach()).primal.clone()
                first_gradients = [None if part is None else part.primal.clone() for part in parts]
                on_products()
    return Derivatives(first_loss, *flat_of(first_gradients, parameters), products)


def _make_dual(parameters: FlatParameters, tangent: Tensor) -> None:
    """Gives each parameter its tangent in place; leaving the dual level removes it."""
    with torch.no_grad():
        for tensor, direction in zip(parameters.tensors, parameters.directions(tangent), strict=True):
            tensor.copy_(forward_ad.make_dual(tensor.detach().clone(), direction.contiguous()))


def finite_difference(
    closure: Closure,
    parameters: FlatParameters,
    tangents: Tensor,
    *,
    on_products: OnProducts = ignore,
) -> Derivatives:
    """An engine: takes central differences of the gradient, r = ∛ε (1 + ‖θ‖) / ‖z‖ for each direction and member.

    Takes and returns what every `Engine` does, with an error O(r²).  Parameters are moved in place and put back bit for
    bit, whatever the closure does.  Raises as `pearlmutter`, and ValueError for parameters narrower than float32.
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
    return Derivatives(loss, *flat_of(gradients, parameters), products)


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
