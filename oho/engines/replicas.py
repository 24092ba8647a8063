"""Replicas of one model in several processes (DistributedDataParallel), which all step by the mean of their batches.

    symbol  name        shape       meaning
    R       replicas    ()          processes, each with its own batches
    g       gradient    (M, N)      mean over replicas of their training gradients
    H Z     products    (K, M, N)   mean over replicas of their products, with the same Z everywhere
    v       validation  (M, N)      mean over replicas of their validation gradients

DistributedDataParallel averages the gradients that `backward` leaves in parameters.  This optimizer asks autograd for
gradients, and so has to average them itself.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from oho.engines.curvature import Derivatives


class Replicas:
    """The processes that hold the same parameters."""

    def __init__(self, model: DistributedDataParallel):
        self._group = model.process_group
        self._count = dist.get_world_size(self._group)

    def mean(self, value: Tensor) -> Tensor:
        """Returns the mean over all replicas."""
        total = value.clone()
        dist.all_reduce(total, group=self._group)
        return total / self._count

    def mean_derivatives(self, found: Derivatives, tensors: int) -> Derivatives:
        """Returns the mean of gradient and products, in one exchange; the losses stay this replica's.

        A parameter is unused if no replica used it; `tensors` is their number.
        """
        used = found.gradient.new_ones(tensors)
        used[list(found.unused)] = 0
        parts = [found.gradient.flatten(), found.products.flatten(), used]
        gradient, products, used = self.mean(torch.cat(parts)).split([part.numel() for part in parts])
        unused = tuple((used == 0).nonzero().flatten().tolist())
        return found._replace(
            gradient=gradient.view_as(found.gradient), products=products.view_as(found.products), unused=unused
        )

    def largest(self, value: float, device: torch.device) -> float:
        """Returns the largest of the replicas' numbers."""
        number = torch.tensor(value, device=device)
        dist.all_reduce(number, op=dist.ReduceOp.MAX, group=self._group)
        return float(number)
