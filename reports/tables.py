"""Results folder -> tidy tables.  Nothing is drawn or estimated here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records import Manifest, Outcome, ReportError
from bench.records.frames import read_frames
from reports.looks import Method, in_order
from reports.names import Names, with_shown_names
from reports.units import Units


@dataclass(frozen=True)
class Tables:
    """All of a results folder.

    runs: one row per planned run of each experiment, with `status` ("missing" and "not finished" included); the columns
        are those of `bench.results`, and `options`, `events`, `units` (a `Units`) and `place`, which orders methods.
        Here and below, seconds that a run shared with others are NaN: nothing can be compared with them.
    evaluations: one row per evaluation record, keyed by `run`; times in counted seconds, losses in the task's unit;
        `hyper_*` one value or a list with one a set, `scalar_*` what the method finds worth plotting.
    incumbents: one row per selected model, keyed by `run`, with when and where it was found and its losses.
    trials: one row per trial of a search, keyed by `run`.
    methods: every method of the folder, in the order of `place`.
    specs, outcomes: by run.
    environments: those of all processes that worked on a run.
    names: what the names stand for; those of `runs`, methods' labels among them, are short enough for a figure.
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    incumbents: pd.DataFrame
    trials: pd.DataFrame
    methods: tuple[Method, ...]
    specs: Mapping[str, Mapping[str, Any]]
    outcomes: Mapping[str, Outcome]
    manifests: tuple[Manifest, ...]
    environments: tuple[Mapping[str, Any], ...]
    protocol: int
    names: Names

    def feeding(self, figure: str) -> list[str]:
        """Returns the experiments that feed a figure."""
        return [manifest.experiment for manifest in self.manifests if figure in manifest.figures]

    def of(self, experiments: Sequence[str]) -> Tables:
        """Returns the same tables with the runs of these experiments alone."""
        return replace(self, runs=self.runs[self.runs["experiment"].isin(experiments)])


def read_tables(root: Path) -> Tables:
    """Reads a results folder.  Raises `ReportError` where it holds no run, or runs of two protocol versions."""
    frames = read_frames(root)
    if not frames.outcomes:
        raise ReportError(f"{root}: no run has ended yet; there is nothing to report")
    protocols = {outcome.protocol for outcome in frames.outcomes.values()}
    if len(protocols) > 1:
        raise ReportError(f"{root}: runs of protocols {sorted(protocols)} cannot be compared; use one folder for each")
    runs, names, methods = named(frames.runs, frames.manifests)
    environments = tuple(each for outcome in frames.outcomes.values() for each in outcome.environments)
    shared = {identity for identity, outcome in frames.outcomes.items() if outcome.shared_by > 1}
    runs, evaluations, incumbents, trials = (
        _without_shared_seconds(table, shared) for table in (runs, frames.evaluations, frames.incumbents, frames.trials)
    )
    return Tables(
        runs, evaluations, incumbents, trials, methods, frames.specs, frames.outcomes,
        frames.manifests, environments, protocols.pop(), names,
    )  # fmt: skip


def named(runs: pd.DataFrame, manifests: Sequence[Manifest]) -> tuple[pd.DataFrame, Names, tuple[Method, ...]]:
    """Returns runs with the names that are shown, `units` and `place`; what names stand for; and all methods in order."""
    units = [Units(*values) for values in runs[list(Units._fields)].itertuples(index=False)]
    runs, names = with_shown_names(runs.assign(units=units))
    methods = in_order(names.with_kinds(_methods(runs, manifests)))
    places = {method.label: place for place, method in enumerate(methods)}
    return runs.assign(place=runs["method_label"].map(places)), names, methods


def _without_shared_seconds(table: pd.DataFrame, shared: Collection[str]) -> pd.DataFrame:
    names = [name for name in table if str(name).endswith("_seconds") or str(name).startswith("seconds_")]
    if not shared or not names:
        return table
    return table.assign(**{name: table[name].astype(float).mask(table["run"].isin(shared)) for name in names})


def _methods(runs: pd.DataFrame, manifests: Sequence[Manifest]) -> list[Method]:
    """Returns the methods in the order in which the experiments name them."""
    fed = {manifest.experiment: {manifest.experiment, *manifest.figures} for manifest in manifests}
    named = runs.dropna(subset=["method_label"]).drop_duplicates(["method_label", "experiment"])
    experiments = named.groupby("method_label")["experiment"].agg(list)
    named = named.drop_duplicates("method_label")
    columns = named[["method_label", "family", "over_label", "over_family"]].astype(object)
    known = columns.where(columns.notna(), None)
    return [
        Method(label, family, over_label, over_family, frozenset().union(*(fed[name] for name in experiments[label])))
        for label, family, over_label, over_family in known.itertuples(index=False, name=None)
    ]
