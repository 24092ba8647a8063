"""Norms of the influence as the records have them, for the figures about it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports.common import NoData, measured, option
from reports.tables import Tables

NORMS = {"lr": "learning rate", "weight_decay": "L2 coefficient"}
PREFIX = "scalar_influence_norm_"


def norms(tables: Tables, figure: str) -> pd.DataFrame:
    """A row for each run, evaluation after the first and hyperparameter; `norm` is infinite where it was not finite.

    `start` and `meta_rate` are those that the configuration gives, NaN where it gives none.
    """
    runs = measured(tables.of_figure(figure))
    columns = [f"{PREFIX}{name}" for name in NORMS if f"{PREFIX}{name}" in tables.evaluations]
    runs = runs.assign(start=option(runs, "lr").astype(float), meta_rate=option(runs, "meta_rate").astype(float))
    wide = tables.evaluations.loc[tables.evaluations["step"] > 0, ["run", "step", "epoch", *columns]]
    data = wide.melt(id_vars=["run", "step", "epoch"], var_name="name", value_name="norm")
    data["name"] = data["name"].str.removeprefix(PREFIX)
    data = data.merge(runs[["run", "label", "method", "seed", "start", "meta_rate"]], on="run")
    data = data[data["method"].str.startswith("oho")]
    if data.empty:
        raise NoData("No run of this figure has an influence, so it is not drawn.")
    return data.fillna({"norm": np.inf})
