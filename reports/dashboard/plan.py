"""Tables -> dashboards: which sections an experiment has, and which panels are in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.colors import to_hex, to_rgb

from bench.records import ReportError
from bench.records.wandb_names import AXES, MOST_SINGLE_SETS
from reports.dashboard.panels import Bars, Dashboard, Group, Lines, Panel, Points, Quantity, Section
from reports.dashboard.summaries import best_by_budget, recommendation, troubles
from reports.looks import Method, assigned
from reports.names import Names
from reports.selection import MEASURED
from reports.tables import Tables
from reports.words import HYPERPARAMETERS, budget_unit, hyperparameter, stamp

SELECTED = Quantity("incumbent_test_loss", "test loss of the selected model")
LOSSES = (
    SELECTED, Quantity("incumbent_validation_loss", "validation loss of the selected model"),
    Quantity("train_loss", "training loss"),
)  # fmt: skip
LAST = Quantity("test_loss", "test loss of the last model")
ACCOUNT, HYPER, INFLUENCE, SKIPPED, DRAWN = (
    "seconds_", "hyper_", "scalar_influence_norm_", "scalar_skipped_", "drawn_",
)  # fmt: skip
PALEST = 0.75
"""The part of white in the tint of a method's last shock, almost."""


def dashboards(tables: Tables) -> list[Dashboard]:
    """Returns a dashboard for each experiment and, where it has several tasks, each task, whose losses share no axis.

    Raises `ReportError` where no run has been measured.
    """
    runs = coloured(tables.runs, tables.names, tables.methods)
    found = []
    for manifest in tables.manifests:
        own = runs[(runs["experiment"] == manifest.experiment) & runs["label"].notna()]
        tasks = list(own["task"].unique())
        for task in tasks:
            chosen = own[own["task"] == task].sort_values(["place", "label"], kind="stable")
            if chosen["status"].isin(MEASURED).any():
                title = f"{manifest.experiment}, {task}" if len(tasks) > 1 else manifest.experiment
                found.append(_dashboard(title, chosen, tables))
    if not found:
        raise ReportError("no run has been measured yet; there is nothing to show")
    return found


def _dashboard(title: str, runs: pd.DataFrame, tables: Tables) -> Dashboard:
    evaluations = tables.evaluations[tables.evaluations["run"].isin(runs["run"])]
    runs = _with_drawn(runs, evaluations)
    measured = runs[runs["status"].isin(MEASURED)]
    incumbents = tables.incumbents[tables.incumbents["run"].isin(measured["run"])]
    axes = _axes(measured)
    sections = (
        Section("Overview", (
            recommendation(runs, list(runs["label"].unique())), best_by_budget(runs, incumbents),
            _metric(measured),
        )),
        Section("Any time", tuple(_any_time(axes)), "anytime"),
        Section("Distributions", tuple(_distributions(measured)), "distribution"),
        Section("Hyperparameters", tuple(hyperparameter_lines(evaluations, axes[0])), "convergence"),
        Section("Resiliency", tuple(_resiliency(measured, axes[0])), "resiliency"),
        Section("Influence", tuple(_influence(evaluations, axes[0])), "tangents"),
        Section("Cost", tuple(_cost(measured))),
        Section("Runs that failed or were disturbed", tuple(filter(None, [troubles(runs)]))),
    )  # fmt: skip
    return Dashboard(
        title, runs["experiment"].iloc[0], runs["task"].iloc[0], _capital(stamp(measured)), groups_of(runs),
        tuple(section for section in sections if section.panels), runs, evaluations,
    )  # fmt: skip


def coloured(runs: pd.DataFrame, names: Names, methods: Sequence[Method]) -> pd.DataFrame:
    """Returns runs with whole names, and `colour`, that of their methods in our figures."""
    looks = assigned(methods)
    colours = runs["method_label"].map(lambda label: looks[label].colour, na_action="ignore")
    return names.restored(runs).assign(colour=colours)


def groups_of(runs: pd.DataFrame) -> tuple[Group, ...]:
    """Returns the groups in order: a method without a shock has its colour, with shocks tints of that."""
    found = []
    for _, own in runs.drop_duplicates("label").groupby("method_label", sort=False):
        shocks = sorted(own["shock"].unique())
        for label, family, colour, shock in own[["label", "family", "colour", "shock"]].itertuples(index=False, name=None):
            tint = PALEST * shocks.index(shock) / len(shocks)
            found.append(Group(label, family, _tinted(colour, tint)))
    return tuple(found)


def _tinted(colour: str, tint: float) -> str:
    """Returns a colour mixed with white."""
    red, green, blue = (part + tint * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue)).upper()


def _metric(runs: pd.DataFrame) -> Panel:
    """Returns the panel of the task's metric."""
    units = runs["units"].iloc[0]
    title = f"test {units.metric} of the selected model"
    return Bars(_capital(title), (Quantity("incumbent_test_error", title),), f"{title} ({units.metric_unit})")


