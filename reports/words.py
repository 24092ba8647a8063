"""The words of captions and tables: budgets, tasks, devices, hyperparameters, numbers."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence

import pandas as pd

from bench.records.durations import plural, unit_name
from bench.records.schema import TIMED
from reports.statistics import FEWEST_WITH_INTERVAL

LONG_WORD, BREAK_AFTER = re.compile(r"\S{24,}"), 8
PLUGIN_COLON = re.compile(r"(?<=\w):(?=[A-Za-z_])")
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
INTERVALS = "95 % intervals"
LAST_PAGE = " (last page)"
"""Where the PDF names disturbed runs; the page, whose table of runs does, leaves it out."""
MOST_LISTED = 13
"""How many names a sentence has."""
HYPERPARAMETERS = {"lr": "learning rate", "weight_decay": "L2 coefficient"}


def hyperparameter(name: str) -> str:
    """Returns what a hyperparameter is called."""
    return HYPERPARAMETERS.get(name, name.replace("_", " "))


def task_names(runs: pd.DataFrame) -> str:
    """Returns the runs' tasks, each with what its data are called, where that is recorded."""
    pairs = runs[["task", "data"]].drop_duplicates().values
    return ", ".join(sorted(f"{task} on {data}" if isinstance(data, str) else task for task, data in pairs))


def differing_tasks(runs: pd.DataFrame) -> str:
    """Returns the names of the runs' tasks or, where they are the same, of the options in which these differ."""
    if len(runs[["task", "data"]].drop_duplicates()) > 1:
        return task_names(runs)
    tasks = list(runs.drop_duplicates("task_id")["task_options"])
    options = sorted(set().union(*tasks) - {"units"})
    differing = [name for name in options if any(task.get(name) != tasks[0].get(name) for task in tasks)]
    return f"{task_names(runs)} with different {listed(differing)}"


def setting(runs: pd.DataFrame, budget: str = "") -> str:
    """Returns how much each run had, as `budget` says it where that is given, and disturbed runs, for a caption.

    Task and space stand below every figure, and devices once in a report.
    """
    disturbed = disturbed_runs(runs)
    note = f" {disturbed.capitalize()}{LAST_PAGE}." if disturbed else ""
    return f"{budget or f'{budgets(runs)} a run.'}{note}"


def stamp(runs: pd.DataFrame, tasks: str = "") -> str:
    """Returns what a figure has to say of itself where it is shown without its caption.

    `tasks` names them with their budgets, where each has its own.
    """
    disturbed = disturbed_runs(runs)
    note = f"; {disturbed}" if disturbed else ""
    space = f"space “{spaces(runs)}”"
    return f"{tasks}; {space}{note}" if tasks else f"{task_names(runs)}; {space}; {budgets(runs)} a run{note}"


def disturbed_runs(runs: pd.DataFrame) -> str:
    """Returns in how many runs the clock was disturbed, and what that means where seconds are not the budget; empty where
    it was in none."""
    disturbed = runs[runs["disturbed_because"] != ""]
    if disturbed.empty:
        return ""
    count = f"in {disturbed['run'].nunique()} of {runs['run'].nunique()} runs the clock was disturbed"
    return count if disturbed["unit"].isin(TIMED).any() else f"{count}: losses are valid, seconds are not"


def budgets(runs: pd.DataFrame) -> str:
    """Returns the runs' budgets: `30, 60 or 80 epochs or 2 counted seconds`."""
    parts = []
    for unit, group in runs.groupby("unit"):
        *most, last = [f"{amount:g}" for amount in sorted(group["budget"].unique())]
        listed = f"{', '.join(most)} or {last}" if most else last
        units = budget_unit(str(unit)).removesuffix("s" if listed == "1" else "")
        parts.append(f"{listed} {units}{_in_seconds(group)}")
    return " or ".join(parts)


def _in_seconds(runs: pd.DataFrame) -> str:
    """Returns, in brackets, the counted seconds that budgets of plain steps were; empty for all other budgets."""
    if "plain_step_seconds" not in runs or (seconds := (runs["budget"] * runs["plain_step_seconds"]).dropna()).empty:
        return ""
    low, high = f"{seconds.min():.3g}", f"{seconds.max():.3g}"
    by_machine = ", by machine" if runs["budget"].nunique() == 1 else ""
    return f" ({low} counted seconds)" if low == high else f" ({low} to {high} counted seconds{by_machine})"


