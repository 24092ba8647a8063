"""Optimizers that treat weights as matrices, Muon and SOAP, each with a cosine over the budget or a search's trial."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.optimizers import Closure, Stepper, TorchStepper, trained_parameters
from baselines.package_stepper import PackageStepper
from baselines.self_tuning import FactorOptions, needed, self_tuning_entry
from baselines.soap import GraphSoap
from bench.protocol import Package


class MatrixOptions(FactorOptions):
    """A learning rate and a decoupled weight decay; null is drawn from the space by the seed."""

    lr: float | None = Field(default=None, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"

    @property
    def initial_lr(self) -> float | None:
        """The learning rate."""
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
        trained = [matrix for matrix in matrices if matrix.requires_grad]
        return MuonStepper(model, trained, momentum=self.momentum, **self.filled())


class MuonStepper(Stepper):
    """Muon over some `matrices` of a model, and AdamW over its other parameters.

    Muon takes steps of length 1 from zeros; rate and weight decay, which a graph needs in a tensor, are applied to the
    matrices.
    """

    def __init__(self, model: nn.Module, matrices: list[Tensor], *, lr: float, weight_decay: float, momentum: float):
        of_muon = {id(matrix) for matrix in matrices}
        others = [parameter for parameter in model.parameters() if id(parameter) not in of_muon]
        self._rest = TorchStepper(torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay))
        self._matrices, self._steps = matrices, [torch.zeros_like(matrix) for matrix in matrices]
        self._muon = None
        if matrices:
            own: dict[str, Any] = {"lr": 1.0, "weight_decay": 0.0, "momentum": momentum, "adjust_lr_fn": "match_rms_adamw"}
            self._muon = TorchStepper(torch.optim.Muon(self._steps, **own))
        self._parts = [part for part in (self._muon, self._rest) if part is not None]

    def begin(self, lr: float | None) -> None:
        """Sets the learning rate."""
        self._rest.begin(lr)

    def update(self, loss: Closure) -> Tensor:
        """Makes one update of all parameters."""
        for matrix in self._matrices:
            matrix.grad = None
        value = self._rest.update(loss)
        if self._muon is not None:
            self._move_matrices(self._muon.optimizer)
        return value

    @torch.no_grad()
    def _move_matrices(self, muon: torch.optim.Optimizer) -> None:
        (group,) = self._rest.optimizer.param_groups
        for matrix, step in zip(self._matrices, self._steps, strict=True):
            step.grad = matrix.grad
            step.zero_()
        muon.step()
        for matrix, step in zip(self._matrices, self._steps, strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(step * group["lr"])

    def make_capturable(self) -> None:
        """Puts the learning rate into a tensor."""
        self._rest.make_capturable()

    def assign(self, name: str, value: float) -> None:
        """Sets the value of both optimizers."""
        self._rest.assign(name, value)

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
        return PackageStepper(self._soap(model), scheduled=True)

    def graph_stepper(self, model: nn.Module) -> Stepper:
        """Returns a GraphSoap."""
        return GraphSoap(self._soap(model))

    def _soap(self, model: nn.Module) -> Any:
        return self.imported().SOAP(trained_parameters(model), precondition_frequency=self.every, **self.filled())


MUON = self_tuning_entry(
    "Muon for matrices, AdamW for the rest, along half a cosine", "Muon", MuonOptions, "training", captures=True
)
SOAP = self_tuning_entry(
    "Adam in Shampoo's eigenbasis, along half a cosine", "SOAP", SoapOptions, "training", captures=True
)
