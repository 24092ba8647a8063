"""What losses and metrics are, and in which unit, in the words of axes and tables."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from reports.selection import NoData


class Units(NamedTuple):
    """What a task measures: `Units("cross-entropy", "nats per example", "classification error", "fraction")`."""

    loss: str
    loss_unit: str
    metric: str
    metric_unit: str

    def axis(self, text: str) -> str:
        """Returns an axis' label for a loss: `Final test loss` and, below it, its unit."""
        return f"{text}\n({self.loss_unit})"

    @property
    def metric_title(self) -> str:
        """The metric with the unit it is shown in: a fraction is shown in per cent."""
        return f"{self.metric} ({'%' if self.metric_unit == 'fraction' else self.metric_unit})"

    def shown(self, metric: float) -> float:
        """Returns a value of the metric in the unit of `metric_title`."""
        return 100 * metric if self.metric_unit == "fraction" else metric

    @property
    def words(self) -> str:
        """Loss and metric, each with its unit."""
        return f"{self.loss} in {self.loss_unit}, {self.metric} in {self.metric_unit}"


def units_of(runs: pd.DataFrame) -> Units:
    """Returns what all these runs measure.  Raises `NoData` where they measure different things: they share no axis."""
    found = sorted(set(runs["units"]))
    if len(found) > 1:
        different = "; ".join(units.words for units in found)
        raise NoData(f"Its runs measure different things ({different}), which share no axis, so it is not drawn.")
    return found[0]
