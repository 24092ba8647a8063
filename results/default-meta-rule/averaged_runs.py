"""Runs of Averaged OHO for searches: each is made once and appended, as a line, to a table that is kept."""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.experiment.expansion import load_experiment
from bench.records import read_runs
from bench.run.runner import run
from bench.tracking.wandb_sink import NoSink

FOUND = ("lr_first", "decay_first", "validation", "test", "lr", "decay")
"""The columns that `made` fills."""
CONFIG = """
experiment: search
figures: [anytime]
task: {{name: {task}}}
budget: {{steps: {steps}}}
space: fair
seeds: [{seed}]
evaluations: 10
threads: 1
tracking: {{mode: disabled}}
methods: [{{name: oho-averaged, optimizer: {rule}{given}}}]
"""


def made(task: str, rule: str, *, steps: int, seed: int, options: Mapping[str, Any], given: str = "") -> list[str]:
    """Makes one run, whose method has these options, and returns its first values, losses and last values.

    `given` is added to the method in the configuration: ", lr: 1e-5".
    """
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "search.yaml"
        path.write_text(CONFIG.format(task=task, rule=rule, seed=seed, steps=steps, given=given), encoding="utf-8")
        (spec,) = load_experiment(path).specs
        spec = {**spec, "method": {**spec["method"], **options}}
        run(spec, Path(name), data_root=None, open_sink=lambda *given: NoSink())
        (found,) = read_runs(Path(name))
    final = found.outcome.final
    first = {key: values[0] for key, values in found.evaluations[0]["hyper"].items()}
    losses = [f"{final[f'incumbent_{split}_loss']:.5f}" for split in ("validation", "test")]
    last = [f"{final['hyper'][name][0]:.3g}" for name in ("lr", "weight_decay")]
    return [f"{first['lr']:.3g}", f"{first['weight_decay']:.3g}", *losses, *last]


def rows(table: Path) -> list[dict[str, str]]:
    """Returns what has been measured."""
    if not table.exists():
        return []
    with table.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def measure(table: Path, keys: Sequence[str], wanted: Iterable[tuple], measured: Callable[..., list[object]],
            columns: Sequence[str]) -> None:  # fmt: skip
    """Appends to the table the line of each item that it lacks; `keys` are the columns of an item's values."""
    torch.set_num_threads(1)
    known = {tuple(row[key] for key in keys) for row in rows(table)}
    for item in wanted:
        if tuple(map(str, item)) in known:
            continue
        line, is_new = measured(*item), not table.exists()
        with table.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([*([columns] if is_new else []), line])
        print(*line, flush=True)


def grouped(found: Iterable[dict[str, str]], keys: Sequence[str]) -> list[tuple[tuple[str, ...], list[dict[str, str]]]]:
    """Returns the lines that share their keys, in the order of these."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in found:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return sorted(groups.items())


def table(path: Path, alike: Sequence[str], head: Sequence[str], last: str, *, beside: Sequence[str] = ()) -> str:
    """Returns a line for the runs that share the values of `alike`: medians over seeds, and the range of the column `last`.

    `beside` names columns whose values these runs share, too, and which stand behind their number.
    """
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for values, runs in grouped(rows(path), alike):
        validation, test, ends = (sorted(float(run[key]) for run in runs) for key in ("validation", "test", last))
        cells = (
            *values, len(runs), *(runs[0][name] for name in beside),
            f"{statistics.median(validation):.3g}, {validation[-1]:.3g}", f"{statistics.median(test):.3g}",
            f"{ends[0]:.1e} to {ends[-1]:.1e}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def parser(
    description: str | None, *, tasks: Iterable[str], usual: Sequence[str], seeds: Sequence[int]
) -> argparse.ArgumentParser:
    """Returns a parser of what all searches take: tasks, seeds, and whether to print the table alone."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--tasks", nargs="+", choices=list(tasks), default=usual)
    made.add_argument("--seeds", nargs="+", type=int, default=seeds)
    made.add_argument("--table", action="store_true", help="print what was measured")
    return made
