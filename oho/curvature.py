"""Gradient and Hessian-vector products of one training loss.

    symbol  name      shape    meaning
    L       loss      ()       the training closure's loss at θ
    g       gradient  (N,)     ∇L
    Z       tangents  (K, N)   directions dθ/dh
    H Z     products  (K, N)   Hessian of L times each direction
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Closure = Callable[[], Tensor]


def gradient_of(closure: Closure, parameters: Sequence[Tensor], *, graph: bool = False) -> tuple[Tensor, list]:
    """The closure's loss and its gradients; None for a parameter it does not use."""
    with torch.enable_grad():
        loss = closure()
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            raise ValueError(f"a closure must return a scalar loss, got {_shape(loss)}")
        if not loss.requires_grad:
            raise ValueError("a closure's loss does not depend on the parameters; compute it inside, without no_grad")
        gradients = torch.autograd.grad(loss, parameters, create_graph=graph, allow_unused=True)
    return loss.detach(), list(gradients)


def flatten(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    """(N,): all entries in order, zeros in place of None."""
    pairs = zip(tensors, like, strict=True)
    return torch.cat([(torch.zeros_like(p) if t is None else t).reshape(-1) for t, p in pairs])


def unflatten(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """(..., N) -> views of shape (..., *p.shape) for each p."""
    pieces = flat.split([p.numel() for p in like], dim=-1)
    return [piece.view(*flat.shape[:-1], *p.shape) for piece, p in zip(pieces, like, strict=True)]


def double_backward(
    closure: Closure, parameters: Sequence[Tensor], tangents: Tensor, *, on_products: Callable[[], None]
) -> tuple[Tensor, list, Tensor]:
    """(loss, gradients, products (K, N)), the products by differentiating the gradient's graph once a tangent.

    `on_products` is called between the gradient and the products.
    """
    loss, gradients = gradient_of(closure, parameters, graph=True)
    on_products()
    used = [i for i, g in enumerate(gradients) if g is not None and g.requires_grad]
    products = torch.zeros_like(tangents)
    if not used:  # the gradient does not depend on the parameters
        return loss, gradients, products
    for k, tangent in enumerate(tangents):
        directions = unflatten(tangent, parameters)
        rows = torch.autograd.grad(
            [gradients[i] for i in used],
            parameters,
            [directions[i] for i in used],
            retain_graph=k + 1 < len(tangents),
            allow_unused=True,
        )
        products[k] = flatten(rows, parameters)
    return loss, [g if g is None else g.detach() for g in gradients], products


def _shape(loss: object) -> str:
    return f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
