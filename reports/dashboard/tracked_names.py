"""Quantities -> the metrics, and keys of summary and configuration, under which W&B has them."""

from __future__ import annotations

from bench.records import wandb_names as names
from reports.dashboard.panels import Quantity
from reports.dashboard.plan import ACCOUNT, DRAWN, HYPER

SCALAR = "scalar_"
COLUMNS = {f"incumbent_{column}": metric for metric, column in names.SELECTED.items()} | {
    column: metric for metric, column in names.LAST.items()
}
"""Metrics of losses and errors by the column of our tables."""


def metric_of(quantity: Quantity) -> str:
    """Returns the metric of a quantity; its last value is in the summary."""
    column, part = quantity.column, quantity.part
    if column in COLUMNS:
        return COLUMNS[column]
    if column.startswith(ACCOUNT):
        return f"seconds/{column.removeprefix(ACCOUNT)}"
    if column.startswith(SCALAR):
        name = column.removeprefix(SCALAR)
        return names.scalar_metrics([name])[name]
    if column.startswith(HYPER):
        name = column.removeprefix(HYPER)
        if isinstance(part, int):
            return names.hyper_metrics(name, names.MOST_SINGLE_SETS)[part]
        return names.hyper_metrics(name, names.MOST_SINGLE_SETS + 1 if part == "median" else 1)[0]
    return column


def config_of(quantity: Quantity) -> str:
    """Returns the configuration's key of a hyperparameter as it was drawn."""
    return quantity.column.removeprefix(DRAWN)
