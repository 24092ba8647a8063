"""The objectives that tasks share: classification, regression, and text by characters."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

import oho
from bench.protocol.loss_hyper import LossHyperparameter
from bench.protocol.objective import Objective
from oho import members


def wrong_answers(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns for each example whether its largest output, of (n, classes), is not at its target, of (n,)."""
    return outputs.argmax(1) != targets


def squared_error(outputs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
    """Returns squared differences of outputs and as many targets, in the outputs' shape unless reduced."""
    return functional.mse_loss(outputs, targets.view_as(outputs), reduction=reduction)


def character_entropy(outputs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
    """Returns the cross-entropy in nats of logits (n, length, characters) for the next characters (n, length)."""
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction=reduction)


def smoothed_entropy(outputs: Tensor, targets: Tensor, *, label_smoothing: Tensor) -> Tensor:
    """Returns the mean cross-entropy of logits (n, ..., classes) for classes (n, ...) of which a share is spread evenly."""
    return oho.losses.cross_entropy(outputs.flatten(0, -2), targets.flatten(), label_smoothing=label_smoothing)


def smoothed_member_entropies(outputs: Tensor, targets: Tensor, *, label_smoothing: Tensor) -> Tensor:
    """Returns the same of each member (M,), of logits (M, n, ..., classes) and classes (M, n, ...), with shares (M,)."""
    return oho.losses.cross_entropy(outputs.flatten(1, -2), targets.flatten(1), label_smoothing=label_smoothing)


def noisy(inputs: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Returns images with normal noise, whose deviation is `strength` times the range of values: 255 of bytes, else 1."""
    scale = 255.0 if inputs.dtype == torch.uint8 else 1.0
    inputs = inputs.to(strength.dtype)
    drawn = torch.randn(inputs.shape, generator=generator, device=inputs.device, dtype=torch.float32)
    return inputs + strength * scale * drawn.to(inputs.dtype)


LABEL_SMOOTHING = LossHyperparameter(
    name="label_smoothing",
    description="the share of each target that is spread evenly over all classes",
    initial=0.1,
    bounds=(0.0, 0.5),
)
INPUT_NOISE = LossHyperparameter(
    name="input_noise",
    description="the deviation of noise added to images, as a share of the range from black to white",
    initial=0.1,
    bounds=(0.0, 1.0),
    of_inputs=noisy,
)


def member_squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean squared error of each member (M,), of outputs (M, n, ...) and as many targets."""
    return members.squared_error(outputs, targets.reshape(outputs.shape))


def member_character_entropies(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns the cross-entropy of each member (M,), of logits (M, n, length, characters) and characters (M, n, length)."""
    return members.cross_entropy(outputs.flatten(1, 2), targets.flatten(1))


CLASSIFICATION = Objective(
    kind="classification",
    loss=functional.cross_entropy,
    members=members.cross_entropy,
    errors=wrong_answers,
    loss_name="cross-entropy",
    loss_unit="nats per example",
    metric_name="classification error",
    metric_unit="fraction",
    tunable=(LABEL_SMOOTHING,),
    tuned_loss=smoothed_entropy,
    tuned_members=smoothed_member_entropies,
)
REGRESSION = Objective(
    kind="regression",
    loss=squared_error,
    members=member_squared_errors,
    errors=lambda outputs, targets: squared_error(outputs, targets, reduction="none"),
    finish=math.sqrt,
    loss_name="mean squared error",
    loss_unit="variances of the training targets",
    metric_name="root mean squared error",
    metric_unit="standard deviations of the training targets",
    standardises_targets=True,
)
LANGUAGE = Objective(
    kind="language",
    loss=character_entropy,
    members=member_character_entropies,
    errors=lambda outputs, targets: character_entropy(outputs, targets, reduction="none") / math.log(2),
    loss_name="cross-entropy",
    loss_unit="nats per character",
    metric_name="cross-entropy",
    metric_unit="bits per character",
    tunable=(LABEL_SMOOTHING,),
    tuned_loss=smoothed_entropy,
    tuned_members=smoothed_member_entropies,
)
