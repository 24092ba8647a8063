"""Figure 1 of the paper: the final test loss of every method over random initial hyperparameters."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import published, style
from reports.claims import Measured, Verdict, below
from reports.estimates import NONE_TRAINED, RunEstimates, about, lowest, untrained_sentences
from reports.looks import emphasised
from reports.selection import NoData, comparable, online, untrained
from reports.statistics import FEWEST_WITH_INTERVAL, interquartile_mean, median_of
from reports.strips import Strip, by_seed, draw_strips, room
from reports.tables import Tables
from reports.words import loss_text, plural, with_ends

QUESTION = "How much does the outcome of a training depend on where learning rate and L2 coefficient start?"
METHOD = (
    "Each method is run once for each seed from initial values drawn from the same space; methods of one seed share their "
    "draws. At the end of the budget the model with the lowest validation loss so far is taken to the test split."
)
OF_CLAIM = ("oho-global", "fixed", "step", "exponential", "cosine")
"""The methods that the paper's claim is about."""


def estimate(tables: Tables) -> RunEstimates:
    """Returns the final test loss of every measured run and, for each method, the median with its interval."""
    runs = comparable(tables.runs)
    selected = {"incumbent_test_loss": "test_loss", "incumbent_test_error": "test_error"}
    names = ["task", "method", "family", "label", "method_label", "place", "seed", "status", "selected_step"]
    data = runs[[*names, *selected]].rename(columns=selected)
    if not np.isfinite(data["test_loss"]).any():
        raise NoData("No run of this figure selected a model with a finite loss, so there is none to draw.")
    rows = []
    for label, group in data.groupby("label", sort=False):
        interval = median_of(group["test_loss"])
        finite = group["test_loss"].dropna()
        first = group.iloc[0]
        rows.append({
            "label": label, "method": first["method"], "method_label": first["method_label"],
            "family": first["family"], "place": first["place"],
            "n": len(group), "diverged": int((group["status"] == "diverged").sum()),
            "median": interval.value, "low": interval.low, "high": interval.high,
            "interquartile_mean": float(interquartile_mean(finite.to_numpy())) if len(finite) else float("nan"),
            "lowest": finite.min(), "highest": finite.max(),
            "median_error": group["test_error"].median(), "untrained": untrained(group),
            "published": _published(runs.loc[group.index[0]]),
            "is_papers": first["method"] in OF_CLAIM and published.has_training(runs.loc[group.index[0], "options"]),
        })  # fmt: skip
    summary = pd.DataFrame(rows).sort_values(["place", "label"], ignore_index=True)
    return RunEstimates(data, summary, about(runs))


def _published(run: pd.Series) -> float | None:
    if not published.has_task(run["task_options"], run["data"]) or not published.has_training(run["options"]):
        return None
    return published.DISTRIBUTION[run["task"]].get(run["method"])


def draw(estimates: RunEstimates) -> Figure:
    """Draws every run as a point, the lowest medians on top, over a band from the lowest to the highest published one."""
    summary = estimates.summary.sort_values(["median", "place", "label"])
    looks = emphasised(list(summary["label"]), list(summary["method_label"]), first=_first(summary))
    runs = dict(iter(estimates.runs.groupby("label")))
    strips = [Strip(label, by_seed(runs[label], "test_loss"), looks[label].colour) for label in summary["label"]]
    figure, axes = style.panels(1, 1, height=0.85 + room(len(strips)))
    draw_strips(axes, strips)
    for label, is_ours in zip(axes.get_yticklabels(), online(summary), strict=True):
        label.set_fontweight("bold" if is_ours else "normal")
    if summary["published"].notna().any():
        low, high = summary["published"].min(), summary["published"].max()
        axes.axvspan(low, high, color="#E4E4E4", lw=0, zorder=0)
        axes.annotate("published medians", (high, 1.0), (2, 1), xycoords=("data", "axes fraction"), va="bottom", ha="right",
                      textcoords="offset points", fontsize=6, color="#666666")  # fmt: skip
    axes.set_xlabel(estimates.about.units.axis("Final test loss"))
    style.stamp(figure, estimates.about.stamp)
    return figure


def _first(summary: pd.DataFrame) -> list[str]:
    """Returns the methods that have a colour first: the best of the others, then those under test."""
    is_ours = online(summary)
    return [*summary.loc[~is_ours, "label"].head(1), *summary.loc[is_ours, "label"]]


