"""Writes README.md's tables and figure from trajectories.csv.

    python results/default-meta-rule/table.py

A candidate is chosen on validation losses alone; test losses are reported of the chosen one and of the published settings.
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter

from reports.style import PAGE_INCHES, figure_style

HERE = Path(__file__).parent
CHANCE = math.log(10)
EXPLODED = 1e4
TASKS = ("digits-mlp", "mnist-mlp", "fashion-mnist-mlp")
PUBLISHED = "published"
RUN = ["candidate", "task", "start", "seed"]


def last_evaluations() -> pd.DataFrame:
    """One row a run: its last evaluation, `lost` if it ended at chance or worse, `exploded` if its influence did."""
    table = pd.read_csv(HERE / "trajectories.csv")
    ends = table.sort_values("epoch").groupby(RUN, as_index=False).last()
    ends["lost"] = ~(ends["validation_loss"] < CHANCE)
    ends["exploded"] = ~(ends["largest_influence_norm"] < EXPLODED) | (ends["skipped"] > 0)
    return ends


def candidates(ends: pd.DataFrame) -> list[str]:
    """Validation by candidate and task, the best first."""
    lines = [
        "| candidate | task | runs | validation loss: median | worst | lost | exploded | longest influence |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in TASKS:
        group = ends[ends["task"] == task].groupby("candidate")
        rows = group.agg(
            runs=("seed", "size"), median=("validation_loss", "median"), worst=("validation_loss", "max"),
            lost=("lost", "sum"), exploded=("exploded", "sum"), norm=("largest_influence_norm", "max"),
        )  # fmt: skip
        for name, row in rows.sort_values(["lost", "exploded", "median"]).iterrows():
            lines.append(
                f"| {name} | {task} | {row['runs']:.0f} | {row['median']:.4f} | {row['worst']:.4g} | {row['lost']:.0f} |"
                f" {row['exploded']:.0f} | {row['norm']:.3g} |"
            )
    return lines


def test_losses(ends: pd.DataFrame, chosen: str) -> list[str]:
    """Median test loss [least, largest] by start, the chosen candidate beside the published settings."""
    lines = [f"| task | initial learning rate | {chosen} | published | seeds |", "|---|---|---|---|---|"]
    for task in TASKS:
        for start in sorted(ends["start"].unique()):
            cells, seeds = [], []
            for name in (chosen, PUBLISHED):
                losses = ends[(ends["candidate"] == name) & (ends["task"] == task) & (ends["start"] == start)]["test_loss"]
                seeds.append(str(len(losses)))
                cells.append(f"{losses.median():.4f} [{losses.min():.4f}, {losses.max():.4f}]" if len(losses) else "–")
            lines.append(f"| {task} | {start:g} | {cells[0]} | {cells[1]} | {' / '.join(seeds)} |")
    return lines


def choose(ends: pd.DataFrame) -> str:
    """Of the candidates that lost no run and kept their influence, the one of the lowest mean rank over the tasks.

    Finalists were measured from every start on every task; they are compared by their median validation losses on the runs
    that all of them have.
    """
    bad = ends[ends["lost"] | ends["exploded"]]["candidate"].unique()
    runs = ends.set_index(RUN)["validation_loss"].unstack("candidate")
    wanted = len(TASKS) * ends["start"].nunique()
    finalists = [
        name
        for name in runs
        if name not in (*bad, PUBLISHED) and runs[name].dropna().groupby(["task", "start"]).ngroups == wanted
    ]
    return runs[finalists].dropna().groupby("task").median().rank(axis=1).mean().idxmin()


def draw(chosen: str) -> None:
    """Learning rate and test loss over the epochs, a line for each start (median over seeds), two tasks."""
    table = pd.read_csv(HERE / "trajectories.csv")
    looks = {
        PUBLISHED: ("--", "#7F7F7F", "published settings"),
        chosen: ("-", "#009E73", chosen),
    }
    with figure_style():
        figure, axes = plt.subplots(2, 2, figsize=(PAGE_INCHES, 4.2), sharex=True)
        for column, task in zip(axes.T, TASKS[1:], strict=True):
            for name, (style, colour, label) in looks.items():
                rows = table[(table["task"] == task) & (table["candidate"] == name)]
                for axis, value in zip(column, ("lr", "test_loss"), strict=True):
                    middle = rows.groupby(["epoch", "start"])[value].median().unstack()
                    axis.plot(middle.index, middle, style, color=colour, lw=1, label=label)
            column[0].set(title=task, yscale="log", ylabel="learning rate")
            column[1].set(yscale="log", ylabel="test loss, nats", xlabel="epoch")
            for axis in column:
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_formatter(NullFormatter())
            handles, labels = column[1].get_legend_handles_labels()
            first = dict(zip(labels, handles, strict=True))
            column[1].legend(first.values(), first, loc="upper right")
        figure.savefig(HERE / "trajectories.png", dpi=200)


def main() -> None:
    """Replaces what stands between the marks of README.md."""
    ends = last_evaluations()
    chosen = choose(ends)
    path = HERE / "README.md"
    head, _, rest = path.read_text(encoding="utf-8").partition("<!-- tables -->\n")
    _, _, tail = rest.partition("<!-- end of tables -->\n")
    body = [f"Chosen on validation: **{chosen}**.", "", "### Test loss after the last epoch", "",
            *test_losses(ends, chosen), "", "### All candidates, validation", "", *candidates(ends), ""]  # fmt: skip
    path.write_text(head + "<!-- tables -->\n" + "\n".join(body) + "<!-- end of tables -->\n" + tail, encoding="utf-8")
    print("\n".join(body))
    draw(chosen)


if __name__ == "__main__":
    main()
