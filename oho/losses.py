"""The usual losses, written so that they can be differentiated with respect to their own hyperparameters (`oho.LossHyper`).

    symbol  name     shape          meaning
    B       batch    ()             examples
    C       classes  ()
    ...     lead     ()             no axis, or the members of a population, which then have M losses
    p       targets  (..., B, C)    probabilities of the classes
    w       weights  (..., C)       of the classes; weights of examples are (..., B)

PyTorch's own functions take such values as plain numbers, or do not differentiate with respect to them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float | Tensor = 0.0,
    class_weights: Tensor | None = None,
    example_weights: Tensor | None = None,
) -> Tensor:
    """Returns the loss that `torch.nn.functional.cross_entropy` computes of finite logits: a scalar, or (...).

    No target is ignored: each is a class from 0 to C − 1, or has a probability for each class.

    `logits` are (..., B, C); `targets` are classes (..., B) or probabilities (..., B, C).  The sum over examples is divided
    by B or, if class weights (..., C) and targets that are classes are given, by the sum of the weights of these classes.
    `label_smoothing` is a number in [0, 1] or a tensor (...).  `example_weights` (..., B) multiply the losses of examples
    and leave the divisor as it is, so that an example of weight 0 contributes nothing and still counts.
    """
    classes, of_classes = logits.shape[-1], targets.shape != logits.shape
    p = _one_hot(targets, classes, logits.dtype) if of_classes else targets
    smoothing = _over(label_smoothing, 2)
    p = p * (1 - smoothing) + smoothing / classes
    scores = logits.log_softmax(-1)
    divisor: float | Tensor = logits.shape[-2]
    if class_weights is not None:
        weights = class_weights.unsqueeze(-2)
        scores = scores * weights
        if of_classes:
            divisor = weights.expand_as(scores).gather(-1, targets.unsqueeze(-1)).squeeze(-1).sum(-1)
    losses = -(p * scores).sum(-1)
    if example_weights is not None:
        losses = losses * example_weights
    return losses.sum(-1) / divisor


def mixup(inputs: Tensor, targets: Tensor, *, share: float | Tensor, order: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Returns each example mixed with another, λ x + (1 − λ) x[order], and its targets as probabilities (B, C).

    `inputs` are (B, ...), `targets` classes (B,); `share` is λ, a number or scalar tensor; `order` (B,) holds the place of
    each example's partner, such as `torch.randperm(B)`.

    Source: Zhang et al., "mixup: beyond empirical risk minimization", arXiv 1710.09412.
    """
    p = _one_hot(targets, classes, inputs.dtype)
    return inputs * share + inputs[order] * (1 - share), p * share + p[order] * (1 - share)


def l2_penalty(parameters: Iterable[Tensor], coefficients: float | Tensor) -> Tensor:
    """Returns Σ c ‖p‖² / 2 over the parameters, a scalar whose gradient is c p, as with `weight_decay=c` of `oho.SGD`.

    `coefficients` c is one number, or a vector with a number for each parameter.
    """
    squares = torch.stack([parameter.square().sum() for parameter in parameters])
    return (coefficients * squares).sum() / 2


def _one_hot(targets: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Returns classes (...) as (..., C).  PyTorch's own function checks their range, which waits for some devices."""
    hit = torch.zeros(*targets.shape, classes, dtype=dtype, device=targets.device)
    return hit.scatter_(-1, targets.unsqueeze(-1), 1)


def _over(value: float | Tensor, axes: int) -> float | Tensor:
    """Returns a value of shape (...) with further axes of length 1."""
    return value[(..., *[None] * axes)] if isinstance(value, Tensor) and value.ndim else value
