"""The charts of each experiment and task while it goes on; only what has changed is drawn again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.records import Manifest, Run
from bench.records.following import FollowedFolder, FollowedRun
from bench.records.labels import PlanLabels
from bench.records.run_columns import label_columns, run_row
from reports.dashboard.drawing import curve_of, line, lines_chart, log_axis
from reports.dashboard.panels import Group, Lines, Quantity
from reports.dashboard.plan import LOSSES, coloured, groups_of, hyperparameter_lines
from reports.page import chart_content
from reports.run_rows import rounded
from reports.tables import named

SECONDS = Quantity("counted_seconds", "counted seconds")
RATE = "hyper_lr"
COLUMNS = ("used", "counted_seconds", "wall_seconds", "incumbent_test_loss", "incumbent_validation_loss", RATE)
"""What is kept of each evaluation."""
ANY_TIME = tuple(
    Lines(f"{quantity.title.capitalize()} against {SECONDS.title}", SECONDS, (quantity,)) for quantity in LOSSES[:2]
)
_marks = itertools.count(1)


class Chart:
    """A panel that is drawn again as its runs go on; `mark` is another number after each change."""

    def __init__(self, panel: Lines, groups: Sequence[Group]):
        self.panel, self.mark = panel, 0
        self._groups = groups
        self._curves: dict[tuple[str, Quantity], tuple[int, np.ndarray]] = {}
        self._traces: dict[str, list[dict[str, Any]]] = {}
        self._drawn: dict[str, tuple[tuple[str, int], ...]] = {}
        self._layouts: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._content: dict[str, Any] = {}

    def content(self, runs: Mapping[str, Sequence[FollowedRun]]) -> dict[str, Any]:
        """Returns the chart of these runs, which are given by label."""
        has_changed = not self._content
        for group in self._groups:
            own = runs.get(group.label, ())
            state = tuple((run.folder.name, run.changes) for run in own)
            if self._drawn.get(group.label) != state:
                self._drawn[group.label] = state
                self._traces[group.label] = list(self._lines(group, own))
                has_changed = True
        if has_changed:
            self.mark = next(_marks)
            traces = [trace for group in self._groups for trace in self._traces[group.label]]
            axis = log_axis(value for trace in traces for value in trace["y"])
            self._content = {"data": traces, "layout": self._layout(axis)}
        return {"title": self.panel.title, "mark": self.mark, "chart": self._content}

    def _layout(self, axis: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the layout with that axis; the page has the title."""
        key = tuple(axis.items())
        if key not in self._layouts:
            layout = chart_content(lines_chart(self.panel, (), axis))["layout"]
            del layout["title"], layout["margin"]["t"]
            self._layouts[key] = {**layout, "uirevision": "kept"}
        return self._layouts[key]

    def _lines(self, group: Group, runs: Sequence[FollowedRun]) -> Iterator[dict[str, Any]]:
        for quantity in self.panel.y:
            for trace in line([self._curve(run, quantity) for run in runs], quantity, group):
                yield rounded(trace.to_plotly_json())

    def _curve(self, run: FollowedRun, quantity: Quantity) -> np.ndarray:
        """Returns a run's curve; that of a run without a result ends where the run is, and is not held."""
        key = run.folder.name, quantity
        changes, curve = self._curves.get(key, (-1, np.empty((0, 2))))
        if changes != run.changes:
            curve = curve_of(run.columns, self.panel.x, quantity)
            if len(curve) and not (run.outcome and run.outcome.status.is_result):
                curve = np.vstack([curve, [np.nextafter(curve[-1, 0], np.inf), np.nan]])
            self._curves[key] = run.changes, curve
        return curve


