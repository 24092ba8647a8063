"""Layers and losses of M networks side by side, for which `OHO(..., members=M)` computes curvature products by sweeps.

    symbol  name     shape          meaning
    M       members  ()             independent trainings side by side
    B       batch    ()             examples of each member
    x       inputs   (M, B, I)
    W, b    layer    (M, O, I), (M, O)
    L       losses   (M,)           each member's mean over its examples

Other operations on tensors with a leading axis of members work, too, at the cost of a second backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns x Wᵀ + b for each member, (M, B, O)."""
    if has_torch_function((inputs, weight, bias)):
        return handle_torch_function(linear, (inputs, weight, bias), inputs, weight, bias)
    return torch.baddbmm(bias.unsqueeze(1), inputs, weight.transpose(1, 2))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns each member's mean cross-entropy (M,) of logits (M, B, C) and classes (M, B)."""
    if has_torch_function((logits, targets)):
        return handle_torch_function(cross_entropy, (logits, targets), logits, targets)
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view(targets.shape).mean(1)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns each member's mean squared difference (M,) between outputs and targets of one shape (M, B, ...)."""
    if has_torch_function((outputs, targets)):
        return handle_torch_function(squared_error, (outputs, targets), outputs, targets)
    return (outputs - targets).square().flatten(1).mean(1)
