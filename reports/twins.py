"""Shocked runs beside their twins, the runs of the same method and seed that were spared: losses, band, recovery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reports import published
from reports.recovery import Recovery, band, recovery
from reports.selection import online


class Course(NamedTuple):
    """Validation losses (n,) of a run's present model at its epochs (n,)."""

    epochs: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, evaluations: pd.DataFrame) -> Course:
        """Reads a run's evaluations; of the two at a shock, the one after it counts."""
        last = evaluations.drop_duplicates("epoch", keep="last")
        return cls(last["epoch"].to_numpy(float), last["validation_loss"].to_numpy(float))

    def at(self, epochs: np.ndarray) -> np.ndarray:
        """Returns the losses at other epochs; NaN where the run had not begun or had ended."""
        return np.interp(epochs, self.epochs, self.losses, left=np.nan, right=np.nan)

    def since(self, epoch: float) -> np.ndarray:
        """Returns the epochs of its evaluations from one on."""
        return self.epochs[self.epochs >= epoch]


class Spared:
    """The unshocked runs that have task and budget in common: numbers and courses by method and seed."""

    def __init__(self, runs: dict[tuple[str, int], str], courses: dict[tuple[str, int], Course]):
        self.runs, self.courses = runs, courses
        self._epochs = np.unique(np.concatenate([course.epochs for course in courses.values()]) if courses else [])
        self._width = self._width_everywhere() if courses else np.empty(0)

    def width(self, epochs: np.ndarray) -> np.ndarray:
        """Returns the band's half-width at epochs at which one of the runs was evaluated."""
        return self._width[np.searchsorted(self._epochs, epochs)]

    def _width_everywhere(self) -> np.ndarray:
        methods = dict.fromkeys(method for method, _ in self.courses)
        return band([
            np.array([course.at(self._epochs) for (own, _), course in self.courses.items() if own == method])
            for method in methods
        ])  # fmt: skip


def beside_twins(runs: pd.DataFrame, evaluations: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Returns three tables: a row for each shocked run that has a twin; its losses over the twin's at each evaluation, with
    the band's half-width; and, by the same rule, a row for each pair of unshocked runs of a method.
    """
    runs = runs.assign(is_ours=online(runs))
    recorded = evaluations[evaluations["run"].isin(set(runs["run"]))]
    courses = {str(run): Course.of(own) for run, own in recorded.groupby("run")}
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    ratios: list[pd.DataFrame] = []
    for _, group in runs.groupby(["experiment", "task", "budget", "unit"], sort=False):
        spared = _spared(group, courses)
        shocked = [run for run in group[group["shock"] != ""].itertuples() if (run.method_label, run.seed) in spared.runs]
        for run in shocked:
            twin = spared.courses[run.method_label, run.seed]
            epochs = twin.since(run.epoch)
            losses, width = courses[run.run].at(epochs), spared.width(epochs)
            ratios.append(pd.DataFrame({
                "run": run.run, "shock": run.shock, "method_label": run.method_label, "epoch": epochs - run.epoch,
                "ratio": losses / twin.at(epochs), "width": width,
            }))  # fmt: skip
            found = recovery(losses, twin.at(epochs), epochs=epochs, shock=run.epoch, width=width)
            rows.append(_row(run, spared.runs[run.method_label, run.seed], found))
        if shocked:
            pairs += _pairs(spared, min(run.epoch for run in shocked))
    return pd.DataFrame(rows), pd.concat(ratios, ignore_index=True) if ratios else pd.DataFrame(), pd.DataFrame(pairs)


def _spared(group: pd.DataFrame, courses: Mapping[str, Course]) -> Spared:
    runs = {(run.method_label, run.seed): run.run for run in group[group["shock"] == ""].itertuples()}
    return Spared(runs, {key: courses[run] for key, run in runs.items()})


def _row(run: Any, twin: str, found: Recovery) -> dict[str, Any]:
    return {
        "run": run.run, "twin": twin, "method": run.method, "method_label": run.method_label, "seed": run.seed,
        "shock": run.shock, "epoch": run.epoch, "status": run.status, "epochs": found.epochs, "excess": found.excess,
        "place": run.place, "is_ours": run.is_ours, "task": run.task,
        "sets_rate": _sets_only(run.events, "lr"), "is_papers_shock": published.has_shock(run.events),
    }  # fmt: skip


def _sets_only(events: Sequence[dict[str, Any]], name: str) -> bool:
    return len(events) == 1 and set(events[0]) == {"epoch", "set"} and set(events[0]["set"]) == {name}


def _pairs(spared: Spared, shock: float) -> Iterator[dict[str, Any]]:
    """Yields how each unshocked run recovers, as if the run of another seed were its twin."""
    for (method, seed), (of, twin_seed) in permutations(spared.courses, 2):
        if method == of:
            course, twin = spared.courses[method, seed], spared.courses[of, twin_seed]
            epochs = twin.since(shock)
            found = recovery(
                course.at(epochs), twin.at(epochs), epochs=epochs, shock=shock, width=spared.width(epochs)
            )  # fmt: skip
            yield {"method_label": method, "seed": seed, "twin_seed": twin_seed, **found._asdict()}