class View:
    """The runs of one experiment on one task, and their charts."""

    def __init__(self, title: str, groups: Sequence[Group], runs: Mapping[str, Sequence[FollowedRun]]):
        self.title, self.groups, self.runs = title, groups, runs
        self._charts: dict[Lines, Chart] = {}

    def charts(self) -> list[dict[str, Any]]:
        """Returns the charts that the runs have something for."""
        rates = [run.columns[RATE][-1] for own in self.runs.values() for run in own if run.columns[RATE]]
        table = pd.DataFrame({RATE: pd.Series(rates, dtype=object)})
        panels = [*ANY_TIME, *hyperparameter_lines(table, SECONDS)] if rates else []
        self._charts = {panel: self._charts.get(panel) or Chart(panel, self.groups) for panel in panels}
        return [chart.content(self.runs) for chart in self._charts.values()]


class Views:
    """The views of a folder.  `labels` has the label of each run, `families` the family of each label."""

    def __init__(self) -> None:
        self.views: list[View] = []
        self.labels: dict[str, str] = {}
        self.families: dict[str, str] = {}
        self._known: tuple[Any, ...] = ()
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}

    def look(self, folder: FollowedFolder) -> None:
        """Brings groups and labels up to date, where a run has begun or a plan has changed."""
        begun = tuple(identity for identity, run in folder.runs.items() if run.spec is not None)
        if (folder.manifests, begun) == self._known:
            return
        if self._known[:1] != (folder.manifests,):
            self._rows = {}
        self._known = folder.manifests, begun
        rows = [row for manifest in folder.manifests for row in self._rows_of(manifest, folder)]
        self.labels = {row["run"]: row["label"] for row in rows}
        self.families = {row["label"]: row["family"] for row in rows}
        before = {(view.title, view.groups): view for view in self.views}
        self.views = []
        for view in _views(rows, folder) if rows else ():
            known = before.get((view.title, view.groups), view)  # what it has drawn still holds
            known.runs = view.runs
            self.views.append(known)

    def _rows_of(self, manifest: Manifest, folder: FollowedFolder) -> Iterator[dict[str, Any]]:
        labels = PlanLabels(manifest.config)
        for identity in dict.fromkeys(manifest.runs):
            run, key = folder.runs[identity], (manifest.experiment, identity)
            if run.spec is not None and key not in self._rows:
                known = Run(identity, run.folder, labels.given_to(run.spec), (), None)
                self._rows[key] = {"experiment": manifest.experiment, "run": identity, "data": None, **run_row(known)}
            if key in self._rows:
                yield self._rows[key]


def _views(rows: Sequence[dict[str, Any]], folder: FollowedFolder) -> Iterator[View]:
    kinds: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in (*rows, *_planned(rows, folder.manifests)):
        kinds.setdefault((row["experiment"], row["task"], row["label"]), row)
    runs, names, methods = named(pd.DataFrame(kinds.values()), folder.manifests)
    shown = coloured(runs, names, methods)
    for experiment, own in shown.groupby("experiment", sort=False):
        tasks = list(own["task"].unique())
        for task in tasks:
            chosen = own[own["task"] == task].sort_values(["place", "label"], kind="stable")
            by_label: dict[str, list[FollowedRun]] = {}
            for row in rows:
                if (row["experiment"], row["task"]) == (experiment, task):
                    by_label.setdefault(row["label"], []).append(folder.runs[row["run"]])
            yield View(f"{experiment}, {task}" if len(tasks) > 1 else str(experiment), groups_of(chosen), by_label)


def _planned(rows: Sequence[dict[str, Any]], manifests: Sequence[Manifest]) -> Iterator[dict[str, Any]]:
    """Yields a row for each method and shock of the plans, so that nothing changes its place when its first run begins."""
    for manifest in manifests:
        first = next((row for row in rows if row["experiment"] == manifest.experiment), None)
        if first is None:
            continue
        methods, shocks = manifest.config.get("methods") or (), manifest.config.get("shocks") or ()
        for method, shock in itertools.product(methods, (None, *shocks)):
            yield {**first, **label_columns({"method": method, "shock": shock}), "method": method["name"]}
