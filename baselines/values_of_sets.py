"""Trainings whose sets of tensors have learning rates and weight decays of their own, as OHO's layer-wise methods do.

    symbol  name    meaning
    G       groups  groups of layers in depth order; weights and biases of a group are sets apart (`oho.Layerwise`)

Each of the 2 G sets has its own value of each of `NAMES`, called `lr_weights_1`, `lr_biases_1`, `lr_weights_2` and so on.
A schedule multiplies the rates of all sets by one factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import nn

import oho
from baselines.optimizers import TorchStepper, torch_optimizer
from bench.protocol.optimizers import AnyOptimizer
from oho.flat_parameters import flat_parameters
from oho.sets import resolve_sets

NAMES = ("lr", "weight_decay")
KINDS = {"weight": "weights", "bias": "biases"}


def shared_laws(groups: int | None) -> dict[str, str]:
    """Returns the name of each set's value, in the order of `NAMES` and sets, with the hyperparameter that it is one of."""
    numbers = range(1, (groups or 0) + 1)
    return {f"{name}_{kind}_{number}": name for name in NAMES for number in numbers for kind in KINDS.values()}


class SetsStepper(TorchStepper):
    """A stepper for an optimizer with a parameter group for each set; what it is given as `lr` is a factor on their rates.

    Raises ValueError where the network has fewer layers than there are groups.
    """

    def __init__(self, optimizer: AnyOptimizer, model: nn.Module, groups: int, values: Mapping[str, float]):
        parameters = {name: own for name, own in model.named_parameters() if own.requires_grad}
        sets = resolve_sets(oho.Layerwise(groups), flat_parameters(parameters.items()))
        labels = cast(Sequence[tuple[int, str]], sets.labels)
        self._names = [f"{KINDS[kind]}_{group + 1}" for group, kind in labels]
        param_groups: list[dict[str, Any]] = [{"params": []} for _ in self._names]
        for index, parameter in zip(sets.of_tensor, parameters.values(), strict=True):
            param_groups[index]["params"].append(parameter)
        for group, name in zip(param_groups, self._names, strict=True):
            group |= {"lr": values[f"lr_{name}"], "initial_lr": values[f"lr_{name}"]}
            group |= {"weight_decay": values[f"weight_decay_{name}"]}
        super().__init__(torch_optimizer(optimizer, param_groups, lr=param_groups[0]["lr"], weight_decay=0.0))

    def rates(self, lr: float) -> list[float]:
        """Returns each set's own rate times the factor."""
        return [group["initial_lr"] * lr for group in self.optimizer.param_groups]

    def hyper(self) -> dict[str, Any]:
        """Returns the present values, one for each set."""
        return {name: [float(group[name]) for group in self.optimizer.param_groups] for name in NAMES}

    def assign(self, name: str, value: float) -> None:
        """Sets the value of one set or, of another hyperparameter, of all."""
        for group, own in zip(self.optimizer.param_groups, self._names, strict=True):
            if name == f"lr_{own}":
                group["initial_lr"] = value
            elif name == f"weight_decay_{own}":
                group["weight_decay"] = value
        super().assign(name, value)
