"""Measures correlations of gradients, outside the counted time."""

from __future__ import annotations

import torch
from torch import nn

from bench.protocol import Batches, Task


def gradient_correlations(task: Task, model: nn.Module, *, seed: int, step: int, count: int) -> dict[str, float]:
    """Returns the mean and standard deviation of the cosines between all pairs of `count` training batches' gradients.

    The batches depend on seed and step alone and are not the training's own.
    """
    size = min(task.batch_size, len(task.train.targets))
    batches = Batches(
        task.train, size, seed, "gradient correlations", augmentation=task.augmentation, world=task.world
    )  # fmt: skip
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
