"""Objectives of tasks: a loss to train on and a metric to report, with names and units.

Lower values are better, for the metric as for the loss.  Records keep both under the same names for all tasks:
`test_loss` is the loss and `test_error` the metric on the test split.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional


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
    language, or a name of your own.
    """

    kind: str
    loss: Callable[..., Tensor]
    errors: Callable[[Tensor, Tensor], Tensor]
    finish: Callable[[float], float] = _same
    loss_name: str
    loss_unit: str
    metric_name: str
    metric_unit: str
    standardises_targets: bool = False
    """Whether targets are standardised by the mean and the deviation of the examples left for training."""

    @property
    def units(self) -> dict[str, str]:
        """Returns the names and units as specs and reports hold them."""
        return {
            "loss": self.loss_name, "loss_unit": self.loss_unit,
            "metric": self.metric_name, "metric_unit": self.metric_unit,
        }  # fmt: skip

    def totals(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the sums of losses and of errors over one batch, each a scalar."""
        return self.loss(outputs, targets, reduction="sum"), self.errors(outputs, targets).sum()

    def evaluation(self, loss: float, error: float, count: int) -> Evaluation:
        """Returns the evaluation that follows from the totals over `count` elements of targets."""
        return Evaluation(loss / count, self.finish(error / count))


def wrong_answers(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns for each example whether its largest output, of (n, classes), is not at its target, of (n,)."""
    return outputs.argmax(1) != targets


def squared_error(outputs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
    """Returns squared differences of outputs and as many targets, in the outputs' shape unless reduced."""
    return functional.mse_loss(outputs, targets.view_as(outputs), reduction=reduction)


def character_entropy(outputs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
    """Returns the cross-entropy in nats of logits (n, length, characters) for the next characters (n, length)."""
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction=reduction)


CLASSIFICATION = Objective(
    kind="classification",
    loss=functional.cross_entropy,
    errors=wrong_answers,
    loss_name="cross-entropy",
    loss_unit="nats per example",
    metric_name="classification error",
    metric_unit="fraction",
)
REGRESSION = Objective(
    kind="regression",
    loss=squared_error,
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
    errors=lambda outputs, targets: character_entropy(outputs, targets, reduction="none") / math.log(2),
    loss_name="cross-entropy",
    loss_unit="nats per character",
    metric_name="cross-entropy",
    metric_unit="bits per character",
)