def _with_drawn(runs: pd.DataFrame, evaluations: pd.DataFrame) -> pd.DataFrame:
    """Adds a run's hyperparameters, of several sets those of the first, at its first evaluation; a search draws many."""
    columns = [name for name in evaluations if str(name).startswith(HYPER)]
    first = evaluations.drop_duplicates("run").set_index("run")[columns]
    single = runs["over"].isna()
    for name in columns:
        numbers = first[name].map(lambda value: value[0] if isinstance(value, list) else value)
        runs = runs.assign(**{f"{DRAWN}{name.removeprefix(HYPER)}": runs["run"].map(numbers).where(single)})
    return runs


def _axes(runs: pd.DataFrame) -> list[Quantity]:
    """Returns what lines are drawn against: what the budget is measured in, and counted seconds that are each run's own."""
    units = [*dict.fromkeys(runs["unit"]), *([] if (runs["shared_by"] > 1).any() else ["seconds"])]
    return [Quantity(AXES[unit], budget_unit(unit).removesuffix("s") + "s") for unit in dict.fromkeys(units)]


def _any_time(axes: list[Quantity]) -> Iterator[Panel]:
    for axis in axes:
        yield Lines(f"Test loss of the selected model against {axis.title}", axis, (SELECTED,))
    for quantity in LOSSES[1:]:
        yield Lines(_capital(quantity.title), axes[0], (quantity,))


def _distributions(runs: pd.DataFrame) -> Iterator[Panel]:
    """Yields panels where a method has several runs: with one run, there is no distribution."""
    if runs.groupby("label").size().max() < 2:
        return
    yield Bars("Spread of the selected model's test loss", (SELECTED,), SELECTED.title)
    for name in _ordered(str(column).removeprefix(DRAWN) for column in runs if str(column).startswith(DRAWN)):
        if runs[f"{DRAWN}{name}"].nunique() > 1:
            drawn = Quantity(f"{DRAWN}{name}", f"initial {hyperparameter(name)}")
            yield Points(f"Test loss against the initial {hyperparameter(name)}", drawn, SELECTED)


def hyperparameter_lines(evaluations: pd.DataFrame, axis: Quantity) -> Iterator[Lines]:
    """Yields the panels of hyperparameters that the evaluations have: of a single value, by set, of many sets."""
    for name in _ordered(str(column).removeprefix(HYPER) for column in evaluations if str(column).startswith(HYPER)):
        column, title = evaluations[f"{HYPER}{name}"], hyperparameter(name)
        if column.map(lambda value: isinstance(value, float | int) and value == value).any():
            yield Lines(_capital(title), axis, (Quantity(f"{HYPER}{name}", title),))
        yield from _sets(name, axis, column.map(lambda value: len(value) if isinstance(value, list) else 0))


def _sets(name: str, axis: Quantity, counts: pd.Series) -> Iterator[Lines]:
    """Yields a panel with a line for each set and, for methods with more sets than W&B has metrics, one of medians."""
    column, title = f"{HYPER}{name}", hyperparameter(name)
    few = max((int(count) for count in counts if count <= MOST_SINGLE_SETS), default=0)
    if few > 1:
        y = tuple(Quantity(column, f"{title}, set {part}", part) for part in range(few))
        yield Lines(f"{_capital(title)} by set", axis, y)
    if (counts > MOST_SINGLE_SETS).any():
        median = Quantity(column, f"median {title} of all sets", "median")
        yield Lines(f"{_capital(title)}, median of more than {MOST_SINGLE_SETS} sets", axis, (median,))


def _ordered(names: Iterator[str]) -> list[str]:
    """Returns names of hyperparameters, the best known first."""
    known = list(HYPERPARAMETERS)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _resiliency(runs: pd.DataFrame, axis: Quantity) -> Iterator[Panel]:
    if (runs["shock"] != "").any():
        yield Lines("Test loss of the last model, with and without shocks", axis, (LAST,))
        yield Bars("Where runs end, with and without shocks", (LAST,), LAST.title)


def _influence(evaluations: pd.DataFrame, axis: Quantity) -> Iterator[Panel]:
    for column in evaluations:
        if str(column).startswith(INFLUENCE) and evaluations[column].notna().any():
            title = f"norm of the influence of the {hyperparameter(str(column).removeprefix(INFLUENCE))}"
            yield Lines(_capital(title), axis, (Quantity(str(column), title),))
    for column in evaluations:
        if str(column).startswith(SKIPPED) and evaluations[column].max() > 0:
            title = f"meta-steps skipped: {str(column).removeprefix(SKIPPED).replace('_', ' ')}"
            yield Lines(_capital(title), axis, (Quantity(str(column), title),), is_log=False)


def _cost(runs: pd.DataFrame) -> Iterator[Panel]:
    accounts = [name for name in runs if str(name).startswith(ACCOUNT) and runs[name].max() > 0]
    if accounts:
        quantities = tuple(Quantity(name, name.removeprefix(ACCOUNT)) for name in accounts)
        yield Bars("Seconds by account of the ledger", quantities, "seconds")