def budget_unit(unit: str) -> str:
    """Returns a budget's unit: seconds are counted ones."""
    return "counted seconds" if unit == "seconds" else unit_name(unit)


def spaces(runs: pd.DataFrame) -> str:
    """Returns the names of the spaces that the runs drew from."""
    return ", ".join(sorted(runs["space"].unique()))


def each_of(counts: pd.Series, noun: str) -> str:
    """Returns how many runs stand behind each of several medians: `6 runs` or, where counts differ, `6 runs or more`."""
    return plural(int(counts.min()), noun) + (" or more" if counts.max() > counts.min() else "")


def medians_over(counts: pd.Series, noun: str) -> str:
    """Returns `medians over 6 runs` or, where none of them is over more than one, `one run each`."""
    return f"one {noun} each" if counts.max() == 1 else f"medians over {each_of(counts, noun)}"


def listed(names: Sequence[str]) -> str:
    """Returns `a`, `a and b` or `a, b and c`; of many names the first, and how many more there are.

    Where names have commas of their own, semicolons part them.
    """
    names = first_few(names)
    if len(names) < 3:
        return " and ".join(names)
    if any(", " in name for name in names):
        return f"{'; '.join(names[:-1])}; and {names[-1]}"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def first_few(names: Sequence[str]) -> Sequence[str]:
    """Returns as many names as a sentence takes, of which the last may be `28 more`."""
    return names if len(names) <= MOST_LISTED else [*names[: MOST_LISTED - 1], f"{len(names) - MOST_LISTED + 1} more"]


def spread(fewest: int, most: int, noun: str = "run") -> str:
    """Returns what stands around medians over so many runs: 95 % intervals or, of few runs, ranges; one run has neither."""
    if most == 1:
        return ""
    if most < FEWEST_WITH_INTERVAL:
        return f"ranges (too few {noun}s for an interval)"
    few = f"{INTERVALS} or, of fewer than {FEWEST_WITH_INTERVAL} {noun}s, ranges"
    return INTERVALS if fewest >= FEWEST_WITH_INTERVAL else few


def within(low: str, high: str, runs: int) -> str:
    """Returns the ends of an interval in brackets or, where so many runs have none, those of their range in parentheses."""
    return f"[{low}, {high}]" if runs >= FEWEST_WITH_INTERVAL else f"({low}, {high})"


def with_ends(value: float, low: float, high: float, runs: int) -> str:
    """Returns a median loss of so many runs with the ends of its interval or range, if it has one."""
    if math.isnan(low):
        return loss_text(value)
    return f"{loss_text(value)} {within(loss_text(low), loss_text(high), runs)}"


def breakable(text: str) -> str:
    """Returns a text whose long words may be broken, by spaces of no width, where a line or a table's column ends, and
    names of plug-ins, `FILE.py:NAME`, after the colon; percent signs stay beside their numbers."""
    text = re.sub(r"(?<=\d) %", "\u00a0%", text)
    text = PLUGIN_COLON.sub(":\u200b", text)
    return LONG_WORD.sub(lambda word: "\u200b".join(textwrap.wrap(word[0], BREAK_AFTER)), text)


def amount_text(amount: float) -> str:
    """Returns a budget to three digits or, from 1,000 on, as a whole number."""
    return f"{amount:.0f}" if amount >= 1000 else f"{amount:.3g}"


def loss_text(value: float) -> str:
    """Returns a loss to three digits, as `decimal` writes it."""
    return decimal(float(f"{value:.3g}")) if math.isfinite(value) else f"{value:g}".replace("inf", "∞")


def decimal(value: float, position: float | None = None) -> str:
    """Returns a tick's label: a number as it is said, a very small or very large one by its power of ten."""
    if value == 0 or 9e-5 < abs(value) < 1e5:
        return f"{value:g}"
    mantissa, exponent = map(float, f"{value:.2e}".split("e"))
    power = f"10{f'{exponent:.0f}'.translate(RAISED)}"
    return power if mantissa == 1 else f"{mantissa:g}·{power}"


def two_digits(value: float) -> str:
    """Returns a number to two digits, as `decimal` writes it."""
    return decimal(float(f"{value:.2g}")) if math.isfinite(value) else "∞"


def percent(share: float, form: str = ".0f") -> str:
    """Returns a share in percent: in whole ones, or as the format says."""
    return f"{100 * share:{form}} %"


def order_of(runs: pd.DataFrame) -> tuple[int, str]:
    """Returns what puts methods, of which these are the runs of one, in order."""
    first = runs.iloc[0]
    return first["place"], first["label"]
