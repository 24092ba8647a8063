"""Norms of the influence as the records have them, for the figures about it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports.selection import NoData, measured, online, option
from reports.tables import Tables
from reports.words import HYPERPARAMETERS

PREFIX = "scalar_influence_norm_"


def norms(tables: Tables) -> pd.DataFrame:
    """Returns a row for each run, evaluation after the first and hyperparameter; `norm` is infinite where not finite.

    `start` and `meta_rate` are those that the configuration gives, NaN where it gives none.
    """
    runs = measured(tables.runs)
    runs = runs[online(runs)]
    columns = [f"{PREFIX}{name}" for name in HYPERPARAMETERS if f"{PREFIX}{name}" in tables.evaluations]
    runs = runs.assign(start=option(runs, "lr").astype(float), meta_rate=option(runs, "meta_rate").astype(float))
    wide = tables.evaluations.loc[tables.evaluations["step"] > 0, ["run", "step", "epoch", *columns]]
    data = wide.melt(id_vars=["run", "step", "epoch"], var_name="name", value_name="norm")
    data["name"] = data["name"].str.removeprefix(PREFIX)
    data = data.merge(runs[["run", "label", "method_label", "seed", "start", "meta_rate"]], on="run")
    if data.empty:
        raise NoData("No run of this figure has an influence, so it is not drawn.")
    return data.fillna({"norm": np.inf})
