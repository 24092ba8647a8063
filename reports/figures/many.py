"""What tuning many hyperparameters costs: loss at a fixed budget, and time to a target, against how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from reports import style
from reports.estimates import NONE_TRAINED, About, about
from reports.looks import DASHES, GREY, MARKERS, OURS, PALETTES, Method, assigned
from reports.plain_steps import in_seconds, seconds_per_step
from reports.selection import ONLINE, NoData, comparable, require_finite, require_own_seconds, untrained
from reports.statistics import median_of
from reports.tables import Tables
from reports.targets import Target, lowest_target, reached_by, textbook, upper_median
from reports.untested import is_untested
from reports.words import amount_text, budget_unit, decimal, listed, loss_text, medians_over, plural

QUESTION = "What does it cost to tune many hyperparameters instead of two?"
METHOD = (
    "Methods tune the learning rate and the L2 coefficient of more and more sets of tensors, up to one of each tensor. "
    "Searches try values of the same sets, drawn from the same laws, and all have the same time. The target is the "
    "validation loss, median of the selected models, of the search that ends lowest; a run reaches it when its "
    "selected model is as good for good. A model-based search of fewer trials than three times its random starts has "
    "hardly used its model, and is marked as not tested."
)
TUNED = ("lr", "weight_decay")
SET_METHODS = {"oho-global": "OHO", "oho-layerwise": "OHO", "oho-full": "OHO", "oho-averaged": "Averaged OHO"}
"""Methods of which a line has all numbers of sets, and the line's name."""
PLAIN: dict[str, Any] = {"color": "#666666", "lw": 0.8, "ls": DASHES[2]}
"""The line of the best textbook training."""
OF_SETS = {"OHO, exact": OURS, "OHO, collapsed": PALETTES[ONLINE][0], "Averaged OHO, exact": PALETTES[ONLINE][5]}
"""The colours of lines of SET_METHODS; Averaged OHO has that of all figures."""
SHADES = ("#0072B2", "#009E73", "#7A6A00", "#AA4499")
"""Of searches, in the order of their names."""


