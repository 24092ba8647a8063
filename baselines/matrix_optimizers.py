"""Optimizers that treat weights as matrices, Muon and SOAP, each with a cosine over the budget or a search's trial."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.optimizers import Closure, Stepper, TorchStepper
from baselines.package_stepper import PackageStepper
from baselines.self_tuning import FactorOptions, needed, self_tuning_entry
from bench.protocol import Package


class MatrixOptions(FactorOptions):
    """A learning rate and a decoupled weight decay; null is drawn from the space by the seed."""

    lr: float | None = Field(default=None, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"

    @property
    def initial_lr(self) -> float | None:
        """Returns the learning rate."""
        return self.lr


class MuonOptions(MatrixOptions):
    """torch.optim.Muon (Jordan et al., 2024) for the weights of linear layers except the last, and AdamW for all others.

    Updates are scaled to the size of AdamW's (Liu et al., 2025, arXiv 2502.16982), so that both share the learning rate and
    the weight decay.
    """

    optimizer_name: ClassVar[str] = "muon"

    momentum: float = Field(default=0.95, ge=0, lt=1)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a MuonStepper."""
        matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)][:-1]
        return MuonStepper(model, matrices, momentum=self.momentum, **self.filled())


class MuonStepper(Stepper):
    """Muon over some `matrices` of a model, and AdamW over its other parameters."""

    def __init__(self, model: nn.Module, matrices: list[Tensor], *, lr: float, weight_decay: float, momentum: float):
        of_muon = {id(matrix) for matrix in matrices}
        others = [parameter for parameter in model.parameters() if id(parameter) not in of_muon]
        common: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        muon = torch.optim.Muon(matrices, momentum=momentum, adjust_lr_fn="match_rms_adamw", **common) if matrices else None
        optimizers = [muon, torch.optim.AdamW(others, **common)]
        self._parts = [TorchStepper(optimizer) for optimizer in optimizers if optimizer is not None]

    def step(self, loss: Closure, lr: float | None) -> Tensor:
        """Makes one update of all parameters."""
        value = loss()
        for part in self._parts:
            part.optimizer.zero_grad()
        value.backward()
        for part in self._parts:
            if lr is not None:
                part.assign("lr", lr)
            part.optimizer.step()
        return value.detach()

    def assign(self, name: str, value: float) -> None:
        """Sets the value in both optimizers."""
        for part in self._parts:
            part.assign(name, value)

    def saved(self) -> dict[str, Any]:
        """Returns what both optimizers save."""
        return {"parts": [part.saved() for part in self._parts]}

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned."""
        for part, own in zip(self._parts, saved["parts"], strict=True):
            part.restore(own)


class SoapOptions(MatrixOptions):
    """SOAP, Adam in the eigenbasis of Shampoo (Vyas et al., 2025, arXiv 2409.11321), with the package's defaults.

    `every` is the number of steps between two updates of the basis.
    """

    optimizer_name: ClassVar[str] = "soap"
    package: ClassVar[Package | None] = needed("pytorch-optimizer", "pytorch_optimizer")

    every: int = Field(default=10, ge=1)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a pytorch_optimizer.SOAP."""
        optimizer = self.imported().SOAP(model.parameters(), precondition_frequency=self.every, **self.filled())
        return PackageStepper(optimizer, scheduled=True)


MUON = self_tuning_entry("Muon for matrices, AdamW for the rest, along half a cosine", "Muon", MuonOptions, "training")
SOAP = self_tuning_entry("Adam in Shampoo's eigenbasis, along half a cosine", "SOAP", SoapOptions, "training")
