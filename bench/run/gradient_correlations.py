"""What can be measured of a training beside its losses, at nobody's expense."""

from __future__ import annotations

import torch
from torch import nn

from bench.protocol import Batches, Task


def gradient_correlations(task: Task, model: nn.Module, *, seed: int, step: int, count: int) -> dict[str, float]:
    """Mean and standard deviation, over all pairs of `count` training batches, of the cosine between their gradients.

    The batches depend on seed and step alone and are none that the training uses in that order.
    """
    size = min(task.batch_size, len(task.train.targets))
    batches = Batches(task.train, size, seed, "gradient correlations", augmentation=task.augmentation)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = []
    for index in range(count):
        loss = task.training_loss(model, batches.at(step * count + index))
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    directions = torch.nn.functional.normalize(torch.stack(gradients).double(), dim=1)
    first, second = torch.triu_indices(count, count, offset=1)
    cosines = (directions @ directions.T)[first, second]
    return {
        "gradient_correlation_mean": float(cosines.mean()),
        "gradient_correlation_deviation": float(cosines.std(correction=0)),
    }
