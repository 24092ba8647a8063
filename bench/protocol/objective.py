"""Objectives of tasks: a loss to train on and a metric to report, with names and units.

Lower values are better, for the metric as for the loss.  Records keep both under the same names for all tasks:
`test_loss` is the loss and `test_error` the metric on the test split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.func import vmap

from bench.protocol.loss_hyper import LossHyperparameter


class Evaluation(NamedTuple):
    """A model's mean loss and its metric over a split, in the units of the task's objective."""

    loss: float
    error: float


def _same(mean: float) -> float:
    return mean


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss and a metric of outputs (n, ...) and targets (n, ...).

    `loss(outputs, targets, reduction="mean")` is called like those of `torch.nn.functional`, with "mean" or "sum" over
    the elements of the targets; it is differentiated twice.  `errors(outputs, targets)` returns one number for each
    element, and the metric is `finish` of their mean.  `kind` is what a data set must serve: classification, regression,
    language, or a name of your own.  If the loss has hyperparameters that methods may tune, `tunable` has them, and
    `tuned_loss(outputs, targets, NAME=value, ...)` takes any of them as scalar tensors, is the mean, and is differentiable
    in them.
    """

    kind: str
    loss: Callable[..., Tensor]
    errors: Callable[[Tensor, Tensor], Tensor]
    finish: Callable[[float], float] = _same
    loss_name: str
    loss_unit: str
    metric_name: str
    metric_unit: str
    tunable: tuple[LossHyperparameter, ...] = ()
    tuned_loss: Callable[..., Tensor] | None = None
    members: Callable[[Tensor, Tensor], Tensor] | None = None
    """The mean losses (M,) of outputs (M, n, ...) and targets (M, n, ...) of M trainings; None maps `loss` over them."""
    tuned_members: Callable[..., Tensor] | None = None
    """The mean losses (M,) by `tuned_loss`, whose values are then (M,); None maps it over the trainings."""
    standardises_targets: bool = False
    """Whether targets are standardised by the mean and the deviation of the examples left for training."""

    def __post_init__(self) -> None:
        if self.tunable and self.tuned_loss is None:
            names = ", ".join(each.name for each in self.tunable)
            raise ValueError(f"an objective with tunable hyperparameters ({names}) needs a tuned_loss that takes them")

    @property
    def has_classes(self) -> bool:
        """Whether each target is one class, which may become another one."""
        return self.kind == "classification"

    @property
    def units(self) -> dict[str, str]:
        """The names and units as specs and reports hold them."""
        return {
            "loss": self.loss_name, "loss_unit": self.loss_unit,
            "metric": self.metric_name, "metric_unit": self.metric_unit,
        }  # fmt: skip

    def totals(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the sums of losses and of errors over one batch, each a scalar."""
        return self.loss(outputs, targets, reduction="sum"), self.errors(outputs, targets).sum()

    def member_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean losses (M,) of outputs (M, n, ...) and targets (M, n, ...), differentiable."""
        return (self.members or vmap(self.loss))(outputs, targets)

    def tuned_member_losses(self, outputs: Tensor, targets: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Returns what `member_losses` does with values (M,) of hyperparameters of the loss, by name."""
        if not values:
            return self.member_losses(outputs, targets)
        assert self.tuned_loss is not None
        return (self.tuned_members or vmap(self.tuned_loss))(outputs, targets, **values)

    def member_totals(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what `totals` does for each of M trainings, (M,) and (M,)."""
        errors = self.errors(outputs.flatten(0, 1), targets.flatten(0, 1)).view(len(targets), -1).sum(1)
        return self.member_losses(outputs, targets) * targets[0].numel(), errors

    def evaluation(self, loss: float, error: float, count: int) -> Evaluation:
        """Returns the evaluation that follows from the totals over `count` elements of targets."""
        return Evaluation(loss / count, self.finish(error / count))
