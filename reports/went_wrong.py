"""What was not run, and what went wrong: the lines of the report's last page."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bench.records.schema import TIMED
from reports import published
from reports.clocks import unlike_clocks
from reports.registry import FIGURES
from reports.selection import MEASURED
from reports.tables import Tables
from reports.words import plural

LISTED = 12
"""How many disturbed runs, and how many changed ones, are named one by one."""
FEW = 3
"""How many disturbed runs of an experiment are named where their seconds are not the budget."""


def absent(tables: Tables) -> list[str]:
    """Names figures that no experiment feeds, and the paper's tasks without a run."""
    fed = {name for manifest in tables.manifests for name in manifest.figures}
    sentences = [f"{entry.title}: {entry.description}" for name, entry in FIGURES.items() if name not in fed]
    tasks = set(tables.runs["task"].dropna())
    return sentences + [f"The paper's experiments on {data}" for task, data in published.TASKS.items() if task not in tasks]


def problems(runs: pd.DataFrame) -> list[str]:
    """Returns a line for each failed, unfinished or disturbed run, and one for each experiment's runs not started."""
    open_runs = runs.drop_duplicates("run")
    open_runs = open_runs[~open_runs["status"].isin(MEASURED)]
    found = []
    for experiment, group in open_runs.groupby("experiment"):
        missing = int((group["status"] == "missing").sum())
        found += [f"{experiment}: {missing} of its planned runs were not started"] if missing else []
        for row in group[group["status"] != "missing"].to_dict("records"):
            said = f": {row['last_line']}" if isinstance(row["last_line"], str) and row["last_line"] else ""
            status = row["status"].replace("_", " ") + said
            found.append(f"{experiment}, {row['label']}, seed {row['seed']:.0f} ({row['run']}): {status}")
    measured = runs[runs["status"].isin(MEASURED)].drop_duplicates("run")
    is_timed = measured["unit"].isin(TIMED)
    return [
        *found,
        *_named(measured[is_timed], "disturbed_because", "not valid"),
        *_counted(measured[~is_timed], "disturbed_because", "losses valid, seconds not"),
        *_named(measured, "resumed_with", "resumed with"),
        *(
            f"{experiment}: seconds of unlike {unlike.kind} cannot be compared: {unlike.members}"
            for experiment, group in measured.groupby("experiment")
            if (unlike := unlike_clocks(group, in_seconds=True))
        ),
    ]


def _named(runs: pd.DataFrame, column: str, what: str) -> list[str]:
    """Returns a line for each run that has something in a text column, and one for those too many to be named."""
    found = runs[runs[column] != ""]
    lines = [
        f"{row['experiment']}, {row['label']}, seed {row['seed']:.0f} ({row['run']}): {what}: {row[column]}"
        for row in found.head(LISTED).to_dict("records")
    ]
    if len(found) > LISTED:
        more = plural(len(found) - LISTED, "more run")
        lines.append(f"{more}: {what}; the table of runs in the page has them all")
    return lines


def _counted(runs: pd.DataFrame, column: str, what: str) -> Iterator[str]:
    """Yields a line for each run that has something in a text column, and one for an experiment that has many of them."""
    for experiment, group in runs.groupby("experiment"):
        found = int((group[column] != "").sum())
        if found > FEW:
            yield f"{experiment}, {found} of {plural(len(group), 'run')}: {what}; the page's table of runs says why"
        else:
            yield from _named(group, column, what)
