"""A training by OHO's optimizer, whose average of the weights is in the model while the model is evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import oho
from bench.protocol import State
from bench.protocol.averages import Exchange

Optimizer = oho.OHO | oho.PublishedOHO


@dataclass(kw_only=True)
class AveragedState(State):
    """Between two calls of `advance`, `model` holds the average of the weights, if the optimizer has one."""

    optimizer: Any
    """An `Optimizer`."""
    exchange: Exchange = field(default_factory=Exchange)

    def training(self) -> None:
        """Puts the weights of the training into the model."""
        self.exchange.training(self.model.parameters())

    def evaluation(self) -> None:
        """Puts their average into the model, if there is one."""
        if isinstance(self.optimizer, oho.OHO) and self.optimizer.average is not None:
            with self.optimizer.averaged():
                average = [parameter.detach().clone() for parameter in self.model.parameters()]
            self.exchange.evaluation(self.model.parameters(), average)