@dataclass(frozen=True)
class Estimates:
    """`runs` has a row for each run with the number of values it tunes, its loss and its time to the target, infinite for a
    miss; `summary` one for each kind of method and number.  `plain` is what the best textbook training ends at, on test.
    """

    runs: pd.DataFrame
    summary: pd.DataFrame
    target: Target
    plain: Target | None
    about: About
    unit: str
    seconds_per_step: float | None

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure, a row for each run."""
        return self.runs


def estimate(tables: Tables) -> Estimates:
    """Returns losses and times to the target by kind of method and number of values tuned."""
    runs = comparable(tables.runs)
    require_own_seconds(runs)
    runs = runs.assign(values=_values(runs, tables.evaluations), kind=_kinds(tables, runs))
    tuning = runs[runs["kind"].notna() & (runs["values"] > 0)]
    searches = tuning[tuning["family"] == "search"]
    target = lowest_target(searches)
    if tuning["values"].nunique() < 2 or target is None:
        raise NoData("This figure needs OHO and searches with two or more numbers of values to tune, so it is not drawn.")
    require_finite(tuning["incumbent_test_loss"])
    incumbents, per_step = dict(iter(tables.incumbents.groupby("run"))), seconds_per_step(runs)
    places = [reached_by(incumbents.get(run), target.loss) for run in tuning["run"]]
    tuning = tuning.assign(
        used=[np.inf if place is None else float(place["used"]) for place in places],
        test_loss=tuning["incumbent_test_loss"],
    )
    summary = pd.DataFrame([_row(key, own) for key, own in tuning.groupby(["kind", "values"], sort=True)])
    names = ["run", "seed", "label", "kind", "family", "values", "trials", "test_loss", "used", "selected_step", "status"]
    return Estimates(tuning[names], summary, target, _plain(textbook(runs)), about(runs), runs["unit"].iloc[0], per_step)


def _plain(given: pd.DataFrame) -> Target | None:
    """Returns the best textbook training with the test loss it ends at; None where there is none with a finite one."""
    best = lowest_target(given)
    if best is None:
        return None
    loss = upper_median(given.loc[given["label"] == best.label, "incumbent_test_loss"])
    return best._replace(loss=loss) if np.isfinite(loss) else None


def _values(runs: pd.DataFrame, evaluations: pd.DataFrame) -> pd.Series:
    """Returns how many values each run tunes, counted from its last record: of each hyperparameter, one a set."""
    last = evaluations.drop_duplicates("run", keep="last").set_index("run")
    sizes = {name: runs["run"].map(last[f"hyper_{name}"].map(np.size)) for name in TUNED if f"hyper_{name}" in last}
    return pd.Series(
        [sum(size[place] for name, size in sizes.items() if _is_tuned(runs.loc[place, "options"], name))
         for place in runs.index],
        index=runs.index,
    )  # fmt: skip


def _is_tuned(options: dict[str, Any], name: str) -> bool:
    if options.get("family") == ONLINE:
        return name in options.get("tune", TUNED)
    return (options.get("over") or {name: 0.0}).get(name) is None


def _kinds(tables: Tables, runs: pd.DataFrame) -> list[str | None]:
    """Returns what the line of each run is called; None of a method that is in none."""
    searches = {method.label: method.kind for method in tables.methods if method.over_label is not None}
    return [_kind(run, searches) for run in runs.itertuples()]


def _kind(run: Any, searches: Mapping[str, str]) -> str | None:
    if run.family == "search":
        return searches[run.method_label]
    if run.method not in SET_METHODS:
        return str(run.method_label) if run.family == ONLINE else None
    return f"{SET_METHODS[run.method]}, {run.options.get('influence', 'exact')}"


def _row(key: tuple[str, int], own: pd.DataFrame) -> dict[str, Any]:
    loss, used = median_of(own["test_loss"]), median_of(own["used"])
    first = own.iloc[0]
    return {
        "kind": key[0], "values": key[1], "family": first["family"], "n": len(own), "median": loss.value, "low": loss.low,
        "high": loss.high, "used": used.value, "missed": int(np.isinf(own["used"]).sum()), "untrained": untrained(own),
        "trials": own["trials"].median(), "is_tested": not is_untested(own),
    }  # fmt: skip


def draw(estimates: Estimates) -> Figure:
    """Draws test loss, and time to the target, against the number of values, a line of medians for each kind of method."""
    figure, panels = style.panels(1, 2, height=2.7)
    kinds = _looks(estimates.summary)
    counts = sorted(estimates.summary["values"].unique())
    for place, (kind, (colour, marker, dashes)) in enumerate(kinds.items()):
        own = estimates.summary[estimates.summary["kind"] == kind].sort_values("values")
        runs = estimates.runs[estimates.runs["kind"] == kind]
        shift = 1 + 0.035 * (place - (len(kinds) - 1) / 2)
        is_tested = own["is_tested"].all()
        look = {"color": colour, "ls": dashes, "marker": marker, "ms": 5, "lw": 1.3, "mew": 0.7,
                "mec": "white" if is_tested else colour, "mfc": colour if is_tested else "white"}  # fmt: skip
        for axes, column, middle in zip(panels, ("test_loss", "used"), ("median", "used"), strict=True):
            axes.plot(shift * runs["values"], runs[column].replace(np.inf, np.nan), ls="none", marker="o", ms=2.4, mew=0,
                      color=colour, alpha=0.5)  # fmt: skip
            axes.plot(shift * own["values"], own[middle].replace(np.inf, np.nan), zorder=3, **look)
    _finish_losses(panels[0], estimates)
    _finish_times(panels[1], estimates, kinds)
    for axes in panels:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(counts))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(decimal)
        axes.set_xlabel("Hyperparameters tuned")
    names = [_named(estimates.summary, kind) for kind in kinds]
    handles = [Line2D([], [], color=colour, marker=marker, ls=dashes, ms=4) for colour, marker, dashes in kinds.values()]
    if estimates.plain is not None:
        handles.append(Line2D([], [], **PLAIN))
        names.append(f"{estimates.plain.label}, none tuned")
    style.legend_above(figure, handles, names, columns=3, size=6.5)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _looks(summary: pd.DataFrame) -> dict[str, tuple[str, str, Any]]:
    """Returns colour, marker and dashes of each kind: methods under test first, searches after them."""
    kinds = summary.drop_duplicates("kind")
    ours = list(kinds.loc[kinds["family"] == ONLINE, "kind"])
    others = list(kinds.loc[kinds["family"] != ONLINE, "kind"])
    looks: dict[str, tuple[str, str, Any]] = {}
    for place, kind in enumerate([*ours, *others]):
        number = ours.index(kind) if kind in ours else others.index(kind)
        if kind in ours:
            colour = OF_SETS.get(kind) or assigned([Method(kind, ONLINE)])[kind].colour
        else:
            colour = SHADES[number] if number < len(SHADES) else GREY
        looks[kind] = (colour, MARKERS[place % len(MARKERS)], DASHES[0] if kind in ours else DASHES[1 + number % 4])
    return looks


def _named(summary: pd.DataFrame, kind: str) -> str:
    own = summary[summary["kind"] == kind]
    return kind if own["is_tested"].all() else f"{kind} (not tested: {plural(int(own['trials'].min()), 'trial')})"


def _finish_losses(axes: Axes, estimates: Estimates) -> None:
    if estimates.plain is not None:
        axes.axhline(estimates.plain.loss, **PLAIN, zorder=1)
    style.log_scale(axes, "y")
    axes.set_title("A  With the whole budget", loc="left", pad=9)
    axes.set_ylabel(estimates.about.units.axis("Final test loss"))


def _finish_times(axes: Axes, estimates: Estimates, kinds: dict[str, tuple[str, str, Any]]) -> None:
    """Sets the scale of times, and draws open triangles at the edge where more than half of the runs miss the target."""
    used = estimates.runs["used"][np.isfinite(estimates.runs["used"])]
    if len(used):
        style.log_scale(axes, "y")
    for place, (kind, (colour, *_)) in enumerate(kinds.items()):
        own = estimates.summary[(estimates.summary["kind"] == kind) & np.isinf(estimates.summary["used"])]
        if len(own):
            shift = 1 + 0.035 * (place - (len(kinds) - 1) / 2)
            axes.plot(shift * own["values"], [1.0] * len(own), ls="none", marker="^", mfc="none", mec=colour, ms=5.5,
                      clip_on=False, transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set_title(f"B  To a validation loss of {loss_text(estimates.target.loss)}", loc="left", pad=9)
    note = in_seconds(estimates.seconds_per_step)
    size = "small" if note else None
    axes.set_ylabel(f"{budget_unit(estimates.unit).capitalize()}{note.replace('; ', chr(10))}", fontsize=size)


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    return (
        "The price of tuning more hyperparameters: the loss that the whole budget gives (A) and the time to a validation "
        f"loss of {loss_text(estimates.target.loss)} (B; an open triangle: more than half of the runs miss it). Lines are "
        f"{medians_over(estimates.summary['n'], 'run')}, small points runs, side by side in the legend's order. "
        f"{estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Tells for each kind of method how its loss changes from the fewest to the most values, and who meets the target."""
    if estimates.summary["untrained"].all():
        return [NONE_TRAINED]
    sentences, few, most = [], estimates.summary["values"].min(), estimates.summary["values"].max()
    parts, missed, times = [], [], []
    for kind, own in estimates.summary[estimates.summary["is_tested"]].groupby("kind", sort=False):
        own = own.sort_values("values")
        first, last = own.iloc[0], own.iloc[-1]
        if len(own) > 1:
            parts.append(f"from {loss_text(first['median'])} to {loss_text(last['median'])} with {kind} "
                         f"({first['values']} to {last['values']})")  # fmt: skip
        if last["values"] == most:
            if np.isinf(last["used"]):
                missed.append(str(kind))
            else:
                times.append(f"{kind} reaches it after {amount_text(last['used'])} {budget_unit(estimates.unit)}")
    if parts:
        sentences.append(f"From {few} to {plural(most, 'value')} tuned, the median test loss goes {listed(parts)}.")
    if times or missed:
        misses = [f"{listed(missed)} {'miss' if len(missed) > 1 else 'misses'} it"] if missed else []
        sentences.append(
            f"The target is a validation loss of {loss_text(estimates.target.loss)}, that of {_best(estimates)}: "
            f"with {most} values, {'; '.join([*times, *misses])} (medians)."
        )
    lost = [str(kind) for kind, own in estimates.summary.groupby("kind", sort=False) if not own["is_tested"].all()]
    if lost:
        sentences.append(f"Not tested: {listed(lost)}, for want of trials.")
    return sentences


def _best(estimates: Estimates) -> str:
    """Returns the name of the search that sets the target, as the figure's lines are called."""
    first = estimates.runs[estimates.runs["label"] == estimates.target.label].iloc[0]
    return f"{first['kind']} with {first['values']} values"


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns median loss, time to the target, and trials of each kind of method and number of values."""
    rows = [
        [row["kind"], str(row["values"]), loss_text(row["median"]),
         "missed" if np.isinf(row["used"]) else amount_text(row["used"]),
         "—" if row["family"] == ONLINE else f"{row['trials']:.0f}", "yes" if row["is_tested"] else "no"]
        for _, row in estimates.summary.iterrows()
    ]  # fmt: skip
    unit = budget_unit(estimates.unit)
    return [["Method", "Values", "Median test loss", f"{unit.capitalize()} to the target", "Trials", "Tested"], *rows]
