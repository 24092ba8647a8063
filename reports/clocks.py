"""Whether the seconds of runs can be compared: on which devices they passed, and how fast these were.

An outcome names its node (a machine), its device, the device's driver, and the time of a fixed piece of work before and
after the run, its calibration.  Runs on one device of one node always compare.  Two nodes are alike if device and driver
have the same names and their quickest calibrations differ by less than a factor.  Runs of older versions, which name no
node, are not judged.
"""

from __future__ import annotations

import pandas as pd

from reports.selection import MEASURED
from reports.words import listed, plural

LARGEST_FACTOR = 1.5
"""What one machine explains: over 356 undisturbed timed runs on two shared cores, the calibrations of one node were at most
1.36 times the quickest; the quickest of five or more runs differed by 4 % between sittings."""
LONGEST_NAME = 60


def unlike_devices(runs: pd.DataFrame, *, in_seconds: bool = False) -> str:
    """Returns the devices whose seconds would be compared though they are unlike, with how many runs each has.

    Empty where there are none.  Only budgets of seconds count or, with `in_seconds`, all, since seconds are shown; budgets
    of plain steps are the device's own, and compare anywhere.  Runs of different tasks are not compared with each other.
    """
    known = runs[runs["status"].isin(MEASURED)].drop_duplicates("run")
    known = known[known["node"].notna() & ((known["unit"] == "seconds") | (in_seconds & (known["unit"] != "plain_steps")))]
    for _, group in known.groupby("task_id", sort=False):
        if len(devices := _devices(group)) > 1:
            return listed(devices)
    return ""


def mixed_experiments(runs: pd.DataFrame) -> list[str]:
    """Returns a sentence for each experiment under a budget of seconds whose runs took place on unlike devices."""
    return [
        f"Experiment {experiment} gave no equal budgets: its runs took place on unlike devices ({devices})."
        for experiment, group in runs.groupby("experiment", sort=True)
        if (devices := unlike_devices(group))
    ]


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
