"""How fast the machine was in each timed run, beside the other runs of its experiment.

A budget of time buys more steps where the machine is faster, and a shared machine changes its speed.  A budget of plain
steps does not make up for that: how long such a step takes is measured once, before the runs.  What is known of a run's
speed is its calibration (`reports.clocks`), the quicker of two times.  Over 162 trainings of 2 to 4 counted seconds on two
shared cores, runs with a longer calibration than their method's median made fewer steps: correlations of the logarithms are
-0.5 to -0.8, slopes -0.6 to -1.3.  The mean of both times says less.  Over 28 runs of 30 to 60 s it says little.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from bench.records.schema import TIMED
from reports.plain_steps import UNIT
from reports.selection import MEASURED
from reports.words import listed, percent

LARGEST = 0.1
"""How much faster or slower a machine a method's median run may have had than the experiment's, without a warning."""
SAID = "the machine's speed was unequal"
"""What stands below a figure with such methods, where it is shown without its caption."""
GROUPS = ["experiment", "task_id", "unit"]
"""What runs share that had the same budget."""
HOW = "by a fixed piece of work before and after each run"


def speeds(runs: pd.DataFrame) -> pd.Series:
    """Returns the speed of each run's machine over that of the median run with the same task and experiment.

    NaN stands where the budget is not one of time, and where there is no calibration.  Under a budget of plain steps, only
    what changed since a step was measured counts, so that a slower node's runs are beside each other alone.
    """
    is_plain = runs["unit"] == UNIT
    seconds = runs["calibration_seconds"].where(runs["unit"].isin(TIMED) & runs["status"].isin(MEASURED)).astype(float)
    seconds = seconds / runs["plain_step_seconds"].where(is_plain, 1.0).astype(float)
    nodes = runs["node"].where(is_plain, "").fillna("").rename("node")
    return seconds.groupby([*(runs[name] for name in GROUPS), nodes]).transform("median") / seconds


def unequal_speeds(runs: pd.DataFrame) -> str:
    """Returns how much faster or slower the machine was in timed runs, as a sentence; empty where that is not known."""
    found = (speeds(runs.drop_duplicates(["experiment", "run"])) - 1).dropna()
    if len(found) < 2:
        return ""
    return (
        f"A budget of time buys more steps where the machine is faster: {HOW}, it was {_than(found.min())} to "
        f"{_than(found.max())} than in the median run of an experiment, and within {percent(found.abs().median())} in half "
        "of the runs."
    )


def favoured(runs: pd.DataFrame) -> list[str]:
    """Returns sentences on methods whose median run had a faster or a slower machine than that of their experiment."""
    known = runs.assign(speed=speeds(runs) - 1).dropna(subset=["speed"])
    has_tasks = known["task_id"].nunique() > 1
    faster: list[tuple[float, str]] = []
    slower: list[tuple[float, str]] = []
    for (label, task, _), group in known.groupby(["label", "task", "task_id"], sort=True):
        median = group["speed"].median()
        if abs(median) > LARGEST:
            where = f" on {task}" if has_tasks else ""
            (faster if median > 0 else slower).append((-abs(median), f"{label}{where}"))
    return [
        *_sentence(faster, "faster", "their losses are too low"),
        *_sentence(slower, "slower", "their losses are too high"),
    ]


def _sentence(found: Iterable[tuple[float, str]], kind: str, so: str) -> list[str]:
    """Returns the sentence on methods, each with its difference, the largest first; none where there are none."""
    ordered = sorted(found)
    if not ordered:
        return []
    most, least = (percent(-difference) for difference, _ in (ordered[0], ordered[-1]))
    much = most if most == least else f"{least.removesuffix(' %')} to {most}"
    names = listed([name for _, name in ordered])
    return [f"Runs of {names} had a machine {much} {kind} than the median run's: {so}."]


def relative(group: pd.DataFrame) -> str:
    """Returns how much faster or slower the machine was in the median of runs with a `speed`: `+3 %`; `—` if unknown."""
    median = group["speed"].median() - 1
    return "—" if pd.isna(median) else f"{100 * median:+.0f} %".replace("-", "−").replace("+0", "0").replace("−0", "0")


def _than(difference: float) -> str:
    return f"{percent(abs(difference))} {'faster' if difference > 0 else 'slower'}"
