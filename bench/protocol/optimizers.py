"""Options of the optimizers that several families of methods share: SGD, momentum, Adam, AdamW.

Only names, bounds and values stand here.  Baselines turn them into `torch.optim` optimizers, OHO's methods into rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from bench.protocol.method import Options
from bench.protocol.settings import Settings


class OptimizerChoice(Settings):
    """An optimizer's own options.  A hyperparameter of null is drawn from the experiment's space or searched."""

    own: ClassVar[tuple[str, ...]] = ()
    """The optimizer's hyperparameters other than learning rate and weight decay."""
    label: ClassVar[str]
    """The optimizer's name in figures."""


class Sgd(OptimizerChoice):
    """Plain stochastic gradient descent with an L2 penalty in the gradient."""

    label: ClassVar[str] = "SGD"
    name: Literal["sgd"] = "sgd"


class Momentum(OptimizerChoice):
    """SGD with heavy-ball or Nesterov momentum and an L2 penalty in the gradient."""

    own: ClassVar[tuple[str, ...]] = ("momentum",)

    label: ClassVar[str] = "momentum"
    name: Literal["momentum"] = "momentum"
    momentum: float | None = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Momentum:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Betas(OptimizerChoice):
    """The decay factors of the averages of the gradient and of its square."""

    own: ClassVar[tuple[str, ...]] = ("beta1", "beta2")

    beta1: float | None = Field(default=0.9, ge=0, lt=1)
    beta2: float | None = Field(default=0.999, ge=0, lt=1)


class Adam(Betas):
    """Adam with an L2 penalty in the gradient."""

    label: ClassVar[str] = "Adam"
    name: Literal["adam"] = "adam"


class AdamW(Betas):
    """Adam with decoupled weight decay."""

    label: ClassVar[str] = "AdamW"
    name: Literal["adamw"] = "adamw"


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


AnyOptimizer = Annotated[Sgd | Momentum | Adam | AdamW, Field(discriminator="name"), BeforeValidator(_named)]
"""A configuration gives either a name or a mapping with `name` and the optimizer's options."""
OPTIMIZERS: tuple[str, ...] = tuple(kind.model_fields["name"].default for kind in (Sgd, Momentum, Adam, AdamW))
"""Their names, for each of which a space may have separate laws."""


class InitialValues(Options):
    """A learning rate and a weight decay; a value of null is drawn from the experiment's space, by the seed."""

    lr: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)

    def values(self) -> dict[str, float | None]:
        """Returns learning rate and weight decay; None is open."""
        return {"lr": self.lr, "weight_decay": self.weight_decay}


class WithOptimizer(InitialValues):
    """A learning rate and a weight decay, with a choice of the optimizer and its own hyperparameters."""

    optimizer: AnyOptimizer = Sgd()

    @property
    def optimizer_name(self) -> str:  # type: ignore[override]
        """One of sgd, momentum, adam and adamw."""
        return self.optimizer.name

    def values(self) -> dict[str, float | None]:
        """Returns learning rate and weight decay, then the hyperparameters of the optimizer; None is open."""
        return super().values() | {name: getattr(self.optimizer, name) for name in self.optimizer.own}

    def replace(self, values: Mapping[str, float]) -> Self:
        """Returns a copy with other values."""
        inner = {name: value for name, value in values.items() if name in self.optimizer.own}
        outer = {name: value for name, value in values.items() if name not in inner}
        return self.model_copy(update={**outer, "optimizer": self.optimizer.model_copy(update=inner)})

    def details(self) -> list[str]:
        """Returns the optimizer's label unless it is the usual optimizer."""
        usual = type(self).model_fields["optimizer"].default.name
        return [] if self.optimizer.name == usual else [self.optimizer.label]
