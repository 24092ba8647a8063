"""Batch normalisation as a function: training tracks nothing, and evaluation estimates the statistics it needs.

    symbol  name      shape        equation
    x       inputs    (n, C, ...)
    μ, σ²   mean, variance  (C,)   of the batch in training, of a sample of the training split in evaluation
    γ, β    weight, bias    (C,)
    y       outputs   (n, C, ...)  y = γ (x − μ) / √(σ² + ε) + β

With a running average, one call of the training loss would change the result of the next, and the average would lag behind
the weights.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class BatchNorm(nn.Module):
    """A layer that normalises by the batch's statistics in training mode and by the estimated ones in evaluation mode.

    `mean` and `variance` are buffers and so part of `state_dict`.  They are NaN until `estimate_statistics` fills them, so
    that no evaluation without them passes for a result.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, epsilon: float = 1e-5):
        super().__init__()
        self.epsilon = epsilon
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.full((channels,), torch.nan))
        self.register_buffer("variance", torch.full((channels,), torch.nan))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns outputs of the inputs' shape (n, C, ...)."""
        mean, variance = (None, None) if self.training else (self.mean, self.variance)
        return functional.batch_norm(
            inputs, mean, variance, self.weight, self.bias, training=self.training, eps=self.epsilon
        )


def has_batch_norm(model: nn.Module) -> bool:
    """Returns whether the model has statistics to estimate."""
    return any(isinstance(module, BatchNorm) for module in model.modules())


class _Moments(NamedTuple):
    """One batch's number of values per channel, and each channel's mean and biased variance."""

    values: int
    mean: Tensor
    variance: Tensor


@torch.no_grad()
def estimate_statistics(model: nn.Module, inputs: Tensor, batch_size: int) -> None:
    """Sets the mean and variance of every `BatchNorm` to those of its inputs over a sample.

    The sample passes in batches of (nearly) `batch_size`, each normalised by itself as in training, and the batches'
    moments are pooled exactly: μ = Σ wμ_b, σ² = Σ w(σ²_b + (μ_b − μ)²), where w is a batch's share of the values ("precise
    batch norm", arXiv 2105.07576, section 3).  The result depends on the weights and the sample alone.  A model without
    such layers costs nothing.
    """
    layers = [module for module in model.modules() if isinstance(module, BatchNorm)]
    if not layers:
        return
    seen: dict[BatchNorm, list[_Moments]] = {layer: [] for layer in layers}
    hooks = [layer.register_forward_pre_hook(partial(_look, seen[layer])) for layer in layers]
    was_training = model.training
    model.train()
    try:
        for batch in inputs.tensor_split(max(1, len(inputs) // batch_size)):
            model(batch)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    for layer, moments in seen.items():
        mean, variance = _pool(moments)
        layer.mean.copy_(mean)
        layer.variance.copy_(variance)


def _look(seen: list[_Moments], layer: nn.Module, arguments: tuple[Tensor]) -> None:
    (inputs,) = arguments
    variance, mean = torch.var_mean(inputs, [0, *range(2, inputs.dim())], correction=0)
    seen.append(_Moments(inputs.numel() // inputs.shape[1], mean, variance))


def _pool(moments: list[_Moments]) -> tuple[Tensor, Tensor]:
    """Returns the mean and biased variance (C,) of all batches' values together."""
    means, variances = (torch.stack(rows) for rows in list(zip(*moments, strict=True))[1:])
    counts = means.new_tensor([batch.values for batch in moments])
    shares = (counts / counts.sum())[:, None]
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(0)
