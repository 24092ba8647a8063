"""Is the method under test better than each other one?  The one question that was asked beforehand, and its test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.clocks import unlike_clocks
from reports.comparisons import Comparison, compare, fewest_seeds, to_separate
from reports.estimates import NONE_TRAINED
from reports.selection import untrained, void
from reports.standings import under_test
from reports.statistics import median_of
from reports.tables import Tables
from reports.words import order_of, plural

COMPARED_IN = {"performance", "distribution"}
"""Figures whose experiments ask whether the method under test is better than the others.  No other question is tested."""


def asked(tables: Tables, runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Returns the experiments in which a comparison was asked for beforehand, by the figures they feed."""
    named = {manifest.experiment for manifest in tables.manifests if set(manifest.figures) & COMPARED_IN}
    groups = [(str(name), group) for name, group in runs.groupby("experiment", sort=True)]
    valid = [(name, group) for name, group in groups if not void(group) and not unlike_clocks(group)]
    groups = [(name, group) for name, group in valid if name in named]
    return [(name, group) for name, group in groups if under_test(group) and group["label"].nunique() > 1]


def comparison(experiment: str, group: pd.DataFrame) -> dict[str, Any]:
    """Compares the method under test with every other one, paired by seed.

    There are no rows where the seeds are too few to separate it from any, whatever their losses; `power` then says so.
    """
    trained = [label for label, runs in group.groupby("label") if not untrained(runs)]
    if not trained:
        return {"experiment": experiment, "reference": "", "rows": [], "power": NONE_TRAINED, "unit": ""}
    reference = under_test(group)
    losses = {
        str(label): dict(zip(runs["seed"], runs["incumbent_test_loss"], strict=True))
        for label, runs in group.groupby("label")
    }
    found = compare(losses, reference)
    if too_few := _too_few_seeds(found, reference):
        return {"experiment": experiment, "reference": reference, "rows": [], "power": too_few, "unit": ""}
    order = {str(label): order_of(runs) for label, runs in group.groupby("label")}
    able = group[group["label"].isin(trained)]
    medians = able.groupby("label")["incumbent_test_loss"].apply(lambda column: median_of(column).value).sort_values()
    rows = [
        [c.second, str(c.n), _signed(c.difference.value), f"{c.improvement:.2f}", f"{c.p:.2g}", f"{c.corrected:.2g}"]
        for c in sorted(found, key=lambda comparison: order[comparison.second])
    ]
    return {
        "experiment": experiment, "reference": reference, "rows": rows,
        "power": _power(losses, reference, [str(label) for label in medians.index]),
        "unit": group["units"].iloc[0].loss_unit,
    }  # fmt: skip


def _too_few_seeds(found: Sequence[Comparison], reference: str) -> str:
    """Returns the sentence in the place of a table in which no row could be significant; empty where one could."""
    seeds, needed = max((comparison.n for comparison in found), default=0), fewest_seeds(max(1, len(found)))
    if seeds >= needed:
        return ""
    others = "the other method" if len(found) == 1 else f"any of {len(found)} other methods"
    return (
        f"{plural(seeds, 'seed')} cannot separate {reference} from {others}, whatever the losses: after Holm's correction "
        f"no p below .05 can be attained with fewer than {needed}."
    )


def _signed(difference: float) -> str:
    return f"{difference:+.3g}".replace("-", "−") if np.isfinite(difference) else ("−∞" if difference < 0 else "∞")


def _power(losses: dict[str, dict[int, float]], reference: str, ordered: list[str]) -> str:
    """Says how many more seeds would separate the method under test from the lowest other one."""
    other = next((label for label in ordered if label != reference), None)
    if other is None or reference not in ordered:
        return ""
    more = to_separate(losses, reference, other)
    if more is None:
        return f"These runs do not show how many seeds would separate {reference} from {other}, the lowest of the others."
    if more == 0:
        return f"There are as many seeds as it takes to separate {reference} from {other}, the lowest of the others."
    return (
        f"If differences go on as they are, about {plural(more, 'more seed')} would separate {reference} from {other}, the"
        " lowest of the others, with a probability of 80 %."
    )
