"""How many trials and how much counted time each run needs to reach a target, and the group its method stands in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports import published
from reports.estimates import About
from reports.selection import NoData, option, untrained
from reports.statistics import median_of
from reports.tables import Tables
from reports.targets import Target, lowest_target, reached_by, textbook, upper_median
from reports.untested import untested_labels

OTHERS = "Others"
"""The group of methods that are no searches of one kind."""
REFERENCE = "oho-global"
"""The method that the paper's figure is about."""
OWN, TEXTBOOK = "own", "textbook"


@dataclass(frozen=True)
class Estimates:
    """`runs` has a row for each run and target, with trials and seconds, infinite for a miss; `summary` one for each label
    and target.
    """

    runs: pd.DataFrame
    summary: pd.DataFrame
    targets: dict[str, Target]
    about: About
    ends: str = ""
    """Who ends outside of the space that searches draw from."""
    seconds_per_step: float | None = None
    """Counted seconds of a plain step, where the budget is in such steps: `seconds` are then those of that many steps."""

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.runs.drop(columns=["members"])

    @property
    def main(self) -> str:
        """The target that texts and order are about: that of Global OHO or, where it was not run, of textbook training."""
        return next(iter(self.targets))

    def of(self, target: str) -> pd.DataFrame:
        """Returns the rows of the summary that are of one target."""
        return self.summary[self.summary["target"] == target]


def targets_of(runs: pd.DataFrame) -> dict[str, Target]:
    """Returns what the runs are timed to, Global OHO's loss first.  Raises `NoData` where there is nothing to reach."""
    targets = {}
    reference = runs[runs["method"] == REFERENCE]
    own = upper_median(reference["incumbent_validation_loss"])
    if np.isfinite(own) and not untrained(reference):
        targets[OWN] = Target(own, str(reference["label"].iloc[0]))
    if best := lowest_target(textbook(runs).groupby("label").filter(lambda own: not untrained(own))):
        targets[TEXTBOOK] = best
    if not targets and len(reference) and untrained(reference):
        raise NoData("Most Global OHO runs return the untrained model, and set no target, so it is not drawn.")
    if not targets or runs["label"].nunique() < 2:
        raise NoData(
            "This figure needs a measured Global OHO run, or one of a training with nothing drawn or searched for, and "
            "another method, so it is not drawn."
        )
    return targets


def reached(tables: Tables, runs: pd.DataFrame, targets: Mapping[str, Target], per_step: float | None) -> pd.DataFrame:
    """Returns a row for each run and target, with trials and seconds; infinite for a miss."""
    incumbents = dict(iter(tables.incumbents.groupby("run")))
    members = option(runs, "members").astype(float)
    parts = []
    for name, target in targets.items():
        part = runs[["run", "method", "label", "method_label", "over", "over_label", "seed"]].assign(target=name)
        found = [_reach(incumbents.get(run), target.loss, per_step) for run in runs["run"]]
        part["trials"], part["seconds"] = zip(*found, strict=True)
        part["members"] = members
        begun = part[["trials", "members"]].min(axis=1)  # a population begins its members once
        part["trials"] = part["trials"].where(np.isinf(part["trials"]), begun)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def grouped(tables: Tables, runs: pd.DataFrame) -> pd.DataFrame:
    """Returns for each label its bar's name, the group it stands in, and what the paper reports of it.

    Searches of one kind over two or more methods are a group; the others stand together.
    """
    first = runs.drop_duplicates("label")
    kinds = {method.label: method.kind for method in tables.methods if method.over_label is not None}
    kind = first["method_label"].map(kinds).astype(object)
    grouped = kind.where(kind.map(kind.value_counts()) > 1)
    values = [_published(run) for _, run in first.iterrows()]
    return pd.DataFrame({
        "label": first["label"], "place": first["place"], "family": first["family"], "group": grouped.fillna(OTHERS),
        "bar": first["over_label"].where(grouped.notna(), first["label"]),
        "published_trials": [trials for trials, _ in values], "published_hours": [hours for _, hours in values],
        "is_papers_search": [published.has_search(options) for options in first["options"]],
        "untrained": first["label"].map({label: untrained(own) for label, own in runs.groupby("label")}),
        "untested": first["label"].isin(untested_labels(runs)),
    })  # fmt: skip


def _published(run: pd.Series) -> tuple[float, float]:
    if not published.has_task(run["task_options"], run["data"]) or not published.has_search(run["options"]):
        return np.nan, np.nan
    return published.PERFORMANCE[run["method"]].get(run["over"], (np.nan, np.nan))


def _reach(incumbents: pd.DataFrame | None, target: float, per_step: float | None) -> tuple[float, float]:
    """Returns trials and seconds; infinite where no model was selected, or none that is as good.

    Under a budget of plain steps, the seconds are those of the plain steps used, so that unlike machines share an axis.
    """
    row = reached_by(incumbents, target)
    if row is None:
        return np.inf, np.inf
    return row["trial"] + 1, row["counted_seconds"] if per_step is None else per_step * row["used"]


def summary_row(label: str, target: str, group: pd.DataFrame) -> dict[str, Any]:
    """Returns the medians of a method's runs to a target, with their intervals, and how many runs missed it."""
    trials, seconds = median_of(group["trials"]), median_of(group["seconds"])
    return {
        "target": target,
        "method": group["method"].iloc[0], "method_label": group["method_label"].iloc[0], "label": label,
        "n": len(group), "misses": int(np.isinf(group["seconds"]).sum()),
        "trials": trials.value, "trials_low": trials.low, "trials_high": trials.high,
        "seconds": seconds.value, "seconds_low": seconds.low, "seconds_high": seconds.high,
    }  # fmt: skip
