"""Whether the seconds of runs can be compared: by which engine steps were made, on which devices, and how fast these were.

An outcome names its node (a machine), its device, the device's driver, and the time of a fixed piece of work before and
after the run, its calibration.  Runs on one device of one node always compare.  Two nodes are alike if device and driver
have the same names and their quickest calibrations differ by less than a factor.  Runs of older versions, which name no
node, are not judged.

An outcome also names the engine (`eager` where an older version names none) and, on a GPU, PyTorch's settings of precision.
Both must be the same: they change the seconds of a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from bench.records.schema import TIMED
from reports.selection import MEASURED
from reports.words import listed, plural

LARGEST_FACTOR = 1.5
"""What one machine explains: over 356 undisturbed timed runs on two shared cores, the calibrations of one node were at most
1.36 times the quickest; the quickest of five or more runs differed by 4 % between sittings."""
LONGEST_NAME = 60
HOW = {"engines": "were made by", "devices": "took place on", "settings of precision": "were made with"}
"""The predicate that goes with each kind of what is unlike."""


class Unlike(NamedTuple):
    """What runs differ in whose seconds would be compared, such as "devices", and how many runs have each."""

    kind: str
    members: str

    @property
    def said(self) -> str:
        """The predicate of a sentence about the runs."""
        return f"{HOW[self.kind]} unlike {self.kind} ({self.members})"


def unlike_clocks(runs: pd.DataFrame, *, in_seconds: bool = False) -> Unlike | None:
    """Returns in what runs are unlike whose seconds would be compared; None where they all compare.

    Only budgets of time count or, with `in_seconds`, all, since seconds are shown.  Budgets of plain steps are the
    device's own, and compare on any of them; but a step costs another number of them with another engine.  Runs of
    different tasks are not compared with each other.
    """
    known = runs[runs["status"].isin(MEASURED)].drop_duplicates("run")
    known = known[in_seconds | known["unit"].isin(TIMED)]
    for _, group in known.groupby("task_id", sort=False):
        for kind, members in _kinds(group):
            if len(members) > 1:
                return Unlike(kind, listed(members))
    return None


def mixed_experiments(runs: pd.DataFrame) -> list[str]:
    """Returns a sentence for each experiment under a budget of time whose runs have seconds that cannot be compared."""
    return [
        f"Experiment {experiment} gave no equal budgets: its runs {unlike.said}."
        for experiment, group in runs.groupby("experiment", sort=True)
        if (unlike := unlike_clocks(group))
    ]


def _kinds(runs: pd.DataFrame) -> Iterator[tuple[str, list[str]]]:
    """Yields what runs of one task must have in common, with a text for each group of runs that have."""
    yield "engines", _groups(runs, "engine")
    own = runs[runs["node"].notna() & (runs["unit"] != "plain_steps")]
    yield "devices", _devices(own)
    yield "settings of precision", _groups(own[own["device"] == "cuda"], "numerics")


def _groups(runs: pd.DataFrame, column: str) -> list[str]:
    return [f"{plural(len(same), 'run')} with {value}" for value, same in runs.groupby(column, sort=True)]


def _devices(runs: pd.DataFrame) -> list[str]:
    """Returns a text for each group of runs on like devices."""
    texts = []
    runs = runs.assign(driver=_drivers(runs), device_name=runs["device_name"].fillna("an unknown device"))
    for (name, driver), same in runs.groupby(["device_name", "driver"]):
        speeds = _speeds(same.groupby("node")["calibration_seconds"].min())
        for milliseconds, nodes in speeds:
            count = int(same["node"].isin(nodes).sum())
            version = f", driver {driver}" if driver else ""
            speed = f", calibrated at {milliseconds:.3g} ms" if len(speeds) > 1 else ""
            texts.append(f"{plural(count, 'run')} on {name[:LONGEST_NAME]}{version[:LONGEST_NAME]}{speed}")
    return texts


def _drivers(runs: pd.DataFrame) -> pd.Series:
    """Returns the runs' drivers; where the system did not say, that of the node's or the device's other runs, if any."""
    drivers = runs["driver"].astype(object)
    for keys in (["device_name", "node"], ["device_name"]):
        drivers = drivers.fillna(runs.assign(driver=drivers).groupby(keys, dropna=False)["driver"].transform("first"))
    return drivers.fillna("")


def _speeds(quickest: pd.Series) -> list[tuple[float, list[str]]]:
    """Returns groups of nodes of one speed, the fastest first, each with its quickest calibration in milliseconds.

    Nodes without a calibration are with the fastest.
    """
    ordered = quickest.fillna(quickest.min()).sort_values(kind="stable")
    groups: list[tuple[float, list[str]]] = []
    for node, seconds in ordered.items():
        if not groups or 1000 * seconds > LARGEST_FACTOR * groups[-1][0]:
            groups.append((1000 * seconds, []))
        groups[-1][1].append(str(node))
    return groups