def caption(estimates: RunEstimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    seeds = estimates.summary["n"]
    runs = plural(seeds.max(), "run") if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()} runs"
    count = int(estimates.summary["diverged"].sum())
    diverged = f" Of {plural(count, 'diverged run')}, what was selected before is shown." if count else ""
    return (
        f"Final test loss of {runs} a method, each a point; thin lines join the runs of a seed, bars are medians; in bold, "
        f"OHO.{diverged} {estimates.about.setting}"
    )


def findings(estimates: RunEstimates) -> list[str]:
    """Compares the best OHO method with the best of the others, and tells how much the start matters."""
    summary = estimates.summary
    is_ours = online(summary)
    ours, best = lowest(summary[is_ours]), lowest(summary[~is_ours])
    if summary["untrained"].all():
        return [NONE_TRAINED]
    sentences = []
    if ours is not None and best is not None:
        order = "less than" if ours["median"] < best["median"] else "no less than"
        sentences.append(
            f"{_subject(ours['label'], int(is_ours.sum()))} ends at a median test loss of {_told(ours)}, {order} "
            f"{best['label']}, the best of the others, with {_told(best)}{_intervals(ours, best)}."
        )
    sentences += untrained_sentences(list(summary.loc[summary["untrained"], "label"]))
    spread = summary[~summary["untrained"] & np.isfinite(summary["median"])]
    spread = spread.assign(ratio=spread["highest"] / spread["lowest"]).dropna(subset="ratio").sort_values("ratio")
    if len(spread) > 1 and summary["n"].min() > 1:
        least, most = spread.iloc[0], spread.iloc[-1]
        sentences.append(
            f"From its best to its worst start the loss changes by a factor of {least['ratio']:.2g} with {least['label']} "
            f"(median {loss_text(least['median'])}) and {most['ratio']:.2g} with {most['label']} "
            f"({loss_text(most['median'])})."
        )
    if summary["published"].isna().all():
        sentences.append("The paper has no values for these methods on this task.")
    return sentences


def published_rows(estimates: RunEstimates) -> list[list[str]]:
    """Returns a table's header and rows, ours beside the published medians; none where the paper has no values."""
    known = estimates.summary[estimates.summary["published"].notna()]
    rows = [[row.label, loss_text(row.median), f"{row.published:g}"] for row in known.itertuples()]
    return [["Method", "Median test loss", "Published median"], *rows] if rows else []


def _subject(label: str, count: int) -> str:
    """Says where the method is the best of several: it was picked after the fact, and its median flatters it."""
    if count == 1:
        return label
    return f"The best of {count} OHO methods, {label},"


def _told(row: pd.Series) -> str:
    return with_ends(row["median"], row["low"], row["high"], row["n"])


def _intervals(ours: pd.Series, best: pd.Series) -> str:
    """Says whether two intervals overlap; of few runs there are ranges, from which nothing follows."""
    if min(ours["n"], best["n"]) < FEWEST_WITH_INTERVAL:
        return f"; fewer than {FEWEST_WITH_INTERVAL} runs have no interval, so that nothing follows from it"
    overlap = ours["high"] >= best["low"] and best["high"] >= ours["low"]
    return f"; the 95 % intervals {'overlap' if overlap else 'do not overlap'}"


def verdicts(estimates: RunEstimates) -> list[Verdict]:
    """Decides whether Global OHO ends lower than the paper's trainings from random starts, and depends less on them."""
    summary = estimates.summary[estimates.summary["is_papers"]]
    is_own = summary["method"] == OF_CLAIM[0]
    missing = "Global OHO, or a training of the paper's, was"
    found = []
    for measured in (_loss, partial(_factor, estimates.runs)):
        ours = [measured(row) for _, row in summary[is_own].iterrows()]
        others = [measured(row) for _, row in summary[~is_own].iterrows()]
        found.append(below(ours[0] if ours else None, others, missing=missing))
    lower, closer = found
    return [lower, closer._replace(evidence=f"factors by which runs are off their median: {closer.evidence}")]


def _loss(row: pd.Series) -> Measured:
    return Measured.of(row["label"], row)


def _factor(runs: pd.DataFrame, row: pd.Series) -> Measured:
    """Returns the median factor by which a method's runs are off their median, infinite of a run that lost its model."""
    losses = runs.loc[runs["label"] == row["label"], "test_loss"].fillna(np.inf)
    with np.errstate(invalid="ignore"):
        apart = np.exp(np.abs(np.log(losses) - np.log(row["median"])))
    return Measured(row["label"], len(losses), *median_of(apart))
