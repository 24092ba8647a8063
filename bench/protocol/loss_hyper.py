"""Hyperparameters of a task's training loss, which a method may tune besides the optimizer's.

A task offers them, and `Task.training_loss` takes their values as tensors, in which it is differentiable.  Validation and
test losses never have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.protocol.noise import Noise, generator_of

OfInputs = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""(inputs of a batch, value (), source of random numbers) -> inputs to train on, of the same shape."""


@dataclass(frozen=True, kw_only=True)
class LossHyperparameter:
    """One number that a training loss depends on, with its value at the start of a run and the bounds it stays within.

    One that changes a batch's inputs has `of_inputs`, differentiable in the value.  Any other is a keyword argument of the
    objective's `tuned_loss`.
    """

    name: str
    description: str
    initial: float
    bounds: tuple[float, float]
    of_inputs: OfInputs | None = None


def changed_inputs(
    inputs: Tensor, noise: Noise, offered: Iterable[LossHyperparameter], values: Mapping[str, Tensor]
) -> Tensor:
    """Returns a batch's inputs as the values change them; what is drawn depends on the batch's `noise` alone."""
    for each in offered:
        if each.of_inputs is not None and each.name in values:
            inputs = each.of_inputs(inputs, values[each.name], generator_of(noise, inputs.device, each.name))
    return inputs


def not_offered(offered: Sequence[LossHyperparameter], names: Iterable[str]) -> str | None:
    """Returns what a task cannot serve among names of hyperparameters to tune: the end of a sentence, or None."""
    known = [each.name for each in offered]
    if not (unknown := [name for name in names if name not in known]):
        return None
    allowed = f"it offers {', '.join(known)}" if known else "it offers nothing to tune of its training loss"
    return f"offers no {', '.join(map(repr, unknown))} to tune; {allowed}"


def of_objective(offered: Iterable[LossHyperparameter], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns those of the values that are arguments of the objective's `tuned_loss`."""
    return {each.name: values[each.name] for each in offered if each.of_inputs is None and each.name in values}
