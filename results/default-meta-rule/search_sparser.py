"""Measures windows that tune fewer steps, over AdamW, in trainings of about the same time.

    python results/default-meta-rule/search_sparser.py [--tasks TASK ...] [--names NAME ...] [--seeds ...]
    python results/default-meta-rule/search_sparser.py --table

A training has as many steps as fit into the time of 6,400 steps of AdamW with an average, by the costs of COSTS.  Appends
one line a run to sparser.csv; what is found there is not run again.  Candidates are compared on validation loss, that of
the selected model; test losses are there for the report.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from pathlib import Path

import torch

import oho
from bench.experiment.expansion import load_experiment
from bench.records import read_runs
from bench.run.runner import run
from bench.tracking.wandb_sink import NoSink

TABLE = Path(__file__).parent / "sparser.csv"
TASKS = ("mnist-mlp", "fashion-mnist-mlp")
TIME = 6400
COSTS = {"first 100": 4.0, "tuned": 3.3, "plain": 1.15}
"""What a step costs in steps of AdamW with an average, on one thread of a 2-core AMD EPYC: one of the first 100, of which
each makes a meta-step, a later tuned one, and one between windows."""
CANDIDATES = {
    "400, 50 of 200": (400, 50, 200), "400, 50 of 400": (400, 50, 400), "400, 100 of 800": (400, 100, 800),
    "400, 50 of 800": (400, 50, 800), "200, 50 of 400": (200, 50, 400), "100, 50 of 400": (100, 50, 400),
}  # fmt: skip
COLUMNS = ("task", "candidate", "seed", "steps", "lr_first", "decay_first", "validation", "test", "lr", "decay")
CONFIG = """
experiment: sparser
figures: [anytime]
task: {{name: {task}}}
budget: {{steps: {steps}}}
space: fair
seeds: [{seed}]
evaluations: 10
threads: 1
tracking: {{mode: disabled}}
methods: [{{name: oho-averaged, optimizer: adamw}}]
"""


def steps_of(candidate: str) -> int:
    """Returns how many steps fit into the time."""
    windows, spent, steps = oho.Windows(*CANDIDATES[candidate]), 0.0, 0
    while spent < TIME:
        steps += 1
        is_tuned = windows.count(steps) > windows.count(steps - 1)
        spent += COSTS["plain" if not is_tuned else "first 100" if steps <= 100 else "tuned"]
    return steps


def measured(task: str, candidate: str, seed: int) -> list[object]:
    """Makes one run and returns its line."""
    steps = steps_of(candidate)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "sparser.yaml"
        path.write_text(CONFIG.format(task=task, seed=seed, steps=steps), encoding="utf-8")
        (spec,) = load_experiment(path).specs
        windows = dict(zip(("first", "length", "period"), CANDIDATES[candidate], strict=True))
        spec = {**spec, "method": {**spec["method"], "windows": windows}}
        run(spec, Path(name), data_root=None, open_sink=lambda *given: NoSink())
        (made,) = read_runs(Path(name))
    final = made.outcome.final
    first = {key: values[0] for key, values in made.evaluations[0]["hyper"].items()}
    losses = [f"{final[f'incumbent_{split}_loss']:.5f}" for split in ("validation", "test")]
    last = [f"{final['hyper'][name][0]:.3g}" for name in ("lr", "weight_decay")]
    return [task, candidate, seed, steps, f"{first['lr']:.3g}", f"{first['weight_decay']:.3g}", *losses, *last]


def rows() -> list[dict[str, str]]:
    """Returns what has been measured."""
    if not TABLE.exists():
        return []
    with TABLE.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table() -> str:
    """Returns a line for each task and candidate: medians over seeds, and the range of the last learning rates."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows():
        found.setdefault((row["task"], row["candidate"]), []).append(row)
    head = ("task", "windows", "seeds", "steps", "validation: median, worst", "test", "last learning rates")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (task, candidate), runs in sorted(found.items()):
        validation, test, rates = (sorted(float(run[key]) for run in runs) for key in ("validation", "test", "lr"))
        lines.append(
            f"| {task} | {candidate} | {len(runs)} | {runs[0]['steps']} | {statistics.median(validation):.3g},"
            f" {validation[-1]:.3g} | {statistics.median(test):.3g} | {rates[0]:.1e} to {rates[-1]:.1e} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--names", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[30, 31, 32, 33])
    parser.add_argument("--table", action="store_true", help="print what was measured")
    given = parser.parse_args()
    if given.table:
        print(table())
        return
    torch.set_num_threads(1)
    wanted = [(t, c, s) for s in given.seeds for t in given.tasks for c in given.names]
    for item in wanted:
        if any((row["task"], row["candidate"], int(row["seed"])) == item for row in rows()):
            continue
        line = measured(*item)
        is_new = not TABLE.exists()
        with TABLE.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([*([COLUMNS] if is_new else []), line])
        print(*line, flush=True)


if __name__ == "__main__":
    main()
