"""How far the runs of a folder are: what is done, running and queued, and how long the rest takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.records import Manifest
from bench.records.durations import format_seconds
from bench.records.following import DAMAGED, QUEUED, RUNNING, FollowedRun
from bench.records.schema import Status
from reports.words import budget_unit, loss_text

HEADER = (
    "Experiment", "Done", "Running", "Queued", "Stopped", "Failed", "Damaged", "Counted time left", "Wall time left",
)  # fmt: skip
RUNNING_HEADER = ("Method", "Seed", "Used", "Best validation loss", "Run", "Last record")
UNKNOWN = "—"
OPEN = (RUNNING, QUEUED, DAMAGED, "not finished", Status.INTERRUPTED)
"""States of runs that the command makes or continues; one that failed is tried again by the next command alone."""


class Left(NamedTuple):
    """The counted seconds and the wall time that open runs still take; None where no run has said how long one takes."""

    counted: float | None
    wall: float | None


def progress(manifest: Manifest, runs: Mapping[str, FollowedRun]) -> dict[str, Any]:
    """Returns the row of an experiment, with the share of its runs that are done."""
    own = [runs[identity] for identity in dict.fromkeys(manifest.runs)]
    counts = Counter(str(run.state) for run in own)
    done = counts[Status.BUDGET_REACHED] + counts[Status.DIVERGED]
    diverged = f" ({counts[Status.DIVERGED]} diverged)" if counts[Status.DIVERGED] else ""
    stopped = counts["not finished"] + counts[Status.INTERRUPTED]
    left = time_left(own, manifest.config)
    cells = [manifest.experiment, f"{done} of {len(own)}{diverged}"]
    cells += [str(count) for count in (counts[RUNNING], counts[QUEUED], stopped, counts[Status.FAILED], counts[DAMAGED])]
    cells += [UNKNOWN if seconds is None else format_seconds(seconds) for seconds in left]
    return {"cells": cells, "share": done / len(own) if own else 0.0}


def time_left(runs: Sequence[FollowedRun], config: Mapping[str, Any]) -> Left:
    """Returns what the open runs of an experiment still take, at the rate of all its runs so far.

    Wall time is divided by the number of runs that are going on at once.
    """
    budget = next((run.spec["budget"] for run in runs if run.spec is not None), config.get("budget"))
    open_runs = [run for run in runs if run.state in OPEN]
    if not open_runs:
        return Left(0.0, 0.0)
    if not budget:
        return Left(None, None)
    left = sum(max(0.0, budget["amount"] - (_last(run, "used") if run.state != DAMAGED else 0.0)) for run in open_runs)
    used = sum(_last(run, "used") for run in runs)
    if not used:
        return Left(left if budget["unit"] == "seconds" else None, None)
    counted, wall = (left * sum(_last(run, name) for run in runs) / used for name in ("counted_seconds", "wall_seconds"))
    at_once = max(1, sum(run.state == RUNNING for run in runs))
    return Left(left if budget["unit"] == "seconds" else counted, wall / at_once)


def _last(run: FollowedRun, name: str) -> float:
    values = run.columns[name]
    return float(values[-1]) if values else 0.0


def running(runs: Iterable[FollowedRun], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns a row for each run that is going on, with the time of its last record."""
    return [{"cells": _cells(run, labels), "at": run.last_record} for run in runs if run.state == RUNNING]


def _cells(run: FollowedRun, labels: Mapping[str, str]) -> list[str]:
    if run.spec is None:
        return ["is being set up", UNKNOWN, UNKNOWN, UNKNOWN, run.folder.name]
    budget, best = run.spec["budget"], run.columns["incumbent_validation_loss"]
    return [
        labels.get(run.folder.name, ""), str(run.spec["seed"]),
        f"{_last(run, 'used'):.3g} of {budget['amount']:g} {budget_unit(budget['unit'])}",
        loss_text(best[-1]) if best and best[-1] is not None else UNKNOWN, run.folder.name,
    ]  # fmt: skip
