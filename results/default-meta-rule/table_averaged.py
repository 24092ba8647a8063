"""Writes README.md's tables of candidates over averaged weights from averaged.csv, windows.csv and short.csv.

    python results/default-meta-rule/table_averaged.py

A run's loss is the lowest of its validation losses, as a run selected on validation keeps it.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import search_averaged
import search_short
import search_windows

HERE = Path(__file__).parent
HALF_OF_CHANCE = math.log(10) / 2
IMAGES = ("digits-mlp", "mnist-mlp", "fashion-mnist-mlp", "fashion-cnn")
LOST = dict.fromkeys(IMAGES, HALF_OF_CHANCE) | {"diabetes-mlp": 1.0}
"""A run is lost that never gets below this: half the loss of chance, or, of diabetes, that of one prediction for all."""
RUN = ["task", "candidate", "start", "seed"]
TABLES = {
    "averaged": search_averaged.candidates(), "windows": search_windows.candidates(), "short": search_short.candidates(),
}  # fmt: skip


def lowest(name: str) -> pd.DataFrame:
    """Returns one row a run of a table: its lowest validation loss, its last rate, and whether it is lost."""
    table = pd.read_csv(HERE / f"{name}.csv").sort_values("units")
    if "budget" in table:
        table["task"] += table["budget"].map(", {:,} steps".format)
    kept = {"loss": ("validation_loss", "min"), "lr": ("lr", "last"), "steps": ("step", "last")}
    runs = table.groupby(RUN, as_index=False).agg(**kept)
    runs["loss"] = runs["loss"].fillna(math.inf)
    half = table[table["units"] <= table.groupby("task")["units"].transform("max") / 2]
    runs = runs.merge(half.groupby(RUN)["validation_loss"].min().rename("half").reset_index(), on=RUN, how="left")
    runs["lost"] = runs["loss"] > runs["task"].str.split(",").str[0].map(LOST)
    return runs


def rows(runs: pd.DataFrame) -> list[str]:
    """Returns the lines of the table, by task, fewest lost runs and then lowest worst start first."""
    lines = [
        "| task | candidate | steps | lost | worst start | median | by start: lowest validation loss, in half the steps"
        " (last rate) |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, of_task in runs.groupby("task", sort=False):
        starts = of_task.groupby(["candidate", "start"]).median(numeric_only=True).reset_index()
        found = of_task.groupby("candidate").agg(lost=("lost", "sum"), runs=("lost", "size"), steps=("steps", "first"),
                                                 median=("loss", "median"))  # fmt: skip
        found["worst"] = starts.groupby("candidate")["loss"].max()
        found["constant"] = [name.startswith("constant") for name in found.index]
        for name, row in found.sort_values(["constant", "lost", "worst"]).iterrows():
            own = starts[starts["candidate"] == name]
            cells = "; ".join(
                f"{start:g}: {loss:.4f}, {half:.4f} ({lr:.2g})"
                for start, loss, half, lr in own[["start", "loss", "half", "lr"]].to_numpy()
            )
            worst = "" if row["constant"] else f"{row['worst']:.4f}"
            median = f"best {own['loss'].min():.4f}" if row["constant"] else f"{row['median']:.4f}"
            lost = "" if row["constant"] else f"{row['lost']:.0f} of {row['runs']:.0f}"
            lines.append(f"| {task} | {name} | {row['steps']:.0f} | {lost} | {worst} | {median} | {cells} |")
    return lines


def main() -> None:
    """Replaces what stands between the marks of README.md."""
    path = HERE / "README.md"
    text = path.read_text(encoding="utf-8")
    for name, candidates in TABLES.items():
        order = {candidate: place for place, candidate in enumerate(candidates)}
        body = rows(lowest(name).sort_values("candidate", key=lambda names, order=order: names.map(order), kind="stable"))
        head, _, rest = text.partition(f"<!-- {name} -->\n")
        _, _, tail = rest.partition(f"<!-- end of {name} -->\n")
        text = f"{head}<!-- {name} -->\n" + "\n".join(body) + f"\n<!-- end of {name} -->\n{tail}"
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
